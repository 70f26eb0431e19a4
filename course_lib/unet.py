"""The denoiser: a U-Net that looks at a noisy picture, the time and a caption. Built in chapter 16.

The picture goes down by strided convolutions and up again by transposed ones; at every size what was seen on the way
down is laid beside what comes up (the "U"). The time and the whole caption scale and shift the channels of every
block; at 8 x 8 positions each position also asks the single words of the caption (cross-attention). The first
convolution already halves the picture, so no block works at full size: that is what makes it cheap enough for a CPU.
A share of the noisy picture goes past the U straight into the answer; without it training is many times slower.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import Module, ModuleList, Parameter

from course_lib.errors import CourseError, nearest, require_range
from course_lib.images import require_image_size
from course_lib.layers import Conv2d, ConvTranspose2d, GroupNorm, Linear, upsample_nearest
from course_lib.text_encoder import attention

GROUPS = 8  # of channels, in every group normalisation
PREDICTIONS = ("epsilon", "v")


@dataclass(frozen=True)
class DiffusionConfig:
    """What a stage of diffusion draws, and the size of its `UNet`.

    Args:
        image_size: 16 to 256 pixels, a power of two.
        text_size: channels E of the text encoder's tokens, 1 to 4096.
        width: channels of the first block, a multiple of 8 from 8 to 256; the other blocks have twice as many.
        heads: attention heads, 1 to 64; divides the channels at 8 x 8.
        prediction: what the network is asked for, "epsilon" (the noise) or "v" (see `diffusion.velocity`).
        super_resolution: whether it is shown a picture of half the size and adds what is missing.
    Raises:
        CourseError: a value is outside its range.
    """

    image_size: int = 32
    text_size: int = 128
    width: int = 48
    heads: int = 4
    prediction: str = "v"
    super_resolution: bool = False

    def __post_init__(self):
        require_image_size(self.image_size)
        for name, low, high in (("text_size", 1, 4096), ("width", GROUPS, 256), ("heads", 1, 64)):
            require_range(name, getattr(self, name), low, high)
        if self.width % GROUPS or self.channels[-1] % self.heads:
            raise CourseError(f"width={self.width} is not a multiple of {GROUPS} or of heads={self.heads}; change one")
        if self.prediction not in PREDICTIONS:
            raise CourseError(f'prediction="{self.prediction}" is unknown; {nearest(self.prediction, PREDICTIONS)}')

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels at half the picture's size, a quarter, ... down to 8 x 8, e.g. (48, 96) for 32 pixels."""
        return tuple(self.width * min(level + 1, 2) for level in range(int(math.log2(self.image_size // 8))))


def silu(input: Tensor) -> Tensor:
    """x * sigmoid(x), a smooth gate. Source: Hendrycks & Gimpel 2016, section 2; Ramachandran et al. 2017 (Swish)."""
    return input * input.sigmoid()


def time_embedding(time: Tensor, size: int) -> Tensor:
    """A time as sines and cosines of many wavelengths, so that near and far times are both told apart.

    Args:
        time: (B,), 0 to 1000.
        size: even.
    Returns:
        (B, size) in [-1, 1].
    Source: Vaswani et al. 2017, section 3.5; for diffusion, Ho et al. 2020, appendix B.
    """
    frequencies = torch.exp(torch.arange(size // 2, device=time.device) * (-2 * math.log(10_000) / size))
    angles = time[:, None].float() * frequencies  # (B, size / 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class TimeEmbedding(Module):
    """`time_embedding` and two linear layers that make of it what the blocks need: (B,) -> (B, size)."""

    def __init__(self, size: int):
        super().__init__()
        self.first, self.second = Linear(size, size), Linear(size, size)

    def forward(self, time: Tensor) -> Tensor:
        return self.second(silu(self.first(time_embedding(time, self.first.weight.shape[1]))))


class ResidualBlock(Module):
    """Two convolutions, added to their input; the condition scales and shifts the channels between them.

    The second convolution starts at zero: a new block changes nothing, and training learns what to add.

    Args:
        in_channels, out_channels: multiples of 8.
        condition_size: length of the condition.
    Source: He et al. 2016; scale and shift as in Dhariwal & Nichol 2021, section 3 ("adaptive group normalization").
    """

    def __init__(self, in_channels: int, out_channels: int, condition_size: int):
        super().__init__()
        self.norm1, self.norm2 = GroupNorm(GROUPS, in_channels), GroupNorm(GROUPS, out_channels)
        self.conv1 = Conv2d(in_channels, out_channels, 3, padding=1)
        self.conv2 = zero_(Conv2d(out_channels, out_channels, 3, padding=1))
        self.modulation = Linear(condition_size, 2 * out_channels)
        self.same = in_channels == out_channels
        self.skip = None if self.same else Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor, condition: Tensor) -> Tensor:
        """(B, C, H, W) and (B, condition_size) -> (B, C', H, W)."""
        scale, shift = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)  # each (B, C', 1, 1)
        hidden = self.conv1(silu(self.norm1(x)))
        hidden = self.conv2(silu(torch.addcmul(shift, self.norm2(hidden), 1 + scale)))
        return hidden + (x if self.skip is None else self.skip(x))


def zero_(layer: Module) -> Module:
    """Sets all weights of a layer to zero; returns the layer."""
    for parameter in layer.parameters():
        parameter.data.zero_()
    return layer


class CrossAttention(Module):
    """Each position of the picture asks the words of the caption; the answer is added to it.

    Args:
        channels: C of the picture, a multiple of 8.
        text_size: E of the tokens.
        heads: H, divides channels.
    Source: Vaswani et al. 2017, section 3.2.3; for pictures, Rombach et al. 2022, section 3.3.
    """

    def __init__(self, channels: int, text_size: int, heads: int):
        super().__init__()
        self.heads, self.norm = heads, GroupNorm(GROUPS, channels)
        self.query, self.key_value = Linear(channels, channels), Linear(text_size, 2 * channels)
        self.output = zero_(Linear(channels, channels))

    def forward(self, x: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """x (B, C, H, W), tokens (B, T, E), mask (B, T) bool with a True in each row -> (B, C, H, W)."""
        positions = self.norm(x).flatten(2).transpose(1, 2)  # (B, C, H, W) -> (B, H*W, C)
        query, key, value = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, L, C) -> (B, heads, L, C/heads)
            for part in (self.query(positions), *self.key_value(tokens).chunk(2, dim=-1))
        )
        answer = attention(query, key, value, mask[:, None, None])  # (B, heads, H*W, C/heads)
        answer = self.output(answer.transpose(1, 2).flatten(2))  # (B, H*W, C)
        return x + answer.transpose(1, 2).unflatten(2, x.shape[2:])


class UNet(Module):
    """Noisy picture, time and caption to what was asked for (`config.prediction`).

    Args:
        config: sizes.
    Source: Ronneberger et al. 2015 (the U); Ho et al. 2020, appendix B (as a denoiser); Saharia et al. 2022, sections
    2.4 and 2.5 (text, super-resolution); the halving stem as in Luhman & Luhman 2022, arXiv:2207.04316.
    """

    def __init__(self, config: DiffusionConfig):
        super().__init__()
        self.config = config
        widths, size = config.channels, 2 * config.width
        self.time, self.read_text = TimeEmbedding(size), Linear(config.text_size, size)
        self.low_time = TimeEmbedding(size) if config.super_resolution else None
        self.no_text = Parameter(torch.zeros(1, 1, config.text_size))  # a first "word", all there is without a caption
        # convolutions hardly know where they are: with a vector for each place "top left" is learned twice as fast
        self.places = Parameter(torch.randn(1, widths[-1], 8, 8))
        self.stem = Conv2d(6 if config.super_resolution else 3, widths[0], 4, stride=2, padding=1)
        self.down_blocks = ModuleList(ResidualBlock(width, width, size) for width in widths)
        self.downs = ModuleList(Conv2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.attend_down = CrossAttention(widths[-1], config.text_size, config.heads)
        self.middle = ResidualBlock(widths[-1], widths[-1], size)
        self.attend_up = CrossAttention(widths[-1], config.text_size, config.heads)
        self.up_blocks = ModuleList(ResidualBlock(2 * width, width, size) for width in widths)
        self.ups = ModuleList(ConvTranspose2d(b, a, 4, stride=2, padding=1) for a, b in pairwise(widths))
        self.norm = GroupNorm(GROUPS, widths[0])
        self.to_rgb = zero_(ConvTranspose2d(widths[0], 3, 4, stride=2, padding=1))
        self.past = zero_(Linear(size, 3))  # how much of the noisy picture itself is in the answer
        self.to(memory_format=torch.channels_last)

    def forward(
        self, noisy: Tensor, time: Tensor, tokens: Tensor, mask: Tensor,
        low: Tensor | None = None, low_time: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Look at noisy pictures.

        Args:
            noisy: (B, 3, S, S).
            time: (B,) whole numbers, 1 (hardly any noise) to 1000 (nothing else).
            tokens: (B, T, E) the text encoder's output for each token.
            mask: (B, T) bool, True where a token is real; all False in a row: a picture without a caption.
            low: (B, 3, S / 2, S / 2) small pictures, only and always for super-resolution.
            low_time: (B,) how noisy they are, 0 to 1000.
        Returns:
            (B, 3, S, S): the noise or the velocity.
        Raises:
            ValueError: the pictures are of another size, or small pictures are missing or not wanted.
        """
        size = self.config.image_size
        if noisy.shape[1:] != (3, size, size):
            raise ValueError(f"noisy has shape {tuple(noisy.shape)}; this network wants (B, 3, {size}, {size})")
        if (low is None) is self.config.super_resolution:
            raise ValueError(f"low is {'missing' if low is None else 'given'}; give it for super-resolution only")
        condition = self.time(time) + self.read_text(whole_text(tokens, mask))  # (B, D)
        if low is not None:
            condition = condition + self.low_time(low_time)
            noisy = torch.cat([noisy, upsample_nearest(low)], dim=1)  # (B, 6, S, S)
        tokens = torch.cat([self.no_text.expand(len(tokens), -1, -1), tokens], dim=1)  # (B, 1 + T, E)
        mask = torch.cat([mask.new_ones(len(mask), 1), mask], dim=1)
        condition = silu(condition)
        # most of what is asked for stands in the noisy picture: it goes past the U, which could not carry each pixel
        past = self.past(condition)[:, :, None, None] * noisy[:, :3]  # (B, 3, S, S)
        return past + self.look(noisy, condition, tokens, mask)

    def look(self, x: Tensor, condition: Tensor, tokens: Tensor, mask: Tensor) -> Tensor:
        """Down and up the U: x (B, 3 or 6, S, S), condition (B, D), tokens (B, T, E) -> (B, 3, S, S)."""
        x, seen = self.stem(x.contiguous(memory_format=torch.channels_last)), []
        for level, block in enumerate(self.down_blocks):
            x = block(self.downs[level - 1](x) if level else x, condition)  # (B, C, H, W) -> (B, C', H/2, W/2)
            seen.append(x)
        x = self.middle(self.attend_down(x + self.places, tokens, mask), condition)  # (B, C', 8, 8)
        x = self.attend_up(x, tokens, mask)
        for level, block in reversed(list(enumerate(self.up_blocks))):
            x = block(torch.cat([x, seen[level]], dim=1), condition)  # (B, 2C, H, W) -> (B, C, H, W)
            x = self.ups[level - 1](x) if level else x  # (B, C', H, W) -> (B, C, 2H, 2W)
        return self.to_rgb(silu(self.norm(x)))


def whole_text(tokens: Tensor, mask: Tensor) -> Tensor:
    """The state at the last real token, which has read all others; zero where there is no caption.

    Args:
        tokens: (B, T, E); mask: (B, T) bool.
    Returns:
        (B, E), for a causal encoder its pooled output.
    """
    last = (mask * torch.arange(mask.shape[1], device=mask.device)).argmax(dim=1)  # (B,)
    return tokens[torch.arange(len(tokens), device=tokens.device), last] * mask.any(dim=1, keepdim=True)
