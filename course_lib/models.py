"""The text-to-image models under data/checkpoints, of every kind: which there are, what each knows, loading one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from course_lib.checkpoint import CONFIG, checkpoints_folder, find_checkpoint, load_checkpoint
from course_lib.diffusion import DiffusionTextToImage
from course_lib.errors import CourseError
from course_lib.text_to_image import TextToImage

KINDS = {"text-to-image": TextToImage, "diffusion": DiffusionTextToImage}
AnyModel = TextToImage | DiffusionTextToImage


def load_model(name_or_path: str | Path, device: str | torch.device = "cpu") -> AnyModel:
    """A text-to-image model of any kind.

    Raises:
        CourseError: no such checkpoint, a damaged one, or one that draws no pictures from words.
    """
    folder = find_checkpoint(name_or_path)
    kind = str(load_checkpoint(folder)[1].get("kind", "foreign"))
    if kind not in KINDS:
        raise CourseError(
            f'"{folder}" holds a {kind[:40]} checkpoint, not a text-to-image one; use one such as "shapes-32"'
        )
    return KINDS[kind].from_pretrained(folder, device)


def shipped_configs() -> dict[str, dict[str, Any]]:
    """Name -> config of every text-to-image model under data/checkpoints, without its weights; unreadable ones are
    passed over."""
    found = {}
    for path in sorted(checkpoints_folder().glob(f"[!.]*/{CONFIG}")):
        try:
            config = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            continue
        known = isinstance(config, dict) and str(config.get("kind")) in KINDS
        if known and isinstance(config.get("vocabulary", []), list):
            found[path.parent.name] = config
    return found


def who_knows(words: Sequence[str]) -> list[str]:
    """The shipped models that have read all of these words."""
    known = {name: config.get("vocabulary", []) for name, config in shipped_configs().items()}
    return [name for name, vocabulary in known.items() if set(words) <= set(map(str, vocabulary))]
