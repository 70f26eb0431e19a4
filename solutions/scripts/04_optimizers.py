# %% [markdown]
# # Exercises 04 · Optimisers
#
# Five exercises to lesson 04, 75 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | A heavy ball | ★☆☆☆☆ | 10 | 2 |
# | 2 | A step of Adam | ★★★☆☆ | 20 | 4 |
# | 3 | Find the bug: a batch in pieces | ★★☆☆☆ | 15 | 3 |
# | 4 | An average without a past | ★★★☆☆ | 20 | 3 |
# | 5 | In your own words: three trainings that go wrong | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from course_lib.checks.optim import (
    check_adam_step,
    check_momentum_step,
    check_running_average,
    check_step_in_pieces,
)
from course_lib.lesson import lines, setup
from course_lib.optim import GradientDescent, Optimizer

device = setup()

# %% [markdown]
# ## 1 A heavy ball
#
# ★☆☆☆☆ · 10 minutes · 2 points
#
# **Why.** The lesson wrote momentum as a class that changes its tensors in place. Written as a function that returns
# new tensors it is easier to test, and you see which two numbers one weight needs. JAX, another library for networks,
# has all its optimisers in this form.
#
# **Write** `momentum_step`. It must leave the tensors it is given as they are.
#
# **Expected.** The slope is 1 at every step, momentum 0.9, lr 0.1, and all begins at 0: the velocities are 1, 1.9 and
# 2.71, the parameters -0.1, -0.29 and -0.561.
#
# <details><summary>Hint 1: two lines</summary>
#
# The two formulas of section 4, one after the other. Give the new velocity a name of its own.
#
# </details>
#
# <details><summary>Hint 2: which velocity</summary>
#
# The weight moves by the *new* velocity: after the first step it is at -0.1 already.
#
# </details>
#
# <details><summary>Hint 3: new tensors</summary>
#
# `velocity *= momentum` changes the tensor of the caller; `momentum * velocity` makes a new one.
#
# </details>


# %% tags=["solve:momentum-step"]
def momentum_step(
    parameter: Tensor, gradient: Tensor, velocity: Tensor, lr: float, momentum: float
) -> tuple[Tensor, Tensor]:
    """One step of gradient descent with momentum.

    Args:
        parameter, gradient, velocity: of one shape; none of them is changed.
        lr: the learning rate.
        momentum: the share of itself that the velocity keeps, in [0, 1).
    Returns:
        The new parameter and the new velocity.
    """
    ### BEGIN SOLUTION
    velocity = momentum * velocity + gradient
    return parameter - lr * velocity, velocity
    ### END SOLUTION


# %% tags=["check:momentum-step:2"]
check_momentum_step(momentum_step)
### BEGIN HIDDEN TESTS
check_momentum_step(momentum_step, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** *Nesterov's* form moves by the slope plus `momentum` times the new velocity, as if it looked one
# step ahead. Write it, compare it with `torch.optim.SGD(..., nesterov=True)`, and race both down the ravine of the
# lesson.
#
# ## 2 A step of Adam
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** Adam trains every network of this course. Its formulas are short and easily written wrong: without the bias
# correction (as a popular article has it), with a step counted from 0, with $\epsilon$ in the wrong place. Nothing
# fails then; the training is only worse, and nobody knows why.
#
# **Write** `adam_step` from the formulas of section 5. It returns new tensors and changes none.
#
# **Expected.** The first step from 0 with lr 0.1 and the usual betas: for the slopes 1000, 0.5 and 0 the parameters are
# -0.1, -0.1 and 0. After a second step with the slope 0.5 (for all three) they are -0.167, -0.2 and -0.0744.
#
# <details><summary>Hint 1: the order</summary>
#
# First renew both means; then correct copies of them; then move. Five lines are enough.
#
# </details>
#
# <details><summary>Hint 2: the correction</summary>
#
# $1 - \beta_1^t$ is `1 - betas[0] ** step`, and `step` is 1 for the first. The means that you *return* are not
# corrected: the next step goes on with them.
#
# </details>
#
# <details><summary>Hint 3: the fraction</summary>
#
# Above the line: the corrected mean. Below: first correct the mean of the squares, then take the root, then add `eps`.
#
# </details>


# %% tags=["solve:adam-step"]
def adam_step(
    parameter: Tensor,
    gradient: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """One step of Adam for one tensor.

    Args:
        parameter, gradient, exp_avg, exp_avg_sq: of one shape; none of them is changed.
        step: 1 for the first.
        lr: about the length of a step.
        betas: the shares of themselves that exp_avg and exp_avg_sq keep, each in [0, 1).
        eps: is added to the root below the line.
    Returns:
        The new parameter, exp_avg and exp_avg_sq.
    """
    ### BEGIN SOLUTION
    exp_avg = betas[0] * exp_avg + (1 - betas[0]) * gradient
    exp_avg_sq = betas[1] * exp_avg_sq + (1 - betas[1]) * gradient**2
    mean = exp_avg / (1 - betas[0] ** step)
    mean_square = exp_avg_sq / (1 - betas[1] ** step)
    return parameter - lr * mean / (mean_square.sqrt() + eps), exp_avg, exp_avg_sq
    ### END SOLUTION


# %% tags=["check:adam-step:4"]
check_adam_step(adam_step)
### BEGIN HIDDEN TESTS
check_adam_step(adam_step, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** *AdamW* (Loshchilov and Hutter 2019) also shrinks every weight by the share lr · `weight_decay` of
# itself before the step, and leaves the slope alone. Add it, and compare with `torch.optim.AdamW`. Why is that not the
# same as adding `weight_decay` times the weight to the slope?
#
# ## 3 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** A batch that is too large for the memory is fed in pieces: `backward` adds to `.grad`, and one step follows
# them all. The result should be the same as if the whole batch had come at once. Many first attempts
# do something else, and train all the same.
#
# Below, the weight shall go to the mean of six numbers. The loss is the mean squared error, so with lr 0.5 a single
# step of gradient descent is enough (lesson 04: one over the curvature). Once the batch comes whole, once in pieces of
# 4 and 2.


# %%
def spoilt_step(weights: Tensor, pieces: Sequence[Tensor], optimizer: Optimizer, loss_of: Callable) -> None:
    for piece in pieces:
        optimizer.zero_grad()
        loss = loss_of(weights, piece)
        loss.backward()
    optimizer.step()


def error(weights: Tensor, piece: Tensor) -> Tensor:
    return ((piece - weights) ** 2).mean()


batch = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 9.0], device=device)
for name, pieces in {"whole": [batch], "in pieces": batch.split(4)}.items():
    w = torch.zeros((), device=device, requires_grad=True)
    spoilt_step(w, pieces, GradientDescent([w], lr=0.5), error)
    print(f"{name}: after one step w = {w.item():.2f}, the mean is {batch.mean():.2f}")

# %% [markdown]
# **Find** what is wrong, and **write** the step as it should be. There is more than one thing to do: the pieces can
# have different sizes.
#
# **Expected.** 4.00 in both cases. (9.50 means that one of two mistakes is left, 4.75 that you are nearly there.)
#
# <details><summary>Hint 1: what is in .grad</summary>
#
# Print `w.grad` after every `backward`. Whole, it is -8. In pieces, the first one leaves -5; what happens to it then?
#
# </details>
#
# <details><summary>Hint 2: one mean from two</summary>
#
# The mean of 1, 2, 3, 4 is 2.5, that of 5 and 9 is 7. How do you get 4 from these, if you know that there are four
# numbers and two?
#
# </details>
#
# <details><summary>Hint 3: what to change in the loss</summary>
#
# Multiply each loss by the share of the batch that its piece is, here 4/6 and 2/6, before `backward`.
#
# </details>


# %% tags=["solve:step-in-pieces"]
def step_in_pieces(
    weights: Tensor,
    pieces: Sequence[Tensor],
    optimizer: Optimizer,
    loss_of: Callable[[Tensor, Tensor], Tensor],
) -> None:
    """One step for a batch that comes in pieces, the same as for the whole batch.

    Args:
        weights: what is trained; `weights.grad` may still hold old slopes.
        pieces: of the batch, perhaps of different sizes; together they are too large for the memory.
        optimizer: of these weights.
        loss_of: (weights, piece) -> (), the mean loss of the piece.
    """
    ### BEGIN SOLUTION
    optimizer.zero_grad()
    whole = sum(len(piece) for piece in pieces)
    for piece in pieces:
        loss = loss_of(weights, piece) * len(piece) / whole
        loss.backward()
    optimizer.step()
    ### END SOLUTION


# %% tags=["check:step-in-pieces:3"]
check_step_in_pieces(step_in_pieces)
### BEGIN HIDDEN TESTS
check_step_in_pieces(step_in_pieces, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** With one kind of layer, pieces are *not* the same as the whole batch: batch normalisation (lesson
# 05) takes mean and variance of the batch it sees. Try it with `torch.nn.BatchNorm1d`. How far are the gradients apart?
#
# ## 4 An average without a past
#
# ★★★☆☆ · 20 minutes · 3 points
#
# **Why.** `WeightAverage` starts as a copy of the untrained weights, and after 100 steps with decay 0.99 it still
# consists of them by 37 %. Adam has the same problem with its means, and a cure. Use it here: start at 0, and correct
# the bias.
#
# **Write** `running_average`, which gives the average after every step.
#
# **Expected.** For the weights 4, 8, 6 (one column) and decay 0.5: 4, 6.667, 6.286. Weights that never change have
# themselves as average, from the first step on.
#
# <details><summary>Hint 1: by hand</summary>
#
# Not corrected: 0.5 · 0 + 0.5 · 4 = 2, then 0.5 · 2 + 0.5 · 8 = 5. The share that is not zeros is 0.5, then 0.75; and 2
# / 0.5 is 4, 5 / 0.75 is 6.667.
#
# </details>
#
# <details><summary>Hint 2: what goes on</summary>
#
# Keep the uncorrected average for the next step, and put the corrected one in a list. The first step has the number 1.
#
# </details>
#
# <details><summary>Hint 3: the frame</summary>
#
# `for step, row in enumerate(weights, start=1):`, and at the end `torch.stack` of the list.
#
# </details>


# %% tags=["solve:running-average"]
def running_average(weights: Tensor, decay: float) -> Tensor:
    """The running average of weights after every step, its bias corrected as in Adam.

    Args:
        weights: (T, N), a row of N weights for each of T steps.
        decay: in [0, 1), the share of itself that the average keeps at each step.
    Returns:
        (T, N), a row of averages for each step; the first is the first row of weights.
    """
    ### BEGIN SOLUTION
    average, rows = torch.zeros_like(weights[0]), []
    for step, row in enumerate(weights, start=1):
        average = decay * average + (1 - decay) * row
        rows.append(average / (1 - decay**step))
    return torch.stack(rows)
    ### END SOLUTION


# %% tags=["check:running-average:3"]
check_running_average(running_average)
### BEGIN HIDDEN TESTS
check_running_average(running_average, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now watch it. A weight starts at 5 and comes, with noise on every slope, to rest near 0. `copied` begins as a copy of
# it, as `WeightAverage` does. Compute your average of the same weights, with the same decay of 0.98.

# %%
weight, path, copied = torch.tensor([5.0]), [], []
for slope_noise in torch.randn(300):
    weight = weight - 0.1 * (weight + 2 * slope_noise)
    path.append(weight)
    copied.append(0.98 * copied[-1] + 0.02 * weight if copied else weight)
path = torch.stack(path)  # (300, 1)

# %% tags=["solve:draw-averages"]
### BEGIN SOLUTION
yours = running_average(path, 0.98)
### END SOLUTION
lines(
    range(300),
    {"weight": path[:, 0], "copied at the start": torch.cat(copied), "yours": yours[:, 0]},
    "Two averages of one weight, decay 0.98",
    ("step", "value"),
    alt="A noisy weight falls from 5 to around 0 in 30 steps. Both averages follow late: the one that began as a copy "
    "falls slowly and is near 0 after about 200 steps, yours after 75.",
)

# %% [markdown]
# **Going further.** Two averages with different decays, kept during a training, are enough to compute the average with
# *any* decay afterwards (Karras and others 2024, *post-hoc EMA*, arXiv:2312.02696). Read section 3 and try it on
# `path`.
#
# ## 5 In your own words: three trainings that go wrong
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# Three people descend the ravine of the lesson, $(x^2 + 25\,y^2) / 2$, by plain gradient descent, a hundred steps each.
# All three are unhappy with their curve.


# %%
def descend(lr: float, clear: bool = True) -> list[float]:
    point, losses = torch.tensor([-2.0, 1.0], requires_grad=True), []
    optimizer = GradientDescent([point], lr)
    for _ in range(100):
        if clear:
            optimizer.zero_grad()
        loss = (point[0] ** 2 + 25 * point[1] ** 2) / 2
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


curves = {
    "A, lr 0.003": descend(0.003),
    "B, lr 0.081": descend(0.081),
    "C, lr 0.02": descend(0.02, clear=False),
}
lines(
    range(100),
    curves,
    "Three unhappy trainings",
    ("step", "loss"),
    alt="The loss on a logarithmic axis over 100 steps, all from 14.5. A falls to 2 within 25 steps, then very slowly to "
    "1.1. B rises in a straight line to about 1,500. C swings between about 0.1 and 16 and does not calm down.",
    yscale="log",
)

# %% [markdown]
# For A, B and C, in two sentences each: what is wrong, and which numbers or which feature of the curve tell you so?
# What should they change? (A has a fast part and a slow part; explain both.)

# %% [markdown] tags=["explain:three-curves:3"]
# <!-- BEGIN SOLUTION -->
# - **A**: the rate is too small. Across the ravine (curvature 25) a step takes 7.5 % off the distance, so the wall is
#   left quickly; along the floor (curvature 1) it takes only 0.3 %. It is not at the bottom, which has the loss 0: use
#   a larger lr, up to 2/26 = 0.077, or momentum (1 point).
# - **B**: the rate is too large. The limit is two over the highest curvature, 2/25 = 0.08; beyond it every step makes y
#   larger, by the factor |1 - 0.081 · 25| = 1.025. The straight rise on a logarithmic axis says the same: a constant
#   factor. Use an lr below 0.08 (1 point).
# - **C**: `zero_grad` is forgotten, so all old slopes keep pushing, which is momentum 1. The rate 0.02 is fine, plain
#   descent would only fall with it; a loss that swings for ever and neither falls nor grows is the sign. Clear the
#   slopes before each `backward` (1 point).
# <!-- END SOLUTION -->
