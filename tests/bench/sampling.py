"""How long one waits for pictures: every shipped text-to-image model, one picture, eight and sixty-four at once."""

from typing import Any

import torch

from course_lib.evaluation import format_table
from course_lib.models import load_model, shipped_configs
from course_lib.report import milliseconds

SIZES = (1, 8, 64)


def measure(device: torch.device, quick: bool) -> list[dict[str, Any]]:
    """Milliseconds of a call at each size."""
    rows = []
    for name, config in shipped_configs().items():
        model, times = load_model(name, device), 3 if config["kind"] == "text-to-image" else 1
        sizes = SIZES[:1] if quick else SIZES
        spent = {str(size): milliseconds(model, size, times) for size in sizes}
        rows.append({"model": name, "milliseconds": spent})
        print(f"sampling: {name}", flush=True)
    return rows


def tell(rows: list[dict[str, Any]]) -> str:
    """The table in Markdown."""
    table = [
        {"model": row["model"]}
        | {f"{size} at once (ms)": f"{spent:.0f}" for size, spent in row["milliseconds"].items()}
        | {"ms a picture, most at once": list(row["milliseconds"].values())[-1] / int(list(row["milliseconds"])[-1])}
        for row in rows
    ]
    about = "From the sentence to the pictures with each model's usual settings: one pass of a GAN, steps of diffusion."
    return f"{about}\n\n{format_table(table)}"
