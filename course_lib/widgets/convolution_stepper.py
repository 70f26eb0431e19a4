"""ConvolutionStepper (lesson 05): a kernel moves over a picture, or paints one; the numbers add up."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from ipywidgets import Combobox, Dropdown, IntSlider, Layout
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.patches import Rectangle
from torch import Tensor

from course_lib.errors import CourseError
from course_lib.images import COLORBLIND_SAFE
from course_lib.layers import conv2d, conv_transpose2d
from course_lib.lesson import new_axes
from course_lib.widgets.base import Explorer, Scene

PICTURE = torch.tensor([[0.0, 0, 0, 2, 2, 2]] * 4 + [[1.0] * 6] * 2)  # lesson 05's, two pixels larger
NUMBERS = torch.arange(1.0, 10).view(3, 3)
KERNELS = (
    *("-1 1; -1 1", "-1 -1; 1 1", "1 1; 1 1", "-1 0 1; -1 0 1; -1 0 1", "0 1 0; 1 -4 1; 0 1 0"),
    *("1 1 1; 1 1 1; 1 1 1", "1 2 2 1; 2 4 4 2; 2 4 4 2; 1 2 2 1"),
)
MOST = 4  # rows and columns of a kernel
FRAME = COLORBLIND_SAFE[3]
PLACES = (0.01, 0.33), (0.37, 0.13), (0.53, 0.13), (0.69, 0.30)  # left edge and width of the four panels


class Step(NamedTuple):
    """What one step does.

    Args:
        source: the padded picture (H, W), or the small numbers.
        touched: rows and columns of the source that this step reads.
        products: (kh, kw), what is multiplied by what gives it.
        target: the output so far, nan where nothing has been written, or the canvas so far, uncropped.
        written: rows and columns of the target that this step writes.
        whole: the target after the last step, cropped: what the library must say too.
        theirs: what the library says, of the same shape.
        steps: how many there are.
    """

    source: Tensor
    touched: tuple[Tensor, Tensor]
    products: Tensor
    target: Tensor
    written: tuple[Tensor, Tensor]
    whole: Tensor
    theirs: Tensor
    steps: int


def convolution_stepper(kernel: str = KERNELS[0], step: int = 13, transposed: bool = False) -> Explorer:
    """Move the window by hand, and see what is multiplied, added and written where.

    Args:
        kernel: its rows, separated by semicolons, such as "-1 1; -1 1".
        step: where the window stands at first, from 1.
        transposed: begin with the way back.
    Raises:
        CourseError: the kernel cannot be read.
    """
    read_kernel(kernel)
    narrow, label = Layout(width="255px"), {"description_width": "70px"}
    layers = {"convolution": False, "transposed convolution": True}
    layer = Dropdown(options=layers, value=transposed, description="layer", layout=narrow, style=label)
    weights = Combobox(value=kernel, options=KERNELS, description="kernel", layout=Layout(width="525px"), style=label)
    weights.continuous_update, weights.tooltip = False, "rows of numbers, separated by semicolons; then Enter"
    sides = [("stride", 1, 3), ("padding", 0, 2), ("dilation", 1, 3)]
    sliders = [IntSlider(low, low, high, description=d, layout=narrow, style=label) for d, low, high in sides]
    place = IntSlider(step, 1, max(step, 100), description="step", layout=Layout(width="797px"), style=label)

    def draw() -> Scene:
        settings, w = [slider.value for slider in sliders], read_kernel(weights.value)
        function = paint if layer.value else convolve
        done = function(w, place.value, *settings)
        place.max = done.steps  # moves the slider, too, if it stood farther right
        with new_axes("", 4, 1, (9, 3.3)) as (figure, axes):
            figure.set_layout_engine(None)  # every panel has its place
            for left, sign in zip((0.355, 0.515, 0.675), ("×", "=", "→"), strict=True):
                figure.text(left, 0.45, sign, fontsize=16, ha="center", va="center")
            draw_step(axes, done, w, settings[1], layer.value)
        return Scene(figure, *in_words(done, w, place.value, settings, layer.value))

    about = "Move the window step by step: which numbers are multiplied, and where does their sum go?"
    return Explorer(
        "convolution-stepper", "A convolution, step by step", about, [layer, weights, *sliders, place], draw
    )


def read_kernel(text: str) -> Tensor:
    """ "-1 1; -1 1" -> (2, 2)."""
    try:
        kernel = torch.tensor([[float(x) for x in row.split()] for row in text.strip(" ;").split(";")])
    except ValueError:  # no number, or rows of different lengths
        kernel = torch.empty(0, 0)
    if not kernel.numel() or max(kernel.shape) > MOST or not kernel.isfinite().all():
        remedy = f'write up to {MOST} rows of up to {MOST} numbers, all equally long, such as "-1 1; -1 1"'
        raise CourseError(f'kernel="{text}" cannot be read; {remedy}')
    return kernel


def convolve(kernel: Tensor, step: int, stride: int, padding: int, dilation: int) -> Step:
    """The window gathers: kernel (kh, kw), step from 1."""
    side = len(PICTURE) + 2 * padding
    padded = torch.zeros(side, side)
    padded[padding : side - padding, padding : side - padding] = PICTURE
    reach = [dilation * (k - 1) + 1 for k in kernel.shape]
    if max(reach) > side:
        told = f"dilation={dilation} spreads the kernel over {max(reach)} pixels, and the padded picture has {side}"
        raise CourseError(f"{told}; lower the dilation or raise the padding")
    rows, columns = ((side - r) // stride + 1 for r in reach)
    target = torch.full((rows, columns), torch.nan)
    whole = torch.empty(rows, columns)
    for place in range(rows * columns):
        i, j = divmod(place, columns)
        touched = tuple(x * stride + dilation * torch.arange(k) for x, k in zip((i, j), kernel.shape, strict=True))
        products = padded[touched[0][:, None], touched[1]] * kernel + 0.0  # no -0
        whole[i, j] = products.sum()
        if place < step:
            target[i, j] = whole[i, j]
            now = touched, products, (torch.tensor([i]), torch.tensor([j]))
    theirs = conv2d(PICTURE[None, None], kernel[None, None], None, stride, padding, dilation)[0, 0]
    touched, products, written = now
    return Step(padded, touched, products, target, written, whole, theirs, rows * columns)


def paint(kernel: Tensor, step: int, stride: int, padding: int, dilation: int) -> Step:
    """The way back: each of nine numbers spreads over a window; padding crops the canvas."""
    reach = [dilation * (k - 1) + 1 for k in kernel.shape]
    side = [(len(NUMBERS) - 1) * stride + r for r in reach]
    if min(side) <= 2 * padding:
        raise CourseError(f"padding={padding} crops all of a canvas of {min(side)} pixels; use less")
    canvas, shown = torch.zeros(side), None
    for place in range(NUMBERS.numel()):
        i, j = divmod(place, len(NUMBERS))
        window = tuple(x * stride + dilation * torch.arange(k) for x, k in zip((i, j), kernel.shape, strict=True))
        products = NUMBERS[i, j] * kernel + 0.0  # no -0
        canvas[window[0][:, None], window[1]] += products
        if place + 1 == min(step, NUMBERS.numel()):
            shown = (torch.tensor([i]), torch.tensor([j])), products, canvas.clone(), window
    whole = canvas[padding : side[0] - padding, padding : side[1] - padding]
    theirs = conv_transpose2d(NUMBERS[None, None], kernel[None, None], None, stride, padding, 0, 1, dilation)[0, 0]
    return Step(NUMBERS, *shown, whole, theirs, NUMBERS.numel())


def draw_step(axes: Sequence[Axes], step: Step, kernel: Tensor, padding: int, transposed: bool) -> None:
    """Source, kernel, products and target side by side, the cells of this step framed."""
    everywhere = tuple(torch.arange(k) for k in kernel.shape)
    titles = (
        ("numbers", "kernel", "painting", "canvas so far")
        if transposed
        else ("picture", "kernel", "products", "output: the sums")
    )
    tables = step.source, kernel, step.products, step.target
    frames = step.touched, everywhere, everywhere, step.written
    for axis, title, table, frame, (left, width) in zip(axes, titles, tables, frames, PLACES, strict=True):
        margin = padding if axis is axes[3 * transposed] else 0
        draw_table(axis, table, frame, margin, least=4 if width > 0.2 else 2)
        axis.set_title(title)
        axis.set_position([left, 0.03, width, 0.85])


def draw_table(axis: Axes, table: Tensor, frame: tuple[Tensor, Tensor], margin: int, least: int) -> None:
    """Numbers as cells, orange if negative, purple if positive, hatched in the margin; room for `least` of them."""
    height, width = table.shape
    most = max(table.nan_to_num().abs().max().item(), 1e-6)
    axis.imshow(table.numpy(), cmap="PuOr", vmin=-2.5 * most, vmax=2.5 * most)
    size = min(12.0, 100 / max(table.shape))
    cells = torch.cartesian_prod(torch.arange(height), torch.arange(width)).tolist()
    inside = [margin <= i < height - margin and margin <= j < width - margin for i, j in cells]
    outside = [cell for cell, is_inside in zip(cells, inside, strict=True) if not is_inside]
    add_squares(axis, outside, 1, facecolor="#eeeeee", edgecolor="#999999", hatch="///")
    add_squares(axis, cells, 1, facecolor="none", edgecolor="#d0d0d0", linewidth=0.8)
    for (i, j), is_inside in zip(cells, inside, strict=True):
        if not table[i, j].isnan():
            look = {"fontsize": size, "color": "black" if is_inside else "#555555"}
            axis.text(j, i, f"{table[i, j].item():.4g}", ha="center", va="center", parse_math=False, **look)
    framed = torch.cartesian_prod(*frame).tolist()
    add_squares(axis, framed, 0.9, facecolor="none", edgecolor=FRAME, linewidth=2.5)
    axis.grid(False)
    room = max(height, width, least) / 2
    axis.set(
        xlim=(width / 2 - 0.5 - room, width / 2 - 0.5 + room), ylim=(height / 2 - 0.5 + room, height / 2 - 0.5 - room)
    )
    axis.set_axis_off()


def add_squares(axis: Axes, cells: list[list[int]], side: float, **look: Any) -> None:
    """Squares around the middles of cells; all in one go, for one patch each would take half of the drawing's time."""
    squares = [Rectangle((j - side / 2, i - side / 2), side, side) for i, j in cells]
    axis.add_collection(PatchCollection(squares, **look), autolim=False)


def in_words(done: Step, kernel: Tensor, number: int, settings: list[int], transposed: bool) -> tuple[str, str]:
    """Alt text, and the words below the picture."""
    stride, padding, dilation = settings
    i, j = (int(x[0]) for x in (done.touched if transposed else done.written))
    kh, kw = kernel.shape
    if transposed:
        what = f"Number {number} of {done.steps}: {done.source[i, j]:g} times the kernel is added to the canvas, "
        what += f"from row {int(done.written[0][0]) + 1} and column {int(done.written[1][0]) + 1} on."
        size = f"A side of {len(NUMBERS)} becomes ({len(NUMBERS)} - 1) · {stride} - 2 · {padding} + "
        size += f"{dilation} · ({kh} - 1) + 1 = {len(done.whole)}."
        ones = torch.ones_like(kernel), torch.ones_like(NUMBERS)
        coats = conv_transpose2d(ones[1][None, None], ones[0][None, None], None, stride, padding, 0, 1, dilation)
        size += f" Coats of paint on a pixel: {coats.min():g} to {coats.max():g}."
    else:
        window = done.source[done.touched[0][:, None], done.touched[1]]
        pairs = zip(window.flatten().tolist(), kernel.flatten().tolist(), strict=True)
        total = " + ".join(f"{a:g}·{b:g}" if b >= 0 else f"{a:g}·({b:g})" for a, b in pairs)
        what = f"Window {number} of {done.steps}, for row {i + 1}, column {j + 1} of the output: "
        what += f"{total} = {done.target[i, j]:g}."
        size = f"A side of {len(PICTURE)} becomes ({len(PICTURE)} + 2 · {padding} - {dilation} · ({kh} - 1) - 1) // "
        size += f"{stride} + 1 = {len(done.whole)}."
    gap = (done.whole - done.theirs).abs().max().item()
    name = "conv_transpose2d" if transposed else "conv2d"
    equal = f"equal to {name} of course_lib.layers" if gap < 1e-4 else f"NOT equal to {name}, by up to {gap:.2g}"
    proof = f"All steps together are {equal}."
    rows = "; ".join(" ".join("·" if x != x else f"{x:g}" for x in row) for row in done.target.tolist())
    layer = "Transposed convolution" if transposed else "Convolution"
    alt = f"{layer} with a kernel of {kh} x {kw}, stride {stride}, padding {padding}, dilation {dilation}. {what}"
    return alt, f"{what}<br>So far, row by row: {rows}.<br>{size} {proof}"
