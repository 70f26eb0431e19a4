"""`course demo`: what the course leads to, in minutes. It draws from the shipped model and trains a small one live.

Generator and discriminator of the live run begin with random weights; the captions are read by the frozen text encoder
that is shipped, as Imagen reads them with a frozen T5.
"""

import functools
import json
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from course_lib.data.captions import parse, vocabulary
from course_lib.data.emoji import CaptionedEmoji
from course_lib.data.shapes import combinations
from course_lib.evaluation import accuracy, diversity, format_table, load_judge
from course_lib.images import image_grid_figure, save_figure
from course_lib.listeners import SampleGrids
from course_lib.long_recipes import embed, new_trainer
from course_lib.presets import get_preset
from course_lib.runs import require_parts, writable_folder
from course_lib.text_encoder import embed_captions, load_text_encoder
from course_lib.text_to_image import TextToImage
from course_lib.training import AdversarialTrainer, train

SHIPPED, SHIPPED_EMOJI, LIVE = "shapes-32", "emoji-64", "shapes-32-live"
PROMPTS = (
    "a large orange heart at the center on navy",  # held out
    "a small blue star at the top right on gray",
    "灰色背景上，左上角有一个大的青色星形",  # held out: a large cyan star at the top left on gray
    "米色背景上，中间有一个大的红色圆环",  # a large red ring at the center on cream
    "on cream, a big golden hoop at the upper right",  # held out, in synonyms
    "a tiny rosy crescent, bottom left, navy background",
    "在右下方画一个红色的大星星，背景是藏青色",  # held out: a large red star at the bottom right on navy
    "绿色三角形，小，右上角，灰色底",  # a small green triangle at the top right on gray
)
EMOJI_PROMPTS = (
    "man superhero, medium-dark skin tone",  # held out, like all down to the runner
    "woman surfing, dark skin tone",
    "person in lotus position, medium-light skin tone",
    "woman scientist, light skin tone",
    "man in motorized wheelchair facing right, medium-dark skin tone",
    "person lifting weights",
    "woman detective, medium skin tone",
    "man running",
    "cat face",
    "rocket",
    "rainbow",
    "pizza",
)
SIZE_OF_NAMES = 32  # the smallest cache of emoji pictures will do to ask for their names
SNAPSHOTS = 6  # how often the live run is drawn
N_SCORED = 2000


def is_heldout(prompt: str) -> bool:
    """Whether a full caption of the shapes, or a name of an emoji, is of a combination that was not trained on."""
    return tuple(parse(prompt).values()) in combinations("single", "heldout") or prompt in heldout_names()


@functools.cache
def heldout_names() -> frozenset[str]:
    """The names of the people that no model of emoji was trained on."""
    emoji = CaptionedEmoji("heldout", SIZE_OF_NAMES)
    return frozenset(emoji.caption(i) for i in range(len(emoji)))


class Progress:
    """A listener that draws the demo's prompts at equal intervals of time.

    Args:
        grids: draws them.
        seconds: length of the run.
    """

    def __init__(self, grids: SampleGrids, seconds: float):
        self.grids, self.seconds, self.started = grids, seconds, time.monotonic()
        self.taken: list[tuple[float, int, Tensor]] = []  # (seconds, steps, pictures)

    def __call__(self, trainer: AdversarialTrainer, losses: dict[str, float]) -> None:
        elapsed = time.monotonic() - self.started
        due = int(elapsed / self.seconds * SNAPSHOTS)
        if len(self.taken) < min(due, SNAPSHOTS - 1):  # the last is taken when the run has ended
            self.take(trainer)

    def take(self, trainer: AdversarialTrainer) -> None:
        """Draw now."""
        self.taken.append((time.monotonic() - self.started, trainer.steps_done, self.grids.draw(trainer).cpu()))


def draw_prompts(model: TextToImage, path: Path) -> None:
    """A figure of four pictures for each prompt."""
    pictures = model.sample(PROMPTS, n_samples=4)
    titles = [t for prompt in PROMPTS for t in (prompt, "(held out)" if is_heldout(prompt) else "", "", "")]
    save_figure(image_grid_figure(pictures, titles, columns=8, title=f"Drawn by {SHIPPED}"), path)


def draw_emoji(model: TextToImage, path: Path) -> None:
    """A figure of one picture for each name of an emoji."""
    titles = [prompt + ("\n(held out)" if is_heldout(prompt) else "") for prompt in EMOJI_PROMPTS]
    pictures = model.sample(EMOJI_PROMPTS, n_samples=1)
    save_figure(image_grid_figure(pictures, titles, columns=6, title=f"Drawn by {SHIPPED_EMOJI}"), path)


def train_live(seconds: float, device: torch.device) -> tuple[TextToImage, Progress]:
    """Train the preset `shapes-32-live` from random weights for some seconds, with a progress bar."""
    preset = get_preset(LIVE)
    encoder, tokenizer = load_text_encoder(preset.text_encoder, device)
    data = embed(preset.data.dataset(), encoder, tokenizer, device)
    trainer = new_trainer(preset, device)
    grids = SampleGrids(Path(), embed_captions(encoder, tokenizer, PROMPTS), 1)
    progress = Progress(grids, seconds)
    train(trainer, data, [progress], seconds=seconds, progress="training live")
    progress.take(trainer)
    facts = {"preset": LIVE, "data": vars(preset.data), "seconds": round(trainer.seconds), "steps": trainer.steps_done}
    parts = trainer.average.model, trainer.discriminator, encoder, tokenizer
    return TextToImage(*parts, vocabulary(), facts), progress


def draw_progress(progress: Progress, path: Path) -> None:
    """A figure: one row for each moment of the live run, one column for each prompt."""
    pictures = torch.cat([drawn for _, _, drawn in progress.taken])
    times = [f"{seconds:.0f} s, {steps} steps" for seconds, steps, _ in progress.taken]
    captions = [f"{PROMPTS[0]}: {times[0]}", *PROMPTS[1:]]
    titles = captions + [title for time in times[1:] for title in (time, *[""] * (len(PROMPTS) - 1))]
    save_figure(
        image_grid_figure(pictures, titles, columns=len(PROMPTS), title="The live run, drawn as it learns"), path
    )


def score(name: str, model: TextToImage, seconds: float | None) -> dict[str, Any]:
    """Accuracy on held-out combinations and diversity, as a row of the table."""
    judge = load_judge(model.image_size).to(model.device)
    marks = accuracy(model, judge, n=N_SCORED)
    time_spent = f"{seconds:.0f} s" if seconds else "shipped"
    return {"model": name, "trained": time_spent, "n": N_SCORED, **marks, "diversity": diversity(model)}


def run_demo(seconds: float, out: Path, device: torch.device) -> Path:
    """The whole demo: draws, trains, scores, writes `prompts.png`, `emoji.png`, `progress.png` and `report.json`.

    Args:
        seconds: length of the live run.
        out: folder of the four files.
        device: where to compute.
    Returns:
        The folder.
    Raises:
        CourseError: a model it builds on is not there, or one can't write to the folder.
    """
    shipped, of_emoji = (TextToImage.from_pretrained(name, device) for name in (SHIPPED, SHIPPED_EMOJI))
    require_parts(get_preset(LIVE))
    writable_folder(out)
    print(
        f"1. Eight sentences, drawn by the shipped model {SHIPPED} (its generator never saw the starred combinations):"
    )
    for prompt in PROMPTS:
        print("   " + ("* " if is_heldout(prompt) else "  ") + prompt)
    draw_prompts(shipped, out / "prompts.png")
    print(f"   -> {out / 'prompts.png'}")
    draw_emoji(of_emoji, out / "emoji.png")
    print(f"   and the names of {len(EMOJI_PROMPTS)} emoji, drawn by {SHIPPED_EMOJI} -> {out / 'emoji.png'}\n")
    print(f"2. A second generator and discriminator, from random weights, for {seconds:.0f} seconds:")
    live, progress = train_live(seconds, device)
    draw_progress(progress, out / "progress.png")
    print(f"   -> {out / 'progress.png'}\n")
    print(f"3. Both judged on {N_SCORED} held-out captions each (shares of pictures with the attribute right):\n")
    rows = [score(SHIPPED, shipped, None), score(LIVE, live, progress.taken[-1][0])]
    print(format_table(rows))
    report = {
        "rows": rows,
        "live": live.training_facts,
        "prompts": {p: is_heldout(p) for p in (*PROMPTS, *EMOJI_PROMPTS)},
    }
    (out / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    print(f"\n   -> {out / 'report.json'}\n")
    print('Next: course generate "a small red ring at the center on navy"')
    print("      (.venv/bin/course where the shell does not find it)")
    return out
