"""Checks of the exercises of chapter 03: losses."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.checks.core import Answer, random


def check_mse_loss(function: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 03.1: the mean squared error over all elements.

    Args:
        function: mse_loss(input, target), two tensors of one shape -> ().
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("mse_loss", function)
    drawn, wanted = random(seed, 4, 3, 2, 2), random(seed + 1, 4, 3, 2, 2)
    squares, n = (drawn - wanted) ** 2, drawn.numel()
    value = answer.expect_shape(answer(drawn, wanted), (), "a loss is one number; take the mean over everything")
    mistakes = {
        "you averaged over the batch only, as the article does; divide by all the numbers, not by the pictures": (
            squares.sum() / len(drawn)
        ),
        "that is the sum; divide by how many numbers there are": squares.sum(),
        "that is the mean of the absolute differences; square them": (drawn - wanted).abs().mean(),
        "you took the root at the end; the mean squared error has none": squares.mean().sqrt(),
        "that is half of it; the slope is nicer so, but torch's and ours have no 1/2": squares.mean() / 2,
        "you squared the mean difference; take the mean of the squares": (drawn - wanted).mean() ** 2,
        "you divided by one less than there are numbers": squares.sum() / (n - 1),
    }
    answer.expect(value, F.mse_loss(drawn, wanted), "the loss of a batch of 4 pictures", mistakes)
    answer.verify("a batch's value equals torch's")
    hand = answer(torch.tensor([0.5, -1.0, 0.0, 1.0]), torch.tensor([1.0, -1.0, 0.5, -1.0]))
    answer.expect(hand, 1.125, "the loss of the lesson's four pixels")
    answer.verify("the four pixels give 1.125")
    answer.expect_gradient((drawn, wanted), F.mse_loss, "the slope for both arguments")
    answer.verify("both slopes equal torch's")
    answer.expect_error(
        random(seed, 4, 1), random(seed, 4), what="a column (4, 1) and a row (4,), which would broadcast"
    )
    answer.verify("unequal shapes are refused")
    answer.passed()


def check_bce_with_logits(function: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 03.2: binary cross-entropy of raw scores, finite at every logit.

    Args:
        function: bce_with_logits(logits, targets), two tensors of one shape -> () in nats.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, original = Answer("bce_with_logits", function), F.binary_cross_entropy_with_logits
    logits, targets = 2 * random(seed, 6, 2), torch.sigmoid(random(seed + 1, 6, 2))
    value = answer.expect_shape(answer(logits, targets), (), "a loss is one number; take the mean over everything")
    right, p = original(logits, targets), torch.sigmoid(logits)
    terms = -(targets * p.log() + (1 - targets) * (1 - p).log())
    mistakes = {
        "the labels are swapped; 1 means real, and its cost is -log(sigmoid(logit))": original(logits, 1 - targets),
        "the sign is wrong; a cost is positive": -right,
        "you summed; take the mean": terms.sum(),
        "you averaged over the batch only; take the mean over everything": terms.sum() / len(logits),
        "that is in bits; take the natural logarithm": right / torch.log(torch.tensor(2.0)),
        "one of the two terms is missing; a label between 0 and 1 pays for both": -(targets * p.log()).mean(),
        "the sigmoid is taken twice": original(p, targets),
        "logits are not probabilities; the sigmoid is missing": F.binary_cross_entropy(
            logits.clamp(1e-12, 1 - 1e-7), targets
        ),
    }
    answer.expect(value, right, "the loss of 12 logits", mistakes)
    answer.verify("values equal torch's")
    answer.expect_gradient((logits, targets), original, "the slope for both arguments")
    answer.verify("slopes too")
    lost = "the sigmoid is rounded to 0 or 1 there and its logarithm is lost; never compute the probability"
    for number in (20.0, 100.0, -100.0, 1e4):
        logit, both = torch.tensor([number, number]), torch.tensor([0.0, 1.0])
        for row in (slice(0, 1), slice(1, 2)):  # one at a time: a mean would hide the small one
            what = f"at the logit {number:g}, label {both[row].item():g}"
            answer.expect(answer(logit[row], both[row]), original(logit[row], both[row]), f"the loss {what}", hint=lost)
            answer.expect_gradient((logit[row], both[row]), original, f"the slope {what}", hint=lost)
    answer.verify("logits of 20, ±100 and 10,000 are finite and right")
    corner = "max(x, 0) has a corner at 0, where clamp and relu choose a slope of 1 or 0; it must be 1/2 there"
    answer.expect_gradient((torch.zeros(3), torch.tensor([0.0, 0.5, 1.0])), original, "the slope at 0", hint=corner)
    answer.verify("so is the slope at 0")
    answer.passed()


def check_discriminator_loss(function: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 03.3: the mended loss of the discriminator.

    Args:
        function: discriminator_loss(real_logits, fake_logits), (B,) and (B,) -> () in nats.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("discriminator_loss", function)
    real, fake = random(seed, 5) + 1, random(seed + 1, 5) - 0.5
    cost_of_real, cost_of_fake = F.softplus(-real).mean(), F.softplus(fake).mean()
    value = answer.expect_shape(answer(real, fake), (), "a loss is one number")
    mistakes = {
        "the labels are still swapped: this rewards the discriminator for calling fakes real": (
            F.softplus(real).mean() + F.softplus(-fake).mean()
        ),
        "the real pictures count as fakes": F.softplus(real).mean() + cost_of_fake,
        "the fakes count as real": cost_of_real + F.softplus(-fake).mean(),
        "the fakes are left out": cost_of_real,
        "the real pictures are left out": cost_of_fake,
        "that is the mean of both costs; the game of the lesson has their sum": (cost_of_real + cost_of_fake) / 2,
        "you summed over the batch; take the mean": 5 * (cost_of_real + cost_of_fake),
        "the sign is wrong: it is to be minimised": -(cost_of_real + cost_of_fake),
    }
    answer.expect(value, cost_of_real + cost_of_fake, "the loss of five real and five fake logits", mistakes)
    answer.verify("real pictures are called real and fakes fake")
    undecided = answer(torch.zeros(4), torch.zeros(4))
    answer.expect(undecided, 2 * torch.log(torch.tensor(2.0)), "the loss of a discriminator that knows nothing")
    answer.verify("knowing nothing costs 2 log 2 = 1.386")

    def original(real: Tensor, fake: Tensor) -> Tensor:
        return F.softplus(-real).mean() + F.softplus(fake).mean()

    answer.expect_gradient((real, fake), original, "the slope for real and fake logits")
    certain = torch.tensor([100.0, -100.0]), torch.tensor([-100.0, 100.0])
    answer.expect(answer(*certain), original(*certain), "the loss at logits of ±100", hint="log(sigmoid) is lost there")
    answer.verify("slopes agree, and logits of ±100 are finite")
    answer.passed()


def check_generator_loss(function: Callable[[Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 03.4: the generator's loss that does not starve.

    Args:
        function: generator_loss(fake_logits), (B,) -> () in nats.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("generator_loss", function)
    fake = random(seed, 6) - 1
    value = answer.expect_shape(answer(fake), (), "a loss is one number")
    mistakes = {
        "that is the saturating loss, log(1 - p): its slope vanishes when D is sure of a fake": -F.softplus(
            fake
        ).mean(),
        "that is what the discriminator minimises; the generator wants the opposite": F.softplus(fake).mean(),
        "that is the hinge loss of the generator; here the cost is -log p": -fake.mean(),
        "the sign is wrong: it is to be minimised": -F.softplus(-fake).mean(),
        "you summed over the batch; take the mean": F.softplus(-fake).sum(),
        "that is -p; take minus the logarithm of it": -torch.sigmoid(fake).mean(),
    }
    answer.expect(value, F.softplus(-fake).mean(), "the loss of six logits", mistakes)
    answer.verify("the value is -log p")
    original = lambda logits: F.softplus(-logits).mean()  # noqa: E731
    answer.expect_gradient((fake,), original, "the slope")
    found_out = torch.tensor([-100.0, -20.0, 0.0])
    hint = "a fake that is found out must pull with full strength; is log(sigmoid) lost there?"
    answer.expect(answer(found_out), original(found_out), "the loss of fakes that are found out", hint=hint)
    answer.expect_gradient((found_out,), original, "the slope for fakes that are found out", hint=hint)
    answer.verify("fakes that are found out still have a slope of 1")
    answer.passed()
