"""Are the emoji the right ones? Two judges that saw real pictures only. Built in chapter 15.

Emoji have no list of attributes like the shapes, but they have names. A linear map from what a pre-trained network sees
to what a pre-trained text encoder reads finds a picture's name among many; and the one attribute that the data have for
people, the skin tone, is read by small networks that vote.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import Module, ModuleList

from course_lib.alignment import unit
from course_lib.batches import moved
from course_lib.data.emoji import NO_TONE, TONES, CaptionedEmoji
from course_lib.errors import require_range
from course_lib.fit import fit, warmup_cosine
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig
from course_lib.losses import cross_entropy
from course_lib.optim import Adam

TONE_NAMES = (*(tone["en"] for tone in TONES.values()), NO_TONE)
PENALTY = 1000.0  # of the ridge regression
NOISE, MIRRORED = 0.02, 0.5  # of the tone judge's training pictures


class NameProbe:
    """Ridge regression from features of real pictures (N, D) to embeddings of their names (N, E), in float64.

    What all names have in common, their mean, is taken away: it says nothing about any of them, and on real pictures
    the probe finds more names without it.

    Args:
        features, embeddings: of the training pictures.
        penalty: on the squared weights.
    """

    def __init__(self, features: Tensor, embeddings: Tensor, penalty: float = PENALTY):
        x, y = features.double(), embeddings.double()
        self.from_mean, self.to_mean = x.mean(0), y.mean(0)
        x, y = x - self.from_mean, y - self.to_mean
        self.weight = torch.linalg.solve(x.T @ x + penalty * torch.eye(x.shape[1], dtype=x.dtype), x.T @ y)

    def __call__(self, features: Tensor) -> Tensor:
        """(N, D) -> (N, E), where the names of these pictures should be, seen from the mean of all names."""
        return (features.double() - self.from_mean) @ self.weight

    def place(self, embeddings: Tensor) -> Tensor:
        """Where names are, seen from their mean: (M, E) -> (M, E)."""
        return embeddings.double() - self.to_mean


def recall_at(predicted: Tensor, candidates: Tensor, k: int = 10) -> float:
    """The share of pictures whose own name is among the k nearest.

    Args:
        predicted: (N, E) from a `NameProbe`.
        candidates: (M, E), M >= N, from `NameProbe.place`; row i is that of picture i, the rest only confuse.
        k: how many count.
    """
    similarity = unit(predicted) @ unit(candidates).T  # (N, M)
    top = similarity.topk(k, dim=1).indices
    return (top == torch.arange(len(top))[:, None]).any(1).double().mean().item()


@dataclass(frozen=True)
class ToneConfig:
    """Size of a `ToneJudge`: pixels, channels after the first convolution, networks that vote."""

    image_size: int = 32
    width: int = 32
    networks: int = 3

    def __post_init__(self):
        require_range("networks", self.networks, 1, 16)


class ToneJudge(Module):
    """Small classifiers of the skin tone; their log-probabilities are added up.

    Args:
        config: sizes.
    """

    def __init__(self, config: ToneConfig):
        super().__init__()
        self.config = config
        sizes = ImageEncoderConfig(config.image_size, config.width, len(TONE_NAMES))
        self.networks = ModuleList(ImageEncoder(sizes) for _ in range(config.networks))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, S, S) in [-1, 1] -> scores (B, 6), in the order of `TONE_NAMES`."""
        return sum(network(images).log_softmax(1) for network in self.networks)

    @torch.no_grad()
    def accuracy(self, images: Tensor, tones: Sequence[str]) -> float:
        """The share of pictures (N, 3, S, S) on which it sees the right one of N tones."""
        seen = self(images.to(self.networks[0].output.weight.device)).argmax(1).tolist()
        return sum(TONE_NAMES[i] == tone for i, tone in zip(seen, tones, strict=True)) / len(tones)


def people(emoji: CaptionedEmoji) -> list[int]:
    """The indices of the people: who has a gender, a role and a skin tone."""
    return [i for i in range(len(emoji)) if "role" in emoji.attributes(i)]


def tones_of(emoji: CaptionedEmoji, indices: Sequence[int]) -> list[str]:
    """The skin tone of each of these pictures."""
    return [emoji.attributes(i)["skin_tone"] for i in indices]


def fit_tones(
    config: ToneConfig, steps: int, batch_size: int, learning_rate: float, seed: int, progress: str | None = None
) -> ToneJudge:
    """Train on the real people of the training split, moved by some pixels, mirrored at random and a little noisy.

    Args:
        config: of the judge.
        steps, batch_size, learning_rate: of the training of each network.
        seed: of the first network and its pictures; the others have the seeds after it.
        progress: what the progress bar says; None: no bar.
    Returns:
        The judge, in eval mode.
    """
    emoji = CaptionedEmoji("train", config.image_size)
    rows = people(emoji)
    images = emoji.images(rows)
    labels = torch.tensor([TONE_NAMES.index(tone) for tone in tones_of(emoji, rows)])
    torch.manual_seed(seed)
    judge = ToneJudge(config).to(memory_format=torch.channels_last)
    for number, network in enumerate(judge.networks):
        random = torch.Generator().manual_seed(seed + number)

        def batch(step: int, random: torch.Generator = random) -> tuple[Tensor, Tensor]:
            chosen = torch.randint(len(images), (batch_size,), generator=random)
            seen = moved(images[chosen], config.image_size // 32, random)
            mirror = torch.rand(batch_size, 1, 1, 1, generator=random) < MIRRORED
            seen = torch.where(mirror, seen.flip(3), seen) + NOISE * torch.randn(seen.shape, generator=random)
            return seen.contiguous(memory_format=torch.channels_last), labels[chosen]

        schedule = warmup_cosine(learning_rate, steps, steps // 20)
        optimizer = Adam(network.parameters())
        loss = lambda model, seen, truth: cross_entropy(model(seen), truth)  # noqa: E731
        fit(network, batch, loss, optimizer, steps, learning_rate=schedule, progress=progress)
    return judge.eval()
