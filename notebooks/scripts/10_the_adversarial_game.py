# %% [markdown]
# # 10 · The adversarial game
#
# **You will build** `course_lib/gan.py`: a generator and a discriminator that learn by playing against each other.
# First with three letters and a pencil, then with points whose every move you can watch, then with pictures. On the way
# you diagnose four games that went wrong.
#
# **You need** the losses of both players (lesson 03), Adam (04), transposed convolutions and initialisation (05).
#
# **Time**: 75 minutes of reading and thinking; the computer needs about a minute.
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
#   class c00,c01,c02,c03,c04,c05,c06,c07,c08,c09 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c10 lit
# ```

# %% tags=["nbval-check-output"]
import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import Module, ModuleList

from course_lib.data import CaptionedShapes
from course_lib.gan import AdversarialStep, DCGANConfig, DCGANDiscriminator, DCGANGenerator, mixture_1d
from course_lib.layers import Linear, init_kaiming_, leaky_relu
from course_lib.lesson import animate, compare, figure, lines, pictures, setup, table
from course_lib.losses import discriminator_loss, generator_loss, saturating_generator_loss
from course_lib.optim import Adam

device = setup()

# %% [markdown]
# ## 1 The best answer of the discriminator
#
# The data are letters: half of them A, a quarter B, a quarter C. A forger, the generator G, writes letters too, with
# other frequencies. The discriminator D gets one letter, from the data or from G with equal chance, and says how
# probable it is that it is real.
#
# | letter | A | B | C |
# |---|---|---|---|
# | share $p$ in the data | 0.50 | 0.25 | 0.25 |
# | share $q$ of the forger | 0.25 | 0.25 | 0.50 |
#
# D's loss is that of lesson 03. If it says $d$ for a letter, that letter costs it $-p \log d - q \log (1 - d)$ on
# average: the first term when the letter is real, the second when it is forged.
#
# **Predict.** Which $d$ is the cheapest for each letter? The loop tries 98 values.

# %% tags=["nbval-check-output"]
p, q = torch.tensor([0.5, 0.25, 0.25]), torch.tensor([0.25, 0.25, 0.5])
rows = []
for letter, real, forged in zip("ABC", p.tolist(), q.tolist(), strict=True):
    costs = {n / 99: -real * math.log(n / 99) - forged * math.log(1 - n / 99) for n in range(1, 99)}
    best = min(costs, key=costs.get)
    rows.append(
        {"letter": letter, "best d": best, "p / (p + q)": real / (real + forged), "cost": costs[best]}
    )
table(rows)

# %% [markdown]
# The cheapest answer is the share of real ones among all letters of that kind (for B, 1/2 lies just between two of the
# values tried). The slope of the cost says why: it is $-p/d + q/(1-d)$, which is 0 at
#
# $$D^*(x) = \frac{p(x)}{p(x) + q(x)} \qquad \text{and the logit of that is} \qquad \log \frac{p(x)}{q(x)}$$
#
# So the best D measures a ratio of frequencies (Goodfellow and others 2014, proposition 1), and its loss measures how
# far forger and data are apart: it is $2 \log 2$ minus twice the **Jensen-Shannon divergence** (JSD). That is the mean
# of two KL divergences (lesson 09), from $p$ and from $q$ to their average; it is 0 only if $p = q$.
#
# **Predict.** What does the best D say, and what does it pay, once the forger is perfect?


# %% tags=["nbval-check-output"]
def loss_of_best(p, q):
    d = p / (p + q)
    return -(p * d.log() + q * (1 - d).log()).sum()


middle, logits = (p + q) / 2, (p / q).log()
divergence = ((p * (p / middle).log()).sum() + (q * (q / middle).log()).sum()) / 2
four_real, four_forged = logits[[0, 0, 1, 2]], logits[[0, 1, 2, 2]]  # A A B C and A B C C
parts = {"loss of lesson 03": (discriminator_loss(four_real, four_forged), loss_of_best(p, q))}
parts["2 log 2 - 2 JSD"] = 2 * math.log(2) - 2 * divergence, loss_of_best(p, q)
parts["perfect forger: 2 log 2"] = torch.tensor(2 * math.log(2)), loss_of_best(p, p)
compare(parts)

# %% [markdown]
# With a perfect forger every answer is 1/2 and the loss is 1.386: the *highest* that the best D can have. G plays to
# raise this number, D to lower it, and the game is over where neither can gain: $q = p$ and $D = 1/2$. A popular
# article says that both together minimise the sum of their losses. Section 5 does that, to see what comes of it; lesson
# 17 lists it.
#
# (The article also mixes up "adversarial" and "self-supervised". In self-supervised training, lessons 06 and 07, the
# data give the targets; here each player is the other one's target.)
#
# ### From letters to points
#
# On a line nothing can be counted: no place occurs twice. So D becomes a network and learns the ratio from examples.
# Both players are stacks of linear layers. Unlike in lesson 05, their biases do not begin at zero: with zeros, the
# kinks of all leaky ReLUs of the first layer pass through the origin, and the function can bend nowhere else before it
# has learned them.


# %% tags=["lib:gan.MLP", "nbval-check-output"]
class MLP(Module):
    """Linear layers with leaky ReLUs between: (B, sizes[0]) -> (B, sizes[-1])."""

    def __init__(self, sizes: Sequence[int], initialise: bool):
        super().__init__()
        self.layers = ModuleList(Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        if initialise:
            init_kaiming_(self, negative_slope=0.2)
            for layer in self.layers[:-1]:
                layer.bias.data.uniform_(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(B, sizes[0]) -> (B, sizes[-1])."""
        for layer in self.layers[:-1]:
            x = leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)


# %% tags=["lib:gan.MLPGenerator", "lib:gan.MLPDiscriminator", "nbval-check-output"]
class MLPGenerator(MLP):
    """Noise to points."""

    def __init__(
        self, z_size: int = 2, size: int = 2, hidden: int = 64, layers: int = 2, initialise: bool = True
    ):
        super().__init__([z_size, *[hidden] * layers, size], initialise)
        self.z_size = z_size


class MLPDiscriminator(MLP):
    """Points (B, size) to logits (B,); arguments as for `MLPGenerator`."""

    def __init__(self, size: int = 2, hidden: int = 64, layers: int = 2, initialise: bool = True):
        super().__init__([size, *[hidden] * layers, 1], initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, size) -> logits (B,)."""
        return super().forward(x)[:, 0]


# %% [markdown]
# The data, `mixture_1d`, lie in three heaps at -2, 0 and 2. First G stands still: it draws from a normal distribution
# around 0.5. Then $q$ is known, and with it $D^*$. D gets nothing but points. **Predict.** Where will it miss the
# formula most?


# %%
def bell(x, mean, std):
    return torch.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(math.tau))


def data_density(x):
    return sum(bell(x, mean, 0.4) for mean in (-2.0, 0.0, 2.0)) / 3


random, D = torch.Generator().manual_seed(0), MLPDiscriminator(size=1).to(device)
optimizer = Adam(D.parameters(), 4e-3, (0.5, 0.99))
for _ in range(600):
    real, forged = mixture_1d(512, random, std=0.4), 0.5 + torch.randn(512, 1, generator=random)
    loss = discriminator_loss(D(real.to(device)), D(forged.to(device)))
    optimizer.zero_grad(), loss.backward(), optimizer.step()

# %%
x = torch.linspace(-4, 4, 401)
p_line, q_line = data_density(x), bell(x, 0.5, 1.0)
formula, weight = p_line / (p_line + q_line), (p_line + q_line) * 0.02 / 2  # 0.02: from one x to the next
learned = torch.sigmoid(D(x[:, None].to(device))).detach().cpu()
lines(
    x,
    {"data p": p_line, "forger q": q_line, "p / (p + q)": formula, "D learned": learned},
    "D finds the formula by itself",
    ("place on the line", "density, or probability of real"),
    alt="Over the line from -4 to 4: the data's density with three heaps, the forger's single bell, the "
    "formula p / (p + q) with three hills, and what D learned, which follows it wherever there are points.",
)
print(f"mean gap: {((learned - formula).abs() * weight).sum():.2f}")
print(f"loss of the formula: {loss_of_best(p_line, q_line) * 0.02:.2f}, of D on its last points: {loss:.2f}")
assert ((learned - formula).abs() * weight).sum() < 0.15

# %% [markdown]
# Nobody told D a formula. Minimising the cross-entropy *is* estimating the ratio $p/q$. The two curves differ where the
# hills are steep, because a small network is smooth, and at the ends, where hardly any point falls. Lesson 14 uses
# this: a logit that estimates $\log p/q$ can say how to improve a drawing.
#
# ## 2 Two answers make a round
#
# G does not know $p$ either. Its only teacher is the slope of D's logit at each point it forged: which way must the
# point move so that D takes it for real? A round has two answers:
#
# 1. D answers: a step down `discriminator_loss`. The forged points are detached, so that G stands still.
# 2. G answers: a step down `generator_loss`, *through* D, whose weights stand still.
#
# The library's `AdversarialStep` is the function below with switches: other losses (`GAN_LOSSES`), gradient penalties
# (lesson 12), unequal numbers of answers. Read it now; it is the heart of the module. Both play five rounds from the
# same weights and the same noise:


# %% tags=["nbval-check-output"]
def play_round(real):
    forged = G(torch.randn(len(real), 2, generator=random).to(device)).detach()
    loss_d = discriminator_loss(D(real), D(forged))
    optimizers[1].zero_grad(), loss_d.backward(), optimizers[1].step()
    loss_g = generator_loss(D(G(torch.randn(len(real), 2, generator=random).to(device))))
    optimizers[0].zero_grad(), loss_g.backward(), optimizers[0].step()


G, D = MLPGenerator(2, 1).to(device), MLPDiscriminator(1).to(device)
optimizers = [Adam(player.parameters(), 1e-3, (0.5, 0.99)) for player in (G, D)]
game = AdversarialStep(copy.deepcopy(G), copy.deepcopy(D), learning_rates=(1e-3, 1e-3), seed=5)
real, random = mixture_1d(64, random).to(device), torch.Generator().manual_seed(5)
for _ in range(5):
    play_round(real), game(real)
compare({"G's last bias": (G.layers[-1].bias, game.generator.layers[-1].bias)})

# %% [markdown]
# ### The game on a line
#
# Now 400 rounds. Now and then a snapshot is kept: where 4000 of G's points fall, and what D says.
#
# **Predict.** Which shape will D's curve have at the end?

# %%
torch.manual_seed(0)
players = MLPGenerator(2, 1).to(device), MLPDiscriminator(1).to(device)
game = AdversarialStep(*players, learning_rates=(1e-3, 2e-3), r1_weight=0.05)
random, log, snapshots = torch.Generator().manual_seed(0), [], []
bins = torch.linspace(-3.95, 3.95, 80)  # middles of a histogram's 80 bins
for number in range(401):
    if number % (10 if number < 100 else 25) == 0:
        with torch.no_grad():
            density = torch.histc(game.fake(4000).cpu(), 80, -4, 4) / 4000 / 0.1
            says = torch.sigmoid(game.discriminator(x[:, None].to(device))).cpu()
        snapshots.append((number, density, says))
    log.append(game(mixture_1d(128, random, std=0.4).to(device)))


# %%
def draw_line(axis, snapshot):
    number, density, says = snapshot
    p_bins, seen = data_density(bins), data_density(bins) + density > 0.03
    axis.fill_between(bins, density, step="mid", color="#56B4E9", label="G's points")
    axis.plot(x, p_line, "k", label="data p")
    axis.plot(
        bins[seen], (p_bins / (p_bins + density))[seen], "o", ms=3, color="#D55E00", label="p / (p + q)"
    )
    axis.plot(x, says, "--", color="#009E73", label="D: probability of real")
    axis.set(xlabel="place on the line", ylabel="density, probability", xlim=(-4, 4), ylim=(0, 1.3))
    axis.set_title(f"after {number} rounds", loc="left")
    axis.legend(loc="upper center", ncols=2)


alt = """Animation of 400 rounds. G's points begin as one heap at the left and spread under the three bells of
the data. D's curve and the dots of p / (p + q), high where G draws nothing, come down to about 1/2."""
animate(snapshots, draw_line, "A GAN on a line", alt)

# %% [markdown]
# Watch three things. G's heap flows to where D's curve is high. D answers: the curve sinks where G has become too
# frequent, as the dots say it should, which are $p/(p+q)$ with the histogram for $q$. At the end both are near 1/2
# wherever there are points. But they do not come to rest: who chases the other goes on circling.
#
# **Predict.** Draw D's and G's losses over these 400 rounds.

# %%
values = {name: torch.tensor([entry[name] for entry in log]) for name in ("loss_d", "loss_g")}
smooth = {name: value.unfold(0, 20, 1).mean(1) for name, value in values.items()}  # means of 20 rounds
level, curves = torch.ones(382), {"D's loss": smooth["loss_d"], "G's loss": smooth["loss_g"]}
lines(
    torch.arange(20, 402),
    curves | {"2 log 2": 1.386 * level, "log 2": 0.693 * level},
    "Neither loss goes down",
    ("round", "loss in nats, mean of 20 rounds"),
    alt="Losses over 400 rounds. D's stays close to the line at 1.386, G's close to that at 0.693.",
    ylim=(0, 1.6),
)
overlap = {number: torch.minimum(density, data_density(bins)).sum() * 0.1 for number, density, _ in snapshots}
print("overlap at round", ", ".join(f"{n}: {overlap[n]:.2f}" for n in (0, 50, 100, 200, 400)))
assert 1.25 < smooth["loss_d"][-1] < 1.5 and overlap[200] > overlap[0] + 0.1

# %% [markdown]
# D's loss begins near 1.386, because it knows nothing, and ends there, because there is nothing to know. G's stays near
# $-\log 1/2 = 0.693$. Meanwhile the overlap of G's points with the data (1: the same) rose from 0.39 to above 0.7. In
# every lesson so far a falling loss meant progress. Here it means that one player is ahead: **judge a GAN by what it
# draws.**
#
# ## 3 When D is sure: two losses for G
#
# Lesson 03 gave G two losses: the **saturating** $\log(1 - D)$, the original game, and the **non-saturating** $-\log
# D$. Both are smallest at $D = 1$. Here are both and their slopes, over the logit that D gives a forged point.

# %%
logits = torch.linspace(-6, 6, 241, requires_grad=True)
losses = {"non-saturating": generator_loss, "saturating": saturating_generator_loss}
with figure(
    "The same goal, another slope",
    alt="Two panels over D's logit of a forgery. Left, both losses fall: the non-saturating one steeply at "
    "the left edge, where the saturating one is flat. Right, the sizes of their slopes, which cross at 0.",
    columns=2,
) as (left, right):
    for (name, loss), dash in zip(losses.items(), ("-", "--"), strict=True):
        each = torch.stack([loss(logit) for logit in logits])
        left.plot(logits.detach(), each.detach(), dash, label=name)
        right.plot(logits.detach(), torch.autograd.grad(each.sum(), logits)[0].abs(), dash, label=name)
    left.set(xlabel="D's logit (left: found out)", ylabel="G's loss in nats")
    right.set(xlabel="D's logit (left: found out)", ylabel="size of the slope")
    left.legend(loc="upper right")

# %% [markdown]
# At the left edge, where every forgery is found out, the saturating loss is flat. Does it matter in a network? There
# D's own slope comes in too. So: G stands still at its first weights, D learns to tell it from a ring of eight heaps on
# a plane (the next cell draws it), and before each of D's steps we measure the length of the gradient that reaches G's
# weights.
#
# **Predict.** After 200 steps of D, by what factor do the two differ?


# %% tags=["lib:gan.ring_centers", "lib:gan.ring_of_gaussians", "lib:gan.covered_modes", "nbval-check-output"]
def ring_centers(modes: int = 8, radius: float = 2.0) -> Tensor:
    """The middles of the heaps of `ring_of_gaussians`: (modes, 2)."""
    angle = torch.arange(modes) * (math.tau / modes)
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1)


def ring_of_gaussians(
    n: int, random: torch.Generator, modes: int = 8, radius: float = 2.0, std: float = 0.1
) -> Tensor:
    """Points of a plane in round heaps on a ring: the classical test for mode collapse."""
    heap = torch.randint(modes, (n,), generator=random)
    return ring_centers(modes, radius)[heap] + std * torch.randn(n, 2, generator=random)


def covered_modes(points: Tensor, centers: Tensor, std: float = 0.1) -> tuple[int, float]:
    """How many heaps a generator found, and how many of its points lie in one."""
    inside = torch.cdist(points, centers) < 3 * std  # (N, M)
    shares = inside.float().mean(0)  # (M,)
    return int((shares >= 0.25 / len(centers)).sum()), inside.any(1).float().mean().item()


# %%
torch.manual_seed(0)
G, D = MLPGenerator(initialise=False).to(device), MLPDiscriminator().to(device)
optimizer, random = Adam(D.parameters(), 4e-3, (0.5, 0.99)), torch.Generator().manual_seed(0)
pull = {name: [] for name in losses}
for _ in range(201):
    real = ring_of_gaussians(256, random).to(device)
    forged = G(torch.randn(256, 2, generator=random).to(device))
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss(D(forged)), [*G.parameters()], retain_graph=True)
        pull[name].append(torch.cat([gradient.flatten() for gradient in gradients]).norm().item())
    loss_d = discriminator_loss(D(real), D(forged.detach()))
    optimizer.zero_grad(), loss_d.backward(), optimizer.step()

# %%
lines(
    range(201),
    pull,
    "What still reaches G while D learns",
    ("steps of D (G stands still)", "length of G's gradient"),
    alt="Length of the gradient at G's weights over 200 steps of D, logarithmic. Non-saturating: it grows to "
    "about 5. Saturating: it falls from about 1 to less than 0.01.",
    yscale="log",
)
ratio = sum(pull["non-saturating"][-20:]) / sum(pull["saturating"][-20:])
print(
    f"D's loss at the end: {loss_d:.4f}. Mean of the last 20 steps: a factor of {ratio:.0f} between the two"
)
assert ratio > 50

# %% [markdown]
# The better the teacher, the less the saturating loss hears of it; the other one hears it louder. This is the
# **vanishing gradient** of GANs, which the article leaves out (lesson 17): the original loss starves G exactly when D
# is sure.
#
# Adam hides it for a while: it divides each gradient by its usual size (lesson 04), so a small one that stays small
# makes steps of full length, down to about $10^{-8}$, Adam's `eps`. But when a gradient keeps shrinking, the average
# that Adam divides by lags behind and is too large: the steps shrink too.
#
# ## 4 A ring, and how to count what is missing
#
# The ring is the classical test of whether G finds *all* of the data. `covered_modes` counts: a heap is found if at
# least a quarter of its fair share of points lies within three standard deviations of its middle.
#
# `play` runs a game and keeps the losses and 500 points of every round. Both players begin with PyTorch's own random
# weights (`initialise=False`): for two layers they are good enough, and G then begins as one small heap.


# %%
def play(rounds, layers=2, initialise=False, learning_rates=(2e-3, 4e-3), **settings):
    torch.manual_seed(0)
    kinds = (MLPGenerator, MLPDiscriminator)
    players = [kind(layers=layers, initialise=initialise).to(device) for kind in kinds]
    game = AdversarialStep(*players, learning_rates=learning_rates, **settings)
    random, log = torch.Generator().manual_seed(0), []
    for _ in range(rounds):
        entry = game(ring_of_gaussians(128, random).to(device))
        with torch.no_grad():
            log.append(entry | {"points": game.fake(500).cpu()})
    return game, log


healthy, healthy_log = play(800, r1_weight=0.01)

# %%
target = ring_of_gaussians(400, torch.Generator().manual_seed(1))


def draw_ring(axis, number):
    points = healthy_log[number]["points"]
    found, good = covered_modes(points, ring_centers())
    axis.scatter(*target.T, s=6, color="#bbbbbb", label="data")
    axis.scatter(*points.T, s=6, color="#0072B2", label="G's points")
    axis.set(xlabel="first coordinate", ylabel="second coordinate", xlim=(-3, 3), ylim=(-3, 4))
    axis.set_title(f"round {number + 1}: {found} heaps, {good:.0%} of the points", loc="left", fontsize=10)
    axis.legend(loc="upper center", ncols=2)


alt = """Animation of 800 rounds. G's points begin as a small heap in the middle, open into a cloud and gather
in the eight heaps of the ring, with thin bridges between them."""
animate([*range(0, 100, 8), *range(100, 800, 40), 799], draw_ring, "A GAN on a ring", alt, size=(4.5, 5.1))
found, good = covered_modes(torch.cat([entry["points"] for entry in healthy_log[-4:]]), ring_centers())
print(f"{found} of 8 heaps found; {good:.0%} of the points lie in one")
assert found >= 5 and good > 0.3

# %% [markdown]
# All the data are found, though a good part of the points lies on bridges: G is continuous, and must stretch its noise
# from heap to heap.
#
# ## 5 The failure museum
#
# Four patients. Each plays the same game with one thing gone wrong (and learning rates that show it soon). You get their
# curves first; a table further down tells who has what. It is one each of these:
#
# - **Mode collapse**: G answers ten times a round, D once.
# - **Dominant D**: D answers ten times a round and learns faster, and G has the saturating loss.
# - **Missing initialisation**: eight layers in place of two, and `init_kaiming_` was forgotten.
# - **One common loss**: both players minimise $L_D + L_G$.

# %%
switches = [
    {"generator_steps": 10, "learning_rates": (4e-3, 4e-3)},
    {"discriminator_steps": 10, "loss": "saturating", "learning_rates": (2e-4, 4e-3)},
    {"layers": 8, "learning_rates": (5e-4, 1e-3)},
    {"joint": True},
]
order = torch.randperm(4, generator=torch.Generator().manual_seed(1)).tolist()  # nobody knows yet
patients = {name: play(150, **switches[i]) for name, i in zip("ABCD", order, strict=True)}

# %%
alt = """Four patients, A to D. Upper row, losses over 150 rounds. A: both are 0 from the start. B: both come
to 0.69 and stay. C: D's stays at 1.386 for ten rounds, then both jump. D: a wild start, then 1.4 and 0.7.
Lower row, G's points at rounds 50, 100 and 150. A: one heap that never moves. B: one dot. C: thin lines in
different places. D: a blob that wanders."""
with figure("Four patients", alt, columns=4, rows=2, size=(9, 5)) as axes:
    for (name, (_, log)), (above, below) in zip(patients.items(), axes.T, strict=True):
        for key, dash in (("loss_d", "-"), ("loss_g", "--")):
            above.plot([entry[key] for entry in log], dash, label=f"L_{key[-1].upper()}", linewidth=1.3)
        above.set(title=f"patient {name}", xlabel="round", ylabel="loss", ylim=(-1, 5), xticks=(0, 75, 150))
        below.scatter(*target.T, s=2, color="#cccccc")
        for number, colour in ((50, "#E69F00"), (100, "#009E73"), (150, "#0072B2")):
            below.scatter(*log[number - 1]["points"].T, s=3, color=colour, label=f"{number}")
        below.set(xlabel="first", ylabel="second", xlim=(-3, 3), ylim=(-3, 3))
    axes[0, 0].legend(loc="upper right")
    axes[1, 0].legend(title="round", loc="upper right", fontsize=7, markerscale=3)

# %% [markdown]
# **Predict.** Which patient has what? Two hints. A healthy game ends near 1.39 and 0.69, but so may others: look at the
# points as well. And look at the very first rounds: does D see any difference at all?
#
# <details><summary>Patient A</summary>
#
# Both losses are 0 within a few rounds, and the heap stays where it began. D is certain of every point, and
# $\log(1 - D)$ is flat there: the dominant D of section 3. A loss of 0 looks like success; it is the end of learning.
#
# </details>
#
# <details><summary>Patient B</summary>
#
# Both losses are *equal*, at 0.69 = log 2, and all points are one dot. At the end of a fair game D pays log 2 twice,
# for the real points and for the forged ones: 1.39. Here it pays once. It knows the real points for certain, so it
# could know the forged ones too; yet it says 1/2 to them, as if it were paid to. It is: one common loss.
#
# </details>
#
# <details><summary>Patient C</summary>
#
# In the first rounds D's loss is 1.386, which looks like a perfect equilibrium. But nothing has been learned yet: all
# points, real or forged, get the same logit. The signal has died on its way through the layers. Later the points lie on
# a line: of two dimensions of noise one got through. Missing initialisation.
#
# </details>
#
# <details><summary>Patient D</summary>
#
# The losses end near the healthy values, and D is indeed right to be unsure: the points *are* sometimes where data are.
# But they are in one place at a time, and move on when D has caught up. Mode collapse: no loss shows it, only the
# points do.
#
# </details>

# %%
names = ["mode collapse", "dominant D", "missing initialisation", "one common loss"]
rows = [{"patient": "healthy", "what was changed": "nothing"}]
rows += [{"patient": name, "what was changed": names[i]} for name, i in zip("ABCD", order, strict=True)]
for row in rows:
    game, log = patients.get(row["patient"], (healthy, healthy_log))
    points, last = log[-1]["points"], log[-10:]
    row |= {f"L_{key[-1].upper()}": sum(entry[key] for entry in last) / 10 for key in ("loss_d", "loss_g")}
    row |= {"spread": points.std(0).norm(), "heaps": covered_modes(points, ring_centers())[0]}
table(rows)
assert all(row["heaps"] <= 3 for row in rows[1:]) and rows[1]["spread"] < 0.5 and rows[2]["spread"] < 0.5

# %% [markdown]
# (Losses: means of the last ten rounds. Spread: the standard deviation of the points; the data have 2.)
#
# Mode collapse and the common loss are cured by the plain game of section 4. For the
# other two, the same settings again: C with `initialise=True`, A with the non-saturating loss and the *same* strong D.

# %%
_, strong = play(150, discriminator_steps=10, learning_rates=(2e-4, 4e-3))  # non-saturating, the default
_, deep = play(300, layers=8, initialise=True, learning_rates=(5e-4, 1e-3))
rows = []
for name, log in {"strong D, non-saturating": strong, "8 layers, initialised": deep}.items():
    points = log[-1]["points"]
    rows.append(
        {"cure": name, "spread": points.std(0).norm(), "heaps": covered_modes(points, ring_centers())[0]}
    )
table(rows)
assert rows[0]["spread"] > 0.6 and rows[1]["spread"] > 1.2

# %% [markdown]
# The non-saturating loss gets G off its place, though a D that strong is no good teacher. With its start given back,
# the deep network plays like the others. Eight layers without it had lost the signal; two layers did well without.
#
# The explorer is the same game, live. Press Start; then open the museum and cure a patient while it plays. **Predict.**
# The dominant D has both losses at 0. Change the loss to non-saturating: what will G's loss do, before G itself moves?

# %% tags=["explorer"]
from course_lib.widgets import gan_arena

gan_arena()

# %% [markdown]
# It leaps from 0 to more than 20. D is as sure as before; but $-\log D$ is steep where $\log(1 - D)$ is flat, and soon G
# leaves its place. Look at mode collapse, too: its losses, 1.4 and 0.7, are those of a healthy game, while G covers one
# mode or none, by turns. In the healthy game the modes are found after round 100, one after the other.
#
# ### Why the sum is not the game
#
# Look at what the sum $L_D + L_G$ asks of one forgery with the logit $l$, as in lesson 03 written with softplus:
#
# - saturating: $\mathrm{softplus}(l) - \mathrm{softplus}(l) = 0$. The forgeries cancel out of it. G is in it no more.
# - non-saturating: $\mathrm{softplus}(l) + \mathrm{softplus}(-l)$, least at $l = 0$, whatever the forgery looks like.
#
# **Predict.** Where do D's probabilities for real and forged points end, in the two sums and in the healthy game?

# %%
joint = {name: play(150, joint=True, loss=name) for name in losses}
rows = []
for name, (game, log) in {**joint, "no sum: the healthy game": (healthy, healthy_log)}.items():
    with torch.no_grad():
        reals, forgeries = (game.discriminator(t.to(device)) for t in (target, log[-1]["points"]))
    row = {"sum": name, "D(real)": torch.sigmoid(reals).mean(), "D(forged)": torch.sigmoid(forgeries).mean()}
    rows.append(
        row | {"L_D + L_G": log[-1]["loss_d"] + log[-1]["loss_g"], "spread": log[-1]["points"].std(0).norm()}
    )
table(rows)
assert (
    all(row["D(real)"] > 0.9 and row["spread"] < 0.6 for row in rows[:2])
    and abs(rows[2]["D(real)"] - 0.5) < 0.25
)

# %% [markdown]
# Both sums are driven to their least value, 1.386 and 0, and nothing is drawn. With the non-saturating sum D says 1 to
# real points and 1/2 to forged ones, and G has no reason to go anywhere. In the saturating sum nothing is left but D's
# wish to call real points real, so it calls *everything* real. The healthy game has the *largest* sum of the three (with
# $D = 1/2$ it is $3 \log 2 = 2.08$), and the only D near 1/2 for both. A game is not a minimum of a sum.
#
# ## 6 DCGAN: the game on pictures
#
# Radford, Metz and Chintala made the game work on pictures in 2015 (the article names other authors; lesson 17). Their
# recipe: convolutions only; transposed ones with stride 2 in G, strided ones in D; batch normalisation in both, except
# beside the picture; ReLU in G, leaky ReLU in D; weights drawn with a standard deviation of 0.02. `DCGANConfig` holds the sizes;
# `DCGANGenerator` and `DCGANDiscriminator` have the layers, all from lesson 05. Follow the noise through. Then comes a live
# training with easy pictures: large shapes in the middle, 16 x 16 pixels, and the step that the points had.
#
# **Predict.** What is learned first: the shape, the colour, or the ground?

# %% tags=["nbval-check-output"]
config = DCGANConfig(image_size=16, z_size=64, width=32)
players = DCGANGenerator(config).to(device), DCGANDiscriminator(config).to(device)
G, noise = players[0], torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).to(device)
maps = G.start(noise[:, :, None, None])
print("start", tuple(noise.shape), "->", tuple(maps.shape))
for norm, up in zip(G.norms, G.ups, strict=True):
    maps = up(norm(maps).relu())
    print("up   ->", tuple(maps.shape))
compare({"this loop and DCGANGenerator": (torch.tanh(maps), G(noise))})
print("weights of G and D:", [sum(p.numel() for p in player.parameters()) for player in players])

# %%
easy = CaptionedShapes(image_size=16)
about = [easy.attributes(i) for i in range(len(easy))]
rows = [i for i, scene in enumerate(about) if (scene["size"], scene["position"]) == ("large", "center")]
real = easy.images(rows)
game = AdversarialStep(*players, learning_rates=(1e-3, 1e-3), r1_weight=0.05)
random, log, film = torch.Generator().manual_seed(0), [], [real[:8]]
for number in range(1, 401):
    batch = real[torch.randint(len(real), (32,), generator=random)]
    log.append(game(batch.to(device)))
    if number in (10, 50, 100, 200, 400):
        with torch.no_grad():
            film.append(G.eval()(noise[:8]).cpu())
        G.train()

# %%
title = "Data, then G after 10, 50, 100, 200 and 400 rounds"
alt = """Six rows of eight small pictures. First the data: one coloured shape in the middle of a plain ground.
Then the same eight noises after 10 to 400 rounds: grey checkerboards, dark and light grounds, coloured blobs
in the middle, and at last blobs with edges."""
pictures(torch.cat(film), title=title, columns=8, alt=alt)

# %% [markdown]
# Ground, colour and place come together, within 100 to 200 rounds. The outline comes last; 400 rounds are too few for
# it. The checkerboards of the early rows are lesson 05's: transposed convolutions before they have learned better.
#
# ### The shipped one
#
# `gan-shapes-32` had 8,000 rounds with all the shapes, in all places and sizes. It is remade by
# `course train --preset gan-shapes-32 --out runs/gan-shapes-32`: two minutes on a GPU, 20 on one core.

# %%
G = DCGANGenerator.from_pretrained("gan-shapes-32", device)
with torch.no_grad():
    drawn = G(torch.randn(400, 64, generator=torch.Generator().manual_seed(0)).to(device)).cpu()
alt = """Twenty-four pictures by the shipped DCGAN: plain grounds of three kinds with coloured objects;
rings, hearts, a square and a moon can be guessed, some have two objects, one is a jumble."""
pictures(drawn[:24], title="gan-shapes-32: drawn from noise alone", columns=8, alt=alt)
for name, images in {"data": CaptionedShapes(image_size=32).images(range(400)), "DCGAN": drawn}.items():
    ground = images.flatten(2).median(2).values[:, :, None, None]  # the most common colour, about
    shape = (
        ((images - ground).abs().amax(1) > 0.5).float().mean((1, 2))
    )  # share of pixels that are not ground
    print(f"{name}: {(shape < 0.01).float().mean():.0%} of the pictures are empty")

# %% [markdown]
# Be a judge. Most grounds are plain, but for a fine checkerboard; colours, places and sizes vary as in the data, and no
# two pictures are alike: no mode collapse. But many outlines are blobs, some pictures have two objects or half of one,
# and about one in eight is empty or nearly so, which no picture of the data is. At the end of its training D's loss was
# 0.27 (its card says so): D is far ahead. And you cannot *ask* for anything: noise goes in, some picture comes out. In
# lesson 11 both players get to read the caption, and drawing becomes much easier to learn.
#
# ## What changed in the library
#
# The room `gan.py` is furnished: data that show what a GAN does, players for points and pictures, and
# `AdversarialStep`, the round that lesson 12 grows into a full training.
#
# ## Three questions
#
# 1. D's loss has been at 1.386 for a thousand rounds. Name two opposite reasons, and one look that tells them apart.
#
# <details><summary>Answer</summary>
#
# Either G is perfect, or D learns nothing (patient C's first rounds). Look at what G draws.
#
# </details>
#
# 2. With $p$ and $q$ that overlap nowhere, what is the loss of the best D, and how does it change when G comes half-way
# closer?
#
# <details><summary>Answer</summary>
#
# D is certain everywhere, and its loss is 0: 2 log 2 minus twice the largest JSD, log 2. It stays 0 while G approaches,
# as long as nothing overlaps: the divergence has no slope. G learns all the same, because a real D is not the best one;
# it is a smooth network with slopes between the heaps. Penalties that keep it smooth (lesson 12) help.
#
# </details>
#
# 3. The bridges between the heaps of the ring never vanish. Why, and what would help?
#
# <details><summary>Answer</summary>
#
# G is a continuous function, and noise from a normal distribution is one piece; a continuous image of one piece is one
# piece. Noise in eight pieces would help, such as a label added to it: the conditional GAN of lesson 11. So would
# throwing away points that D finds unlikely.
#
# </details>
#
# ## Papers
#
# - Ian Goodfellow and others (2014), *Generative Adversarial Networks*: the game, the best D (proposition 1), the
#   equilibrium (theorem 1). [arXiv:1406.2661](https://arxiv.org/abs/1406.2661)
# - Alec Radford, Luke Metz and Soumith Chintala (2015), *Unsupervised Representation Learning with Deep Convolutional
#   Generative Adversarial Networks*: DCGAN. [arXiv:1511.06434](https://arxiv.org/abs/1511.06434)
# - Martin Arjovsky and Léon Bottou (2017), *Towards Principled Methods for Training Generative Adversarial Networks*: the
#   vanishing gradient, measured as in section 3. [arXiv:1701.04862](https://arxiv.org/abs/1701.04862)
# - Luke Metz and others (2017), *Unrolled Generative Adversarial Networks*: the ring, and mode collapse on it.
#   [arXiv:1611.02163](https://arxiv.org/abs/1611.02163)
# - Lars Mescheder, Andreas Geiger and Sebastian Nowozin (2018), *Which Training Methods for GANs do actually Converge?*:
#   why the players circle, and the penalty R1 that calms them. [arXiv:1801.04406](https://arxiv.org/abs/1801.04406)
#
# Next: lesson 11 lets both players read.
