"""Captioned pictures of coloured shapes, drawn as they are asked for. Built in chapter 02.

Every picture is computed: a signed distance function says how far a pixel lies outside (+) or inside (-) a shape, and
the distance, clipped to one pixel, is the antialiased coverage. So there is no download, no licence, as much data as
one likes at any size, and, above all, the truth about each picture is known exactly.
"""

import copy
import functools
import hashlib
import itertools
import math

import torch
from torch import Tensor

from course_lib.data.captions import GRAMMARS, LANGUAGES, PAIR, SINGLE, STYLES, describe, scene_of
from course_lib.data.pictures import CaptionedPictures
from course_lib.errors import CourseError, nearest
from course_lib.images import require_image_size

COLORS = {  # sRGB in [0, 1]; objects first, then backgrounds
    "red": (0.87, 0.13, 0.16),
    "green": (0.13, 0.65, 0.25),
    "blue": (0.18, 0.42, 0.95),
    "yellow": (0.98, 0.82, 0.08),
    "orange": (0.97, 0.53, 0.09),
    "purple": (0.52, 0.20, 0.70),
    "pink": (0.98, 0.55, 0.75),
    "cyan": (0.12, 0.82, 0.85),
    "navy": (0.07, 0.09, 0.27),
    "gray": (0.52, 0.53, 0.55),
    "cream": (0.97, 0.94, 0.85),
}
CENTERS = {  # x to the right, y down, both in [-1, 1]
    "top left": (-0.46, -0.46),
    "top right": (0.46, -0.46),
    "center": (0.0, 0.0),
    "bottom left": (-0.46, 0.46),
    "bottom right": (0.46, 0.46),
    "left of": (-0.46, 0.0),
    "right of": (0.46, 0.0),
    "above": (0.0, -0.46),
    "below": (0.0, 0.46),
}
RADII = {"large": 0.46, "small": 0.28, "pair": 0.36}  # in half image widths
JITTER = {"place": 0.06, "radius": 0.07, "angle": math.radians(10), "shade": 0.05}  # uniform, plus or minus
SPLITS = ("train", "heldout", "all")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
# What the pictures of a data set show, in turn. "mixed" changes after two, for with both languages the captions change
# after one: else all single objects would be described in English, all pairs in Chinese.
TURNS = {"single": ("single",), "pair": ("pair",), "mixed": ("single", "single", "pair", "pair")}


def circle(x: Tensor, y: Tensor) -> Tensor:
    """Signed distance to a circle of radius 1, at points (x, y). The other shapes have the same form."""
    return torch.hypot(x, y) - 1


def square(x: Tensor, y: Tensor) -> Tensor:
    """A square of side 1.64."""
    return torch.maximum(x.abs(), y.abs()) - 0.82


def triangle(x: Tensor, y: Tensor) -> Tensor:
    """An equilateral triangle that points up: the farthest of three edges."""
    slanted = math.sqrt(3) / 2 * x.abs() - 0.5 * y
    return torch.maximum(slanted, y) - 0.55


def star(x: Tensor, y: Tensor) -> Tensor:
    """A five-pointed star: fold the plane into a tenth of the circle, where the star is one straight edge."""
    angle = torch.atan2(x, -y)  # 0 points up
    sector = math.tau / 5
    folded = (angle - sector * torch.round(angle / sector)).abs()  # 0 at a tip, pi/5 at a notch
    radius = torch.hypot(x, y)
    px, py = radius * torch.cos(folded), radius * torch.sin(folded)
    tip, notch = (1.12, 0.0), (0.48 * math.cos(math.pi / 5), 0.48 * math.sin(math.pi / 5))
    ex, ey = notch[0] - tip[0], notch[1] - tip[1]
    return ((px - tip[0]) * ey - (py - tip[1]) * ex) / math.hypot(ex, ey)


def ring(x: Tensor, y: Tensor) -> Tensor:
    """A ring: near the circle of radius 0.75."""
    return (torch.hypot(x, y) - 0.75).abs() - 0.25


def cross(x: Tensor, y: Tensor) -> Tensor:
    """A plus sign: the union (minimum) of two bars."""
    x, y = x.abs(), y.abs()
    return torch.minimum(torch.maximum(x - 1, y - 0.3), torch.maximum(y - 1, x - 0.3))


def heart(x: Tensor, y: Tensor) -> Tensor:
    """A heart: two discs, and below them a wedge whose sides touch the discs."""
    x = x.abs()
    disc = torch.hypot(x - 0.46, y + 0.36) - 0.54
    wedge = torch.maximum(0.74 * x + 0.67 * y - 0.639, (0.42 * x - y - 0.36) / 1.085)
    return torch.minimum(disc, wedge)


def crescent(x: Tensor, y: Tensor) -> Tensor:
    """A crescent: a disc without a second disc to its right."""
    return torch.maximum(torch.hypot(x, y) - 1, 0.78 - torch.hypot(x - 0.5, y))


SHAPES = {f.__name__: f for f in (circle, square, triangle, star, ring, cross, heart, crescent)}


def _rank(attributes: tuple[str, ...]) -> str:
    """A fixed pseudo-random order of the combinations: the same on every machine, in every release."""
    return hashlib.sha256("|".join(attributes).encode()).hexdigest()


def told_from_the_other(pair: tuple[str, ...]) -> tuple[str, ...]:
    """The same two objects, the other one named first: values in the order of `PAIR`.

    >>> told_from_the_other(("red", "circle", "left of", "blue", "square", "gray"))
    ('blue', 'square', 'right of', 'red', 'circle', 'gray')
    """
    color, shape, relation, color2, shape2, background = pair
    return color2, shape2, OPPOSITE[relation], color, shape, background


@functools.cache
def combinations(scene: str, split: str) -> tuple[tuple[str, ...], ...]:
    """All attribute combinations of a split, in the order of `SINGLE` or `PAIR`.

    A tenth of them, chosen once by a hash, is held out: "heldout" has just these, "train" all others, "all" both. Two
    objects that look the same are no pair. "mixed" has the combinations of "single", then those of "pair"; in "train"
    without those that show the picture of a held-out pair, told from the other object.
    """
    if scene == "mixed":
        kept_out = {told_from_the_other(c) for c in combinations("pair", "heldout")} if split == "train" else ()
        return combinations("single", split) + tuple(c for c in combinations("pair", split) if c not in kept_out)
    values = (SINGLE if scene == "single" else PAIR).values()
    every = [c for c in itertools.product(*values) if scene == "single" or c[:2] != c[3:5]]
    every.sort(key=_rank)
    tenth = len(every) // 10
    return tuple({"heldout": every[:tenth], "train": every[tenth:], "all": every}[split])


def draw_object(
    canvas: Tensor, shapes: list[str], rgb: Tensor, center: Tensor, radius: Tensor, angle: Tensor
) -> Tensor:
    """Paint one object on each picture.

    Args:
        canvas: (B, 3, S, S) in [0, 1].
        shapes: B names of `SHAPES`.
        rgb: (B, 3) in [0, 1]; center: (B, 2) and radius: (B,) in half image widths; angle: (B,) in radians.
    Returns:
        (B, 3, S, S) in [0, 1].
    """
    size = canvas.shape[-1]
    axis = (torch.arange(size, device=canvas.device) + 0.5) / size * 2 - 1  # pixel centres
    dx = axis[None, None, :] - center[:, 0, None, None]  # (B, 1, S)
    dy = axis[None, :, None] - center[:, 1, None, None]  # (B, S, 1)
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    r = radius[:, None, None]
    x, y = (dx * cos + dy * sin) / r, (dy * cos - dx * sin) / r  # (B, S, S), the object has radius 1
    distance = torch.empty_like(x)
    for name in set(shapes):
        rows = torch.tensor([i for i, s in enumerate(shapes) if s == name], device=canvas.device)
        distance[rows] = SHAPES[name](x[rows], y[rows])
    coverage = (0.5 - distance * r * size / 2).clamp(0, 1)[:, None]  # distance in pixels -> share of the pixel
    return canvas * (1 - coverage) + rgb[:, :, None, None] * coverage


def attributes_of(combination: tuple[str, ...]) -> dict[str, str]:
    """The values of a combination with the names of their attributes; two objects have one value more."""
    return dict(zip(PAIR if len(combination) == len(PAIR) else SINGLE, combination, strict=True))


def draw_objects(canvas: Tensor, scenes: list[dict[str, str]], chance: Tensor, second: bool = False) -> Tensor:
    """Paint one object of each scene: the only or the first one, or the second one, which stands opposite.

    Args:
        canvas: (B, 3, S, S) in [0, 1].
        scenes: B attribute dictionaries.
        chance: (B, 7) in [-1, 1]: how far place (2), radius, angle and colour (3) are off.
    Returns:
        (B, 3, S, S) in [0, 1].
    """
    suffix, side = ("2", -1) if second else ("", 1)

    def row(values: list) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=canvas.device)

    places = [CENTERS[s["relation" if "relation" in s else "position"]] for s in scenes]
    center = row(places) * side + JITTER["place"] * chance[:, :2]
    radius = row([RADII[s.get("size", "pair")] for s in scenes]) * (1 + JITTER["radius"] * chance[:, 2])
    rgb = (row([COLORS[s["color" + suffix]] for s in scenes]) + JITTER["shade"] * chance[:, 4:]).clamp(0, 1)
    names = [s["shape" + suffix] for s in scenes]
    return draw_object(canvas, names, rgb, center, radius, JITTER["angle"] * chance[:, 3])


class CaptionedShapes(CaptionedPictures):
    """Pictures of shapes with captions and exact attributes.

    Args:
        split: "train"; "heldout", the tenth of the attribute combinations that no generator is trained on; or "all".
        image_size: 16, 32, 64 or 128 pixels.
        seed: another seed, other combinations' order, jitter and wording.
        language: "en", "zh", or "both" (each picture gets one of the two).
        length: number of pictures; every combination (of one object, of two objects) comes up equally often.
        captions: "canonical", "varied", "noisy" or "unseen"; see `captions.describe`.
        scene: "single" (one object), "pair" (two objects and their relation), or "mixed" (half of the pictures each).
        grammar: "full", or "small" for fewer shapes, colours and backgrounds; see `captions.GRAMMARS`.
    Raises:
        CourseError: an argument is out of range.

    >>> image, caption = CaptionedShapes(image_size=32, length=10)[0]
    >>> image.shape
    torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        split: str = "train",
        image_size: int = 64,
        seed: int = 0,
        language: str = "en",
        length: int = 10_000,
        captions: str = "canonical",
        scene: str = "single",
        grammar: str = "full",
    ):
        require_image_size(image_size)
        for name, value, known in [
            ("split", split, SPLITS),
            ("language", language, (*LANGUAGES, "both")),
            ("captions", captions, STYLES),
            ("scene", scene, TURNS),
            ("grammar", grammar, GRAMMARS),
        ]:
            if value not in known:
                raise CourseError(f'{name}="{value}" is unknown; {nearest(value, known)}')
        if not 0 <= length <= 10**7:
            raise CourseError(f"length={length} is out of range; use 0 to 10,000,000")
        self.split, self.image_size, self.seed, self.language, self.style = split, image_size, seed, language, captions
        kept = GRAMMARS[grammar]
        self.combinations = [
            c
            for c in combinations(scene, split)
            if all(v in kept.get(k.rstrip("2"), (v,)) for k, v in attributes_of(c).items())
        ]
        # All chance is drawn here, once: picture i is then the same however it is asked for.
        self.random = torch.Generator().manual_seed(seed * 3 + SPLITS.index(split))
        self.order = self._order(TURNS[scene], length)
        self.jitter = torch.rand(length, 3, 7, generator=self.random) * 2 - 1  # two objects and the background

    def _order(self, turns: tuple[str, ...], length: int) -> list[int]:
        """For each picture the place of its combination in `combinations`."""
        order = [0] * length
        for kind in dict.fromkeys(turns):
            places = [i for i in range(length) if turns[i % len(turns)] == kind]
            known = torch.tensor([i for i, c in enumerate(self.combinations) if scene_of(attributes_of(c)) == kind])
            rounds = -(-len(places) // len(known))
            drawn = [known[torch.randperm(len(known), generator=self.random)].tolist() for _ in range(rounds)]
            for place, combination in zip(places, itertools.chain(*drawn), strict=False):
                order[place] = combination
        return order

    def __len__(self) -> int:
        return len(self.order)

    def attributes(self, index: int) -> dict[str, str]:
        """Attribute -> value of one picture."""
        return attributes_of(self.combinations[self.order[index]])

    def caption(self, index: int) -> str:
        """The caption of one picture."""
        language = self.language_of(index)
        return describe(self.attributes(index), language, self.style, seed=f"{self.seed}/{self.split}/{index}")

    def twins(self) -> "CaptionedShapes | None":
        """The same wordings, but of each pair the colours or the objects are exchanged; None if there are no pairs.

        The captions of a pair and its twin have the same words. To tell them apart one must know which word belongs to
        which object. Single objects, and pairs whose twin is not of this split, are their own twins.

        Source: such counter-examples, for CLIP, are those of Yuksekgonul et al. 2023, arXiv:2210.01936.
        """
        if all(scene_of(attributes_of(c)) == "single" for c in self.combinations):
            return None
        twin, known = copy.copy(self), set(self.combinations)
        exchanged = [self._exchanged(index) for index in range(len(self))]
        own = [self.combinations[place] for place in self.order]
        twin.combinations = [c if c in known else old for c, old in zip(exchanged, own, strict=True)]
        twin.order = list(range(len(self)))
        return twin

    def _exchanged(self, index: int) -> tuple[str, ...]:
        """The combination of one picture with colours (every other four pictures) or objects exchanged."""
        combination = self.combinations[self.order[index]]
        if len(combination) != len(PAIR):
            return combination
        color, shape, relation, color2, shape2, background = combination
        if index // 4 % 2:
            return color2, shape, relation, color, shape2, background
        return color2, shape2, relation, color, shape, background

    def images(self, indices: list[int] | range, device: str | torch.device = "cpu") -> Tensor:
        """The pictures with these indices, drawn together on the device: (B, 3, S, S) float32 in [-1, 1]."""
        scenes = [self.attributes(i) for i in indices]
        jitter = self.jitter[list(indices)].to(device)  # (B, 3, 7)

        background = torch.tensor([COLORS[s["background"]] for s in scenes], device=device)  # (B, 3)
        background = background + JITTER["shade"] / 2 * jitter[:, 2, 4:]
        canvas = background[:, :, None, None].expand(-1, -1, self.image_size, self.image_size).clamp(0, 1)
        canvas = draw_objects(canvas, scenes, jitter[:, 0])
        pairs = [i for i, scene in enumerate(scenes) if scene_of(scene) == "pair"]
        if pairs:
            canvas[pairs] = draw_objects(canvas[pairs], [scenes[i] for i in pairs], jitter[pairs, 1], second=True)
        return canvas * 2 - 1
