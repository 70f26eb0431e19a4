# %% [markdown]
# # 03 · Losses
#
# **You will build** `course_lib/losses.py`: the numbers that tell a network how wrong it is. First the squared error and
# the cross-entropy: by hand, as a loop, as one line, proved equal to PyTorch's. Then the losses of a GAN's two players.
#
# **You need** Python, the logarithm, and what a derivative is. Tensors are those of lesson 01.
#
# **Time**: 45 minutes of reading and thinking; the computer needs less than 20 seconds.
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
#   class c00,c01,c02 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c03 lit
# ```

# %% tags=["nbval-check-output"]
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from course_lib.lesson import compare, figure, lines, setup, table
from course_lib.losses import BinaryCrossEntropy, require_probabilities

device = setup()

# %% [markdown]
# ## 1 The squared error
#
# A network drew four pixels. Beside them are the four it should have drawn; -1 is black and 1 is white.
#
# | | pixel 1 | pixel 2 | pixel 3 | pixel 4 |
# |---|---|---|---|---|
# | drawn | 0.5 | -1.0 | 0.0 | 1.0 |
# | wanted | 1.0 | -1.0 | 0.5 | -1.0 |
#
# Training needs *one* number for this, small when the pixels are right. Square each difference and take the mean:
#
# $$\mathrm{MSE} = \frac{1}{N} \sum_{i=1}^{N} (\mathrm{drawn}_i - \mathrm{wanted}_i)^2$$
#
# **Predict.** Compute it on paper, for these $N = 4$ pixels. Which pixel makes up most of it?
#
# <details><summary>Answer</summary>
#
# The differences are -0.5, 0, -0.5 and 2; their squares 0.25, 0, 0.25 and 4. The mean is 4.5 / 4 = 1.125, and pixel 4
# alone makes up 8/9 of it: an error four times as large counts sixteen times as much.
#
# </details>

# %% tags=["nbval-check-output"]
drawn = torch.tensor([0.5, -1.0, 0.0, 1.0], device=device)
wanted = torch.tensor([1.0, -1.0, 0.5, -1.0], device=device)

total = 0.0
for one, other in zip(drawn.tolist(), wanted.tolist(), strict=True):
    total += (one - other) ** 2
print(total / len(drawn))

# %% [markdown]
# You should see 1.125. The loop visits one pixel at a time; `(drawn - wanted) ** 2` does all at once, for any shape. It
# hides a trap, though.
#
# **Predict.** What shape has the difference of a column (4, 1) and a row of four numbers (4,)?

# %% tags=["nbval-check-output"]
column = drawn[:, None]  # (4,) -> (4, 1)
squares = (column - wanted) ** 2
print(squares.shape, squares.mean().item())

# %% [markdown]
# Sixteen squares instead of four, and another mean: broadcasting (lesson 01) compared every pixel with every other.
# Nothing failed; a training with this defect runs for hours and learns the mean of everything. So our losses refuse
# unequal shapes. The next two functions are the library's own, word for word; a test compares them.


# %% tags=["lib:losses.require_same_shape", "lib:losses.mse_loss", "nbval-check-output"]
def require_same_shape(input: Tensor, target: Tensor) -> None:
    """Refuses what broadcasting would silently stretch."""
    if input.shape != target.shape:
        raise ValueError(
            f"input {tuple(input.shape)} and target {tuple(target.shape)} differ; reshape one of them"
        )


def mse_loss(input: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements: two tensors of one shape -> ()."""
    require_same_shape(input, target)
    return ((input - target) ** 2).mean()


# %% tags=["nbval-check-output"]
try:
    mse_loss(column, wanted)
except ValueError as error:
    print(error)

# %% [markdown]
# ### Is it the same as PyTorch's?
#
# Two things must agree: the value, and the **gradient**: for every input the slope of the loss, or how fast it grows
# when that input grows a little. Training follows the slope downhill. `torch.autograd.grad` computes it.


# %% tags=["nbval-check-output"]
def value_and_gradient(loss, input, target):
    input = input.clone().requires_grad_()  # from here on torch records what is done with it
    value = loss(input, target)
    return value, torch.autograd.grad(value, input)[0]


value, gradient = value_and_gradient(mse_loss, drawn, wanted)
torch_value, torch_gradient = value_and_gradient(F.mse_loss, drawn, wanted)
compare({"value": (value, torch_value), "gradient": (gradient, torch_gradient)})

# %% [markdown]
# "Exact" means equal to the last bit. By hand: the derivative of $(\mathrm{drawn} - \mathrm{wanted})^2 / N$ is
# $2\,(\mathrm{drawn} - \mathrm{wanted}) / N$, here half the difference. Pixel 4 has slope 1, it is too bright, so downhill
# is darker.
#
# $N$ counts *all* numbers: pictures, channels, rows and columns. A popular article divides by the number of pictures
# alone, and swaps the formula's symbols; lesson 17 collects its errors.
#
# **Predict.** Eight pictures of 3 x 32 x 32 numbers: how many times too large is the loss then?

# %% tags=["nbval-check-output"]
real, fake = torch.rand(2, 8, 3, 32, 32).to(device) * 2 - 1  # each (8, 3, 32, 32) in [-1, 1]
per_picture = ((real - fake) ** 2).sum() / len(real)
print(f"mean over all {real.numel()} numbers: {mse_loss(real, fake):.3f}")
print(f"divided by the {len(real)} pictures only: {per_picture:.0f}")
print(f"ratio: {per_picture / mse_loss(real, fake):.0f}")

# %% [markdown]
# 3 x 32 x 32 = 3072 times. The minimum stays where it is, but every slope is 3072 times as steep, and four times
# steeper still at 64 pixels. With the mean over everything, one learning rate fits all sizes.
#
# ### What the squared error wants
#
# **Predict.** The caption is "a square"; half of the squares in the data are black, half are white. Which single
# brightness has the least squared error?

# %% tags=["nbval-check-output"]
brightness = torch.linspace(-1, 1, 201)
black, white = (brightness + 1) ** 2, (brightness - 1) ** 2
with figure(
    "One caption, two right pictures",
    alt="Squared error against brightness from -1 to 1. For a black target it rises from 0 to 4, for a "
    "white one it falls from 4 to 0. Their mean is lowest, 1, at brightness 0, which is grey.",
) as axis:
    axis.plot(brightness, black, "--", label="if black is wanted")
    axis.plot(brightness, white, ":", label="if white is wanted")
    axis.plot(brightness, (black + white) / 2, label="on average", linewidth=3)
    axis.plot(0, 1, "ko", label="the best compromise: grey")
    axis.set(xlabel="brightness drawn (-1 black, 1 white)", ylabel="squared error")
    axis.set_xticks([-1, -0.5, 0, 0.5, 1])
    axis.legend(loc="upper center")

# %% [markdown]
# Grey, which is in no picture of the data. The squared error asks for the *mean* of all right answers, and the mean of
# sharp pictures is a blurred one: lesson 09 draws with it and gets soft edges. Where one answer is right, as in
# restoring a given picture, it is fine.
#
# ## 2 The cross-entropy
#
# The other judge is a network too. A **discriminator** gives each picture a probability $p$ of being real. The **label**
# $t$ is 1 for real pictures and 0 for generated ones. (The article writes the symbol of the generated picture where the
# label belongs; see lesson 17.)
#
# The loss is minus the logarithm of the probability that the *truth* was given. Certainty of the truth costs 0, a half
# $\log 2 = 0.693$, a tenth 2.303, certainty of something false infinitely much:
#
# $$\mathrm{BCE} = -\frac{1}{N} \sum_{i=1}^{N} \big[\, t_i \log p_i + (1 - t_i) \log (1 - p_i) \,\big]$$
#
# With a label of 0 or 1, one of the two terms is switched off. The logarithm is the natural one, so the unit is the nat.
#
# **Predict.** Four pictures get $p$ = 0.9, 0.2, 0.6, 0.5; the labels are 1, 0, 0, 1. Which one costs most?

# %% tags=["nbval-check-output"]
probabilities = torch.tensor([0.9, 0.2, 0.6, 0.5], device=device)
labels = torch.tensor([1.0, 0.0, 0.0, 1.0], device=device)

total = 0.0
for p, label in zip(probabilities.tolist(), labels.tolist(), strict=True):
    cost = -math.log(p) if label == 1 else -math.log(1 - p)
    total += cost
    print(f"p = {p:.1f}, label {label:.0f}: {cost:.4f}")
print(f"mean: {total / 4:.4f}")

# %% [markdown]
# The third: the truth, "fake", got 0.4, and $-\log 0.4 = 0.916$. Now all at once, as the formula stands.


# %% tags=["nbval-check-output"]
def plain_bce(p, t):
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


certain = torch.tensor([1.0, 0.0], device=device)
print(f"four pictures:         {plain_bce(probabilities, labels):.4f}")
print(f"certain, and right:    {plain_bce(certain, certain):.4f}")
print(f"certain, and mistaken: {plain_bce(certain, 1 - certain):.4f}")

# %% [markdown]
# Perfect answers should cost 0, but one of their terms is $0 \cdot \log 0 = 0 \cdot (-\infty)$, which is not a number
# (`nan`). In training, it spoils every weight that it reaches, in one step.
#
# PyTorch stops the logarithm at -100, and so do we. `BinaryCrossEntropy` has this limit, and one for the gradient;
# `require_probabilities` refuses numbers outside [0, 1]: read both in the library. The loss itself:


# %% tags=["lib:losses.bce_loss", "nbval-check-output"]
def bce_loss(input: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of probabilities: two tensors of one shape -> () in nats, at most 100."""
    require_same_shape(input, target)
    require_probabilities("input", input)
    require_probabilities("target", target)
    return BinaryCrossEntropy.apply(input, target).mean()


# %% tags=["nbval-check-output"]
parts = {}
for name, p, t in [("four pictures", probabilities, labels), ("mistaken", certain, 1 - certain)]:
    value, gradient = value_and_gradient(bce_loss, p, t)
    torch_value, torch_gradient = value_and_gradient(F.binary_cross_entropy, p, t)
    parts |= {f"{name}: value": (value, torch_value), f"{name}: gradient": (gradient, torch_gradient)}
compare(parts)

# %% [markdown]
# Equal, limits included. But look at the last row: no training survives a step along a slope of 500,000,000,000. Section
# 3 has the cure.
#
# ### A worked example, computed
#
# The article gives a real picture 0.95 and a generated one 0.05, and reports a loss of 0.025.
#
# **Predict.** In both cases the truth gets 0.95. What do they cost on average?

# %% tags=["nbval-check-output"]
outputs, truth = torch.tensor([0.95, 0.05]), torch.tensor([1.0, 0.0])
print(f"cross-entropy, mean of both: {bce_loss(outputs, truth):.4f}")
print(f"cross-entropy, their sum:    {2 * bce_loss(outputs, truth):.4f}")
print(f"-(0.95 log 0.95 + 0.05 log 0.05) = {-(outputs * outputs.log()).sum():.4f}")

# %% [markdown]
# Each costs $-\log 0.95 = 0.0513$, both together 0.1026. The article's printed expression comes to 0.1985, as in the
# last line, where each probability is its own label. None of the three is 0.025; lesson 17 has the rest.
#
# ## 3 Why logits
#
# A network's last layer gives any real number $l$, the **logit**. The sigmoid squeezes it into a probability:
#
# $$p = \sigma(l) = \frac{1}{1 + e^{-l}}$$
#
# One could take the sigmoid, then `bce_loss`. Let the discriminator be badly mistaken: the pictures are *generated*,
# label 0, but the logits say "real". The true loss is $-\log(1 - \sigma(l)) = \log(1 + e^l)$, nearly $l$ for large $l$.
#
# **Predict.** What will the computed loss be at $l$ = 20? And its slope?

# %% tags=["nbval-check-output"]
rows = []
for number in [0.0, 5.0, 15.0, 20.0, 100.0]:
    logit, label = torch.tensor([[number], [0.0]], device=device)  # each (1,)
    loss, slope = value_and_gradient(lambda x, t: bce_loss(torch.sigmoid(x), t), logit, label)
    rows.append({"logit": logit, "probability": torch.sigmoid(logit), "loss": loss, "slope": slope})
table(rows)

# %% [markdown]
# At 15 the loss is a little off; at 20 it jumps to 100, and the slope falls to 0. Just below 1, numbers of 32 bits are
# 0.00000006 apart, so $\sigma(20)$ is rounded to exactly 1: the probability has forgotten how sure the network was. It is
# as wrong as can be, and no slope tells it so.
#
# The way out is never to compute the probability. Both costs are one function of the logit:
#
# $$-\log \sigma(l) = \log(1 + e^{-l}) = \mathrm{softplus}(-l) \qquad
#   -\log(1 - \sigma(l)) = \log(1 + e^{l}) = \mathrm{softplus}(l)$$
#
# Computed like that, $e^{100}$ overflows. But $\log(1 + e^x) = x + \log(1 + e^{-x})$; so, for both signs:
#
# $$\mathrm{softplus}(x) = \max(x, 0) + \log(1 + e^{-|x|})$$
#
# Now nothing overflows. One trap is left. Take `clamp` for the maximum, and compare the slope with what it should be,
# $\sigma(x)$.


# %% tags=["nbval-check-output"]
def clamped(x):
    return x.clamp(min=0) + torch.log1p(torch.exp(-x.abs()))  # log1p(y): log(1 + y), also for tiny y


x = torch.tensor([-5.0, -1.0, 0.0, 1.0, 5.0], device=device, requires_grad=True)
(slopes,) = torch.autograd.grad(clamped(x).sum(), x)
columns = zip(x, clamped(x), slopes, torch.sigmoid(x), strict=True)
table([{"x": a, "value": b, "slope": c, "sigmoid": d} for a, b, c, d in columns])

# %% [markdown]
# One slope is wrong: at 0 it is 1 and should be 0.5. The maximum has a corner there, where autograd has to choose: 1 for
# `clamp`, 0 for `abs`. A network whose last layer begins with zeros gives the logit 0 to *every* picture. Written as
# $(x + |x|) / 2$, the maximum has the slope $(1 + 0) / 2$ there, which is right. The proof follows, with label 0, at ±100
# too; one logit at a time, because a mean hides small numbers behind large ones.


# %% tags=["lib:losses.softplus", "lib:losses.bce_with_logits", "nbval-check-output"]
def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), element by element; its slope is sigmoid(x), and it is finite for every finite x."""
    size = x.abs()
    # max(x, 0) as (x + |x|) / 2, because its slope at 0 must be 1/2 and clamp's is 1
    return (x + size) / 2 + torch.log1p(torch.exp(-size))


def bce_with_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of raw scores: two tensors of one shape -> () in nats."""
    require_same_shape(logits, targets)
    require_probabilities("targets", targets)
    return (targets * softplus(-logits) + (1 - targets) * softplus(logits)).mean()


# %% tags=["nbval-check-output"]
parts = {}
for number in [-100.0, -1.0, 0.0, 20.0, 100.0]:
    logit, label = torch.tensor([[number], [0.0]], device=device)
    value, slope = value_and_gradient(bce_with_logits, logit, label)
    torch_value, torch_slope = value_and_gradient(F.binary_cross_entropy_with_logits, logit, label)
    parts[f"loss at {number:g}"] = value, torch_value
    parts[f"slope at {number:g}"] = slope, torch_slope
compare(parts)

# %% [markdown]
# At 20 the loss is 20 and its slope 1, where it was 100 and 0. ("Close" means: equal up to rounding.) The slope has a
# short formula, $\sigma(l) - t$, the probability minus the label: the more wrong, the steeper, and never beyond ±1.
#
# **Predict.** What about the squared error of the probability, $(\sigma(l) - t)^2$? Sketch its slope for label 1.

# %% tags=["nbval-check-output"]
logits = torch.linspace(-8, 8, 161, requires_grad=True)
costs = {"cross-entropy": softplus(-logits), "squared error": (torch.sigmoid(logits) - 1) ** 2}
with figure(
    "A real picture (label 1): what each loss says",
    alt="Two panels over the logit from -8 to 8. Left: cross-entropy falls from 8 to 0, squared error from "
    "1 to 0. Right: the slope of cross-entropy rises from -1 to 0; that of the squared error is near 0 at "
    "both ends and reaches only -0.3 between.",
    columns=2,
) as (left, right):
    for (name, cost), dash in zip(costs.items(), ("-", "--"), strict=True):
        left.plot(logits.detach(), cost.detach(), dash, label=name)
        right.plot(logits.detach(), torch.autograd.grad(cost.sum(), logits)[0], dash, label=name)
    for panel, name in ((left, "loss"), (right, "slope of the loss")):
        panel.set(xlabel="logit (left: mistaken, right: correct)", ylabel=name, xticks=range(-8, 9, 4))
    left.legend(loc="upper right")

# %% [markdown]
# At the far left the network is sure and mistaken. The cross-entropy pulls with its full slope of -1; the squared error
# hardly pulls, because the sigmoid is flat there. So: squared error for pixels, cross-entropy for yes-no answers.
#
# In the explorer you move both yourself. **Predict**, then look: a logit of -100, which slopes are left?

# %% tags=["explorer"]
from course_lib.widgets import loss_explorer

loss_explorer()

# %% [markdown]
# -1 for the cross-entropy; for the squared error a number too small to be written in 32 bits: exactly 0.
#
# ## 4 The two players of a GAN
#
# A GAN (lesson 10) has two networks. The **discriminator** D tells real pictures from generated ones; the **generator**
# G draws pictures that D takes for real. Each makes a loss of its own small.
#
# D's is the cross-entropy of the real pictures, label 1, plus that of the fakes, label 0. The last three lines are for a
# D that reads captions (lesson 11): a real picture with a *wrong* caption counts as fake too.
#
# **Predict.** What is D's loss when it has no idea and gives every picture the logit 0?


# %% tags=["lib:losses.discriminator_loss", "nbval-check-output"]
def discriminator_loss(
    real_logits: Tensor,
    fake_logits: Tensor,
    wrong_logits: Tensor | None = None,
    wrong_mask: Tensor | None = None,
) -> Tensor:
    """Call real pictures real, fakes and wrong captions fake: logits (B,) each -> () in nats."""
    real, fake = softplus(-real_logits).mean(), softplus(fake_logits).mean()
    if wrong_logits is None:
        return real + fake
    counts = torch.ones_like(wrong_logits) if wrong_mask is None else wrong_mask.to(wrong_logits)
    wrong = (softplus(wrong_logits) * counts).sum() / counts.sum().clamp(min=1)
    return real + (fake + wrong) / 2


# %% tags=["nbval-check-output"]
no_idea = torch.zeros(16, device=device)
print(f"no idea:         {discriminator_loss(no_idea, no_idea):.4f}, and 2 log 2 = {2 * math.log(2):.4f}")
print(f"sure and right:  {discriminator_loss(no_idea + 4, no_idea - 4):.4f}")
print(f"sure and wrong:  {discriminator_loss(no_idea - 4, no_idea + 4):.4f}")

# %% [markdown]
# Remember 1.386: either D learns nothing, or G has become so good that nothing can be told apart.
#
# ### The generator's loss
#
# G wants the opposite. One can take D's term for the fakes with the other sign, $\log(1 - \sigma(l))$: the original game.
# It is called **saturating**. Or one can ask for the label 1, $-\log \sigma(l)$, **non-saturating**. Both fall as $l$
# grows; they differ in how fast. A third way, **hinge**, does without the logarithm: its D stops pushing once a real
# logit is above 1 and a fake one below -1.


# %% tags=["lib:losses.saturating_generator_loss", "lib:losses.generator_loss", "lib:losses.hinge_discriminator_loss", "lib:losses.hinge_generator_loss", "nbval-check-output"]
def saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """The original game, log(1 - sigmoid(logit)): (B,) -> ()."""
    return -softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating, -log(sigmoid(logit)): (B,) -> ()."""
    return softplus(-fake_logits).mean()


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Pushes real logits above 1 and fake ones below -1, and then lets them be: two times (B,) -> ()."""
    return torch.relu(1 - real_logits).mean() + torch.relu(1 + fake_logits).mean()


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """Raises the fakes' logits, equally everywhere: (B,) -> ()."""
    return -fake_logits.mean()


# %% [markdown]
# **Predict.** Early in training every fake is found out, say with the logit -6. Which loss of G is flat there?

# %% tags=["nbval-check-output"]
fakes = torch.linspace(-6, 6, 121, requires_grad=True)
names = ["non-saturating", "saturating", "hinge"]
slopes = {}
for name, loss in zip(names, [generator_loss, saturating_generator_loss, hinge_generator_loss], strict=True):
    (slope,) = torch.autograd.grad(loss(fakes) * len(fakes), fakes)  # undo the mean's 1 / B
    slopes[name] = slope.abs()
lines(
    fakes,
    slopes,
    "How hard each loss pulls the generator",
    ("D's logit of the fake (left: found out, right: passes for real)", "size of the slope"),
    alt="Size of the slope against D's logit of a fake. Non-saturating falls from 1 to 0, saturating rises "
    "from 0 to 1; they cross at logit 0 and height 0.5. Hinge is 1 everywhere.",
    ylim=(0, 1.1),
)

# %% [markdown]
# The saturating one: at -6 its slope is $\sigma(-6) = 0.0025$, that of the other 0.9975, 400 times as much, exactly when
# G needs it. Goodfellow and others saw this in the first paper on GANs (section 3) and proposed the second form, which
# we use.
#
# ### The total, and whose it is
#
# A generator may have a second wish, such as to reproduce a given picture. Then its loss is a weighted sum; the weight
# is a choice, because the parts have different units.


# %% tags=["lib:losses.total_loss", "nbval-check-output"]
def total_loss(adversarial: Tensor, reconstruction: Tensor, weight: float) -> Tensor:
    """adversarial + weight * reconstruction, each ()."""
    return adversarial + weight * reconstruction


# %% tags=["nbval-check-output"]
adversarial, reconstruction = generator_loss(no_idea), mse_loss(drawn, wanted)
table([{"weight": w, "total": total_loss(adversarial, reconstruction, w)} for w in (0.0, 0.1, 1.0, 10.0)])

# %% [markdown]
# The losses of G and D are *not* to be added and minimised together, as the article proposes: what D gains, G loses.
# Lesson 10 tries it; lesson 17 lists it.
#
# The rest of `losses.py` waits for later lessons; read it in the library when it comes up: `cross_entropy` for many
# classes (07), `contrastive_loss` between pictures and captions (08), `relativistic_discriminator_loss`,
# `relativistic_generator_loss` and the gradient penalty `r1_penalty` (10 and 12), `mode_seeking_loss` against drawing one
# picture for each caption (11).
#
# ## What changed in the library
#
# The room `losses.py` is furnished. All training from here on ends in one of its functions.
#
# ## Three questions
#
# 1. A discriminator's loss is 0.0001 from the first hundred steps on. Is that good?
#
# <details><summary>Answer</summary>
#
# For D alone. Every fake is found out, and a judge that sees no difference between a bad fake and a slightly better one
# has little to teach G.
#
# </details>
#
# 2. Why is -log 0.5 the cost of "no idea", and not 0.5?
#
# <details><summary>Answer</summary>
#
# The loss is minus the logarithm of what the truth was given. Costs of independent answers then add up as their
# probabilities multiply: two coin flips, a quarter, cost twice as much.
#
# </details>
#
# 3. Labels may lie between 0 and 1. What is the least cross-entropy for the label 0.9, and at which probability?
#
# <details><summary>Answer</summary>
#
# The slope $\sigma(l) - t$ is 0 at $p$ = 0.9. The loss there is not 0 but $-(0.9 \log 0.9 + 0.1 \log 0.1) = 0.325$: the
# entropy of the label itself.
#
# </details>
#
# ## Papers
#
# - Ian Goodfellow and others (2014), *Generative Adversarial Networks*: the game, its loss (eq. 1) and the
#   non-saturating form (section 3). [arXiv:1406.2661](https://arxiv.org/abs/1406.2661)
# - Scott Reed and others (2016), *Generative Adversarial Text to Image Synthesis*: the wrong caption in D's loss.
#   [arXiv:1605.05396](https://arxiv.org/abs/1605.05396)
# - Jae Hyun Lim and Jong Chul Ye (2017), *Geometric GAN*: the hinge loss. [arXiv:1705.02894](https://arxiv.org/abs/1705.02894)
# - Takeru Miyato and others (2018), *Spectral Normalization for Generative Adversarial Networks*: the hinge pair as
#   used here. [arXiv:1802.05957](https://arxiv.org/abs/1802.05957)
#
# Next: lesson 04 follows these slopes downhill.
