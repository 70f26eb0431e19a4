"""One step shared by two threads, or by two processes that `torchrun` starts; the batch stays the same.

`python -m torch.distributed.run ... tests/bench/processes.py DEVICE THREADS STEPS` is one of these processes.
"""

import json
import sys
import time
from statistics import median
from typing import Any

import psutil
import torch
from measuring import in_a_child, noise_for

from course_lib.evaluation import format_table
from course_lib.long_recipes import new_trainer
from course_lib.presets import get_preset
from course_lib.scale import PLAIN, join_world
from course_lib.speed import WARM_UP

PRESET = "shapes-32"
WAYS = ((1, 1), (1, 2), (2, 1))  # processes, threads of each
STEPS = 20


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """One process, two threads, two processes; on GPUs as many processes as there are, up to two."""
    ways = WAYS
    if device.type == "cuda":
        ways = [(count, 1) for count in (1, 2) if count <= torch.cuda.device_count()]
    rows = []
    for count, threads in ways:
        torchrun = ("-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}")
        seconds = in_a_child(__file__, device.type, threads, 2 if quick else STEPS, before=torchrun)
        rows.append({"processes": count, "threads": threads, "seconds": seconds, "cores": psutil.cpu_count()})
        print(f"processes: {count} with {threads} threads each", flush=True)
    return rows


def measure_one(device: torch.device, steps: int) -> tuple[int, float]:
    """What each process does: its place, and the median time of a step on the wall's clock, waiting included."""
    world, device = join_world(device)
    preset, times = get_preset(PRESET), []
    trainer, data = new_trainer(preset, device, PLAIN, world), noise_for(preset, device)
    for _ in range(WARM_UP + steps):
        started = time.perf_counter()
        trainer.step(data)  # ends with the losses on the CPU: a GPU has finished
        times.append(time.perf_counter() - started)
    return world.rank, median(times[WARM_UP:])


def tell(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    batch, alone = get_preset(PRESET).train.batch_size, rows[0]["seconds"]
    table = [
        {
            "processes": row["processes"],
            "threads each": row["threads"],
            "pictures/s": batch / row["seconds"],
            "times as fast as one": alone / row["seconds"],
        }
        for row in rows
    ]
    return "\n\n".join(
        [
            f"A step of `{PRESET}`, {batch} pictures in all, by the clock on the wall; {rows[0]['cores']} cores.",
            format_table(table),
        ]
    )


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    torch.manual_seed(0)  # every process makes the same data
    rank, seconds = measure_one(torch.device(sys.argv[1]), int(sys.argv[3]))
    if rank == 0:
        print(json.dumps(seconds))
