"""The VAE: each part of its loss equals torch.distributions, chance is where it should be, and it learns."""

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from course_lib.checkpoint import save_checkpoint
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.fit import fit
from course_lib.optim import Adam
from course_lib.vae import VAE, VAEConfig, gaussian_negative_log_likelihood, kl_to_standard_normal, reparametrise


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def small_vae(**changes) -> VAE:
    torch.manual_seed(0)
    return VAE(VAEConfig(**{"image_size": 16, "width": 8, "latent_size": 6, **changes}))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_kl_equals_torch(dtype):
    mean, log_variance = 3 * torch.randn(2, 5, 7, dtype=dtype)
    mean.requires_grad_(), log_variance.requires_grad_()
    ours = kl_to_standard_normal(mean, log_variance)
    theirs = kl_divergence(Normal(mean, (log_variance / 2).exp()), Normal(torch.zeros_like(mean), 1.0)).sum(1)
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(*(torch.autograd.grad(x.sum(), [mean, log_variance]) for x in (ours, theirs)), strict=True):
        torch.testing.assert_close(a, b)


def test_kl_by_hand():
    zeros = torch.zeros(1, 2)
    assert kl_to_standard_normal(zeros, zeros).item() == 0
    assert kl_to_standard_normal(torch.tensor([[3.0, 4.0]]), zeros).item() == pytest.approx(12.5)  # (9 + 16) / 2


def test_likelihood_equals_torch():
    images, predicted = torch.randn(2, 4, 3, 8, 8)
    theirs = -Normal(predicted, 0.3).log_prob(images).flatten(1).sum(1)
    torch.testing.assert_close(gaussian_negative_log_likelihood(images, predicted, 0.3), theirs)
    with pytest.raises(ValueError, match="differ"):
        gaussian_negative_log_likelihood(images, predicted[:1], 0.3)


def test_elbo_parts_are_those_of_the_distributions():
    vae, images = small_vae(pixel_std=0.5), torch.rand(5, 3, 16, 16) * 2 - 1
    parts = vae.elbo_parts(images, seeded(1))
    mean, log_variance = vae.encode(images)
    cloud = Normal(mean, (log_variance / 2).exp())
    torch.testing.assert_close(parts.kl, kl_divergence(cloud, Normal(0.0, 1.0)).sum(1))
    point = mean + cloud.scale * torch.randn(5, 6, generator=seeded(1))
    picture = Normal(vae.decode(point), 0.5)
    torch.testing.assert_close(parts.reconstruction, -picture.log_prob(images).flatten(1).sum(1))
    for beta in (0.0, 1.0, 4.0):
        loss = vae.loss(images, beta, seeded(1))
        torch.testing.assert_close(loss, (parts.reconstruction + beta * parts.kl).mean())


def test_reparametrised_points_have_the_mean_and_spread_asked_for():
    mean = torch.tensor([[2.0, -1.0]]).expand(20_000, 2)
    points = reparametrise(mean, torch.tensor([[0.0, -2.0]]).expand(20_000, 2), seeded())
    torch.testing.assert_close(points.mean(0), mean[0], atol=0.03, rtol=0)
    torch.testing.assert_close(points.std(0), torch.tensor([1.0, torch.e**-1]), atol=0.02, rtol=0)


def test_gradients_pass_the_dice():
    mean, log_variance = torch.randn(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    point = reparametrise(mean, log_variance, seeded())
    slopes = torch.autograd.grad(point.sum(), [mean, log_variance])
    torch.testing.assert_close(slopes[0], torch.ones(3, 2))
    torch.testing.assert_close(slopes[1], (point - mean).detach() / 2)  # d e^(v/2) n / dv = e^(v/2) n / 2


def test_loss_is_finite_however_wild_the_encoder():
    vae = small_vae()
    vae.encoder.output.weight.data *= 1e4
    loss = vae.loss(torch.randn(4, 3, 16, 16), random=seeded())
    loss.backward()
    assert loss.isfinite() and all(p.grad.isfinite().all() for p in vae.parameters())


@pytest.mark.parametrize("image_size", [16, 32, 64])
def test_pictures_have_their_shapes(image_size):
    vae = small_vae(image_size=image_size).eval()
    images = torch.rand(2, 3, image_size, image_size) * 2 - 1
    mean, log_variance = vae.encode(images)
    assert mean.shape == log_variance.shape == (2, 6)
    for pictures, count in [(vae.reconstruct(images), 2), (vae.sample(3), 3), (vae.interpolate(*images, 5), 5)]:
        assert pictures.shape == (count, 3, image_size, image_size) and pictures.abs().max() <= 1
        assert not pictures.requires_grad


def test_samples_follow_their_seed_and_interpolation_goes_from_end_to_end():
    vae = small_vae().eval()
    assert torch.equal(vae.sample(3, seed=1), vae.sample(3, seed=1))
    assert not torch.equal(vae.sample(3, seed=1), vae.sample(3, seed=2))
    images = torch.rand(2, 3, 16, 16) * 2 - 1
    way = vae.interpolate(*images, 3)
    torch.testing.assert_close(way[[0, 2]], vae.reconstruct(images))
    torch.testing.assert_close(way[1], vae.decode(vae.encode(images)[0].mean(0, keepdim=True))[0])
    with pytest.raises(ValueError, match="steps=1"):
        vae.interpolate(*images, 1)


def test_it_learns_and_beta_buys_nearness_to_the_prior_with_reconstruction():
    shapes = CaptionedShapes(image_size=16, length=256)
    images, ends = shapes.images(range(256)), {}
    for beta in (0.1, 10.0):
        vae, random = small_vae(), seeded()
        loss = lambda model, x, beta=beta, random=random: model.loss(x, beta, random)  # noqa: E731
        fit(vae, lambda step: (images[step % 4 * 64 :][:64],), loss, Adam(vae.parameters(), lr=3e-3), 120)
        with torch.no_grad():
            ends[beta] = [part.mean().item() for part in vae.elbo_parts(images, seeded())]
    (tight_error, tight_kl), (loose_error, loose_kl) = ends[0.1], ends[10.0]
    mean_image = images.mean(0, keepdim=True).expand_as(images)
    assert tight_error < gaussian_negative_log_likelihood(images, mean_image, 0.2).mean()  # better than one mean
    assert tight_error < loose_error and tight_kl > 2 * loose_kl > 0


@pytest.mark.parametrize("changes", [{"latent_size": 0}, {"pixel_std": 0.0}, {"image_size": 40}, {"width": 10**9}])
def test_impossible_sizes_are_refused(changes):
    with pytest.raises(CourseError, match=f"{next(iter(changes))}="):
        VAEConfig(**changes)


def test_a_trained_vae_is_loaded_ready_to_draw(tmp_path):
    vae = small_vae(pixel_std=0.5)
    config = {"kind": "vae", "vae": vars(vae.config)}
    loaded = VAE.from_pretrained(save_checkpoint(tmp_path / "vae", vae.state_dict(), config))
    assert loaded.config == vae.config and not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())
    assert torch.equal(loaded.sample(3), vae.eval().sample(3))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"kind": "judge"}, "holds a judge checkpoint"),
        ({}, "holds a foreign checkpoint"),
        ({"kind": "vae"}, "not an object"),
        ({"kind": "vae", "vae": {"latent_size": 5}}, "another architecture"),
    ],
)
def test_other_checkpoints_are_refused(tmp_path, config, complaint):
    folder = save_checkpoint(tmp_path / "other", small_vae().state_dict(), config)
    with pytest.raises(CourseError, match=complaint):
        VAE.from_pretrained(folder)
    with pytest.raises(CourseError, match="no checkpoint"):
        VAE.from_pretrained("no-such-model")
