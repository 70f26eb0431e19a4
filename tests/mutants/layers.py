"""Answers to the exercises of chapter 05."""

import copy
import math

import torch
import torch.nn.functional as F
from torch.nn import Parameter

from course_lib.layers import Conv2d, Linear, fan_in


def loops(where=lambda b, o, w, k: (w[b] * k[o]).sum(), pad=None, step=lambda n, s: n * s, gaps=False, more=1):
    """A convolution by loops, with one place in it changed."""

    def convolve(images, weight, bias, stride, padding):
        (high, wide), (down, right) = weight.shape[2:], stride
        padded = (pad or (lambda x, p: F.pad(x, (p[1], p[1], p[0], p[0]))))(images, padding)
        rows = (padded.shape[2] - high) // down + more
        columns = (padded.shape[3] - wide) // right + more
        if gaps:
            padded = F.pad(padded, (0, 20, 0, 20))
        output = images.new_zeros(len(images), len(weight), rows, columns)
        for b in range(len(images)):
            for o in range(len(weight)):
                for i in range(rows):
                    for j in range(columns):
                        if gaps:
                            window = padded[:, :, i : i + high * down : down, j : j + wide * right : right]
                        else:
                            top, left = step(i, down), step(j, right)
                            window = padded[:, :, top : top + high, left : left + wide]
                        output[b, o, i, j] = where(b, o, window, weight) + bias[o]
        return output

    return convolve


def one_number_at_a_time(images, weight, bias, stride, padding):
    (count, _, height, width), (outputs, _, high, wide) = images.shape, weight.shape
    rows = (height + 2 * padding[0] - high) // stride[0] + 1
    columns = (width + 2 * padding[1] - wide) // stride[1] + 1
    numbers = []
    for b in range(count):
        for o in range(outputs):
            for i in range(rows):
                for j in range(columns):
                    total = bias[o]
                    for k in range(high):
                        for m in range(wide):
                            y, x = i * stride[0] + k - padding[0], j * stride[1] + m - padding[1]
                            if 0 <= y < height and 0 <= x < width:
                                total = total + images[b, :, y, x] @ weight[o, :, k, m]
                    numbers.append(total)
    return torch.stack(numbers).view(count, outputs, rows, columns)


def over_the_kernel(images, weight, bias, stride, padding):
    padded = F.pad(images, (padding[1], padding[1], padding[0], padding[0]))
    high, wide = weight.shape[2:]
    total = 0
    for k in range(high):
        for m in range(wide):
            seen = padded[:, :, k : padded.shape[2] - high + k + 1, m : padded.shape[3] - wide + m + 1]
            total = total + torch.einsum("bchw,oc->bohw", seen[:, :, :: stride[0], :: stride[1]], weight[:, :, k, m])
    return total + bias.view(1, -1, 1, 1)


def double_windows(images, weight, bias, stride, padding):
    padded = F.pad(images.double(), (padding[1], padding[1], padding[0], padding[0]))
    windows = padded.unfold(2, weight.shape[2], stride[0]).unfold(3, weight.shape[3], stride[1])
    return torch.einsum("bcijkl,ockl->boij", windows, weight.double()) + bias.double()[:, None, None]


def painter(canvas_side=None, lay="add", crop=None, kernel=lambda k: k, before=lambda x, p: x, channels=slice(None)):
    """A transposed convolution by painting, with one place in it changed."""

    def paint(images, weight, stride, padding):
        images, weight = before(images, padding)[:, channels], kernel(weight)[channels]
        size = weight.shape[-1]
        sides = [(canvas_side or (lambda n, s, k: (n - 1) * s + k))(n, stride, size) for n in images.shape[2:]]
        canvas = images.new_zeros(len(images), weight.shape[1], *sides)
        for i in range(images.shape[2]):
            for j in range(images.shape[3]):
                painting = torch.einsum("bc,cokl->bokl", images[:, :, i, j], weight)
                place = canvas[:, :, i * stride : i * stride + size, j * stride : j * stride + size]
                painting = painting[:, :, : place.shape[2], : place.shape[3]]
                place.copy_(painting) if lay == "hide" else place.add_(painting)
        high, wide = canvas.shape[2:]
        if crop:
            return crop(canvas, padding)
        return canvas[:, :, padding : high - padding, padding : wide - padding]

    return paint


def zeros_between(images, weight, stride, padding):
    """A convolution over the pixels pulled apart, with the kernel turned round."""
    count, channels, height, width = images.shape
    apart = images.new_zeros(count, channels, (height - 1) * stride + 1, (width - 1) * stride + 1)
    apart[:, :, ::stride, ::stride] = images
    around = weight.shape[-1] - 1 - padding
    return F.conv2d(F.pad(apart, [around] * 4), weight.flip(2, 3).transpose(0, 1))


def with_fold(images, weight, stride, padding):
    size = weight.shape[-1]
    columns = torch.einsum("bchw,cokl->boklhw", images.double(), weight.double())
    columns = columns.flatten(4).flatten(1, 3)
    sides = [(n - 1) * stride - 2 * padding + size for n in images.shape[2:]]
    return F.fold(columns, sides, size, padding=padding, stride=stride)


def start(std=lambda layer: math.sqrt(2 / fan_in(layer)), layers=lambda network: network.modules(), bias=True):
    """Kaiming's start, with one place in it changed."""

    @torch.no_grad()
    def initialise(network):
        for layer in layers(network):
            if isinstance(layer, (Conv2d, Linear)):
                layer.weight.normal_(0, std(layer))
                if bias and layer.bias is not None:
                    layer.bias.zero_()
        return network

    return initialise


def not_applied(network):
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            weight = layer.weight
            weight = torch.randn_like(weight) * math.sqrt(2 / fan_in(layer))  # noqa: F841
    return network


def on_copies(network):
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            layer.weight.detach().clone().normal_(0, math.sqrt(2 / fan_in(layer)))
    return network


def new_parameters(network):
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            layer.weight = Parameter(torch.randn_like(layer.weight) * math.sqrt(2 / fan_in(layer)))
            if layer.bias is not None:
                layer.bias = Parameter(torch.zeros_like(layer.bias))
    return network


def in_place_on_a_leaf(network):
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            layer.weight.mul_(math.sqrt(6))
    return network


@torch.no_grad()
def bias_of_all(network):
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            layer.weight.normal_(0, math.sqrt(2 / fan_in(layer)))
            layer.bias.zero_()
    return network


@torch.no_grad()
def norms_too(network):
    for layer in network.modules():
        if getattr(layer, "weight", None) is not None:
            layer.weight.normal_(0, math.sqrt(2 / layer.weight[0].numel()))
    return network


@torch.no_grad()
def spread_evenly(network):
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            bound = math.sqrt(6 / fan_in(layer))
            layer.weight.uniform_(-bound, bound)
    return network


@torch.no_grad()
def equal_outputs(network):
    start()(network)
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            layer.weight.copy_(layer.weight[:1] / layer.weight[:1].std() * math.sqrt(2 / fan_in(layer)))
    return network


def frozen(network):
    return start()(network).requires_grad_(False)


def returns_nothing(network):
    start()(network)


def by_data(network):
    for layer in network.modules():
        if isinstance(layer, (Conv2d, Linear)):
            layer.weight.data = torch.randn(layer.weight.shape, dtype=torch.float64).float() * math.sqrt(
                2 / layer.weight.data[0].numel()
            )
            if layer.bias is not None:
                layer.bias.data *= 0
    return network


def by_dimensions(network):
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.dim() > 1:
                torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        for layer in network.modules():
            if isinstance(layer, (Conv2d, Linear)) and layer.bias is not None:
                layer.bias.copy_(torch.zeros(len(layer.bias)))
    return network


def norm(axes=(0, 2, 3), correction=0, scale=lambda x, g, b: (1 + g) * x + b, divide=None, split=None, view=None):
    """Conditional batch normalisation, with one place in it changed."""

    def conditional_norm(images, captions, weight, eps=1e-5):
        variance, mean = torch.var_mean(images, axes, correction=correction, keepdim=True)
        root = divide(variance, eps) if divide else torch.sqrt(variance + eps)
        both = captions @ weight.T
        gamma, beta = split(both) if split else both.chunk(2, dim=1)
        view_ = view or (lambda x: x[:, :, None, None])
        return scale((images - mean) / root, view_(gamma), view_(beta))

    return conditional_norm


def detached(images, captions, weight, eps=1e-5):
    variance, mean = torch.var_mean(images.detach(), (0, 2, 3), correction=0, keepdim=True)
    gamma, beta = (captions @ weight.T)[:, :, None, None].chunk(2, dim=1)
    return (1 + gamma) * (images - mean) / torch.sqrt(variance + eps) + beta


def by_torch(images, captions, weight, eps=1e-5):
    gamma, beta = F.linear(captions, weight).unflatten(1, (2, -1)).unbind(1)
    plain = F.batch_norm(images, None, None, training=True, eps=eps)
    return torch.einsum("bchw,bc->bchw", plain, gamma + 1) + beta.unsqueeze(-1).unsqueeze(-1)


def channel_by_channel(images, captions, weight, eps=1e-5):
    images, captions, weight = images.double(), captions.double(), weight.double()
    channels, done = images.shape[1], []
    for c in range(channels):
        x = images[:, c]
        mean = x.sum() / x.numel()
        variance = (x**2).sum() / x.numel() - mean**2
        gain, shift = captions @ weight[c] + 1, captions @ weight[channels + c]
        done.append((x - mean) * (variance + eps) ** -0.5 * gain[:, None, None] + shift[:, None, None])
    return torch.stack(done, 1)


WRONG = {
    "check_convolve": {
        "kernel turned": (loops(lambda b, o, w, k: (w[b] * k[o].flip(1, 2)).sum()), "turned by 180 degrees"),
        "stride in the kernel": (loops(gaps=True), "stride went into the kernel"),
        "dilation for stride": (
            lambda x, w, b, stride, padding: F.conv2d(x, w, b, padding=padding, dilation=stride),
            "stride went into the kernel",
        ),
        "window not moved": (loops(step=lambda n, s: n), "does not move the window"),
        "padding on one side": (loops(pad=lambda x, p: F.pad(x, (p[1], 0, p[0], 0))), "one side only"),
        "padding at the end, doubled": (
            loops(pad=lambda x, p: F.pad(x, (0, 2 * p[1], 0, 2 * p[0]))),
            "at the end only",
        ),
        "padding swapped": (
            loops(pad=lambda x, p: F.pad(x, (p[0], p[0], p[1], p[1]))),
            "columns of the padding are swapped",
        ),
        "border repeated": (
            loops(pad=lambda x, p: F.pad(x, (p[1], p[1], p[0], p[0]), mode="replicate")),
            "repeats the border",
        ),
        "first channel": (loops(lambda b, o, w, k: (w[b, 0] * k[o, 0]).sum()), "only the first channel"),
        "mean of channels": (loops(lambda b, o, w, k: (w[b] * k[o]).sum((1, 2)).mean()), "mean over the channels"),
        "mean of the window": (loops(lambda b, o, w, k: (w[b] * k[o]).mean()), "mean over the window"),
        "channels added first": (
            loops(lambda b, o, w, k: (w[b].sum(0) * k[o].sum(0)).sum()),
            "before they meet the kernel",
        ),
        "one kernel": (loops(lambda b, o, w, k: (w[b] * k[0]).sum()), "use weight[o]"),
        "one picture": (loops(lambda b, o, w, k: (w[0] * k[o]).sum()), "use images[b]"),
        "height and width swapped": (
            lambda x, w, b, stride, padding: F.conv2d(x, w.transpose(2, 3), b, stride, padding),
            "height and width of the kernel are swapped",
        ),
        "stride swapped": (
            lambda x, w, b, stride, padding: F.conv2d(x, w, b, stride[::-1], padding),
            "columns of the stride are swapped",
        ),
        "last place missing": (loops(more=0), "range(n) ends"),
        "no bias": (lambda x, w, b, stride, padding: F.conv2d(x, w, None, stride, padding), "bias is missing"),
        "bias for each channel": (
            lambda x, w, b, stride, padding: F.conv2d(x, w, 3 * b, stride, padding),
            "once for every input channel",
        ),
        "items": (
            loops(lambda b, o, w, k: (w[b] * k[o]).sum().item()),
            "cut the slope off",
        ),
        "numpy": (
            lambda x, w, b, stride, padding: F.conv2d(x, w, b, stride, padding).detach().numpy(),
            "no gradient flows",
        ),
    },
    "check_transposed_convolution": {
        "canvas too small": (painter(lambda n, s, k: n * s), "the canvas is side * stride"),
        "padding added": (painter(crop=lambda x, p: F.pad(x, [p] * 4)), "added around the canvas"),
        "padding of the input": (
            painter(crop=lambda x, p: x, before=lambda x, p: F.pad(x, [p] * 4)),
            "put around the input",
        ),
        "padding unused": (painter(crop=lambda x, p: x), "padding is not used"),
        "cropped top left": (painter(crop=lambda x, p: x[:, :, 2 * p :, 2 * p :]), "top left only"),
        "cropped bottom right": (
            painter(crop=lambda x, p: x[:, :, : x.shape[2] - 2 * p, : x.shape[3] - 2 * p]),
            "bottom right only",
        ),
        "the last hides": (painter(lay="hide"), "hides the others"),
        "kernel turned": (painter(kernel=lambda k: k.flip(2, 3)), "turned by 180 degrees"),
        "kernel swapped": (painter(kernel=lambda k: k.transpose(2, 3)), "height and width of the kernel"),
        "first channel": (painter(channels=slice(0, 1)), "only the first channel paints"),
        "stride unused": (
            lambda x, w, stride, padding: F.conv_transpose2d(x, w, stride=1, padding=padding),
            "whatever the stride",
        ),
        "mean of the coats": (
            lambda x, w, stride, padding: (
                F.conv_transpose2d(x, w, stride=stride, padding=padding)
                / F.conv_transpose2d(
                    torch.ones_like(x[:1, :1]), torch.ones_like(w[:1, :1]), stride=stride, padding=padding
                )
            ),
            "took their mean",
        ),
        "detached": (
            lambda x, w, stride, padding: F.conv_transpose2d(x, w, stride=stride, padding=padding).detach(),
            "no gradient flows",
        ),
    },
    "check_initialise": {
        "written but not applied": (not_applied, "written but not applied"),
        "on copies": (on_copies, "written but not applied"),
        "a copy of the network": (lambda network: start()(copy.deepcopy(network)), "another network"),
        "outer layers only": (start(layers=lambda network: network.children()), "`children()`"),
        "variance for deviation": (start(lambda layer: 2 / fan_in(layer)), "2 / fan-in is the variance"),
        "one over fan-in": (start(lambda layer: fan_in(layer) ** -0.5), "half of what it takes"),
        "DCGAN": (start(lambda layer: 0.02), "DCGAN's start"),
        "fan-out": (
            start(lambda layer: math.sqrt(2 / layer.weight[:, 0].numel())),
            "counts outputs",
        ),
        "channels only": (start(lambda layer: math.sqrt(2 / layer.weight.shape[1])), "counts channels only"),
        "deviation 1": (start(lambda layer: 1.0), "standard deviation 1"),
        "biases left": (start(bias=False), "biases"),
        "bias of a layer without": (bias_of_all, "NoneType"),
        "norms too": (norms_too, "changes the normalisation"),
        "uniform": (spread_evenly, "uniform"),
        "equal outputs": (equal_outputs, "the same weights"),
        "new parameters": (new_parameters, "an optimiser that was made before"),
        "leaf in place": (in_place_on_a_leaf, "leaf"),
        "frozen": (frozen, "no gradient"),
        "returns nothing": (returns_nothing, "returns None"),
    },
    "check_conditional_norm": {
        "without the one": (norm(scale=lambda x, g, b: g * x + b), "gamma alone"),
        "for each picture": (norm(axes=(2, 3)), "for each picture"),
        "layer norm": (norm(axes=(1, 2, 3)), "with all its channels"),
        "all numbers": (norm(axes=(0, 1, 2, 3)), "those of all numbers"),
        "at each place": (norm(axes=(0,)), "at each place"),
        "n - 1": (norm(correction=1), "n - 1"),
        "variance": (norm(divide=lambda v, e: v + e), "divided by the variance"),
        "eps outside": (norm(divide=lambda v, e: v.sqrt() + e), "under the root"),
        "eps left out": (norm(divide=lambda v, e: v.sqrt()), "eps is left out"),
        "swapped": (norm(scale=lambda x, g, b: (1 + b) * x + g), "are swapped"),
        "alternating": (norm(split=lambda x: (x[:, ::2], x[:, 1::2])), "alternate"),
        "broadcasts wrongly": (norm(view=lambda x: x), "(B, C, 1, 1)"),
        "first caption": (norm(view=lambda x: x[:1, :, None, None]), "first caption"),
        "no shift": (norm(scale=lambda x, g, b: (1 + g) * x), "the shift is missing"),
        "no scale": (norm(scale=lambda x, g, b: x + b), "the scale is missing"),
        "shift scaled": (norm(scale=lambda x, g, b: (1 + g) * (x + b)), "shift is scaled"),
        "statistics detached": (detached, "no `detach`"),
    },
}
RIGHT = {
    "check_convolve": {
        "loops": loops(),
        "one number at a time": one_number_at_a_time,
        "over the kernel": over_the_kernel,
        "float64 windows": double_windows,
    },
    "check_transposed_convolution": {
        "painted": painter(),
        "zeros between": zeros_between,
        "float64 fold": with_fold,
    },
    "check_initialise": {"normal_": start(), "data": by_data, "by dimensions": by_dimensions},
    "check_conditional_norm": {"var_mean": norm(), "torch": by_torch, "float64 channels": channel_by_channel},
}
