# %% [markdown]
# # Exercises 11 · Listening to text
#
# Five exercises to lesson 11, 85 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | Two numbers for a channel | ★★☆☆☆ | 15 | 3 |
# | 2 | Where does the caption fit? | ★★☆☆☆ | 15 | 3 |
# | 3 | Every picture, every caption | ★★★☆☆ | 25 | 4 |
# | 4 | Find the bug: a generator that does not listen | ★★★☆☆ | 20 | 4 |
# | 5 | In your own words: the caption-swap test | ★★☆☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import Module

from course_lib import TextToImage
from course_lib.checks.text_gan import (
    check_logit_map,
    check_logits_of_a_round,
    check_matching_aware_loss,
    check_scale_and_shift,
)
from course_lib.gan import MLPDiscriminator, MLPGenerator, ring_centers
from course_lib.lesson import setup, table
from course_lib.losses import discriminator_loss, generator_loss, softplus
from course_lib.optim import Adam, WeightAverage

device = setup()

# %% [markdown]
# ## 1 Two numbers for a channel
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** In training, conditional normalisation takes mean and variance from the batch. A generator that draws for you
# must not: your picture would depend on what others in the batch have asked for. So it uses a *running* mean and
# variance, which training has collected and which are constants now (lesson 05). Then all that a caption does to a
# channel is one scale and one shift: `scale * x + shift`.
#
# **Write** `scale_and_shift`, which works them out. The pictures are not needed for it.
#
# **Expected.** The numbers of lesson 11, section 3: one channel, running mean 200, running variance 10,000, and eps 0.
# The caption with $\gamma = 0.5$ and $\beta = 2$ has the scale 0.015 and the shift -1; the one with $\gamma = 0$ and
# $\beta = 1$ has 0.01 and -1. So 100 becomes 0.5 under the first, and 300 becomes 2 under the second, as in the lesson.
#
# <details><summary>Hint 1: write it out</summary>
#
# The output is $(1 + \gamma) \frac{x - \mathrm{mean}}{\sqrt{\mathrm{variance} + \mathrm{eps}}} + \beta$. Multiply out:
# what stands before $x$, and what is left without it?
#
# </details>
#
# <details><summary>Hint 2: gamma and beta</summary>
#
# `condition @ weight.T + bias` is (B, 2C); `chunk(2, dim=1)` cuts it into gamma and beta, each (B, C). Mean and variance
# are (C,) and broadcast.
#
# </details>
#
# <details><summary>Hint 3: the shift</summary>
#
# The running mean takes part in it: beta minus the *scaled* mean.
#
# </details>


# %% tags=["solve:scale-and-shift"]
def scale_and_shift(
    condition: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float = 1e-5
) -> tuple[Tensor, Tensor]:
    """Conditional batch normalisation while pictures are drawn, as scale * x + shift.

    Args:
        condition: (B, E), noise and caption of each picture.
        weight, bias: (2C, E) and (2C,): the first C rows give gamma, the last C give beta.
        mean, variance: (C,), running, of each channel.
        eps: is added to the variance.
    Returns:
        scale (B, C) and shift (B, C).
    """
    ### BEGIN SOLUTION
    gamma, beta = (condition @ weight.T + bias).chunk(2, dim=1)
    scale = (1 + gamma) / torch.sqrt(variance + eps)
    return scale, beta - scale * mean
    ### END SOLUTION


# %% tags=["check:scale-and-shift:3"]
check_scale_and_shift(scale_and_shift)
### BEGIN HIDDEN TESTS
check_scale_and_shift(scale_and_shift, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now listen to a real generator. `shapes-32` has four such layers, at 4, 8, 16 and 32 pixels. One noise meets three
# captions; how much does the scale of its channels change when *one word* is another? Guess first: at which size is the
# word for the colour heard most, and at which the word for the shape? Then compute the `scale` (3, C) of each layer by
# your function; its weight and bias are `layer.modulation.weight` and `layer.modulation.bias`.

# %%
model = TextToImage.from_pretrained("shapes-32", device)
prompts = [f"a large {what} at the center on navy" for what in ("red circle", "green circle", "red star")]
heard = model.generator.read_text(model.encode_text(prompts))
noise = torch.randn(1, 64, generator=torch.Generator().manual_seed(0)).to(device).expand(3, 64)
condition = torch.cat([noise, heard], dim=1)  # (3, 128)

# %% tags=["solve:one-word"]
rows = []
for size, layer in zip((4, 8, 16, 32), model.generator.norms, strict=True):
    mean, variance = layer.norm.running_mean, layer.norm.running_var
    ### BEGIN SOLUTION
    scale, _ = scale_and_shift(condition, layer.modulation.weight, layer.modulation.bias, mean, variance)
    ### END SOLUTION
    usual = scale.abs().mean()
    change = {"green, not red": scale[1] - scale[0], "star, not circle": scale[2] - scale[0]}
    rows.append({"pixels": size} | {word: f"{by.abs().mean() / usual:.0%}" for word, by in change.items()})
table(rows)

# %% [markdown]
# The word for the shape is heard most at 4 pixels and ever less after that; the word for the colour is heard at every
# size, and at 16 and 32 pixels it is the louder one. Nobody told the generator to do so.
#
# **Going further.** Give `start` and the layers at 4 and 8 pixels the condition of "a large red star at the center on
# navy", and those at 16 and 32 that of "a large green circle at the center on navy". (Copy the loop of the lesson's
# section 3 for it.) What comes out, and what if you exchange the two? StyleGAN calls this *style mixing*.
#
# ## 2 Where does the caption fit?
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** The lesson's discriminator gives a picture one logit. One that gives a logit to *every place* tells the
# generator more: not "something is wrong", but "here". (Isola and others 2017 call it PatchGAN.) The projection works
# there as well.
#
# **Write** `logit_map`. At each place stand H features $h$; the logit there is
#
# $$w \cdot h + b + \frac{(V\,\mathrm{text}) \cdot h}{\sqrt{H}}$$
#
# **Expected.** The lesson's picture with two features, "red" and "blue": $w = (0.5, 0.5)$, $b = 0$; $V$ makes $(1, -1)$
# of the caption "red". A picture of two places has $h = (2, 0)$ at the left and $h = (0, 2)$ at the right. The map is
# $1 + 2 / \sqrt{2} = 2.414$ and $1 - 2 / \sqrt{2} = -0.414$: the caption fits at the left only.
#
# <details><summary>Hint 1: what the caption says</summary>
#
# `texts @ read_text.T` is (B, H): for each picture one number to each feature.
#
# </details>
#
# <details><summary>Hint 2: a product at each place</summary>
#
# Features are (B, H, R, C). Give (B, H) two more dimensions with `[:, :, None, None]`, multiply, and add up over the
# dimension of the features. The weights $w$ have no batch: `[:, None, None]`.
#
# </details>
#
# <details><summary>Hint 3: the root</summary>
#
# Only the product with the caption is divided by $\sqrt{H}$, and `H` is `len(realness)`.
#
# </details>


# %% tags=["solve:logit-map"]
def logit_map(features: Tensor, texts: Tensor, realness: Tensor, bias: Tensor, read_text: Tensor) -> Tensor:
    """How real is each place of a picture, for this caption?

    Args:
        features: (B, H, R, C), H features at each of R x C places.
        texts: (B, E), an embedding for each picture.
        realness: (H,), the weights w; bias: (), b.
        read_text: (H, E), the matrix V.
    Returns:
        logits (B, R, C).
    """
    ### BEGIN SOLUTION
    heard = texts @ read_text.T  # (B, H)
    real = (features * realness[:, None, None]).sum(1) + bias  # (B, R, C)
    fit = (features * heard[:, :, None, None]).sum(1)
    return real + fit / len(realness) ** 0.5
    ### END SOLUTION


# %% tags=["check:logit-map:3"]
check_logit_map(logit_map)
### BEGIN HIDDEN TESTS
check_logit_map(logit_map, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** AttnGAN (Xu and others 2018) asks the same of every *word*: which places does "red" belong to? Give
# the map the embeddings of single tokens, (B, T, E), so that it becomes (B, T, R, C); take a softmax over the places, and
# you have what each word looks at. Their loss (DAMSM) holds the mean features of these places against the word.
#
# ## 3 Every picture, every caption
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** The lesson holds a real picture against one wrong caption, its neighbour's. With a discriminator by projection,
# the logits of *all* pairs of a batch are one matrix product (section 4), so all wrong captions are there for nearly
# nothing. But the larger the choice, the more often a "wrong" caption is equal to the right one.
#
# **Write** `matching_aware_loss` from `softplus` alone. It is the sum of
#
# - the mean cost of the real pictures with their own captions (the diagonal of `logits`), which should be called real;
# - *half* the mean cost of the fakes, which should not;
# - *half* the mean cost of all wrong pairs, which should not either. A pair is wrong if the captions of its row and its
#   column differ. If no pair of the batch is wrong, this term is 0.
#
# **Expected.** Two real pictures, red and blue, with the logits of section 4, `[[3, -1], [-1, 3]]`; both fakes have -1.
# If the captions differ, the loss is 0.362; if they are equal, 0.205. If all logits are 0 and the captions differ, it is
# 1.386.
#
# <details><summary>Hint 1: two costs</summary>
#
# What should be called real costs `softplus(-logit)`, what should not costs `softplus(logit)`. `logits.diagonal()` are
# the right pairs.
#
# </details>
#
# <details><summary>Hint 2: which captions differ</summary>
#
# Two captions differ if *any* of their numbers does. `texts[:, None] != texts` compares all with all, number by number:
# (B, B, E).
#
# </details>
#
# <details><summary>Hint 3: a mean over some</summary>
#
# Multiply the costs (B, B) by the mask, add them up, and divide by how many pairs count: `mask.sum().clamp(min=1)`, so
# that 0 wrong pairs give 0 and not 0 / 0. The diagonal is never wrong, because a caption is equal to itself.
#
# </details>


# %% tags=["solve:matching-aware-loss"]
def matching_aware_loss(logits: Tensor, fake_logits: Tensor, texts: Tensor) -> Tensor:
    """What a discriminator minimises that holds every real picture against every caption of the batch.

    Args:
        logits: (B, B): row i is the real picture i, column j the caption j.
        fake_logits: (B,), generated pictures with the captions they were drawn for.
        texts: (B, E), the captions' embeddings; equal captions have equal ones.
    Returns:
        () in nats.
    """
    ### BEGIN SOLUTION
    wrong = (texts[:, None] != texts).any(-1)  # (B, B)
    real = softplus(-logits.diagonal()).mean()
    fake = softplus(fake_logits).mean()
    mistaken = (softplus(logits) * wrong).sum() / wrong.sum().clamp(min=1)
    return real + (fake + mistaken) / 2
    ### END SOLUTION


# %% tags=["check:matching-aware-loss:4"]
check_matching_aware_loss(matching_aware_loss)
### BEGIN HIDDEN TESTS
check_matching_aware_loss(matching_aware_loss, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Contrastive training (lesson 08) takes the same matrix, but asks each row *which* caption is its own:
# a softmax in place of B answers yes or no. Write a discriminator's loss that way. What does it no longer say about a
# picture of mush?
#
# ## 4 Find the bug
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** If the pictures do not follow the captions, one suspects the generator: too small, badly conditioned. Often it
# is innocent, and a line before the loss has mixed up who belongs to whom. No error is raised.
#
# Below is the game of section 1 of the lesson: points in eight heaps, labelled 0 to 7; both players get the label. Here
# one function computes all logits of a round. `play` calls it in each player's turn, and every 50 rounds it counts how
# many points lie nearest to the heap they were asked for.


# %%
class PointGenerator(Module):
    def __init__(self):
        super().__init__()
        self.mlp = MLPGenerator(2 + 8, 2)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        return self.mlp(torch.cat([z, text], dim=1))


class PointDiscriminator(Module):
    def __init__(self):
        super().__init__()
        self.mlp = MLPDiscriminator(2 + 8)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        return self.mlp(torch.cat([x, text], dim=1))


def obedience(G: Module) -> Tensor:
    label = torch.arange(8).repeat(50)
    z = torch.randn(400, 2, generator=torch.Generator().manual_seed(1))
    return (torch.cdist(G(z, torch.eye(8)[label]), ring_centers()).argmin(1) == label).float().mean()


# %%
def play(logits_of: Callable, rounds: int = 300) -> None:
    torch.manual_seed(0)
    G, D, rows = PointGenerator(), PointDiscriminator(), []
    G_optimizer, D_optimizer = (
        Adam(G.parameters(), 2e-3, (0.5, 0.99)),
        Adam(D.parameters(), 4e-3, (0.5, 0.99)),
    )
    random, average = torch.Generator().manual_seed(0), WeightAverage(G, 0.95)
    for number in range(1, rounds + 1):
        label = torch.randint(8, (128,), generator=random)
        real, texts = ring_centers()[label] + 0.1 * torch.randn(128, 2, generator=random), torch.eye(8)[label]
        z = torch.randn(128, 2, generator=random)
        right, wrong, fake = logits_of(G, D, real, texts, z)
        loss_d = discriminator_loss(right, fake, wrong, (texts.roll(1, 0) != texts).any(1))
        D_optimizer.zero_grad(), loss_d.backward(), D_optimizer.step()
        loss_g = generator_loss(logits_of(G, D, real, texts, z)[2])
        G_optimizer.zero_grad(), loss_g.backward(), G_optimizer.step()
        average.update(G)
        if number % 50 == 0:
            rows.append({"round": number, "loss of D": loss_d, "loss of G": loss_g})
            rows[-1]["points that obey"] = f"{obedience(average.model):.0%}"
    table(rows)


# %%
def careless_logits(
    G: Module, D: Module, real: Tensor, texts: Tensor, z: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    fake = G(z, texts)
    real_logits = D(real, texts)
    texts = texts.roll(1, 0)  # every row gets the caption of the row above
    wrong_logits = D(real, texts)
    fake_logits = D(fake, texts)
    return real_logits, wrong_logits, fake_logits


play(careless_logits)

# %% [markdown]
# D reads better and better, G's loss climbs, and one point in eight obeys: chance.
#
# **Find** why G cannot learn what its label means, and **write** `logits_of_a_round` as it should be. `play` is right.
#
# **Expected.** With your function, all points obey before round 150, and D's loss stays near 0.96, close to the 0.955 of
# the lesson's section 5.
#
# <details><summary>Hint 1: three pairs</summary>
#
# Write down for each of the three results: which picture meets which caption?
#
# </details>
#
# <details><summary>Hint 2: one name, two meanings</summary>
#
# What does `texts` mean in the first line of the function, and what in the last but one?
#
# </details>
#
# <details><summary>Hint 3: what G is told</summary>
#
# G draws for its label and is then judged by a label of somebody else, which it has never heard. Give the neighbours'
# captions a name of their own.
#
# </details>


# %% tags=["solve:logits-of-a-round"]
def logits_of_a_round(
    G: Module, D: Module, real: Tensor, texts: Tensor, z: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """All that the discriminator says in a round.

    Args:
        G: G(z, texts) -> pictures; D: D(pictures, texts) -> logits (B,).
        real: (B, ...), real pictures; texts: (B, E), their captions.
        z: (B, Z), noise; the fakes are drawn from it, for `texts`.
    Returns:
        real_logits (B,), of real pictures with their own captions;
        wrong_logits (B,), of the real picture i with the caption of the row above, i - 1; the first gets the last's;
        fake_logits (B,), of fakes with the captions they were drawn for; slopes reach both players.
    """
    ### BEGIN SOLUTION
    others = texts.roll(1, 0)
    return D(real, texts), D(real, others), D(G(z, texts), texts)
    ### END SOLUTION


# %% tags=["check:logits-of-a-round:4"]
check_logits_of_a_round(logits_of_a_round)
### BEGIN HIDDEN TESTS
check_logits_of_a_round(logits_of_a_round, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now let `play` use your function.

# %% tags=["solve:play-again"]
### BEGIN SOLUTION
play(logits_of_a_round)
### END SOLUTION

# %% [markdown]
# **Going further.** Make another bug: roll the *pictures* together with the captions for `wrong_logits`. Guess first:
# will the points obey? Run it, and explain what you see with the formula at the end of the lesson's section 7.
#
# ## 5 In your own words: the caption-swap test
#
# ★★☆☆☆ · 10 minutes · 3 points
#
# Three students have each trained a conditional generator and send you this table. Noise and label stand side by side in
# the input, as above. "Obey" is the share of the points that lie in the heap of the label that was asked for.
#
# | | obey | obey, label swapped | moved by another label | moved by another noise |
# |---|---|---|---|---|
# | Ann | 14 % | 12 % | 2.1 | 1.9 |
# | Bo | 100 % | 0 % | 0.0 | 2.4 |
# | Cem | 100 % | 100 % | 2.6 | 0.0 |
#
# "Label swapped": the same noise, with another label. Bo has drawn one noise for every label before the training, and
# has used that noise with that label ever since. In six sentences or fewer:
#
# 1. Ann says: "My points move far when I swap the label, so my generator listens." Why does that not follow?
# 2. What has Bo's generator learned, and why was no discriminator able to object?
# 3. Which fault has Cem's generator, which number shows it, and what in the lesson is made against it?

# %% [markdown] tags=["explain:caption-swap:3"]
# <!-- BEGIN SOLUTION -->
# 1. A change only shows that the label reaches the output. 12 to 14 % is chance with eight labels: the points move, but
#    not to what was said; for this generator the label is one more noise. The test must ask whether the output changes
#    *to the label* (1 point).
# 2. It reads the noise and ignores the label: the noise always told which label would come. D only saw fakes in which
#    noise and label belonged together, so every fake fitted its label, and D had nothing to hold against them. Only the
#    swap, which parts the two, shows it (1 point).
# 3. It draws one point for each label, whatever the noise ("moved by another noise" is 0.0), though a label has a whole
#    heap of points. Obedience cannot show that. `mode_seeking_loss` rewards different noise for making different pictures
#    (1 point).
# <!-- END SOLUTION -->
