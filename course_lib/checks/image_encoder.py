"""Checks of the exercises of chapter 06: neighbours, vectors of many pictures, a probe, a residual block."""

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module

from course_lib.checks.core import Answer, expect_picture, random, several
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig

# ---- 06.1


def check_nearest(function: Callable[[Tensor, int], Tensor], seed: int = 0) -> None:
    """Exercise 06.1: the nearest neighbours of each vector among the others.

    Args:
        function: nearest(vectors, k), (N, E) -> (N, k) whole numbers, the largest cosine first, never oneself.
        seed: of the vectors it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer = Answer("nearest", function)
    vectors = random(seed, 12, 5) * torch.arange(1, 13)[:, None] / 3  # later ones are longer
    units = F.normalize(vectors.double(), dim=1)
    cosines, itself = units @ units.T, torch.eye(12, dtype=torch.bool)
    order = cosines.masked_fill(itself, -torch.inf).argsort(1, descending=True)[:, :-1]
    products = (vectors @ vectors.T).masked_fill(itself, -torch.inf)
    between = torch.cdist(vectors, vectors).masked_fill(itself, torch.inf)
    centred = F.normalize(vectors - vectors.mean(0), dim=1)
    column = F.normalize(vectors, dim=0)
    mistakes = {
        "each vector is its own nearest neighbour; leave oneself out": cosines.argsort(1, descending=True)[:, :3],
        "these are the farthest ones; look for the largest cosines": order.flip(1)[:, :3],
        "these are the farthest ones; the cosine is large for those that are near": cosines.argsort(1)[:, :3],
        "long vectors win: divide each by its length before you multiply": products.argsort(1, descending=True)[:, :3],
        "these are near by distance, where lengths count; the exercise asks for the cosine": between.argsort(1)[:, :3],
        "the right ones, but the nearest should stand first": order[:, :3].flip(1),
        "the mean of all vectors was subtracted first; the cosine takes them as they are": (
            (centred @ centred.T).masked_fill(itself, -torch.inf).argsort(1, descending=True)[:, :3]
        ),
        "every column was divided by its length; divide every row": (
            (column @ column.T).masked_fill(itself, -torch.inf).argsort(1, descending=True)[:, :3]
        ),
    }
    found = answer.tensor(answer(vectors, 3))
    if found.is_floating_point() and tuple(found.shape) == (12, 3):
        answer.fail("it returns the cosines; return the numbers of the rows (`.indices` of what `topk` gives)")
    answer.expect_shape(found, (12, 3), "(vectors, neighbours)")
    if bool((found == torch.arange(12)[:, None]).any()) and not torch.equal(found, next(iter(mistakes.values()))):
        answer.fail("some vectors are their own neighbours; leave each out of its own list")
    answer.expect(found, order[:, :3], "the table of the three nearest of 12 vectors", mistakes)
    answer.verify("the largest cosines come first, whatever the lengths")
    everyone = answer.expect_shape(answer(vectors, 11), (12, 11), "(vectors, neighbours)")
    if bool((everyone == torch.arange(12)[:, None]).any()):
        answer.fail(
            "with k = 11 of 12, some vectors are their own neighbours: cosines go down to -1, so 0 is not worst"
        )
    answer.expect(everyone, order, "the table of all 11 others of 12 vectors, in their order", tolerance=0)
    answer.expect(answer(-vectors[:2].abs(), 1), [[1], [0]], "the only other one of two vectors")
    answer.verify("no vector is its own neighbour")
    _check_copies(answer, vectors)
    answer.passed()


def _check_copies(answer: Answer, vectors: Tensor) -> None:
    """Pictures that are there several times, and a vector of zeros."""
    rows = torch.arange(8)
    thrice = vectors[:8].clone()
    thrice[[3, 6]] = vectors[1]
    found = answer(thrice, 2)
    told = "with three equal pictures among eight"
    if bool((found == rows[:, None]).any()):
        answer.fail(
            f"{told}, one becomes its own neighbour: the first of `topk` need not be oneself if there is a copy. Sort "
            "oneself out by number, not by place"
        )
    for row, copies in ((1, {3, 6}), (3, {1, 6}), (6, {1, 3})):
        if set(found[row].tolist()) != copies:
            answer.fail(
                f"{told}, the two copies of number {row} are not its nearest neighbours. Leave out oneself only, not "
                "all whose cosine is 1"
            )
    answer.verify("copies are found")
    empty = vectors[:6].abs() + 0.1  # all cosines above 0
    empty[2] = 0
    found = answer(empty, 4)
    if bool((found[rows[:6] != 2] == 2).any()):
        answer.fail(
            "a vector of zeros is a near neighbour of all: its length is 0, 0/0 is not a number, and `topk` takes "
            "that for the largest. Its cosine should be 0"
        )
    answer.verify("a vector of zeros is no neighbour")


# ---- 06.2


def check_embed(function: Callable[[Module, Tensor, int], Tensor], seed: int = 0) -> None:
    """Exercise 06.2: vectors that do not depend on their company.

    Args:
        function: embed(encoder, images, batch_size) -> (N, E) without gradient, as in eval mode; the encoder is left as
            it was.
        seed: of the pictures and of the encoder it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, images = Answer("embed", function), random(seed, 11, 3, 16, 16)
    encoder, seen = _watched_encoder(seed)
    before = copy.deepcopy(encoder.state_dict())
    with torch.no_grad():
        right = copy.deepcopy(encoder).eval()(images)
        lone = torch.cat([copy.deepcopy(encoder).train()(part) for part in images.split(4)])
        whole = copy.deepcopy(encoder).train()(images)
    seen.clear()
    result = answer(encoder, images, 4)
    found = answer.tensor(result)
    told = "11 pictures, batches of 4"
    lost = {
        8: "the last three pictures are missing; the last batch may be shorter than the others",
        4: "these are the vectors of one batch; join those of all batches",
        3: "these are the vectors of the last batch; join those of all batches",
        12: "a picture is there twice; the last batch has three pictures only",
    }
    if found.dim() == 2 and len(found) in lost:
        answer.fail(f"{told}: {len(found)} vectors: {lost[len(found)]}")
    answer.expect_shape(found, (11, 6), f"{told}: (pictures, numbers of a vector)")
    mistakes = {
        "the encoder is in train mode: batch normalisation takes mean and variance from the batch, so a vector depends "
        "on its company": lone,
        "the encoder is in train mode, and gets all pictures at once; a vector depends on its company": whole,
        "the vectors were scaled to length 1; give them as the encoder does": F.normalize(right, dim=1),
        "the vectors are in another order than the pictures": right.flip(0),
    }
    answer.expect(
        found,
        right,
        f"the result for {told}",
        mistakes,
        tolerance=1e-4,
        hint="in eval mode the encoder gives other vectors",
    )
    answer.verify("every vector is that of the eval mode")
    if found.requires_grad:
        answer.fail(
            "the vectors still want a gradient, so everything on the way to them stays in memory; compute them under "
            "`torch.no_grad()`"
        )
    if max(seen) > 4:
        answer.fail(f"the encoder got {max(seen)} pictures at a time with batch_size=4; many pictures would not fit")
    answer.verify("in batches, without gradient")
    _expect_as_before(answer, encoder, before, training=True)
    encoder.eval()
    answer.expect(answer(encoder, images, 5), right, "11 pictures, batches of 5", tolerance=1e-4)
    _expect_as_before(answer, encoder, before, training=False)
    answer.verify("the encoder is as before, in train mode and in eval mode")
    answer.expect(answer(encoder, images[:2], 5), right[:2], "2 pictures, batches of 5", tolerance=1e-4)
    answer.expect(answer(encoder, images[:10], 5), right[:10], "10 pictures, batches of 5", tolerance=1e-4)
    answer.verify("any number of pictures will do")
    answer.passed()


def _watched_encoder(seed: int) -> tuple[ImageEncoder, list[int]]:
    """A small encoder that has seen some batches, in train mode; and a list of how many pictures it gets."""
    seen: list[int] = []

    def note(module: Module, inputs: tuple[Any, ...], output: Any) -> None:
        seen.append(len(inputs[0]))

    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        encoder = ImageEncoder(ImageEncoderConfig(image_size=16, width=4, output_size=6))
        for _ in range(10):
            encoder(1 + torch.randn(8, 3, 16, 16) / 2)  # brighter than what is to be embedded
    encoder.register_forward_hook(note)
    return encoder, seen


def _expect_as_before(answer: Answer, encoder: Module, before: dict[str, Tensor], training: bool) -> None:
    """Fail if the answer has left something changed in the encoder."""
    mode = {True: "train", False: "eval"}
    if any(module.training is not training for module in encoder.modules()):
        answer.fail(
            f"the encoder was in {mode[training]} mode and is in {mode[not training]} mode afterwards; put it back "
            "into the mode in which it was"
        )
    if any(not torch.equal(value, before[name]) for name, value in encoder.state_dict().items()):
        answer.fail("afterwards the encoder has other numbers: its running means moved, or its weights did")
    if not all(parameter.requires_grad for parameter in encoder.parameters()):
        answer.fail("afterwards the encoder's weights want no gradient any more; its training could not go on")


# ---- 06.3


def check_ridge_with_bias(function: Callable[..., tuple[Tensor, Tensor]], seed: int = 0) -> None:
    """Exercise 06.3: ridge regression with a bias that is not penalised.

    Args:
        function: ridge_with_bias(x, y, penalty), (N, D) and (N, C) -> weight (D, C) and bias (C,).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, names = Answer("ridge_with_bias", function), ("weight", "bias")
    x = random(seed, 30, 4) @ random(seed + 1, 4, 4) + 2
    y = x @ random(seed + 2, 4, 3) + random(seed + 3, 30, 3) + 5

    def expect(x: Tensor, y: Tensor, penalty: float, told: str, mistakes: dict[str, tuple[Tensor, Tensor]]) -> None:
        right = _ridge(x, y, penalty)
        weight, bias = several(answer, answer(x, y, penalty), names)
        answer.expect_shape(weight, tuple(right[0].shape), "(numbers a picture, outputs)", "the weight")
        answer.expect_shape(bias, tuple(right[1].shape), "one number for each output", "the bias")
        first = {mistake: wrong[0] for mistake, wrong in mistakes.items()}
        second = {mistake: wrong[1] for mistake, wrong in mistakes.items()}
        answer.expect(weight, right[0], f"the weight for {told}", first, tolerance=1e-3)
        answer.expect(bias, right[1], f"the bias for {told}", second, tolerance=1e-3)

    means = x.mean(0), y.mean(0)
    weight, bias = _ridge(x, y, 0.0)
    uncentred = torch.linalg.lstsq(x, y).solution
    mistakes = {
        "the bias is 0; it is what the means leave over": (weight, torch.zeros(3)),
        "there is no bias in it; subtract the means first": (uncentred, torch.zeros(3)),
        "the bias is the mean of y; the mean of x, times the weight, has to be subtracted": (weight, means[1]),
        "the sign of the bias is wrong": (weight, -bias),
    }
    expect(x, y, 0.0, "30 pictures without a penalty", mistakes)
    answer.verify("without a penalty it is least squares")
    weight, bias = _ridge(x, y, 0.5)
    one = torch.ones(30, 1)
    penalised = _ridge(torch.cat([x, one], 1), y, 0.5, centre=False)
    everywhere = x - means[0]
    everywhere = torch.linalg.solve(everywhere.T @ everywhere + 0.5 * 30, everywhere.T @ (y - means[1]))
    mistakes = {
        "the bias is penalised with the weights; it must stay out of the penalty": (penalised[:-1], penalised[-1]),
        "the penalty is too small: the squared error is a mean, so the penalty times the number of pictures belongs "
        "to the sum": _ridge(x, y, 0.5 / 30),
        "the penalty is added to every number of the matrix; it belongs on the diagonal (`torch.eye`)": (
            everywhere,
            bias,
        ),
        "the penalty is not used": _ridge(x, y, 0.0),
        "the penalty is squared": _ridge(x, y, 0.25),
        "there is no bias in it; subtract the means first": (_ridge(x, y, 0.5, centre=False), torch.zeros(3)),
        "the bias is the mean of y; the mean of x, times the weight, has to be subtracted": (weight, means[1]),
        "the penalty counts the numbers of a picture; the squared error is a mean over pictures": (
            _ridge(x, y, 0.5 * 4 / 30)
        ),
    }
    expect(x, y, 0.5, "30 pictures, penalty 0.5", mistakes)
    answer.verify("the penalty acts on the weights only")
    column, target = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[5.0], [7.0], [9.0]])
    expect(column, target, 1.0, "x = 1, 2, 3 and penalty 1", {})
    answer.verify("by hand: 0.8 and 5.4")
    expect(x[:5].repeat(1, 2), y[:5], 0.1, "5 pictures of 8 numbers each, penalty 0.1", {})
    dead = x.clone()
    dead[:, 1] = 3
    expect(dead, y, 0.1, "numbers of which one is the same for all pictures, penalty 0.1", {})
    expect(x.double(), y.double(), 1e6, "a penalty of a million", {})
    answer.verify("more numbers than pictures, a number that never changes, and a huge penalty do no harm")
    answer.passed()


def _ridge(x: Tensor, y: Tensor, penalty: float, centre: bool = True) -> Any:
    """(weight, bias) by least squares, the penalty as D more pictures; without centring the weight alone."""
    x, y = x.double(), y.double()
    x_mean, y_mean = (x.mean(0), y.mean(0)) if centre else (x.new_zeros(x.shape[1]), y.new_zeros(y.shape[1]))
    more = (penalty * len(x)) ** 0.5 * torch.eye(x.shape[1], dtype=x.dtype)
    wanted = torch.cat([y - y_mean, y.new_zeros(x.shape[1], y.shape[1])])
    weight = torch.linalg.lstsq(torch.cat([x - x_mean, more]), wanted).solution
    return (weight, y_mean - x_mean @ weight) if centre else weight


# ---- 06.4


def check_residual_block(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 06.4: two convolutions and a way round them.

    Args:
        function: residual_block(images, weight1, weight2, shortcut, stride), (B, C, H, W), (O, C, 3, 3), (O, O, 3, 3),
            (O, C, 1, 1) or None, 1 or 2 -> (B, O, OH, OW).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, size = Answer("residual_block", function), "only the stride makes the picture smaller"
    images, weight1, weight2 = random(seed, 3, 4, 5, 6), random(seed + 1, 4, 4, 3, 3), random(seed + 2, 4, 4, 3, 3)

    def within(images: Tensor, weight1: Tensor, weight2: Tensor, stride: int) -> Tensor:
        x = _normalised(F.conv2d(images, weight1, stride=stride, padding=1)).relu()
        return _normalised(F.conv2d(x, weight2, padding=1))

    through = within(images, weight1, weight2, 1)
    first = _normalised(F.conv2d(images, weight1, padding=1))
    straight, second = _normalised(F.conv2d(first, weight2, padding=1)), F.conv2d(first.relu(), weight2, padding=1)
    last = "the ReLU comes before the sum; take it of the sum"
    mistakes = {
        "the way round is missing": through.relu(),
        last: through.relu() + images,
        f"{last}, or nothing can be taken back": through.relu() + images.relu(),
        "the last ReLU is missing": through + images,
        "the way round is subtracted; add it": (through - images).relu(),
        "both ways stand side by side as channels; add them": torch.cat([images, through], 1).relu(),
        "the way round is normalised although there is no shortcut; the input stays as it is": (
            (through + _normalised(images)).relu()
        ),
        "the sum is normalised; only what the convolutions make is": _normalised(through + images).relu(),
        "the second `normalise` comes after the sum; it belongs before": _normalised(second + images).relu(),
        "the ReLU between the two convolutions is missing": (straight + images).relu(),
        "the second `normalise` is missing": (second + images).relu(),
        "the two ways are averaged; add them": ((through + images) / 2).relu(),
        "the way round goes round the second convolution only": (through + first.relu()).relu(),
    }
    right, told = (through + images).relu(), "a block without shortcut"
    expect_picture(answer, answer(images, weight1, weight2, None, 1), right, told, mistakes, size)
    answer.verify("without shortcut the input itself is added")
    nothing = answer(images, weight1, torch.zeros_like(weight2), None, 1)
    answer.expect(nothing, images.relu(), "the block with a weight2 of zeros", hint="it is the input after ReLU")
    answer.verify("a block that has learned nothing lets its input through")
    weight1, weight2, shortcut = (
        random(seed + 3, 6, 4, 3, 3),
        random(seed + 4, 6, 6, 3, 3),
        random(seed + 5, 6, 4, 1, 1),
    )

    def original(images: Tensor, weight1: Tensor, weight2: Tensor, shortcut: Tensor, stride: int = 2) -> Tensor:
        way_round = _normalised(F.conv2d(images, shortcut, stride=stride))
        return (within(images, weight1, weight2, stride) + way_round).relu()

    through, bare = within(images, weight1, weight2, 2), F.conv2d(images, shortcut, stride=2)
    pooled = F.avg_pool2d(images, 2, ceil_mode=True)
    mistakes = {
        "the way round is missing": through.relu(),
        "the way round is not normalised": (through + bare).relu(),
        "the way round has a ReLU of its own": (through + _normalised(bare).relu()).relu(),
        last: through.relu() + _normalised(bare),
        "the way round is enlarged or shrunk by averaging; its convolution has the stride": (
            (through + _normalised(F.conv2d(pooled, shortcut))).relu()
        ),
        "the way round is normalised before it is made smaller": (
            (through + _normalised(F.conv2d(images, shortcut))[:, :, ::2, ::2]).relu()
        ),
        "the stride is not used": original(images, weight1, weight2, shortcut, 1),
        "the sum is normalised; each way is normalised by itself": _normalised(through + bare).relu(),
    }
    told = "a block with stride 2 and a shortcut from 4 to 6 channels"
    result = answer(images, weight1, weight2, shortcut, 2)
    expect_picture(answer, result, original(images, weight1, weight2, shortcut), told, mistakes, size)
    wide = answer(images, weight1, weight2, shortcut, 1)
    told = "a block with stride 1 and a shortcut from 4 to 6 channels"
    expect_picture(answer, wide, original(images, weight1, weight2, shortcut, 1), told, {}, size)
    answer.verify("a shortcut changes channels and size")
    cut = "the way round gets no slope; do not `detach` it"

    def detached(images: Tensor, weight1: Tensor, weight2: Tensor, shortcut: Tensor) -> Tensor:
        way_round = _normalised(F.conv2d(images, shortcut, stride=2)).detach()
        return (within(images, weight1, weight2, 2) + way_round).relu()

    weights = random(seed + 6, *original(images, weight1, weight2, shortcut).shape)
    sloped = Answer("residual_block", lambda *parts: answer.tensor(function(*parts, 2)) * weights)
    sloped.expect_gradient(
        (images, weight1, weight2, shortcut), lambda *parts: original(*parts) * weights, "the slope", 1e-3,
        mistakes={cut: lambda *parts: detached(*parts) * weights},
    )  # fmt: skip
    answer.verify("slopes agree")
    answer.passed()


def _normalised(x: Tensor) -> Tensor:
    return F.batch_norm(x, None, None, training=True)
