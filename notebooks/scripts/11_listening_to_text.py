# %% [markdown]
# # 11 · Listening to text
#
# **You will build** `course_lib/text_gan.py`: a generator that hears the caption and a discriminator that reads it. First
# with labelled points, then with pictures; then five ways of letting a caption in, compared by what comes out, and a
# rule for D that buys obedience at a price.
#
# **You need** the losses of both players (lesson 03), conditional normalisation (05), attention (07), aligned captions
# (08) and the game itself (10).
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
#   class c00,c01,c02,c03,c04,c05,c06,c07,c08,c09,c10 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c11 lit
# ```

# %% tags=["nbval-check-output"]
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from course_lib.data import CaptionedShapes
from course_lib.evaluation import load_judge, pictures_like
from course_lib.gan import MLPDiscriminator, MLPGenerator, covered_modes, ring_centers
from course_lib.layers import BatchNorm2d, ConditionalBatchNorm2d, Linear
from course_lib.lesson import compare, figure, lines, pictures, setup, table
from course_lib.losses import discriminator_loss, generator_loss
from course_lib.metrics import attribute_accuracy
from course_lib.optim import Adam, WeightAverage
from course_lib.text_encoder import attention, embed_captions, embed_tokens, load_text_encoder
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig

device = setup()

# %% [markdown]
# ## 1 A judge that cannot read
#
# A forger takes orders: "circle" or "square", each half of the time. In the data, picture and order always agree. Three
# forgers draw equally well, but the first obeys every order, the second draws what he likes, the third always draws the
# other thing.
#
# A discriminator D sees one picture, or a picture with its order. The best D says $p/(p+q)$ (lesson 10), and the forger
# wants its loss high.
#
# **Predict.** What is the loss of the best D that sees *only the picture*, for each of the three? And of the one that
# sees both?


# %% tags=["nbval-check-output"]
def loss_of_best(p, q, wrong=None):
    fake = q if wrong is None else (q + wrong) / 2  # `wrong` waits for section 7
    d = p / (p + fake).clamp(min=1e-9)
    return (torch.xlogy(p, d) + torch.xlogy(fake, 1 - d)).sum().abs()  # the sum is never above 0


rows, pairs = [], torch.tensor([[0.5, 0.0], [0.0, 0.5]])  # rows: circle, square drawn; columns: ordered
for forger, obeys in {"obeys": 1.0, "draws what he likes": 0.5, "does the opposite": 0.0}.items():
    drawn = torch.tensor([[obeys, 1 - obeys], [1 - obeys, obeys]]) / 2
    blind, reads = loss_of_best(pairs.sum(1), drawn.sum(1)), loss_of_best(pairs, drawn)
    rows.append({"forger": forger, "loss of D, picture only": blind, "loss of D, picture and order": reads})
table(rows)

# %% [markdown]
# Who sees only pictures finds half circles and half squares with every forger: 1.386 = 2 log 2, a perfect forgery, even
# from the third. A loss that does not depend on obedience has no slope towards it, and D's slope is all that the
# generator G learns from. A popular article shows its discriminator nothing but the picture and expects the text to be
# obeyed (lesson 17). **What D cannot see, G is not taught.**
#
# ### The same with points
#
# The data are the ring of lesson 10, but its eight heaps have labels, 0 to 7. A label becomes eight numbers, a one in
# its place among zeros (**one-hot**). Both players get it beside their other input; that is all a *conditional* GAN is
# (Mirza and Osindero 2014). One switch makes D blind.


# %% tags=["nbval-check-output"]
class PointGenerator(Module):
    def __init__(self, labels, size, z_size=2):
        super().__init__()
        self.mlp = MLPGenerator(z_size + labels, size)

    def forward(self, z, text):  # (B, Z), (B, labels) -> (B, size)
        return self.mlp(torch.cat([z, text], dim=1))


class PointDiscriminator(Module):
    def __init__(self, labels, size, blind=False):
        super().__init__()
        self.mlp, self.blind = MLPDiscriminator(size if blind else size + labels), blind

    def forward(self, x, text):  # (B, size), (B, labels) -> logits (B,)
        return self.mlp(x if self.blind else torch.cat([x, text], dim=1))


# %% [markdown]
# The round of lesson 10 needs three changes. Both players get the text. One pass of G serves both steps. And D may get
# **matching-aware** pairs (Reed and others 2016): a *real* picture with a *wrong* caption, its neighbour's, counts as
# fake, unless both captions are equal. Section 7 is about these. What is returned is the averaged G of lesson 04.


# %% tags=["nbval-check-output"]
def play(G, D, batch, rounds, z_size=2, matching_aware=True, learning_rates=(2e-3, 4e-3)):
    rates = zip((G, D), learning_rates, strict=True)
    optimizers = [Adam(player.parameters(), rate, (0.5, 0.99)) for player, rate in rates]
    random, average = torch.Generator().manual_seed(0), WeightAverage(G, 0.95)
    for _ in range(rounds):
        real, text = batch(random)
        fake, other = G(torch.randn(len(text), z_size, generator=random).to(device), text), text.roll(1, 0)
        wrong = D(real, other) if matching_aware else None
        loss = discriminator_loss(D(real, text), D(fake.detach(), text), wrong, (other != text).any(1))
        optimizers[1].zero_grad(), loss.backward(), optimizers[1].step()
        loss_g = generator_loss(D(fake, text))
        optimizers[0].zero_grad(), loss_g.backward(), optimizers[0].step()
        average.update(G)
    return average.model, loss.item()


# %% [markdown]
# Two games, for now without wrong captions, from the same weights of G. Then the **caption-swap test**: the same noise
# is drawn with a label and with the next one. A point obeys if its label's heap is the nearest.
#
# **Predict.** With the blind D: will the points lie in the heaps? Which share obeys? Will they move when the label is
# swapped?


# %%
def ring_batch(random):
    label = torch.randint(8, (128,), generator=random)
    points = ring_centers()[label] + 0.1 * torch.randn(128, 2, generator=random)
    return points.to(device), torch.eye(8)[label].to(device)


def obeys(points, label):
    return (torch.cdist(points, ring_centers()).argmin(1) == label).float().mean()


label, noise = torch.arange(8).repeat(100), torch.randn(800, 2, generator=torch.Generator().manual_seed(1))
drawn = {}
for name, blind in {"D sees only the point": True, "D sees point and label": False}.items():
    torch.manual_seed(0)
    players = PointGenerator(8, 2).to(device), PointDiscriminator(8, 2, blind).to(device)
    G, _ = play(*players, ring_batch, 500, matching_aware=False)
    asks = [torch.eye(8)[(label + k) % 8].to(device) for k in (0, 1)]
    drawn[name] = [G(noise.to(device), ask).cpu() for ask in asks]

# %%
alt = """Left, blind D: points of several colours lie mixed in the heaps of the ring and on bridges
between them. Right, D that reads: one colour in each heap."""
rows = []
with figure("Points, coloured by the label that was asked for", alt, columns=2, size=(9, 4.6)) as axes:
    for axis, (name, (points, swapped)) in zip(axes, drawn.items(), strict=True):
        axis.scatter(*points.T, c=label, s=7, cmap="viridis")
        for number, (x, y) in enumerate(1.35 * ring_centers()):
            axis.text(x, y, str(number), ha="center", va="center", fontweight="bold")
        axis.set(title=name, xlim=(-3, 3), ylim=(-3, 3), xlabel="first coordinate", ylabel="second")
        inside, moved = covered_modes(points, ring_centers())[1], (swapped - points).norm(dim=1).mean()
        row = {"game": name, "in a heap": inside, "obey": obeys(points, label)}
        rows.append(row | {"obey when swapped": obeys(swapped, (label + 1) % 8), "moved by the swap": moved})
table(rows)
assert rows[0]["obey"] < 0.5 and rows[1]["obey"] > 0.9 and rows[1]["obey when swapped"] > 0.9

# %% [markdown]
# The blind D teaches G to draw points of the data, and no more: 15 % obey, where chance is 1 in 8. Yet G *hears* the
# label: swapped, it moves the points as far as in the other game, only nowhere in particular. It is more noise to G. So
# the test must ask not whether a drawing changes, but whether it changes to what was said.
#
# With a D that reads, all obey, before and after. And the bridges of lesson 10 (its third question) are gone: the label
# is noise in eight pieces.
#
# ## 2 From labels to captions
#
# A caption comes as 96 numbers from the frozen text encoder of `align-shapes-32`. It learned *self-supervised* what
# follows what (lesson 07), then which picture belongs to which caption (08). Nothing in it was learned *adversarially*;
# the article takes the two for one (lesson 17).
#
# The noise is another vector with a size of its own: `GeneratorConfig` has `z_size` and `text_size`. The article passes
# `z_size` as the size of the text.
#
# **Predict.** What happens then?

# %%
encoder, tokenizer = load_text_encoder("align-shapes-32", device)
captions = ["a large red circle at the center on navy", "a small blue star at the top left on gray"]
texts, tokens = embed_captions(encoder, tokenizer, captions), embed_tokens(encoder, tokenizer, captions)
z = torch.randn(2, 64, generator=torch.Generator().manual_seed(0)).to(device)
print("noise", tuple(z.shape), "embeddings", tuple(texts.shape), "token by token", tuple(tokens.shape))
try:
    Generator(GeneratorConfig(image_size=32, z_size=64, text_size=64)).to(device)(z, texts)
except RuntimeError as error:
    print(error)

# %% [markdown]
# The shapes do not fit. (Were both sizes equal by chance, nobody would notice.) `Generator` squeezes the 96 numbers
# into 64 by a layer of its own, `read_text`, and puts them beside the noise: the **condition**, 128 numbers.
#
# ## 3 How a generator can hear
#
# **Way 1: concatenation.** The condition enters the first layer, and no other. By hand, with two numbers of noise, one
# number of caption and two channels:
#
# $$\begin{pmatrix} 3 & 1 & 10 \\ 0 & 2 & -10 \end{pmatrix} \begin{pmatrix} 1 \\ -1 \\ 2 \end{pmatrix} =
#   \begin{pmatrix} 3 - 1 \\ 0 - 2 \end{pmatrix} + \begin{pmatrix} 20 \\ -20 \end{pmatrix}$$
#
# **Predict.** What does the same caption add, if the noise is another?
#
# <details><summary>Answer</summary>
#
# (20, -20) again. A matrix times two vectors laid end to end is the sum of two products, and the second knows nothing
# of the noise.
#
# </details>
#
# So the caption shifts what the noise has said, once, at 4 x 4 positions; later layers must remember it. Their
# normalisation is given the condition, so that all kinds fit into one place, and ignores it:


# %% tags=["lib:text_gan.PlainBatchNorm2d", "nbval-check-output"]
class PlainBatchNorm2d(Module):
    """Batch normalisation that is given a condition and does not listen."""

    def __init__(self, num_features: int, condition_size: int):
        super().__init__()
        self.norm = BatchNorm2d(num_features)

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:
        """input (B, C, H, W), condition (B, E) -> (B, C, H, W)."""
        return self.norm(input)


# %% [markdown]
# **Way 2: conditional normalisation.** After *every* block, scale and shift are read from the condition (lesson 05).
# One channel, two pictures of one pixel each: the values are 100 and 300. Their mean is 200, their standard deviation
# 100, so normalised they are -1 and 1. The first caption says $\gamma = 0.5, \beta = 2$, the second $\gamma = 0, \beta
# = 1$.
#
# **Predict.** What comes out of $(1 + \gamma)\, x + \beta$?

# %% tags=["nbval-check-output"]
by_hand = []
for x, gamma, beta in [(-1.0, 0.5, 2.0), (1.0, 0.0, 1.0)]:
    by_hand.append((1 + gamma) * x + beta)
print(by_hand)

layer = ConditionalBatchNorm2d(1, condition_size=2).to(device)
gammas, betas = torch.tensor([[0.5, 0.0], [2.0, 1.0]], device=device)  # one number for each caption
layer.modulation.weight.data = torch.stack([gammas, betas])
values, said = torch.tensor([100.0, 300.0], device=device)[:, None, None, None], torch.eye(2, device=device)
ours, normal = (
    layer(values, said).flatten(),
    F.batch_norm(values, None, None, training=True).flatten(),
)
compare({"by hand": (ours, torch.tensor(by_hand)), "torch": (ours, (1 + gammas) * normal + betas)})

# %% [markdown]
# 0.5 and 2. The caption not only adds, it *multiplies*: it can turn a channel off, at 4, 8, 16 and 32 pixels.
#
# **Way 3: cross-attention.** So far a caption is one vector. Here each position of the 16 x 16 block asks (query) the
# caption's single words (keys and values), as in lesson 07, and adds what it hears. It comes on top of way 2.


# %% tags=["lib:text_gan.CrossAttention", "nbval-check-output"]
class CrossAttention(Module):
    def __init__(self, channels: int, text_size: int):
        super().__init__()
        self.query = Linear(channels, channels)
        self.key_value = Linear(text_size, 2 * channels)
        self.output = Linear(channels, channels)

    def forward(self, input: Tensor, tokens: Tensor) -> Tensor:
        # input (B, C, H, W), tokens (B, T, E) with zeros where a caption has ended -> (B, C, H, W)
        batch, channels, height, width = input.shape
        query = self.query(input.flatten(2).transpose(1, 2))  # (B, H * W, C)
        key, value = self.key_value(tokens).chunk(2, dim=-1)  # each (B, T, C)
        real = tokens.any(-1)[:, None, None]  # (B, 1, 1, T)
        seen = attention(query[:, None], key[:, None], value[:, None], real)[:, 0]  # (B, H * W, C)
        change = self.output(seen).transpose(1, 2).reshape(batch, channels, height, width)
        return input + change.contiguous(memory_format=torch.channels_last)


# %%
torch.manual_seed(0)
cross, x = CrossAttention(8, 96).to(device), torch.randn(2, 8, 16, 16).to(device)
query, (key, value) = cross.query(x.flatten(2).transpose(1, 2)), cross.key_value(tokens).chunk(2, dim=-1)
seen = F.scaled_dot_product_attention(query, key, value, attn_mask=tokens.any(-1)[:, None])
theirs = x + cross.output(seen).transpose(1, 2).reshape(x.shape)
longer = torch.cat([tokens, torch.zeros(2, 5, 96, device=device)], dim=1)
compare({"torch": (cross(x, tokens), theirs), "five empty places more": (cross(x, longer), cross(x, tokens))})

# %% [markdown]
# Now the whole generator, with way 2. Follow one batch through it, and count the weights of all three.

# %%
G = Generator(GeneratorConfig(image_size=32, z_size=64, text_size=96)).to(device)
condition = torch.cat([z, G.read_text(texts)], dim=1)
x = G.start(condition).view(2, -1, 4, 4)
for norm, up in zip(G.norms[:-1], G.ups, strict=True):
    print(tuple(x.shape), end=" -> ")
    x = up(norm(x, condition).relu())  # every block hears the condition
x = torch.tanh(G.to_rgb(G.norms[-1](x, condition).relu()))
print(tuple(x.shape))
compare({"this loop and Generator": (x, G(z, texts))})
for kind in ("concatenation", "normalisation", "cross-attention"):
    built = Generator(GeneratorConfig(32, text_size=96, conditioning=kind))
    print(f"{kind}: {sum(p.numel() for p in built.parameters()):,} weights")

# %% [markdown]
# ## 4 How a discriminator can read
#
# D turns the picture into features $h$, by strided convolutions. How shall they meet the caption?
#
# **Predict.** A simple D adds a number for the picture and a number for the caption. Choose the four numbers so that
# (red picture, "red") and (blue picture, "blue") get positive logits, the two mixed pairs negative ones.
#
# <details><summary>Answer</summary>
#
# It cannot be done. With $a_r, a_b$ for the pictures and $c_r, c_b$ for the captions, both right pairs together have
# the sum $a_r + a_b + c_r + c_b$, and so have both mixed pairs. One sum would have to be positive and negative.
#
# </details>
#
# Whether two things *match* is no sum, it is a product. By **concatenation**, features and caption stand side by side,
# and one more layer that bends (`joint`) must learn the product. **Projection** (Miyato and Koyama 2018) writes it
# down:
#
# $$\mathrm{logit} = w \cdot h + (V\,\mathrm{text}) \cdot h$$
#
# First: is the picture real at all? Second: does the caption fit? By hand, with two features, "red" and "blue", $w =
# (0.5, 0.5)$, and $V$ that makes $(1, -1)$ of the caption "red" and $(-1, 1)$ of "blue":

# %% tags=["nbval-check-output"]
heard = {'"red"': [1.0, -1.0], '"blue"': [-1.0, 1.0]}
rows = []
for picture, h in {"red": [2.0, 0.0], "blue": [0.0, 2.0], "grey mush": [0.1, 0.1]}.items():
    row = {"picture": picture, "realness": sum(0.5 * x for x in h)}
    for caption, v in heard.items():
        row[f"logit with {caption}"] = row["realness"] + sum(a * b for a, b in zip(v, h, strict=True))
    rows.append(row)
table(rows)

# %% [markdown]
# The right pairs get 3, the mixed ones -1; mush gets 0.1, whatever is said. The product is **bilinear**: linear in the
# features and in the caption. `DiscriminatorConfig` has the choice; `Discriminator.match` divides the product by
# $\sqrt{256}$, against growth with the number of features.

# %%
torch.manual_seed(0)
D = Discriminator(DiscriminatorConfig(32, text_size=96)).to(device)
images = torch.randn(2, 3, 32, 32).to(device)
features, V = D.features(images), D.read_text.weight / 16  # (2, 256), (256, 96)
realness = F.linear(features, D.realness.weight, D.realness.bias)[:, 0]
theirs = realness + F.bilinear(features, texts, V[None])[:, 0]
compare({"projection": (D(images, texts), theirs)})
every = realness[:, None] + features @ V @ texts.T  # one pass over the pictures, every caption
compare({"all pairs at once": (every.diagonal(), D(images, texts))})

# %% [markdown]
# As in lesson 08, all pairs of pictures and captions are one matrix product: D by projection compares as a contrastive
# model does.
#
# ## 5 It listens
#
# A live game with pictures: large shapes in the middle, eight shapes, eight colours, three grounds; a tenth of the
# combinations is held out. Way 2 in G, projection in D, `play` as above, 170 rounds. Beside it the same with a blind D,
# whose `match` does not look at the text.
#
# **Predict.** What will the blind game's pictures show when a word is swapped?


# %%
class BlindDiscriminator(Discriminator):
    def match(self, features, text):
        return self.realness(features).squeeze(1)


def easy(split, length):
    data = CaptionedShapes(split, 32, length=length)
    about = [data.attributes(i) for i in range(length)]
    rows = [i for i in range(length) if (about[i]["size"], about[i]["position"]) == ("large", "center")]
    texts = embed_captions(encoder, tokenizer, [data.caption(i) for i in rows])
    return data.images(rows), texts, [about[i] for i in rows]


real, texts, _ = easy("train", 8000)
_, asked, scenes = easy("heldout", 4000)
print(len(real), "pictures;", len(asked), "held-out captions")


# %%
def easy_batch(random):
    rows = torch.randint(len(real), (32,), generator=random)
    return real[rows].to(device).contiguous(memory_format=torch.channels_last), texts[rows.to(device)]


sizes, models, loss_d = GeneratorConfig(32, text_size=96, width=16), {}, {}
for name, kind, aware in [("reads", Discriminator, True), ("blind", BlindDiscriminator, False)]:
    torch.manual_seed(0)
    players = Generator(sizes), kind(DiscriminatorConfig(32, text_size=96))
    players = [player.to(device, memory_format=torch.channels_last) for player in players]
    models[name], loss_d[name] = play(*players, easy_batch, 170, 64, aware, (2e-3, 2e-3))

# %%
short = ["red circle, navy", "green circle, navy", "red star, navy", "red circle, cream"]
sentences = [f"a large {swap.replace(',', ' at the center on')}" for swap in short]
heard = embed_captions(encoder, tokenizer, sentences)
z = torch.randn(2, 64, generator=torch.Generator().manual_seed(1)).to(device)
grid = [model(one.expand(4, 64), heard) for model in models.values() for one in z]
names = [f"{name}: {swap}" if row == 0 else "" for name in models for row in (0, 1) for swap in short]
alt = """Four rows of four pictures; in each row the noise is the same. First two rows, D reads: red
circle, green circle, red star, red circle on cream. Last two rows, D is blind: blobs that do not follow
the captions."""
pictures(torch.cat(grid), names, "Caption-swap test: D reads, or is blind; one noise a row", alt=alt)

# %%
judge, rows = load_judge(32).to(device), []
noise = torch.randn(len(asked), 64, generator=torch.Generator().manual_seed(2)).to(device)
for name, model in models.items():
    drawn = {"own": model(noise, asked), "swapped": model(noise, asked.roll(7, 0))}
    right = attribute_accuracy(judge, drawn["own"], scenes)
    after = attribute_accuracy(judge, drawn["swapped"], scenes[-7:] + scenes[:-7])["all"]
    shares = {key: f"{right[key]:.0%}" for key in ("background", "color", "shape", "all")}
    rows.append({"D": name, "last loss": loss_d[name]} | shares | {"all, when swapped": f"{after:.0%}"})
    assert (right["all"] > 0.5) == (name == "reads")
table(rows)
perfect = loss_of_best(pairs, pairs, pairs.flip(0))  # section 1: who obeys, and a D that gets wrong captions
print(f"loss of the best D against a perfect forger, with wrong captions: {perfect:.3f}")

# %% [markdown]
# The judge is `judge-32`, trained on real pictures only. With a D that reads, nearly every held-out caption is drawn
# right, and nearly every one that was swapped in. With the blind D, pictures change with the caption as well, but ground,
# colour and shape are right no more often than by guessing (a third, an eighth, an eighth). Same data, start and noise; only D's
# reading differs (wrong captions would mean nothing to a blind D). And as lesson 10 promised, drawing itself is learned
# sooner with text.
#
# Mind the loss. Wrong captions can be told from right ones however well G draws, so with them a perfect game ends near
# 0.955, not at 1.386.
#
# ## 6 Five ways, one table
#
# Each of these runs had 100 seconds of processor time on the full grammar (both languages, 1,920 combinations, things
# left unsaid) and was marked on 2,000 held-out captions. `base` is normalisation in G and projection in D; the last row
# is `base` without wrong captions, for section 7. `course ablate` makes these runs and others; `data/ABLATIONS.md` has
# all.
#
# **Predict.** Which of the two players' ways will matter more? Will cross-attention, the most flexible, be the best?

# %%
from statistics import mean

from course_lib.ablation import mean_and_spread, read_log
from course_lib.checkpoint import CHECKPOINTS

log = [run for run in read_log(CHECKPOINTS.parent / "logs" / "ablations.jsonl") if run["cpu_seconds"] == 100]
ways = ["G concatenation, D concatenation", "G normalisation, D concatenation"]
ways += ["G concatenation, D projection", "G cross-attention, D projection", "base"]
rows = []
for way in [*ways, "no matching-aware pairs"]:
    runs = [run for run in log if run["variant"] == way]
    row = {"variant": way, "runs": len(runs), "rounds": f"{mean(run['steps'] for run in runs):.0f}"}
    for key in ("color", "shape", "all"):
        row[f"{key}, %"] = mean_and_spread([100 * run["accuracy"][key] for run in runs], 1)
    rows.append(row | {"diversity": mean_and_spread([run["diversity"] for run in runs], 2)})
table(rows)

# %%
curves = {}
for way in ways:
    marks = [[100 * share for *_, share in run["curve"]] for run in log if run["variant"] == way]
    curves[way] = [mean(at_one_time) for at_one_time in zip(*marks, strict=True)]
alt = """Share of pictures with all attributes right over 100 seconds of training. The three ways with
projection rise steeply after 60 seconds, to 40 to 61 percent; the two with concatenation in D end below
20."""
labels = "seconds of processor time", "share of pictures in percent"
lines([20, 40, 60, 80, 100], curves, "All attributes right, while training", labels, alt, ylim=(0, 100))

# %% [markdown]
# D's way decides. With projection 34 to 67 % of the pictures are right, with concatenation 12 to 18 %. What is missing is
# the shape; all five know their colours. The product of section 4 is there from the first round; a D that must find it
# comes late.
#
# In G, conditional normalisation is ahead of concatenation, by 5, 16 and 18 points in the three runs. Cross-attention is
# ahead of neither: its rounds cost more, so fewer fit into the time, and one vector is enough for one object. The number
# after ± is the standard deviation over seeds; a gap of a few points may be chance.
#
# ## 7 Wrong captions: what they buy, and what they cost
#
# The last row: `base`, but D never met a real picture with a wrong caption. It still obeys, 42.2 against 61.5 % on
# average! One often reads that without such pairs the text is ignored. That is true of a blind D. One that reads
# learns from the right pairs, and G's early pictures, which fit nothing, serve as wrong ones. Wrong captions make it
# faster: in so short a run they are worth 11 to 26 points.
#
# They also move the goal. Take three kinds of pictures. The caption "disc" has sharp discs and blurred blobs, half
# each; "square" has sharp squares and the same blobs, half each. A forger who is asked for a disc draws sharp discs
# with some share, blobs otherwise.
#
# **Predict.** At which share is the loss of the best D highest, without and with wrong captions? (With them: half of
# what counts as fake under "disc" are the real pictures of "square".)

# %% tags=["nbval-check-output"]
disc, square = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]])  # shares of sharp discs, blobs, sharp squares
rows = []
for share in (0.25, 0.5, 0.625, 0.75, 0.875, 1.0):
    q = torch.tensor([share, 1 - share, 0.0])
    row = {"share of sharp discs": share, "loss without": loss_of_best(disc, q)}
    rows.append(row | {"loss with wrong captions": loss_of_best(disc, q, square)})
table(rows)

# %% [markdown]
# Without: at 0.5, as in the data. With them: at 0.75. A blob could be a square, so D holds it against the forger, who
# does best to draw fewer blobs than there are. The best logit is no longer $\log p/q$ but
#
# $$\log \frac{2\, p(x \mid \mathrm{caption})}{q(x \mid \mathrm{caption}) + p(x \mid \mathrm{other\ captions})}$$
#
# and even a *perfect* forger, $q = p$, is pulled towards pictures that no other caption has. A network finds the same:
# two labels have points around -1 and 1, with a standard deviation of 1, and the forger draws from the data.
#
# **Predict.** Draw D's logit over the line, for label 1, without and with wrong labels.

# %%
x, logits = torch.linspace(-3, 3, 121)[:, None], {}
for name, aware in {"without wrong labels": False, "with wrong labels": True}.items():
    torch.manual_seed(0)
    D, random = PointDiscriminator(2, 1).to(device), torch.Generator().manual_seed(0)
    optimizer = Adam(D.parameters(), 2e-3, (0.5, 0.99))
    for _ in range(300):
        label = torch.randint(2, (256,), generator=random)
        real, fake = ((2 * label - 1)[:, None] + torch.randn(2, 256, 1, generator=random)).to(device)
        text = torch.eye(2)[label].to(device)
        wrong = D(real, text.flip(1)) if aware else None
        loss = discriminator_loss(D(real, text), D(fake, text), wrong)
        optimizer.zero_grad(), loss.backward(), optimizer.step()
    logits[name] = D(x.to(device), torch.eye(2)[1:].expand(121, 2).to(device)).detach().cpu()

# %%
formula = {"formula, without": 0 * x[:, 0], "formula, with": torch.log(2 * torch.sigmoid(2 * x[:, 0]))}
labels = "place on the line (label 1: around 1, label 0: around -1)", "logit for label 1"
alt = """Logit over the line from -3 to 3. Without wrong labels it stays near 0. With them it is far
below 0 at the left, where label 0 lies, and rises to about 0.7 at the right; the network follows the
formula."""
lines(x[:, 0], logits | formula, "What D tells a perfect forger of label 1", labels, alt, ylim=(-5, 2))
assert logits["with wrong labels"][100] - logits["with wrong labels"][40] > 0.8

# %% [markdown]
# Without wrong labels D is silent: nothing is left to learn. With them its logit rises across the whole heap of label 1
# and pulls a perfect forger to the right, away from label 0: towards pictures more typical of their caption than the
# data are, so towards fewer kinds of them. Is that price in the table? Its last column is diversity (1: as among real
# pictures of a caption). Without wrong captions it is higher with each of the three seeds, 0.92 on average against 0.83.
# Part of that may be mistakes, for wrong pictures differ too. We keep the wrong captions, and know what they ask for.
#
# ## 8 The other ear
#
# G has two inputs, so there is a second test: swap the *noise*. A caption fits many pictures: objects lie a little off,
# are turned, larger, darker. But a G that draws one perfect picture for each caption is hard for D to find out.
# `mode_seeking_loss` (Mao and others 2019) draws every caption twice and divides the difference of the noises by that
# of the pictures: 1 / 0.1 = 10 if the noises differ by 1 and the pictures by 0.1.
#
# Below are the shipped `shapes-32`, which had this loss with a weight of 0.012, and our live model, which had not.
# `shapes-32` is made in lesson 12, in 8,000 rounds; it draws 99.6 % of the held-out captions right.
#
# **Predict.** Three noises, four captions; one word changes from the first column to each of the others. What stays the
# same within a row, what within a column?


# %% tags=["lib:losses.mode_seeking_loss", "nbval-check-output"]
def mode_seeking_loss(images: Tensor, latents: Tensor) -> Tensor:
    """Small if different noise makes different pictures; row i and row i + B/2 have one caption."""
    (one, other), (z_one, z_other) = images.chunk(2), latents.chunk(2)
    ratio = (one - other).abs().mean() / (z_one - z_other).abs().mean()
    return 1 / (ratio + 1e-5)


# %%
from course_lib import TextToImage

print(f"by hand: {mode_seeking_loss(torch.tensor([[0.3], [0.2]]), torch.tensor([[1.0], [0.0]])):.1f}")
shipped = TextToImage.from_pretrained("shapes-32", device)
sentences = ["a large red heart at the center on navy", "a large green heart at the center on navy"]
sentences += ["a large red star at the center on navy", "a large red heart at the top left on navy"]
heard = shipped.encode_text(sentences)
noise = torch.randn(200, 64, generator=torch.Generator().manual_seed(3)).to(device)
with torch.no_grad():
    grid = torch.cat([shipped.generator(one.expand(4, 64), heard) for one in noise[:3]])
names = ["large red heart", "large green heart", "large red star", "at the top left"]
alt = """Three rows of four pictures on navy: red heart, green heart, red star, red heart at the top
left. In each row the objects have the same tilt, size and offset; from row to row these change a
little."""
pictures(grid, names + [""] * 8, "shapes-32: one noise a row, one caption a column", alt=alt)


# %%
def silhouette(images):  # (B, 3, S, S) -> (B, S, S) bool, where a picture is not ground
    ground = images.flatten(2).median(2).values[:, :, None, None]
    return (images - ground).abs().amax(1) > 0.5


scene = scenes[0] | {"color": "red", "shape": "heart", "background": "navy"}
data = torch.cat([pictures_like(scene, 32, seed) for seed in range(25)])  # 200 real ones
red, green = (shipped.generator(noise, text.expand(200, 96)) for text in heard[:2])
live = models["reads"](noise, heard[:1].expand(200, 96)).detach()
swaps, rows = {"shapes-32: other colour word, same noise": (red, green)}, []
for name, images in {"shapes-32": red, "data": data, "live model": live}.items():
    swaps[f"{name}: same caption, other noise"] = images, images.roll(1, 0)
for name, (one, other) in swaps.items():
    one, other = silhouette(one), silhouette(other)
    common = ((one & other).sum((1, 2)) / (one | other).sum((1, 2))).mean()
    rows.append({"two pictures": name, "of both silhouettes common": f"{common:.0%}"})
table(rows)

# %% [markdown]
# Noise and words share the work. In a row, tilt, size and offset stay while the words change: another colour word
# leaves 92 % of both silhouettes common. Another noise leaves 82 %, nearly as little as two real pictures have, 79 %.
#
# The live model leaves 95 %: whatever the noise, it draws nearly one picture for each caption, as its two rows in
# section 5 show. Its accuracy of 100 % did not tell. (It had fewer rounds and an easier task as well.) **Obedience and
# diversity are two marks; look at both.**
#
# In the explorer you swap a word yourself, and the judge reads both pictures, for 24 noises. **Predict**, then try the
# sentence "a red star", attribute "shape", new value "circle": what stays of all that was left unsaid?

# %% tags=["explorer"]
from course_lib.widgets import conditioning_lab

conditioning_lab()

# %% [markdown]
# While everything is said, only the swapped attribute follows. What is unsaid is not left to the noise alone: the same
# noises give small stars and large circles, and 19 of 24 at another place. The generator takes those from the words too;
# nothing in its training asked it to let the noise alone decide.
#
# ## 9 What a generator cannot hear, it cannot draw
#
# A true story from the making of this course. Our first model for 64 pixels drew scenes of two objects, such as "a red
# star above a blue ring". Only 28 % were right, although *above* was right in 100 %: half of the time objects or
# colours were exchanged.
#
# The generator was not to blame. We gave the text encoder captions and their **twins**, the same words in another
# order: "a blue star above a red ring". The own caption came before the twin in 49.8 %: a coin. Contrastive training
# (lesson 08) had not asked for the order, because a batch hardly ever held both; a bag of words found every partner.
# Yuksekgonul and others (2023) found the like in CLIP.
#
# The cure is theirs too: let twins (`CaptionedShapes.twins`) be strangers in the batch. Now the own caption comes first
# in 99.8 % (card of `align-shapes-64`). **An embedding is all that G ever hears: test it before you train G.**
#
# ## What changed in the library
#
# The room `text_gan.py` is furnished: `Generator` with three ways to hear, `Discriminator` with two ways to read, and
# `grow_`, which lets both players for 64 pixels begin with what those for 32 have learned (Karras and others, 2017).
# Lesson 12 puts them into a training that can be stopped and gone on with; its `matching_aware_loss` is the rule of
# section 7 for any loss.
#
# ## Three questions
#
# 1. A friend's conditional GAN draws perfect digits, but never the one that is asked for. Which two lines of the code do
#    you look at?
#
# <details><summary>Answer</summary>
#
# At D's call: does it get the label at all, and the *same* label as G did? A batch of labels shuffled between the two
# calls is as bad as a blind D.
#
# </details>
#
# 2. In `play`, a wrong caption that equals the right one is masked. What would happen with eight labels if it were not?
#
# <details><summary>Answer</summary>
#
# Every eighth "wrong" pair would be a right one, and D would be told that it is real and that it is fake. Its logit for
# perfect pairs would fall, the more, the fewer labels there are.
#
# </details>
#
# 3. For a new picture of a caption, D by projection computes $w \cdot h + (V\,\mathrm{text}) \cdot h$. What does it say
#    about a real picture, if the embedding of the caption is the zero vector?
#
# <details><summary>Answer</summary>
#
# Only $w \cdot h$: how real it looks, whatever it shows. Lesson 14 does the like with the empty caption, and uses the
# difference of the two logits as guidance.
#
# </details>
#
# ## Papers
#
# - Mehdi Mirza and Simon Osindero (2014), *Conditional Generative Adversarial Nets*: labels for both players.
#   [arXiv:1411.1784](https://arxiv.org/abs/1411.1784)
# - Scott Reed and others (2016), *Generative Adversarial Text to Image Synthesis*: captions, and matching-aware pairs
#   (algorithm 1). [arXiv:1605.05396](https://arxiv.org/abs/1605.05396)
# - Harm de Vries and others (2017), *Modulating early visual processing by language*: conditional batch normalisation.
#   [arXiv:1707.00683](https://arxiv.org/abs/1707.00683)
# - Tero Karras and others (2017), *Progressive Growing of GANs for Improved Quality, Stability, and Variation*.
#   [arXiv:1710.10196](https://arxiv.org/abs/1710.10196)
# - Tao Xu and others (2018), *AttnGAN*: attention to words. [arXiv:1711.10485](https://arxiv.org/abs/1711.10485)
# - Takeru Miyato and Masanori Koyama (2018), *cGANs with Projection Discriminator*.
#   [arXiv:1802.05637](https://arxiv.org/abs/1802.05637)
# - Qi Mao and others (2019), *Mode Seeking Generative Adversarial Networks for Diverse Image Synthesis*.
#   [arXiv:1903.05628](https://arxiv.org/abs/1903.05628)
# - Mert Yuksekgonul and others (2023), *When and why vision-language models behave like bags-of-words, and what to do
#   about it?* [arXiv:2210.01936](https://arxiv.org/abs/2210.01936)
#
# Next: lesson 12 trains all of it, and stops and goes on.
