# %% [markdown]
# # 09 · A first generator
#
# **You will build** `course_lib/vae.py`: a variational autoencoder, the first network of this course that draws pictures
# nobody gave it. Its loss has two parts; you compute both by hand, prove them equal to PyTorch's, and train with them.
# Then you look closely at its soft edges, and find out where they come from.
#
# **You need** the squared error and what it wants (lesson 03), the autoencoder and `fit` (06), and the normal
# distribution: the bell curve with a mean and a standard deviation.
#
# **Time**: 60 minutes of reading and thinking; the computer needs less than a minute.
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
#   class c00,c01,c02,c03,c04,c05,c06,c07,c08 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c09 lit
# ```

# %% tags=["nbval-check-output"]
import math
from functools import partial

import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from course_lib.data import CaptionedShapes
from course_lib.fit import fit, warmup_cosine
from course_lib.image_encoder import Autoencoder, ImageEncoderConfig
from course_lib.images import make_grid, to_pil
from course_lib.lesson import compare, figure, pictures, setup, table
from course_lib.losses import mse_loss, require_same_shape
from course_lib.optim import Adam

device = setup()

# %% [markdown]
# ## 1 A space with holes
#
# The autoencoder of lesson 06 has a part that draws: its decoder turns a vector into a picture. To get a *new* picture,
# could one not give it a random vector? We try it with vectors of two numbers, because a plane can be looked at whole.
# Two numbers cannot say much, so the pictures are of few kinds: large shapes in the centre, on navy.

# %% tags=["nbval-check-output"]
data = CaptionedShapes("train", image_size=16, grammar="small", length=6000)
scenes = [data.attributes(i) for i in range(len(data))]
kept = [i for i, scene in enumerate(scenes) if scene["position"] == "center" and scene["size"] == "large"]
images, scenes = data.images(kept, device), [scenes[i] for i in kept]
kinds = [f"{scene['color']} {scene['shape']}" for scene in scenes]
marks = {"circle": "o", "square": "s", "triangle": "^", "ring": "P"}  # how figures show them
marked = {
    mark: [i for i, scene in enumerate(scenes) if scene["shape"] == shape] for shape, mark in marks.items()
}
print(f"{len(images)} pictures of {len(set(kinds))} kinds, such as {', '.join(kinds[:3])}")


# %%
def train(model, loss, steps=500):
    random = torch.Generator().manual_seed(0)
    rate = warmup_cosine(5e-3, steps, steps // 20)

    def batch(step):
        return (images[torch.randint(len(images), (64,), generator=random)],)

    fit(model, batch, loss, Adam(model.parameters()), steps, learning_rate=rate)
    return model.eval()


torch.manual_seed(0)
autoencoder = Autoencoder(ImageEncoderConfig(image_size=16, width=16, output_size=2)).to(device)
train(autoencoder, Autoencoder.loss)
with torch.no_grad():
    codes, drawn = autoencoder.encoder(images), autoencoder(images)
print(f"squared error {mse_loss(drawn, images):.3f}; of the mean picture {images.var(0).mean():.3f}")
assert mse_loss(drawn, images) < 0.05

# %% [markdown]
# It has learned something: from two numbers it draws with less than half of the error that their mean picture has. Now
# look at the plane itself. A picture's two numbers are its **latent vector**, the plane is the **latent space**.
#
# **Predict.** Someone who knows nothing of the training takes two random numbers, say from -2 to 2. What will the decoder
# draw from them?

# %%
side = torch.linspace(-2, 2, 9)  # the plane in 9 x 9 points, from left to right and downwards:
plane = torch.cartesian_prod(side.flip(0), side).flip(1).to(device)  # (81, 2)
frame = [-2, 2, 2, -2, -2], [-2, -2, 2, 2, -2]
alt = """Left: the training pictures as marks in their colours, in heaps far apart, the first number from -5
to 9, the second from -22 to 3. A frame from -2 to 2 holds only the green ones. Right: 81 pictures drawn from
the frame: nearly all dark and empty, some faint blots at the right edge."""
with figure("An autoencoder's latent space", alt, columns=2, size=(9, 4.6)) as (left, right):
    for mark, rows in marked.items():
        colors = [scenes[i]["color"] for i in rows]
        left.scatter(*codes[rows].T.cpu(), 18, colors, marker=mark, edgecolors="#555", linewidth=0.4)
    left.plot(*frame, "k-")
    left.set(xlabel="first number", ylabel="second number", title="where the pictures are")
    right.imshow(to_pil(make_grid(autoencoder.decoder(plane), 9)))
    right.set_title("drawn from the frame, -2 to 2")
    right.set_axis_off()

# %% [markdown]
# Nearly nothing. (Marks: circles, squares, triangles; a plus for rings.) The heaps lie far apart, and the frame is
# mostly empty land. Nobody asked the encoder to put its pictures in any particular place, and the decoder was never
# trained between them. It can draw again, but it cannot draw.
#
# Two things are missing: the vectors should fill the space *without holes*, and we should know *where* they are, so that
# we can take one at random.
#
# ## 2 A cloud in place of a point
#
# Let the encoder answer with a small cloud: for each number of the latent vector a mean, and a standard deviation that
# says how far the number may stray. In training the decoder gets a random point of the cloud and must draw the picture
# all the same. Then the neighbourhood of each picture is no longer empty land. That is the idea of the **variational
# autoencoder**, VAE (Kingma and Welling, 2013).
#
# A standard deviation is positive; a network's output is any number. So the encoder gives the logarithm of the variance,
# the square of the standard deviation: $\mathrm{std} = e^{v/2}$, with $v$ the log-variance.
#
# How does a slope get through a random point? By rolling the dice first. The noise $n$ comes from $N(0, 1)$ and has nothing
# to do with the network; the point is then an ordinary formula of what the encoder said:
#
# $$z = \mathrm{mean} + e^{v/2} \cdot n$$
#
# This is the **reparametrisation trick**.
#
# **Predict.** The encoder says mean 1 and $v = \log 4$; the dice say $n = -0.5$. The cost is $(z - 3)^2$. What are $z$, the
# cost, and its slopes by mean and by $v$?
#
# <details><summary>Answer</summary>
#
# The standard deviation is 2, so $z = 1 - 2 \cdot 0.5 = 0$, and the cost 9. Its slope by $z$ is $2 (0 - 3) = -6$. When the
# mean grows, $z$ grows as much: slope -6. By $v$, $z$ has the slope $e^{v/2} n / 2 = -0.5$; so the cost has $-6 \cdot -0.5 =
# 3$. It says: this throw went the wrong way, less spread, please.
#
# </details>

# %% tags=["nbval-check-output"]
mean = torch.tensor([[1.0]], device=device, requires_grad=True)
log_variance = torch.tensor([[math.log(4)]], device=device, requires_grad=True)
noise = -0.5
point = mean + (log_variance / 2).exp() * noise
cost = ((point - 3) ** 2).sum()
slopes = torch.autograd.grad(cost, [mean, log_variance])
numbers = [round(number.item(), 2) for number in (point, cost, *slopes)]
print("point {}, cost {}, slopes {} and {}".format(*numbers))


# %% tags=["lib:vae.reparametrise", "nbval-check-output"]
def reparametrise(mean: Tensor, log_variance: Tensor, random: torch.Generator | None = None) -> Tensor:
    """A point of each cloud, mean + std * N(0, 1): two times (B, Z) -> (B, Z)."""
    noise = torch.randn(mean.shape, generator=random).to(mean)
    return mean + (log_variance / 2).exp() * noise


# %% [markdown]
# One throw is one opinion. What counts is the mean over many, and that can be computed: on average $(z - 3)^2$ is
# $(\mathrm{mean} - 3)^2 + \mathrm{variance} = 4 + 4$, with the slopes $2 (\mathrm{mean} - 3) = -4$ and, by $v$, the variance
# itself, 4.
#
# **Predict.** How many throws does it take until at least the signs are right: one, ten, a thousand?

# %% tags=["nbval-check-output"]
rows, random = [], torch.Generator().manual_seed(0)
for throws in (1, 10, 1000, 100_000):
    points = reparametrise(mean.expand(throws, 1), log_variance.expand(throws, 1), random)
    cost = ((points - 3) ** 2).mean()
    by_mean, by_v = torch.autograd.grad(cost, [mean, log_variance])
    rows.append({"throws": throws} | {"cost": f"{cost.item():.1f}", "by mean": f"{by_mean.item():.1f}"})
    rows[-1]["by log-variance"] = f"{by_v.item():.1f}"
table(rows)
cloud = Normal(mean, (log_variance / 2).exp())
print("PyTorch's sample() carries slopes:", cloud.sample().requires_grad)
print("PyTorch's rsample() carries slopes:", cloud.rsample().requires_grad)

# %% [markdown]
# One throw is not enough: its slope by the mean even has the wrong sign. In training each picture gets one throw a step,
# and the steps do the averaging. PyTorch calls the trick `rsample`, r for reparametrised; through its plain `sample` no
# slope gets back.
#
# ## 3 The price of being somewhere
#
# Nothing keeps the encoder from cheating: a standard deviation of nearly 0, and the clouds are points again, as far
# apart as before. So clouds get a price. All of them should be near *one* round cloud at 0 with standard deviation 1,
# $N(0, 1)$ in each number: that is where we shall take random points from.
#
# The price is the **KL divergence** (Kullback and Leibler, 1951): over the points $z$ of the cloud $q$, the mean of
# $\log q(z) - \log p(z)$, where $p$ is $N(0, 1)$. It tells by how many nats someone who expected $p$ is more surprised,
# on average, than someone who expected $q$. For a normal $q$ the mean can be worked out:
#
# $$\mathrm{KL} = \tfrac12 \left( \mathrm{mean}^2 + \mathrm{variance} - 1 - \log \mathrm{variance} \right)$$
#
# **Predict.** What is it for mean 1 and variance 4? For mean 0 and variance 1? ($\log 4 = 1.386$)
#
# <details><summary>Answer</summary>
#
# (1 + 4 - 1 - 1.386) / 2 = 1.307; and (0 + 1 - 1 - 0) / 2 = 0: what agrees with the expectation is free.
#
# </details>
#
# The loop below does not trust the formula. It cuts the line into pieces of 0.01 and adds up what each contributes.


# %% tags=["nbval-check-output"]
def bell(x, mean, std):
    return math.exp(-(((x - mean) / std) ** 2) / 2) / (std * math.sqrt(math.tau))


total, width = 0.0, 0.01
for piece in range(-2000, 2000):
    x = (piece + 0.5) * width
    q, p = bell(x, mean=1, std=2), bell(x, mean=0, std=1)
    total += q * math.log(q / p) * width
print(f"{total:.4f}")


# %% tags=["lib:vae.kl_to_standard_normal", "nbval-check-output"]
def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of each cloud from N(0, 1): two times (B, Z) -> (B,) in nats."""
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


# %% [markdown]
# Numbers of a latent vector are independent, so their prices add up. Is it PyTorch's? We compare clouds of 32 numbers,
# with the slopes, and log-variances up to ±20.

# %% tags=["nbval-check-output"]
means = (3 * torch.randn(64, 32, dtype=torch.float64)).to(device).requires_grad_()
log_variances = torch.linspace(-20, 20, 64 * 32, dtype=torch.float64).view(64, 32).to(device).requires_grad_()
ours = kl_to_standard_normal(means, log_variances)
theirs = kl_divergence(Normal(means, (log_variances / 2).exp()), Normal(torch.zeros_like(means), 1.0)).sum(1)
slopes = [torch.autograd.grad(kl.sum(), [means, log_variances]) for kl in (ours, theirs)]
by_hand = kl_to_standard_normal(mean, log_variance)[0], torch.tensor(total)
compare(
    {"one number, by the loop": by_hand, "64 clouds": (ours, theirs)}
    | {f"slope by {name}": pair for name, *pair in zip(("mean", "log-variance"), *slopes, strict=True)}
)

# %% tags=["nbval-check-output"]
away, spread = torch.linspace(-3, 3, 121)[:, None], torch.linspace(0.02, 3, 150)[:, None]
alt = """Two panels. Left: KL against the mean from -3 to 3, a parabola, 0 at 0 and 4.5 at the ends. Right: KL
against the standard deviation: 3.4 near 0, falling to 0 at 1, rising to 2.9 at 3."""
with figure("What one number of the latent vector costs", alt, columns=2) as (left, right):
    left.plot(away, kl_to_standard_normal(away, torch.zeros_like(away)))
    left.set(xlabel="mean (standard deviation 1)", ylabel="KL in nats", ylim=(0, 5))
    right.plot(spread, kl_to_standard_normal(torch.zeros_like(spread), 2 * spread.log()))
    right.set(xlabel="standard deviation (mean 0)", ylabel="KL in nats", ylim=(0, 5))

# %% [markdown]
# To be far off is dear, it grows with the square. To be *precise* is dear too: at a standard deviation of 0.02 a number
# costs 3.4 nats even in the middle, and on the way to 0 the price grows beyond all bounds, by the logarithm. So the points
# of an autoencoder would cost infinitely much. A number with mean 0 and standard deviation 1 costs nothing, and says
# nothing.
#
# ## 4 The price of drawing it wrong
#
# The second part of the loss says how well the picture was drawn. To add it to nats it must be in nats, minus the
# logarithm of a probability (lesson 03). The decoder's picture is taken for the middle of a bell, in every pixel, with one
# standard deviation `pixel_std` for all; the cost is minus the logarithm of the bell's height at the true pixel:
#
# $$-\log p(\mathrm{pixel}) = \frac12 \left(\frac{\mathrm{pixel} - \mathrm{drawn}}{\mathrm{std}}\right)^2
#   + \log\left(\mathrm{std} \sqrt{2 \pi}\right)$$
#
# **Predict.** `pixel_std` is 0.2, so the last term is $\log 0.501 = -0.691$. What does a pixel cost that is off by 0.2? One
# that is right? One that is off by 1?
#
# <details><summary>Answer</summary>
#
# 0.5 - 0.691 = -0.191; -0.691; and 12.5 - 0.691 = 11.809. A cost below 0 is no error: the height of a narrow bell is more
# than 1, it is a density, not a probability.
#
# </details>


# %% tags=["lib:vae.gaussian_negative_log_likelihood", "nbval-check-output"]
def gaussian_negative_log_likelihood(images: Tensor, predicted: Tensor, std: float) -> Tensor:
    """-log of the density of N(predicted, std^2), over all pixels: two times (B, 3, S, S) -> (B,) in nats."""
    require_same_shape(images, predicted)
    squared = ((images - predicted) / std).square()  # (B, 3, S, S)
    return (squared / 2 + math.log(std * math.sqrt(math.tau))).flatten(1).sum(1)


# %% tags=["nbval-check-output"]
pixel, off = torch.zeros(3, 1, 1, 1, device=device), torch.tensor([0.2, 0.0, 1.0], device=device)
costs = gaussian_negative_log_likelihood(pixel, off.view(3, 1, 1, 1), std=0.2)
print("three pixels:", [round(cost, 3) for cost in costs.tolist()])
some, others = images[:32].double(), images[32:64].double().requires_grad_()
ours = gaussian_negative_log_likelihood(some, others, 0.2)
theirs = -Normal(others, 0.2).log_prob(some).flatten(1).sum(1)
slopes = [torch.autograd.grad(cost.sum(), others)[0] for cost in (ours, theirs)]
compare({"32 pictures": (ours, theirs), "slopes": slopes})

# %% [markdown]
# Apart from a constant it is the squared error, summed up and divided by $2\,\mathrm{std}^2$. Who minimises a squared error
# assumes a bell around each pixel, knowingly or not. Remember that for section 8.
#
# ## 5 The loss, and what it promises
#
# Both prices together:
#
# $$\underbrace{-\log p(\mathrm{picture} \mid z)}_{\text{reconstruction}} \; + \;
#   \underbrace{\mathrm{KL}(\mathrm{cloud} \,\|\, N(0, 1))}_{\text{which } z}$$
#
# This is what it costs to send someone a picture in two letters: first which latent vector, then what the decoder got
# wrong. `VAE` has the encoder, with two numbers out for each latent one, the decoder, and this loss; `VAEConfig` holds the
# sizes. Its `elbo_parts` returns both prices as `ElboParts`, and `loss` the mean of their sum. Read them in the library;
# here we do the same step by step.

# %% tags=["nbval-check-output"]
from course_lib.vae import VAE, VAEConfig


def new_vae():
    torch.manual_seed(0)
    return VAE(VAEConfig(image_size=16, width=16, latent_size=2, pixel_std=1.0)).to(device)


vae, some = new_vae(), images[:8]
mean, log_variance = vae.encode(some)  # (8, 2) each
drawn = vae.decode(reparametrise(mean, log_variance, torch.Generator().manual_seed(1)))  # (8, 3, 16, 16)
reconstruction = gaussian_negative_log_likelihood(some, drawn, vae.config.pixel_std)
kl = kl_to_standard_normal(mean, log_variance)
parts = vae.elbo_parts(some, torch.Generator().manual_seed(1))
loss = vae.loss(some, random=torch.Generator().manual_seed(1))
mine = {"reconstruction": (reconstruction, parts.reconstruction), "KL": (kl, parts.kl)}
compare(mine | {"loss": ((reconstruction + kl).mean(), loss)})

# %% [markdown]
# Now train it, on the same pictures, with the same number of steps as the autoencoder.
#
# **Predict.** Which part will fall, and which will rise?

# %%
history, chance = [], torch.Generator().manual_seed(2)


def cost(model, pictures, beta=1.0):
    parts = model.elbo_parts(pictures, chance)
    history.append([part.mean().item() for part in parts])
    return (parts.reconstruction + beta * parts.kl).mean()


train(vae, cost)
reconstruction, kl = torch.tensor(history).T
alt = """Two panels over 500 steps, nats a picture. Left: reconstruction falls from 990 to 750 in 30 steps,
then slowly to 716. Right: KL leaps from 6 to 14, swings between 2 and 8, and is at 2.8 after 100 steps."""
with figure("The two parts of the loss", alt, columns=2) as panels:
    for panel, part, name in zip(panels, (reconstruction, kl), ("reconstruction", "KL"), strict=True):
        panel.plot(part)
        panel.set(xlabel="step", ylabel=f"{name}, nats a picture")
print(f"last 50 steps: reconstruction {reconstruction[-50:].mean():.1f}, KL {kl[-50:].mean():.2f}")
assert reconstruction[-50:].mean() < reconstruction[:10].mean() - 100 and 1 < kl[-50:].mean() < 6

# %% [markdown]
# Of the 716 nats, 768 numbers times $\log \sqrt{2 \pi} = 0.919$ make 706, which no drawing can save; `pixel_std` is 1
# here, which lets the clouds be wide. The KL leaps first, while the encoder tries out its space. Then it settles at 2.8.
# To name one of 19 kinds takes $\log 19 = 2.9$ nats, so that is about what the clouds tell.
#
# **Predict.** The plane again, from -2 to 2. What is different this time?

# %%
with torch.no_grad():
    mean, log_variance = vae.encode(images)
    points, drawn = reparametrise(mean, log_variance, chance).cpu(), vae.decode(plane)
alt = """Left: points of the clouds, in their colours, in the left and the middle of the frame from -2 to 2,
where neighbours overlap; its right is empty. Right: 81 pictures drawn from the frame, changing little by
little: rings above, discs, triangles below; yellow at the left, grey, blue; at the upper right noise."""
with figure("A variational autoencoder's latent space", alt, columns=2, size=(9, 4.6)) as (left, right):
    for mark, rows in marked.items():
        colors = [scenes[i]["color"] for i in rows]
        left.scatter(*points[rows].T, 18, colors, marker=mark, edgecolors="#555", linewidth=0.4)
    left.plot(*frame, "k-")
    left.set(xlabel="first number", ylabel="second number", title="points of the clouds")
    right.imshow(to_pil(make_grid(drawn, 9)))
    right.set_title("drawn from the frame, -2 to 2")
    right.set_axis_off()

# %% [markdown]
# Now it is a map. Yellow passes to orange, to grey, to blue, rings to discs to triangles, and what lies between is drawn
# as something between. One part is still empty, at the right: the KL pulls *each* cloud to the middle, but nothing makes
# sure that all of them *together* fill $N(0, 1)$ (Rosca and others, 2018). We shall meet such holes again.
#
# ### The promise
#
# The sum of the two parts is called the negative **ELBO**, evidence lower bound, because of a theorem: it is never less than
# $-\log p(\mathrm{picture})$, the cost of the picture under the model as a whole, over *all* latent vectors:
#
# $$p(\mathrm{picture}) = \int p(\mathrm{picture} \mid z)\; N(z; 0, 1)\, dz$$
#
# Usually nobody can compute this integral. In a plane we can: take 14,641 points, draw from each, add up.

# %%
fine = torch.linspace(-3, 3, 121)
points = torch.cartesian_prod(fine, fine).to(device)  # (14641, 2), each for a small square
prior = Normal(0.0, 1.0).log_prob(points).sum(1) + 2 * math.log(6 / 120)  # log of its share of N(0, 1)
rows = []
with torch.no_grad():
    drawn = torch.cat([vae.decode(some) for some in points.split(2000)])
    for name, picture in zip(kinds[:4], images[:4], strict=True):
        given = -gaussian_negative_log_likelihood(picture.expand_as(drawn), drawn, vae.config.pixel_std)
        true = -(given + prior).logsumexp(0)
        bound = sum(part.mean() for part in vae.elbo_parts(picture.expand(2000, -1, -1, -1), chance))
        rows.append({"picture": name, "-log p, summed up": f"{true:.2f}", "the two parts": f"{bound:.2f}"})
        rows[-1]["gap"] = f"{bound - true:.2f}"
        assert bound > true - 0.05
table(rows)

# %% [markdown]
# It holds, and the bound is close: 0.1 to 0.2 of more than 700 nats. The gap is the KL between the cloud, which has to be
# a bell, and the true answer to "which $z$ could have drawn this?", which need not be one.
#
# ## 6 The balance
#
# Nothing says that the two parts must weigh the same: $\text{reconstruction} + \beta \cdot \mathrm{KL}$ with another $\beta$
# is the **beta-VAE** (Higgins and others, 2017). (`pixel_std` does the same: twice as large makes reconstruction count a
# quarter.) We train twice more.
#
# **Predict.** What happens to the clouds when $\beta$ is 10? And what does the decoder draw when it is 50?

# %%
models = {1: vae} | {beta: train(new_vae(), partial(cost, beta=beta)) for beta in (10, 50)}


def shares(model, points):  # how much each training picture has to say at each point: (P, 2) -> (P, N)
    mean, log_variance = model.encode(images)
    clouds = Normal(mean, (log_variance / 2).exp())
    return clouds.log_prob(points[:, None]).sum(2).softmax(1)


rows, points = [], {}
with torch.no_grad():
    for beta, model in models.items():
        mean, log_variance = model.encode(images)
        points[beta] = reparametrise(mean, log_variance, torch.Generator().manual_seed(4))
        crowd = 1 / shares(model, points[beta]).square().sum(1)
        row = {"beta": beta, "KL": kl_to_standard_normal(mean, log_variance).mean()}
        row |= {"std of a cloud": (log_variance / 2).exp().mean(), "pictures at a point": crowd.mean()}
        rows.append(row | {"squared error": mse_loss(model.reconstruct(images), images)})
table(rows)

# %% [markdown]
# The dearer the KL, the wider the clouds: at 10 their standard deviation is 0.8, nearly that of all of them together. At
# 50 the KL is 0: every cloud *is* $N(0, 1)$, the encoder says nothing, and the error is about that of the mean picture. That is
# **posterior collapse**, the VAE's most frequent failure.
#
# The column "pictures at a point" asks: if the decoder is given this point, whose cloud may it be from? Two pictures with
# equal shares count as 2. (It is one over the sum of the squared shares.) At $\beta = 1$ it may be about 60 pictures, at 10
# more than 300. But the decoder may draw only *one* picture there, and it is judged by the squared error.
#
# **Predict.** Which picture costs least at a point that belongs to 300 of them?

# %%
with torch.no_grad():
    drawn = {beta: model.decode(points[beta]) for beta, model in models.items()}
    means = {beta: shares(m, points[beta]) @ images.flatten(1) for beta, m in models.items()}  # (N, 768)
means = {beta: mean.view_as(images) for beta, mean in means.items()}
alt = """Two rows of eight blots without a clear shape, in brown, orange and greyish blue. In each column both
rows have the same blot in the same colour; the upper row is grainy."""
title = "Beta 10: drawn by the decoder, and below it computed as a mean of training pictures"
pictures(torch.cat([drawn[10][:8], means[10][:8]]), title=title, columns=8, alt=alt)
assert rows[0]["KL"] > rows[1]["KL"] > rows[2]["KL"] and rows[2]["pictures at a point"] > 400
for beta in models:
    print(f"beta {beta}: squared difference {mse_loss(drawn[beta], means[beta]):.4f}")

# %% [markdown]
# The mean of them all, weighted by their shares: the lower row is computed from the training pictures, without any
# decoder. This is where the VAE's blur comes from. The upper row comes near it, down to the graininess of a short
# training. (At $\beta = 1$ the two differ more: there the best colour changes within short distances, and our small
# decoder has not learned all the turns.)
#
# ## 7 All shapes
#
# Now the whole data set, at 32 x 32: eight shapes, eight colours, five positions, two sizes, three backgrounds, and ten
# latent numbers. That takes some minutes, so it was done before, by `course train --preset vae-shapes-32`.
# `VAE.from_pretrained` loads the result. We look at scenes that were held out.

# %%
from course_lib.image_metrics import ssim

vae = VAE.from_pretrained("vae-shapes-32", device)
real = CaptionedShapes("heldout", image_size=32, length=500).images(range(500), device)
again = vae.reconstruct(real)
alt = """Two rows of eight. Above sharp shapes, below the same scenes: background, position, colour and size
are right, the edges soft; all shapes have become discs except the ring, which kept its hole."""
title = "Held-out pictures, and below them their reconstructions"
pictures(torch.cat([real[:8], again[:8]]), title=title, columns=8, alt=alt)
print(f"{vae.config.latent_size} numbers for {real[0].numel()}: squared error {mse_loss(again, real):.4f}")
assert mse_loss(again, real) < 0.03
alt = """24 pictures that nobody drew before. About a third show one soft blot on an even ground; the others
have two faint blots in different places, nearly nothing, or a mottled ground of mixed colours."""
pictures(vae.sample(24, seed=2), title="Drawn from nothing but chance", columns=8, alt=alt)

# %% [markdown]
# Soft, but pictures: ten numbers from $N(0, 1)$ and one `decode` each, that is all `sample` does.
#
# Some are ghosts: two half objects in two places, or a ground between navy and cream. Those vectors lie in the empty land
# of section 5. Five positions are five separate groups of pictures, and with ten numbers there is much space between.
#
# ### On the way from one picture to another
#
# `vae.interpolate` encodes two pictures, walks in a straight line from one vector to the other, and draws at each step.
#
# **Predict.** From a yellow ring to a cyan crescent, both large and at the bottom right: what is halfway, in the latent
# space? And if one mixes the pixels? And halfway from the top left to the bottom left?

# %%
first, last = real[11], real[16]
share = torch.linspace(0, 1, 8, device=device).view(8, 1, 1, 1)
ways = [vae.interpolate(first, last), first + share * (last - first), vae.interpolate(real[3], real[2])]
alt = """Three rows of eight. First: a ring turns from yellow over red, purple and blue to cyan; a gap opens
at its right until it is a crescent. Second: the ring pales while the crescent appears over it. Third: a
green disc at the top left pales, a yellow one at the bottom left appears; halfway both are faint."""
title = "Through the latent space; through the pixels; from one position to another"
pictures(torch.cat(ways), title=title, columns=8, alt=alt)

# %% [markdown]
# In the latent space it is always *one* object. It goes round the circle of colours, from yellow (drawn a little orange)
# by red, purple and blue to cyan, and a gap opens in the ring. Nobody taught the network that order; it laid similar
# pictures side by side. The pixels give two objects on top of each other.
#
# But the third way fades, as pixels do: in the data no object stands between two positions, so the VAE has learned no
# such picture.
#
# ## 8 Why the edges are soft
#
# Lesson 03 said: of several right answers the squared error wants the mean. Here is what that looks like. Take a caption
# that says only half, and average *all* pictures that fit it.
#
# **Predict.** "A red star", position, size and background open. What is the mean of all its pictures? Is its squared error
# to them smaller or larger than that of one of them?

# %%
from course_lib.data.captions import describe

every = CaptionedShapes("all", image_size=32, length=20_000)
told = {"shape": "star", "color": "red", "position": "top left", "size": "large", "background": "cream"}
rows, blurred = [], []
for said in range(2, 6):
    half = dict(list(told.items())[:said])
    fits = every.images([i for i in range(len(every)) if half.items() <= every.attributes(i).items()], device)
    mean = fits.mean(0)
    blurred.append(mean)
    pairs = torch.cdist(fits.flatten(1), fits.flatten(1)).square().mean() / mean.numel()  # each with each
    row = {"caption": describe(half), "pictures": len(fits)}
    errors = {"error of the mean": mse_loss(fits, mean.expand_as(fits)), "error of one of them": pairs}
    rows.append(row | errors)
table(rows)

# %%
alt = """Four pictures. A red star: five faint reddish stars on grey, in all five positions. With the
position: one red star with soft edges, on grey. With the size: a little sharper. With the background, cream:
sharper still."""
captions = [row["caption"] for row in rows]
pictures(torch.stack(blurred), captions, "The mean of all pictures that fit", alt=alt)

# %% [markdown]
# Five ghosts on grey; and the grey is a mean as well, of navy, gray and cream. With each word that is said, the mean gets
# sharper. That the position is known saves only 2 % of the error, the background then 95 %: what covers many pixels
# counts.
#
# Look at the last column: a sharp picture that fits costs, on average, *twice* as much as the blurred mean, which costs
# the variance. A network trained by the squared error loses by drawing a sharp star.
#
# A popular article trains its generator, among other things, by the squared error to "the" real picture of a caption.
# There is no such picture, and this is what the error would teach (lesson 17).
#
# ## 9 Beside a GAN
#
# The GAN of the next lesson is not judged by the squared error. Here is one that was trained with the same data, if almost
# three times as long (`course train --preset gan-shapes-32`). How it works must wait; how sharp is it?
#
# That needs a measure. A first idea: add up how much neighbouring pixels differ.
#
# **Predict.** A row of pixels with a sharp edge: 0, 0, 0, 1, 1, 1. And a blurred one: 0, 0, 1/3, 2/3, 1, 1. What is the sum
# of the differences of neighbours, in each? The largest?

# %% tags=["nbval-check-output"]
sharp, soft = torch.tensor([[0.0, 0, 0, 1, 1, 1], [0, 0, 1 / 3, 2 / 3, 1, 1]], device=device)
for name, row in (("sharp", sharp), ("soft", soft)):
    steps = row.diff().abs()
    print(f"{name}: sum {steps.sum().item():.2f}, largest {steps.max().item():.2f}")


def steepest_edge(images):  # the largest difference of neighbours in each picture: (B, 3, H, W) -> (B,)
    across, down = (images.diff(dim=dim).abs().flatten(1).amax(1) for dim in (3, 2))
    return torch.maximum(across, down)


# %%
from course_lib.gan import DCGANGenerator

gan = DCGANGenerator.from_pretrained("gan-shapes-32", device)
noise = torch.randn(500, gan.z_size, generator=torch.Generator().manual_seed(1)).to(device)
sets = {"real": real, "VAE, reconstructed": again, "VAE, drawn": vae.sample(500), "GAN, drawn": gan(noise)}
rows = []
for name, drawn in sets.items():
    row = {"pictures": name, "steepest edge": f"{steepest_edge(drawn).mean():.2f}"}
    paired = name in ("real", "VAE, reconstructed")
    row |= {"SSIM": f"{ssim(drawn, real):.2f}" if paired else "-"}
    rows.append(row | {"squared error": f"{mse_loss(drawn, real):.4f}" if paired else "-"})
table(rows)

shown = torch.cat([drawn[:8] for name, drawn in sets.items() if name != "VAE, reconstructed"])
alt = """Three rows of eight. Real: sharp shapes. VAE: soft blots, some on mottled ground. GAN: stars, discs
and a heart with clear edges, all under a fine checkerboard; one picture has two objects."""
pictures(shown, title="Real, drawn by the VAE, drawn by the GAN", columns=8, alt=alt)

# %% [markdown]
# Black to white would be 2. The GAN's edges have nine tenths of the real ones' steepness, the VAE's not half of it. (A sum
# of differences could not see that, as you found above.) SSIM, the similarity of two pictures window by window, is 1 for
# equal ones; lesson 15 builds it. It and the squared error need an original to compare with, which only reconstructions
# have.
#
# Neither draws well yet. The GAN's shapes are crisp, but some are two, or of three colours at once. The VAE is soft, but it
# can do what the GAN cannot: encode a given picture, and tell for each what it costs.
#
# In the explorer you walk through both latent spaces. For the VAE the axes are not the ten numbers themselves but the
# directions in which the vectors of 1,920 pictures spread most (their principal components). **Predict.** Move direction 1
# of the green star from -2 to 2: what will change, and will anything else stay the same?

# %% tags=["explorer"]
from course_lib.widgets import latent_walk

latent_walk()

# %% [markdown]
# Mostly the ground, from navy over grey to cream, and more or less so for the other seven pictures; but the size changes
# too. No direction means just one thing: nobody asked for that. Colours flow into each other, positions do not: the object fades
# here and appears there. The GAN does the same between its noises, with harder edges; and a walk of its own can only begin
# at noise, for it has no encoder.
#
# ## What changed in the library
#
# The room `vae.py` is furnished: `VAE`, with `reconstruct`, `sample`, `interpolate` and `from_pretrained`. It does not
# listen to words; lesson 11 teaches that to a generator.
#
# ## Three questions
#
# 1. Leave out the dice: the decoder always gets the cloud's mean, the KL stays in the loss. What becomes of the clouds?
#
# <details><summary>Answer</summary>
#
# Their spread no longer makes any drawing worse, so the KL sets it to 1, for free. The means stay apart, as far as the
# drawing needs. The decoder sees points only, and the holes are back.
#
# </details>
#
# 2. Which `pixel_std` makes the reconstruction cost least, if the mean squared error is $e$?
#
# <details><summary>Answer</summary>
#
# A number costs $e / (2\,\mathrm{std}^2) + \log \mathrm{std}$ and a constant. The slope by std, $-e / \mathrm{std}^3 + 1 /
# \mathrm{std}$, is 0 at $\mathrm{std}^2 = e$: the error itself says how wide the bell should be. For the
# VAE of section 7 the error is 0.015, so 0.12 would be best; ours has 1, on purpose: a KL that weighs more leaves fewer
# holes.
#
# </details>
#
# 3. For a held-out picture the VAE tells a number, the ELBO. A GAN tells none. What can one do with it?
#
# <details><summary>Answer</summary>
#
# Compare two VAEs on data that neither has seen; notice when one begins to learn its training pictures by heart; find
# pictures that are unlike the data, for they cost more. For a GAN all this needs judges from outside (lesson 15).
#
# </details>
#
# ## Papers
#
# - Diederik Kingma and Max Welling (2013), *Auto-Encoding Variational Bayes*: the VAE, the trick (section 2.4), the KL
#   (appendix B). [arXiv:1312.6114](https://arxiv.org/abs/1312.6114)
# - Danilo Rezende, Shakir Mohamed and Daan Wierstra (2014), *Stochastic Backpropagation and Approximate Inference in Deep
#   Generative Models*: the same idea, found independently. [arXiv:1401.4082](https://arxiv.org/abs/1401.4082)
# - Irina Higgins and others (2017), *beta-VAE*. [openreview:Sy2fzU9gl](https://openreview.net/forum?id=Sy2fzU9gl)
# - Mihaela Rosca, Balaji Lakshminarayanan and Shakir Mohamed (2018), *Distribution Matching in Variational Inference*: the
#   holes between the clouds. [arXiv:1802.06847](https://arxiv.org/abs/1802.06847)
# - Anders Larsen and others (2016), *Autoencoding beyond pixels using a learned similarity metric*: a VAE whose error is
#   measured by a GAN's discriminator. [arXiv:1512.09300](https://arxiv.org/abs/1512.09300)
# - Zhou Wang and others (2004), *Image Quality Assessment: From Error Visibility to Structural Similarity*: SSIM.
#   [doi:10.1109/TIP.2003.819861](https://doi.org/10.1109/TIP.2003.819861)
# - Solomon Kullback and Richard Leibler (1951), *On Information and Sufficiency*.
#   [doi:10.1214/aoms/1177729694](https://doi.org/10.1214/aoms/1177729694)
#
# Next: lesson 10 replaces the squared error by a second network, and the edges become sharp.
