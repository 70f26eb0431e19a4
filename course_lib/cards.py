"""Model cards: what a checkpoint is, how it was made, how good it is. Written by the training itself."""

import platform
from typing import Any

from course_lib.evaluation import accuracy_rows, format_table
from course_lib.presets import GanPreset, Preset, get_preset
from course_lib.text_to_image import TextToImage

LICENCE = (
    "Licence: Apache-2.0, weights included. The training pictures are computed by `course_lib/data/shapes.py`; "
    "no one else's data is in this model."
)


def machine() -> str:
    """The machine in a few words, without its name."""
    import torch

    accelerator = (
        torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads"
    )
    return f"{platform.system()} {platform.machine()}, {accelerator}, torch {torch.__version__}"


def how_made(name: str, preset: Preset, seconds: float) -> str:
    """The lines every card has: the command that repeats it, settings, time, machine."""
    settings = ", ".join(f"{key} {value}" for key, value in vars(preset.train).items())
    usual = vars(get_preset(name).train)
    changes = "".join(f" --{key} {value}" for key, value in vars(preset.train).items() if value != usual[key])
    return "\n".join(
        [
            f"Made by `course train --preset {name}{changes} --out runs/{name}` ({settings})",
            f"in {seconds / 60:.0f} minutes on {machine()}.",
        ]
    )


def short_card(name: str, preset: Preset, scores: dict[str, float], seconds: float) -> str:
    """The card of a model that is a part: text encoder, alignment, judge."""
    rows = "\n".join(f"- {what}: {value:.4f}" for what, value in scores.items())
    return f"# {name}\n\nThis model {preset.about}.\n\n{how_made(name, preset, seconds)}\n\n{rows}\n\n{LICENCE}\n"


def model_card(name: str, preset: GanPreset, marks: dict[str, Any], seconds: float, model: TextToImage) -> str:
    """The card of a text-to-image model, with the marks that `evaluate` gave it."""
    sizes = {
        part: sum(p.numel() for p in getattr(model, part).parameters())
        for part in ("generator", "discriminator", "text_encoder")
    }
    return f"""# {name}

A text-to-image GAN that {preset.about}. Its text encoder is `{preset.text_encoder}`, frozen.
Parameters: {", ".join(f"{part.replace('_', ' ')} {count:,}" for part, count in sizes.items())}.

{how_made(name, preset, seconds)}

## Marks

Share of pictures on which `judge-{model.image_size}`, a classifier trained on real pictures only, sees what the caption
said; attribute combinations of the split "{marks["split"]}", each picture from a caption and noise of its own,
seed {marks["seed"]}, `steps_per_sample=0`, `guidance_scale=1`:

{format_table(accuracy_rows(marks))}

Diversity (mean distance between two pictures of one caption, generated over real): {marks["diversity"]:.2f}

`course evaluate --model {name}` repeats these figures.

## Limits

It knows captions of single shapes in English and Chinese, and nothing else; it draws something for any other sentence
too, and `course generate` warns about words it has never read. In training a caption always named color and shape, and
left each of size, position and background unsaid one time in ten; captions that say less are drawn worse.

{LICENCE}
"""
