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
from torch.nn import Module
from tqdm import tqdm

from course_lib.alignment import unit
from course_lib.batches import Batch, EmbeddedPictures, moved, repeated, step_random
from course_lib.checkpoint import load_checkpoint, save_checkpoint
from course_lib.errors import CourseError, nearest, require_range
from course_lib.gan import GAN_LOSSES
from course_lib.image_encoder import ImageEncoder
from course_lib.losses import (
    contrastive_loss,
    discriminator_loss,
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
    (("r1_weight", "r2_weight", "text_noise", "mode_seeking_weight", "mse_weight", "contrastive_weight"), 0, 10**6),
    (("shift",), 0, 16),
    (("seed",), 0, 2**32 - 1),
)
CONTRASTIVE_SCALE = 10.0  # of the cosines, as in the alignment of chapter 08 before it learns its own
MOST_SKIPPED = 20  # updates in a row; a training that only stumbles gets up again before that


@dataclass(frozen=True)
class TrainConfig:
    """How to train; the defaults are the measured winners.

    Args:
        steps: discriminator and generator updates.
        batch_size: pictures a step.
        learning_rate: of both players, constant for `constant` of the run and then falling linearly to a twentieth.
        constant: share of the run before the learning rate falls.
        betas: Adam's decay rates.
        loss: a name of `gan.GAN_LOSSES`.
        r1_weight, r2_weight, r1_every: gradient penalty on real and on generated pictures, computed one step in
            `r1_every` and weighted so much more.
        average_decay: of the averaged generator that draws the samples.
        matching_aware: a real picture with a wrong caption counts as fake.
        text_dropout: share of the captions replaced by the empty one, so that drawing without a caption is learned.
        text_noise: standard deviation of noise on the embeddings: a caption in words never read lies near, not on, one
            that was (conditioning augmentation: Zhang et al. 2017, arXiv:1612.03242). Their own is about 1.
        mode_seeking_weight: of the loss that makes different noise draw different pictures.
        mse_weight: of a pixel MSE between the generated picture and the real one with the same caption. It makes sense
            only where a caption has one picture (emoji); where it has many their mean is a blur (see lesson 09).
        contrastive_weight: of the contrastive loss between generated pictures, seen by a frozen image encoder of
            chapter 08, and their captions.
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
    loss: str = "non-saturating"
    r1_weight: float = 0.02
    r2_weight: float = 0.0
    r1_every: int = 16
    average_decay: float = 0.99
    matching_aware: bool = True
    text_dropout: float = 0.05
    text_noise: float = 0.2
    mode_seeking_weight: float = 0.012
    mse_weight: float = 0.0
    contrastive_weight: float = 0.0
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
        if self.loss not in GAN_LOSSES:
            raise CourseError(f'loss="{self.loss}" is unknown; {nearest(self.loss, GAN_LOSSES)}')


class Drawn(NamedTuple):
    """What the generator drew: images (B, 3, S, S), from z (B, Z), for texts (B, E)."""

    images: Tensor
    z: Tensor
    texts: Tensor


def learning_rate_at(config: TrainConfig, progress: float) -> float:
    """Learning rate at a share `progress` in [0, 1] of the run."""
    left = 1 - max(0.0, progress - config.constant) / max(1 - config.constant, 1e-9)
    return config.learning_rate * max(left, 0.05)


def matching_aware_loss(name: str, real: Tensor, fake: Tensor, wrong: Tensor | None, wrong_mask: Tensor) -> Tensor:
    """What the discriminator minimises, by any loss of `GAN_LOSSES`, with real pictures under wrong captions as fakes.

    Args:
        name: of the loss; real, fake, wrong: logits (B,); no wrong ones: None.
        wrong_mask: (B,) bool, True where the wrong caption really is wrong.
    Returns:
        ().
    """
    if name == "non-saturating":
        return discriminator_loss(real, fake, wrong, wrong_mask)
    judge = GAN_LOSSES[name][0]
    if wrong is None or not wrong_mask.any():
        return judge(real, fake)
    return (judge(real, fake) + judge(real[wrong_mask], wrong[wrong_mask])) / 2


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
        image_encoder: frozen, of the alignment model that embedded the captions; `contrastive_weight` needs it.
    Raises:
        CourseError: the contrastive loss is asked for without an image encoder.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        config: TrainConfig,
        image_encoder: ImageEncoder | None = None,
    ):
        super().__init__(config)
        if config.contrastive_weight > 0 and image_encoder is None:
            raise CourseError(f"contrastive_weight={config.contrastive_weight} needs an image_encoder; give one, or 0")
        self.image_encoder = image_encoder
        self.times = 2 if config.mode_seeking_weight > 0 else 1  # how often each caption is drawn
        self.generator = generator.to(memory_format=torch.channels_last)
        self.discriminator = discriminator.to(memory_format=torch.channels_last)
        self.generator_optimizer = Adam(generator.parameters(), config.learning_rate, config.betas)
        self.discriminator_optimizer = Adam(discriminator.parameters(), config.learning_rate, config.betas)
        self.average = WeightAverage(generator, config.average_decay)
        self.skipped: list[str] = []  # what was not finite in each of the last steps that were left out

    def passed(self, network: Callable[..., Tensor], *inputs: Tensor | None) -> Tensor:
        """One pass over a batch. Every pass goes through here, so that `scale` can share it out or speed it up."""
        return network(*inputs)

    def share(self, gradients: list[Tensor]) -> None:
        """Nothing to do: there is one process, and it has seen the whole batch. See `scale`."""

    def update(self, player: Module, optimizer: Adam, loss: Tensor) -> bool:
        """One step along the gradients; none, and False, if one of them is infinite or no number."""
        optimizer.zero_grad()
        loss.backward()
        named = [(name, p.grad) for name, p in player.named_parameters() if p.grad is not None]
        self.share([gradient for _, gradient in named])
        sums = torch.stack([gradient.sum() for _, gradient in named])  # one number that is not finite spoils its sum
        if sums.isfinite().all():
            optimizer.step()
            return True
        layer = named[int(sums.isfinite().logical_not().nonzero()[0])][0]
        self.skipped.append(f"the gradient of {type(player).__name__.lower()}.{layer} (loss {loss.item():g})")
        return False

    def step(self, data: EmbeddedPictures) -> dict[str, float]:
        """One update of both players; returns the losses.

        The generator runs once: its pictures serve the discriminator (cut off from the graph) and then the
        generator's own update.
        """
        started = time.monotonic()
        random = step_random(self.config.seed, self.steps_done)
        batch = data.batch(self.config.batch_size, self.config.text_dropout, self.config.text_noise, random)
        drawn, before = self.draw(batch, random), len(self.skipped)
        losses = self.discriminator_step(batch, drawn, random)
        losses |= self.generator_step(batch, drawn, random)
        if len(self.skipped) == before:
            self.average.update(self.generator)
            self.skipped.clear()
        elif len(self.skipped) > MOST_SKIPPED:
            raise FloatingPointError(
                f"step {self.steps_done}: {len(self.skipped)} updates in a row were left out, because "
                f"{self.skipped[-1]} was not finite; go back to the last checkpoint, with a smaller learning_rate"
            )
        values = {name: value.item() for name, value in losses.items()}
        self.steps_done += 1
        self.seconds += time.monotonic() - started
        return values

    def draw(self, batch: Batch, random: torch.Generator) -> "Drawn":
        """The generator's only pass; with mode seeking it draws half of the captions twice."""
        z = torch.randn(len(batch.texts), self.generator.config.z_size, generator=random).to(batch.texts.device)
        texts = repeated(batch.texts, self.times)
        tokens = None if batch.tokens is None else repeated(batch.tokens, self.times)
        return Drawn(self.passed(self.generator, z, texts, tokens), z, texts)

    def discriminator_step(self, batch: Batch, drawn: "Drawn", random: torch.Generator) -> dict[str, Tensor]:
        """Real with its caption is real; fake, and real with a wrong caption, are not."""
        config, player = self.config, self.discriminator
        with_penalty = max(config.r1_weight, config.r2_weight) > 0 and self.steps_done % config.r1_every == 0
        real = moved(batch.images, config.shift, random).requires_grad_(with_penalty)
        texts = (batch.texts, batch.wrong_texts) if config.matching_aware else (batch.texts,)
        real_logits, *wrong_logits = self.passed(player, real, *texts).view(len(real), -1).unbind(1)  # (B,) each
        fake = moved(drawn.images.detach(), config.shift, random).requires_grad_(with_penalty and config.r2_weight > 0)
        fake_logits = self.passed(player, fake, drawn.texts)
        loss = matching_aware_loss(config.loss, real_logits, fake_logits, *(wrong_logits or [None]), batch.wrong)
        penalty = loss.new_zeros(())
        if with_penalty:
            penalty = config.r1_weight * r1_penalty(real_logits, real)
            if config.r2_weight > 0:
                penalty = penalty + config.r2_weight * r1_penalty(fake_logits, fake)  # R2: the same on fakes
        self.update(player, self.discriminator_optimizer, loss + config.r1_every * penalty)
        return {"loss_d": loss, "logit_real": real_logits.mean(), "logit_fake": fake_logits.mean()}

    def generator_step(self, batch: Batch, drawn: "Drawn", random: torch.Generator) -> dict[str, Tensor]:
        """Make the discriminator call the fake real; if asked, make different noise count and pixels agree."""
        config = self.config
        self.discriminator.requires_grad_(False)  # only its input's gradient is needed: a third less work
        fake_logits = self.passed(self.discriminator, moved(drawn.images, config.shift, random), drawn.texts)
        paired = config.loss == "relativistic"  # the only loss that sets fakes beside real pictures in this turn too
        real_logits = None
        if paired:
            real_logits = self.passed(self.discriminator, moved(batch.images, config.shift, random), batch.texts)
        loss = GAN_LOSSES[config.loss][1](real_logits, fake_logits)
        losses, total = {"loss_g": loss}, loss
        if config.mode_seeking_weight > 0:
            losses["mode_seeking"] = mode_seeking_loss(drawn.images, drawn.z)
            total = total + config.mode_seeking_weight * losses["mode_seeking"]
        if config.mse_weight > 0:
            losses["mse"] = mse_loss(drawn.images, repeated(batch.images, self.times))
            total = total_loss(total, losses["mse"], config.mse_weight)
        if config.contrastive_weight > 0:
            same = (drawn.texts[:, None] == drawn.texts).all(-1)  # (B, B): drawn for one caption
            seen = unit(self.passed(self.image_encoder, drawn.images)), unit(drawn.texts)
            losses["contrastive"] = contrastive_loss(*seen, CONTRASTIVE_SCALE, same)
            total = total + config.contrastive_weight * losses["contrastive"]
        self.update(self.generator, self.generator_optimizer, total)
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
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Step until the run's steps are done.

    Args:
        trainer: what to train; goes on from where it is.
        data: what its steps take, such as `EmbeddedPictures`.
        listeners: each is called with the trainer and the step's losses after every step.
        seconds: end after this time, with the learning rate falling as if all steps had been done; None: no limit.
        stop: asked before every step; True ends the run early.
        progress: what the progress bar says; None: no bar.
        clock: what `seconds` are counted by; `time.process_time` counts the processor's.
    Raises:
        FloatingPointError: more than `MOST_SKIPPED` updates in a row had a gradient that is not finite.
    """
    config, started = trainer.config, clock()
    bar = tqdm(total=config.steps, initial=trainer.steps_done, desc=progress, disable=progress is None)
    with bar:
        while trainer.steps_done < config.steps and not stop():
            elapsed = (clock() - started) / seconds if seconds else 0.0
            if elapsed >= 1:
                break
            trainer.set_learning_rate(learning_rate_at(config, max(elapsed, trainer.steps_done / config.steps)))
            losses = trainer.step(data)
            told = {name: value for name, value in losses.items() if name.startswith("loss")}
            bar.set_postfix({name: f"{loss:.2f}" for name, loss in told.items()}, refresh=False)
            bar.update()
            for listener in listeners:
                listener(trainer, losses)
