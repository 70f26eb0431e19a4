"""What training compute buys: models of shapes at 32 x 32 beside each other, with the work that their trainings were.

    python tests/measure_compute.py MODEL [MODEL ...]

takes names under data/checkpoints/ or folders of finished runs (`runs/NAME/model`) and writes data/logs/compute.json,
which `course report` shows. Work is counted, so it is the same on every machine: the floating-point operations of one
step, times the steps. Marks are on 500 held-out English captions, drawn with the settings of each model's card.
"""

import json
import sys
from typing import Any

import torch

from course_lib.batches import EmbeddedPictures
from course_lib.cards import preset_of
from course_lib.checkpoint import CHECKPOINTS
from course_lib.diffusion_training import DiffusionTrainer
from course_lib.evaluation import accuracy, diversity, load_judge
from course_lib.long_recipes import DIFFUSION_SCALE, DIFFUSION_STEPS, new_trainer
from course_lib.models import load_model
from course_lib.plan import blank
from course_lib.presets import TEXT_SIZE, GanPreset
from course_lib.speed import step_flops
from course_lib.unet import UNet

LOG = CHECKPOINTS.parent / "logs" / "compute.json"
CPU, N, TOKENS = torch.device("cpu"), 500, 12  # TOKENS: about as many as a caption has


def flops_of(preset: Any) -> int:
    """Operations of the preset's whole training, without R1 (one step in 16 has some more)."""
    if isinstance(preset, GanPreset):
        trainer = new_trainer(preset, CPU)
        trainer.steps_done, data = 1, blank(trainer, CPU)  # step 0 has R1
    else:
        trainer, size, batch = (
            DiffusionTrainer(UNet(preset.unet), preset.train),
            preset.data.image_size,
            preset.train.batch_size,
        )
        images, tokens = torch.zeros(batch, 3, size, size, dtype=torch.uint8), torch.randn(batch, TOKENS, TEXT_SIZE)
        data = EmbeddedPictures(images, tokens[:, 0], tokens[0, 0], tokens, tokens[0])
    return step_flops(trainer, data) * preset.train.steps


def row_of(name: str) -> dict[str, Any]:
    """Work and marks of one model."""
    model = load_model(name, CPU)
    preset, sampling = preset_of(model.training_facts), {}
    if not isinstance(preset, GanPreset):
        sampling = {"steps_per_sample": DIFFUSION_STEPS, "guidance_scale": DIFFUSION_SCALE}
    row = {"preset": model.training_facts["preset"], "steps": preset.train.steps, "batch_size": preset.train.batch_size}
    row |= {"flops": flops_of(preset), **sampling, "n": N}
    return row | {
        "all": accuracy(model, load_judge(32), n=N, **sampling)["all"],
        "diversity": diversity(model, **sampling),
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    rows = []
    for given in sys.argv[1:]:
        rows.append(row_of(given))
        print(rows[-1], flush=True)
    LOG.write_text(json.dumps(sorted(rows, key=lambda row: row["flops"]), indent=1) + "\n", encoding="utf-8")
