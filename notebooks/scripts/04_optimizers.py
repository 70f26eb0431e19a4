# %% [markdown]
# # 04 · Optimisers
#
# **You will build** `course_lib/optim.py`: three ways to turn a slope into a step, which are gradient descent, momentum
# and Adam, each equal to PyTorch's number for number; and the running average of a network's weights.
#
# **You need** the losses of lesson 03, and what it said about the gradient: downhill is where training goes.
#
# **Time**: 50 minutes of reading and thinking; the computer needs about 20 seconds.
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
#   class c00,c01,c02,c03 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c04 lit
# ```

# %% tags=["nbval-check-output"]
import math
from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor
from torch.nn import Module, Parameter
from torch.optim import SGD
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from course_lib.data import CaptionedShapes
from course_lib.lesson import compare, figure, lines, pictures, setup, table
from course_lib.losses import bce_with_logits, mse_loss
from course_lib.optim import Adam, Optimizer, WeightAverage

device = setup()

# %% [markdown]
# ## 1 One step downhill
#
# One pixel has the brightness $w = 1$ and should be 0, grey. The squared error is $w^2$, its slope $2w$. The slope says
# how fast the loss grows with $w$, so we go the other way, by a share of it, the **learning rate** (lr):
#
# $$w \leftarrow w - \mathrm{lr} \cdot \mathrm{slope}$$
#
# **Predict.** With lr = 0.1, where is $w$ after one, two and three steps?
#
# <details><summary>Answer</summary>
#
# 1 - 0.1 · 2 = 0.8. There the slope is only 1.6, so 0.8 - 0.16 = 0.64, then 0.512. Every step multiplies $w$ by 0.8.
#
# </details>

# %% tags=["nbval-check-output"]
w, lr = 1.0, 0.1
for step in range(1, 4):
    slope = 2 * w
    w = w - lr * slope
    print(f"step {step}: slope {slope:.2f}, w = {w:.3f}")

# %% [markdown]
# The steps get shorter by themselves, because the slope does. This is **gradient descent**. A network has many tensors,
# and every number in them moves by its own slope; `torch._foreach_add_` adds to each tensor of one list `alpha` times
# its partner in another.
#
# The class is the library's, word for word. What all optimisers share is in its parent, `Optimizer`; read it in the
# library. It keeps the list `params`; `step()` collects the gradients and calls `update`; `zero_grad()` forgets them.
# The names are those of `torch.optim`, so that either can stand in for the other.


# %% tags=["lib:optim.GradientDescent", "nbval-check-output"]
class GradientDescent(Optimizer):
    """Straight downhill: parameter -= lr * gradient."""

    def update(self, params, gradients, steps):
        torch._foreach_add_(params, gradients, alpha=-self.lr)


# %% [markdown]
# Now lesson 03's four pixels. Their slopes were half of drawn minus wanted. The first four lines of the loop are the
# heart of every training in this course; `loss.backward()` computes the gradient and leaves it in `pixels.grad`.
#
# **Predict.** With lr = 1, what does a step do to each difference, and what to the loss, which was 1.125?

# %% tags=["nbval-check-output"]
wanted = torch.tensor([1.0, -1.0, 0.5, -1.0], device=device)
pixels = torch.tensor([0.5, -1.0, 0.0, 1.0], device=device, requires_grad=True)
optimizer = GradientDescent([pixels], lr=1.0)
for _ in range(4):
    loss = mse_loss(pixels, wanted)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    print(f"loss {loss:.5f}, then pixels {[round(p, 3) for p in pixels.tolist()]}")

# %% [markdown]
# It halves each difference, so the loss falls to a quarter: 1.125, 0.281, 0.070, 0.018.
#
# ### The line that is easily forgotten
#
# `backward` *adds* to what `.grad` holds, so that a large batch can be fed in pieces. Someone must clear it.
#
# **Predict.** $w^2$ from 1 with lr 0.1 again, but without `zero_grad`. Does $w$ still come to rest?

# %% tags=["nbval-check-output"]
w = torch.tensor(1.0, device=device, requires_grad=True)
optimizer, forgetful = GradientDescent([w], lr=0.1), [1.0]
for _ in range(40):
    (w**2).backward()
    optimizer.step()  # and nobody calls zero_grad
    forgetful.append(w.item())
lines(
    range(41),
    {"without zero_grad": forgetful, "with": [0.8**n for n in range(41)]},
    "zero_grad, forgotten",
    ("step", "w"),
    "w against the step. With zero_grad it falls smoothly from 1 to 0; without, it swings between about 1 "
    "and -1 for ever.",
)

# %% [markdown]
# Never. Through the bottom it races on, because all the old slopes still push. Remember this picture: with a brake,
# it becomes an idea, and section 4 is about it.
#
# ## 2 How long a step?
#
# The learning rate is the number that everyone has to choose. Here is $w^2$ with four of them.
#
# **Predict.** Which lr would be at the bottom in a single step? From which one on does every step make it worse?

# %% tags=["nbval-check-output"]
rates = {0.05: "too small", 0.4: "right", 0.95: "too large", 1.05: "diverges"}
alt = "Four panels, the loss w squared with eight steps from w = 1. lr 0.05 creeps to 0.43; 0.4 is at the "
alt += "bottom after three; 0.95 jumps from side to side, slowly down; 1.05 from side to side and up."
with figure("Eight steps on one parabola", alt, columns=4, size=(9, 3)) as axes:
    for axis, (lr, name) in zip(axes, rates.items(), strict=True):
        line, path = torch.linspace(-1.8, 1.8, 100), torch.tensor([(1 - 2 * lr) ** n for n in range(9)])
        axis.plot(line, line**2, color="#aaaaaa")
        axis.plot(path, path**2, "o-", color="#D55E00", markersize=5, linewidth=1.2)
        axis.plot(1, 1, "ko", markersize=8)
        axis.set(title=f"{lr}: {name}", xlabel="w", ylabel="loss" if lr == 0.05 else " ")
        axis.set(xlim=(-1.8, 1.8), ylim=(-0.1, 2.9))

# %% [markdown]
# 0.5, and above 1. The black dot is the start. Why these two? For the loss $\frac{k}{2} w^2$ the slope is $kw$: it grows
# by $k$ for every unit of $w$. That is the **curvature**; here $k = 2$. One step does
#
# $$w \leftarrow w - \mathrm{lr} \cdot k w = (1 - \mathrm{lr} \cdot k)\, w$$
#
# so $n$ steps multiply $w$ by $(1 - \mathrm{lr} \cdot k)^n$, which shrinks exactly if
#
# $$-1 < 1 - \mathrm{lr} \cdot k < 1 \quad\Longleftrightarrow\quad 0 < \mathrm{lr} < \frac{2}{k}$$
#
# The best is $1/k$, the limit **two over the curvature**, and it is sharp. After 100 steps from $w = 1$: 0.13 with
# lr 0.99, since $0.98^{100} = 0.13$; 7.2 with 1.01; 13,781 with 1.05. A training that **diverges** like that ends in `nan`.
#
# ## 3 Bowl, ravine, saddle
#
# With two weights, the loss is a landscape. Three kinds of ground matter:
#
# | | loss | curvatures along x and y |
# |---|---|---|
# | bowl | $(x^2 + y^2) / 2$ | 1 and 1 |
# | ravine | $(x^2 + 25\,y^2) / 2$ | 1 and 25 |
# | saddle | $(x^2 - y^2) / 2 + y^4 / 4$ | 1 and, in the middle, -1 |
#
# `walk` is the loop from above, and notes where it was. It makes its optimiser itself, so we hand it a class with the
# settings filled in: `partial(GradientDescent, lr=0.07)`.
#
# **Predict.** All three with lr = 0.07. Where does the path zigzag? And where does it nearly stop, though it is not at
# the bottom?


# %% tags=["nbval-check-output"]
landscapes = {  # name: loss, start
    "bowl": (lambda x, y: (x**2 + y**2) / 2, [-2.0, 1.0]),
    "ravine": (lambda x, y: (x**2 + 25 * y**2) / 2, [-2.0, 1.0]),
    "saddle": (lambda x, y: (x**2 - y**2) / 2 + y**4 / 4, [-2.0, 0.01]),
}


def walk(optimizer_of, loss, start, steps):
    point = torch.tensor(start, device=device, requires_grad=True)
    optimizer, path = optimizer_of([point]), [start]
    for _ in range(steps):
        optimizer.zero_grad()
        loss(*point).backward()
        optimizer.step()
        path.append(point.tolist())
    return torch.tensor(path)  # (steps + 1, 2)


# %% tags=["nbval-check-output"]
x, y = torch.meshgrid(torch.linspace(-2.4, 1.6, 101), torch.linspace(-1.6, 1.6, 81), indexing="xy")
alt = "Three contour maps with paths. On the bowl a straight line to the centre. In the ravine a zigzag that "
alt += "dies out, then a slow walk along the floor. On the saddle straight to the centre, then slowly up."
with figure("Gradient descent, 60 steps of lr 0.07", alt, columns=3, size=(9, 3)) as axes:
    for axis, (name, (loss, start)) in zip(axes, landscapes.items(), strict=True):
        path, height = walk(partial(GradientDescent, lr=0.07), loss, start, 60), loss(x, y)
        # the root gives shades also to the flat ground at the bottom
        axis.contourf(x, y, (height - height.min()).sqrt(), 16, cmap="GnBu_r", alpha=0.75)
        axis.plot(*path.T, ".-", color="#D55E00", linewidth=1.5)
        axis.plot(*start, "ko", markersize=8)
        axis.set(title=name, xlabel="x", ylabel="y" if name == "bowl" else " ", aspect="equal")

# %% [markdown]
# It zigzags in the ravine and nearly stops on the saddle. Dark is low. In the **bowl** the slope points at the bottom. In
# the **ravine** it points at the opposite wall. On the **saddle** all slopes vanish at (0, 0), which is no bottom: down it
# goes to both sides. The path is led right there; its y, 0.01 to begin with, grows by 7 % a step.
#
# What is wrong with the ravine? Its walls set the limit, 2/25 = 0.08, and along the floor, where the curvature is 1,
# the rate 0.07 takes only 7 % off the distance. The best compromise, 2/26, makes both factors $|1 - \mathrm{lr} \cdot k|$
# equal to 24/26. In general, with $r$ the ratio of highest to lowest curvature, no lr does better than
# $(r - 1)/(r + 1)$ a step; and ratios of thousands are common.
#
# ## 4 Momentum
#
# A heavy ball does not turn at every slope; it gathers **velocity**. Across the ravine, pushes to and fro cancel; along
# it, they add up. The velocity keeps a share $\beta$ of itself and adds the slope:
#
# $$v \leftarrow \beta v + \mathrm{slope} \qquad w \leftarrow w - \mathrm{lr} \cdot v$$
#
# **Predict.** The slope is 1 at every step, and $\beta = 0.9$. What are the first three velocities? Where do they end?
#
# <details><summary>Answer</summary>
#
# 1, then 0.9 + 1 = 1.9, then 1.71 + 1 = 2.71. They end where $v = 0.9 v + 1$, at 10. So wherever the slope stays the same,
# the steps become $1 / (1 - \beta)$ = 10 times as long.
#
# </details>


# %% tags=["lib:optim.Momentum", "nbval-check-output"]
class Momentum(Optimizer):
    """Downhill like a heavy ball: the velocity keeps the share `momentum` of itself and adds the gradient."""

    state_names = ("momentum_buffer",)

    def __init__(self, params: Iterable[Tensor], lr: float, momentum: float = 0.9):
        super().__init__(params, lr)
        self.momentum = momentum

    def update(self, params, gradients, steps, velocities):
        torch._foreach_mul_(velocities, self.momentum)
        torch._foreach_add_(velocities, gradients)
        torch._foreach_add_(params, velocities, alpha=-self.lr)


# %% [markdown]
# The velocities are the optimiser's **state**: one number for each weight, named in `state_names`, kept by the parent.
#
# **Predict.** In the ravine, one ball has $\beta$ = 0.9 and lr 0.05, the other 0.5 and lr 0.1, which is above the limit of
# plain descent. Which is at the bottom first?

# %% tags=["nbval-check-output"]
balls = {
    "gradient descent, lr 0.07": partial(GradientDescent, lr=0.07),
    "momentum 0.9, lr 0.05": partial(Momentum, lr=0.05, momentum=0.9),
    "momentum 0.5, lr 0.1": partial(Momentum, lr=0.1, momentum=0.5),
}
alt = "Contour map of the ravine. After 20 steps gradient descent is still left of the centre. "
alt += "Momentum 0.9 has swung past it, far to the right. Momentum 0.5 is at the centre."
loss, start = landscapes["ravine"]
with figure("Twenty steps in the ravine", alt, size=(9, 4.6)) as axis:
    axis.contourf(x, y, loss(x, y).sqrt(), 16, cmap="GnBu_r", alpha=0.75)
    for (name, optimizer_of), style in zip(balls.items(), ("C3.-", "kx-", "C5o-"), strict=True):
        axis.plot(*walk(optimizer_of, loss, start, 20).T, style, linewidth=1.5, label=name)
    axis.set(xlabel="x", ylabel="y")
    axis.legend(loc="lower right", frameon=True)

# %% [markdown]
# The one with 0.5; the heavier ball has speed to burn and rolls past. The narrower the ravine, the more weight helps:
# with the best settings (Polyak 1964) the factor of a step becomes $(\sqrt r - 1) / (\sqrt r + 1)$. The square root is
# worth a lot; question 2 below counts the steps.
#
# ### An old acquaintance
#
# **Predict.** With momentum 1 nothing is ever lost. Which curve of this lesson does $w$ follow then?

# %% tags=["nbval-check-output"]
w = torch.tensor(1.0, device=device, requires_grad=True)
optimizer, undamped = Momentum([w], lr=0.1, momentum=1.0), [1.0]
for _ in range(40):
    optimizer.zero_grad()
    (w**2).backward()
    optimizer.step()
    undamped.append(w.item())
compare({"momentum 1, and no zero_grad": (torch.tensor(undamped), torch.tensor(forgetful))})

# %% [markdown]
# That of the forgotten `zero_grad`, number for number: `.grad` was the velocity. Momentum 0.9 is a `zero_grad` that
# forgets only a tenth.
#
# ## 5 Adam
#
# So far steps are long where it is steep. Adam (Kingma and Ba 2015) asks how steep it *usually* is and divides by that.
# It keeps two running means for each weight, of the slope $g$ and of its square, `exp_avg` and `exp_avg_sq` in code:
#
# $$m \leftarrow \beta_1 m + (1 - \beta_1)\, g \qquad v \leftarrow \beta_2 v + (1 - \beta_2)\, g^2$$
#
# $m$ says which way, $\sqrt v$ how large slopes are. Usually, $\beta_1 = 0.9$ and $\beta_2 = 0.999$. Both means start at
# 0 and are too small at first: after one step $m$ is $0.1\,g$, the mean of one slope and nine zeros. After $t$ steps the
# share that is not zeros is $1 - \beta^t$; dividing by it is the **bias correction**:
#
# $$w \leftarrow w - \mathrm{lr} \cdot \frac{m / (1 - \beta_1^t)}{\sqrt{v / (1 - \beta_2^t)} + \epsilon}$$
#
# In the code, `lerp_` moves $m$ by the share $1 - \beta_1$ of its way to $g$, which is the same formula.
#
# **Predict.** A weight has the slope 0.5. Compute the first step in units of lr, with and without the correction. What
# changes if the slope is 1000?
#
# <details><summary>Answer</summary>
#
# $m = 0.05$ and $v = 0.00025$. Corrected, they are 0.5 and 0.25, and the step is $0.5 / \sqrt{0.25} = 1$. Uncorrected it is
# $0.05 / \sqrt{0.00025} = 3.16$. Nothing changes: 1000 stands above and below the line.
#
# </details>


# %% tags=["lib:optim.adam_update", "nbval-check-output"]
def adam_update(
    parameter: Tensor, gradient: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, step: int, lr: float = 1e-3,
    betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, bias_correction: bool = True,
) -> None:  # fmt: skip
    """One step of Adam for one tensor; all but the gradient change in place, step is 1 for the first."""
    exp_avg.lerp_(gradient, 1 - betas[0])  # which way
    exp_avg_sq.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])  # how large
    correction1, correction2 = (1 - beta**step if bias_correction else 1.0 for beta in betas)
    parameter -= lr * (exp_avg / correction1) / ((exp_avg_sq / correction2).sqrt() + eps)


# %% tags=["nbval-check-output"]
slopes = torch.tensor([1000.0, 0.5, 0.001, 1e-8, 0.0], device=device)
moved = {}
for name, correction in {"with correction": True, "without": False}.items():
    weights, m, v = torch.zeros(3, 5, device=device)
    adam_update(weights, slopes, m, v, step=1, lr=1.0, bias_correction=correction)
    moved[name] = weights.abs()
table([{"slope": slopes[i], **{name: steps[i] for name, steps in moved.items()}} for i in range(5)])

# %% [markdown]
# So Adam's learning rate is a *length*: each weight moves by about lr, whether its slope is 1000 or a thousandth. Only
# near $\epsilon$ = 0.00000001 the step shrinks, and a slope of 0 gives no step instead of 0/0.
#
# A popular article leaves the correction out (lesson 17): its first step is $(1 - \beta_1) / \sqrt{1 - \beta_2}$ = 3.16
# times too long.
#
# **Predict.** And the steps after that: better or worse?

# %% tags=["nbval-check-output"]
lengths, slope = {"with correction": torch.ones(3000)}, torch.ones(1, dtype=torch.float64)
for betas in [(0.9, 0.999), (0.5, 0.99)]:
    (w, m, v), path = torch.zeros(3, 1, dtype=torch.float64), [0.0]
    for step in range(1, 3001):
        adam_update(w, slope, m, v, step, lr=-1.0, betas=betas, bias_correction=False)
        path.append(w.item())
    lengths[f"without, betas {betas}"] = torch.tensor(path).diff()
alt = "Length of each step; steps on a logarithmic axis. With correction it is 1. Without, betas 0.9 and "
alt += (
    "0.999: 3.16 at first, 6.57 at step 12, 1.26 at step 1000. With 0.5 and 0.99: 5, soon 5.3, 1 at step 300."
)
labels = ("step", "length of the step, in units of lr")
lines(range(1, 3001), lengths, "Adam where the slope stays the same", labels, alt, xscale="log", ylim=(0, 7))

# %% [markdown]
# Worse: 6.57 times too long at step 12, and at step 1000 still a quarter too long, because a mean with $\beta_2 = 0.999$
# remembers about a thousand steps. With the betas of our GAN, 0.5 and 0.99, it starts at 5.
#
# ### All three against PyTorch
#
# `Adam` does for all tensors at once what `adam_update` does for one; it is longer than a cell should be, so read it in
# the library. PyTorch hides momentum in `SGD`. All get the same random gradients, from 0.01 to 100 in size; compared are
# three weights step by step, and at the end the state.

# %% tags=["nbval-check-output"]
pairs = [(GradientDescent, SGD, {}), (Momentum, SGD, {"momentum": 0.9}), (Adam, torch.optim.Adam, {})]
gradients, parts = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)).to(device), {}
for kind, original, settings in pairs:
    both = [torch.ones(3, device=device, requires_grad=True) for _ in range(2)]
    optimizers = [kind([both[0]], lr=0.01, **settings), original([both[1]], lr=0.01, **settings)]
    for step, gradient in enumerate(gradients, start=1):
        for w, optimizer in zip(both, optimizers, strict=True):
            w.grad = gradient * 10.0 ** (step % 5 - 2)
            optimizer.step()
        if step in (1, 2, 3, 100):
            parts[f"{kind.__name__}, step {step}"] = [w.detach().clone() for w in both]
    for name, ours in optimizers[0].state.items():
        parts[f"{kind.__name__}, {name}"] = ours[0], optimizers[1].state[both[1]][name]
compare(parts)

# %% [markdown]
# ### All three on all three
#
# **Predict.** In which direction do Adam's first steps go, in each of the landscapes?

# %% tags=["nbval-check-output"]
three = {"gradient descent": partial(GradientDescent, lr=0.07), "momentum": partial(Momentum, lr=0.03)}
three["Adam"] = partial(Adam, lr=0.1)
alt = "Contour maps of bowl, ravine and saddle with 40 steps of three optimisers. Momentum swings widely. "
alt += "Adam leaves diagonally, has one path in bowl and ravine, and on the saddle keeps off the centre."
with figure("Forty steps each", alt, columns=3, size=(9, 3.3)) as axes:
    for axis, (name, (loss, start)) in zip(axes, landscapes.items(), strict=True):
        axis.contourf(x, y, (loss(x, y) - loss(x, y).min()).sqrt(), 16, cmap="GnBu_r", alpha=0.75)
        for optimizer_of, style in zip(three.values(), ("C3.-", "kx-", "C5^-"), strict=True):
            axis.plot(*walk(optimizer_of, loss, start, 40).T, style, linewidth=1.3, markersize=4)
        axis.set(title=name, xlabel="x", ylabel="y" if name == "bowl" else " ", aspect="equal")
    axes[0].figure.legend(axes[0].lines, three, loc="outside lower center", ncols=3)

# %% [markdown]
# Diagonally, since each of the two numbers moves by lr. Compare its paths in the bowl and in the ravine: they are the same
# path. Making all slopes in y 25 times as large changes nothing for it. And the saddle?
#
# **Predict.** How many steps until the path has left it ($|y| > 0.5$), if y starts at a hundredth, a ten-thousandth, a
# millionth?

# %% tags=["nbval-check-output"]
loss, rows = landscapes["saddle"][0], []
for height in (1e-2, 1e-4, 1e-6):
    start = [-2.0, height]
    paths = {name: walk(optimizer_of, loss, start, 250) for name, optimizer_of in three.items()}
    left = {name: (path[:, 1].abs() > 0.5).int().argmax().item() for name, path in paths.items()}
    rows.append({"y at the start": height, **left})
table(rows)

# %% [markdown]
# Gradient descent needs 68 more for each factor of a hundred, because its y grows by 7 % a step: $1.07^{68} = 100$. Adam
# takes six every time. A flat stretch in a curve of losses may be a saddle, not the end.
#
# Now the settings are yours. The explorer has the three landscapes and a fourth, a valley that bends (Rosenbrock 1960);
# all three optimisers get the same learning rate. **Predict**, then look: in the narrow valley, who is thrown off the map
# with lr 0.1, who with 0.2, and who never?

# %% tags=["explorer"]
from course_lib.widgets import optimizer_race

optimizer_race()

# %% [markdown]
# With 0.1 plain descent, since that is above its limit 2/25; with 0.2 momentum too, whose limit is $2 (1 + \beta) / 25$ =
# 0.152; Adam never, because its steps are no longer than a few lr. And no one wins everywhere: after 40 steps of lr 0.05
# plain descent is nearest in the bent valley, of lr 0.02 momentum, and on the saddle with lr 0.07 Adam.
#
# ## 6 A network
#
# Now thousands of weights at once. Is the object in a picture of 16 x 16 pixels *large*? The network below is two tensors
# and one number; lesson 05 explains layers. For now: pictures go in, logits (lesson 03) come out. A `Parameter` is a tensor
# that wants gradients, and a `Module` finds those inside itself.
#
# `train` is the loop once more, on random batches. After every step it hands out the network and the loss (`yield`).
# `loss_on_new` takes the 500 pictures it never sees; `torch.no_grad` tells torch that no slopes are wanted.
#
# **Predict.** Momentum 0.9 makes steps up to ten times as long. How will its best learning rate compare with that of
# gradient descent?


# %% tags=["nbval-check-output"]
class Network(Module):
    def __init__(self, inputs=3 * 16 * 16, hidden=32):
        super().__init__()
        self.first = Parameter(torch.randn(inputs, hidden) / math.sqrt(inputs))
        self.second = Parameter(torch.randn(hidden) / math.sqrt(hidden))
        self.bias = Parameter(torch.zeros(()))

    def forward(self, images):
        hidden = torch.relu(images.flatten(1) @ self.first)  # (B, 3, 16, 16) -> (B, 32)
        return hidden @ self.second + self.bias  # (B,)


data = CaptionedShapes(image_size=16, length=2500)
images = data.images(range(2500), device=device)  # (2500, 3, 16, 16); the last 500 are for the test
large = torch.tensor([float(data.attributes(i)["size"] == "large") for i in range(2500)], device=device)
print(f"{sum(p.numel() for p in Network().parameters()):,} weights, {large.mean():.0%} large")
pictures(images[:4], [data.caption(i) for i in range(4)], "Four of 2500 pictures", columns=4)


# %%
def train(optimizer_of, steps, batch_size=64):
    torch.manual_seed(0)  # all begin with the same weights
    model = Network().to(device)
    optimizer = optimizer_of(model.parameters())
    for _ in range(steps):
        rows = torch.randperm(2000)[:batch_size].to(device)
        loss = bce_with_logits(model(images[rows]), large[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield model, loss.item()


@torch.no_grad()
def loss_on_new(model):
    return bce_with_logits(model(images[2000:]), large[2000:]).item()


# %%
rates, found = [10 ** (n / 3) for n in range(-13, 0)], {}
for kind in (GradientDescent, Momentum, Adam):
    runs = [[loss for _, loss in train(partial(kind, lr=lr), 300)] for lr in rates]
    found[kind.__name__] = [sum(run[-50:]) / 50 for run in runs]
alt = "Loss after 300 steps against the learning rate from 0.00005 to 0.46. Gradient descent and momentum "
alt += "fall alike, momentum at a tenth of the rate; each ends in a cliff. Adam has no cliff, only bumps."
labels = ("learning rate", "loss, mean of the last 50 steps")
lines(rates, found, "Which learning rate is right?", labels, alt, xscale="log", ylim=(0, 1.4))

# %% [markdown]
# Ten times smaller, and so it is: on their way down, both follow the same curve, moved by a factor of ten. Too small, and
# the loss is still 0.69, the "no idea" of lesson 03. Too large, and it goes over a cliff. Momentum's cliff lies only about
# five times lower than that of plain descent, which lets it get further in 300 steps. Adam has the widest valley, and that
# is why one tries Adam first.
#
# ### Where is the cliff?
#
# At two over the curvature? That can be measured on the way: the curvature is how fast the slope changes, so divide the
# change of the gradient by the length of the step, in all dimensions at once. Plain descent, all 2000 pictures at every
# step.
#
# **Predict.** If a network had one fixed curvature, like a parabola, what would the curve below be?

# %%
alt = "Left: curvature against the step. With lr 0.06 it rises to 33.3 and stays there, with lr 0.1 it is at "
alt += "20 at once. Right: the losses fall, with lr 0.1 in bursts."
with figure("A network trains at its own limit", alt, columns=2, size=(9, 3.8)) as (left, right):
    for lr, dash in ((0.06, "-"), (0.1, "--")):
        slopes, losses = [], []
        for model, loss in train(partial(GradientDescent, lr=lr), 300, batch_size=2000):
            slopes.append(torch.cat([p.grad.flatten() for p in model.parameters()]))
            losses.append(loss)
        slopes = torch.stack(slopes).cpu()  # (300, 24609)
        curvature = slopes.diff(dim=0).norm(dim=1) / (lr * slopes[:-1].norm(dim=1))
        left.plot(curvature, dash, label=f"lr {lr}, 2 / lr = {2 / lr:.1f}", linewidth=1.5)
        right.plot(losses, dash, linewidth=1.5)
    left.set(xlabel="step", ylabel="curvature", yticks=(0, 10, 20, 100 / 3), yticklabels=(0, 10, 20, 33.3))
    right.set(xlabel="step", ylabel="loss")
    left.legend(loc="lower right")

# %% [markdown]
# A level line. The network instead goes to two over its learning rate, 33.3 with 0.06 and 20 with 0.1, and stays. It makes
# its own valley steeper until the limit is reached. A valley steeper than that throws the weights out, in zigzags that grow
# (the bursts on the right), and they land where it is flatter. Cohen and others (2021) found this in network after network.
#
# ## 7 The average of the weights
#
# At the end of a training the weights tremble, since every batch has a slope of its own; and two players who chase each
# other, as in a GAN, need not come to rest at all. In both cases a running average of the *weights* is calmer than they:
#
# $$\mathrm{average} \leftarrow d \cdot \mathrm{average} + (1 - d) \cdot \mathrm{weights}$$
#
# With the decay $d = 0.99$ it is a mean over about the last 100 steps. Nothing in the training changes; one only watches.
#
# Left below: descent in the bowl, with noise on every slope. Right: x wants $x \cdot y$ small, y wants it large, and they
# step in turn. Both would be at rest only at (0, 0).
#
# **Predict.** Where does the path on the right go, and where does its average?

# %% tags=["nbval-check-output"]
moves = {  # point -> next point; the slopes of x·y are y and x, those of the bowl the point itself
    "noise": lambda p: p - 0.3 * (p + torch.randn(2)),
    "a game of two": lambda p: torch.stack([p[0] - 0.1 * p[1], p[1] + 0.1 * (p[0] - 0.1 * p[1])]),
}
tracks = {name: [] for name in moves}
for name, move in moves.items():
    point = average = torch.tensor([-1.6, 0.9])
    for _ in range(400):
        point = move(point)
        average = 0.99 * average + 0.01 * point
        tracks[name].append([*point.tolist(), *average.tolist()])

# %% tags=["nbval-check-output"]
alt = "Two paths of 400 steps. Left, a cloud of jumps around the centre. Right, a circle round and round the "
alt += "centre. In both, the average walks to the centre and stays near it."
with figure("Weights and their average", alt, columns=2, size=(9, 4.6)) as axes:
    for axis, (name, track) in zip(axes, tracks.items(), strict=True):
        x1, y1, x2, y2 = zip(*track, strict=True)
        axis.plot(x1, y1, ".-", color="#56B4E9", linewidth=0.8, markersize=4, label="weights")
        axis.plot(x2, y2, color="#D55E00", linewidth=3, label="their average")
        axis.set(title=name, xlabel="x", ylabel="y", aspect="equal", xlim=(-2.1, 2.1), ylim=(-2.1, 2.1))
    axes[0].legend(loc="lower right", frameon=True)

# %% [markdown]
# The path goes round for ever, and its average goes to the one point of rest. This is why the pictures in this course
# are drawn by an averaged generator (Yazıcı and others 2019).
#
# `WeightAverage` does this for a whole model: it keeps a copy, and `update(model)` moves the copy's weights. Read it in
# the library. Adam trains the network again, watched by ours and by PyTorch's own average. A decay of 0.95 remembers
# about 20 steps.
#
# **Predict.** Which is better on new pictures, the weights of the last step or their average? And in the first steps?

# %%
trembling, calm, average_of = [], [], get_ema_multi_avg_fn(decay=0.95)
for step, (model, _) in enumerate(train(partial(Adam, lr=0.01), 600)):
    if step == 0:
        ours, theirs = WeightAverage(model, decay=0.95), AveragedModel(model, multi_avg_fn=average_of)
    ours.update(model)
    theirs.update_parameters(model)
    trembling.append(loss_on_new(model))
    calm.append(loss_on_new(ours.model))
compare({"first layer after 600 steps": (ours.model.first, theirs.module.first)})
alt = "Loss on new pictures over 600 steps. That of the weights falls in a wild zigzag; that of their "
alt += "average lags behind at first, then is smooth, along the lower edge of the zigzag."
curves = {"weights of the step": trembling, "their average": calm}
lines(range(600), curves, "Adam, lr 0.01", ("step", "loss on new pictures"), alt, ylim=(0, 1.2))
assert sum(calm[300:]) < sum(trembling[300:])

# %% [markdown]
# At first the average is worse: it still remembers the first steps. Then it runs along the lower edge of the zigzag, and
# it no longer matters with which batch the training happens to end.
#
# ## What changed in the library
#
# The room `optim.py` is furnished. From now on, a training is a loss of lesson 03, one of these optimisers, and the four
# lines of section 1; lesson 06 puts them into one function. For GANs, `Adam` and `WeightAverage` do the work.
#
# ## Three questions
#
# 1. Someone computes a loss 3072 times too large, as the article of lesson 03 does. What happens with gradient descent,
#    what with Adam?
#
# <details><summary>Answer</summary>
#
# All slopes are 3072 times as large, and so are the curvatures. Gradient descent then needs an lr 3072 times smaller, or
# it diverges. In Adam's fraction the factor stands above and below; only $\epsilon$ would notice.
#
# </details>
#
# 2. The curvatures of a ravine have the ratio 10,000. With the best settings, a step leaves $(r - 1)/(r + 1)$ of the
#    distance, or, with momentum, about $(\sqrt r - 1) / (\sqrt r + 1)$. How many steps until 1 % is left?
#
# <details><summary>Answer</summary>
#
# $n$ steps leave the $n$-th power, so $n = \log 0.01 / \log \mathrm{factor}$: 23,026 steps with 9999/10001, and 230 with
# 99/101.
#
# </details>
#
# 3. Adam's means need a bias correction. Why does `WeightAverage` have none, and what does it suffer from instead?
#
# <details><summary>Answer</summary>
#
# Adam's means start at 0, which is no gradient that ever was; the average starts as a copy of the weights. But these are
# untrained, and with $d$ = 0.99 their share after 100 steps is still $0.99^{100}$ = 37 %, after 500 steps 0.7 %.
#
# </details>
#
# ## Papers
#
# - Boris Polyak (1964), *Some methods of speeding up the convergence of iteration methods*: momentum and its best
#   settings. [doi:10.1016/0041-5553(64)90137-5](https://doi.org/10.1016/0041-5553(64)90137-5)
# - Ilya Sutskever and others (2013), *On the importance of initialization and momentum in deep learning*.
#   [PMLR 28](https://proceedings.mlr.press/v28/sutskever13.html)
# - Yann Dauphin and others (2014), *Identifying and attacking the saddle point problem in high-dimensional non-convex
#   optimization*. [arXiv:1406.2572](https://arxiv.org/abs/1406.2572)
# - Diederik Kingma and Jimmy Ba (2015), *Adam: A Method for Stochastic Optimization*: algorithm 1, and the bias
#   correction in section 3. [arXiv:1412.6980](https://arxiv.org/abs/1412.6980)
# - Jeremy Cohen and others (2021), *Gradient Descent on Neural Networks Typically Occurs at the Edge of Stability*.
#   [arXiv:2103.00065](https://arxiv.org/abs/2103.00065)
# - Yasin Yazıcı and others (2019), *The Unusual Effectiveness of Averaging in GAN Training*.
#   [arXiv:1806.04498](https://arxiv.org/abs/1806.04498)
#
# Next: lesson 05 builds the layers whose weights are trained.
