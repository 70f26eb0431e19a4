"""Pictures to vectors: a plain convolutional encoder. Built in chapter 06.

Strided convolutions halve the picture until 4 x 4 positions are left, and one linear layer reads all of them. Because
it flattens (instead of averaging over positions), the vector still knows *where* things are.
"""

import math
from dataclasses import dataclass

from torch import Tensor
from torch.nn import Module, ModuleList

from course_lib.errors import CourseError
from course_lib.images import require_image_size
from course_lib.layers import BatchNorm2d, Conv2d, Linear, init_kaiming_


@dataclass(frozen=True)
class ImageEncoderConfig:
    """Size of an `ImageEncoder`: pixels, channels after the first convolution (they double), length of the vector."""

    image_size: int = 32
    width: int = 32
    output_size: int = 128

    def __post_init__(self):
        require_image_size(self.image_size)
        for name in ("width", "output_size"):
            if not 1 <= getattr(self, name) <= 2048:
                raise CourseError(f"{name}={getattr(self, name)} is out of range; use 1 to 2048")


class ImageEncoder(Module):
    """Convolution, batch normalisation, ReLU, half the size; until 4 x 4; then linear.

    Args:
        config: sizes.
    """

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.config = config
        halvings = int(math.log2(config.image_size // 4))
        widths = [3] + [min(config.width * 2**i, 256) for i in range(halvings)]
        self.convolutions = ModuleList(
            Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = ModuleList(BatchNorm2d(b) for b in widths[1:])
        self.output = Linear(widths[-1] * 4 * 4, config.output_size)
        init_kaiming_(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> (B, E)."""
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x)).relu()  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        return self.output(x.flatten(1))  # (B, 4 * 4 * C) -> (B, E)
