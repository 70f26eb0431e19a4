"""LatentWalk (lesson 09): sliders along the main directions of a VAE's latent space, and a GAN between two noises."""

from collections.abc import Callable
from functools import cache
from typing import NamedTuple

import numpy as np
import torch
from ipywidgets import Button, Dropdown, FloatSlider, IntSlider, Layout
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.data.captions import SINGLE
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.gan import DCGANGenerator
from course_lib.images import make_grid, to_pil
from course_lib.lesson import new_axes
from course_lib.vae import VAE
from course_lib.widgets.base import Explorer, Scene, loaded_judge, table_html

PLACES = torch.linspace(-2, 2, 9)  # of a slider: standard deviations away from the picture
SHARES = torch.linspace(0, 1, 9)  # of the way between two noises
STARTS = 8
SURE = 0.9  # what the judge is less sure of than this is not told
SLIDER = {"layout": Layout(width="270px"), "style": {"description_width": "85px"}}


class Latents(NamedTuple):
    """The VAE; mean latent vectors of the pictures to begin with (N, Z), those pictures (N, 3, S, S), their captions;
    the main directions (Z, Z), one a row, each one standard deviation long, and their shares of the spread (Z,)."""

    vae: VAE
    starts: Tensor
    images: Tensor
    captions: list[str]
    directions: Tensor
    shares: Tensor


def latent_walk(
    start: int = 3, directions: int = 4, vae: str = "vae-shapes-32", gan: str = "gan-shapes-32"
) -> Explorer:
    """Walk from a picture along the directions in which a VAE's latent vectors differ most; beside it walks a GAN.

    Args:
        start: number of the picture to begin with, 0 to 7.
        directions: how many have a slider, 1 to 6.
        vae, gan: checkpoints of 32 x 32 pixels.
    Raises:
        CourseError: directions or start is out of range; no such checkpoint.
    """
    if not (1 <= directions <= 6 and 0 <= start < STARTS):
        raise CourseError(
            f"directions={directions}, start={start}: use 1 to 6 directions and a start from 0 to {STARTS - 1}"
        )
    space = load_latents(vae)
    names = [(caption, i) for i, caption in enumerate(space.captions)]
    wide = Layout(width="430px")
    first = Dropdown(options=names, value=start, description="picture", layout=wide, style=SLIDER["style"])
    sliders = [
        FloatSlider(0, min=-2, max=2, step=0.5, description=f"direction {i}", **SLIDER)
        for i in range(1, directions + 1)
    ]
    back = Button(description="back to the picture", tooltip="sets all directions to 0")
    noise = IntSlider(9, min=0, max=50, description="GAN: noises", **SLIDER)
    share = FloatSlider(0.5, min=0, max=1, step=0.125, description="GAN: way", **SLIDER)
    back.on_click(lambda _: [setattr(slider, "value", 0.0) for slider in sliders])

    def draw() -> Scene:
        offsets = torch.tensor([slider.value for slider in sliders])
        now = space.starts[first.value] + offsets @ space.directions[:directions]
        with torch.no_grad():
            rows = [
                space.vae.decode(now + (PLACES[:, None] - offset) * direction)
                for offset, direction in zip(offsets, space.directions, strict=False)
            ]  # each (9, 3, S, S)
            middle = space.vae.decode(now[None])
            walk = noise_walk(gan, noise.value)
        column = int(share.value * 8)
        with new_axes("", 2, 2, (9, 1.75 + 0.8 * directions)) as (figure, axes):
            place(figure, axes, directions)
            show_strips(axes[0, 0], [space.images[first.value][None], middle], None)
            axes[0, 0].set_title("real,\nVAE now", fontsize=9)
            show_strips(axes[0, 1], rows, [round(2 * slider.value) + 4 for slider in sliders])
            axes[0, 1].set_title("VAE: each row walks along one direction, through the picture drawn now")
            show_strips(axes[1, 0], [walk[column][None]], None)
            axes[1, 0].set_title("GAN now", fontsize=9)
            show_strips(axes[1, 1], [walk], [column])
            axes[1, 1].set_title("GAN: from one noise to another")
            label(axes[0, 1], PLACES, "standard deviations", [f"direction {i}" for i in range(1, directions + 1)])
            label(axes[1, 1], SHARES, "share of the way", ["noise"])
        return Scene(figure, *tell(sliders, rows, middle, walk, column, space.shares))

    title = "Through the latent space"
    about = "Move one direction at a time: what changes with it? Does an object move, or fade here and appear there?"
    return Explorer("latent-walk", title, about, [first, back, *sliders, noise, share], draw)


def tell(
    sliders: list[FloatSlider], rows: list[Tensor], middle: Tensor, walk: Tensor, column: int, shares: Tensor
) -> tuple[str, str]:
    """Alt text, and the words below the picture: what the judge reads along each row."""
    read = reader()
    lines = [
        (slider.description.split()[1], f"{slider.value:+.1f}", f"{part:.0%}", changes(read(row)))
        for slider, row, part in zip(sliders, rows, shares.tolist(), strict=False)
    ]
    lines.append(("GAN", f"{column / 8:.3f}", "", changes(read(walk))))
    now, forged = (
        ", ".join(filter(None, read(images)[0])) or "nothing sure" for images in (middle, walk[column, None])
    )
    alt = f"Pictures along {len(rows)} directions of a VAE's latent space, and nine of a GAN. "
    alt += "; ".join(
        f"{'' if name == 'GAN' else 'direction '}{name} at {value}: {what}" for name, value, _, what in lines
    )
    words = f"Read off by a judge, where it is at least {SURE:.0%} sure. VAE now: {now}. GAN now: {forged}."
    return alt, words + table_html(("direction", "at", "share of the spread", "what changes along the row"), lines)


@cache
def load_latents(name: str) -> Latents:
    """A VAE and the main directions of its latent space: the principal components of 1,920 encoded pictures."""
    vae = VAE.from_pretrained(name)
    every, unseen = (CaptionedShapes(split, vae.config.image_size, length=1920) for split in ("all", "heldout"))
    with torch.no_grad():
        means = torch.cat([vae.encode(every.images(range(i, i + 480)))[0] for i in range(0, 1920, 480)])
        images = unseen.images(range(STARTS))
        starts = vae.encode(images)[0]
    _, sizes, directions = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    biggest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    directions = directions * biggest.sign()  # a direction and its opposite are one: the same on every machine
    spreads = sizes / len(means) ** 0.5  # standard deviations, the largest first
    captions = [unseen.caption(i) for i in range(STARTS)]
    variances = spreads.square()
    return Latents(vae, starts, images, captions, directions * spreads[:, None], variances / variances.sum())


@cache
def load_gan(name: str) -> DCGANGenerator:
    """The generator, read once and never changed."""
    return DCGANGenerator.from_pretrained(name)


def noise_walk(name: str, seed: int) -> Tensor:
    """Nine pictures of a GAN (9, 3, S, S), straight from one noise to another; both come from the seed."""
    gan = load_gan(name)
    one, other = torch.randn(2, gan.z_size, generator=torch.Generator().manual_seed(seed))
    with torch.no_grad():
        return gan(one + SHARES[:, None] * (other - one))


def reader() -> Callable[[Tensor], list[list[str | None]]]:
    """Pictures (B, 3, 32, 32) -> for each what the judge reads, in the order of `SINGLE`; None where it is not sure."""
    judge = loaded_judge(32)

    def read(images: Tensor) -> list[list[str | None]]:
        with torch.no_grad():
            columns = [logits.softmax(1).max(1) for logits in judge(images)]
        values = [
            [names[i] if sure >= SURE else None for sure, i in zip(column.values, column.indices, strict=True)]
            for column, names in zip(columns, SINGLE.values(), strict=True)
        ]
        return [list(row) for row in zip(*values, strict=True)]

    return read


def changes(read: list[list[str | None]]) -> str:
    """The attributes of which more than one value was read on the way, in the order in which they came."""
    found = []
    for name, values in zip(SINGLE, zip(*read, strict=True), strict=True):
        seen = list(dict.fromkeys(filter(None, values)))
        if len(seen) > 1:
            found.append(f"{name} {' → '.join(seen)}")
    return "; ".join(found) or "nothing that it is sure of"


def place(figure: Figure, axes: np.ndarray, directions: int) -> None:
    """Every panel (2, 2) has its place; to work a layout out would take a third of the time of drawing."""
    figure.set_layout_engine(None)
    height, below, between = figure.get_figheight(), 0.41, 0.63  # inches
    above = 0.22 if directions > 2 else 0.42  # the title on the left has two lines
    side = (height - below - between - above) / (directions + 1)  # of a picture
    bottoms = (below + side + between, directions), (below, 1)
    for row, (bottom, count) in zip(axes, bottoms, strict=True):
        for axis, (left, width) in zip(row, ((0.005, 0.1), (0.227, 0.738)), strict=True):
            axis.set_position([left, bottom / height, width, count * side / height])


def show_strips(axis: Axes, rows: list[Tensor], framed: list[int] | None) -> None:
    """Rows of pictures (C, 3, S, S), side by side and below each other; in each row one has a frame."""
    side, columns = rows[0].shape[-1] + 2, len(rows[0])
    grid = to_pil(make_grid(torch.cat(rows), columns))
    axis.imshow(grid, extent=(0, columns, len(rows), 0), interpolation="nearest")
    axis.set_axis_off()
    gap = 1 / side
    for row, column in enumerate(framed or []):
        x0, x1, y0, y1 = column + gap, column + 1 - gap, row + gap, row + 1 - gap
        axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="#D55E00", lw=2.5)


def label(axis: Axes, places: Tensor, below: str, beside: list[str]) -> None:
    """Numbers under the columns, names before the rows."""
    axis.set_axis_on()
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.set_xticks([i + 0.5 for i in range(len(places))], [f"{place:g}" for place in places.tolist()], fontsize=9)
    axis.set_yticks([i + 0.5 for i in range(len(beside))], beside, fontsize=9)
    axis.tick_params(length=0)
    axis.set_xlabel(below, fontsize=9)
