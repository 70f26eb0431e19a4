"""Picture against picture, set against set, rater against rater: the measures that need no knowledge of shapes. Chapter
15 builds them.

`psnr` and `ssim` compare two pictures that ought to be the same (their mean squared error is `losses.mse_loss`).
`frechet_distance`, `kernel_distance` and `precision_recall` compare two sets of pictures by the features of a network,
`r_precision` compares pictures with captions, and `krippendorff_alpha` tells how far human raters agree.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.alignment import retrieval
from course_lib.errors import CourseError
from course_lib.losses import mse_loss, require_same_shape
from course_lib.pretrained import efficientnet_features

Features = Callable[[Tensor], Tensor]  # pictures (N, 3, S, S) in [-1, 1] -> (N, D)


def psnr(input: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio: the mean squared error on a logarithmic scale, more is better.

    Args:
        input, target: of one shape, in [-1, 1], so that 2 is the largest difference.
    Returns:
        () in decibels; infinite where both are equal.
    Raises:
        ValueError: the shapes differ.
    """
    return 10 * torch.log10(2**2 / mse_loss(input, target))


def gaussian_filter(size: int, sigma: float = 1.5, radius: int = 5) -> Tensor:
    """The matrix (size, size) that replaces each value of a line by the bell-weighted mean of the 11 around it; beyond
    the ends the line is mirrored."""
    offsets = torch.arange(-radius, radius + 1)
    weights = torch.exp(-((offsets / sigma) ** 2) / 2)
    places = torch.arange(size)[:, None] + offsets  # (size, 11), from -5 to size + 4
    mirrored = (size - 1) - ((size - 1) - places.abs()).abs()
    return torch.zeros(size, size).scatter_add_(1, mirrored, (weights / weights.sum()).expand(size, -1))


def ssim(input: Tensor, target: Tensor) -> Tensor:
    """Structural similarity: do two pictures agree in brightness, contrast and pattern, window by window?

    Args:
        input, target: (B, C, H, W) in [-1, 1], H and W more than 5, the radius of the window.
    Returns:
        () in [-1, 1]; 1 is equal.
    Raises:
        ValueError: the shapes differ, or the pictures are too small.
    Source: Wang et al. 2004, "Image quality assessment", eq. 13; window of 11 pixels, sigma 1.5.
    """
    require_same_shape(input, target)
    if input.dim() != 4 or min(input.shape[2:]) < 6:
        raise ValueError(f"pictures have shape {tuple(input.shape)}; give (B, C, H, W), H and W 6 or more")
    x, y = (input + 1) / 2, (target + 1) / 2  # brightnesses are compared by their ratio: black must be 0
    rows, columns = (gaussian_filter(size).to(x) for size in x.shape[2:])

    def mean(z: Tensor) -> Tensor:  # over the window around each pixel: (B, C, H, W) -> (B, C, H, W)
        return rows @ z @ columns.T

    mean_x, mean_y, mean_xy = mean(x), mean(y), mean(x * y)
    variances = (mean(x**2) - mean_x**2).clamp(min=0) + (mean(y**2) - mean_y**2).clamp(min=0)
    c1, c2 = 0.01**2, 0.03**2  # no division by 0 where both are flat
    brightness = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return (brightness * (2 * (mean_xy - mean_x * mean_y) + c2) / (variances + c2)).mean()


# ---- sets of pictures, by features


def features_of(real: Tensor, generated: Tensor, features: Features | None) -> tuple[Tensor, Tensor]:
    """Both sets in float64 as (N, D) and (M, D): pictures through `features`, what is (N, D) already as it is."""
    network = features or efficientnet_features
    x, y = (network(images) if images.dim() > 2 else images for images in (real, generated))
    if x.dim() != 2 or y.dim() != 2 or x.shape[1] != y.shape[1] or min(len(x), len(y)) < 2:
        raise ValueError(f"features {tuple(x.shape)} and {tuple(y.shape)}; give (N, D) and (M, D), N and M 2 or more")
    return x.detach().double().cpu(), y.detach().double().cpu()


def covariance(x: Tensor) -> Tensor:
    """Unbiased covariance of rows: (N, D) -> (D, D)."""
    centred = x - x.mean(0)
    return centred.T @ centred / (len(x) - 1)


def matrix_square_root(matrix: Tensor) -> Tensor:
    """The symmetric root of a symmetric positive semi-definite (D, D), from its eigenvalues and eigenvectors."""
    values, vectors = torch.linalg.eigh(matrix)
    return vectors * values.clamp(min=0).sqrt() @ vectors.T  # rounding can leave -1e-16 for 0


def frechet_distance(real: Tensor, generated: Tensor, features: Features | None = None) -> float:
    """Distance between two bells: how far apart are the means and the spreads of two sets of features?

    It is biased upwards, the more the fewer the pictures: below some thousands use `kernel_distance`. Values of
    different networks, resize filters or N can't be compared.

    Args:
        real, generated: pictures (N, 3, S, S) in [-1, 1], or features (N, D).
        features: the network; default EfficientNet-Lite0 (extra `eval`), not the Inception of published figures.
    Returns:
        |mean - mean'|² + trace(cov + cov' - 2 (cov cov')^½), in float64; 0 is equal.
    Raises:
        ValueError: the features do not fit together.
    Source: Heusel et al. 2017, arXiv:1706.08500, eq. 6.
    """
    x, y = features_of(real, generated, features)
    cov_x, cov_y = covariance(x), covariance(y)
    root = matrix_square_root(cov_x)
    # cov cov' has the eigenvalues of root cov' root, which is symmetric: so they are real and easily found
    shared = torch.linalg.eigvalsh(root @ cov_y @ root).clamp(min=0).sqrt().sum()
    return ((x.mean(0) - y.mean(0)).square().sum() + cov_x.trace() + cov_y.trace() - 2 * shared).item()


class Interval(NamedTuple):
    """An estimate and the limits of its confidence interval."""

    value: float
    low: float
    high: float


def cubic_kernel(x: Tensor, y: Tensor) -> Tensor:
    """(x·y / D + 1)³ of each pair: (N, D), (M, D) -> (N, M)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kernel_distance(
    real: Tensor,
    generated: Tensor,
    features: Features | None = None,
    confidence: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Kernel distance (KID): the squared maximum mean discrepancy with a cubic kernel; unbiased at any N.

    Args:
        real, generated, features: as in `frechet_distance`.
        confidence: share of repetitions in which the interval should hold the true distance.
        resamples: bootstrap repetitions, which draw pictures of both sets anew.
        seed: of the bootstrap.
    Returns:
        The distance and its interval. It can be below 0: an unbiased estimate of 0 must be, half of the time.
    Raises:
        ValueError: the features do not fit together.
    Source: Bińkowski et al. 2018, arXiv:1801.01401, eq. 4; Efron 1979 (bootstrap), with pairs of a picture and its own
        copy left out, since each would count as a perfect match.
    """
    x, y = features_of(real, generated, features)
    kernels = cubic_kernel(x, x).fill_diagonal_(0), cubic_kernel(y, y).fill_diagonal_(0), cubic_kernel(x, y)
    random = torch.Generator().manual_seed(seed)
    estimate = discrepancy(*kernels, x.new_ones(1, len(x)), x.new_ones(1, len(y))).item()
    drawn = discrepancy(*kernels, *(draw_counts(resamples, len(z), random) for z in (x, y)))  # (resamples,)
    outside = (1 - confidence) / 2
    low, high = drawn.quantile(torch.tensor([outside, 1 - outside], dtype=drawn.dtype)).tolist()
    return Interval(estimate, low, high)


def draw_counts(repetitions: int, n: int, random: torch.Generator) -> Tensor:
    """How often each of n things came up in n draws with replacement: (repetitions, n), each row sums to n."""
    draws = torch.randint(n, (repetitions, n), generator=random)
    return torch.zeros(repetitions, n, dtype=torch.float64).scatter_add_(1, draws, torch.ones_like(draws).double())


def discrepancy(k_xx: Tensor, k_yy: Tensor, k_xy: Tensor, count_x: Tensor, count_y: Tensor) -> Tensor:
    """Mean kernel within both sets minus twice that between them, picture i counted count[:, i] times.

    Args:
        k_xx: (N, N) and k_yy: (M, M), diagonal 0; k_xy: (N, M).
        count_x: (R, N); count_y: (R, M).
    Returns:
        (R,).
    """

    def within(kernel: Tensor, count: Tensor) -> Tensor:
        pairs = count.sum(1) ** 2 - (count**2).sum(1)  # (R,): those of two different pictures
        return (count @ kernel * count).sum(1) / pairs

    between = (count_x @ k_xy * count_y).sum(1) / (count_x.sum(1) * count_y.sum(1))
    return within(k_xx, count_x) + within(k_yy, count_y) - 2 * between


def precision_recall(
    real: Tensor, generated: Tensor, features: Features | None = None, neighbours: int = 3
) -> tuple[float, float]:
    """Does what is generated look real, and is all that is real generated?

    Each picture stands in a ball that reaches to its k-th neighbour in its own set; the balls together are the region
    of that set. Precision: the share of generated pictures in the region of real ones. Recall: the other way round.

    Args:
        real, generated, features: as in `frechet_distance`.
        neighbours: k.
    Returns:
        Precision and recall, shares in [0, 1].
    Raises:
        ValueError: the features do not fit together, or a set has no more than k pictures.
    Source: Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2.
    """
    x, y = features_of(real, generated, features)
    if not 1 <= neighbours < min(len(x), len(y)):
        raise ValueError(f"neighbours={neighbours}; use 1 to {min(len(x), len(y)) - 1}, below the number of pictures")
    return share_inside(y, x, neighbours), share_inside(x, y, neighbours)


def share_inside(points: Tensor, region: Tensor, neighbours: int) -> float:
    """The share of points (N, D) in at least one ball of the region (M, D)."""
    radii = distances(region, region).fill_diagonal_(0).kthvalue(neighbours + 1, dim=1).values  # (M,), itself is 0 away
    return (distances(points, region) <= radii).any(1).double().mean().item()


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances (N, M), subtracted and not multiplied out: equal points are exactly 0 apart."""
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


# ---- pictures and captions


def r_precision(
    image_embeddings: Tensor, text_embeddings: Tensor, k: int = 1, candidates: int = 100, seed: int = 0
) -> float:
    """How often a picture's own caption is among the k that fit it best, out of `candidates`; chance is k/candidates.

    The encoders must not have been in the training of what they judge.

    Args:
        image_embeddings, text_embeddings: (N, E); row i of both belongs together. Of rows with the same caption only
            the first counts: otherwise the right one would be among the wrong ones.
        k: how many captions count.
        candidates: the own caption and candidates - 1 others, drawn by `seed`; at most N are left to draw from.
    Returns:
        Share in [0, 1] over all groups of that many.
    Raises:
        ValueError: there are fewer different captions than candidates, or k is out of range.
    Source: Xu et al. 2018, arXiv:1711.10485, section 4.
    """
    first = {tuple(row): i for i, row in reversed(list(enumerate(text_embeddings.tolist())))}
    rows = torch.tensor(sorted(first.values()))
    if not 1 <= k < candidates <= len(rows):
        raise ValueError(f"k={k}, candidates={candidates}, {len(rows)} captions; want 1 <= k < candidates <= captions")
    order = rows[torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))]
    groups = order[: len(order) // candidates * candidates].view(-1, candidates)
    shares = [retrieval(image_embeddings[group], text_embeddings[group], k) for group in groups]
    return math.fsum(shares) / len(shares)


# ---- raters


def krippendorff_alpha(ratings: Tensor, level: str) -> float:
    """How far raters agree beyond chance: 1 is wholly, 0 as if by chance, below 0 they contradict each other.

    Args:
        ratings: (raters, items) numbers, NaN where a rater left an item out.
        level: "nominal" (the numbers are names), "ordinal" (ranks) or "interval" (their differences mean something).
    Returns:
        alpha, at most 1. Krippendorff asks for 0.8, or 0.667 for tentative conclusions.
    Raises:
        CourseError: unknown level, no item with two ratings, or all ratings equal, which tells nothing of agreement.
    Source: Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability", sections D and E.
    """
    if level not in DIFFERENCES:
        raise CourseError(f'level="{level}" is unknown; use {", ".join(DIFFERENCES)}')
    ratings = torch.as_tensor(ratings, dtype=torch.float64)
    values = ratings[~ratings.isnan()].unique()  # (V,), sorted
    counts = (ratings[..., None] == values).double().sum(0)  # (items, V): how many raters gave each value
    counts = counts[counts.sum(1) >= 2]  # who was rated once can't be agreed upon
    totals = counts.sum(0)  # (V,)
    if (totals > 0).sum() < 2:
        raise CourseError("ratings hold fewer than two different values of items that two raters saw; collect more")
    # pairs of values within an item, an item with m ratings weighing m
    observed = (counts.T / (counts.sum(1) - 1)) @ counts - torch.diag((counts / (counts.sum(1) - 1)[:, None]).sum(0))
    expected = (torch.outer(totals, totals) - torch.diag(totals)) / (totals.sum() - 1)
    difference = DIFFERENCES[level](values, totals)  # (V, V)
    return (1 - (observed * difference).sum() / (expected * difference).sum()).item()


def nominal_difference(values: Tensor, totals: Tensor) -> Tensor:
    """1 between different values (V,), 0 on the diagonal: (V, V)."""
    return (values[:, None] != values).double()


def ordinal_difference(values: Tensor, totals: Tensor) -> Tensor:
    """Squared number of ratings from the middle of one value to the middle of the other: (V, V)."""
    middle = totals.cumsum(0) - totals / 2
    return (middle[:, None] - middle) ** 2


def interval_difference(values: Tensor, totals: Tensor) -> Tensor:
    """Squared difference of values (V,): (V, V)."""
    return (values[:, None] - values) ** 2


DIFFERENCES = {"nominal": nominal_difference, "ordinal": ordinal_difference, "interval": interval_difference}
