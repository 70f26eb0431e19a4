"""What a training step is made of: a batch of pictures with embedded captions, and chance. Built in chapter 12.

Captions are read once, before training, by the frozen text encoder; pictures stay bytes until their batch is drawn. All
chance in step t comes from a generator seeded with (seed, t): a resumed run continues bit for bit without saving any
generator's state.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from course_lib.images import from_uint8


def repeated(rows: Tensor, times: int) -> Tensor:
    """The first B / times rows, so many times over: (B, ...) -> (B, ...)."""
    return torch.cat([rows[: len(rows) // times]] * times) if times > 1 else rows


def moved(images: Tensor, most: int, random: torch.Generator) -> Tensor:
    """Each picture moved by its own whole number of pixels, at most `most` in each direction; its edge is repeated.

    Args:
        images: (B, 3, S, S).
        most: 0 to S / 2; 0 leaves them as they are.
        random: source of chance, on the CPU.
    Returns:
        (B, 3, S, S), differentiable.
    """
    if most == 0:
        return images
    batch, size = len(images), images.shape[-1]
    by = torch.randint(-most, most + 1, (2, batch, 1), generator=random)
    rows, columns = ((torch.arange(size) + by).clamp(0, size - 1)).to(images.device)  # (B, S) each
    which = torch.arange(batch, device=images.device)[:, None, None]
    return images[which, :, rows[:, :, None], columns[:, None]].permute(0, 3, 1, 2)  # channels last, as it was


def step_random(seed: int, step: int) -> torch.Generator:
    """The source of all chance in one training step."""
    return torch.Generator().manual_seed(seed * 1_000_000_007 + step)


class EmbeddedPictures:
    """Training data on the device: pictures as bytes, captions as embeddings made once by the frozen encoder.

    Args:
        images: (N, 3, S, S) uint8.
        texts: (N, E) float32, row i embeds a caption of picture i.
        empty: (E,) the embedding of the empty caption.
        tokens, empty_tokens: (N, T, E) and (T, E), the same captions token by token, for generators that read them.
        twins: (N, E), captions of the same words that do not fit, see `CaptionedShapes.twins`; where a caption has one,
            it is the wrong caption half of the time.
        shown: (N,) int64, which picture caption i belongs to, where some have several: images are then fewer than N.
    """

    def __init__(
        self,
        images: Tensor,
        texts: Tensor,
        empty: Tensor,
        tokens: Tensor | None = None,
        empty_tokens: Tensor | None = None,
        twins: Tensor | None = None,
        shown: Tensor | None = None,
    ):
        if shown is None and len(images) != len(texts):
            raise ValueError(f"{len(images)} images but {len(texts)} text embeddings; give one for each image")
        self.images, self.texts, self.empty = images, texts, empty
        self.tokens, self.empty_tokens, self.twins, self.shown = tokens, empty_tokens, twins, shown

    def batch(self, batch_size: int, text_dropout: float, text_noise: float, random: torch.Generator) -> "Batch":
        """A random batch; some captions are replaced by the empty one, and each embedding is blurred by noise.

        Args:
            batch_size: B; text_dropout: share of empty captions; text_noise: standard deviation; random: on the CPU.
        """
        device = self.images.device
        rows = torch.randint(len(self.texts), (batch_size,), generator=random).to(device)
        pictures = rows if self.shown is None else self.shown[rows]
        empty = (torch.rand(batch_size, 1, generator=random) < text_dropout).to(device)
        images = from_uint8(self.images[pictures]).contiguous(memory_format=torch.channels_last)
        texts = torch.where(empty, self.empty, self.texts[rows])  # (B, E)
        wrong_texts = texts.roll(1, 0)
        # the same caption twice in a batch, another one of the same picture, or an empty one fits: it is not wrong
        wrong = (texts != wrong_texts).any(1) & (pictures != pictures.roll(1, 0)) & ~empty.roll(1, 0)[:, 0]
        if self.twins is not None:
            twins, every_other = self.twins[rows], torch.arange(batch_size, device=device) % 2 == 0
            hard = every_other & (twins != texts).any(1) & ~empty[:, 0]
            wrong_texts, wrong = torch.where(hard[:, None], twins, wrong_texts), wrong | hard
        noise = text_noise * torch.randn(texts.shape, generator=random).to(device)
        texts, wrong_texts = texts + noise, wrong_texts + noise.roll(1, 0)
        if self.tokens is None:
            return Batch(images, texts, wrong_texts, wrong)
        tokens = torch.where(empty[:, :, None], self.empty_tokens, self.tokens[rows])  # (B, T, E)
        return Batch(images, texts, wrong_texts, wrong, tokens.float())


class Batch(NamedTuple):
    """Pictures (B, 3, S, S) in [-1, 1]; texts and wrong texts (B, E); wrong (B,) bool: the wrong text really is;
    tokens (B, T, E), or None."""

    images: Tensor
    texts: Tensor
    wrong_texts: Tensor
    wrong: Tensor
    tokens: Tensor | None = None
