"""Losses: one number that says how wrong the network is, for a gradient to make smaller. Built in chapter 03.

First the mean squared error and the binary cross-entropy, on probabilities and on logits; then what a generator and a
discriminator minimise, in the variants the course compares; last the contrastive loss that ties pictures to captions.
All are means in nats (the squared error in squared units of its input) and stay finite at logits of ±10,000.
"""

import torch
from torch import Tensor
from torch.autograd import Function


def require_same_shape(input: Tensor, target: Tensor) -> None:
    """Refuses what broadcasting would silently stretch: (B, 1) against (B,) would compare every pair."""
    if input.shape != target.shape:
        raise ValueError(f"input {tuple(input.shape)} and target {tuple(target.shape)} differ; reshape one of them")


def require_probabilities(name: str, value: Tensor) -> None:
    """Refuses numbers outside [0, 1] and NaN."""
    if not ((value >= 0) & (value <= 1)).all():
        raise ValueError(f"{name} must lie in [0, 1], found {value.min():g} to {value.max():g}; give probabilities")


def mse_loss(input: Tensor, target: Tensor) -> Tensor:
    """Mean squared error over all elements.

    Args:
        input, target: of one shape, any.
    Returns:
        ().
    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(input, target)
    return ((input - target) ** 2).mean()


class BinaryCrossEntropy(Function):
    """-t log(p) - (1 - t) log(1 - p), element by element, with the two limits that torch sets at p = 0 and p = 1."""

    @staticmethod
    def forward(context, input: Tensor, target: Tensor) -> Tensor:
        context.save_for_backward(input, target)
        # log(0) = -inf, and 0 * -inf is not a number: the logarithm stops at -100
        return -target * input.log().clamp(min=-100) - (1 - target) * torch.log1p(-input).clamp(min=-100)

    @staticmethod
    def backward(context, gradient: Tensor):
        input, target = context.saved_tensors
        slope = (input - target) / (input * (1 - input)).clamp(min=1e-12)  # the logarithms' slope, never infinite
        return gradient * slope, gradient * (torch.log1p(-input) - input.log())


def bce_loss(input: Tensor, target: Tensor) -> Tensor:
    """Mean binary cross-entropy of probabilities.

    Prefer `bce_with_logits`: a probability of exactly 0 or 1 has already lost how sure the network was.

    Args:
        input: any shape, probabilities in [0, 1].
        target: the same shape, in [0, 1]; 1 means real.
    Returns:
        () in nats, at most 100.
    Raises:
        ValueError: shapes differ, or a number lies outside [0, 1].
    Source: Goodfellow et al. 2014, eq. 1; the limits are torch's.
    """
    require_same_shape(input, target)
    require_probabilities("input", input)
    require_probabilities("target", target)
    return BinaryCrossEntropy.apply(input, target).mean()


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), element by element: -log of the probability that a logit of x gives to "fake".

    Its slope is sigmoid(x). It neither overflows at large x nor loses small values at very negative ones.
    """
    size = x.abs()
    # max(x, 0) + log(1 + e^-|x|); the maximum as (x + |x|) / 2, because its slope at 0 must be 1/2 and clamp's is 1
    return (x + size) / 2 + torch.log1p(torch.exp(-size))


def bce_with_logits(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross-entropy of raw scores.

    Args:
        logits: any shape, usually (B,), any real number; the probability is sigmoid(logit).
        targets: the same shape, in [0, 1]; 1 means real.
    Returns:
        () in nats.
    Raises:
        ValueError: shapes differ, or a target lies outside [0, 1].
    Source: Goodfellow et al. 2014, eq. 1, with -log(sigmoid(l)) = softplus(-l) and -log(1 - sigmoid(l)) = softplus(l).
    """
    require_same_shape(logits, targets)
    require_probabilities("targets", targets)
    return (targets * softplus(-logits) + (1 - targets) * softplus(logits)).mean()


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of raw scores for C classes: -log of the probability given to the right one.

    Args:
        logits: (B, C) any real numbers.
        labels: (B,) int64, the right class of each row.
    Returns:
        () in nats.
    """
    right = logits.gather(1, labels[:, None])[:, 0]  # (B,)
    return (logits.logsumexp(1) - right).mean()


def discriminator_loss(
    real_logits: Tensor, fake_logits: Tensor, wrong_logits: Tensor | None = None, wrong_mask: Tensor | None = None
) -> Tensor:
    """What the discriminator minimises: call real pictures real, and fakes and wrong captions fake.

    Args:
        real_logits: (B,) of real pictures with their captions.
        fake_logits: (B,) of generated pictures.
        wrong_logits: (B,) of real pictures with other captions, or None: then only the fakes count as fake.
        wrong_mask: (B,) bool, True where the other caption really is wrong; None: everywhere. In a shuffled batch a
            picture can meet a caption equal to its own, and must not be punished for it.
    Returns:
        () in nats; 2 log 2 = 1.386 if all logits are 0.
    Source: Goodfellow et al. 2014, eq. 1; Reed et al. 2016, algorithm 1 (matching-aware), arXiv:1605.05396.
    """
    real, fake = softplus(-real_logits).mean(), softplus(fake_logits).mean()
    if wrong_logits is None:
        return real + fake
    counts = torch.ones_like(wrong_logits) if wrong_mask is None else wrong_mask.to(wrong_logits)
    wrong = (softplus(wrong_logits) * counts).sum() / counts.sum().clamp(min=1)
    return real + (fake + wrong) / 2


def generator_loss(fake_logits: Tensor) -> Tensor:
    """Non-saturating: -log of the probability that the fakes are real; steep as long as they are found out.

    Args:
        fake_logits: (B,).
    Returns:
        () in nats.
    Source: Goodfellow et al. 2014, section 3.
    """
    return softplus(-fake_logits).mean()


def saturating_generator_loss(fake_logits: Tensor) -> Tensor:
    """The original game, log(1 - sigmoid(logit)): its slope vanishes when the fakes are found out.

    Args:
        fake_logits: (B,).
    Returns:
        () in nats, at most 0.
    Source: Goodfellow et al. 2014, eq. 1.
    """
    return -softplus(fake_logits).mean()


def hinge_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Pushes real logits above 1 and fake ones below -1, and then lets them be: two times (B,) -> ().

    Source: Lim & Ye 2017, eq. 7; Miyato et al. 2018, eq. 16.
    """
    return torch.relu(1 - real_logits).mean() + torch.relu(1 + fake_logits).mean()


def hinge_generator_loss(fake_logits: Tensor) -> Tensor:
    """Raises the fakes' logits, equally everywhere: (B,) -> (). Source: Miyato et al. 2018, eq. 17."""
    return -fake_logits.mean()


def relativistic_discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Each real picture must look more real than the fake beside it: two times (B,) -> () in nats.

    Source: Jolicoeur-Martineau 2018, section 4.1, arXiv:1807.00734; used so by Huang et al. 2024 (R3GAN).
    """
    return softplus(fake_logits - real_logits).mean()


def relativistic_generator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """Each fake must look more real than the real picture beside it: two times (B,) -> () in nats.

    Source: as `relativistic_discriminator_loss`.
    """
    return softplus(real_logits - fake_logits).mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Half the mean squared length of the discriminator's gradient on real pictures; its weight is the caller's.

    Args:
        logits: (B,) computed from `images`.
        images: (B, ...) with requires_grad.
    Returns:
        (), which can itself be differentiated.
    Raises:
        ValueError: images does not require a gradient.
    Source: Mescheder et al. 2018, eq. 9, arXiv:1801.04406.
    """
    if not images.requires_grad:
        raise ValueError("images has requires_grad=False; call images.requires_grad_() before computing the logits")
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)  # picture i only moves logit i
    return 0.5 * gradient.square().sum() / len(images)


def contrastive_loss(
    image_embeddings: Tensor, text_embeddings: Tensor, logit_scale: Tensor | float, same: Tensor | None = None
) -> Tensor:
    """Each picture must pick its caption among the batch's, and each caption its picture (InfoNCE of CLIP).

    Args:
        image_embeddings, text_embeddings: (B, E) of length 1; row i of both belong together.
        logit_scale: multiplies the cosines; 1 / temperature.
        same: (B, B) bool, True where captions i and j are equal: such a pair is no counter-example. None: all differ.
    Returns:
        () in nats; log B if nothing is learned.
    Raises:
        ValueError: the shapes differ.
    Source: van den Oord et al. 2018, eq. 4; Radford et al. 2021, figure 3, arXiv:2103.00020.
    """
    require_same_shape(image_embeddings, text_embeddings)
    logits = logit_scale * image_embeddings @ text_embeddings.T  # (B, B): pictures in rows, captions in columns
    labels = torch.arange(len(logits), device=logits.device)
    if same is not None:
        others = labels[:, None] != labels
        logits = logits.masked_fill(same & others, -torch.inf)
    return (cross_entropy(logits, labels) + cross_entropy(logits.T, labels)) / 2


def mode_seeking_loss(images: Tensor, latents: Tensor) -> Tensor:
    """Small if different noise makes different pictures: one over the ratio of both distances.

    Row i and row i + B/2 are drawn for one caption from different noise; without this term a conditional generator
    likes to draw one picture for each caption, whatever the noise.

    Args:
        images: (B, 3, H, W), B even.
        latents: (B, Z), the noise they were drawn from.
    Returns:
        () without unit; mean absolute differences, so that the size of the picture does not matter.
    Source: Mao et al. 2019, eq. 4, arXiv:1903.05628.
    """
    (one, other), (z_one, z_other) = images.chunk(2), latents.chunk(2)
    ratio = (one - other).abs().mean() / (z_one - z_other).abs().mean()
    return 1 / (ratio + 1e-5)


def total_loss(adversarial: Tensor, reconstruction: Tensor, weight: float) -> Tensor:
    """adversarial + weight * reconstruction, each ()."""
    return adversarial + weight * reconstruction
