"""What each way to compute is worth: a training step of `shapes-32`, as ratios measured in one run.

    python tests/measure_scale.py [--device cpu|cuda]

writes data/logs/scale-DEVICE.json, which lesson 13 shows. All ways take turns, round after round, so that a busy
machine slows them alike; what is kept are medians, and of each way its time beside that of the plain step. On a CPU one
thread computes, and the clock is the processor's own. Compiling takes some minutes.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import argparse  # noqa: E402
import json  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402
from statistics import median  # noqa: E402
from unittest.mock import patch  # noqa: E402

import torch  # noqa: E402

from course_lib.batches import EmbeddedPictures  # noqa: E402
from course_lib.cards import machine  # noqa: E402
from course_lib.long_recipes import embed, new_trainer  # noqa: E402
from course_lib.presets import get_preset  # noqa: E402
from course_lib.runs import choose_device  # noqa: E402
from course_lib.scale import PLAIN, ScaleConfig, ScaledTrainer  # noqa: E402
from course_lib.speed import WARM_UP, matrix_rate, memory_rate, now  # noqa: E402
from course_lib.text_encoder import load_text_encoder  # noqa: E402

LOGS = Path(__file__).resolve().parents[1] / "data" / "logs"
ROUNDS = 12
BATCHES = {"cpu": (2, 8, 24, 48, 96, 192), "cuda": (8, 48, 192, 768, 3072)}
WAYS = {"float32": PLAIN, "bfloat16": ScaleConfig("bfloat16")}
COMPILED = {"float32, compiled": ScaleConfig(compile="yes")}
ON_GPU = {"bfloat16, compiled": ScaleConfig("bfloat16", "yes")}
ON_GPU |= {"bfloat16, CUDA graph": ScaleConfig("bfloat16", "cuda-graph")}
UNITS = ("AVX512_CORE_BF16", "AVX512_CORE", "AVX2")  # what oneDNN may use at most: without AMX, without bfloat16, older
PLAIN_LAYOUT = "float32, not channels-last"


class Bench:
    """Trainers that take turns on the same data."""

    def __init__(self, device: torch.device):
        self.device, self.preset = device, get_preset("shapes-32")
        encoder, tokenizer = load_text_encoder(self.preset.text_encoder, device)
        self.data: EmbeddedPictures = embed(
            replace(self.preset.data, length=2000).dataset(), encoder, tokenizer, device
        )

    def trainer(self, scale: ScaleConfig = PLAIN, batch_size: int = 48) -> ScaledTrainer:
        """A fresh one; R1 is left out, because one step in 16 would be longer."""
        settings = replace(self.preset.train, r1_weight=0.0, batch_size=batch_size)
        return new_trainer(replace(self.preset, train=settings), self.device, scale)

    def step(self, trainer: ScaledTrainer, layout: torch.memory_format) -> float:
        """Seconds of one step."""
        with patch.object(torch, "channels_last", layout):  # what the library asks for everywhere
            started = now(self.device)
            trainer.step(self.data)
            seconds = now(self.device) - started
        if trainer.skipped:
            raise FloatingPointError(f"{trainer.scale}: {trainer.skipped[-1]} is not finite; its time tells nothing")
        return seconds

    def turns(self, trainers: dict[str, ScaledTrainer], rounds: int = ROUNDS) -> dict[str, list[float]]:
        """Seconds of every round; the warm-up is not among them."""
        layouts = {name: torch.contiguous_format if name == PLAIN_LAYOUT else torch.channels_last for name in trainers}
        for name, trainer in trainers.items():
            for _ in range(WARM_UP):
                self.step(trainer, layouts[name])
            print(f"{name}: ready", flush=True)
        times: dict[str, list[float]] = {name: [] for name in trainers}
        for _ in range(rounds):
            for name, trainer in trainers.items():
                times[name].append(self.step(trainer, layouts[name]))
        return times


def ratios(times: dict[str, list[float]]) -> dict[str, float]:
    """Each way's time beside the plain step's, the median over rounds."""
    pairs = {name: zip(mine, times["float32"], strict=True) for name, mine in times.items()}
    return {name: round(median(a / b for a, b in pair), 3) for name, pair in pairs.items()}


def old_layout(bench: Bench) -> ScaledTrainer:
    """The library without channels-last."""
    with patch.object(torch, "channels_last", torch.contiguous_format):
        return bench.trainer()


def without_units(units: str) -> float:
    """Time in bfloat16 beside float32 if the CPU had no more than these units: the same run in a process of its own."""
    command = [sys.executable, __file__, "--only-precision"]
    run = subprocess.run(
        command, env=os.environ | {"ONEDNN_MAX_CPU_ISA": units}, capture_output=True, text=True, check=True
    )
    return json.loads(run.stdout.splitlines()[-1])["bfloat16"]


def measure(device: torch.device) -> dict:
    """Everything that the log holds."""
    from torch._dynamo import config  # slow to import, and others import this module

    config.cache_size_limit = 64  # each way compiles every pass anew, all in this process
    bench, kind = Bench(device), device.type
    record = {"command": f"python tests/measure_scale.py --device {kind}", "machine": machine(), "preset": "shapes-32"}
    matrix = {str(d).removeprefix("torch."): matrix_rate(device, d) for d in (torch.float32, torch.bfloat16)}
    record["rates"] = {"matrix_flops": matrix, "memory_bytes": memory_rate(device)}
    ways = WAYS | COMPILED | (ON_GPU if kind == "cuda" else {})
    times = bench.turns({PLAIN_LAYOUT: old_layout(bench)} | {name: bench.trainer(way) for name, way in ways.items()})
    record |= {"seconds_a_step": median(times["float32"]), "time_beside_float32": ratios(times)}
    sizes = {str(size): bench.trainer(batch_size=size) for size in BATCHES[kind]}
    times = bench.turns(sizes, rounds=5)
    record["pictures_a_second"] = {size: round(int(size) / median(mine), 1) for size, mine in times.items()}
    if kind == "cpu":
        record["bfloat16_beside_float32_with_units"] = {units: without_units(units) for units in UNITS}
    return record


def main() -> None:
    """Measure and write, or print one ratio for a CPU whose units are limited."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--only-precision", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    device = choose_device(asked.device)
    torch.set_num_threads(1)
    if asked.only_precision:
        bench = Bench(device)
        print(json.dumps(ratios(bench.turns({name: bench.trainer(way) for name, way in WAYS.items()}, rounds=3))))
        return
    path = LOGS / f"scale-{device.type}.json"
    path.write_text(json.dumps(measure(device), indent=2) + "\n", encoding="utf-8")
    print(path.relative_to(LOGS.parents[1]))


if __name__ == "__main__":
    main()
