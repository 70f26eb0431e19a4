"""Marks for a model that draws pictures of someone's own: are their captions found again, do they look real?"""

from typing import Any

import torch
from torch import Tensor

from course_lib.data.folder import CaptionedFolder
from course_lib.emoji_evaluation import N_CANDIDATES, compare_sets
from course_lib.emoji_metrics import NameProbe
from course_lib.preset_data import FolderConfig
from course_lib.pretrained import FEATURES, efficientnet_features
from course_lib.provenance import memorisation_score
from course_lib.text_encoder import embed_captions


def folder_marks(model: Any, data: FolderConfig, n: int = 500, seed: int = 0, **sampling: Any) -> dict[str, Any]:
    """The marks of a model of someone's own pictures: n of each split, asked for by the first of their captions.

    Args:
        model: has `image_size`, `sample`, and the frozen text encoder that reads the captions here too.
        data: the folder it was trained on.
        n, seed, sampling: as for `emoji_marks`, which says what is returned; the probe is fitted on 10 n pictures.
    Raises:
        CourseError: the folder is gone, or the packages of the extra `eval` are not installed.
    """
    training, heldout = data.dataset(), data.dataset("heldout")

    def read(pictures: CaptionedFolder, rows: list[int]) -> Tensor:
        return embed_captions(model.text_encoder, model.tokenizer, [pictures.caption(i) for i in rows]).cpu()

    known = training.distinct()[: 10 * n]
    real = training.images(known)
    probe = NameProbe(efficientnet_features(real), read(training, known))
    marks: dict[str, Any] = {"seed": seed, "features": FEATURES, **sampling}
    for split, pictures in (("train", training), ("heldout", heldout)):
        rows = pictures.distinct()[:n]
        drawn = model.sample([pictures.caption(i) for i in rows], 1, seed=seed, **sampling).cpu()
        confusing = read(training, known[: max(0, N_CANDIDATES - len(rows))] if split != "train" else [])
        seen, candidates = pictures.images(rows), probe.place(torch.cat([read(pictures, rows), confusing]))
        marks[split] = {"n": len(rows), "candidates": len(candidates), **compare_sets(seen, drawn, probe, candidates)}
        if split != "train":
            marks[split]["memorisation"] = memorisation_score(drawn, real, seen).ratio
    return marks
