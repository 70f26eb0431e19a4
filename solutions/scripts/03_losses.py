# %% [markdown]
# # Exercises 03 · Losses
#
# Five exercises to lesson 03, 70 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | The mean squared error | ★☆☆☆☆ | 10 | 2 |
# | 2 | Cross-entropy of logits | ★★★☆☆ | 20 | 4 |
# | 3 | Find the bug: a discriminator that learns backwards | ★★☆☆☆ | 10 | 3 |
# | 4 | A generator that does not starve | ★★☆☆☆ | 10 | 3 |
# | 5 | In your own words: why not MSE? | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import torch
from torch import Tensor

from course_lib.checks.losses import (
    check_bce_with_logits,
    check_discriminator_loss,
    check_generator_loss,
    check_mse_loss,
)
from course_lib.lesson import lines, setup
from course_lib.losses import require_same_shape, softplus

device = setup()

# %% [markdown]
# ## 1 The mean squared error
#
# ★☆☆☆☆ · 10 minutes · 2 points
#
# **Why.** Every picture that is to be drawn *again* (an autoencoder in lesson 06, the VAE in 09) is judged by it. Two
# mistakes are common: dividing by the wrong number, and letting broadcasting compare every pixel with every other.
#
# **Write** `mse_loss` so that it works for tensors of any shape and refuses two shapes that differ.
#
# **Expected.** For the four pixels of the lesson 1.125. The column against the row: a `ValueError` that names both
# shapes.
#
# <details><summary>Hint 1: what to divide by</summary>
#
# By the number of all numbers, whatever dimension they stand in. A batch of 4 pictures of 3 x 2 x 2 has 48.
#
# </details>
#
# <details><summary>Hint 2: which operations</summary>
#
# Subtract, square, and one method of tensors that adds everything up and divides.
#
# </details>
#
# <details><summary>Hint 3: the refusal</summary>
#
# `require_same_shape`, imported above, raises the error for you. Call it first.
#
# </details>


# %% tags=["solve:mse-loss"]
def mse_loss(input: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements.

    Args:
        input, target: two tensors of one shape.
    Returns:
        (), one number.
    Raises:
        ValueError: the shapes differ.
    """
    ### BEGIN SOLUTION
    require_same_shape(input, target)
    return ((input - target) ** 2).mean()
    ### END SOLUTION


# %% tags=["check:mse-loss:2"]
check_mse_loss(mse_loss)
### BEGIN HIDDEN TESTS
check_mse_loss(mse_loss, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** The *Huber loss* is squared for errors below 1 and grows like a straight line beyond. Write it with
# `torch.where`, compare it with `torch.nn.functional.huber_loss`, and draw both slopes. Which pixels does it forgive?
#
# ## 2 Cross-entropy of logits
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** Every discriminator of this course is trained by this function. A wrong slope at one logit is enough to stop
# a training: at 20, where the sigmoid has forgotten everything, or at 0, where a fresh network begins.
#
# **Write** `bce_with_logits` from `softplus` alone; lesson 03 wrote `softplus` so that value and slope are right
# everywhere. Do not compute a probability on the way.
#
# **Expected.** The same numbers as `torch.nn.functional.binary_cross_entropy_with_logits`: 0.6931 for the logit 0, 100
# for the logit 100 with the label 0, 0 for the same logit with the label 1.
#
# <details><summary>Hint 1: two costs</summary>
#
# If the label is 1 the cost is $-\log \sigma(l)$, if it is 0 the cost is $-\log(1 - \sigma(l))$. Which of the two is
# `softplus(l)`?
#
# </details>
#
# <details><summary>Hint 2: which is which</summary>
#
# A large logit says "real". With the label 0 that is a mistake and costs much: `softplus(l)`. With the label 1 it costs
# nearly nothing: `softplus(-l)`.
#
# </details>
#
# <details><summary>Hint 3: labels between</summary>
#
# A label of 0.9 pays nine tenths of the one cost and one tenth of the other. Then take the mean over everything.
#
# </details>


# %% tags=["solve:bce-with-logits"]
def bce_with_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of raw scores.

    Args:
        logits: any shape and any real numbers; the probability of "real" is sigmoid(logit).
        targets: the same shape, each in [0, 1]; 1 means real.
    Returns:
        () in nats, finite for every finite logit.
    """
    ### BEGIN SOLUTION
    return (targets * softplus(-logits) + (1 - targets) * softplus(logits)).mean()
    ### END SOLUTION


# %% tags=["check:bce-with-logits:4"]
check_bce_with_logits(bce_with_logits)
### BEGIN HIDDEN TESTS
check_bce_with_logits(bce_with_logits, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Some trainings give real pictures the label 0.9 instead of 1 (*one-sided label smoothing*, Salimans
# and others, 2016). At which logit has the cost of a real picture its minimum then? Find it by hand, then by your
# function.
#
# ## 3 Find the bug
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# **Why.** Swapped labels are the most expensive mistake in this course: nothing fails, the losses look healthy, and the
# pictures never come. The cell below shows one.
#
# A discriminator gave five real pictures logits near 3 (it is right, and rather sure) and five fakes logits near -3.


# %%
def swapped_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    real = softplus(real_logits).mean()
    fake = softplus(-fake_logits).mean()
    return real + fake


right = swapped_discriminator_loss(torch.full((5,), 3.0), torch.full((5,), -3.0))
mistaken = swapped_discriminator_loss(torch.full((5,), -3.0), torch.full((5,), 3.0))
print(f"a discriminator that is right pays {right:.3f}, one that is mistaken {mistaken:.3f}")

# %% [markdown]
# **Find** what is wrong, and **write** the loss as it should be.
#
# **Expected.** The discriminator that is right pays 0.097, the mistaken one 6.097, and one that answers 0 to everything
# pays $2 \log 2 = 1.386$.
#
# <details><summary>Hint 1: read the numbers</summary>
#
# Whoever is right should pay less. Here it pays sixty times as much.
#
# </details>
#
# <details><summary>Hint 2: one call at a time</summary>
#
# `softplus(x)` is small for negative `x`. For which logits of real pictures should the cost be small?
#
# </details>
#
# <details><summary>Hint 3: how many characters</summary>
#
# A minus sign stands in the wrong one of two places.
#
# </details>


# %% tags=["solve:discriminator-loss"]
def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """What the discriminator minimises: call real pictures real and fakes fake.

    Args:
        real_logits: (B,) of real pictures.
        fake_logits: (B,) of generated pictures.
    Returns:
        () in nats: the mean cost of real pictures plus the mean cost of fakes.
    """
    ### BEGIN SOLUTION
    return softplus(-real_logits).mean() + softplus(fake_logits).mean()
    ### END SOLUTION


# %% tags=["check:discriminator-loss:3"]
check_discriminator_loss(discriminator_loss)
### BEGIN HIDDEN TESTS
check_discriminator_loss(discriminator_loss, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# ## 4 A generator that does not starve
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# **Why.** Early in a training the discriminator finds out every fake. A generator that minimises $\log(1 - p)$ gets
# nearly no slope just then; with $-\log p$ it gets the full one.
#
# **Write** `generator_loss`, which minimises $-\log p$ where $p = \sigma(l)$ is the probability that a fake is real. It
# must keep its slope at a logit of -100 too.
#
# **Expected.** 0.6931 for the logit 0; 100 for the logit -100, with a slope of -1.
#
# <details><summary>Hint 1: a label</summary>
#
# The generator wishes that its fakes had the label 1. Which cost of exercise 2 is that?
#
# </details>
#
# <details><summary>Hint 2: one function</summary>
#
# `softplus` of something, and the mean. No logarithm and no sigmoid.
#
# </details>
#
# <details><summary>Hint 3: the sign</summary>
#
# The cost must fall when the logit rises. `softplus` rises; so turn its argument round.
#
# </details>


# %% tags=["solve:generator-loss"]
def generator_loss(fake_logits: Tensor) -> Tensor:
    """The non-saturating loss of the generator.

    Args:
        fake_logits: (B,) what the discriminator says of generated pictures.
    Returns:
        () in nats, the mean of -log sigmoid(logit).
    """
    ### BEGIN SOLUTION
    return softplus(-fake_logits).mean()
    ### END SOLUTION


# %% tags=["check:generator-loss:3"]
check_generator_loss(generator_loss)
### BEGIN HIDDEN TESTS
check_generator_loss(generator_loss, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now draw both slopes yourself: that of your loss, and that of $\log(1 - p)$, which is `-softplus(logit)`.

# %% tags=["solve:draw-slopes"]
logit = torch.linspace(-8, 8, 161)
### BEGIN SOLUTION
yours = -torch.sigmoid(-logit)
saturating = -torch.sigmoid(logit)
### END SOLUTION
lines(
    logit,
    {"-log p (yours)": yours, "log(1 - p), saturating": saturating},
    "How strongly a fake pulls at the generator",
    ("logit of a fake (left: found out)", "slope of the loss"),
    alt="Two slopes against the logit from -8 to 8. That of -log p rises from -1 to 0, that of log(1 - p) falls from "
    "0 to -1: the first is full where fakes are found out, the second is zero there.",
)

# %% [markdown]
# **Going further.** *Hinge* and *relativistic* losses are in `course_lib.losses`. Add them to the figure. Which of them
# stop pulling at all, and where?
#
# ## 5 In your own words: why not MSE?
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# A friend wants to train a text-to-image generator like this: take a caption and *its* picture from the data, draw a
# picture from the caption and noise, and minimise the MSE between the two. In five sentences or fewer:
#
# 1. What will the pictures for "a square" look like, if half of the squares in the data are black and half are white?
# 2. Why can more training not help?
# 3. Name a task in which the MSE *is* the right loss, and say what is different there.

# %% [markdown] tags=["explain:why-not-mse:3"]
# <!-- BEGIN SOLUTION -->
# 1. Grey squares, for every noise (1 point).
# 2. For each caption the MSE is smallest at the mean of all pictures that have this caption. The training is not stuck,
#    it has arrived: the blurred mean is what it was asked for, and the noise is of no use to it (1 point).
# 3. Drawing a *given* picture again (an autoencoder, removing noise, enlarging): there is one right answer for each
#    input, so the mean of all right answers is the answer itself (1 point).
# <!-- END SOLUTION -->
