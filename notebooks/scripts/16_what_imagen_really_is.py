# %% [markdown]
# # 16 · What Imagen really is
#
# **You will build** `course_lib/denoising.py`, `unet.py`, `diffusion.py` and `diffusion_training.py`: pictures drawn
# by taking noise away. First on points, where the perfect answer is a formula and no network is needed; then with a
# small network; then with a shipped model, guided by a caption and enlarged by a second stage. Last: what Imagen has
# beyond it.
#
# **You need** the squared error (lesson 03), convolutions (05), attention and the text encoder (07), the ring of points
# and the GAN on it (10), the judge and diversity (15).
#
# **Time**: 90 minutes of reading and thinking; the computer needs about a minute.
#
# If a cell says that a name is not known, a cell above it was not run: choose *Run > Run All Above Selected Cell*.
#
# You are in the yellow room of the house; the blue ones are built.
#
# ```mermaid
# block-beta
#   columns 15
#   c00["00 Start here"]:15
#   c15["15 Judging pictures"]:5
#   c16["16 What Imagen really is"]:5
#   c17["17 Errata"]:5
#   c12["12 Training"]:5
#   c13["13 Training at scale"]:5
#   c14["14 Sampling"]:5
#   c09["09 A first generator"]:5
#   c10["10 The adversarial game"]:5
#   c11["11 Listening to text"]:5
#   c06["06 Image encoder"]:5
#   c07["07 Text encoder"]:5
#   c08["08 Text meets image"]:5
#   c01["01 Pictures as tensors"]:3
#   c02["02 Words and pictures"]:3
#   c03["03 Losses"]:3
#   c04["04 Optimisers"]:3
#   c05["05 Convolutions"]:3
#   classDef default fill:#f4f4f4,stroke:#999,color:#222
#   classDef built fill:#cfe6f5,stroke:#0072B2,color:#222
#   class c00,c01,c02,c03,c04,c05,c06,c07,c08,c09,c10,c11,c12,c13,c14,c15 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c16 lit
# ```

# %% tags=["nbval-check-output"]
import json
import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise, product

import torch
from torch import Tensor

from course_lib.checkpoint import CHECKPOINTS
from course_lib.denoising import ALPHA_BAR, TARGETS, TIMES, Denoise, Draw, epsilon_from_clean, sampling_times
from course_lib.diffusion import MAX_LOW_TIME, noisy_low
from course_lib.images import make_grid, to_pil
from course_lib.layers import average_pool2d, upsample_nearest
from course_lib.lesson import compare, figure, lines, setup, table

device = setup()

# %% [markdown]
# ## 1 Noise
#
# A GAN turns noise into a picture in one leap. Diffusion first looks at the way back: how a picture *becomes* noise.
# At each time $t$ the picture has a share $\bar\alpha_t$ ("alpha bar") of the variance, and noise $\varepsilon$ has
# the rest:
#
# $$x_t = \sqrt{\bar\alpha_t}\, x_0 + \sqrt{1 - \bar\alpha_t}\; \varepsilon, \qquad \varepsilon \sim N(0, 1)$$
#
# The squares of the two factors add up to 1. So if pixels have variance 1, noisy pixels have it too. A **schedule**
# says how much is left when. Ours has 1000 times and follows a cosine (Nichol and Dhariwal, 2021):
#
# $$\bar\alpha_t = \frac{f(t)}{f(0)}, \qquad f(t) = \cos^2\Big( \frac{t / 1000 + 0.008}{1.008} \cdot \frac{\pi}{2} \Big)$$
#
# **Predict.** A pixel is 0.8, its noise -0.5, and $\bar\alpha$ = 0.64. What is the noisy pixel?


# %% tags=["lib:denoising.amounts", "lib:denoising.add_noise", "lib:denoising.cosine_schedule", "nbval-check-output"]
def amounts(alpha_bar: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """What picture and noise are multiplied with, each (B, 1, 1, 1) for alpha_bar (B,)."""
    # rounded last: 1 - alpha_bar needs its float64
    alpha_bar = alpha_bar.view(-1, *[1] * (pictures.dim() - 1))
    return alpha_bar.sqrt().to(pictures), (1 - alpha_bar).sqrt().to(pictures)


def add_noise(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """The forward process: (B, ...) -> (B, ...)."""
    picture_amount, noise_amount = amounts(alpha_bar, clean)
    return picture_amount * clean + noise_amount * noise


# alpha_bar (times + 1,) float64: how much of the picture is left, from 1 to almost 0
def cosine_schedule(times: int = TIMES, offset: float = 0.008) -> Tensor:
    angles = (torch.arange(times + 1, dtype=torch.float64) / times + offset) / (1 + offset) * math.pi / 2
    kept = angles.cos().square()
    betas = (1 - kept[1:] / kept[:-1]).clamp(max=0.999)  # (times,): what each step takes away
    return torch.cat([torch.ones(1, dtype=torch.float64), (1 - betas).cumprod(0)])


# %% tags=["nbval-check-output"]
share = torch.tensor([0.64])
print(f"noisy pixel: {add_noise(torch.tensor([0.8]), torch.tensor([-0.5]), share).item():.2f}")

pixels = torch.full((200_000,), 0.8)
for _ in range(2):  # two small steps, each keeps 0.8 of the variance that is there
    pixels = 0.8**0.5 * pixels + 0.2**0.5 * torch.randn(200_000)
at_once = add_noise(torch.full((200_000,), 0.8), torch.randn(200_000), share)
for name, x in [("two steps of 0.8", pixels), ("at once, 0.64", at_once)]:
    print(f"{name:>16}: mean {x.mean():.2f}, standard deviation {x.std():.2f}")

# %% [markdown]
# 0.8 · 0.8 - 0.6 · 0.5 = 0.34. And two steps that each keep 0.8 are one step that keeps 0.8 · 0.8 = 0.64, because noise
# added to noise is noise, and variances add: 0.8 · 0.2 + 0.2 = 0.36. Training can thus jump to any time at once.
#
# **Predict.** At which time are picture and noise equally strong? Until when will *you* recognise the star?

# %% tags=["nbval-check-output"]
from course_lib.data import CaptionedShapes
from course_lib.evaluation import pictures_like

stops, wave = [0, 50, 250, 500, 750, 900, 1000], [(t / 1000 + 0.008) / 1.008 for t in range(1000)]
f = torch.tensor([math.cos(part * math.pi / 2) ** 2 for part in wave], dtype=torch.float64)
compare({"times 0 to 999": (cosine_schedule()[:1000], f / f[0])})
wish = {"size": "large", "color": "yellow", "shape": "star", "position": "center", "background": "navy"}
star = pictures_like(wish, 32, seed=0)[:1].expand(7, -1, -1, -1)
noisy = add_noise(star, torch.randn(7, 3, 32, 32), ALPHA_BAR[stops])
alt = "Seven pictures: a clear star at time 0, a grainy one at 250, a hint of yellow at 750, then only noise."
with figure("How a star becomes noise", alt, size=(9, 2.1)) as axis:
    axis.imshow(to_pil(make_grid(noisy, 7)), interpolation="nearest", zorder=1)
    captions = [f"time {t}\n{ALPHA_BAR[t]:.3f}" for t in stops]
    axis.set(xticks=[18 + 34 * i for i in range(7)], xticklabels=captions, yticks=[])

# %% [markdown]
# At time 496; the numbers below the pictures are $\bar\alpha$. (The last step would take away everything; it is held at
# 0.999, so that $\bar\alpha$ is never 0.)
#
# ## 2 A denoiser without a network
#
# Now backwards. A **denoiser** sees a noisy picture and says what the clean one may have been. Trained with the squared
# error, it will answer the *mean* of all clean pictures that could have become this one (lesson 03).
#
# For the ring of eight heaps of lesson 10, this mean is a formula. A heap with middle $\mu$ and standard deviation $s$
# becomes a noisy heap with middle $\sqrt{\bar\alpha} \mu$ and variance $v = \bar\alpha s^2 + 1 - \bar\alpha$. If $x_t$
# came from that heap, then the clean point was on average
#
# $$\mu + \frac{\sqrt{\bar\alpha}\, s^2}{v} \, (x_t - \sqrt{\bar\alpha} \mu)$$
#
# It may have come from any heap, with probabilities proportional to $e^{-\|x_t - \sqrt{\bar\alpha} \mu\|^2 / 2v}$; so
# we weight the eight answers.
#
# To check the formula, take 200,000 clean points, ask for each how likely it is to land on the noisy point
# (1, 0.4), and take the weighted mean.
#
# **Predict.** How far from the nearest heap will the answer be at time 900, when nearly all is noise?

# %% tags=["nbval-check-output"]
from course_lib.gan import MLP, covered_modes, ring_centers, ring_of_gaussians

random, centers = torch.Generator().manual_seed(0), ring_centers().to(device)  # (8, 2)


def exact(noisy, time, centers=centers, std=0.1):
    kept = ALPHA_BAR[time].to(noisy).view(-1, 1, 1)  # alpha bar, one for all or one for each
    variance = kept * std**2 + 1 - kept
    gap = noisy[:, None] - kept.sqrt() * centers  # (B, 8, 2)
    belongs = (-gap.square().sum(-1, keepdim=True) / (2 * variance)).softmax(1)  # (B, 8, 1)
    return (belongs * (centers + kept.sqrt() * std**2 / variance * gap)).sum(1)


clean, seen = ring_of_gaussians(200_000, random).to(device), torch.tensor([[1.0, 0.4]], device=device)
for time in (900, 700, 500, 300):
    picture, noise = ALPHA_BAR[time].item() ** 0.5, (1 - ALPHA_BAR[time].item()) ** 0.5
    weights = (-((seen - picture * clean) / noise).square().sum(1) / 2).softmax(0)
    x, y, x2, y2 = *exact(seen, time)[0].tolist(), *(weights @ clean).tolist()
    print(f"time {time}: formula ({x:.2f}, {y:.2f}), 200,000 points ({x2:.2f}, {y2:.2f})")

# %% [markdown]
# The formula holds. At time 900 the answer is 1.7 from any heap, near the middle of the ring, where no data is: a
# compromise between all eight. Only as the noise shrinks does it decide for one heap. A denoiser alone is no generator.
#
# ## 3 Many small steps
#
# The way out: do not believe the answer, only move a little in its direction, and ask again. **DDIM** (Song and others,
# 2021) computes from the answer $\hat x_0$ which noise must have been in the picture, and mixes both again, for an
# earlier time:
#
# $$\hat\varepsilon = \frac{x_t - \sqrt{\bar\alpha_t}\, \hat x_0}{\sqrt{1 - \bar\alpha_t}}, \qquad
#   x_{\mathrm{earlier}} = \sqrt{\bar\alpha_{\mathrm{earlier}}}\, \hat x_0 + \sqrt{1 - \bar\alpha_{\mathrm{earlier}}}\,
#   \hat\varepsilon$$
#
# By hand: $x_t$ = 0.5, the answer is 0.5, $\bar\alpha$ goes from 0.36 to 0.64. The noise was (0.5 - 0.6 · 0.5) / 0.8 =
# 0.25, and the earlier point is 0.8 · 0.5 + 0.6 · 0.25 = 0.55. (Leave `eta` at 0 for now.)
#
# `sampling_times(4)` gives the times to stop at: 1000, 750, 500, 250, 0.
#
# **Predict.** 1000 noisy points, and the perfect denoiser. Where do they end after a single step?


# %% tags=["lib:denoising.ddim_step", "lib:denoising.ddim_sample", "nbval-check-output"]
# now, before: alpha_bar of both times; eta = 0 adds no fresh noise
def ddim_step(noisy: Tensor, clean: Tensor, now: float, before: float,
              noise: Tensor | None, eta: float) -> Tensor:  # fmt: skip
    epsilon = (noisy - now**0.5 * clean) / (1 - now) ** 0.5
    fresh = eta * ((1 - before) / (1 - now) * (1 - now / before)) ** 0.5
    earlier = before**0.5 * clean + max(1 - before - fresh**2, 0.0) ** 0.5 * epsilon
    return earlier if eta == 0 else earlier + fresh * noise


# from noise to pictures, (B, ...) -> (B, ...); times: falling, down to 0; draw: gives the fresh noise
def ddim_sample(denoise: Denoise, noisy: Tensor, times: Sequence[int], schedule: Tensor,
                draw: Draw | None = None, eta: float = 0.0) -> Tensor:  # fmt: skip
    for now, before in pairwise(times):
        noise = draw() if eta else None
        noisy = ddim_step(noisy, denoise(noisy, now),
                          schedule[now].item(), schedule[before].item(), noise, eta)  # fmt: skip
    return noisy


# %% tags=["nbval-check-output"]
half = torch.tensor([0.5])
print(f"by hand 0.55, ddim_step {ddim_step(half, half, 0.36, 0.64, None, 0).item():.2f}")
noise = torch.randn(1000, 2, generator=random).to(device)
alt = (
    "Four panels. After 1 step all points are in the middle of the ring. After 2 they fill a disc inside it. "
    "After 5 most are at the eight heaps, some on the lines between; after 50 nearly all are in the heaps."
)
title = "A perfect denoiser and no network: the same noise in more and more steps"
with figure(title, alt, columns=4, size=(9, 2.9)) as panels:
    for panel, steps in zip(panels, (1, 2, 5, 50), strict=True):
        points = ddim_sample(exact, noise, sampling_times(steps), ALPHA_BAR).cpu()
        panel.plot(*centers.cpu().T, "o", markersize=13, color="lightgray")
        panel.plot(*points.T, ".", markersize=2.5)
        panel.set(title=f"steps: {steps}", xlabel="x", ylabel="y", xlim=(-3, 3), ylim=(-3, 3), aspect="equal")

# %% [markdown]
# In the middle, all of them: one step *is* the mean. This is the blurred picture of lesson 09. The generator of a GAN
# escapes from it by an opponent, diffusion by taking its time: after the first small step the points differ a little,
# the next answers differ more, and each finds a heap.
#
# ### With fresh noise: DDPM
#
# The older sampler, **DDPM** (Ho and others, 2020), draws the earlier point at random: a normal distribution with the
# mean and variance that Bayes' rule gives, if the answer is true. We do Bayes by hand for the numbers above. Before
# seeing $x_t$, the earlier point has mean 0.8 · 0.5 = 0.4 and variance 1 - 0.64 = 0.36. What we see, 0.5, is $\sqrt{r}$
# times that point plus noise of variance $1 - r$, where $r$ = 0.36 / 0.64. Precisions (1 / variance) add.
#
# **Predict.** Then the ring: its heaps have standard deviation 0.1. Will 10 steps make them wider or narrower?


# %% tags=["lib:denoising.ddpm_step", "lib:denoising.ddpm_sample", "nbval-check-output"]
def ddpm_step(noisy: Tensor, clean: Tensor, now: float, before: float, noise: Tensor) -> Tensor:
    """A step back: draws the picture of an earlier time."""
    kept = now / before
    mean = (before**0.5 * (1 - kept) * clean + kept**0.5 * (1 - before) * noisy) / (1 - now)
    return mean + ((1 - before) / (1 - now) * (1 - kept)) ** 0.5 * noise


def ddpm_sample(
    denoise: Denoise, noisy: Tensor, times: Sequence[int], schedule: Tensor, draw: Draw
) -> Tensor:
    """From noise to pictures, with fresh noise in every step: (B, ...) -> (B, ...)."""
    for now, before in pairwise(times):
        noisy = ddpm_step(noisy, denoise(noisy, now), schedule[now].item(), schedule[before].item(), draw())
    return noisy


# %% tags=["nbval-check-output"]
r = 0.36 / 0.64
precision = 1 / 0.36 + r / (1 - r)
mean, spread = (0.4 / 0.36 + r**0.5 * 0.5 / (1 - r)) / precision, precision**-0.5
bayes, both = torch.tensor([mean, mean + spread]), (torch.zeros(1), torch.ones(1))
ours = torch.cat([ddpm_step(half, half, 0.36, 0.64, z) for z in both])  # with the noise 0, with the noise 1
same = torch.cat([ddim_step(half, half, 0.36, 0.64, z, eta=1) for z in both])
compare({"ddpm_step and Bayes": (ours, bayes), "DDIM with eta = 1": (same, ours)})
for steps, eta in product((2, 5, 10, 50, 1000), (0, 1)):
    fresh = partial(torch.randn_like, noise)
    points = ddim_sample(exact, noise, sampling_times(steps), ALPHA_BAR, fresh, eta)
    found, good = covered_modes(points, centers)
    off = (torch.cdist(points, centers).min(1).values.square().mean().item() / 2) ** 0.5
    print(f"{steps:4} steps, eta {eta}: {found} heaps, {good:4.0%} inside, standard deviation {off:.2f}")

# %% [markdown]
# 0.4844 and 0.9805, by Bayes' rule and by the function. And DDIM with `eta` = 1 is DDPM; so these are its lines.
#
# The heaps become narrower: 0.08 at 10 steps. Each step goes to a *mean*, and means vary less than what they are means
# of; only many small steps keep all of the spread. Few steps cost diversity; remember that for pictures. But no heap
# is lost, as a GAN can lose them (lesson 10): noise lies on all sides of the middle, and on each side a heap is near.
#
# DDIM has one more virtue: no further chance. The same noise gives nearly the same picture, in 10 steps or in 50.
#
# ## 4 What to ask a network for
#
# A network can be asked for the clean picture, for the noise $\varepsilon$ in it, or for $v$, a mixture: the noise
# near the picture, minus the picture near the noise (Salimans and Ho, 2022). From each, the clean picture can be
# computed, and `epsilon_from_clean` goes the other way. But they are not equally safe.
#
# **Predict.** The network's answer is off by 0.01. By how much is the clean picture off, at time 1000?


# %% tags=["lib:denoising.velocity", "lib:denoising.clean_from_velocity", "lib:denoising.clean_from_epsilon", "nbval-check-output"]
def velocity(clean: Tensor, noise: Tensor, alpha_bar: Tensor) -> Tensor:
    """v: (B, ...) -> (B, ...)."""
    picture_amount, noise_amount = amounts(alpha_bar, clean)
    return picture_amount * noise - noise_amount * clean


def clean_from_velocity(noisy: Tensor, v: Tensor, alpha_bar: Tensor) -> Tensor:
    """The picture that a velocity speaks of: (B, ...) -> (B, ...)."""
    picture_amount, noise_amount = amounts(alpha_bar, noisy)
    return picture_amount * noisy - noise_amount * v


def clean_from_epsilon(noisy: Tensor, epsilon: Tensor, alpha_bar: Tensor) -> Tensor:
    """The picture that is left without the noise `epsilon`: (B, ...) -> (B, ...)."""
    picture_amount, noise_amount = amounts(alpha_bar, noisy)
    return (noisy - noise_amount * epsilon) / picture_amount


# %% tags=["nbval-check-output"]
pixel, speck, kept = torch.full((1000, 1), 0.8), torch.full((1000, 1), -0.5), ALPHA_BAR[1:]
noisy = add_noise(pixel, speck, kept)
off = {
    "asked for the noise": clean_from_epsilon(noisy, speck + 0.01, kept),
    "asked for v": clean_from_velocity(noisy, velocity(pixel, speck, kept) + 0.01, kept),
}
lines(
    range(1, 1001),
    {name: (answer - pixel).abs()[:, 0] for name, answer in off.items()},
    "An error of 0.01 in the answer: what it does to the picture",
    ("time", "error in the picture"),
    alt="Logarithmic. Asked for noise: 0.0001, 0.1 at time 900, 200 at 1000. Asked for v: under 0.01.",
    yscale="log",
)

# %% [markdown]
# By 200, where pixels lie between -1 and 1. Near pure noise, subtracting the noise leaves next to nothing, and that is
# divided by next to nothing. Asked for $v$, the picture is never further off than the answer; so our networks predict
# $v$.
#
# ## 5 Learn it
#
# Training needs no opponent. Draw a clean point, a time, and noise; mix; ask for $v$; take the squared error. The
# network, the MLP of lesson 10, must know the time: `time_embedding` gives it as sines and cosines of many
# wavelengths.
#
# Here, for once, the best possible loss is known: that of the formula.
#
# **Predict.** Is it 0? And when the network's loss is within a few percent of it, are its points as good as the
# formula's?

# %%
from course_lib.fit import fit, warmup_cosine
from course_lib.losses import mse_loss
from course_lib.optim import Adam
from course_lib.unet import DiffusionConfig, UNet, time_embedding


def batch(step):
    clean, eps = ring_of_gaussians(384, random), torch.randn(384, 2, generator=random)
    time = torch.randint(1, 1001, (384,), generator=random)
    v = velocity(clean, eps, ALPHA_BAR[time])
    return add_noise(clean, eps, ALPHA_BAR[time]).to(device), time, v.to(device)


def answer(net, noisy, time):
    return net(torch.cat([noisy, time_embedding(time.to(device), 16)], dim=1))


# %%
net = MLP([18, 128, 128, 128, 2], initialise=True).to(device)
rate, optimizer = warmup_cosine(3e-3, 1500, 20), Adam(net.parameters())
losses = fit(
    net, batch, lambda net, x, t, v: mse_loss(answer(net, x, t), v), optimizer, 1500, learning_rate=rate
)


def best_loss(noisy, time, v):
    clean, kept = exact(noisy, time), ALPHA_BAR[time]
    return mse_loss(velocity(clean, epsilon_from_clean(noisy, clean, kept), kept), v).item()


best = sum(best_loss(*batch(step)) for step in range(50)) / 50
print(f"the network, last 200 steps: {sum(losses[-200:]) / 200:.3f}; the formula: {best:.3f}")
assert best < sum(losses[-200:]) / 200 < best + 0.15


# %%
def learned(noisy, time):
    v = answer(net, noisy, torch.full((len(noisy),), time))
    return clean_from_velocity(noisy, v, ALPHA_BAR[time : time + 1])


alt = (
    "Two panels with eight heaps on a ring. With the formula nearly all points lie in round heaps; with the "
    "network every heap is found too, but some points lie between the heaps."
)
with figure("50 DDIM steps from the same noise", alt, columns=2, size=(8, 4)) as panels, torch.no_grad():
    for panel, name, denoise in zip(panels, ("formula", "network"), (exact, learned), strict=True):
        points = ddim_sample(denoise, noise, sampling_times(50), ALPHA_BAR)
        found, good = covered_modes(points, centers)
        panel.plot(*points.cpu().T, ".", markersize=3)
        panel.set(title=f"{name}: {found} heaps, {good:.0%} inside", xlabel="x", ylabel="y", aspect="equal")
assert found == 8

# %% [markdown]
# Not 0, and not near it: above 1.1. Which of the possible points it was, nobody can know from a noisy one. So a
# diffusion model's loss soon looks flat, while its pictures still improve.
#
# All eight heaps are found, in some seconds and without any balancing of two players. But of the formula's points 99 %
# are inside a heap, of the network's about two thirds: its loss is a few percent too high, and the small errors of 50
# steps add up.
#
# ## 6 Pictures: the U-Net
#
# A picture's denoiser must see the whole (which shape, where?) and answer for each pixel. A **U-Net** goes down and up
# again, and lays what it saw on the way down beside what comes up. All of its parts are old friends: `Conv2d`,
# `ConvTranspose2d`, `GroupNorm`, `Linear` and `attention`.
#
# ```mermaid
# flowchart LR
#   noisy["noisy 3 x 32 x 32"] --> d16["block 16 x 16"] --> d8["block 8 x 8"] --> mid["attention, block, attention"]
#   mid --> u8["block 8 x 8"] --> u16["block 16 x 16"] --> v["v 3 x 32 x 32"]
#   d8 -. beside .-> u8
#   d16 -. beside .-> u16
#   noisy -. a share .-> v
#   words["words of the caption"] --> mid
#   cond["time + whole caption: scale and shift of every block"] --> d16 & d8 & u8 & u16
# ```
#
# `DiffusionConfig` has the sizes, `UNet` the picture above. Each `ResidualBlock` adds two convolutions to its input
# and lets the condition scale and shift the channels between; the condition is the `TimeEmbedding` plus the
# `whole_text`. In `CrossAttention` each of the 8 x 8 places asks the words. `zero_` starts the last layer of each part
# at zero, so a new network answers 0. `silu` is its gate, $x \, \sigma(x)$. Read them in `unet.py`.
#
# The loss does what we did with points. The caption is withheld one time in ten (section 8 tells why); the lines with
# `low` are for section 10.
#
# Train one now: pictures of 16 x 16 pixels, of a small grammar of four shapes and six colours. `DiffusionTrainer` does
# one such step after the other, by a `DiffusionTrainConfig`, and averages the weights as lesson 12 did.
#
# **Predict.** After 300 steps, which will be right first: colour, place or shape?


# %% tags=["lib:diffusion.diffusion_loss", "nbval-check-output"]
# images (B, 3, S, S), tokens (B, T, E), mask (B, T) -> (), the mean squared error of the answer
def diffusion_loss(
    unet: UNet, images: Tensor, tokens: Tensor, mask: Tensor,
    random: torch.Generator, text_dropout: float = 0.1
) -> Tensor:  # fmt: skip
    time = torch.randint(1, TIMES + 1, (len(images),), generator=random)
    noise = torch.randn(images.shape, generator=random).to(images)
    keep = (torch.rand(len(images), 1, generator=random) >= text_dropout).to(mask.device)
    noisy = add_noise(images, noise, ALPHA_BAR[time])
    low = ()
    if unet.config.super_resolution:
        low_time = torch.randint(MAX_LOW_TIME + 1, (len(images),), generator=random)
        low = noisy_low(average_pool2d(images, 2), low_time, random)
    prediction = unet(noisy, time.to(images.device), tokens, mask & keep, *low)
    return mse_loss(prediction, TARGETS[unet.config.prediction](images, noise, ALPHA_BAR[time]))


# %%
from course_lib.batches import step_random
from course_lib.diffusion import draw_pictures
from course_lib.diffusion_training import DiffusionTrainConfig, DiffusionTrainer
from course_lib.long_recipes import embed
from course_lib.text_encoder import embed_tokens, load_text_encoder

encoder, tokenizer = load_text_encoder("align-shapes-32", device)
small = CaptionedShapes("train", 16, length=2000, grammar="small")
data = embed(small, encoder, tokenizer, device, tokens=True)  # each caption is read once
settings = DiffusionTrainConfig(steps=300, batch_size=32, learning_rate=3e-3, average_decay=0.98)
trainer = DiffusionTrainer(UNet(DiffusionConfig(16, 96, width=24)).to(device), settings)
losses = [trainer.step(data)["loss"] for _ in range(settings.steps)]
print(f"loss of the first 50 steps {sum(losses[:50]) / 50:.2f}, of the last 50 {sum(losses[-50:]) / 50:.2f}")
assert sum(losses[-50:]) < 0.5 * sum(losses[:50])

# %%
names = ["large red ring, center", "small yellow square, top left", "large blue circle, bottom right"]
texts = ["a large red ring at the center on navy", "a small yellow square at the top left on navy"]
texts += ["a large blue circle at the bottom right on navy"]
tokens = embed_tokens(encoder, tokenizer, texts).repeat_interleave(8, 0)  # (24, T, E)
seeds = [step_random(0, i) for i in range(24)]
drawn = draw_pictures(trainer.average.model.eval(), tokens, tokens.any(-1), seeds, 20, guidance_scale=2.0)
with figure(
    "After 300 steps of training: 20 steps of drawing",
    alt="Three rows of eight small grainy pictures: red blobs in the middle; small yellow spots at the "
    "top left; larger blue blobs, all on the right, some at the bottom.",
    size=(9, 3.2),
) as axis:
    axis.imshow(to_pil(make_grid(drawn, 8)), interpolation="nearest", zorder=1)
    axis.set(xticks=[], yticks=[10, 28, 46], yticklabels=names)

# %% [markdown]
# Colour first; size and place are right in most pictures; no shape yet. It comes last, as with the GAN: the shipped
# model had 13,000 steps of 192 pictures. The grain is noise that was not found.
#
# ## 7 The shipped model
#
# `shapes-32-diffusion` learned the same way, in 8 minutes on a GPU, from the captions of `shapes-32`, the GAN. (The preset
# as it is, `course train --preset shapes-32-diffusion`, is two fifths of the work and takes 75 minutes on one core.)
# `DiffusionTextToImage` has the same `sample`, with `steps_per_sample` and `guidance_scale`: here they have their true
# meaning. A plain GAN draws in one pass; the article gives it these two parameters of a diffusion sampler (lessons 14 and
# 17).
#
# `draw_pictures` hands each step's answer to a `threshold` (section 9). We use that to listen: 16 held-out captions,
# four noises each, 20 steps, and what the judge of lesson 15 reads off each *answer*.
#
# **Predict.** After the first step, from pure noise: how many answers fit their caption? And what will they look like,
# beside the mean of 200 real pictures of it?

# %%
from course_lib.diffusion import DiffusionTextToImage
from course_lib.evaluation import load_judge
from course_lib.metrics import attribute_accuracy, diversity_ratio

model, judge = DiffusionTextToImage.from_pretrained("shapes-32-diffusion", device), load_judge(32)
exam, answers = CaptionedShapes("heldout", 32, length=16), []
captions, scenes = [exam.caption(i) for i in range(16)], [exam.attributes(i) for i in range(16)]
tokens, mask = (x.repeat_interleave(4, 0) for x in model.encode_text(captions))  # (64, T, E), (64, T)


def listen(clean):
    answers.append(clean.clamp(-1, 1))
    return answers[-1]


drawn = draw_pictures(model.base, tokens, mask, [step_random(0, i) for i in range(64)], 20, 1.0, listen)

# %%
real = torch.stack([pictures_like(scene, 32, i)[:4] for i, scene in enumerate(scenes)])  # (16, 4, 3, 32, 32)


def marks(images):
    images, repeated = images.cpu(), [scene for scene in scenes for _ in range(4)]
    right = attribute_accuracy(judge, images, repeated)["all"]
    return right, diversity_ratio(images.view(real.shape), real)


fits, spread = zip(*map(marks, answers), strict=True)
labels = ("step", "share, or ratio to real pictures")
alt = "The share of answers that fit is near 1 at once. Diversity starts near 0.4 and rises to more than 0.8."
title, curves = "What the answer is like at each of 20 steps", {"fits the caption": fits, "diversity": spread}
lines(range(1, 21), curves, title, labels, alt=alt, ylim=(0, 1.1), xticks=(1, 5, 10, 15, 20))
print(f"first step: {fits[0]:.0%} fit, diversity {spread[0]:.2f}; last: {fits[-1]:.0%}, {spread[-1]:.2f}")
assert fits[0] > 0.8 and spread[0] < 0.6 < spread[-1]

# %%
many = torch.cat([pictures_like(scenes[3], 32, seed) for seed in range(25)])  # (200, 3, 32, 32)
row = torch.stack([many.mean(0), *(answers[step][12].cpu() for step in (0, 1, 3, 6, 9, 14, 19))])
titles = ["mean of 200", *(f"step {step}" for step in (1, 2, 4, 7, 10, 15, 20))]
alt = (
    "Eight pictures. The mean of 200 real pictures is a blurred star. The answer at step 1 is blurred in the "
    "same way; from step to step it becomes sharp."
)
with figure(captions[3], alt, size=(9, 1.9)) as axis:
    axis.imshow(to_pil(make_grid(row, 8)), interpolation="nearest", zorder=1)
    axis.set(xticks=[18 + 34 * i for i in range(8)], xticklabels=titles, yticks=[])
away = [(x - row[0]).square().mean().sqrt().item() for x in (row[1], row[7], many)]
print("distance to the mean: step 1 {:.2f}, step 20 {:.2f}, a real picture {:.2f}".format(*away))

# %% [markdown]
# Nearly all fit, at once! And it is the mean again: from pure noise all that is known is the caption, so the answer is
# the mean of all its pictures, blurred, and much the same for every noise. The judge reads it without trouble: **accuracy
# alone does not see blur**. In our world a caption says nearly everything; what the further steps add is sharpness,
# and the little that the caption leaves open: where exactly, how large, which shade.
#
# ## 8 Guidance
#
# The network also learned to draw without a caption. So there are two predictions, and **classifier-free guidance** (Ho
# and Salimans, 2022) goes on in the direction from one to the other. With 0.2 without the caption, 0.5 with it, and a
# scale of 3: 0.2 + 3 · (0.5 - 0.2) = 1.1.
#
# We look first at the ring, where we know what is right. The heaps are wide now, with standard deviation 0.5. The
# "caption" says: the heap on the right. With it, the denoiser knows one heap; without it, all eight.
#
# **Predict.** At scale 1 the points form that heap. What will scale 2 and 5 do to its place and its width?


# %% tags=["lib:denoising.guide", "lib:diffusion.predict", "nbval-check-output"]
def guide(with_text: Tensor, without_text: Tensor, guidance_scale: float) -> Tensor:
    """Classifier-free guidance: 0 ignores the caption, 1 is the plain prediction, more overstates it."""
    return without_text + guidance_scale * (with_text - without_text)


def predict(unet: UNet, inputs: tuple[Tensor, ...], guidance_scale: float) -> Tensor:
    """What the network says, guided; with and without the captions in one pass of twice the size."""
    if guidance_scale == 1:
        return unet(*inputs)
    noisy, time, tokens, mask, *low = (torch.cat([x, x]) for x in inputs)
    mask[len(mask) // 2 :] = False
    return guide(*unet(noisy, time, tokens, mask, *low).chunk(2), guidance_scale)


# %% tags=["nbval-check-output"]
def told(scale, noisy, time):
    return guide(exact(noisy, time, centers[:1], 0.5), exact(noisy, time, centers, 0.5), scale)


alt = (
    "Scale 0: points all around the ring. 1: they fill the grey circle on the right. 2: a smaller heap, in "
    "and beyond its right half. 5: a thin streak outside of the circle."
)
title = "Guided to the heap on the right (grey circle: two standard deviations)"
with figure(title, alt, columns=4, size=(9, 3.1)) as panels:
    for panel, scale in zip(panels, (0, 1, 2, 5), strict=True):
        points = ddim_sample(partial(told, scale), noise, sampling_times(100), ALPHA_BAR).cpu()
        panel.plot(*points.T, ".", markersize=2)
        panel.plot(2 + torch.arange(-25, 26).div(8).cos(), torch.arange(-25, 26).div(8).sin(), color="gray")
        label = f"scale {scale}\nmean x {points[:, 0].mean().abs():.1f}"
        panel.set(title=label, xlabel="x", ylabel="y", xlim=(-4, 5), ylim=(-4.5, 4.5), aspect="equal")

# %% [markdown]
# They leave the heap: guidance goes not *to* what fits the caption but *away from what does not*, here away from the
# other seven heaps. The points are less various, and beyond the data. It is a deliberate distortion, and it pays when
# the plain prediction does not listen well enough.
#
# Now pictures. **Predict.** What becomes of a yellow star at scale 5, and at 20?
#
# Then the same over 200 held-out captions for each setting. That takes about ten minutes, so its numbers are stored, in
# `data/logs/shapes-32-diffusion-sweep.json`. They are what this prints:
# `course evaluate --model shapes-32-diffusion --sweep --n 200 --json`.
#
# **Predict.** Which scale fits best, and what does it cost?
#
# Last an explorer, the film of one drawing. Leaf through its steps; then move guidance to 1, 5 and 10. **Predict.** At
# scale 10, which answer is the first that no longer shows navy?

# %%
text, scales = "a large yellow star at the top left on navy", (0, 1, 2, 5, 10, 20)
rows = torch.cat([model.sample(text, 8, 20, float(scale)) for scale in scales])
alt = (
    "Rows of eight pictures by guidance scale. 0: any shape, anywhere. 1: stars, some malformed. 2: clear "
    "stars. 5: thin stars on a background that has turned grey. 10 and 20: fragments on grey."
)
with figure(text, alt, size=(7, 5.4)) as axis:
    axis.imshow(to_pil(make_grid(rows, 8)), interpolation="nearest", zorder=1)
    labels = [f"scale {scale}" for scale in scales]
    axis.set(xticks=[], yticks=[18 + 34 * i for i in range(6)], yticklabels=labels)

# %% tags=["nbval-check-output"]
log = CHECKPOINTS.parent / "logs" / "shapes-32-diffusion-sweep.json"
sweep = json.loads(log.read_text(encoding="utf-8"))
curves, scales = {}, sorted({row["guidance_scale"] for row in sweep})
for steps in (10, 50):
    some = [row for row in sweep if row["steps_per_sample"] == steps]
    curves[f"fits, {steps} steps"] = [row["all"] for row in some]
    curves[f"diversity, {steps} steps"] = [row["diversity"] for row in some]
labels = ("guidance scale", "share, or ratio to real pictures")
alt = (
    "Fit rises from 0.9 at scale 1 to 0.97 at 2 and 3, falls at 5. Diversity falls until 3; 50 steps: higher."
)
lines(scales, curves, "What guidance buys, and what it costs", labels, alt=alt, ylim=(0.5, 1.02))
table([{"guidance": s, **{k: round(v[i], 3) for k, v in curves.items()}} for i, s in enumerate(scales)])

# %% tags=["explorer"]
from course_lib.widgets import denoising_film

denoising_film()

# %% [markdown]
# In the pictures, 2 makes the stars more star-like; then they are exaggerated to skeletons, and the colours go. In the
# numbers, a little guidance turns nine of ten into 96 to 98 of 100, for some diversity; 5 spoils it. (Diversity even
# rises there: fragments differ from each other too.) And 10 steps fit as well as 50. What the 40 others buy is
# diversity.
#
# In the film the first answer is a navy star at every scale, though the network saw nothing but noise. At 10 the second
# one is grey already: it began from a picture into which the first had been mixed, overstated. The judge sees all that was
# asked for in all 20 answers at scales 1 and 2, in 11 at 5, in 1 at 10.
#
# ## 9 Thresholds
#
# Pixels end at -1 and 1, guided answers do not: see the 1.1 above. A network that is shown, in its next step, what no
# training picture held goes astray. **Static** thresholding cuts off. Imagen's **dynamic** one takes the size $s$ that
# 99.5 % of a picture's pixels do not exceed; if $s$ > 1, it cuts at $\pm s$ and divides everything by $s$.
#
# **Predict.** Pixels -4, -2, 0, 0.5, 2, and a percentile of 80 %: what do both make of them?


# %% tags=["lib:denoising.static_threshold", "lib:denoising.dynamic_threshold", "nbval-check-output"]
def static_threshold(clean: Tensor) -> Tensor:
    """Cuts pixels off at -1 and 1: (B, ...) -> (B, ...)."""
    return clean.clamp(-1, 1)


def dynamic_threshold(clean: Tensor, percentile: float = 0.995) -> Tensor:
    """Scales a picture that leaves [-1, 1] back into it, instead of cutting it off: (B, ...) -> (B, ...)."""
    sizes = clean.flatten(1).abs()  # (B, N)
    rank = max(1, math.ceil(percentile * sizes.shape[1]))
    limit = sizes.kthvalue(rank, dim=1).values.clamp(min=1)  # (B,)
    limit = limit.view(-1, *[1] * (clean.dim() - 1))
    return clean.clamp(-limit, limit) / limit


# %%
five = torch.tensor([[-4.0, -2.0, 0.0, 0.5, 2.0]])
print(f"static {static_threshold(five)[0].tolist()}, dynamic {dynamic_threshold(five, 0.8)[0].tolist()}")
rows = []
for scale in (2.0, 10.0):
    for name, threshold in (("static", static_threshold), ("dynamic", dynamic_threshold)):
        seeds = [step_random(0, i) for i in range(64)]
        images = draw_pictures(model.base, tokens, mask, seeds, 10, scale, threshold)
        glued = (images.abs() > 0.99).float().mean().item()
        told = {"fits": f"{marks(images)[0]:.0%}", "pixels at the limit": f"{glued:.1%}"}
        rows.append({"guidance scale": scale, "threshold": name, **told})
table(rows)

# %% [markdown]
# Static: -1, -1, 0, 0.5, 1. Dynamic, with $s$ = 2: -1, -1, 0, 0.25, 1. Only what lay at $\pm s$ or beyond ends at the
# limit, and what is between keeps its steps. But at scale 10 dynamic thresholding fits *worse* here. It divides a whole
# picture by $s$ because of a few pixels, and navy turns grey, as in the figure above. For photographs at large scales
# Saharia and others (2022, section 4.4) found it critical; our flat colours are a different world. Measure on your own
# data.
#
# ## 10 A second stage
#
# Imagen does not draw 1024 x 1024 pixels at once. A first stage draws 64 x 64, a second makes 256 x 256 of that, a
# third 1024 x 1024: a **cascade**. Ours goes from 32 to 64 (`course train --preset shapes-64-diffusion`). The second
# stage is a U-Net too; its input is the noisy large picture *and* the small one, enlarged.
#
# What the first stage draws is not perfect, and a second stage that trusts every pixel would copy its errors. So in
# training the small picture is made noisy itself, to a random degree that the network is told (`noisy_low`; Ho and
# others, 2021, call it conditioning augmentation). For drawing we use time 100, between the second and the third star of
# section 1.
#
# Our first stage is `shapes-32-diffusion`; the second, too, had 8 minutes of a GPU.
#
# **Predict.** It is given a *real* small picture, whose large one we know. Will what it draws be nearer to that than
# plain blocks of 2 x 2 pixels?


# %%
two_stages, judge64 = DiffusionTextToImage.from_pretrained("shapes-64-diffusion", device), load_judge(64)
truth = torch.cat([pictures_like(scenes[i], 64, i)[:1] for i in range(8)]).to(device)
words, heard = two_stages.encode_text(captions[:8])


def draw(unet, low=None):
    return draw_pictures(unet, words, heard, [step_random(0, i) for i in range(8)], 20, 2.0, low=low)


rows = {"real at 64": truth}
for name, low in (("real at 32", average_pool2d(truth, 2)), ("drawn at 32", draw(two_stages.base))):
    rows |= {name: upsample_nearest(low), f"{name}, then 64": draw(two_stages.upscaler, low)}
alt = "Five rows of eight pictures. Those at 32 have blocks; those enlarged have smooth edges, but dents."
with figure("From 32 to 64 pixels", alt, size=(9, 5.1)) as axis:
    axis.imshow(to_pil(make_grid(torch.cat([*rows.values()]), 8)), interpolation="nearest", zorder=1)
    axis.set(xticks=[], yticks=[34 + 66 * i for i in range(5)], yticklabels=rows)
for name, images in rows.items():
    print(f"{name}: {8 * attribute_accuracy(judge64, images.cpu(), scenes[:8])['all']:.0f} of 8 fit")
print("squared error of rows 2, 3:", *(f"{mse_loss(rows[name], truth):.4f}" for name in list(rows)[1:3]))

# %% [markdown]
# The blocks are gone, and edges are smooth. But the outlines have dents. The real small pictures show whose fault that
# is: the second stage rounds the corners of squares and bends a ring that it was given whole. In squared error plain
# blocks are twice as near to the truth (0.0030 against 0.0066).
#
# So the weak one is *our* second stage: the first saw 2.5 million pictures in training, this one 0.9 million with four times
# as many pixels. A cascade is as good as its weakest stage. (With 0.2 million 89 % of its pictures fitted their captions,
# with 0.9 it is 92 %.) Yours can be trained longer: `course train --preset shapes-64-diffusion --batch_size 96 --steps 40000
# --out runs/longer`, half an hour on a GPU like ours.
#
# ## 11 GAN and diffusion, side by side
#
# The same captions, the same text encoder, the same kinds of layers. We compare at **equal sampling time**: one pass of
# the GAN costs less than one step of diffusion, five steps of refining its noise (lesson 14) about as much as ten.
# "Grain" is the median difference of neighbouring pixels: 0.000 for real pictures, whose ground is flat.
#
# **Predict.** Which of the two wins, at one step's time, and at fifty?

# %%
from time import perf_counter

from course_lib.text_to_image import TextToImage

gan, drawn, rows = TextToImage.from_pretrained("shapes-32", device), {}, []
gan.sample(captions[:1], 1, 0)  # the first call is slower
settings = [(gan, 0, 1), (model, 1, 1), (gan, 5, 1), (model, 5, 1), (model, 20, 1), (model, 50, 1)]
columns = ["drawn by", "guidance", "ms a picture", "fit", "diversity", "grain"]
for drawer, steps, scale in settings:
    name, begin = f"{'GAN' if drawer is gan else 'diffusion'}, steps: {steps}", perf_counter()
    drawn[name] = images = drawer.sample(captions, 4, steps, scale).cpu()  # (64, 3, 32, 32)
    spent, (right, spread) = (perf_counter() - begin) / 64, marks(images)
    grain = (images[..., 1:] - images[..., :-1]).abs().flatten(1).median(1).values.mean()
    values = [name, scale, f"{1000 * spent:.1f}", f"{right:.0%}", f"{spread:.2f}", f"{grain:.3f}"]
    rows.append(dict(zip(columns, values, strict=True)))
table(rows)

# %%
alt = (
    "Six rows of eight pictures. The GAN's are crisp at once. Diffusion after 1 step is blurred and all "
    "alike, after 5 soft, after 20 and 50 sharp, with wobbly outlines and slight grain."
)
with figure("Four pictures each for two held-out captions", alt, size=(9, 6)) as axis:
    grid = make_grid(torch.cat([images[12:20] for images in drawn.values()]), 8)
    axis.imshow(to_pil(grid), interpolation="nearest", zorder=1)
    axis.set(xticks=[69, 205], xticklabels=[caption.replace(" at", "\nat") for caption in captions[3:5]])
    axis.set(yticks=[18 + 34 * i for i in range(6)], yticklabels=drawn)

# %% [markdown]
# In the time of one pass the GAN wins clearly: sharp and various, where diffusion has nothing but the mean. After 20
# steps diffusion is as various as the GAN, after 50 more so. But fewer of its pictures fit, outlines wobble, and the
# grain *grows* from 5 steps on. More steps ask for fainter noise at the end, of which our small network misses a part;
# with few, the last leap goes to a mean, which is smooth. The models' cards agree: the kernel distance to real
# pictures (lesson 15) is 0.18 for the GAN and 0.65 for diffusion at 50 steps.
#
# And at **equal training**? Work is counted in operations (lesson 13). The GAN's 8,000 steps are $77 \cdot 10^{12}$ of them;
# with as many, 7,300 steps, diffusion draws 35 % of held-out captions right where the GAN draws 99.6 %, for shapes come
# last. With $206 \cdot 10^{12}$ it is at 97 %, and the shipped one, with $537 \cdot 10^{12}$, not much further
# (`data/logs/compute.json`).
#
# Then why did diffusion win? Not on toys. One network and one loss, with nothing to keep in balance, can be made large
# and fed with everything; Saharia and others (2022, section 5) name fidelity and diversity above those of GANs,
# "without training instability and mode collapse issues".
#
# ## 12 What Imagen is, then
#
# You have built its parts. What the real one has beyond them (all from Saharia and others, 2022; sections in brackets):
#
# | | here | Imagen |
# |---|---|---|
# | reads with | a GPT of 0.3 million parameters, trained on captions and pictures, frozen | the encoder of T5-XXL, 4.6 billion, trained on text alone, frozen (2.1, 4.4) |
# | first stage | 32 x 32, 0.5 million | 64 x 64, 2 billion (4.1) |
# | further stages | 64 x 64, 0.5 million | 256 x 256, 600 million; 1024 x 1024, 400 million (4.1) |
# | their network | the same U-Net | Efficient U-Net: less memory, 2 to 3 times as many steps a second (2.5) |
# | noise on the small picture | yes | yes, "critical" (2.4, 4.4) |
# | guidance | yes; captions withheld in 10 % of training | the same 10 %; scale 1.35 in the first stage for the best FID (4.1, table 1) |
# | dynamic thresholding | yes | yes, "critical" (2.3, 4.4) |
# | data | 20,000 computed pictures | about 860 million pictures with captions: 460 internal, 400 of LAION (4.1) |
# | training | first stage: 13,000 steps of 192, eight minutes of one GPU | 2.5 million steps of 2048, 256 TPU-v4 chips for the first stage (4.1) |
# | result | 97 % of pictures fit their held-out caption | zero-shot FID-30K of 7.27 on COCO (4.2) |
#
# Its main finding: a larger *reader* helped more than a larger U-Net (4.4). And a popular article errs on four points,
# all listed in lesson 17: Imagen comes from Google Research, not OpenAI, and its code and weights were never released
# (section 6 of the paper says why); it is no GAN; `steps_per_sample` and `guidance_scale` belong to a diffusion
# sampler; and it reads with T5, not GPT.
#
# Is a GAN then a thing of the past? GigaGAN (Kang and others, 2023) reports 9.09 on the same measure, in 0.13 seconds a
# picture where its table 2 lists 9.1 for Imagen: somewhat worse, and 70 times as fast.
#
# ## What changed in the library
#
# Four rooms are furnished: `denoising.py` (the arithmetic), `unet.py` (the network), `diffusion.py` (drawing) and
# `diffusion_training.py`. In `diffusion.py` you have met all but `normal`, which draws each picture's noise from a
# source of its own, and `require_fit`, which refuses two stages that do not belong together.
#
# ## Three questions
#
# 1. Someone trains one network to predict the clean picture from pure noise and the caption, with the squared error,
#    and calls it a one-step diffusion model. What will it draw?
#
# <details><summary>Answer</summary>
#
# The mean of all pictures of that caption: sections 2 and 7. The steps are what makes a choice among them.
#
# </details>
#
# 2. Why does guidance need a network that was trained with some captions withheld?
#
# <details><summary>Answer</summary>
#
# It needs the prediction without a caption. A network that never met an empty caption answers something arbitrary to
# it, and the direction from there to the prediction with the caption would mean nothing.
#
# </details>
#
# 3. At time 1000, asked for the noise, a network answers its own input. Its loss there is nearly 0. Is it good there?
#
# <details><summary>Answer</summary>
#
# No: it says nothing about the picture. The input is nearly all noise, so repeating it is nearly right; the small rest,
# in which the caption's effect lies, is what was wanted. Asked for $v$, it must answer minus the picture.
#
# </details>
#
# ## Papers
#
# - Jonathan Ho, Ajay Jain and Pieter Abbeel (2020), *Denoising Diffusion Probabilistic Models*: DDPM.
#   [arXiv:2006.11239](https://arxiv.org/abs/2006.11239)
# - Jiaming Song, Chenlin Meng and Stefano Ermon (2021), *Denoising Diffusion Implicit Models*: DDIM, eq. 12.
#   [arXiv:2010.02502](https://arxiv.org/abs/2010.02502)
# - Alex Nichol and Prafulla Dhariwal (2021), *Improved Denoising Diffusion Probabilistic Models*: the cosine schedule.
#   [arXiv:2102.09672](https://arxiv.org/abs/2102.09672)
# - Jonathan Ho and others (2021), *Cascaded Diffusion Models for High Fidelity Image Generation*: several stages, noise
#   on the small picture. [arXiv:2106.15282](https://arxiv.org/abs/2106.15282)
# - Tim Salimans and Jonathan Ho (2022), *Progressive Distillation for Fast Sampling of Diffusion Models*: $v$.
#   [arXiv:2202.00512](https://arxiv.org/abs/2202.00512)
# - Jonathan Ho and Tim Salimans (2022), *Classifier-Free Diffusion Guidance*.
#   [arXiv:2207.12598](https://arxiv.org/abs/2207.12598)
# - Chitwan Saharia and others (2022), *Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding*:
#   Imagen. [arXiv:2205.11487](https://arxiv.org/abs/2205.11487)
# - Minguk Kang and others (2023), *Scaling up GANs for Text-to-Image Synthesis*: GigaGAN.
#   [arXiv:2303.05511](https://arxiv.org/abs/2303.05511)
#
# Next: lesson 17 collects the errata, and asks what such a model may be used for.
