"""Answers to the exercises of chapter 08."""

import numpy as np
import torch
import torch.nn.functional as F


def tabled(rule, last=lambda table: table):
    """A table by a rule for one scene and one caption."""
    return lambda scenes, captions: last(torch.tensor([[rule(s, c) for c in captions] for s in scenes]))


def fits(scene, caption):
    return all(scene[name] == caption[name] for name in caption)


def by_attribute(scenes, captions):
    table = torch.ones(len(scenes), len(captions), dtype=torch.bool)
    for name in scenes[0]:
        said = [caption.get(name) for caption in captions]
        for i, scene in enumerate(scenes):
            table[i] &= torch.tensor([value is None or value == scene[name] for value in said])
    return table


def forgets(scenes, captions):
    for caption in captions:
        caption.pop("size", None)
    return tabled(fits)(scenes, captions)


def ranked(hit, own=lambda s: s.diagonal()[:, None], last=lambda hits: hits.float().mean().item()):
    """R@k from how many are better than the own one and how many are equal (it included)."""

    def recall_at_k(similarity, k):
        better, equal = (similarity > own(similarity)).sum(1), (similarity == own(similarity)).sum(1)
        return last(hit(k, better, equal))

    return recall_at_k


def fair(k, better, equal):
    return ((k - better) / equal).clamp(0, 1)


def top(similarity, k):
    nearest = similarity.topk(k, dim=1).indices
    return (nearest == torch.arange(len(similarity))[:, None]).any(1).float().mean().item()


def in_columns(similarity, k):
    return ranked(fair)(similarity[:, : len(similarity)].T, k)


def square_only(similarity, k):
    return ranked(fair)(similarity[:, : len(similarity)], k)


def lots_with_numpy(similarity, k):
    rows = similarity.numpy()
    total = 0.0
    for i, row in enumerate(rows):
        ordered = np.sort(row)[::-1]
        places = np.flatnonzero(ordered == row[i])  # those that its equals take
        total += float(np.mean(places < k))
    return total / len(rows)


def with_loops(similarity, k):
    chances = []
    for i, row in enumerate(similarity.double()):
        left = k - sum(bool(x > row[i]) for x in row)
        drawing = sum(bool(x == row[i]) for x in row)
        chances.append(0 if left <= 0 else 1 if left >= drawing else left / drawing)
    return torch.tensor(sum(chances) / len(chances), dtype=torch.float64)


def drawn_lot(similarity, k):
    order = torch.randperm(similarity.shape[1], generator=torch.Generator().manual_seed(0))
    nearest = order[similarity[:, order].topk(k, dim=1).indices]
    return (nearest == torch.arange(len(similarity))[:, None]).any(1).float().mean().item()


def of_cosines(loss=lambda x: (rows(x) + rows(x.T)) / 2, scale=lambda t: 1 / t, unit=lambda x: F.normalize(x, dim=1)):
    """The contrastive loss with one place changed."""
    return lambda images, texts, temperature: loss(unit(images) @ unit(texts).T * scale(temperature))


def rows(logits):
    return F.cross_entropy(logits, torch.arange(len(logits)))


def confused(images, texts, temperature):
    return rows(images @ texts.T * temperature)


def divided(x):
    return x / x.norm(dim=1, keepdim=True)


def pairs_by_loop(images, texts, temperature):
    cosines = torch.stack([F.cosine_similarity(one[None], texts) for one in images]) / temperature
    own = cosines.diagonal()
    return -(2 * own - cosines.logsumexp(0) - cosines.logsumexp(1)).mean() / 2


def by_matrix(images, texts, temperature):
    a, b = (x.double() / x.double().norm(dim=1, keepdim=True).clamp(min=1e-12) for x in (images, texts))
    logits = torch.einsum("ie,je->ij", a, b) / temperature
    return -(logits.log_softmax(0).trace() + logits.log_softmax(1).trace()) / (2 * len(logits))


def twice(cost):
    """Both halves of a loss, from the cost of pictures."""
    return lambda logits, fits: (cost(logits, fits) + cost(logits.T, fits.T)) / 2


def sum_of_shares(logits, fits):
    return (logits.logsumexp(1) - logits.masked_fill(~fits, -torch.inf).logsumexp(1)).mean()


def only_own(logits, fits):
    return rows(logits)


def left_out(logits, fits):
    return rows(logits.masked_fill(fits & ~torch.eye(len(fits), dtype=torch.bool), -torch.inf))


def mean_of_logs(logits, fits):
    return -((logits.log_softmax(1) * fits).sum(1) / fits.sum(1)).mean()


def sum_of_logs(logits, fits):
    return -(logits.log_softmax(1) * fits).sum(1).mean()


def probability_first(logits, fits):
    return -(logits.softmax(1) * fits).sum(1).log().mean()


def clamped(logits, fits):
    return -(logits.softmax(1) * fits).sum(1).clamp(min=1e-12).log().mean()


def mean_share(logits, fits):
    return -((logits.softmax(1) * fits).sum(1) / fits.sum(1)).log().mean()


def odds(logits, fits):
    right, wrong = logits.masked_fill(~fits, -torch.inf), logits.masked_fill(fits, -torch.inf)
    return (wrong.logsumexp(1) - right.logsumexp(1)).mean()


def zero_for_infinity(logits, fits):
    return (logits.logsumexp(1) - (logits * fits).logsumexp(1)).mean()


def minus_a_thousand(logits, fits):
    return (logits.logsumexp(1) - (logits - 1000.0 * ~fits).logsumexp(1)).mean()


def not_transposed(logits, fits):
    return (sum_of_shares(logits, fits) + sum_of_shares(logits.T, fits)) / 2


def softplus_form(logits, fits):
    right, wrong = logits.masked_fill(~fits, -torch.inf), logits.masked_fill(fits, -torch.inf)
    return torch.logaddexp(torch.zeros(len(logits)), wrong.logsumexp(1) - right.logsumexp(1)).mean()


def log_share_with_additive_mask(logits, fits):
    hidden = torch.where(fits, 0.0, -torch.inf).to(torch.float64)
    return -torch.logsumexp(logits.double().log_softmax(1) + hidden, 1).mean()


def by_axis(logits, fits):
    total = 0.0
    for axis in (0, 1):
        peak = logits.detach().amax(axis, keepdim=True)
        every = (logits - peak).exp().sum(axis).log() + peak.squeeze(axis)
        best = logits.detach().masked_fill(~fits, -torch.inf).amax(axis, keepdim=True)
        right = ((logits - best).masked_fill(~fits, -torch.inf)).exp().sum(axis).log() + best.squeeze(axis)
        total = total + (every - right).mean() / 2
    return total


WRONG = {
    "check_fitting": {
        "equal only": (tabled(lambda s, c: s == c), "says everything"),
        "any": (tabled(lambda s, c: any(s[n] == c[n] for n in c)), "`all`, not `any`"),
        "unsaid counts": (tabled(lambda s, c: all(s[n] == c.get(n) for n in s)), "says everything"),
        "turned": (lambda s, c: tabled(fits)(s, c).T, "scenes stand in rows"),
        "swapped": (tabled(lambda s, c: not fits(s, c)), "True and False are swapped"),
        "numbers": (tabled(fits, lambda t: t.float()), "make it bool"),
        "names only": (tabled(lambda s, c: set(c) <= set(s)), "not their values"),
        "the first only": (tabled(lambda s, c: fits(s, dict(list(c.items())[:1]))), "only the first attribute"),
        "nothing fits nothing": (
            tabled(lambda s, c: bool(c) and fits(s, c)),
            "says nothing fits everything",
        ),
        "a list": (lambda s, c: tabled(fits)(s, c).tolist(), "is a list"),
        "changes the captions": (forgets, "changes its inputs"),
    },
    "check_recall_at_k": {
        "wins ties": (ranked(lambda k, b, e: b < k), "wins all ties"),
        "loses ties": (ranked(lambda k, b, e: b + e - 1 < k), "loses all ties"),
        "topk": (top, "all ties"),
        "one lot": (drawn_lot, "R@"),
        "columns": (in_columns, "a caption finds its picture"),
        "off by one": (ranked(lambda k, b, e: ((k + 1 - b) / e).clamp(0, 1)), "off by one"),
        "off by one, too strict": (ranked(lambda k, b, e: ((k - 1 - b) / e).clamp(0, 1)), "off by one"),
        "not cut": (ranked(lambda k, b, e: (k - b) / e), "never below 0 or above 1"),
        "cut at 1 only": (ranked(lambda k, b, e: ((k - b) / e).clamp(max=1)), "never below 0"),
        "cut at 0 only": (ranked(lambda k, b, e: ((k - b) / e).clamp(min=0)), "never above 1"),
        "without oneself": (ranked(lambda k, b, e: ((k - b) / (e - 1).clamp(min=1)).clamp(0, 1)), "one of them"),
        "1/equal": (ranked(lambda k, b, e: (b < k) / e), "whatever k"),
        "half": (ranked(lambda k, b, e: ((b < k).float() + (b + e - 1 < k)) / 2), "counts one half"),
        "number": (ranked(fair, last=lambda hits: hits.sum()), "number of hits"),
        "for each": (ranked(fair, last=lambda hits: hits), "R@k is one number"),
        "strangers left out": (square_only, "belong to nobody"),
    },
    "check_clip_loss": {
        "as it was": (confused, "nothing is mended"),
        "multiplied": (of_cosines(scale=lambda t: t), "still multiplied"),
        "lengths": (of_cosines(unit=lambda x: x), "lengths still count"),
        "lengths, multiplied": (of_cosines(unit=lambda x: x, scale=lambda t: t), "and divide by the temperature"),
        "rows twice": (of_cosines(loss=rows), "both halves look along the rows"),
        "columns only": (of_cosines(loss=lambda x: rows(x.T)), "only the captions choose"),
        "wrong axis": (of_cosines(unit=lambda x: F.normalize(x, dim=0)), "the columns are scaled"),
        "all together": (of_cosines(unit=lambda x: x / x.norm()), "all vectors together"),
        "square": (of_cosines(unit=lambda x: x / x.square().sum(1, keepdim=True)), "square of its length"),
        "sum": (of_cosines(loss=lambda x: rows(x) + rows(x.T)), "sum of both halves"),
        "no temperature": (of_cosines(scale=lambda t: 1), "temperature is not used"),
        "softmax first": (of_cosines(loss=lambda x: (rows(x.softmax(1)) + rows(x.T.softmax(1))) / 2), "takes logits"),
        "0/0": (of_cosines(unit=divided), "0/0 is not a number"),
        "detached": (of_cosines(unit=lambda x: F.normalize(x.detach(), dim=1)), "no gradient flows"),
    },
    "check_matching_loss": {
        "own only": (twice(only_own), "only the own caption"),
        "left out": (twice(left_out), "left out, as in the lesson"),
        "mean of logarithms": (twice(mean_of_logs), "mean of the logarithms"),
        "sum of logarithms": (twice(sum_of_logs), "sum of the logarithms"),
        "rows only": (sum_of_shares, "each caption must pick a picture"),
        "columns only": (lambda x, f: sum_of_shares(x.T, f.T), "each picture must pick a caption"),
        "not transposed": (not_transposed, "must be transposed"),
        "turned": (lambda x, f: not_transposed(x.T, f), "must be transposed"),
        "both turned": (lambda x, f: twice(sum_of_shares)(x, f.T), "pictures stand in its rows"),
        "mean share": (twice(mean_share), "logarithm of the mean share"),
        "odds": (twice(odds), "belong to the whole"),
        "sum": (lambda x, f: 2 * twice(sum_of_shares)(x, f), "sum of both halves"),
        "sign": (lambda x, f: -twice(sum_of_shares)(x, f), "sign is wrong"),
        "swapped": (lambda x, f: twice(sum_of_shares)(x, ~f), "True means: fits"),
        "0 for infinity": (twice(zero_for_infinity), "put minus infinity"),
        "probability first": (twice(probability_first), "their logarithm is lost"),
        "clamped": (twice(clamped), "their logarithm is lost"),
        "minus 1000": (twice(minus_a_thousand), "for logits of about"),
        "for each": (lambda x, f: x.logsumexp(1) - x.masked_fill(~f, -torch.inf).logsumexp(1), "one number"),
    },
}
RIGHT = {
    "check_fitting": {
        "subsets": tabled(lambda s, c: set(c.items()) <= set(s.items())),
        "attribute by attribute": by_attribute,
        "numpy": lambda s, c: np.array([[{**one, **said} == one for said in c] for one in s]),
    },
    "check_recall_at_k": {
        "numpy, sorted": lots_with_numpy,
        "loops": with_loops,
        "two clamps": ranked(lambda k, b, e: torch.minimum((k - b).clamp(min=0), e) / e),
    },
    "check_clip_loss": {
        "cosine by cosine": pairs_by_loop,
        "float64": by_matrix,
    },
    "check_matching_loss": {
        "log-add-exp": twice(softplus_form),
        "additive mask, float64": twice(log_share_with_additive_mask),
        "axis by axis": by_axis,
    },
}
