"""Pictures to vectors: a plain convolutional encoder, and two ways to train it without labels. Built in chapter 06.

Strided convolutions halve the picture until 4 x 4 positions are left, and one linear layer reads all of them. Because
it flattens (instead of averaging over positions), the vector still knows *where* things are. An autoencoder learns by
drawing the picture again; self-supervised training by recognising two views of it; a linear probe says what it gained.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import Module, ModuleList

from course_lib.errors import CourseError
from course_lib.fit import fit, warmup_cosine
from course_lib.images import require_image_size
from course_lib.layers import BatchNorm2d, Conv2d, ConvTranspose2d, Linear, init_kaiming_
from course_lib.losses import cross_entropy, mse_loss, require_same_shape
from course_lib.optim import Adam


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


def encoder_widths(config: ImageEncoderConfig) -> list[int]:
    """Channels from the picture down to 4 x 4, such as [3, 32, 64, 128] for 32 pixels."""
    halvings = int(math.log2(config.image_size // 4))
    return [3] + [min(config.width * 2**i, 256) for i in range(halvings)]


class ImageEncoder(Module):
    """Convolution, batch normalisation, ReLU, half the size; until 4 x 4; then linear.

    Args:
        config: sizes.
    """

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.config = config
        widths = encoder_widths(config)
        self.convolutions = ModuleList(Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in pairwise(widths))
        self.norms = ModuleList(BatchNorm2d(b) for b in widths[1:])
        self.output = Linear(widths[-1] * 4 * 4, config.output_size)
        init_kaiming_(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> (B, E)."""
        x = images
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = norm(convolution(x)).relu()  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        return self.output(x.flatten(1))  # (B, 4 * 4 * C) -> (B, E)


class ImageDecoder(Module):
    """The way back, `ImageEncoder` in a mirror: linear, then transposed convolutions until the picture has its size.

    Args:
        config: sizes of the encoder that it mirrors.
    """

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.config = config
        widths = encoder_widths(config)[::-1]
        self.start = Linear(config.output_size, widths[0] * 4 * 4)
        self.norms = ModuleList(BatchNorm2d(a) for a in widths[:-1])
        self.ups = ModuleList(ConvTranspose2d(a, b, 4, stride=2, padding=1) for a, b in pairwise(widths))
        init_kaiming_(self)

    def forward(self, vectors: Tensor) -> Tensor:
        """(B, E) -> (B, 3, S, S) in [-1, 1]."""
        x = self.start(vectors).view(len(vectors), -1, 4, 4)  # (B, C, 4, 4)
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(norm(x).relu())  # (B, C, H, W) -> (B, C/2, 2H, 2W)
        return torch.tanh(x)


class Autoencoder(Module):
    """Picture to vector and back: whatever passes the narrow vector is what the network found worth keeping.

    Args:
        config: sizes; the vector has `output_size` numbers.
    Source: Hinton & Salakhutdinov 2006.
    """

    def __init__(self, config: ImageEncoderConfig):
        super().__init__()
        self.encoder, self.decoder = ImageEncoder(config), ImageDecoder(config)

    def forward(self, images: Tensor) -> Tensor:
        """Pictures (B, 3, S, S) in [-1, 1] -> the same pictures as far as they passed, (B, 3, S, S)."""
        return self.decoder(self.encoder(images))

    def loss(self, images: Tensor) -> Tensor:
        """Mean squared error of the reconstruction: (B, 3, S, S) -> ()."""
        return mse_loss(self(images), images)


@dataclass(frozen=True)
class Augmentation:
    """How much two views of one picture may differ: what varies here, the encoder learns to ignore.

    The defaults keep every attribute of the shapes: a small shift leaves the place, a small zoom the size, a small
    change of colour the colour's name. A flip would make "left" and "right" one.

    Args:
        shift: by up to so many pixels in each direction.
        zoom: larger or smaller by up to this share.
        flip: half of the pictures are mirrored left to right.
        color: share by which contrast, and each channel's brightness, vary.
        noise: standard deviation, in units of pixel values.
    Raises:
        CourseError: a number is below 0, or the zoom is not below 1.
    """

    shift: float = 2.0
    zoom: float = 0.1
    flip: bool = False
    color: float = 0.1
    noise: float = 0.1

    def __post_init__(self):
        for name in ("shift", "zoom", "color", "noise"):
            if not 0 <= getattr(self, name) < (1 if name == "zoom" else math.inf):
                raise CourseError(f"{name}={getattr(self, name)} is out of range; use the default or 0 for none")


def resampling_matrix(size: int, zoom: Tensor, shift: Tensor) -> Tensor:
    """Where the pixels of a line of the new picture come from, with linear interpolation between two neighbours.

    Args:
        size: pixels of the line.
        zoom: (B,) 1 keeps the size, 2 makes things twice as large, -1 mirrors.
        shift: (B,) in pixels, to the right or down.
    Returns:
        (B, size, size): row i holds the weights of the old pixels in new pixel i, which sum to 1. Beyond the border
        the outermost pixel goes on.
    """
    pixels = torch.arange(size, device=zoom.device)
    center = (size - 1) / 2
    source = center + (pixels - center - shift[:, None]) / zoom[:, None]  # (B, size)
    distance = source.clamp(0, size - 1)[:, :, None] - pixels
    return (1 - distance.abs()).clamp(min=0)  # (B, size, size), a tent one pixel wide


def augment(images: Tensor, random: torch.Generator, augmentation: Augmentation | None = None) -> Tensor:
    """One random view of each picture: shifted, zoomed, perhaps mirrored, in other light, with noise.

    Args:
        images: (B, 3, S, S) in [-1, 1].
        random: source of all chance, on the CPU.
        augmentation: how much; None: as much as `Augmentation()` says.
    Returns:
        (B, 3, S, S) in [-1, 1].
    """
    count, size, much = len(images), images.shape[-1], augmentation or Augmentation()
    chance = (torch.rand(count, 8, generator=random) * 2 - 1).to(images)  # uniform from -1 to 1
    zoom = 1 + much.zoom * chance[:, 0]
    mirror = chance[:, 7].sign() if much.flip else 1.0  # -1 turns left and right round
    rows = resampling_matrix(size, zoom, much.shift * chance[:, 1])
    columns = resampling_matrix(size, zoom * mirror, much.shift * chance[:, 2])
    views = rows[:, None] @ images @ columns[:, None].transpose(2, 3)  # (B, 1, S, S) (B, 3, S, S) (B, 1, S, S)
    contrast, brightness = 1 + much.color * chance[:, 3, None, None, None], much.color * chance[:, 4:7, None, None]
    noise = much.noise * torch.randn(images.shape, generator=random).to(images)
    return (views * contrast + brightness + noise).clamp(-1, 1)


def nt_xent_loss(a: Tensor, b: Tensor, temperature: float = 0.5) -> Tensor:
    """Each view must pick its partner among all other views of the batch (normalised, temperature-scaled).

    Args:
        a, b: (B, E) projections, of any length; row i of both are two views of picture i.
        temperature: the cosines are divided by it; smaller looks more at the nearest strangers.
    Returns:
        () in nats; log(2 B - 1) if nothing is learned.
    Raises:
        ValueError: the shapes differ.
    Source: Chen et al. 2020, eq. 1, arXiv:2002.05709.
    """
    require_same_shape(a, b)
    views = torch.cat([a, b])  # (2B, E)
    views = views / views.norm(dim=1, keepdim=True).clamp(min=1e-8)
    logits = (views @ views.T / temperature).fill_diagonal_(-torch.inf)  # (2B, 2B): no view is its own stranger
    partners = torch.arange(2 * len(a), device=a.device).roll(len(a))  # i -> i + B, and back
    return cross_entropy(logits, partners)


class SelfSupervised(Module):
    """An encoder and the small head it is trained with; afterwards the head is thrown away.

    The head may forget what tells no views apart; what stands before it, the encoder's vector, still has it.

    Args:
        encoder: what is trained.
        projection_size: length of the vectors that are compared.
        temperature: of `nt_xent_loss`.
    Source: Chen et al. 2020, section 2.1 (SimCLR).
    """

    def __init__(self, encoder: ImageEncoder, projection_size: int = 64, temperature: float = 0.1):
        super().__init__()
        self.encoder, self.temperature = encoder, temperature
        width = encoder.config.output_size
        self.hidden, self.output = Linear(width, width), Linear(width, projection_size)
        init_kaiming_(self.hidden), init_kaiming_(self.output)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """Two views of each picture, (B, 3, S, S) each -> their loss () in nats."""
        vectors = self.encoder(torch.cat([a, b]))  # (2B, E), normalised together
        return nt_xent_loss(*self.output(self.hidden(vectors.relu()).relu()).chunk(2), self.temperature)


def pretrain(
    encoder: ImageEncoder, images: Tensor, steps: int, batch_size: int = 128, learning_rate: float = 2e-3,
    seed: int = 0, augmentation: Augmentation | None = None, progress: str | None = None,
) -> list[float]:  # fmt: skip
    """Train an encoder without labels: of all pictures in a batch, recognise the other view of your own.

    Args:
        encoder: is changed, and left in eval mode.
        images: (N, 3, S, S) in [-1, 1].
        steps, batch_size, learning_rate: of the training; two views of each picture in a batch.
        seed: of the head's weights, the batches and the views.
        augmentation: how much the views differ.
        progress: what the progress bar says; None: no bar.
    Returns:
        The loss of each step, in nats.
    Source: Chen et al. 2020, algorithm 1 (SimCLR).
    """
    torch.manual_seed(seed)
    model, random = SelfSupervised(encoder).to(images.device), torch.Generator().manual_seed(seed)

    def views(step: int) -> tuple[Tensor, Tensor]:
        rows = torch.randint(len(images), (batch_size,), generator=random)
        a, b = (augment(images[rows], random, augmentation) for _ in range(2))
        return a.contiguous(memory_format=torch.channels_last), b.contiguous(memory_format=torch.channels_last)

    schedule = warmup_cosine(learning_rate, steps, steps // 20)
    optimizer = Adam(model.parameters())
    losses = fit(model, views, SelfSupervised.forward, optimizer, steps, learning_rate=schedule, progress=progress)
    encoder.eval()
    return losses


def linear_probe(
    features: Tensor, labels: Tensor, test_features: Tensor, test_labels: Tensor, penalty: float = 0.01
) -> float:
    """How well a linear classifier reads labels off frozen features: the measure of what an encoder has learned.

    The classifier is ridge regression onto one-hot labels, which has a closed form: nothing to tune, no chance.

    Args:
        features: (N, D); test_features: (M, D); any size, they are normalised with the first ones' mean and deviation.
        labels: (N,) int64 from 0 up; test_labels: (M,).
        penalty: of the squared weights; D near N or above needs more.
    Returns:
        The share of test labels that are right, in [0, 1].
    Source: Hoerl & Kennard 1970 (ridge regression); Alain & Bengio 2016, arXiv:1610.01644 (probes).
    """
    mean, deviation = features.mean(0), features.std(0).clamp(min=1e-6)
    x, x_test = ((f - mean).div(deviation).double() for f in (features, test_features))
    one_hot = torch.eye(int(labels.max()) + 1, dtype=x.dtype, device=x.device)[labels]  # (N, C)
    prior = one_hot.mean(0)
    scores = x_test @ ridge_regression(x, one_hot - prior, penalty) + prior  # (M, C)
    return (scores.argmax(1) == test_labels).double().mean().item()


def ridge_regression(x: Tensor, y: Tensor, penalty: float) -> Tensor:
    """The weights that minimise |x w - y|^2 / N + penalty |w|^2: x (N, D), y (N, C) -> (D, C).

    Two equal forms; the one with the smaller matrix is taken. Source: Hoerl & Kennard 1970, eq. 2.1.
    """
    small = penalty * len(x) * torch.eye(min(x.shape), dtype=x.dtype, device=x.device)
    if x.shape[0] < x.shape[1]:
        return x.T @ torch.linalg.solve(x @ x.T + small, y)
    return torch.linalg.solve(x.T @ x + small, x.T @ y)
