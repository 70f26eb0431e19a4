"""Answers to the exercises of chapter 16."""

import math
from itertools import pairwise

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.denoising import (
    ALPHA_BAR,
    clean_from_epsilon,
    clean_from_velocity,
    ddim_sample,
    ddim_step,
    dynamic_threshold,
    guide,
    sampling_times,
)

# ---- 16.1


def parts(noisy, v, now):
    """Clean picture and noise."""
    return now**0.5 * noisy - (1 - now) ** 0.5 * v, (1 - now) ** 0.5 * noisy + now**0.5 * v


def mixed(clean, noise, before):
    return before**0.5 * clean + (1 - before) ** 0.5 * noise


def step_by_parts(noisy, v, now, before):
    return mixed(*parts(noisy, v, now), before)


def step_by_library(noisy, v, now, before):
    clean = clean_from_velocity(noisy, v, torch.tensor([now], dtype=torch.float64))
    return ddim_step(noisy, clean, now, before, None, 0.0)


def step_by_angles(noisy, v, now, before):
    turn = math.acos(math.sqrt(now)) - math.acos(math.sqrt(before))
    return (np.cos(turn) * noisy.numpy() - np.sin(turn) * v.numpy()).astype(np.float32)


def step_through_the_noise(noisy, v, now, before):
    noise = (1 - now) ** 0.5 * noisy + now**0.5 * v
    clean = (noisy - (1 - now) ** 0.5 * noise) / torch.tensor(now).sqrt()  # divides by 0 at pure noise
    return mixed(clean, noise, before)


def step_from_noise(noisy, v, now, before):
    return mixed((noisy - (1 - now) ** 0.5 * v) / now**0.5, v, before)


def step_with_swapped_signs(noisy, v, now, before):
    return mixed(*parts(noisy, -v, now), before)


def step_in_place(noisy, v, now, before):
    clean = now**0.5 * noisy - (1 - now) ** 0.5 * v
    v *= now**0.5
    v += (1 - now) ** 0.5 * noisy
    return mixed(clean, v, before)


# ---- 16.2


def mean_by_softmax(noisy, alpha_bar, weights, means, stds, volume=None, prior=True, shrink=None, noise=1.0):
    """The right answer; each argument spoils it."""
    shrink = alpha_bar**0.5 if shrink is None else shrink
    volume = means.shape[1] if volume is None else volume
    variance = alpha_bar * stds**2 + noise * (1 - alpha_bar)
    gap = noisy[:, None] - shrink * means
    score = -gap.square().sum(-1) / (2 * variance) - volume / 2 * variance.log()
    chance = (score + weights.log() if prior else score).softmax(1)
    pulled = means + (alpha_bar**0.5 * stds**2 / variance)[:, None] * gap
    return (chance[..., None] * pulled).sum(1)


def mean_by_exp(noisy, alpha_bar, weights, means, stds):
    variance = alpha_bar * stds**2 + 1 - alpha_bar
    gap = noisy[:, None] - alpha_bar**0.5 * means
    density = weights * variance ** (-means.shape[1] / 2) * (-gap.square().sum(-1) / (2 * variance)).exp()
    pulled = means + (alpha_bar**0.5 * stds**2 / variance)[:, None] * gap
    return (density[..., None] * pulled).sum(1) / density.sum(1, keepdim=True)


def mean_by_loop(noisy, alpha_bar, weights, means, stds):
    rows = []
    for point in noisy.double():
        logs, answers = [], []
        for weight, mean, std in zip(weights.tolist(), means.double(), stds.tolist(), strict=True):
            variance = alpha_bar * std**2 + 1 - alpha_bar
            gap = point - math.sqrt(alpha_bar) * mean
            logs.append(math.log(weight) - len(mean) / 2 * math.log(variance) - (gap @ gap).item() / 2 / variance)
            answers.append(mean + math.sqrt(alpha_bar) * std**2 / variance * gap)
        most = max(logs)
        chances = [math.exp(x - most) for x in logs]
        rows.append(sum(c * a for c, a in zip(chances, answers, strict=True)) / sum(chances))
    return torch.stack(rows)


def mean_by_torch(noisy, alpha_bar, weights, means, stds):
    variance = alpha_bar * stds**2 + 1 - alpha_bar
    spread = variance.sqrt()[:, None].expand_as(means)
    logs = torch.distributions.Normal(alpha_bar**0.5 * means, spread).log_prob(noisy[:, None]).sum(-1)
    chance = torch.softmax(logs + torch.log(weights), dim=1)
    keep = alpha_bar**0.5 * stds**2 / variance  # (K,)
    inner = (1 - alpha_bar) / variance
    return (chance * keep) @ torch.ones_like(means) * noisy + (chance * inner) @ means


def mean_of_the_likeliest(noisy, alpha_bar, weights, means, stds):
    return torch.cat([mean_of_one(x[None], alpha_bar, weights, means, stds) for x in noisy])


def mean_of_one(noisy, alpha_bar, weights, means, stds):
    variance = alpha_bar * stds**2 + 1 - alpha_bar
    gap = noisy - alpha_bar**0.5 * means
    best = (weights.log() - means.shape[1] / 2 * variance.log() - gap.square().sum(-1) / 2 / variance).argmax()
    return (means[best] + alpha_bar**0.5 * stds[best] ** 2 / variance[best] * gap[best])[None]


def middles_only(noisy, alpha_bar, weights, means, stds):
    variance = alpha_bar * stds**2 + 1 - alpha_bar
    gap = noisy[:, None] - alpha_bar**0.5 * means
    score = weights.log() - means.shape[1] / 2 * variance.log() - gap.square().sum(-1) / (2 * variance)
    return score.softmax(1) @ means


# ---- 16.3


def guided_by_library(noisy, with_text, without_text, alpha_bar, scale, percentile):
    kept = torch.tensor([alpha_bar], dtype=torch.float64)
    return dynamic_threshold(clean_from_epsilon(noisy, guide(with_text, without_text, scale), kept), percentile)


def guided_by_pictures(noisy, with_text, without_text, alpha_bar, scale, percentile):
    """Guides the clean pictures, in NumPy: the same, for each step is linear."""
    noisy, *noises = (x.double().numpy() for x in (noisy, with_text, without_text))
    first, second = ((noisy - math.sqrt(1 - alpha_bar) * noise) / math.sqrt(alpha_bar) for noise in noises)
    clean = second + scale * (first - second)
    for picture in clean:
        limit = max(1.0, np.quantile(np.abs(picture), percentile))
        picture[...] = np.clip(picture, -limit, limit) / limit
    return clean


def guided_one_by_one(noisy, with_text, without_text, alpha_bar, scale, percentile):
    given = zip(noisy, with_text, without_text, strict=True)
    return torch.cat([guided_by_library(*(x[None] for x in one), alpha_bar, scale, percentile) for one in given])


def guided(noisy, with_text, without_text, alpha_bar, scale):
    return (noisy - (1 - alpha_bar) ** 0.5 * guide(with_text, without_text, scale)) / alpha_bar**0.5


def limit_of(clean, percentile):
    return clean.abs().flatten(1).quantile(percentile, 1).view(-1, 1, 1, 1)


def thresholded(way):
    """An answer from the guided clean picture and its limit (B, 1, 1, 1), not yet held at 1."""

    def answer(noisy, with_text, without_text, alpha_bar, scale, percentile):
        clean = guided(noisy, with_text, without_text, alpha_bar, scale)
        return way(clean, limit_of(clean, percentile))

    return answer


def changed(way):
    """An answer that hands other predictions to the right one."""

    def answer(noisy, with_text, without_text, alpha_bar, scale, percentile):
        return guided_by_library(noisy, *way(with_text, without_text, scale), alpha_bar, 1.0, percentile)

    return answer


def cut_before(noisy, with_text, without_text, alpha_bar, scale, percentile):
    both = [guided_by_library(noisy, x, x, alpha_bar, 1.0, percentile) for x in (with_text, without_text)]
    return guide(*both, scale)


def taken_for_v(noisy, with_text, without_text, alpha_bar, scale, percentile):
    kept = torch.tensor([alpha_bar])
    return dynamic_threshold(clean_from_velocity(noisy, guide(with_text, without_text, scale), kept), percentile)


def no_division(noisy, with_text, without_text, alpha_bar, scale, percentile):
    return dynamic_threshold(noisy - (1 - alpha_bar) ** 0.5 * guide(with_text, without_text, scale), percentile)


def no_roots(noisy, with_text, without_text, alpha_bar, scale, percentile):
    return dynamic_threshold((noisy - (1 - alpha_bar) * guide(with_text, without_text, scale)) / alpha_bar, percentile)


def one_limit(clean, limit):
    most = clean.abs().quantile(0.9).clamp(min=1) if len(clean) > 1 else limit.clamp(min=1)
    return clean.clamp(-most, most) / most


def signed_limit(noisy, with_text, without_text, alpha_bar, scale, percentile):
    clean = guided(noisy, with_text, without_text, alpha_bar, scale)
    most = clean.flatten(1).quantile(percentile, 1).clamp(min=1).view(-1, 1, 1, 1)
    return clean.clamp(-most, most) / most


# ---- 16.4


def sampler(told=lambda k, now, before, steps: now, first=0, last=None, mix=None):
    """A sampler: what it tells its denoiser, which of the steps it takes, and how it mixes."""

    def sample(denoise, noisy, steps):
        start = noisy
        for k, (now, before) in list(enumerate(pairwise(sampling_times(steps))))[first:last]:
            clean = denoise(noisy, told(k, now, before, steps))
            a, b = ALPHA_BAR[now].item(), ALPHA_BAR[before].item()
            noisy = mix(noisy, clean, b, start) if mix else ddim_step(noisy, clean, a, b, None, 0.0)
        return noisy

    return sample


def upward(denoise, noisy, steps):
    for before, now in pairwise(sampling_times(steps)[::-1]):
        noisy = ddim_step(noisy, denoise(noisy, now), ALPHA_BAR[now].item(), ALPHA_BAR[before].item(), None, 0.0)
    return noisy


def asked_once_more(denoise, noisy, steps):
    return denoise(sampler()(denoise, noisy, steps), 0)


def every_second_time(denoise, noisy, steps):
    return sampler(told=lambda k, now, before, steps: now // 2)(denoise, noisy, steps)


def by_recursion(denoise, noisy, steps):
    def down(noisy, times):
        if len(times) == 1:
            return noisy
        now, before = (ALPHA_BAR[t] for t in times[:2])
        clean = denoise(noisy, times[0])
        noise = (noisy - now.sqrt() * clean) / (1 - now).sqrt()
        return down(before.sqrt() * clean + (1 - before).sqrt() * noise, times[1:])

    return down(noisy.double(), sampling_times(steps))


def by_own_times(denoise, noisy, steps):
    for k in range(steps, 0, -1):
        now, before = round(1000 * k / steps), round(1000 * (k - 1) / steps)
        noisy = ddim_step(noisy, denoise(noisy, now), ALPHA_BAR[now].item(), ALPHA_BAR[before].item(), None, 0.0)
    return noisy


WRONG = {
    "check_step_from_v": {
        "v is the noise": (step_from_noise, "v was taken for the noise"),
        "v is the clean picture": (
            lambda x, v, a, b: mixed(v, (x - a**0.5 * v) / (1 - a) ** 0.5, b),
            "taken for the clean picture",
        ),
        "sign in the clean picture": (
            lambda x, v, a, b: mixed(a**0.5 * x + (1 - a) ** 0.5 * v, parts(x, v, a)[1], b),
            "sign of v is wrong in the clean picture",
        ),
        "sign in the noise": (
            lambda x, v, a, b: mixed(parts(x, v, a)[0], (1 - a) ** 0.5 * x - a**0.5 * v, b),
            "sign of v is wrong in the noise",
        ),
        "both signs": (step_with_swapped_signs, "towards more noise"),
        "times swapped": (lambda x, v, a, b: step_by_parts(x, v, b, a), "now and before are swapped"),
        "no roots": (
            lambda x, v, a, b: b * parts(x, v, a)[0] + (1 - b) * parts(x, v, a)[1],
            "the roots are missing",
        ),
        "the clean picture": (lambda x, v, a, b: parts(x, v, a)[0], "only a little"),
        "not moved": (lambda x, v, a, b: mixed(*parts(x, v, a), a), "noisy picture of now"),
        "straight along v": (lambda x, v, a, b: x - (b - a) * v, "straight along v"),
        "the noisy picture for the noise": (
            lambda x, v, a, b: mixed(parts(x, v, a)[0], x, b),
            "where the noise belongs",
        ),
        "divides by the root of now": (step_through_the_noise, "Do not divide"),
        "in place": (step_in_place, "changes its inputs"),
    },
    "check_posterior_mean": {
        "the lesson's": (
            lambda *given: mean_by_softmax(*given, volume=0.0, prior=False),
            "weights",
        ),
        "no weights": (lambda *given: mean_by_softmax(*given, prior=False), "weights are left out"),
        "no volume": (lambda *given: mean_by_softmax(*given, volume=0.0), "a wide heap is thin"),
        "volume of one dimension": (lambda *given: mean_by_softmax(*given, volume=1.0), "of one dimension"),
        "volume without the root": (
            lambda *given: mean_by_softmax(*given, volume=2.0 * given[3].shape[1]),
            "take the root of v",
        ),
        "no noise in the variance": (lambda *given: mean_by_softmax(*given, noise=0.0), "the noise's part is missing"),
        "no root": (lambda x, a, *heaps: mean_by_softmax(x, a, *heaps, shrink=a), "shrink by its root"),
        "no shrinking": (lambda *given: mean_by_softmax(*given, shrink=1.0), "do not shrink"),
        "the likeliest": (mean_of_the_likeliest, "decides for the likeliest"),
        "middles only": (middles_only, "pulled towards what is seen"),
        "by exp": (mean_by_exp, "compare logarithms"),
        "softmax over the points": (
            lambda x, a, w, m, s: F.softmax(-torch.cdist(x, m).square(), 0) @ m,
            "should be something else",
        ),
        "one answer": (lambda *given: mean_by_softmax(*given).mean(0), "has the shape"),
    },
    "check_guided_answer": {
        "turned round": (changed(lambda t, e, s: [t + s * (e - t)] * 2), "turned round"),
        "the paper's w": (changed(lambda t, e, s: [t + s * (t - e)] * 2), "one too much"),
        "not taken away": (changed(lambda t, e, s: [e + s * t] * 2), "is not taken away"),
        "no guidance": (changed(lambda t, e, s: [t, t]), "guidance is missing"),
        "cut before": (cut_before, "was cut before the guidance"),
        "static": (thresholded(lambda clean, limit: clean.clamp(-1, 1)), "static threshold"),
        "not cut": (thresholded(lambda clean, limit: clean / limit.clamp(min=1)), "was not cut off"),
        "not divided": (
            thresholded(lambda clean, limit: clean.clamp(-limit.clamp(min=1), limit.clamp(min=1))),
            "not divided",
        ),
        "stretched": (thresholded(lambda clean, limit: clean.clamp(-limit, limit) / limit), "stretched too"),
        "one limit for all": (thresholded(one_limit), "each has its own"),
        "percentile of the values": (signed_limit, "dark pixels count too"),
        "the largest": (
            lambda *given: guided(*given[:5]) / limit_of(guided(*given[:5]), 1.0).clamp(min=1),
            "take the percentile",
        ),
        "no threshold": (lambda *given: guided(*given[:5]), "within the range"),
        "taken for v": (taken_for_v, "taken for v"),
        "no division": (no_division, "division by"),
        "no roots": (no_roots, "the roots are missing"),
        "the noise": (lambda x, t, e, a, s, p: guide(t, e, s), "guided noise"),
    },
    "check_sample": {
        "the number of the step": (sampler(lambda k, now, before, steps: steps - k), "number of the step"),
        "counts upward from 0": (sampler(lambda k, now, before, steps: k), "counts the steps from 0"),
        "counts upward from 1": (sampler(lambda k, now, before, steps: k + 1), "counts the steps from 1"),
        "the time after": (sampler(lambda k, now, before, steps: before), "time after the step"),
        "the share of the way": (sampler(lambda k, now, before, steps: now / 1000), "share of the way"),
        "the last step is missing": (sampler(last=-1), "last step is missing"),
        "once more at time 0": (asked_once_more, "once more at time 0"),
        "upward": (upward, "run upwards"),
        "half the time": (every_second_time, "it should hear"),
        "hands on the answer": (sampler(mix=lambda x, clean, b, start: clean), "handed on as it is"),
        "noise of the beginning": (
            sampler(mix=lambda x, clean, b, start: b**0.5 * clean + (1 - b) ** 0.5 * start),
            "from the beginning",
        ),
        "the noisy points as noise": (
            sampler(mix=lambda x, clean, b, start: b**0.5 * clean + (1 - b) ** 0.5 * x),
            "mixed in where the noise",
        ),
        "not moved": (sampler(mix=lambda x, clean, b, start: x), "as they were given"),
        "two numbers": (lambda denoise, noisy, steps: sampler()(denoise, noisy, steps)[0], "has the shape"),
    },
}
RIGHT = {
    "check_step_from_v": {
        "by parts": step_by_parts,
        "with the library": step_by_library,
        "by angles, in NumPy": step_by_angles,
        "float64": lambda x, v, a, b: step_by_parts(x.double(), v.double(), a, b),
    },
    "check_posterior_mean": {
        "loops": mean_by_loop,
        "torch's distributions": mean_by_torch,
        "float64": lambda x, a, *heaps: mean_by_softmax(x.double(), a, *(part.double() for part in heaps)),
    },
    "check_guided_answer": {
        "with the library": guided_by_library,
        "pictures first, in NumPy": guided_by_pictures,
        "one by one": guided_one_by_one,
        "quantile": thresholded(lambda clean, limit: (clean / limit.clamp(min=1)).clamp(-1, 1)),
    },
    "check_sample": {
        "with the library": lambda denoise, noisy, steps: ddim_sample(denoise, noisy, sampling_times(steps), ALPHA_BAR),
        "recursion in float64": by_recursion,
        "own times": by_own_times,
    },
}
