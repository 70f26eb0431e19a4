# %% [markdown]
# # Exercises 09 · A first generator
#
# Five exercises to lesson 09, 90 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | Many points of each cloud | ★★☆☆☆ | 15 | 3 |
# | 2 | From one cloud to another | ★★★☆☆ | 20 | 4 |
# | 3 | Find the bug: one picture for all | ★★☆☆☆ | 15 | 3 |
# | 4 | A decoder that needs no training | ★★★★☆ | 25 | 4 |
# | 5 | In your own words: three values of beta | ★★☆☆☆ | 15 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
from functools import partial

import torch
from torch import Tensor
from torch.nn import Flatten, Linear, ReLU, Sequential, Tanh, Unflatten

from course_lib.checks.vae import check_best_drawing, check_kl_between, check_points_of_clouds, check_vae_loss
from course_lib.data import CaptionedShapes
from course_lib.fit import fit, warmup_cosine
from course_lib.images import make_grid, to_pil
from course_lib.lesson import figure, pictures, setup, table
from course_lib.losses import mse_loss
from course_lib.optim import Adam
from course_lib.vae import VAE, VAEConfig, kl_to_standard_normal, reparametrise

device = setup()

# %% [markdown]
# ## 1 Many points of each cloud
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** One throw is one opinion, as the lesson saw: its slope can even have the wrong sign. Several throws for each
# picture cost only the decoder's time, because the encoder has to look just once.
#
# **Write** `points_of_clouds`. It gets what the last layer of the encoder puts out, not yet cut into its two halves,
# and noise that was thrown before. Slopes must reach both halves.
#
# **Expected.** The code of one picture is 1, -2, $\log 4$, 0: two means, then two log-variances. Noise of 0, 0 gives the
# point 1, -2; noise of 1, 1 gives 3, -1; noise of -0.5, 2 gives 0, 0.
#
# <details><summary>Hint 1: two halves</summary>
#
# `chunk(2, dim=1)` cuts a tensor (B, 2Z) into two of (B, Z).
#
# </details>
#
# <details><summary>Hint 2: how far</summary>
#
# The noise has the standard deviation 1, and the cloud wants another one. From the logarithm of the *variance* to the
# standard deviation there are two steps: half of it, then `exp`.
#
# </details>
#
# <details><summary>Hint 3: K throws</summary>
#
# Broadcasting compares shapes from the right: (B, Z) meets each of the K layers of (K, B, Z) by itself. No loop is
# needed.
#
# </details>


# %% tags=["solve:points-of-clouds"]
def points_of_clouds(code: Tensor, noise: Tensor) -> Tensor:
    """K points of each picture's cloud.

    Args:
        code: (B, 2Z) what the encoder says: in each row first Z means, then Z log-variances.
        noise: (K, B, Z) from N(0, 1), K throws for each picture.
    Returns:
        (K, B, Z).
    """
    ### BEGIN SOLUTION
    mean, log_variance = code.chunk(2, dim=1)  # (B, Z) each
    return mean + (log_variance / 2).exp() * noise  # (B, Z) and (K, B, Z) -> (K, B, Z)
    ### END SOLUTION


# %% tags=["check:points-of-clouds:3"]
check_points_of_clouds(points_of_clouds)
### BEGIN HIDDEN TESTS
check_points_of_clouds(points_of_clouds, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** With K points the bound of section 5 can be made tighter: $-\log$ of the *mean* over the points of
# $p(\mathrm{picture} \mid z)\, p(z) / q(z)$ (Burda and others 2015, *importance weighted autoencoders*,
# arXiv:1509.00519). Compute it with `logsumexp` for a VAE with two latent numbers and K = 1, 10, 100. Does it come down
# to the lesson's sum over 14,641 points?
#
# ## 2 From one cloud to another
#
# ★★★☆☆ · 20 minutes · 4 points
#
# **Why.** Nobody says that all clouds must be near $N(0, 1)$. A VAE that draws from captions can have a place for each
# caption, and then the price of a cloud is its KL divergence from the cloud of *its caption*. The diffusion models of
# lesson 16 are built on the same price.
#
# **Write** `kl_between` for clouds whose numbers are independent. Do not use `torch.distributions`, and do not sample.
#
# **Expected.** The cloud with mean 1 and variance 4 costs 1.307 nats against $N(0, 1)$, as in the lesson. The other way
# round, $N(0, 1)$ against mean 1 and variance 4, it is 0.443: a divergence is no distance. Two equal clouds: 0.
#
# <details><summary>Hint 1: change the unit</summary>
#
# The divergence stays the same when both clouds are shifted and stretched together. Shift and stretch them until the
# second one is $N(0, 1)$. Where is the first one then?
#
# </details>
#
# <details><summary>Hint 2: measured by the second cloud</summary>
#
# Its mean lies `(mean - other_mean)` away, in steps of the other standard deviation. Its variance is divided by the
# other variance; in logarithms that is a difference.
#
# </details>
#
# <details><summary>Hint 3: the rest</summary>
#
# Put the new mean and the new log-variance into the lesson's formula. The prices of the Z numbers add up; every picture
# keeps a price of its own.
#
# </details>


# %% tags=["solve:kl-between"]
def kl_between(mean: Tensor, log_variance: Tensor, other_mean: Tensor, other_log_variance: Tensor) -> Tensor:
    """KL divergence of each cloud N(mean, variance) from its partner N(other_mean, other_variance).

    Args:
        mean, log_variance: (B, Z), the clouds whose points are drawn.
        other_mean, other_log_variance: (B, Z), what was expected of them; log-variances from -20 to 20.
    Returns:
        (B,) in nats, 0 or more: the sum over the Z numbers.
    """
    ### BEGIN SOLUTION
    distance = (mean - other_mean) / (other_log_variance / 2).exp()
    log_ratio = log_variance - other_log_variance
    return (distance.square() + log_ratio.exp() - 1 - log_ratio).sum(1) / 2
    ### END SOLUTION


# %% tags=["check:kl-between:4"]
check_kl_between(kl_between)
### BEGIN HIDDEN TESTS
check_kl_between(kl_between, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** Fit one bell $q$ to the two heaps of a density $p$, half $N(-2, 0.25)$ and half $N(2, 0.25)$: once
# by the least $\mathrm{KL}(q \,\|\, p)$, once by the least $\mathrm{KL}(p \,\|\, q)$. Add up over a fine grid, as the
# lesson did, and let Adam find mean and log-variance. One of them covers both heaps, the other picks one. Which one
# reminds you of a VAE's blur?
#
# ## 3 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** This is the bug that most people meet in their first VAE. It raises no error, and the loss falls.
#
# First a VAE that learns in a second: two linear layers on each side, enough for large shapes in the middle of a
# picture of 16 x 16 pixels. Read the two functions; exercises 4 and 5 use them too.

# %%
data = CaptionedShapes("train", image_size=16, grammar="small", length=4000)
scenes = [data.attributes(i) for i in range(len(data))]
kept = [i for i, scene in enumerate(scenes) if (scene["position"], scene["size"]) == ("center", "large")]
images = data.images(kept, device)


def new_vae(latent_size: int, pixel_std: float) -> VAE:
    torch.manual_seed(0)
    vae = VAE(VAEConfig(image_size=16, latent_size=latent_size, pixel_std=pixel_std))
    vae.encoder = Sequential(Flatten(), Linear(768, 256), ReLU(), Linear(256, 2 * latent_size))
    vae.decoder = Sequential(
        Linear(latent_size, 256), ReLU(), Linear(256, 768), Tanh(), Unflatten(1, (3, 16, 16))
    )
    return vae.to(device)


def train(vae: VAE, cost, steps: int = 250) -> VAE:
    random = torch.Generator().manual_seed(0)

    def batch(step):
        return (images[torch.randint(len(images), (64,), generator=random)],)

    fit(vae, batch, cost, Adam(vae.parameters()), steps, learning_rate=warmup_cosine(5e-3, steps, 15))
    return vae.eval()


# %% [markdown]
# And this is the loss with the bug, and what it leads to with clouds of 8 numbers and a `pixel_std` of 0.5:


# %%
def mistaken_loss(
    images: Tensor, predicted: Tensor, mean: Tensor, log_variance: Tensor, pixel_std: float
) -> Tensor:
    error = ((images - predicted) / pixel_std).square() / 2  # (B, 3, S, S)
    kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2  # (B, Z)
    return error.mean() + kl.sum(1).mean()


def cost_with(loss):
    """A loss of five arguments as a loss of a model and its batch."""

    def cost(model, some):
        mean, log_variance = model.encode(some)
        predicted = model.decode(reparametrise(mean, log_variance))
        return loss(some, predicted, mean, log_variance, model.config.pixel_std)

    return cost


@torch.no_grad()
def examine(name: str, vae: VAE) -> dict[str, object]:
    mean, log_variance = vae.encode(images)
    row = {"VAE": name, "squared error": mse_loss(vae.reconstruct(images), images)}
    return row | {
        "KL": kl_to_standard_normal(mean, log_variance).mean(),
        "std of a cloud": (log_variance / 2).exp().mean(),
    }


ill = train(new_vae(8, 0.5), cost_with(mistaken_loss))
table([examine("with mistaken_loss", ill)])
print(f"squared error of the mean picture: {images.var(0, correction=0).mean():.4f}")
alt = """Two rows of eight. Above coloured squares, triangles and rings on navy;
below the same faint blot, eight times."""
pictures(
    torch.cat([images[:8], ill.reconstruct(images[:8])]),
    title="Pictures and their reconstructions",
    columns=8,
    alt=alt,
)

# %% [markdown]
# **Find** what is wrong, and **write** the loss as it should be: the mean over the batch of what one picture costs, in
# nats. Leave the term $\log(\mathrm{std} \sqrt{2 \pi})$ of the lesson out; it is the same for every drawing.
#
# **Expected.** Four pictures of 3 x 2 x 6 numbers, each off by 0.5, with a `pixel_std` of 0.5 and clouds that are
# $N(0, 1)$: each costs 36 times 0.5, so the loss is 18. With two means of 1 in every cloud it is 19.
#
# <details><summary>Hint 1: read the table</summary>
#
# A KL of 0 and clouds with a standard deviation of 1: the encoder says nothing. It behaves as if the KL were very dear.
# But the formula of the KL is right.
#
# </details>
#
# <details><summary>Hint 2: weigh the two parts</summary>
#
# What does *one picture* cost? One part is added up over what belongs to a picture, the other is not. How many numbers
# does each of the two have?
#
# </details>
#
# <details><summary>Hint 3: in tensors</summary>
#
# `error` is (B, 3, S, S): add it up over everything but the batch, `flatten(1).sum(1)`, and take the mean over the
# batch at the end.
#
# </details>


# %% tags=["solve:vae-loss"]
def vae_loss(
    images: Tensor, predicted: Tensor, mean: Tensor, log_variance: Tensor, pixel_std: float
) -> Tensor:
    """The negative ELBO, up to a constant that is the same for every drawing.

    Args:
        images, predicted: (B, 3, H, W).
        mean, log_variance: (B, Z), the clouds.
        pixel_std: standard deviation of the bell around each predicted number.
    Returns:
        () in nats a picture: the mean over the batch of reconstruction + KL.
    """
    ### BEGIN SOLUTION
    error = ((images - predicted) / pixel_std).square() / 2  # (B, 3, H, W)
    kl = (mean.square() + log_variance.exp() - 1 - log_variance) / 2  # (B, Z)
    return (error.flatten(1).sum(1) + kl.sum(1)).mean()
    ### END SOLUTION


# %% tags=["check:vae-loss:3"]
check_vae_loss(vae_loss)
### BEGIN HIDDEN TESTS
check_vae_loss(vae_loss, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Now train the same VAE with your loss, and look again: `cost_with(vae_loss)` is its cost. The squared error should
# fall to about 0.01; it was above 0.06.

# %% tags=["solve:train-again"]
### BEGIN SOLUTION
well = train(new_vae(8, 0.5), cost_with(vae_loss))
### END SOLUTION
table([examine("with mistaken_loss", ill), examine("with your loss", well)])
alt = """Two rows of eight. Above coloured squares, triangles and rings on navy;
below the same shapes and colours, softer."""
pictures(
    torch.cat([images[:8], well.reconstruct(images[:8])]),
    title="Pictures and their reconstructions",
    columns=8,
    alt=alt,
)

# %% [markdown]
# **Going further.** *Free bits* (Kingma and others 2016, arXiv:1606.04934) give every latent number, say, 0.1 nats for
# nothing: in the loss its KL, as a mean over the batch, counts as 0.1 when it is less. Train with a $\beta$ of 40, with
# and without. How many of the eight numbers are in use?
#
# ## 4 A decoder that needs no training
#
# ★★★★☆ · 25 minutes · 4 points
#
# **Why.** The squared error has a best answer that can be written down. Given the clouds, one can say for every point
# what the *perfect* decoder would draw there, and what even it gets wrong. That separates two kinds of blur: the one
# that more training removes, and the one that it cannot.
#
# A point may come from the cloud of any training picture. The share of picture $i$ is the density of its cloud there,
# divided by the sum of all densities:
#
# $$w_i = \frac{q_i(z)}{\sum_j q_j(z)} \qquad
#   q_i(z) = \prod_k \frac{1}{\mathrm{std}_{ik} \sqrt{2 \pi}}\, e^{-(z_k - \mathrm{mean}_{ik})^2 / (2\, \mathrm{std}_{ik}^2)}$$
#
# **Write** `best_drawing`: for each point the one picture whose squared error, weighted by these shares, is least; and
# that error. Far from all clouds every density is smaller than the smallest number a computer has; the shares must be
# right there too.
#
# **Expected.** Two pictures of one number, 0 and 1, have clouds of standard deviation 1 around -1 and 1. At the point 0
# both have the share 1/2: it draws 0.5, with an error of 0.25. At the point 1 the shares are 0.119 and 0.881: it draws
# 0.881, with an error of 0.105.
#
# <details><summary>Hint 1: the best answer</summary>
#
# Several right answers with their weights: what does the squared error want (lesson 03; section 8)? The error is then
# the weighted variance, as a mean over the picture's numbers.
#
# </details>
#
# <details><summary>Hint 2: the shares</summary>
#
# Work with logarithms: a product becomes a sum over the latent's numbers, $-\frac12 ((z - \mathrm{mean}) /
# \mathrm{std})^2 - \frac12 v$ each, and $\sqrt{2 \pi}$ is the same everywhere. `points[:, None] - mean` compares each
# point with each cloud: (P, N, Z).
#
# </details>
#
# <details><summary>Hint 3: far away</summary>
#
# From logarithms of densities to shares: `softmax`, over the pictures. It subtracts the largest logarithm first, so that
# nothing is lost. For the error: the mean of the squares minus the square of the mean, or the squared differences of
# every picture from every drawing.
#
# </details>


# %% tags=["solve:best-drawing"]
def best_drawing(points: Tensor, mean: Tensor, log_variance: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """What a decoder should draw at each point, if it is judged by the squared error.

    Args:
        points: (P, Z) of the latent space.
        mean, log_variance: (N, Z), the clouds of N training pictures.
        images: (N, 3, H, W), these pictures.
    Returns:
        drawings (P, 3, H, W), and the error (P,) of each: the mean over its numbers of the expected squared error.
    """
    ### BEGIN SOLUTION
    distance = (points[:, None] - mean) / (log_variance / 2).exp()  # (P, N, Z)
    shares = (-(distance.square() + log_variance) / 2).sum(2).softmax(1)  # (P, N)
    drawings = torch.einsum("pn,nchw->pchw", shares, images)
    squares = torch.einsum("pn,nchw->pchw", shares, images.square())
    return drawings, (squares - drawings.square()).flatten(1).mean(1)
    ### END SOLUTION


# %% tags=["check:best-drawing:4"]
check_best_drawing(best_drawing)
### BEGIN HIDDEN TESTS
check_best_drawing(best_drawing, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Compare it with a decoder that was trained. The VAE below has two latent numbers, so the plane can be drawn from -2 to
# 2 as in the lesson. How much of the trained decoder's error could a better decoder save?

# %%
flat = train(new_vae(2, 1.0), VAE.loss)
side = torch.linspace(-2, 2, 9)
plane = torch.cartesian_prod(side.flip(0), side).flip(1).to(device)  # (81, 2)
with torch.no_grad():
    clouds = flat.encode(images)
    points = reparametrise(*clouds, torch.Generator().manual_seed(4))
    trained, error = flat.decode(plane), mse_loss(flat.decode(points), images)

# %% tags=["solve:compare-decoders"]
### BEGIN SOLUTION
perfect, _ = best_drawing(plane, *clouds, images)
_, least = best_drawing(points, *clouds, images)
### END SOLUTION
print(f"squared error at points of the clouds: trained {error:.4f}, perfect {least.mean():.4f}")
alt = """Two planes of 81 pictures. Left, the trained decoder: colours and shapes change little by little, many are blends
of two, and at the lower left, beyond the clouds, they are mottled. Right, the perfect decoder: blue, purple, green,
red and yellow shapes, clear nearly everywhere, also at the lower left; only some are blends."""
with figure("Two decoders for the same clouds", alt, columns=2, size=(9, 4.8)) as axes:
    for axis, name, drawn in zip(axes, ("trained", "perfect"), (trained, perfect), strict=True):
        axis.imshow(to_pil(make_grid(drawn, 9)))
        axis.set_title(name)
        axis.set_axis_off()

# %% [markdown]
# **Going further.**
#
# - The perfect decoder draws sharp pictures where clouds are narrow. Are they new? Compare its drawings with the
#   training pictures. What does that say about perfect training?
# - A model that is not judged by the squared error, without any second network: **PixelCNN** (van den Oord and others
#   2016, arXiv:1601.06759). It draws pixel by pixel, and each pixel sees only those above it and to its left. The heart
#   is a convolution with a mask on its kernel. Write the mask, and show by slopes that no pixel sees itself or a later
#   one. Then reduce the pictures above to 8 x 8 pixels and four grey levels, train by cross-entropy, and draw. Are its
#   edges soft?
#
# ## 5 In your own words: three values of beta
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# Three VAEs are alike but for $\beta$ in $\text{reconstruction} + \beta \cdot \mathrm{KL}$. The last column: new pictures
# were drawn from points of $N(0, 1)$, and the squared difference to the nearest training picture was taken.

# %%
patients = {
    name: train(new_vae(8, 0.5), partial(VAE.loss, beta=beta))
    for name, beta in zip("ABC", (100, 0, 1), strict=True)
}
latent = torch.randn(400, 8, generator=torch.Generator().manual_seed(1)).to(device)
drawn = {name: vae.decode(latent).detach() for name, vae in patients.items()}
rows = []
for name, vae in patients.items():
    nearest = torch.cdist(drawn[name].flatten(1), images.flatten(1)).amin(1).square().mean() / 768
    rows.append(examine(name, vae) | {"drawn: to the nearest": nearest})
table(rows)
alt = """Three rows of eight. A: the same faint brown blot, eight times. B: shapes in glaring colours, many of two
colours at once, on noisy ground. C: soft triangles, squares, circles and a ring, mostly of one colour, on calmer
ground."""
pictures(
    torch.cat([drawn[name][:8] for name in "ABC"]),
    title="Drawn from chance by A, B and C",
    columns=8,
    alt=alt,
)

# %% [markdown]
# Answer in two or three sentences each:
#
# 1. Which one has collapsed? Which two numbers of the table say so, and what did its encoder gain by saying nothing?
# 2. Which one draws its training pictures *again* best, and is still the worst at drawing new ones? Use its clouds'
#    standard deviation to say what its decoder meets at a point of $N(0, 1)$.
# 3. The third one is the compromise, and its reconstructions are still soft. Name the two sources of the softness that
#    exercise 4 told apart. Which one would remain after any training with these clouds?

# %% [markdown] tags=["explain:three-betas:3"]
# <!-- BEGIN SOLUTION -->
# 1. A: its KL is 0 and every cloud has the standard deviation 1, so all clouds *are* $N(0, 1)$. Its $\beta$ is large:
#    every nat that the encoder tells costs more than the better drawing saves, so saying nothing is the cheapest; the
#    decoder then draws the mean picture, and A has about its squared error (1 point).
# 2. B, with $\beta = 0$: its squared error is the least. Its clouds are almost points (a standard deviation below 0.02),
#    because nothing makes precision dear, and nothing says where they should lie. A point of $N(0, 1)$ falls between
#    them, or beyond them, where the decoder was never trained. So its pictures are the farthest from the data: holes
#    again (1 point).
# 3. First, the decoder is not perfect: a better or longer training could save that part. Second, clouds overlap, so a
#    point belongs to several pictures, and the squared error wants their mean: even the perfect decoder pays the
#    weighted variance. The second part remains as long as the clouds are as they are (1 point).
# <!-- END SOLUTION -->
