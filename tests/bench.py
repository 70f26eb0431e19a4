"""`make bench`: how fast our parts are beside torch's own, as ratios measured in one run.

Both sides of a ratio are timed in turn, many times over, and the median of the paired ratios is reported: so a busy
machine slows both alike. Nothing here fails; `make test` holds no timed test.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import json  # noqa: E402
import statistics  # noqa: E402
import subprocess  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
from collections.abc import Callable  # noqa: E402
from dataclasses import replace  # noqa: E402
from pathlib import Path  # noqa: E402

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from textbook import TextbookTrainer  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402

from course_lib import layers, optim  # noqa: E402
from course_lib.batches import EmbeddedPictures  # noqa: E402
from course_lib.cards import machine  # noqa: E402
from course_lib.data import CaptionedFolder, CaptionedShapes  # noqa: E402
from course_lib.evaluation import format_table  # noqa: E402
from course_lib.images import to_pil  # noqa: E402
from course_lib.long_recipes import embed, new_trainer  # noqa: E402
from course_lib.presets import get_preset  # noqa: E402
from course_lib.text_encoder import load_text_encoder  # noqa: E402
from course_lib.text_to_image import TextToImage  # noqa: E402

ROUNDS = 15


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def ratio(
    what: str, ours: Callable[[], object], theirs: Callable[[], object], wanted: str, rounds: int = ROUNDS
) -> dict:
    """One row: median times, and the median of ours / theirs over alternating rounds."""
    ours(), theirs()
    pairs = [(seconds(ours), seconds(theirs)) for _ in range(rounds)]
    mine, other = (statistics.median(side) * 1000 for side in zip(*pairs, strict=True))
    times = statistics.median(a / b for a, b in pairs)
    return {"what": what, "ours (ms)": mine, "theirs (ms)": other, "ours / theirs": times, "wanted": wanted}


def adam_row() -> dict:
    """A step of our Adam over the parameters of both players, beside torch's."""

    def stepper(kind, **options) -> Callable[[], None]:
        trainer = new_trainer(get_preset("shapes-32"), torch.device("cpu"))
        parameters = [*trainer.generator.parameters(), *trainer.discriminator.parameters()]
        for parameter in parameters:
            parameter.grad = torch.randn_like(parameter)
        optimizer = kind(parameters, lr=1e-3, betas=(0.5, 0.99), **options)
        return lambda: [optimizer.step() for _ in range(10)]

    return ratio("10 Adam steps, foreach", stepper(optim.Adam), stepper(torch.optim.Adam, foreach=True), "<= 1.1")


def convolution_row() -> dict:
    """Our written-out convolution, forward and backward, beside torch's."""
    x = torch.randn(32, 64, 32, 32, requires_grad=True)
    weight = torch.randn(64, 64, 3, 3, requires_grad=True)

    def run(convolve: Callable) -> Callable[[], None]:
        return lambda: torch.autograd.grad(convolve(x, weight, padding=1).sum(), (x, weight))

    return ratio("conv2d (32, 64, 32, 32), there and back", run(layers.conv2d), run(F.conv2d), "<= 3", 7)


def step_rows() -> list[dict]:
    """One training step of `shapes-32` beside the textbook's, both fed as they are in a run."""
    preset = get_preset("shapes-32")
    dataset, (encoder, tokenizer) = preset.data.dataset(), load_text_encoder(preset.text_encoder)
    ours, theirs = new_trainer(preset, torch.device("cpu")), TextbookTrainer(preset, dataset)
    data = embed(replace(preset.data, length=2000).dataset(), encoder, tokenizer, torch.device("cpu"))
    row = ratio("a training step, beside the textbook loop", lambda: ours.step(data), theirs.step, "<= 0.33", 31)
    return [row]


def absolute_rows() -> list[dict]:
    """Times that stand by themselves."""

    def fresh(code: str) -> float:
        return statistics.median(
            seconds(lambda: subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL))
            for _ in range(5)
        )

    bare = fresh("pass")
    model = TextToImage.from_pretrained("shapes-32")
    shapes = CaptionedShapes(image_size=32, length=10_000)
    prompt = "a small red circle at the center on gray"
    rows = {
        "import course_lib": (fresh("import course_lib") - bare, "< 0.1"),
        "course --help": (
            fresh("from course_lib.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass"),
            "< 0.5",
        ),
        "8 pictures for one prompt": (seconds(lambda: model.sample(prompt, 8)), "< 1"),
        "the same, 20 refinement steps": (seconds(lambda: model.sample(prompt, 8, steps_per_sample=20)), ""),
        "rendering 10,000 pictures at 32 x 32": (
            seconds(lambda: [shapes.images(range(i, i + 500)) for i in range(0, 10_000, 500)]),
            "seconds",
        ),
    }
    return [{"what": what, "seconds": value, "wanted": wanted} for what, (value, wanted) in rows.items()]


def folder_rows() -> list[dict]:
    """A folder of 10,000 small PNGs, read by two workers, beside what training swallows."""
    preset = get_preset("shapes-32")
    with tempfile.TemporaryDirectory() as name:
        shapes, lines = CaptionedShapes(image_size=32, length=10_000), []
        for start in range(0, 10_000, 500):
            for i, image in enumerate(shapes.images(range(start, start + 500)), start):
                to_pil(image).save(f"{name}/{i:05d}.png")
                lines.append(json.dumps({"file_name": f"{i:05d}.png", "text": shapes.caption(i)}))
        Path(name, "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
        pictures = CaptionedFolder(name, 32)
        loader = DataLoader(pictures, batch_size=preset.train.batch_size, num_workers=2)
        read = len(pictures) / seconds(lambda: [None for _ in loader])
    trainer, size = new_trainer(preset, torch.device("cpu")), preset.generator.text_size
    random = torch.randint(0, 256, (500, 3, 32, 32), dtype=torch.uint8)
    data = EmbeddedPictures(random, torch.randn(500, size), torch.zeros(size))
    trained = preset.train.batch_size * 30 / seconds(lambda: [trainer.step(data) for _ in range(30)])
    row = {
        "what": "pictures a second",
        "folder, 2 workers": read,
        "training": trained,
        "reader / training": read / trained,
    }
    return [{**row, "wanted": "> 1"}]


if __name__ == "__main__":
    print(f"{machine()}\n")
    print(format_table([adam_row(), convolution_row(), *step_rows()]))
    print()
    print(format_table(absolute_rows()))
    print()
    print(format_table(folder_rows()))
