# %% [markdown]
# # Exercises 14 · Sampling
#
# Five exercises to lesson 14, 90 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | Guidance by what you do not want | ★★☆☆☆ | 15 | 3 |
# | 2 | In-painting without a seam | ★★★☆☆ | 25 | 4 |
# | 3 | Truncation in one step | ★★★☆☆ | 25 | 4 |
# | 4 | Find the bug: the same pictures again | ★★☆☆☆ | 15 | 3 |
# | 5 | In your own words: typical or varied? | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib import TextToImage
from course_lib.checks.text_to_image import (
    check_composed_logit,
    check_inpaint,
    check_noise_batches,
    check_truncated,
)
from course_lib.evaluation import load_judge, pictures_like
from course_lib.lesson import lines, pictures, setup, table
from course_lib.text_to_image import REFINE_STEP

device = setup()
model, judge = TextToImage.from_pretrained("shapes-32", device), load_judge(32)

# %% [markdown]
# ## 1 Guidance by what you do not want
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** The lesson's guidance multiplies what *one* prompt adds to the empty caption. What several prompts add can be
# added up, each with a scale of its own; and with a negative scale a prompt says what the picture should *not* show.
# Users of diffusion models know something like it as the "negative prompt".
#
# **Write** `composed_logit`:
#
# $$D = D_\mathrm{empty} + \sum_k \mathrm{scale}_k \cdot (D_k - D_\mathrm{empty})$$
#
# **Expected.** If the empty logit is 1 and that of the prompt is 3: 3 for scale 1, 1 for scale 0, 11 for scale 5. Add an
# unwanted prompt whose logit is 2: with the scales 1 and -4, the result is -1.
#
# <details><summary>Hint 1: begin with one prompt</summary>
#
# How much does it add to the empty logit? Multiply that, and put it on top of the empty logit.
#
# </details>
#
# <details><summary>Hint 2: several</summary>
#
# Each prompt adds its own step, from the same place: the empty logit. That one counts once.
#
# </details>
#
# <details><summary>Hint 3: a loop</summary>
#
# `for prompt, scale in zip(prompts, scales)` walks over the rows. Write `total = total + ...`: a `+=` would change the
# caller's `empty`.
#
# </details>


# %% tags=["solve:composed-logit"]
def composed_logit(empty: Tensor, prompts: Tensor, scales: Sequence[float]) -> Tensor:
    """The discriminator's logit, guided by several prompts.

    Args:
        empty: (B,) the logits with the empty caption.
        prompts: (K, B) the logits with each of K prompts; K may be 0.
        scales: K numbers; 1 is plain, more than 1 is stronger, less than 0 pushes away.
    Returns:
        (B,).
    """
    ### BEGIN SOLUTION
    total = empty
    for prompt, scale in zip(prompts, scales, strict=True):
        total = total + scale * (prompt - empty)
    return total
    ### END SOLUTION


# %% tags=["check:composed-logit:3"]
check_composed_logit(composed_logit)
### BEGIN HIDDEN TESTS
check_composed_logit(composed_logit, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now use it. `walk` is the lesson's refinement, ten steps long, with your logit in it. The generator always hears
# "a large red circle", which leaves the ground open; the discriminator reads the prompts that you give.


# %%
def walk(z: Tensor, wishes: dict[str, float]) -> Tensor:
    text = model.encode_text(["a large red circle"]).expand(len(z), -1)
    chance, captions = torch.Generator().manual_seed(1), model.encode_text(list(wishes))  # (K, E)
    for _ in range(10):
        z = z.detach().requires_grad_()
        features = model.discriminator.features(model.generator(z, text))
        logits = [model.discriminator.match(features, c.expand_as(text)) for c in captions]
        empty = model.discriminator.match(features, model.unconditional().expand_as(text))
        logit = composed_logit(empty, torch.stack(logits), list(wishes.values()))
        (slope,) = torch.autograd.grad((z**2).sum() / 2 - logit.sum(), z)
        kick = torch.randn(z.shape, generator=chance).to(z)
        z = z - REFINE_STEP / 2 * slope + REFINE_STEP**0.5 * kick
    return model.generator(z.detach(), text)


# %% [markdown]
# Choose prompts and scales so that none of 24 pictures has a grey ground. Do not name a ground that you want; name the
# one that you do not want.

# %% tags=["solve:not-gray"]
### BEGIN SOLUTION
wishes = {"a large red circle": 1.0, "a large red circle on gray": -3.0}
### END SOLUTION
z = torch.randn(24, model.generator.config.z_size, generator=torch.Generator().manual_seed(0)).to(device)
grounds, rows = judge.readable["background"], []
for name, asked in {"plain": {"a large red circle": 1.0}, "yours": wishes}.items():
    drawn = walk(z, asked)
    seen = judge.read(drawn)[:, list(judge.readable).index("background")]
    rows.append({"guidance": name} | {ground: int((seen == i).sum()) for i, ground in enumerate(grounds)})
table(rows)

# %% [markdown]
# **Going further.** *Textual inversion* (Gal and others, 2022) learns a new "word" from a few pictures. Draw five
# pictures of one scene with `pictures_like`, such as a large pink heart at the top left on gray. Let Adam change one
# embedding (1, E) and five noises, so that the generator, which stays as it is, draws the five. Then draw twenty
# pictures of that embedding with *new* noises. How many show the scene? Begin at the embedding of "a large pink heart",
# then at that of "a heart": what can be learned from five pictures, and what has to be known before?
#
# ## 2 In-painting without a seam
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** The lesson kept the left half of a picture and had the right half painted anew. Where the two greys met one
# saw a seam. A soft edge hides it. Not one pixel that was to be kept may change for that, so the edge must lie *inside*
# of the hole.
#
# **Write** `inpaint`. Each pixel becomes `image + weight * (drawn - image)`. The weight is 0 where the picture is kept.
# In the hole it depends on the distance to the nearest kept pixel: `distance / width`, at most 1. Distance counts
# pixels as a king walks on a chessboard: a diagonal step counts as one. Outside of the picture nothing is kept.
#
# **Expected.** A hole of seven columns with a width of 3 has the weights 1/3, 2/3, 1, 1, 1, 2/3, 1/3. With a width of 1
# the edge is hard.
#
# <details><summary>Hint 1: one step</summary>
#
# Which pixels of the hole have the distance 1? Those that have a kept pixel among their eight neighbours. If you count
# these as kept, who has the distance 2?
#
# </details>
#
# <details><summary>Hint 2: how a region grows</summary>
#
# A maximum over windows of 3 x 3 lets a region of ones grow by a pixel on every side:
# `F.max_pool2d(x, 3, stride=1, padding=1)`. It wants a float tensor with a dimension for channels, (1, S, S). What it
# pads with is smaller than every number, so nothing grows in from outside.
#
# </details>
#
# <details><summary>Hint 3: the weights</summary>
#
# Let the kept region grow, `width` times. In each round, *before* it grows, a pixel that is not in it gains
# 1 / `width`. A pixel at the distance 2 gains twice.
#
# </details>


# %% tags=["solve:inpaint"]
def inpaint(drawn: Tensor, image: Tensor, mask: Tensor, width: int) -> Tensor:
    """Put what was drawn into the hole of a picture, with a soft edge.

    Args:
        drawn: (B, 3, S, S) pictures that the model drew.
        image: (3, S, S) the picture with the hole.
        mask: (S, S) bool, True in the hole; it may be True everywhere or nowhere.
        width: of the soft edge in pixels, 1 or more.
    Returns:
        (B, 3, S, S); outside of the hole equal to `image`, bit for bit.
    """
    ### BEGIN SOLUTION
    kept, weight = (~mask).float()[None], 0  # (1, S, S)
    for _ in range(width):
        weight = weight + (1 - kept) / width
        kept = F.max_pool2d(kept, 3, stride=1, padding=1)
    return image + weight * (drawn - image)
    ### END SOLUTION


# %% tags=["check:inpaint:4"]
check_inpaint(inpaint)
### BEGIN HIDDEN TESTS
check_inpaint(inpaint, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# The picture of the lesson, its right half painted anew. Make both edges, a hard one and one of eight pixels, and
# compare how far the columns on both sides of the seam (15 and 16) are apart.

# %% tags=["solve:seam"]
right = torch.zeros(32, 32, dtype=torch.bool)
right[:, 16:] = True
scene = {"size": "small", "color": "red", "shape": "circle", "position": "top left", "background": "gray"}
given = pictures_like(scene, 32, 2)[0]  # (3, 32, 32)
wishes = ["a small blue star at the bottom right on gray", "a large green ring at the bottom right on gray"]
drawn = model.sample(wishes, 1, image=given.to(device), mask=right).cpu()
### BEGIN SOLUTION
hard, soft = inpaint(drawn, given, right, 1), inpaint(drawn, given, right, 8)
### END SOLUTION
for name, filled in {"hard": hard, "soft": soft}.items():
    print(f"{name}: step at the seam {(filled[..., 16] - filled[..., 15]).abs().mean():.3f}")
alt = "A red circle at the left, a blue star or green ring at the right; the seam between is softer below."
names = [f"{edge} edge: {wish}" for edge in ("hard", "soft") for wish in wishes]
pictures(torch.cat([hard, soft]), names, "Two edges", 2, alt)

# %% [markdown]
# **Going further.** A soft edge has its price: look at the left side of the ring. Poisson blending (Pérez and others,
# 2003) keeps the *differences* between neighbouring pixels of what was drawn, and takes only the colour at the border
# from the picture. Solve its equation with Adam, over the pixels of the hole.
#
# ## 3 Truncation in one step
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** BigGAN draws each number beyond a bound again, so a picture jumps when the bound moves. The library multiplies by
# a factor instead, which moves each picture gradually. One can have both: the very distribution of redrawn numbers, and
# no jumps.
#
# The idea is to keep the *rank*. The noise 1 is nearer to 0 than 31.7 % of all noises; 68.3 % lie within ±1. After
# truncation, 68.3 % of what is *left* should lie nearer to 0 than the new number. The share of a normal distribution
# that lies within ±x is `erf(x / √2)`, and torch has its inverse, `torch.erfinv`.
#
# **Write** `truncated`.
#
# **Expected.** For the bound 1, the noises 0, 1, 2 and 3 become 0, 0.622, 0.938 and 0.996; for the bound 2 they become
# 0, 0.938, 1.701 and 1.977. A bound of 100 changes nothing.
#
# <details><summary>Hint 1: by hand</summary>
#
# Within ±1 lie 68.3 %; these are left. For the noise 1, 68.3 % of 68.3 % should lie nearer to 0, and that is 46.6 % of
# the whole. Within which ±x lie 46.6 %? Within ±0.622.
#
# </details>
#
# <details><summary>Hint 2: the formula</summary>
#
# The share of the noise times the share of the bound is the share of the result. Go from numbers to shares with
# `erf(x / √2)`, and back with `√2 · erfinv(share)`. The sign comes along by itself.
#
# </details>
#
# <details><summary>Hint 3: rare noises</summary>
#
# In float32, `erf` of 4.5 is rounded to 1, and `erfinv(1)` is infinite. Compute in `z.double()`, where that happens much
# later; then clamp to the bound, and end with `.to(z)`, which gives back the type that came in.
#
# </details>


# %% tags=["solve:truncated"]
def truncated(z: Tensor, bound: float) -> Tensor:
    """Noise of the same rank in a normal distribution that is cut off at ±bound.

    Args:
        z: noise from N(0, 1), of any shape.
        bound: more than 0.
    Returns:
        the same shape and type, all numbers within ±bound and finite; a larger z never becomes a smaller one. Slopes
        flow through it. With a wide bound it is z, to three digits, where z is within ±6.
    """
    ### BEGIN SOLUTION
    root = math.sqrt(2)
    share = torch.erf(z.double() / root) * math.erf(bound / root)
    return (root * torch.erfinv(share)).clamp(-bound, bound).to(z)
    ### END SOLUTION


# %% tags=["check:truncated:4"]
check_truncated(truncated)
### BEGIN HIDDEN TESTS
check_truncated(truncated, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Draw the distribution of 100,000 noises: those within ±1 (which is what drawing again leaves), yours, and the
# library's factor, chosen so that the spread is the same.

# %% tags=["solve:draw-truncated"]
noise = torch.randn(100_000, generator=torch.Generator().manual_seed(0))
within = noise[noise.abs() <= 1]
### BEGIN SOLUTION
yours = truncated(noise, 1.0)
### END SOLUTION
ways = {"drawn again": within, "yours": yours, "times a factor": noise * within.std()}
shares = {name: torch.histc(x, 40, -2, 2) / len(x) / 0.1 for name, x in ways.items()}
lines(
    torch.linspace(-1.95, 1.95, 40),
    shares,
    "Three ways to truncate noise",
    ("noise", "density"),
    alt="Density of noise from -2 to 2. Drawing again and your answer are one curve, which ends steeply at -1 and 1. "
    "The factor gives a narrow bell that reaches beyond.",
)

# %% [markdown]
# **Going further.** Measure accuracy and diversity, as in section 4 of the lesson, for bounds from 0.3 to 3. Do you
# land on the lesson's curve? Then make an animation that ends where it began: for independent noises a and b,
# $\cos(t)\,a + \sin(t)\,b$ is ordinary noise for every t. Why is it, and why is $(1 - t)\,a + t\,b$ not?
#
# ## 4 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** "The same seed gives the same pictures" is a promise that must hold on a small computer too, where the
# pictures are drawn in smaller batches. The piece below wants to keep it. Three times it makes six noises in batches of
# three, and after each time the program rolls five dice. The pictures are those of the last six noises.


# %%
def repeated_noise(count: int, z_size: int, seed: int, batch_size: int) -> list[Tensor]:
    batches = []
    for start in range(0, count, batch_size):
        torch.manual_seed(seed)
        batches.append(torch.randn(min(batch_size, count - start), z_size))
    return batches


for _ in range(3):
    noises = repeated_noise(6, model.generator.config.z_size, seed=0, batch_size=3)
    print("five dice:", torch.randint(1, 7, (5,)).tolist())
text = model.encode_text(["a large red circle"]).expand(3, -1)
drawn = torch.cat([model.generator(z.to(device), text) for z in noises])
names = [f"picture {i + 1}" for i in range(6)]
pictures(
    drawn, names, "Two batches of three", 3, alt="Six red circles; the lower three equal the upper three."
)

# %% [markdown]
# **Find** what is wrong (there are two symptoms), and **write** it as it should be.
#
# **Expected.** Ten noises with a batch size of 4 come as three tensors of 4, 4 and 2 rows, all different; with another
# batch size they are the same ten. The dice of the program fall as if no noise had been drawn.
#
# <details><summary>Hint 1: read the pictures</summary>
#
# The second batch equals the first. What happens anew in each round of the loop that should happen once?
#
# </details>
#
# <details><summary>Hint 2: read the dice</summary>
#
# `torch.manual_seed` sets the source that the whole program draws from. `torch.Generator().manual_seed(seed)` makes
# one of its own, and `torch.randn(..., generator=...)` draws from it.
#
# </details>
#
# <details><summary>Hint 3: no draw may know the batch</summary>
#
# Fewer than 16 numbers are drawn by torch in another way than many, so even one generator for all batches is not
# enough. Draw all the noise in one call; it is small. Then cut it: `x.split(n)`.
#
# </details>


# %% tags=["solve:noise-batches"]
def noise_batches(count: int, z_size: int, seed: int, batch_size: int) -> list[Tensor]:
    """The noise of many pictures, in batches.

    Args:
        count: pictures.
        z_size: numbers for each.
        seed: decides every number, alone; two seeds share no noise.
        batch_size: pictures in a batch; the last may be smaller.
    Returns:
        for each batch (b, z_size) from N(0, 1). The same numbers on every call, whatever the batch size; other parts
        of the program roll their dice as if this had not been called.
    """
    ### BEGIN SOLUTION
    chance = torch.Generator().manual_seed(seed)
    return list(torch.randn(count, z_size, generator=chance).split(batch_size))
    ### END SOLUTION


# %% tags=["check:noise-batches:3"]
check_noise_batches(noise_batches)
### BEGIN HIDDEN TESTS
check_noise_batches(noise_batches, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Refinement rolls dice too, at every step. Read in `TextToImage.sample` how each picture gets a
# source of its own. Draw 10 pictures with 5 steps and a batch size of 4, then of 10: are they equal to the bit? If not,
# how large is the difference, and where does it come from?
#
# ## 5 In your own words: typical or varied?
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# A friend tried the knobs of the lesson and writes three lines. Answer each in two sentences.
#
# 1. "With truncation 0.3 nearly every picture is right. But a measure that compares my *set* of pictures with a set of
#    real ones says that they got worse. That measure must be broken."
# 2. "So I use truncation 0. That is the most typical picture of all, so it must look most like the data."
# 3. "I set the guidance scale to 7.5, as everyone does with diffusion models, and steps to 0. Nothing changed!"

# %% [markdown] tags=["explain:typical-or-varied:3"]
# <!-- BEGIN SOLUTION -->
# 1. Both can be true: each picture by itself is good, but together they lack the variety of real ones, and a set is
#    judged by its spread as well. Which one counts depends on the use: one card, or 500 pictures for a training (1 point).
# 2. At 0 all pictures of a prompt are one and the same. It comes from the middle of all noises, which ordinary noise, of
#    length 8, never comes near; the lesson's had a ground that occurs nowhere in the data (1 point).
# 3. In a GAN the scale only changes the logit that *refinement* climbs, and with 0 steps nobody climbs. In a diffusion
#    model the scale changes what the denoiser predicts, at each of many steps; a GAN has no denoiser (1 point).
# <!-- END SOLUTION -->
