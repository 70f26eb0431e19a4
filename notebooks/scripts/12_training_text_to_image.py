# %% [markdown]
# # 12 · Training text to image
#
# **You will build** `course_lib/batches.py`, `training.py` and `listeners.py`: the loop that turns two networks with
# random weights into a model that draws what one writes. You watch a run from its first step, see what each piece of the
# recipe is worth, pull the plug in the middle, and go on as if nothing had happened.
#
# **You need** the losses (lesson 03), Adam and weight averaging (04), the frozen text encoder (08), the adversarial game
# (10), and the two players that read captions (11).
#
# **Time**: 75 minutes of reading and thinking; the computer needs a minute or two, half of it for one training.
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
#   class c00,c01,c02,c03,c04,c05,c06,c07,c08,c09,c10,c11 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c12 lit
# ```

# %% tags=["nbval-check-output"]
import json
import math
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean

import torch
from torch import Tensor

from course_lib import TextToImage
from course_lib.ablation import mean_and_spread, read_log
from course_lib.batches import EmbeddedPictures
from course_lib.checkpoint import CHECKPOINTS
from course_lib.data import CaptionedFolder, CaptionedShapes
from course_lib.data.captions import words_of
from course_lib.data.shapes import COLORS

# %% tags=["nbval-check-output"]
from course_lib.evaluation import accuracy, diversity, load_judge
from course_lib.gan import GAN_LOSSES
from course_lib.images import from_uint8, save_image
from course_lib.lesson import compare, figure, lines, pictures, setup, table
from course_lib.listeners import Checkpoints, MetricsLog, SampleGrids
from course_lib.long_recipes import embed, new_trainer
from course_lib.losses import discriminator_loss, generator_loss, mode_seeking_loss, r1_penalty
from course_lib.metrics import attribute_accuracy
from course_lib.optim import Adam
from course_lib.presets import get_preset
from course_lib.text_encoder import embed_captions, load_text_encoder
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.training import AdversarialTrainer, TrainConfig, train

device = setup()

# %% [markdown]
# ## 1 What a step is made of
#
# ### Captions are read once
#
# The text encoder of lesson 08 is **frozen**: a caption has the same embedding in step 1 and in step 8000, and reading it
# again is wasted work. `embed` draws every picture and reads every caption *before* training; it gives an
# `EmbeddedPictures`.
#
# Our live run must fit into a minute, so its world is small: six colours, four shapes, one background, English captions.
# Presets hold the settings of all models; `replace` changes some.

# %% tags=["nbval-check-output"]
preset = get_preset("shapes-32-live")
world = replace(preset.data, grammar="small", length=3000, language="en", captions="canonical")
encoder, tokenizer = load_text_encoder(preset.text_encoder, device)
data = embed(world.dataset(), encoder, tokenizer, device)
print("pictures:", tuple(data.images.shape), data.images.dtype)
print("captions:", tuple(data.texts.shape), data.texts.dtype)
print(f"{data.images.nbytes / 1e6:.0f} MB as bytes; as floats it would be {4 * data.images.nbytes / 1e6:.0f}")

# %% [markdown]
# As bytes, pictures take a quarter of the memory.
#
# ### All chance comes from two numbers
#
# A step rolls dice: which pictures, which noise, which captions are left out. Here step $t$ of a run has dice of its own,
# made of the seed and $t$, and no random generator runs along whose state would have to be saved (section 6). The second
# function repeats captions; section 2 needs it.


# %% tags=["lib:batches.step_random", "lib:batches.repeated", "nbval-check-output"]
def step_random(seed: int, step: int) -> torch.Generator:
    """The source of all chance in one training step."""
    return torch.Generator().manual_seed(seed * 1_000_000_007 + step)


def repeated(rows: Tensor, times: int) -> Tensor:
    """The first B / times rows, so many times over: (B, ...) -> (B, ...)."""
    return torch.cat([rows[: len(rows) // times]] * times) if times > 1 else rows


# %% [markdown]
# ### Right captions, wrong captions, no captions
#
# D learns to read by comparing: a real picture with its caption is real, with a **wrong** one it is not (lesson 11). `roll`
# gives every picture its neighbour's caption. Now and then a caption is replaced by the empty one, so that G also learns
# to draw without being told. A `Batch` by hand, with one number for an embedding: picture A has the caption 1; B and C
# share the caption 2; 0 is the empty one.
#
# **Predict.** Rolled captions are not always wrong. Name two cases.

# %% tags=["nbval-check-output"]
shades = torch.tensor([0, 1, 2], dtype=torch.uint8).view(3, 1, 1, 1).expand(3, 3, 2, 2)  # A, B, C
toy = EmbeddedPictures(shades, texts=torch.tensor([[1.0], [2.0], [2.0]]), empty=torch.zeros(1))
batch = toy.batch(6, text_dropout=0.3, text_noise=0.0, random=step_random(0, 4))
names = ["ABC"[round((shade + 1) * 127.5)] for shade in batch.images[:, 0, 0, 0].tolist()]
columns = zip(names, batch.texts[:, 0], batch.wrong_texts[:, 0], batch.wrong.tolist(), strict=True)
table([{"picture": n, "caption": a, "rolled caption": b, "counts as wrong": c} for n, a, b, c in columns])

# %% [markdown]
# Each rolled caption is that of the row above; the first row gets the last one's. C in the fourth row has the caption of
# its neighbour B, which fits it as well. And the empty caption, which the last row passes on to the first, fits every
# picture. Such rows must not be punished; `wrong` says so.
#
# In scenes with two objects one unfitting word gives a neighbour's caption away. There, half of the wrong captions are
# **twins**, made of the same words. The next cell prints two.
#
# ### Noise on the captions
#
# The last ingredient looks like sabotage: every embedding is blurred by noise of standard deviation 0.2. Why?
#
# **Predict.** The same scene in other words, "a little heart in emerald" for "a small green heart": how far apart are the
# two embeddings, compared with those of two different scenes? And how long is the noise?

# %%
pairs = CaptionedShapes(scene="pair", length=12)
for index in (0, 7):
    print(f"right: {pairs.caption(index)}\ntwin:  {pairs.twins().caption(index)}\n")

full = [CaptionedShapes("heldout", 32, length=200, captions=style) for style in ("canonical", "unseen")]
plain, reworded = (embed_captions(encoder, tokenizer, [d.caption(i) for i in range(200)]) for d in full)
apart = torch.cdist(plain, plain)
apart = apart.where(apart > 1e-2, math.inf).amin(1)  # to the nearest caption of another scene
noise = 0.2 * torch.randn(plain.shape, generator=step_random(0, 0))
print(f"the same scene in other words: {(plain - reworded).norm(dim=1).mean():.1f}")
print(f"the nearest other scene:       {apart.mean():.1f}")
print(f"the noise:                     {noise.norm(dim=1).mean():.1f}")

# %% [markdown]
# The noise is about as long as the step to another wording, and a quarter of that to another scene. G learns that a
# *neighbourhood* of embeddings means one thing, so it can draw from words it never read. This is a form of
# **conditioning augmentation** (Zhang and others 2017).
#
# ## 2 One step, line by line
#
# ```mermaid
# flowchart LR
#   B["batch"] --> G["G, once"] --> F["fakes"]
#   F -- "cut off" --> D1["D's turn"]
#   B --> D1
#   F -- "with slopes" --> D2["G's turn"]
# ```
#
# **D's turn**: real with its caption is real; the fakes, and real with a wrong caption, are not. D looks at each real
# picture once (`features`) and holds what it saw against two captions (`match`). One step in 16 adds the penalty R1 of
# section 5, with 16 times its weight. **G's turn**: the same fakes, now with slopes, must pass for real; a second term
# makes different noise draw different pictures, and for it every caption is drawn twice.


# %% tags=["nbval-check-output"]
def step_down(loss, optimizer):
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def judge_turn(trainer, batch, fake, texts):
    D, config, real = trainer.discriminator, trainer.config, batch.images.clone().requires_grad_()
    right, wrong = D(real, batch.texts, batch.wrong_texts).unbind(1)  # (B, 2): one look, two captions
    loss = discriminator_loss(right, D(fake.detach(), texts), wrong, batch.wrong)
    if trainer.steps_done % config.r1_every == 0:
        loss = loss + config.r1_every * config.r1_weight * r1_penalty(right, real)
    step_down(loss, trainer.discriminator_optimizer)


# %% tags=["nbval-check-output"]
def plain_step(trainer, data):
    config, G = trainer.config, trainer.generator
    random = step_random(config.seed, trainer.steps_done)
    batch = data.batch(config.batch_size, config.text_dropout, config.text_noise, random)
    z = torch.randn(len(batch.texts), G.config.z_size, generator=random)
    texts = repeated(batch.texts, 2)
    fake = G(z, texts)  # the only pass through G
    judge_turn(trainer, batch, fake, texts)
    loss = generator_loss(trainer.discriminator(fake, texts))
    loss = loss + config.mode_seeking_weight * mode_seeking_loss(fake, z)
    step_down(loss, trainer.generator_optimizer)
    trainer.average.update(G)
    trainer.steps_done += 1


# %% [markdown]
# The library's step is a class, `AdversarialTrainer`, with a method for each part: `step`, `draw` (which gives a `Drawn`:
# pictures, noise, captions), `discriminator_step`, `generator_step`. `TrainConfig` holds its settings. Does it do the same?
# Two small trainers, for pictures of 16 pixels, take 20 steps from the same weights. This and all small runs below stay
# on the CPU, because a GPU does not add up in the same order every time.


# %%
def small_trainer(**settings):
    torch.manual_seed(0)
    G = Generator(GeneratorConfig(16, z_size=16, text_size=96, condition_size=32, width=12))
    D = Discriminator(DiscriminatorConfig(16, text_size=96, width=12, hidden=64))
    return AdversarialTrainer(G, D, TrainConfig(batch_size=32, average_decay=0.95, **settings))


def all_numbers(part):
    return torch.cat([numbers.flatten().double() for numbers in part.state_dict().values()])


few, reader = replace(world, image_size=16, length=64), load_text_encoder(preset.text_encoder)[0]
few_data = embed(few.dataset(), reader, tokenizer, torch.device("cpu"))
ours, theirs = small_trainer(), small_trainer()
for _ in range(20):
    plain_step(ours, few_data), theirs.step(few_data)
compare({name: (all_numbers(ours.parts()[name]), all_numbers(theirs.parts()[name])) for name in ours.parts()})

# %% [markdown]
# All weights, both running means of both Adams, the averaged generator: equal.
#
# Three things save time and change no result. **One pass of G serves both players**; textbooks run G once for each. D
# looks at a real picture once for two captions. And in G's turn the library switches D's own gradients off, since nobody
# uses them. With captions read beforehand and the memory layout *channels last* (lesson 13), a step takes 0.58 of the
# processor time of the textbook's loop, as we measured with `tests/textbook.py`.
#
# A popular article errs here twice: the players do not minimise the sum of their losses, each has its own; and this is
# not self-supervision, where data give the targets. Lesson 17 lists both.
#
# The library's step takes any of `GAN_LOSSES`; the first function below adds the wrong captions. The second is the
# learning rate: it stays, and then falls, so that the weights come to rest.


# %% tags=["lib:training.matching_aware_loss", "lib:training.learning_rate_at", "nbval-check-output"]
def matching_aware_loss(
    name: str, real: Tensor, fake: Tensor, wrong: Tensor | None, wrong_mask: Tensor
) -> Tensor:
    """What D minimises: logits (B,) each, mask (B,) True where the wrong caption really is wrong -> ()."""
    if name == "non-saturating":
        return discriminator_loss(real, fake, wrong, wrong_mask)
    judge = GAN_LOSSES[name][0]
    if wrong is None or not wrong_mask.any():
        return judge(real, fake)
    return (judge(real, fake) + judge(real[wrong_mask], wrong[wrong_mask])) / 2


def learning_rate_at(config: TrainConfig, progress: float) -> float:
    """Learning rate at a share `progress` in [0, 1] of the run."""
    left = 1 - max(0.0, progress - config.constant) / max(1 - config.constant, 1e-9)
    return config.learning_rate * max(left, 0.05)


# %% [markdown]
# ## 3 A live run
#
# `train` repeats the step until the run's steps are done. After each one it calls its **listeners**, which look and do not
# touch. The library has three: `MetricsLog` writes the losses, `SampleGrids` draws the same prompts from the same noise,
# `Checkpoints` saves. We add one that sets an exam now and then: 200 captions with combinations of attributes that were
# in no training picture. The judge of lesson 15, a classifier trained on real pictures, says what is on each drawing.
#
# The run has 320 steps. The second cell is the long one: half a minute to a minute.
#
# **Predict.** In which order will size, colour, shape, place and background become right? When does the rise begin?


# %%
exam = world.dataset("heldout")
scenes, asked = zip(*[(exam.attributes(i), exam.caption(i)) for i in range(200)], strict=True)
exam_texts, judge = embed_captions(encoder, tokenizer, asked), load_judge(32)


@torch.no_grad()
def marks(generator):
    z = torch.randn(200, generator.config.z_size, generator=step_random(0, 0)).to(device)
    return attribute_accuracy(judge, generator.eval()(z, exam_texts).cpu(), scenes)


def watch(trainer, losses):
    if trainer.steps_done % 40 == 0:
        curve.append((trainer.steps_done, marks(trainer.average.model), marks(trainer.generator)))
        trainer.generator.train()
    if trainer.steps_done % 80 == 0:
        film.append(grids.draw(trainer).cpu())


# %%
players = {name: replace(getattr(preset, name), width=24) for name in ("generator", "discriminator")}
settings = {"steps": 320, "average_decay": 0.95, "contrastive_weight": 0.0}  # the last one: see section 5
live = replace(preset, train=replace(preset.train, **settings), **players)
room = tempfile.TemporaryDirectory()
folder, curve = Path(room.name), []
trainer = new_trainer(live, device)
grids = SampleGrids(folder / "samples", exam_texts[:8], every=80)
film = [grids.draw(trainer).cpu()]
train(trainer, data, [MetricsLog(folder / "metrics.jsonl"), grids, watch], progress=None)
steps, averaged, plain = zip(*curve, strict=True)
print(f"{trainer.steps_done} steps; held-out captions drawn right: {averaged[-1]['all']:.0%}")
assert averaged[-1]["all"] > 0.5 and averaged[-1]["position"] > 0.9

# %%
alt = """Left: background and place jump up before step 120, size and colour before 160; shape climbs slowly,
and all together run just below it. Right: the averaged generator is behind at first, equal at the end."""
with figure("The live run", alt, columns=2) as (left, right):
    for word, style in zip(("background", "position", "size", "color", "shape"), "sov^D", strict=True):
        left.plot(steps, [100 * share[word] for share in averaged], f"-{style}", label=word, markersize=4)
    for axis in (left, right):
        axis.plot(steps, [100 * share["all"] for share in averaged], "k-", label="all, averaged")
        axis.set(xlabel="step", ylabel="held-out captions drawn right (%)", ylim=(-2, 102))
    right.plot(steps, [100 * share["all"] for share in plain], "--", label="all, generator as it is")
    left.legend(loc="lower right", fontsize=8.5)
    right.legend(loc="lower right")

# %% [markdown]
# For about a hundred steps nothing seems to happen: D learns to read, and has little to tell G before it can. Then place
# and background come at once, size and colour after them. Shape is last: a large red square and a large red circle
# share most of their pixels. (The right panel is for section 5.)
#
# Next come eight of the held-out captions at the start and after 80, 160, 240 and 320 steps, and the losses.
#
# **Predict.** Could you tell from the losses when the pictures became good?

# %%
alt = """Five rows of eight small pictures: plain grey; faint smears after 80 steps; coloured blobs and rings
in the right places on navy after 160; then clear rings and circles, and squares with soft corners."""
pictures(torch.cat(film), title="Eight captions after 0, 80, 160, 240 and 320 steps", columns=8, alt=alt)
print("From left to right:", *asked[:8], sep="\n")
told = [json.loads(line) for line in (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
curves = {name: torch.tensor([row[name] for row in told]).unfold(0, 20, 1) for name in ("loss_d", "loss_g")}
curves = {f"{name}, mean of 20 steps": windows.mean(1) for name, windows in curves.items()}
alt = """D's loss falls below 0.5 near step 75, then rises to about 1 and stays. G's has its highest peak
just after that, then falls to 0.5."""
lines(range(20, 321), curves, "The losses of the run", ("step", "loss in nats"), alt=alt, ylim=(0, 3))

# %% [markdown]
# Hardly. D's loss is lowest near step 75, when every drawing is wrong, and *rises* while they become right. G's is about
# the same at the start and in the middle. Losses tell who is ahead, not how good the pictures are.
#
# ## 4 The shipped model
#
# The same loop, for longer and with everything: eight shapes, eight colours, three backgrounds, two languages, free
# wording, 8000 steps. `course train --preset shapes-32 --out runs/shapes-32` makes it again, in 19 minutes on one core.

# %%
model = TextToImage.from_pretrained("shapes-32", device)
prompts = ["a large purple star at the top left on cream", "a small cyan heart at the center on gray"]
prompts += ["bottom right: a tiny golden crescent on navy", "右上方有一个大的红色十字，米白色的背景"]
alt = "Four rows of eight pictures: purple stars, cyan hearts, golden crescents, red crosses, each in place."
pictures(model.sample(prompts, n_samples=8, seed=1), title="Four prompts, one a row", columns=8, alt=alt)
shipped = accuracy(model, judge, n=200)["all"]
print(f"200 held-out captions of the full grammar: {shipped:.1%} right, diversity {diversity(model):.2f}")
assert shipped > 0.97

# %% [markdown]
# **Diversity** is how much pictures of one caption differ, over how much real ones do (lesson 15). Keep it in mind.
#
# ## 5 What is each piece for?
#
# ### R1, on two numbers
#
# The smallest GAN there is: the data are the point 0, G draws the point $g$, and D's logit at $x$ is $d \cdot x$. Its slope
# is $d$. Each turn moves both numbers a little downhill, each on its own loss.
#
# **Predict.** Start at $g = 1$, $d = 0$: D sees that the fake lies to the right, and says so. Where does it end?


# %% tags=["nbval-check-output"]
def play(r1_weight, rounds=400, rate=0.1):
    g, d, path = 1.0, 0.0, []
    for _ in range(rounds):
        believed = 1 / (1 + math.exp(-d * g))  # D's probability that the fake is real
        d, g = d - rate * (believed * g + r1_weight * d), g + rate * (1 - believed) * d
        path.append((g, d))
    return torch.tensor(path)


paths = {"without R1": play(0.0), "with R1": play(0.3)}
for name, path in paths.items():
    print(f"{name}: after 400 rounds {path[-1].norm():.2f} from the goal")
print(f"without R1, the mean of all places: {paths['without R1'].mean(0).norm():.2f} from the goal")

# %% tags=["nbval-check-output"]
alt = """G's point across, D's slope upwards. Without R1 the path goes round and round the origin and hardly
comes nearer; with R1 it spirals into the origin."""
with figure("A GAN with two weights", alt, size=(6.5, 3.6)) as axis:
    for (name, path), dash in zip(paths.items(), ("-", "--"), strict=True):
        axis.plot(*path.T, dash, label=name, linewidth=1.4)
    axis.plot(0, 0, "ko", label="the data, and D at rest")
    axis.set(xlabel="g: where G draws", ylabel="d: slope of D", xticks=[-0.5, 0, 0.5, 1])
    axis.legend(loc="upper left", bbox_to_anchor=(1.01, 1))

w, points = torch.tensor([3.0, 4.0]), torch.randn(5, 2, generator=step_random(0, 0)).requires_grad_()
compare({"R1 of D(x) = w x": (r1_penalty(points @ w, points), torch.tensor((3.0**2 + 4.0**2) / 2))})

# %% [markdown]
# Without R1, D drives G past the data, turns round, drives it back, and so on; 400 rounds bring it only half-way nearer.
# The cure of Mescheder and others (2018): D pays for being steep **at real pictures**,
#
# $$\mathrm{R1} = \tfrac{1}{2}\, \mathrm{mean}\; |\nabla_x D(x)|^2$$
#
# Here that is $d^2 / 2$, and its slope is the $d$ in the code. Where fake and real agree, nothing makes D steep any more,
# and the game comes to rest. (The table checks the library's penalty for $w = (3, 4)$: $25 / 2$.)
#
# ### Weight averaging
#
# Look at the third number that was printed. The path stays away from the goal, but its *mean* lies close: whoever walks
# in circles is on average in the middle. `WeightAverage` (lesson 04) keeps a running mean of all of G's weights, and that
# generator draws the pictures. The price stands in the right panel of the live run: at step 120 the average, over about
# 20 steps, is well behind (a tenth against a sixth). Averaging costs something while G travels, and earns something when G has
# arrived and circles: in long runs.
#
# ### Few pictures: move them
#
# D may learn pictures by heart: then it knows them from anything else, new *real* pictures included. Moving every
# picture that D sees by a few pixels, real and drawn alike, makes few look like many (Zhao and others 2020). Slopes must
# pass through to G; choosing pixels lets them.
#
# ### Five small runs
#
# Sixty-four pictures of 16 pixels, 100 steps; each run changes one thing. Then we look at D's mean logit on the 64 and on
# 200 new real pictures, at its R1, and at how far two drawings of one caption are apart. **Predict.** Which number will
# change most in each run?


# %% tags=["lib:batches.moved", "nbval-check-output"]
def moved(images: Tensor, most: int, random: torch.Generator) -> Tensor:
    """Each picture (B, 3, S, S) moved by its own number of pixels, at most `most`; its edge is repeated."""
    if most == 0:
        return images
    batch, size = len(images), images.shape[-1]
    by = torch.randint(-most, most + 1, (2, batch, 1), generator=random)
    rows, columns = ((torch.arange(size) + by).clamp(0, size - 1)).to(images.device)  # (B, S) each
    which = torch.arange(batch, device=images.device)[:, None, None]
    return images[which, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)  # channels last


# %%
one = from_uint8(few_data.images[:1]).expand(8, -1, -1, -1)
pictures(moved(one, 3, step_random(0, 0)), title="One picture, moved by up to 3 of 16 pixels", columns=8)
new_data = embed(replace(few, seed=7, length=200).dataset(), reader, tokenizer, torch.device("cpu"))


def examine(trainer):
    D, G = trainer.discriminator, trainer.average.model
    seen, new = (from_uint8(d.images).requires_grad_() for d in (few_data, new_data))
    logits = D(seen, few_data.texts), D(new, new_data.texts)
    one, other = (G(torch.randn(64, 16, generator=step_random(0, i)), few_data.texts) for i in (0, 1))
    row = {"logit, the 64": logits[0].mean(), "logit, new ones": logits[1].mean()}
    row["R1"] = r1_penalty(logits[0], seen)
    return row | {"two drawings": (one - other).abs().mean()}


# %%
changes = [{}, {"r1_weight": 0.0}, {"r1_weight": 1.0}, {"shift": 2}, {"mode_seeking_weight": 0.0}]
rows = []
for change in changes:
    small = small_trainer(steps=100, **change)
    train(small, few_data, progress=None)
    name = ", ".join(f"{key} = {value}" for key, value in change.items()) or "as it is"
    rows.append({"run": name, **examine(small)})
table(rows)
assert rows[3]["logit, new ones"] > rows[0]["logit, new ones"] and rows[2]["R1"] < rows[1]["R1"]
assert rows[0]["two drawings"] > 1.5 * rows[4]["two drawings"]

# %% [markdown]
# "As it is", D gives its 64 pictures a logit of 1.0 and new *real* ones one below 0: it takes them for fakes because it has
# not met them. Moved pictures cut that gap of 1.3 to 0.6. For shapes, which can be computed by the thousand, `shift` is 0;
# for `emoji-32`, where a name has one picture, it is 2. (What it is worth there we have not measured.) R1 with its usual
# weight, 0.02, makes D a little flatter, with weight 1 six times flatter; D then also learns less by heart. Without mode
# seeking two drawings of one caption differ by 0.04 instead of 0.09.
#
# The last row is a story of its own. Before the **mode-seeking** loss (Mao and others 2019) this project had a model of
# equal accuracy and a diversity of 0.25: nearly one picture for each caption, whatever the noise. Today's has 0.89. **A
# mark hides what it does not ask for.**
#
# ### The ablation
#
# What is each piece worth in a real run? Take the full grammar, change *one* thing, train for 100 seconds of processor
# time, mark 2,000 held-out captions. Time is equal, not the number of steps: what slows steps down has to pay for it.
# `course ablate --seeds 3` goes on where the log ends. Each dot is a run.

# %%
runs = {}
for row in read_log(CHECKPOINTS.parent / "logs" / "ablations.jsonl"):
    if row["cpu_seconds"] == 100:
        runs.setdefault(row["variant"], []).append(row)
share = {name: [100 * row["accuracy"]["all"] for row in group] for name, group in runs.items()}
order = sorted(runs, key=lambda name: mean(share[name]))
alt = "Dots: accuracy of each run, one variant a row, sorted. Where D concatenates, it is far below the base."
with figure("One thing changed, 100 seconds of processor time", alt, size=(8, 1.2 + 0.3 * len(runs))) as axis:
    for height, name in enumerate(order):
        axis.plot(share[name], [height] * len(share[name]), "o", color="#0072B2")
    axis.axvline(mean(share["base"]), color="#D55E00", linestyle="--")
    axis.set_yticks(range(len(order)), order)
    axis.set(xlabel="held-out captions drawn right (%); dashed: the base", ylabel="variant", xlim=(0, 100))

# %%
rows = []
for name in reversed(order):
    shape = [100 * row["accuracy"]["shape"] for row in runs[name]]
    scores = {"all right (%)": mean_and_spread(share[name], 1), "shape (%)": mean_and_spread(shape, 1)}
    scores["diversity"] = mean_and_spread([row["diversity"] for row in runs[name]], 2)
    facts = {"runs": len(shape), "steps": f"{mean(row['steps'] for row in runs[name]):.0f}"}
    rows.append({"variant": name, **scores, **facts})
table(rows)
assert mean(share["base"]) > 60

# %% [markdown]
# What three seeds agree in, and what they don't:
#
# - **D must project.** Where D concatenates features and caption, accuracy is 12 to 18 % instead of 56 to 67: D reads
#   badly, so G has nobody to learn from.
# - **Wrong captions** earn 11 to 26 points, and cost diversity: without them it is higher with every seed.
# - **R1** earns 0 to 15 points. **Averaging** costs 3 to 9! Accuracy is still rising, and the average lags behind; it is
#   for players that have arrived and circle. 100 seconds ask it the wrong question.
# - **The loss's name** decides little: hinge is as good as ours. The relativistic one, with a penalty more, is worse with
#   every seed; its steps cost more, so there were fewer.
# - **A pixel MSE** neither helps nor harms that one could see: with weight 1 the seeds lie 20 points apart.
# - **Who shall read?** With MiniLM, a general encoder that never saw a shape, G ends at 8 %: the players must first find
#   out what its words look like. Lesson 08's little encoder knows it already. One that goes on learning with D ("joint")
#   ends at 2 %: it makes steps slower, and what G listens to moves under its feet.
# - **The contrastive loss**, lesson 08's image encoder as a third voice (a drawn picture must find its caption), earns 2 to
#   10 points with weight 0.3, and 4 to 14 with 1, where diversity falls. It is ahead with every seed: so the preset
#   `shapes-32-live` has it, with 0.3, and `base` is that preset without it.
# - Gaps of two or three points between single runs are no finding. "±" is the standard deviation over seeds.
#
# ## 6 Pull the plug
#
# A run of an hour will be interrupted. A checkpoint must hold everything that training changes: both players, the
# average, both optimisers with their running means (`parts` names them). `Trainer`, the base class, counts steps, saves and
# loads; the listener `Checkpoints` asks it to save, every so many steps. The plug may be pulled while it writes, too: it
# writes beside the old checkpoint, then renames (lesson 06).
#
# One trainer makes 40 steps in peace. Another saves every 10, and after step 27 the power fails. A third loads what there
# is and goes on. **Predict.** From which step? And will its weights at the end be similar, close, or equal?


# %%
def power_cut(trainer, losses):
    if trainer.steps_done == 27:
        raise KeyboardInterrupt("the power failed")  # as Ctrl-C does


whole, first, second = (small_trainer(steps=40) for _ in range(3))
train(whole, few_data, progress=None)
try:
    train(first, few_data, [Checkpoints(folder / "last", 10), power_cut], progress=None)
except KeyboardInterrupt:
    second.load(folder / "last")
print(f"cut off after step {first.steps_done}, goes on from step {second.steps_done}")
train(second, few_data, progress=None)
ends = zip(whole.parts().items(), second.parts().values(), strict=True)
equal = {name: torch.equal(all_numbers(one), all_numbers(two)) for (name, one), two in ends}
print("equal at step 40:", *[name for name in equal if equal[name]], sep="\n  ")
assert all(equal.values())

# %% [markdown]
# Equal, to the last bit. Steps 21 to 27 were made twice, with the same dice. Many programs save the players alone, and go
# on with optimisers that have forgotten all they knew. **Predict.** Does it matter?


# %%
def weights(trainer):
    return torch.cat([weight.detach().flatten() for weight in trainer.generator.parameters()])


forgetful = small_trainer(steps=40)
forgetful.load(folder / "last")
before = weights(forgetful)
for name in ("generator", "discriminator"):
    fresh = Adam(getattr(forgetful, name).parameters(), forgetful.learning_rate, forgetful.config.betas)
    setattr(forgetful, f"{name}_optimizer", fresh)
train(forgetful, few_data, progress=None)
way, gap = (weights(whole) - before).norm(), (weights(whole) - weights(forgetful)).norm()
print(f"way of G's weights in steps 21 to 40: {way:.2f}; with optimisers that forgot it ends {gap:.2f} away")

# %% [markdown]
# The gap is half as long as the way. A fresh Adam does not know how steep each weight's slope usually is; its first steps
# have full length in every direction (lesson 04). No error is shown; the run is just another one.
#
# On the command line Ctrl-C ends a run after the step at hand, and `course train --resume runs/NAME` goes on.
#
# The explorer is a live run like that of section 3, in your hands: a thread trains, the page stays free. Press Start,
# Stop after a while, Start again. **Predict.** Will the curves have a kink where you stopped? Which mark will rise
# first?

# %% tags=["explorer"]
from course_lib.widgets import training_dashboard

training_dashboard()

# %% [markdown]
# No kink: a stop is a checkpoint, and the next step has the dice and the running means that it would have had. Ground and
# place rise first, the shape last, as in section 3. All is in the folder `runs/dashboard`; when it is finished, the
# command that the explorer names marks the model on 2,000 captions and writes its card.
#
# ## 7 Your own pictures
#
# Any folder of pictures with captions will do (lesson 02). Here is a small one: stripes in eight colours on three grounds,
# a tenth of the file names held out. A caption has *one* picture here, as with emoji; so the recipe is that of `emoji-32`:
# a pixel MSE to the real picture, no mode seeking, and shifts. (Where a caption has many pictures, MSE blurs them: lesson
# 09.)

# %%
own_folder = folder / "my_pictures"
own_folder.mkdir()
with (own_folder / "metadata.jsonl").open("w", encoding="utf-8") as file:
    for color in [*COLORS][:8]:
        for ground in [*COLORS][8:]:
            image = torch.tensor(COLORS[ground])[:, None, None].repeat(1, 16, 16)
            image[:, 5:11] = torch.tensor(COLORS[color])[:, None, None]
            name, text = f"{color}-stripe-{ground}.png", f"{color} stripe on {ground}"
            save_image(image * 2 - 1, own_folder / name)
            file.write(json.dumps({"file_name": name, "text": text}) + "\n")
own, unseen = (CaptionedFolder(own_folder, image_size=16, split=split) for split in ("train", "heldout"))
print(len(own), "for training; held out:", [unseen.caption(i) for i in range(len(unseen))])

# %%
own_data = embed(own, reader, tokenizer, torch.device("cpu"))
recipe = {"learning_rate": 2e-3, "mse_weight": 10.0, "mode_seeking_weight": 0.0, "shift": 1}
small = small_trainer(steps=150, **recipe)
train(small, own_data, progress=None)
known = {word for i in range(len(own)) for word in words_of(own.caption(i))}
mine = TextToImage(small.average.model, small.discriminator, reader, tokenizer, known)
print("saved as", mine.save_pretrained(folder / "model").name)

wanted = [dataset.caption(i) for dataset, n in ((unseen, 3), (own, 5)) for i in range(n)]
drawn = TextToImage.from_pretrained(folder / "model").sample(wanted, n_samples=1, seed=0)
pictures(drawn, wanted, "Stripes; the first three were held out", columns=4)
distance = (drawn[:3] - unseen.images(range(3))).abs().mean()
print(f"mean distance of those three from the real ones: {distance:.2f}, where black and white are 2 apart")
assert distance < 0.3
room.cleanup()

# %% [markdown]
# The held-out stripes have about the right colours and grounds, although the encoder never read the word "stripe".
#
# For real pictures, run `course audit FOLDER` first, then `course train --preset cub-64 --data FOLDER --dry-run`: it says
# how long the preset for photographs of 64 pixels would take. Without `--dry-run` it begins; it reads captions in any
# English words by `PretrainedTextEncoder` (lesson 07). Stop when the pictures no longer improve, whatever the losses say.
# Drawings with one caption each rather want the settings of `emoji-32`, as above.
#
# ## What changed in the library
#
# Three rooms are furnished: `batches.py`, what a step is made of; `training.py`, the step, the loop, and going on;
# `listeners.py`, what watches. `course train` is these three and a preset.
#
# ## Three questions
#
# 1. In step 5000 you notice that two captions of a batch were equal and the rolled one counted as wrong. Which player
# suffers, and how?
#
# <details><summary>Answer</summary>
#
# D is told that a right picture with its right caption is real and, in the same batch, that it is not. For those pairs it
# can only answer one half each; its logit for right captions sinks, and with it what it teaches G about them. The mask
# `wrong` prevents that.
#
# </details>
#
# 2. R1 is computed in one step of 16 and multiplied by 16. Why not once, with its plain weight?
#
# <details><summary>Answer</summary>
#
# Then D would pay a sixteenth on average. Multiplied, the mean pull is the same and the cost, a second pass backwards,
# falls to a sixteenth. (StyleGAN2 calls it lazy regularisation.)
#
# </details>
#
# 3. You stop at step 1000 of 4000 and go on with `steps=8000`. Is the result the same as that of a run of 8000?
#
# <details><summary>Answer</summary>
#
# Up to step 1000, yes, because the learning rate is constant for half of either run, and the dice depend on seed and step
# alone. Had you stopped at step 3000, no: by then the rate of the short run had begun to fall.
#
# </details>
#
# ## Papers
#
# - Scott Reed and others (2016), *Generative Adversarial Text to Image Synthesis*: wrong captions in D's loss.
#   [arXiv:1605.05396](https://arxiv.org/abs/1605.05396)
# - Han Zhang and others (2017), *StackGAN: Text to Photo-realistic Image Synthesis with Stacked Generative Adversarial
#   Networks*: conditioning augmentation. [arXiv:1612.03242](https://arxiv.org/abs/1612.03242)
# - Lars Mescheder, Andreas Geiger and Sebastian Nowozin (2018), *Which Training Methods for GANs do actually Converge?*:
#   the GAN with two weights, and R1. [arXiv:1801.04406](https://arxiv.org/abs/1801.04406)
# - Yasin Yazıcı and others (2019), *The Unusual Effectiveness of Averaging in GAN Training*.
#   [arXiv:1806.04498](https://arxiv.org/abs/1806.04498)
# - Qi Mao and others (2019), *Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis*.
#   [arXiv:1903.05628](https://arxiv.org/abs/1903.05628)
# - Tero Karras and others (2020), *Analyzing and Improving the Image Quality of StyleGAN*: lazy regularisation.
#   [arXiv:1912.04958](https://arxiv.org/abs/1912.04958)
# - Shengyu Zhao and others (2020), *Differentiable Augmentation for Data-Efficient GAN Training*.
#   [arXiv:2006.10738](https://arxiv.org/abs/2006.10738)
#
# Next: lesson 13 makes the same loop fast on large machines.
