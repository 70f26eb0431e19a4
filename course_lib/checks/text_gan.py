"""Checks of the exercises of chapter 11: how a generator hears a caption, and how a discriminator reads it."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks.core import Answer, random, several

# ---- 11.1


def check_scale_and_shift(function: Callable[..., tuple[Tensor, Tensor]], seed: int = 0) -> None:
    """Exercise 11.1: conditional batch normalisation while pictures are drawn, as one scale and one shift.

    Args:
        function: scale_and_shift(condition, weight, bias, mean, variance, eps), (B, E), (2C, E), (2C,), (C,), (C,) ->
            two of (B, C).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, names, eps = Answer("scale_and_shift", function), ("scale", "shift"), 1e-2
    condition, weight, bias = random(seed, 3, 5), random(seed + 1, 8, 5), random(seed + 2, 8)
    mean, variance = 2 * random(seed + 3, 4), 0.2 + random(seed + 4, 4).square()
    given, deviation = (condition, weight, bias, mean, variance), torch.sqrt(variance + eps)
    gamma, beta = (condition @ weight.T + bias).chunk(2, dim=1)
    other_gamma, other_beta = (condition @ weight.T).chunk(2, dim=1)
    scale, shift = several(answer, answer(*given, eps), names)
    gain = (1 + gamma) / deviation
    for part, name in ((scale, "scale"), (shift, "shift")):
        answer.expect_shape(part, (3, 4), "one number for each picture and channel", name)
    mistakes = {
        "the gain is gamma alone; a layer that has learned nothing must leave the normalised numbers as they are": (
            gamma / deviation
        ),
        "the running variance plays no part; a normalised number is divided by its root": 1 + gamma,
        "you divided by the variance; divide by its root": (1 + gamma) / (variance + eps),
        "you multiplied by the root of the variance; divide by it": (1 + gamma) * deviation,
        "eps is added to the standard deviation; it belongs to the variance, under the root": (
            (1 + gamma) / (variance.sqrt() + eps)
        ),
        "eps is left out": (1 + gamma) / variance.sqrt(),
        "beta is in the place of gamma; the first C numbers are gamma": (1 + beta) / deviation,
        "gamma and beta alternate; the first C numbers are gamma, the last C are beta": (
            (1 + (condition @ weight.T + bias)[:, 0::2]) / deviation
        ),
        "the bias is missing": (1 + other_gamma) / deviation,
        "the two results are swapped; return the scale first": beta - gain * mean,
        "the statistics are those of the captions in this batch; use the running ones that are given": (
            (1 + gamma) / torch.sqrt(gamma.var(0, correction=0) + eps)
        ),
    }
    answer.expect(scale, gain, "the scale", mistakes)
    answer.verify("the scale holds 1 + gamma and the running variance")
    mistakes = {
        "that is beta alone; where does the running mean go? Multiply (1 + gamma) (x - mean) / deviation out": beta,
        "the mean must be scaled too: it is multiplied by what x is multiplied by": beta - mean,
        "the mean is not divided by the deviation": beta - (1 + gamma) * mean,
        "the mean is divided by the deviation, but 1 + gamma is missing": beta - mean / deviation,
        "the sign of the mean is wrong; it is subtracted": beta + gain * mean,
        "beta is scaled too; it is added at the end": gain * (beta - mean),
        "beta is missing": -gain * mean,
        "the bias is missing in beta": other_beta - gain * mean,
    }
    answer.expect(shift, beta - gain * mean, "the shift", mistakes)
    answer.verify("the shift holds beta and the running mean")
    images = random(seed + 5, 3, 4, 2, 2)
    found = scale[:, :, None, None] * images + shift[:, :, None, None]
    normal = F.batch_norm(images, mean, variance, training=False, eps=eps)
    right = (1 + gamma)[:, :, None, None] * normal + beta[:, :, None, None]
    answer.expect(found, right, "scale * x + shift for three pictures", tolerance=1e-4)
    answer.verify("scale and shift do what torch's batch normalisation does when pictures are drawn")

    def original(condition: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        gamma, beta = (condition @ weight.T + bias).chunk(2, dim=1)
        gain = (1 + gamma) / deviation
        return torch.cat([gain, beta - gain * mean])

    sloped = Answer("scale_and_shift", lambda *parts: torch.cat(tuple(function(*parts, mean, variance, eps))))
    sloped.expect_gradient(given[:3], original, "the slope for condition, weight and bias", 1e-4)
    answer.verify("slopes agree")
    still, _ = several(answer, answer(condition, 0 * weight, 0 * bias, mean, torch.zeros(4), eps), names)
    answer.expect(still, torch.full((3, 4), eps**-0.5), "the scale of channels whose variance is 0", tolerance=1e-4)
    answer.verify("a channel that never varies does not lead to 1 / 0")
    answer.passed()


# ---- 11.2


def check_logit_map(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 11.2: the projection logit at every place of the picture.

    Args:
        function: logit_map(features, texts, realness, bias, read_text), (B, H, R, C), (B, E), (H,), (), (H, E) ->
            (B, R, C).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("logit_map", function)
    features, texts = random(seed, 3, 4, 4, 3), random(seed + 1, 3, 5)  # B = C and H = R: wrong broadcasting runs
    realness, bias, read_text = random(seed + 2, 4), torch.tensor(0.7), random(seed + 3, 4, 5)
    given = (features, texts, realness, bias, read_text)

    def real(features: Tensor) -> Tensor:
        return torch.einsum("bhij,h->bij", features, realness) + bias

    def original(features: Tensor, texts: Tensor, realness: Tensor, bias: Tensor, read_text: Tensor) -> Tensor:
        fit = torch.einsum("bhij,bh->bij", features, texts @ read_text.T)
        return torch.einsum("bhij,h->bij", features, realness) + bias + fit / math.sqrt(len(realness))

    right, heard = original(*given), texts @ read_text.T  # (3, 4, 3), (3, 4)
    fit = right - real(features)
    found = answer.tensor(answer(*given))
    hint = "a logit for each picture, row and column"
    if found.shape == (3,):
        answer.fail(f"the result has the shape (3,): the places are added up; {hint} is asked for: (3, 4, 3)")
    answer.expect_shape(found, (3, 4, 3), hint)
    mistakes = {
        "the product of caption and features is not divided by the root of H": real(features) + 2 * fit,
        "the product is divided by H; divide by its root": real(features) + fit / 2,
        "the realness is divided by the root of H as well; only the product with the caption is": (
            bias + (right - bias - fit) / 2 + fit
        ),
        "realness and bias are divided by the root of H as well; only the product with the caption is": (
            real(features) / 2 + fit
        ),
        "the caption plays no part: this discriminator is blind": real(features),
        "the realness is missing: how real is the picture, whatever it shows?": fit,
        "the realness is missing; only its bias is there": fit + bias,
        "the bias is missing": right - bias,
        "every picture meets the first caption": real(features)
        + torch.einsum("bhij,h->bij", features, heard[0]) / math.sqrt(4),
        "the caption adds one number, whatever is in the picture; whether two things match is a product": (
            real(features) + heard.sum(1)[:, None, None] / math.sqrt(4)
        ),
        "the caption's numbers meet the rows; each of them belongs to a feature: (B, H) must become (B, H, 1, 1)": (
            real(features) + (features * heard[:, None, :, None]).sum(1) / math.sqrt(4)
        ),
        "the captions meet rows and columns; (B, H) must become (B, H, 1, 1)": (
            real(features) + (features * heard.T).sum(1) / math.sqrt(4)
        ),
        "that is the mean over the features; a product of two vectors is the sum": right / 4,
        "these are probabilities; leave the sigmoid to the loss": torch.sigmoid(right),
        "rows and columns are not where they were": right.flatten(1).view(3, 3, 4).transpose(1, 2),
    }
    answer.expect(found, right, "the map of three pictures", mistakes)
    answer.verify("each place gets w · h + b + (V text) · h / √H")
    vectors = random(seed + 4, 3, 4)
    whole = answer(vectors[:, :, None, None], *given[1:]).flatten()
    theirs = F.linear(vectors, realness[None], bias[None])[:, 0] + F.bilinear(vectors, texts, read_text[None])[:, 0] / 2
    answer.expect(whole, theirs, "the map of one place", hint="It is the discriminator of the lesson")
    answer.verify("with one place it is the lesson's discriminator")
    answer.expect_gradient(given, original, "the slope for features, texts and weights", 1e-4)
    answer.verify("slopes agree")
    answer.passed()


# ---- 11.3


def loss_of_pairs(logits: Tensor, fake: Tensor, wrong: Tensor) -> Tensor:
    """Real pictures on the diagonal, fakes, and the wrong pairs among all: (B, B), (B,), (B, B) bool -> ()."""
    counted = F.softplus(logits)[wrong]
    return F.softplus(-logits.diagonal()).mean() + (F.softplus(fake).mean() + counted.sum() / max(len(counted), 1)) / 2


def check_matching_aware_loss(function: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 11.3: the loss of a discriminator that holds every picture against every caption of the batch.

    Args:
        function: matching_aware_loss(logits, fake_logits, texts), (B, B), (B,) and (B, E) -> () in nats.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("matching_aware_loss", function)
    logits, fake = 2 * random(seed, 5, 5), random(seed + 1, 5)
    texts = torch.eye(4)[[0, 1, 2, 1, 3]]  # captions 1 and 3 are equal; all share some zeros
    wrong = torch.tensor([[i != j and {i, j} != {1, 3} for j in range(5)] for i in range(5)])
    everywhere, off_diagonal = torch.ones(5, 5, dtype=torch.bool), ~torch.eye(5, dtype=torch.bool)
    value = answer.expect_shape(answer(logits, fake, texts), (), "a loss is one number")
    right, cost = loss_of_pairs(logits, fake, wrong), F.softplus(logits)
    real, false, missed = F.softplus(-logits.diagonal()).mean(), F.softplus(fake).mean(), cost[wrong].mean()
    neighbours = cost.roll(-1, 1).diagonal(), cost.roll(1, 1).diagonal()  # captions of the next and the last row
    mistakes = {
        "equal captions count as wrong; pictures 1 and 3 have one caption, and it fits both": (
            loss_of_pairs(logits, fake, off_diagonal)
        ),
        "the right pairs, on the diagonal, count as wrong too": loss_of_pairs(logits, fake, wrong | ~off_diagonal),
        "the right pairs count as wrong too, and so do equal captions": loss_of_pairs(logits, fake, everywhere),
        "the mask is the wrong way round: the pairs that fit count as wrong": loss_of_pairs(logits, fake, ~wrong),
        "captions count as equal where any of their numbers agree; all must": real + false / 2,
        "the two halves are missing: everything false together should weigh as much as the real": real + false + missed,
        "only one of the two false terms is halved": real + false + missed / 2,
        "only the second of the two false terms counts in full; each counts half": real + false / 2 + missed,
        "the real term is halved too": right / 2,
        "that is the mean of the three terms": (real + false + missed) / 3,
        "the wrong captions are left out": real + false,
        "the fakes are left out": real + missed / 2,
        "the fakes are left out, and the wrong captions count in full": real + missed,
        "the labels are swapped: right pairs should get large logits, false ones small": (
            F.softplus(logits.diagonal()).mean() + (F.softplus(-fake).mean() + F.softplus(-logits)[wrong].mean()) / 2
        ),
        "the wrong captions count as right": real + (false + F.softplus(-logits)[wrong].mean()) / 2,
        "masked costs are divided by the number of all pairs; divide by how many count": (
            real + (false + (cost * wrong).mean()) / 2
        ),
        "masked costs are divided by B (B - 1); equal captions do not count there either": (
            real + (false + cost[wrong].sum() / 20) / 2
        ),
        "masked logits are set to 0, which costs log 2; leave these pairs out": (
            real + (false + F.softplus(logits * wrong).mean()) / 2
        ),
        "you summed over the wrong pairs; take their mean": real + (false + cost[wrong].sum()) / 2,
        "only the neighbour's caption counts as wrong; here every picture meets all captions of the batch": (
            real + (false + neighbours[0].mean()) / 2
        ),
        "only the neighbour's caption counts as wrong; every picture meets all captions of the batch": (
            real + (false + neighbours[1].mean()) / 2
        ),
        "every pair counts as real; the right ones are on the diagonal": (
            F.softplus(-logits).mean() + (false + missed) / 2
        ),
        "the sign is wrong: it is to be minimised": -right,
    }
    hint = "Look at each of the three terms alone"
    answer.expect(value, right, "the loss of 5 pictures, two of which have one caption", mistakes, hint=hint)
    answer.verify("three terms with their weights; equal captions are no mistake")
    knows_nothing = answer(torch.zeros(3, 3), torch.zeros(3), torch.eye(3))
    answer.expect(knows_nothing, 2 * math.log(2), "the loss of a discriminator that gives 0 to everything")
    answer.verify("knowing nothing costs 2 log 2 = 1.386")
    alike = answer(logits[:2, :2], fake[:2], torch.ones(2, 3))
    none = torch.zeros(2, 2, dtype=torch.bool)
    hint = "No pair is wrong here: that term is 0, not 0 / 0"
    answer.expect(alike, loss_of_pairs(logits[:2, :2], fake[:2], none), "the loss if all captions are equal", hint=hint)
    answer.verify("a batch of one caption is no 0 / 0")

    def original(logits: Tensor, fake: Tensor) -> Tensor:
        return loss_of_pairs(logits, fake, wrong)

    sloped = Answer("matching_aware_loss", lambda logits, fake: function(logits, fake, texts))
    sloped.expect_gradient((logits, fake), original, "the slope for both kinds of logits")
    sure = (200 * torch.eye(5) - 100, torch.full((5,), 100.0))
    hint = "The logarithm of a sigmoid is lost there; softplus is not"
    answer.expect(answer(*sure, texts), original(*sure), "the loss at logits of ±100", hint=hint)
    answer.verify("slopes agree, and logits of ±100 are finite")
    answer.passed()


# ---- 11.4


def check_logits_of_a_round(function: Callable[..., tuple[Tensor, Tensor, Tensor]], seed: int = 0) -> None:
    """Exercise 11.4: the mended round, in which every fake meets the caption it was drawn for.

    Args:
        function: logits_of_a_round(G, D, real, texts, z), with G(z, texts) -> pictures and D(pictures, texts) ->
            logits -> three of (B,): real, wrong, fake.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, names = Answer("logits_of_a_round", function), ("real_logits", "wrong_logits", "fake_logits")
    real, texts, z = random(seed, 4, 3), random(seed + 1, 4, 5), random(seed + 2, 4, 2)
    weights = [random(seed + 3 + i, *shape) for i, shape in enumerate([(2, 3), (5, 3), (3, 6), (5, 6)])]

    def players(a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> tuple[Callable, Callable]:
        return lambda z, t: torch.tanh(z @ a + t @ b), lambda x, t: (torch.tanh(x @ c) * torch.tanh(t @ d)).sum(1)

    (G, D), others = players(*weights), texts.roll(1, 0)
    parts = several(answer, answer(G, D, real, texts, z), names)
    for part, name in zip(parts, names, strict=True):
        answer.expect_shape(part, (4,), "one logit for each picture", name)
    fake, right, wrong = G(z, texts), D(real, texts), D(real, others)
    both_rolled = D(real.roll(1, 0), others)
    swapped = {"the results are in another order; return real, wrong, fake": D(fake, texts)}
    answer.expect(
        parts[0], right, "real_logits", swapped | {"the real pictures meet their neighbours' captions": wrong}
    )
    answer.verify("real pictures meet their own captions")
    mistakes = {
        "the pictures are rolled together with their captions, so every pair is a right one": both_rolled,
        "only the pictures' captions should change, and these are the right ones": right,
        "the pictures are rolled, the captions are not; roll the captions": D(real.roll(1, 0), texts),
        "these are fakes with wrong captions; the wrong pairs are made of real pictures": D(fake, others),
        "the captions are rolled the other way; `texts.roll(1, 0)` gives a row the caption of the row above": (
            D(real, texts.roll(-1, 0))
        ),
        "`roll` without a dimension rolls all numbers of the batch in one row; give the dimension, 0": (
            D(real, texts.roll(1))
        ),
        "each caption's own numbers are rolled (dimension 1); roll the rows (dimension 0)": D(real, texts.roll(1, 1)),
        "the captions are turned round, row by row; `roll` moves them by one": D(real, texts.flip(0)),
        **swapped,
    }
    answer.expect(parts[1], wrong, "wrong_logits", mistakes)
    answer.verify("they meet their neighbours' captions")
    mistakes = {
        "the fakes are still judged by captions that they were not drawn for": D(fake, others),
        "the fakes are drawn for their neighbours' captions and judged by their own": D(G(z, others), texts),
        "the fakes are drawn for and judged by the neighbours' captions; draw them for `texts`": (
            D(G(z, others), others)
        ),
        "the neighbours' captions are rolled once more for the fakes": D(fake, texts.roll(2, 0)),
        "the results are in another order; return real, wrong, fake": wrong,
    }
    answer.expect(parts[2], D(fake, texts), "fake_logits", mistakes)
    answer.verify("fakes meet the captions they were drawn for")

    def original(*weights: Tensor) -> Tensor:
        G, D = players(*weights)
        return D(G(z, texts), texts)

    def cut_off(*weights: Tensor) -> Tensor:
        G, D = players(*weights)
        return D(G(z, texts).detach(), texts)

    sloped = Answer("logits_of_a_round", lambda *weights: function(*players(*weights), real, texts, z)[2])
    mistakes = {"the fakes are cut off from G (`detach` or `no_grad`), so G learns nothing from its turn": cut_off}
    sloped.expect_gradient(tuple(weights), original, "the slope of fake_logits for both players", mistakes=mistakes)
    answer.verify("the fakes' slope reaches G")
    answer.passed()
