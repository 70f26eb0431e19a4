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

from course_lib.errors import CourseError, nearest, require_range
from course_lib.images import require_image_size
from course_lib.layers import (
    BatchNorm2d,
    ConditionalBatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    init_dcgan_,
    init_kaiming_,
    leaky_relu,
)
from course_lib.text_encoder import attention


def _require_sizes(config, names: tuple[str, ...]) -> None:
    """Sizes that are positive and small enough that a hostile configuration can't ask for all memory."""
    for name in names:
        require_range(name, getattr(config, name), 1, 256 if name == "width" else 2048)


def _require_conditioning(config, known: tuple[str, ...]) -> None:
    if config.conditioning not in known:
        raise CourseError(f'conditioning="{config.conditioning}" is unknown; {nearest(config.conditioning, known)}')


@dataclass(frozen=True)
class GeneratorConfig:
    """Size of a `Generator`.

    Args:
        image_size: 16 to 256 pixels, a power of two.
        z_size: length of the noise vector.
        text_size: length of a caption's embedding.
        condition_size: length of what the caption is squeezed into before it meets the noise.
        width: channels of the last block; earlier blocks have 2, 3, 5 ... times as many.
        conditioning: how blocks hear the caption. "concatenation": not at all, only the first layer does, beside the
            noise. "normalisation": it scales and shifts every block's channels. "cross-attention": that, and each
            position of the 16 x 16 block looks at the caption's single tokens.
        grown: the blocks of a generator of half this size and the same width, and one of half the width on top, so that
            what the smaller one has learned can be taken over by `grow_`.
    """

    image_size: int = 32
    z_size: int = 64
    text_size: int = 128
    condition_size: int = 64
    width: int = 32
    conditioning: str = "normalisation"
    grown: bool = False

    def __post_init__(self):
        require_image_size(self.image_size)
        _require_sizes(self, ("z_size", "text_size", "condition_size", "width"))
        _require_conditioning(self, ("concatenation", "normalisation", "cross-attention"))

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels at 4 x 4, 8 x 8, ... up to the full size, e.g. (160, 96, 64, 32) for 32 pixels."""
        growth = (0.5, 1, 2, 3, 5, 8, 8) if self.grown else (1, 2, 3, 5, 8, 8, 8)
        blocks = int(math.log2(self.image_size // 4)) + 1
        return tuple(max(1, int(self.width * g)) for g in reversed(growth[:blocks]))


class PlainBatchNorm2d(Module):
    """Batch normalisation that is given a condition and does not listen: what "concatenation" has in its blocks."""

    def __init__(self, num_features: int, condition_size: int):
        super().__init__()
        self.norm = BatchNorm2d(num_features)

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:
        """input (B, C, H, W), condition (B, E) -> (B, C, H, W)."""
        return self.norm(input)


class CrossAttention(Module):
    """Each position of a picture looks at the words it needs.

    Args:
        channels: C of the picture; text_size: E of the tokens.
    Source: Vaswani et al. 2017; for text-to-image GANs, Xu et al. 2018 (AttnGAN), arXiv:1711.10485.
    """

    def __init__(self, channels: int, text_size: int):
        super().__init__()
        self.query = Linear(channels, channels)
        self.key_value = Linear(text_size, 2 * channels)
        self.output = Linear(channels, channels)

    def forward(self, input: Tensor, tokens: Tensor) -> Tensor:
        """input (B, C, H, W), tokens (B, T, E) with zeros where a caption has ended -> (B, C, H, W)."""
        batch, channels, height, width = input.shape
        query = self.query(input.flatten(2).transpose(1, 2))  # (B, H * W, C)
        key, value = self.key_value(tokens).chunk(2, dim=-1)  # each (B, T, C)
        real = tokens.any(-1)[:, None, None]  # (B, 1, 1, T)
        seen = attention(query[:, None], key[:, None], value[:, None], real)[:, 0]  # (B, H * W, C)
        change = self.output(seen).transpose(1, 2).reshape(batch, channels, height, width)
        return input + change.contiguous(memory_format=torch.channels_last)


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
        norm = PlainBatchNorm2d if config.conditioning == "concatenation" else ConditionalBatchNorm2d
        self.norms = ModuleList(norm(c, condition_size) for c in channels)
        self.ups = ModuleList(
            ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)
            for a, b in zip(channels[:-1], channels[1:], strict=True)
        )
        self.to_rgb = Conv2d(channels[-1], 3, 3, padding=1)
        if self.reads_tokens:
            self.attention = CrossAttention(channels[2], config.text_size)  # at 16 x 16
        init_dcgan_(self)

    @property
    def reads_tokens(self) -> bool:
        """Whether `forward` wants the caption's tokens beside its embedding."""
        return self.config.conditioning == "cross-attention"

    def forward(self, z: Tensor, text: Tensor, tokens: Tensor | None = None) -> Tensor:
        """z (B, Z) from N(0, 1), text (B, E), tokens (B, T, E) or None -> pictures (B, 3, S, S) in [-1, 1]."""
        condition = torch.cat([z, self.read_text(text)], dim=1)  # (B, Z + C)
        x = self.start(condition).view(len(z), -1, 4, 4)  # (B, C0, 4, 4)
        x = x.contiguous(memory_format=torch.channels_last)
        for norm, up in zip(self.norms[:-1], self.ups, strict=True):
            x = up(norm(x, condition).relu())  # (B, C, H, W) -> (B, C', 2H, 2W)
            if self.reads_tokens and x.shape[-1] == 16:
                x = self.attention(x, tokens)
        x = self.norms[-1](x, condition).relu()
        return torch.tanh(self.to_rgb(x))  # (B, 3, S, S)


@dataclass(frozen=True)
class DiscriminatorConfig:
    """Size of a `Discriminator`.

    Args:
        image_size: 16 to 256 pixels, a power of two.
        text_size: length of a caption's embedding.
        width: channels of the first convolution; the last two have 2 and 4 times as many.
        hidden: units of the layer that meets the caption.
        conditioning: how picture and caption meet. "projection": by a dot product. "concatenation": side by side,
            before one more layer.
    """

    image_size: int = 32
    text_size: int = 128
    width: int = 32
    hidden: int = 256
    conditioning: str = "projection"

    def __post_init__(self):
        require_image_size(self.image_size)
        _require_sizes(self, ("text_size", "width", "hidden"))
        _require_conditioning(self, ("projection", "concatenation"))


class Discriminator(Module):
    """Picture and caption to one logit: log odds that the picture is a real one with this caption.

    By projection, logit = w . h + (V text) . h, with h the picture's features. Reading one picture with two captions
    costs one pass over the picture.

    Args:
        config: sizes.
    Source: Miyato and Koyama 2018 (projection), arXiv:1802.05637; Reed et al. 2016 (concatenation), arXiv:1605.05396.
    """

    def __init__(self, config: DiscriminatorConfig):
        super().__init__()
        self.config = config
        halvings = int(math.log2(config.image_size // 4))
        # the last three widths are width, 2 width, 4 width; larger pictures begin with more layers of `width`
        widths = [3] + [config.width * 2 ** max(0, 3 - halvings + i) for i in range(halvings)]
        self.downs = ModuleList(
            Conv2d(a, b, 4, stride=2, padding=1) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.hidden = Linear(widths[-1] * 4 * 4, config.hidden)
        self.realness = Linear(config.hidden, 1)
        self.read_text = Linear(config.text_size, config.hidden, bias=False)
        if config.conditioning == "concatenation":
            self.joint = Linear(2 * config.hidden, config.hidden)
        init_kaiming_(self, negative_slope=0.2)

    def features(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> (B, H)."""
        x = images
        for down in self.downs:
            x = leaky_relu(down(x), 0.2)  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        return leaky_relu(self.hidden(x.flatten(1)), 0.2)

    def match(self, features: Tensor, text: Tensor) -> Tensor:
        """features (B, H), text (B, E) -> logits (B,)."""
        heard = self.read_text(text)  # (B, H)
        if self.config.conditioning == "concatenation":
            both = torch.cat([features, heard], dim=1)  # (B, 2H)
            return self.realness(leaky_relu(self.joint(both), 0.2)).squeeze(1)
        return self.realness(features).squeeze(1) + (features * heard).sum(1) / math.sqrt(self.config.hidden)

    def forward(self, images: Tensor, *texts: Tensor) -> Tensor:
        """images (B, 3, S, S) in [-1, 1], text (B, E) -> logits (B,); with T texts for each picture (B, T)."""
        features = self.features(images)  # looked at once, however many captions there are to read
        logits = [self.match(features, text) for text in texts]
        return logits[0] if len(logits) == 1 else torch.stack(logits, 1)


@torch.no_grad()
def grow_(large: Generator | Discriminator, small: Generator | Discriminator) -> None:
    """Give a network what one for half its picture size has learned, wherever both have the same layer, in place.

    A generator grows at its end (it needs `grown` in its configuration), a discriminator at its entrance; the layers
    next to the pixels stay new.

    Args:
        large: for pictures of 2 S; small: of the same kind, for S.
    Source: growing both players is Karras et al. 2017, arXiv:1710.10196; theirs fades the new layers in.
    """
    own = large.state_dict()  # shares its memory with the network
    for key, value in small.state_dict().items():
        if key.startswith("downs."):
            _, place, kind = key.split(".")
            key = f"downs.{int(place) + 1}.{kind}"
        if own[key].shape == value.shape:
            own[key].copy_(value)
