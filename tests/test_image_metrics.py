"""Measures of pictures equal torchmetrics where it has them, and numbers worked out by hand where it has not."""

import math

import pytest
import torch

from course_lib.errors import CourseError
from course_lib.image_metrics import (
    covariance,
    discrepancy,
    draw_counts,
    frechet_distance,
    kernel_distance,
    krippendorff_alpha,
    matrix_square_root,
    precision_recall,
    psnr,
    r_precision,
    share_inside,
    ssim,
)
from course_lib.losses import mse_loss

NAN = math.nan


def pair(shape=(2, 3, 24, 17), noise=0.3):
    images = torch.rand(shape) * 2 - 1
    return images, (images + noise * torch.randn(shape)).clamp(-1, 1)


class GivenFeatures(torch.nn.Module):
    """Lets torchmetrics' distances see features that are given as pictures (N, D, 1, 1)."""

    def __init__(self, size):
        super().__init__()
        self.num_features = size

    def forward(self, images):
        return images.flatten(1)


def theirs(metric, real, generated):
    for features, is_real in ((real, True), (generated, False)):
        metric.update(features[..., None, None], real=is_real)
    return metric.compute()


# ---- two pictures


@pytest.mark.parametrize("noise", [0.01, 0.3, 2.0])
def test_two_pictures_are_compared_as_torchmetrics_does(noise):
    functional = pytest.importorskip("torchmetrics.functional.image")
    a, b = pair(noise=noise)
    torch.testing.assert_close(psnr(a, b), functional.peak_signal_noise_ratio(a, b, data_range=2.0))
    expected = functional.structural_similarity_index_measure((a + 1) / 2, (b + 1) / 2, data_range=1.0)
    torch.testing.assert_close(ssim(a, b), expected, atol=1e-5, rtol=0)
    assert mse_loss(a, b) == ((a - b) ** 2).mean()


def test_ssim_at_the_extremes():
    functional = pytest.importorskip("torchmetrics.functional.image")
    flat, black = torch.ones(1, 3, 6, 11), -torch.ones(1, 3, 6, 11)
    assert ssim(flat, flat) == 1 and psnr(flat, flat) == math.inf
    expected = functional.structural_similarity_index_measure(flat, 0 * flat, data_range=1.0)
    torch.testing.assert_close(ssim(flat, black), expected)
    image, _ = pair()
    assert ssim(image, -image) < -0.5  # the same pattern, upside down
    with pytest.raises(ValueError, match="6 or more"):
        ssim(flat[..., :5], black[..., :5])
    with pytest.raises(ValueError, match="differ"):
        ssim(flat, black[:, :1])


def test_a_shift_costs_more_in_psnr_than_in_ssim():
    """Why there are two: a little more light changes every pixel, but no pattern."""
    image, _ = pair((1, 3, 32, 32))
    image, noise = 0.7 * image, 0.2 * torch.randn(1, 3, 32, 32)
    brighter = image + noise.square().mean().sqrt()
    torch.testing.assert_close(psnr(image + noise, image), psnr(brighter, image))
    assert ssim(brighter, image) > ssim(image + noise, image) + 0.03


# ---- Frechet distance


@pytest.mark.parametrize("n", [200, 9])  # 9 features of 16 numbers: the covariances have no full rank
def test_frechet_distance_equals_torchmetrics(n):
    fid = pytest.importorskip("torchmetrics.image.fid")
    real, generated = torch.randn(n, 16).double(), 1.5 * torch.randn(n + 3, 16).double() @ torch.rand(16, 16).double()
    metric = fid.FrechetInceptionDistance(GivenFeatures(16), normalize=True).set_dtype(torch.float64)
    expected = theirs(metric, real, generated).item()
    assert frechet_distance(real, generated) == pytest.approx(expected, rel=1e-5)


def test_frechet_distance_of_known_bells():
    # Means (0, 0) and (3, 4); along each axis the spreads differ by (1 - 2)² and (1 - 1)².
    square = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    moved = square * torch.tensor([2.0, 1.0]) + torch.tensor([3.0, 4.0])
    assert frechet_distance(square, moved) == pytest.approx(25 + 4 / 3)  # variances are 4/3 and 16/3
    assert frechet_distance(square, square) == pytest.approx(0, abs=1e-12)
    assert frechet_distance(square, moved) == pytest.approx(frechet_distance(moved, square))


def test_the_root_squared_is_the_matrix():
    matrix = covariance(torch.randn(5, 8).double())  # rank 4
    root = matrix_square_root(matrix)
    torch.testing.assert_close(root @ root, matrix)


def test_frechet_distance_is_biased_and_kernel_distance_is_not():
    """Two draws from one bell: the true distance is 0."""
    draws = [(torch.randn(20, 8), torch.randn(20, 8)) for _ in range(200)]
    frechet = torch.tensor([frechet_distance(*draw) for draw in draws])
    kernel = torch.tensor([kernel_distance(*draw, resamples=1).value for draw in draws])
    assert frechet.min() > 0.5
    assert kernel.mean().abs() < 3 * kernel.std() / len(draws) ** 0.5
    assert 0.3 < (kernel < 0).double().mean() < 0.75


# ---- kernel distance


def test_kernel_distance_equals_torchmetrics():
    kid = pytest.importorskip("torchmetrics.image.kid")
    real, generated = torch.randn(40, 16).double(), torch.randn(40, 16).double() + 0.3
    metric = kid.KernelInceptionDistance(GivenFeatures(16), subsets=1, subset_size=40, normalize=True)
    expected, _ = theirs(metric.set_dtype(torch.float64), real, generated)
    assert kernel_distance(real, generated).value == pytest.approx(expected.item(), rel=1e-6)


def test_kernel_distance_by_hand():
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    # within x: (1·2 + 1)³ = 27; within y: 1; between: 1, 8, 1, 27
    assert kernel_distance(x, y).value == pytest.approx(27 + 1 - 2 * (1 + 8 + 1 + 27) / 4)
    # x's first picture drawn twice is no pair with itself: within x it stays 27; between, its pairs count twice
    kernels = torch.tensor([[0.0, 27], [27, 0]]), torch.tensor([[0.0, 1], [1, 0]]), torch.tensor([[1.0, 8], [1, 27]])
    drawn = discrepancy(*kernels, torch.tensor([[2.0, 1]]), torch.tensor([[1.0, 1]]))
    torch.testing.assert_close(drawn, torch.tensor([27 + 1 - 2 * (2 * 1 + 2 * 8 + 1 + 27) / 6]))


def test_the_interval_holds_the_truth_as_often_as_it_says():
    """The truth: the same estimate from very many features."""
    random = torch.Generator().manual_seed(0)

    def draw(n, shift):
        return torch.randn(n, 4, generator=random) + shift

    truth = kernel_distance(draw(4000, 0), draw(4000, 0.7), resamples=1).value
    hits = 0
    for seed in range(100):
        value, low, high = kernel_distance(draw(60, 0), draw(60, 0.7), confidence=0.9, resamples=200, seed=seed)
        assert low < value < high
        hits += low <= truth <= high
    assert 80 <= hits <= 98


def test_the_interval_is_repeatable_and_narrows():
    few, many = (torch.randn(50, 4), torch.randn(50, 4) + 1), (torch.randn(800, 4), torch.randn(800, 4) + 1)
    assert kernel_distance(*few, seed=3) == kernel_distance(*few, seed=3) != kernel_distance(*few, seed=4)
    widths = [interval.high - interval.low for interval in (kernel_distance(*few), kernel_distance(*many))]
    assert 0 < widths[1] < widths[0] / 2
    assert (draw_counts(7, 5, torch.Generator().manual_seed(0)).sum(1) == 5).all()


def test_any_network_gives_the_features():
    real, generated = torch.rand(12, 3, 8, 8), torch.rand(12, 3, 8, 8) / 2
    by_channel = lambda images: images.mean((2, 3))  # noqa: E731
    rows = by_channel(real), by_channel(generated)
    assert frechet_distance(real, generated, by_channel) == frechet_distance(*rows)
    assert kernel_distance(real, generated, by_channel) == kernel_distance(*rows)
    assert precision_recall(real, generated, by_channel) == precision_recall(*rows)
    with pytest.raises(ValueError, match=r"\(12, 3\).*\(12, 2\)"):
        frechet_distance(rows[0], rows[1][:, :2])
    with pytest.raises(ValueError, match="2 or more"):
        kernel_distance(rows[0][:1], rows[1])


# ---- precision and recall


def test_precision_and_recall_on_a_line():
    real = torch.tensor([[0.0], [1.0], [3.0], [10.0]])  # reach of the nearest neighbour: 1, 1, 2, 7
    generated = torch.tensor([[-1.5], [-0.5], [2.0], [18.0]])  # reach: 1, 1, 2.5, 16
    # precision: -1.5 no (0 reaches -1), -0.5 yes, 2 yes (1 reaches 2), 18 no (10 reaches 17)
    # recall: 0 yes (-0.5 reaches 0.5), 1 yes (2), 3 yes (2), 10 yes (18)
    assert precision_recall(real, generated, neighbours=1) == (0.5, 1.0)
    assert precision_recall(generated, real, neighbours=1) == (1.0, 0.5)
    assert share_inside(torch.tensor([[-1.0], [-1.1]]), real, neighbours=1) == 0.5  # the rim of a ball belongs to it


def test_precision_sees_nonsense_and_recall_sees_missing_modes():
    modes = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    real = modes.repeat(50, 1) + 0.3 * torch.randn(200, 2)
    one_mode, everywhere = 0.3 * torch.randn(200, 2), 30 * torch.rand(200, 2) - 10
    precision, recall = precision_recall(real, one_mode)
    assert precision > 0.8 and recall < 0.3
    precision, recall = precision_recall(real, everywhere)
    assert precision < 0.3 and recall > 0.8
    assert precision_recall(real, real) == (1.0, 1.0)
    with pytest.raises(ValueError, match="neighbours=200"):
        precision_recall(real, one_mode, neighbours=200)


# ---- R-precision


def test_r_precision_by_chance_and_when_all_is_right():
    captions = torch.randn(400, 16)
    assert r_precision(captions + 0.01, captions) == 1
    images = torch.randn(400, 16)
    assert r_precision(images, captions, candidates=10) == pytest.approx(0.1, abs=0.06)
    assert r_precision(images, captions, k=5, candidates=10) == pytest.approx(0.5, abs=0.1)
    assert r_precision(images, captions, candidates=10, seed=1) != r_precision(images, captions, candidates=10, seed=2)


def test_r_precision_by_hand():
    captions = torch.eye(4)
    images = torch.eye(4)[[0, 1, 3, 2]]  # the last two are swapped
    assert r_precision(images, captions, candidates=4) == 0.5
    assert r_precision(images, captions, k=3, candidates=4) > 0.5


def test_r_precision_lets_no_caption_compete_with_itself():
    captions = torch.eye(4).repeat(3, 1)
    assert r_precision(captions, captions, candidates=4) == 1
    with pytest.raises(ValueError, match="4 captions"):
        r_precision(captions, captions, candidates=5)


# ---- raters

# Krippendorff 2011, section C: four observers, twelve units
OBSERVERS = torch.tensor(
    [
        [1, 2, 3, 3, 2, 1, 4, 1, 2, NAN, NAN, NAN],
        [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NAN, 3],
        [NAN, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NAN],
        [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NAN],
    ]
)


@pytest.mark.parametrize(("level", "alpha"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)])
def test_alpha_of_the_published_example(level, alpha):
    assert krippendorff_alpha(OBSERVERS, level) == pytest.approx(alpha, abs=0.0005)
    assert krippendorff_alpha(OBSERVERS.flip(0), level) == pytest.approx(alpha, abs=0.0005)


def test_alpha_of_two_observers():
    # Krippendorff 2011, sections A and B
    binary = torch.tensor([[0, 1, 0, 0, 0, 0, 0, 0, 1, 0], [1, 1, 1, 0, 0, 1, 0, 0, 0, 0]])
    assert krippendorff_alpha(binary, "nominal") == pytest.approx(0.095, abs=0.0005)
    first, second = ([ord(c) for c in row] for row in ("aabbdcccedda", "babbbccceddd"))
    assert krippendorff_alpha(torch.tensor([first, second]), "nominal") == pytest.approx(0.692, abs=0.0005)


def test_alpha_of_agreement_and_of_none():
    ratings = torch.tensor([[1.0, 2, 3, 4, 5]])
    assert krippendorff_alpha(ratings.repeat(3, 1), "ordinal") == 1
    assert krippendorff_alpha(torch.cat([ratings, ratings.flip(1)]), "interval") < 0
    assert abs(krippendorff_alpha(torch.randint(5, (6, 500)), "nominal")) < 0.05


@pytest.mark.parametrize(
    ("ratings", "level", "message"),
    [
        (torch.ones(2, 5), "nominal", "different values"),
        (torch.tensor([[1.0, NAN], [NAN, 2.0]]), "nominal", "two raters"),
        (OBSERVERS, "ratio", 'level="ratio"'),
    ],
)
def test_alpha_refuses_what_tells_nothing(ratings, level, message):
    with pytest.raises(CourseError, match=message):
        krippendorff_alpha(ratings, level)
