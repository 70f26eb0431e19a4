"""Checks of the exercises of chapter 09: clouds, their divergence, the loss of a VAE, the best drawing."""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from course_lib.checks.core import Answer, random, several

Function = Callable[..., Tensor]


def check_points_of_clouds(function: Callable[[Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 09.1: K points of each cloud, from the encoder's output and given noise.

    Args:
        function: points_of_clouds(code, noise), (B, 2Z) and (K, B, Z) -> (K, B, Z).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("points_of_clouds", function)
    code, noise = random(seed, 4, 6), random(seed + 1, 5, 4, 3)
    mean, log_variance = code[:, :3], code[:, 3:]
    hint = "K throws, B pictures, Z numbers, like the noise"
    still = answer.expect_shape(answer(code, torch.zeros_like(noise)), (5, 4, 3), hint)
    mistakes = {
        "the halves are swapped; the means come first": log_variance.expand_as(noise),
        "means and log-variances do not alternate; the first Z numbers of a row are the means": (
            code[:, 0::2].expand_as(noise)
        ),
        "the mean is not added": torch.zeros_like(noise),
    }
    hint = "where the noise is 0, the point is the mean; do you throw noise of your own?"
    answer.expect(still, mean.expand_as(noise), "the points for noise of 0", mistakes, hint=hint)
    answer.verify("without noise the points are the means")

    def from_std(std: Tensor) -> Tensor:
        return mean + std * noise

    mistakes = {
        "the noise is scaled by the variance; its scale is the standard deviation, exp(v / 2)": (
            from_std(log_variance.exp())
        ),
        "the noise is scaled by the log-variance itself; the standard deviation is exp(v / 2)": from_std(log_variance),
        "the noise is scaled by half of the log-variance; `exp` is missing": from_std(log_variance / 2),
        "the noise is scaled by exp(2 v); the root of the variance exp(v) is exp(v / 2)": (
            from_std((2 * log_variance).exp())
        ),
        "the noise is divided by the standard deviation": from_std((-log_variance / 2).exp()),
        "the noise is not scaled": mean + noise,
        "every picture gets the first picture's noise; each has its own": (
            mean + (log_variance / 2).exp() * noise[:, :1]
        ),
        "all K points of a picture are the same; each has its own noise": (
            (mean + (log_variance / 2).exp() * noise[0]).expand_as(noise)
        ),
        "the noise is subtracted": from_std(-(log_variance / 2).exp()),
        "the noise plays no part": mean.expand_as(noise),
    }
    right = from_std((log_variance / 2).exp())
    answer.expect(answer(code, noise), right, "the points of 4 clouds, 5 throws each", mistakes)
    answer.verify("the noise is scaled by the standard deviation, for each picture and throw")

    def original(code: Tensor, noise: Tensor) -> Tensor:
        mean, log_variance = code.chunk(2, dim=1)
        return (mean + (log_variance / 2).exp() * noise).square()  # squared: the slope then depends on the throw

    def only_means(code: Tensor, noise: Tensor) -> Tensor:
        return original(torch.cat([code[:, :3], code[:, 3:].detach()], 1), noise)

    def only_spread(code: Tensor, noise: Tensor) -> Tensor:
        return original(torch.cat([code[:, :3].detach(), code[:, 3:]], 1), noise)

    lost = {
        "nothing flows back to the log-variance: the clouds could never learn their size": only_means,
        "nothing flows back to the means": only_spread,
    }
    squared = Answer("points_of_clouds", lambda *given: answer.tensor(function(*given)).square())
    squared.expect_gradient((code, noise), original, "the slope of the squared points", mistakes=lost)
    answer.verify("slopes reach means and log-variances")
    extreme = torch.tensor([[0.0, 0.0, 20.0, -20.0]])
    answer.expect(
        answer(extreme, torch.ones(1, 1, 2)),
        torch.tensor([[[math.exp(10), math.exp(-10)]]]),
        "the point for log-variances of ±20",
    )
    answer.verify("log-variances of ±20 are right")
    answer.passed()


def check_kl_between(function: Function, seed: int = 0) -> None:
    """Exercise 09.2: the KL divergence of a cloud from another.

    Args:
        function: kl_between(mean, log_variance, other_mean, other_log_variance), four times (B, Z) -> (B,) in nats.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("kl_between", function)
    clouds = mean, v, other, w = tuple(random(seed + i, 4, 3) for i in range(4))

    def original(mean: Tensor, v: Tensor, other: Tensor, w: Tensor) -> Tensor:
        return kl_divergence(Normal(mean, (v / 2).exp()), Normal(other, (w / 2).exp())).sum(1)

    right = original(*clouds)
    ratio, distance = (v - w).exp(), (mean - other).square() / w.exp()
    hint = "one price for each picture: the sum over its numbers, and no mean over the batch"
    nothing = torch.zeros_like(mean)
    found = answer.expect_shape(answer(mean, v, nothing, nothing), (4,), hint)
    simple = original(mean, v, nothing, nothing)
    mistakes = {
        "you averaged over the latent's numbers; their prices add up": simple / 3,
        "that is twice as much; the formula has a 1/2": 2 * simple,
        "the sign is wrong; a price is positive": -simple,
        "the two clouds are swapped: that is the divergence of N(0, 1) from the cloud": original(
            nothing, nothing, mean, v
        ),
        "`exp` of the log-variance is the variance; you took it for the standard deviation": (
            original(mean, 2 * v, nothing, nothing)
        ),
        "the -1 is missing: a cloud that is N(0, 1) should cost nothing": simple + 1.5,
        "the means play no part": original(nothing, v, nothing, nothing),
        "the log-variance is not subtracted: nothing keeps the clouds from becoming points": simple + v.sum(1) / 2,
        "the mean is not squared": simple + (mean - mean.square()).sum(1) / 2,
    }
    answer.expect(found, simple, "the divergence of 4 clouds from N(0, 1)", mistakes)
    answer.verify("from N(0, 1) it is the lesson's")
    mistakes = {
        "the other cloud plays no part": simple,
        "the two clouds are swapped; the first one's points are drawn": original(other, w, mean, v),
        "the distance of the means is not measured in standard deviations of the other cloud": (
            (mean - other).square() + ratio - 1 - (v - w)
        ).sum(1)
        / 2,
        "the distance of the means is measured in standard deviations of the first cloud; take the other's": (
            (mean - other).square() / v.exp() + ratio - 1 - (v - w)
        ).sum(1)
        / 2,
        "the square of the distance is divided by the other standard deviation; divide by the variance": (
            (mean - other).square() / (w / 2).exp() + ratio - 1 - (v - w)
        ).sum(1)
        / 2,
        "the variances are subtracted; their ratio counts": (distance + v.exp() - w.exp() - 1 - (v - w)).sum(1) / 2,
        "the other variance is missing where the first one stands alone; their ratio counts": (
            (distance + v.exp() - 1 - (v - w)).sum(1) / 2
        ),
        "the other log-variance is missing: equal clouds would not cost 0": (distance + ratio - 1 - v).sum(1) / 2,
        "that is the difference of two prices against N(0, 1)": simple - original(other, w, nothing, nothing),
        "that is the sum of both directions; only one is wanted": right + original(other, w, mean, v),
        "that is the mean of both directions; only one is wanted": (right + original(other, w, mean, v)) / 2,
    }
    answer.expect(answer(*clouds), right, "the divergence of 4 clouds from 4 others", mistakes)
    answer.verify("from another cloud it equals torch's")
    answer.expect(answer(mean, v, mean, v), torch.zeros(4), "the divergence of equal clouds", tolerance=1e-5)
    back = answer(torch.zeros(1, 1), torch.zeros(1, 1), torch.ones(1, 1), torch.full((1, 1), math.log(4)))
    answer.expect(back, [0.443147], "the divergence of N(0, 1) from mean 1 and variance 4")
    answer.verify("equal clouds cost 0")
    answer.expect_gradient(clouds, original, "the slope for all four arguments", 1e-4)
    answer.verify("slopes agree")
    far = torch.tensor([[-20.0], [20.0]])
    hint = "log-variances of ±20 are allowed; are they cut off, or rounded by a small number that was added?"
    for name, pair in {"-20 and 20 against 0": (far, 0 * far), "0 against -20 and 20": (0 * far, far)}.items():
        given = (0 * far, pair[0], 0 * far, pair[1])
        answer.expect(answer(*given), original(*given), f"the divergence at log-variances of {name}", hint=hint)
    answer.verify("log-variances of ±20 are right")
    answer.passed()


def check_vae_loss(function: Function, seed: int = 0) -> None:
    """Exercise 09.3: the mended loss of a VAE.

    Args:
        function: vae_loss(images, predicted, mean, log_variance, pixel_std), two times (B, 3, H, W), two times (B, Z)
            and a number -> () in nats a picture, without the constant.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, std = Answer("vae_loss", function), 0.4
    images, predicted = random(seed, 4, 3, 2, 6), random(seed + 1, 4, 3, 2, 6)
    mean, log_variance = random(seed + 2, 4, 5), random(seed + 3, 4, 5)
    squares = (images - predicted).square()
    kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2
    error, price = squares.sum() / 4 / (2 * std**2), kl.sum() / 4
    right = error + price
    constant = 36 * math.log(std * math.sqrt(math.tau))
    given = (images, predicted, mean, log_variance, std)
    found = answer.expect_shape(answer(*given), (), "a loss is one number; take the mean over the batch at the end")
    mistakes = {
        "the error is still a mean over all pixels, so the KL outweighs it; add up what belongs to one picture": (
            error / 36 + price
        ),
        "the error is a mean over the channels; add up all numbers of a picture": error / 3 + price,
        "now the KL is a mean over the latent's numbers and hardly counts; add them up too": error + price / 5,
        "both parts are means over their own numbers, of which the parts have unequally many; add both up": (
            error / 36 + price / 5
        ),
        "both parts are added up over the batch too; take its mean": 4 * right,
        "the error is added up over the batch too; take its mean": 4 * error + price,
        "the KL is added up over the batch too; take its mean": error + 4 * price,
        "the error is not halved: -log of a bell has a 1/2": 2 * error + price,
        "the KL is not halved": error + 2 * price,
        "`pixel_std` is not squared": error * std + price,
        "`pixel_std` is missing": error * std**2 + price,
        "you multiply by `pixel_std`; the error is measured in units of it": error * std**4 + price,
        "the KL is missing: that is an autoencoder with noise": error,
        "the reconstruction is missing": price,
        "the KL is subtracted: the ELBO is to be large, but this is its negative, which is to be small": error - price,
        "the sign is wrong: this is to be minimised": -right,
        "the constant log(std * sqrt(2 pi)) is in it; it is the same for every drawing, leave it out here": (
            right + constant
        ),
        "that is the mean of the absolute differences; square them": (
            (images - predicted).abs().sum() / 4 / (2 * std) + price
        ),
    }
    answer.expect(found, right, "the loss of 4 pictures of 36 numbers with clouds of 5", mistakes)
    answer.verify("each picture pays the sum over its pixels and the sum over its clouds")
    both = answer(*(torch.cat([part, part]) for part in given[:4]), std)
    answer.expect(both, right, "the loss of a batch in which every picture stands twice (it should stay the same)")
    wider = answer(images, predicted, mean, log_variance, 2 * std)
    answer.expect(wider, error / 4 + price, "the loss with twice the `pixel_std`", hint="Is it the one that was given?")
    answer.verify("a batch twice as large costs the same, and `pixel_std` is used")

    def original(images: Tensor, predicted: Tensor, mean: Tensor, log_variance: Tensor) -> Tensor:
        reconstruction = -Normal(predicted, std).log_prob(images).flatten(1).sum(1)
        clouds = Normal(mean, (log_variance / 2).exp())
        return (reconstruction + kl_divergence(clouds, Normal(0.0, 1.0)).sum(1)).mean()

    sloped = Answer("vae_loss", lambda *parts: function(*parts, std))
    sloped.expect_gradient(given[:4], original, "the slope for pictures, drawings and clouds", 1e-4)
    answer.verify("slopes agree")
    answer.passed()


def check_best_drawing(function: Callable[..., tuple[Tensor, Tensor]], seed: int = 0) -> None:
    """Exercise 09.4: the drawing of least squared error at a point of the latent space.

    Args:
        function: best_drawing(points, mean, log_variance, images), (P, Z), two times (N, Z) and (N, 3, H, W) ->
            drawings (P, 3, H, W) and errors (P,).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, names = Answer("best_drawing", function), ("the drawings", "the errors")
    images, mean, log_variance = random(seed, 5, 3, 2, 4), random(seed + 1, 5, 2), random(seed + 2, 5, 2)
    points = random(seed + 3, 4, 2)
    offset = points[:, None] - mean

    def drawn(logits: Tensor, dim: int = 1) -> Tensor:
        return torch.einsum("pn,nchw->pchw", logits.softmax(dim), images)

    def density(scale: Tensor, log_scale: Tensor) -> Tensor:
        return (-(offset / scale).square() / 2 - log_scale).sum(2)

    std = (log_variance / 2).exp()
    logits = density(std, log_variance / 2)
    shares, right = logits.softmax(1), drawn(logits)
    differences = (images - right[:, None]).square().flatten(2).mean(2)  # (P, N)
    error = (shares * differences).sum(1)
    drawings, errors = several(answer, answer(points, mean, log_variance, images), names)
    answer.expect_shape(drawings, (4, 3, 2, 4), "a picture for each point", names[0])
    mistakes = {
        "that is the plain mean of all pictures, everywhere the same; weigh them by their shares": (
            images.mean(0).expand_as(right)
        ),
        "that is the picture with the largest share; it is sharp, but its expected error is larger": (
            images[logits.argmax(1)]
        ),
        "the shares sum to 1 over the points; they should over the pictures": drawn(logits, dim=0),
        "the densities are not divided by their sum": torch.einsum("pn,nchw->pchw", logits.exp(), images) / math.tau,
        "the densities are not divided by their sum (and have no 2 pi)": torch.einsum(
            "pn,nchw->pchw", logits.exp(), images
        ),
        "the height of the bells is left out: a wide cloud is lower, by 1 / std in each number": drawn(
            density(std, torch.zeros_like(std))
        ),
        "`exp` of the log-variance is the variance; you took it for the standard deviation": drawn(
            density(log_variance.exp(), log_variance)
        ),
        "the size of the clouds plays no part": drawn(density(torch.ones_like(std), torch.zeros_like(std))),
        "you averaged over the latent's numbers; the logarithms of their densities add up": drawn(logits / 2),
        "the 1/2 in the bell's exponent is missing": drawn(2 * density(std, log_variance / 4)),
        "the 1/2 before the log-variance is missing": drawn(density(std, log_variance)),
        "the height of a bell is 1 / std, so its logarithm is *minus* v / 2": drawn(density(std, -log_variance / 2)),
        "the sign of the exponent is wrong: far clouds get the most": drawn(-logits),
        "every number of a picture counts with the square root of its share": torch.einsum(
            "pn,nchw->pchw", shares.sqrt(), images
        ),
    }
    answer.expect(drawings, right, "what is drawn at 4 points between 5 clouds", mistakes)
    answer.verify("every point gets the mean of all pictures, weighted by their shares")
    mistakes = {
        "that is the sum over the picture's numbers; take the mean": 24 * error,
        "the differences are weighted equally; weigh them by the shares": differences.mean(1),
        "that is the root of it": error.sqrt(),
        "that is the mean of the squares; the square of the mean goes off": (
            torch.einsum("pn,nchw->pchw", shares, images.square()).flatten(1).mean(1)
        ),
        "that is the error to the picture with the largest share alone": differences.gather(
            1, logits.argmax(1, keepdim=True)
        )[:, 0],
        "that is the mean over all points; each has its own": error.mean().expand(4),
    }
    answer.expect(errors, error, "the error at 4 points", mistakes, tolerance=1e-4)
    answer.verify("the error is the weighted variance")
    far, sure = torch.tensor([[200.0], [-200.0]]), torch.tensor([[1.0], [-1.0], [0.0]])
    drawings, errors = several(answer, answer(far, sure, torch.full((3, 1), -1.0), images[:3]), names)
    hint = "all densities are rounded to 0 there; compare their logarithms (softmax subtracts the largest first)"
    answer.expect(drawings, images[:2], "what is drawn 200 away from all clouds (the nearest picture)", hint=hint)
    answer.expect(errors, torch.zeros(2), "the error 200 away from all clouds", tolerance=1e-4, hint=hint)
    answer.verify("far from all clouds the nearest picture is drawn")
    answer.passed()
