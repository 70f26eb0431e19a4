"""Checks of the exercises of chapter 08: what fits, recall with ties, contrastive losses."""

import math
import random as chance
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks.core import Answer, random

Attributes = dict[str, str]

# ---- 08.1


def check_fitting(function: Callable[[list[Attributes], list[Attributes]], Tensor], seed: int = 0) -> None:
    """Exercise 08.1: which captions are true of which pictures.

    Args:
        function: fitting(scenes, captions), N and M dictionaries -> (N, M) bool.
        seed: of the scenes it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("fitting", function)
    values = {"size": ("large", "small"), "color": ("red", "blue"), "shape": ("circle", "square")}
    dice = chance.Random(seed)
    scenes = [{name: dice.choice(known) for name, known in values.items()} for _ in range(6)]
    scenes[1] = dict(scenes[0])
    captions = [{n: v for n, v in dice.choice(scenes).items() if dice.random() < 0.6} for _ in range(8)]
    captions[0], captions[1], captions[3] = dict(scenes[0]), {"color": scenes[0]["color"]}, {}
    captions[2] = {"shape": scenes[0]["shape"], "size": "large" if scenes[0]["size"] == "small" else "small"}

    def tabled(rule: Callable[[Attributes, Attributes], bool]) -> Tensor:
        return torch.tensor([[rule(scene, caption) for caption in captions] for scene in scenes])

    right = tabled(_fits)
    found = answer.tensor(answer(scenes, captions))
    if tuple(found.shape) == (8, 6):
        answer.fail("the result has the shape (8, 6) for 6 scenes and 8 captions: scenes stand in rows")
    answer.expect_shape(found, (6, 8), "(scenes, captions)")
    if found.dtype != torch.bool:
        answer.fail(f"the result is of the type {found.dtype}; make it bool, as `~fits` and `masked_fill` need it")
    mistakes = {
        "only a caption that says everything fits here; what a caption leaves out may be anything": tabled(
            lambda scene, caption: scene == caption
        ),
        "one thing that agrees is enough here; all that the caption says must be so (`all`, not `any`)": tabled(
            lambda scene, caption: any(scene[name] == caption[name] for name in caption)
        ),
        "True and False are swapped": ~right,
        "it compares which attributes are named, not their values": tabled(
            lambda scene, caption: set(caption) <= set(scene)
        ),
        "a caption that says nothing fits everything: nothing in it is wrong": tabled(
            lambda scene, caption: bool(caption) and _fits(scene, caption)
        ),
        "only the first attribute of the caption is compared": tabled(
            lambda scene, caption: all(scene[name] == caption[name] for name in list(caption)[:1])
        ),
    }
    _expect_table(answer, found, right, "6 scenes and 8 captions", mistakes)
    answer.verify("a caption fits if all that it says is so")
    big, little = ({"size": size, "color": "red", "shape": "circle"} for size in ("large", "small"))
    said = [{"color": "red"}, {"size": "large", "shape": "circle"}, {"color": "blue", "shape": "circle"}]
    byhand = torch.tensor([[True, True, False], [True, False, False]])
    _expect_table(answer, answer([big, little], said), byhand, "the two circles and three captions", {})
    silent = answer([big, little], [{}])
    _expect_table(
        answer, silent, torch.ones(2, 1, dtype=torch.bool), "a caption that says nothing (it fits everything)", {}
    )
    answer.verify("one that says nothing fits everything")
    answer.passed()


def _fits(scene: Attributes, caption: Attributes) -> bool:
    return caption.items() <= scene.items()


def _expect_table(answer: Answer, result: object, right: Tensor, told: str, mistakes: dict[str, Tensor]) -> None:
    """Fail if a table of truths differs, naming the mistake or the first wrong place."""
    found = answer.expect_shape(result, tuple(right.shape), "(scenes, captions)").bool()
    if torch.equal(found, right):
        return
    for mistake, wrong in mistakes.items():
        if torch.equal(found, wrong):
            answer.fail(f"{told}: {mistake}")
    row, column = (found != right).nonzero()[0].tolist()
    answer.fail(f"{told}: row {row}, column {column} should be {bool(right[row, column])}")


# ---- 08.2


def check_recall_at_k(function: Callable[[Tensor, int], float], seed: int = 0) -> None:
    """Exercise 08.2: R@k where ties are decided by lot.

    Args:
        function: recall_at_k(similarity, k), (N, M) with M >= N -> the mean over all lots, in [0, 1].
        seed: of the cosines it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("recall_at_k", function)
    similarity = random(seed, 40, 40)
    similarity += similarity.std() * torch.eye(40)
    own = similarity.diagonal()
    better, better_in_column = (similarity > own[:, None]).sum(1), (similarity > own).sum(0)

    def share(hits: Tensor) -> Tensor:
        return hits.float().mean()

    for k in (1, 5):
        mistakes = {
            "that is how often a caption finds its picture; pictures stand in rows": share(better_in_column < k),
            "off by one: with k better ones the own caption is in place k + 1": share(better <= k),
            "off by one: with k - 1 better ones the own caption is in place k, and counts": share(better < k - 1),
            "that is the number of hits; divide by the number of pictures": (better < k).float().sum(),
            "that is the share of those which miss": share(better >= k),
            "the smallest similarities count as the nearest": share((similarity < own[:, None]).sum(1) < k),
            "hits are divided by k; a picture counts once": share(better < k) / k,
            "a chance is never below 0 or above 1; cut it (`clamp`)": share(k - better),
            "a chance is never above 1; cut it (`clamp`)": share((k - better).clamp(min=0)),
        }
        result = answer.expect_shape(answer(similarity, k), (), "R@k is one number")
        answer.expect(result, share(better < k), f"R@{k} of 40 pictures without a tie", mistakes)
    answer.verify("without ties it is the usual R@k")
    more = torch.cat([similarity, random(seed + 1, 40, 20) + 1], 1)
    short = "captions that belong to nobody count as well: compare with all columns"
    right = share((more > own[:, None]).sum(1) < 5)
    what = "R@5 of 40 pictures among 60 captions"
    answer.expect(answer(more, 5), right, what, {short: share(better < 5)})
    answer.verify("captions that belong to no picture compete too")
    _check_ties(answer)
    coarse = (2 * more).round() / 2
    level = coarse.diagonal()[:, None]
    chances = ((5 - (coarse > level).sum(1)) / (coarse == level).sum(1)).clamp(0, 1)
    answer.expect(answer(coarse, 5), chances.mean(), "R@5 of rounded similarities, with many ties")
    answer.expect(answer(coarse, 60), 1.0, "R@60 among 60 captions")
    answer.verify("rounded similarities, with many ties, too")
    answer.passed()


def _check_ties(answer: Answer) -> None:
    """By hand: rows of four similarities, the own one first."""

    def expect(row: Sequence[float], rights: Sequence[float], mistakes: Callable[[int], dict[str, float]]) -> None:
        told = ", ".join(f"{x:g}" for x in row)
        for k, right in enumerate(rights, start=1):
            answer.expect(answer(torch.tensor([row]), k), right, f"R@{k} of the row {told}", mistakes(k))

    def of_equal(better: int, equal: int) -> Callable[[int], dict[str, float]]:
        """Equal: how many share the cosine, the own one included."""
        rest = {
            "the own caption wins all ties; then an encoder that gives everything the same vector has 100 %": (
                lambda k: float(better < k)
            ),
            "the own caption loses all ties; it should have the chance of a fair lot": (
                lambda k: float(better + equal - 1 < k)
            ),
            "places left, divided by how many are equal: the own one draws too, so it is one of them": (
                lambda k: min(max((k - better) / max(equal - 1, 1), 0.0), 1.0)
            ),
            "a tie counts 1/equal whatever k; with more places left the chance is larger": (
                lambda k: float(better < k) / equal
            ),
            "a tie counts one half": lambda k: 0.5 * (better < k) + 0.5 * (better + equal - 1 < k),
        }
        return lambda k: {mistake: wrong(k) for mistake, wrong in rest.items()}

    expect([0.8, 0.1, 0.9, 0.1], [0.0, 1.0, 1.0, 1.0], of_equal(1, 1))
    expect([0.5, 0.5, 0.5, 0.5], [0.25, 0.5, 0.75, 1.0], of_equal(0, 4))
    expect([0.8, 0.9, 0.8, 0.8], [0.0, 1 / 3, 2 / 3, 1.0], of_equal(1, 3))
    answer.verify("ties are decided by lot: 0.8 among 0.9, 0.8, 0.8 gives 0, 1/3, 2/3 and 1")


# ---- 08.3


def check_clip_loss(function: Callable[[Tensor, Tensor, float], Tensor], seed: int = 0) -> None:
    """Exercise 08.3: the mended contrastive loss.

    Args:
        function: clip_loss(images, texts, temperature), two times (B, E) -> () in nats.
        seed: of the vectors it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("clip_loss", function)
    images = random(seed, 8, 8) * torch.arange(1, 9)[:, None] / 4  # B = E: a wrong axis runs
    texts = random(seed + 1, 8, 8) + images / 2
    cosines = F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T
    by_column = F.normalize(images, dim=0) @ F.normalize(texts, dim=0).T

    def rows(logits: Tensor) -> Tensor:
        return F.cross_entropy(logits, torch.arange(len(logits)))

    def both(logits: Tensor) -> Tensor:
        return (rows(logits) + rows(logits.T)) / 2

    def original(images: Tensor, texts: Tensor) -> Tensor:
        return both(F.normalize(images, dim=1) @ F.normalize(texts, dim=1).T / 0.2)

    length = "lengths still count; scale every vector to length 1"
    same_twice = "both halves look along the rows; the captions choose among pictures, down the columns"
    mistakes = {
        "nothing is mended yet": rows(images @ texts.T * 0.2),
        "the cosines are still multiplied by the temperature; divide by it": both(cosines * 0.2),
        length: both(images @ texts.T / 0.2),
        f"{length}; and divide by the temperature": both(images @ texts.T * 0.2),
        f"{length}; and the captions' half is missing": rows(images @ texts.T / 0.2),
        same_twice: rows(cosines / 0.2),
        f"{same_twice}; and divide by the temperature": rows(cosines * 0.2),
        "only the captions choose; the pictures, along the rows, do too": rows(cosines.T / 0.2),
        "the columns are scaled to length 1, not the rows (the vectors)": both(by_column / 0.2),
        "only the pictures are scaled to length 1": both(F.normalize(images, dim=1) @ texts.T / 0.2),
        "only the captions are scaled to length 1": both(images @ F.normalize(texts, dim=1).T / 0.2),
        "all vectors together are scaled to length 1; scale each": both(
            images / images.norm() @ (texts / texts.norm()).T / 0.2
        ),
        "each vector is divided by the square of its length": both(
            (images / images.square().sum(1, keepdim=True)) @ (texts / texts.square().sum(1, keepdim=True)).T / 0.2
        ),
        "that is the sum of both halves; take their mean": 2 * both(cosines / 0.2),
        "you summed over the batch; take the mean": 8 * both(cosines / 0.2),
        "the temperature is not used": both(cosines),
        "`cross_entropy` takes logits; here it got probabilities": (
            (rows((cosines / 0.2).softmax(1)) + rows((cosines / 0.2).T.softmax(1))) / 2
        ),
        "the sign is wrong: the loss is to be minimised": -both(cosines / 0.2),
    }
    value = answer.expect_shape(answer(images, texts, 0.2), (), "a loss is one number")
    answer.expect(value, original(images, texts), "the loss of 8 pairs", mistakes)
    answer.verify("cosines, divided by the temperature, chosen in rows and in columns")
    perfect = torch.eye(64)
    for factor in (1.0, 30.0, 1e-3):
        told = f"the loss of 64 perfect pairs of length {factor:g}"
        answer.expect(answer(factor * perfect, perfect, 0.1), math.log1p(63 * math.exp(-10)), told, {})
    answer.verify("perfect pairs cost 0.003, whatever their length")
    sloped = Answer("clip_loss", lambda *parts: function(*parts, 0.2))
    sloped.expect_gradient((images, texts), original, "the slope for pictures and captions", 1e-4)
    answer.verify("slopes agree")
    empty = images.clone()
    empty[3] = 0
    hint = "a vector of zeros has the length 0, and 0/0 is not a number; `clamp` the length"
    answer.expect(answer(empty, texts, 0.2), original(empty, texts), "the loss if a vector is all zeros", hint=hint)
    cold = both(cosines / 0.005)
    answer.expect(answer(images, texts, 0.005), cold, "the loss at the temperature 0.005", hint="logits are ±200")
    answer.verify("a vector of zeros and a very low temperature do no harm")
    answer.passed()


# ---- 08.4


def check_matching_loss(function: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 08.4: the contrastive loss if several captions fit a picture.

    Args:
        function: matching_loss(logits, fits), (B, B) and (B, B) bool -> () in nats.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, own = Answer("matching_loss", function), torch.eye(7, dtype=torch.bool)
    logits = 2 * random(seed, 7, 7)
    fits = (random(seed + 1, 7, 7) > 0.8) | own
    fits[0, 1], fits[1, 0], fits[2, 5] = True, False, True  # not symmetric

    def cost(logits: Tensor, fits: Tensor) -> Tensor:
        return (logits.logsumexp(1) - logits.masked_fill(~fits, -torch.inf).logsumexp(1)).mean()

    def original(logits: Tensor, fits: Tensor) -> Tensor:
        return (cost(logits, fits) + cost(logits.T, fits.T)) / 2

    def twice(rule: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        return (rule(logits, fits) + rule(logits.T, fits.T)) / 2

    def logs(logits: Tensor, fits: Tensor) -> Tensor:
        return logits.log_softmax(1).masked_fill(~fits, 0)

    mistakes = {
        "only the own caption counts as right; all that fit are": twice(lambda a, b: cost(a, own)),
        "what fits is left out, as in the lesson; here it counts as right": twice(
            lambda a, b: cost(a.masked_fill(b & ~own, -torch.inf), own)
        ),
        "that is the mean of the logarithms; take the logarithm of the sum": twice(
            lambda a, b: -(logs(a, b).sum(1) / b.sum(1)).mean()
        ),
        "that is the sum of the logarithms; take the logarithm of the sum": twice(
            lambda a, b: -logs(a, b).sum(1).mean()
        ),
        "the pictures' half is there; each caption must pick a picture, too": cost(logits, fits),
        "the captions' half is there; each picture must pick a caption, too": cost(logits.T, fits.T),
        "for the captions the table of what fits must be transposed, like the logits": (
            (cost(logits, fits) + cost(logits.T, fits)) / 2
        ),
        "the table of what fits is transposed: pictures stand in its rows": (
            (cost(logits, fits.T) + cost(logits.T, fits)) / 2
        ),
        "that is the logarithm of the mean share; the shares of what fits add up": twice(
            lambda a, b: cost(a, b) + b.sum(1).log().mean()
        ),
        "the shares are those of what fits against what does not; the right ones belong to the whole, too": twice(
            lambda a, b: (a.masked_fill(b, -torch.inf).logsumexp(1) - a.masked_fill(~b, -torch.inf).logsumexp(1)).mean()
        ),
        "that is the sum of both halves; take their mean": 2 * original(logits, fits),
        "you summed over the batch; take the mean": 7 * original(logits, fits),
        "the sign is wrong: a cost is positive": -original(logits, fits),
        "what does not fit counts as right (True means: fits)": twice(lambda a, b: cost(a, ~b)),
        "a logit of 0 is no exclusion (e to the power of 0 is 1); put minus infinity where a caption does not fit": (
            twice(lambda a, b: (a.logsumexp(1) - (a * b).logsumexp(1)).mean())
        ),
    }
    value = answer.expect_shape(answer(logits, fits), (), "a loss is one number")
    answer.expect(value, original(logits, fits), "the loss of 7 pairs", mistakes)
    answer.verify("all captions that fit are right, for pictures and for captions")
    plain = (F.cross_entropy(logits, torch.arange(7)) + F.cross_entropy(logits.T, torch.arange(7))) / 2
    answer.expect(answer(logits, own), plain, "the loss of 7 pairs of which only the own ones fit")
    answer.expect(answer(torch.zeros(3, 3), own[:3, :3]), math.log(3), "the loss of three pairs, knowing nothing")
    answer.expect(answer(logits, torch.ones_like(fits)), 0.0, "the loss if everything fits")
    twins = torch.tensor([[1.0, -1, 1], [-1, 1, -1], [1, -1, 1]])
    answer.expect(answer(10 * twins, twins > 0), 0.0, "the loss of the lesson's perfect twins")
    answer.verify("one right answer gives the usual loss; perfect twins cost nothing")
    sloped = Answer("matching_loss", lambda logits: function(logits, fits))
    sloped.expect_gradient((logits,), lambda logits: original(logits, fits), "the slope")
    answer.verify("slopes agree")
    lost = "shares are rounded to 0 there, and their logarithm is lost; stay with `logsumexp` of the logits"
    for factor in (100.0, 1e4):
        told = f"for logits of about ±{2 * factor:g}"
        right = original(factor * logits, fits)
        answer.expect(answer(factor * logits, fits), right, f"the loss {told}", hint=lost)
        sloped.expect_gradient((factor * logits,), lambda x: original(x, fits), f"the slope {told}", hint=lost)
    answer.verify("large logits do no harm")
    answer.passed()
