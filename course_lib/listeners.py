"""What watches a training: a log of its losses, grids of samples, checkpoints. Built in chapter 12.

Each is called with the trainer and the losses after every step, and knows when it is due.
"""

import json
import os
from pathlib import Path

import torch
from torch import Tensor

from course_lib.batches import step_random
from course_lib.images import make_grid, save_image
from course_lib.training import AdversarialTrainer, Trainer


class MetricsLog:
    """A listener that writes one JSON line a step to `metrics.jsonl`.

    Args:
        path: the file; lines of steps after `steps_done` are dropped, so that a resumed run has each step once.
        steps_done: where the run goes on.
    """

    def __init__(self, path: Path, steps_done: int = 0):
        kept = []
        if path.is_file():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines()[:steps_done]:
                kept.append(line + "\n")
        whole = path.with_name(f".{path.name}.part")  # a kill between emptying and filling must not lose what was told
        whole.write_text("".join(kept), encoding="utf-8")
        os.replace(whole, path)
        self.path = path

    def __call__(self, trainer: Trainer, losses: dict[str, float]) -> None:
        row = {"step": trainer.steps_done, "learning_rate": trainer.learning_rate, **losses}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({k: round(v, 6) for k, v in row.items()}) + "\n")


class SampleGrids:
    """A listener that draws the same prompts from the same noise now and then.

    Args:
        folder: where the PNGs go.
        texts: (P, E) the embedded prompts.
        every: steps between grids.
    """

    def __init__(self, folder: Path, texts: Tensor, every: int):
        self.folder, self.texts, self.every = folder, texts, every

    def __call__(self, trainer: AdversarialTrainer, losses: dict[str, float]) -> None:
        if trainer.steps_done % self.every == 0:
            path = self.folder / f"step-{trainer.steps_done:06d}.png"
            save_image(make_grid(self.draw(trainer), columns=8), path)

    @torch.no_grad()
    def draw(self, trainer: AdversarialTrainer) -> Tensor:
        """The prompts as the averaged generator draws them now: (P, 3, S, S)."""
        z = torch.randn(len(self.texts), trainer.generator.config.z_size, generator=step_random(0, 0))
        return trainer.average.model(z.to(self.texts.device), self.texts)


class Checkpoints:
    """A listener that saves the state of training now and then.

    Args:
        folder: the checkpoint folder; the last good one is replaced only when the new one is complete.
        every: steps between checkpoints.
    """

    def __init__(self, folder: Path, every: int):
        self.folder, self.every = folder, every

    def __call__(self, trainer: Trainer, losses: dict[str, float]) -> None:
        if trainer.steps_done % self.every == 0:
            trainer.save(self.folder)
