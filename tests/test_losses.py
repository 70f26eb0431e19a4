"""Losses against torch: value and gradient, at ordinary and at extreme inputs."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad, gradcheck, gradgradcheck

from course_lib import losses

EXTREME_LOGITS = [0.0, 1e-3, -1e-3, 1.0, -1.0, 20.0, -20.0, 88.0, -88.0, 100.0, -100.0, 1e4, -1e4]
DTYPES = [torch.float32, torch.float64]


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_same(ours, theirs, inputs):
    """Value and gradients of two losses of the same inputs."""
    a, b = ours(*inputs), theirs(*inputs)
    torch.testing.assert_close(a, b, msg=lambda text: f"value: {text}")
    wanted = [x for x in inputs if x.requires_grad]
    for x, y in zip(grad(a, wanted), grad(b, wanted), strict=True):
        torch.testing.assert_close(x, y, msg=lambda text: f"gradient: {text}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(7,), (1,), (2, 3, 4, 4)])
def test_mse_loss_equals_torch(shape, dtype):
    assert_same(losses.mse_loss, F.mse_loss, [random(*shape, dtype=dtype), random(*shape, dtype=dtype, seed=1)])


def test_mse_loss_at_large_values():
    assert_same(losses.mse_loss, F.mse_loss, [1e8 * random(5).detach().requires_grad_(), random(5, seed=1)])


@pytest.mark.parametrize("dtype", DTYPES)
def test_bce_loss_equals_torch_also_at_zero_and_one(dtype):
    for target in (0.0, 1.0, 0.25):
        for p in (0.0, 1.0, 0.5, 1e-3, 1 - 1e-3, 1e-20, 1e-13, 1 - 1e-7):
            input = torch.tensor([p, 0.3], dtype=dtype, requires_grad=True)
            targets = torch.tensor([target, 0.0], dtype=dtype)
            assert_same(losses.bce_loss, F.binary_cross_entropy, [input, targets])


def test_bce_loss_gradients_are_the_derivative():
    p, target = torch.sigmoid(random(6)).detach().requires_grad_(), torch.sigmoid(random(6, seed=1)).detach()
    assert gradcheck(losses.bce_loss, (p, target.clone().requires_grad_()))
    assert gradgradcheck(losses.bce_loss, (p, target))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_bce_with_logits_equals_torch(dtype, target):
    for logit in EXTREME_LOGITS:  # one by one: a mean would hide the small ones
        logits = torch.tensor([logit], dtype=dtype, requires_grad=True)
        targets = torch.full((1,), target, dtype=dtype)
        assert_same(losses.bce_with_logits, F.binary_cross_entropy_with_logits, [logits, targets])
    many = random(2, 3, dtype=dtype)
    assert_same(losses.bce_with_logits, F.binary_cross_entropy_with_logits, [many, torch.full_like(many, target)])


def test_bce_with_logits_by_hand():
    value = losses.bce_with_logits(torch.tensor([0.0, math.log(3.0)]), torch.tensor([1.0, 0.0]))
    assert value.item() == pytest.approx((math.log(2) + math.log(4)) / 2, rel=1e-6)  # probabilities 1/2 and 3/4


@pytest.mark.parametrize("dtype", DTYPES)
def test_softplus_equals_torch_and_stays_finite(dtype):
    x = torch.tensor(EXTREME_LOGITS, dtype=dtype, requires_grad=True)
    torch.testing.assert_close(losses.softplus(x), torch.logaddexp(x, torch.zeros_like(x)))
    (slope,) = grad(losses.softplus(x).sum(), x, create_graph=True)
    torch.testing.assert_close(slope, torch.sigmoid(x))
    assert slope[0] == 0.5  # a clamp in place of (x + |x|) / 2 would give 1
    assert grad(slope.sum(), x)[0].isfinite().all()
    small = losses.softplus(torch.tensor(-80.0, dtype=dtype))
    torch.testing.assert_close(small, torch.tensor(math.exp(-80.0), dtype=dtype), atol=0, rtol=1e-5)


def test_softplus_is_twice_differentiable():
    assert gradcheck(losses.softplus, (3 * random(9).detach().requires_grad_(),))
    assert gradgradcheck(losses.softplus, (random(9),))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("scale", [1.0, 100.0, 1e4])
def test_cross_entropy_equals_torch(dtype, scale):
    logits = (scale * random(5, 4, dtype=dtype)).detach().requires_grad_()
    assert_same(losses.cross_entropy, F.cross_entropy, [logits, torch.tensor([0, 3, 2, 2, 1])])


def bce(logits, target):
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def test_discriminator_loss_is_bce_of_its_parts():
    real, fake, wrong = random(6), random(6, seed=1), random(6, seed=2)
    assert_same(losses.discriminator_loss, lambda r, f: bce(r, 1.0) + bce(f, 0.0), [real, fake])
    assert_same(
        losses.discriminator_loss, lambda r, f, w: bce(r, 1.0) + (bce(f, 0.0) + bce(w, 0.0)) / 2, [real, fake, wrong]
    )
    assert losses.discriminator_loss(*torch.zeros(3, 6)).item() == pytest.approx(2 * math.log(2))


def test_discriminator_loss_counts_only_captions_that_are_wrong():
    real, fake, wrong = random(4), random(4, seed=1), random(4, seed=2)
    mask = torch.tensor([True, False, True, False])
    value = losses.discriminator_loss(real, fake, wrong, mask)
    torch.testing.assert_close(value, bce(real, 1.0) + (bce(fake, 0.0) + bce(wrong[mask], 0.0)) / 2)
    assert (grad(value, wrong)[0][~mask] == 0).all()
    none_wrong = losses.discriminator_loss(real, fake, wrong, torch.zeros(4, dtype=torch.bool))
    torch.testing.assert_close(none_wrong, bce(real, 1.0) + bce(fake, 0.0) / 2)


def test_generator_losses():
    fake = random(6)
    assert_same(losses.generator_loss, lambda f: bce(f, 1.0), [fake])
    assert_same(losses.saturating_generator_loss, lambda f: torch.log(1 - torch.sigmoid(f)).mean(), [fake])
    found_out = torch.tensor([-30.0], requires_grad=True)
    assert grad(losses.generator_loss(found_out), found_out)[0].abs() > 0.99
    assert grad(losses.saturating_generator_loss(found_out), found_out)[0].abs() < 1e-12


def test_hinge_losses():
    real, fake = torch.tensor([2.0, 0.5, -1.0]), torch.tensor([-2.0, -0.5, 1.0])
    assert losses.hinge_discriminator_loss(real, fake).item() == pytest.approx((0 + 0.5 + 2) / 3 + (0 + 0.5 + 2) / 3)
    assert losses.hinge_generator_loss(fake).item() == pytest.approx(0.5)
    content = torch.tensor([1.5], requires_grad=True)
    assert grad(losses.hinge_discriminator_loss(content, fake), content)[0] == 0


def test_relativistic_losses_compare_pairs():
    real, fake = random(5), random(5, seed=1)
    assert_same(losses.relativistic_discriminator_loss, lambda r, f: bce(r - f, 1.0), [real, fake])
    assert_same(losses.relativistic_generator_loss, lambda r, f: bce(f - r, 1.0), [real, fake])
    shifted = losses.relativistic_discriminator_loss(real + 7, fake + 7)
    torch.testing.assert_close(shifted, losses.relativistic_discriminator_loss(real, fake))


@pytest.mark.parametrize("extreme", [100.0, -100.0, 1e4, -1e4])
def test_gan_losses_are_finite_at_extreme_logits(extreme):
    logits = torch.full((3,), extreme, requires_grad=True)
    values = [
        losses.discriminator_loss(logits, -logits, logits),
        losses.generator_loss(logits),
        losses.saturating_generator_loss(logits),
        losses.hinge_discriminator_loss(logits, logits),
        losses.relativistic_discriminator_loss(logits, -logits),
        losses.relativistic_generator_loss(logits, -logits),
    ]
    for value in values:
        assert value.isfinite() and grad(value, logits)[0].isfinite().all()


def test_r1_penalty_of_a_linear_discriminator_is_half_its_squared_weight():
    weight, images = random(3, 4, 4), random(5, 3, 4, 4, seed=1)
    penalty = losses.r1_penalty((images * weight).sum((1, 2, 3)), images)
    torch.testing.assert_close(penalty, 0.5 * (weight**2).sum())
    torch.testing.assert_close(grad(penalty, weight)[0], weight)  # it can be trained away


def test_r1_penalty_is_the_mean_over_pictures():
    images = random(5, 2, 3, 3)
    logits = (images**2).sum((1, 2, 3)) / 2  # the gradient of picture i is picture i
    torch.testing.assert_close(losses.r1_penalty(logits, images), 0.5 * (images**2).sum((1, 2, 3)).mean())


def test_contrastive_loss_equals_clip():
    images, texts = F.normalize(random(6, 8), dim=1), F.normalize(random(6, 8, seed=1), dim=1)
    images, texts = images.detach().requires_grad_(), texts.detach().requires_grad_()
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)

    def clip(images, texts, scale):
        logits, labels = scale * images @ texts.T, torch.arange(6)
        return (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2

    assert_same(losses.contrastive_loss, clip, [images, texts, scale])
    assert losses.contrastive_loss(images * 0, texts, 10.0).item() == pytest.approx(math.log(6))


def test_contrastive_loss_leaves_equal_captions_out():
    images, texts = random(4, 8), random(4, 8, seed=1)
    texts = torch.cat([texts[:3], texts[:1]]).detach()  # caption 3 is caption 0
    same = torch.eye(4, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True
    value = losses.contrastive_loss(images, texts, 1.0, same)
    logits = (images @ texts.T).detach()
    expected = 0.0
    for row in range(4):
        others = [column for column in range(4) if column == row or not same[row, column]]
        expected += logits[row, others].logsumexp(0) + logits[others, row].logsumexp(0) - 2 * logits[row, row]
    torch.testing.assert_close(value, expected / 8)
    assert grad(value, images)[0].isfinite().all()
    assert value < losses.contrastive_loss(images, texts, 1.0)


def test_total_loss():
    assert losses.total_loss(torch.tensor(2.0), torch.tensor(3.0), 0.5).item() == 3.5


@pytest.mark.parametrize("loss", [losses.mse_loss, losses.bce_loss, losses.bce_with_logits])
def test_shapes_that_would_broadcast_are_refused(loss):
    with pytest.raises(ValueError, match=r"\(4, 1\).*\(4,\)"):
        loss(torch.full((4, 1), 0.5), torch.full((4,), 0.5))


@pytest.mark.parametrize("bad", [-0.1, 1.1, math.nan])
def test_probabilities_out_of_range_are_refused(bad):
    good = torch.full((2,), 0.5)
    for loss, arguments in [
        (losses.bce_loss, (torch.tensor([bad, 0.5]), good)),
        (losses.bce_loss, (good, torch.tensor([0.5, bad]))),
        (losses.bce_with_logits, (good, torch.tensor([0.5, bad]))),
    ]:
        with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
            loss(*arguments)


def test_r1_penalty_and_contrastive_loss_refuse_in_words():
    images = torch.zeros(2, 3, 4, 4)
    with pytest.raises(ValueError, match="requires_grad_()"):
        losses.r1_penalty(images.sum((1, 2, 3)), images)
    with pytest.raises(ValueError, match="differ"):
        losses.contrastive_loss(torch.zeros(2, 3), torch.zeros(3, 3), 1.0)


def test_mode_seeking_loss_by_hand():
    images = torch.zeros(4, 3, 2, 2)
    images[2], images[3] = 0.5, 0.1  # the pairs (0, 2) and (1, 3) differ by 0.5 and 0.1
    latents = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [0.0, 2.0]])  # both pairs differ by 1 on average
    assert losses.mode_seeking_loss(images, latents).item() == pytest.approx(1 / 0.3, rel=1e-3)
