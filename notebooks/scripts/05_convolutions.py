# %% [markdown]
# # 05 · Convolutions
#
# **You will build** `course_lib/layers.py`: the parts that every network of this course is made of. Convolution, first
# on numbers you can check, then as one matrix product, and its reverse that makes small pictures large. Then two things
# that decide whether a deep network learns at all: its first random weights, and normalisation.
#
# **You need** tensors (lesson 01), and gradients as losses and optimisers use them (03 and 04).
#
# **Time**: 60 minutes of reading and thinking; the computer needs less than 20 seconds.
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
#   class c00,c01,c02,c03,c04 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c05 lit
# ```

# %% tags=["nbval-check-output"]
import math
from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module
from torch.utils.benchmark import Timer

from course_lib import layers
from course_lib.data import CaptionedShapes
from course_lib.layers import IN_CACHE, Pair, Unfold, check_convolution, pair, window_grid
from course_lib.lesson import compare, figure, pictures, setup, table

device = setup()

# %% [markdown]
# ## 1 A small window, moved over the picture
#
# A **layer** turns numbers into other numbers by weighted sums; training finds the weights. In the plainest, `linear`,
# every output has a weight for every input. From a picture of 3 x 32 x 32 numbers to 32 x 32 x 32 others, that is
# 3,072 x 32,768 weights, a hundred million. And it would have to learn at each place anew what an edge is.
#
# A **convolution** has one small set of weights, the **kernel**, and moves it over the picture: at each place it
# multiplies what it covers, number by number, and adds up. Let it be 2 x 2:
#
# $$\text{picture} = \begin{bmatrix} 0 & 0 & 2 & 2 \\ 0 & 0 & 2 & 2 \\ 0 & 0 & 2 & 2 \\ 1 & 1 & 1 & 1 \end{bmatrix}
# \qquad \text{kernel} = \begin{bmatrix} -1 & 1 \\ -1 & 1 \end{bmatrix}$$
#
# **Predict.** The kernel fits in three places across and three down, so there are nine sums. Compute them on paper.

# %% tags=["nbval-check-output"]
picture = torch.tensor([[0.0, 0, 2, 2], [0, 0, 2, 2], [0, 0, 2, 2], [1, 1, 1, 1]], device=device)
kernel = torch.tensor([[-1.0, 1.0], [-1.0, 1.0]], device=device)

for top in range(3):
    windows = [picture[top : top + 2, left : left + 2] for left in range(3)]
    print([(window * kernel).sum().item() for window in windows])

# %% [markdown]
# This kernel finds places where it gets brighter from left to right: 4 along the whole edge, 2 where the edge ends, 0
# elsewhere. It does not see the change from top to bottom. (Mathematicians would first turn the kernel by 180 degrees.
# Where weights are learned that makes no difference, and libraries for networks leave it out.)
#
# Layers need a little more. A picture has several **channels**: so has the kernel, and the sum goes over all of them.
# One kernel looks for one thing: a layer has many, and each makes one channel of the output. The **stride** is how many
# pixels the window moves at a time. **Padding** puts zeros around the picture. All of it, as a loop:


# %% tags=["nbval-check-output"]
def conv_loops(images, weight, stride=1, padding=0):  # (B, C, H, W), (O, C, K, K) -> (B, O, OH, OW)
    padded, size = F.pad(images, [padding] * 4), weight.shape[-1]
    rows, columns = [range(0, side - size + 1, stride) for side in padded.shape[2:]]
    output = images.new_empty(len(images), len(weight), len(rows), len(columns))
    for b, o, i, j in product(*map(range, output.shape)):
        window = padded[b, :, rows[i] : rows[i] + size, columns[j] : columns[j] + size]  # (C, K, K)
        output[b, o, i, j] = (window * weight[o]).sum()
    return output


images = torch.randn(2, 3, 8, 8, dtype=torch.float64).to(device)
weight = torch.randn(4, 3, 3, 3, dtype=torch.float64).to(device)
parts = {}
for stride, padding in [(1, 0), (1, 1), (2, 1)]:
    ours, theirs = (f(images, weight, stride=stride, padding=padding) for f in (conv_loops, F.conv2d))
    parts[f"stride {stride}, padding {padding}"] = ours, theirs
compare(parts)

# %% [markdown]
# PyTorch's numbers, and three sizes of output: 6, 8 and 4. With kernel $k$, padding $p$ and stride $s$, a side of $n$
# pixels becomes
#
# $$\left\lfloor \frac{n + 2p - k}{s} \right\rfloor + 1$$
#
# (the brackets round down); `window_grid` computes it, and refuses a kernel that does not fit. A 3 x 3 kernel with
# padding 1 keeps the size. From 3 to 32 channels it has 3 x 3 x 3 x 32 = 864 weights, and works at every size.
#
# **Predict.** Our discriminators use kernel 4, stride 2, padding 1. What becomes of 32 pixels?
#
# <details><summary>Answer</summary>
#
# (32 + 2 - 4) / 2 + 1 = 16: half. Three such layers lead from 32 x 32 to 4 x 4.
#
# </details>
#
# What do kernels see in a picture? Three chosen by hand, over a star:

# %% tags=["nbval-check-output"]
data = CaptionedShapes(split="all", image_size=64)
wanted = dict(size="large", color="yellow", shape="star", position="center", background="navy")
image = data[next(i for i in range(len(data)) if data.attributes(i) == wanted)][0].to(device)
gray = image.mean(0)[None, None]  # (3, 64, 64) -> (1, 1, 64, 64)
across = torch.tensor([[-1.0, 0.0, 1.0]] * 3, device=device)
kernels = torch.stack([across, across.T, torch.ones_like(across) / 9])[:, None]  # (3, 1, 3, 3)
seen = conv_loops(gray, kernels)[0]  # (3, 62, 62)
pictures(
    torch.cat([gray[0, :, 1:-1, 1:-1], seen])[:, None].repeat(1, 3, 1, 1),
    ["the picture", "brighter to the right", "brighter below", "mean of nine"],
    "One picture, three kernels",
    columns=4,
    alt="Four panels: a star; its left edges in white and its right ones in black; its upper edges in "
    "white and its lower ones in black; the star slightly blurred.",
)

# %% [markdown]
# White is positive, black negative, grey zero. In a network nobody chooses the kernels; training does, and a first
# layer trained on pictures usually has such edge finders among its kernels.
#
# ## 2 One matrix product
#
# A loop takes microseconds for every window, and processors are built for large matrix products. So lay every window
# flat, as a *column* of a matrix, and multiply by the kernel laid flat.
#
# **Predict.** Which shape has that matrix, for the 4 x 4 picture and the 2 x 2 kernel? How many of its numbers are
# copies?

# %% tags=["nbval-check-output"]
places = product(range(3), range(3))
columns = torch.stack([picture[i : i + 2, j : j + 2].flatten() for i, j in places], dim=1)
print(columns.int())
print((kernel.flatten() @ columns).view(3, 3))

# %% [markdown]
# (4, 9): a row for each place *in* the kernel, a column for each window. 36 numbers from 16: memory for speed. This is
# called *im2col* (Chellapilla and others, 2006).
#
# Look at the rows: the first is the picture without its last row and column, in other words one slice. So k x k
# slices do what needed a loop over all windows: 9 instead of 1,024 for a 3 x 3 kernel on a 32 x 32 picture.
# `window_slices` names them (`d` is the dilation, a kernel with gaps; 1 is none), `Unfold` cuts, `pair` lets a size
# be one number or two, and `check_convolution` refuses what does not fit.
#
# `conv2d` makes the product, for each group of channels, eight pictures at a time, and adds the **bias**, a number
# for each output channel. Training needs the gradients as well. So the third cell compares the output, and the slopes
# of the sum of its sines, a stand-in for a loss, by input, weight and bias.


# %% tags=["lib:layers.window_slices", "lib:layers.unfold", "nbval-check-output"]
def window_slices(grid: Pair, kernel_size: Pair, stride: Pair, dilation: Pair) -> list[tuple[slice, slice]]:
    """For each kernel position the rows and columns it meets on its grid of OH x OW steps."""
    sides = zip(pair(grid), pair(kernel_size), pair(stride), pair(dilation), strict=True)
    rows, columns = [[slice(i * d, i * d + (n - 1) * s + 1, s) for i in range(k)] for n, k, s, d in sides]
    return [(row, column) for row in rows for column in columns]


def unfold(
    input: Tensor, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1
) -> Tensor:
    """Every window as one column: (B, C, H, W) -> (B, C * kernel_h * kernel_w, OH * OW)."""
    grid, (pad_h, pad_w) = window_grid(input.shape[2:], kernel_size, dilation, padding, stride), pair(padding)
    padded = torch.constant_pad_nd(input, (pad_w, pad_w, pad_h, pad_h))
    return Unfold.apply(padded, window_slices(grid, kernel_size, stride, dilation)).flatten(3).flatten(1, 2)


# %% tags=["lib:layers.conv2d", "nbval-check-output"]
def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution: `unfold`, then one matrix product for all windows."""
    check_convolution(input, weight, weight.shape[1] * groups, groups)
    if len(input) > IN_CACHE:  # a few pictures at a time: their windows fit the processor's cache
        parts = input.split(IN_CACHE)
        return torch.cat([conv2d(part, weight, bias, stride, padding, dilation, groups) for part in parts])
    columns = unfold(input, weight.shape[2:], dilation, padding, stride)  # (B, C*kh*kw, OH*OW)
    columns = columns.unflatten(1, (groups, -1))  # (B, G, C/G*kh*kw, OH*OW)
    kernels = weight.flatten(1).unflatten(0, (groups, -1))  # (G, O/G, C/G*kh*kw)
    grid = window_grid(input.shape[2:], weight.shape[2:], dilation, padding, stride)
    output = (kernels @ columns).flatten(1, 2).unflatten(2, grid)  # (B, O, OH, OW)
    return output if bias is None else output + bias[:, None, None]


# %% tags=["nbval-check-output"]
def with_gradients(function, *inputs, **settings):
    inputs = [x.detach().clone().requires_grad_() for x in inputs]
    output = function(*inputs, **settings)
    return [output, *torch.autograd.grad(output.sin().sum(), inputs)]


bias = torch.randn(4, dtype=torch.float64).to(device)
both = [with_gradients(f, images, weight, bias, stride=2, padding=1) for f in (conv2d, F.conv2d)]
names = ["output", "gradient of input", "gradient of weight", "gradient of bias"]
compare(dict(zip(names, zip(*both, strict=True), strict=True)))

# %% [markdown]
# ## 3 The way back: small pictures become large
#
# A generator begins with a few numbers and ends with a picture: it needs layers that enlarge. A **transposed
# convolution** turns the idea round. A convolution gathers a window into one number; its transpose spreads one number
# over a window: it paints the kernel, multiplied by that number, on a canvas, and moves on by the stride. Where
# paintings overlap, they add.
#
# **Predict.** One row is enough: the numbers 1, 2, 3, the kernel (1, 10, 100), stride 2. What is on the canvas?

# %% tags=["nbval-check-output"]
numbers, brush = torch.tensor([1.0, 2.0, 3.0], device=device), torch.tensor([1.0, 10.0, 100.0], device=device)
canvas = torch.zeros(7, device=device)
for place, number in enumerate(numbers):
    canvas[2 * place : 2 * place + 3] += number * brush
print(canvas.tolist())
print(F.conv_transpose2d(numbers.view(1, 1, 1, 3), brush.view(1, 1, 1, 3), stride=2).flatten().tolist())

# %% [markdown]
# 102 is the end of the first painting, 100, plus the beginning of the second, 2. In the library a matrix product makes
# all paintings at once, and `Fold`, in the next cell, adds them to the canvas, slice by slice. `Unfold` and `Fold` are
# **transposes**: what one copies from A to B, the other adds from B to A, and therefore each is the other's gradient.
#
# `conv_transpose2d` is that, with settings; read it in the library. Padding here *crops* the canvas, and a side of $n$
# becomes $(n - 1) s - 2 p + k$. With kernel 4, stride 2, padding 1 again, 4 pixels become 8: exactly the reverse.
#
# **Predict.** A convolution leads from 8 x 8 to 4 x 4 pixels. In training its gradient has to come back from 4 x 4 to
# 8 x 8. Which layer does that?


# %% tags=["lib:layers.Fold", "nbval-check-output"]
class Fold(Function):
    """Puts every window back and adds where they overlap."""

    @staticmethod
    def forward(context, windows: Tensor, size: tuple[int, ...], slices: list[tuple[slice, slice]]) -> Tensor:
        context.slices, picture = slices, windows.new_zeros(size)
        for window, (rows, columns) in zip(windows.unbind(2), slices, strict=True):
            picture[:, :, rows, columns] += window
        return picture

    @staticmethod
    def backward(context, gradient: Tensor):
        return Unfold.apply(gradient, context.slices), None, None


# %% tags=["nbval-check-output"]
from course_lib.layers import conv_transpose2d, upsample_nearest

small = torch.randn(2, 3, 4, 4, dtype=torch.float64).to(device)
large = torch.randn(2, 5, 8, 8, dtype=torch.float64).to(device).requires_grad_()
brushes = torch.randn(3, 5, 4, 4, dtype=torch.float64).to(device)
both = [
    with_gradients(f, small, brushes, stride=2, padding=1) for f in (conv_transpose2d, F.conv_transpose2d)
]
parts = dict(zip(names, zip(*both, strict=True), strict=False))
paintings = (brush[:, None] * numbers).view(1, 1, 3, 1, 3)  # for each kernel position, the three numbers
row = Fold.apply(paintings, (1, 1, 1, 7), window_slices((1, 3), (1, 3), (1, 2), 1)).flatten()
(back,) = torch.autograd.grad(conv2d(large, brushes, stride=2, padding=1), large, small)
compare({"1, 2, 3 by Fold": (row, canvas)} | parts | {"a convolution's gradient": (both[0][0], back)})

# %% [markdown]
# The last row: the transposed convolution *is* the gradient of a convolution with respect to its input, used as a
# layer. It restores the size, not the content: it is no inverse, though it is sometimes called "deconvolution".
#
# Here you move the window yourself and read every product. **Predict**, then look: with stride 1 the 2 x 2 kernel finds
# the edge in the middle of the picture. Does it with 2, and with 3? Then paint with the transposed convolution, nine ones
# as its kernel and stride 2.

# %% tags=["explorer"]
from course_lib.widgets import convolution_stepper

convolution_stepper()

# %% [markdown]
# With 2 it does. With 3 it finds nothing: its windows begin at the first and the fourth pixel, and none lies across the
# edge. On the canvas, cells that two paintings reach hold the sum of two numbers, such as 1 + 2 = 3, and those that four
# reach, of four: 1 + 2 + 4 + 5 = 12.
#
# ### Checkerboards
#
# **Predict.** How many coats of paint does each pixel get? Take kernel 3, stride 2, and four numbers in a row.
#
# <details><summary>Answer</summary>
#
# 1 1 2 1 2 1 2 1 1: every second pixel inside gets two. In a picture, rows and columns multiply, to 1, 2 and 4 coats:
# a checkerboard. Kernel 4, a multiple of the stride, covers all but the border equally: 1 1 2 2 2 2 2 2 1 1.
#
# </details>
#
# There is another way: enlarge first and paint later. `upsample_nearest` makes each pixel a square of equal ones
# (`average_pool2d` is its opposite; both are a few lines, read them in the library), and an ordinary convolution
# follows.
#
# **Predict.** A star is enlarged with all weights of the kernel equal: by kernel 3, by kernel 4, and the other way.
# Which pictures have a checkerboard?


# %% tags=["nbval-check-output"]
def enlarge(way, x, weight, groups=1):  # (B, C, H, W) -> (B, C, 2H, 2W)
    if way.startswith("nearest"):
        return conv2d(upsample_nearest(x), weight, padding=1, groups=groups)
    extra = 4 - weight.shape[-1]  # one more row and column for kernel 3, so that the size doubles
    return conv_transpose2d(x, weight, stride=2, padding=1, output_padding=extra, groups=groups)


ways, star = {"transposed, kernel 3": 3, "transposed, kernel 4": 4, "nearest + conv 3": 3}, image[None]
stars = []
for way, size in ways.items():
    total = 1 if way.startswith("nearest") else 4  # what the weights must add up to, to keep the brightness
    stars.append(enlarge(way, star, torch.full((3, 1, size, size), total / size**2, device=device), groups=3))
alt = "A star, three times. Left it is covered by a regular pattern of dots; the others are even."
pictures(torch.cat(stars)[:, :, 40:104, 40:104], list(ways), "Equal weights", columns=3, alt=alt)

# %% [markdown]
# Only the first. But networks do not have equal weights. Give each way random ones, three layers deep, and an input
# that is the same everywhere: any pattern comes from the layers. Three of the output's channels serve as colours; the
# deviation from place to place is a share of the mean, over all channels.
#
# **Predict.** Is kernel 4 as smooth as nearest + convolution?

# %% tags=["nbval-check-output"]
flat, captions = [], []
for way, size in ways.items():
    torch.manual_seed(5)
    x = torch.ones(1, 32, 8, 8, device=device)
    for _ in range(3):
        x = torch.relu(enlarge(way, x, torch.randn(32, 32, size, size).to(device)))
        x = x / x.mean()
    x = x[:, :, 16:-16, 16:-16]  # the middle: the padding's zeros do not reach it
    captions.append(f"{way}: deviation {x.std((2, 3)).mean() / x.mean():.2f}")
    flat.append(x[:, :3] / x[:, :3].amax() * 2 - 1)
pictures(torch.cat(flat), captions, "Random weights, an even input", columns=3, alt="; ".join(captions))

# %% [markdown]
# Kernel 4 is as uneven as kernel 3. Every pixel now gets four coats, but its neighbour gets four *others*, from other
# weights of the kernel. With nearest + convolution all pixels share the same nine weights, so it is even from the first
# step on (Odena and others, 2016, who recommend it).
#
# Why does anyone take kernel 4, then? For one output number and one input channel it multiplies 4 times, the other way
# 9 times, and training can even out its weights. Our generators use it.
#
# ## 4 The first weights
#
# Between two layers stands an **activation**: without one, weighted sums of weighted sums are only weighted sums, and
# two layers are no more than one. Above it was ReLU, $\max(x, 0)$; `leaky_relu` lets a fifth of the negative numbers
# through, `gelu` is smooth (lesson 07).
#
# Before training, weights are random. How large? An output adds up $n$ products of weight and input; $n$ is its
# **fan-in** (`fan_in`), for 32 channels and a 3 x 3 kernel 32 x 9 = 288. When the weights are independent, with mean
# 0 and standard deviation $\sigma$, the variances add up:
#
# $$\mathrm{Var}(\text{output}) = n \, \sigma^2 \cdot \mathrm{mean}(\text{input}^2)$$
#
# ReLU sets half of the outputs to 0, so half of the mean square is left. A layer with its ReLU multiplies the signal's
# mean square by $n \sigma^2 / 2$.
#
# **Predict.** DCGAN starts with $\sigma = 0.02$, PyTorch with numbers evenly spread up to $\pm 1 / \sqrt{n}$, which has
# $\sigma^2 = 1 / (3n)$. By what do they multiply, for $n = 288$? Which $\sigma$ would keep the signal's size?
#
# <details><summary>Answer</summary>
#
# 288 · 0.0004 / 2 = 0.0576, and 1/6. The size is kept for $\sigma^2 = 2 / n$, here $\sigma = 0.0833$: the start of
# Kaiming He and others (2015).
#
# </details>

# %% tags=["nbval-check-output"]
from course_lib.layers import BatchNorm2d, Conv2d, Linear, init_dcgan_, init_kaiming_

rows, inputs = [], torch.randn(10_000, 288).to(device)  # their mean square is 1
for name, std in {"PyTorch": 1 / math.sqrt(3 * 288), "DCGAN": 0.02, "Kaiming": math.sqrt(2 / 288)}.items():
    outputs = inputs @ (torch.randn(288, 200) * std).to(device)
    after = torch.relu(outputs).square().mean().item()
    rows.append({"start": name, "variance": f"{outputs.var():.2f}", "mean square after ReLU": f"{after:.3f}"})
table(rows)

# %% [markdown]
# As computed. `init_dcgan_` and `init_kaiming_` start a whole network like that: their common part, `initialise_`,
# walks through its layers and sets the biases to 0. (The underscore says that the argument itself is changed.)
# PyTorch's start is what our layers have anyway, from `add_weights`; its biases are random too.
#
# Now twelve layers, one after the other, and sixteen random pictures through them. Two things are measured after every
# layer: the variance of all its numbers, and the variance *between pictures*, at the same place of the same channel.
#
# **Predict.** What is left of a variance of 1 after twelve layers with PyTorch's start?


# %% tags=["nbval-check-output"]
def variances(start, norm=lambda x: x):
    torch.manual_seed(0)
    x, total, between = torch.randn(16, 32, 32, 32).to(device), [], []
    for _ in range(12):
        layer = start(Conv2d(32, 32, 3, padding=1)).to(device)
        x = norm(layer(x).detach())
        total.append(x.var().item())
        between.append(x.var(0).mean().item())
        x = torch.relu(x)
    return total, between


starts = {"PyTorch": lambda layer: layer, "DCGAN": init_dcgan_, "Kaiming": init_kaiming_}

# %% tags=["nbval-check-output"]
with figure(
    "Twelve layers without training",
    alt="Two panels, variance on a logarithmic axis over layers 1 to 12. DCGAN's falls to 1e-16 in both. "
    "Kaiming's stays between 0.05 and 3 in both. PyTorch's ends its fall at 0.001 on the left, for all "
    "numbers, but goes on to 1e-10 on the right, between pictures.",
    columns=2,
) as panels:
    for (name, start), mark in zip(starts.items(), ("-o", "--s", ":^"), strict=True):
        for panel, values in zip(panels, variances(start), strict=True):
            panel.plot(range(1, 13), values, mark, label=name)
    for panel, name in zip(panels, ("of all numbers", "between pictures"), strict=True):
        panel.set(xlabel="layer", ylabel=f"variance {name}", yscale="log", ylim=(1e-17, 10))
    panels[0].legend()

# %% [markdown]
# One sixth a layer makes $6^{-12} = 5 \cdot 10^{-10}$, but on the left PyTorch's curve stops falling near 0.001. Good
# news? The right panel says no: what is left comes from the biases, the same for every picture. From picture to
# picture almost nothing changes, and a loss cannot teach the first layers what does not arrive at the last. (The
# gradients shrink on their way back just as much.) Kaiming's start alone lets the pictures through; what it loses, it
# loses at the border, where padding adds zeros, and because ReLU, which is never negative, makes pictures more alike.
#
# With 0.02 it is worst here. It suits layers with $n = 2 / 0.02^2 = 5000$ inputs. DCGAN's widest is of that size:
# 1,024 channels times a quarter (stride 2) of 5 x 5 weights make 6,400. (DCGAN is by Radford, Metz and Chintala; a
# popular article credits others, see lesson 17.)
#
# ## 5 Normalisation
#
# One can do better than to hope that the variance survives: set it. **Batch normalisation** subtracts from each channel
# its mean over all pictures and places of the batch, and divides by its standard deviation.
#
# **Predict.** Two pictures of two pixels: the first channel has 1, 3 in one and 5, 7 in the other; the second channel
# 10, 10 and 30, 30. What do they become?

# %% tags=["nbval-check-output"]
batch = torch.tensor([[[[1.0, 3.0]], [[10.0, 10.0]]], [[[5.0, 7.0]], [[30.0, 30.0]]]], device=device)
mean = batch.mean((0, 2, 3), keepdim=True)  # (2, 2, 1, 2) -> (1, 2, 1, 1)
variance = (batch - mean).square().mean((0, 2, 3), keepdim=True)
normal = (batch - mean) / torch.sqrt(variance + 1e-5)
for channel in (0, 1):
    numbers = [round(x, 3) for x in normal[:, channel].flatten().tolist()]
    print(mean[0, channel].item(), variance[0, channel].item(), numbers)
compare({"normalised": (normal, F.batch_norm(batch, None, None, training=True))})

# %% [markdown]
# Mean 4 and variance 5; mean 20 and variance 100. (The 0.00001 keeps a channel of equal numbers from a division by
# 0.) `batch_norm` adds a learned scale and shift for each channel, and running averages of mean and variance, for use
# after training, where a picture may come alone. Its relatives, `group_norm` and `layer_norm`, do the same with other
# numbers. Whose mean each takes, for four pictures of six channels:

# %% tags=["nbval-check-output"]
row, column = torch.arange(4)[:, None], torch.arange(6)[None, :]  # picture, channel
whose = {"batch": column + 0 * row, "group (3 groups)": 3 * row + column // 2, "layer": row + 0 * column}
with figure(
    "Normalisations: equal numbers share one mean and one variance",
    alt="Three tables, four pictures down and six channels across. Batch: each channel has its own number, "
    "in all pictures. Group: each picture has three, for two channels each. Layer: each picture has one.",
    columns=3,
    size=(9, 2.9),
) as panels:
    for panel, (name, sets) in zip(panels, whose.items(), strict=True):
        panel.imshow(sets, cmap="Set3", vmin=0, vmax=11)
        panel.set(title=name, xlabel="channel", ylabel="picture", xticks=range(6))
        panel.grid(False)
        for i, j in product(range(4), range(6)):
            panel.text(j, i, sets[i, j].item() + 1, ha="center", va="center")

# %% [markdown]
# Every cell stands for all places of its channel. The layer's kind is a group normalisation with one group;
# `layer_norm` itself takes the last dimension only, which in lesson 07 holds the numbers of one word.
#
# **Predict.** A picture goes through a layer twice, once in the company of three dark pictures, once of three bright
# ones. With which normalisation does it come out the same?

# %% tags=["nbval-check-output"]
me, dark, bright = (torch.rand(n, 6, 8, 8).to(device) for n in (1, 3, 3))
norm, rows = BatchNorm2d(6).to(device), []
for name, function in {
    "batch, in training": norm.train(),
    "group": lambda x: layers.group_norm(x, 3),
    "layer": lambda x: layers.group_norm(x, 1),
    "batch, after training": lambda x: norm.eval()(x),
}.items():
    change = (function(torch.cat([me, dark - 1]))[0] - function(torch.cat([me, bright + 1]))[0]).abs().max()
    rows.append({"normalisation": name, "largest change of my picture": f"{change:.2f}"})
table(rows)

# %% [markdown]
# Only batch normalisation lets pictures see each other, and only in training: a picture's numbers then depend on its
# company, and a single number a channel is refused, because it has no variance. Afterwards the running averages take
# over. A model is switched by `model.train()` and `model.eval()`; to forget the second is a frequent mistake.
#
# Now the twelve layers again, with batch normalisation after each.
#
# **Predict.** Which start is best then?

# %% tags=["nbval-check-output"]
rows = []
for name, start in starts.items():
    plain = variances(start)[1][-1]
    normal = variances(start, lambda x: layers.batch_norm(x, None, None, training=True))[1][-1]
    rows.append({"start": name, "without": f"{plain:.1e}", "with batch norm": f"{normal:.2f}"})
table(rows)

# %% [markdown]
# None: all end near 0.95. (The numbers are variances between pictures after layer 12; without normalisation, two of
# the three had vanished.) Multiply all weights by any factor: mean and standard deviation grow by the same, and the
# quotient stays. So 0.02 does no harm in DCGAN, which normalises nearly every layer; a network *without*
# normalisation, such as our discriminator of lesson 11, wants Kaiming's start.
#
# ### A caption can speak here
#
# Scale and shift are two numbers a channel. **Conditional** normalisation reads them from something else, in
# lesson 11 from the caption: one sentence turns up one channel, another turns it down, at every layer of the generator.
#
# The linear layer in the class below starts with zeros, so at first every caption gives the same. Let three words be
# three numbers, 1 if the word was said, and write by hand what training might find: for each word the $\gamma$ of the
# three channels red, green and blue, then their $\beta$. All four pictures of the second cell are the same noise.


# %% tags=["lib:layers.ConditionalBatchNorm2d", "nbval-check-output"]
class ConditionalBatchNorm2d(Module):
    """Batch normalisation whose scale and shift are read from a condition, such as a caption's embedding."""

    def __init__(
        self, num_features: int, condition_size: int,
        eps: float = 1e-5, momentum: float = 0.1, backend: str = "torch",
    ):  # fmt: skip
        super().__init__()
        self.norm = BatchNorm2d(num_features, eps, momentum, affine=False, backend=backend)
        self.modulation = Linear(condition_size, 2 * num_features)
        for parameter in self.modulation.parameters():
            parameter.data.zero_()

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)  # each (B, C, 1, 1)
        return torch.addcmul(beta, self.norm(input), 1 + gamma)  # one pass over the picture


# %% tags=["nbval-check-output"]
layer = ConditionalBatchNorm2d(3, condition_size=3).to(device)
noise = upsample_nearest(torch.randn(1, 3, 8, 8), 4).repeat(4, 1, 1, 1).to(device)
said = torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [1, 0, 1]], device=device)  # "red", "blue", "faint"
same = layer(noise, said)
print("largest difference at the start:", (same - same[0]).abs().max().item())
words = [[0.0, 0, 0, 1.5, -1, -1], [0, 0, 0, -1, -1, 1.5], [-0.9, -0.9, -0.9, 0, 0, 0]]
layer.modulation.weight.data = torch.tensor(words, device=device).T.contiguous()  # (6, 3)
captions = ["(no word)", "red", "blue", "red, faint"]
alt = "The same noise four times: in all colours; reddish; bluish; reddish with hardly any contrast."
pictures(layer(noise, said) / 2, captions, "One noise, one layer, four captions", columns=4, alt=alt)

# %% [markdown]
# A table of 18 numbers paints the same noise in four ways. Words add up: "red" and "faint" were never set together. A
# generator has hundreds of channels for such choices, and training finds the numbers.
#
# ## 6 From functions to modules
#
# A module holds a function's weights: `Linear`, `Embedding` (a vector for each id), `Conv2d`, `ConvTranspose2d`,
# `BatchNorm2d`, `LayerNorm`, `GroupNorm`. Arguments, defaults and parameters are those of `torch.nn`, as far as this
# course needs them. Four take a `backend`: with "ours" they call the functions of this lesson, with "torch", the
# default, PyTorch's own (`check_backend` refuses others). Are they the same? Both get the same seed, so the first
# weights must agree too.

# %% tags=["nbval-check-output"]
kinds = dict(Conv2d=(8, 16, 3, 2, 1), ConvTranspose2d=(8, 16, 4, 2, 1), BatchNorm2d=(8,), GroupNorm=(2, 8))
x, parts = torch.randn(9, 8, 16, 16, dtype=torch.float64).to(device).requires_grad_(), {}
for name, arguments in kinds.items():
    both = []
    for kind, options in ((getattr(layers, name), {"backend": "ours"}), (getattr(torch.nn, name), {})):
        torch.manual_seed(0)
        layer = kind(*arguments, **options).to(device, torch.float64)
        output = layer(x)
        slopes = torch.autograd.grad(output.sin().sum(), [x, layer.weight])
        both.append([layer.weight, output, *slopes])
    for part, ours, theirs in zip(["weight", *names], *both, strict=False):
        parts[f"{name}: {part}"] = ours, theirs
compare(parts)

# %% [markdown]
# So any of them can be swapped for the other. Then why not always ours?
#
# **Predict.** One 3 x 3 convolution, 32 channels to 32, on 32 x 32 pixels: 9.4 million multiplications a picture. How
# many times longer than PyTorch does ours take? And the loop of section 1?


# %%
x, rows, best = torch.randn(8, 32, 32, 32).to(device), [], {}
ours, theirs = (Conv2d(32, 32, 3, padding=1, backend=name).to(device) for name in ("ours", "torch"))
works = {"output": "{}(x)", "output and gradients": "{}(x).sum().backward()"}
for _ in range(8):  # the quickest of all rounds counts: other programs use the machine too
    for call in (work.format(who) for work in works.values() for who in ("theirs", "ours")):
        times = Timer(call, globals=globals()).blocked_autorange(min_run_time=0.1).times
        best[call] = min(*times, best.get(call, math.inf))
for name, work in works.items():
    a, b = (best[work.format(who)] / len(x) * 1000 for who in ("theirs", "ours"))
    rows.append({"ms for a picture": name, "PyTorch": a, "ours": b, "ours / PyTorch": b / a})
table(rows)
call = "conv_loops(x[:1], theirs.weight.detach(), padding=1)"
loops = min(Timer(call, globals=globals()).blocked_autorange(min_run_time=2).times) * 1000
print(f"The loop, output only: {loops:.0f} ms, {loops / rows[0]['PyTorch']:.0f} times PyTorch's")

# %% [markdown]
# The numbers are those of the machine that ran this page; yours differ. The loop takes thousands of times as long as
# PyTorch. One matrix product wins nearly all of that back; what remains is a small factor. PyTorch calls
# libraries that are tuned for each processor and mostly avoid writing all windows to memory. The models of this course
# use it; that it computes what you have built is proved above, and by the library's tests for many strides, dilations
# and groups.
#
# ## What changed in the library
#
# The room `layers.py` is furnished: every network from here on is built of its parts.
#
# ## Three questions
#
# 1. Two 3 x 3 convolutions without an activation between them, and one of 5 x 5: which can compute more?
#
# <details><summary>Answer</summary>
#
# The 5 x 5 one. Two linear steps are one linear step, and the second one's pixels see a window of 5 x 5; but the two
# kernels have 18 numbers between them (one channel), the large one has 25 free ones.
#
# </details>
#
# 2. Checkerboards also show in the *gradients* that reach a picture through a discriminator of strided convolutions. Why?
#
# <details><summary>Answer</summary>
#
# The gradient of a convolution is a transposed convolution (section 3). With kernel 3 and stride 2 some pixels
# are in one window, others in four, and those get more of the slope.
#
# </details>
#
# 3. A layer is followed by batch normalisation. Does its bias do anything?
#
# <details><summary>Answer</summary>
#
# No. It moves the channel's mean, which is subtracted at once. So the generators of lessons 10 and 11 leave it out
# (`bias=False`); their shift comes after the normalisation.
#
# </details>
#
# ## Papers
#
# - Kumar Chellapilla, Sidd Puri and Patrice Simard (2006), *High Performance Convolutional Neural Networks for Document
#   Processing*: unfold and multiply. [inria-00112631](https://inria.hal.science/inria-00112631)
# - Vincent Dumoulin and Francesco Visin (2016), *A guide to convolution arithmetic for deep learning*: all sizes, with
#   drawings. [arXiv:1603.07285](https://arxiv.org/abs/1603.07285)
# - Augustus Odena, Vincent Dumoulin and Chris Olah (2016), *Deconvolution and Checkerboard Artifacts*.
#   [distill.pub](https://distill.pub/2016/deconv-checkerboard/)
# - Alec Radford, Luke Metz and Soumith Chintala (2015), *Unsupervised Representation Learning with Deep Convolutional
#   Generative Adversarial Networks*: DCGAN. [arXiv:1511.06434](https://arxiv.org/abs/1511.06434)
# - Kaiming He and others (2015), *Delving Deep into Rectifiers*: the start that keeps the variance.
#   [arXiv:1502.01852](https://arxiv.org/abs/1502.01852)
# - Sergey Ioffe and Christian Szegedy (2015), *Batch Normalization*. [arXiv:1502.03167](https://arxiv.org/abs/1502.03167)
# - Jimmy Ba, Jamie Kiros and Geoffrey Hinton (2016), *Layer Normalization*.
#   [arXiv:1607.06450](https://arxiv.org/abs/1607.06450)
# - Yuxin Wu and Kaiming He (2018), *Group Normalization*. [arXiv:1803.08494](https://arxiv.org/abs/1803.08494)
# - Harm de Vries and others (2017), *Modulating early visual processing by language*: conditional batch normalisation.
#   [arXiv:1707.00683](https://arxiv.org/abs/1707.00683)
#
# Next: lesson 06 stacks these layers into an encoder, and trains it.
