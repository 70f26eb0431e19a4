"""Checks of the exercises of chapter 13: work of a layer, a batch in pieces, several processes."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from course_lib.checks.core import Answer, random, several
from course_lib.layers import Conv2d
from course_lib.speed import work_of

# ---- 13.1


def check_convolution_flops(function: Callable[..., int], seed: int = 0) -> None:
    """Exercise 13.1: the FLOP of a convolution in a training step.

    Args:
        function: convolution_flops(batch, channels, out_channels, size, kernel, stride, padding, first) -> FLOP.
        seed: chooses the layers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("convolution_flops", function)
    layers = [(7, 5, 13, 19, 4, 2, 4), (2, 5, 3, 11, 3, 3, 0), (5, 2, 4, 8, 1, 1, 2)]
    if seed:
        layers = [(13, 3, 7, 18, 5, 2, 4), (6, 2, 5, 9, 4, 2, 0), (1, 3, 2, 7, 3, 1, 1)]
    for layer in layers:
        for first in (False, True):
            found = answer.expect_shape(answer(*layer, first), (), "FLOP are one number")
            told = "a first layer" if first else "a layer"
            what = f"the work of {told} with batch, channels, out_channels, size, kernel, stride, padding = {layer}"
            answer.expect(found.double(), float(counted(layer, first)), what, flops_mistakes(layer, first), 1e-9)
    answer.verify("three layers, each also as the first, agree with what PyTorch counts")
    answer.expect(float(answer(48, 32, 64, 16, 4, 2, 1, False)), 603_979_776.0, "the lesson's layer", tolerance=1e-9)
    answer.verify("the lesson's layer has 603,979,776 FLOP")
    answer.passed()


def counted(layer: tuple[int, ...], first: bool) -> int:
    """FLOP of the layer with its slopes, counted while it is computed."""
    batch, channels, out_channels, size, kernel, stride, padding = layer
    images = torch.zeros(batch, channels, size, size, requires_grad=not first)
    convolve = Conv2d(channels, out_channels, kernel, stride, padding, bias=False)
    return work_of(lambda: convolve(images).sum().backward()).flops


def flops_mistakes(layer: tuple[int, ...], first: bool) -> dict[str, float]:
    """What the known misconceptions lead to."""
    batch, channels, out_channels, size, kernel, stride, padding = layer

    def flops(out: float, times: float = 2 if first else 3, each: float = 2 * channels * kernel**2) -> float:
        return times * batch * out_channels * out**2 * each

    out = (size + 2 * padding - kernel) // stride + 1
    wrong = {
        "a multiplication and an addition are two operations; you counted one": flops(out, each=channels * kernel**2),
        "that is the pass alone; the slopes are missing": flops(out, 1),
        "the slopes of the input are needed, unless it is the first layer": flops(out, 2),
        "nobody needs the slopes of a first layer's input": flops(out, 3),
        "a window has kernel x kernel places": flops(out, each=2 * channels * kernel),
        "every number that comes out is a sum over all input channels": flops(out, each=2 * kernel**2),
        "the padding is on both sides": flops((size + padding - kernel) // stride + 1),
        "the padding is left out": flops((size - kernel) // stride + 1),
        "one window more fits: add 1 after the division": flops(out - 1),
        "the last window must fit as a whole; round down": flops((size + 2 * padding - kernel) / stride + 1),
        "windows start `stride` apart, in both directions": flops(size + 2 * padding - kernel + 1),
        "you counted for every pixel that goes in; count the numbers that come out": flops(size),
        "the batch is left out": flops(out) / batch,
        "the output channels are left out": flops(out) / out_channels,
        "rows and columns: the output has its size squared many places": flops(out) / out,
    }
    return {name: value for name, value in wrong.items() if value != flops(out)}


# ---- 13.2


class Counted:
    """A cost, or a network, that notes how many rows it is given."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]):
        self.function, self.sizes = function, []

    def __call__(self, weight: Tensor, rows: Tensor) -> Tensor:
        self.sizes.append(len(rows))
        return self.function(weight, rows)

    def expect_small(self, answer: Answer, most: int, told: str) -> None:
        """No call had too many rows, and at least one had some."""
        if not self.sizes:
            answer.fail(f"it never calls {told}")
        if max(self.sizes) > most:
            answer.fail(f"{told} was given {max(self.sizes)} rows at once, and {most} are all that fit")


def slope_of(loss: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    """Of one number by the weight."""
    asked = weight.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(asked), asked, allow_unused=True)[0]


def check_gradient_in_pieces(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 13.2: the slope of a masked mean, piece by piece.

    Args:
        function: gradient_in_pieces(cost, weight, rows, counts, size) -> the shape of weight.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("gradient_in_pieces", function)
    weight, rows = random(seed, 3), random(seed + 1, 11, 3)
    counts = torch.tensor([1, 1, 1, 1, 0, 1, 0, 0, 1, 0, 1], dtype=torch.bool)

    def found(counts: Tensor, size: int) -> Tensor:
        cost = Counted(lambda w, x: (x @ w).tanh().square() + (x * w).sum(1))
        result = answer(cost, weight.clone().requires_grad_(), rows, counts, size)
        if counts.any():
            cost.expect_small(answer, size, "`cost`")
        return answer.expect_shape(result, (3,), "a slope has the shape of the weight").detach()

    def total(part: slice, counts: Tensor) -> Tensor:
        def loss(w: Tensor) -> Tensor:
            costs = (rows[part] @ w).tanh().square() + (rows[part] * w).sum(1)
            return (costs * counts[part]).sum()

        return slope_of(loss, weight)

    def expect(counts: Tensor, size: int, told: str, hint: str) -> None:
        what = f"the slope of 11 rows, of which {told}, in pieces of {size}"
        right = total(slice(None), counts) / counts.sum()
        answer.expect(found(counts, size), right, what, pieces_mistakes(total, counts, size), hint=hint)

    for size in (4, 11, 100):
        expect(counts, size, "7 count", "Add up the slopes of the pieces' sums; divide once, by how many rows count")
    lost = "In a piece where no row counts a mean is 0 / 0; such a piece adds nothing"
    late = torch.arange(11) > 8
    expect(late, 4, "the last two count", lost)
    expect(counts, 1, "7 count", lost)
    answer.verify("pieces of 1, 4, 11 and 100 rows give the slope of the whole batch, and no piece is larger")
    nothing = "If no row counts the slope is 0; divide by at least 1"
    answer.expect(found(late & False, 4), torch.zeros(3), "the slope if no row counts", hint=nothing)
    answer.verify("pieces in which no row counts do no harm")
    answer.passed()


def pieces_mistakes(total: Callable[[slice, Tensor], Tensor], counts: Tensor, size: int) -> dict[str, Tensor]:
    """What the known misconceptions lead to.

    Args:
        total: total(part, counts) -> the slope of the sum of the costs that count in a part of the batch.
    """
    parts = [slice(start, start + size) for start in range(0, len(counts), size)]
    sums, all_rows = [total(part, counts) for part in parts], torch.ones_like(counts)
    means = [one / counts[part].sum().clamp(min=1) for one, part in zip(sums, parts, strict=True)]
    each = [one / len(counts[part]) for one, part in zip(sums, parts, strict=True)]
    whole, n = sum(sums), counts.sum()
    return {
        "you averaged the pieces' means; rows of a piece where few count then weigh more": sum(means) / len(parts),
        "you added up the pieces' means; add up their sums, and divide once": sum(means),
        "that is the sum; divide by how many rows count": whole,
        "you divided by all rows; divide by those that count": whole / len(counts),
        "you averaged the pieces' means over all their rows; divide the whole sum by the rows that count": (
            sum(each) / len(parts)
        ),
        "you divided by the number of pieces": whole / len(parts),
        "you divided by the number of pieces too; sums are only added": whole / n / len(parts),
        "all rows count in your sum; use the mask": total(slice(None), all_rows) / n,
        "all rows count; use the mask": total(slice(None), all_rows) / len(counts),
        "the last, smaller piece is lost": total(slice(0, len(counts) // size * size), counts) / n,
        "only the first piece is in it": sums[0] / n,
        "only the last piece is in it; add up": sums[-1] / n,
    }


# ---- 13.3


def check_combined_statistics(function: Callable[..., tuple[Tensor, Tensor]], seed: int = 0) -> None:
    """Exercise 13.3: mean and variance of all rows from those of each process.

    Args:
        function: combined_statistics(counts, means, variances), (P,), (P, C), (P, C) -> (C,), (C,).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, names = Answer("combined_statistics", function), ("mean", "variance")
    counts = torch.tensor([6, 2, 4])

    def of(rows: list[Tensor]) -> tuple[Tensor, ...]:
        means = torch.stack([part.mean(0) if len(part) else torch.zeros(2) for part in rows])
        variances = [part.var(0, correction=0) if len(part) else torch.zeros(2) for part in rows]
        return torch.tensor([len(part) for part in rows]), means, torch.stack(variances)

    def compare(rows: list[Tensor], told: str, tolerance: float = 1e-5, hint: str = "") -> None:
        given, whole = of(rows), torch.cat(rows).double()
        mean, variance = several(answer, answer(*given), names)
        wrong = statistics_mistakes(*(x.double() for x in given))
        answer.expect(mean, whole.mean(0), f"the mean of {told}", wrong[0], tolerance, hint)
        answer.expect(variance, whole.var(0, correction=0), f"the variance of {told}", wrong[1], tolerance, hint)

    parts = [2 * random(seed + i, n, 2) + i for i, n in enumerate(counts.tolist())]
    compare(parts, "12 rows on three processes")
    compare([torch.tensor([[1.0, 0], [3, 0]]), torch.tensor([[9.0, 5], [11, 5]])], "the lesson's four pixels")
    answer.verify("shares of 6, 2 and 4 rows give mean and variance of all, and the four pixels 6 and 17")
    compare([parts[0]], "a process that is alone")
    compare([parts[0], torch.zeros(0, 2), parts[1]], "three processes, of which one has no rows")
    answer.verify("so do one process, and one without rows")
    far = [1000 + part / 20 for part in parts]
    lost = (
        "Mean of squares minus square of the mean: both are a million, and the small difference is rounded away; "
        "take distances from the common mean"
    )
    compare(far, "12 rows near 1000", 5e-3, lost)
    answer.verify("a small variance far from 0 survives")
    answer.passed()


def statistics_mistakes(counts: Tensor, means: Tensor, variances: Tensor) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the known misconceptions lead to: for the mean, and for the variance."""
    n, share = counts.sum(), (counts / counts.sum())[:, None]
    mean, plain = (share * means).sum(0), means.mean(0)
    right = (share * (variances + (means - mean) ** 2)).sum(0)
    for_mean = {
        "you averaged the means; a process with more rows weighs more": plain,
        "that is the sum; divide by all rows": mean * n,
        "you added up the means": means.sum(0),
        "that is the variance; the mean comes first": right,
    }
    for_variance = {
        "you averaged the variances; the means lie apart, and that adds to the variance": variances.mean(0),
        "the means lie apart: the square of each one's distance from the common mean is missing": (
            (share * variances).sum(0)
        ),
        "only the distances between the means are in it; add each process's own variance": (
            (share * (means - mean) ** 2).sum(0)
        ),
        "the distances are not squared": (share * (variances + (means - mean).abs())).sum(0),
        "the distances are not squared, so they cancel": (share * (variances + means - mean)).sum(0),
        "a process with more rows weighs more": (variances + (means - mean) ** 2).mean(0),
        "the distances are those from the plain average of the means": (
            (share * (variances + (means - plain) ** 2)).sum(0)
        ),
        "you divided by one less than there are rows": right * n / (n - 1).clamp(min=1),
        "that is the sum of squares; divide by all rows": right * n,
        "that is the standard deviation": right.sqrt(),
    }
    return for_mean, for_variance


# ---- 13.4


def check_shared_gradient(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 13.4: several processes find the slope that one would find.

    Args:
        function: shared_gradient(network, weight, rows, loss_of, processes) -> the shape of weight.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("shared_gradient", function)
    weight, rows, captions = random(seed, 3, 2), random(seed + 1, 8, 3), random(seed + 2, 8, 2)

    def network(w: Tensor, x: Tensor) -> Tensor:
        return torch.tanh(x @ w)

    def loss_of(outputs: Tensor) -> Tensor:
        neighbours = (outputs[1:] - outputs[:-1]).square().mean()
        return (outputs - captions).square().mean() - 0.1 * neighbours

    right = slope_of(lambda w: loss_of(network(w, rows)), weight)
    for processes in (1, 2, 4, 8):
        watched = Counted(network)
        given = weight.clone().requires_grad_()
        result = answer(watched, given, rows, checked_loss(answer, loss_of), processes)
        found = answer.expect_shape(result, (3, 2), "a slope has the shape of the weight").detach()
        what = f"the slope of a batch of 8 with {processes} process{'es' if processes > 1 else ''}"
        answer.expect(found, right, what, sharing_mistakes(network, weight, rows, loss_of, processes))
        watched.expect_small(answer, 8 // processes, "`network`")
    answer.verify("1, 2, 4 and 8 processes find the slope of the whole batch, each from its own rows")
    answer.passed()


def checked_loss(answer: Answer, loss_of: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The loss, which refuses outputs that are not those of all rows."""

    def loss(outputs: Tensor) -> Tensor:
        if len(outputs) != 8:
            answer.fail(
                f"`loss_of` was given {len(outputs)} outputs; the loss is that of all 8 rows, so put them together"
            )
        return loss_of(outputs)

    return loss


def sharing_mistakes(
    network: Callable[[Tensor, Tensor], Tensor],
    weight: Tensor,
    rows: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    processes: int,
) -> dict[str, Tensor]:
    """What the known misconceptions lead to."""
    every_other = torch.cat([torch.arange(rank, 8, processes) for rank in range(processes)])
    blocks = torch.arange(8).chunk(processes)
    reverse = torch.cat(blocks[::-1])
    whole = slope_of(lambda w: loss_of(network(w, rows)), weight)
    mixed = slope_of(lambda w: loss_of(network(w, rows[every_other])), weight)

    def own(rank: int) -> Tensor:
        def loss(w: Tensor) -> Tensor:
            parts = [network(w, rows[b]) for b in blocks]
            return loss_of(torch.cat([p if r == rank else p.detach() for r, p in enumerate(parts)]))

        return slope_of(loss, weight)

    if processes == 1:
        return {"the sign is wrong": -whole}
    return {
        "both mistakes are still there: the order of the outputs, and the average": mixed / processes,
        "the outputs are in another order than the rows; give each process a block of neighbours": mixed,
        "the blocks are put together in another order than the rows": (
            slope_of(lambda w: loss_of(network(w, rows[reverse])), weight)
        ),
        "you averaged: each process finds the part of the slope that goes through its own rows; parts are added up": (
            whole / processes
        ),
        "every process lets slopes through all rows, and they are added up: each row counts once for each process": (
            whole * processes
        ),
        "only the first process's part is in it": own(0),
        "only the last process's part is in it": own(processes - 1),
        "the outputs are in another order, and each row counts once for each process": mixed * processes,
    }
