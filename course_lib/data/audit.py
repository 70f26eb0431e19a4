"""Is a data set fit for training? Amount, diversity, quality and annotation in one report. Built in chapter 02.

Each check is one number with a limit. A check can pass, ask for a look, or say that training would be spoilt. Pictures
that are nearly the same are found twice over: by a hash of their edges and by a tiny thumbnail; both must agree.
"""

import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from course_lib.data.captions import words_of
from course_lib.data.pictures import CaptionedPictures
from course_lib.images import COLORBLIND_SAFE, figure_style, text_or_fallback

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Scorer = Callable[[Tensor, list[str]], Tensor]  # pictures (B, 3, S, S) and B captions -> similarity (B, B)

TOPICS = ("amount", "diversity", "quality", "annotation")
BATCH = 64
MAX_WORDS = 60  # of a caption; the course's text encoders read about that much
# Near-duplicates: found by these are copies scaled, brightened or compressed; not found, two shapes in one place
HASH_DISTANCE, HASH_STEP = 10, 0.02  # of 256 bits, so many may differ; less difference in brightness is noise
THUMBNAIL, THUMBNAIL_DISTANCE = 12, 0.2  # side in cells, and the greatest difference of one in [-1, 1]
BLURRED = 0.04  # of `sharpness`; sharp drawings and photographs have 0.2 and more
FLAT = 0.02  # of the standard deviation, for values in [0, 1]
MANY_VALUES = 50  # an attribute with more values is a name: its balance says nothing


class Limit(NamedTuple):
    """Where a number asks for a look and where it spoils training; `low` says that small numbers are the bad ones."""

    look: float
    spoils: float
    low: bool = False


LIMITS = {  # check -> limit; shares are of the pictures or captions that were looked at
    "pictures": Limit(1000, 100, low=True),
    "near-duplicates": Limit(0.05, 0.30),
    "near-duplicates with other captions": Limit(0.02, 0.20),
    "in training and in the exam": Limit(0.01, 0.20),
    "attribute balance": Limit(0.7, 0.2, low=True),
    "smaller than asked for": Limit(0.05, math.inf),  # if enlarging spoilt them, they are blurred
    "blurred": Limit(0.10, 0.50),
    "flat": Limit(0.01, 0.10),
    "broken or unusable": Limit(0.0, 0.05),
    "empty captions": Limit(0.0, 0.01),
    "captions too long": Limit(0.01, 0.20),
    "most common caption": Limit(0.05, 0.30),
    "words that occur once": Limit(0.5, math.inf),
    "unknown words": Limit(0.05, 0.50),
    "caption-picture match": Limit(0.8, 0.6, low=True),
}


@dataclass(frozen=True)
class Check:
    """One line of the report: what was measured, the number, "ok", "look" or "spoils", and a few examples."""

    topic: str
    name: str
    value: float
    verdict: str
    examples: tuple[str, ...] = ()


def judge(topic: str, name: str, value: float, examples: Sequence[str] = ()) -> Check:
    """A check with the verdict of `LIMITS`; a measure without a limit is always "ok"."""
    limit = LIMITS.get(name, Limit(math.inf, math.inf))
    sign = -1 if limit.low else 1
    verdict = "spoils" if sign * value > sign * limit.spoils else "look" if sign * value > sign * limit.look else "ok"
    return Check(topic, name, float(value), verdict, () if verdict == "ok" else tuple(examples[:3]))


@dataclass(frozen=True)
class AuditReport:
    """What `audit` found.

    Args:
        checks: every line, by topic.
        looked_at, total: pictures measured, pictures there are.
        sharpness: of each picture that was looked at; see `sharpness`.
        caption_lengths: words of each caption that was looked at.
        words: the most common words and how often they occur.
    """

    checks: tuple[Check, ...]
    looked_at: int
    total: int
    sharpness: tuple[float, ...]
    caption_lengths: tuple[int, ...]
    words: tuple[tuple[str, int], ...]

    @property
    def spoils_training(self) -> bool:
        """True if a check says that a model trained on this would be spoilt."""
        return any(check.verdict == "spoils" for check in self.checks)

    def table(self) -> str:
        """The checks as text, one a line, with examples where one should look."""
        rows = [("topic", "check", "value", "verdict")]
        rows += [(check.topic, check.name, _short(check.value), check.verdict) for check in self.checks]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        lines.insert(1, "  ".join("-" * width for width in widths))
        told = [f"{check.name}: {'; '.join(check.examples)}" for check in self.checks if check.examples]
        told += [""] * bool(told) + [f"{self.looked_at:,} of {self.total:,} pictures looked at."]
        verdict = "This would spoil training." if self.spoils_training else "Nothing here would spoil training."
        return "\n".join([*lines, "", *told, verdict])

    def to_json(self) -> str:
        """Everything in the report as JSON."""
        return json.dumps({"spoils_training": self.spoils_training, **asdict(self)}, indent=2, allow_nan=False)

    def figure(self) -> "Figure":
        """Sharpness, caption lengths, common words and the verdicts in one figure with alt text."""
        from matplotlib import pyplot

        with figure_style():
            figure, axes = pyplot.subplots(2, 2, figsize=(10, 7), layout="constrained")
            pyplot.close(figure)
            _plot_sharpness(axes[0, 0], self.sharpness)
            axes[0, 1].hist(self.caption_lengths, bins=range(max(self.caption_lengths, default=0) + 2), align="left")
            axes[0, 1].set(title="Length of the captions", xlabel="words", ylabel="captions")
            _plot_words(axes[1, 0], self.words)
            _plot_verdicts(axes[1, 1], self.checks)
        bad = [f"{c.name} {_short(c.value)} ({c.verdict})" for c in self.checks if c.verdict != "ok"]
        figure.alt_text = f"Audit of {self.looked_at} pictures; to look at: {', '.join(bad) or 'nothing'}."
        return figure


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


# ---- measures of pictures


def brightness(images: Tensor) -> Tensor:
    """(B, 3, H, W) in [-1, 1] -> (B, H, W) in [0, 1]. Source: ITU-R BT.601 luma."""
    red, green, blue = ((images + 1) / 2).unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def sharpness(images: Tensor) -> Tensor:
    """Variance of the Laplacian over the variance of the picture, both summed over colours: near 0 when blurred.

    Args:
        images: (B, 3, H, W) in [-1, 1], H and W at least 3.
    Returns:
        (B,), 0 for an even picture.
    Source: Pech-Pacheco et al. 2000, "Diatom autofocusing in brightfield microscopy"; the division is added, so that
        a pale picture is not taken for a blurred one.
    """
    around = images[..., :-2, 1:-1] + images[..., 2:, 1:-1] + images[..., 1:-1, :-2] + images[..., 1:-1, 2:]
    edges = around - 4 * images[..., 1:-1, 1:-1]  # (B, 3, H - 2, W - 2)
    return edges.flatten(2).var(2).sum(1) / images.flatten(2).var(2).sum(1).clamp(min=1e-6)


def contrast(images: Tensor) -> Tensor:
    """Standard deviation of pictures (B, 3, H, W), as of values in [0, 1] and over all colours: (B,)."""
    return images.flatten(2).var(2).sum(1).sqrt() / 2


def difference_hash(images: Tensor) -> Tensor:
    """dHash: is each cell of a 16 x 17 thumbnail darker than its right neighbour?

    Args:
        images: (B, 3, H, W) in [-1, 1].
    Returns:
        (B, 256) of 0 and 1; pictures that look alike differ in few bits.
    Source: Krawetz 2013, "Kind of like that", there with 8 x 9 cells.
    """
    cells = shrink(brightness(images)[:, None], 16, 17)[:, 0]  # (B, 16, 17)
    return (cells[:, :, 1:] - cells[:, :, :-1] > HASH_STEP).flatten(1).float()


def shrink(images: Tensor, height: int, width: int) -> Tensor:
    """Means over a grid of cells: (B, C, H, W) -> (B, C, height, width)."""
    rows, columns = (_cell_means(side, cells) for side, cells in zip(images.shape[2:], (height, width), strict=True))
    return rows @ images @ columns.T


def _cell_means(side: int, cells: int) -> Tensor:
    """(cells, side): row i has the share of every pixel in cell i, and sums to 1."""
    edges = torch.arange(cells + 1) * side / cells
    pixels = torch.arange(side)
    overlap = torch.minimum(edges[1:, None], pixels + 1) - torch.maximum(edges[:-1, None], pixels)
    return overlap.clamp(min=0) * cells / side


def near_pairs(one: tuple[Tensor, Tensor], two: tuple[Tensor, Tensor]) -> Tensor:
    """Which pictures look nearly the same.

    Args:
        one, two: hashes (N, 256) and thumbnails (N, 432), and those of M pictures.
    Returns:
        (P, 2) index pairs.
    """
    found = [torch.empty(0, 2, dtype=torch.long)]
    for start in range(0, len(one[0]), BATCH):
        hashes, thumbnails = (part[start : start + BATCH] for part in one)
        bits = hashes.sum(1)[:, None] + two[0].sum(1) - 2 * hashes @ two[0].T  # (B, M): how many bits differ
        apart = torch.cdist(thumbnails, two[1], p=math.inf)  # (B, M): the greatest difference
        near = (bits <= HASH_DISTANCE) & (apart <= THUMBNAIL_DISTANCE)
        found.append(near.nonzero() + torch.tensor([start, 0]))
    return torch.cat(found)


def measure(dataset: CaptionedPictures, indices: Sequence[int]) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Measure pictures, batch after batch of at most `BATCH`.

    Yields:
        Of B pictures: hashes (B, 256), thumbnails (B, 432), sharpness (B,), contrast (B,).
    """
    for start in range(0, len(indices), BATCH):
        seen = dataset.images(indices[start : start + BATCH])
        yield difference_hash(seen), shrink(seen, THUMBNAIL, THUMBNAIL).flatten(1), sharpness(seen), contrast(seen)


def _measure_all(dataset: CaptionedPictures, indices: list[int]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """As `measure`, of N pictures together."""
    none = torch.empty(0, 256), torch.empty(0, 3 * THUMBNAIL**2), torch.empty(0), torch.empty(0)
    return tuple(torch.cat(column) for column in zip(none, *measure(dataset, indices), strict=True))


# ---- the audit


def audit(
    dataset: CaptionedPictures,
    n: int = 2000,
    heldout: CaptionedPictures | None = None,
    vocabulary: Collection[str] | None = None,
    scorer: Scorer | None = None,
) -> AuditReport:
    """Look at a data set before training on it.

    Args:
        dataset: the training pictures with captions: any with the methods of `CaptionedShapes`.
        n: how many pictures to look at, evenly chosen; the captions are all read.
        heldout: the exam's pictures; none of them should be in `dataset`.
        vocabulary: the words that the text encoder knows, in lower case.
        scorer: pictures (B, 3, S, S) and B captions -> similarity (B, B), from an aligned image-text model.
    Returns:
        The report.
    """
    pictures = dataset.distinct()
    indices = _evenly(pictures, n)
    captions = [dataset.caption(i) for i in range(len(dataset))]
    hashes, thumbnails, sharp, spread = _measure_all(dataset, indices)
    shown = [captions[i] for i in indices]
    checks = [judge("amount", "pictures", len(pictures)), *_coverage(dataset, captions)]
    checks += _duplicates((hashes, thumbnails), shown)
    if heldout is not None:
        checks.append(_leaks((hashes, thumbnails), shown, heldout, n))
    checks += _quality(dataset, indices, shown, sharp, spread)
    checks += _annotation(captions, vocabulary)
    if scorer is not None and len(indices) > 1:
        checks.append(_match(dataset, indices, shown, scorer))
    checks.sort(key=lambda check: TOPICS.index(check.topic))
    lengths = tuple(len(words_of(captions[i])) for i in indices)
    common = Counter(word for caption in captions for word in words_of(caption)).most_common(20)
    return AuditReport(tuple(checks), len(indices), len(dataset), tuple(sharp.tolist()), lengths, tuple(common))


def _evenly(items: list[int], n: int) -> list[int]:
    return [items[i * len(items) // n] for i in range(n)] if n < len(items) else items


def _share(part: float, whole: float) -> float:
    return part / max(whole, 1)


def _coverage(dataset: CaptionedPictures, captions: list[str]) -> list[Check]:
    """How evenly the values of attributes come up, and how many words there are."""
    values = defaultdict(Counter)
    for name, value in (item for i in range(len(dataset)) for item in dataset.attributes(i).items()):
        values[name][value] += 1
    balance = {name: _evenness(counts) for name, counts in values.items() if 1 < len(counts) <= MANY_VALUES}
    words = Counter(word for caption in captions for word in words_of(caption))
    once = sorted(word for word, count in words.items() if count == 1)
    checks = [judge("diversity", "distinct words", len(words))]
    if balance:
        worst = min(balance, key=balance.get)
        rarest = ", ".join(f"{value} {count}" for value, count in values[worst].most_common()[:-4:-1])
        checks.append(judge("diversity", "attribute balance", balance[worst], [f"{worst}, rarest: {rarest}"]))
    return [*checks, judge("diversity", "words that occur once", _share(len(once), len(words)), once)]


def _evenness(counts: Counter) -> float:
    """Entropy over its maximum: 1 when all values are equally frequent."""
    total = sum(counts.values())
    return -sum(c / total * math.log(c / total) for c in counts.values()) / math.log(len(counts))


def _duplicates(looks: tuple[Tensor, Tensor], shown: list[str]) -> list[Check]:
    pairs = near_pairs(looks, looks)
    pairs = pairs[pairs[:, 0] < pairs[:, 1]]
    said = torch.tensor([hash(caption) for caption in shown])
    other = pairs[said[pairs[:, 0]] != said[pairs[:, 1]]]
    return [
        _of_pairs("diversity", "near-duplicates", pairs.flip(1), shown, shown),
        _of_pairs("annotation", "near-duplicates with other captions", other.flip(1), shown, shown),
    ]


def _leaks(looks: tuple[Tensor, Tensor], shown: list[str], heldout: CaptionedPictures, n: int) -> Check:
    exam = _evenly(heldout.distinct(), n)
    pairs = near_pairs(_measure_all(heldout, exam)[:2], looks)
    return _of_pairs("diversity", "in training and in the exam", pairs, [heldout.caption(i) for i in exam], shown)


def _of_pairs(topic: str, name: str, pairs: Tensor, ones: list[str], others: list[str]) -> Check:
    """The share of `ones` that are the first of a pair (P, 2)."""
    told = [f'"{ones[a]}" and "{others[b]}"' for a, b in pairs[:3].tolist()]
    return judge(topic, name, _share(len(pairs[:, 0].unique()), len(ones)), told)


def _quality(dataset: Any, indices: list[int], shown: list[str], sharp: Tensor, spread: Tensor) -> list[Check]:
    problems = [f"{file} ({reason})" for file, reason in getattr(dataset, "problems", [])]
    checks = [judge("quality", "broken or unusable", _share(len(problems), len(problems) + len(dataset)), problems)]
    if hasattr(dataset, "source_size"):
        small = [k for k, i in enumerate(indices) if min(dataset.source_size(i)) < dataset.image_size]
        checks.append(_of_pictures("smaller than asked for", small, dataset, indices, shown))
    for name, mask in [("flat", spread < FLAT), ("blurred", (sharp < BLURRED) & (spread >= FLAT))]:
        checks.append(_of_pictures(name, mask.nonzero()[:, 0].tolist(), dataset, indices, shown))
    return checks


def _of_pictures(
    name: str, found: list[int], dataset: CaptionedPictures, indices: list[int], shown: list[str]
) -> Check:
    told = [dataset.attributes(indices[k]).get("file_name", f'"{shown[k]}"') for k in found]
    return judge("quality", name, _share(len(found), len(indices)), told)


def _annotation(captions: list[str], vocabulary: Collection[str] | None) -> list[Check]:
    empty = [f"number {i}" for i, caption in enumerate(captions) if not caption.strip()]
    long = [caption[:60] for caption in captions if len(words_of(caption)) > MAX_WORDS]
    (most_common, times), *_ = Counter(captions).most_common(1) or [("", 0)]
    total = len(captions)
    checks = [
        judge("annotation", "empty captions", _share(len(empty), total), empty),
        judge("annotation", "captions too long", _share(len(long), total), long),
        judge("annotation", "most common caption", _share(times, total), [most_common]),
    ]
    if vocabulary is not None:
        words = Counter(word for caption in captions for word in words_of(caption))
        unknown = Counter({word: count for word, count in words.items() if word not in vocabulary})
        share, told = _share(unknown.total(), words.total()), [word for word, _ in unknown.most_common(3)]
        checks.append(judge("annotation", "unknown words", share, told))
    return checks


@torch.no_grad()
def _match(dataset: CaptionedPictures, indices: list[int], shown: list[str], scorer: Scorer) -> Check:
    """How often a picture's own caption scores above another picture's different caption; chance is a half."""
    wins, count, share = 0.0, 0, []
    for start in range(0, len(indices), BATCH):
        texts = shown[start : start + BATCH]
        scores = scorer(dataset.images(indices[start : start + BATCH]), texts).cpu()  # (B, B)
        other = torch.tensor([[a != b for b in texts] for a in texts])
        won = (scores.diagonal()[:, None] > scores).float() + 0.5 * (scores.diagonal()[:, None] == scores)
        wins, count = wins + (won * other).sum().item(), count + int(other.sum())
        share += ((won * other).sum(1) / other.sum(1).clamp(min=1)).tolist()
    worst = sorted(range(len(shown)), key=share.__getitem__)[:3]
    return judge("annotation", "caption-picture match", _share(wins, count), [f'"{shown[k]}"' for k in worst])


# ---- the figure


def _plot_sharpness(axis: Any, values: Sequence[float]) -> None:
    axis.hist([math.log10(max(value, 1e-4)) for value in values], bins=40, range=(-4, 1))
    axis.axvline(math.log10(BLURRED), color=COLORBLIND_SAFE[3], linestyle="--")
    axis.set(title="Sharpness (blurred: left of the line)", xlabel="log10 of `sharpness`", ylabel="pictures")


def _plot_words(axis: Any, words: Sequence[tuple[str, int]]) -> None:
    names = [text_or_fallback(word, "?") for word, _ in words]
    axis.barh(range(len(words)), [count for _, count in words])
    axis.set_yticks(range(len(words)), names, fontsize=7, parse_math=False)
    axis.invert_yaxis()
    axis.set(title="Most common words", xlabel="times")


def _plot_verdicts(axis: Any, checks: Sequence[Check]) -> None:
    colors = {"ok": COLORBLIND_SAFE[2], "look": COLORBLIND_SAFE[1], "spoils": COLORBLIND_SAFE[3]}
    axis.set(title="Verdicts", frame_on=False, xticks=[], yticks=[])
    for height, check in zip(torch.linspace(0.97, 0.03, len(checks)).tolist(), checks, strict=True):
        axis.text(0, height, f"{check.name}: {_short(check.value)}", fontsize=8, transform=axis.transAxes)
        axis.text(0.8, height, check.verdict, fontsize=8, color=colors[check.verdict], transform=axis.transAxes)
