# %% [markdown]
# # Exercises 05 · Convolutions
#
# Five exercises to lesson 05, 90 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | A convolution that is not square | ★★☆☆☆ | 20 | 3 |
# | 2 | Paint: the transposed convolution | ★★★☆☆ | 25 | 4 |
# | 3 | Find the bug: first weights that change nothing | ★★☆☆☆ | 15 | 3 |
# | 4 | A caption turns the knobs | ★★★☆☆ | 20 | 4 |
# | 5 | In your own words: a grid in the sky | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import math

import torch
from torch import Tensor
from torch.nn import Module, ReLU, Sequential

from course_lib.checks.layers import (
    check_conditional_norm,
    check_convolve,
    check_initialise,
    check_transposed_convolution,
)
from course_lib.layers import Conv2d, Linear, fan_in
from course_lib.lesson import heatmap, setup

device = setup()

# %% [markdown]
# ## 1 A convolution that is not square
#
# ★★☆☆☆ · 20 minutes · 3 points
#
# **Why.** With square pictures, square kernels and one stride, rows and columns can be swapped and nobody sees it. Wide
# pictures show it at once. So here the kernel, the stride and the padding have one number for the rows and another for
# the columns, always the rows first; and there is a bias.
#
# **Write** `convolve` with loops, without `torch.nn.functional.conv2d` or `course_lib.layers`. Slopes must flow through
# it, so do not turn sums into plain numbers.
#
# **Expected.** The picture has the rows 1 2 3 4 and 5 6 7 8. The kernel is one column of two, 1 above 10; the stride is
# (1, 2), there is no padding, and the bias is 0.5. The output is one row: 51.5 and 73.5. With a padding of (1, 0) it
# has three rows: 10.5 and 30.5; 51.5 and 73.5; 5.5 and 7.5.
#
# <details><summary>Hint 1: how large</summary>
#
# Each side for itself: `(side + 2 * padding - kernel) // stride + 1`.
#
# </details>
#
# <details><summary>Hint 2: which window</summary>
#
# The window of the output row `i` begins at row `i * stride` of the padded picture and is as high as the kernel.
#
# </details>
#
# <details><summary>Hint 3: the padding and the sum</summary>
#
# `torch.nn.functional.pad(images, (left, right, top, bottom))`: columns first! A window and `weight[o]` both have the
# shape (C, KH, KW); multiply them number by number, and add up everything. The bias of `o` comes once.
#
# </details>


# %% tags=["solve:convolve"]
def convolve(
    images: Tensor, weight: Tensor, bias: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    """Move every kernel over every picture.

    Args:
        images: (B, C, H, W).
        weight: (O, C, KH, KW), a kernel for each output channel.
        bias: (O,), added to each output channel.
        stride: how many (rows, columns) the window moves at a time.
        padding: how many (rows, columns) of zeros stand on each side.
    Returns:
        (B, O, OH, OW) with OH = (H + 2 padding[0] - KH) // stride[0] + 1, and OW likewise.
    """
    ### BEGIN SOLUTION
    padded = torch.nn.functional.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    height, width = weight.shape[2:]
    output_height = (padded.shape[2] - height) // stride[0] + 1
    output_width = (padded.shape[3] - width) // stride[1] + 1
    output = images.new_zeros(len(images), len(weight), output_height, output_width)
    for i in range(output_height):
        for j in range(output_width):
            top, left = i * stride[0], j * stride[1]
            window = padded[:, None, :, top : top + height, left : left + width]  # (B, 1, C, KH, KW)
            output[:, :, i, j] = (window * weight).sum((2, 3, 4)) + bias  # (B, O)
    return output
    ### END SOLUTION


# %% tags=["check:convolve:3"]
check_convolve(convolve)
### BEGIN HIDDEN TESTS
check_convolve(convolve, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** A *depthwise* convolution has one kernel for each channel and never adds channels up (`groups=C` in
# PyTorch). How many weights has it, followed by a 1 x 1 convolution that mixes the channels, and how many has a plain
# 3 x 3 layer of 32 channels to 32? Write it, and compare the two in speed.
#
# ## 2 Paint: the transposed convolution
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** It makes pictures large in every generator of this course. Its sizes are a frequent source of errors, because
# "padding" takes away where one expects it to add.
#
# **Write** `transposed_convolution` as the lesson painted its row of three numbers, now on a canvas with two sides and
# with channels: every number of every input channel paints its kernel once for each output channel. Use no
# `conv_transpose2d` and no `Fold`.
#
# **Expected.** One number 2 and a kernel of ones, 3 x 3: nine twos; with padding 1, the one in the middle. Four ones in
# a row, kernel 3, stride 2: the middle row of the canvas has 1 1 2 1 2 1 2 1 1. Kernel 4, stride 2, padding 1: twice as
# high and as wide.
#
# <details><summary>Hint 1: the canvas</summary>
#
# The last painting begins at `(side - 1) * stride` and is as long as the kernel. Start with zeros of that size.
#
# </details>
#
# <details><summary>Hint 2: one painting</summary>
#
# At the place (i, j) of the input stand C numbers for each picture, `images[:, :, i, j]`; the weights are (C, O, K, K).
# The painting is (B, O, K, K): multiply and sum over C. `torch.einsum("bc,cokl->bokl", ...)` does that, and so does
# `@` with the weights laid flat.
#
# </details>
#
# <details><summary>Hint 3: the padding</summary>
#
# After all paintings are added, cut `padding` rows off at the top and at the bottom, and as many columns at the left
# and at the right. `canvas[..., padding:-padding]` is empty for padding 0; count the end from the size.
#
# </details>


# %% tags=["solve:transposed-convolution"]
def transposed_convolution(images: Tensor, weight: Tensor, stride: int, padding: int) -> Tensor:
    """Every number paints a kernel on a canvas; where paintings overlap, they add.

    Args:
        images: (B, C, H, W).
        weight: (C, O, K, K): what an input channel paints into an output channel.
        stride: how far the painter moves from one number to the next.
        padding: how many rows and columns are cut off, on each of the four sides.
    Returns:
        (B, O, OH, OW) with OH = (H - 1) stride - 2 padding + K, and OW likewise.
    """
    ### BEGIN SOLUTION
    size = weight.shape[-1]
    height, width = [(side - 1) * stride + size for side in images.shape[2:]]
    canvas = images.new_zeros(len(images), weight.shape[1], height, width)
    for i in range(images.shape[2]):
        for j in range(images.shape[3]):
            painting = torch.einsum("bc,cokl->bokl", images[:, :, i, j], weight)
            canvas[:, :, i * stride : i * stride + size, j * stride : j * stride + size] += painting
    return canvas[:, :, padding : height - padding, padding : width - padding]
    ### END SOLUTION


# %% tags=["check:transposed-convolution:4"]
check_transposed_convolution(transposed_convolution)
### BEGIN HIDDEN TESTS
check_transposed_convolution(transposed_convolution, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Your function can count coats of paint. Let five by five ones paint with a kernel of ones, **5 x 5**, stride 2, no
# padding. How many coats will a pixel in the middle get? Guess first; exercise 5 needs the answer.

# %% tags=["solve:coats"]
### BEGIN SOLUTION
coats = transposed_convolution(torch.ones(1, 1, 5, 5), torch.ones(1, 1, 5, 5), stride=2, padding=0)[0, 0]
### END SOLUTION
names = [str(number) for number in range(len(coats))]
heatmap(
    coats,
    "Coats of paint: kernel 5, stride 2",
    (names, names),
    alt="How many coats each of 13 x 13 pixels gets: few near the border, and an uneven pattern in the middle.",
    digits=0,
)

# %% [markdown]
# **Going further.** A *pixel shuffle* enlarges in a third way: an ordinary convolution makes four times as many
# channels, and four channels become the four pixels of a square. Write it with `unflatten` and `transpose`, compare it
# with `torch.nn.functional.pixel_shuffle`, and repeat the lesson's test with an even input and random weights. With
# which start of the weights is it even?
#
# ## 3 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** A start that is written but does not reach the network raises no error. The training begins with other numbers
# than you think, and a deep network may never begin to learn. The cell below shows it: sixteen random pictures go
# through twelve layers, and the differences between them should not vanish.


# %%
def initialise_in_vain(network: Module) -> Module:
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            weight, bias = layer.weight, layer.bias
            weight = torch.randn(weight.shape) * math.sqrt(2 / fan_in(layer))
            bias = torch.zeros(bias.shape)
    return network


def deep_network() -> Module:
    torch.manual_seed(0)
    return Sequential(*[Sequential(Conv2d(32, 32, 3, padding=1), ReLU()) for _ in range(12)])


@torch.no_grad()
def variance_between_pictures(network: Module) -> float:
    return network(torch.randn(16, 32, 16, 16)).var(0).mean().item()


print(f"without a start of our own: {variance_between_pictures(deep_network()):.0e}")
print(f"after initialise_in_vain:   {variance_between_pictures(initialise_in_vain(deep_network())):.0e}")

# %% [markdown]
# **Find** why nothing changes, and **write** `initialise` so that it does. The parameters must stay the same tensors:
# an optimiser may know them already.
#
# **Expected.** For the network above a variance between 0.01 and 1. A 5 x 5 convolution of 64 channels: weights with a
# standard deviation of 0.035.
#
# <details><summary>Hint 1: what does = do?</summary>
#
# After `weight = layer.weight` there is one tensor with two names. What does the second `weight = ...` change: the
# tensor, or what the name stands for?
#
# </details>
#
# <details><summary>Hint 2: fill the tensor</summary>
#
# Methods with an underscore change the tensor itself: `normal_(mean, standard_deviation)`, `zero_()`, `copy_(other)`.
#
# </details>
#
# <details><summary>Hint 3: two things PyTorch minds</summary>
#
# A parameter may only be changed in place where no slopes are recorded: put `@torch.no_grad()` above the function. And
# a layer made with `bias=False` has `None` for a bias.
#
# </details>


# %% tags=["solve:initialise"]
def initialise(network: Module) -> Module:
    """Kaiming's start, for every `Conv2d` and `Linear` inside the network, however deep.

    Args:
        network: is changed: weights become N(0, 2 / fan-in), where 2 / fan-in is the variance; biases become 0; all
            other layers stay as they are.
    Returns:
        the same network.
    """
    ### BEGIN SOLUTION
    with torch.no_grad():
        for layer in network.modules():
            if isinstance(layer, (Conv2d, Linear)):
                layer.weight.normal_(0.0, math.sqrt(2 / fan_in(layer)))
                if layer.bias is not None:
                    layer.bias.zero_()
    return network
    ### END SOLUTION


# %% tags=["check:initialise:3"]
check_initialise(initialise)
### BEGIN HIDDEN TESTS
check_initialise(initialise, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Saxe and others (2013) start with *orthogonal* weights: `torch.nn.init.orthogonal_`. Let a network
# of fifty layers start in both ways and compare the variances after each layer, without any activation and with ReLU.
#
# ## 4 A caption turns the knobs
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** In lesson 11 this is how a generator listens: every layer is normalised, and the caption says how strong each
# channel should be. The lesson left the normalisation to a module; write all of it yourself.
#
# **Write** `conditional_norm` from means, variances and one matrix product, without a normalisation of PyTorch or of
# `course_lib.layers`.
#
# **Expected.** Two pictures of one channel and two pixels, 1 3 and 5 7, have the mean 4 and the variance 5. If all
# weights are 0 they become -1.342, -0.447 and 0.447, 1.342. If the second caption has $\gamma = 1$ and $\beta = 10$,
# the second picture becomes 10.894, 12.683.
#
# <details><summary>Hint 1: whose mean?</summary>
#
# One for each channel, over all pictures and all places: `mean((0, 2, 3), keepdim=True)` has the shape (1, C, 1, 1).
# The variance is the mean of the squared differences from it.
#
# </details>
#
# <details><summary>Hint 2: from the caption</summary>
#
# `captions @ weight.T` is (B, 2C). Cut it in two halves with `chunk`; the first is gamma.
#
# </details>
#
# <details><summary>Hint 3: shapes</summary>
#
# Gamma (B, C) has to meet pictures (B, C, H, W). Broadcasting compares from the right; give gamma two more dimensions,
# `[:, :, None, None]`. The gain is `1 + gamma`.
#
# </details>


# %% tags=["solve:conditional-norm"]
def conditional_norm(images: Tensor, captions: Tensor, weight: Tensor, eps: float = 1e-5) -> Tensor:
    """Batch normalisation, as in training, whose scale and shift are read from captions.

    Args:
        images: (B, C, H, W).
        captions: (B, E), an embedding for each picture.
        weight: (2C, E): the first C rows give gamma, the last C give beta.
        eps: is added to the variance.
    Returns:
        (B, C, H, W): (1 + gamma) * normalised + beta. Normalised means: minus the channel's mean, divided by the root of
        its variance plus eps, both over all pictures and places (n in the denominator, not n - 1).
    """
    ### BEGIN SOLUTION
    mean = images.mean((0, 2, 3), keepdim=True)  # (1, C, 1, 1)
    variance = (images - mean).square().mean((0, 2, 3), keepdim=True)
    normalised = (images - mean) / torch.sqrt(variance + eps)
    gamma, beta = (captions @ weight.T)[:, :, None, None].chunk(2, dim=1)  # each (B, C, 1, 1)
    return (1 + gamma) * normalised + beta
    ### END SOLUTION


# %% tags=["check:conditional-norm:4"]
check_conditional_norm(conditional_norm)
### BEGIN HIDDEN TESTS
check_conditional_norm(conditional_norm, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Take mean and variance of each picture alone, and gamma and beta from *another picture's* mean and
# deviation in each channel: that is *adaptive instance normalisation* (Huang and Belongie, 2017), which paints one
# picture in the colours of another. Try it on the raw pixels of two pictures of lesson 02.
#
# ## 5 In your own words: a grid in the sky
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# The last layer of a friend's generator is a transposed convolution with kernel 5 and stride 2. Her pictures have a fine
# grid, most visible in the even blue of the sky. In six sentences or fewer:
#
# 1. Where does the grid come from? Say how many coats of paint the pixels in the middle get.
# 2. She takes kernel 4 instead. Which cause of the grid is gone, and why can a grid remain all the same?
# 3. What would you put in place of the layer, why is that even, and what does it cost?

# %% [markdown] tags=["explain:checkerboard:3"]
# <!-- BEGIN SOLUTION -->
# 1. The paintings overlap unequally: 5 is no multiple of 2, so along a side pixels get 3 and 2 coats in turn, and in a
#    picture 9, 6, 6 and 4. In an even region that pattern is not covered by anything else (1 point).
# 2. Now all pixels in the middle get 2 x 2 = 4 coats. But neighbours get them from *different* weights of the kernel;
#    unless the four sets of weights have equal sums, an even input still becomes a pattern (1 point).
# 3. Enlarge with nearest neighbours, then an ordinary convolution: every pixel is made with the same weights, so an even
#    input stays even (but for the border). It multiplies more: 9 weights for each output number with kernel 3, instead
#    of 4 with kernel 4 and stride 2 (1 point).
# <!-- END SOLUTION -->
