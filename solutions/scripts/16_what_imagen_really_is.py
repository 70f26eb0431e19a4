# %% [markdown]
# # Exercises 16 · What Imagen really is
#
# Five exercises to lesson 16, 85 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | A step back, from v | ★★☆☆☆ | 15 | 3 |
# | 2 | The perfect denoiser of uneven heaps | ★★★☆☆ | 25 | 4 |
# | 3 | Guided, and within the range | ★★★☆☆ | 20 | 4 |
# | 4 | Find the bug: what time is it? | ★★☆☆☆ | 15 | 3 |
# | 5 | In your own words: why no heap is lost | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

from course_lib.batches import step_random
from course_lib.checks.diffusion import (
    check_guided_answer,
    check_posterior_mean,
    check_sample,
    check_step_from_v,
)
from course_lib.data import CaptionedShapes
from course_lib.denoising import ALPHA_BAR, ddim_sample, ddim_step, sampling_times
from course_lib.diffusion import DiffusionTextToImage, normal, predict
from course_lib.evaluation import load_judge
from course_lib.gan import ring_centers
from course_lib.lesson import figure, pictures, setup, table
from course_lib.metrics import attribute_accuracy

device = setup()
model, judge = DiffusionTextToImage.from_pretrained("shapes-32-diffusion", device), load_judge(32)

# %% [markdown]
# ## 1 A step back, from v
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** The lesson's `ddim_step` wants the clean picture. Our network answers $v = \sqrt{\bar\alpha}\,\varepsilon -
# \sqrt{1 - \bar\alpha}\,x_0$. Here you write the step for a network like that, as it stands in samplers that you will
# meet elsewhere.
#
# **Write** `step_from_v`, a DDIM step without fresh noise, for $\bar\alpha$ of the time now and of the earlier time. It
# must work from pure noise too, where $\bar\alpha$ is 0.
#
# **Expected.** The lesson's pixel 0.5 with $v$ = -0.25 becomes 0.55 when $\bar\alpha$ goes from 0.36 to 0.64. When it
# goes from 0 to 0.64, the same two numbers give 0.5.
#
# <details><summary>Hint 1: two things are in what is seen</summary>
#
# $x_t$ and $v$ are two mixtures of the same two things: the clean picture and the noise. From two mixtures one can
# compute both. Then mix them anew, for the earlier time.
#
# </details>
#
# <details><summary>Hint 2: the clean picture and the noise</summary>
#
# The lesson has the clean picture: $\sqrt{\bar\alpha}\,x_t - \sqrt{1 - \bar\alpha}\,v$. The noise is much like it:
# $\sqrt{1 - \bar\alpha}\,x_t + \sqrt{\bar\alpha}\,v$. Put in what $x_t$ and $v$ are, and see.
#
# </details>
#
# <details><summary>Hint 3: by hand</summary>
#
# The clean picture is 0.6 · 0.5 + 0.8 · 0.25 = 0.5, the noise 0.8 · 0.5 - 0.6 · 0.25 = 0.25. For the earlier time, the
# roots are 0.8 and 0.6: 0.8 · 0.5 + 0.6 · 0.25 = 0.55.
#
# </details>


# %% tags=["solve:step-from-v"]
def step_from_v(noisy: Tensor, v: Tensor, now: float, before: float) -> Tensor:
    """A DDIM step, without fresh noise, for a network that answers v.

    Args:
        noisy: (B, ...) pictures of the time now.
        v: (B, ...) what the network answered.
        now: alpha_bar of the time now, in [0, 1).
        before: alpha_bar of the earlier time, in (now, 1].
    Returns:
        (B, ...) pictures of the earlier time.
    """
    ### BEGIN SOLUTION
    clean = now**0.5 * noisy - (1 - now) ** 0.5 * v
    noise = (1 - now) ** 0.5 * noisy + now**0.5 * v
    return before**0.5 * clean + (1 - before) ** 0.5 * noise
    ### END SOLUTION


# %% tags=["check:step-from-v:3"]
check_step_from_v(step_from_v)
### BEGIN HIDDEN TESTS
check_step_from_v(step_from_v, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now draw with it. `predict` gives the guided $v$; write the loop's last line.

# %% tags=["solve:draw-with-v"]
texts = ["a large yellow star at the top left on navy", "a large blue circle at the bottom right on gray"]
tokens, mask = (x.repeat_interleave(2, 0) for x in model.encode_text(texts))  # (4, T, E), (4, T)
noisy = normal([step_random(0, i) for i in range(4)], torch.empty(4, 3, 32, 32, device=device))
for now, before in pairwise(sampling_times(20)):
    time = torch.full((4,), now, device=device)
    v = predict(model.base, (noisy, time, tokens, mask), 1.5)
    ### BEGIN SOLUTION
    noisy = step_from_v(noisy, v, ALPHA_BAR[now].item(), ALPHA_BAR[before].item())
    ### END SOLUTION
captions = [text.replace(" at the", "\nat the") for text in texts for _ in range(2)]
pictures(
    noisy.clamp(-1, 1), captions, "Drawn by your step", 4, "Two yellow stars and two blue circles, as asked."
)

# %% [markdown]
# **Going further.** Write $\bar\alpha = \cos^2\varphi$. Show on paper that your step is a rotation: the earlier point
# is $\cos(\delta)\,x_t - \sin(\delta)\,v$, where $\delta$ is the difference of two angles. Then try *another sampler*: a step
# that asks twice, as Heun's method does. Take a step, ask again where you arrive, and repeat the step with the mean of
# both $v$. On the ring of the lesson, are 10 such steps as good as 20 of the plain ones?
#
# ## 2 The perfect denoiser of uneven heaps
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** The lesson's ring had eight heaps that were all alike; therefore two factors cancelled in its formula. Real data is
# uneven: some things are frequent, some are various. A denoiser that does not know this draws too many of the rare
# ones.
#
# Each heap $k$ now has a weight $w_k$ (its share of the points), a middle $\mu_k$ and a standard deviation $s_k$. With
# $v_k = \bar\alpha s_k^2 + 1 - \bar\alpha$, the chance that $x_t$ came from it is proportional to
#
# $$w_k \; v_k^{-D/2} \; e^{-\|x_t - \sqrt{\bar\alpha} \mu_k\|^2 / 2 v_k}$$
#
# where $D$ is the number of dimensions: of a narrow heap the density is high in the middle and soon falls.
#
# **Write** `posterior_mean`. Within a heap the answer is that of the lesson,
# $\mu_k + \frac{\sqrt{\bar\alpha} s_k^2}{v_k} (x_t - \sqrt{\bar\alpha} \mu_k)$.
#
# **Expected.** Two heaps at -1 and 1, both with standard deviation 0.5; $\bar\alpha$ = 0.64. To the noisy point 0 the
# answer is 0 if their weights are equal, and -0.554 if they are 0.9 and 0.1. For $\bar\alpha$ = 0 the answer is the
# mean of all data, and it stays finite far away from all heaps.
#
# <details><summary>Hint 1: the shapes</summary>
#
# `noisy[:, None]` is (B, 1, D), the middles are (K, D): their difference is (B, K, D), a gap for each point and heap.
# From it come a score (B, K), and an answer for each heap (B, K, D).
#
# </details>
#
# <details><summary>Hint 2: far away</summary>
#
# Far from all heaps each exponential is rounded to 0, and 0 / 0 is not a number. The logarithm of the product is a sum
# of three terms and stays finite; `softmax` makes chances of such logarithms.
#
# </details>
#
# <details><summary>Hint 3: the sum</summary>
#
# The score is `weights.log() - D / 2 * variance.log() - gap.square().sum(-1) / (2 * variance)`, (B, K). Its softmax over
# dimension 1 gives the chances. Multiply the heaps' answers with them, as `chances[..., None]`, and sum over the heaps.
#
# </details>


# %% tags=["solve:posterior-mean"]
def posterior_mean(noisy: Tensor, alpha_bar: float, weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """The mean of all clean points that could have become a noisy one.

    Args:
        noisy: (B, D) points.
        alpha_bar: the picture's share of the variance, in [0, 1].
        weights: (K,) the heaps' shares of the data, more than 0, with the sum 1.
        means: (K, D) their middles.
        stds: (K,) their standard deviations, more than 0, the same in all D directions.
    Returns:
        (B, D), finite for every noisy point.
    """
    ### BEGIN SOLUTION
    variance = alpha_bar * stds**2 + 1 - alpha_bar  # (K,)
    gap = noisy[:, None] - alpha_bar**0.5 * means  # (B, K, D)
    score = weights.log() - means.shape[1] / 2 * variance.log() - gap.square().sum(-1) / (2 * variance)
    answers = means + (alpha_bar**0.5 * stds**2 / variance)[:, None] * gap  # (B, K, D)
    return (score.softmax(1)[..., None] * answers).sum(1)
    ### END SOLUTION


# %% tags=["check:posterior-mean:4"]
check_posterior_mean(posterior_mean)
### BEGIN HIDDEN TESTS
check_posterior_mean(posterior_mean, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Draw 2000 points with it in 100 steps. The heaps have 70, 20 and 10 % of the data; the points should have nearly the same
# shares (0.72, 0.18 and 0.10 here). Each is counted for the heap whose middle is nearest in standard deviations.

# %% tags=["solve:uneven-heaps"]
weights, stds = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.1, 0.5, 0.2])
means = torch.tensor([[-2.0, 0.0], [1.0, 1.0], [1.5, -1.5]])
noise = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))


def uneven(noisy: Tensor, time: int) -> Tensor:
    ### BEGIN SOLUTION
    return posterior_mean(noisy, ALPHA_BAR[time].item(), weights, means, stds)
    ### END SOLUTION


points = ddim_sample(uneven, noise, sampling_times(100), ALPHA_BAR)
nearest = (torch.cdist(points, means) / stds).argmin(1)
print("shares:", *(f"{(nearest == k).float().mean():.2f}" for k in range(3)))
alt = "Points in three heaps: a narrow one on the left, a wide one at the top right, a narrow one below it."
with figure("2000 points by your denoiser", alt, size=(5, 4)) as axis:
    axis.plot(*points.T, ".", markersize=3)
    axis.set(xlabel="x", ylabel="y", aspect="equal")

# %% [markdown]
# **Going further.** Leave the weights out and draw again: what are the shares then? At which times does the difference arise? Then
# shift the schedule. A picture with twice as many pixels a side shows more through the same noise, because neighbouring
# pixels are alike and the eye averages. Hoogeboom and others (2023) therefore divide $\bar\alpha / (1 - \bar\alpha)$ by 4 for
# twice the size. Compute the shifted $\bar\alpha$, and look at a star of 64 pixels beside one of 32.
#
# ## 3 Guided, and within the range
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** Many published models predict the *noise*. This function is the heart of their samplers: from two predictions of
# the noise to one guided picture that the next step can work with. Nearly each line of it has a popular mistake.
#
# **Write** `guided_answer`, in this order: guide the noise; compute the clean picture; take of each picture the size that
# the given share of its pixels does not exceed; if it is more than 1, cut the picture off there and divide.
#
# **Expected.** The noisy pixel 0.34, $\bar\alpha$ = 0.64, the noise -0.5 with the caption and 0.1 without: 0.8 at scale 1,
# 0.35 at scale 0. At scale 3 the pixel would be 1.7; with the percentile 1 it becomes 1.
#
# <details><summary>Hint 1: the picture</summary>
#
# $x_t = \sqrt{\bar\alpha}\,x_0 + \sqrt{1 - \bar\alpha}\,\varepsilon$. Solve it for $x_0$.
#
# </details>
#
# <details><summary>Hint 2: a limit for each picture</summary>
#
# `clean.abs().flatten(1)` is (B, N). `quantile(percentile, dim=1)` gives a number for each picture, `clamp(min=1)` holds
# it at 1 or more. `view(-1, 1, 1, 1)` makes it fit for the division.
#
# </details>
#
# <details><summary>Hint 3: cut, then divide</summary>
#
# `clean.clamp(-limit, limit) / limit`. Without the cut, the largest pixels stay outside; without the division, all that
# lies between 1 and the limit does.
#
# </details>


# %% tags=["solve:guided-answer"]
def guided_answer(
    noisy: Tensor,
    with_text: Tensor,
    without_text: Tensor,
    alpha_bar: float,
    guidance_scale: float,
    percentile: float,
) -> Tensor:
    """The guided clean pictures, dynamically thresholded.

    Args:
        noisy: (B, C, H, W) what the network saw.
        with_text, without_text: (B, C, H, W) the noise that it predicts with and without the caption.
        alpha_bar: the picture's share of the variance, in (0, 1).
        guidance_scale: 0 ignores the caption, 1 is the plain prediction, more overstates it.
        percentile: share of a picture's pixels that must not be cut off, in (0, 1].
    Returns:
        (B, C, H, W) in [-1, 1].
    """
    ### BEGIN SOLUTION
    noise = without_text + guidance_scale * (with_text - without_text)
    clean = (noisy - (1 - alpha_bar) ** 0.5 * noise) / alpha_bar**0.5
    limit = clean.abs().flatten(1).quantile(percentile, dim=1).clamp(min=1).view(-1, 1, 1, 1)
    return clean.clamp(-limit, limit) / limit
    ### END SOLUTION


# %% tags=["check:guided-answer:4"]
check_guided_answer(guided_answer)
### BEGIN HIDDEN TESTS
check_guided_answer(guided_answer, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# In the lesson dynamic thresholding at scale 10 spoiled nearly half of the pictures. `both_noises` gives what your function
# needs, from our network's $v$. Find a percentile with which more than 90 % of 24 pictures fit their captions at that
# scale.

# %%
exam = CaptionedShapes("heldout", 32, length=12)
scenes = [exam.attributes(i) for i in range(12) for _ in range(2)]
tokens, mask = (x.repeat_interleave(2, 0) for x in model.encode_text([exam.caption(i) for i in range(12)]))


def both_noises(noisy: Tensor, time: int) -> tuple[Tensor, Tensor]:
    """The noise with and without the captions: noise = √alpha_bar · v + √(1 - alpha_bar) · noisy."""
    kept, times = ALPHA_BAR[time].item(), torch.full((48,), time, device=device)
    heard = torch.cat([mask, torch.zeros_like(mask)])
    with torch.no_grad():
        v = model.base(torch.cat([noisy, noisy]), times, torch.cat([tokens, tokens]), heard)
    return (kept**0.5 * v + (1 - kept) ** 0.5 * torch.cat([noisy, noisy])).chunk(2)


def fit_at(percentile: float, scale: float = 10.0) -> float:
    noisy = normal([step_random(0, i) for i in range(24)], torch.empty(24, 3, 32, 32, device=device))

    def denoise(x: Tensor, time: int) -> Tensor:
        return guided_answer(x, *both_noises(x, time), ALPHA_BAR[time].item(), scale, percentile)

    drawn = ddim_sample(denoise, noisy, sampling_times(10), ALPHA_BAR)
    return attribute_accuracy(judge, drawn.cpu(), scenes)["all"]


# %% tags=["solve:percentile"]
### BEGIN SOLUTION
yours = 0.8
### END SOLUTION
table([{"percentile": share, "fit at scale 10": f"{fit_at(share):.0%}"} for share in (1.0, 0.995, yours)])

# %% [markdown]
# **Going further.** What does a percentile of 0.5 have in common with the static threshold? Then try a third way: guide
# only while the time is below 900, and use the plain prediction above (Kynkäänniemi and others, 2024, limit guidance to
# an interval). Is 0.995 good enough then?
#
# ## 4 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** A denoiser must know how much noise is in what it sees. Nothing fails if it is told something else; the
# pictures are bad, and one looks for the mistake in the training.
#
# Below are the ring of the lesson, its perfect denoiser, and a sampler. The points are drawn in 20 and in 1000 steps.


# %%
centers = ring_centers()  # (8, 2)


def ring_denoiser(noisy: Tensor, time: int) -> Tensor:
    kept = ALPHA_BAR[time].float()
    variance = kept * 0.1**2 + 1 - kept
    gap = noisy[:, None] - kept.sqrt() * centers  # (B, 8, 2)
    belongs = (-gap.square().sum(-1, keepdim=True) / (2 * variance)).softmax(1)
    return (belongs * (centers + kept.sqrt() * 0.1**2 / variance * gap)).sum(1)


def mistaken_sample(denoise: Callable[[Tensor, int], Tensor], noisy: Tensor, steps: int) -> Tensor:
    step = steps
    for now, before in pairwise(sampling_times(steps)):
        clean = denoise(noisy, step)
        noisy = ddim_step(noisy, clean, ALPHA_BAR[now].item(), ALPHA_BAR[before].item(), None, 0.0)
        step -= 1
    return noisy


def near(points: Tensor) -> str:
    return f"{(torch.cdist(points, centers).min(1).values < 0.3).float().mean():.0%}"


noise = torch.randn(500, 2, generator=torch.Generator().manual_seed(0))
for steps in (20, 1000):
    print(
        f"{steps:4} steps: {near(mistaken_sample(ring_denoiser, noise, steps))} of the points are near a heap"
    )

# %% [markdown]
# **Find** what is wrong, and **write** the sampler as it should be.
#
# **Expected.** Of these points, 99 % are near a heap after 20 steps, and after 1000 steps as many as above.
#
# <details><summary>Hint 1: two numbers of steps</summary>
#
# Why is the mistake without effect with 1000 steps? What is special about that number here?
#
# </details>
#
# <details><summary>Hint 2: what it is told</summary>
#
# Print the second thing that the denoiser is given, for 4 steps. Compare with `sampling_times(4)`.
#
# </details>
#
# <details><summary>Hint 3: what it sees</summary>
#
# In each step the denoiser sees points of the time `now`. With 20 steps it is first told 20, nearly no noise, and sees
# nothing but noise.
#
# </details>


# %% tags=["solve:sample"]
def sample(denoise: Callable[[Tensor, int], Tensor], noisy: Tensor, steps: int) -> Tensor:
    """DDIM without fresh noise, from the time 1000 to 0.

    Args:
        denoise: (noisy (B, ...), time) -> an estimate of the clean ones (B, ...); time is 1 to 1000.
        noisy: (B, ...) pure noise.
        steps: 1 to 1000.
    Returns:
        (B, ...).
    """
    ### BEGIN SOLUTION
    for now, before in pairwise(sampling_times(steps)):
        clean = denoise(noisy, now)
        noisy = ddim_step(noisy, clean, ALPHA_BAR[now].item(), ALPHA_BAR[before].item(), None, 0.0)
    return noisy
    ### END SOLUTION


# %% tags=["check:sample:3"]
check_sample(sample)
### BEGIN HIDDEN TESTS
check_sample(sample, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** *Textual inversion* (Gal and others, 2022) was made for diffusion models. Draw five pictures of one
# scene with `pictures_like`, such as a large pink heart at the top left on gray, and leave all weights as they are. Let
# Adam change the tokens (1, T, E) that `encode_text` gives for "a heart", so that `diffusion_loss` on the five pictures
# becomes small. Draw twenty pictures with the learned tokens. How many show the scene? The exercises of lesson 14 ask the
# same of the GAN: what is harder there, and why?
#
# ## 5 In your own words: why no heap is lost
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# In lesson 10 a GAN lost heaps of the ring, and no loss complained. In lesson 16 a small network, trained for some
# seconds, found all eight. In six sentences or fewer:
#
# 1. A GAN's generator never draws one of the heaps. What in its loss says so?
# 2. A denoiser treats the data as if that heap were not there. What does its loss say, and why?
# 3. Few steps and strong guidance make diffusion less various again. Why did the training not prevent that?

# %% [markdown] tags=["explain:why-no-heap-is-lost:3"]
# <!-- BEGIN SOLUTION -->
# 1. Nothing. The generator is judged by the points that it draws, and if these pass for real, its loss is small. The real
#    points of the lost heap are seen by the discriminator alone, and no slope leads from there to a generator that has no
#    point near them (1 point).
# 2. The loss is a mean over *all* real points. Those of the ignored heap are drawn in training too, are made noisy, and
#    the denoiser answers with a point elsewhere: a squared error each time. So the loss grows with the share of the heap
#    (1 point).
# 3. Both happen in sampling, after training. The loss asks for the mean at each time, and the network gives it; few steps go
#    too far towards means, and guidance changes the answer away from what was learned. No loss looks at the points that
#    are drawn (1 point).
# <!-- END SOLUTION -->
