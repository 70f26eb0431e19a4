"""The encoder and its mirror, the views, NT-Xent against a plain double loop, features that beat pixels."""

import math

import pytest
import torch

from course_lib.data.captions import SINGLE
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.fit import fit
from course_lib.image_encoder import (
    Augmentation,
    Autoencoder,
    ImageDecoder,
    ImageEncoder,
    ImageEncoderConfig,
    SelfSupervised,
    augment,
    linear_probe,
    nt_xent_loss,
    pretrain,
    resampling_matrix,
    ridge_regression,
)
from course_lib.optim import Adam

NOTHING = Augmentation(shift=0, zoom=0, color=0, noise=0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def only(**much: float) -> Augmentation:
    return Augmentation(**{"shift": 0, "zoom": 0, "color": 0, "noise": 0, **much})


def pictures(n: int = 4, size: int = 16) -> torch.Tensor:
    return torch.rand(n, 3, size, size, generator=seeded(9)) * 2 - 1


@pytest.mark.parametrize("image_size", [16, 32, 64, 128])
def test_there_and_back_again_in_shapes(image_size):
    config = ImageEncoderConfig(image_size, width=8, output_size=10)
    vectors = ImageEncoder(config)(pictures(2, image_size))
    images = ImageDecoder(config)(vectors)
    assert vectors.shape == (2, 10) and images.shape == (2, 3, image_size, image_size)
    assert images.abs().max() <= 1


def test_shipped_weights_still_fit():
    """Checkpoints depend on these names and shapes."""
    shapes = {name: tuple(x.shape) for name, x in ImageEncoder(ImageEncoderConfig(32, 32, 96)).state_dict().items()}
    assert shapes.pop("output.weight") == (96, 128 * 16) and shapes.pop("output.bias") == (96,)
    for i, (a, b) in enumerate([(3, 32), (32, 64), (64, 128)]):
        assert shapes.pop(f"convolutions.{i}.weight") == (b, a, 4, 4)
        for name in ("weight", "bias", "running_mean", "running_var"):
            assert shapes.pop(f"norms.{i}.{name}") == (b,)
        assert shapes.pop(f"norms.{i}.num_batches_tracked") == ()
    assert not shapes


def test_decoder_mirrors_the_encoder():
    encoder, decoder = (kind(ImageEncoderConfig(64, 16, 10)) for kind in (ImageEncoder, ImageDecoder))
    there = [tuple(layer.weight.shape) for layer in encoder.convolutions]
    back = [tuple(layer.weight.shape) for layer in decoder.ups]
    assert there == back[::-1] and encoder.output.weight.shape == decoder.start.weight.T.shape


def test_autoencoder_learns_to_draw_what_it_saw():
    images = CaptionedShapes(image_size=16, length=64).images(range(64))
    model = Autoencoder(ImageEncoderConfig(16, 8, 24))
    torch.testing.assert_close(model.loss(images), torch.nn.functional.mse_loss(model(images), images))
    losses = fit(model, lambda step: (images,), Autoencoder.loss, Adam(model.parameters(), lr=5e-3), 60)
    best_constant = (images - images.mean(0)).square().mean().item()
    assert losses[-1] < 0.5 * best_constant


@pytest.mark.parametrize("size", [{"image_size": 24}, {"width": 0}, {"output_size": 10**9}])
def test_impossible_sizes_are_refused(size):
    with pytest.raises(CourseError, match=f"{next(iter(size))}="):
        ImageEncoderConfig(**size)


# ---- views


def test_nothing_asked_for_nothing_changed():
    torch.testing.assert_close(augment(pictures(), seeded(), NOTHING), pictures())


def test_a_shift_by_whole_pixels_moves_and_repeats_the_border():
    matrix = resampling_matrix(5, torch.ones(2), torch.tensor([1.0, -2.0]))
    line = torch.tensor([10.0, 20.0, 30.0, 40.0, 50.0])
    assert (matrix[0] @ line).tolist() == [10, 10, 20, 30, 40] and (matrix[1] @ line).tolist() == [30, 40, 50, 50, 50]


def test_zoom_and_flip_by_hand():
    line = torch.tensor([0.0, 10.0, 20.0, 30.0])
    matrix = resampling_matrix(4, torch.tensor([-1.0, 2.0, 0.5]), torch.zeros(3))
    assert (matrix[0] @ line).tolist() == [30, 20, 10, 0]
    assert (matrix[1] @ line).tolist() == [7.5, 12.5, 17.5, 22.5]  # half the picture, twice as large
    assert (matrix[2] @ line).tolist() == [0, 5, 25, 30]  # everything smaller, the border goes on
    torch.testing.assert_close(matrix.sum(2), torch.ones(3, 4))


def test_rows_and_columns_move_independently_and_at_most_as_far_as_asked():
    dot = torch.full((200, 3, 16, 16), -1.0)
    dot[:, :, 8, 8] = 1.0
    light = (augment(dot, seeded(), only(shift=3)) + 1).mean(1)  # (B, S, S)
    places = torch.arange(16.0)
    for axis in (1, 2):
        moved = (light.sum(axis) * places).sum(1) / light.sum((1, 2)) - 8  # centre of the light
        assert 2.5 < moved.max() <= 3.001 and -3.001 <= moved.min() < -2.5 and moved.mean().abs() < 0.4
    down, right = ((light.sum(axis) * places).sum(1) / light.sum((1, 2)) for axis in (2, 1))
    assert torch.corrcoef(torch.stack([down, right]))[0, 1].abs() < 0.2


def test_half_of_the_pictures_are_mirrored():
    images = pictures(1).expand(200, -1, -1, -1)
    views = augment(images, seeded(), only(flip=True))
    mirrored = (views - images.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    same = (views - images).abs().amax((1, 2, 3)) < 1e-5
    assert (mirrored ^ same).all() and 70 < mirrored.sum() < 130


def test_color_changes_each_channel_as_a_whole():
    images = pictures() / 2
    views = augment(images, seeded(), only(color=0.3))
    contrasts = views.flatten(1).std(1) / images.flatten(1).std(1)
    assert contrasts.std() > 0.05  # each picture has its own
    for picture, view in zip(images.flatten(2), views.flatten(2), strict=True):  # (3, S * S)
        slopes = ((view - view.mean(1, keepdim=True)) / (picture - picture.mean(1, keepdim=True))).mean(1)
        assert slopes.std() < 1e-3 and (slopes - 1).abs().max() < 0.3  # one contrast for all channels
        offsets = view.mean(1) - slopes * picture.mean(1)
        assert offsets.abs().max() < 0.3 and offsets.std() > 1e-3  # a brightness for each


def test_noise_has_its_strength_and_pictures_stay_in_range():
    views = augment(torch.zeros(20, 3, 16, 16), seeded(), only(noise=0.1))
    assert views.std().item() == pytest.approx(0.1, rel=0.05)
    assert augment(pictures(), seeded(), Augmentation(noise=2.0, color=1.0)).abs().max() <= 1


def test_views_follow_the_seed_and_every_picture_gets_its_own():
    images = pictures(1).expand(3, -1, -1, -1)
    views = augment(images, seeded(1))
    assert torch.equal(views, augment(images, seeded(1))) and not torch.equal(views, augment(images, seeded(2)))
    for much in (only(shift=2), only(zoom=0.2), only(color=0.2), only(noise=0.2)):
        views = augment(images, seeded(1), much)
        assert not torch.allclose(views[0], views[1]) and not torch.allclose(views[1], views[2])


@pytest.mark.parametrize("bad", [{"shift": -1}, {"zoom": 1}, {"noise": math.nan}, {"color": -0.1}])
def test_impossible_augmentations_are_refused(bad):
    with pytest.raises(CourseError, match=f"{next(iter(bad))}="):
        Augmentation(**bad)


# ---- NT-Xent


def double_loop(a: torch.Tensor, b: torch.Tensor, temperature: float) -> float:
    """Chen et al. 2020, eq. 1, number by number."""
    views, total = [*a, *b], 0.0
    similar = [[math.exp((u @ v / (u.norm() * v.norm())).item() / temperature) for v in views] for u in views]
    for i in range(len(views)):
        partner = (i + len(a)) % len(views)
        strangers_and_partner = sum(similar[i][k] for k in range(len(views)) if k != i)
        total -= math.log(similar[i][partner] / strangers_and_partner)
    return total / len(views)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_nt_xent_equals_a_plain_double_loop(temperature):
    a, b = 3 * torch.randn(2, 5, 7, dtype=torch.float64)
    assert nt_xent_loss(a, b, temperature).item() == pytest.approx(double_loop(a, b, temperature), rel=1e-9)


def test_nt_xent_gradient_is_the_derivative():
    a, b = torch.randn(2, 4, 3, dtype=torch.float64)
    assert torch.autograd.gradcheck(nt_xent_loss, (a.requires_grad_(), b.requires_grad_()))


def test_nt_xent_at_its_ends():
    equal = torch.ones(4, 3)
    assert nt_xent_loss(equal, equal).item() == pytest.approx(math.log(7))  # nothing learned: 7 other views
    assert nt_xent_loss(torch.eye(4), torch.eye(4), 0.01).item() == pytest.approx(0, abs=1e-6)
    assert nt_xent_loss(torch.zeros(4, 3), torch.zeros(4, 3)).isfinite()
    with pytest.raises(ValueError, match="differ"):
        nt_xent_loss(torch.ones(4, 3), torch.ones(1, 3))


def test_self_supervised_loss_compares_the_heads_vectors():
    model, (a, b) = SelfSupervised(ImageEncoder(ImageEncoderConfig(16, 8, 12)), 5, 0.3).eval(), pictures(8).chunk(2)
    heads = [model.output(model.hidden(model.encoder(x).relu()).relu()) for x in (a, b)]
    torch.testing.assert_close(model(a, b), nt_xent_loss(*heads, 0.3))
    assert heads[0].shape == (4, 5)


# ---- probes


@pytest.mark.parametrize("rows", [4, 30])  # fewer rows than columns, and more
def test_ridge_regression_is_where_the_gradient_vanishes(rows):
    x, y = torch.randn(rows, 9, dtype=torch.float64), torch.randn(rows, 2, dtype=torch.float64)
    w = ridge_regression(x, y, 0.3).requires_grad_()
    error = (x @ w - y).square().sum() / rows + 0.3 * w.square().sum()
    torch.testing.assert_close(torch.autograd.grad(error, w)[0], torch.zeros_like(w))


def test_linear_probe_reads_what_is_linear_and_nothing_else():
    x = torch.randn(600, 5)
    linear = (x @ torch.randn(5, 3) + torch.tensor([0.5, 0.0, -0.5])).argmax(1)
    exclusive_or = ((x[:, 0] > 0) ^ (x[:, 1] > 0)).long()
    ugly = x * torch.tensor([1e3, 1.0, 1e-3, 1.0, 1.0]) + 50  # neither scale nor offset may matter
    assert linear_probe(ugly[:400], linear[:400], ugly[400:], linear[400:]) > 0.85
    assert linear_probe(x[:400], exclusive_or[:400], x[400:], exclusive_or[400:]) < 0.6


def test_linear_probe_counts_what_is_right():
    x = torch.tensor([[-1.0], [-1.0], [1.0], [1.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert linear_probe(x, labels, torch.tensor([[-2.0], [3.0], [4.0], [-5.0]]), torch.tensor([0, 1, 0, 0])) == 0.75
    constant = torch.ones(4, 1)  # a feature that says nothing: the commonest label wins
    skewed = torch.tensor([2, 2, 2, 0])
    assert linear_probe(constant, skewed, constant, skewed) == 0.75


def test_self_supervised_features_are_worth_more_than_pixels():
    """A small version of measure_features.py, which says how much more at 32 pixels."""

    def labelled(n: int, seed: int):
        shapes = CaptionedShapes("all", 16, seed, length=n)
        scenes = [shapes.attributes(i) for i in range(n)]
        labels = torch.tensor([[values.index(scene[name]) for name, values in SINGLE.items()] for scene in scenes])
        return shapes.images(range(n)), labels

    def probe(read, penalty: float = 0.01) -> float:
        return sum(linear_probe(read(x), y[:, i], read(x_test), y_test[:, i], penalty) for i in range(5)) / 5

    (x, y), (x_test, y_test) = labelled(500, 1), labelled(500, 2)
    encoder = ImageEncoder(ImageEncoderConfig(16, 16, 128)).eval()
    untrained = torch.no_grad()(probe)(encoder)
    losses = pretrain(encoder, CaptionedShapes("train", 16, 7, length=2000).images(range(2000)), 120, batch_size=64)
    trained = torch.no_grad()(probe)(encoder)
    pixels = max(probe(lambda images: images.flatten(1), penalty) for penalty in (0.01, 0.1, 1.0))
    assert losses[-1] < losses[0] / 2 and not encoder.training
    assert trained > pixels + 0.15 and trained > untrained + 0.03, (trained, pixels, untrained)


def test_pretraining_repeats_with_its_seed():
    def weights(seed: int) -> torch.Tensor:
        torch.manual_seed(0)
        encoder = ImageEncoder(ImageEncoderConfig(16, 4, 8))
        pretrain(encoder, pictures(16), 2, batch_size=8, seed=seed)
        return encoder.output.weight

    assert torch.equal(weights(1), weights(1)) and not torch.equal(weights(1), weights(2))
