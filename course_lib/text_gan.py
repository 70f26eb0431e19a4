"""The text-to-image GAN: a generator that hears the caption and a discriminator that reads it. Built in chapter 11.

The generator starts from noise and the caption's embedding, grows 4 x 4 positions to the picture by transposed
convolutions, and hears the caption again after every one of them through conditional normalisation. The discriminator
looks at the picture by strided convolutions and answers one number: how real the picture is *for this caption*.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module, ModuleList

from course_lib.errors import CourseError
from course_lib.images import require_image_size
from course_lib.layers import (
    ConditionalBatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    init_dcgan_,
    init_kaiming_,
    leaky_relu,
)


def _require_sizes(config, names: tuple[str, ...]) -> None:
    """Sizes that are positive and small enough that a hostile configuration can't ask for all memory."""
    for name in names:
        if not 1 <= getattr(config, name) <= 4096:
            raise CourseError(f"{name}={getattr(config, name)} is out of range; use 1 to 4096")


@dataclass(frozen=True)
class GeneratorConfig:
    """Size of a `Generator`.

    Args:
        image_size: 16 to 256 pixels, a power of two.
        z_size: length of the noise vector.
        text_size: length of a caption's embedding.
        condition_size: length of what the caption is squeezed into before it meets the noise.
        width: channels of the last block; earlier blocks have 2, 3, 5 ... times as many.
    """

    image_size: int = 32
    z_size: int = 64
    text_size: int = 128
    condition_size: int = 64
    width: int = 32

    def __post_init__(self):
        require_image_size(self.image_size)
        _require_sizes(self, ("z_size", "text_size", "condition_size", "width"))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels at 4 x 4, 8 x 8, ... up to the full size, e.g. (160, 96, 64, 32) for 32 pixels."""
        growth = (1, 2, 3, 5, 8, 8, 8)
        blocks = int(math.log2(self.image_size // 4)) + 1
        return tuple(self.width * g for g in reversed(growth[:blocks]))


class Generator(Module):
    """Noise and caption to picture.

    Args:
        config: sizes.
    Source: the up-sampling path is DCGAN's (Radford et al. 2015, arXiv:1511.06434); conditional normalisation from
    noise and class is BigGAN's (Brock et al. 2018, arXiv:1809.11096).
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        channels = config.channels
        condition_size = config.z_size + config.condition_size
        self.read_text = Linear(config.text_size, config.condition_size)
        self.start = Linear(condition_size, channels[0] * 4 * 4)
        self.norms = ModuleList(ConditionalBatchNorm2d(c, condition_size) for c in channels)
        self.ups = ModuleList(
            ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)
            for a, b in zip(channels[:-1], channels[1:], strict=True)
        )
        self.to_rgb = Conv2d(channels[-1], 3, 3, padding=1)
        init_dcgan_(self)

    def forward(self, z: Tensor, text: Tensor) -> Tensor:
        """z (B, Z) from N(0, 1), text (B, E) -> pictures (B, 3, S, S) in [-1, 1]."""
        condition = torch.cat([z, self.read_text(text)], dim=1)  # (B, Z + C)
        x = self.start(condition).view(len(z), -1, 4, 4)  # (B, C0, 4, 4)
        x = x.contiguous(memory_format=torch.channels_last)
        for norm, up in zip(self.norms[:-1], self.ups, strict=True):
            x = up(norm(x, condition).relu())  # (B, C, H, W) -> (B, C', 2H, 2W)
        x = self.norms[-1](x, condition).relu()
        return torch.tanh(self.to_rgb(x))  # (B, 3, S, S)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Size of a `Discriminator`: pixels, length of a caption's embedding, channels after the first convolution (they
    double with every halving of the picture, up to four times), units of the layer that meets the caption."""

    image_size: int = 32
    text_size: int = 128
    width: int = 32
    hidden: int = 256

    def __post_init__(self):
        require_image_size(self.image_size)
        _require_sizes(self, ("text_size", "width", "hidden"))


class Discriminator(Module):
    """Picture and caption to one logit: log odds that the picture is a real one with this caption.

    The caption enters by projection: logit = w . h + (V text) . h, with h the picture's features. So reading one
    picture with two captions costs one pass.

    Args:
        config: sizes.
    Source: Miyato and Koyama 2018, arXiv:1802.05637.
    """

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        halvings = int(math.log2(config.image_size // 4))
        # the last three widths are width, 2 width, 4 width; larger pictures begin with more layers of `width`
        widths = [3] + [config.width * 2 ** max(0, 3 - halvings + i) for i in range(halvings)]
        widths = [3] + [min(w, 4 * config.width) for w in widths[1:]]
        self.downs = ModuleList(
            Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.hidden = Linear(widths[-1] * 4 * 4, config.hidden)
        self.realness = Linear(config.hidden, 1)
        self.read_text = Linear(config.text_size, config.hidden, bias=False)
        init_kaiming_(self, negative_slope=0.2)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> (B, H)."""
        x = images
        for down in self.downs:
            x = leaky_relu(down(x), 0.2)  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        return leaky_relu(self.hidden(x.flatten(1)), 0.2)

    def match(self, features: Tensor, text: Tensor) -> Tensor:
        """features (B, H), text (B, E) -> logits (B,)."""
        agreement = (features * self.read_text(text)).sum(1) / math.sqrt(self.config.hidden)
        return self.realness(features).squeeze(1) + agreement

    def forward(self, images: Tensor, text: Tensor) -> Tensor:
        """images (B, 3, S, S) in [-1, 1], text (B, E) -> logits (B,)."""
        return self.match(self.features(images), text)
