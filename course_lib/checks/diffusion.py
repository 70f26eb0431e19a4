"""Checks of the exercises of chapter 16: a step from v, the perfect denoiser, a guided answer, a sampler."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from course_lib.checks.core import Answer, close, random
from course_lib.denoising import ALPHA_BAR, ddim_sample, sampling_times

Function = Callable[..., Tensor]


# ---- 16.1


def check_step_from_v(function: Function, seed: int = 0) -> None:
    """Exercise 16.1: a DDIM step for a network that answers v.

    Args:
        function: step_from_v(noisy, v, now, before), two tensors of one shape and two numbers -> the same shape.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("step_from_v", function)
    noisy, v = random(seed, 2, 3, 4, 4), random(seed + 1, 2, 3, 4, 4)
    for now, before in ((0.2, 0.7), (0.9, 0.95)):
        result = answer.expect_shape(answer(noisy, v, now, before), (2, 3, 4, 4), "one number for each pixel")
        what = f"the step of two pictures from alpha_bar {now:g} to {before:g}"
        answer.expect(result, turned(noisy, v, now, before), what, mistakes_of_a_step(noisy, v, now, before))
    answer.verify("two pictures are right, near the noise and near the picture")
    hand = answer(torch.tensor([0.5]), torch.tensor([-0.25]), 0.36, 0.64)
    answer.expect(hand, [0.55], "the lesson's pixel 0.5, with v = -0.25")
    answer.verify("the lesson's pixel becomes 0.55")
    hint = "Of pure noise nothing is known but v: clean is -v, and the noise is what is seen. Do not divide by √now."
    answer.expect(answer(noisy, v, 0.0, 0.5), turned(noisy, v, 0.0, 0.5), "the step from pure noise", hint=hint)
    clean = 0.2**0.5 * noisy - 0.8**0.5 * v
    answer.expect(answer(noisy, v, 0.2, 1.0), clean, "the last step", hint="At alpha_bar 1 only the picture is left.")
    answer.verify("so are the step from pure noise and the last one")
    answer.passed()


def turned(noisy: Tensor, v: Tensor, now: float, before: float) -> Tensor:
    """The step as a rotation by the difference of two angles: DDIM in the plane of picture and noise."""
    angle = torch.tensor([before, now], dtype=torch.float64).sqrt().acos()
    by = angle[1] - angle[0]
    return (by.cos() * noisy.double() - by.sin() * v.double()).to(noisy)


def mistakes_of_a_step(noisy: Tensor, v: Tensor, now: float, before: float) -> dict[str, Tensor]:
    """Misconception -> the step that it leads to."""
    clean, noise = now**0.5 * noisy - (1 - now) ** 0.5 * v, (1 - now) ** 0.5 * noisy + now**0.5 * v
    there = before**0.5, (1 - before) ** 0.5

    def mixed(clean: Tensor, noise: Tensor) -> Tensor:
        return there[0] * clean + there[1] * noise

    from_noise = (noisy - (1 - now) ** 0.5 * v) / now**0.5
    return {
        "v was taken for the noise; the network of the lesson was asked for v": mixed(from_noise, v),
        "v was taken for the clean picture": mixed(v, (noisy - now**0.5 * v) / (1 - now) ** 0.5),
        "the sign of v is wrong in the clean picture": mixed(now**0.5 * noisy + (1 - now) ** 0.5 * v, noise),
        "the sign of v is wrong in the noise": mixed(clean, (1 - now) ** 0.5 * noisy - now**0.5 * v),
        "this goes towards more noise: both signs of v are wrong, or now and before are swapped": turned(
            noisy, v, before, now
        ),
        "the roots are missing: alpha_bar is a share of the variance": before * clean + (1 - before) * noise,
        "that is the answer itself, the clean picture; move only a little in its direction": clean,
        "that is the noisy picture of now: mix for the earlier time": noisy,
        "that goes a step straight along v; both have to be mixed anew": noisy - (before - now) * v,
        "the noisy picture was mixed in where the noise belongs": mixed(clean, noisy),
    }


# ---- 16.2


def check_posterior_mean(function: Function, seed: int = 0) -> None:
    """Exercise 16.2: the perfect denoiser of heaps that differ in weight and width.

    Args:
        function: posterior_mean(noisy, alpha_bar, weights, means, stds), (B, D), a number, (K,), (K, D), (K,)
            -> (B, D).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("posterior_mean", function)
    shape = "the mean clean point for each noisy one"
    heaps = torch.tensor([0.6, 0.3, 0.1]), random(seed, 3, 2), torch.tensor([0.2, 0.5, 1.5])
    noisy = 1.5 * random(seed + 1, 5, 2)
    for alpha_bar in (0.8, 0.3):
        found = answer.expect_shape(answer(noisy, alpha_bar, *heaps), (5, 2), shape)
        what = f"the answer for heaps of unequal width at alpha_bar {alpha_bar:g}"
        answer.expect(
            found, by_slope(noisy, alpha_bar, *heaps), what, mistakes_of_a_mean(noisy, alpha_bar, *heaps), 1e-4
        )
    answer.verify("heaps of unequal weight and width are right, in two dimensions")
    two, middle = (torch.tensor([[-1.0], [1.0]]), torch.tensor([0.5, 0.5])), torch.zeros(1, 1)
    for weights, right in (([0.5, 0.5], 0.0), ([0.9, 0.1], -0.553846)):
        found = answer.expect_shape(answer(middle, 0.64, torch.tensor(weights), *two), (1, 1), shape)
        what = f"the answer between two heaps with the weights {weights[0]} and {weights[1]}"
        answer.expect(found, [[right]], what, tolerance=1e-4)
    answer.verify("between two heaps it is 0, or -0.554 if one has nine tenths of the points")
    prior = (heaps[0][:, None] * heaps[1]).sum(0).expand(5, 2)
    answer.expect(answer(noisy, 0.0, *heaps), prior, "the answer to pure noise", hint="It is the mean of all data.")
    answer.expect(
        answer(noisy, 1.0, *heaps), noisy, "the answer to a clean point", hint="It is that point.", tolerance=1e-4
    )
    answer.verify("pure noise gives the mean of all data, a clean point itself")
    far = torch.tensor([[300.0, -400.0]])
    lost = "All probabilities are rounded to 0 there, and 0 / 0 is lost: compare logarithms, and end with softmax."
    answer.expect(
        answer(far, 0.5, *heaps), by_slope(far, 0.5, *heaps), "the answer far from all heaps", None, 1e-4, lost
    )
    answer.verify("far from all heaps it stays finite and right")
    answer.passed()


def by_slope(noisy: Tensor, alpha_bar: float, weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """The posterior mean by Tweedie's formula: where the slope of the noisy points' log density leads, (B, D).

    Source: Efron 2011, "Tweedie's Formula and Selection Bias", eq. 1.4.
    """
    noisy = noisy.double().requires_grad_()
    variance = alpha_bar * stds.double() ** 2 + 1 - alpha_bar
    heaps = Normal(alpha_bar**0.5 * means.double(), variance.sqrt()[:, None].expand_as(means))
    density = MixtureSameFamily(Categorical(weights.double()), Independent(heaps, 1)).log_prob(noisy)
    (slope,) = torch.autograd.grad(density.sum(), noisy)
    return ((noisy + (1 - alpha_bar) * slope) / alpha_bar**0.5).detach().float()


def mistakes_of_a_mean(
    noisy: Tensor, alpha_bar: float, weights: Tensor, means: Tensor, stds: Tensor
) -> dict[str, Tensor]:
    """Misconception -> the answer that it leads to, (B, D)."""
    root, dimensions = alpha_bar**0.5, means.shape[1]
    right = alpha_bar * stds**2 + 1 - alpha_bar

    def mean(variance=right, prior=weights, volume=float(dimensions), shrink=root, only=False) -> Tensor:
        gap = noisy[:, None] - shrink * means  # (B, K, D)
        chance = (prior.log() - volume / 2 * variance.log() - gap.square().sum(-1) / (2 * variance)).softmax(1)
        if only:
            chance = torch.nn.functional.one_hot(chance.argmax(1), len(weights)).to(noisy)
        pulled = means + (root * stds**2 / variance)[:, None] * gap
        return (chance[..., None] * pulled).sum(1)

    even = torch.ones_like(weights)
    gap = noisy[:, None] - root * means
    chance = (weights.log() - dimensions / 2 * right.log() - gap.square().sum(-1) / (2 * right)).softmax(1)
    return {
        "the weights are left out: a heap with more points is more likely from the start": mean(prior=even),
        "a wide heap is thin: its density has the factor v^(-D/2), which cancelled in the lesson because all heaps had "
        "one width": mean(volume=0.0),
        "weights and the factor v^(-D/2) are both left out, as in the lesson, where all heaps were alike": mean(
            prior=even, volume=0.0
        ),
        "the factor before the exponential is that of one dimension; in D dimensions it is v^(-D/2)": mean(volume=1.0),
        "the factor before the exponential is v^(-D); take the root of v": mean(volume=2.0 * dimensions),
        "the noise's part is missing in the variance: v = alpha_bar · std² + 1 - alpha_bar": mean(alpha_bar * stds**2),
        "the standard deviation was taken for the variance": mean(alpha_bar * stds + 1 - alpha_bar),
        "alpha_bar is a share of the variance; the middles shrink by its root": mean(shrink=alpha_bar),
        "the middles do not shrink: a noisy heap lies around √alpha_bar · mean": mean(shrink=1.0),
        "that decides for the likeliest heap; the mean counts them all": mean(only=True),
        "that weights the middles; within a heap the answer is pulled towards what is seen": chance @ means,
        "what is seen does not change the heaps' chances; a heap nearby is more likely": (
            weights[:, None] * (means + (root * stds**2 / right)[:, None] * gap)
        ).sum(1),
    }


# ---- 16.3


def check_guided_answer(function: Function, seed: int = 0) -> None:
    """Exercise 16.3: from two predictions of the noise to a guided picture within the range.

    Args:
        function: guided_answer(noisy, with_text, without_text, alpha_bar, guidance_scale, percentile), three
            (B, C, H, W) and three numbers -> (B, C, H, W).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("guided_answer", function)
    for scale, alpha_bar in ((4.0, 0.3), (0.5, 0.8)):
        *given, _ = three_pictures(seed, scale, alpha_bar)
        found = answer.expect_shape(answer(*given, 1.0), (3, 3, 8, 8), "pictures like those that were given")
        for mistake, wrong in mistakes_of_guidance(
            *given
        ).items():  # the largest pixel: however a percentile is computed
            if close(found, wrong, 1e-4) and not close(found, kept(guided(*given), 1.0), 1e-4):
                answer.fail(f"the answer for three pictures at scale {scale:g}: {mistake}")
        for percentile in (0.9, 1.0):
            what = f"the answer for three pictures at scale {scale:g} and the percentile {percentile:g}"
            found, mistakes = answer(*given, percentile), mistakes_of_a_threshold(guided(*given), percentile)
            answer.expect(found, kept(guided(*given), percentile), what, mistakes, 1e-4)
    answer.verify("a picture within the range is left alone, each other one has a limit of its own")
    one = torch.tensor([0.34, -0.5, 0.1]).view(3, 1, 1, 1, 1)
    for scale, right in ((1.0, 0.8), (0.0, 0.35), (3.0, 1.0)):
        found = answer(*one, 0.64, scale, 1.0)
        answer.expect(found, torch.full((1, 1, 1, 1), right), f"the lesson's pixel at scale {scale:g}", tolerance=1e-4)
    answer.verify("the lesson's pixel is 0.8 at scale 1, 0.35 at 0 and 1 at 3")
    answer.passed()


def three_pictures(seed: int, scale: float, alpha_bar: float) -> tuple[Tensor, Tensor, Tensor, float, float, float]:
    """Inputs whose guided answers are known: one within [-1, 1], one far outside, one with few pixels outside.

    Sizes around the percentile are equal, so that all ways to compute it agree.
    """
    wanted = 0.9 * torch.tanh(random(seed, 3, 192))
    wanted[1, :25], wanted[1, 25:58], wanted[1, 58:64] = 1.5, -2.5, 6 * wanted[1, 58:64].sign()
    wanted[2, :6] = 4 * wanted[2, :6].sign()
    clean = wanted.view(3, 3, 8, 8).double()
    noisy, without = random(seed + 1, 3, 3, 8, 8).double(), random(seed + 2, 3, 3, 8, 8).double()
    predictions = [
        (noisy - alpha_bar**0.5 * x) / (1 - alpha_bar) ** 0.5 for x in (without + (clean - without) / scale, without)
    ]
    return noisy.float(), *(x.float() for x in predictions), alpha_bar, scale, 0.9


def guided(noisy: Tensor, with_text: Tensor, without_text: Tensor, alpha_bar: float, scale: float) -> Tensor:
    """The guided clean pictures, before any threshold, (B, C, H, W)."""
    return (noisy - (1 - alpha_bar) ** 0.5 * (without_text + scale * (with_text - without_text))) / alpha_bar**0.5


def kept(clean: Tensor, percentile: float) -> Tensor:
    """The dynamic threshold, with torch's own quantile."""
    most = clean.abs().flatten(1).quantile(percentile, 1).clamp(min=1).view(-1, 1, 1, 1)
    return clean.clamp(-most, most) / most


def mistakes_of_guidance(
    noisy: Tensor, with_text: Tensor, without_text: Tensor, alpha_bar: float, scale: float
) -> dict[str, Tensor]:
    """Misconception before the threshold -> the answer that it leads to, at the percentile 1."""

    def told(noise: Tensor) -> Tensor:
        return kept(guided(noisy, noise, noise, alpha_bar, 1.0), 1.0)

    noise, step = without_text + scale * (with_text - without_text), with_text - without_text
    return {
        "the scale is turned round: begin without the caption, and go towards the prediction with it": told(
            with_text - scale * step
        ),
        "that is one too much guidance (the paper's w is our scale - 1): begin at the prediction without the caption": (
            told(with_text + scale * step)
        ),
        "the prediction without the caption is not taken away": told(without_text + scale * with_text),
        "the guidance is missing": told(with_text),
        "each prediction was cut before the guidance, which then leaves the range again": (
            told(without_text) + scale * (told(with_text) - told(without_text))
        ),
        "the predictions are of the noise, and were taken for v": kept(
            alpha_bar**0.5 * noisy - (1 - alpha_bar) ** 0.5 * noise, 1.0
        ),
        "the division by √alpha_bar is missing": kept(noisy - (1 - alpha_bar) ** 0.5 * noise, 1.0),
        "the roots are missing: alpha_bar is a share of the variance": kept(
            (noisy - (1 - alpha_bar) * noise) / alpha_bar, 1.0
        ),
        "that is the guided noise; the picture is asked for": noise,
    }


def mistakes_of_a_threshold(clean: Tensor, percentile: float) -> dict[str, Tensor]:
    """Misconception about the threshold of guided pictures (B, C, H, W) -> the answer that it leads to."""
    limit = clean.abs().flatten(1).quantile(percentile, 1).view(-1, 1, 1, 1)
    most, whole = limit.clamp(min=1), clean.abs().flatten().quantile(percentile).clamp(min=1)
    signed = clean.flatten(1).quantile(percentile, 1).view(-1, 1, 1, 1).clamp(min=1)
    return {
        "nothing holds it within the range": clean,
        "that is the static threshold, a cut at ±1": clean.clamp(-1, 1),
        "it is divided, but what lies beyond the limit was not cut off before": clean / most,
        "it is cut off at the limit, but not divided by it": clean.clamp(-most, most),
        "a picture that fits is stretched too; the limit is at least 1": clean.clamp(-limit, limit) / limit,
        "all pictures share one limit; each has its own": clean.clamp(-whole, whole) / whole,
        "the percentile is that of the values; dark pixels count too, by their size": (
            clean.clamp(-signed, signed) / signed
        ),
        "the largest pixel is the limit; take the percentile": kept(clean, 1.0),
    }


# ---- 16.4


def check_sample(function: Function, seed: int = 0) -> None:
    """Exercise 16.4: the mended sampler.

    Args:
        function: sample(denoise, noisy, steps), (noisy, time) -> clean; (B, ...); a whole number -> (B, ...).
        seed: of the noise it begins from.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, noisy = Answer("sample", function), random(seed, 4, 2)
    for steps in (4, 20, 1):
        heard: list[int] = []

        def denoise(noisy: Tensor, time: int, heard: list[int] = heard) -> Tensor:
            heard.append(float(time))
            return 0.4 * noisy.tanh() + float(time) / 2000

        times = sampling_times(steps)
        result = answer(denoise, noisy, steps)
        if heard != times[:-1]:
            answer.fail(misheard(heard, times, steps))
        found = answer.expect_shape(result, (4, 2), "points like those it began from")
        right = ddim_sample(denoise, noisy, times, ALPHA_BAR)
        hint = "The denoiser hears the right times; are both alpha_bars of each step those of its two times?"
        answer.expect(
            found, right, f"the points after {steps} steps", mistakes_of_a_sampler(denoise, noisy, times), 1e-4, hint
        )
    answer.verify("in 4, 20 and 1 steps the denoiser is told the time, and each step goes from that time to the next")
    answer.passed()


def misheard(heard: list[float], times: list[int], steps: int) -> str:
    """What is wrong with the times that a denoiser was told in `steps` steps."""
    told = f"in {steps} steps the denoiser hears {', '.join(f'{x:g}' for x in heard[:4])}{', ...' * (len(heard) > 4)}"
    reasons = {
        "that is the number of the step, not the time": [float(k) for k in range(steps, 0, -1)],
        "that counts the steps from 0; the time falls from 1000": [float(k) for k in range(steps)],
        "that counts the steps from 1; the time falls from 1000": [float(k) for k in range(1, steps + 1)],
        "that is the time after the step; what it sees has the noise of the time before": list(map(float, times[1:])),
        "that is the share of the way; our networks were trained with times from 1 to 1000": [
            time / 1000 for time in times[:-1]
        ],
        "it is asked once more at time 0, where nothing is left to do": list(map(float, times)),
        "the last step is missing, the one to time 0": list(map(float, times[:-2])),
        "the times run upwards; begin at 1000, where all is noise": list(map(float, times[-2::-1])),
    }
    for reason, sequence in reasons.items():
        if heard == sequence:
            return f"{told}: {reason}"
    return f"{told}; it should hear {', '.join(map(str, times[:-1][:4]))}{', ...' * (steps > 4)}"


def mistakes_of_a_sampler(
    denoise: Callable[[Tensor, int], Tensor], noisy: Tensor, times: list[int]
) -> dict[str, Tensor]:
    """Misconception of a sampler that tells the right times -> where it ends."""
    same, clean, once = noisy, noisy, noisy
    for now, before in zip(times[:-1], times[1:], strict=True):
        there = ALPHA_BAR[before].item()
        clean = denoise(clean, now)
        first = denoise(once, now)
        once = there**0.5 * first + (1 - there) ** 0.5 * noisy
        again = denoise(same, now)
        same = there**0.5 * again + (1 - there) ** 0.5 * same
    return {
        "each answer is handed on as it is; mix the noise in again, for the earlier time": clean,
        "the noise from the beginning is mixed in again; take the noise that must be in what is seen now": once,
        "the noisy points are mixed in where the noise in them belongs": same,
        "the points come back as they were given": noisy,
    }
