"""Our step against the loop that textbooks write (`tests/textbook.py`), in turn, each fed as it is in a run."""

from dataclasses import replace
from functools import partial
from statistics import median
from typing import Any

import torch
from measure_scale import WAYS
from measuring import beside, in_turn, timed
from textbook import TextbookTrainer

from course_lib.evaluation import format_table
from course_lib.long_recipes import embed, new_trainer
from course_lib.presets import get_preset
from course_lib.speed import step_flops, work_of
from course_lib.text_encoder import load_text_encoder

PRESETS = {"shapes-32": 15, "shapes-64": 7}  # rounds


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """At 32 and at 64 pixels."""
    return [measure_preset(name, device, 1 if quick else rounds) for name, rounds in PRESETS.items()]


def measure_preset(name: str, device: torch.device, rounds: int) -> dict[str, Any]:
    """Times in turn, what the textbook does with its own, and the work of both."""
    preset = get_preset(name)
    dataset, reader = preset.data.dataset(), load_text_encoder(preset.text_encoder, device)
    data = embed(replace(preset.data, length=500).dataset(), *reader, device)
    theirs = TextbookTrainer(preset, dataset, device)
    ours = {way: new_trainer(preset, device, scale) for way, scale in WAYS.items()}
    works = {"textbook": theirs.step} | {way: partial(trainer.step, data) for way, trainer in ours.items()}
    times = in_turn(works, device, rounds)
    drawing = [timed(lambda: next(theirs.batches), device) for _ in range(rounds)]
    _, captions = next(theirs.batches)
    reading = [timed(lambda: theirs.read(list(captions)), device) for _ in range(rounds)]
    print(f"textbook: {name}", flush=True)
    return {
        "preset": name,
        "seconds": {way: median(mine) for way, mine in times.items()},
        "times_as_fast": {way: beside(times["textbook"], times[way]) for way in ours},
        "of_the_textbook": {"drawing pictures": median(drawing), "reading captions": median(reading)},
        "flops": {"textbook": work_of(theirs.step).flops, "ours": step_flops(ours["float32"], data)},
    }


def tell(records: list[dict[str, Any]]) -> str:
    """The tables in Markdown."""
    fast, parts = [], []
    for record in records:
        seconds, own = record["seconds"], record["of_the_textbook"]
        for way, times in record["times_as_fast"].items():
            told = {"textbook (ms)": seconds["textbook"], "ours (ms)": seconds[way]}
            row = {"training": record["preset"], "our step in": way} | in_milliseconds(told)
            fast.append(row | {"times as fast": times, "wanted": ">= 3"})
        told = own | {"both networks": seconds["textbook"] - sum(own.values()), "our whole step": seconds["float32"]}
        row = {"training": record["preset"]} | in_milliseconds({f"{name} (ms)": value for name, value in told.items()})
        parts.append(row | {"its work / ours (FLOP)": record["flops"]["textbook"] / record["flops"]["ours"]})
    return "\n\n".join(
        [
            "The textbook's loop draws pictures and reads captions in every step, runs the generator once for each "
            "player, shows a real picture to the discriminator once for each caption, and computes gradients that "
            "nobody uses.",
            format_table(fast),
            "Where its time goes. Most of it goes into convolutions that both loops need. How many more operations it "
            "has is told by the last column; a better order of the same work can gain no more than that on them.",
            format_table(parts),
        ]
    )


def in_milliseconds(seconds: dict[str, float]) -> dict[str, str]:
    """For a table."""
    return {name: f"{1000 * value:.0f}" for name, value in seconds.items()}
