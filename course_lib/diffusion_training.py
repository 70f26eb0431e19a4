"""How a denoiser is trained: one network, one loss, no opponent. Built in chapter 16.

The trainer has the form of the adversarial one of chapter 12, so the same loop, the same logs and the same exact resume
serve both, and both can be compared at equal cost.
"""

import time
from dataclasses import dataclass
from typing import Any

import torch

from course_lib.batches import EmbeddedPictures, step_random
from course_lib.diffusion import diffusion_loss
from course_lib.errors import require_range
from course_lib.images import from_uint8
from course_lib.optim import Adam, WeightAverage
from course_lib.training import Trainer
from course_lib.unet import UNet


@dataclass(frozen=True)
class DiffusionTrainConfig:
    """How to train a denoiser.

    Args:
        steps: updates.
        batch_size: pictures a step.
        learning_rate: constant for `constant` of the run, then falling linearly to a twentieth.
        constant: share of the run before the learning rate falls.
        average_decay: of the averaged network that draws.
        text_dropout: share of the captions that is withheld, so that drawing without one is learned too.
        seed: of everything random.
        checkpoint_every: steps between checkpoints.
    """

    steps: int = 20_000
    batch_size: int = 48
    learning_rate: float = 1e-3
    constant: float = 0.3
    average_decay: float = 0.999
    text_dropout: float = 0.1
    seed: int = 0
    checkpoint_every: int = 500

    def __post_init__(self):
        require_range("steps", self.steps, 1, 10**8)
        require_range("batch_size", self.batch_size, 1, 10_000)
        require_range("learning_rate", self.learning_rate, 1e-9, 1)
        for name in ("constant", "average_decay", "text_dropout"):
            require_range(name, getattr(self, name), 0, 1)
        require_range("seed", self.seed, 0, 2**32 - 1)
        require_range("checkpoint_every", self.checkpoint_every, 1, 10**8)


class DiffusionTrainer(Trainer):
    """A denoiser, its optimiser, and its average.

    Args:
        unet: on its device.
        config: how to train.
    """

    def __init__(self, unet: UNet, config: DiffusionTrainConfig):
        super().__init__(config)
        self.unet = unet
        self.optimizer = Adam(unet.parameters(), config.learning_rate)
        self.average = WeightAverage(unet, config.average_decay)

    def step(self, data: EmbeddedPictures) -> dict[str, float]:
        """One update; returns the loss.

        Args:
            data: pictures of the network's size, with the tokens of their captions.
        """
        started, config = time.monotonic(), self.config
        random = step_random(config.seed, self.steps_done)
        rows = torch.randint(len(data.images), (config.batch_size,), generator=random).to(data.images.device)
        tokens = data.tokens[rows].float()  # (B, T, E)
        mask = tokens.any(-1)
        longest = int(mask.sum(1).max())
        loss = diffusion_loss(
            self.unet,
            from_uint8(data.images[rows]),
            tokens[:, :longest],
            mask[:, :longest],
            random,
            config.text_dropout,
        )
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.average.update(self.unet)
        self.steps_done += 1
        self.seconds += time.monotonic() - started
        return {"loss": loss.item()}

    def parts(self) -> dict[str, Any]:
        """As `AdversarialTrainer.parts`."""
        return {"unet": self.unet, "average": self.average.model, "optimizer": self.optimizer}

    def optimizers(self) -> list[Adam]:
        """The only one."""
        return [self.optimizer]
