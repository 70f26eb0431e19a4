"""Checks of the exercises of chapter 01: pictures as tensors."""

from collections.abc import Callable

import torch
from torch import Tensor

from course_lib.checks.core import Answer, random


def whole_numbers(*shape: int, seed: int) -> Tensor:
    """Bytes from 0 to 255, the same on every call."""
    return torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def expect_type(answer: Answer, found: Tensor, kind: torch.dtype, hint: str) -> None:
    """The result must have this type of number.

    Raises:
        CheckFailed: it has another one.
    """
    if found.dtype != kind:
        answer.fail(f"the result's type is {found.dtype} and should be {kind}: {hint}")


# ---- 01.1


def check_to_bytes(function: Callable[[Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 01.1: numbers in [-1, 1], channels first, to bytes, channels last.

    Args:
        function: to_bytes(image), (3, H, W) float32 -> (H, W, 3) uint8.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, bytes_ = Answer("to_bytes", function), whole_numbers(4, 5, 3, seed=seed)  # (H, W, 3)
    numbers = (bytes_.double() / 127.5 - 1).float()
    image = numbers.permute(2, 0, 1).contiguous()  # (3, H, W)
    found = answer.tensor(answer(image))
    if tuple(found.shape) == (5, 4, 3):
        answer.fail("the result has the shape (5, 4, 3): height and width are swapped; rows come first, then columns")
    if tuple(found.shape) == (3, 4, 5):
        answer.fail("the result has the shape (3, 4, 5): the channels are still first; a file has them last")
    answer.expect_shape(found, (4, 5, 3), "rows, columns, channels")
    expect_type(answer, found, torch.uint8, "a byte; round first, then `.to(torch.uint8)`")

    def right(x: Tensor) -> Tensor:
        return ((x.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)

    levels, cut = (image + 1) * 127.5, ((numbers + 1) * 127.5).to(torch.uint8)
    mistakes = {
        "`reshape` has the right shape, but mixes the pixels; `permute` names the axes in another order": (
            right(image).reshape(4, 5, 3)
        ),
        "you reshaped, which mixes the pixels, and cut off in place of rounding": (
            levels.to(torch.uint8).reshape(4, 5, 3)
        ),
        "it cuts off what stands behind the point; round first, or dark pixels get darker": cut,
        "red and blue are swapped; keep the order of the channels": bytes_.flip(2),
        "it takes the numbers as if they went from 0 to 1; they go from -1 to 1": (
            (numbers.clamp(0, 1) * 255).round().to(torch.uint8)
        ),
        "it stretches too far: a step of 1 is 127.5 bytes, not 255": ((numbers + 1) * 255).clamp(max=255).round(),
        "it is the negative; black is -1 and becomes 0": 255 - bytes_,
        "the picture is turned upside down": bytes_.flip(0),
    }
    answer.expect(found, bytes_, "the bytes of a picture of 4 x 5 pixels", mistakes, 1e-9, "Compare with the formula.")
    answer.verify("shape, type and bytes are right")
    every = torch.arange(256, dtype=torch.uint8).reshape(1, 256, 1).expand(1, 256, 3)
    image = (every.double() / 127.5 - 1).float().permute(2, 0, 1)
    wrong = (answer.tensor(answer(image)) != every)[0, :, 0].nonzero().flatten().tolist()
    if wrong:
        answer.fail(
            f"{len(wrong)} of the 256 bytes do not come back, {wrong[0]} among them; do you multiply by 127.5, and "
            "round before the numbers become bytes?"
        )
    answer.verify("all 256 bytes survive the way there and back")
    outside = torch.tensor([-7.0, -1.02, 1.02, 300.0]).expand(3, 1, 4)
    ends = torch.tensor([0, 0, 255, 255]).reshape(1, 4, 1).expand(1, 4, 3)
    hint = "what lies outside of [-1, 1] becomes black or white; a byte begins again at 0"
    answer.expect(answer(outside), ends, "the bytes of -7, -1.02, 1.02 and 300", None, 1e-9, hint)
    answer.verify("what lies outside is clamped")
    answer.passed()


# ---- 01.2


def check_normalise(function: Callable[[Tensor, Tensor, Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 01.2: pictures as another network wants them, each channel by its own mean and spread.

    Args:
        function: normalise(images, mean, std), (B, 3, H, W) in [-1, 1], (3,), (3,) -> (B, 3, H, W).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("normalise", function)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    if seed:
        mean, std = mean + 0.1 * random(seed, 3), std + 0.05 * random(seed + 1, 3).abs()

    def by_channel(images: Tensor) -> Tensor:
        sheets = [((images[:, c].double() + 1) / 2 - mean[c]) / std[c] for c in range(3)]
        return torch.stack(sheets, 1).float()

    for shape in ((2, 3, 4, 5), (3, 3, 3, 3)):  # the second fits everywhere, also where it should not
        images = random(seed + 2, *shape).tanh()
        found = answer.expect_shape(answer(images, mean, std), shape, "the shape stays as it is")
        zero_one = (images + 1) / 2
        m, d = mean[:, None, None], std[:, None, None]
        mistakes = {
            "mean and std are for numbers from 0 to 1; bring the pictures from [-1, 1] to [0, 1] first": (
                (images - m) / d
            ),
            "you brought it to [0, 1] by (x + 1), without the half": (images + 1 - m) / d,
            "you halved first and then added 1; it is (x + 1) / 2": (images / 2 + 1 - m) / d,
            "each picture has got a mean and std of its own; they belong to the channels": (
                (zero_one - mean[: len(images), None, None, None]) / std[: len(images), None, None, None]
            ),
            "it multiplies by std; divide by it": (zero_one - m) * d,
            "it adds the mean; subtract it": (zero_one + m) / d,
            "it divides first and subtracts then; the mean comes first": zero_one / d - m,
            "mean and std have changed places": (zero_one - d) / m,
            "it divides by the root of std; std is the root already": (zero_one - m) / d.sqrt(),
            "it divides by the square of std": (zero_one - m) / d**2,
            "it uses the mean of all three channels for each of them": (zero_one - mean.mean()) / std.mean(),
        }
        if shape[3] == 3:
            mistakes |= {
                "mean and std went along the columns; they belong to the channels. It passes only because these "
                "pictures have 3 columns": (zero_one - mean) / std,
                "mean and std went along the rows; they belong to the channels": (
                    (zero_one - mean[:, None]) / std[:, None]
                ),
            }
        what = f"the result for pictures of the shape {shape}"
        answer.expect(found, by_channel(images), what, mistakes, 1e-4, "Every channel has its own mean and std.")
    answer.verify("pictures of 4 x 5 are right")
    answer.verify("so are three pictures of 3 x 3, where a wrong axis would not be noticed")
    alone = Answer("normalise", lambda images: function(images, mean, std))
    alone.expect_gradient((images,), by_channel, "the slope for the pictures", 1e-4)
    answer.verify("gradients flow")
    answer.passed()


# ---- 01.3


def check_contact_sheet(function: Callable[[Tensor, int], Tensor], seed: int = 0) -> None:
    """Exercise 01.3: pictures side by side, by axes alone.

    Args:
        function: contact_sheet(images, columns), (B, 3, H, W) -> (3, B / columns * H, columns * W).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("contact_sheet", function)
    for count, columns in ((6, 3), (6, 2), (5, 1), (4, 4)):
        images = random(seed + count, count, 3, 4, 5)
        rows = count // columns
        bands = [torch.cat(list(images[r * columns : (r + 1) * columns]), dim=2) for r in range(rows)]
        right = torch.cat(bands, dim=1)  # (3, rows * 4, columns * 5)
        found = answer.tensor(answer(images, columns))
        name_wrong_shape(answer, tuple(found.shape), rows, columns)
        parts = images.reshape(rows, columns, 3, 4, 5)
        by_column = images.reshape(columns, rows, 3, 4, 5).transpose(0, 1)
        turned = images.transpose(2, 3)
        mistakes = {
            "all is mixed: a single `reshape` reads the numbers one after another; bring the axes into order first": (
                images.reshape(right.shape)
            ),
            "the pictures run down the columns; they should fill row after row": join(by_column),
            "the channels are mixed; bring their axis to the front before you join axes": (
                parts.permute(0, 3, 2, 1, 4).reshape(right.shape)
            ),
            "each picture is cut into its rows: the picture's number in the row must stand beside its columns": (
                parts.permute(2, 0, 1, 3, 4).reshape(right.shape)
            ),
            "the pixels of different pictures alternate: where you join two axes, that of the pictures comes first": (
                parts.permute(2, 3, 0, 4, 1).reshape(right.shape)
            ),
            "the pictures' rows alternate: where you join two axes, that of the pictures comes first": (
                parts.permute(2, 3, 0, 1, 4).reshape(right.shape)
            ),
            "the columns alternate: where you join two axes, that of the pictures comes first": (
                parts.permute(2, 0, 3, 4, 1).reshape(right.shape)
            ),
            "height and width are swapped within each picture": (
                join(turned.reshape(rows, columns, 3, 5, 4)).reshape(right.shape)
            ),
            "the pictures come in the opposite order": join(parts.flip(0, 1)),
        }
        what = f"the sheet of {count} pictures, {columns} in a row"
        answer.expect(found, right, what, mistakes, 1e-6, "Follow one pixel: where is it, and where should it be?")
    answer.verify("sheets of 2 x 3, 3 x 2, 5 x 1 and 1 x 4 pictures are right, pixel for pixel")
    what = "5 pictures with 2 in a row, which leave a place empty"
    answer.expect_error(random(seed, 5, 3, 4, 5), 2, what=what)
    answer.verify("a sheet with an empty place is refused")
    answer.passed()


def join(parts: Tensor) -> Tensor:
    """(rows, columns, 3, H, W) -> (3, rows * H, columns * W)."""
    rows, columns, channels, height, width = parts.shape
    return parts.permute(2, 0, 3, 1, 4).reshape(channels, rows * height, columns * width)


def name_wrong_shape(answer: Answer, found: tuple[int, ...], rows: int, columns: int) -> None:
    """Compare the shape with what it should be for pictures of 4 x 5."""
    right, given = (3, rows * 4, columns * 5), f"{rows * columns} pictures of 4 x 5, {columns} in a row"
    known = {
        (3, columns * 5, rows * 4): "height and width of the sheet are swapped; rows come first",
        (3, columns * 4, rows * 5): "`columns` says how many pictures stand side by side; here it counts the rows",
        (3, rows * 5, columns * 4): "height and width of the pictures are swapped; (B, 3, H, W) has the height first",
        (rows * 4, columns * 5, 3): "the channels are last; a tensor of this course has them first",
        (1, *right): "there is one axis too many in front",
    }
    if found != right and found in known:
        answer.fail(f"for {given} the shape is {found} and should be {right}: {known[found]}")
    if found != right:
        answer.fail(f"for {given} the shape is {found} and should be {right}")


# ---- 01.4


def check_mean_picture(function: Callable[[Tensor], Tensor], seed: int = 0) -> None:
    """Exercise 01.4: the mended mean of byte pictures.

    Args:
        function: mean_picture(pictures), (B, 3, H, W) uint8 -> (3, H, W) uint8, rounded.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, pictures = Answer("mean_picture", function), whole_numbers(3, 3, 4, 5, seed=seed)
    found = answer.expect_shape(answer(pictures), (3, 4, 5), "one picture, the mean over the batch")
    expect_type(answer, found, torch.uint8, "a byte picture in, a byte picture out")
    exact = pictures.double().mean(0)
    right = exact.round()  # a third is never just between two bytes
    wrapped = pictures.sum(0, dtype=torch.uint8)
    mistakes = {
        "the sum is still made of bytes and begins again at 0 after 255; use a wider type": wrapped // 3,
        "the sum is still made of bytes and begins again at 0 after 255; use a wider type for it": (
            wrapped.double() / 3
        ).round(),
        "each picture is divided first, and every division cuts; add up first": (pictures // 3).sum(0),
        "it cuts off what stands behind the point; round": exact.floor(),
        "that is the sum, and it begins again at 0 after 255": wrapped,
        "that is the brightest value of each pixel, not the mean": pictures.amax(0),
        "that is the middle value of each pixel, the median": pictures.median(0).values,
    }
    answer.expect(found, right, "the mean of three pictures", mistakes, 1e-9, "Is it the mean, and rounded?")
    answer.verify("the mean of three pictures is right, in bytes")
    white = torch.full((301, 3, 1, 2), 255, dtype=torch.uint8)
    hint = "301 times 255 is 76,755: too much for 16 bits too"
    answer.expect(answer(white), white[0], "the mean of 301 white pictures", None, 1e-9, hint)
    answer.verify("301 white pictures are white")
    one = whole_numbers(1, 3, 2, 3, seed=seed + 1)
    answer.expect(answer(one), one[0], "the mean of a single picture", None, 1e-9, "It is that picture.")
    answer.verify("a single picture is its own mean")
    answer.passed()
