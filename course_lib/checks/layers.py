"""Checks of the exercises of chapter 05: convolutions, first weights, conditional normalisation."""

import math
from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn import Module, ReLU, Sequential

from course_lib.checks.core import Answer, expect_picture, random
from course_lib.layers import Conv2d, GroupNorm, Linear, fan_in

Numbers = Mapping[str, Tensor]  # misconception -> the result it leads to


def check_convolve(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 05.1: a convolution with a kernel, a stride and a padding that differ in rows and columns.

    Args:
        function: convolve(images, weight, bias, stride, padding), (B, C, H, W), (O, C, KH, KW) and (O,) ->
            (B, O, OH, OW); stride and padding are pairs (rows, columns).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, size = Answer("convolve", function), "(side + 2 padding - kernel) // stride + 1"
    images, weight, bias = random(seed, 2, 3, 6, 7), random(seed + 1, 4, 3, 3, 2), random(seed + 2, 4)
    none = torch.zeros(4)
    right = F.conv2d(images, weight)
    mistakes = {
        "the kernel is turned by 180 degrees; that is the mathematicians' convolution, and layers leave it out": (
            F.conv2d(images, weight.flip(2, 3))
        ),
        "only the first channel counts; sum over all of them": F.conv2d(images[:, :1], weight[:, :1]),
        "you took the mean over the channels; add them up": right / 3,
        "you took the mean over the window; add up": right / weight[0].numel(),
        "the channels are added up before they meet the kernel; each channel has weights of its own": (
            F.conv2d(images.sum(1, keepdim=True), weight.sum(1, keepdim=True))
        ),
        "the channels' mean meets the kernel; each channel has weights of its own": (
            F.conv2d(images.mean(1, keepdim=True).expand_as(images), weight)
        ),
        "height and width of the kernel are swapped": F.conv2d(images, weight.transpose(2, 3)),
        "every kernel gives the same; use weight[o] for the output channel o": F.conv2d(images, weight[:1]).expand_as(
            right
        ),
        "every picture gives the same; use images[b] for the picture b": F.conv2d(images[:1], weight).expand_as(right),
        "the last row and column are missing; range(n) ends at n - 1, so add one": right[:, :, :-1, :-1],
    }
    told = "a kernel of 3 x 2 on 6 x 7 pixels"
    expect_picture(answer, answer(images, weight, none, (1, 1), (0, 0)), right, told, mistakes, size)
    answer.verify("a kernel of 3 x 2 gives torch's numbers")
    mistakes = {
        "the bias is missing": right,
        "the bias is added once for every input channel; add it once, at the end": right + 3 * bias[:, None, None],
        "the bias is subtracted": right - bias[:, None, None],
    }
    expect_picture(
        answer,
        answer(images, weight, bias, (1, 1), (0, 0)),
        right + bias[:, None, None],
        f"{told}, with a bias",
        mistakes,
        size,
    )
    answer.verify("so with a bias")
    right = F.conv2d(images, weight, bias, stride=(1, 2))
    gaps = F.conv2d(F.pad(images, (0, 9, 0, 9)), weight, bias, dilation=(1, 2))
    far = (slice(None), slice(None), slice(right.shape[2]), slice(right.shape[3]))
    mistakes = {
        "the stride went into the kernel, which got gaps (that is dilation); the stride moves the window": gaps[far],
        "the stride went into the kernel, whose window got gaps (dilation); it should move the window": (
            F.conv2d(images, weight, bias, dilation=(1, 2))
        ),
        "the stride shortens the output but does not move the window; the window of output j begins at j * stride": (
            F.conv2d(images, weight, bias)[far]
        ),
        "the stride is not used": F.conv2d(images, weight, bias),
        "rows and columns of the stride are swapped; the first number is that of the rows": (
            F.conv2d(images, weight, bias, stride=(2, 1))
        ),
        "one number of the stride serves for both sides": F.conv2d(images, weight, bias, stride=2),
    }
    expect_picture(
        answer, answer(images, weight, bias, (1, 2), (0, 0)), right, f"{told}, stride (1, 2)", mistakes, size
    )
    answer.verify("so with a stride of (1, 2)")
    right = F.conv2d(images, weight, bias, padding=(2, 1))
    around = (1, 1, 2, 2)
    mistakes = {
        "padding stands on one side only; zeros go on both": F.conv2d(F.pad(images, (1, 0, 2, 0)), weight, bias),
        "rows and columns of the padding are swapped; `F.pad` wants the columns first": (
            F.conv2d(images, weight, bias, padding=(1, 2))
        ),
        "the padding is not used": F.conv2d(images, weight, bias),
        "one number of the padding serves for both sides": F.conv2d(images, weight, bias, padding=2),
        "one number of the padding serves for both sides of the picture": F.conv2d(images, weight, bias, padding=1),
        "the padding repeats the border; it is made of zeros": (
            F.conv2d(F.pad(images, around, mode="replicate"), weight, bias)
        ),
        "the padding mirrors the border; it is made of zeros": (
            F.conv2d(F.pad(images, around, mode="reflect"), weight, bias)
        ),
        "the padding stands on one side only, where it is twice as thick": (
            F.conv2d(F.pad(images, (2, 0, 4, 0)), weight, bias)
        ),
        "the padding stands at the end only, where it is twice as thick": (
            F.conv2d(F.pad(images, (0, 2, 0, 4)), weight, bias)
        ),
    }
    result = answer(images, weight, bias, (1, 1), (2, 1))
    expect_picture(answer, result, right, f"{told}, padding (2, 1)", mistakes, size)
    answer.verify("so with a padding of (2, 1)")

    settings = {"stride": (3, 2), "padding": (1, 2)}
    mistakes = {
        "a last window that does not fit is taken too; // rounds down": F.conv2d(
            F.pad(images, (0, 1, 0, 2)), weight, bias, **settings
        )
    }
    right = F.conv2d(images, weight, bias, **settings)
    result = answer(images, weight, bias, (3, 2), (1, 2))
    expect_picture(answer, result, right, f"{told}, stride (3, 2), padding (1, 2)", mistakes, size)
    lost = "Sums must stay tensors; `.item()` and `float()` cut the slope off."
    sloped = Answer("convolve", lambda *parts: function(*parts, (3, 2), (1, 2)))
    sloped.expect_gradient((images, weight, bias), lambda *parts: F.conv2d(*parts, **settings), "the slope", hint=lost)
    answer.verify("with both at once; slopes agree")
    answer.passed()


def check_transposed_convolution(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 05.2: a transposed convolution, painted on a canvas.

    Args:
        function: transposed_convolution(images, weight, stride, padding), (B, C, H, W) and (C, O, K, K) ->
            (B, O, OH, OW).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, size = Answer("transposed_convolution", function), "(side - 1) * stride - 2 * padding + kernel"
    images, weight = random(seed, 2, 3, 4, 5), random(seed + 1, 3, 2, 3, 3)
    original = F.conv_transpose2d
    right = original(images, weight, stride=3)
    mistakes = {
        "the kernel is turned by 180 degrees; paint it as it is": original(images, weight.flip(2, 3), stride=3),
        "only the first channel paints; all of them do, and their paintings add": (
            original(images[:, :1], weight[:1], stride=3)
        ),
        "you took the mean over the channels; add up": right / 3,
        "the paintings stand side by side, whatever the stride": original(images, weight, stride=1),
        "the canvas is side * stride; the last painting begins at (side - 1) * stride and is as long as the kernel": (
            right.new_zeros(2, 2, 13, 16)
        ),
        "height and width of the kernel are swapped": original(images, weight.transpose(2, 3), stride=3),
        "height and width of the canvas are swapped": right.transpose(2, 3),
        "every picture gives the same": original(images[:1], weight, stride=3).expand_as(right),
    }
    what = "4 x 5 numbers, kernel 3, stride 3 (no overlap)"
    expect_picture(answer, answer(images, weight, 3, 0), right, what, mistakes, size)
    answer.verify("without overlap it gives torch's numbers")
    overlapping = original(images, weight, stride=2)
    coats = original(torch.ones(1, 1, 4, 5), torch.ones(1, 1, 3, 3), stride=2)
    last = torch.zeros_like(overlapping)
    for i in range(4):
        for j in range(5):
            painting = torch.einsum("bc,cokl->bokl", images[:, :, i, j], weight)
            last[:, :, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3] = painting
    mistakes = {
        "where paintings overlap, the last one hides the others; they should add": last,
        "where paintings overlap you took their mean; they should add": overlapping / coats,
        "the canvas is side * stride; the last painting begins at (side - 1) * stride and is as long as the kernel": (
            overlapping[:, :, :8, :10]
        ),
        "the stride is not used": original(images, weight),
    }
    what = "4 x 5 numbers, kernel 3, stride 2"
    expect_picture(answer, answer(images, weight, 2, 0), overlapping, what, mistakes, size)
    ones = answer(torch.ones(1, 1, 1, 4), torch.ones(1, 1, 3, 3), 2, 0)
    answer.expect(ones[0, 0, 1], [1.0, 1, 2, 1, 2, 1, 2, 1, 1], "the coats of a row of four")
    answer.verify("overlapping paintings add")
    cropped = original(images, weight, stride=2, padding=1)
    mistakes = {
        "the padding is not used; it crops the canvas": overlapping,
        "the padding is added around the canvas; here it crops": F.pad(overlapping, [1] * 4),
        "the padding is put around the input; here it crops the canvas": original(
            F.pad(images, [1] * 4), weight, stride=2
        ),
        "the canvas is cropped at the top left only; crop every side": overlapping[:, :, 2:, 2:],
        "the canvas is cropped at the bottom right only; crop every side": overlapping[:, :, :-2, :-2],
        "the canvas is cropped at the top left by `padding` and nowhere else": overlapping[:, :, 1:, 1:],
    }
    what = "4 x 5 numbers, kernel 3, stride 2, padding 1"
    expect_picture(answer, answer(images, weight, 2, 1), cropped, what, mistakes, size)
    large = random(seed + 2, 3, 2, 4, 4)
    doubled = answer(images, large, 2, 1)
    expect_picture(
        answer, doubled, original(images, large, stride=2, padding=1), "kernel 4, stride 2, padding 1", {}, size
    )
    answer.verify("padding crops; kernel 4, stride 2, padding 1 doubles the size")
    sloped = Answer("transposed_convolution", lambda *parts: function(*parts, 2, 1))
    sloped.expect_gradient((images, weight), lambda *parts: original(*parts, stride=2, padding=1), "the slope")
    answer.verify("slopes agree")
    answer.passed()


def check_initialise(function: Callable[[Module], Module], seed: int = 0) -> None:
    """Exercise 05.3: first weights that reach the network.

    Args:
        function: initialise(network) -> the same network; weights of Conv2d and Linear layers N(0, 2 / fan-in),
            biases 0, everything else as it was.
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        _check_initialise(Answer("initialise", function))


def _check_initialise(answer: Answer) -> None:
    norm = GroupNorm(4, 64)
    norm.weight.data.fill_(3.0)
    middle, inner = Conv2d(64, 32, 5), Conv2d(32, 32, 3, bias=False)
    layers = {"a 5 x 5 convolution": middle, "a 3 x 3 convolution": Conv2d(8, 64, 3), "a linear layer": Linear(512, 64)}
    layers["a convolution inside a block"] = inner
    network = Sequential(
        layers["a 3 x 3 convolution"], norm, middle, Sequential(ReLU(), Sequential(inner)), layers["a linear layer"]
    )
    before = {name: parameter.detach().clone() for name, parameter in network.named_parameters()}
    same = list(network.parameters())
    result = answer(network)
    if isinstance(result, Module) and result is not network:
        answer.fail("it returns another network; the one that was given should be changed, and returned")
    if all(torch.equal(parameter, before[name]) for name, parameter in network.named_parameters()):
        answer.fail(
            "the network's weights are what they were: the new numbers are written but not applied. `weight = ...` "
            "gives a name to a new tensor; the tensor in the layer has to be filled"
        )
    if result is None:
        answer.fail("it returns None; return the network")
    if [id(parameter) for parameter in network.parameters()] != [id(parameter) for parameter in same]:
        answer.fail(
            "it puts new parameters into the layers: an optimiser that was made before would go on with the old ones. "
            "Fill the tensors that are there"
        )
    answer.verify("the network's own weights are filled")
    if not all(parameter.requires_grad for parameter in same):
        answer.fail("afterwards the weights want no gradient any more, so nothing could be trained")
    if not (torch.equal(norm.weight, before["1.weight"]) and torch.equal(norm.bias, before["1.bias"])):
        answer.fail("it changes the normalisation too; its scale and shift should stay")
    for name, layer in layers.items():
        _expect_weights(answer, name, layer)
    answer.verify("convolutions and linear layers, however deep inside, have N(0, 2 / fan-in); biases are 0")
    deep = Sequential(*[Sequential(Conv2d(16, 16, 3, padding=1), ReLU()) for _ in range(12)])
    answer(deep)
    with torch.no_grad():
        between = deep(torch.randn(16, 16, 12, 12)).var(0).mean().item()
    if not 1e-4 < between < 100:
        answer.fail(
            f"after twelve layers the variance between pictures is {between:.1g}; it should neither vanish nor grow"
        )
    answer.verify("after twelve layers pictures still differ")
    answer.passed()


def _expect_weights(answer: Answer, name: str, layer: Module) -> None:
    """Fail if a layer's numbers are not those of Kaiming's start."""
    weight, n = layer.weight.detach(), fan_in(layer)
    deviation, right = weight.std().item(), math.sqrt(2 / n)
    places = weight[0, 0].numel()
    untouched = 1 / math.sqrt(3 * n)
    mistakes = {
        "these are the numbers it had before; `network.modules()` finds layers inside other layers too, `children()` "
        "does not": untouched,
        "2 / fan-in is the variance; `normal_` wants the standard deviation, its root": 2 / n,
        "1 / fan-in is half of what it takes, because ReLU sets half of the outputs to 0": 1 / math.sqrt(n),
        "the numbers of DCGAN's start; this network has no normalisation to mend them": 0.02,
        "that counts outputs; fan-in counts what one output adds up": math.sqrt(2 / (len(weight) * places)),
        "that counts channels only; fan-in counts the places of the kernel too": math.sqrt(2 / weight.shape[1]),
        "that counts the places of the kernel only; fan-in counts the input channels too": math.sqrt(2 / places),
        "that divides by the number of all weights of the layer; fan-in counts those of one output": math.sqrt(
            2 / weight.numel()
        ),
        "all weights have the standard deviation 1": 1.0,
    }
    told = f"the weights of {name} (fan-in {n:g}) have the standard deviation {deviation:.4f}, not {right:.4f}"
    if abs(deviation / right - 1) > 0.05:
        for mistake, wrong in mistakes.items():
            if abs(deviation / wrong - 1) < 0.05:
                answer.fail(f"{told}: {mistake}")
        answer.fail(told)
    if weight.mean().abs() > 6 * right / math.sqrt(weight.numel()):
        answer.fail(f"the weights of {name} have the mean {weight.mean():.4f}; it should be near 0")
    if torch.equal(weight[0], weight[1]):
        answer.fail(f"in {name} all outputs have the same weights; they would learn the same for ever")
    if weight.abs().max() < 2.5 * right:
        answer.fail(f"the weights of {name} are spread evenly (uniform); take them from a normal distribution")
    if layer.bias is not None and layer.bias.abs().max() > 0:
        answer.fail(f"the biases of {name} are not 0; they make pictures more alike, layer by layer")


def check_conditional_norm(function: Callable[..., Tensor], seed: int = 0) -> None:
    """Exercise 05.4: batch normalisation whose scale and shift come from a caption.

    Args:
        function: conditional_norm(images, captions, weight, eps), (B, C, H, W), (B, E) and (2C, E) -> (B, C, H, W).
        seed: of the numbers it is tried on.
    Raises:
        CheckFailed: it is wrong; says in words what is.
    """
    answer, eps = Answer("conditional_norm", function), 1e-3
    images = 2 * random(seed, 3, 4, 3, 4) + random(seed + 1, 1, 4, 1, 1)  # B = H and C = W: wrong broadcasting runs
    captions, weight = random(seed + 2, 3, 5), random(seed + 3, 8, 5)

    def normalised(x: Tensor, axes: tuple[int, ...] = (0, 2, 3), correction: int = 0) -> Tensor:
        variance, mean = torch.var_mean(x, axes, correction=correction, keepdim=True)
        return (x - mean) / torch.sqrt(variance + eps)

    def original(images: Tensor, captions: Tensor, weight: Tensor) -> Tensor:
        gamma, beta = (captions @ weight.T)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * normalised(images) + beta

    right = original(images, captions, weight)
    answer.expect_shape(answer(images, captions, weight, eps), (3, 4, 3, 4), "that of the pictures")
    start = answer(images, captions, torch.zeros_like(weight), eps)
    plain = normalised(images)
    variance, mean = torch.var_mean(images, (0, 2, 3), correction=0, keepdim=True)
    mistakes = {
        "the gain is gamma alone; with 1 + gamma a layer that starts at zero changes nothing": torch.zeros(3, 4, 3, 4),
        "mean and variance are taken for each picture; take them over the whole batch, for each channel": (
            normalised(images, (2, 3))
        ),
        "mean and variance are those of each picture with all its channels; each channel has its own": (
            normalised(images, (1, 2, 3))
        ),
        "mean and variance are those of all numbers; each channel has its own": normalised(images, (0, 1, 2, 3)),
        "mean and variance are taken at each place; take them over all places too": normalised(images, (0,)),
        "the variance is divided by n - 1 (torch.var does so unless it is told `correction=0`)": (
            normalised(images, correction=1)
        ),
        "you divided by the variance; divide by its root": (images - mean) / (variance + eps),
        "the mean is not subtracted": images / torch.sqrt(variance + eps),
        "nothing is normalised": images,
        "eps is added to the standard deviation; it belongs to the variance, under the root": (
            (images - mean) / (variance.sqrt() + eps)
        ),
        "eps is left out": (images - mean) / variance.sqrt(),
    }
    answer.expect(start, plain, "the result for weights of 0 (plain batch normalisation)", mistakes)
    answer.verify("with weights of 0 it is torch's batch normalisation")
    gamma, beta = (captions @ weight.T)[:, :, None, None].chunk(2, dim=1)
    flat_gamma, flat_beta = gamma[..., 0, 0], beta[..., 0, 0]
    even, odd = (captions @ weight.T)[:, 0::2, None, None], (captions @ weight.T)[:, 1::2, None, None]
    mistakes = {
        "gamma and beta are swapped; the first C numbers are gamma": (1 + beta) * plain + gamma,
        "gamma and beta alternate; the first C numbers are gamma, the last C are beta": (1 + even) * plain + odd,
        "the scale of one caption meets the pixels of another: (B, C) must become (B, C, 1, 1)": (
            (1 + flat_gamma) * plain + flat_beta
        ),
        "every picture gets the first caption": (1 + gamma[:1]) * plain + beta[:1],
        "the gain is gamma alone, not 1 + gamma": gamma * plain + beta,
        "the shift is missing": (1 + gamma) * plain,
        "the scale is missing": plain + beta,
        "the shift is scaled too; add it at the end": (1 + gamma) * (plain + beta),
    }
    answer.expect(answer(images, captions, weight, eps), right, "the result for three captions", mistakes)
    answer.verify("each picture gets scale and shift of its caption")
    lost = "mean and variance depend on the pictures too; no `detach` and no `no_grad` there"

    def without_statistics(images: Tensor, captions: Tensor, weight: Tensor) -> Tensor:
        gamma, beta = (captions @ weight.T)[:, :, None, None].chunk(2, dim=1)
        return (1 + gamma) * (images - mean) / torch.sqrt(variance + eps) + beta

    sloped = Answer("conditional_norm", lambda *parts: function(*parts, eps))
    sloped.expect_gradient((images, captions, weight), original, "the slope", 1e-4, mistakes={lost: without_statistics})
    answer.verify("slopes agree")
    even = answer(torch.full((3, 4, 3, 4), 7.0), captions, weight, eps)
    what, hint = "the result for pictures of one grey", "it is the shift alone; is eps under the root?"
    answer.expect(even, beta.expand(3, 4, 3, 4), what, tolerance=1e-3, hint=hint)  # 1 / root of eps enlarges rounding
    answer.verify("pictures of one grey do not lead to 0 / 0")
    answer.passed()
