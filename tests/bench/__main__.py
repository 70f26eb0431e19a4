"""`make bench`: how fast the course is on this machine, as tables.

    python tests/bench [--only steps explorers ...] [--device cpu|cuda] [--steps 10000]

prints them, keeps what was measured in data/logs/bench-DEVICE.json, beside what other runs have left there, and writes
data/BENCH.md anew from all that is kept. One CPU thread computes, and where nothing else is said the clock is the
processor's own: a busy machine is not taken for a slow course. Nothing here fails; `make test` holds no timed test.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import argparse  # noqa: E402
import json  # noqa: E402
import platform  # noqa: E402
import sys  # noqa: E402
from pathlib import Path  # noqa: E402
from types import ModuleType  # noqa: E402
from typing import Any  # noqa: E402

import psutil  # noqa: E402
import torch  # noqa: E402

sys.path.append(str(Path(__file__).resolve().parents[1]))  # the textbook's loop is there

import against_textbook  # noqa: E402
import growth  # noqa: E402
import moves  # noqa: E402
import parts  # noqa: E402
import processes  # noqa: E402
import sampling  # noqa: E402
import steps  # noqa: E402
import ways  # noqa: E402
from measuring import ROOT  # noqa: E402

from course_lib.cards import machine  # noqa: E402
from course_lib.runs import choose_device  # noqa: E402

# name -> heading, and the module that measures and tells it
TABLES: dict[str, tuple[str, ModuleType]] = {
    "steps": ("A training step", steps),
    "textbook": ("Against the textbook's loop", against_textbook),
    "ways": ("Each way to compute, alone and together", ways),
    "processes": ("From one process to two", processes),
    "growth": ("Memory of a long training", growth),
    "sampling": ("Waiting for pictures", sampling),
    "explorers": ("Waiting for an explorer", moves),
    "parts": ("Our parts beside torch's", parts),
}


def described_machine() -> str:
    """The machine, with its processor and its memory."""
    memory = psutil.virtual_memory().total / 2**30
    return f"{machine()}, {processor()}, {psutil.cpu_count()} cores, {memory:.0f} GiB"


def processor() -> str:
    """Its name, where the system tells it."""
    info = Path("/proc/cpuinfo")
    names = [
        line.partition(":")[2] for line in info.read_text().splitlines() if line.startswith("model name")
    ] if info.exists() else []  # fmt: skip
    return " ".join((names or [platform.processor() or "unknown processor"])[0].split())


def markdown(logs: Path) -> str:
    """All that is kept, as a page."""
    lines = ["# How fast the course is", "Written by `make bench` from `data/logs/bench-*.json`."]
    for path in sorted(logs.glob("bench-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        for name, (heading, module) in TABLES.items():
            if name in record:
                told = module.tell(record[name]["measured"])
                lines += [f"## {heading}", told, f"*{record[name]['machine']}*"]
    return "\n\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    """Measure what was asked for, table by table; each is kept as soon as it is there."""
    parser = argparse.ArgumentParser("make bench", description="How fast the course is on this machine.")
    parser.add_argument("--only", nargs="+", choices=TABLES, default=list(TABLES), help="these tables")
    parser.add_argument("--device", choices=("cpu", "cuda", "auto"), default="cpu")
    parser.add_argument("--steps", type=int, default=2000, help="of the long training")
    parser.add_argument("--quick", action="store_true", help="the smallest of everything, to see whether it runs")
    parser.add_argument("--data", type=Path, default=ROOT / "data", help="the folder for BENCH.md and logs/")
    asked = parser.parse_args(arguments)
    device = choose_device(asked.device)
    torch.set_num_threads(1)
    log = asked.data / "logs" / f"bench-{device.type}.json"
    log.parent.mkdir(parents=True, exist_ok=True)
    own: dict[str, dict[str, Any]] = {"growth": {"steps": asked.steps}}
    for name in asked.only:
        heading, module = TABLES[name]
        measured = module.measure(device, asked.quick, **own.get(name, {}))
        print(f"\n{heading}\n\n{module.tell(measured)}\n", flush=True)
        kept = json.loads(log.read_text(encoding="utf-8")) if log.exists() else {}
        kept[name] = {"machine": described_machine(), "measured": measured}
        log.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
        (asked.data / "BENCH.md").write_text(markdown(log.parent), encoding="utf-8")
    print(f"{asked.data / 'BENCH.md'} holds all tables.")


if __name__ == "__main__":
    main()
