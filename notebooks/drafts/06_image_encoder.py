# %% [markdown]
# # 06 · Image encoder
#
# **You will build** three modules. `course_lib/fit.py` is the training loop that lessons 06 to 09 share,
# `course_lib/checkpoint.py` keeps what was learned, and `course_lib/image_encoder.py` turns a picture into a short list
# of numbers. It is trained without a single label, and then measured: what do its numbers know that pixels don't say?
#
# **You need** losses, optimisers and layers (lessons 03 to 05), and the shapes of lesson 02.
#
# **Time**: 60 minutes of reading and thinking; the computer needs about 40 seconds.
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
#   class c00,c01,c02,c03,c04,c05 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c06 lit
# ```

# %% tags=["nbval-check-output"]
import copy
import errno
import json
import math
import pickle
import struct
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from course_lib.checkpoint import dataclass_from_dict, load_checkpoint, load_weights, save_checkpoint
from course_lib.data import CaptionedShapes
from course_lib.data.captions import SINGLE
from course_lib.errors import CourseError
from course_lib.fit import fit
from course_lib.image_encoder import (
    Augmentation,
    ImageDecoder,
    ImageEncoder,
    ImageEncoderConfig,
    SelfSupervised,
    augment,
    encoder_widths,
    pretrain,
)
from course_lib.images import make_grid, to_pil
from course_lib.layers import Linear
from course_lib.lesson import compare, figure, heatmap, lines, pictures, setup, table
from course_lib.losses import cross_entropy, mse_loss, require_same_shape
from course_lib.optim import Adam, GradientDescent

device = setup()

# %% [markdown]
# ## 1 The loop
#
# The smallest network there is: a line $wx + b$, one weight and one bias. Three points are given, all on $y = 2x - 1$:
# (-1, -3), (0, -1) and (1, 1). Training begins at $w = b = 0$; the loss is the squared error.
#
# **Predict.** Gradient descent with learning rate 0.1: what are loss, $w$ and $b$ after one step? On paper, please.
#
# <details><summary>Answer</summary>
#
# The line gives 0 everywhere, so its errors, output minus $y$, are 3, 1 and -1. The loss is (9 + 1 + 1) / 3 = 3.667.
# The slope by $w$ is the mean of $2 \cdot \text{error} \cdot x$, that is 2 (-3 + 0 - 1) / 3 = -2.667; the slope by $b$
# the mean of $2 \cdot \text{error}$, 2 (3 + 1 - 1) / 3 = 2. So $w = 0.2667$ and $b = -0.2$.
#
# </details>
#
# The next lessons need the same four lines with other models, data and losses. So `fit` takes these as arguments: `batch`
# is a function that gives the tensors of a step, `loss` a function of the model and these tensors. The second cell
# trains another line with it.


# %% tags=["nbval-check-output"]
def new_line():
    line = Linear(1, 1).to(device)
    for parameter in line.parameters():
        parameter.data.zero_()
    return line


x = torch.tensor([[-1.0], [0.0], [1.0]], device=device)
y, line, rows = 2 * x - 1, new_line(), []
optimizer = GradientDescent(line.parameters(), lr=0.1)
for step in range(50):
    loss = mse_loss(line(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    rows.append({"step": step + 1, "loss before it": loss, "w": line.weight.clone(), "b": line.bias.clone()})
table([rows[0], rows[1], rows[9], rows[49]])

# %% tags=["nbval-check-output"]
other = new_line()
optimizer = GradientDescent(other.parameters(), lr=0.1)
losses = fit(other, lambda step: (x, y), lambda model, x, y: mse_loss(model(x), y), optimizer, 50)
compare(
    {
        "weight": (other.weight, line.weight),
        "bias": (other.bias, line.bias),
        "last loss": (torch.tensor(losses[-1]), loss),
    }
)

# %% [markdown]
# As on paper; after 50 steps nearly $2x - 1$; and the same to the last bit. Read `fit` in the library: it is that loop,
# with three things more. A bar may show the progress, a loss that is no number stops it (`require_finite`), and each
# step may have a learning rate of its own, such as `warmup_cosine` gives.
#
# **Predict.** Lesson 04: above two over the curvature every step makes it worse, and for $b$ the curvature is 2. With
# learning rate 10, what becomes of the weights? And of `fit`?


# %% tags=["lib:fit.require_finite", "lib:fit.warmup_cosine", "nbval-check-output"]
def require_finite(loss: float, step: int) -> float:
    if not math.isfinite(loss):
        raise FloatingPointError(
            f"the loss is {loss} at step {step}; a smaller learning rate or a warm-up helps"
        )
    return loss


def warmup_cosine(peak: float, steps: int, warmup: int = 0) -> Callable[[int], float]:
    if not 0 <= warmup < steps:
        raise ValueError(f"warmup={warmup} is not from 0 to steps - 1 = {steps - 1}")

    def rate(step: int) -> float:
        if step < warmup:
            return peak * (step + 1) / (warmup + 1)
        return peak * (1 + math.cos(math.pi * (step - warmup) / (steps - warmup))) / 2

    return rate


# %% tags=["nbval-check-output"]
wild = new_line()
optimizer = GradientDescent(wild.parameters(), lr=10)
try:
    fit(wild, lambda step: (x, y), lambda model, x, y: mse_loss(model(x), y), optimizer, 50)
except FloatingPointError as error:
    print(error)
print("weights finite:", bool(torch.isfinite(torch.cat([p.flatten() for p in wild.parameters()])).all()))

rate = warmup_cosine(peak=1.0, steps=100, warmup=10)
lines(
    range(100),
    {"warmup_cosine": [rate(step) for step in range(100)]},
    "A learning rate that rises, then falls",
    ("step", "share of the highest learning rate"),
    "Learning rate against the step: a straight rise to 1 in ten steps, then half a wave down to 0 at step 100.",
)

# %% [markdown]
# The weights leap to and fro until the loss is more than a 32-bit number can hold. `fit` stops *before* that loss
# reaches the weights. The curve is the usual cure for a rough start: short steps while Adam has seen few slopes (lesson
# 04), long ones in the middle, and ever shorter ones at the end, so that the weights settle.
#
# ## 2 What stays when the computer is off
#
# A trained model is a set of named tensors and a few settings. A **checkpoint** here is a folder with two files:
# `model.safetensors` for the tensors and `config.json` for the settings. How does one write tensors into a file? We save
# the line and read the bytes ourselves.
#
# **Predict.** The line has two numbers in float32. How many bytes are these? What else must be in the file?

# %% tags=["nbval-check-output"]
temporary = tempfile.TemporaryDirectory()
folder = save_checkpoint(Path(temporary.name) / "line", line.state_dict(), {"about": "a line"})
data = (folder / "model.safetensors").read_bytes()

length = int.from_bytes(data[:8], "little")  # the first 8 bytes: how long the header is
for name, entry in json.loads(data[8 : 8 + length]).items():
    print(name, entry)
print("numbers:", [round(number, 4) for number in struct.unpack("<2f", data[8 + length :])])
print(f"{len(data)} bytes = 8 + {length} + 8")

# %% [markdown]
# Eight bytes of numbers. Before them stands a text that says for each tensor its name, type, shape and place; before
# that, the text's length. That is all of the safetensors format.
#
# PyTorch's own `torch.save` writes a *pickle* instead, Python's format for any object. For an object that it does not
# know, a pickle notes *which function to call* to make it again. Anyone can write such a note.
#
# **Predict.** The next cell stores a gift in bytes, and loads it. Nobody calls `print` in its second half. What appears?


# %% tags=["nbval-check-output"]
class Gift:
    def __reduce__(self):  # how to make me again: call this function with these arguments
        return print, ("I am a file, and I am running.",)


received = pickle.dumps(Gift())
gift = pickle.loads(received)
print("what was loaded:", gift)

# %% [markdown]
# `print` was harmless. A stranger's file could call what deletes your folders. (Since version 2.6, `torch.load` refuses
# such calls unless told otherwise; a popular article's listing loads its model like that, see lesson 17.) In a
# safetensors file nothing can be called. This course never loads anything else.
#
# ### When something goes wrong
#
# Trainings take hours, and the worst moment to lose a model is while saving it. So nothing is overwritten:
#
# ```mermaid
# flowchart LR
#   A["line<br>(old)"] --> B["line (old)<br>.line.new (being written)"]
#   B --> C[".line.old<br>.line.new (whole)"]
#   C --> D["line (new)<br>.line.old"]
#   D --> E["line<br>(new)"]
# ```
#
# Each arrow but the first is one renaming or deletion of a folder. Whenever the power fails, one whole checkpoint is
# there, and loading finds it. (`require_checkpoint` looks for `.line.old`, too.)
#
# **Predict.** Below, the disk is full during a save; then the last three bytes of the file get lost. What does one see?

# %%
full = OSError(errno.ENOSPC, "No space left on device")
try:
    with patch("os.fsync", side_effect=full):  # the call that waits until bytes are on the disk now fails
        save_checkpoint(folder, new_line().state_dict(), {"about": "zeros"})
except CourseError as error:
    print(str(error).replace(str(folder), "line"))

tensors, config = load_checkpoint(folder)
print("still there:", config, {name: round(x.item(), 4) for name, x in tensors.items()})

(folder / "model.safetensors").write_bytes(data[:-3])
try:
    load_checkpoint(folder)
except CourseError as error:
    print(str(error).replace(str(folder.parent), "."))

# %% [markdown]
# One sentence each, with the remedy. The old line survived the full disk, and no half-read model goes on as if all were
# well. The trained encoder of section 5 will make the round trip.
#
# ## 3 From a picture to a vector
#
# An **encoder** turns a picture into a **vector**, a short list of numbers that stands for it. Ours is made of what
# lesson 05 built. Convolutions with kernel 4 and stride 2 halve the picture, each with batch normalisation and ReLU,
# until 4 x 4 places are left. One linear layer reads all of them. `ImageEncoderConfig` holds the
# sizes, `encoder_widths` works out the channels: they double while the picture is halved.
#
# **Predict.** 32 x 32 pixels, 32 channels after the first convolution. What are the shapes on the way, and where do most
# of the weights sit?


# %% tags=["nbval-check-output"]
images = CaptionedShapes("train", 32, seed=7, length=4000).images(range(4000), device)
torch.manual_seed(0)
encoder = ImageEncoder(ImageEncoderConfig(image_size=32, width=32, output_size=256)).to(device).eval()
untrained = copy.deepcopy(encoder)  # for later

x, rows = images[:8], []
for layer, norm in zip(encoder.convolutions, encoder.norms, strict=True):
    x = norm(layer(x)).relu()
    rows.append({"after": "convolution", "shape": str(tuple(x.shape)), "weights": layer.weight.numel()})
vectors = encoder.output(x.flatten(1))
rows.append({"after": "linear", "shape": str(tuple(vectors.shape)), "weights": encoder.output.weight.numel()})
print("channels:", encoder_widths(encoder.config), "numbers in a picture:", images[0].numel())
table(rows)
compare({"the library's encoder": (vectors, encoder(images[:8]))})

# %% [markdown]
# 3 x 32 x 32 = 3,072 numbers become 256. Three quarters of the weights are in the linear layer, because it looks at each
# of the 4 x 4 places separately. Many encoders average over the places first: fewer weights, but the average no longer
# knows *where* a thing is, and our captions say "at the top left".
#
# ### Learning by drawing it again
#
# What should the vector contain? A first answer: enough to draw the picture again. `ImageDecoder` is the encoder in
# a mirror, with transposed convolutions. The two together are an **autoencoder**; what it is to draw is what it saw, so
# nobody has to write labels, and one answer is right: the squared error fits (lesson 03).
#
# To save your time the pictures are 16 x 16 here: 768 numbers through a vector of 64. While `fit` runs, `on_step` lets
# us look in: four times we have pictures drawn whose scenes were held out (lesson 02).
#
# **Predict.** What will it get right first: the ground, the place, the colour, or the shape?


# %% tags=["lib:image_encoder.Autoencoder", "nbval-check-output"]
class Autoencoder(Module):
    """Picture to vector and back."""

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.encoder, self.decoder = ImageEncoder(config), ImageDecoder(config)

    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images))

    def loss(self, images: Tensor) -> Tensor:
        return mse_loss(self(images), images)


# %%
small = CaptionedShapes("train", 16, seed=7, length=4000).images(range(4000), device)
exam = CaptionedShapes("heldout", 16, seed=2, length=500).images(range(500), device)
torch.manual_seed(0)
model, drawn = Autoencoder(ImageEncoderConfig(image_size=16, width=32, output_size=64)).to(device), {}


def look_in(step, loss):
    if step + 1 in (20, 100, 300, 1000):
        with torch.no_grad():
            drawn[step + 1] = model.eval()(exam)  # eval: the pictures must not normalise one another
        model.train()


def batch(step):
    return (small[torch.randint(len(small), (32,))],)


rate = warmup_cosine(4e-3, 1000, 50)
fit(model, batch, Autoencoder.loss, Adam(model.parameters()), 1000, on_step=look_in, learning_rate=rate)
errors = {"the mean picture": mse_loss(small.mean(0).expand_as(exam), exam)}
errors |= {f"after {step} steps": mse_loss(images, exam) for step, images in drawn.items()}
table([{"drawn by": name, "squared error, held out": error} for name, error in errors.items()])
assert mse_loss(drawn[1000], exam) < 0.03

# %%
alt = "Five rows of the same eight pictures: originals, then drawn after 20, 100, 300 and 1000 steps. First "
alt += (
    "blurred ground; then a grey blot at the right place; then colour; at last rough shapes with soft edges."
)
with figure("Seen, and drawn again from 64 numbers", alt, rows=5, size=(8, 6.6)) as axes:
    for axis, (step, row) in zip(axes, {0: exam, **drawn}.items(), strict=True):
        axis.imshow(to_pil(make_grid(row[:8], 8)), interpolation="nearest")
        axis.set_title(f"after {step} steps" if step else "originals")
        axis.set_axis_off()

# %% [markdown]
# The ground first, for it covers most pixels and so makes up most of the error. Then a blot where something is, of no
# colour: as long as the network cannot tell red from green, the mean of both costs least, the grey compromise of
# lesson 03. Colours follow late, and corners stay soft: they are few pixels.
#
# That is the weakness of this answer. What covers many pixels counts, what matters to us need not. Here is another.
#
# ## 4 Learning by recognising
#
# Change a picture a little, twice, at random: two **views** of it. An encoder that knows what is in a picture
# should recognise that two views belong together, among many strangers. Again nobody writes a label; the task comes out
# of the data. That is called **self-supervised** learning (the autoencoder is an example too). It has nothing to do
# with *adversarial* training, where two networks have opposite goals (lesson 10); the article mixes them, see lesson 17.
#
# A view is shifted and zoomed, so its pixels fall between the old ones. Between two neighbours we mix: a pixel that
# comes from 0.3 right of an old one takes 0.7 of that and 0.3 of the next.
#
# **Predict.** The line 10, 20, 30, 40, 50 is shifted by half a pixel to the right. What does it become? At the left
# edge, the outermost pixel goes on.
#
# Two matrix products, one for the rows and one for the columns, then move a whole batch. `augment` does so by random
# amounts, changes contrast, brightness and colour a little, and adds noise; read it in the library. `Augmentation` says
# how much.


# %% tags=["lib:image_encoder.resampling_matrix", "nbval-check-output"]
def resampling_matrix(size: int, zoom: Tensor, shift: Tensor) -> Tensor:
    """Row i of each (size, size) matrix: the weights of the old pixels in new pixel i; zoom and shift (B,)."""
    pixels = torch.arange(size, device=zoom.device)
    center = (size - 1) / 2
    source = center + (pixels - center - shift[:, None]) / zoom[:, None]  # (B, size)
    distance = source.clamp(0, size - 1)[:, :, None] - pixels
    return (1 - distance.abs()).clamp(min=0)  # (B, size, size), a tent one pixel wide


# %% tags=["nbval-check-output"]
one, half = torch.ones(1, device=device), torch.full((1,), 0.5, device=device)
shifting = resampling_matrix(5, zoom=one, shift=half)[0]
print("weights of the second new pixel:", shifting[1].tolist())
print("shifted line:", (shifting @ torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0], device=device)).tolist())

rows, columns = resampling_matrix(32, 1.1 * one, 3 * half), resampling_matrix(32, 1.1 * one, -2 * half)
ours = rows @ images[:8] @ columns.transpose(1, 2)  # all rows, then all columns
down, right, enlarge = 1.5 * 2 / 31, -1.0 * 2 / 31, 1 / 1.1  # torch counts from -1 to 1
motion = torch.tensor([[enlarge, 0, -right * enlarge], [0, enlarge, -down * enlarge]], device=device)
grid = F.affine_grid(motion.expand(8, 2, 3), [8, 3, 32, 32], align_corners=True)
compare({"8 pictures": (ours, F.grid_sample(images[:8], grid, padding_mode="border", align_corners=True))})

# %% tags=["nbval-check-output"]
random = torch.Generator().manual_seed(0)
shown = images[:7]
pictures(
    torch.cat([shown, augment(shown, random), augment(shown, random)]),
    title="Originals, and two views of each",
    columns=7,
    alt="Three rows of seven shapes. Under each original two views: moved by a pixel or two, a little larger or "
    "smaller, lighter or darker, with grains of noise. Size, colour, shape, place and ground can still be told.",
)

# %% [markdown]
# The line becomes 10, 15, 25, 35, 45, the moved pictures equal PyTorch's, and every view still fits its caption. That is the rule for choosing changes: *vary what does not matter*. Mirroring, a
# favourite for photographs, would make "left" and "right" the same, so it is off.
#
# ### Which one is my partner?
#
# The encoder gives each view a vector. Two vectors are compared by their **cosine**: divide both by their length,
# multiply number by number, add up. It is 1 for the same direction, 0 for a right angle, -1 for opposite. Take two
# pictures, the views $a_1, b_1$ and $a_2, b_2$, and vectors of two numbers, all of length 1:
#
# | | vector | cosine with $a_1$ | with $a_2$ | with $b_1$ | with $b_2$ |
# |---|---|---|---|---|---|
# | $a_1$ | (1, 0) | | 0 | **0.8** | -0.6 |
# | $a_2$ | (0, 1) | 0 | | 0.6 | **0.8** |
# | $b_1$ | (0.8, 0.6) | **0.8** | 0.6 | | 0 |
# | $b_2$ | (-0.6, 0.8) | -0.6 | **0.8** | 0 | |
#
# Each view must pick its partner (bold) among all others. It gives view $k$ the share
#
# $$p_{ik} = \frac{e^{\cos_{ik} / \tau}}{\sum_{j \ne i} e^{\cos_{ij} / \tau}}$$
#
# and pays $-\log p$ of its partner: lesson 03's cross-entropy, now with many answers. The **temperature** $\tau$
# says how sharply it looks. The mean of all payments is the loss NT-Xent (Chen and others, 2020).
#
# **Predict.** With $\tau = 0.5$, which two of the four views pay more?

# %% tags=["nbval-check-output"]
cosines = [[1, 0, 0.8, -0.6], [0, 1, 0.6, 0.8], [0.8, 0.6, 1, 0], [-0.6, 0.8, 0, 1]]
partners, payments = [2, 3, 0, 1], []
for i in range(4):
    powers = [math.exp(cosines[i][j] / 0.5) for j in range(4)]
    share = powers[partners[i]] / sum(powers[j] for j in range(4) if j != i)
    payments.append(-math.log(share))
    print(f"{['a1', 'a2', 'b1', 'b2'][i]} gives its partner {share:.3f} and pays {payments[-1]:.3f}")
print(f"loss: {sum(payments) / 4:.4f}")


# %% tags=["lib:image_encoder.nt_xent_loss", "nbval-check-output"]
def nt_xent_loss(a: Tensor, b: Tensor, temperature: float = 0.5) -> Tensor:
    """Each view must pick its partner: a and b (B, E), row i of both are views of picture i -> ()."""
    require_same_shape(a, b)
    views = torch.cat([a, b])  # (2B, E)
    views = views / views.norm(dim=1, keepdim=True).clamp(min=1e-8)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)  # (2B, 2B), the share of oneself is 0
    partners = torch.arange(2 * len(a), device=a.device).roll(len(a))  # i -> i + B, and back
    return cross_entropy(logits, partners)


# %% tags=["nbval-check-output"]
def double_loop(a, b, temperature):
    views, total = [*a, *b], 0.0
    for i, view in enumerate(views):
        powers = [torch.exp(F.cosine_similarity(view, other, dim=0) / temperature) for other in views]
        total -= torch.log(powers[(i + len(a)) % len(views)] / (sum(powers) - powers[i]))
    return total / len(views)


a, b = torch.tensor([[[1.0, 0.0], [0.0, 1.0]], [[0.8, 0.6], [-0.6, 0.8]]], device=device)
c, d = torch.randn(2, 5, 7, dtype=torch.float64).to(device).requires_grad_()  # five pictures
compare(
    {
        "by hand": (nt_xent_loss(a, b).cpu(), torch.tensor(sum(payments) / 4)),
        "loop, 5 pictures": (nt_xent_loss(c, d, 0.3), double_loop(c, d, 0.3)),
        "its slope": [torch.autograd.grad(f(c, d, 0.3), c)[0] for f in (nt_xent_loss, double_loop)],
    }
)
same = torch.ones(64, 8, device=device)
print(f"64 pictures, all vectors equal: {nt_xent_loss(same, same):.3f}, and log 127 = {math.log(127):.3f}")

# %% [markdown]
# $a_2$ and $b_1$ pay more: they are strangers with a cosine of 0.6, and so in each other's way. The library's loss agrees
# with paper and loop. And an encoder that tells nothing apart has to guess among 127 others, which costs log 127 = 4.844. Remember that number.
#
# ## 5 The training
#
# `SelfSupervised` puts a small **head** behind the encoder, two linear layers, and compares the head's 64 numbers
# instead of the encoder's 256; why, section 6 shows. The rest is known. (`channels_last` stores the three colours of a
# pixel side by side: the same numbers, but faster convolutions.)
#
# **Predict.** Nothing has been learned before the first step. Is the first loss 4.844?

# %%
torch.manual_seed(0)
model, random = SelfSupervised(encoder).to(device), torch.Generator().manual_seed(0)


def views(step):
    rows = torch.randint(len(images), (64,), generator=random)
    return tuple(
        augment(images[rows], random).contiguous(memory_format=torch.channels_last) for _ in range(2)
    )


optimizer, schedule = Adam(model.parameters()), warmup_cosine(2e-3, steps=150, warmup=7)
losses = fit(model, views, SelfSupervised.forward, optimizer, 150, learning_rate=schedule)
model.eval()
table([{"step": step, "loss": losses[step - 1], "guessing": math.log(127)} for step in (1, 10, 30, 75, 150)])
assert losses[-1] < 1

# %% [markdown]
# No: 3.5. Random weights already send two views of one picture in nearer directions than two strangers. Keep that in
# mind for the next section. At the end the partner gets $e^{-0.3}$, about 0.7, of the share.
#
# `pretrain` is these lines as one function. First the promised round trip: save the encoder, forget it, and
# build it again from the two files. `dataclass_from_dict` checks every setting by name and type, `load_weights` every
# tensor by name and shape.

# %% tags=["nbval-check-output"]
save_checkpoint(folder, encoder.state_dict(), asdict(encoder.config))
tensors, config = load_checkpoint(folder)
again = ImageEncoder(dataclass_from_dict(ImageEncoderConfig, config, "config.json")).to(device).eval()
load_weights(again, tensors, folder)
with torch.no_grad():
    compare({"500 pictures": (again(images[:500]), encoder(images[:500]))})

for mistake in ({"widht": 32}, {"width": "32"}, {"image_size": 48}):
    try:
        dataclass_from_dict(ImageEncoderConfig, mistake, "config.json")
    except CourseError as error:
        print(error)
temporary.cleanup()

# %% [markdown]
# `find_checkpoint` finds a checkpoint by its name under `data/checkpoints` (`checkpoints_folder`), or by its path.
#
# ## 6 What has it learned?
#
# Nobody ever asked it for a colour. We ask now, with a **linear probe**: take the vectors as they are, learn *one* linear
# layer from 1,000 labelled pictures, and count how often it is right on 2,000 others.
#
# This layer needs no training loop. Which weights minimise the squared error plus a **penalty** on their size? Setting
# the slope to 0 gives a formula, **ridge regression**. With one number $x$ for each of $N$ pictures and answer $y$:
#
# $$\frac{1}{N} \sum (x w - y)^2 + \lambda w^2 \;\text{ is least at }\; w = \frac{\sum x y}{\sum x^2 + \lambda N}$$
#
# **Predict.** $x$ is 1 and 2, $y$ as well, and $\lambda = 0.5$. What is $w$? And without the penalty?


# %% tags=["lib:image_encoder.ridge_regression", "lib:image_encoder.linear_probe", "nbval-check-output"]
def ridge_regression(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    small = penalty * len(x) * torch.eye(min(x.shape), dtype=x.dtype, device=x.device)
    if x.shape[0] < x.shape[1]:
        return x.T @ torch.linalg.solve(x @ x.T + small, y)  # fewer pictures than numbers: the smaller matrix
    return torch.linalg.solve(x.T @ x + small, x.T @ y)


def linear_probe(
    features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor, penalty: float = 0.01
) -> float:
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    x, x_test = ((f - mean).div(deviation).double() for f in (features, test_features))
    one_hot = torch.eye(int(labels.max()) + 1, dtype=x.dtype, device=x.device)[labels]  # (N, C)
    prior = one_hot.mean(0)
    scores = x_test @ ridge_regression(x, one_hot - prior, penalty) + prior  # (M, C)
    return (scores.argmax(1) == test_labels).double().mean().item()


# %% tags=["nbval-check-output"]
column = torch.tensor([[1.0], [2.0]], device=device)
print(f"w = {ridge_regression(column, column, 0.5).item():.4f}")

x, y = torch.randn(30, 5).double().to(device), torch.randn(30, 2).double().to(device)
with_penalty = torch.cat([x, (0.1 * len(x)) ** 0.5 * torch.eye(5, dtype=x.dtype, device=device)])
theirs = torch.linalg.lstsq(with_penalty, torch.cat([y, torch.zeros_like(y[:5])])).solution
compare({"against lstsq": (ridge_regression(x, y, 0.1), theirs)})

# %% [markdown]
# 5 / (5 + 0.5 · 2) = 0.8333 instead of 1: the penalty pulls towards 0, so that 1,000 pictures are not learned by heart.
# PyTorch has no ridge regression, but its least squares gives the same when the penalty is added as five more pictures.
#
# Now the exam. Four kinds of numbers are read: the 3,072 pixels themselves; 256 sums of them with random weights; the
# 256 numbers of the encoder **before** training; and those after it. Pixels and sums get the penalties that suited them
# best.
#
# **Predict.** Order the four. How far above pixels will the *untrained* encoder be?


# %%
def labelled(length, seed, side=32):
    shapes = CaptionedShapes("all", side, seed, length=length)
    scenes = [shapes.attributes(i) for i in range(length)]
    labels = [[values.index(scene[name]) for name, values in SINGLE.items()] for scene in scenes]
    return shapes.images(range(length), device), torch.tensor(labels, device=device)


@torch.no_grad()
def examine(read, known, unknown, penalty=0.01, n=1000):
    features, labels, others, truth = read(known[0])[:n], known[1][:n], read(unknown[0]), unknown[1]
    right = [linear_probe(features, labels[:, i], others, truth[:, i], penalty) for i in range(len(SINGLE))]
    return torch.tensor([*right, sum(right) / len(right)]) * 100


# %%
known, unknown = labelled(1000, seed=1), labelled(2000, seed=2)
mix = torch.randn(3072, 256, generator=torch.Generator().manual_seed(0)).to(device)
guess = [100 / len(values) for values in SINGLE.values()]
scores = {
    "guessing": torch.tensor([*guess, sum(guess) / 5]),
    "pixels": examine(lambda x: x.flatten(1), known, unknown, penalty=1.0),
    "random sums": examine(lambda x: x.flatten(1) @ mix, known, unknown),
    "untrained encoder": examine(untrained, known, unknown),
    "trained encoder": examine(encoder, known, unknown),
}
alt = "Percent right for guessing, pixels, random sums, untrained and trained encoder. Means about 26, 60, 54, 78, 85. "
alt += "Untrained: place and ground nearly 100, color below pixels. Trained: color near 90, shape only 45."
heatmap(torch.stack([*scores.values()]), "Percent right", ([*scores], [*SINGLE, "mean"]), alt, digits=1)
means = {name: row[-1].item() for name, row in scores.items()}
assert means["trained encoder"] > means["untrained encoder"] + 3 > means["pixels"] + 13

# %% [markdown]
# The surprise is row four. An encoder that has learned *nothing* is 18 points above the pixels; all training adds 7
# more. Whoever compares the last row with the second alone, as is often done, credits the training with 25 points.
# (At full length, 200 steps with batches twice as large, `python tests/measure_features.py` gives 59.9, 78.1 and 85.4.)
#
# How can random weights know where a thing is? They don't; the *pixels* do, but not in a way that one linear layer can
# read. A red star may stand on navy, where it makes its place brighter, or on cream, where it makes it darker. A
# weighted sum of pixels cannot say "different, no matter in which direction". An absolute value can.
#
# **Predict.** Replace each pixel by its distance from the mean of its picture and channel. Which attributes can then be
# read, and which one gets lost?

# %%
distance = examine(lambda x: (x - x.mean((2, 3), keepdim=True)).abs().flatten(1), known, unknown, penalty=1.0)
table(
    [
        {"attribute": name, "pixels": scores["pixels"][i], "distances": distance[i]}
        | {"untrained": scores["untrained encoder"][i], "trained": scores["trained encoder"][i]}
        for i, name in enumerate(SINGLE)
    ]
)
assert distance[3] > 95 and distance[1] < 30

# %% [markdown]
# One bent line, with nothing learned, brings place from 52 to 100 and shape from 28 to 87, more than our trained encoder
# reads. It loses colour, which *is* the direction. ReLU is bent too. So the untrained encoder's gain comes from its
# build: many random filters, each followed by a bend, none of them averaged over places. Random sums without a bend gain
# nothing. Training then chose better filters: colour 71 to 90, size 85 to 92, shape 35 to 45.
#
# Two lessons. *An encoder is to be compared with itself before training.* And 3,072 distances, written by someone who
# knows how these shapes are made, can beat 256 learned numbers; learning is for where nobody knows the formula.
#
# ### Fewer labels
#
# Labels cost money, pictures often nothing. That is what self-supervised training is for.
#
# **Predict.** How many labels does the trained encoder need to be as good as the untrained one with 1,000?

# %%
counts = [50, 100, 200, 500, 1000]
readers = {
    "trained": (encoder, 0.01),
    "untrained": (untrained, 0.01),
    "pixels": (lambda x: x.flatten(1), 1.0),
}
curves = {}
for name, (read, penalty) in readers.items():
    curves[name] = [examine(read, known, unknown, penalty, n)[-1] for n in counts]
lines(
    counts,
    curves,
    "Labels, and what they buy",
    ("labelled pictures (each tick is twice as many)", "percent right, mean of five attributes"),
    "Percent right against 50 to 1,000 labels. Trained rises from 67 to 85, untrained from 56 to 78, pixels from 44 "
    "to 60. Trained reaches 78 at 200 labels, untrained at 1,000.",
    xscale="log",
    xticks=counts,
    xticklabels=counts,
    ylim=(35, 90),
)

# %% [markdown]
# About 200: a fifth. That, and not the last few points at the right edge, is the gain.
#
# ### The views decide
#
# What does the encoder learn to see? What helps to recognise a partner, and nothing else. So the changes are the teacher.
# We train three more encoders for 60 short steps from the same start: with no changes at all, with ours, and with
# contrast and colours changed by up to 70 %. The last row reads the trained encoder's *head* instead of its vector.
#
# **Predict.** Which of these knows colours best, and which worst?

# %%
lessons = {
    "no changes": Augmentation(shift=0, zoom=0, color=0, noise=0),
    "small changes": Augmentation(),
    "strong colors": Augmentation(color=0.7),
}
rows = {"untrained": (untrained, None)}
for name, changes in lessons.items():
    pupil = copy.deepcopy(untrained)
    end = pretrain(pupil, images, steps=60, batch_size=64, augmentation=changes)[-1]
    rows[f"60 steps, {name}"] = pupil, end
rows["150 steps, its head"] = (lambda x: model.output(model.hidden(encoder(x).relu()).relu())), losses[-1]
marks = {name: examine(read, known, unknown) for name, (read, _) in rows.items()}
table(
    [
        {"": name, "last loss": "" if rows[name][1] is None else rows[name][1]}
        | {"color": mark[1], "shape": mark[2], "mean": mark[-1]}
        for name, mark in marks.items()
    ]
)
assert marks["60 steps, small changes"][1] > marks["60 steps, strong colors"][1] + 5

# %% [markdown]
# Without changes the loss is nearly 0 at once: two equal pictures are told by anything, so hardly anything is learned.
# With strong changes colour no longer tells partners, and it is *not* learned. Only the small ones teach colour. No
# label was used, but we who chose the changes did know what matters.
#
# And the head has forgotten a lot: what its task does not need, it drops, colour and shape before all. The vector
# before it still has them. Therefore the head is thrown away after training.
#
# ## What changed in the library
#
# Three rooms are furnished: `fit.py`, `checkpoint.py` and `image_encoder.py`. From here on, every training of lessons 07
# to 09 is a call of `fit`, and every model lives in a folder of two files.
#
# ## Three questions
#
# 1. A colleague reports that self-supervised training lifted a probe from 60 % (pixels) to 85 %. What do you ask?
#
# <details><summary>Answer</summary>
#
# What the same encoder reads before training. Here it was 78, so the training's own share is 7 points of the 25. With
# fewer labels that share is larger: look at the curve at 100.
#
# </details>
#
# 2. The task is to tell left hands from right hands in photographs. Which usual change of the views must go?
#
# <details><summary>Answer</summary>
#
# Mirroring: it makes a right hand of a left one, and the training would ask the encoder to see no difference. Changes
# are a statement about what does not matter.
#
# </details>
#
# 3. Batch normalisation normalises all views together. During training, could a view recognise its partner by that?
#
# <details><summary>Answer</summary>
#
# In one batch all views share the same mean and deviation, so these tell nobody apart. But if each GPU of a large
# training normalises only its own part of the batch, and partners always sit on the same GPU, the statistics give them
# away. SimCLR therefore normalises over all machines together.
#
# </details>
#
# ## Papers
#
# - Ting Chen and others (2020), *A Simple Framework for Contrastive Learning of Visual Representations*: SimCLR, its
#   loss NT-Xent (eq. 1), and why the head goes (section 4.2). [arXiv:2002.05709](https://arxiv.org/abs/2002.05709)
# - Geoffrey Hinton and Ruslan Salakhutdinov (2006), *Reducing the Dimensionality of Data with Neural Networks*:
#   autoencoders. [doi:10.1126/science.1127647](https://doi.org/10.1126/science.1127647)
# - Kevin Jarrett and others (2009), *What is the Best Multi-Stage Architecture for Object Recognition?*: random filters
#   with a bend, and how far they get. [doi:10.1109/ICCV.2009.5459469](https://doi.org/10.1109/ICCV.2009.5459469)
# - Guillaume Alain and Yoshua Bengio (2016), *Understanding intermediate layers using linear classifier probes*.
#   [arXiv:1610.01644](https://arxiv.org/abs/1610.01644)
# - Arthur Hoerl and Robert Kennard (1970), *Ridge Regression*.
#   [doi:10.1080/00401706.1970.10488634](https://doi.org/10.1080/00401706.1970.10488634)
# - Ilya Loshchilov and Frank Hutter (2017), *SGDR*: the cosine (eq. 5).
#   [arXiv:1608.03983](https://arxiv.org/abs/1608.03983)
# - Priya Goyal and others (2017), *Accurate, Large Minibatch SGD*: the warm-up (section 2.2).
#   [arXiv:1706.02677](https://arxiv.org/abs/1706.02677)
#
# Next: lesson 07 does for words what this one did for pictures.
