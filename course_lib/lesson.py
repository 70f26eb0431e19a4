"""What the lessons share: the first cell, figures with alt text and tables.

Not a chapter: no lesson builds this, and nothing here computes what a lesson teaches. A figure reaches the page as an
HTML image with its alt text, because that is what screen readers find in every notebook program, and as a plain PNG
for pages that show no HTML.
"""

import base64
import html
import io
import os
import random
import textwrap
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # read once, when torch is imported: idle threads sleep
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # lessons download nothing

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from course_lib.errors import CourseError
from course_lib.images import figure_style, image_grid_figure
from course_lib.runs import choose_device
from course_lib.torchvision_ops import ensure_torchvision_ops

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 100  # a figure 8 inches wide is 800 pixels wide on the page, drawn twice as fine for sharp screens
MAX_ANIMATION = 1_000_000  # characters that an animation may add to a notebook
DRAWING = threading.RLock()  # matplotlib's settings are the program's: an explorer's thread and a cell take turns
STYLE = {
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "figure.titlesize": 13,
    "figure.titleweight": "bold",
    "font.size": 10.5,
    "grid.color": "#e4e4e4",
    "legend.frameon": False,
    "lines.linewidth": 2.2,
}


def setup(seed: int = 0) -> torch.device:
    """Every lesson's first call: fixed seeds, one thread, errors in words; returns the device to compute on.

    One thread adds numbers up in the same order on every machine, so that the printed digits agree with yours.

    Args:
        seed: of Python's, NumPy's and torch's random numbers.
    Returns:
        The CPU, unless the environment variable COURSE_DEVICE says cuda or auto.
    Raises:
        CourseError: COURSE_DEVICE is something else, or asks for a GPU that is not there.
    """
    ensure_torchvision_ops()
    _explain_errors()
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    torch.set_num_threads(1)
    return choose_device(os.environ.get("COURSE_DEVICE", "cpu"))


def _explain_errors() -> None:
    """In a notebook, a reader's typical mistakes give a sentence in place of a stack trace."""
    from IPython import get_ipython

    if (shell := get_ipython()) is not None:
        shell.set_custom_exc((CourseError, NameError), _tell)


def _tell(shell: Any, kind: type, error: Exception, trace: Any, tb_offset: int | None = None) -> None:
    shell._showtraceback(kind, error, [explain(error)])  # the cell still counts as failed


def explain(error: Exception) -> str:
    """The sentence for a CourseError or a NameError.

    >>> explain(NameError("name 'logits' is not defined", name="logits"))
    '"logits" is not known yet: a cell above was not run. Menu Run > Run All Above Selected Cell, then this one again.'
    """
    if isinstance(error, NameError):
        remedy = "Menu Run > Run All Above Selected Cell, then this one again."
        return f'"{error.name}" is not known yet: a cell above was not run. {remedy}'
    return str(error)


def show(figure: "Figure", alt: str) -> None:
    """Put a figure on the page, with alt text.

    Args:
        figure: matplotlib's.
        alt: what it shows, for a reader who cannot see it: the axes' meaning and what there is to notice.
    Raises:
        ValueError: alt is too short to say that.
    """
    alt, picture = _require_words(alt), photograph(figure, 2 * DPI)
    if not any(axis.images for axis in figure.axes):
        picture = picture.quantize(256)  # lines need no more colours: a third of the size
    code, width = encode(picture, "PNG", optimize=True), picture.width // 2
    image = f'<img alt="{html.escape(alt)}" width="{width}" src="data:image/png;base64,{code}">'
    page = {"text/plain": f"Figure: {alt}", "text/html": image, "image/png": code}
    _display(page, {"image/png": {"alt": alt, "width": width}})


def _require_words(alt: str) -> str:
    """The alt text on one line; too short a one is refused."""
    if len(alt) < 15:  # counted in characters: Chinese has no spaces
        raise ValueError(f'alt="{alt}" says too little; tell in a sentence or two what the figure shows')
    return " ".join(alt.split())


def photograph(figure: "Figure", dpi: int = DPI) -> Image.Image:
    """A figure as a picture, in colours of a page."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set(dpi=dpi, facecolor="white")
    (canvas := FigureCanvasAgg(figure)).draw()  # `savefig` works out the layout twice: a third of the time
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")


def encode(picture: Image.Image, kind: str, **settings: Any) -> str:
    """A picture as a file, written in letters: what a notebook holds."""
    picture.save(file := io.BytesIO(), kind, **settings)
    return base64.b64encode(file.getvalue()).decode()


def _display(page: Mapping[str, str], metadata: Mapping[str, Any] | None = None) -> None:
    from IPython import get_ipython
    from IPython.display import display

    if get_ipython() is None:  # a script or a test
        print(page["text/plain"])
    else:
        display(dict(page), raw=True, metadata=dict(metadata or {}))


@contextmanager
def figure(
    title: str, alt: str, columns: int = 1, rows: int = 1, size: tuple[float, float] | None = None
) -> Iterator["Axes | np.ndarray"]:
    """`with figure(title, alt) as axis:` draw with matplotlib's own commands; at the end the figure is shown.

    Args:
        title: over the whole figure.
        alt: as in `show`.
        columns, rows: how many axes.
        size: inches (width, height); at most 9 wide fits a page.
    Yields:
        One Axes, or an array of them: (columns,), (rows,) or (rows, columns).
    Raises:
        ValueError: an axis has no label; those that hold pictures, or are switched off, need none.
    """
    with new_axes(title, columns, rows, size) as (drawing, axes):
        yield axes
        _require_labels(axes, title)
        show(drawing, alt)


@contextmanager
def new_axes(title: str, columns: int, rows: int, size: tuple[float, float] | None) -> Iterator[tuple["Figure", Any]]:
    """An empty figure in the lessons' style, and its axes."""
    import matplotlib
    from matplotlib.figure import Figure

    width = {1: 6.5}.get(columns, 9)
    with DRAWING, figure_style(), matplotlib.rc_context(STYLE):
        drawing = Figure(size or (width, 3.4 * rows), layout="constrained")
        drawing.suptitle(title, parse_math=False)
        yield drawing, drawing.subplots(rows, columns)


def _require_labels(axes: "Axes | np.ndarray", title: str) -> None:
    for axis in np.ravel(axes):  # a colour bar is not among them
        if axis.axison and not axis.images and not (axis.get_xlabel() and axis.get_ylabel()):
            raise ValueError(f'an axis of "{title}" has no label; axis.set(xlabel=..., ylabel=...)')


def animate(
    frames: Sequence[Any], draw: Callable[..., None], title: str, alt: str, size: tuple[float, float] = (6.5, 4)
) -> None:
    """A figure that moves and needs no kernel to do so; a page that shows no HTML gets three of its frames instead.

    Six frames a second; the last one stays for two and a half, then it begins again. The reader can fold it away.

    Args:
        frames: what `draw` gets, one after the other, such as the states of a training.
        draw: (axis, frame), draws it on the empty axis; with fixed limits (axis.set(xlim=...)), or the axes will jump.
        title, alt: as in `figure`.
        size: inches (width, height).
    Raises:
        ValueError: the axis has no label, or all frames together are too large for a page.
    """
    alt, pages = _require_words(alt), []
    for frame in frames:
        with new_axes(title, 1, 1, size) as (drawing, axis):
            draw(axis, frame)
            _require_labels(axis, title)
            pages.append(photograph(drawing, DPI))
    wide, tall = pages[0].size
    film = _paste(pages, 0)  # one palette: what does not change costs nothing
    first, *others = (film.crop((0, top, wide, top + tall)) for top in range(0, film.height, tall))
    sheet = _paste([pages[0], pages[len(pages) // 2], pages[-1]], 0 if wide > 1.3 * tall else 1)
    milliseconds = [160] * len(others) + [2500]
    moving = encode(first, "GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    if len(moving) > MAX_ANIMATION:
        raise ValueError(f'"{title}" takes {len(moving) / 1e6:.1f} MB; use fewer frames or a smaller size')
    image = f'<img alt="{html.escape(alt)}" width="{wide}" src="data:image/gif;base64,{moving}">'
    folded = f"<details open><summary>Animation (click here to hide it)</summary>{image}</details>"
    page = {"text/plain": f"Animation: {alt}", "text/html": folded, "image/png": encode(sheet, "PNG", optimize=True)}
    _display(page, {"image/png": {"alt": alt, "width": sheet.width}})


def _paste(pages: Sequence[Image.Image], axis: int) -> Image.Image:
    """Pictures of one size below (axis 0) or beside (1) each other, in 128 colours."""
    return Image.fromarray(np.concatenate([np.asarray(page) for page in pages], axis)).quantize(128)


def lines(
    x: Tensor | Sequence[float],
    curves: Mapping[str, Tensor | Sequence[float]],
    title: str,
    labels: tuple[str, str],
    alt: str,
    **settings: Any,
) -> None:
    """The most frequent figure: curves over one axis, a legend beside them.

    Args:
        x: N numbers.
        curves: name -> N numbers.
        title, alt: as in `figure`.
        labels: of the x and the y axis, with units.
        settings: what `Axes.set` takes, such as ylim=(0, 5) or yscale="log".
    """
    with figure(title, alt, size=(8, 3.6)) as axis:
        for (name, y), dash in zip(curves.items(), ("-", "--", "-.", ":") * len(curves), strict=False):
            axis.plot(_numbers(x), _numbers(y), dash, label=name)  # told apart by dashes too, not only by colour
        axis.set(xlabel=labels[0], ylabel=labels[1], **settings)
        if len(curves) > 1:
            axis.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))


def heatmap(
    values: Tensor, title: str, labels: tuple[Sequence[str], Sequence[str]], alt: str, digits: int | None = 2
) -> None:
    """A matrix as coloured cells with the numbers in them.

    Args:
        values: (R, C).
        title, alt: as in `figure`.
        labels: R names of the rows and C names of the columns, in Latin letters.
        digits: after the point; None leaves the numbers out, for a large matrix.
    Raises:
        ValueError: the labels do not fit the matrix.
    """
    matrix, (down, across) = _numbers(values), labels
    if matrix.shape != (len(down), len(across)):
        raise ValueError(f"values {matrix.shape} need as many labels, found {len(down)} and {len(across)}")
    with figure(title, alt, size=(min(9, 2.8 + 0.62 * len(across)), 1.5 + 0.42 * len(down))) as axis:
        drawn = axis.imshow(matrix, aspect="auto")
        axis.grid(False)
        axis.set_xticks(range(len(across)), [textwrap.fill(name, 14) for name in across], rotation=40, ha="right")
        axis.set_yticks(range(len(down)), down)
        axis.figure.colorbar(drawn, shrink=0.8)
        for (row, column), value in np.ndenumerate(matrix) if digits is not None else ():
            color = "white" if drawn.norm(value) < 0.55 else "black"
            axis.text(column, row, f"{value:.{digits}f}", ha="center", va="center", fontsize=9, color=color)


def pictures(
    images: Tensor, captions: Sequence[str] | None = None, title: str = "", columns: int = 4, alt: str = ""
) -> None:
    """Pictures in a grid with their captions; Chinese ones stand below as text, so that no font is needed.

    Args:
        images: (B, 3, H, W) in [-1, 1], on any device.
        captions: B lines, or None.
        title: over the grid.
        columns: pictures in a row; with more than 4 a page makes the captions hard to read.
        alt: as in `show`; by default title and captions.
    """
    import matplotlib

    latin = all(caption.isascii() for caption in captions or ())
    over = captions if latin else [f"({number})" for number in range(1, len(images) + 1)]
    with DRAWING, matplotlib.rc_context(STYLE):
        drawing = image_grid_figure(images.detach().cpu(), over, columns, title)
    show(drawing, alt or f"{title}: {'; '.join(captions or [f'{len(images)} pictures'])}")
    if not latin:
        items = "".join(f"<li>{html.escape(caption)}</li>" for caption in captions)
        plain = "\n".join(f"({number}) {caption}" for number, caption in enumerate(captions, start=1))
        _display({"text/plain": plain, "text/html": f"<ol>{items}</ol>"})


def table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of one kind as a table; numbers are rounded to four digits, True is "yes".

    Args:
        rows: one mapping for each, column name -> text or number; all with the same columns.
    """
    columns = list(rows[0])
    cells = [[_cell(row[name]) for name in columns] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    plain = [
        "  ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)) for line in [columns, *cells]
    ]
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(f"<tr>{''.join(f'<td>{html.escape(text)}</td>' for text in line)}</tr>" for line in cells)
    page = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    _display({"text/plain": "\n".join(line.rstrip() for line in plain), "text/html": page})


def compare(parts: Mapping[str, tuple[Any, Any]]) -> None:
    """Show that ours equals theirs: a table with both, "exact" or "close", and the largest difference.

    Args:
        parts: what is compared -> (ours, theirs), numbers or tensors of one shape.
    Raises:
        AssertionError: a part differs by more than rounding; the table is shown first.
        ValueError: the shapes of a part differ.
    """
    rows, wrong = [], []
    for name, pair in parts.items():
        ours, theirs = (torch.as_tensor(side).detach().cpu() for side in pair)
        if ours.shape != theirs.shape:
            raise ValueError(f"{name}: ours {tuple(ours.shape)} and theirs {tuple(theirs.shape)} differ in shape")
        verdict, difference = _agreement(ours, theirs)
        wrong += [name] if verdict == "DIFFERENT" else []
        rows.append({"": name, "ours": _short(ours), "theirs": _short(theirs), "equal": verdict})
        rows[-1]["largest difference"] = f"{difference:.0e}" if difference else "0"
    table(rows)
    if wrong:
        raise AssertionError(f"different by more than rounding: {', '.join(wrong)}")


def _agreement(ours: Tensor, theirs: Tensor) -> tuple[str, float]:
    """ "exact", "close" (as torch.testing sees it for these numbers' precision) or "DIFFERENT", and by how much."""
    if torch.equal(ours, theirs):
        return "exact", 0.0
    gaps = (ours.double() - theirs.double()).abs()
    try:
        torch.testing.assert_close(ours, theirs, equal_nan=True, check_dtype=False)
    except AssertionError:
        return "DIFFERENT", gaps.max().item()
    return "close", gaps.nan_to_num(0).max().item()


def _numbers(values: Any) -> np.ndarray:
    return torch.as_tensor(values).detach().cpu().double().numpy()


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float | Tensor):
        return _short(torch.as_tensor(value).detach())
    return str(value)


def _short(values: Tensor) -> str:
    """A number, a few of them, or the shape of many."""
    if values.numel() == 1:
        return f"{values.item():.4g}"
    few = values.ndim == 1 and len(values) <= 4
    return f"[{', '.join(f'{value:.4g}' for value in values.tolist())}]" if few else f"shape {tuple(values.shape)}"
