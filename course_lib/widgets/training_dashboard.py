"""TrainingDashboard (lesson 12): a text-to-image GAN trained live: curves, samples, marks, the time that is left."""

import html
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import torch
from ipywidgets import Button, Dropdown, HBox, Layout
from matplotlib.axes import Axes
from torch import Tensor

from course_lib.batches import EmbeddedPictures
from course_lib.checkpoint import load_checkpoint
from course_lib.errors import CourseError
from course_lib.images import make_grid, to_pil
from course_lib.lesson import new_axes
from course_lib.listeners import Checkpoints, MetricsLog, SampleGrids
from course_lib.long_recipes import STATE, Run, embed, has_state, new_trainer
from course_lib.metrics import AttributeJudge, attribute_accuracy
from course_lib.preset_data import ShapesConfig
from course_lib.presets import GanPreset, get_preset, override
from course_lib.runs import RUN_FILE, owned, read_settings, writable_folder, write_settings
from course_lib.text_encoder import TextEncoder, embed_captions, load_text_encoder
from course_lib.tokenizer import Tokenizer
from course_lib.training import Trainer, train
from course_lib.widgets.base import Explorer, Scene, loaded_judge, quiet

CPU = torch.device("cpu")
EVERY = 20  # steps between exams and sample grids
SECONDS = 3  # between pictures of the curves, at most
PATIENCE = 0.25  # seconds until Pause and Stop are heard, or a step if that is longer
EXAM, SHOWN = 64, 8  # held-out captions that are marked, and those of them that are shown
MARKS = {"position": "s", "background": "o", "color": "^", "size": "v", "shape": "D", "all": "*"}


class Exam(NamedTuple):
    """Held-out captions: embedded (N, E), what each names, and real pictures of the first ones (8, 3, S, S)."""

    texts: Tensor
    scenes: list[dict[str, str]]
    real: Tensor
    judge: AttributeJudge


class LiveRun:
    """One run, its folder, and what has been seen of it.

    Args:
        name: of the preset; out: the run's folder, which is made when training begins.
        changes: training settings instead of the preset's, for a new run; one that is there keeps its own.
    Raises:
        CourseError: the preset is none of a GAN for single shapes, or the folder holds something else than its run.
    """

    def __init__(self, name: str, out: Path, changes: dict[str, Any]):
        self.name, self.out, preset = name, out, get_preset(name)
        if not isinstance(preset, GanPreset) or getattr(preset.data, "scene", "") != "single":
            raise CourseError(f'preset="{name}" is no GAN for single shapes; use "shapes-32-live"')
        self.preset = override(preset, changes)
        self.losses: list[tuple[int, float, float, float]] = []  # step, D's, G's, seconds in steps so far
        self.marks: list[tuple[int, dict[str, float]]] = []
        self.drawn: Tensor | None = None  # (8, 3, S, S)
        self.stopping = False  # set from outside: end after the step at hand
        self.exam = load_exam(self.preset.text_encoder, self.preset.data)
        self.steps_done = self.find()

    def find(self) -> int:
        """The step at which the folder's run stands; takes over the run's settings and its log."""
        if not self.out.is_dir() or not any(self.out.iterdir()):
            return 0
        found = read_settings(self.out, CPU)
        if found.name != self.name:
            raise CourseError(f'out="{self.out}" holds a run of "{found.name}", not of "{self.name}"; choose another')
        self.preset = found.preset
        if not has_state(self.out):
            return 0
        done = int(load_checkpoint(self.out / STATE)[1]["steps_done"])
        rows = (self.out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[:done]
        self.losses = [(row["step"], row["loss_d"], row["loss_g"], 0.0) for row in map(json.loads, rows)]
        return done

    def go_on(self) -> Iterator[Scene]:
        """Train from where the folder stands to the end; each Scene is a place where one may stop or pause."""
        self.stopping = False
        if self.steps_done >= self.preset.train.steps:
            yield Scene(None, words=self.told())
            return
        with owned(writable_folder(self.out)):
            write_settings(Run(self.name, self.preset, self.out, CPU))
            yield Scene(None, words=f"Drawing {self.preset.data.length:,} pictures and reading their captions, once.")
            data = load_data(self.preset.text_encoder, self.preset.data)
            with torch.random.fork_rng(devices=[]):  # the notebook's own dice stay as they were
                trainer = new_trainer(self.preset, CPU)
            if has_state(self.out):
                trainer.load(self.out / STATE)
            listeners = [
                MetricsLog(self.out / "metrics.jsonl", trainer.steps_done),
                SampleGrids(self.out / "samples", self.exam.texts[:32], self.preset.train.sample_every),
                Checkpoints(self.out / STATE, self.preset.train.checkpoint_every),
                self.watch,
            ]
            try:
                yield from self.in_parts(trainer, data, listeners)
            finally:
                trainer.save(self.out / STATE)
        yield self.scene()

    def in_parts(self, trainer: Trainer, data: EmbeddedPictures, listeners: list) -> Iterator[Scene]:
        """`training.train` for a moment, again and again, until the steps are done."""
        words, drew, spoke = self.told(), time.monotonic(), time.monotonic()
        while trainer.steps_done < trainer.config.steps and not self.stopping:
            until, seen, scene = time.monotonic() + PATIENCE, len(self.marks), None
            stop = lambda until=until: self.stopping or time.monotonic() > until  # noqa: E731
            train(trainer, data, listeners, stop=stop, progress=None)
            if len(self.marks) > seen or time.monotonic() > drew + SECONDS:
                scene, drew = self.scene(), time.monotonic()
            if scene or time.monotonic() > spoke + 1:  # more often, and a screen reader would not stop talking
                words, spoke = self.told(), time.monotonic()
            yield scene or Scene(None, words=words)

    def watch(self, trainer: Trainer, losses: dict[str, float]) -> None:
        """The listener: notes the losses; now and then draws the exam's captions and lets the judge mark them."""
        self.steps_done = trainer.steps_done
        self.losses.append((trainer.steps_done, losses["loss_d"], losses["loss_g"], trainer.seconds))
        if trainer.steps_done % EVERY == 0 or trainer.steps_done == trainer.config.steps:
            images = SampleGrids(self.out, self.exam.texts, EVERY).draw(trainer)
            self.drawn = images[:SHOWN]
            self.marks.append((trainer.steps_done, attribute_accuracy(self.exam.judge, images, self.exam.scenes)))

    def told(self) -> str:
        """How far it is, how long it will take, losses and marks."""
        steps, place = self.preset.train.steps, html.escape(str(self.out))
        parts = [f"Step {self.steps_done} of {steps}"]
        recent = [seconds for *_, seconds in self.losses[-EVERY:] if seconds]
        if self.steps_done >= steps:
            parts[0] += ", finished"
        elif self.stopping:
            parts[0] += ", stopped"
        elif len(recent) > 1:
            pace = (recent[-1] - recent[0]) / (len(recent) - 1)
            parts.append(f"{pace:.2f} s a step, about {(steps - self.steps_done) * pace:.0f} s left")
        if self.losses:
            parts.append("loss of D {:.2f}, of G {:.2f}".format(*self.losses[-1][1:3]))
        if self.marks:
            number, marks = self.marks[-1]
            kinds = ", ".join(f"{name} {marks[name]:.0%}" for name in MARKS if name != "all")
            parts.append(f"of {EXAM} held-out captions {marks['all']:.0%} drawn right at step {number} ({kinds})")
        line = f'<code>course train --resume "{place}"</code> in the notebook\'s folder'
        if self.steps_done >= steps:
            parts.append(f"to mark and keep the model: {line}")
        elif self.steps_done:
            parts.append(f"Stop keeps all; Start, or {line}, goes on")
        else:
            parts.append(f"Start trains in the folder {place}")
        return "; ".join(parts) + "."

    def scene(self) -> Scene:
        """Losses, marks; below real pictures of the captions and what the averaged generator draws."""
        with new_axes("", 2, 2, (9, 5.4)) as (figure, axes):
            grid = axes[0, 0].get_gridspec()
            grid.set_height_ratios([3, 2.2])
            for axis in axes[1]:
                axis.remove()
            draw_losses(axes[0, 0], self.losses, self.preset.train.steps)
            draw_marks(axes[0, 1], self.marks, self.preset.train.steps)
            grey = torch.full_like(self.exam.real, 0.8)
            rows = torch.cat([self.exam.real, grey if self.drawn is None else self.drawn])
            below = figure.add_subplot(grid[1, :])
            below.imshow(to_pil(make_grid(rows, SHOWN)), extent=(0, SHOWN, 2, 0))
            below.grid(False)
            below.set_yticks(
                [0.5, 1.5], ["real", f"drawn at\nstep {self.marks[-1][0]}" if self.marks else "not drawn\nyet"]
            )
            below.set_xticks([])
            below.tick_params(length=0)
            below.spines[:].set_visible(False)
        words = self.told()
        plain = words.replace("<code>", "").replace("</code>", "")
        return Scene(
            figure, f"Left losses, right marks, below eight real pictures and eight drawn ones. {plain}", words
        )


def training_dashboard(
    preset: str = "shapes-32-live", out: str | Path = "runs/dashboard", steps: int = 320, **changes: Any
) -> Explorer:
    """Start, pause and stop a training and watch it; `course train --resume` can go on with its folder.

    Args:
        preset: of a GAN for single shapes.
        out: the run's folder; one that holds a run of this preset is gone on with.
        steps: of a new run; changes: other training settings of a new run.
    Raises:
        CourseError: another kind of preset, a setting out of range, or the folder holds something else.
    """
    changes = {"average_decay": 0.95, "sample_every": EVERY, "checkpoint_every": 40, **changes, "steps": steps}
    state = {"run": LiveRun(preset, Path(out), changes)}
    hints = {
        "Start": "begins, or goes on",
        "Pause": "waits until Start is pressed",
        "Stop": "saves the state of training and ends the thread",
        "New run": "leaves this run as it is and takes the next free folder",
    }
    buttons = {
        name: Button(description=name, tooltip=hint, layout=Layout(width="90px")) for name, hint in hints.items()
    }
    small = {"layout": Layout(width="180px"), "style": {"description_width": "90px"}}
    train_config = state["run"].preset.train
    rate = quiet(
        Dropdown(options=sorted({3e-4, 1e-3, 3e-3, train_config.learning_rate}), description="learning rate", **small)
    )
    batch = quiet(Dropdown(options=sorted({12, 24, 48, train_config.batch_size}), description="batch", **small))
    rate.value, batch.value = train_config.learning_rate, train_config.batch_size
    rate.tooltip = batch.tooltip = "of the next new run"

    def start(_: Button) -> None:
        if explorer.tasks and explorer.tasks[0].running and not state["run"].stopping:
            explorer.tasks[0].paused = False
            return
        run = state["run"]
        if not run.steps_done and not (run.out / RUN_FILE).exists():  # what the controls say is for a new run
            chosen = {**changes, "learning_rate": rate.value, "batch_size": batch.value}
            state["run"] = run = LiveRun(preset, run.out, chosen)
        explorer.run(run.go_on)

    def pause(_: Button) -> None:
        for task in explorer.tasks:
            task.paused = True

    def stop(_: Button) -> None:
        if explorer.tasks and explorer.tasks[0].running:
            explorer.show(Scene(None, words="Stops after the step at hand, and saves."))
            state["run"].stopping, explorer.tasks[0].paused = True, False  # the page does not wait for it

    def new(_: Button) -> None:
        explorer.halt()
        state["run"] = LiveRun(preset, free_folder(Path(out)), changes)
        explorer.refresh()

    title = "A training you can hold"
    about = "Press Start; the page stays yours. Stop it, start it again: does the curve go on where it was?"
    controls = [HBox(list(buttons.values())), rate, batch]
    explorer = Explorer("training-dashboard", title, about, controls, lambda: state["run"].scene())
    for name, action in (("Start", start), ("Pause", pause), ("Stop", stop), ("New run", new)):
        buttons[name].on_click(action)
    return explorer


def free_folder(out: Path) -> Path:
    """The first of out, out-2, out-3 ... that is not there yet, or is empty."""
    number = 1
    while (found := out if number == 1 else out.with_name(f"{out.name}-{number}")).exists() and any(found.iterdir()):
        number += 1
    return found


@cache
def load_reader(name: str) -> tuple[TextEncoder, Tokenizer]:
    """The text encoder, read once."""
    return load_text_encoder(name)


@cache
def load_data(text_encoder: str, data: ShapesConfig) -> EmbeddedPictures:
    """The training data, drawn and read once; no training changes them."""
    return embed(data.dataset(), *load_reader(text_encoder), CPU)


@cache
def load_exam(text_encoder: str, data: ShapesConfig) -> Exam:
    """The first held-out captions, as `course train` draws them, and their judge."""
    heldout = data.dataset("heldout")
    texts = embed_captions(*load_reader(text_encoder), [heldout.caption(i) for i in range(EXAM)])
    scenes = [heldout.attributes(i) for i in range(EXAM)]
    return Exam(texts, scenes, heldout.images(range(SHOWN)), loaded_judge(data.image_size))


def draw_losses(axis: Axes, losses: list[tuple[int, float, float, float]], steps: int) -> None:
    """Both players' losses, told apart by dashes."""
    if losses:
        numbers, of_d, of_g, _ = zip(*losses, strict=True)
        axis.plot(numbers, of_d, "-", label="D", linewidth=1.4)
        axis.plot(numbers, of_g, "--", label="G", linewidth=1.4)
        axis.legend(loc="upper right", fontsize=9)
    axis.set(xlabel="step", ylabel="loss", xlim=(0, steps), ylim=(0, 4))


def draw_marks(axis: Axes, marks: list[tuple[int, dict[str, float]]], steps: int) -> None:
    """Share of captions whose picture has the attribute, each with a mark of its own."""
    for name, mark in MARKS.items():
        shares = [100 * shares[name] for _, shares in marks]
        look = {"color": "black", "linewidth": 2.6} if name == "all" else {"linewidth": 1.2}
        axis.plot([number for number, _ in marks], shares, "-" + mark, label=name, markersize=5, **look)
    axis.set(xlabel="step", ylabel="held-out drawn right (%)", xlim=(0, steps), ylim=(-2, 102))
    axis.legend(loc="upper left", fontsize=8)
