"""The adversarial loop: one step, many steps, and going on where one stopped. Built in chapter 12.

`AdversarialTrainer.step` is the heart: one generator pass serves both players. `train` repeats it and calls its
listeners after every step: they draw sample grids, write metrics, save checkpoints. All chance in step t comes from
a generator seeded with (seed, t); a resumed run therefore continues bit for bit without saving any generator's state.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from tqdm import tqdm

from course_lib.checkpoint import load_checkpoint, save_checkpoint
from course_lib.errors import CourseError, require_range
from course_lib.fit import require_finite
from course_lib.images import from_uint8
from course_lib.losses import (
    discriminator_loss,
    generator_loss,
    mode_seeking_loss,
    mse_loss,
    r1_penalty,
    total_loss,
)
from course_lib.optim import Adam, WeightAverage
from course_lib.text_gan import Discriminator, Generator

RANGES = (  # of the settings of `TrainConfig`: names, smallest, largest
    (("steps", "r1_every", "checkpoint_every", "sample_every"), 1, 10**8),
    (("batch_size",), 2, 10_000),
    (("learning_rate",), 1e-9, 1),
    (("constant", "average_decay", "text_dropout"), 0, 1),
    (("r1_weight", "text_noise", "mode_seeking_weight", "mse_weight"), 0, 10**6),
    (("shift",), 0, 16),
    (("seed",), 0, 2**32 - 1),
)


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the measured winners.

    Args:
        steps: discriminator and generator updates.
        batch_size: pictures a step.
        learning_rate: of both players, constant for `constant` of the run and then falling linearly to a twentieth.
        constant: share of the run before the learning rate falls.
        betas: Adam's decay rates.
        r1_weight, r1_every: gradient penalty on real pictures, computed one step in `r1_every` and weighted so much
            more.
        average_decay: of the averaged generator that draws the samples.
        matching_aware: a real picture with a wrong caption counts as fake.
        text_dropout: share of the captions replaced by the empty one, so that drawing without a caption is learned.
        text_noise: standard deviation of noise on the embeddings (whose own is about 1): a caption in words never read
            lies near, not on, one that was (conditioning augmentation: Zhang et al. 2017, arXiv:1612.03242).
        mode_seeking_weight: of the loss that makes different noise draw different pictures.
        mse_weight: of a pixel MSE between the generated picture and the real one with the same caption. It makes sense
            only where a caption has one picture (emoji); where it has many their mean is a blur (see lesson 09).
        shift: the discriminator sees every picture, real or generated, moved by up to so many pixels: few pictures
            look like more (Zhao et al. 2020, arXiv:2006.10738).
        seed: of everything random.
        checkpoint_every, sample_every: steps between checkpoints and between sample grids.
    """

    steps: int = 4000
    batch_size: int = 48
    learning_rate: float = 1e-3
    constant: float = 0.5
    betas: tuple[float, float] = (0.5, 0.99)
    r1_weight: float = 0.02
    r1_every: int = 16
    average_decay: float = 0.99
    matching_aware: bool = True
    text_dropout: float = 0.05
    text_noise: float = 0.2
    mode_seeking_weight: float = 0.012
    mse_weight: float = 0.0
    shift: int = 0
    seed: int = 0
    checkpoint_every: int = 500
    sample_every: int = 250

    def __post_init__(self):
        for names, low, high in RANGES:
            for name in names:
                require_range(name, getattr(self, name), low, high)
        if self.batch_size % 2:
            raise CourseError(f"batch_size={self.batch_size} is odd; captions are drawn twice, so use an even one")


class EmbeddedPictures:
    """Training data on the device: pictures as bytes, captions as embeddings made once by the frozen encoder.

    Args:
        images: (N, 3, S, S) uint8.
        texts: (N, E) float32, row i embeds a caption of picture i.
        empty: (E,) the embedding of the empty caption.
        tokens, empty_tokens: (N, T, E) and (T, E), the same captions token by token, for generators that read them.
    """

    def __init__(
        self,
        images: Tensor,
        texts: Tensor,
        empty: Tensor,
        tokens: Tensor | None = None,
        empty_tokens: Tensor | None = None,
    ):
        if len(images) != len(texts):
            raise ValueError(f"{len(images)} images but {len(texts)} text embeddings; give one for each image")
        self.images, self.texts, self.empty = images, texts, empty
        self.tokens, self.empty_tokens = tokens, empty_tokens

    def batch(self, config: TrainConfig, random: torch.Generator) -> "Batch":
        """A random batch; some captions are replaced by the empty one, and each embedding is blurred by noise."""
        batch_size, device = config.batch_size, self.images.device
        rows = torch.randint(len(self.images), (batch_size,), generator=random).to(device)
        empty = (torch.rand(batch_size, 1, generator=random) < config.text_dropout).to(device)
        images = from_uint8(self.images[rows]).contiguous(memory_format=torch.channels_last)
        texts = torch.where(empty, self.empty, self.texts[rows])  # (B, E)
        # the same caption twice in a batch, or an empty one, fits: it must not count as wrong
        wrong = (texts != texts.roll(1, 0)).any(1) & ~empty.roll(1, 0)[:, 0]
        texts = texts + config.text_noise * torch.randn(texts.shape, generator=random).to(device)
        wrong_texts = texts.roll(1, 0)
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


class Drawn(NamedTuple):
    """What the generator drew: images (B, 3, S, S), from z (B, Z), for texts (B, E)."""

    images: Tensor
    z: Tensor
    texts: Tensor


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


def learning_rate_at(config: TrainConfig, progress: float) -> float:
    """Learning rate at a share `progress` in [0, 1] of the run."""
    left = 1 - max(0.0, progress - config.constant) / max(1 - config.constant, 1e-9)
    return config.learning_rate * max(left, 0.05)


class Trainer:
    """What every training that can be stopped and gone on with has in common: counting, saving, loading.

    A subclass has `config` (with `steps`, `learning_rate`, `constant`), `step(data)`, `parts()` and `optimizers()`.
    """

    def __init__(self, config: Any):
        self.config = config
        self.steps_done = 0
        self.seconds = 0.0  # spent in steps, over all sittings

    @property
    def learning_rate(self) -> float:
        """Of the step at hand."""
        return self.optimizers()[0].lr

    def set_learning_rate(self, learning_rate: float) -> None:
        """For all optimisers, from the next step on."""
        for optimizer in self.optimizers():
            optimizer.lr = learning_rate

    def save(self, folder: str | Path) -> None:
        """Write the whole state of training as a checkpoint folder, atomically."""
        tensors = {f"{name}/{key}": x for name, part in self.parts().items() for key, x in part.state_dict().items()}
        save_checkpoint(
            folder, tensors, {"kind": "training-state", "steps_done": self.steps_done, "seconds": self.seconds}
        )

    def load(self, folder: str | Path) -> None:
        """Go back to a saved state.

        Raises:
            CourseError: no such checkpoint, a damaged one, or one of another architecture.
        """
        tensors, config = load_checkpoint(folder)
        if config.get("kind") != "training-state":
            raise CourseError(f'"{folder}" is no training state; resume from the folder that `course train` wrote')
        try:
            for name, part in self.parts().items():
                start = f"{name}/"
                part.load_state_dict({k.removeprefix(start): x for k, x in tensors.items() if k.startswith(start)})
        except (RuntimeError, ValueError, KeyError) as error:
            told = " ".join(str(error).split())[:200]
            raise CourseError(f'"{folder}" is a training state of another architecture: {told}') from error
        done, seconds = config.get("steps_done"), config.get("seconds")
        if type(done) is not int or not 0 <= done <= self.config.steps or type(seconds) not in (int, float):
            raise CourseError(f'"{folder}" is damaged: steps_done={done}, seconds={seconds}; start a new run')
        self.steps_done, self.seconds = done, float(seconds)


class AdversarialTrainer(Trainer):
    """Generator, discriminator, their optimisers, and the averaged generator.

    Args:
        generator, discriminator: the two players, on one device.
        config: how to train.
    """

    def __init__(self, generator: Generator, discriminator: Discriminator, config: TrainConfig):
        super().__init__(config)
        self.times = 2 if config.mode_seeking_weight > 0 else 1  # how often each caption is drawn
        self.generator = generator.to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(memory_format=torch.channels_last)
        self.generator_optimizer = Adam(generator.parameters(), config.learning_rate, config.betas)
        self.discriminator_optimizer = Adam(discriminator.parameters(), config.learning_rate, config.betas)
        self.average = WeightAverage(generator, config.average_decay)

    def step(self, data: EmbeddedPictures) -> dict[str, float]:
        """One update of both players; returns the losses.

        The generator runs once: its pictures serve the discriminator (cut off from the graph) and then the
        generator's own update.
        """
        started = time.monotonic()
        random = step_random(self.config.seed, self.steps_done)
        batch = data.batch(self.config, random)
        drawn = self.draw(batch, random)
        losses = self.discriminator_step(batch, drawn, random)
        losses |= self.generator_step(batch, drawn, random)
        self.average.update(self.generator)
        values = {name: value.item() for name, value in losses.items()}
        self.steps_done += 1
        self.seconds += time.monotonic() - started
        return values

    def draw(self, batch: Batch, random: torch.Generator) -> "Drawn":
        """The generator's only pass; with mode seeking it draws half of the captions twice."""
        z = torch.randn(len(batch.texts), self.generator.config.z_size, generator=random).to(batch.texts.device)
        texts = repeated(batch.texts, self.times)
        tokens = None if batch.tokens is None else repeated(batch.tokens, self.times)
        return Drawn(self.generator(z, texts, tokens), z, texts)

    def discriminator_step(self, batch: Batch, drawn: "Drawn", random: torch.Generator) -> dict[str, Tensor]:
        """Real with its caption is real; fake, and real with a wrong caption, are not."""
        config, player = self.config, self.discriminator
        with_penalty = config.r1_weight > 0 and self.steps_done % config.r1_every == 0
        real = moved(batch.images, config.shift, random).requires_grad_(with_penalty)
        features = player.features(real)  # (B, H), read with both captions
        real_logits = player.match(features, batch.texts)
        fake_logits = player(moved(drawn.images.detach(), config.shift, random), drawn.texts)
        wrong_logits = player.match(features, batch.wrong_texts) if config.matching_aware else None
        loss = discriminator_loss(real_logits, fake_logits, wrong_logits, batch.wrong)
        penalty = r1_penalty(real_logits, real) if with_penalty else loss.new_zeros(())
        self.discriminator_optimizer.zero_grad()
        (loss + config.r1_weight * config.r1_every * penalty).backward()
        self.discriminator_optimizer.step()
        return {"loss_d": loss, "logit_real": real_logits.mean(), "logit_fake": fake_logits.mean()}

    def generator_step(self, batch: Batch, drawn: "Drawn", random: torch.Generator) -> dict[str, Tensor]:
        """Make the discriminator call the fake real; if asked, make different noise count and pixels agree."""
        config = self.config
        self.discriminator.requires_grad_(False)  # only its input's gradient is needed: a third less work
        loss = generator_loss(self.discriminator(moved(drawn.images, config.shift, random), drawn.texts))
        losses, total = {"loss_g": loss}, loss
        if config.mode_seeking_weight > 0:
            losses["mode_seeking"] = mode_seeking_loss(drawn.images, drawn.z)
            total = total + config.mode_seeking_weight * losses["mode_seeking"]
        if config.mse_weight > 0:
            losses["mse"] = mse_loss(drawn.images, repeated(batch.images, self.times))
            total = total_loss(total, losses["mse"], config.mse_weight)
        self.generator_optimizer.zero_grad()
        total.backward()
        self.generator_optimizer.step()
        self.discriminator.requires_grad_(True)
        return losses

    def parts(self) -> dict[str, Any]:
        """Everything that training changes, by name; each part has `state_dict` and `load_state_dict`."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "average": self.average.model,
            "generator_optimizer": self.generator_optimizer,
            "discriminator_optimizer": self.discriminator_optimizer,
        }

    def optimizers(self) -> list[Adam]:
        """Of both players."""
        return [self.generator_optimizer, self.discriminator_optimizer]


Listener = Callable[[Trainer, dict[str, float]], None]


def train(
    trainer: Trainer,
    data: Any,
    listeners: Sequence[Listener] = (),
    seconds: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    progress: str | None = "training",
) -> None:
    """Step until the run's steps are done.

    Args:
        trainer: what to train; goes on from where it is.
        data: what its steps take, such as `EmbeddedPictures`.
        listeners: each is called with the trainer and the step's losses after every step.
        seconds: end after this time, with the learning rate falling as if all steps had been done; None: no limit.
        stop: asked before every step; True ends the run early.
        progress: what the progress bar says; None: no bar.
    Raises:
        FloatingPointError: a loss is not finite.
    """
    config, started = trainer.config, time.monotonic()
    bar = tqdm(total=config.steps, initial=trainer.steps_done, desc=progress, disable=progress is None)
    with bar:
        while trainer.steps_done < config.steps and not stop():
            elapsed = (time.monotonic() - started) / seconds if seconds else 0.0
            if elapsed >= 1:
                break
            trainer.set_learning_rate(learning_rate_at(config, max(elapsed, trainer.steps_done / config.steps)))
            losses = trainer.step(data)
            told = {name: value for name, value in losses.items() if name.startswith("loss")}
            for loss in told.values():
                require_finite(loss, trainer.steps_done)
            bar.set_postfix({name: f"{loss:.2f}" for name, loss in told.items()}, refresh=False)
            bar.update()
            for listener in listeners:
                listener(trainer, losses)
