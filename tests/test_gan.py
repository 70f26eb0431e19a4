"""The game: data, players, every loss moves only its player, a small game is won, and each failure really fails."""

import copy
import math

import pytest
import torch

from course_lib import losses
from course_lib.checkpoint import save_checkpoint
from course_lib.errors import CourseError
from course_lib.gan import (
    GAN_LOSSES,
    AdversarialStep,
    DCGANConfig,
    DCGANDiscriminator,
    DCGANGenerator,
    MLPDiscriminator,
    MLPGenerator,
    covered_modes,
    mixture_1d,
    ring_centers,
    ring_of_gaussians,
)
from course_lib.layers import BatchNorm2d, Conv2d, ConvTranspose2d


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def game(**settings) -> AdversarialStep:
    torch.manual_seed(0)
    players = {"generator": MLPGenerator(2, 2, 16), "discriminator": MLPDiscriminator(2, 16)}
    return AdversarialStep(**{**players, **settings})


def weights(player: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in player.parameters()]).clone()


# ---- data


def test_points_on_a_line_lie_in_their_heaps():
    points = mixture_1d(3000, seeded(), means=(-1.0, 2.0), std=0.1)
    assert points.shape == (3000, 1) and torch.equal(points, mixture_1d(3000, seeded(), (-1.0, 2.0), 0.1))
    for mean in (-1.0, 2.0):
        heap = points[(points - mean).abs() < 0.6]
        assert heap.mean().item() == pytest.approx(mean, abs=0.02) and heap.std().item() == pytest.approx(0.1, rel=0.1)
        assert 1350 < len(heap) < 1650


def test_ring_has_its_heaps_at_equal_distances():
    centers = ring_centers(8, 2.0)
    torch.testing.assert_close(centers.norm(dim=1), torch.full((8,), 2.0))
    gaps = (centers - centers.roll(1, 0)).norm(dim=1)
    torch.testing.assert_close(gaps, torch.full((8,), 2 * 2.0 * math.sin(math.pi / 8)))
    points = ring_of_gaussians(4000, seeded())
    distances, nearest = torch.cdist(points, centers).min(1)
    assert points.shape == (4000, 2) and nearest.bincount().min() > 400
    assert distances.square().mean().sqrt().item() == pytest.approx(0.1 * math.sqrt(2), rel=0.05)


def test_covered_modes_by_hand():
    centers = torch.tensor([[0.0, 0.0], [1.0, 0.0], [2.0, 0.0], [3.0, 0.0]])
    points = torch.tensor([[0.0, 0.1]] * 14 + [[1.0, 0.0], [2.0, 0.25]] + [[9.0, 9.0]] * 4)  # shares .7, .05 and .05
    assert covered_modes(points, centers) == (1, pytest.approx(0.8))  # 1/16 of the points is a quarter of fair
    assert covered_modes(centers, centers) == (4, 1.0)
    assert covered_modes(ring_of_gaussians(2000, seeded()), ring_centers())[0] == 8


# ---- players


@pytest.mark.parametrize("image_size", [16, 32, 64])
def test_pictures_and_logits_have_their_shapes(image_size):
    config = DCGANConfig(image_size, z_size=6, width=4)
    images = DCGANGenerator(config)(torch.randn(3, 6))
    assert images.shape == (3, 3, image_size, image_size) and images.abs().max() <= 1
    assert DCGANDiscriminator(config)(images).shape == (3,)


def test_every_weight_of_a_dcgan_is_used():
    config = DCGANConfig(32, 6, 4)
    generator, discriminator = DCGANGenerator(config), DCGANDiscriminator(config)
    discriminator(generator(torch.randn(4, 6))).square().sum().backward()
    for name, parameter in [*generator.named_parameters(), *discriminator.named_parameters()]:
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


def test_points_and_logits_have_their_shapes():
    for size in (1, 2):
        points = MLPGenerator(3, size, 8)(torch.randn(5, 3))
        assert points.shape == (5, size) and MLPDiscriminator(size, 8)(points).shape == (5,)
    assert len(MLPGenerator(layers=5).layers) == len(MLPDiscriminator(layers=5).layers) == 6


def test_dcgan_is_the_papers():
    config = DCGANConfig(image_size=64, z_size=100, width=128)  # Radford et al. 2015, figure 1
    with torch.device("meta"):  # shapes only: it has 14 million weights
        generator, discriminator = DCGANGenerator(config, False), DCGANDiscriminator(config, False)
    assert generator.start.weight.shape == (100, 1024, 4, 4)
    assert [tuple(up.weight.shape[:2]) for up in generator.ups] == [(1024, 512), (512, 256), (256, 128), (128, 3)]
    downs = [discriminator.first, *discriminator.downs, discriminator.output]
    assert [layer.weight.shape[0] for layer in downs] == [128, 256, 512, 1024, 1]
    # normalised everywhere but on the generator's output and the discriminator's input; no hidden linear layers
    assert len(generator.norms) == len(generator.ups) and len(discriminator.norms) == len(discriminator.downs)
    kinds = {
        type(layer) for player in (generator, discriminator) for layer in player.modules() if not any(layer.children())
    }
    assert kinds == {Conv2d, ConvTranspose2d, BatchNorm2d}


def test_dcgan_initialisation_is_applied_to_every_weight():
    config = DCGANConfig(32, 64, 32)
    for player in (DCGANGenerator(config), DCGANDiscriminator(config)):
        for layer in player.modules():
            if isinstance(layer, (Conv2d, ConvTranspose2d)):
                assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
            elif isinstance(layer, BatchNorm2d):
                assert layer.weight.mean().item() == pytest.approx(1, abs=0.02) and 0.01 < layer.weight.std() < 0.03


def test_initialisation_can_be_left_out_and_the_signal_shrinks():
    config, x = DCGANConfig(32, 64, 32), torch.randn(256, 2)
    assert DCGANDiscriminator(config, initialise=False).downs[0].weight.std() > 0.025  # torch's own: 0.0255
    assert DCGANGenerator(config, initialise=False).norms[0].weight.std() == 0
    for kind in (lambda **k: MLPGenerator(2, 2, 256, **k), lambda **k: MLPDiscriminator(2, 256, **k)):
        assert kind(initialise=True)(x).std() > 4 * kind(initialise=False)(x).std()


def test_the_kinks_of_small_players_do_not_all_meet_at_the_origin():
    """With biases of zero the players would be homogeneous: f(2x) - f(0) = 2 (f(x) - f(0))."""
    x = torch.randn(64, 2)
    for player in (MLPGenerator(), MLPDiscriminator()):
        at_zero = player(torch.zeros(1, 2))
        gap = (player(2 * x) - at_zero) - 2 * (player(x) - at_zero)
        assert gap.abs().mean() > 0.1


def test_a_trained_generator_comes_back_and_strangers_are_refused(tmp_path):
    config = DCGANConfig(16, 4, 4)
    trained, discriminator = DCGANGenerator(config), DCGANDiscriminator(config)
    trained(torch.randn(8, 4))  # moves the running statistics of its norms
    tensors = {f"generator.{name}": x for name, x in trained.state_dict().items()}
    tensors |= {f"discriminator.{name}": x for name, x in discriminator.state_dict().items()}
    save_checkpoint(tmp_path / "good", tensors, {"kind": "dcgan", "players": vars(config)})
    loaded, z = DCGANGenerator.from_pretrained(tmp_path / "good"), torch.randn(3, 4)
    assert torch.equal(loaded(z), trained.eval()(z)) and loaded.config == config
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    save_checkpoint(tmp_path / "other", tensors, {"kind": "vae", "players": vars(config)})
    save_checkpoint(tmp_path / "wider", tensors, {"kind": "dcgan", "players": vars(DCGANConfig(16, 4, 8))})
    for folder, words in [("other", "holds a vae"), ("wider", "another architecture"), ("absent", "no checkpoint")]:
        with pytest.raises(CourseError, match=words):
            DCGANGenerator.from_pretrained(tmp_path / folder)


@pytest.mark.parametrize("bad", [{"image_size": 48}, {"width": 10**6}, {"z_size": 0}])
def test_impossible_sizes_are_refused(bad):
    with pytest.raises(CourseError, match=f"{next(iter(bad))}="):
        DCGANConfig(**bad)


# ---- the step


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_each_answer_moves_only_its_player(loss):
    step, real = game(loss=loss, r1_weight=0.1, r2_weight=0.1), ring_of_gaussians(16, seeded())
    generator, discriminator = weights(step.generator), weights(step.discriminator)
    assert step.discriminator_step(real).isfinite()
    assert torch.equal(weights(step.generator), generator)
    assert not torch.equal(weights(step.discriminator), discriminator)
    discriminator = weights(step.discriminator)
    assert step.generator_step(real).isfinite()
    assert torch.equal(weights(step.discriminator), discriminator)
    assert not torch.equal(weights(step.generator), generator)
    assert all(p.requires_grad for p in step.discriminator.parameters()) and real.grad is None


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_each_answer_makes_its_players_loss_smaller(loss):
    """On the same noise and data, a small step downhill."""
    for player in ("generator_step", "discriminator_step"):
        step, real = game(loss=loss, learning_rates=(1e-3, 1e-3)), ring_of_gaussians(64, seeded())
        values = []
        for _ in range(2):
            step.random.manual_seed(5)
            values.append(getattr(step, player)(real).item())
        assert values[1] < values[0]


def test_losses_are_those_of_the_library():
    real_logits, fake_logits = torch.randn(2, 6)
    names = {
        "non-saturating": (losses.discriminator_loss, losses.generator_loss(fake_logits)),
        "saturating": (losses.discriminator_loss, losses.saturating_generator_loss(fake_logits)),
        "hinge": (losses.hinge_discriminator_loss, losses.hinge_generator_loss(fake_logits)),
        "relativistic": (
            losses.relativistic_discriminator_loss,
            losses.relativistic_generator_loss(real_logits, fake_logits),
        ),
    }
    assert names.keys() == GAN_LOSSES.keys()
    for name, (of_discriminator, of_generator) in names.items():
        for_discriminator, for_generator = GAN_LOSSES[name]
        assert for_discriminator(real_logits, fake_logits) == of_discriminator(real_logits, fake_logits)
        assert for_generator(real_logits, fake_logits) == of_generator


def test_penalties_are_half_the_squared_slope_at_real_and_at_generated_points():
    """D is a plane with slope w: each penalty adds weight * |w|^2 / 2, whose gradient is weight * w."""

    class Plane(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.slope = torch.nn.Parameter(torch.tensor([3.0, -4.0]))

        def forward(self, x):
            return x @ self.slope

    gradients = {}
    for weights_of_penalties in [(0.0, 0.0), (0.5, 0.0), (0.0, 0.25)]:
        r1_weight, r2_weight = weights_of_penalties
        step = game(discriminator=Plane(), r1_weight=r1_weight, r2_weight=r2_weight)
        step.discriminator_optimizer.step = lambda: None
        loss = step.discriminator_step(ring_of_gaussians(16, seeded()))
        gradients[weights_of_penalties] = step.discriminator.slope.grad, loss
    plain, loss = gradients.pop((0.0, 0.0))
    for (r1_weight, r2_weight), (gradient, same_loss) in gradients.items():
        torch.testing.assert_close(gradient - plain, (r1_weight + r2_weight) * torch.tensor([3.0, -4.0]))
        assert same_loss == loss  # the loss is told without its penalties


@pytest.mark.parametrize(("d", "g"), [(1, 1), (3, 1), (1, 4)])
def test_players_answer_as_often_as_asked(d, g):
    step = game(discriminator_steps=d, generator_steps=g)
    values = step(ring_of_gaussians(8, seeded()))
    assert set(step.discriminator_optimizer.steps) == {d} and set(step.generator_optimizer.steps) == {g}
    assert values.keys() == {"loss_d", "loss_g"} and all(math.isfinite(value) for value in values.values())


def test_learning_rates_and_seed_reach_their_place():
    step = game(learning_rates=(0.0, 1e-3))
    before = weights(step.generator), weights(step.discriminator)
    step(ring_of_gaussians(8, seeded()))
    assert torch.equal(weights(step.generator), before[0]) and not torch.equal(weights(step.discriminator), before[1])
    assert torch.equal(game(seed=3).fake(4), game(seed=3).fake(4))
    assert not torch.equal(game(seed=3).fake(4), game(seed=4).fake(4))


@pytest.mark.parametrize("loss", GAN_LOSSES)
def test_the_common_loss_moves_both_players_down_the_sum(loss):
    step, real = game(loss=loss, joint=True), ring_of_gaussians(16, seeded())
    step.random.manual_seed(5)
    logits = step.discriminator(real), step.discriminator(step.fake(16))
    both = [*step.generator.parameters(), *step.discriminator.parameters()]
    for_discriminator, for_generator = GAN_LOSSES[loss]
    expected = torch.autograd.grad(for_discriminator(*logits) + for_generator(*logits), both)
    before = weights(step.generator), weights(step.discriminator)
    step.random.manual_seed(5)
    step(real)
    for parameter, gradient in zip(both, expected, strict=True):
        torch.testing.assert_close(parameter.grad, gradient)
    assert not torch.equal(weights(step.generator), before[0])
    assert not torch.equal(weights(step.discriminator), before[1])


def test_dcgan_plays_too():
    config = DCGANConfig(16, 4, 4)
    real = torch.rand(8, 3, 16, 16) * 2 - 1
    step = AdversarialStep(DCGANGenerator(config), DCGANDiscriminator(config), "relativistic", r1_weight=1, r2_weight=1)
    before = copy.deepcopy(step.generator)
    assert all(math.isfinite(value) for value in step(real).values())
    assert not torch.equal(weights(before), weights(step.generator))


@pytest.mark.parametrize("bad", [{"loss": "hing"}, {"discriminator_steps": 0}, {"generator_steps": -1}])
def test_bad_settings_are_refused(bad):
    with pytest.raises(CourseError, match=f"{next(iter(bad))}="):
        game(**bad)


# ---- the game is won, and lost in each of the ways the chapter shows


def play(rounds: int, **settings) -> tuple[int, float]:
    """Modes found and share of good points after a game for the ring."""
    torch.manual_seed(0)
    settings = {"learning_rates": (2e-3, 4e-3), "r1_weight": 0.01, **settings}
    step, random = AdversarialStep(MLPGenerator(), MLPDiscriminator(), **settings), seeded()
    for _ in range(rounds):
        step(ring_of_gaussians(128, random))
    with torch.no_grad():
        return covered_modes(step.fake(1000), ring_centers())


def test_a_small_gan_finds_the_heaps():
    modes, good = play(1000)
    assert modes >= 6 and good > 0.4


def test_the_common_loss_finds_none():
    for loss in ("non-saturating", "saturating"):
        modes, good = play(300, loss=loss, joint=True)
        assert modes <= 1 and good < 0.2


def test_a_generator_that_answers_too_often_runs_from_one_heap_to_the_next():
    tightest = {}
    for generator_steps in (1, 10):
        torch.manual_seed(0)
        players, random = (MLPGenerator(), MLPDiscriminator()), seeded()
        step = AdversarialStep(*players, learning_rates=(2e-3, 4e-3), generator_steps=generator_steps)
        spreads = []
        for _ in range(100):
            step(ring_of_gaussians(128, random))
            with torch.no_grad():
                spreads.append(step.fake(200).std(0).norm().item())  # 2 for the ring
        tightest[generator_steps] = min(spreads[20:])
    assert tightest[10] < 0.5 and tightest[1] > 1, tightest


def test_a_dominant_discriminator_stops_a_saturating_generator():
    slope = {}
    for loss in ("saturating", "non-saturating"):
        torch.manual_seed(0)
        step = AdversarialStep(MLPGenerator(2), MLPDiscriminator(), loss, (1e-5, 1e-2), discriminator_steps=10)
        for _ in range(60):
            step(10 + ring_of_gaussians(64, seeded()))  # far from what G draws: easily told apart
        slope[loss] = max(p.grad.abs().max().item() for p in step.generator.parameters())
    assert slope["saturating"] < 1e-3 * slope["non-saturating"]
