# %% [markdown]
# # Exercises 15 · Judging pictures
#
# Five exercises to lesson 15, 90 minutes in all. Work from top to bottom; each has a check that tells you in words what
# is wrong. Hints are folded: open one only when you have been stuck for five minutes, and try again before the next.
#
# | | exercise | difficulty | minutes | points |
# |---|---|---|---|---|
# | 1 | How sure is a share? | ★★☆☆☆ | 15 | 3 |
# | 2 | Where do two pictures differ? | ★★★☆☆ | 25 | 4 |
# | 3 | An examiner who cannot decide | ★★★☆☆ | 25 | 4 |
# | 4 | Find the bug: a distance that depends on memory | ★★☆☆☆ | 15 | 3 |
# | 5 | In your own words: three good numbers | ★★★☆☆ | 10 | 3 |
#
# Write between the lines that say where; `raise NotImplementedError()` goes. A check can be run as often as you like.

# %%
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from course_lib.alignment import load_alignment
from course_lib.checks.metrics import (
    check_fair_r_precision,
    check_frechet_of_batches,
    check_ssim_map,
    check_wilson_interval,
)
from course_lib.data import CaptionedShapes
from course_lib.evaluation import load_judge
from course_lib.image_metrics import frechet_distance, gaussian_filter
from course_lib.lesson import heatmap, pictures, setup, table

device = setup()

# %% [markdown]
# ## 1 How sure is a share?
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** "All 96 pictures are right: 100 %". With other noise it might be 94. The interval one meets most often,
# $p \pm z \sqrt{p (1 - p) / n}$, has the width 0 at $p = 1$, as if 96 pictures had proved that the generator never
# errs. *Wilson's* interval (1927) does not: it asks which true shares would give what was seen not too seldom.
#
# **Write** `wilson_interval`. With $p$ the share that was right of $n$:
#
# $$\frac{1}{1 + z^2 / n} \left( p + \frac{z^2}{2 n} \pm z \sqrt{\frac{p (1 - p)}{n} + \frac{z^2}{4 n^2}} \right)$$
#
# **Expected.** With z = 1.96, which is for 95 %: all of 96 have the interval 0.9615 to 1; half of 96 have 0.4019 to
# 0.5981; nothing of 10 has 0 to 0.2775.
#
# <details><summary>Hint 1: in pieces</summary>
#
# Compute the share, then the middle $p + z^2 / 2n$, then the root times z. Divide both of these at the end.
#
# </details>
#
# <details><summary>Hint 2: Python</summary>
#
# `z**2 / 2 * n` multiplies by n; write `z**2 / (2 * n)`. The root is `math.sqrt`.
#
# </details>
#
# <details><summary>Hint 3: check the pieces</summary>
#
# For 96 of 96: 1 + z²/n is 1.0400, the middle 1.0200, the root times z 0.0200.
#
# </details>


# %% tags=["solve:wilson-interval"]
def wilson_interval(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Between which limits the true share lies, probably.

    Args:
        right: pictures that were right, 0 to count.
        count: pictures, 1 or more.
        z: how many deviations; 1.96 for a confidence of 95 %.
    Returns:
        (low, high), shares from 0 to 1.
    """
    ### BEGIN SOLUTION
    share, wider = right / count, 1 + z**2 / count
    middle = share + z**2 / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z**2 / (4 * count**2))
    return (middle - half) / wider, (middle + half) / wider
    ### END SOLUTION


# %% tags=["check:wilson-interval:3"]
check_wilson_interval(wilson_interval)
### BEGIN HIDDEN TESTS
check_wilson_interval(wilson_interval, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Lesson 14 found accuracies of 99.6 % and 99.8 % on 1,000 pictures each. From which of these numbers of pictures on do
# the two intervals no longer touch?

# %% tags=["solve:apart"]
sizes = [1000, 2000, 4000, 8000, 16000, 32000]
### BEGIN SOLUTION
apart = [
    n for n in sizes if wilson_interval(round(0.996 * n), n)[1] < wilson_interval(round(0.998 * n), n)[0]
]
### END SOLUTION
print(f"apart from {apart[0]:,} pictures on")

# %% [markdown]
# **Going further.** How often does the plain interval hold the true share, how often Wilson's? Let the true share be 0.99.
# Draw 10,000 times how many of 96 pictures are right, and count. A confidence of 95 % should be 95 %.
#
# ## 2 Where do two pictures differ?
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** One number says that a reconstruction is bad. A *map* says where. For a map, windows that lie side by side are
# enough, with no bell in them: every pixel of a window counts the same.
#
# **Write** `ssim_map`. In each square window of each channel, with means $a$, $b$, variances $v_a$, $v_b$ and covariance
# $c$ of brightnesses from 0 to 1 (means of squares and products, divided by $n$):
#
# $$\frac{2ab + c_1}{a^2 + b^2 + c_1} \cdot \frac{2c + c_2}{v_a + v_b + c_2}, \qquad c_1 = 0.01^2, \quad c_2 = 0.03^2$$
#
# Then the mean over the channels.
#
# **Expected.** Equal windows have 1, in the black too. Two flat windows with the brightnesses 0.1 and 0.6 have 0.325. A
# window of black and white pixels, half of each, and its negative have -0.996.
#
# <details><summary>Hint 1: the range</summary>
#
# Pictures come from -1 to 1. Their brightness is `(x + 1) / 2`.
#
# </details>
#
# <details><summary>Hint 2: cut into windows</summary>
#
# `x.unfold(2, w, w).unfold(3, w, w)` is (B, C, H/w, W/w, w, w): it cuts along dimension 2, then along 3. The mean over
# the last two dimensions is the mean of each window. (`F.avg_pool2d` does both at once.)
#
# </details>
#
# <details><summary>Hint 3: variances and covariance</summary>
#
# With `mean` for the mean of each window: the variance is `mean(x * x) - mean(x) ** 2`, the covariance
# `mean(x * y) - mean(x) * mean(y)`.
#
# </details>


# %% tags=["solve:ssim-map"]
def ssim_map(input: Tensor, target: Tensor, window: int) -> Tensor:
    """Structural similarity of two pictures, window by window.

    Args:
        input, target: (B, C, H, W) in [-1, 1].
        window: side of the square windows in pixels; it divides H and W.
    Returns:
        (B, H / window, W / window) in [-1, 1]; 1 is equal.
    """
    ### BEGIN SOLUTION
    x, y = (input + 1) / 2, (target + 1) / 2

    def mean(z: Tensor) -> Tensor:  # (B, C, H, W) -> (B, C, H / window, W / window)
        return z.unfold(2, window, window).unfold(3, window, window).mean((4, 5))

    mean_x, mean_y, c1, c2 = mean(x), mean(y), 0.01**2, 0.03**2
    variances = mean(x * x) - mean_x**2 + mean(y * y) - mean_y**2
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (brightness * (2 * (mean(x * y) - mean_x * mean_y) + c2) / (variances + c2)).mean(1)
    ### END SOLUTION


# %% tags=["check:ssim-map:4"]
check_ssim_map(ssim_map)
### BEGIN HIDDEN TESTS
check_ssim_map(ssim_map, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# A picture with three kinds of damage: a white box at the top left, noise at the top right, more light in the whole
# lower half. **Predict** which of them the map shows most clearly, and which hardly; then draw it with windows of 8.

# %% tags=["solve:damage-map"]
whole = 0.75 * CaptionedShapes("all", 64, seed=7, length=1).images([0])  # (1, 3, 64, 64)
damaged = whole.clone()
damaged[:, :, 4:12, 4:12] = 1.0
damaged[:, :, :16, 40:] += 0.1 * torch.randn(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
damaged[:, :, 32:] += 0.1
### BEGIN SOLUTION
found = ssim_map(damaged, whole, 8)[0]  # (8, 8)
### END SOLUTION
pictures(
    torch.cat([whole, damaged]), ["whole", "damaged"], alt="A pink ring on navy; a copy with three damages."
)
rows = [f"{8 * i} to {8 * i + 7}" for i in range(8)]
alt = (
    "SSIM of 8 x 8 windows: 0.01 at the white box, about 0.25 in the noise, 0.98 in the lighter half, else 1."
)
heatmap(found, "SSIM window by window", (rows, rows), alt, digits=2)

# %% [markdown]
# **Going further.** Shift the whole picture by one pixel. How much does the map mind, with windows of 4 and of 16? Then
# let SSIM be a *loss*: from grey, let Adam move the pixels until the map is 1 everywhere. Which colours are found last?
#
# ## 3 An examiner who cannot decide
#
# ★★★☆☆ · 25 minutes · 4 points
#
# **Why.** An encoder that does not mind the order of words gives one vector to "a red circle left of a blue square" and
# to "a blue circle left of a red square". For R-precision that is a tie. Who counts "nobody is better" gives it full
# marks; with an encoder that calls everything equal, *every* generator is perfect. Who lets the place in the list
# decide gets another number when the captions are sorted.
#
# **Write** `fair_r_precision`. Break ties by lot, but return the *expected* share, so that no dice are needed: if the own
# caption is one of three equals, and for two of them there is room among the k best, it counts 2/3.
#
# **Expected.** For one row, with the own cosine first: (0.9, 0.5, 0.1) counts 1. (0.9, 0.9, 0.1) counts 1/2 for k = 1
# and 1 for k = 2. (0.5, 0.8, 0.5, 0.5) counts 0 for k = 1, 1/3 for k = 2, 2/3 for k = 3. Where all N are equal, k / N.
#
# <details><summary>Hint 1: two counts</summary>
#
# For each row, count who is better than the own caption, and who is equal (itself included). The own cosines are
# `cosines.diagonal()`.
#
# </details>
#
# <details><summary>Hint 2: what is left</summary>
#
# The better ones are sure of their places. k - better places are left, and the equals draw lots for them.
#
# </details>
#
# <details><summary>Hint 3: the ends</summary>
#
# A chance is (k - better) / equal, but never below 0 and never above 1: `clamp(0, 1)`. `cosines.diagonal()[:, None]` is
# a column, so that each row is compared with its own.
#
# </details>


# %% tags=["solve:fair-r-precision"]
def fair_r_precision(cosines: Tensor, k: int) -> float:
    """The share of pictures whose own caption is among the k best, ties broken by lot, on average.

    Args:
        cosines: (N, N); row i has those of picture i with every caption, and its own caption is column i.
        k: 1 to N.
    Returns:
        a share from 0 to 1.
    """
    ### BEGIN SOLUTION
    own = cosines.diagonal()[:, None]  # (N, 1)
    better, equal = (cosines > own).sum(1), (cosines == own).sum(1)  # (N,)
    return ((k - better) / equal).clamp(0, 1).mean().item()
    ### END SOLUTION


# %% tags=["check:fair-r-precision:4"]
check_fair_r_precision(fair_r_precision)
### BEGIN HIDDEN TESTS
check_fair_r_precision(fair_r_precision, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# Fifty real pictures and their captions, read by the encoders of lesson 08. Make the examiner less and less exact: round
# the cosines to two digits, to one, to whole numbers, and at last replace them by zeros.

# %% tags=["solve:rounded"]
aligned, tokenizer = load_alignment("align-shapes-32", device)
exam = CaptionedShapes("all", 32, seed=3, length=50)
captions = [exam.caption(i) for i in range(50)]
cosines = aligned.similarity(exam.images(range(50)), captions, tokenizer).cpu()  # (50, 50)
rows = []
for told, exact in {"two digits": 100, "one digit": 10, "whole numbers": 1, "zeros": 0}.items():
    rounded = (cosines * exact).round()  # (50, 50)
    own = rounded.diagonal()[:, None]
    shares = {"nobody is better": (rounded <= own).all(1).float().mean()}
    shares["all others are worse"] = ((rounded < own).sum(1) == 49).float().mean()
    ### BEGIN SOLUTION
    shares["fair"] = fair_r_precision(rounded, 1)
    ### END SOLUTION
    rows.append({"cosines": told} | shares)
table(rows)

# %% [markdown]
# **Going further.** People mark from 1 to 5, so they have many ties. Draw 30 pictures with `emoji-32`, mark with a friend,
# each alone, how well they fit their words, and compute `krippendorff_alpha` (lesson 15, section 9). Is it below 0.667?
# Talk about what a 3 means, then mark 30 new ones.
#
# ## 4 Find the bug
#
# ★★☆☆☆ · 15 minutes · 3 points
#
# **Why.** Features of 50,000 pictures come batch by batch. The piece below computes a Frechet distance for each batch and
# takes the mean, as one does with a loss. We hand in 1,200 real pictures, and once more real ones, then blurred ones.


# %%
judge, blurrer = load_judge(32).to(device), gaussian_filter(32, sigma=1.0)


@torch.no_grad()
def judge_features(images: Tensor) -> Tensor:  # (N, 3, 32, 32) -> (N, 128), as in the lesson
    x = images.to(device)
    for convolution, norm in zip(judge.encoder.convolutions, judge.encoder.norms, strict=True):
        x = norm(convolution(x)).relu()
    return x.mean((2, 3)).cpu()


shapes = CaptionedShapes("all", 32, seed=1, length=2400)
first, second = shapes.images(range(1200)), shapes.images(range(1200, 2400))
real, other = judge_features(first), judge_features(second)
blurred = judge_features(blurrer @ second @ blurrer.T)


# %%
def frechet_by_batches(real: Sequence[Tensor], generated: Sequence[Tensor]) -> float:
    total = 0.0
    for x, y in zip(real, generated, strict=True):
        total += frechet_distance(x, y)
    return total / len(real)


rows = []
for size in (40, 100, 400, 1200):
    scores = [frechet_by_batches(real.split(size), x.split(size)) for x in (other, blurred)]
    rows.append({"batch size": size, "other real pictures": scores[0], "blurred pictures": scores[1]})
table(rows)

# %% [markdown]
# Whoever has memory for 1,200 pictures at a time measures 1.26 for *blurred* ones. Whoever has memory for 40 measures 4.3
# for *real* ones.
#
# **Find** what is wrong, and **write** it as it should be. The features of all pictures fit into memory, and you may call
# `frechet_distance`.
#
# **Expected.** The same number however the pictures are cut: single pictures, unequal batches, more batches on one side
# than on the other. In the example above 0.163 and 1.26.
#
# <details><summary>Hint 1: which number is right</summary>
#
# Lesson 15 measured real pictures against real ones for 50, 100, 200 ... pictures. What happened to the distance?
#
# </details>
#
# <details><summary>Hint 2: why no mean</summary>
#
# Each small batch has a distance that is too large, by chance alone, and the mean of ten numbers that are too large is
# too large. What has to be known of *all* pictures before a distance is computed?
#
# </details>
#
# <details><summary>Hint 3: the repair</summary>
#
# Put the batches of each side together again, `torch.cat`, and compute one distance.
#
# </details>


# %% tags=["solve:frechet-of-batches"]
def frechet_of_batches(real: Sequence[Tensor], generated: Sequence[Tensor]) -> float:
    """The Frechet distance of two sets of features that come in batches.

    Args:
        real: a list of (n, D), of any sizes, 2 pictures or more in all.
        generated: another; it may have more or fewer batches, and pictures.
    Returns:
        the distance of the two whole sets, with covariances divided by N - 1.
    """
    ### BEGIN SOLUTION
    return frechet_distance(torch.cat(list(real)), torch.cat(list(generated)))
    ### END SOLUTION


# %% tags=["check:frechet-of-batches:3"]
check_frechet_of_batches(frechet_of_batches)
### BEGIN HIDDEN TESTS
check_frechet_of_batches(frechet_of_batches, seed=100)
### END HIDDEN TESTS

# %% [markdown]
# **Going further.** For millions of pictures one keeps no features, but three running sums: of 1, of $x$ and of
# $x x^\mathsf{T}$. Compute mean and covariance from them, in float64, and compare. Then replace the cube of the kernel
# distance by $x \cdot y$ alone: which of the damages in section 6 of the lesson does it still see, and why?
#
# ## 5 In your own words: three good numbers
#
# ★★★☆☆ · 10 minutes · 3 points
#
# Three teams are proud of a number. Say for each what may have happened, and which other number would show it.
#
# 1. "From 16 pictures for each caption we keep the one whose cosine to the caption is largest. R-precision, by the same
#    encoders, rose from 0.80 to 0.97."
# 2. "Our Frechet distance to the training pictures is 0.02. Even new real pictures are 0.13 away from them, at the same
#    N."
# 3. "Our generator mixes up left and right, always. But the Frechet distance and the recall of 10,000 pictures are as
#    good as before, so it cannot matter."

# %% [markdown] tags=["explain:three-good-numbers:3"]
# <!-- BEGIN SOLUTION -->
# 1. The encoders chose what they then judged, so the number had to rise: choosing keeps whatever pleases *these*
#    encoders, mistakes included. An examiner that took no part, such as the judge's accuracy, or people, shows whether
#    the pictures became better (1 point).
# 2. Better than real pictures is a warning: the generator may draw the training pictures again. Measure the distance to
#    real pictures that were held out, or look for the nearest training picture of each (1 point).
# 3. These compare two sets and read no caption. The data has as many shapes at the left as at the right, so the set
#    looks the same when each is on the wrong side. The accuracy of the attribute position, or R-precision, reads
#    the caption and falls (1 point).
# <!-- END SOLUTION -->
