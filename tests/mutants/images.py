"""Answers to the exercises of chapter 01."""

import numpy as np
import torch
import torch.nn.functional as F

from course_lib.images import make_grid, to_pil

# ---- 01.1


def levels(image):
    return ((image.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)


def bytes_in_place(image):
    image += 1
    image *= 127.5
    return image.clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0)


def bytes_in_numpy(image):
    numbers = np.moveaxis(image.numpy().astype(np.float64), 0, -1)
    return np.floor(np.clip(numbers * 127.5 + 127.5, 0, 255) + 0.5).astype(np.uint8)


def bytes_by_pixels(image):
    _, height, width = image.shape
    rows = [[[image[c, y, x].item() for c in range(3)] for x in range(width)] for y in range(height)]
    return torch.tensor([[[min(max(round((v + 1) * 127.5), 0), 255) for v in p] for p in r] for r in rows]).byte()


# ---- 01.2


def normal(prepare=lambda x: (x + 1) / 2, view=lambda v: v[:, None, None], end=lambda x, m, s: (x - m) / s):
    """An answer with one of its parts replaced."""
    return lambda images, mean, std: end(prepare(images), view(mean), view(std))


def normalised_in_place(images, mean, std):
    images += 1
    images /= 2
    return (images - mean[:, None, None]) / std[:, None, None]


def channels_last(images, mean, std):
    return (((images.movedim(1, -1) + 1) / 2 - mean) / std).movedim(-1, 1)


def by_matrix(images, mean, std):
    """A scale on the diagonal and a shift for each channel."""
    scale, shift = torch.diag(0.5 / std.double()), (0.5 - mean.double()) / std.double()
    return torch.einsum("dc,bchw->bdhw", scale, images.double()) + shift.reshape(1, 3, 1, 1)


# ---- 01.3


def refuse(function):
    """The answer, with empty places refused as the exercise asks."""

    def answer(images, columns):
        if len(images) % columns:
            raise ValueError(f"{len(images)} pictures do not fill rows of {columns}")
        return function(images, columns)

    return answer


def arranged(*order):
    """The axes (rows, columns, 3, H, W) in some order, then joined to the shape of the sheet."""

    def answer(images, columns):
        count, channels, height, width = images.shape
        parts = images.reshape(count // columns, columns, channels, height, width)
        return parts.permute(*order).reshape(channels, count // columns * height, columns * width)

    return refuse(answer)


def by_column(images, columns):
    count, channels, height, width = images.shape
    parts = images.reshape(columns, count // columns, channels, height, width)
    return parts.permute(2, 1, 3, 0, 4).reshape(channels, -1, columns * width)


def sides_swapped(images, columns):
    count, channels, width, height = images.shape  # the names are in the wrong order
    parts = images.reshape(-1, columns, channels, height, width)
    return parts.permute(2, 0, 3, 1, 4).reshape(channels, -1, columns * width)


def pictures_turned(images, columns):
    turned = images.transpose(2, 3).reshape(-1, columns, 3, images.shape[3], images.shape[2])
    sheet = turned.permute(2, 0, 3, 1, 4)
    return sheet.reshape(3, len(images) // columns * images.shape[2], columns * images.shape[3])


def placed(images, columns):
    count, channels, height, width = images.shape
    sheet = torch.empty(channels, count // columns * height, columns * width, dtype=images.dtype)
    for number, image in enumerate(images):
        top, left = number // columns * height, number % columns * width
        sheet[:, top : top + height, left : left + width] = image
    return sheet


def blocks(images, columns):
    pictures = images.numpy()
    rows = [list(pictures[start : start + columns]) for start in range(0, len(images), columns)]
    return np.block(rows)


def unsafe(images, columns):
    rows = -(-len(images) // columns)
    empty = images.new_zeros(rows * columns - len(images), *images.shape[1:])
    return placed(torch.cat([images, empty]), columns)


# ---- 01.4


def wrapping(pictures):
    total = torch.zeros_like(pictures[0])
    for picture in pictures:
        total += picture
    return total // len(pictures)


def wrapping_rounded(pictures):
    total = torch.zeros_like(pictures[0])
    for picture in pictures:
        total += picture
    return (total / len(pictures)).round().to(torch.uint8)


def in_16_bits(pictures):
    total = torch.zeros(pictures.shape[1:], dtype=torch.int16)
    for picture in pictures:
        total += picture
    return (total / len(pictures)).round().to(torch.uint8)


def running_mean(pictures):
    mean = torch.zeros(pictures.shape[1:], dtype=torch.float64)
    for number, picture in enumerate(pictures, start=1):
        mean += (picture - mean) / number
    return mean.round().to(torch.uint8)


WRONG = {
    "check_to_bytes": {
        "reshape": (lambda x: levels(x).reshape(x.shape[1], x.shape[2], 3), "mixes the pixels"),
        "cut": (lambda x: ((x.clamp(-1, 1) + 1) * 127.5).to(torch.uint8).permute(1, 2, 0), "cuts off"),
        "no clamp": (lambda x: ((x + 1) * 127.5).round().to(torch.uint8).permute(1, 2, 0), "begins again at 0"),
        "from 0 to 1": (lambda x: (x.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0), "from 0 to 1"),
        "height and width swapped": (lambda x: levels(x).permute(2, 1, 0), "height and width are swapped"),
        "channels first": (levels, "channels are still first"),
        "blue first": (lambda x: levels(x).permute(1, 2, 0).flip(2), "red and blue are swapped"),
        "negative": (lambda x: levels(-x).permute(1, 2, 0), "negative"),
        "no bytes": (lambda x: ((x.clamp(-1, 1) + 1) * 127.5).round().permute(1, 2, 0), "type is torch.float32"),
        "128": (
            lambda x: ((x + 1) * 128).clamp(0, 255).round().to(torch.uint8).permute(1, 2, 0),
            "should be something else",
        ),
        "in place": (bytes_in_place, "changes its inputs"),
        "a picture of Pillow": (to_pil, "return a tensor"),
    },
    "check_normalise": {
        "range forgotten": (normal(prepare=lambda x: x), "from [-1, 1] to [0, 1] first"),
        "no half": (normal(prepare=lambda x: x + 1), "without the half"),
        "half of the x": (normal(prepare=lambda x: x / 2 + 1), "halved first"),
        "no axes": (normal(view=lambda v: v), "RuntimeError"),
        "along the columns": (
            lambda x, m, s: normal(view=lambda v: v if x.shape[3] == 3 else v[:, None, None])(x, m, s),
            "along the columns",
        ),
        "along the rows": (
            lambda x, m, s: normal(view=lambda v: v[:, None] if x.shape[2] == 3 else v[:, None, None])(x, m, s),
            "along the rows",
        ),
        "by picture": (
            lambda x, m, s: normal(view=lambda v: v[: len(x), None, None, None])(x, m, s),
            "a mean and std of its own",
        ),
        "multiplied": (normal(end=lambda x, m, s: (x - m) * s), "divide by it"),
        "added": (normal(end=lambda x, m, s: (x + m) / s), "subtract it"),
        "divided first": (normal(end=lambda x, m, s: x / s - m), "divides first"),
        "swapped": (normal(end=lambda x, m, s: (x - s) / m), "changed places"),
        "variance": (normal(end=lambda x, m, s: (x - m) / s.sqrt()), "root of std"),
        "one mean for all": (normal(view=lambda v: v.mean()), "all three channels"),
        "in place": (normalised_in_place, "changes its inputs"),
        "detached": (lambda x, m, s: normal()(x.detach(), m, s), "no gradient flows"),
    },
    "check_contact_sheet": {
        "one reshape": (
            refuse(
                lambda x, columns: x.reshape(3, len(x) // columns * x.shape[2], columns * x.shape[3]),
            ),
            "all is mixed",
        ),
        "by column": (refuse(by_column), "run down the columns"),
        "sides swapped": (refuse(sides_swapped), "height and width of the pictures are swapped"),
        "pictures turned": (refuse(pictures_turned), "swapped within each picture"),
        "channels not in front": (arranged(0, 3, 2, 1, 4), "channels are mixed"),
        "axes in their old order": (arranged(2, 0, 1, 3, 4), "cut into its rows"),
        "pixels alternate": (arranged(2, 3, 0, 4, 1), "pixels of different pictures alternate"),
        "columns alternate": (arranged(2, 0, 3, 4, 1), "columns alternate"),
        "rows alternate": (arranged(2, 3, 0, 1, 4), "rows alternate"),
        "columns are rows": (
            refuse(lambda x, columns: placed(x, len(x) // columns)),
            "here it counts the rows",
        ),
        "turned sheet": (refuse(lambda x, columns: placed(x, columns).transpose(1, 2)), "of the sheet are swapped"),
        "channels last": (refuse(lambda x, columns: placed(x, columns).permute(1, 2, 0)), "channels are last"),
        "backwards": (refuse(lambda x, columns: placed(x.flip(0), columns)), "opposite order"),
        "with gaps": (refuse(make_grid), "shape is"),
        "takes what leaves a gap": (unsafe, "should refuse them"),
    },
    "check_mean_picture": {
        "still in bytes": (wrapping, "begins again at 0"),
        "still in bytes, rounded": (wrapping_rounded, "begins again at 0"),
        "cut": (lambda x: x.sum(0).div(len(x)).to(torch.uint8), "cuts off"),
        "whole division": (lambda x: (x.int().sum(0) // len(x)).to(torch.uint8), "cuts off"),
        "divided first": (lambda x: (x // len(x)).sum(0).to(torch.uint8), "divided first"),
        "float": (lambda x: x.float().mean(0).round(), "type is torch.float32"),
        "a fraction": (lambda x: x.float().mean(0), "type is torch.float32"),
        "in 16 bits": (in_16_bits, "too much for 16 bits"),
        "over all": (lambda x: x.float().mean().round().to(torch.uint8), "one picture"),
        "brightest": (lambda x: x.amax(0), "brightest"),
        "median": (lambda x: x.median(0).values, "median"),
    },
}
RIGHT = {
    "check_to_bytes": {
        "numpy, rounded by floor": bytes_in_numpy,
        "pixel by pixel": bytes_by_pixels,
        "pillow": lambda x: np.array(to_pil(x)),
    },
    "check_normalise": {
        "as batch normalisation": lambda x, m, s: F.batch_norm((x + 1) / 2, m, s**2, eps=0.0),
        "channels last": channels_last,
        "a matrix, float64": by_matrix,
    },
    "check_contact_sheet": {
        "placed one by one": refuse(placed),
        "blocks": refuse(blocks),
        "without gaps, in float64": refuse(lambda x, columns: make_grid(x.double(), columns, padding=0)),
    },
    "check_mean_picture": {
        "running mean": running_mean,
        "numpy": lambda x: np.rint(x.numpy().mean(axis=0)).astype(np.uint8),
        "whole numbers": lambda x: ((2 * x.int().sum(0) + len(x)) // (2 * len(x))).to(torch.uint8),
    },
}
