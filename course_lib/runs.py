"""A run and its folder: started, stopped, gone on with. What is done in it, `recipes` and `long_recipes` know."""

import contextlib
import json
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import torch

from course_lib import long_recipes, recipes
from course_lib.checkpoint import dataclass_from_dict
from course_lib.emoji_evaluation import load_tone_judge
from course_lib.errors import CourseError
from course_lib.evaluation import SCENES, load_judge
from course_lib.long_recipes import Run, load_reader
from course_lib.models import load_model
from course_lib.preset_data import EmojiConfig, FolderConfig
from course_lib.presets import (
    AlignmentPreset,
    CaptionsPreset,
    DCGANPreset,
    DiffusionPreset,
    GanPreset,
    JudgePreset,
    Preset,
    TonesPreset,
    VAEPreset,
    get_preset,
    override,
)
from course_lib.pretrained import MINILM, find_pretrained
from course_lib.scale import PLAIN, ScaleConfig, World, join_world

RUN_FILE, LOCK_FILE = "run.json", "training.lock"
LEAST_HELD_OUT = 4  # pictures, for measures that set halves of them, or three neighbours, beside each other


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


def start_run(
    name: str,
    changes: dict[str, Any],
    out: Path,
    device: torch.device,
    scale: ScaleConfig = PLAIN,
    data: dict[str, str] | None = None,
) -> Path | None:
    """Train a preset in a new folder.

    Args:
        name: of the preset; changes: training settings instead of the preset's.
        out: the run's folder; made here.
        device: where to compute; scale: how.
        data: folder and captions of the reader's own pictures, for a preset that draws such.
    Returns:
        The folder of the trained model; None if Ctrl-C ended the run early (its state is saved).
    Raises:
        CourseError: unknown preset or setting, the folder holds something, or a model that the preset builds on is not
            there.
    """
    preset = override(get_preset(name), changes, data)
    world, device = join_world(device)
    if int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) and (out / RUN_FILE).exists():
        return resume_run(out, device)  # `torchrun` has begun anew, because a process had died
    if world.rank > 0:  # the first process writes what there is to write
        return run(Run(name, preset, out, device, scale=scale, world=world))
    if out.is_dir() and any(out.iterdir()):
        raise CourseError(f'out="{out}" is not empty; choose a new folder, or go on with the run in it: --resume')
    require_parts(preset)
    with owned(writable_folder(out)):
        return run(Run(name, preset, out, device, scale=scale, world=world))


def require_parts(preset: Preset) -> None:
    """Load what a preset builds on, so that a missing part is told before hours of training, not after them."""
    if isinstance(preset, GanPreset | AlignmentPreset | DiffusionPreset):
        load_reader(preset.text_encoder, torch.device("cpu"))
    if isinstance(preset, GanPreset | DiffusionPreset) and preset.base is not None:
        load_model(preset.base)
    if not isinstance(preset, GanPreset | DiffusionPreset):
        return
    if isinstance(preset.data, FolderConfig):
        training, unseen = (len(preset.data.dataset(split).distinct()) for split in ("train", "heldout"))
        if training < preset.train.batch_size or unseen < LEAST_HELD_OUT:
            raise CourseError(
                f'folder="{preset.data.folder}" has {training} pictures to learn from and {unseen} to be marked by (a '
                f"tenth of the file names); give at least {preset.train.batch_size} (--batch_size) and {LEAST_HELD_OUT}"
            )
    elif isinstance(preset.data, EmojiConfig):
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
        CourseError: there is no run, its settings are damaged, it can't be made longer, a link leads out of its folder,
            or another process trains it.
    """
    world, device = join_world(device)
    require_no_way_out(out)
    with owned(out) if world.rank == 0 else contextlib.nullcontext():
        return go_on_with(out, device, steps, world)


def require_no_way_out(out: Path) -> None:
    """CourseError if a link in a run's folder leads out of it: then a stranger's run would say what is overwritten."""
    home = os.path.realpath(out)
    for path in out.rglob("*"):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(home):
            raise CourseError(f'"{path}" is a link that leads out of the run\'s folder; put the file itself there')


def go_on_with(out: Path, device: torch.device, steps: int | None, world: World) -> Path | None:
    """What `resume_run` does when the folder is its own."""
    found = replace(read_settings(out, device), world=world)
    planned = found.preset.train.steps
    if steps is not None and steps != planned:
        if type(found.preset) not in LONG or steps < planned:
            raise CourseError(f"steps={steps} can't make this run of {planned} steps longer; start one with --preset")
        longer = override(found.preset, {"steps": steps})
        found = replace(found, preset=longer, steps_before=[*found.steps_before, planned])
        if world.rank == 0 and (out / "model").is_dir():
            (out / "model").replace(out / f"model-{planned}")
        if world.size > 1:
            torch.distributed.barrier()  # before the others look whether the run is finished
    if (out / "model").is_dir():
        print(f"{out} is finished.")
        return out / "model"
    return run(found)


def write_settings(run_: Run) -> None:
    """Keep in the run's folder what `read_settings` needs."""
    settings = {"preset": run_.name, "train": vars(run_.preset.train)}
    settings |= {"steps_before": list(run_.steps_before), "scale": vars(run_.scale)}
    if isinstance(getattr(run_.preset, "data", None), FolderConfig):
        settings["data"] = vars(run_.preset.data)
    (run_.out / RUN_FILE).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def read_settings(out: Path, device: torch.device) -> Run:
    """The run in a folder, as it was begun.

    Raises:
        CourseError: there is none, or its settings are damaged.
    """
    try:
        settings = json.loads((out / RUN_FILE).read_text(encoding="utf-8"))
        name, before = str(settings["preset"]), [int(n) for n in settings.get("steps_before", [])]
        preset = override(get_preset(name), dict(settings["train"]), settings.get("data"))
        scale = dataclass_from_dict(ScaleConfig, settings.get("scale", {}), out / RUN_FILE)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise CourseError(f'resume="{out}" holds no run ({RUN_FILE}: {error}); start one with --preset') from error
    return Run(name, preset, out, device, steps_before=before, scale=scale)


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


def run(asked: Run) -> Path | None:
    """Write down what is asked for, and train it.

    Raises:
        CourseError: the memory is too small, or another process of this run has died.
    """
    preset, alone = asked.preset, asked.world.size == 1
    if asked.world.rank == 0:
        write_settings(asked)
    if recipe := SHORT.get(type(preset)):
        return recipe(asked.name, preset, asked.out, asked.device)
    try:
        # several processes would have to stop at one step: there a signal ends them at once
        with stop_on_interrupt() if alone else contextlib.nullcontext(asked.stop) as stop:
            return LONG[type(preset)](replace(asked, stop=stop))
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            reason = f"the memory is full; a --batch_size below {preset.train.batch_size} or bfloat16 needs less"
        elif not alone and re.search("gloo|NCCL", str(error)):  # they have no error of their own
            reason = "another process of this run is gone"
        else:
            raise
        how = f'the last checkpoint is kept; go on with: course train --resume "{asked.out}"'
        raise CourseError(f"{reason} ({str(error)[:80]}); {how}") from error


@contextlib.contextmanager
def owned(out: Path) -> Iterator[None]:
    """Within it this process alone may train in the folder.

    Raises:
        CourseError: another one does.
    """
    path, mine = out / LOCK_FILE, {"process": os.getpid(), "started": psutil.Process().create_time()}
    if not out.is_dir():  # no run, which is told by who looks for it
        yield
        return
    try:
        path.open("x", encoding="utf-8").close()
    except FileExistsError:
        if (owner := living_owner(path)) is not None:
            since = time.strftime("%Y-%m-%d %H:%M", time.localtime(owner.create_time()))
            raise CourseError(
                f'"{out}" is being trained by process {owner.pid}, started {since}; wait for it, or stop it'
            ) from None
    path.write_text(json.dumps(mine), encoding="utf-8")
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def living_owner(path: Path) -> psutil.Process | None:
    """The process that a lock names; None if it is gone, or its number has gone to another one since."""
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        owner = psutil.Process(int(told["process"]))
        return owner if abs(owner.create_time() - float(told["started"])) < 2 else None
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        return None


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
