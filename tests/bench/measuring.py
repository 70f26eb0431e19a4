"""What the tables share: what a step is fed with, memory, clocks, and measurements in a process of their own."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import psutil
import torch

from course_lib.batches import EmbeddedPictures
from course_lib.presets import GanPreset
from course_lib.speed import now

ROOT = Path(__file__).resolve().parents[2]
MB = 1e6


def noise_for(preset: GanPreset, device: torch.device, n: int = 500) -> EmbeddedPictures:
    """Data without a meaning: a step takes as long as on real pictures, and they are there at once."""
    size, text_size = preset.data.image_size, preset.generator.text_size
    images = torch.randint(0, 256, (n, 3, size, size), dtype=torch.uint8)
    return EmbeddedPictures(images.to(device), torch.randn(n, text_size).to(device), torch.zeros(text_size).to(device))


def timed(work: Callable[[], Any], device: torch.device) -> float:
    """Seconds of one call, by the clock of `speed.now`."""
    started = now(device)
    work()
    return now(device) - started


def in_turn(works: dict[str, Callable[[], Any]], device: torch.device, rounds: int) -> dict[str, list[float]]:
    """Seconds of each in every round, after one round that does not count; a busy machine slows all alike."""
    for work in works.values():
        work()
    times: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(timed(work, device))
    return times


def beside(one: list[float], other: list[float]) -> float:
    """How many times as long one took as the other: the median over rounds."""
    return median(a / b for a, b in zip(one, other, strict=True))


def held_bytes(device: torch.device) -> int:
    """Memory that is in use now: the GPU's, or of this process that which lies in RAM (resident set size, RSS)."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def peak_bytes(device: torch.device) -> int:
    """The most that was ever in use by this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if (status := Path("/proc/self/status")).exists():  # Linux, whose `ru_maxrss` begins with that of the parent
        return 1024 * int(re.search(r"VmHWM:\s+(\d+)", status.read_text(encoding="utf-8"))[1])
    usage = psutil.Process().memory_info()
    if hasattr(usage, "peak_wset"):  # Windows
        return usage.peak_wset
    import resource  # macOS, in bytes

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_a_child(module: str, *arguments: object, before: tuple[str, ...] = ()) -> Any:
    """Run a module of this folder as a program, and read what it prints last.

    Args:
        module: its `__file__`; arguments: of the program.
        before: of Python, between it and the program, such as torchrun's module.
    """
    command = [sys.executable, *before, module, *map(str, arguments)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{run.stderr}")
    return json.loads(run.stdout.splitlines()[-1])
