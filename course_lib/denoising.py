"""Noise and its removal, on tensors alone: what diffusion computes, whatever the network. Built in chapter 16.

The schedule; adding noise; the two things that a network can be asked for and how to get from one to the other;
guidance; thresholding; and the two samplers, DDPM and DDIM. `alpha_bar` is the share of the picture in the variance of
a noisy picture: 1 is the clean picture, 0 is pure noise.
"""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor

TIMES = 1000  # how finely the way from picture to noise is divided

Denoise = Callable[[Tensor, int], Tensor]  # noisy pictures (B, ...) and their time -> an estimate of the clean ones
Draw = Callable[[], Tensor]  # fresh noise, N(0, 1), of the pictures' shape


def cosine_schedule(times: int = TIMES, offset: float = 0.008) -> Tensor:
    """How much of the picture is left at each time: falls slowly at both ends.

    Args:
        times: how many steps there are from the picture to noise.
        offset: keeps the first steps from being too small to be seen.
    Returns:
        alpha_bar (times + 1,) float64, from 1 at time 0 to almost 0; no step takes away more than 0.999 of it.
    Source: Nichol & Dhariwal 2021, eq. 17 and section 3.2, arXiv:2102.09672.
    """
    angles = (torch.arange(times + 1, dtype=torch.float64) / times + offset) / (1 + offset) * math.pi / 2
    kept = angles.cos().square()
    betas = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)  # (times,): what each step takes away
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])


ALPHA_BAR = cosine_schedule()


def amounts(alpha_bar: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """What picture and noise are multiplied with, √alpha_bar and √(1 - alpha_bar), each (B, 1, 1, 1) for (B,)."""
    alpha_bar = alpha_bar.view(-1, *[1] * (pictures.dim() - 1))  # rounded last: 1 - alpha_bar needs its float64
    return alpha_bar.sqrt().to(pictures), (1 - alpha_bar).sqrt().to(pictures)


def add_noise(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The forward process, all its steps at once; its variance stays 1 if that of the pictures is 1.

    Args:
        clean: (B, ...) pictures; noise: the same shape, from N(0, 1).
        alpha_bar: (B,), or (1,) for all, in [0, 1].
    Returns:
        (B, ...).
    Source: Ho et al. 2020, eq. 4, arXiv:2006.11239.
    """
    picture_amount, noise_amount = amounts(alpha_bar, clean)
    return picture_amount * clean + noise_amount * noise


def velocity(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """v, the direction in which `add_noise` moves: asks for the noise near the picture, the picture near the noise.

    Args, shapes: as for `add_noise`.
    Source: Salimans & Ho 2022, section 4 and appendix D, arXiv:2202.00512.
    """
    picture_amount, noise_amount = amounts(alpha_bar, clean)
    return picture_amount * noise - noise_amount * clean


def clean_from_velocity(noisy: Tensor, v: Tensor, alpha_bar: Tensor) -> Tensor:
    """The picture that a velocity speaks of: noisy, v (B, ...), alpha_bar (B,) -> (B, ...)."""
    picture_amount, noise_amount = amounts(alpha_bar, noisy)
    return picture_amount * noisy - noise_amount * v


def clean_from_epsilon(noisy: Tensor, epsilon: Tensor, alpha_bar: Tensor) -> Tensor:
    """The picture that is left without the noise `epsilon`, alpha_bar > 0: (B, ...) -> (B, ...).

    Near alpha_bar = 0 it divides by almost nothing, and a small mistake in epsilon becomes a large one in the picture.
    Source: Ho et al. 2020, eq. 15.
    """
    picture_amount, noise_amount = amounts(alpha_bar, noisy)
    return (noisy - noise_amount * epsilon) / picture_amount


def epsilon_from_clean(noisy: Tensor, clean: Tensor, alpha_bar: Tensor) -> Tensor:
    """The noise that must be in `noisy` if the picture is `clean`, alpha_bar < 1: (B, ...) -> (B, ...)."""
    picture_amount, noise_amount = amounts(alpha_bar, noisy)
    return (noisy - picture_amount * clean) / noise_amount


TARGETS = {"epsilon": lambda clean, noise, alpha_bar: noise, "v": velocity}
CLEAN_FROM = {"epsilon": clean_from_epsilon, "v": clean_from_velocity}


def guide(with_text: Tensor, without_text: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: further in the direction in which the caption changes the prediction.

    Args:
        with_text, without_text: the two predictions, of one shape; both epsilon, or both v: the picture is the same.
        guidance_scale: 0 ignores the caption, 1 is the plain prediction, more overstates the caption.
    Source: Ho & Salimans 2022, eq. 6 (our scale is their w + 1), arXiv:2207.12598; Saharia et al. 2022, eq. 2.
    """
    return without_text + guidance_scale * (with_text - without_text)


def static_threshold(clean: Tensor) -> Tensor:
    """Cuts pixels off at -1 and 1: (B, ...) -> (B, ...). Under strong guidance most pixels end there: glaring colours.

    Source: Saharia et al. 2022, section 2.3.
    """
    return clean.clamp(-1, 1)


def dynamic_threshold(clean: Tensor, percentile: float = 0.995) -> Tensor:
    """Scales a picture that leaves [-1, 1] back into it, instead of cutting all of it off.

    Args:
        clean: (B, ...).
        percentile: the share of pixels that must fit without being cut, in [0, 1].
    Returns:
        (B, ...) in [-1, 1]; a picture of which that share fits already is only cut.
    Source: Saharia et al. 2022, section 2.3, arXiv:2205.11487.
    """
    sizes = clean.flatten(1).abs()  # (B, N)
    rank = max(1, math.ceil(percentile * sizes.shape[1]))
    limit = sizes.kthvalue(rank, dim=1).values.clamp(min=1)  # (B,)
    limit = limit.view(-1, *[1] * (clean.dim() - 1))
    return clean.clamp(-limit, limit) / limit


def sampling_times(steps: int, start: int = TIMES) -> list[int]:
    """`steps` even steps from time `start` down to 0: steps + 1 times. No time comes twice if steps <= start."""
    return torch.linspace(start, 0, steps + 1, dtype=torch.float64).round().long().tolist()


def ddpm_step(noisy: Tensor, clean: Tensor, now: float, before: float, noise: Tensor) -> Tensor:
    """A step back: draws the picture of an earlier time, given the one now and an estimate of the clean one.

    Args:
        noisy, clean, noise: of one shape; noise from N(0, 1).
        now, before: alpha_bar of both times, now < before <= 1.
    Source: Ho et al. 2020, eq. 6 and 7.
    """
    kept = now / before
    mean = (before**0.5 * (1 - kept) * clean + kept**0.5 * (1 - before) * noisy) / (1 - now)
    return mean + ((1 - before) / (1 - now) * (1 - kept)) ** 0.5 * noise


def ddim_step(noisy: Tensor, clean: Tensor, now: float, before: float, noise: Tensor | None, eta: float) -> Tensor:
    """The same step with as much fresh noise as one likes; the rest is the noise that was there, kept.

    Args:
        noisy, clean, now, before: as for `ddpm_step`; noise may be None if eta is 0.
        eta: 0 adds none: the first noise decides everything. 1 is `ddpm_step`.
    Source: Song et al. 2021, eq. 12 and 16, arXiv:2010.02502.
    """
    epsilon = (noisy - now**0.5 * clean) / (1 - now) ** 0.5
    fresh = eta * ((1 - before) / (1 - now) * (1 - now / before)) ** 0.5
    earlier = before**0.5 * clean + max(1 - before - fresh**2, 0.0) ** 0.5 * epsilon
    return earlier if eta == 0 else earlier + fresh * noise


def ddpm_sample(denoise: Denoise, noisy: Tensor, times: Sequence[int], schedule: Tensor, draw: Draw) -> Tensor:
    """From noise to pictures, with fresh noise in every step.

    Args:
        denoise: estimates the clean pictures.
        noisy: (B, ...) pictures at times[0].
        times: falling, down to 0.
        schedule: alpha_bar of every time.
        draw: gives the fresh noise.
    Returns:
        (B, ...).
    Source: Ho et al. 2020, algorithm 2; skipping times: Nichol & Dhariwal 2021, section 4.
    """
    for now, before in pairwise(times):
        noisy = ddpm_step(noisy, denoise(noisy, now), schedule[now].item(), schedule[before].item(), draw())
    return noisy


def ddim_sample(
    denoise: Denoise, noisy: Tensor, times: Sequence[int], schedule: Tensor, draw: Draw | None = None, eta: float = 0.0
) -> Tensor:
    """From noise to pictures; with eta = 0 without any further chance, and well in few steps.

    Args and Returns: as for `ddpm_sample`; draw may be None if eta is 0; eta as for `ddim_step`.
    Source: Song et al. 2021, section 4.
    """
    for now, before in pairwise(times):
        noise = draw() if eta else None
        noisy = ddim_step(noisy, denoise(noisy, now), schedule[now].item(), schedule[before].item(), noise, eta)
    return noisy
