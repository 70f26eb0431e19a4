"""The first generator: a variational autoencoder. Built in chapter 09.

The encoder answers not with a vector but with a cloud of them, a mean and a variance for every number; the decoder
must draw the picture from any point of the cloud. What keeps all clouds close to one round one, N(0, 1), is the KL
divergence; therefore a point of N(0, 1) is a new picture. The two parts of the loss, the ELBO, are in nats.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.checkpoint import CONFIG, dataclass_from_dict, load_kind, load_weights
from course_lib.errors import CourseError
from course_lib.image_encoder import ImageDecoder, ImageEncoder, ImageEncoderConfig
from course_lib.losses import require_same_shape


@dataclass(frozen=True)
class VAEConfig:
    """Size of a `VAE`.

    Args:
        image_size: 16 to 256 pixels, a power of two.
        width: channels of the encoder's first and the decoder's last block.
        latent_size: numbers in the latent vector, Z.
        pixel_std: how far a pixel may lie from its prediction, as the standard deviation of a normal distribution in
            units of pixel values. Smaller counts the reconstruction for more, the KL for less.
    Raises:
        CourseError: a size is out of range.
    """

    image_size: int = 32
    width: int = 32
    latent_size: int = 32
    pixel_std: float = 0.2

    def __post_init__(self):
        ImageEncoderConfig(self.image_size, self.width)  # checks both
        if not 1 <= self.latent_size <= 1024:
            raise CourseError(f"latent_size={self.latent_size} is out of range; use 1 to 1024")
        if not 1e-3 <= self.pixel_std <= 10:
            raise CourseError(f"pixel_std={self.pixel_std} is out of range; use 0.001 to 10, such as 0.2")


class ElboParts(NamedTuple):
    """What a picture costs, each (B,) in nats: to draw it from its latent vector, and to say which vector."""

    reconstruction: Tensor
    kl: Tensor


def reparametrise(mean: Tensor, log_variance: Tensor, random: torch.Generator | None = None) -> Tensor:
    """A point of each cloud, written so that a gradient flows to mean and variance: mean + std * N(0, 1).

    Args:
        mean, log_variance: (B, Z).
        random: source of chance, on the CPU; None: torch's own.
    Returns:
        (B, Z).
    Source: Kingma & Welling 2014, section 2.4, arXiv:1312.6114.
    """
    noise = torch.randn(mean.shape, generator=random).to(mean)
    return mean + (log_variance / 2).exp() * noise


def kl_to_standard_normal(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL divergence of N(mean, variance) from N(0, 1), summed over the latent's numbers.

    Args:
        mean, log_variance: (B, Z).
    Returns:
        (B,) in nats, 0 or more.
    Source: Kingma & Welling 2014, appendix B.
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1) / 2


def gaussian_negative_log_likelihood(images: Tensor, predicted: Tensor, std: float) -> Tensor:
    """-log of the density of N(predicted, std^2) at the pictures, summed over pixels and channels.

    Up to a constant and a factor it is the squared error: who minimises that assumes a normal distribution, and
    predicts the mean of all pictures that are possible; a mean is blurred.

    Args:
        images, predicted: (B, 3, S, S).
        std: in units of pixel values.
    Returns:
        (B,) in nats; below 0 where the density is above 1.
    Raises:
        ValueError: the shapes differ.
    """
    require_same_shape(images, predicted)
    squared = ((images - predicted) / std).square()  # (B, 3, S, S)
    return (squared / 2 + math.log(std * math.sqrt(math.tau))).flatten(1).sum(1)


class VAE(Module):
    """A Gaussian variational autoencoder. Before it draws call `eval()`, so that no picture depends on its neighbours.

    Args:
        config: sizes.
    Source: Kingma & Welling 2014, arXiv:1312.6114.
    """

    def __init__(self, config: VAEConfig):
        super().__init__()
        self.config = config
        size, width, latent = config.image_size, config.width, config.latent_size
        self.encoder = ImageEncoder(ImageEncoderConfig(size, width, 2 * latent))
        self.decoder = ImageDecoder(ImageEncoderConfig(size, width, latent))

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str | torch.device = "cpu") -> "VAE":
        """Load a trained VAE, ready to draw: in eval mode, its weights fixed.

        Args:
            name_or_path: a name under data/checkpoints/, such as "vae-shapes-32", or a folder.
            device: where it shall compute.
        Raises:
            CourseError: no such checkpoint, or a damaged, foreign or differently built one.
        """
        folder, tensors, config = load_kind(name_or_path, "vae", "vae-shapes-32")
        model = cls(dataclass_from_dict(VAEConfig, config.get("vae"), f"{folder / CONFIG}, vae"))
        load_weights(model, tensors, folder)
        return model.to(device).eval().requires_grad_(False)

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Pictures (B, 3, S, S) in [-1, 1] -> mean and log-variance of their clouds, (B, Z) each."""
        mean, log_variance = self.encoder(images).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 20)  # e^20 still is a number, and so is e^-20

    def decode(self, latent: Tensor) -> Tensor:
        """(B, Z) -> pictures (B, 3, S, S) in [-1, 1]."""
        return self.decoder(latent)

    def elbo_parts(self, images: Tensor, random: torch.Generator | None = None) -> ElboParts:
        """Both parts of the negative ELBO; their sum bounds -log p(picture) from above.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            random: source of chance, on the CPU; None: torch's own.
        Returns:
            reconstruction and KL, (B,) each, in nats.
        Source: Kingma & Welling 2014, eq. 3 and 7, with one sample a picture.
        """
        mean, log_variance = self.encode(images)
        predicted = self.decode(reparametrise(mean, log_variance, random))
        reconstruction = gaussian_negative_log_likelihood(images, predicted, self.config.pixel_std)
        return ElboParts(reconstruction, kl_to_standard_normal(mean, log_variance))

    def loss(self, images: Tensor, beta: float = 1.0, random: torch.Generator | None = None) -> Tensor:
        """What training minimises: the mean of reconstruction + beta * KL.

        Args:
            images: (B, 3, S, S) in [-1, 1].
            beta: 1 is the ELBO; more brings the clouds closer to N(0, 1) and blurs the pictures; 0 is an autoencoder.
            random: as for `elbo_parts`.
        Returns:
            () in nats a picture.
        Source: Higgins et al. 2017, eq. 4 (beta-VAE).
        """
        parts = self.elbo_parts(images, random)
        return (parts.reconstruction + beta * parts.kl).mean()

    @torch.no_grad()
    def reconstruct(self, images: Tensor) -> Tensor:
        """Each picture drawn again from the middle of its cloud: (B, 3, S, S) -> (B, 3, S, S)."""
        return self.decode(self.encode(images)[0])

    @torch.no_grad()
    def sample(self, n: int, seed: int = 0) -> Tensor:
        """New pictures from points of N(0, 1): (n, 3, S, S) in [-1, 1]; the same seed gives the same pictures."""
        latent = torch.randn(n, self.config.latent_size, generator=torch.Generator().manual_seed(seed))
        return self.decode(latent.to(self.decoder.start.weight))

    @torch.no_grad()
    def interpolate(self, first: Tensor, last: Tensor, steps: int = 8) -> Tensor:
        """The straight way from one picture to another, through the latent space.

        Args:
            first, last: (3, S, S) in [-1, 1].
            steps: pictures in all, the two reconstructions included; 2 or more.
        Returns:
            (steps, 3, S, S).
        Raises:
            ValueError: there are fewer than two steps.
        """
        if steps < 2:
            raise ValueError(f"steps={steps} leaves no way between the pictures; use 2 or more")
        start, end = self.encode(torch.stack([first, last]))[0]  # (Z,) each
        share = torch.linspace(0, 1, steps).to(start)[:, None]  # (steps, 1)
        return self.decode(start + share * (end - start))
