"""SimilarityMatrix (lesson 08): own captions against pictures of the shapes' grammar, as cosines."""

import copy
from functools import cache

import torch
from ipywidgets import Dropdown, Layout, Textarea
from matplotlib.axes import Axes
from torch import Tensor

from course_lib.alignment import AlignmentModel, load_alignment
from course_lib.data.captions import PAIR, SINGLE, parse
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.images import text_or_fallback, to_pil
from course_lib.lesson import new_axes
from course_lib.tokenizer import Tokenizer
from course_lib.widgets.base import Explorer, Scene, quiet, table_html

MOST = 6  # lines in each box
MODELS = ("align-shapes-64", "align-shapes-32")
UNSAID = {"size": "large", "color": "red", "position": "center", "background": "cream", "color2": "blue"}
TWINS = (
    "a red circle left of a blue square",
    "a blue square left of a red circle",
    "a blue circle left of a red square",
)
EXAMPLES = {  # captions, pictures
    "word-order twins": ((*TWINS, "红色圆形在蓝色正方形左边", "a crimson disc and an azure box"), TWINS),
    "other words": (
        ("a small green heart", "tiny emerald heart", "很小的翠绿色爱心", "a large green star", "巨大的绿色星星"),
        ("a small green heart", "a large green star", "a small yellow heart"),
    ),
    "one word said": (
        ("red", "circle", "small", "top left", "a brake disc"),
        ("a large red circle at the top left", "a small red star", "a small blue circle at the top left"),
    ),
}
WIDTH, HEIGHT = 1.7, 0.5  # of a cell; a picture is 1 wide


def similarity_matrix(example: str = "word-order twins", model: str = "align-shapes-64") -> Explorer:
    """Write captions, and of what there shall be pictures; see who finds whom.

    Args:
        example: what stands in the boxes at first, one of `EXAMPLES`.
        model: that compares them at first, one of `MODELS`.
    """
    box = {"layout": Layout(width="390px", height="125px"), "style": {"description_width": "80px"}}
    captions = Textarea("\n".join(EXAMPLES[example][0]), description="captions", **box)
    wanted = Textarea("\n".join(EXAMPLES[example][1]), description="pictures of", **box)
    narrow = {"description_width": "80px"}
    examples = quiet(Dropdown(options=list(EXAMPLES), value=example, description="example", style=narrow))
    which = Dropdown(options=MODELS, value=model, description="model", style=narrow)

    def choose(_: dict) -> None:
        captions.value, wanted.value = ("\n".join(lines) for lines in EXAMPLES[examples.value])

    def draw() -> Scene:
        texts, scenes = lines_of(captions.value, "captions"), [scene(x) for x in lines_of(wanted.value, "pictures of")]
        images = pictures_of(scenes)
        aligned, tokenizer = load(which.value)
        fits = aligned.similarity(images, texts, tokenizer).T  # (captions, pictures)
        tall = HEIGHT * len(texts) + 1.2
        with new_axes("", 1, 1, (9, 0.3 + tall * min(1.0, 5.6 / (WIDTH * len(images))))) as (figure, axis):
            draw_matrix(axis, fits, images, [text_or_fallback(text, "") for text in texts])
        rows, found = [], []
        for number, (text, row) in enumerate(zip(texts, fits.tolist(), strict=True), start=1):
            order = sorted(range(len(row)), key=row.__getitem__, reverse=True)
            lead = f"{row[order[0]] - row[order[1]]:.2f}" if len(row) > 1 else "no other"
            found.append(f"caption {number} finds picture {order[0] + 1}")
            rows.append((f"{number} {text}", order[0] + 1, f"{row[order[0]]:.2f}", lead))
        alt = f"Cosines of {len(texts)} captions and {len(images)} pictures: {', '.join(found)}."
        best = ", ".join(f"{i} finds caption {j + 1}" for i, j in enumerate(fits.argmax(0).tolist(), start=1))
        about = f"Frame: a caption's nearest picture. Star: a picture's nearest caption (picture {best})."
        return Scene(
            figure, alt, about + table_html(("caption", "nearest picture", "cosine", "lead over the next"), rows)
        )

    examples.observe(choose, "value")
    about = "Write a caption of your own, up to six. Then choose align-shapes-32, which has never seen two objects."
    title = "Captions against pictures"
    return Explorer("similarity-matrix", title, about, [captions, wanted, examples, which], draw)


@cache
def load(model: str) -> tuple[AlignmentModel, Tokenizer]:
    """The model and its tokenizer, read once and never changed."""
    return load_alignment(model)


def lines_of(text: str, box: str) -> list[str]:
    """The lines that say something, 1 to 6.

    Raises:
        CourseError: there are fewer or more.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not 1 <= len(lines) <= MOST:
        raise CourseError(f'"{box}" has {len(lines)} lines; write 1 to {MOST}')
    return lines


def scene(line: str) -> tuple[str, ...]:
    """The attributes of the picture that a line asks for, as in `SINGLE` or `PAIR`; what is unsaid is filled in.

    Raises:
        CourseError: it names no shape, or two objects that look the same.
    """
    said = parse(line)
    if "shape" not in said:
        raise CourseError(
            f'"pictures of" has the line "{line}", which names no shape; use {", ".join(SINGLE["shape"])}'
        )
    found = tuple((UNSAID | said)[name] for name in (PAIR if "shape2" in said else SINGLE))
    if found[:2] == found[3:5]:
        raise CourseError(f'"pictures of" has the line "{line}" with two objects that look the same; change a word')
    return found


@cache
def blank() -> CaptionedShapes:
    """A data set whose scenes are to be replaced; its jitter stays, so that a scene always looks the same."""
    return CaptionedShapes("all", 64, length=MOST)


def pictures_of(scenes: list[tuple[str, ...]]) -> Tensor:
    """Real pictures of scenes: (N, 3, 64, 64) in [-1, 1]."""
    data = copy.copy(blank())
    data.combinations, data.order = scenes, list(range(len(scenes)))
    return data.images(range(len(scenes)))


def draw_matrix(axis: Axes, fits: Tensor, images: Tensor, names: list[str]) -> None:
    """Cosines (captions, pictures), over each column its picture, before each row its caption, if a font has it."""
    rows, columns = fits.shape
    down, across = rows * HEIGHT, columns * WIDTH
    axis.imshow(fits.numpy(), vmin=-0.5, vmax=1, extent=(0, across, down, 0))
    for column, image in enumerate(images):
        middle = (column + 0.5) * WIDTH
        axis.imshow(to_pil(image), extent=(middle - 0.5, middle + 0.5, -0.08, -1.08))
    best, back = fits.argmax(1).tolist(), fits.argmax(0).tolist()
    for row, line in enumerate(fits.tolist()):
        for column, cosine in enumerate(line):
            left, top, text = column * WIDTH, row * HEIGHT, f"{cosine:.2f}" + (" ★" if back[column] == row else "")
            color = "black" if cosine > 0.4 else "white"
            axis.text(left + WIDTH / 2, top + HEIGHT / 2, text, ha="center", va="center", color=color)
            if best[row] == column:
                frame = [(left + 0.04, top + 0.04), (left + WIDTH - 0.04, top + HEIGHT - 0.04)]
                (x0, y0), (x1, y1) = frame
                axis.plot([x0, x1, x1, x0, x0], [y0, y0, y1, y1, y0], color="#D55E00", lw=3)
    places = torch.arange(rows) * HEIGHT + HEIGHT / 2
    axis.set_yticks(places.tolist(), [f"{name[:44]}  {i}".strip() for i, name in enumerate(names, 1)], parse_math=False)
    axis.set_xticks([(i + 0.5) * WIDTH for i in range(columns)], range(1, columns + 1))
    axis.set(xlim=(0, across), ylim=(down, -1.12), xlabel="picture")
    axis.grid(False)
    axis.spines[:].set_visible(False)
