"""`course generate`: sentences in, PNG files out. Settings come from options, from a YAML file, or both."""

import difflib
import inspect
import os
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from course_lib.data.captions import words_of
from course_lib.errors import CourseError
from course_lib.images import make_grid, prepare_image, save_image
from course_lib.models import AnyModel, load_model, who_knows
from course_lib.provenance import provenance_text
from course_lib.runs import choose_device, writable_folder
from course_lib.text_to_image import TextToImage

WARNINGS = 10  # the most words that are warned of


@dataclass(frozen=True)
class GenerateConfig:
    """Everything that decides which pictures are drawn, and where they go.

    Args:
        texts: the prompts.
        model_path: a name under data/checkpoints/ or a folder.
        image_size, z_size: the model's own, or None; a different number is refused.
        batch_size: pictures computed at a time.
        n_samples: pictures for each prompt.
        steps_per_sample, guidance_scale, truncation: see the model's `sample`; None: its own defaults.
        seed: of the noise.
        image: a picture to begin from, or None.
        mask: a picture that is white where `image` is to be painted anew, or None.
        save_samples: whether to write files.
        save_path: folder for the PNGs.
        device: "auto", "cpu" or "cuda".
    """

    texts: tuple[str, ...] = ()
    model_path: str = "shapes-32"
    image_size: int | None = None
    z_size: int | None = None
    batch_size: int = 64
    n_samples: int = 4
    steps_per_sample: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    image: str | None = None
    mask: str | None = None
    truncation: float | None = None
    save_samples: bool = True
    save_path: str = "samples"
    device: str = "auto"


def generate(config: GenerateConfig) -> list[Path]:
    """Draw and save; prints warnings, the time taken and the files.

    Returns:
        The PNGs: one for each picture, and one with all of them.
    Raises:
        CourseError: no prompt, a bad one, a setting that does not fit the model, or a folder one can't write to.
    """
    if not config.texts:
        raise CourseError('there is no prompt; say what to draw: course generate "a small red circle"')
    model = load_model(config.model_path, choose_device(config.device))
    require_fit(model, config)
    config = with_defaults(model, config)
    paths = [os.path.expanduser(path) if path else None for path in (config.image, config.mask)]
    image, mask = (prepare_image(path, model.image_size) if path else None for path in paths)
    mask = None if mask is None else mask.mean(0) > 0  # (S, S)
    started = time.monotonic()
    names = ("n_samples", "steps_per_sample", "guidance_scale", "seed", "batch_size", "truncation")
    given = {name: getattr(config, name) for name in names} | {"image": image, "mask": mask}
    pictures = model.sample(config.texts, **{k: v for k, v in given.items() if v is not None}).cpu()
    told, other = unknown_words_told(model, config.model_path, config.texts)  # it draws all the same
    for sentence in told:
        print(f"warning: {sentence}", file=sys.stderr)
    if other:
        print(f"hint: {other} has read every word of this: --model {other}", file=sys.stderr)
    if isinstance(model, TextToImage) and config.guidance_scale not in (None, 1) and not config.steps_per_sample:
        print("note: guidance_scale guides refinement; without steps_per_sample it does nothing", file=sys.stderr)
    print(f"{len(pictures)} pictures in {time.monotonic() - started:.2f} s")
    return save(pictures, config) if config.save_samples else []


def with_defaults(model: AnyModel, config: GenerateConfig) -> GenerateConfig:
    """The settings, and the model's own where none were given: the PNGs shall say what was used."""
    known, names = inspect.signature(model.sample).parameters, ("steps_per_sample", "guidance_scale", "truncation")
    missing = [name for name in names if name in known and getattr(config, name) is None]
    return replace(config, **{name: known[name].default for name in missing})


def require_fit(model: AnyModel, config: GenerateConfig) -> None:
    """CourseError if a setting is not for this model."""
    own = {"image_size": model.image_size, "z_size": None}
    if isinstance(model, TextToImage):
        own["z_size"] = model.generator.config.z_size
    for name, use in (("mask", "paint a part anew"), ("truncation", "shrink its noise")):
        if getattr(config, name) is not None and name not in inspect.signature(model.sample).parameters:
            raise CourseError(f"{name} is given, but {config.model_path} cannot {use}; use a GAN, or leave it out")
    for name, value in own.items():
        if getattr(config, name) not in (None, value):
            has = "has none" if value is None else f"has {value}"
            raise CourseError(f"{name}={getattr(config, name)}, but {config.model_path} {has}; leave it out")


def unknown_words_told(model: AnyModel, name: str, texts: Sequence[str]) -> tuple[list[str], str]:
    """Of prompts: sentences that say which words the model of this name has never read; and the name of a shipped model
    that has read every word, "" if there is none or all is well."""
    words = list(dict.fromkeys(word for text in texts for word in model.unknown_words(text)))
    told = []
    for word in words[:WARNINGS]:
        close = difflib.get_close_matches(word, model.vocabulary, n=1)
        told.append(f'{name} has never read "{word}"' + (f' (did you mean "{close[0]}"?)' if close else ""))
    if len(words) > WARNINGS:
        told.append(f"nor {len(words) - WARNINGS} more words")
    others = who_knows([word for text in texts for word in words_of(text)]) if words else []
    return told, (others or [""])[0]


def save(pictures: Tensor, config: GenerateConfig) -> list[Path]:
    """Write each picture and a grid with one row a prompt; file names begin with the prompt's number and words."""
    folder, paths = writable_folder(Path(os.path.expanduser(config.save_path))), []
    for i, picture in enumerate(pictures):
        text, sample = config.texts[i // config.n_samples], i % config.n_samples
        name = f"{i // config.n_samples + 1:02d}-{slug(text)}-seed{config.seed}-{sample + 1:02d}.png"
        notes = provenance_text(config.model_path, text, config.seed, settings_of(config, i + 1))
        save_image(picture, folder / name, notes)
        paths.append(folder / name)
    grid = folder / f"grid-{slug(config.texts[0])}-seed{config.seed}.png"
    notes = provenance_text(config.model_path, "; ".join(config.texts), config.seed, settings_of(config))
    save_image(make_grid(pictures, config.n_samples), grid, notes)
    print(f"{len(paths)} PNGs and their grid are in {folder}: {grid.name}")
    return [*paths, grid]


def settings_of(config: GenerateConfig, picture: int | None = None) -> dict[str, Any]:
    """What, beside model, prompt and seed, decides a picture: the settings, and which of all pictures it is."""
    elsewhere = "texts model_path image_size z_size batch_size seed save_samples save_path device".split()
    settings = {name: value for name, value in vars(config).items() if name not in elsewhere and value is not None}
    settings |= {name: Path(value).name for name, value in settings.items() if isinstance(value, str)}  # no folders
    return settings | {"prompts": len(config.texts)} | ({} if picture is None else {"picture": picture})


def slug(text: str) -> str:
    """A prompt as part of a file name: letters and digits of any script, joined by hyphens, at most 40 characters."""
    return re.sub(r"[\W_]+", "-", text.casefold()).strip("-")[:40].strip("-") or "prompt"
