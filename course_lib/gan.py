"""The adversarial game: a generator that forges, a discriminator that finds out. Built in chapter 10.

First data one can see whole: points on a line and on a ring. Then the players, small ones for points and DCGAN for
pictures. Last the step in which each player answers the other, in every variant the chapter compares; its failures
(several steps of one player, unequal learning rates, no initialisation, one common loss) are arguments like any other.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import Module, ModuleList

from course_lib.checkpoint import CONFIG, dataclass_from_dict, load_kind, load_weights
from course_lib.errors import CourseError, nearest
from course_lib.images import require_image_size
from course_lib.layers import (
    BatchNorm2d,
    Conv2d,
    ConvTranspose2d,
    Linear,
    init_dcgan_,
    init_kaiming_,
    leaky_relu,
)
from course_lib.losses import (
    discriminator_loss,
    generator_loss,
    hinge_discriminator_loss,
    hinge_generator_loss,
    r1_penalty,
    relativistic_discriminator_loss,
    relativistic_generator_loss,
    saturating_generator_loss,
)
from course_lib.optim import Adam


def mixture_1d(n: int, random: torch.Generator, means: Sequence[float] = (-2.0, 0.0, 2.0), std: float = 0.2) -> Tensor:
    """Points on a line, in heaps of equal weight.

    Args:
        n: number of points.
        random: source of chance.
        means: of the heaps; std: of each.
    Returns:
        (n, 1).
    """
    heap = torch.randint(len(means), (n,), generator=random)
    return torch.tensor(means)[heap, None] + std * torch.randn(n, 1, generator=random)


def ring_centers(modes: int = 8, radius: float = 2.0) -> Tensor:
    """The middles of the heaps of `ring_of_gaussians`: (modes, 2)."""
    angle = torch.arange(modes) * (math.tau / modes)
    return radius * torch.stack([angle.cos(), angle.sin()], dim=1)


def ring_of_gaussians(n: int, random: torch.Generator, modes: int = 8, radius: float = 2.0, std: float = 0.1) -> Tensor:
    """Points of a plane in round heaps on a ring: the classical test for mode collapse.

    Args:
        n: number of points.
        random: source of chance.
        modes: heaps; radius: of the ring; std: of each heap.
    Returns:
        (n, 2).
    Source: Metz et al. 2017, section 3.1, arXiv:1611.02163.
    """
    heap = torch.randint(modes, (n,), generator=random)
    return ring_centers(modes, radius)[heap] + std * torch.randn(n, 2, generator=random)


def covered_modes(points: Tensor, centers: Tensor, std: float = 0.1) -> tuple[int, float]:
    """How many heaps a generator found, and how many of its points lie in one.

    A heap is found if it has at least a quarter of its fair share of the points; a point lies in a heap if it is at
    most three standard deviations from its middle.

    Args:
        points: (N, D); centers: (M, D); std: of the heaps.
    Returns:
        heaps found, 0 to M; share of good points, 0 to 1.
    """
    inside = torch.cdist(points, centers) < 3 * std  # (N, M)
    shares = inside.float().mean(0)  # (M,)
    return int((shares >= 0.25 / len(centers)).sum()), inside.any(1).float().mean().item()


class MLP(Module):
    """Linear layers with leaky ReLUs between: (B, sizes[0]) -> (B, sizes[-1])."""

    def __init__(self, sizes: Sequence[int], initialise: bool):
        super().__init__()
        self.layers = ModuleList(Linear(a, b) for a, b in zip(sizes[:-1], sizes[1:], strict=True))
        if initialise:
            init_kaiming_(self, negative_slope=0.2)
            for layer in self.layers[:-1]:
                layer.bias.data.uniform_(-1, 1)  # with zeros, all kinks of a function of 2 inputs meet at the origin

    def forward(self, x: Tensor) -> Tensor:
        """(B, sizes[0]) -> (B, sizes[-1])."""
        for layer in self.layers[:-1]:
            x = leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)


class MLPGenerator(MLP):
    """Noise to points.

    Args:
        z_size: numbers of noise; size: coordinates of a point, 1 or 2; hidden: units of each layer between.
        layers: how many layers are between.
        initialise: He's initialisation; False keeps torch.nn's default, whose signal shrinks from layer to layer.
    """

    def __init__(self, z_size: int = 2, size: int = 2, hidden: int = 64, layers: int = 2, initialise: bool = True):
        super().__init__([z_size, *[hidden] * layers, size], initialise)
        self.z_size = z_size


class MLPDiscriminator(MLP):
    """Points (B, size) to logits (B,); arguments as for `MLPGenerator`."""

    def __init__(self, size: int = 2, hidden: int = 64, layers: int = 2, initialise: bool = True):
        super().__init__([size, *[hidden] * layers, 1], initialise)

    def forward(self, x: Tensor) -> Tensor:
        """(B, size) -> logits (B,)."""
        return super().forward(x)[:, 0]


@dataclass(frozen=True)
class DCGANConfig:
    """Size of both players of a DCGAN; the paper's has 64 pixels, 100 numbers of noise and a width of 128.

    Args:
        image_size: 16 to 256 pixels, a power of two.
        z_size: length of the noise vector.
        width: channels beside the picture; they double with every halving of the picture.
    Raises:
        CourseError: a size is out of range.
    """

    image_size: int = 32
    z_size: int = 64
    width: int = 32

    def __post_init__(self):
        require_image_size(self.image_size)
        for name, most in (("z_size", 4096), ("width", 256)):
            if not 1 <= getattr(self, name) <= most:
                raise CourseError(f"{name}={getattr(self, name)} is out of range; use 1 to {most}")
        if self.channels[0] > 2048:  # over 100 million parameters
            most = self.width * 2048 // self.channels[0]
            raise CourseError(f"width={self.width} is too much for image_size={self.image_size}; use 1 to {most}")

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels at 4 x 4, 8 x 8, ... up to half the picture's size, such as (128, 64, 32) for 32 pixels."""
        halvings = int(math.log2(self.image_size // 4))
        return tuple(self.width * 2**i for i in reversed(range(halvings)))


class DCGANGenerator(Module):
    """Noise to picture: transposed convolutions, batch normalisation and ReLU, tanh at the end.

    Args:
        config: sizes.
        initialise: DCGAN's own initialisation; False keeps the default of torch.nn.
    Source: Radford et al. 2015, section 3 and figure 1, arXiv:1511.06434; kernels of 4 as in its published code.
    """

    def __init__(self, config: DCGANConfig, initialise: bool = True):
        super().__init__()
        self.config, self.z_size = config, config.z_size
        channels = config.channels
        self.start = ConvTranspose2d(config.z_size, channels[0], 4, bias=False)  # 1 x 1 -> 4 x 4
        self.norms = ModuleList(BatchNorm2d(c) for c in channels)
        self.ups = ModuleList(
            ConvTranspose2d(a, b, 4, stride=2, padding=1, bias=False)
            for a, b in zip(channels, (*channels[1:], 3), strict=True)
        )
        if initialise:
            init_dcgan_(self)

    @classmethod
    def from_pretrained(cls, name_or_path: str | Path, device: str | torch.device = "cpu") -> "DCGANGenerator":
        """Load the generator of a trained DCGAN, ready to draw: in eval mode, its weights fixed.

        Args:
            name_or_path: a name under data/checkpoints/, such as "gan-shapes-32", or a folder.
            device: where it shall compute.
        Raises:
            CourseError: no such checkpoint, or a damaged, foreign or differently built one.
        """
        folder, tensors, config = load_kind(name_or_path, "dcgan", "gan-shapes-32")
        model = cls(dataclass_from_dict(DCGANConfig, config.get("players"), f"{folder / CONFIG}, players"))
        mine = {name.removeprefix("generator."): x for name, x in tensors.items() if name.startswith("generator.")}
        load_weights(model, mine, folder)
        return model.to(device).eval().requires_grad_(False)

    def forward(self, z: Tensor) -> Tensor:
        """z (B, Z) from N(0, 1) -> pictures (B, 3, S, S) in [-1, 1]."""
        x = self.start(z[:, :, None, None])  # (B, Z, 1, 1) -> (B, C, 4, 4)
        for norm, up in zip(self.norms, self.ups, strict=True):
            x = up(norm(x).relu())  # (B, C, H, W) -> (B, C/2, 2H, 2W)
        return torch.tanh(x)


class DCGANDiscriminator(Module):
    """Picture to logit: strided convolutions, batch normalisation except on the picture, leaky ReLU of slope 0.2.

    Args, Source: as for `DCGANGenerator`.
    """

    def __init__(self, config: DCGANConfig, initialise: bool = True):
        super().__init__()
        channels = config.channels[::-1]
        self.first = Conv2d(3, channels[0], 4, stride=2, padding=1)
        self.downs = ModuleList(
            Conv2d(a, b, 4, stride=2, padding=1, bias=False) for a, b in zip(channels[:-1], channels[1:], strict=True)
        )
        self.norms = ModuleList(BatchNorm2d(c) for c in channels[1:])
        self.output = Conv2d(channels[-1], 1, 4)  # 4 x 4 -> 1 x 1
        if initialise:
            init_dcgan_(self)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> logits (B,): log odds that the picture is real."""
        x = leaky_relu(self.first(images), 0.2)
        for down, norm in zip(self.downs, self.norms, strict=True):
            x = leaky_relu(norm(down(x)), 0.2)  # (B, C, H, W) -> (B, 2C, H/2, W/2)
        return self.output(x).flatten()


# name -> what D minimises (real and fake logits) and what G minimises (real and fake logits)
GAN_LOSSES = {
    "non-saturating": (discriminator_loss, lambda real, fake: generator_loss(fake)),
    "saturating": (discriminator_loss, lambda real, fake: saturating_generator_loss(fake)),
    "hinge": (hinge_discriminator_loss, lambda real, fake: hinge_generator_loss(fake)),
    "relativistic": (relativistic_discriminator_loss, relativistic_generator_loss),
}


class AdversarialStep:
    """Both players, their optimisers and their losses; each call lets each of them answer the other once.

    Args:
        generator: (B, Z) -> (B, ...), with `z_size`; discriminator: (B, ...) -> logits (B,); both in train mode.
        loss: a name of `GAN_LOSSES`.
        learning_rates: of the generator and the discriminator; a much larger second one lets D win.
        betas: Adam's, of both.
        r1_weight, r2_weight: of the gradient penalty on real and on generated data.
        discriminator_steps: answers of D for each of G; many, and G learns nothing from a D that is always right
            (with the saturating loss).
        generator_steps: answers of G for each of D; many, and G runs to the one point that D likes best, again and
            again: mode collapse.
        joint: the misunderstanding of the game, one common loss L_D + L_G that both players minimise.
        seed: of the noise.
    Raises:
        CourseError: the loss is unknown, or a number of steps is below 1.
    Source: Goodfellow et al. 2014, algorithm 1; r1 and r2 as in Huang et al. 2024 (R3GAN), arXiv:2501.05441.
    """

    def __init__(
        self, generator: Module, discriminator: Module, loss: str = "non-saturating",
        learning_rates: tuple[float, float] = (1e-3, 1e-3), betas: tuple[float, float] = (0.5, 0.99),
        r1_weight: float = 0.0, r2_weight: float = 0.0, discriminator_steps: int = 1, generator_steps: int = 1,
        joint: bool = False, seed: int = 0,
    ):  # fmt: skip
        if loss not in GAN_LOSSES:
            raise CourseError(f'loss="{loss}" is unknown; {nearest(loss, GAN_LOSSES)}')
        for name, steps in [("discriminator_steps", discriminator_steps), ("generator_steps", generator_steps)]:
            if steps < 1:
                raise CourseError(f"{name}={steps} leaves a player out; use 1 or more")
        self.generator, self.discriminator, self.loss = generator, discriminator, loss
        self.generator_optimizer = Adam(generator.parameters(), learning_rates[0], betas)
        self.discriminator_optimizer = Adam(discriminator.parameters(), learning_rates[1], betas)
        self.r1_weight, self.r2_weight = r1_weight, r2_weight
        self.discriminator_steps, self.generator_steps, self.joint = discriminator_steps, generator_steps, joint
        self.random = torch.Generator().manual_seed(seed)

    def __call__(self, real: Tensor) -> dict[str, float]:
        """Play one round against real data (B, ...); returns the last loss of each player, in nats (hinge: no unit)."""
        if self.joint:
            return self.joint_step(real)
        for _ in range(self.discriminator_steps):
            loss_d = self.discriminator_step(real)
        for _ in range(self.generator_steps):
            loss_g = self.generator_step(real)
        return {"loss_d": loss_d.item(), "loss_g": loss_g.item()}

    def fake(self, n: int) -> Tensor:
        """n pictures or points from new noise: (n, ...)."""
        z = torch.randn(n, self.generator.z_size, generator=self.random)
        return self.generator(z.to(next(self.generator.parameters())))

    def discriminator_step(self, real: Tensor) -> Tensor:
        """D learns to tell real (B, ...) from generated; returns its loss () without penalties."""
        with torch.no_grad():
            fake = self.fake(len(real))
        real = real.detach().requires_grad_(self.r1_weight > 0)
        fake.requires_grad_(self.r2_weight > 0)
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        total = loss = GAN_LOSSES[self.loss][0](real_logits, fake_logits)
        if self.r1_weight > 0:
            total = total + self.r1_weight * r1_penalty(real_logits, real)
        if self.r2_weight > 0:
            total = total + self.r2_weight * r1_penalty(fake_logits, fake)  # the same penalty, on what G drew
        self.discriminator_optimizer.zero_grad()
        total.backward()
        self.discriminator_optimizer.step()
        return loss.detach()

    def generator_step(self, real: Tensor) -> Tensor:
        """G learns to be taken for real; D only answers. Returns G's loss ()."""
        self.discriminator.requires_grad_(False)  # D's weights need no gradient, only its input does
        real_logits = self.discriminator(real) if self.loss == "relativistic" else None  # the others do not look at it
        loss = GAN_LOSSES[self.loss][1](real_logits, self.discriminator(self.fake(len(real))))
        self.discriminator.requires_grad_(True)
        self.generator_optimizer.zero_grad()
        loss.backward()
        self.generator_optimizer.step()
        return loss.detach()

    def joint_step(self, real: Tensor) -> dict[str, float]:
        """Everybody minimises L_D + L_G. D is then paid for its own defeat, and nobody for what is wanted."""
        real_logits, fake_logits = self.discriminator(real), self.discriminator(self.fake(len(real)))
        loss_d = GAN_LOSSES[self.loss][0](real_logits, fake_logits)
        loss_g = GAN_LOSSES[self.loss][1](real_logits, fake_logits)
        for optimizer in (self.generator_optimizer, self.discriminator_optimizer):
            optimizer.zero_grad()
        (loss_d + loss_g).backward()
        self.generator_optimizer.step(), self.discriminator_optimizer.step()
        return {"loss_d": loss_d.item(), "loss_g": loss_g.item()}
