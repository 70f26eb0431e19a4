# %% [markdown]
# # Exercises 06 · Image encoder
#
# Five exercises to lesson 06, 85 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | Who is nearest? | ★★☆☆☆ | 15 | 3 |
# | 2 | Find the bug: a vector that depends on its company | ★★☆☆☆ | 15 | 3 |
# | 3 | A probe for numbers | ★★★☆☆ | 25 | 4 |
# | 4 | A block with a way round | ★★★☆☆ | 20 | 4 |
# | 5 | In your own words: the table under the cup | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import copy
import math

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.alignment import load_alignment
from course_lib.checks.image_encoder import (
    check_embed,
    check_nearest,
    check_residual_block,
    check_ridge_with_bias,
)
from course_lib.data import CaptionedShapes
from course_lib.data.captions import SINGLE
from course_lib.data.shapes import CENTERS
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig, pretrain
from course_lib.layers import batch_norm, conv2d
from course_lib.lesson import lines, setup, table

device = setup()

# %% [markdown]
# Six hundred pictures, and four ways to make vectors of them: their pixels; each pixel's distance from its picture's
# mean, as in lesson 06; an encoder that learns from views for some seconds, here; and one that learned from captions
# (lesson 08 will build it).

# %%
shapes = CaptionedShapes("all", 32, seed=3, length=600)
images, scenes = shapes.images(range(600)), [shapes.attributes(i) for i in range(600)]
encoder = ImageEncoder(ImageEncoderConfig(image_size=32, width=16, output_size=128))
pretrain(
    encoder, CaptionedShapes("all", 32, seed=4, length=3000).images(range(3000)), steps=40, batch_size=64
)
with torch.no_grad():
    features = {
        "pixels": images.flatten(1),
        "distances": (images - images.mean((2, 3), keepdim=True)).abs().flatten(1),
        "learned from views": encoder(images),
        "learned from captions": load_alignment("align-shapes-32")[0].image_encoder(images),
    }
table([{"": name, "numbers a picture": vectors.shape[1]} for name, vectors in features.items()])

# %% [markdown]
# ## 1 Who is nearest?
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** To see what an encoder thinks is alike, look at a picture's nearest neighbours. The same search finds copies
# in a data set, and in lesson 15 the training picture that a generator may have learned by heart.
#
# **Write** `nearest`: for each of N vectors the `k` others with the largest cosine. No vector is its own neighbour.
# But a picture that is in the data *twice* has a copy, and the copy is its nearest neighbour.
#
# **Expected.** For (1, 0), (10, 1), (0, 5) and (-1, 0) and `k=1`: the rows 1, 0, 1, 2. Lengths do not count.
#
# <details><summary>Hint 1: cosines</summary>
#
# Divide each vector by its length, then multiply the matrix by its transpose. A ReLU may leave a vector of zeros; with
# `clamp(min=1e-8)` its length does not lead to 0/0.
#
# </details>
#
# <details><summary>Hint 2: not oneself</summary>
#
# Do not sort oneself out by *place*, as in `topk(k + 1)` without its first column: beside a copy, who is first? Make
# oneself the *worst*: `fill_diagonal_` writes on the diagonal.
#
# </details>
#
# <details><summary>Hint 3: the best k</summary>
#
# `topk(k)` of a matrix looks for the largest k numbers of each row; `.indices` says where they stand.
#
# </details>


# %% tags=["solve:nearest"]
def nearest(vectors: Tensor, k: int) -> Tensor:
    """The nearest neighbours of each vector among the others.

    Args:
        vectors: (N, E), of any length; a vector of zeros has the cosine 0 with every other.
        k: how many, at most N - 1.
    Returns:
        (N, k) int64: row i holds the numbers of those with the largest cosine to i, the largest first, without i.
    """
    ### BEGIN SOLUTION
    directions = vectors / vectors.norm(dim=1, keepdim=True).clamp(min=1e-8)
    cosines = (directions @ directions.T).fill_diagonal_(-torch.inf)  # (N, N)
    return cosines.topk(k, dim=1).indices
    ### END SOLUTION


# %% tags=["check:nearest:3"]
check_nearest(nearest)
### BEGIN HIDDEN TESTS
check_nearest(nearest, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Which vectors find which pictures? Let `neighbours` hold, for each of the four kinds in `features`, the five nearest
# of each picture, (600, 5), under the same names. Guess first: which kind finds the same *place*, which the same
# *shape*?

# %% tags=["solve:neighbours"]
### BEGIN SOLUTION
neighbours = {name: nearest(vectors, 5) for name, vectors in features.items()}
### END SOLUTION
labels = {name: torch.tensor([SINGLE[name].index(scene[name]) for scene in scenes]) for name in SINGLE}
rows = [{"five nearest by": "a blind draw"} | {name: f"{1 / len(SINGLE[name]):.0%}" for name in SINGLE}]
for name, found in neighbours.items():
    alike = {what: f"{(label[found] == label[:, None]).float().mean():.0%}" for what, label in labels.items()}
    rows.append({"five nearest by": name} | alike)
table(rows)

# %% [markdown]
# **Going further.** Take photographs of your own: `prepare_image(path, 32)` of `course_lib.images` makes tensors of
# them. Which neighbours do pixels find for a photograph, and which a small encoder that you let learn from views of
# your pictures? Is what you would call alike among them?
#
# ## 2 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** Vectors are computed once and used for weeks: for a search, for a probe, for the judge of lesson 15. A
# picture must get the same vector alone and in company, today and tomorrow. The cell below breaks that. Its encoder is
# in train mode, as every encoder is in the middle of its training.


# %%
def embed_carelessly(encoder: Module, images: Tensor, batch_size: int) -> Tensor:
    parts = []
    for start in range(0, len(images) - batch_size + 1, batch_size):
        parts.append(encoder(images[start : start + batch_size]))
    return torch.cat(parts)


used = copy.deepcopy(encoder).train()
alone, company = embed_carelessly(used, images[:1], 1), embed_carelessly(used, images, 64)
print(f"{len(company)} vectors for {len(images)} pictures")
print(
    f"cosine of a picture's vector alone and in company: {torch.cosine_similarity(alone, company[:1]).item():.3f}"
)
wanted, found = encoder(images).detach(), used.eval()(images).detach()  # both in eval mode
print(f"the encoder itself, before and after: cosine {torch.cosine_similarity(wanted, found).mean():.4f}")
print("the vectors still hold all that a backward pass needs:", company.requires_grad)

# %% [markdown]
# **Find** what is wrong in it, for each of the four lines, and **write** `embed` as it should be. Afterwards the
# encoder must be as before, in its old mode too: a training may go on with it.
#
# **Expected.** 600 vectors for 600 pictures, whatever the batch size; cosines of 1; no gradient.
#
# <details><summary>Hint 1: company</summary>
#
# In train mode, batch normalisation takes mean and variance from the batch, and moves the running ones towards them. In
# eval mode it does neither.
#
# </details>
#
# <details><summary>Hint 2: the last batch</summary>
#
# It may be shorter. A slice that goes beyond the end raises no error; it is just shorter.
#
# </details>
#
# <details><summary>Hint 3: leave it as it was</summary>
#
# `encoder.training` says in which mode it is, and `encoder.train(mode)` with True or False puts it there. `with
# torch.no_grad():` records nothing for a backward pass.
#
# </details>


# %% tags=["solve:embed"]
def embed(encoder: Module, images: Tensor, batch_size: int) -> Tensor:
    """The vectors of many pictures.

    Args:
        encoder: (B, 3, S, S) -> (B, E); is left as it was, in train or in eval mode.
        images: (N, 3, S, S).
        batch_size: the encoder gets at most so many pictures at a time.
    Returns:
        (N, E) in the order of the pictures, without gradient: each vector as the encoder gives it in eval mode.
    """
    ### BEGIN SOLUTION
    was_training = encoder.training
    encoder.eval()
    with torch.no_grad():
        vectors = torch.cat([encoder(part) for part in images.split(batch_size)])
    encoder.train(was_training)
    return vectors
    ### END SOLUTION


# %% tags=["check:embed:3"]
check_embed(embed)
### BEGIN HIDDEN TESTS
check_embed(embed, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Group normalisation and layer normalisation know no company at all. Put `GroupNorm` in the place of
# the encoder's `BatchNorm2d` and train both with `pretrain`. Self-supervised training with batch normalisation can
# *cheat*: the statistics of the batch may tell which views belong together (He and others, 2020,
# *Momentum Contrast*, section 3.3). Can it here?
#
# ## 3 A probe for numbers
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** The lesson's probe reads off *labels*. Ridge regression can also read off *numbers*, such as where the object
# is. But the lesson's `ridge_regression` has no bias, and the penalty would be wrong for one: a bias is no sign of
# learning by heart. So it has to stay out of the penalty.
#
# **Write** `ridge_with_bias`, which finds the `weight` and the `bias` that make
#
# $$\frac{1}{N} \sum_{\text{pictures}} |x\,w + b - y|^2 + \lambda\, |w|^2$$
#
# least. Use `torch.linalg.solve` or `lstsq`, no loop of steps and no `ridge_regression` of the library.
#
# **Expected.** For $x$ = 1, 2, 3 and $y$ = 5, 7, 9: $w = 2$ and $b = 3$ without a penalty; $w = 0.8$ and $b = 5.4$ for
# $\lambda = 1$. For $\lambda = 10^6$ all weights vanish, and $b$ is the mean of $y$.
#
# <details><summary>Hint 1: the bias first</summary>
#
# Whatever $w$ is, the best $b$ makes the mean error 0: $b = \bar y - \bar x\, w$. Put that into the sum: what stands
# there instead of $x$ and $y$?
#
# </details>
#
# <details><summary>Hint 2: then the weights</summary>
#
# With $x - \bar x$ and $y - \bar y$ there is no bias left, and the lesson's formula holds. For many numbers a picture,
# $\sum x^2$ becomes the matrix `x.T @ x` and $\sum x y$ becomes `x.T @ y`.
#
# </details>
#
# <details><summary>Hint 3: the penalty</summary>
#
# $\lambda N$ belongs on the diagonal: `penalty * len(x) * torch.eye(D)`. Without `torch.eye` it is added to every
# number of the matrix. `torch.linalg.solve(A, B)` finds the W with A W = B.
#
# </details>


# %% tags=["solve:ridge-with-bias"]
def ridge_with_bias(x: Tensor, y: Tensor, penalty: float) -> tuple[Tensor, Tensor]:
    """Ridge regression with a bias that is not penalised.

    Args:
        x: (N, D), D numbers for each of N pictures.
        y: (N, C), what is to be read off.
        penalty: of the squared weights, 0 or more.
    Returns:
        weight (D, C) and bias (C,): the mean squared length of x @ weight + bias - y, plus the penalty, is least.
    """
    ### BEGIN SOLUTION
    x_mean, y_mean = x.mean(0), y.mean(0)
    x, y = x - x_mean, y - y_mean
    diagonal = penalty * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
    weight = torch.linalg.solve(x.T @ x + diagonal, x.T @ y)
    return weight, y_mean - x_mean @ weight
    ### END SOLUTION


# %% tags=["check:ridge-with-bias:4"]
check_ridge_with_bias(ridge_with_bias)
### BEGIN HIDDEN TESTS
check_ridge_with_bias(ridge_with_bias, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Where is the object? `places` holds the middle of each, from (-1, -1) at the top left to (1, 1). Write `read`: it fits
# your probe to the first 400 rows of `vectors`, with a penalty of 0.1, and reads off the places of the last 200,
# (200, 2). The table says how far off it is; the width of a picture is 2.

# %% tags=["solve:places"]
places = torch.tensor([CENTERS[scene["position"]] for scene in scenes])


def read(vectors: Tensor) -> Tensor:
    ### BEGIN SOLUTION
    weight, bias = ridge_with_bias(vectors[:400], places[:400], 0.1)
    return vectors[400:] @ weight + bias
    ### END SOLUTION


def distance(found: Tensor) -> float:
    return (found - places[400:]).norm(dim=1).square().mean().sqrt().item()


rows = [
    {"read off": "nothing: always the middle", "wrong by (root mean square)": distance(torch.zeros(200, 2))}
]
for name in ("learned from views", "learned from captions"):
    standard = (features[name] - features[name][:400].mean(0)) / features[name][:400].std(0)
    rows.append({"read off": name, "wrong by (root mean square)": distance(read(standard))})
table(rows)

# %% [markdown]
# **Going further.** 3,072 pixels make a matrix of 3,072 x 3,072. The lesson's function solves a smaller one where there
# are fewer pictures than numbers. Do so too, and read the places off pixels and distances. Before you look: a red thing
# on navy is brighter than its ground, on cream it is darker. Which of the two must fail?
#
# ## 4 A block with a way round
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** Our encoder has three convolutions; encoders for photographs often have 18 to 150 layers. So deep a network
# learns badly, unless each block leaves a *way round*: its input is added to what its convolutions make of it (He and
# others, 2015).
# Where a block makes the picture smaller or has other channels, the way round must change its size as well.
#
# The block without a way round:


# %%
def normalise(x: Tensor) -> Tensor:
    """Batch normalisation as in training, without scale and shift."""
    return batch_norm(x, None, None, training=True)


def plain_block(
    images: Tensor, weight1: Tensor, weight2: Tensor, shortcut: Tensor | None, stride: int
) -> Tensor:
    x = normalise(conv2d(images, weight1, stride=stride, padding=1)).relu()
    return normalise(conv2d(x, weight2, padding=1)).relu()


# %% [markdown]
# **Write** `residual_block` with a way round. Add it *before* the last ReLU, so that it can also be taken back. If
# there is a `shortcut`, the way round is a 1 x 1 convolution with the block's stride, followed by `normalise`; if
# there is none, it is the input as it is.
#
# **Expected.** With a `weight2` of zeros and no shortcut: the input after ReLU. 8 channels of 6 x 6 pixels, stride 2,
# and 16 output channels: (B, 16, 3, 3).
#
# <details><summary>Hint 1: two ways, one sum</summary>
#
# Compute what the convolutions make of the picture up to the second `normalise`, compute the way round, add, and then
# take the ReLU.
#
# </details>
#
# <details><summary>Hint 2: the way round</summary>
#
# A kernel of 1 x 1 needs no padding. With padding 1 the picture would grow.
#
# </details>
#
# <details><summary>Hint 3: strides</summary>
#
# The stride belongs to the first 3 x 3 convolution and to the way round. The second 3 x 3 convolution keeps the size.
#
# </details>


# %% tags=["solve:residual-block"]
def residual_block(
    images: Tensor, weight1: Tensor, weight2: Tensor, shortcut: Tensor | None, stride: int
) -> Tensor:
    """Two convolutions and a way round them.

    Args:
        images: (B, C, H, W).
        weight1: (O, C, 3, 3), moved by the stride, padding 1.
        weight2: (O, O, 3, 3), moved by 1, padding 1.
        shortcut: (O, C, 1, 1), moved by the stride, for the way round; None: the way round is the input itself.
        stride: 1, or 2 to halve the picture.
    Returns:
        (B, O, OH, OW), 0 or more.
    """
    ### BEGIN SOLUTION
    x = normalise(conv2d(images, weight1, stride=stride, padding=1)).relu()
    x = normalise(conv2d(x, weight2, padding=1))
    way_round = images if shortcut is None else normalise(conv2d(images, shortcut, stride=stride))
    return (x + way_round).relu()
    ### END SOLUTION


# %% tags=["check:residual-block:4"]
check_residual_block(residual_block)
### BEGIN HIDDEN TESTS
check_residual_block(residual_block, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# What is it good for? `first_slope` puts blocks one after the other and says how long the slope is at the very first
# weight. If that grows with the depth, no learning rate fits the first layer and the last. Let `slopes` hold, for both
# kinds of blocks (`"plain"` and `"with a way round"`), the first slope at each of the `depths`.


# %%
def first_slope(block, depth: int) -> float:
    random = torch.Generator().manual_seed(0)
    weights = [torch.randn(16, 16, 3, 3, generator=random) * math.sqrt(2 / 144) for _ in range(2 * depth)]
    first, x = weights[0].requires_grad_(), torch.randn(16, 16, 8, 8, generator=random)
    for weight1, weight2 in zip(weights[::2], weights[1::2], strict=True):
        x = block(x, weight1, weight2, None, 1)
    (slope,) = torch.autograd.grad((x * torch.randn(x.shape, generator=random)).mean(), first)
    return slope.norm().item()


# %% tags=["solve:slopes"]
depths = [1, 5, 10, 20, 30]
### BEGIN SOLUTION
slopes = {
    "plain": [first_slope(plain_block, depth) for depth in depths],
    "with a way round": [first_slope(residual_block, depth) for depth in depths],
}
### END SOLUTION
lines(
    depths,
    slopes,
    "The slope that reaches the first weight",
    ("blocks", "length of the slope"),
    alt="Length of the first weight's slope, on a logarithmic axis, against the number of blocks, for plain blocks and "
    "for blocks with a way round.",
    yscale="log",
)

# %% [markdown]
# **Going further.** Build an encoder of residual blocks and let it learn from views. With the same time for both, is it
# better than the lesson's? And if you start every `weight2` at 0, so that each block begins as its way round?
#
# ## 5 In your own words: the table under the cup
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# A friend has photographs of 40 cups, 100 of each. Every cup stood on a table of its own. She trains an encoder as in
# section 4 of the lesson, with views that are cut from a photograph, shifted and zoomed. Then she photographs the cups
# on a *new* table. The nearest neighbours of a cup are now any cups, from tables of about the same colour. In six
# sentences or fewer:
#
# 1. Her training had no labels and its loss is low. What has the encoder learned, and why is that enough for its task?
# 2. Name one thing to change in her views, or in her photographs, so that it learns the cups. She still has no labels.
# 3. She labels 200 photographs for a linear probe, which is right in 70 of 100 cases. With what must she compare that,
#    and on which photographs must it be measured?

# %% [markdown] tags=["explain:table-under-the-cup:3"]
# <!-- BEGIN SOLUTION -->
# 1. It has learned the tables. To find the partner among the other views of a batch, whatever both views share is good
#    enough; the table covers most pixels and differs from picture to picture, so the cup is not needed (1 point).
# 2. The views must differ in what does not matter: put the cup on other grounds at random (cut it out and paste it),
#    change the colours strongly if they do not matter, or cut views so close that little table is left. Or photograph
#    every cup on all tables, and take as partners two photographs taken one after the other, if the table was changed
#    between (1 point for one of these, with a reason).
# 3. With the same encoder before any training, and with pixels: only what is above them was learned. And on photographs
#    with tables that neither the training nor the probe has seen; else the probe may read the cup off its table, too
#    (1 point).
# <!-- END SOLUTION -->
