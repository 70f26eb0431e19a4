"""How fast our parts are beside torch's own, and times that stand by themselves."""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from measuring import beside, in_turn, noise_for, timed
from torch.utils.data import DataLoader

from course_lib import layers, optim
from course_lib.data import CaptionedFolder, CaptionedShapes
from course_lib.evaluation import format_table
from course_lib.images import to_pil
from course_lib.long_recipes import new_trainer
from course_lib.presets import get_preset
from course_lib.text_to_image import TextToImage

PRESET, PROMPT = "shapes-32", "a small red circle at the center on gray"


def measure(device: torch.device, quick: bool) -> dict[str, list[dict[str, Any]]]:
    """Ratios, times, and pictures a second of a folder and of a training."""
    rounds, pictures = (1, 500) if quick else (15, 10_000)
    record = {
        "ratios": [adam_row(device, rounds), convolution_row(device, -(-rounds // 2))],
        "times": time_rows(device, 1 if quick else 5, pictures),
        "reading": [folder_row(device, pictures)],
    }
    print("parts: measured", flush=True)
    return record


def ratio(
    what: str, ours: Callable[[], Any], theirs: Callable[[], Any], wanted: str, device: torch.device, rounds: int
) -> dict[str, Any]:
    """Median times, and the median of ours / theirs over alternating rounds."""
    times = in_turn({"ours": ours, "theirs": theirs}, device, rounds)
    row = {"what": what} | {f"{side} (ms)": 1000 * statistics.median(mine) for side, mine in times.items()}
    return row | {"ours / theirs": beside(*times.values()), "wanted": wanted}


def adam_row(device: torch.device, rounds: int) -> dict[str, Any]:
    """A step of our Adam over the parameters of both players, beside torch's."""

    def stepper(kind: Callable[..., Any], **options: Any) -> Callable[[], Any]:
        trainer = new_trainer(get_preset(PRESET), device)
        parameters = [*trainer.generator.parameters(), *trainer.discriminator.parameters()]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer = kind(parameters, lr=1e-3, betas=(0.5, 0.99), **options)
        return lambda: [optimizer.step() for _ in range(10)]

    adams = stepper(optim.Adam), stepper(torch.optim.Adam, foreach=True)
    return ratio("10 Adam steps, foreach", *adams, "<= 1.1", device, rounds)


def convolution_row(device: torch.device, rounds: int) -> dict[str, Any]:
    """Our written-out convolution, forward and backward, beside torch's."""
    x = torch.randn(32, 64, 32, 32).to(device).requires_grad_()
    weight = torch.randn(64, 64, 3, 3).to(device).requires_grad_()

    def run(convolve: Callable[..., torch.Tensor]) -> Callable[[], Any]:
        return lambda: torch.autograd.grad(convolve(x, weight, padding=1).sum(), (x, weight))

    convolutions = run(layers.conv2d), run(F.conv2d)
    return ratio("conv2d (32, 64, 32, 32), there and back", *convolutions, "<= 3", device, rounds)


def seconds(work: Callable[[], Any]) -> float:
    """By the clock on the wall: other processes work here too."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def time_rows(device: torch.device, rounds: int, pictures: int) -> list[dict[str, Any]]:
    """Times that stand by themselves."""

    def fresh(code: str) -> float:
        command = [sys.executable, "-c", code]
        run = lambda: subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: E731
        return statistics.median(seconds(run) for _ in range(rounds))

    bare, helps = fresh("pass"), "from course_lib.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"
    model = TextToImage.from_pretrained(PRESET, device)
    shapes = CaptionedShapes(image_size=32, length=pictures)
    draw = lambda **how: timed(lambda: model.sample(PROMPT, 8, **how), device)  # noqa: E731
    rows = {
        "import course_lib": (fresh("import course_lib") - bare, "< 0.1"),
        "course --help": (fresh(helps), "< 0.5"),
        "8 pictures for one prompt": (draw(), "< 1"),
        "the same, 20 refinement steps": (draw(steps_per_sample=20), ""),
        f"rendering {pictures:,} pictures at 32 x 32": (
            seconds(lambda: [shapes.images(range(i, i + 500)) for i in range(0, pictures, 500)]),
            "seconds",
        ),
    }
    return [{"what": what, "seconds": value, "wanted": wanted} for what, (value, wanted) in rows.items()]


def folder_row(device: torch.device, count: int) -> dict[str, Any]:
    """A folder of small PNGs, read by two workers, beside what training swallows."""
    preset = get_preset(PRESET)
    with tempfile.TemporaryDirectory() as name:
        shapes, lines = CaptionedShapes(image_size=32, length=count), []
        for start in range(0, count, 500):
            for i, image in enumerate(shapes.images(range(start, start + 500)), start):
                to_pil(image).save(f"{name}/{i:05d}.png")
                lines.append(json.dumps({"file_name": f"{i:05d}.png", "text": shapes.caption(i)}))
        Path(name, "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
        pictures = CaptionedFolder(name, 32)
        loader = DataLoader(pictures, batch_size=preset.train.batch_size, num_workers=2)
        read = len(pictures) / seconds(lambda: [None for _ in loader])
    trainer, data = new_trainer(preset, device), noise_for(preset, device)
    trained = preset.train.batch_size * 30 / seconds(lambda: [trainer.step(data) for _ in range(30)])
    row = {"what": "pictures a second", "folder, 2 workers": read, "training": trained}
    return row | {"reader / training": read / trained, "wanted": "> 1"}


def tell(record: dict[str, list[dict[str, Any]]]) -> str:
    """The tables in Markdown."""
    about = "Both sides of a ratio are timed in turn, and the ratio is the median over rounds."
    return "\n\n".join([about, *map(format_table, record.values())])
