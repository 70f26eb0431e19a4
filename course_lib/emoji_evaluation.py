"""Marks for a model that draws emoji: are their names found again, do they look real, are skin tones right?"""

from typing import Any

import torch
from torch import Tensor

from course_lib.checkpoint import dataclass_from_dict, find_checkpoint, load_checkpoint, load_weights
from course_lib.data.emoji import CaptionedEmoji
from course_lib.emoji_metrics import NameProbe, ToneConfig, ToneJudge, people, recall_at, tones_of
from course_lib.evaluation import format_table
from course_lib.image_metrics import kernel_distance, precision_recall
from course_lib.pretrained import FEATURES, PretrainedTextEncoder, efficientnet_features
from course_lib.provenance import memorisation_score

N_TRAIN, N_CANDIDATES = 300, 200  # names of the training split; candidates for each held-out person
SPLITS = ("train", "heldout", "unseen")
RECALL = 10


def load_tone_judge(image_size: int) -> ToneJudge:
    """The shipped judge of skin tones for pictures of this size, in eval mode.

    Raises:
        CourseError: there is none, or it is damaged.
    """
    folder = find_checkpoint(f"tones-{image_size}")
    tensors, config = load_checkpoint(folder)
    judge = ToneJudge(dataclass_from_dict(ToneConfig, config.get("tones"), folder / "config.json"))
    load_weights(judge, tensors, folder)
    return judge.eval().requires_grad_(False)


def emoji_marks(model: Any, seed: int = 0, **sampling: Any) -> dict[str, Any]:
    """All marks of a model of emoji, on Twemoji, with those of the real pictures in its place.

    Args:
        model: has `image_size` and `sample`.
        seed: of the names that are asked for and of the noise.
        sampling: settings of `sample`.
    Returns:
        seed, features, and for each split: n; recall (R@10) and recall_real; for "heldout" tone and tone_real; kernel
        distance to the real pictures, with its 95 % interval; precision and coverage (the recall of the two sets);
        memorisation, except on "train".
        recall_real on "train" is that of the very pictures that the probe was fitted on.
    Raises:
        CourseError: the packages of the extra `eval` are not installed, or the judge of tones is missing.
    """
    size = model.image_size
    sets = {split: CaptionedEmoji(split, size) for split in SPLITS}
    encoder = PretrainedTextEncoder()
    names = {split: encoder.embed([emoji.caption(i) for i in range(len(emoji))]) for split, emoji in sets.items()}
    training = efficientnet_features(sets["train"].images(range(len(sets["train"]))))
    probe = NameProbe(training, names["train"])
    order = torch.randperm(len(sets["train"]), generator=torch.Generator().manual_seed(seed)).tolist()
    asked = {"train": order[:N_TRAIN], "heldout": list(range(len(sets["heldout"])))}
    asked["unseen"] = list(range(len(sets["unseen"])))
    others = [i for i in people(sets["train"]) if i not in set(order[:N_TRAIN])]
    confusing = {"heldout": names["train"][others[: max(0, N_CANDIDATES - len(sets["heldout"]))]]}
    marks: dict[str, Any] = {"seed": seed, "features": FEATURES, **sampling}
    for split, rows in asked.items():
        emoji = sets[split]
        real = emoji.images(rows)
        drawn = model.sample([emoji.caption(i) for i in rows], 1, seed=seed, **sampling).cpu()
        candidates = probe.place(torch.cat([names[split][rows], confusing.get(split, names[split][:0])]))
        marks[split] = {"n": len(rows), "candidates": len(candidates)}
        marks[split] |= compare_sets(real, drawn, probe, candidates)
        if split != "train":  # real pictures of the training split would be 0 away from themselves
            known = sets["train"].images(range(len(sets["train"])))
            marks[split] |= {"memorisation": memorisation_score(drawn, known, real).ratio}
    rows = people(sets["heldout"])
    tones, judge = tones_of(sets["heldout"], rows), load_tone_judge(size)
    drawn = model.sample([sets["heldout"].caption(i) for i in rows], 1, seed=seed, **sampling).cpu()
    marks["heldout"] |= {"tone": judge.accuracy(drawn, tones)}
    marks["heldout"] |= {"tone_real": judge.accuracy(sets["heldout"].images(rows), tones)}
    return marks


def compare_sets(real: Tensor, drawn: Tensor, probe: NameProbe, candidates: Tensor) -> dict[str, Any]:
    """The marks of one split: real and drawn (N, 3, S, S), candidates (M, E) as for `recall_at`."""
    features = {"real": efficientnet_features(real), "drawn": efficientnet_features(drawn)}
    precision, recall = precision_recall(features["real"], features["drawn"])
    half, nearest = len(real) // 2, min(RECALL, len(candidates))
    return {
        "recall": recall_at(probe(features["drawn"]), candidates, nearest),
        "recall_real": recall_at(probe(features["real"]), candidates, nearest),
        "kernel_distance": kernel_distance(features["real"], features["drawn"]),
        "kernel_distance_real": kernel_distance(features["real"][:half], features["real"][half:]),
        "precision": precision,
        "coverage": recall,
    }


def emoji_lines(marks: dict[str, Any]) -> str:
    """The marks as a table and what it takes to read it."""
    rows = []
    for split in filter(marks.get, SPLITS):
        own = marks[split]
        rows.append(
            {
                "split": split,
                "n": own["n"],
                f"R@{RECALL}": percent(own["recall"]),
                "of real": percent(own["recall_real"]),
                "names": own["candidates"],
                "skin tone": percent(own["tone"]) if "tone" in own else "-",
                "of real ones": percent(own["tone_real"]) if "tone" in own else "-",
                "kernel distance": interval(own["kernel_distance"]),
                "real halves": interval(own["kernel_distance_real"]),
                "precision": own["precision"],
                "recall": own["coverage"],
                "memorisation": f"{own['memorisation']:.2f}" if "memorisation" in own else "-",
            }
        )
    return (
        f"{format_table(rows)}\n\nR@{RECALL}: the picture's own name is among the {RECALL} nearest of so many names. "
        "Memorisation: distance of a drawn picture to the nearest training picture, over that of a real one of the "
        f"split.\n(features: {marks['features']})"
    )


def percent(share: float) -> str:
    """0.995 -> "99.5 %"."""
    return f"{100 * share:.1f} %"


def interval(found: Any) -> str:
    """An estimate with its 95 % interval."""
    value, low, high = found
    return f"{value:.3f} ({low:.3f} to {high:.3f})"
