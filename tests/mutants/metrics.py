"""Answers to the exercises of chapter 15."""

import math

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.image_metrics import covariance, frechet_distance

# ---- 15.1


def interval(middle=1, half=1, root=lambda p, n, z: p * (1 - p) / n + z**2 / (4 * n**2), power=0.5):
    """Wilson's interval with some of its parts changed.

    Args:
        middle, half: 1 for the right part, "wide" for one that is not divided, "plain" for that of the plain interval.
        root: what stands under the root.
        power: of it.
    """

    def answer(right, count, z):
        p, wider = right / count, 1 + z**2 / count
        own = {"plain": p, "wide": p + z**2 / (2 * count), 1: (p + z**2 / (2 * count)) / wider}[middle]
        spread = z * root(p, count, z) ** power
        spread = {"plain": z * math.sqrt(p * (1 - p) / count), "wide": spread, 1: spread / wider}[half]
        return own - spread, own + spread

    return answer


def by_the_equation(right, count, z):
    # (p - x)² = z² x (1 - x) / n is a quadratic equation in x, and its roots are the ends
    p, a = right / count, 1 + z * z / count
    b, c = -2 * p - z * z / count, p * p
    root = math.sqrt(max(0.0, b * b - 4 * a * c))
    return (-b - root) / (2 * a), (-b + root) / (2 * a)


def by_bisection(right, count, z):
    def rejected(x):
        return abs(right / count - x) > z * math.sqrt(x * (1 - x) / count)

    def edge(inside, outside):
        if not rejected(outside):
            return outside
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if rejected(middle) else (middle, outside)
        return inside

    return edge(right / count, 0.0), edge(right / count, 1.0)


def by_tensors(right, count, z):
    p = torch.tensor(right / count, dtype=torch.float64)
    ends = p + z**2 / (2 * count) + z * torch.tensor([-1.0, 1.0]) * (p * (1 - p) / count + (z / 2 / count) ** 2).sqrt()
    return list(ends / (1 + z**2 / count))


def agresti(right, count, z):
    n = count + z**2
    p = (right + z**2 / 2) / n
    return p - z * math.sqrt(p * (1 - p) / n), p + z * math.sqrt(p * (1 - p) / n)


def plain_within(right, count, z):
    low, high = interval("plain", "plain")(right, count, z)
    return max(0, low), min(1, high)


def only_at_the_ends(right, count, z):
    return interval()(right, count, z) if 0 < right < count else (right / count, right / count)


# ---- 15.2


def similarity(a, b, window, unbiased=0, c1=0.01**2, c2=0.03**2, twice=2, light=True, together=None):
    """(B, C, h, w) of pictures from 0 to 1, with some of its parts changed."""
    cut = [z.unfold(2, window, window).unfold(3, window, window).flatten(4) for z in (a, b)]  # (B, C, h, w, n)
    mean_a, mean_b = (z.mean(-1) for z in cut)
    var_a, var_b = (z.var(-1, correction=unbiased) for z in cut)
    cov = ((cut[0] - mean_a[..., None]) * (cut[1] - mean_b[..., None])).sum(-1) / (window**2 - unbiased)
    if together:
        cov = together(var_a, var_b)
    first = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return (first if light else 1) * (twice * cov + c2) / (var_a + var_b + c2)


def ssim_map(**changes):
    """The answer with these changes to `similarity`."""
    return lambda x, y, window: similarity((x + 1) / 2, (y + 1) / 2, window, **changes).mean(1)


def cut_by_reshape(x, y, window):
    batch, channels, height, width = x.shape
    shape = batch, channels, height // window, width // window, window**2
    a, b = ((z.reshape(shape) + 1) / 2 for z in (x, y))
    (va, ma), (vb, mb) = (torch.var_mean(z, -1, correction=0) for z in (a, b))
    cov = (a * b).mean(-1) - ma * mb
    return ((2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4) * (2 * cov + 9e-4) / (va + vb + 9e-4)).mean(1)


def sliding(x, y, window):
    a, b = (x + 1) / 2, (y + 1) / 2

    def mean(z):
        return F.avg_pool2d(z, window, stride=1)

    ma, mb = mean(a), mean(b)
    spread = mean(a * a) - ma**2 + mean(b * b) - mb**2
    return (
        (2 * ma * mb + 1e-4) / (ma**2 + mb**2 + 1e-4) * (2 * (mean(a * b) - ma * mb) + 9e-4) / (spread + 9e-4)
    ).mean(1)


def by_pooling(x, y, window):
    # brightness from 0 to 2, and constants for that range: the same number
    a, b = (x + 1).double(), (y + 1).double()
    ma, mb, mab, squares = (F.avg_pool2d(z, window) for z in (a, b, a * b, a * a + b * b))
    c1, c2 = 0.02**2, 0.06**2
    first = (2 * ma * mb + c1) / (ma**2 + mb**2 + c1)
    return (first * (2 * (mab - ma * mb) + c2) / (squares - ma**2 - mb**2 + c2)).mean(1)


def by_numpy_loops(x, y, window):
    a, b = (x.numpy() + 1) / 2, (y.numpy() + 1) / 2
    batch, channels, height, width = a.shape
    rows, columns = height // window, width // window
    out = np.zeros((batch, rows, columns))
    for n, i, j, c in np.ndindex(batch, rows, columns, channels):
        place = n, c, slice(i * window, (i + 1) * window), slice(j * window, (j + 1) * window)
        p, q = a[place].ravel(), b[place].ravel()
        (vp, cov), (_, vq) = np.cov(p, q, bias=True)
        light = (2 * p.mean() * q.mean() + 1e-4) / (p.mean() ** 2 + q.mean() ** 2 + 1e-4)
        out[n, i, j] += light * (2 * cov + 9e-4) / (vp + vq + 9e-4) / channels
    return out


# ---- 15.3


def counts(cosines):
    own = cosines.diagonal()[:, None]
    return (cosines > own).sum(1), (cosines == own).sum(1)


def fair(cosines, k):
    better, equal = counts(cosines)
    return ((k - better) / equal).clamp(0, 1).mean().item()


def fair_by_loop(cosines, k):
    total = 0.0
    for i, row in enumerate(cosines.tolist()):
        better, equal = sum(x > row[i] for x in row), row.count(row[i])
        total += min(max(k - better, 0), equal) / equal
    return total / len(cosines)


def fair_by_every_place(cosines, k):
    better, equal = counts(cosines)
    places = torch.arange(len(cosines))  # 0 is the best
    possible = (places >= better[:, None]) & (places < (better + equal)[:, None])  # (N, N)
    return (possible[:, :k].double().sum(1) / possible.double().sum(1)).mean()


def fair_by_numpy(cosines, k):
    c = cosines.numpy().astype(np.float64)
    own = np.diag(c)[:, None]
    equal = (c == own).sum(1)
    return np.minimum(np.maximum(k - (c > own).sum(1), 0) / equal, 1).mean()


def by_topk(cosines, k):
    found = cosines.topk(k, 1).indices == torch.arange(len(cosines))[:, None]
    return found.any(1).double().mean().item()


def by_stable_sort(cosines, k):
    order = cosines.argsort(dim=1, descending=True, stable=True)
    return (order[:, :k] == torch.arange(len(cosines))[:, None]).any(1).double().mean()


def half_marks(cosines, k):
    better, equal = counts(cosines)
    return torch.where((equal > 1) & (better < k), 0.5, ((better + equal) <= k).double()).mean()


def by_lot(cosines, k):
    return by_topk(cosines + 1e-4 * torch.rand(cosines.shape, generator=torch.Generator().manual_seed(0)), k)


# ---- 15.4


def bells(means, covariances, twice=2.0):
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return (means[0] - means[1]).square().sum() + sum(c.trace() for c in covariances) - twice * root


def whole(parts):
    return torch.cat(list(parts)).double()


def by_sums(real, generated):
    both = []
    for parts in (real, generated):
        n, total, products = 0, 0.0, 0.0
        for part in parts:
            part = part.double()
            n, total, products = n + len(part), total + part.sum(0), products + part.T @ part
        both.append((total / n, (products - torch.outer(total, total) / n) / (n - 1)))
    return bells(*zip(*both, strict=True))


def by_numpy_cov(real, generated):
    x, y = (np.concatenate([part.numpy() for part in parts]).astype(np.float64) for parts in (real, generated))
    a, b = np.cov(x.T), np.cov(y.T)
    root = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a) + np.trace(b) - 2 * root


def distances(real, generated):
    return [frechet_distance(a, b) for a, b in zip(real, generated, strict=False)]


def weighted(real, generated):
    sizes = [len(part) for part in real]
    return sum(n * d for n, d in zip(sizes, distances(real, generated), strict=False)) / sum(sizes)


def from_parts(mean_of, covariance_of):
    """The distance of two bells whose means and covariances are put together from the batches'."""

    def answer(real, generated):
        sides = [[part.double() for part in parts] for parts in (real, generated)]
        return bells([mean_of(parts) for parts in sides], [covariance_of(parts) for parts in sides])

    return answer


def mean_of_means(parts):
    return torch.stack([part.mean(0) for part in parts]).mean(0)


def mean_of_covariances(parts):
    return torch.stack([covariance(part) for part in parts]).mean(0)


def weighted_covariances(parts):
    return sum(len(part) * covariance(part) for part in parts) / sum(map(len, parts))


def mean_of_whole(parts):
    return whole(parts).mean(0)


def pairs_only(real, generated):
    both = list(zip(real, generated, strict=False))
    return frechet_distance(*(torch.cat(parts) for parts in zip(*both, strict=True)))


def root_of_elements(real, generated):
    x, y = whole(real), whole(generated)
    a, b = covariance(x), covariance(y)
    return (x.mean(0) - y.mean(0)).square().sum() + (a + b - 2 * (a @ b).abs().sqrt()).trace()


WRONG = {
    "check_wilson_interval": {
        "plain": (interval("plain", "plain"), "the plain interval"),
        "plain, within 0 and 1": (plain_within, "the plain interval"),
        "plain half width": (interval(1, "plain"), "half width is the plain one"),
        "middle not moved": (interval("plain", 1), "moves towards 1/2"),
        "half not divided": (interval(1, "wide"), "half width is not divided"),
        "middle not divided": (interval("wide", 1), "middle is not divided"),
        "nothing divided": (interval("wide", "wide"), "neither part"),
        "root lost a part": (interval(root=lambda p, n, z: p * (1 - p) / n), "has lost"),
        "no root": (interval(power=1), "root is missing"),
        "n not squared": (interval(root=lambda p, n, z: p * (1 - p) / n + z**2 / (4 * n)), "there is squared"),
        "Agresti and Coull": (agresti, "Agresti"),
        "numbers of pictures": (lambda r, n, z: tuple(n * x for x in interval()(r, n, z)), "numbers of pictures"),
        "percents": (lambda r, n, z: tuple(100 * x for x in interval()(r, n, z)), "percents"),
        "swapped": (lambda r, n, z: interval()(r, n, z)[::-1], "swapped"),
        "z not used": (lambda r, n, z: interval()(r, n, 1.96), "only one of many"),
        "middle and half": (
            lambda r, n, z: (sum(interval()(r, n, z)) / 2, (interval()(r, n, z)[1] - interval()(r, n, z)[0]) / 2),
            "return the two ends",
        ),
        "nothing at the ends": (only_at_the_ends, "0 of 10"),
        "one number": (lambda r, n, z: interval()(r, n, z)[0], "low, high"),
    },
    "check_ssim_map": {
        "from -1 to 1": (lambda x, y, w: similarity(x, y, w).mean(1), "black must be 0"),
        "n - 1": (ssim_map(unbiased=1), "divided by n - 1"),
        "constants not squared": (ssim_map(c1=0.01, c2=0.03), "*squared*"),
        "no constants": (ssim_map(c1=0.0, c2=0.0), "constants are missing"),
        "constants exchanged": (ssim_map(c1=0.03**2, c2=0.01**2), "each other's place"),
        "once": (ssim_map(twice=1), "counts once"),
        "contrast": (ssim_map(together=lambda a, b: (a * b).sqrt()), "vary *together*"),
        "no brightness": (ssim_map(light=False), "brightness is missing"),
        "cut by reshape": (cut_by_reshape, "cut wrongly"),
        "turned round": (lambda x, y, w: 1 - ssim_map()(x, y, w), "turned it round"),
        "grey": (lambda x, y, w: ssim_map()(x.mean(1, True), y.mean(1, True), w), "channels are averaged"),
        "first channel": (lambda x, y, w: ssim_map()(x[:, :1], y[:, :1], w), "first channel"),
        "cut off at 0": (lambda x, y, w: ssim_map()(x, y, w).clamp(min=0), "at 0"),
        "one number": (lambda x, y, w: ssim_map()(x, y, w).mean(), "one number for each window"),
        "for each channel": (lambda x, y, w: similarity((x + 1) / 2, (y + 1) / 2, w), "mean over the channels"),
        "every place": (sliding, "one number for each window"),
        "windows of 4": (lambda x, y, w: ssim_map()(x, y, 4), "has the shape"),
    },
    "check_fair_r_precision": {
        "captions look for pictures": (lambda c, k: fair(c.T, k), "captions look for pictures"),
        "count": (lambda c, k: fair(c, k) * len(c), "return their share"),
        "failures": (lambda c, k: 1 - fair(c, k), "failures"),
        "k not used": (lambda c, k: fair(c, 1), "k is not used"),
        "one too many": (lambda c, k: (counts(c)[0] <= k).double().mean(), "one too many"),
        "share of k": (lambda c, k: fair(c, k) / k, "that are right"),
        "smallest": (lambda c, k: fair(-c, k), "smallest cosines"),
        "full marks": (lambda c, k: (counts(c)[0] < k).double().mean(), "full marks"),
        "no marks": (lambda c, k: (sum(counts(c)) <= k).double().mean(), "no marks"),
        "topk": (by_topk, "the place in the"),
        "stable sort": (by_stable_sort, "the place in the"),
        "half marks": (half_marks, "half a mark"),
        "rivals": (
            lambda c, k: ((k - counts(c)[0]) / (counts(c)[1] - 1).clamp(min=1)).clamp(0, 1).mean(),
            "the own caption is one of the equals",
        ),
        "more than one": (lambda c, k: ((k - counts(c)[0]) / counts(c)[1]).mean(), "less than none"),
        "never below 0 only": (lambda c, k: ((k - counts(c)[0]) / counts(c)[1]).clamp(min=0).mean(), "never above 1"),
        "never above 1 only": (lambda c, k: ((k - counts(c)[0]) / counts(c)[1]).clamp(max=1).mean(), "never below 0"),
        "all k for the equals": (
            lambda c, k: ((k / counts(c)[1]).clamp(max=1) * (counts(c)[0] < k)).mean(),
            "takes a place away",
        ),
        "shared with the better": (
            lambda c, k: (
                torch.where(counts(c)[1] > 1, k / sum(counts(c)), (counts(c)[0] < k).float()).clamp(max=1).mean()
            ),
            "sure of their place",
        ),
        "one by lot": (by_lot, "or chance does"),
        "for each picture": (lambda c, k: ((k - counts(c)[0]) / counts(c)[1]).clamp(0, 1), "mean over the pictures"),
    },
    "check_frechet_of_batches": {
        "as it was": (lambda r, g: sum(distances(r, g)) / len(r), "still the mean"),
        "weighed": (weighted, "however the batches are weighed"),
        "sum": (lambda r, g: sum(distances(r, g)), "sum of the batches"),
        "smallest": (lambda r, g: min(distances(r, g)), "smallest"),
        "last": (lambda r, g: frechet_distance(r[-1], g[-1]), "last batch"),
        "first": (lambda r, g: frechet_distance(r[0], g[0]), "first batch"),
        "means of means and of covariances": (from_parts(mean_of_means, mean_of_covariances), "misses how far"),
        "mean of covariances": (from_parts(mean_of_whole, mean_of_covariances), "means are right"),
        "weighted covariances": (from_parts(mean_of_whole, weighted_covariances), "still misses"),
        "mean of means": (from_parts(mean_of_means, lambda parts: covariance(whole(parts))), "small batch"),
        "divided by n": (
            from_parts(mean_of_whole, lambda parts: whole(parts).T.cov(correction=0)),
            "divided by n;",
        ),
        "root": (lambda r, g: frechet_distance(whole(r), whole(g)) ** 0.5, "root of it"),
        "means alone": (lambda r, g: (whole(r).mean(0) - whole(g).mean(0)).square().sum(), "only the means"),
        "pairs of batches": (pairs_only, "no partner"),
        "root of the elements": (root_of_elements, "should be something else"),
        "two numbers": (lambda r, g: torch.tensor(distances(r, g)), "one number"),
    },
}
RIGHT = {
    "check_wilson_interval": {
        "quadratic equation": by_the_equation,
        "bisection": by_bisection,
        "tensors": by_tensors,
        "formula": interval(),
    },
    "check_ssim_map": {"pooling, float64": by_pooling, "NumPy loops": by_numpy_loops, "unfold": ssim_map()},
    "check_fair_r_precision": {
        "formula": fair,
        "loop": fair_by_loop,
        "every place": fair_by_every_place,
        "NumPy": fair_by_numpy,
    },
    "check_frechet_of_batches": {
        "one set": lambda r, g: frechet_distance(torch.cat(list(r)), torch.cat(list(g))),
        "running sums": by_sums,
        "NumPy": by_numpy_cov,
    },
}
