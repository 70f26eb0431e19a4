# %% [markdown]
# # 17 · Errata and responsibility
#
# **You will build** `course_lib/provenance.py`, a note in every picture that says where it comes from, and a test for
# models that learn their training pictures by heart. Before that, the errata lab: the 21 errors of the article this
# course grew out of, each one run or looked up.
#
# **You need** the whole course; every item says which lesson it leans on.
#
# **Time**: 75 minutes of reading and thinking; the computer needs less than 40 seconds.
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
#   class c00,c01,c02,c03,c04,c05,c06,c07,c08,c09,c10,c11,c12,c13,c14,c15,c16 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c17 lit
# ```

# %% tags=["nbval-check-output"]
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from course_lib import __version__
from course_lib.lesson import figure, lines, pictures, setup, table
from course_lib.losses import bce_loss, generator_loss, mse_loss, saturating_generator_loss
from course_lib.models import load_model

EMOJI = "emoji-64"  # the model whose memory is tested in section 5
device = setup()
refuted = {}  # number of a claim -> True if a run refuted it

# %% [markdown]
# The article explained a text-to-image GAN, and most of its building blocks are real: an encoder for the text, a
# generator, a discriminator, Adam. But where it can be checked, it often fails. **Bold** lines state what it claims, in
# our words; the code under them decides.
#
# ## 1 Four formulas
#
# **9 · For D(real) = 0.95 and D(fake) = 0.05 the loss is 0.025.** Lesson 03 gave the formula: $-\log 0.95$ for each of the
# two, because each time the truth got 0.95.
#
# **7 · In the cross-entropy the generated picture is the label.** We take it by its word.
#
# **Predict.** Is 0.025 too small or too large? And what will `bce_loss` say to a picture as a label?

# %% tags=["nbval-check-output"]
outputs, truth = torch.tensor([0.95, 0.05]), torch.tensor([1.0, 0.0])
mean = bce_loss(outputs, truth).item()
printed = -(outputs * outputs.log()).sum().item()  # the article's expression: each output is its own label
print(f"mean {mean:.4f}, sum {2 * mean:.4f}, the expression as printed {printed:.4f}")
refuted[9] = min(abs(loss - 0.025) for loss in (mean, 2 * mean, printed)) > 0.02

images = torch.tensor([-0.3, 0.4])[:, None, None, None].expand(2, 3, 4, 4)  # a dark picture, a bright one
complaints = []
for label in (images, images.mean((1, 2, 3))):
    try:
        bce_loss(outputs, label)
    except ValueError as error:
        complaints.append(str(error))
print("\n".join(complaints))
refuted[7] = len(complaints) == 2

# %% [markdown]
# 0.025 is half of the right mean and an eighth of what the printed expression gives. And a picture is no number; its
# mean can be negative. Squeezed into [0, 1] it would still teach D to report brightness, for real and fake alike. Labels
# are 1 and 0.
#
# **6 · The squared error is summed and divided by the number of pictures; the symbols of the real and the generated
# picture are swapped.** At 32 pixels the sum is 3072 times the mean over all numbers (lesson 03). Does it matter? A linear
# map learns eight pictures from noise, with either divisor; we print the mean error in the end.
#
# **Predict.** Which optimiser will not notice?


# %% tags=["nbval-check-output"]
from course_lib.optim import Adam, GradientDescent, adam_update


def error_after_50_steps(optimizer, lr, divisor):
    random, weight = torch.Generator().manual_seed(0), torch.zeros(16, 3072, requires_grad=True)
    noise, images = torch.randn(8, 16, generator=random), torch.rand(8, 3072, generator=random) * 2 - 1
    optimizer = optimizer([weight], lr)
    for _ in range(50):
        optimizer.zero_grad()
        ((noise @ weight - images) ** 2).sum().div(divisor).backward()
        optimizer.step()
    return f"{mse_loss(noise @ weight, images).item():.4f}"


trials = [(GradientDescent, 0.1), (GradientDescent, 300), (Adam, 0.01)]
errors = [[error_after_50_steps(*trial, n) for n in (8 * 3072, 8)] for trial in trials]
rows = [(kind.__name__, lr, *pair) for (kind, lr), pair in zip(trials, errors, strict=True)]
table([dict(zip(("", "lr", "divided by all numbers", "by pictures"), row, strict=True)) for row in rows])
refuted[6] = errors[1][1] == "nan"

# %% [markdown]
# The minimum is the same, but no learning rate of gradient descent serves both. Adam divides by the size of the
# gradient and sees no difference; with it the error stays hidden, until this loss is *added* to another one and weighs
# 3072 times too much.
#
# Swapped symbols leave the value as it is, $(a - b)^2 = (b - a)^2$. But only the generated picture has a gradient to
# follow; that of the other symbol has the opposite sign.
#
# **10 · Adam, written without bias correction.** Its first step is $(1 - \beta_1) / \sqrt{1 - \beta_2} = 0.1 / 0.0316$ =
# 3.16 times too long (lesson 04).
#
# **Predict.** Is the first step the worst?


# %% tags=["nbval-check-output"]
def step_lengths(bias_correction):
    x, exp_avg, exp_avg_sq, places = torch.zeros(()), torch.zeros(()), torch.zeros(()), [0.0]
    for step in range(1, 3001):
        adam_update(x, torch.ones(()), exp_avg, exp_avg_sq, step, lr=1.0, bias_correction=bias_correction)
        places.append(-x.item())
    return torch.tensor(places).diff()


curves = {"without correction": step_lengths(False), "Adam": step_lengths(True)}
labels = "step (logarithmic scale)", "length, in learning rates"
alt = "Length of a step against its number. Adam's is 1. Uncorrected: 3.2, then 6.6 at step 12, at last 1."
lines(range(1, 3001), curves, "Steps while the gradient stays 1", labels, alt, xscale="log", ylim=(0, 7))
wild = curves["without correction"]
print(f"first {wild[0]:.2f}, longest {wild.max():.2f}, the thousandth {wild[999]:.2f}")
refuted[10] = wild[0].item() > 3

# %% [markdown]
# No: the twelfth is 6.6 times too long, and after a thousand steps they still are 1.26 times too long. The first mean
# fills up within some ten steps, that of the squares takes a thousand.
#
# ## 2 The game
#
# **5 · The generator is trained by the squared error against the real picture.** Which one? Fifty pictures of our data
# fit "a large red star on gray". What has the least error against all of them is their mean (lessons 03 and 09).
#
# **18 · Generated pictures are judged by MSE and SSIM.** Against which reference? The table takes each candidate and
# compares it with every real picture of the caption. SSIM (lesson 15) is 1 for equal pictures.
#
# **Predict.** Order them by error: another real picture, a drawn one, the mean, a canvas with nothing on it.

# %%
from course_lib.data import CaptionedEmoji, CaptionedShapes
from course_lib.image_metrics import ssim

shapes, painter = CaptionedShapes("all", 32, length=20_000), load_model("shapes-32", device)
words = {"large", "red", "star", "gray"}  # the place is left open
real = shapes.images([i for i in range(len(shapes)) if words <= set(shapes.attributes(i).values())])
drawn = painter.sample(["a large red star on gray"], len(real)).cpu()  # (52, 3, 32, 32)
candidates = {"another real one": real.roll(1, 0), "drawn by shapes-32": drawn}
candidates |= {"the mean": real.mean(0).expand_as(real)}
candidates |= {"empty canvas": real.median(0).values.expand_as(real)}
pictures(torch.stack([x[0] for x in candidates.values()]), list(candidates), "A large red star on gray?")
marks = {name: (mse_loss(x, real).item(), ssim(x, real).item()) for name, x in candidates.items()}
table([{"candidate": name, "MSE": error, "SSIM": likeness} for name, (error, likeness) in marks.items()])
refuted[5] = marks["the mean"][0] < 0.6 * marks["another real one"][0]
refuted[18] = marks["empty canvas"][1] > marks["another real one"][1]

# %% [markdown]
# By either measure a *real* star is worst. The mean wins on squared error, and the empty canvas on SSIM: no star at all is
# more like every star than another star is. Both measures are right where there is one right picture,
# such as the original of a reconstruction; for samples there is none.
#
# **8 · G and D together minimise the sum of their losses.** Points show it in seconds (lesson 10). The data is a ring of
# eight heaps. Three generators: one plays the game, one shares a common loss with D, one has the squared error of
# claim 5.
#
# **Predict.** The common loss will end *lower* than the fair one. What has its generator drawn by then?


# %%
from course_lib import gan


def play(joint, steps):
    torch.manual_seed(0)
    players = gan.MLPGenerator().to(device), gan.MLPDiscriminator().to(device)
    game = gan.AdversarialStep(*players, r1_weight=0.1, r2_weight=0.1, joint=joint)
    random, losses = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        losses.append(game(gan.ring_of_gaussians(128, random).to(device)))
    return game, losses


fair, fair_losses = play(joint=False, steps=1800)
common, common_losses = play(joint=True, steps=600)
print("fair game:  ", {name: round(loss, 2) for name, loss in fair_losses[-1].items()})
print("common loss:", {name: round(loss, 2) for name, loss in common_losses[-1].items()})

# %%
averager, random = gan.MLPGenerator().to(device), torch.Generator().manual_seed(0)
optimizer = Adam(averager.parameters(), 1e-3)
for _ in range(600):
    z, points = torch.randn(128, 2, generator=random), gan.ring_of_gaussians(128, random)
    optimizer.zero_grad()
    mse_loss(averager(z.to(device)), points.to(device)).backward()
    optimizer.step()
with torch.no_grad():
    drawn = {"fair game": fair.fake(800).cpu(), "common loss": common.fake(800).cpu()}
    drawn["squared error"] = averager(torch.randn(800, 2, generator=random).to(device)).cpu()
found = {name: gan.covered_modes(points, gan.ring_centers())[0] for name, points in drawn.items()}
print(f"heaps found, of 8: {found}")
assert found["fair game"] >= 5
refuted[8] = found["common loss"] == 0

# %%
points = gan.ring_of_gaussians(800, torch.Generator().manual_seed(1))
alt = """Three planes; grey: the data, eight heaps on a ring. Fair game: generated dots on the heaps, some
between. Common loss: a clump or streak where no data is. Squared error: a smear in the middle of the ring."""
with figure("Three generators for one ring", alt, columns=3) as axes, torch.no_grad():
    for axis, (name, fakes) in zip(axes, drawn.items(), strict=True):
        axis.scatter(*points.T, s=4, color="#bbbbbb", label="data")
        axis.scatter(*fakes.T, s=4, color="#D55E00", label="generated")
        axis.set(title=name, xlabel="x", ylabel="y", aspect="equal", xlim=(-8, 8), ylim=(-8, 8))
        axis.set(xticks=[-5, 0, 5], yticks=[-5, 0, 5])
    axes[0].legend(loc="lower center", markerscale=3)
    for name, game in {"fair game": fair, "common loss": common}.items():
        real_p, fake_p = (torch.sigmoid(game.discriminator(x.to(device))) for x in (points, drawn[name]))
        print(f"{name}: D(real) = {real_p.mean():.2f}, D(fake) = {fake_p.mean():.2f}")

# %% [markdown]
# Nothing near the data. The two losses of a fake together are $\mathrm{softplus}(l) + \mathrm{softplus}(-l)$, least
# at the logit 0, so *both* players want D(fake) = 1/2. Near the data D says "real"; so G flees from the data. The loss
# looked best where the drawing is worst.
#
# In the fair game both end near 1/2 too, for another reason: real and fake can't be told apart.
#
# **12 · G minimises log(1 - D(fake)).** Let the data lie far away, so that D is soon sure, and compare how hard this
# loss and the non-saturating one pull at G's weights.

# %%
torch.manual_seed(0)
game = gan.AdversarialStep(gan.MLPGenerator().to(device), gan.MLPDiscriminator().to(device))
rows, random = [], torch.Generator().manual_seed(0)
for step in range(601):
    if step % 200 == 0:
        row = {"steps of D": step, "D(fake)": torch.sigmoid(game.discriminator(game.fake(256))).mean()}
        for name, loss in {"saturating": saturating_generator_loss, "non-saturating": generator_loss}.items():
            value = loss(game.discriminator(game.fake(256)))
            gradients = torch.autograd.grad(value, game.generator.parameters())
            row[name] = sum(gradient.square().sum() for gradient in gradients).sqrt()
        rows.append(row)
    game.discriminator_step(10 + gan.ring_of_gaussians(128, random).to(device))
table(rows)
refuted[12] = (rows[-1]["non-saturating"] > 1000 * rows[-1]["saturating"]).item()

# %% [markdown]
# The surer D is, the less the article's loss says to G, exactly when G is at its worst (lesson 03).
#
# **11 · D sees the picture only.** Let a painter obey its captions, and let another draw the very same pictures, each
# for somebody else's caption. What does each pay, if D reads, and if D is told nothing (the empty caption)?
#
# **Predict.** Which of the four numbers must be equal, before you look?

# %%
heldout = CaptionedShapes("heldout", 32, seed=1, length=300)
captions = [heldout.caption(i) for i in range(300)]
words, judge = painter.encode_text(captions), painter.discriminator
with torch.no_grad():
    seen, rows = judge.features(painter.sample(captions, 1)), []
    for name, told in {"reads": words, "is blind": painter.unconditional().expand_as(words)}.items():
        costs = [generator_loss(judge.match(seen, text)) for text in (told, told.roll(1, 0))]
        rows.append({"D": name, "obedient painter pays": costs[0], "disobedient painter pays": costs[1]})
table(rows)
refuted[11] = torch.equal(*costs)

# %% [markdown]
# A blind judge charges both the same, to the last digit: it is the same set of pictures. Whatever it teaches, obedience
# isn't in it. One that reads charges the disobedient several times as much; it was trained with wrong captions
# (lesson 11, Reed et al. 2016).
#
# **13 · Self-supervised and adversarial training are used as one word.** In the first, the data itself holds the answers; in
# the second, they come from an opponent who learns too.
#
# **4 · Imagen's text encoder is GPT, used through the `openai` package.** It is T5-XXL, frozen (Saharia et al. 2022,
# section 2.1); that package sends requests to a company's computers and holds no encoder. The two kinds differ: GPT reads
# left to right, T5's encoder both ways. Ours is a GPT (lesson 07).
#
# **Predict.** We change the last word of "a large red star". Which numbers of the encoder change?

# %%
from course_lib.checkpoint import checkpoints_folder, load_checkpoint
from course_lib.text_encoder import embed_tokens, load_text_encoder

encoder, tokenizer = load_text_encoder("gpt-captions", device)
pieces = tokenizer.pieces("a large red star")
print("read, then foretold:", [*zip(pieces, pieces[1:], strict=False)])
scores = load_checkpoint(checkpoints_folder() / "gpt-captions")[1]["training"]["scores"]
guess, trained = math.log(encoder.config.vocab_size), scores["train nats per token"]
print(f"self-supervised: loss {guess:.2f} -> {trained:.2f} nats")
early, late = (sum(x["loss_d"] for x in part) / 50 for part in (fair_losses[100:150], fair_losses[-50:]))
print(f"adversarial: D's loss {early:.2f} -> {late:.2f} nats, where 2 log 2 = {2 * math.log(2):.2f}")
refuted[13] = late > early
states = embed_tokens(encoder, tokenizer, ["a large red star", "a large red disc"])  # (2, T, E)
change = (states[0] - states[1]).abs().amax(1)[: len(pieces) + 1]  # a mark of the beginning stands first
print("largest change at each token:", [round(x, 1) for x in change.tolist()])

# %% [markdown]
# Both trainings went well: one loss fell, the other *rose*, towards the 1.39 of a judge who can only toss a coin. The text
# encoder had no second network to answer; its answers are the next tokens.
#
# What stands before the change does not feel it at all. In T5's encoder every state would.
#
# ## 3 The listing
#
# **3 · `steps_per_sample` and `guidance_scale` steer a GAN's sampling.** Count how often each network is called.

# %%
diffusion, calls, rows, drawn = load_model("shapes-32-diffusion", device), [], [], {}
for network in (painter.generator, diffusion.base):
    network.register_forward_hook(lambda network, inputs, output: calls.append(len(output)))
for name, model, steps in [("GAN", painter, 0), ("diffusion", diffusion, 20)]:
    for scale in (1.0, 5.0):
        calls.clear()
        drawn[scale] = model.sample("a small red circle at the center on navy", 4, steps, scale)
        row = {"model": name, "guidance_scale": scale, "calls": len(calls), "pictures computed": sum(calls)}
        rows.append(row | {"same as with 1": torch.equal(drawn[1.0], drawn[scale])})
table(rows)
refuted[3] = rows[1]["same as with 1"] and not rows[3]["same as with 1"]

# %% [markdown]
# One call for four pictures; guidance changes nothing. The diffusion model is called at every step, with guidance for
# twice the pictures, with and without the caption. What `steps_per_sample` does to *our* GAN is our addition
# (refinement, lesson 14).
#
# **20 · `z_size`, the length of the noise, is passed as the size of the text embedding. 19 · The listing runs as
# printed.** Here are its mistakes once more, in small.
#
# **Predict.** Three of the seven raise no error. Which?


# %%
import io


def prepare(path, size):  # named like the import that it means to call
    return prepare(path)


class Greeting:
    def __reduce__(self):  # tells pickle what to call when it loads this
        return print, ("(a weight file printed this line)",)


torch.save({"weight": Greeting()}, weight_file := io.BytesIO())
weight_file.seek(0)
noise = torch.randn(2, 64, device=device)
words = painter.encode_text(["a star", "a ring"])  # (2, 96)
pixels, says = torch.rand(2, 3, 32, 96, device=device), {}

# %%
mistakes = {
    "noise as the text": lambda: painter.generator(noise, noise),
    "noise as the text, of equal size": lambda: painter.generator(noise, torch.randn_like(words)),
    "a function hides the import": lambda: prepare("photo.png", 32),
    "a name is read before it exists": lambda: not_there_yet,  # noqa: F821
    "text times pixels": lambda: words[:, None, None] * pixels[..., :32],
    "text times pixels, 96 wide": lambda: words[:, None, None] * pixels,
    "weights loaded as pickled objects": lambda: torch.load(weight_file, weights_only=False),
}
for mistake, attempt in mistakes.items():
    try:
        says[mistake] = f"nothing, and returns a {type(attempt()).__name__}"
    except Exception as error:
        says[mistake] = f"{type(error).__name__}: {error}"
table([{"mistake": mistake, "Python says": answer} for mistake, answer in says.items()])

# %%
refuted[20], refuted[19] = (not list(says.values())[i].startswith("nothing") for i in (0, 2))
assert all(refuted.values()), f"not refuted here: {[item for item, found in refuted.items() if not found]}"
print("refuted by running:", sorted(refuted))
print("by their sources:  ", [item for item in range(1, 22) if item not in refuted])

# %% [markdown]
# The errors are the harmless ones. If both sizes agree, noise passes for a sentence, and if the picture is as wide as the
# embedding, its columns are multiplied with the text, without a word. And a pickled file runs whatever its author wrote:
# ours printed a line. `weights_only=True`, torch's default since 2.6, refuses that; our checkpoints are safetensors, which
# can't hold code (lesson 06).
#
# Last, the listing's main block lets go of its pictures without saving them. `course generate` is the program it meant
# to be.
#
# ## 4 Names, dates, addresses
#
# These can be looked up and not run. Years are those of the first version on arXiv.
#
# | | claim | what the sources say |
# |---|---|---|
# | 1 | Imagen is OpenAI's; its code can be cloned | It is by Google Research ([Saharia et al. 2022](https://arxiv.org/abs/2205.11487)). They chose to release neither code nor a demo (section 6), so there is no official repository. |
# | 2 | Imagen is a GAN | A cascade of diffusion models, 64 to 256 to 1024 pixels, on a frozen T5-XXL, with classifier-free guidance and dynamic thresholding (sections 2.1 to 2.4). Zero-shot FID-30K on COCO: 7.27 (table 1). Lesson 16 builds a small one. |
# | 14 | DCGAN is credited to Kingma and Welling and has a class "DCG" | DCGAN: [Radford, Metz and Chintala 2015](https://arxiv.org/abs/1511.06434). [Kingma and Welling 2013](https://arxiv.org/abs/1312.6114) wrote the VAE. No class has that name. |
# | 15 | one paper introduces conditional GANs and PixelCNN | There is none. Conditional GANs: [Mirza and Osindero 2014](https://arxiv.org/abs/1411.1784); AC-GAN: [Odena, Olah and Shlens 2016](https://arxiv.org/abs/1610.09585); PixelCNN: [van den Oord et al. 2016](https://arxiv.org/abs/1606.05328). |
# | 16 | addresses of TorchGAN and TF-GAN | [torchgan/torchgan](https://github.com/torchgan/torchgan) and [tensorflow/gan](https://github.com/tensorflow/gan) |
# | 17 | Open Images is a set of pictures with captions | Labels, boxes and relations ([Kuznetsova et al. 2018](https://arxiv.org/abs/1811.00982)). Version 6 added spoken descriptions to about half a million of its nine million pictures ([Pont-Tuset et al. 2019](https://arxiv.org/abs/1912.03098)). |
# | 21 | such models serve medicine and the news | No evidence is given. Section 8 asks our own models. |
#
# ## 5 Learnt by heart?
#
# A model that returns its training pictures would score well in lesson 15, and may hand out what was private. So we ask:
# are its pictures nearer to the training set than *new real* pictures are? The distance of two pictures is the root of
# the mean squared difference: 0 for a copy, 2 for black against white.


# %% tags=["lib:provenance.Nearest", "lib:provenance.nearest_pictures", "nbval-check-output"]
class Nearest(NamedTuple):
    """For each of N pictures the most like one: its index (N,) and its distance (N,)."""

    index: Tensor
    distance: Tensor


def nearest_pictures(samples: Tensor, training: Tensor, batch_size: int = 256) -> Nearest:
    """The training picture most like each sample: (N, 3, S, S) and (M, 3, S, S), or (N, D) and (M, D)."""
    if samples.shape[1:] != training.shape[1:] or not len(samples) or not len(training):
        raise ValueError(
            f"samples {tuple(samples.shape)}, training {tuple(training.shape)}; give two sets of one form"
        )
    x, y = samples.flatten(1).float(), training.flatten(1).float()
    index = torch.cat([torch.cdist(chunk, y).argmin(1) for chunk in x.split(batch_size)])
    # measured again: cdist multiplies out, so that a copy would not be exactly 0 away
    pairs = zip(x.split(batch_size), index.split(batch_size), strict=True)
    return Nearest(index, torch.cat([(chunk - y[i]).square().mean(1).sqrt() for chunk, i in pairs]))


# %% tags=["lib:provenance.Memorisation", "lib:provenance.memorisation_score", "nbval-check-output"]
class Memorisation(NamedTuple):
    """`ratio` is 1 and `closer` 0.5 for a model that copies nothing."""

    ratio: float
    closer: float


def memorisation_score(samples: Tensor, training: Tensor, heldout: Tensor) -> Memorisation:
    """Are generated pictures nearer to the training pictures than new real pictures are?"""
    drawn, real = (nearest_pictures(images, training).distance for images in (samples, heldout))
    ratio = drawn.quantile(0.5) / real.quantile(0.5).clamp(min=1e-8)
    pairs = drawn[:, None] - real  # (N, number held out)
    return Memorisation(ratio.item(), ((pairs < 0).float() + 0.5 * (pairs == 0).float()).mean().item())


# %% [markdown]
# `ratio` compares the medians; `closer` is the chance that a drawn picture is nearer than a real one (Meehan et al. 2020).
# By hand, with pictures of one pixel: training 0; drawn 1, 2, 3; new real ones 2, 4, 9. Medians 2 and 4, ratio 0.5. Of
# nine pairs 1 wins three, 2 wins two and ties one, 3 wins two: `closer` = 7.5 / 9.
#
# Now for emoji, where most names have one picture only. A forger who returns training pictures with a little noise must
# be caught, or the test is worth nothing.
#
# **Predict.** Has our GAN learnt by heart what it was trained on? And does the forger escape by moving his copies one
# pixel aside?

# %%
artist = load_model(EMOJI, device)
sets = {split: CaptionedEmoji(split, artist.image_size) for split in ("train", "unseen")}
emoji = {split: dataset.images(range(len(dataset))) for split, dataset in sets.items()}
tested, reference = emoji["unseen"].chunk(2)  # 117 each: real pictures of things, never trained on
things = [i for i in range(500) if "role" not in sets["train"].attributes(i)][: len(emoji["unseen"])]
asked = {"train": things, "unseen": range(len(emoji["unseen"]))}
names = {split: [sets[split].caption(i) for i in rows] for split, rows in asked.items()}
drawn = {split: artist.sample(captions, 1).cpu() for split, captions in names.items()}
noise = torch.randn(drawn["train"].shape, generator=torch.Generator().manual_seed(0))
copies = emoji["train"][things] + 0.05 * noise
tests = {"real, not trained on": tested, "drawn, new": drawn["unseen"], "drawn, known": drawn["train"]}
tests |= {"forger": copies, "forger, moved": copies.roll((artist.image_size // 32,) * 2, dims=(2, 3))}
scores = {name: memorisation_score(images, emoji["train"], reference) for name, images in tests.items()}
table([{"pictures": name, **score._asdict()} for name, score in scores.items()])

# %%
assert scores["forger"].closer > 0.9 and scores["drawn, known"].ratio < scores["drawn, new"].ratio
shown, titles = [], []
for split, samples in drawn.items():
    index, distance = nearest_pictures(samples[:4], emoji["train"])
    shown += [samples[:4], emoji["train"][index]]
    titles += [f"drawn: {name}" for name in names[split][:4]]
    titles += [
        f"nearest, {d:.2f}: {sets['train'].caption(i)}" for i, d in zip(index.tolist(), distance, strict=True)
    ]
pictures(
    torch.cat(shown), titles, "Known names, then new ones: drawn, and below the nearest training picture"
)

# %% [markdown]
# For names it was trained on, the GAN draws what it saw: nearly eight times in ten it is nearer to the training set than a
# new picture would be. That is what one picture a name teaches, and the model's card says so. (With `emoji-32` it is nine
# times in ten: put it into `EMOJI`.) For new names it is near chance: it puts together, often badly, and copies nothing
# that this test can see.
#
# The forger is caught, until he moves his copies by a pixel: then pixels no longer match, and the score calls him as
# honest as real pictures. Compare *features* instead, here those of the image encoder of lesson 08, which forgive a
# shift.


# %%
from course_lib.alignment import load_alignment, unit


@torch.no_grad()
def features(images):
    viewer, zoom = load_alignment("align-emoji-64", device)[0].image_encoder, 64 // images.shape[-1]
    large = images.repeat_interleave(zoom, 2).repeat_interleave(zoom, 3)  # (N, 3, 64, 64)
    return torch.cat([unit(viewer(chunk.to(device))).cpu() for chunk in large.split(256)])


tests["forger, darker"] = copies * 0.8 - 0.2
known, fresh, rows = features(emoji["train"]), features(reference), []
for name, images in tests.items():
    pixels = memorisation_score(images, emoji["train"], reference)
    rows.append({"pictures": name, "closer, pixels": pixels.closer})
    rows[-1]["closer, features"] = memorisation_score(features(images), known, fresh).closer
table(rows)
assert rows[4]["closer, features"] > rows[4]["closer, pixels"] + 0.2

# %% [markdown]
# Now the moved copies are found, but darker ones pass both tests. A test for memory finds the copies its distance can
# see; "nothing found" is never "nothing copied". The same holds for large models: Carlini et al. (2023) drew single
# training pictures, photographs of people among them, out of Stable Diffusion and Imagen.
#
# ## 6 Where a picture comes from
#
# A PNG can carry short texts. `course generate` writes six of them into every file:


# %% tags=["lib:provenance.provenance_text", "nbval-check-output"]
def provenance_text(model: str, prompt: str, seed: int, settings: Mapping[str, Any]) -> dict[str, str]:
    """The notes for `save_image(text=...)`; Description and Software are names of the PNG standard."""
    return {
        FLAG: "true",
        "Description": prompt,
        "Software": f"Words to Pixels {__version__}",
        "Model": model,
        "Seed": str(seed),
        "Settings": json.dumps(dict(settings), ensure_ascii=False, sort_keys=True),
    }


# %%
import tempfile

from course_lib.images import prepare_image, save_image, to_uint8
from course_lib.provenance import FLAG, inspect_file, printable, read_provenance

folder = tempfile.TemporaryDirectory()
prompt = "一个很小的天蓝色环形，在右下方"  # a very small sky-blue ring, at the lower right
path = Path(folder.name) / "ring.png"
settings = {"n_samples": 1, "steps_per_sample": 0, "guidance_scale": 1.0}
picture = painter.sample(prompt, seed=7, **settings)[0]
save_image(picture, path, provenance_text("shapes-32", prompt, 7, settings))
inspect_file(path)
notes = read_provenance(path)
model, settings = load_model(notes["Model"], device), json.loads(notes["Settings"])
again = model.sample(notes["Description"], seed=int(notes["Seed"]), **settings)[0]
same = torch.equal(to_uint8(again.cpu()), to_uint8(prepare_image(path, 32)))
print(f"drawn again from the notes alone, every pixel the same: {same}")

# %% [markdown]
# `course inspect FILE` calls `inspect_file`, which prints what `read_provenance` finds, through `printable`: a stranger's
# note must not steer your terminal. The notes are enough to draw the picture again. They show that a picture *was*
# generated, if nobody touches them.
#
# **Predict.** What is left after a website has saved the picture anew? And what does the test say of a real picture with
# copied notes?

# %%
resaved, forged = Path(folder.name) / "saved_again.png", Path(folder.name) / "forged.png"
with Image.open(path) as opened:
    opened.save(resaved)
save_image(emoji["train"][0], forged, notes)
files = {
    "as drawn": path,
    "saved again by another program": resaved,
    "real, with notes copied into it": forged,
}
found = {name: read_provenance(file) for name, file in files.items()}
table([{"file": name, "notes": len(n), "says generated": n.get(FLAG) == "true"} for name, n in found.items()])
print(printable("a note that would clear your screen: \x1b[2J"))
folder.cleanup()

# %% [markdown]
# Nothing is left, and a lie is believed. Most sites save uploads anew, a screenshot has no notes, and anyone can write
# some. Notes help honest people keep order; no note proves nothing. Signed notes (the C2PA standard) can't be forged so
# easily, but are stripped as easily. Watermarks in the pixels survive more, and can be removed too.
#
# ## 7 What it cost
#
# Each checkpoint notes how long it was trained, and newer ones the energy. It is an estimate by `energy_wh`, nothing was
# metered: 10 W for a busy core, 500 W for a GPU; where nothing is noted, we take one core. Bringing a litre of water from
# 20 °C to the boil takes $4186 \cdot 80 / 3600$ = 93 Wh.
#
# **Predict.** All shipped models together: how many litres?

# %%
from course_lib.cards import energy_wh

spent = {}
for file in checkpoints_folder().glob("[!.]*/config.json"):
    made = json.loads(file.read_text(encoding="utf-8")).get("training", {})
    if "seconds" in made:
        spent[file.parent.name] = made.get("watt_hours") or energy_wh(made["seconds"], cores=1)
total, litre = sum(spent.values()), 4186 * 80 / 3600
bars = dict(sorted(spent.items(), key=lambda item: item[1]))
bars |= {"ALL OF THEM": total, "A LITRE, BOILED": litre}
alt = "Bars of estimated watt-hours: each shipped checkpoint, least first; all together; a litre of water, 93"
with figure("Energy of the course's models", alt, size=(8, 1 + 0.28 * len(bars))) as axis:
    axis.barh(list(bars), list(bars.values()), color=["#0072B2"] * len(spent) + ["#D55E00", "#999999"])
    axis.set(xlabel="watt-hours (estimate)", ylabel="what was trained")

# %%
import time

clock = time.perf_counter if device.type == "cuda" else time.process_time
started = clock()
artist.sample(names["train"], 1).cpu()
seconds = (clock() - started) / len(names["train"])
one = energy_wh(seconds, cores=None if device.type == "cuda" else 1)
costs = {
    "training all shipped models": total,
    "training Stable Diffusion v1, 150,000 h of 250 W": 150_000 * 250,
}
costs |= {f"one picture by {EMOJI}": one, "one picture by a published model, on average": 2.9}
table([{"what": what, "Wh": wh, "litres boiled": wh / litre} for what, wh in costs.items()])
print(
    f"{1000 * seconds:.1f} ms a picture; training {EMOJI} took as much as {spent[EMOJI] / one:,.0f} of them"
)

# %% [markdown]
# The shipped models took less energy than an evening of cooking. What the sum leaves out is more: every failed attempt,
# idle machines, screens, and making the hardware. If a core draws 20 W instead of 10, all of it doubles.
#
# Training Stable Diffusion took hundreds of thousands of times as much (hours from its model card; 250 W is the rating of
# its GPUs). But a model is trained once and used millions of times: by the measurements of Luccioni et al. (2023) a picture
# by a published model takes 2.9 Wh on average, about a quarter of a phone's charge.
#
# ## 8 What it is good for, and what not
#
# | use | can our data serve it? | where |
# |---|---|---|
# | art, icons, design drafts | yes, within emoji and shapes; mind the licences | lessons 00 and 14, `data/README.md` |
# | teaching material | yes: every picture has a known truth | lesson 02 |
# | in-painting | yes, of pictures like the training data | `sample(mask=...)`, lesson 14 |
# | super-resolution | yes, of pictures like the training data; the details are invented | lesson 16 |
# | faces, avatars | emoji people only; a model repeats its designers' choices of who is shown | lesson 02, the model's card |
# | your own pictures | yes, if they are yours and the people in them agree | `course audit FOLDER`, lesson 02 |
# | news | **no** | below |
# | medicine | **no** | below |
#
# **21 · Such models serve medicine and the news.** Ask them.
#
# **Predict.** What does a model do with a sentence about something it has never seen?

# %%
odd = [
    "x-ray of a lung with a tumour",
    "flood in the city centre",
    "president resigns",
    "a photograph of my mother",
]
for name, model in {EMOJI: artist, "shapes-32": painter}.items():
    pictures(model.sample(odd, 1), odd, f"{name}, asked for what it has never seen")
    print("words it has never read:", [", ".join(model.unknown_words(text)) for text in odd])
with torch.no_grad():
    for texts in (names["train"], odd):
        logits = artist.discriminator(artist.sample(texts, 1), artist.encode_text(texts))
        print(f"{EMOJI}: D's mean logit {logits.mean():.1f} for sentences such as {texts[0]!r}")

# %% [markdown]
# They always draw, and neither says "I don't know"; only the list of unknown words and D's low opinion hint at it. A
# generator shows what its training pictures looked like, not what is. News needs the picture of *this* event; a drawn one
# is a false document, however good. And a doctor needs what is in *this* patient: Cohen, Luck and Honari (2018) showed
# that networks trained to match a distribution add tumours to scans, or remove them, when the training set has more or
# fewer. A larger model draws better; that does not make its pictures true.
#
# Four things the article leaves open. *Privacy*: section 5, and its limits. *Real time*: the milliseconds of section 7.
# *Interpretability*: the attention of lesson 11 can be drawn as a map; it shows where the network looked, and need not be
# its reason (Jain and Wallace 2019). *Responsibility* lies with whoever draws and publishes. A note in the file is the
# least one can do.
#
# ## 9 The errata
#
# | | claim | verdict | treated in |
# |---|---|---|---|
# | 1 | Imagen is OpenAI's and can be cloned | false: Google Research, unreleased | 17.4, 16 |
# | 2 | Imagen is a GAN | false: a cascade of diffusion models | 16 |
# | 3 | a GAN samples in guided steps | false: one pass; refinement is our addition | 17.3, 14, 16 |
# | 4 | its text encoder is GPT, through `openai` | false: T5-XXL; a web client | 17.2, 07 |
# | 5 | G learns by squared error against the real picture | false: no such pair; the best is a blurred mean | 17.2, 09, 10 |
# | 6 | squared error over the number of pictures | wrong by 3072 at 32 pixels; Adam hides it | 17.1, 03 |
# | 7 | the generated picture is the label | false: 1 for real, 0 for fake | 17.1, 03 |
# | 8 | G and D minimise a common sum | false: G then flees from the data | 17.2, 10 |
# | 9 | the example's loss is 0.025 | false: 0.0513 in the mean, 0.1026 in sum | 17.1, 03 |
# | 10 | Adam without bias correction | not Adam: steps up to 6.6 times too long | 17.1, 04 |
# | 11 | D need not see the text | false: it could not teach obedience | 17.2, 11 |
# | 12 | G minimises log(1 - D) | works in theory, starves G in practice | 17.2, 03, 10 |
# | 13 | self-supervised is adversarial | false: two kinds of training | 17.2, 06, 07 |
# | 14 | DCGAN by Kingma and Welling | false: Radford, Metz and Chintala | 17.4, 10 |
# | 15 | a paper on conditional GANs and PixelCNN | does not exist | 17.4, 11 |
# | 16 | addresses of two libraries | wrong | 17.4 |
# | 17 | Open Images has captions | false for the set by itself | 17.4, 02 |
# | 18 | MSE and SSIM judge samples | false: an empty canvas beats a star | 17.2, 15 |
# | 19 | the listing runs | false; some of its mistakes are silent | 17.3, 06, 14 |
# | 20 | `z_size` is the size of the text | false: two vectors | 17.3, 11 |
# | 21 | uses in medicine and news | no evidence; refuted for our models | 17.8 |
#
# Now be as strict with us. Every figure in these lessons can be run again; if one is wrong, it is an erratum of ours.
#
# ## What changed in the library
#
# `provenance.py` is the last room, and the house is complete. `course generate` writes the notes, `course inspect` reads
# them, and `course evaluate` gives the memorisation score beside the other marks.
#
# ## Three questions
#
# 1. A model's samples have a memorisation ratio of 1.3 in pixels. Is that good news?
#
# <details><summary>Answer</summary>
#
# Not by itself. Copies moved by a pixel score that high, and so do pictures that look like nothing real. Look at the
# nearest pictures, and measure with features too.
#
# </details>
#
# 2. You find a picture without notes. Was it made by a camera?
#
# <details><summary>Answer</summary>
#
# You can't tell. Notes vanish whenever a program saves the picture anew. With notes you can't be sure either: section 6
# wrote them into a real picture.
#
# </details>
#
# 3. Why did the common loss of claim 8 look better than the fair one, though nothing was drawn?
#
# <details><summary>Answer</summary>
#
# A fake costs both together least at D = 1/2, and the players can have that without drawing anything. A loss measures
# what it was told to measure; whether that is what you want is seen in the pictures.
#
# </details>
#
# ## Papers
#
# **Generative adversarial networks**
#
# - Ian Goodfellow and others (2014), *Generative Adversarial Networks*. [arXiv:1406.2661](https://arxiv.org/abs/1406.2661)
# - Mehdi Mirza and Simon Osindero (2014), *Conditional Generative Adversarial Nets*.
#   [arXiv:1411.1784](https://arxiv.org/abs/1411.1784)
# - Alec Radford, Luke Metz and Soumith Chintala (2015), *Unsupervised Representation Learning with Deep Convolutional
#   Generative Adversarial Networks*: DCGAN. [arXiv:1511.06434](https://arxiv.org/abs/1511.06434)
# - Augustus Odena, Christopher Olah and Jonathon Shlens (2016), *Conditional Image Synthesis With Auxiliary Classifier
#   GANs*. [arXiv:1610.09585](https://arxiv.org/abs/1610.09585)
# - Lars Mescheder, Andreas Geiger and Sebastian Nowozin (2018), *Which Training Methods for GANs do actually Converge?*
#   [arXiv:1801.04406](https://arxiv.org/abs/1801.04406)
# - Takeru Miyato and Masanori Koyama (2018), *cGANs with Projection Discriminator*.
#   [arXiv:1802.05637](https://arxiv.org/abs/1802.05637)
# - Andrew Brock, Jeff Donahue and Karen Simonyan (2018), *Large Scale GAN Training for High Fidelity Natural Image
#   Synthesis*: BigGAN. [arXiv:1809.11096](https://arxiv.org/abs/1809.11096)
#
# **From text to image with GANs**
#
# - Scott Reed and others (2016), *Generative Adversarial Text to Image Synthesis*.
#   [arXiv:1605.05396](https://arxiv.org/abs/1605.05396)
# - Han Zhang and others (2016), *StackGAN*. [arXiv:1612.03242](https://arxiv.org/abs/1612.03242)
# - Tao Xu and others (2017), *AttnGAN*. [arXiv:1711.10485](https://arxiv.org/abs/1711.10485)
# - Ming Tao and others (2020), *DF-GAN*. [arXiv:2008.05865](https://arxiv.org/abs/2008.05865)
# - Axel Sauer and others (2023), *StyleGAN-T*. [arXiv:2301.09515](https://arxiv.org/abs/2301.09515)
# - Ming Tao and others (2023), *GALIP*. [arXiv:2301.12959](https://arxiv.org/abs/2301.12959)
# - Minguk Kang and others (2023), *Scaling up GANs for Text-to-Image Synthesis*: GigaGAN.
#   [arXiv:2303.05511](https://arxiv.org/abs/2303.05511)
#
# **Other generators**
#
# - Diederik Kingma and Max Welling (2013), *Auto-Encoding Variational Bayes*.
#   [arXiv:1312.6114](https://arxiv.org/abs/1312.6114)
# - Aäron van den Oord, Nal Kalchbrenner and Koray Kavukcuoglu (2016), *Pixel Recurrent Neural Networks*.
#   [arXiv:1601.06759](https://arxiv.org/abs/1601.06759)
# - Aäron van den Oord and others (2016), *Conditional Image Generation with PixelCNN Decoders*.
#   [arXiv:1606.05328](https://arxiv.org/abs/1606.05328)
# - Jonathan Ho, Ajay Jain and Pieter Abbeel (2020), *Denoising Diffusion Probabilistic Models*.
#   [arXiv:2006.11239](https://arxiv.org/abs/2006.11239)
# - Jiaming Song, Chenlin Meng and Stefano Ermon (2020), *Denoising Diffusion Implicit Models*.
#   [arXiv:2010.02502](https://arxiv.org/abs/2010.02502)
# - Jonathan Ho and Tim Salimans (2022), *Classifier-Free Diffusion Guidance*.
#   [arXiv:2207.12598](https://arxiv.org/abs/2207.12598)
# - Chitwan Saharia and others (2022), *Photorealistic Text-to-Image Diffusion Models with Deep Language Understanding*:
#   Imagen. [arXiv:2205.11487](https://arxiv.org/abs/2205.11487)
#
# **Encoders, optimisers, measures**
#
# - Diederik Kingma and Jimmy Ba (2014), *Adam: A Method for Stochastic Optimization*.
#   [arXiv:1412.6980](https://arxiv.org/abs/1412.6980)
# - Ashish Vaswani and others (2017), *Attention Is All You Need*. [arXiv:1706.03762](https://arxiv.org/abs/1706.03762)
# - Colin Raffel and others (2019), *Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer*:
#   T5. [arXiv:1910.10683](https://arxiv.org/abs/1910.10683)
# - Alec Radford and others (2021), *Learning Transferable Visual Models From Natural Language Supervision*: CLIP.
#   [arXiv:2103.00020](https://arxiv.org/abs/2103.00020)
# - Martin Heusel and others (2017), *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium*:
#   the Fréchet distance. [arXiv:1706.08500](https://arxiv.org/abs/1706.08500)
# - Mikołaj Bińkowski and others (2018), *Demystifying MMD GANs*: the kernel distance.
#   [arXiv:1801.01401](https://arxiv.org/abs/1801.01401)
#
# **Data and responsibility**
#
# - Alina Kuznetsova and others (2018), *The Open Images Dataset V4*. [arXiv:1811.00982](https://arxiv.org/abs/1811.00982)
# - Jordi Pont-Tuset and others (2019), *Connecting Vision and Language with Localized Narratives*.
#   [arXiv:1912.03098](https://arxiv.org/abs/1912.03098)
# - Joseph Paul Cohen, Margaux Luck and Sina Honari (2018), *Distribution Matching Losses Can Hallucinate Features in
#   Medical Image Translation*. [arXiv:1805.08841](https://arxiv.org/abs/1805.08841)
# - Sarthak Jain and Byron Wallace (2019), *Attention is not Explanation*. [arXiv:1902.10186](https://arxiv.org/abs/1902.10186)
# - Casey Meehan, Kamalika Chaudhuri and Sanjoy Dasgupta (2020), *A Non-Parametric Test to Detect Data-Copying in
#   Generative Models*. [arXiv:2004.05675](https://arxiv.org/abs/2004.05675)
# - Nicholas Carlini and others (2023), *Extracting Training Data from Diffusion Models*.
#   [arXiv:2301.13188](https://arxiv.org/abs/2301.13188)
# - Alexandra Sasha Luccioni, Yacine Jernite and Emma Strubell (2023), *Power Hungry Processing: Watts Driving the Cost of
#   AI Deployment?* [arXiv:2311.16863](https://arxiv.org/abs/2311.16863)
# - Robin Rombach and Patrick Esser (2022), *Stable Diffusion v1 Model Card*, in the repository
#   [CompVis/stable-diffusion](https://github.com/CompVis/stable-diffusion).
#
# Next: this was the last lesson. Type a sentence of your own into `course generate`, or begin with your own pictures:
# lesson 02, then `course train`.
