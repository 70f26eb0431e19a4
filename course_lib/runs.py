"""A run and its folder: started, stopped, gone on with. What is done in it, `recipes` and `long_recipes` know."""

import contextlib
import json
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from course_lib import long_recipes, recipes
from course_lib.emoji_evaluation import load_tone_judge
from course_lib.errors import CourseError
from course_lib.evaluation import SCENES, load_judge
from course_lib.models import load_model
from course_lib.presets import (
    AlignmentPreset,
    CaptionsPreset,
    DCGANPreset,
    DiffusionPreset,
    EmojiConfig,
    GanPreset,
    JudgePreset,
    Preset,
    TonesPreset,
    VAEPreset,
    get_preset,
    override,
)
from course_lib.pretrained import MINILM, find_pretrained
from course_lib.text_encoder import load_text_encoder

RUN_FILE = "run.json"


def choose_device(device: str) -> torch.device:
    """ "auto" is the first CUDA device where there is one, else the CPU.

    Raises:
        CourseError: another word, or CUDA was asked for and is not there.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise CourseError(f'device="{device}" is unknown; use auto, cpu or cuda')
    if device == "cuda" and not torch.cuda.is_available():
        raise CourseError("device=cuda, but this torch sees no CUDA device; use device=cpu or device=auto")
    return torch.device("cuda" if device != "cpu" and torch.cuda.is_available() else "cpu")


def writable_folder(path: Path) -> Path:
    """Make a folder and prove that one can write there.

    Raises:
        CourseError: one can't.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path) as probe:
            probe.write(b"words to pixels")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise CourseError(f'"{path}" cannot be written to ({reason}); choose another folder') from error
    return path


def start_run(name: str, changes: dict[str, Any], out: Path, device: torch.device) -> Path | None:
    """Train a preset in a new folder.

    Args:
        name: of the preset; changes: training settings instead of the preset's.
        out: the run's folder; made here.
        device: where to compute.
    Returns:
        The folder of the trained model; None if Ctrl-C ended the run early (its state is saved).
    Raises:
        CourseError: unknown preset or setting, the folder holds something, or a model that the preset builds on is not
            there.
    """
    preset = override(get_preset(name), changes)
    if out.is_dir() and any(out.iterdir()):
        raise CourseError(f'out="{out}" is not empty; choose a new folder, or go on with the run in it: --resume')
    require_parts(preset)
    write_settings(name, preset, writable_folder(out), [])
    return run(name, preset, out, device)


def require_parts(preset: Preset) -> None:
    """Load what a preset builds on, so that a missing part is told before hours of training, not after them."""
    if isinstance(preset, GanPreset | AlignmentPreset | DiffusionPreset):
        load_text_encoder(preset.text_encoder)
    if isinstance(preset, GanPreset | DiffusionPreset) and preset.base is not None:
        load_model(preset.base)
    if not isinstance(preset, GanPreset | DiffusionPreset):
        return
    if isinstance(preset.data, EmojiConfig):
        load_tone_judge(preset.data.image_size)
        find_pretrained(MINILM)  # marks the finished model
    else:
        for scene in SCENES[preset.data.scene]:
            load_judge(preset.data.image_size, scene)


def resume_run(out: Path, device: torch.device, steps: int | None = None) -> Path | None:
    """Go on with the run in a folder, by its own settings; a finished one is only reported.

    Args:
        out: the run's folder; device: where to compute.
        steps: train to so many steps in all, more than were planned. The learning rate is then what it is at that share
            of the longer run: it rises once more before it falls. The model so far is kept, as `model-STEPS`.
    Raises:
        CourseError: there is no run, its settings are damaged, or it can't be made longer.
    """
    try:
        settings = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
        name, before = str(settings["preset"]), [int(n) for n in settings.get("steps_before", [])]
        preset = override(get_preset(name), dict(settings["train"]))
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CourseError(f'resume="{out}" holds no run ({RUN_FILE}: {error}); start one with --preset') from error
    planned = preset.train.steps
    if steps is not None and steps != planned:
        if type(preset) not in LONG or steps < planned:
            raise CourseError(f"steps={steps} can't make this run of {planned} steps longer; start one with --preset")
        preset, before = override(preset, {"steps": steps}), [*before, planned]
        if (out / "model").is_dir():
            (out / "model").replace(out / f"model-{planned}")
        write_settings(name, preset, out, before)
    if (out / "model").is_dir():
        print(f"{out} is finished.")
        return out / "model"
    return run(name, preset, out, device, before)


def write_settings(name: str, preset: Preset, out: Path, steps_before: list[int]) -> None:
    """What `resume_run` reads."""
    settings = {"preset": name, "train": vars(preset.train), "steps_before": steps_before}
    (out / RUN_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


SHORT = {  # minutes: begun anew when they were stopped
    CaptionsPreset: recipes.train_captions,
    AlignmentPreset: recipes.train_alignment,
    JudgePreset: recipes.train_judge,
    TonesPreset: recipes.train_tones,
    VAEPreset: recipes.train_vae,
    DCGANPreset: recipes.train_dcgan,
}
LONG = {  # gone on with where they were stopped
    GanPreset: long_recipes.train_gan,
    DiffusionPreset: long_recipes.train_diffusion,
}


def run(name: str, preset: Preset, out: Path, device: torch.device, steps_before: Sequence[int] = ()) -> Path | None:
    """Train a preset of any kind; steps_before: at which it was once thought to be finished."""
    if recipe := SHORT.get(type(preset)):
        return recipe(name, preset, out, device)
    with stop_on_interrupt() as stop:
        return LONG[type(preset)](name, preset, out, device, stop, steps_before)


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Within it Ctrl-C asks the loop to end after the step at hand; a second Ctrl-C ends the program at once."""
    asked = threading.Event()

    def ask(*_: Any) -> None:
        asked.set()
        signal.signal(signal.SIGINT, before)

    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is threading.main_thread():  # elsewhere signals can't be caught
        signal.signal(signal.SIGINT, ask)
    try:
        yield asked.is_set
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)
