"""Does a long training need more and more memory? `python tests/bench/growth.py DEVICE STEPS` is asked."""

import json
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import MB, held_bytes, in_a_child, noise_for

from course_lib.evaluation import format_table
from course_lib.listeners import Checkpoints, MetricsLog
from course_lib.long_recipes import new_trainer
from course_lib.presets import get_preset
from course_lib.training import train

BATCH, MARKS = 16, 40  # pictures a step; how often memory is looked at
SETTLED = 0.2  # the share of the run before memory counts


def measure(device: torch.device, quick: bool, steps: int = 2000) -> dict[str, Any]:
    """Memory at MARKS places of a run."""
    return in_a_child(__file__, device.type, 2 * MARKS if quick else steps)


def measure_run(device: torch.device, steps: int) -> dict[str, Any]:
    """What the child does: train as `course train` does, with a log and checkpoints."""
    preset, marks = get_preset("shapes-32"), []
    settings = replace(preset.train, steps=steps, batch_size=BATCH)
    trainer = new_trainer(replace(preset, train=settings), device)

    def look(trainer: Any, _: dict[str, float]) -> None:
        if trainer.steps_done % max(1, steps // MARKS) == 0:
            marks.append((trainer.steps_done, held_bytes(device)))

    with tempfile.TemporaryDirectory() as folder:
        listeners = [MetricsLog(Path(folder, "metrics.jsonl"), 0), Checkpoints(Path(folder, "last"), 100), look]
        train(trainer, noise_for(preset, device), listeners, progress=None)
    return {"steps": steps, "marks": marks}


def settled(marks: list[tuple[int, int]]) -> np.ndarray:
    """The steps and the bytes of the part that counts: (2, N)."""
    return np.array([mark for mark in marks if mark[0] > SETTLED * marks[-1][0]], dtype=float).T


def slope(marks: list[tuple[int, int]]) -> float:
    """Bytes a step, by a straight line."""
    return float(np.polyfit(*settled(marks), 1)[0])


def growth(marks: list[tuple[int, int]]) -> float:
    """Bytes from the first quarter to the last, each by its median: a save takes some megabytes and gives them back."""
    _, held = settled(marks)
    quarter = -(-len(held) // 4)
    return float(np.median(held[-quarter:]) - np.median(held[:quarter]))


def tell(record: dict[str, Any]) -> str:
    """The table in Markdown."""
    marks, steps = record["marks"], record["steps"]
    row = {
        "steps": f"{steps:,}",
        "memory at the end (MB)": f"{marks[-1][1] / MB:.0f}",
        "growth (MB)": growth(marks) / MB,
        "wanted": "< 20 in 10,000 steps",
        "slope (MB in 1,000 steps)": 1000 * slope(marks) / MB,
    }
    return "\n\n".join(
        [
            f"`shapes-32` with a batch of {BATCH}, its log and a checkpoint every 100 steps; the memory of the process "
            f"(on a GPU: what is allocated there), without the first {SETTLED:.0%} of the run. Growth is that from the "
            "first quarter to the last, each by its median; the slope is that of a straight line.",
            format_table([row]),
        ]
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure_run(torch.device(sys.argv[1]), int(sys.argv[2]))))
