"""What each way to compute is worth, alone and together with others: the log of `tests/measure_scale.py`."""

import json
import subprocess
import sys
from typing import Any

import torch
from measuring import ROOT

from course_lib.evaluation import format_table


def measure(device: torch.device, quick: bool) -> dict[str, Any]:
    """The log as it is; where this kind of device has none yet, it is made, which takes some minutes."""
    log = ROOT / "data" / "logs" / f"scale-{device.type}.json"
    if not log.exists():
        subprocess.run([sys.executable, ROOT / "tests" / "measure_scale.py", "--device", device.type], check=True)
    return json.loads(log.read_text(encoding="utf-8"))


def tell(record: dict[str, Any]) -> str:
    """The table in Markdown."""
    slowest = max(record["time_beside_float32"].values())
    table = [
        {"way": way, "time beside float32": time, "times as fast as the first": slowest / time}
        for way, time in record["time_beside_float32"].items()
    ]
    about = (
        f"A step of `{record['preset']}`, from `data/logs`, measured on {record['machine']}; "
        f"`{record['command']}` measures it anew. The first row is without any of them."
    )
    return f"{about}\n\n{format_table(table)}"
