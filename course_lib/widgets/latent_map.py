"""LatentMap (lesson 06): pictures laid out by what an encoder says about them, and the nearest ones of each."""

from collections.abc import Callable, Mapping
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from ipywidgets import Dropdown, IntSlider, Layout
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor
from torch.nn import Module

from course_lib.alignment import load_alignment, unit
from course_lib.data.captions import SINGLE
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError, nearest, require_range
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig
from course_lib.images import COLORBLIND_SAFE, to_pil
from course_lib.lesson import new_axes
from course_lib.widgets.base import Explorer, Scene, table_html

COUNT, NEAR = 300, 5  # pictures on the map, neighbours that are shown
CANVAS, STAMP = (560, 400), 22  # pixels: width and height of the map, side of a picture on it
FRAME = COLORBLIND_SAFE[3]
Features = Callable[[Tensor], Tensor]  # pictures (B, 3, 32, 32) -> vectors (B, E)


class Map(NamedTuple):
    """What features say about the pictures.

    Args:
        corners: (N, 2), column and row of each picture's upper left corner on the map.
        canvas: (height, width, 3) uint8, the map.
        near: (N, 5), the numbers of each picture's nearest ones, from 0.
        cosines: (N, 5), of their vectors.
        shared: attribute -> (N,), how many of the five have the picture's own value.
    """

    corners: Tensor
    canvas: np.ndarray
    near: Tensor
    cosines: Tensor
    shared: Mapping[str, Tensor]


def latent_map(features: str = "", number: int = 7, own: Mapping[str, Features] | None = None) -> Explorer:
    """A map of 300 pictures of scenes that were held out, by pixels or by an encoder's vectors.

    Args:
        features: by which it opens, a name from `own` or `BUILT_IN`; by default the first of `own`, else the last.
        number: of the picture that is chosen at first, 1 to 300.
        own: name -> your own encoder, pictures (B, 3, 32, 32) to vectors (B, E), to choose from, too.
    Raises:
        CourseError: there are no such features, or no such picture.
    """
    encoders, known = {**(own or {}), **BUILT_IN}, {}
    opened = features or [*(own or {}), *reversed(BUILT_IN)][0]
    if opened not in encoders:
        raise CourseError(f'features="{opened}" is unknown; {nearest(opened, encoders)}')
    require_range("number", number, 1, COUNT)
    looks = {"layout": Layout(width="390px"), "style": {"description_width": "70px"}}
    which = Dropdown(options=list(encoders), value=opened, description="features", **looks)
    chosen = IntSlider(number, 1, COUNT, description="picture", **looks)

    def draw() -> Scene:
        name, number = which.value, chosen.value - 1
        if name not in known:
            known[name] = lay_out(encoders[name])
        found = known[name]
        with new_axes("", 2, 1, (9, 4.2)) as (figure, (left, right)):
            figure.set_layout_engine(None)
            left.set_position([0, 0, CANVAS[0] / 900, CANVAS[1] / 420])
            right.set_position([CANVAS[0] / 900 + 0.02, 0, 0.98 - CANVAS[0] / 900, 0.99])
            draw_map(left, found, number)
            draw_neighbours(right, found, number)
        return Scene(figure, *in_words(name, found, number))

    about = "Choose pictures along the slider: what do the nearest ones share? Then change the features."
    return Explorer("latent-map", "A map of pictures", about, [which, chosen], draw)


@cache
def scenes() -> tuple[CaptionedShapes, Tensor]:
    """The pictures' data set, and the pictures (300, 3, 32, 32)."""
    data = CaptionedShapes("heldout", 32, length=COUNT)
    return data, data.images(range(COUNT))


@cache
def untrained() -> Module:
    """Lesson 06's encoder before its training."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return ImageEncoder(ImageEncoderConfig(image_size=32, width=32, output_size=256)).eval()


@cache
def trained() -> Module:
    """The encoder that lesson 08 trains with captions."""
    return load_alignment("align-shapes-32")[0].image_encoder


BUILT_IN: Mapping[str, Features] = {
    "pixels": lambda images: images.flatten(1),
    "encoder, untrained": lambda images: untrained()(images),
    "encoder, trained with captions": lambda images: trained()(images),
}


@torch.no_grad()
def lay_out(read: Features) -> Map:
    """The map by the two directions in which the vectors differ most (PCA), neighbours by the cosine."""
    data, images = scenes()
    device = next(read.parameters()).device if isinstance(read, Module) else images.device
    vectors = unit(read(images.to(device)).cpu().float())  # (N, E)
    centred = vectors - vectors.mean(0)
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    places = centred @ directions[:2].T  # (N, 2)
    low, high = places.amin(0), places.amax(0)
    corners = ((places - low) / (high - low).clamp(min=1e-9) * (torch.tensor(CANVAS) - STAMP)).round().int()
    canvas = np.full((CANVAS[1], CANVAS[0], 3), 255, dtype=np.uint8)
    for (x, y), image in zip(corners.tolist(), images, strict=True):
        canvas[y : y + STAMP, x : x + STAMP] = np.asarray(to_pil(image).resize((STAMP, STAMP)))
    cosines, near = (vectors @ vectors.T).fill_diagonal_(-2).topk(NEAR)
    return Map(
        corners, canvas, near, cosines, {name: same[near.T, range(COUNT)].sum(0) for name, same in equal().items()}
    )


@cache
def equal() -> Mapping[str, Tensor]:
    """Attribute -> (N, N), 1 where two pictures have the same value."""
    data, _ = scenes()
    rows = {k: torch.tensor([v.index(data.attributes(i)[k]) for i in range(COUNT)]) for k, v in SINGLE.items()}
    return {name: (row[:, None] == row).int() for name, row in rows.items()}


def draw_map(axis: Axes, found: Map, number: int) -> None:
    """All pictures at their places; the chosen one and its neighbours are framed and joined by lines."""
    axis.imshow(found.canvas, interpolation="nearest", aspect="auto")
    centres = found.corners + STAMP / 2
    for rank, other in reversed([*enumerate(found.near[number].tolist(), start=1)]):
        axis.plot(*torch.stack([centres[number], centres[other]]).T, "--", color=FRAME, linewidth=1.2)
        put(axis, found, other, 1.5)
        x, y = found.corners[other].tolist()
        box = {"facecolor": "white", "edgecolor": FRAME, "pad": 1.5}
        axis.text(x + STAMP, y, str(rank), fontsize=8, va="center", ha="center", bbox=box, zorder=5)
    put(axis, found, number, 3.5)
    axis.set(xlim=(-2, CANVAS[0] + 2), ylim=(CANVAS[1] + 2, -2))
    axis.set_axis_off()


def put(axis: Axes, found: Map, number: int, line: float) -> None:
    """One picture once more, above the others, with a frame."""
    x, y = found.corners[number].tolist()
    axis.imshow(to_pil(scenes()[1][number]), extent=(x, x + STAMP, y + STAMP, y), aspect="auto", zorder=3)
    axis.add_patch(Rectangle((x, y), STAMP, STAMP, fill=False, edgecolor=FRAME, linewidth=line, zorder=4))


def draw_neighbours(axis: Axes, found: Map, number: int) -> None:
    """The chosen picture, and its neighbours with captions and cosines."""
    data, images = scenes()
    rows = [(number, f"picture {number + 1}", 3.5)]
    for rank, (other, cosine) in enumerate(
        zip(found.near[number].tolist(), found.cosines[number], strict=True), start=1
    ):
        rows.append((other, f"{rank}: picture {other + 1}, cosine {cosine:.3f}", 1.5))
    for row, (other, title, line) in enumerate(rows):
        axis.imshow(to_pil(images[other]), extent=(0, 0.92, row + 0.96, row + 0.04), interpolation="nearest")
        axis.add_patch(Rectangle((0, row + 0.04), 0.92, 0.92, fill=False, edgecolor=FRAME, linewidth=line))
        axis.text(1.05, row + 0.12, title, fontsize=9, fontweight="bold", va="top")
        axis.text(1.05, row + 0.40, caption_in_lines(data.caption(other)), fontsize=9, va="top")
    axis.set(xlim=(-0.05, 5), ylim=(len(rows) + 0.05, -0.05), aspect="auto")
    axis.set_axis_off()


def caption_in_lines(caption: str) -> str:
    """The caption in two lines, broken before the place."""
    return caption.replace(" at the ", "\nat the ").replace(" in the ", "\nin the ")


def in_words(name: str, found: Map, number: int) -> tuple[str, str]:
    """Alt text, and the words below the picture."""
    data, _ = scenes()
    others = ", ".join(str(other + 1) for other in found.near[number].tolist())
    words = f"Picture {number + 1}: {data.caption(number)}. Nearest by {name}: {others}."
    rows = []
    for attribute, shared in found.shared.items():
        chance = (equal()[attribute].sum() - COUNT).item() / (COUNT * (COUNT - 1))
        mine = f"{shared[number]} of {NEAR}"
        rows.append((attribute, mine, f"{shared.float().mean().item() / NEAR:.0%}", f"{chance:.0%}"))
    told = "; ".join(
        f"{attribute} {mine}, on average {mean}, by chance {chance}" for attribute, mine, mean, chance in rows
    )
    alt = f"Map of {COUNT} pictures by {name}. {words} They share: {told}."
    header = ("neighbours share", "of this picture", "of all pictures", "by chance")
    return alt, words + table_html(header, rows)
