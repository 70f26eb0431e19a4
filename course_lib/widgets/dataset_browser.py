"""DatasetBrowser (lesson 02): pictures and captions, page by page; search, and what the audit finds about each."""

import textwrap
from collections import Counter
from collections.abc import Generator, Iterator, Mapping
from functools import cache

import torch
from ipywidgets import BoundedIntText, Button, Dropdown, Layout, Text
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from PIL import Image

from course_lib.data.audit import BLURRED, FLAT, THUMBNAIL, measure, near_pairs
from course_lib.data.emoji import CaptionedEmoji
from course_lib.data.folder import CaptionedFolder
from course_lib.data.pictures import CaptionedPictures
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError, nearest
from course_lib.images import COLORBLIND_SAFE, text_or_fallback, to_pil
from course_lib.lesson import new_axes
from course_lib.widgets.base import Explorer, Scene

COLUMNS, PAGE = 6, 12  # pictures in a row, on a page
TALL = 4.1 / 3  # height of a row, in widths of a picture
LENGTH = 600  # of the data sets of shapes
MOST = 1000  # pictures that the audit looks at
FLAGGED = COLORBLIND_SAFE[3]
DATA = ("shapes", "shapes, two objects", "emoji")
FLAGS = ("blurred", "flat", "near-duplicate")
Flags = dict[int, dict[str, int]]  # picture -> flag -> the picture it is about: itself, or the one it is like


def dataset_browser(
    data: str = DATA[0], split: str = "train", search: str = "", own: Mapping[str, CaptionedFolder] | None = None
) -> Explorer:
    """Turn the pages of a data set, search its captions, and let the audit point at pictures.

    Args:
        data: which one to open, "shapes", "shapes, two objects", "emoji" or a name from `own`.
        split: "train", "heldout", "unseen" (emoji only) or "all".
        search: what captions must contain.
        own: folders to choose from, too.
    Raises:
        CourseError: there is no such data set or split.
    """
    folders, known = dict(own or {}), {}
    names, splits = [*DATA, *folders], ("train", "heldout", "unseen", "all")
    for argument, value, choice in (("data", data, names), ("split", split, splits)):
        if value not in choice:
            raise CourseError(f'{argument}="{value}" is unknown; {nearest(value, choice)}')
    looks = {"layout": Layout(width="255px"), "style": {"description_width": "70px"}}
    which = Dropdown(options=names, value=data, description="data set", **looks)
    part = Dropdown(options=splits, value=split, description="split", **looks)
    text = Text(search, description="search", placeholder="a word of a caption", **looks)
    flag = Dropdown(options={"all pictures": ""} | {f"only: {x}": x for x in FLAGS}, description="show", **looks)
    page = BoundedIntText(1, 1, 999, description="page", **looks)
    stop = Button(description="Stop the audit", tooltip="it looks at up to 1000 pictures")

    def draw() -> Iterator[Scene]:
        if part.value == "unseen" and which.value != "emoji":
            raise CourseError('split="unseen" is there for the emoji only; use train, heldout or all')
        return work(which.value, part.value, text.value.strip(), flag.value, page.value)

    def work(name: str, split: str, search: str, wanted: str, number: int) -> Iterator[Scene]:
        yield Scene(None, words=f"Opening {name} …")
        pictures = folders[name].with_split(split) if name in folders else open_data(name, split)
        found = [i for i in range(len(pictures)) if search.lower() in pictures.caption(i).lower()]
        heading = f'{len(found)} of {len(pictures)} captions contain "{search}"' if search else f"{len(found)} pictures"
        if (name, split) not in known:
            if not wanted:
                yield show_page(pictures, found, {}, number, f"{heading}. The audit begins …")
            known[name, split] = yield from flagged(pictures)
        flags = known[name, split]
        if wanted:
            found = [i for i in found if wanted in flags.get(i, ())]
            found.sort(key=lambda i: (min(i, flags[i][wanted]), i))  # copies side by side
            heading += f"; {len(found)} of them are flagged: {wanted}"
        yield show_page(pictures, found, flags, number, f"{heading}. {summary(pictures, flags)}")

    for control in (which, part, text, flag):
        control.observe(lambda _: setattr(page, "value", 1), "value")
    about = "Search for a word. Then let it show only what the audit has flagged: do you agree?"
    explorer = Explorer("dataset-browser", "What is in the data?", about, [which, part, text, flag, page, stop], draw)
    stop.on_click(explorer.halt)
    return explorer


@cache
def open_data(name: str, split: str) -> CaptionedPictures:
    """One of the course's own data sets, 64 x 64 pixels."""
    if name == "emoji":
        return CaptionedEmoji(split, 64)
    return CaptionedShapes(split, 64, length=LENGTH, captions="varied", scene="single" if name == "shapes" else "pair")


def flagged(pictures: CaptionedPictures) -> Generator[Scene, None, Flags]:
    """Flags by the limits of `course_lib.data.audit`; in words, after each batch, how many pictures were looked at."""
    flags, seen, count = {}, 0, min(len(pictures), MOST)
    hashes, thumbnails = torch.empty(0, 256), torch.empty(0, 3 * THUMBNAIL**2)
    for *mine, sharp, spread in measure(pictures, range(count)):
        hashes, thumbnails = (torch.cat(both) for both in zip((hashes, thumbnails), mine, strict=True))
        flat = spread < FLAT
        for name, mask in {"flat": flat, "blurred": (sharp < BLURRED) & ~flat}.items():
            for i in (seen + mask.nonzero()[:, 0]).tolist():
                flags.setdefault(i, {})[name] = i
        pairs = near_pairs(mine, (hashes, thumbnails)) + torch.tensor([seen, 0])
        for i, j in pairs.tolist():
            for one, other in ((i, j), (j, i)) if i != j else ():
                flags.setdefault(one, {}).setdefault("near-duplicate", other)
        seen = len(hashes)
        yield Scene(None, words=f"The audit has looked at {seen} of {count} pictures …")
    return flags


def summary(pictures: CaptionedPictures, flags: Flags) -> str:
    """How many pictures have each flag, and how many files of a folder are left out."""
    counts = Counter(name for all_of_one in flags.values() for name in all_of_one)
    told = ", ".join(f"{counts[name]} {name}" for name in FLAGS)
    left_out = len(getattr(pictures, "problems", ()))
    more = f" {left_out} files of the folder are unusable and left out." if left_out else ""
    return f"Flags of the {min(len(pictures), MOST)} that the audit looked at: {told}.{more}"


def show_page(pictures: CaptionedPictures, found: list[int], flags: Flags, number: int, words: str) -> Scene:
    """One page of the pictures with the numbers `found`; a page beyond the last is the last one."""
    pages = max(1, -(-len(found) // PAGE))
    number = min(number, pages)
    shown = found[(number - 1) * PAGE : number * PAGE]
    told = [", ".join(in_words(name, of) for name, of in flags.get(i, {}).items()) for i in shown]
    captions = [f"{i + 1}: {pictures.caption(i)}" for i in shown]
    with new_axes("", 1, 1, (9, 4.1)) as (figure, axis):
        figure.set_layout_engine(None)
        figure.subplots_adjust(0, 0, 1, 1)
        axis.set(xlim=(0, COLUMNS), ylim=(2 * TALL, 0))
        axis.set_axis_off()
        if not shown:
            axis.text(COLUMNS / 2, 1.4, "No picture to show", ha="center", fontsize=13)
        images = pictures.images(shown) if shown else []
        for place, (image, caption, flag) in enumerate(zip(images, captions, told, strict=True)):
            draw_one(axis, *divmod(place, COLUMNS), to_pil(image), caption, flag)
    flagged = [f"{i + 1} ({flag})" for i, flag in zip(shown, told, strict=True) if flag]
    place = f"Page {number} of {pages}."
    alt = f"{place} {len(shown)} pictures: {'; '.join(captions)}. Flagged: {', '.join(flagged) or 'none'}."
    return Scene(figure, alt, f"{place} {words} Flagged on this page: {', '.join(flagged) or 'none'}.")


def in_words(flag: str, of: int) -> str:
    """A flag, and of which picture."""
    return f"{flag} of {of + 1}" if flag == "near-duplicate" else flag


def draw_one(axis: Axes, row: int, column: int, image: Image.Image, caption: str, flag: str) -> None:
    """A picture at its place, 1 wide and TALL high, its caption below, framed if it has flags."""
    left, top = column + 0.08, row * TALL + 0.03
    axis.imshow(image, extent=(left, left + 0.84, top + 0.84, top), aspect="auto", interpolation="nearest")
    frame = {"edgecolor": FLAGGED, "linewidth": 3} if flag else {"edgecolor": "#bbbbbb", "linewidth": 0.8}
    axis.add_patch(Rectangle((left, top), 0.84, 0.84, fill=False, **frame))
    lines = textwrap.wrap(text_or_fallback(caption, caption.split(":")[0]), 23)[:5]
    axis.text(left, top + 0.88, "\n".join(lines), fontsize=7.5, va="top", parse_math=False)
    if flag:
        box = {"facecolor": FLAGGED, "edgecolor": "none", "pad": 2}
        axis.text(left + 0.03, top + 0.8, flag.replace(", ", "\n"), fontsize=7.5, color="white", va="bottom", bbox=box)
