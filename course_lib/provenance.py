"""Where a picture comes from: a note in every PNG that it was generated, and a test for copies of training pictures.
Chapter 17 builds it.

The note says which model drew the picture, from which words, seed and settings: enough to draw it again. Anyone can
strip it, so it helps honest people; a picture without one proves nothing. The second half asks of a model what one asks
of a student: understood, or learnt by heart?
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from course_lib import __version__
from course_lib.errors import CourseError, printable
from course_lib.images import MAX_PIXELS

FLAG = "Generated"


def provenance_text(model: str, prompt: str, seed: int, settings: Mapping[str, Any]) -> dict[str, str]:
    """The notes that `save_image(text=...)` writes into a PNG; Description and Software are names of the PNG standard.

    Args:
        model: its name or folder.
        prompt: the words it drew from.
        seed: of its noise.
        settings: all else that decides the picture: what JSON can hold.
    Returns:
        Names of the notes -> texts; "Generated" is "true".
    Source: PNG Specification, third edition (W3C), section 11.3.3: keywords.
    """
    return {
        FLAG: "true",
        "Description": prompt,
        "Software": f"Words to Pixels {__version__}",
        "Model": model,
        "Seed": str(seed),
        "Settings": json.dumps(dict(settings), ensure_ascii=False, sort_keys=True),
    }


def read_provenance(path: str | Path) -> dict[str, str]:
    """The notes in a PNG, whoever wrote them: they may be false.

    Args:
        path: of the PNG.
    Returns:
        Names -> texts; empty if there are none.
    Raises:
        CourseError: the file is missing, no PNG, damaged or too large.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # there is a limit of our own
            picture = Image.open(path, formats=("PNG",))
        with picture:
            if picture.width * picture.height > MAX_PIXELS:  # told by the file's head, before anything is decoded
                raise ValueError(f"{picture.width} x {picture.height} pixels are too many")
            return {str(name): str(text) for name, text in picture.text.items()}
    except Exception as error:  # a damaged file makes Pillow raise almost anything
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "it is no PNG" if unknown else getattr(error, "strerror", None) or error
        raise CourseError(f'"{path}" cannot be read ({reason}); give a PNG that `course generate` made') from error


def inspect_file(path: str | Path) -> int:
    """Print a PNG's notes.

    Returns:
        0 if it says that it was generated, else 1.
    Raises:
        CourseError: as `read_provenance`.
    """
    notes = read_provenance(path)
    for name, text in notes.items():
        print(f"{printable(name) + ':':<13} {printable(text)}")
    if notes.get(FLAG) == "true":
        return 0
    print(f"{path} does not say that it was generated. That proves nothing: notes are easily stripped.")
    return 1


# ---- learnt by heart?


class Nearest(NamedTuple):
    """For each of N pictures the most like one: its index (N,) and its distance (N,)."""

    index: Tensor
    distance: Tensor


def nearest_pictures(samples: Tensor, training: Tensor, batch_size: int = 256) -> Nearest:
    """The training picture that is most like each sample: to be looked at side by side.

    Args:
        samples: (N, 3, S, S) in [-1, 1]; or features (N, D), which forgive a shift by a pixel.
        training: (M, 3, S, S) or (M, D), in the same form.
        batch_size: samples compared at a time.
    Returns:
        Indices into `training` and distances: the root of the mean squared difference, 0 for a copy, 2 for black
        against white.
    Raises:
        ValueError: the shapes do not fit, or a set is empty.
    """
    if samples.shape[1:] != training.shape[1:] or not len(samples) or not len(training):
        raise ValueError(f"samples {tuple(samples.shape)}, training {tuple(training.shape)}; give two sets of one form")
    x, y = samples.flatten(1).float(), training.flatten(1).float()
    index = torch.cat([torch.cdist(chunk, y).argmin(1) for chunk in x.split(batch_size)])
    # measured again: cdist multiplies out, so that a copy would not be exactly 0 away
    pairs = zip(x.split(batch_size), index.split(batch_size), strict=True)
    return Nearest(index, torch.cat([(chunk - y[i]).square().mean(1).sqrt() for chunk, i in pairs]))


class Memorisation(NamedTuple):
    """What `memorisation_score` finds: `ratio` is 1 and `closer` 0.5 for a model that copies nothing."""

    ratio: float
    closer: float


def memorisation_score(samples: Tensor, training: Tensor, heldout: Tensor) -> Memorisation:
    """Are generated pictures nearer to the training pictures than new real pictures are?

    New real pictures are as near to the training set as chance has it. Samples that are nearer were copied from it, at
    least in part. (Distances of samples to training and to held-out pictures would not do: the larger set is nearer.)

    Args:
        samples: generated, (N, 3, S, S) in [-1, 1] or features (N, D).
        training: real pictures that the model was trained on, in the same form.
        heldout: other real pictures of the same kind that it never saw.
    Returns:
        ratio: median distance of a sample to its nearest training picture, over that of a held-out picture.
        closer: the probability that a sample is nearer than a held-out picture, ties counted half; 1 is pure copying,
        below 0.5 the model draws what is unlike anything real.
    Raises:
        ValueError: the shapes do not fit, or a set is empty.
    Source: Meehan et al. 2020, arXiv:2004.05675: the statistic of section 2.2, as a share.
    """
    drawn, real = (nearest_pictures(images, training).distance for images in (samples, heldout))
    ratio = drawn.quantile(0.5) / real.quantile(0.5).clamp(min=1e-8)
    pairs = drawn[:, None] - real  # (N, number held out)
    return Memorisation(ratio.item(), ((pairs < 0).float() + 0.5 * (pairs == 0).float()).mean().item())
