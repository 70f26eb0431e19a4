"""Marks for a text-to-image model: what `course evaluate` and the model cards report."""

import itertools
from typing import Any

import torch
from torch import Tensor

from course_lib.checkpoint import dataclass_from_dict, find_checkpoint, load_checkpoint, load_weights
from course_lib.data.captions import PAIR, SINGLE, scene_of
from course_lib.data.shapes import CaptionedShapes
from course_lib.diffusion import DiffusionTextToImage
from course_lib.errors import require_range
from course_lib.image_metrics import kernel_distance, precision_recall
from course_lib.metrics import AttributeJudge, JudgeConfig, attribute_accuracy, diversity_ratio
from course_lib.preset_data import data_of
from course_lib.pretrained import FEATURES, efficientnet_features
from course_lib.provenance import memorisation_score
from course_lib.text_to_image import TextToImage

# The exam papers: name -> language and style of the captions. "unseen" word orders occur in no training.
PAPERS = {
    "English": ("en", "canonical"),
    "Chinese": ("zh", "canonical"),
    "English, unseen wording": ("en", "unseen"),
    "Chinese, unseen wording": ("zh", "unseen"),
}
SCENES = {"single": ("single",), "pair": ("pair",), "mixed": ("single", "pair")}  # of training -> examined apart
DIVERSITY_CAPTIONS, DIVERSITY_SAMPLES = 64, 8
SWEEP = (0, 5, 20), (1.0, 2.0, 5.0)  # steps of refinement and guidance scales
DIFFUSION_SWEEP = (10, 50), (1.0, 1.5, 2.0, 3.0, 5.0)  # steps from noise to picture and guidance scales


def load_judge(image_size: int, scene: str = "single") -> AttributeJudge:
    """The shipped judge for pictures of this size and of one object ("single") or two ("pair"), in eval mode.

    Raises:
        CourseError: there is none, or it is damaged.
    """
    folder = find_checkpoint(f"judge-{image_size}" + ("-pairs" if scene == "pair" else ""))
    tensors, config = load_checkpoint(folder)
    judge = AttributeJudge(dataclass_from_dict(JudgeConfig, config.get("judge"), folder / "config.json"))
    load_weights(judge, tensors, folder)
    return judge.eval().requires_grad_(False)


def accuracy(
    model: TextToImage,
    judge: AttributeJudge,
    split: str = "heldout",
    n: int = 2000,
    language: str = "en",
    captions: str = "canonical",
    seed: int = 0,
    scene: str = "single",
    **sampling: Any,
) -> dict[str, float]:
    """Attribute accuracy of `n` pictures, each drawn from a caption of its own.

    Args:
        model, judge: of one picture size, the judge for this scene.
        split, language, captions, seed, scene: of the captions; see `CaptionedShapes`.
        sampling: steps_per_sample and guidance_scale of `TextToImage.sample`.
    Returns:
        attribute -> share right, and "all".
    """
    exam = CaptionedShapes(split, model.image_size, seed, language, n, captions, scene, grammar_of(model))
    images = model.sample([exam.caption(i) for i in range(n)], n_samples=1, seed=seed, **sampling)
    return attribute_accuracy(judge, images.cpu(), [exam.attributes(i) for i in range(n)])


def diversity(model: TextToImage, split: str = "heldout", seed: int = 0, **sampling: Any) -> float:
    """`metrics.diversity_ratio` over 64 captions and 8 pictures for each."""
    drawn_from = {"grammar": grammar_of(model), "scene": scene_of_training(model)}
    exam = CaptionedShapes(split, model.image_size, seed, length=DIVERSITY_CAPTIONS, **drawn_from)
    captions = [exam.caption(i) for i in range(len(exam))]
    generated = model.sample(captions, DIVERSITY_SAMPLES, seed=seed, **sampling).cpu()
    real = torch.cat([pictures_like(exam.attributes(i), model.image_size, seed + i) for i in range(len(exam))])
    shape = (len(exam), DIVERSITY_SAMPLES, *generated.shape[1:])
    return diversity_ratio(generated.view(shape), real.view(shape))


def pictures_like(scene: dict[str, str], image_size: int, seed: int) -> Tensor:
    """Eight real pictures of one scene, of one object or two: (8, 3, S, S)."""
    kind = scene_of(scene)
    real = CaptionedShapes("all", image_size, seed, length=DIVERSITY_SAMPLES, scene=kind)
    names = SINGLE if kind == "single" else PAIR
    real.combinations, real.order = [tuple(scene[name] for name in names)], [0] * DIVERSITY_SAMPLES
    return real.images(range(DIVERSITY_SAMPLES))


def grammar_of(model: TextToImage) -> str:
    """The grammar that a model was trained on, as its checkpoint says; "full" if it says nothing."""
    data = model.training_facts.get("data")
    return str(data.get("grammar", "full")) if isinstance(data, dict) else "full"


def scene_of_training(model: TextToImage) -> str:
    """The scenes that a model was trained on, as its checkpoint says; "single" if it says nothing."""
    data = model.training_facts.get("data")
    return str(data.get("scene", "single")) if isinstance(data, dict) else "single"


def evaluate(model: TextToImage, split: str = "heldout", n: int = 2000, seed: int = 0, **sampling: Any) -> dict:
    """All marks of a model on one split, with what is needed to repeat them."""
    marks = {"split": split, "n": n, "seed": seed, "grammar": grammar_of(model), **sampling}
    for scene in SCENES[scene_of_training(model)]:
        judge = load_judge(model.image_size, scene).to(model.device)
        marks["accuracy" if scene == "single" else "pairs"] = {
            name: accuracy(model, judge, split, n, language, captions, seed, scene, **sampling)
            for name, (language, captions) in PAPERS.items()
        }
    return marks | {"diversity": diversity(model, split, seed, **sampling)}


def realism(model: TextToImage, split: str = "heldout", n: int = 500, seed: int = 0, **sampling: Any) -> dict[str, Any]:
    """How much generated pictures look like real ones, whatever the caption: N pictures of each.

    Returns:
        kernel_distance and kernel_distance_real (new real pictures against real ones: the best there is), each with its
        95 % interval; precision and recall; memorisation (see `provenance.memorisation_score`), on pixels, captions of
        the training split and the first 5,000 training pictures; and features and n, without which distances mean
        nothing.
    Raises:
        CourseError: the packages of the extra `eval` are not installed, or there are fewer than ten pictures.
    """
    require_range("n", n, 10, 100_000)  # an interval of the distance needs some pictures to draw anew
    real, again, drawn = (efficientnet_features(x) for x in real_and_drawn(model, split, n, seed, **sampling))
    precision, recall = precision_recall(real, drawn)
    fresh, _, copies = real_and_drawn(model, "train", n, seed + 1, **sampling)  # of the kind that was trained on
    return {
        "n": n,
        "features": FEATURES,
        "kernel_distance": kernel_distance(real, drawn),
        "kernel_distance_real": kernel_distance(real, again),
        "precision": precision,
        "recall": recall,
        "memorisation": memorisation_score(copies, training_pictures(model), fresh).ratio,
    }


def training_pictures(model: TextToImage, most: int = 5000) -> Tensor:
    """The first pictures that the model was trained on, drawn anew from its own record: (N, 3, S, S)."""
    dataset = data_of(model.training_facts).dataset()
    return dataset.images(range(min(most, len(dataset))))


def real_and_drawn(model: TextToImage, split: str, n: int, seed: int, **sampling: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Real pictures, other real pictures, and generated ones, N of each: (N, 3, S, S)."""
    kind = {"length": n, "grammar": grammar_of(model), "scene": scene_of_training(model)}
    real, again = (CaptionedShapes(split, model.image_size, seed + k, **kind) for k in (0, 1))
    drawn = model.sample([again.caption(i) for i in range(n)], 1, seed=seed, **sampling).cpu()
    return real.images(range(n)), again.images(range(n)), drawn


def sweep(model: TextToImage, split: str = "heldout", n: int = 500, seed: int = 0) -> list[dict]:
    """Accuracy and diversity at several numbers of steps and guidance scales."""
    judge = load_judge(model.image_size).to(model.device)
    rows = []
    for steps, scale in itertools.product(*(DIFFUSION_SWEEP if isinstance(model, DiffusionTextToImage) else SWEEP)):
        sampling = {"steps_per_sample": steps, "guidance_scale": scale}
        marks = accuracy(model, judge, split, n, seed=seed, **sampling)
        rows.append({**sampling, "n": n, "all": marks["all"], "diversity": diversity(model, split, seed, **sampling)})
    return rows


def format_table(rows: list[dict[str, Any]]) -> str:
    """Rows with equal keys as a Markdown table; shares are printed in percent, other numbers with two decimals."""
    names = list(rows[0])
    lines = [names, ["---"] * len(names)] + [[_cell(name, row[name]) for name in names] for row in rows]
    widths = [max(len(line[i]) for line in lines) for i in range(len(names))]
    lines[1] = ["-" * width for width in widths]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return f"{100 * value:.1f} %" if name in (*SINGLE, *PAIR, "all") else f"{value:.2f}"
    return str(value)


def realism_lines(marks: dict[str, Any]) -> str:
    """What `realism` found, in words."""
    generated, real = (marks[f"kernel_distance{which}"] for which in ("", "_real"))
    return (
        f"kernel distance of generated pictures {generated.value:.4f} ({generated.low:.4f} to {generated.high:.4f}), "
        f"of real ones {real.value:.4f} ({real.low:.4f} to {real.high:.4f})\n"
        f"precision {marks['precision']:.2f}, recall {marks['recall']:.2f}, distance to the nearest training picture "
        f"{marks['memorisation']:.2f} times that of new real pictures\n"
        f"({marks['n']} pictures of each; features: {marks['features']})"
    )


def accuracy_rows(marks: dict) -> list[dict[str, Any]]:
    """The accuracies of `evaluate` as rows for `format_table`."""
    return [{"captions": name, "n": marks["n"], **shares} for name, shares in marks["accuracy"].items()]
