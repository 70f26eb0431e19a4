"""Checks of the exercises of chapter 15: judging pictures."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks.core import Answer, random, several
from course_lib.image_metrics import covariance, frechet_distance

# ---- 15.1


def wilson(right: int, count: int, z: float) -> tuple[float, float]:
    """The shares that a z-test would not reject, having seen `right` of `count`."""
    share, wider = right / count, 1 + z**2 / count
    middle = (share + z**2 / (2 * count)) / wider
    half = z / wider * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return middle - half, middle + half


def check_wilson_interval(function: Callable[[int, int, float], tuple[float, float]], seed: int = 0) -> None:
    """Exercise 15.1: how sure is a share?

    Args:
        function: wilson_interval(right, count, z), two whole numbers and a number -> (low, high).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("wilson_interval", function)
    right, count = 17 + seed % 7, 24 + seed % 5
    for z in (1.96, 1.0):
        share, square = right / count, z**2
        plain = z * math.sqrt(share * (1 - share) / count)
        inside = math.sqrt(share * (1 - share) / count + square / (4 * count**2))
        middle, wider = (share + square / (2 * count)) / (1 + square / count), 1 + square / count
        more, pseudo = count + square, (right + square / 2) / (count + square)
        mistakes = {
            "that is the plain interval, share ± z · √(share (1 - share) / n), which has no width at 0 and 1": (
                share - plain,
                share + plain,
            ),
            "the middle is moved, but the half width is the plain one": (middle - plain, middle + plain),
            "the half width is right, but the middle is the share itself; it moves towards 1/2": (
                share - z / wider * inside,
                share + z / wider * inside,
            ),
            "the half width is not divided by 1 + z²/n": (middle - z * inside, middle + z * inside),
            "the middle is not divided by 1 + z²/n": (
                middle * wider - z / wider * inside,
                middle * wider + z / wider * inside,
            ),
            "neither part is divided by 1 + z²/n": (middle * wider - z * inside, middle * wider + z * inside),
            "the root has lost z²/4n²": (middle - plain / wider, middle + plain / wider),
            "the root is missing": (middle - z / wider * inside**2, middle + z / wider * inside**2),
            "under the root stands z²/4n; the n there is squared": (
                middle - z / wider * math.sqrt(share * (1 - share) / count + square / (4 * count)),
                middle + z / wider * math.sqrt(share * (1 - share) / count + square / (4 * count)),
            ),
            "that is the interval of Agresti and Coull, a good one, but wider than Wilson's": (
                pseudo - z * math.sqrt(pseudo * (1 - pseudo) / more),
                pseudo + z * math.sqrt(pseudo * (1 - pseudo) / more),
            ),
            "these are numbers of pictures; return shares": tuple(count * x for x in wilson(right, count, z)),
            "these are percents; return shares from 0 to 1": tuple(100 * x for x in wilson(right, count, z)),
            "these are the middle and the half width; return the two ends": (middle, z / wider * inside),
            "the ends are swapped; the low one comes first": wilson(right, count, z)[::-1],
            "z is not used; 1.96 is only one of many": wilson(right, count, 1.96),
        }
        found = torch.stack(several(answer, answer(right, count, z), ("low", "high"))).double()
        answer.expect(found, wilson(right, count, z), f"the interval for {right} of {count}, z = {z:g}", mistakes, 1e-6)
    answer.verify("two intervals are right")
    for right, count in ((0, 10), (96, 96), (1, 2)):
        found = torch.stack(several(answer, answer(right, count, 1.96), ("low", "high"))).double()
        answer.expect(found, wilson(right, count, 1.96), f"the interval for {right} of {count}", tolerance=1e-6)
    answer.verify("nothing of 10 and all of 96 have an interval too")
    answer.passed()


# ---- 15.2


def windows_ssim(
    x: Tensor, y: Tensor, size: int, more: int = 0, c1: float = 0.01**2, c2: float = 0.03**2, alike: float = 2.0
) -> Tensor:
    """SSIM of each square window, without a shift of the brightness.

    Args:
        x, y: (B, C, H, W).
        size: of a window.
        more: 1 divides variances and covariance by n - 1.
        c1, c2: the constants.
        alike: how often the covariance counts.
    Returns:
        (B, C, H / size, W / size).
    """

    def mean(z: Tensor) -> Tensor:
        return F.avg_pool2d(z.double(), size)

    mean_x, mean_y = mean(x), mean(y)
    unbiased = size**2 / (size**2 - more)
    spread = (mean(x.double() ** 2) - mean_x**2 + mean(y.double() ** 2) - mean_y**2) * unbiased
    together = (mean(x.double() * y.double()) - mean_x * mean_y) * unbiased
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return brightness * (alike * together + c2) / (spread + c2)


def contrast_only(x: Tensor, y: Tensor, size: int) -> Tensor:
    """As SSIM, but with the product of deviations in place of the covariance."""
    mean_x, mean_y = F.avg_pool2d(x, size), F.avg_pool2d(y, size)
    var_x, var_y = F.avg_pool2d(x**2, size) - mean_x**2, F.avg_pool2d(y**2, size) - mean_y**2
    brightness = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    return brightness * (2 * (var_x * var_y).clamp(min=0).sqrt() + 9e-4) / (var_x + var_y + 9e-4)


def check_ssim_map(function: Callable[[Tensor, Tensor, int], Tensor], seed: int = 0) -> None:
    """Exercise 15.2: structural similarity window by window.

    Args:
        function: ssim_map(input, target, window), twice (B, C, H, W) in [-1, 1] and a number of pixels that divides H
            and W -> (B, H / window, W / window).
        seed: of the pictures it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, size = Answer("ssim_map", function), 2
    x = random(seed, 2, 3, 8, 12).tanh()
    y = (x + 0.5 * random(seed + 1, 2, 3, 8, 12)).clamp(-1, 1)
    a, b = (x + 1) / 2, (y + 1) / 2
    hint = "one number for each window, (B, H / window, W / window); the mean over the channels"
    found = answer.expect_shape(answer(x, y, size), (2, 4, 6), hint)
    right = windows_ssim(a, b, size)
    every = (z.reshape(2, 3, 4, 6, size, size) for z in (a, b))
    mixed = windows_ssim(*(z.flatten(0, 3)[:, None] for z in every), size).view(2, 3, 4, 6)
    mistakes = {
        "brightness is compared from -1 to 1; black must be 0: (x + 1) / 2": windows_ssim(x, y, size),
        "variances and covariance are divided by n - 1; here it is n, a plain mean": windows_ssim(a, b, size, 1),
        "the constants are 0.01 and 0.03 *squared*": windows_ssim(a, b, size, c1=0.01, c2=0.03),
        "the constants are missing": windows_ssim(a, b, size, c1=0, c2=0),
        "the constants are in each other's place": windows_ssim(a, b, size, c1=0.03**2, c2=0.01**2),
        "the covariance counts once; it counts twice": windows_ssim(a, b, size, alike=1.0),
        "the covariance is missing: what varies equally much need not vary *together*": contrast_only(a, b, size),
        "the brightness is missing": right / brightness(a, b, size),
        "only the brightness is compared": brightness(a, b, size),
        "the windows are cut wrongly: `reshape` alone takes pixels that lie one after the other in memory": mixed,
        "1 is equal and 0 is not; you turned it round": 1 - right,
        "the channels are averaged before they are compared; compare each, then average": (
            windows_ssim(a.mean(1, keepdim=True), b.mean(1, keepdim=True), size)
        ),
        "only the first channel is compared": right[:, :1],
        "windows that vary in opposite ways are below 0; keep that": right.clamp(min=0),
    }
    means = {mistake: wrong.mean(1) for mistake, wrong in mistakes.items()}
    answer.expect(found, right.mean(1), "the map of two pictures of 8 x 12, windows of 2", means, 1e-4)
    answer.verify("24 windows of two pictures are right")
    for size in (4, 8):
        z, w = x[:, :, :, :8], y[:, :, :, :8]
        right = windows_ssim((z + 1) / 2, (w + 1) / 2, size).mean(1)
        answer.expect(answer(z, w, size), right, f"the map with windows of {size}", tolerance=1e-4)
    answer.verify("so with windows of 4 and 8")
    answer.expect(answer(x, x, 4), torch.ones(2, 2, 3), "the map of a picture and itself", tolerance=1e-4)
    black = -torch.ones(1, 1, 4, 4)
    hint = "0/0: the constants belong above and below the line"
    answer.expect(answer(black, black, 4), torch.ones(1, 1, 1), "the map of black and black", tolerance=1e-4, hint=hint)
    flat = answer(torch.full((1, 1, 4, 4), -0.8), torch.full((1, 1, 4, 4), 0.2), 4)
    answer.expect(flat, [[[0.3249]]], "the number for flat 0.1 and 0.6", tolerance=1e-3)
    stripes = 0.5 * torch.tensor([1.0, -1.0]).repeat(2).expand(1, 1, 4, 4)
    right = windows_ssim((stripes + 1) / 2, (1 - stripes) / 2, 4).mean(1)
    hint = "It is nearly -1; nothing may be cut off at 0"
    answer.expect(answer(stripes, -stripes, 4), right, "the number for a pattern and its negative", hint=hint)
    answer.verify("equal is 1 in the black too, a pattern and its negative are nearly -1")
    answer.passed()


def brightness(x: Tensor, y: Tensor, size: int) -> Tensor:
    """The first factor of SSIM."""
    mean_x, mean_y = F.avg_pool2d(x.double(), size), F.avg_pool2d(y.double(), size)
    return (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)


# ---- 15.3


def fair_share(cosines: Tensor, k: int) -> Tensor:
    """(N,): the chance that the own caption is among the k best, if ties are broken by lot."""
    own = cosines.diagonal()[:, None]
    better, equal = (cosines > own).sum(1), (cosines == own).sum(1)
    return ((k - better) / equal).clamp(0, 1)


def check_fair_r_precision(function: Callable[[Tensor, int], float], seed: int = 0) -> None:
    """Exercise 15.3: R-precision in which ties earn no more than chance.

    Args:
        function: fair_r_precision(cosines, k), (N, N) and a number from 1 to N -> a share.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("fair_r_precision", function)
    unbounded = "a picture counts more than one, or less than none; keep the chance of each between 0 and 1"
    negative = "a picture counts less than none; its chance is never below 0"
    above = "a picture counts more than one; its chance is never above 1"
    cosines = random(seed, 17, 17) + torch.eye(17)
    for k in (3, 1):
        rank = (cosines > cosines.diagonal()[:, None]).sum(1)
        across = (cosines > cosines.diagonal()).sum(0)
        mistakes = {
            "captions look for pictures; row i is a picture that looks for its caption": (across < k).float().mean(),
            "that is a number of pictures; return their share": (rank < k).sum(),
            "that is the share of failures": (rank >= k).float().mean(),
            "k is not used": (rank < 1).float().mean(),
            "one too many counts: with k = 1 nobody may be better": (rank <= k).float().mean(),
            "one too few counts": (rank < k - 1).float().mean(),
            "that is the share of the k best captions that are right; ask whether the own one is among them": (
                (rank < k).float().mean() / k
            ),
            "the smallest cosines count as the best": (
                ((cosines < cosines.diagonal()[:, None]).sum(1) < k).float().mean()
            ),
            unbounded: (k - rank).float().mean(),
            negative: (k - rank).clamp(max=1).float().mean(),
            above: (k - rank).clamp(min=0).float().mean(),
        }
        found = answer.expect_shape(answer(cosines, k), (), "one number, the mean over the pictures")
        answer.expect(found, (rank < k).float().mean(), f"the share for 17 pictures, k = {k}", mistakes)
    answer.verify("without ties it is R-precision")
    tied, order = (2 * cosines).round(), torch.randperm(17, generator=torch.Generator().manual_seed(seed))
    for k in (1, 2, 5):
        shares = [float(answer.tensor(answer(x, k))) for x in (tied, tied[order][:, order])]
        if abs(shares[0] - shares[1]) > 1e-6:
            answer.fail(
                "the same pictures and captions in another order have another share: among equals, the place in the "
                "list decides, or chance does"
            )
    answer.verify("the order of the captions does not matter")
    full = "that gives full marks where nobody is better: an encoder that cannot tell captions apart passes every exam"
    none = "that gives no marks where somebody is as good; chance would give some"
    for k in (1, 2):
        flat, mistakes = torch.full((4, 4), 0.3), {full: 1.0, none: 0.0}
        if k == 1:
            mistakes["that is half a mark for every tie; four equals share one place"] = 0.5
            mistakes["you divided by the number of rivals; the own caption is one of the equals"] = 1 / 3
        answer.expect(answer(flat, k), k / 4, f"the share for four captions all alike, k = {k}", mistakes)
    answer.verify("where all captions are alike it is chance, k / N")
    rows = {  # the first number is that of the own caption
        "two equals at the top": (0.9, 0.9, 0.1, 0.0),
        "three equals at the top": (0.7, 0.2, 0.7, 0.7),
        "one better and three equals": (0.5, 0.8, 0.5, 0.5),
        "one better and two equals": (0.8, 0.9, 0.1, 0.8),
        "two better": (0.4, 0.9, 0.9, 0.1),
    }
    for k in (1, 2):
        for what, row in rows.items():
            table = torch.cat([torch.tensor([row]), torch.eye(4)[1:]])  # the other three pictures are right
            share = fair_share(table, k)[0].item()
            better, equal = (table[0] > table[0, 0]).sum().item(), (table[0] == table[0, 0]).sum().item()
            mistakes = {
                full: (3 + (better < k)) / 4,
                none: (3 + (better + equal <= k)) / 4,
                unbounded: (3 + (k - better) / equal) / 4,
                "who is better takes a place away; only k - better are left for the equals": (
                    3 + min(1, k / equal) * (better < k)
                )
                / 4,
                "the chance is shared among the better ones too; they are sure of their place": (
                    3 + min(1, k / (better + equal))
                )
                / 4,
            }
            told = f"the share for four pictures, three right and one with {what}, k = {k}"
            answer.expect(answer(table, k), (3 + share) / 4, told, mistakes)
    answer.verify("ties among few are shared fairly")
    for k in (1, 4, 17):
        right = fair_share(tied, k).mean()
        answer.expect(answer(tied, k), right, f"the share for cosines that are rounded, k = {k}")
    answer.verify("so are those of cosines that are rounded")
    answer.passed()


# ---- 15.4


def bells(means: Sequence[Tensor], covariances: Sequence[Tensor]) -> float:
    """The Frechet distance of two bells, by the eigenvalues of the product."""
    roots = torch.linalg.eigvals(covariances[0] @ covariances[1]).sqrt().real.sum()
    return ((means[0] - means[1]).square().sum() + sum(c.trace() for c in covariances) - 2 * roots).item()


def check_frechet_of_batches(function: Callable[[Sequence[Tensor], Sequence[Tensor]], float], seed: int = 0) -> None:
    """Exercise 15.4: the mended Frechet distance of pictures that come in batches.

    Args:
        function: frechet_of_batches(real, generated), two lists of features (n, D) -> a number.
        seed: of the features it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("frechet_of_batches", function)
    x = random(seed, 90, 4) @ random(seed + 1, 4, 4)
    y = random(seed + 2, 60, 4) @ random(seed + 3, 4, 4) + 1
    x += torch.arange(90)[:, None] / 30  # batches differ
    real, generated = x.split([40, 30, 20]), y.split([10, 30, 20])
    each = torch.tensor([frechet_distance(a, b) for a, b in zip(real, generated, strict=True)], dtype=torch.float64)
    sizes = torch.tensor([40.0, 30, 20]), torch.tensor([10.0, 30, 20])
    sets = (real, sizes[0]), (generated, sizes[1])
    means = [torch.stack([part.double().mean(0) for part in parts]).mean(0) for parts, _ in sets]
    spreads = [sum(covariance(part.double()) for part in parts) / 3 for parts, _ in sets]
    heavy = [sum(covariance(part.double()) * n for part, n in zip(parts, size, strict=True)) / size.sum()
             for parts, size in sets]  # fmt: skip
    true_means, true = [z.double().mean(0) for z in (x, y)], [covariance(z.double()) for z in (x, y)]
    biased = [c * (len(z) - 1) / len(z) for c, z in zip(true, (x, y), strict=True)]
    correct = frechet_distance(x, y)
    mistakes = {
        "it is still the mean of the batches' distances; small sets seem farther apart than they are": each.mean(),
        "a mean of the batches' distances stays wrong, however the batches are weighed": (
            (each * sizes[0]).sum() / sizes[0].sum()
        ),
        "a mean of the batches' distances stays wrong, whichever sizes weigh them": (
            (each * sizes[1]).sum() / sizes[1].sum()
        ),
        "that is the sum of the batches' distances": each.sum(),
        "that is the smallest of the batches' distances": each.min(),
        "only the last batch counts": each[-1],
        "only the first batch counts": each[0],
        "the mean of the batches' covariances misses how far the batches lie apart": bells(means, spreads),
        "the means are right, but a mean of the batches' covariances misses how far the batches lie apart": (
            bells(true_means, spreads)
        ),
        "a weighted mean of the batches' covariances still misses how far the batches lie apart": (
            bells(true_means, heavy)
        ),
        "a small batch has the same weight in the mean as a large one": bells(means, true),
        "the covariance is divided by n; the lesson's is divided by n - 1": bells(true_means, biased),
        "that is the root of it": math.sqrt(correct),
        "only the means are compared": (true_means[0] - true_means[1]).square().sum(),
        "the means are not compared": correct - (true_means[0] - true_means[1]).square().sum(),
    }
    found = answer.expect_shape(answer(list(real), list(generated)), (), "one number for the two sets")
    answer.expect(found, correct, "the distance of 90 and 60 pictures in three batches each", mistakes, 1e-4)
    answer.verify("the distance is that of the whole sets")
    hint = "However the pictures are cut, the number must be the same"
    cuts: Any = (([90], [60]), ([1] * 90, [7, 53]), ([80, 9, 1], [30, 30]), ([45, 45], [15] * 4))
    for first, second in cuts:
        found = answer(list(x.split(first)), list(y.split(second)))
        told = f"the distance in {len(first)} and {len(second)} batches"
        lost = dict.fromkeys(["batches that have no partner on the other side are lost; every picture counts"], 0.0)
        pairs = zip(x.split(first), y.split(second), strict=False)
        kept = [torch.cat(parts) for parts in zip(*pairs, strict=True)]
        if min(map(len, kept)) > 1 and (len(kept[0]) < 90 or len(kept[1]) < 60):
            lost = {next(iter(lost)): frechet_distance(*kept)}
        answer.expect(found, correct, told, lost, 1e-4, hint)
    answer.verify("it does not depend on how the sets are cut, single pictures and unequal numbers of batches included")
    answer.expect(answer([x], [x.flip(0)]), 0.0, "the distance of a set and itself", tolerance=2e-4)
    few = random(seed + 5, 6, 10), random(seed + 6, 7, 10)
    found = answer([few[0][:2], few[0][2:]], [few[1]])
    hint = (
        "The covariance of few pictures has eigenvalues 0, which rounding makes negative: is their root taken safely?"
    )
    answer.expect(
        found, frechet_distance(*few), "the distance of sets with fewer pictures than features", {}, 2e-3, hint
    )
    answer.verify("a set is 0 from itself, and a few pictures are enough")
    answer.passed()
