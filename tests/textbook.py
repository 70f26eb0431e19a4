"""The loop as textbooks write it, to measure ours against: same players, same losses, same data, same settings.

It differs in what costs time and changes no result: the pictures are drawn one by one in a DataLoader, the captions are
read by the text encoder in every step, the generator runs once for each player, the discriminator looks at a real
picture once for each caption and computes gradients that nobody uses in the generator's turn, and the tensors have the
default memory format. `python tests/textbook.py SECONDS` trains both for so long and draws docs/textbook.png.
"""

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from course_lib.batches import repeated, step_random
from course_lib.data import CaptionedShapes
from course_lib.data.captions import vocabulary
from course_lib.evaluation import accuracy, load_judge
from course_lib.images import COLORBLIND_SAFE, figure_style, save_figure
from course_lib.long_recipes import embed, new_trainer
from course_lib.losses import discriminator_loss, generator_loss, mode_seeking_loss, r1_penalty
from course_lib.presets import GanPreset, get_preset
from course_lib.text_encoder import load_text_encoder
from course_lib.text_to_image import TextToImage
from course_lib.training import AdversarialTrainer

PRESET, N_SCORED, EVERY = "shapes-32", 500, 30  # seconds of training between two marks
CPU = torch.device("cpu")
DOCS = Path(__file__).parents[1] / "docs"


class TextbookTrainer(AdversarialTrainer):
    """`AdversarialTrainer` without any of what makes it fast.

    Args:
        preset: says what to train; its text encoder is loaded.
        dataset: of captioned pictures; device: where to compute.
    """

    def __init__(self, preset: GanPreset, dataset: CaptionedShapes, device: torch.device = CPU):
        fast = new_trainer(preset, device)
        super().__init__(fast.generator, fast.discriminator, preset.train)
        for player in (self.generator, self.discriminator, self.average.model):
            player.to(memory_format=torch.contiguous_format)
        self.encoder, self.tokenizer = load_text_encoder(preset.text_encoder, device)
        self.device = device
        self.batches = self.endless(DataLoader(dataset, preset.train.batch_size, shuffle=True, drop_last=True))

    @staticmethod
    def endless(loader: DataLoader) -> Iterator:
        """Epoch after epoch."""
        while True:
            yield from loader

    @torch.no_grad()
    def read(self, captions: list[str]) -> Tensor:
        """Captions -> (B, E), as `EmbeddedPictures` has them."""
        ids, mask = self.tokenizer.encode_batch(captions, self.encoder.config.context_length)
        return self.encoder(ids.to(self.device), mask.to(self.device))[1]

    def step(self, data: None = None) -> dict[str, float]:
        """One update of both players."""
        started, config = time.monotonic(), self.config
        images, captions = next(self.batches)
        images = images.to(self.device)
        random = step_random(config.seed, self.steps_done)
        left_out = torch.rand(len(images), generator=random) < config.text_dropout
        captions = ["" if out else caption for out, caption in zip(left_out, captions, strict=True)]
        texts = self.read(list(captions))
        others = [captions[-1], *captions[:-1]]  # as `roll` moves them
        different = torch.tensor([a != b and b != "" for a, b in zip(captions, others, strict=True)]).to(self.device)
        texts = texts + config.text_noise * torch.randn(texts.shape, generator=random).to(self.device)
        losses = {"loss_d": self.judge(images, texts, different), "loss_g": self.forge(texts)}
        self.average.update(self.generator)
        self.steps_done += 1
        self.seconds += time.monotonic() - started
        return losses

    def noise(self, n: int) -> Tensor:
        """(n, Z)."""
        return torch.randn(n, self.generator.config.z_size).to(self.device)

    def judge(self, real: Tensor, texts: Tensor, different: Tensor) -> float:
        """The discriminator's turn."""
        config, player, drawn_texts = self.config, self.discriminator, repeated(texts, self.times)
        fake = self.generator(self.noise(len(drawn_texts)), drawn_texts).contiguous()
        with_penalty = self.steps_done % config.r1_every == 0
        real.requires_grad_(with_penalty)
        real_logits = player(real, texts)
        wrong_logits = player(real, texts.roll(1, 0))
        loss = discriminator_loss(real_logits, player(fake.detach(), drawn_texts), wrong_logits, different)
        penalty = r1_penalty(real_logits, real) if with_penalty else 0.0
        self.discriminator_optimizer.zero_grad()
        (loss + config.r1_weight * config.r1_every * penalty).backward()
        self.discriminator_optimizer.step()
        return loss.item()

    def forge(self, texts: Tensor) -> float:
        """The generator's turn."""
        texts = repeated(texts, self.times)
        z = self.noise(len(texts))
        fake = self.generator(z, texts).contiguous()
        loss = generator_loss(self.discriminator(fake, texts))
        self.generator_optimizer.zero_grad()
        self.discriminator_optimizer.zero_grad()
        (loss + self.config.mode_seeking_weight * mode_seeking_loss(fake, z)).backward()
        self.generator_optimizer.step()
        return loss.item()


def curve(name: str, seconds: float) -> list[tuple[float, int, float]]:
    """(seconds, steps, accuracy) of a training of so many seconds; the time for marks is not counted."""
    preset, judge = get_preset(PRESET), load_judge(32)
    encoder, tokenizer = load_text_encoder(preset.text_encoder)
    dataset = preset.data.dataset()
    trainer, data = TextbookTrainer(preset, dataset), None
    if name == "ours":
        trainer = new_trainer(preset, CPU)
        data = embed(dataset, encoder, tokenizer, CPU)
    points = []
    while trainer.seconds < seconds:
        trainer.step(data)
        if trainer.seconds >= EVERY * (len(points) + 1):
            model = TextToImage(trainer.average.model, trainer.discriminator, encoder, tokenizer, vocabulary())
            share = accuracy(model, judge, n=N_SCORED)["all"]
            points.append((trainer.seconds, trainer.steps_done, share))
            print(f"{name}: {points[-1][0]:.0f} s, {points[-1][1]} steps, {100 * share:.1f} %", flush=True)
            trainer.generator.train().requires_grad_(True)
            trainer.discriminator.train().requires_grad_(True)
    return points


def draw_curves(curves: dict[str, list[tuple[float, int, float]]], path: Path) -> None:
    """Accuracy over time, both loops in one figure."""
    from matplotlib import pyplot

    with figure_style():
        figure, axis = pyplot.subplots(figsize=(7, 3.4), layout="constrained")
        for (name, points), color, dash in zip(curves.items(), COLORBLIND_SAFE, ("-", "--"), strict=False):
            steps = f"{name}, {points[-1][1]:,} steps"
            axis.plot([p[0] for p in points], [100 * p[2] for p in points], dash, marker="o", color=color, label=steps)
        axis.set(xlabel="seconds of training", ylabel="held-out captions drawn right (%)", ylim=(0, 100))
        axis.set_title("The same model, trained by two loops")
        axis.legend()
        pyplot.close(figure)
    ends = [f"{name}: {100 * points[-1][2]:.0f} % after {points[-1][0]:.0f} s" for name, points in curves.items()]
    figure.alt_text = f"Accuracy against seconds of training for two loops. {'; '.join(ends)}."
    save_figure(figure, path)


if __name__ == "__main__":
    limit = float(sys.argv[1]) if sys.argv[1:] else 300.0
    both = {name: curve(name, limit) for name in ("ours", "textbook")}
    (DOCS / "textbook.json").write_text(json.dumps(both) + "\n", encoding="utf-8")
    draw_curves(both, DOCS / "textbook.png")
