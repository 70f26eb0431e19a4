"""Pictures as tensors: reading, preparing, tiling, showing and saving them; chapter 01 builds this module.

Everywhere in the course a picture is a float32 tensor (3, H, W), red, green, blue, with values in [-1, 1]: -1 is
black, 1 is white. Here any file becomes such a tensor (`prepare_image`), many become one (`make_grid`), and a tensor
becomes a PNG (`save_image`) or a figure that colour-blind and blind readers can use too (`image_grid_figure`).
"""

import io
import os
import textwrap
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin
from torch import Tensor

from course_lib.errors import CourseError

if TYPE_CHECKING:  # matplotlib takes a second to load: it is imported where it is used
    from matplotlib.figure import Figure

IMAGE_SIZES = (16, 32, 64, 128, 256)
MAX_PIXELS = 64_000_000
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # no EPS: reading one starts another program
# Source: Okabe and Ito 2008, "Color Universal Design"; yellow and black last, as lines they are hardest to use.
COLORBLIND_SAFE = ("#0072B2", "#E69F00", "#009E73", "#D55E00", "#56B4E9", "#CC79A7", "#F0E442", "#000000")
_LATIN_FONT = "DejaVu Sans"  # comes with matplotlib
_CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN"),
    *("PingFang SC", "Hiragino Sans GB", "Heiti SC", "Heiti TC", "STHeiti", "Arial Unicode MS"),  # macOS
    *("Microsoft YaHei", "SimHei", "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback"),
)


def to_uint8(images: Tensor) -> Tensor:
    """The bytes 0..255 of pictures in [-1, 1]; what lies outside is clamped.

    Args:
        images: any shape, floating point, in [-1, 1].
    Returns:
        The same shape, uint8.
    Raises:
        ValueError: a value is not a number, which means that the model's weights are spoilt.
    """
    if images.isnan().any():
        raise ValueError("images contains NaN (not a number); the training that made it has diverged: lower its rates")
    return ((images.float().clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def from_uint8(array: Tensor | np.ndarray) -> Tensor:
    """Pictures in [-1, 1] from bytes 0..255; `to_uint8` gives exactly the same bytes back.

    Args:
        array: any shape, uint8.
    Returns:
        The same shape, float32 in [-1, 1].
    Raises:
        ValueError: the numbers are not uint8.
    """
    levels = torch.as_tensor(array)
    if levels.dtype != torch.uint8:
        raise ValueError(f"array has dtype {levels.dtype}; pass uint8, whole numbers from 0 to 255")
    return levels.float() / 127.5 - 1


def to_pil(image: Tensor) -> Image.Image:
    """A Pillow picture of one tensor (3, H, W) in [-1, 1]."""
    if image.ndim != 3 or image.shape[0] != 3:
        raise ValueError(f"image has shape {tuple(image.shape)}; pass one picture, (3, height, width)")
    return Image.fromarray(to_uint8(image.detach().cpu()).permute(1, 2, 0).contiguous().numpy())  # (H, W, 3)


def require_image_size(image_size: int) -> int:
    """Return `image_size`, or raise a CourseError if it is not a power of two from 16 to 256."""
    if type(image_size) is not int or image_size not in IMAGE_SIZES:
        remedy = f"use {', '.join(map(str, IMAGE_SIZES[:-1]))} or {IMAGE_SIZES[-1]}"
        raise CourseError(f"image_size={image_size!r} is not a power of two from 16 to 256; {remedy}")
    return image_size


def prepare_image(source: str | Path | np.ndarray | Image.Image, image_size: int, fit: str = "crop") -> Tensor:
    """Any picture as a square tensor: turned upright, transparency laid on white, cut or padded, made smaller smoothly.

    Args:
        source: the path of a picture file, a Pillow picture, or a uint8 array (H, W), (H, W, 3) or (H, W, 4).
        image_size: side of the result in pixels, a power of two from 16 to 256.
        fit: "crop" keeps the middle square; "pad" keeps everything and fills up with white.
    Returns:
        (3, image_size, image_size) float32 in [-1, 1].
    Raises:
        CourseError: the file is missing, no picture, damaged or over 64 million pixels; the array is none of the above.
    """
    side = require_image_size(image_size)
    if fit not in ("crop", "pad"):
        raise CourseError(f'fit="{fit}" is unknown; use "crop" or "pad"')
    picture = _read_rgb(_array_to_pil(source) if isinstance(source, np.ndarray) else source)
    smooth = Image.Resampling.LANCZOS
    square = ImageOps.fit(picture, (side, side), smooth) if fit == "crop" else _pad_square(picture, side, smooth)
    return from_uint8(np.array(square)).permute(2, 0, 1).contiguous()  # (S, S, 3) -> (3, S, S)


def _array_to_pil(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or array.shape[2:] not in ((), (3,), (4,)) or not array.size:
        raise CourseError(f"the array is {array.dtype} {array.shape}; pass uint8 (height, width, 3), values 0 to 255")
    return Image.fromarray(array)


def _read_rgb(source: str | Path | Image.Image) -> Image.Image:
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source)
        with open(source, "rb") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # `_to_rgb` has a limit of its own
            return _to_rgb(Image.open(file, formats=FORMATS))
    except Exception as error:  # a damaged file makes Pillow raise almost anything, from OSError to SyntaxError
        unknown = isinstance(error, Image.UnidentifiedImageError)
        reason = "no picture of a known format" if unknown else getattr(error, "strerror", None) or error
        remedy = f"use a whole {', '.join(FORMATS[:-1])} or {FORMATS[-1]} of at most {MAX_PIXELS:,} pixels"
        raise CourseError(f'image "{source}" cannot be read ({reason}); {remedy}') from error


def _to_rgb(picture: Image.Image) -> Image.Image:
    """Decode, turn upright as the camera noted it, lay transparency on white."""
    if picture.width * picture.height > MAX_PIXELS:  # the file's head says so; nothing has been decoded yet
        raise ValueError(f"{picture.width} x {picture.height} pixels are too many")
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith(("I", "F")):
        picture = _to_8_bits(picture)
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    if picture.mode == "La":  # grey already multiplied by its opacity
        picture = picture.convert("LA")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def _to_8_bits(picture: Image.Image) -> Image.Image:
    """Grey in 16 bits or in fractions becomes grey in 8; the mode does not always tell which number is white."""
    levels = np.nan_to_num(np.asarray(picture, dtype=np.float64)).clip(min=0)
    whites = {"F": (1, 255, 65535), "I": (255, 65535)}.get(picture.mode, (65535,))
    white = next((white for white in whites if levels.max() <= white), levels.max())
    return Image.fromarray((levels / white * 255).round().astype(np.uint8))


def _pad_square(picture: Image.Image, side: int, filter: int) -> Image.Image:
    scale = side / max(picture.size)
    width, height = (max(1, round(length * scale)) for length in picture.size)
    square = Image.new("RGB", (side, side), "white")
    square.paste(picture.resize((width, height), filter), ((side - width) // 2, (side - height) // 2))
    return square


def make_grid(images: Tensor, columns: int, padding: int = 2, background: float = 1.0) -> Tensor:
    """Lay pictures out in rows, left to right, with a margin around each.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        columns: pictures in a row; fewer pictures than that make a narrower row.
        padding: margin in pixels.
        background: value of the margin and of empty places; 1 is white.
    Returns:
        (3, rows * (H + padding) + padding, columns * (W + padding) + padding).
    Raises:
        ValueError: the shape is another, columns < 1 or padding < 0.
    """
    if images.ndim != 4 or images.shape[1] != 3 or len(images) == 0:
        raise ValueError(f"images has shape {tuple(images.shape)}; pass (pictures, 3, height, width), one or more")
    if columns < 1 or padding < 0:
        raise ValueError(f"columns={columns}, padding={padding}: use columns of 1 or more and padding of 0 or more")
    count, channels, height, width = images.shape
    rows, columns = -(-count // columns), min(columns, count)  # rows are rounded up
    cell_height, cell_width = height + padding, width + padding
    grid = images.new_full((channels, rows * cell_height + padding, columns * cell_width + padding), background)
    for index, image in enumerate(images):
        top, left = padding + index // columns * cell_height, padding + index % columns * cell_width
        grid[:, top : top + height, left : left + width] = image
    return grid


def save_image(image: Tensor, path: str | Path, text: dict[str, str] | None = None) -> None:
    """Write one picture as a PNG; if that fails, a file that was there before is still there, whole.

    Args:
        image: (3, H, W) in [-1, 1].
        path: where to; must end in .png; missing folders are made.
        text: what the file says about itself, such as {"Description": "a red circle"}; any language.
    Raises:
        CourseError: the path does not end in .png, or cannot be written.
    """
    notes = PngImagePlugin.PngInfo()
    for key, value in (text or {}).items():
        notes.add_text(key, value.encode("utf-8", "replace").decode())  # half a character, from a shell, becomes "?"
    to_pil(image).save(png := io.BytesIO(), "PNG", pnginfo=notes)
    _write_png(png.getvalue(), Path(path))


def _write_png(data: bytes, path: Path) -> None:
    if path.suffix.lower() != ".png":
        raise CourseError(f'path="{path}" does not end in .png; pictures are written as PNG, without loss')
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, path)  # all or nothing: readers see the old file or the new one
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        raise CourseError(f'path="{path}" cannot be written ({error.strerror}); choose another folder') from error


@contextmanager
def figure_style() -> Iterator[None]:
    """Figures made inside `with figure_style():` have colours that colour-blind readers can tell apart."""
    import matplotlib

    settings = {
        "axes.prop_cycle": matplotlib.cycler(color=COLORBLIND_SAFE),
        "axes.spines.top": False,
        "axes.spines.right": False,
        "font.family": [_LATIN_FONT, *_cjk_fonts()],  # a character that the first lacks is taken from the second
        "image.cmap": "cividis",
    }
    with matplotlib.rc_context(settings):
        yield


def image_grid_figure(
    images: Tensor, titles: Sequence[str] | None = None, columns: int = 4, title: str = "", alt: str = ""
) -> "Figure":
    """A matplotlib figure of pictures with a line of text over each; `save_figure` keeps its alt text in the PNG.

    Args:
        images: (B, 3, H, W) in [-1, 1].
        titles: B captions; one that no font here can draw is replaced by its number.
        columns: pictures in a row.
        title: over the whole figure.
        alt: what a reader who cannot see the figure should know; by default its titles.
    Returns:
        The figure, with `alt_text` set; a notebook shows it as the last line of a cell.
    Raises:
        ValueError: there are no pictures, or not as many titles as pictures.
    """
    from matplotlib import pyplot

    if len(images) == 0 or (titles and len(titles) != len(images)):
        raise ValueError(f"{len(titles or ())} titles for {len(images)} pictures; pass one for each, or titles=None")
    rows, columns = -(-len(images) // columns), min(columns, len(images))
    with figure_style():
        size = (2 * columns, 2.4 * rows)  # inches
        figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        pyplot.close(figure)
        figure.suptitle(text_or_fallback(title) or None, parse_math=False)
        for axis in axes.flat:
            axis.set_axis_off()
        for index, (axis, image) in enumerate(zip(axes.flat, images, strict=False)):  # the last row may be shorter
            axis.imshow(to_pil(image), interpolation="nearest")
            caption = text_or_fallback(titles[index], f"({index + 1})") if titles else ""
            axis.set_title(textwrap.fill(caption, 24 if caption.isascii() else 14), fontsize=8, parse_math=False)
    figure.alt_text = alt or f"{title or 'Pictures'}: {'; '.join(titles or [f'{len(images)} in a grid'])}"
    return figure


def save_figure(figure: "Figure", path: str | Path) -> None:
    """Write a figure as a PNG, its alt text as the PNG's Description; the errors are those of `save_image`."""
    metadata = {"Description": getattr(figure, "alt_text", "")}
    figure.savefig(png := io.BytesIO(), format="png", dpi=150, metadata=metadata)
    _write_png(png.getvalue(), Path(path))


def has_cjk_font() -> bool:
    """True if matplotlib can draw Chinese on this machine."""
    return bool(_cjk_fonts())


def text_or_fallback(text: str, fallback: str = "") -> str:
    """`text` if a font here has every character of it, else `fallback`: a figure never shows empty boxes."""
    return text if all(character == "\n" or ord(character) in _drawable() for character in text) else fallback


@cache
def _cjk_fonts() -> tuple[str, ...]:
    """The first known font with Chinese characters, or none."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next(((name,) for name in _CJK_FONTS if name in installed), ())


@cache
def _drawable() -> frozenset[int]:
    from matplotlib import font_manager

    files = [font_manager.findfont(name) for name in (_LATIN_FONT, *_cjk_fonts())]
    return frozenset(code for file in files for code in font_manager.get_font(file).get_charmap())
