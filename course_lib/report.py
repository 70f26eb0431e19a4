"""`course report`: every shipped text-to-image model side by side, as Markdown for data/RESULTS.md.

Marks are read from each model's marks.json, which its training wrote; times are measured now. Sizes and times depend on
the machine, so the report names it.
"""

import json
from pathlib import Path
from typing import Any

import torch

from course_lib.cards import MARKS_FILE, WATTS_A_CORE, WATTS_A_GPU, energy_wh, machine
from course_lib.checkpoint import TENSORS, checkpoints_folder, find_checkpoint
from course_lib.errors import CourseError
from course_lib.evaluation import accuracy, diversity, format_table, load_judge
from course_lib.models import AnyModel, load_model, shipped_configs
from course_lib.preset_data import data_of
from course_lib.speed import seconds_of

TIMED_BATCHES = (1, 64)
DUEL = "shapes-32", "shapes-32-diffusion"  # trained on the same captions
DUEL_SETTINGS = {  # steps and guidance scales at which the two are compared
    "shapes-32": ((0, 1.0), (5, 1.0), (20, 1.0), (20, 2.0)),
    "shapes-32-diffusion": ((1, 1.0), (2, 1.0), (5, 1.0), (10, 1.0), (10, 2.0), (20, 2.0), (50, 1.0), (50, 2.0)),
}


def write_report(path: Path, n: int, device: torch.device) -> None:
    """Measure and write.

    Args:
        path: of the Markdown file.
        n: pictures for each setting of the duel.
        device: where to compute.
    Raises:
        CourseError: a model lacks its marks, or one can't write to the file.
    """
    text = report(n, device)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CourseError(f'"{path}" cannot be written ({error.strerror}); choose another file') from error


def report(n: int, device: torch.device) -> str:
    """The whole report as Markdown."""
    names = list(shipped_configs())
    parts = [
        "# Results",
        f"Written by `course report --n {n}` on {machine()}. Energy is an estimate: {WATTS_A_CORE} W for each busy "
        f"CPU core, {WATTS_A_GPU} W for a GPU. Each model's card, `data/checkpoints/NAME/README.md`, holds all its "
        "marks and tells how they were found.",
        "## Every model",
        format_table([row_of(name, device) for name in names]),
        "Accuracy: all attributes of the caption right, held-out combinations (for scenes of two: of both and their "
        "relation). R@10: the picture's own name is among the ten nearest of 300 (names that were trained on) or 200 "
        "(held-out people). Kernel distance: to real pictures, in features of EfficientNet-Lite0; that of real "
        "pictures to other real ones is about 0. `ms` are milliseconds a picture, by how many are drawn at once.",
    ]
    if all(name in names for name in DUEL):
        parts += ["## GAN and diffusion on the same captions", duel_text(n, device)]
    return "\n\n".join(parts) + "\n"


def row_of(name: str, device: torch.device) -> dict[str, Any]:
    """One model's line of the table."""
    model, folder = load_model(name, device), find_checkpoint(name)
    marks, facts = read_marks(name), model.training_facts
    drawing = {f"ms at {size}": milliseconds(model, size) / size for size in TIMED_BATCHES}
    return {
        "model": name,
        "parameters": f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} M",
        "MB": (folder / TENSORS).stat().st_size / 1e6,
        "trained": f"{facts.get('seconds', 0) / 60:.0f} min" + " of a GPU" * ("CPU" not in facts.get("machine", "CPU")),
        "energy": f"{facts.get('watt_hours', energy_wh(facts.get('seconds', 0), 1)):.1f} Wh",
        **drawing,
        **summary(marks),
    }


def read_marks(name: str) -> dict[str, Any]:
    """What the model's training found.

    Raises:
        CourseError: there is no such file, or it is damaged.
    """
    path = find_checkpoint(name) / MARKS_FILE
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        told = f'"{path}" cannot be read ({error})'
        raise CourseError(f"{told}; measure it: course evaluate --model {name} --card") from error


def summary(marks: dict[str, Any]) -> dict[str, str]:
    """The few marks that fit into a table of all models."""
    if "accuracy" not in marks:
        return emoji_summary(marks)
    both = " / ".join(share(marks[kind]["English"]["all"]) for kind in ("accuracy", "pairs") if kind in marks)
    realism = marks.get("realism")
    distance = f"{realism['kernel_distance'][0]:.3f}" if realism else "-"
    return {"accuracy": both, "R@10": "-", "diversity": f"{marks['diversity']:.2f}", "kernel distance": distance}


def emoji_summary(marks: dict[str, Any]) -> dict[str, str]:
    """The same for a model of emoji."""
    recalls = " / ".join(share(marks[split]["recall"]) for split in ("train", "heldout"))
    distance = " / ".join(f"{marks[split]['kernel_distance'][0]:.3f}" for split in ("train", "heldout"))
    return {"accuracy": "-", "R@10": recalls, "diversity": "-", "kernel distance": distance}


def share(value: float) -> str:
    """0.995 -> "99.5 %"."""
    return f"{100 * value:.1f} %"


def milliseconds(model: AnyModel, size: int, times: int = 3, **sampling: Any) -> float:
    """The time to draw `size` pictures at once for the first held-out caption: the median of some calls."""
    caption = data_of(model.training_facts).dataset("heldout").caption(0)
    return 1000 * seconds_of(lambda: model.sample([caption], size, batch_size=size, **sampling), model.device, times)


def duel_text(n: int, device: torch.device) -> str:
    """Accuracy, diversity and time a picture of both kinds of model, at several settings of each."""
    rows = []
    for name in DUEL:
        model = load_model(name, device)
        judge = load_judge(model.image_size).to(model.device)
        for steps, scale in DUEL_SETTINGS[name]:
            sampling = {"steps_per_sample": steps, "guidance_scale": scale}
            rows.append(
                {
                    "model": name,
                    **sampling,
                    "ms a picture": milliseconds(model, 64, 1, **sampling) / 64,
                    "all": accuracy(model, judge, n=n, **sampling)["all"],
                    "diversity": diversity(model, **sampling),
                }
            )
    told = [
        f"Both draw the same {n} held-out captions, 64 at once. For the GAN steps are steps of refinement, for "
        "diffusion steps from noise to picture. Equal sampling time: compare rows with nearly the same milliseconds.",
        format_table(rows),
    ]
    if (log := checkpoints_folder().parent / "logs" / "compute.json").is_file():
        told += ["Equal training: compare rows with nearly the same work (`tests/measure_compute.py` counts it)."]
        told += [format_table(compute_rows(log))]
    return "\n\n".join(told)


def compute_rows(log: Path) -> list[dict[str, Any]]:
    """Each training of the log: its work in 10^12 floating-point operations, and its marks."""
    return [
        {"trained": row["preset"], "steps": row["steps"], "batch": row["batch_size"], "10^12 FLOP": row["flops"] / 1e12}
        | {"all": share(row["all"]), "diversity": row["diversity"]}
        for row in json.loads(log.read_text(encoding="utf-8"))
    ]
