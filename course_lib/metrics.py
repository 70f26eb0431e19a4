"""How good are the pictures? Judged by numbers. Built in chapter 15.

For shapes the truth is known, so a picture can be marked like an exam: a classifier that was trained on real pictures
only, the judge, reads size, colour, shape, position and background off a generated picture, and the marks are compared
with the caption. No picture of two objects tells which one the caption named first; so the judge calls first the one
that stands left or above, and the caption is put the same way before the two are compared. Diversity asks whether eight
pictures for one caption differ as much as eight real ones do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module

from course_lib.data.captions import PAIR, SINGLE, scene_of
from course_lib.data.shapes import CaptionedShapes, told_from_the_other
from course_lib.errors import CourseError, nearest
from course_lib.fit import fit, warmup_cosine
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig
from course_lib.losses import cross_entropy
from course_lib.optim import Adam

READABLE = {  # what a judge can read off a picture: scene -> attribute -> values
    "single": SINGLE,
    "pair": {**PAIR, "relation": ("left of", "above")},
}


@dataclass(frozen=True)
class JudgeConfig:
    """Size of a judge: pixels, channels after the first convolution of its encoder; and the scenes it reads, "single"
    or "pair"."""

    image_size: int = 32
    width: int = 32
    scene: str = "single"

    def __post_init__(self):
        if self.scene not in READABLE:
            raise CourseError(f'scene="{self.scene}" is nothing a judge reads; {nearest(self.scene, READABLE)}')


def canonical_pair(scene: Mapping[str, str]) -> Mapping[str, str]:
    """A scene of two objects, told from the one that stands left or above.

    "A red circle left of a blue square" and "a blue square right of a red circle" are one picture and have one
    canonical form: two scenes show the same picture if and only if their canonical forms are equal.

    Args:
        scene: every attribute of `PAIR`.
    Returns:
        The scene itself, or the scene told from the other object; its relation is "left of" or "above".
    """
    if scene["relation"] in READABLE["pair"]["relation"]:
        return scene
    return dict(zip(PAIR, told_from_the_other(tuple(scene[name] for name in PAIR)), strict=True))


class AttributeJudge(Module):
    """A classifier that reads every attribute off a picture: one encoder, one softmax an attribute.

    Args:
        config: sizes, and which scenes it reads. Two objects are read in the order of `canonical_pair`.
    """

    def __init__(self, config: JudgeConfig):
        super().__init__()
        self.config = config
        self.readable = READABLE[config.scene]
        self.n_values = [len(values) for values in self.readable.values()]
        self.encoder = ImageEncoder(ImageEncoderConfig(config.image_size, config.width, sum(self.n_values)))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, S, S) in [-1, 1] -> for each attribute logits (B, number of its values)."""
        return self.encoder(images).split(self.n_values, dim=1)

    def labels(self, scenes: Sequence[Mapping[str, str]]) -> Tensor:
        """Attribute dictionaries -> (B, A) the index of each value, of pairs in canonical form.

        Raises:
            CourseError: a scene is not of the kind that the judge reads.
        """
        for scene in scenes:
            if scene_of(scene) != self.config.scene:
                remedy = f'use the judge of JudgeConfig(scene="{scene_of(scene)}")'
                raise CourseError(f'{dict(scene)} is no scene="{self.config.scene}", which this judge reads; {remedy}')
        told = map(canonical_pair, scenes) if self.config.scene == "pair" else scenes
        return torch.tensor([[values.index(scene[name]) for name, values in self.readable.items()] for scene in told])

    @torch.no_grad()
    def read(self, images: Tensor, batch_size: int = 500) -> Tensor:
        """What the judge sees on pictures (B, 3, S, S): the index of each attribute's value, (B, A)."""
        device = self.encoder.output.weight.device
        rows = [torch.stack([x.argmax(1) for x in self(chunk.to(device))], 1) for chunk in images.split(batch_size)]
        return torch.cat(rows).cpu()


def damage(images: Tensor, random: torch.Generator) -> Tensor:
    """Noise of a random strength on each picture, so that a judge does not hang on single pixels."""
    strength = 0.15 * torch.rand(len(images), 1, 1, 1, generator=random)
    return images + (strength * torch.randn(images.shape, generator=random)).to(images)


def fit_judge(
    config: JudgeConfig, steps: int, batch_size: int, learning_rate: float, seed: int, progress: str | None = None
) -> AttributeJudge:
    """Train a judge on real pictures of all combinations of its scenes: it must know whatever it may be shown.

    Args:
        config: of the judge.
        steps, batch_size, learning_rate: of the training; each step sees new pictures.
        seed: of weights and pictures.
        progress: what the progress bar says; None: no bar.
    Returns:
        The judge, in eval mode.
    """
    torch.manual_seed(seed)
    judge = AttributeJudge(config).to(memory_format=torch.channels_last)
    random = torch.Generator().manual_seed(seed)
    pictures = CaptionedShapes("all", config.image_size, seed + 1, length=steps * batch_size, scene=config.scene)

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = range(step * batch_size, (step + 1) * batch_size)
        return damage(pictures.images(rows), random), judge.labels([pictures.attributes(i) for i in rows])

    def loss(model: AttributeJudge, images: Tensor, labels: Tensor) -> Tensor:
        return sum(cross_entropy(logits, labels[:, i]) for i, logits in enumerate(model(images)))

    schedule = warmup_cosine(learning_rate, steps, steps // 20)
    fit(judge, batch, loss, Adam(judge.parameters()), steps, learning_rate=schedule, progress=progress)
    return judge.eval()


def attribute_accuracy(judge: AttributeJudge, images: Tensor, scenes: Sequence[Mapping[str, str]]) -> dict[str, float]:
    """The share of pictures on which the judge sees what the caption said.

    Args:
        judge: trained on real pictures of this size and of such scenes.
        images: (N, 3, S, S) in [-1, 1].
        scenes: N attribute dictionaries.
    Returns:
        attribute -> share in [0, 1]; "all": the share with every attribute right. For pairs, color and shape are those
        of the object that the caption names first, color2 and shape2 those of the other. Each is looked for where the
        caption puts it: two objects that changed places cost their colours and shapes, not their relation.
    Raises:
        CourseError: a scene is not of the kind that the judge reads.
    """
    right = judge.read(images) == judge.labels(scenes)  # (N, A)
    names = list(judge.readable)
    if judge.config.scene == "pair":  # from the canonical order back to the caption's
        turned = torch.tensor([scene["relation"] not in judge.readable["relation"] for scene in scenes])
        exchanged = [names.index(name) for name in ("color2", "shape2", "relation", "color", "shape", "background")]
        right[turned] = right[turned][:, exchanged]
    return dict(zip(names, right.float().mean(0).tolist(), strict=True)) | {"all": right.all(1).float().mean().item()}


def mean_distance(images: Tensor) -> float:
    """Mean distance between two pictures of one caption: images (C, K, 3, S, S) -> mean over captions and pairs of the
    root mean squared difference of pixels."""
    flat = images.flatten(2)  # (C, K, P)
    distances = torch.cdist(flat, flat) / flat.shape[-1] ** 0.5  # (C, K, K)
    captions, samples = images.shape[:2]
    return (distances.sum() / (captions * samples * (samples - 1))).item()


def diversity_ratio(generated: Tensor, real: Tensor) -> float:
    """How much generated pictures of one caption differ, over how much real ones do; 1 is as much.

    Args:
        generated, real: (C, K, 3, S, S) in [-1, 1], K pictures for each of the same C captions.
    """
    return mean_distance(generated) / mean_distance(real)


def bradley_terry(wins: Tensor) -> Tensor:
    """How strong M competitors are, from who was preferred to whom: i is preferred to j with probability
    p_i / (p_i + p_j).

    Args:
        wins: (M, M), at [i, j] how often i was preferred to j; a draw is half a win for both.
    Returns:
        (M,) strengths of maximum likelihood, float64, more than 0; their sum is 1.
    Raises:
        CourseError: not a square of numbers from 0 on; or some never lost to the others: infinitely strong.
    Source: Bradley and Terry 1952, "Rank Analysis of Incomplete Block Designs: I"; the iteration as in Hunter 2004, "MM
    algorithms for generalized Bradley-Terry models".
    """
    wins = torch.as_tensor(wins, dtype=torch.float64)
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or not (wins >= 0).all():
        raise CourseError(f"wins {tuple(wins.shape)} must be (M, M), and no number below 0")
    wins = wins.clone().fill_diagonal_(0)
    won, games = wins.sum(1), wins + wins.T
    reached = (wins > 0).double() + torch.eye(len(wins), dtype=torch.float64)
    if not (torch.linalg.matrix_power(reached, len(wins)) > 0).all():  # from each a chain of wins leads to every other
        raise CourseError("wins: some never lost to the others, so none can say how strong they are; collect more")
    strengths = torch.full_like(won, 1 / len(won))
    for _ in range(10_000):
        before, strengths = strengths, won / (games / (strengths[:, None] + strengths)).sum(1)
        strengths = strengths / strengths.sum()
        if (strengths - before).abs().max() < 1e-12:
            break
    return strengths
