"""The step of both players: pictures a second, memory, work, and how the cost grows with batch and with pixels.

Each cell of the table is measured in a process of its own: `python tests/bench/steps.py DEVICE SIZE BATCH STEPS`.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from measuring import MB, held_bytes, in_a_child, noise_for, peak_bytes

from course_lib.evaluation import format_table
from course_lib.long_recipes import new_trainer
from course_lib.presets import GanPreset, get_preset
from course_lib.speed import matrix_rate, seconds_of, step_flops

SIZES, BATCHES = (32, 64, 128), (16, 32, 64, 128, 256)
STEPS = {32: 8, 64: 4, 128: 3}  # that are timed, after three that are not
LIMIT = (64, 64, 1500)  # picture, batch, MB


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """Every size at every batch."""
    sizes, batches = ((16, 32), (4, 8)) if quick else (SIZES, BATCHES)
    cells = []
    for size in sizes:
        for batch in batches:
            cells.append(in_a_child(__file__, device.type, size, batch, STEPS.get(size, 3)))
            print(f"steps: {size} x {size}, batch {batch}", flush=True)
    return cells


def preset_for(size: int, batch_size: int) -> GanPreset:
    """`shapes-32` with pictures of another size: its players grow, layer by layer, and keep their width."""
    preset = get_preset("shapes-32")
    players = {name: replace(getattr(preset, name), image_size=size) for name in ("generator", "discriminator", "data")}
    return replace(preset, **players, train=replace(preset.train, batch_size=batch_size))


def measure_cell(device: torch.device, size: int, batch_size: int, steps: int) -> dict[str, Any]:
    """What the child does."""
    preset = preset_for(size, batch_size)
    data, before = noise_for(preset, device), held_bytes(device)
    trainer = new_trainer(preset, device)
    trainer.step(data)  # with R1, which needs the most memory
    seconds, peak = seconds_of(lambda: trainer.step(data), device, steps), peak_bytes(device)
    flops, rate = step_flops(trainer, data), matrix_rate(device)
    cell = {"size": size, "batch": batch_size, "seconds": seconds, "peak_bytes": peak - before}
    return cell | {"flops": flops, "matrix_flops_a_second": rate}


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """p of y ~ x^p: the slope of a line through the logarithms."""
    return float(np.polyfit(np.log(x), np.log(y), 1)[0])


def exponents(cells: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of the time of a step and of its work, against the batch at each size, and against pixels at each batch."""
    rows = []
    for against, fixed, x in (("batch", "size", lambda c: c["batch"]), ("pixels", "batch", lambda c: c["size"] ** 2)):
        for value in dict.fromkeys(cell[fixed] for cell in cells):
            mine = [cell for cell in cells if cell[fixed] == value]
            place = f"{value} x {value} pixels" if fixed == "size" else f"batch {value}"
            time, work = (exponent([x(c) for c in mine], [c[cost] for c in mine]) for cost in ("seconds", "flops"))
            row = {"against": against, "at": place, "exponent of time": time, "wanted": "0.85 to 1.15"}
            rows.append(row | {"of the counted work": work})
    return rows


def tell(cells: list[dict[str, Any]]) -> str:
    """The tables in Markdown."""
    rows = []
    for cell in cells:
        limited = (cell["size"], cell["batch"]) == LIMIT[:2]
        rate = cell["flops"] / cell["seconds"] / cell["matrix_flops_a_second"]
        rows.append(
            {
                "picture": f"{cell['size']} x {cell['size']}",
                "batch": cell["batch"],
                "pictures/s": cell["batch"] / cell["seconds"],
                "ms a step": f"{1000 * cell['seconds']:.0f}",
                "peak memory (MB)": f"{cell['peak_bytes'] / MB:.0f}" + f" (wanted: <= {LIMIT[2]})" * limited,
                "GFLOP a picture": cell["flops"] / cell["batch"] / 1e9,
                "share of the matrix rate": f"{100 * rate:.0f} %",
            }
        )
    return "\n\n".join(
        [
            "One step of both players of `shapes-32`, for pictures of several sizes, in float32. Memory is the highest "
            "resident set size of a fresh process (on a GPU: allocated memory) above what it held before the players "
            "were made; the step with R1, one in 16, is among those that set it, and not among those that are timed. "
            "Work is counted; the rate it is set beside is that of a large matrix product in the same process.",
            format_table(rows),
            "Cost is a power of batch and of pixels; 1 is linear. Where a device is hardly busy (a small share of "
            "its matrix rate), a step costs the same for any batch, and the power is near 0.",
            format_table(exponents(cells)),
        ]
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(measure_cell(torch.device(sys.argv[1]), *map(int, sys.argv[2:]))))
