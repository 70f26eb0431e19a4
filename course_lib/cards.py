"""Model cards: what a checkpoint is, how it was made, how good it is. Written by the training itself."""

import json
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

from course_lib.errors import CourseError
from course_lib.images import make_grid, save_image
from course_lib.marks import marks_text
from course_lib.models import AnyModel
from course_lib.preset_data import DataConfig, EmojiConfig, FolderConfig, data_of
from course_lib.presets import CaptionsPreset, DiffusionPreset, GanPreset, Preset, get_preset, override
from course_lib.scale import PLAIN

WATTS_A_CORE = 10  # of a busy CPU core, a usual figure for a laptop or a server
WATTS_A_GPU = 500
ATTRIBUTION = {
    "twemoji": "Twemoji graphics: Copyright 2019 Twitter, Inc and other contributors, licensed under "
    "CC-BY 4.0 (https://creativecommons.org/licenses/by/4.0/), brought to the model's size on white.",
    "openmoji": "All OpenMoji emojis designed by OpenMoji (https://openmoji.org), the open-source emoji and icon "
    "project, licensed under CC BY-SA 4.0 (https://creativecommons.org/licenses/by-sa/4.0/), brought to the model's "
    "size on white.",
}
GRID_FILE, MARKS_FILE = "samples.png", "marks.json"
GRID_PROMPTS, GRID_SAMPLES = 8, 8  # rows and columns of the sample grid


def licence(preset: Preset) -> str:
    """Licence of the weights, and attribution of the training pictures."""
    data = getattr(preset, "data", None)
    if isinstance(data, FolderConfig):
        return (
            "It has learned from pictures and captions of someone's own: their licence says what may be done with its "
            "weights and with what it draws. Write their source and licence here before you pass it on."
        )
    if not isinstance(data, EmojiConfig):
        return (
            "Licence: Apache-2.0, weights included. The training pictures are computed by `course_lib/data/shapes.py`; "
            "no one else's data is in this model."
        )
    names = "The names are Unicode CLDR's (Unicode License v3), through the package `emoji`."
    if isinstance(preset, CaptionsPreset):
        return f"Licence: Apache-2.0, weights included. {names} It has seen no pictures."
    # the text encoder of every emoji model has seen both styles
    return "\n\n".join([f"Licence of the weights: CC BY-SA 4.0. {names}", *ATTRIBUTION.values()])


def machine() -> str:
    """The machine in a few words, without its name."""
    import torch

    accelerator = (
        torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    )
    return f"{platform.system()} {platform.machine()}, {accelerator}, torch {torch.__version__}"


def energy_wh(seconds: float, cores: int | None = None) -> float:
    """Energy of a training in watt-hours: an estimate from usual figures, nothing is metered.

    Args:
        seconds: how long it took.
        cores: how many CPU cores were busy; None: what this process uses, its GPU or its threads.
    """
    import torch

    if cores is None and torch.cuda.is_available():
        return WATTS_A_GPU * seconds / 3600
    return WATTS_A_CORE * (cores or torch.get_num_threads()) * seconds / 3600


def how_made(name: str, preset: Preset, facts: dict[str, Any]) -> str:
    """The lines every card has: the commands that repeat it, settings, time, machine, energy.

    Args:
        name: of the preset; preset: as it was trained.
        facts: what the checkpoint keeps of its training. Of these count here "seconds"; "steps_before", at which the
            run was finished before it was made longer; "scale", how it was computed, see `ScaleConfig`; "machine"; and
            "watt_hours", without which one busy CPU core is assumed.
    """
    seconds, scale = facts.get("seconds", 0), facts.get("scale", {})
    watt_hours = facts.get("watt_hours", energy_wh(seconds, 1))
    settings = ", ".join(f"{key} {value}" for key, value in vars(preset.train).items())
    usual = vars(get_preset(name).train)
    first, *longer = [*facts.get("steps_before", []), preset.train.steps]
    changes = "".join(
        f" --{key} {value}" for key, value in (vars(preset.train) | {"steps": first}).items() if value != usual[key]
    )
    changes += "".join(f" --{key} {value}" for key, value in scale.items() if value != getattr(PLAIN, key))
    if isinstance(data := getattr(preset, "data", None), FolderConfig):
        changes += f' --data "{data.folder}"' + (f' --captions "{data.captions}"' if data.captions else "")
    commands = [f"`course train --preset {name}{changes} --out runs/{name}`"]
    commands += [f"`course train --resume runs/{name} --steps {steps}`" for steps in longer]
    return "\n".join(
        [
            f"Made by {', then '.join(commands)} ({settings})",
            f"in {seconds / 60:.0f} minutes on {facts.get('machine', 'a machine that nobody noted')}; about "
            f"{watt_hours:.1f} Wh, if a busy core draws {WATTS_A_CORE} W and a GPU {WATTS_A_GPU} W.",
        ]
    )


def short_card(name: str, preset: Preset, facts: dict[str, Any]) -> str:
    """The card of a model that is a part: text encoder, alignment, judge. Facts: as for `how_made`, and "scores"."""
    rows = "\n".join(f"- {what}: {value:.4f}" for what, value in facts["scores"].items())
    made = how_made(name, preset, facts)
    return f"# {name}\n\nThis model {preset.about}.\n\n{made}\n\n{rows}\n\n{licence(preset)}\n"


def grid_prompts(data: DataConfig) -> list[str]:
    """Captions that no generator was trained on, for the sample grid."""
    exam = data.dataset("heldout")
    return [exam.caption(i) for i in range(min(GRID_PROMPTS, len(exam)))]


def model_card(name: str, preset: GanPreset | DiffusionPreset, marks: dict[str, Any], model: AnyModel) -> str:
    """The card of a text-to-image model, with the marks that `marks_of` gave it.

    What its trainers have to say of these stands in the checkpoint's configuration, as "notes" of "training".
    """
    sizes = {part: sum(p.numel() for p in module.parameters()) for part, module in model.named_children()}
    prompts = grid_prompts(preset.data)
    numbered = "\n".join(f"{i}. {prompt}" for i, prompt in enumerate(prompts, 1))
    sampling = ", ".join(f"{key} {marks[key]}" for key in ("steps_per_sample", "guidance_scale") if key in marks)
    return f"""# {name}

A text-to-image model that {preset.about}. Its text encoder is `{preset.text_encoder}`, frozen.
Parameters: {", ".join(f"{part.replace('_', ' ')} {count:,}" for part, count in sizes.items())}.

{how_made(name, preset, model.training_facts)}

## Samples

![{GRID_SAMPLES} pictures for each of {len(prompts)} held-out captions, one caption a row]({GRID_FILE})

Drawn with seed 0, none left out, from captions that were not trained on:

{numbered}

## Marks

{about_marks(preset.data, model.image_size)}
Seed {marks["seed"]}; sampling: {sampling or "one pass, without refinement"}.

{marks_text(marks)}

`course evaluate --model {name}` repeats these figures.

## Limits

{" ".join(filter(None, [model.training_facts.get("notes"), limits(preset.data)]))}

{licence(preset)}
"""


def write_card(folder: Path, model: AnyModel, marks: dict[str, Any], **sampling: Any) -> None:
    """Write card, marks and sample grid of a text-to-image model into its checkpoint folder.

    Args:
        folder: the checkpoint.
        model: trained from a preset, as its `training_facts` say.
        marks: as `marks_of` gave them.
        sampling: the settings of `sample` that the marks were found with.
    Raises:
        CourseError: the model does not say which preset it was made by.
    """
    facts = model.training_facts
    if "preset" not in facts:
        raise CourseError(f'"{folder}" does not say by which preset it was trained; a card cannot be written')
    preset = preset_of(facts)
    card = model_card(facts["preset"], preset, marks, model)
    (folder / "README.md").write_text(card, encoding="utf-8")
    (folder / MARKS_FILE).write_text(json.dumps(marks, indent=2) + "\n", encoding="utf-8")
    drawn = model.sample(grid_prompts(preset.data), GRID_SAMPLES, **sampling)
    save_image(make_grid(drawn, GRID_SAMPLES), folder / GRID_FILE)


def preset_of(facts: dict[str, Any]) -> Preset:
    """The preset of a text-to-image model as it was trained, from what its checkpoint keeps of that."""
    train = {key: tuple(v) if isinstance(v, list) else v for key, v in facts.get("train", {}).items()}
    return replace(override(get_preset(facts["preset"]), train), data=data_of(facts))


def about_marks(data: DataConfig, image_size: int) -> str:
    """How the marks below were found."""
    if isinstance(data, FolderConfig):
        return (
            "A linear map from features of EfficientNet-Lite0 to embeddings of captions, fitted on real training "
            "pictures only, looks for each picture's own caption among those of all pictures that were asked for."
        )
    if isinstance(data, EmojiConfig):
        return (
            "A linear map from features of EfficientNet-Lite0 to MiniLM embeddings of names, fitted on real training "
            "pictures only, looks for each picture's own name among others. Held-out are people whose gender, role and "
            "skin tone never meet in training; the skin tone is read by a small network that saw real pictures only."
        )
    return (
        f"Share of pictures on which `judge-{image_size}`, a classifier trained on real pictures only, sees what the "
        "caption said; combinations that were not trained on, each picture from a caption and noise of its own."
    )


def limits(data: DataConfig) -> str:
    """What the model cannot do."""
    if isinstance(data, FolderConfig):
        return (
            "It knows what its training pictures show, in English words, and nothing else. It repeats what pictures "
            "and captions leave out or get wrong, and what they say of people; `course audit` looks at the folder."
        )
    if isinstance(data, EmojiConfig):
        return (
            "It knows the names of emoji in English, and nothing else. Most names have one picture only, which it has "
            "learned by heart; new are combinations of gender, role and skin tone, and of words in names. It repeats "
            "the choices of Unicode and of the emoji's designers about how people look. It can draw no real person."
        )
    return (
        "It knows captions of the grammar of shapes in English and Chinese, and nothing else; it draws something for "
        "any other sentence too, and `course generate` warns about words it has never read. In training a caption "
        "always named color and shape, and left each of size, position and background unsaid one time in ten; captions "
        "that say less are drawn worse."
    )
