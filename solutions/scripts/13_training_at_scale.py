# %% [markdown]
# # Exercises 13 · Training at scale
#
# Five exercises to lesson 13, 95 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | How much work is a layer? | ★★☆☆☆ | 15 | 2 |
# | 2 | A batch that does not fit | ★★★☆☆ | 20 | 4 |
# | 3 | Statistics from parts | ★★★☆☆ | 25 | 4 |
# | 4 | Find the bug: processes that disagree | ★★★★☆ | 25 | 4 |
# | 5 | In your own words: three programs under a roof | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks.scale import (
    check_combined_statistics,
    check_convolution_flops,
    check_gradient_in_pieces,
    check_shared_gradient,
)
from course_lib.lesson import setup, table

device = setup()

# %% [markdown]
# ## 1 How much work is a layer?
#
# ★★☆☆☆ · 15 minutes · 2 points
#
# **Why.** Counting comes before measuring: whoever knows how many operations a step has can say whether it is slow. The
# lesson counted one layer's pass by hand. Here you count any layer, with its slopes.
#
# **Write** `convolution_flops`: the FLOP of a square convolution in one training step, the pass and the slopes. A
# multiplication and an addition are two. The bias is left out. The slopes of the weights cost as much as the pass, and
# so do the slopes of the input, *if* someone needs them. In front of a network's first layer nobody does.
#
# **Expected.** 48 pictures, 32 to 64 channels, 16 x 16 pixels, kernel 4, stride 2, padding 1: 603,979,776, or 402,653,184
# if it is the first layer.
#
# <details><summary>Hint 1: how many numbers come out</summary>
#
# A window fits $\lfloor (\mathrm{size} + 2\,\mathrm{padding} - \mathrm{kernel}) / \mathrm{stride} \rfloor + 1$ times
# into a row (lesson 05). In Python, `//` divides and rounds down.
#
# </details>
#
# <details><summary>Hint 2: what each of them costs</summary>
#
# It is a sum of products: one for each input channel and each place of the window.
#
# </details>
#
# <details><summary>Hint 3: with the slopes</summary>
#
# The pass twice for a first layer (pass, weights), three times for any other (pass, weights, input).
#
# </details>


# %% tags=["solve:convolution-flops"]
def convolution_flops(
    batch: int,
    channels: int,
    out_channels: int,
    size: int,
    kernel: int,
    stride: int,
    padding: int,
    first: bool,
) -> int:
    """FLOP of a convolution in one training step.

    Args:
        batch: pictures; channels, out_channels: that go in and come out; size: height and width of what goes in.
        kernel, stride, padding: the same in both directions.
        first: whether it is the first layer of its network, whose input needs no slope.
    Returns:
        of the pass and of all slopes that are needed, without the bias.
    """
    ### BEGIN SOLUTION
    out_size = (size + 2 * padding - kernel) // stride + 1
    numbers = batch * out_channels * out_size**2
    return (2 if first else 3) * 2 * numbers * channels * kernel**2
    ### END SOLUTION


# %% tags=["check:convolution-flops:2"]
check_convolution_flops(convolution_flops)
### BEGIN HIDDEN TESTS
check_convolution_flops(convolution_flops, seed=101)
### END HIDDEN TESTS

# %% [markdown]
# Put your function to use: the three layers of the discriminator of `shapes-32` have 3, 32, 64 and 128 channels, and each
# halves a picture of 32 pixels with the kernel 4, stride 2, padding 1. Which of them has the most work? `shares` holds the
# three shares in percent, for a turn of D, in which the first layer's input needs no slope.

# %% tags=["solve:layer-shares"]
### BEGIN SOLUTION
widths = (3, 32, 64, 128)
flops = [convolution_flops(48, widths[i], widths[i + 1], 32 // 2**i, 4, 2, 1, i == 0) for i in range(3)]
shares = [100 * one / sum(flops) for one in flops]
### END SOLUTION
table([{"layer": layer, "share (%)": share} for layer, share in enumerate(shares)])

# %% [markdown]
# Two of them have equal shares. Why?
#
# **Going further.** Count a whole step of D by hand, the linear layers too, and compare with `step_flops` of
# `course_lib.speed`. How many FLOP does a transposed convolution have? (Which of its pictures plays the part of the
# output?)
#
# ## 2 A batch that does not fit
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** A batch of 384 pictures may be too large for a GPU. *Gradient accumulation* sends it through in pieces and adds up
# the slopes: the result must be that of the whole batch. With a mean over *some* rows, as with the wrong captions of
# lesson 12, that is easily got wrong, and nothing fails.
#
# **Write** `gradient_in_pieces`: the slope of the mean cost of those rows that count.
#
# **Expected.** The cost of row $x$ is $w x$, so its slope is $x$. Rows 1, 2, 3, 4, 5, of which 1, 2 and 5 count: in pieces of
# 2, or of any other size, the slope is (1 + 2 + 5) / 3 = 2.667. If no row counts, it is 0.
#
# <details><summary>Hint 1: what can be added</summary>
#
# Sums can be added, means cannot. Which sum does each piece give, and which number divides them all in the end?
#
# </details>
#
# <details><summary>Hint 2: one piece</summary>
#
# `cost(weight, rows[start : start + size])` gives the costs of a piece. Multiply by `counts` of the same rows and take the
# sum; `torch.autograd.grad(sum, weight)[0]` is its slope. A slice that reaches beyond the end is only shorter.
#
# </details>
#
# <details><summary>Hint 3: the division</summary>
#
# By how many rows count in the *whole* batch, `counts.sum()`, but at least by 1.
#
# </details>


# %% tags=["solve:gradient-in-pieces"]
def gradient_in_pieces(
    cost: Callable[[Tensor, Tensor], Tensor], weight: Tensor, rows: Tensor, counts: Tensor, size: int
) -> Tensor:
    """The slope of the mean cost of the rows that count, without ever computing with more than `size` rows.

    Args:
        cost: cost(weight, rows) -> one number for each row; takes at most `size` rows.
        weight: any shape, a leaf with requires_grad.
        rows: (B, ...).
        counts: (B,) bool.
        size: rows of a piece; the last one may have fewer.
    Returns:
        the shape of weight; zeros if no row counts.
    """
    ### BEGIN SOLUTION
    total = torch.zeros_like(weight)
    for start in range(0, len(rows), size):
        piece = slice(start, start + size)
        counted = (cost(weight, rows[piece]) * counts[piece]).sum()
        total = total + torch.autograd.grad(counted, weight)[0]
    return total / counts.sum().clamp(min=1)
    ### END SOLUTION


# %% tags=["check:gradient-in-pieces:4"]
check_gradient_in_pieces(gradient_in_pieces)
### BEGIN HIDDEN TESTS
check_gradient_in_pieces(gradient_in_pieces, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Which parts of the lesson's GAN can *not* be sent through in pieces like this? Go through the losses of
# `TrainConfig` and the layers of G. For one of them, find a way, and say what it costs.
#
# ## 3 Statistics from parts
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** The lesson's synchronised batch normalisation needs two messages: first the mean, then the variance around it.
# Chan, Golub and LeVeque (1979) need one: each process sends how many rows it has, their mean and their variance, and these
# three are enough.
#
# **Write** `combined_statistics`. Variances here divide by the number of rows, not by one less. Shares may be of unequal
# size, and a process may have no row at all; it then sends zeros.
#
# **Expected.** The lesson's four pixels: a process with 1 and 3 sends count 2, mean 2, variance 1; the other, with 9 and
# 11, sends 2, 10, 1. Together the mean is 6 and the variance 17, of which 16 come from the distance of the means.
#
# <details><summary>Hint 1: the mean</summary>
#
# Count times mean is a process's sum. Add up the sums, divide by all rows. `counts[:, None]` stands beside (P, C).
#
# </details>
#
# <details><summary>Hint 2: the variance</summary>
#
# Around the *common* mean, a process's mean square is its own variance plus the square of the distance between the two
# means. Weigh it with the count, add up, divide.
#
# </details>
#
# <details><summary>Hint 3: the other way, and why not</summary>
#
# Mean of the squares minus square of the mean is the same on paper. In float32, with a mean of 1000, both are near
# 1,000,000, where numbers are 0.06 apart: a variance of 0.01 is lost.
#
# </details>


# %% tags=["solve:combined-statistics"]
def combined_statistics(counts: Tensor, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of all rows from those of each process.

    Args:
        counts: (P,) int64, rows of each process; at least one is above 0.
        means, variances: (P, C) float32, of each process and channel; zeros where a process has no rows.
    Returns:
        mean (C,) and variance (C,) of all rows together.
    """
    ### BEGIN SOLUTION
    share = (counts / counts.sum())[:, None]  # (P, 1)
    mean = (share * means).sum(0)
    return mean, (share * (variances + (means - mean) ** 2)).sum(0)
    ### END SOLUTION


# %% tags=["check:combined-statistics:4"]
check_combined_statistics(combined_statistics)
### BEGIN HIDDEN TESTS
check_combined_statistics(combined_statistics, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Write a synchronised batch normalisation that sends one message, and prove that slopes go back
# through it rightly: compare it, as the lesson does, with one process in float64. Which of the two is faster with two
# processes on your machine?
#
# ## 4 Find the bug
#
# ★★★★☆ · 25 minutes · 4 points
#
# **Why.** Each process of lesson 13 knows the outputs of all rows, computes the loss of the whole batch, and lets slopes
# through its own rows alone. The function below plays all processes in one program. It was written in a hurry.


# %%
def careless_gradient(
    network: Callable, weight: Tensor, rows: Tensor, loss_of: Callable, processes: int
) -> Tensor:
    slopes = []
    for rank in range(processes):
        outputs = [network(weight, rows[other::processes]) for other in range(processes)]
        seen = [output if other == rank else output.detach() for other, output in enumerate(outputs)]
        slopes.append(torch.autograd.grad(loss_of(torch.cat(seen)), weight)[0])
    return sum(slopes) / processes


def try_it(gradient: Callable) -> None:
    weight = torch.tensor([[1.0, -1.0]], requires_grad=True)
    pictures = torch.arange(8.0)[:, None]  # (8, 1)
    captions = 3 * pictures  # the caption of each picture, in the same order
    loss_of = lambda drawn: (drawn - captions).square().mean() + (drawn[1:] * drawn[:-1]).mean()  # noqa: E731
    told = [
        gradient(lambda w, x: x @ w, weight, pictures, loss_of, processes)[0].tolist()
        for processes in (1, 2, 4)
    ]
    table(
        [
            {"processes": n, "slope": str([round(x, 3) for x in one])}
            for n, one in zip((1, 2, 4), told, strict=True)
        ]
    )


try_it(careless_gradient)

# %% [markdown]
# One process has the right slope; two and four should have the same. Two things are wrong.
#
# **Find** both, and **write** `shared_gradient` without them. A process may send only its own rows through the network.
#
# **Expected.** `try_it` shows `[-19.0, -86.0]` three times.
#
# <details><summary>Hint 1: print the order</summary>
#
# With two processes, `rows[0::2]` are rows 0, 2, 4, 6 and `rows[1::2]` are 1, 3, 5, 7. In which order does `torch.cat` put
# them, and in which order are the captions?
#
# </details>
#
# <details><summary>Hint 2: rows in blocks</summary>
#
# The lesson's `World.own` gives each process a block of neighbours. `rows.chunk(processes)` does so too.
#
# </details>
#
# <details><summary>Hint 3: what one process's slope is</summary>
#
# The loss is the mean over *all* rows, and each process finds the part of its slope that goes through its own rows. What
# does one do with the parts of a whole?
#
# </details>


# %% tags=["solve:shared-gradient"]
def shared_gradient(
    network: Callable[[Tensor, Tensor], Tensor],
    weight: Tensor,
    rows: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    processes: int,
) -> Tensor:
    """The slope of a loss of the whole batch, found by several processes.

    Args:
        network: network(weight, rows) -> outputs, one for each row; takes at most B / processes rows.
        weight: any shape, a leaf with requires_grad.
        rows: (B, ...), B a multiple of processes.
        loss_of: loss_of(outputs of all rows, in their order) -> ().
        processes: 1 or more.
    Returns:
        the shape of weight; the same for any number of processes.
    """
    ### BEGIN SOLUTION
    outputs = [network(weight, part) for part in rows.chunk(processes)]
    slopes = []
    for rank in range(processes):
        seen = [output if other == rank else output.detach() for other, output in enumerate(outputs)]
        slopes.append(torch.autograd.grad(loss_of(torch.cat(seen)), weight)[0])
    return sum(slopes)
    ### END SOLUTION


# %% tags=["check:shared-gradient:4"]
check_shared_gradient(shared_gradient)
### BEGIN HIDDEN TESTS
check_shared_gradient(shared_gradient, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now try yours.

# %% tags=["solve:try-it"]
### BEGIN SOLUTION
try_it(shared_gradient)
### END SOLUTION

# %% [markdown]
# **Going further.** How do eight machines add up their slopes? If all send to one, that one is a bottleneck. In a *ring
# all-reduce* each cuts its slopes into eight parts and passes one part at a time to its right neighbour. Play it with eight
# tensors in one program: after how many rounds has each the whole sum, and how many numbers has each sent?
#
# ## 5 In your own words: three programs under a roof
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# A GPU multiplies and adds at 100 TFLOP/s and moves 1 TB a second. Three programs run on it:
#
# | program | intensity (FLOP for each byte) | reached (TFLOP/s) |
# |---|---|---|
# | A | 5 | 4 |
# | B | 200 | 85 |
# | C | 200 | 8 |
#
# For each: how many TFLOP/s does the roofline allow, and what would you try next? One or two sentences for each.

# %% [markdown] tags=["explain:three-programs:3"]
# <!-- BEGIN SOLUTION -->
# The ridge is at 100 FLOP for each byte.
#
# - A: $5 \cdot 1 = 5$ TFLOP/s, so 4 is near the roof; memory is the limit. Fewer bytes: fuse operations, take 16 bits, use
#   each byte more often (1 point).
# - B: right of the ridge, 100 TFLOP/s; 85 is near it. Little can be gained but by a format or a machine that multiplies
#   faster, or by less work (1 point).
# - C: 100 TFLOP/s are allowed and 8 are reached: neither multiplying nor memory is the limit. Look for time in which the
#   GPU waits: for calls (CUDA graph, larger batch), for data, for other processes (1 point).
# <!-- END SOLUTION -->
