# %% [markdown]
# # Exercises 12 · Training text to image
#
# Five exercises to lesson 12, 95 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | A learning rate for every step | ★★☆☆☆ | 15 | 2 |
# | 2 | An average that begins young | ★★☆☆☆ | 20 | 3 |
# | 3 | A lazy penalty | ★★★☆☆ | 20 | 4 |
# | 4 | Find the bug: a run that does not go on | ★★★★☆ | 30 | 4 |
# | 5 | In your own words: what happened at round 300? | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.batches import step_random
from course_lib.checks.training import (
    check_lazy_r1,
    check_learning_rate_at,
    check_run_until,
    check_update_average,
)
from course_lib.gan import MLPDiscriminator, MLPGenerator, ring_centers
from course_lib.layers import Linear
from course_lib.lesson import figure, lines, setup
from course_lib.losses import discriminator_loss, generator_loss
from course_lib.optim import Adam, WeightAverage
from course_lib.training import TrainConfig
from course_lib.training import learning_rate_at as lesson_rate

device = setup()

# %% [markdown]
# ## 1 A learning rate for every step
#
# ★★☆☆☆ · 15 minutes · 2 points
#
# **Why.** The lesson's rate begins at its full height and falls along a line. Many recipes have two more ideas. A
# *warm-up*: the first steps are short, because Adam does not yet know how steep each weight's slope usually is. And a
# fall along *half a cosine*, which has no corner at its beginning and is gentle at its end.
#
# **Write** `learning_rate_at`. Steps are counted from 0.
#
# - In the first `warmup` steps the rate climbs in equal parts: in step 0 it is `peak / warmup`, in step `warmup - 1` it
#   is `peak`.
# - Then it stays at `peak`, until the share `constant` of all steps is over.
# - From there on it is $\frac{\mathrm{peak}}{2} (1 + \cos(\pi p))$, where $p$ goes from 0 to 1: the share of the
#   *remaining* steps that is over. The step after the last one would have the rate 0.
#
# **Expected.** 8 steps, peak 1, warm-up 2, constant 0.5: the rates are 0.5, 1, 1, 1, then 1, 0.854, 0.5, 0.146.
#
# <details><summary>Hint 1: three cases</summary>
#
# `if step < warmup: return ...`, `if step < constant * steps: return ...`, and the rest. Each case returns.
#
# </details>
#
# <details><summary>Hint 2: p by hand</summary>
#
# In the example the fall begins at step 4 and has 4 steps: $p$ is 0, 0.25, 0.5, 0.75.
#
# </details>
#
# <details><summary>Hint 3: no 0 / 0</summary>
#
# Without a warm-up no step is below it, and with `constant=1` no step is left for the fall. If each case divides only
# where it is needed, nothing is ever divided by 0.
#
# </details>


# %% tags=["solve:learning-rate-at"]
def learning_rate_at(step: int, steps: int, peak: float, warmup: int, constant: float) -> float:
    """The learning rate of one step: up, level, and down along half a cosine.

    Args:
        step: 0 to steps - 1.
        steps: of the whole run.
        peak: the highest rate.
        warmup: how many steps climb to it, 0 or more; they lie within the share `constant`.
        constant: in [0, 1], the share of the run that is over when the rate begins to fall.
    Returns:
        above 0.
    """
    ### BEGIN SOLUTION
    begin = constant * steps
    if step < warmup:
        return peak * (step + 1) / warmup
    if step < begin:
        return peak
    return peak * (1 + math.cos(math.pi * (step - begin) / (steps - begin))) / 2
    ### END SOLUTION


# %% tags=["check:learning-rate-at:2"]
check_learning_rate_at(learning_rate_at)
### BEGIN HIDDEN TESTS
check_learning_rate_at(learning_rate_at, seed=101)
### END HIDDEN TESTS

# %% [markdown]
# Draw your rates beside the lesson's. `yours` is a list of all 400, with a warm-up of 20 steps, and with the
# `learning_rate` (the peak) and `constant` of `config`.

# %% tags=["solve:draw-rates"]
config, steps = TrainConfig(steps=400), range(400)
theirs = [lesson_rate(config, step / config.steps) for step in steps]
### BEGIN SOLUTION
yours = [learning_rate_at(step, config.steps, config.learning_rate, 20, config.constant) for step in steps]
### END SOLUTION
lines(
    steps,
    {"lesson": theirs, "yours, warm-up of 20 steps": yours},
    "Two learning rates over a run",
    ("step", "learning rate"),
    alt="Both rates are 0.001 from step 20 to 200; yours climbs to it. Then the lesson's falls in a straight line to a "
    "twentieth; yours falls slowly, then faster, then slowly to 0.",
)

# %% [markdown]
# **Going further.** A run need not have one end. *Cyclical* rates (Loshchilov and Hutter 2017, *SGDR*) fall to 0 and begin
# at the peak again, several times. Write one, and train the lesson's `small_trainer` (section 2) with it. `train` would
# set the lesson's rate before every step; so write the loop yourself, with `trainer.set_learning_rate` and `trainer.step`.
#
# ## 2 An average that begins young
#
# ★★☆☆☆ · 20 minutes · 3 points
#
# **Why.** An average with decay 0.999 still consists of the *untrained* generator by 37 % after 1000 steps. Exercise 4 of
# chapter 04 had one cure; here is another, simpler one: let the average forget quickly at first. With $n$ updates made
# before, it keeps the share
#
# $$\min\left(\mathrm{decay},\ \frac{1 + n}{10 + n}\right)$$
#
# of itself: 0.1 at the first update, 0.5 at the ninth, and never more than `decay`.
#
# **Write** `update_average`, which moves everything that a model consists of: its parameters, and its buffers too, such as
# the running mean and variance of batch normalisation. Buffers of whole numbers count something; they are copied.
#
# **Expected.** A weight of the average is 4, that of the model 10, decay 0.9. With no update before, it becomes 0.1 · 4 +
# 0.9 · 10 = 9.4; with 8 before, 7; with 1000 before, 4.6.
#
# <details><summary>Hint 1: what a model consists of</summary>
#
# `average.parameters()` and `model.parameters()` come in the same order, and so do `buffers()`; `zip` makes pairs.
# `state_dict()` has parameters and buffers together, and its tensors are the model's own.
#
# </details>
#
# <details><summary>Hint 2: change the tensor itself</summary>
#
# After `old = keep * old + ...` the name `old` belongs to a new tensor, and the average is what it was. Methods with an
# underscore change the tensor: `old.copy_(...)`, or `old.lerp_(new, 1 - keep)`.
#
# </details>
#
# <details><summary>Hint 3: two things PyTorch minds</summary>
#
# Put `@torch.no_grad()` above the function, so that the average is no part of the graph. And ask
# `tensor.is_floating_point()`: whole numbers cannot be mixed.
#
# </details>


# %% tags=["solve:update-average"]
def update_average(average: Module, model: Module, decay: float, updates: int) -> None:
    """One update of the running average of a model, which forgets quickly at first.

    Args:
        average: a copy of the model that takes no gradients; is changed in place.
        model: as training has left it; stays as it is.
        decay: in [0, 1], the largest share of itself that the average keeps.
        updates: how many updates were made before this one.
    """
    ### BEGIN SOLUTION
    keep = min(decay, (1 + updates) / (10 + updates))
    with torch.no_grad():
        pairs = zip(average.state_dict().values(), model.state_dict().values(), strict=True)
        for old, new in pairs:
            old.copy_(keep * old + (1 - keep) * new if old.is_floating_point() else new)
    ### END SOLUTION


# %% tags=["check:update-average:3"]
check_update_average(update_average)
### BEGIN HIDDEN TESTS
check_update_average(update_average, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Put your average into the lesson's live run, beside the library's, both with decay 0.99, and draw the
# two curves into its right panel. How far is each behind at step 120? Does yours lose anything at the end?
#
# ## 3 A lazy penalty
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** R1 needs a slope of a slope, a second pass backwards, and makes D's step slower. It changes little from
# step to step, so the library computes it in one step of 16, with 16 times its weight. Here you write both, the penalty
# and its laziness.
#
# **Write** `lazy_r1` without `r1_penalty`. In the steps 0, `every`, 2 · `every`, ... it is
#
# $$\mathrm{every} \cdot \mathrm{weight} \cdot \tfrac{1}{2}\, \mathrm{mean}\; |\nabla_x D(x)|^2$$
#
# with the squared length over all numbers of a picture, and the mean over the pictures. In all other steps it is 0, and D
# is not asked at all. D's weights must get no slopes from the call itself; but the penalty must be one that `backward` can
# take further.
#
# **Expected.** $D(x) = w \cdot x$ has the slope $w$ everywhere. For $w = (3, 4)$, every 16 and weight 0.02 the penalty is
# 16 · 0.02 · 12.5 = 4 in step 32, and 0 in step 33. Its slope by $w$ is 16 · 0.02 · $w$ = (0.96, 1.28).
#
# <details><summary>Hint 1: in which steps</summary>
#
# `step % every` is what is left when `step` is divided by `every`. Where it is not 0, return `torch.zeros(())` before
# anything else.
#
# </details>
#
# <details><summary>Hint 2: a slope by the pictures</summary>
#
# The pictures must ask for slopes *before* D sees them: `images.clone().requires_grad_()`. Then
# `torch.autograd.grad(logits.sum(), images)` returns a tuple with one tensor, of the shape of the pictures. The sum may be
# taken because picture i moves logit i only.
#
# </details>
#
# <details><summary>Hint 3: a slope of the slope</summary>
#
# `create_graph=True` keeps how the slope was computed. Then square it, add up over the numbers of each picture
# (`flatten(1)`), and take the mean.
#
# </details>


# %% tags=["solve:lazy-r1"]
def lazy_r1(D: Callable, images: Tensor, texts: Tensor, step: int, every: int, weight: float) -> Tensor:
    """What R1 adds to the discriminator's loss in this step.

    Args:
        D: D(images, texts) -> logits (B,).
        images: (B, ...), real pictures; texts: (B, E), their captions.
        step: from 0 up.
        every: R1 is computed in one step of so many.
        weight: of R1, if it were computed in every step.
    Returns:
        () which can be differentiated by D's weights; 0 in the steps between.
    """
    ### BEGIN SOLUTION
    if step % every:
        return torch.zeros((), device=images.device)
    seen = images.clone().requires_grad_()
    (slope,) = torch.autograd.grad(D(seen, texts).sum(), seen, create_graph=True)
    return every * weight * slope.flatten(1).square().sum(1).mean() / 2
    ### END SOLUTION


# %% tags=["check:lazy-r1:4"]
check_lazy_r1(lazy_r1)
### BEGIN HIDDEN TESTS
check_lazy_r1(lazy_r1, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** How much time does laziness save? Take the lesson's small trainer and measure 50 steps with
# `r1_every=1` and with 16. Then think about R2, the same penalty on *fakes* (`r2_weight`): what does it add to the rule of
# the lesson's GAN with two weights? Work it out before you run it.
#
# ## 4 Find the bug
#
# ★★★★☆ · 30 minutes · 4 points
#
# **Why.** A run that goes on differently after a break cannot be repeated, and nobody notices: there is no error, and the
# loss looks as before. The lesson pulled the plug with the library's trainer. Here is a smaller one that somebody wrote in
# a hurry. It trains until `steps` steps are done, from the start or from a checkpoint, and returns a checkpoint.


# %%
def careless_run(
    model: Module,
    loss_of: Callable,
    size: int,
    steps: int,
    seed: int,
    checkpoint: dict[str, Any] | None = None,
) -> dict[str, Any]:
    optimizer, random, done = Adam(model.parameters(), lr=0.05), torch.Generator().manual_seed(seed), 0
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        done = checkpoint["steps"]
    for _ in range(done, steps):
        loss = loss_of(model, torch.randint(size, (8,), generator=random))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return {"model": model.state_dict(), "steps": steps}


# %% [markdown]
# `pull_the_plug` tries it on a small task, one linear layer and 64 rows of numbers: once in one go, 40 steps; once with a
# break after 25 steps.


# %%
def new_model(seed: int) -> Module:
    torch.manual_seed(seed)
    return Linear(3, 1)


def pull_the_plug(run: Callable) -> None:
    data, drawn = torch.randn(64, 3, generator=step_random(0, 0)), []

    def loss_of(model: Module, rows: Tensor) -> Tensor:
        drawn.append(rows[:5].tolist())
        return (model(data[rows])[:, 0] - data[rows].prod(1)).square().mean()

    whole, first, second = new_model(0), new_model(0), new_model(1)  # a new program begins with other weights
    run(whole, loss_of, 64, 40, 0)
    checkpoint = run(first, loss_of, 64, 25, 0)
    file = copy.deepcopy(checkpoint)  # as if it were written to a file now
    run(second, loss_of, 64, 40, 0, file)
    print("rows of step 25 in one go:    ", drawn[25])
    print("rows of step 25 after a break:", drawn[40 + 25])
    print("weights in one go:    ", whole.weight.tolist()[0])
    print("weights after a break:", second.weight.tolist()[0])
    file = copy.deepcopy(checkpoint)
    run(first, loss_of, 64, 40, 0, checkpoint)  # no break at all: the same program trains on
    print("the checkpoint of step 25 is what it was:", repr(file) == repr(checkpoint))


pull_the_plug(careless_run)

# %% [markdown]
# Three things are wrong: other rows are drawn, the weights differ for one more reason, and a checkpoint that is kept in
# memory changes while the training goes on.
#
# **Find** all three, and **write** `run_until` without them. Use the library's `Adam`, which has `state_dict` and
# `load_state_dict` as a model has.
#
# **Expected.** `pull_the_plug` prints the same rows and the same weights twice, all digits of them, and `True`. The check
# also looks whether your checkpoint holds nothing but data, and makes two breaks in one run.
#
# <details><summary>Hint 1: the dice</summary>
#
# After a break the generator is seeded again and throws its first numbers again. The lesson's `step_random(seed, step)`
# gives each step dice of its own. Or put the generator's state, `get_state()`, into the checkpoint.
#
# </details>
#
# <details><summary>Hint 2: what training changes</summary>
#
# Weights are changed by a step, and what else? Adam has two running means for each weight, and counts its steps.
#
# </details>
#
# <details><summary>Hint 3: living tensors</summary>
#
# `state_dict` returns the tensors that are trained, not copies of them. `copy.deepcopy` copies a dict with all that is in
# it.
#
# </details>


# %% tags=["solve:run-until"]
def run_until(
    model: Module,
    loss_of: Callable,
    size: int,
    steps: int,
    seed: int,
    checkpoint: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train until `steps` steps are done; a run with breaks ends with the same bits as one without.

    Each step draws 8 rows, whole numbers from 0 to size - 1, and takes one step of Adam with a learning rate of 0.05.

    Args:
        model: is trained; with a checkpoint its own weights play no part.
        loss_of: loss_of(model, rows) -> (), for rows (8,) int64.
        size: how many rows there are.
        steps: in all, those before the checkpoint included.
        seed: of all chance.
        checkpoint: what an earlier call returned, perhaps read from a file; None: from the start.
    Returns:
        a checkpoint: a dict of tensors, numbers, and such dicts, which later training does not change.
    """
    ### BEGIN SOLUTION
    optimizer, done = Adam(model.parameters(), lr=0.05), 0
    if checkpoint is not None:
        model.load_state_dict(checkpoint["model"])
        optimizer.load_state_dict(checkpoint["optimizer"])
        done = checkpoint["steps"]
    for step in range(done, steps):
        loss = loss_of(model, torch.randint(size, (8,), generator=step_random(seed, step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return copy.deepcopy({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "steps": steps})
    ### END SOLUTION


# %% tags=["check:run-until:4"]
check_run_until(run_until)
### BEGIN HIDDEN TESTS
check_run_until(run_until, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now pull the plug on yours.

# %% tags=["solve:pull-the-plug"]
### BEGIN SOLUTION
pull_the_plug(run_until)
### END SOLUTION

# %% [markdown]
# **Going further.** Train on your own pictures: a folder with `metadata.jsonl` (lesson 02), the recipe of the lesson's
# section 7, and `Checkpoints`. Stop it, and go on the next day. Which captions does it draw after an hour that are
# in no file of yours?
#
# ## 5 In your own words: what happened at round 300?
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# The game of lesson 11 again: points in eight heaps, with labels, no wrong captions. A friend stopped at round 300 and
# went on. Her checkpoint held the generator and its average, "because those are what draws". The discriminator and both
# optimisers were made anew.


# %%
def players() -> tuple[Module, Module]:
    return MLPGenerator(2 + 8, 2), MLPDiscriminator(2 + 8)


def optimizers(G: Module, D: Module) -> tuple[Adam, Adam]:
    return Adam(G.parameters(), 2e-3, (0.5, 0.99)), Adam(D.parameters(), 4e-3, (0.5, 0.99))


@torch.no_grad()
def good_points(G: Module) -> float:
    label = torch.arange(8).repeat(50)
    z = torch.randn(400, 2, generator=step_random(1, 0))
    points = G(torch.cat([z, torch.eye(8)[label]], dim=1))
    return 100 * ((points - ring_centers()[label]).norm(dim=1) < 0.3).float().mean().item()


# %%
torch.manual_seed(0)
G, D = players()
G_optimizer, D_optimizer = optimizers(G, D)
average, losses, shares = WeightAverage(G, 0.95), [], []
for number in range(450):
    if number == 300:
        D = players()[1]
        G_optimizer, D_optimizer = optimizers(G, D)
    random = step_random(0, number)
    label, z = torch.randint(8, (128,), generator=random), torch.randn(128, 2, generator=random)
    real, text = ring_centers()[label] + 0.1 * torch.randn(128, 2, generator=random), torch.eye(8)[label]
    fake = G(torch.cat([z, text], dim=1))
    judged = [D(torch.cat([x, text], dim=1)) for x in (real, fake.detach())]
    loss_d = discriminator_loss(*judged)
    D_optimizer.zero_grad(), loss_d.backward(), D_optimizer.step()
    loss_g = generator_loss(D(torch.cat([fake, text], dim=1)))
    G_optimizer.zero_grad(), loss_g.backward(), G_optimizer.step()
    average.update(G)
    losses.append((loss_d.item(), loss_g.item()))
    shares.append((good_points(G), good_points(average.model)))

# %%
alt = """Left: after a bumpy start D's loss lies near 1.39 and G's near 0.69; at round 300 both jump, and 20 rounds later
they are nearly as before. Right: the share of good points rises to nearly 100 percent by round 150. At round 300 that of
the generator falls to 0 and then swings up and down; that of the average dips to 80 at about round 325 and comes back."""
with figure("A run that was stopped at round 300", alt, columns=2, size=(9, 3.6)) as (left, right):
    for axis, curves, names in (
        (left, losses, ("loss of D", "loss of G")),
        (right, shares, ("generator", "averaged generator")),
    ):
        for curve, name, dash in zip(zip(*curves, strict=True), names, ("-", "--"), strict=True):
            axis.plot(curve, dash, label=name, linewidth=1.6)
        axis.axvline(300, color="#555555", linewidth=1, linestyle=":")
        axis.set(xlabel="round")
        axis.legend()
    left.set(ylabel="loss in nats", ylim=(0, 2.5))
    right.set(ylabel="points in the right heap (%)")

# %% [markdown]
# In six sentences or fewer:
#
# 1. Soon after round 300 the losses look nearly as they did before the break. Why can they not show how bad the points
#    are?
# 2. All weights of G were loaded. Why do its points get worse all the same?
# 3. The averaged generator falls later and less, and is good again while the generator still swings. Why? And which of
#    the four curves would you have watched in order to notice the mistake?

# %% [markdown] tags=["explain:training-curve:3"]
# <!-- BEGIN SOLUTION -->
# 1. Losses tell how the players stand against *each other*. 1.39 and 0.69 (2 log 2 and log 2) belong to a D that cannot
#    tell real from drawn: because G draws perfectly, as before the break, or because D knows too little, as after it. In
#    both cases its logits are near 0 (1 point).
# 2. G learns from D's slope alone, and the new D has random weights: its slopes point anywhere, and G follows them away
#    from the data. The fresh Adam makes it worse, because its first steps have full length in every direction. Only as D
#    learns again which points are real does it lead G back (1 point).
# 3. The average is over about 20 rounds: at first nearly all of it is from before the break, so the bad rounds come in
#    late. Later the generator circles around the data, and the mean of a circle lies in its middle. To be watched: the
#    share of good points of the generator itself, an exam and no loss. The averaged one shows the mistake too, but late
#    and weakly (1 point).
# <!-- END SOLUTION -->
