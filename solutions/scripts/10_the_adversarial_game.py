# %% [markdown]
# # Exercises 10 · The adversarial game
#
# Five exercises to lesson 10, 95 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | How far apart? | ★★☆☆☆ | 15 | 3 |
# | 2 | Which of the two is more real? | ★★☆☆☆ | 15 | 3 |
# | 3 | Find the bug: the forger that stands still | ★★★☆☆ | 25 | 4 |
# | 4 | Calm at the data | ★★★★☆ | 25 | 4 |
# | 5 | In your own words: four more patients | ★★☆☆☆ | 15 | 4 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.checks.gan import (
    check_gradient_penalty,
    check_jensen_shannon,
    check_play_round,
    check_relativistic_losses,
)
from course_lib.gan import AdversarialStep, MLPDiscriminator, MLPGenerator, mixture_1d
from course_lib.lesson import figure, lines, setup, table
from course_lib.losses import discriminator_loss, generator_loss, softplus
from course_lib.optim import Adam, Optimizer

device = setup()

# %% [markdown]
# ## 1 How far apart?
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** The best discriminator measures the Jensen-Shannon divergence between data and forgeries. In the lesson every
# letter occurred on both sides. In real trainings hardly anything does: no forged picture is ever exactly a real one.
# What does the divergence say then?
#
# **Write** `jensen_shannon` for the shares of K kinds, some of which may be 0. A kind that never occurs on one side adds
# nothing to that side's sum.
#
# **Expected.** The letters of the lesson, 0.5, 0.25, 0.25 and 0.25, 0.25, 0.5: 0.0425 nats. Equal shares: 0. The shares
# 1, 0 and 0, 1: $\log 2 = 0.693$, the most there is. The shares 0.5, 0.5, 0 and 0, 0.5, 0.5: half of that, 0.347.
#
# <details><summary>Hint 1: three lists</summary>
#
# The third is the average of both, kind by kind. The divergence is the mean of two KL divergences, from $p$ to the
# average and from $q$ to the average.
#
# </details>
#
# <details><summary>Hint 2: one of the two</summary>
#
# The KL divergence of $p$ from the average is the sum of $p \log (p / \mathrm{average})$. Write a small function for
# it, and call it twice.
#
# </details>
#
# <details><summary>Hint 3: zeros</summary>
#
# A computer gets `nan` from 0 times the logarithm of 0, and that spoils the sum. Add up only the kinds that this side
# has: `p[p > 0]` picks them, and `average[p > 0]` their averages.
#
# </details>


# %% tags=["solve:jensen-shannon"]
def jensen_shannon(p: Tensor, q: Tensor) -> Tensor:
    """Jensen-Shannon divergence of two lists of shares.

    Args:
        p, q: (K,) each 0 or more, with the sum 1.
    Returns:
        () in nats, from 0 (equal) to log 2 (nothing in common).
    """
    ### BEGIN SOLUTION
    middle = (p + q) / 2

    def divergence(shares: Tensor) -> Tensor:
        seen = shares > 0
        return (shares[seen] * (shares[seen] / middle[seen]).log()).sum()

    return (divergence(p) + divergence(q)) / 2
    ### END SOLUTION


# %% tags=["check:jensen-shannon:3"]
check_jensen_shannon(jensen_shannon)
### BEGIN HIDDEN TESTS
check_jensen_shannon(jensen_shannon, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now push a heap of forgeries towards the data. Both heaps have the width 1, and the forgeries begin at a distance of 3.
# **Predict.** Below which distance has the best discriminator anything to tell G?


# %%
def heap(start: float) -> Tensor:  # shares in 100 bins of 0.05, even over a width of 1
    places = torch.arange(100) * 0.05
    inside = ((places > start - 0.01) & (places < start + 0.99)).float()
    return inside / inside.sum()


# %% tags=["solve:draw-divergence"]
distances = torch.arange(61) * 0.05
### BEGIN SOLUTION
yours = torch.stack([jensen_shannon(heap(0.0), heap(distance)) for distance in distances.tolist()])
### END SOLUTION
lines(
    distances,
    {"Jensen-Shannon divergence": yours, "what the best D pays": 2 * math.log(2) - 2 * yours},
    "Two heaps of width 1",
    ("distance", "nats"),
    alt="Against the distance from 0 to 3, the divergence rises from 0 in a straight line to 0.693 at a distance of 1 "
    "and stays there. What the best D pays falls from 1.386 to 0 at 1 and stays at 0.",
)

# %% [markdown]
# Beyond a distance of 1 the divergence is $\log 2$, however far the heaps are apart: it has no slope that could say
# "closer".
#
# **Going further.** The *Wasserstein distance* asks how far the points have to be carried, on average. On a line it is
# the area between the two cumulative sums: `(p.cumsum(0) - q.cumsum(0)).abs().sum()` times the width of a bin. Add it
# to the figure. Why did Arjovsky and others (2017, arXiv:1701.07875) want a discriminator that measures this?
#
# ## 2 Which of the two is more real?
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** The usual D judges each picture alone. A *relativistic* one (Jolicoeur-Martineau 2018) compares two: with the
# logit $r$ of a real picture and $f$ of the forgery beside it, the probability that the real one is the more real of
# the two is $\sigma(r - f)$. R3GAN (Huang and others 2024) is trained so.
#
# D minimises $-\log$ of this probability. G wishes for the contrary, that the *forgery* is the more real one, and
# minimises $-\log$ of the probability of that. Beware of $+\log \sigma(r - f)$ for G: that is the saturating game once
# more.
#
# **Write** `relativistic_losses`, for logits of any size.
#
# **Expected.** The real logit 2 and the forged one -1: D pays 0.0486, G 3.0486. Equal logits: both pay 0.693. For 1002
# and 999 the same as for 2 and -1. For 100 and -100: 0 and 200.
#
# <details><summary>Hint 1: one number in place of two</summary>
#
# Only the difference of the two logits matters. Take it first.
#
# </details>
#
# <details><summary>Hint 2: no probability on the way</summary>
#
# `softplus(-x)` is $-\log \sigma(x)$, and right for every x. It is imported above.
#
# </details>
#
# <details><summary>Hint 3: the forger</summary>
#
# For G real and forged change places: the difference the other way round, and the same function.
#
# </details>


# %% tags=["solve:relativistic-losses"]
def relativistic_losses(real_logits: Tensor, fake_logits: Tensor) -> tuple[Tensor, Tensor]:
    """What both players pay if D compares each real picture with the forgery in the same row.

    Args:
        real_logits: (B,) of real pictures.
        fake_logits: (B,) of forgeries.
    Returns:
        D's loss () and G's loss (), both in nats, each the mean over the B pairs.
    """
    ### BEGIN SOLUTION
    lead = real_logits - fake_logits  # (B,): by how much the real one looks more real
    return softplus(-lead).mean(), softplus(lead).mean()
    ### END SOLUTION


# %% tags=["check:relativistic-losses:3"]
check_relativistic_losses(relativistic_losses)
### BEGIN HIDDEN TESTS
check_relativistic_losses(relativistic_losses, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Play the lesson's ring with `loss="relativistic"`, with and without `r1_weight` and `r2_weight`.
# Then let G answer ten times a round, as it did in the lesson's mode collapse. A G that draws one dot can please the
# usual D. Why is it harder to please one that compares?
#
# ## 3 Find the bug
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** The order of a few lines decides whether two networks play against each other. Nothing here adds the two
# losses, and yet the game ends like a patient of the lesson's museum.
#
# The data lie in one heap at 3. In this variant both players of a round answer to the same forgeries, drawn from one
# `noise`.


# %%
def mistaken_round(generator, discriminator, optimizer_g, optimizer_d, real, noise):
    loss_d = discriminator_loss(discriminator(real), discriminator(generator(noise)))
    loss_d.backward()
    optimizer_d.step()
    optimizer_d.zero_grad()
    loss_g = generator_loss(discriminator(generator(noise)))
    loss_g.backward()
    optimizer_g.step()
    optimizer_g.zero_grad()
    return loss_d.item(), loss_g.item()


def watch(play: Callable, rounds: int = 200) -> None:
    torch.manual_seed(0)
    players = [
        kind(size=1, hidden=32, initialise=False).to(device) for kind in (MLPGenerator, MLPDiscriminator)
    ]
    optimizers = [Adam(player.parameters(), 2e-3, (0.5, 0.99)) for player in players]
    random, rows = torch.Generator().manual_seed(0), []
    for number in range(1, rounds + 1):
        real = (3 + 0.5 * torch.randn(128, 1, generator=random)).to(device)
        noise = torch.randn(128, 2, generator=random).to(device)
        loss_d, loss_g = play(*players, *optimizers, real, noise)
        if number in (1, 50, 100, 200):
            with torch.no_grad():
                forged = players[0](noise)
                says = [torch.sigmoid(players[1](points)).mean() for points in (real, forged)]
            row = {
                "round": number,
                "D's loss": loss_d,
                "G's loss": loss_g,
                "D(real)": says[0],
                "D(forged)": says[1],
            }
            rows.append(row | {"forged: mean": forged.mean(), "std": forged.std()})
    table(rows)


watch(mistaken_round)

# %% [markdown]
# All points are one dot, near 0 in place of 3. D says 1 to real points and 1/2 to forged ones.
#
# **Find** why, and **write** `play_round` as it should be: D answers first; then G answers to the D that has just
# learned. Slopes get to where they do not belong in two places, once in G and once in D. With only one of them mended
# the game still ends differently from the lesson's.
#
# **Expected.** In the table below, G's points have a mean near 3, and D says about 1/2 to real *and* forged points.
#
# <details><summary>Hint 1: the patient</summary>
#
# Patient B of the museum: "one common loss". Its players are moved by the slopes of $L_D + L_G$. Which slopes lie in
# G's parameters when `optimizer_g.step()` is called, and which in D's when `optimizer_d.step()` is?
#
# </details>
#
# <details><summary>Hint 2: backward goes everywhere</summary>
#
# `loss_d.backward()` also reaches G, through the forgeries; and `loss_g.backward()` also reaches D, through which it
# must pass. `backward` adds to the slopes that are already there (lesson 04).
#
# </details>
#
# <details><summary>Hint 3: remedies</summary>
#
# Call each player's `zero_grad` just before its own `backward`, not after its step: whatever the other one's answer has
# left there is gone then. And `detach()` cuts the way from D's loss to G, so that nothing is left there at all.
#
# </details>


# %% tags=["solve:play-round"]
def play_round(
    generator: Module,
    discriminator: Module,
    optimizer_g: Optimizer,
    optimizer_d: Optimizer,
    real: Tensor,
    noise: Tensor,
) -> tuple[float, float]:
    """One answer of D, then one answer of G, to the same forgeries.

    Args:
        generator: noise (B, Z) -> points (B, 1).
        discriminator: points (B, 1) -> logits (B,).
        optimizer_g, optimizer_d: each over the parameters of its own player.
        real: (B, 1) points of the data.
        noise: (B, Z), what both players' forgeries are drawn from.
    Returns:
        D's loss and G's loss (non-saturating), each as the player found it before its own step.
    """
    ### BEGIN SOLUTION
    fake = generator(noise)
    loss_d = discriminator_loss(discriminator(real), discriminator(fake.detach()))
    optimizer_d.zero_grad()
    loss_d.backward()
    optimizer_d.step()
    loss_g = generator_loss(discriminator(fake))
    optimizer_g.zero_grad()
    loss_g.backward()
    optimizer_g.step()
    return loss_d.item(), loss_g.item()
    ### END SOLUTION


# %% tags=["check:play-round:4"]
check_play_round(play_round)
### BEGIN HIDDEN TESTS
check_play_round(play_round, seed=100)
### END HIDDEN TESTS

# %% tags=["solve:watch"]
### BEGIN SOLUTION
watch(play_round)
### END SOLUTION

# %% [markdown]
# **Going further.** Mend only G's part, with `detach`, and leave every `zero_grad` after its step. D's answer now ends
# at 2/3, not at 1/2. Show by hand why. (At a place where data and forgeries are equally dense, D's steps then make
# $-2 \log d - \log (1 - d)$ small.)
#
# ## 4 Calm at the data
#
# ★★★★☆ · 25 minutes · 4 points
#
# **Why.** When G's points have reached the data, D should leave them alone. A D that is still steep there pushes them
# past; then it turns round and pushes them back, and the two circle for ever. The penalty R1 makes D pay for its slope
# at real pictures (Mescheder and others 2018):
#
# $$\mathrm{R1} = \frac{\gamma}{2}\; \mathop{\mathrm{mean}}_{x\ \mathrm{real}}\; \lVert \nabla_x D(x) \rVert^2$$
#
# $\nabla_x D(x)$ has a number for each number of the picture: how D's logit changes with it. The game of section 2 had
# this penalty as `r1_weight`; now you write it. A slope becomes part of a loss, so it must itself have a slope.
#
# **Write** `gradient_penalty`. D's parameters must keep their `.grad` as it was.
#
# **Expected.** $D(x) = 3 x_1 + 4 x_2$ has the slope (3, 4) everywhere, with the squared length 25. So the penalty is
# 12.5 for $\gamma = 1$ and 125 for $\gamma = 10$, for one picture as for a hundred.
#
# <details><summary>Hint 1: by what</summary>
#
# The slope is not taken by D's weights but by the picture. So the picture has to want one: take
# `images.detach().requires_grad_()`, and only then compute the logits.
#
# </details>
#
# <details><summary>Hint 2: all pictures at once</summary>
#
# `torch.autograd.grad(logits.sum(), images)` gives a tuple with one tensor of the shape of `images`. Picture i only
# moves logit i, so row i of it is the slope of D at picture i. With the *mean* of the logits it would be B times too
# small.
#
# </details>
#
# <details><summary>Hint 3: a slope with a slope</summary>
#
# Give `create_graph=True`; otherwise the penalty is a number that D cannot learn from. Then: square, add up over all
# the numbers of a picture, take the mean over the batch, times $\gamma / 2$.
#
# </details>


# %% tags=["solve:gradient-penalty"]
def gradient_penalty(discriminator: Callable[[Tensor], Tensor], images: Tensor, gamma: float) -> Tensor:
    """R1: gamma / 2 times the mean squared length of D's slope at the pictures.

    Args:
        discriminator: (B, ...) -> logits (B,); the logit of a picture does not depend on the others.
        images: (B, ...) real pictures, or points.
        gamma: weight of the penalty.
    Returns:
        (), from which slopes flow to D's parameters.
    """
    ### BEGIN SOLUTION
    images = images.detach().requires_grad_()
    (slope,) = torch.autograd.grad(discriminator(images).sum(), images, create_graph=True)
    return gamma / 2 * slope.square().flatten(1).sum(1).mean()
    ### END SOLUTION


# %% tags=["check:gradient-penalty:4"]
check_gradient_penalty(gradient_penalty)
### BEGIN HIDDEN TESTS
check_gradient_penalty(gradient_penalty, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# See what it does: D learns to tell data at 1 from forgeries at -1, which do not move. Without your penalty and with it.


# %% tags=["solve:draw-cliff"]
def learn(gamma: float) -> Tensor:
    torch.manual_seed(0)
    D, random = MLPDiscriminator(size=1, hidden=32), torch.Generator().manual_seed(0)
    optimizer = Adam(D.parameters(), 4e-3, (0.5, 0.99))
    for _ in range(300):
        real, fake = (at + 0.1 * torch.randn(64, 1, generator=random) for at in (1.0, -1.0))
        loss = discriminator_loss(D(real), D(fake))
        ### BEGIN SOLUTION
        loss = loss + gradient_penalty(D, real, gamma)
        ### END SOLUTION
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    return D(torch.linspace(-2, 2, 101)[:, None]).detach()


lines(
    torch.linspace(-2, 2, 101),
    {f"gamma {gamma:g}": learn(gamma) for gamma in (0, 0.3, 3)},
    "D's logit, with data at 1 and forgeries at -1",
    ("place on the line", "logit"),
    alt="D's logit from -2 to 2. With gamma 0 it rises in a nearly straight line from -16 to 17. With 0.3 and 3 it rises "
    "as steeply up to about 0, then it bends and is flat around 1, at 7 and at 6.",
)

# %% [markdown]
# With the penalty D is flat where the data are, and still sure of them: a forgery that has arrived is not pushed any
# further. On the way there, where no real picture lies, D is as steep as before, and G is led to the data.
#
# **Going further.** **WGAN-GP** (Gulrajani and others 2017, arXiv:1704.00028) punishes another slope: at random points
# *between* a real and a forged picture, and for its distance from the length 1, $(\lVert \nabla D \rVert - 1)^2$. D's
# loss is the mean of the forged logits minus that of the real ones, G's is minus the mean of the forged ones. Write
# both, and play the ring. What does D's loss measure now (exercise 1)?
#
# ## 5 In your own words: four more patients
#
# ★★☆☆☆ · 15 minutes · 4 points
#
# Four games on a line, with data in two heaps at -2 and 2. One is healthy. The others are, in another order: a mode
# collapse; a dominant D with the saturating loss; and the misunderstanding of the article in its saturating form, where
# both players minimise $L_D + L_G$ with $L_G$ the mean of $\log (1 - D)$.

# %%
settings = [
    {"generator_steps": 10, "learning_rates": (4e-3, 4e-3)},
    {"initialise": True},
    {"joint": True, "loss": "saturating"},
    {"discriminator_steps": 5, "loss": "saturating", "learning_rates": (2e-4, 4e-3)},
]


def play(rounds: int, initialise=False, learning_rates=(2e-3, 4e-3), **switches) -> list[dict]:
    torch.manual_seed(5)
    players = [kind(size=1, hidden=32, initialise=initialise) for kind in (MLPGenerator, MLPDiscriminator)]
    game = AdversarialStep(*players, learning_rates=learning_rates, **switches)
    random, log = torch.Generator().manual_seed(5), []
    for _ in range(rounds):
        real = mixture_1d(128, random, means=(-2.0, 2.0))
        log.append(game(real))
        with torch.no_grad():
            forged = game.fake(100)
            says = [torch.sigmoid(game.discriminator(points)).mean().item() for points in (real, forged)]
        log[-1] |= {"points": forged[:, 0], "D(real)": says[0], "D(forged)": says[1]}
    return log


order = torch.randperm(4, generator=torch.Generator().manual_seed(7)).tolist()
patients = {name: play(150, **settings[i]) for name, i in zip("PQRS", order, strict=True)}

# %%
alt = """Four patients over 150 rounds; losses above, the places of G's points below. P: both losses are 0 after ten
rounds; the points stay near 0. Q: L_D grows to 4.3, L_G falls to -4.3; the points stay near 0. R: losses near 1.4 and
0.7 with a few peaks; the points are in one place at a time and leap. S: losses near 1.2 and 1.1; the points are spread
over the line, later dense at 2 and at -2."""
with figure("Four more patients", alt, columns=4, rows=2, size=(9, 5)) as axes:
    for (name, log), (above, below) in zip(patients.items(), axes.T, strict=True):
        for key, dash in (("loss_d", "-"), ("loss_g", "--")):
            above.plot([entry[key] for entry in log], dash, label=f"L_{key[-1].upper()}", linewidth=1.3)
        above.set(title=f"patient {name}", xlabel="round", ylabel="loss", ylim=(-5, 5))
        for number in range(0, 150, 3):
            below.scatter([number] * 50, log[number]["points"][:50], s=1, color="#0072B2")
        below.set(xlabel="round", ylabel="place of G's points", ylim=(-4, 4))
    axes[0, 0].legend(loc="upper right")
rows = []
for name, log in patients.items():
    names = {"loss_d": "L_D", "loss_g": "L_G", "D(real)": "D(real)", "D(forged)": "D(forged)"}
    means = {told: sum(entry[key] for entry in log[-20:]) / 20 for key, told in names.items()}
    rows.append({"patient": name} | means | {"spread of G's points": log[-1]["points"].std()})
table(rows)

# %% [markdown]
# (The losses and probabilities in the table are means of the last 20 rounds.) For each of P, Q, R and S, in two or three
# sentences: what is it, and which curve, number or picture tells you? Three questions on the way:
#
# - At the end of a fair game the losses are 1.39 and 0.69. Whose come nearest, and why is that no proof of health?
# - Two patients' points do not move at all. What is the reason in each of the two?
# - One L_D grows and grows, although this very D is trained to make a sum small in which L_D stands. How can that be?

# %% [markdown] tags=["explain:four-patients:4"]
# <!-- BEGIN SOLUTION -->
# - **P** is the dominant D. Both losses are 0, D(real) is 1 and D(forged) 0: it is certain. There the saturating loss
#   $\log(1 - D)$ is flat, so no slope reaches G, and its points stay where they began (1 point).
# - **Q** minimises the common loss. L_D and L_G are exact opposites, and their sum is only what real points cost: the
#   forged ones have cancelled out. So D calls *everything* real, 1 and nearly 1. Each nat that L_D grows by on forged
#   points is taken back by L_G. G has dropped out of the sum: no slope, and it stands still although nobody has found it
#   out (1 point).
# - **R** is the mode collapse. Its losses are nearest to 1.39 and 0.69, but the points are in one place at a time, with
#   a spread of about 0.5 where the data have 2, and leap when D has caught up. No mean of the losses shows that; only
#   the points do (1 point).
# - **S** is the healthy one. Its losses do not fall, and are 1.2 and 1.1: D is a little ahead. But the points are spread
#   as widely as the data and gather in both heaps. Judge by what is drawn (1 point).
# <!-- END SOLUTION -->
