"""Layers: the parts every network of the course is made of, written out on tensors (chapter 05).

First the functions: linear map, convolution as unfold + matrix product, transposed convolution as matrix product +
fold, normalisation, resizing, activations. Then the modules that hold their weights; each has the arguments, defaults,
parameter names and first random numbers of its torch.nn original, so either can stand in for the other. Last the two
initialisations. Sizes in pixels (stride, padding, ...) are one number, or one for the rows and one for the columns.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import Module, Parameter

from course_lib.errors import CourseError, nearest

IN_CACHE = 8  # pictures that the written-out convolution unfolds at a time
Pair = int | tuple[int, int]


def pair(value: Pair) -> tuple[int, int]:
    """(rows, columns) of a number that may be given once for both."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Every output is a weighted sum of all inputs: input (..., I), weight (O, I), bias (O,) -> (..., O)."""
    output = input @ weight.T
    return output if bias is None else output + bias


class Unfold(Function):
    """Picture (B, C, H, W) -> windows (B, C, kernel_h * kernel_w, OH, OW): what each kernel position meets."""

    @staticmethod
    def forward(context, picture: Tensor, slices: list[tuple[slice, slice]]) -> Tensor:
        context.size, context.slices = picture.shape, slices
        return torch.stack([picture[:, :, rows, columns] for rows, columns in slices], dim=2)

    @staticmethod
    def backward(context, gradient: Tensor):
        return Fold.apply(gradient, context.size, context.slices), None


class Fold(Function):
    """The transpose of `Unfold`: puts every window back and adds where they overlap. Each is the other's gradient."""

    @staticmethod
    def forward(context, windows: Tensor, size: tuple[int, ...], slices: list[tuple[slice, slice]]) -> Tensor:
        context.slices, picture = slices, windows.new_zeros(size)
        for window, (rows, columns) in zip(windows.unbind(2), slices, strict=True):
            picture[:, :, rows, columns] += window
        return picture

    @staticmethod
    def backward(context, gradient: Tensor):
        return Unfold.apply(gradient, context.slices), None, None


def window_slices(grid: Pair, kernel_size: Pair, stride: Pair, dilation: Pair) -> list[tuple[slice, slice]]:
    """For each kernel position the rows and columns it meets while the kernel takes its grid of OH x OW steps."""
    sides = zip(pair(grid), pair(kernel_size), pair(stride), pair(dilation), strict=True)
    rows, columns = [[slice(i * d, i * d + (n - 1) * s + 1, s) for i in range(k)] for n, k, s, d in sides]
    return [(row, column) for row in rows for column in columns]


def window_grid(size: Pair, kernel_size: Pair, dilation: Pair, padding: Pair, stride: Pair) -> tuple[int, int]:
    """How many steps (OH, OW) a kernel takes over a picture of `size` (H, W); ValueError if it does not fit."""
    sides = zip(*(pair(value) for value in (size, kernel_size, dilation, padding, stride)), strict=True)
    grid = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, d, p, s in sides)
    if min(grid) < 1:
        raise ValueError(f"kernel_size={tuple(pair(kernel_size))} is larger than a picture {tuple(size)}; pad more")
    return grid


def unfold(input: Tensor, kernel_size: Pair, dilation: Pair = 1, padding: Pair = 0, stride: Pair = 1) -> Tensor:
    """Every window that a sliding kernel sees, as one column ("im2col", Chellapilla et al. 2006).

    Args:
        input: (B, C, H, W).
    Returns:
        (B, C * kernel_h * kernel_w, OH * OW), OH = (H + 2 padding - dilation (kernel_h - 1) - 1) // stride + 1.
    """
    grid, (pad_h, pad_w) = window_grid(input.shape[2:], kernel_size, dilation, padding, stride), pair(padding)
    padded = torch.constant_pad_nd(input, (pad_w, pad_w, pad_h, pad_h))
    return Unfold.apply(padded, window_slices(grid, kernel_size, stride, dilation)).flatten(3).flatten(1, 2)


def check_convolution(input: Tensor, weight: Tensor, channels: int, groups: int) -> None:
    """Refuses an input (B, C, H, W) whose C is not the `channels` that the weight takes, or groups that do not fit."""
    if input.dim() != 4 or input.shape[1] != channels or weight.shape[0] % groups:
        shapes = f"input {tuple(input.shape)}, weight {tuple(weight.shape)} and groups={groups}"
        raise ValueError(f"{shapes} do not fit; input must be (B, {channels}, H, W)")


def conv2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Pair = 1, padding: Pair = 0, dilation: Pair = 1, groups: int = 1,
) -> Tensor:  # fmt: skip
    """Convolution: `unfold`, then one matrix product for all windows.

    Args:
        input: (B, C, H, W).
        weight: (O, C / groups, kernel_h, kernel_w); groups of channels do not see each other.
        bias: (O,) or None.
    Returns:
        (B, O, OH, OW), sizes as for `unfold`.
    Raises:
        ValueError: channels and groups do not fit, or the kernel is larger than the padded picture.
    Source: Dumoulin & Visin 2016, "A guide to convolution arithmetic", arXiv:1603.07285.
    """
    check_convolution(input, weight, weight.shape[1] * groups, groups)
    if len(input) > IN_CACHE:  # a few pictures at a time: their windows fit the processor's cache
        parts = input.split(IN_CACHE)
        return torch.cat([conv2d(part, weight, bias, stride, padding, dilation, groups) for part in parts])
    columns = unfold(input, weight.shape[2:], dilation, padding, stride)  # (B, C*kh*kw, OH*OW)
    columns = columns.unflatten(1, (groups, -1))  # (B, G, C/G*kh*kw, OH*OW)
    kernels = weight.flatten(1).unflatten(0, (groups, -1))  # (G, O/G, C/G*kh*kw)
    grid = window_grid(input.shape[2:], weight.shape[2:], dilation, padding, stride)
    output = (kernels @ columns).flatten(1, 2).unflatten(2, grid)  # (B, O, OH, OW)
    return output if bias is None else output + bias[:, None, None]


def conv_transpose2d(
    input: Tensor, weight: Tensor, bias: Tensor | None = None,
    stride: Pair = 1, padding: Pair = 0, output_padding: Pair = 0, groups: int = 1, dilation: Pair = 1,
) -> Tensor:  # fmt: skip
    """Transposed convolution: every pixel paints one kernel; one matrix product, then `Fold`.

    It is `conv2d`'s gradient with respect to its input, used as a layer: the way from small pictures to large ones.

    Args:
        input: (B, C, H, W).
        weight: (C, O / groups, kernel_h, kernel_w).
        bias: (O,) or None.
        output_padding: rows and columns added at the bottom and right, fewer than stride or dilation.
    Returns:
        (B, O, OH, OW) with OH = (H - 1) stride - 2 padding + dilation (kernel_h - 1) + output_padding + 1.
    Raises:
        ValueError: channels and groups do not fit, or output_padding is too large.
    Source: Zeiler et al. 2010, "Deconvolutional networks"; Dumoulin & Visin 2016, chapter 4.
    """
    check_convolution(input, weight, weight.shape[0], groups)
    settings = [pair(value) for value in (stride, dilation, output_padding)]
    if any(extra >= max(step, spread) for step, spread, extra in zip(*settings, strict=True)):
        raise ValueError(f"output_padding={output_padding} must be below stride={stride} or dilation={dilation}")
    grid, kernel_size, (pad_h, pad_w) = input.shape[2:], weight.shape[2:], pair(padding)
    sides = zip(grid, kernel_size, *settings, strict=True)
    height, width = [(n - 1) * s + d * (k - 1) + extra + 1 for n, k, s, d, extra in sides]  # before cropping
    kernels = weight.flatten(1).unflatten(0, (groups, -1)).transpose(1, 2)  # (G, O/G*kh*kw, C/G)
    windows = kernels @ input.flatten(2).unflatten(1, (groups, -1))  # (B, G, O/G*kh*kw, H*W)
    windows = windows.unflatten(3, grid).unflatten(2, (-1, math.prod(kernel_size))).flatten(1, 2)  # (B, O, kh*kw, H, W)
    size = (*windows.shape[:2], height, width)
    output = Fold.apply(windows, size, window_slices(grid, kernel_size, stride, dilation))
    output = output[:, :, pad_h : height - pad_h, pad_w : width - pad_w]
    return output if bias is None else output + bias[:, None, None]


def batch_norm(
    input: Tensor, running_mean: Tensor | None, running_var: Tensor | None, weight: Tensor | None = None,
    bias: Tensor | None = None, training: bool = False, momentum: float = 0.1, eps: float = 1e-5,
) -> Tensor:  # fmt: skip
    """Gives every channel mean 0 and variance 1 over the batch, then scale `weight` and shift `bias`.

    Args:
        input: (B, C, ...).
        running_mean, running_var: (C,) statistics to use when not training; training moves them by `momentum`.
        weight, bias: (C,) or None.
    Returns:
        the shape of input.
    Raises:
        ValueError: training on one value a channel, whose variance is not defined.
    Source: Ioffe & Szegedy 2015, algorithm 1.
    """
    axes, channel = [0, *range(2, input.dim())], (-1, *[1] * (input.dim() - 2))  # (C,) seen as (C, 1, 1)
    mean, variance = running_mean, running_var
    if training:
        count = input.numel() // input.shape[1]
        if count < 2:
            raise ValueError(f"input {tuple(input.shape)} has one value a channel; training needs two or more")
        mean = input.mean(axes)
        variance = (input - mean.view(channel)).square().mean(axes)
        if running_mean is not None:
            running_mean.lerp_(mean.detach(), momentum)
            running_var.lerp_(variance.detach() * count / (count - 1), momentum)  # unbiased, as in the paper
    scale = torch.rsqrt(variance + eps) if weight is None else weight * torch.rsqrt(variance + eps)
    output = (input - mean.view(channel)) * scale.view(channel)
    return output if bias is None else output + bias.view(channel)


def layer_norm(input: Tensor, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    """Gives every vector (the last dimension) mean 0 and variance 1, then scale `weight` and shift `bias`.

    Args:
        input: (..., C); weight, bias: (C,) or None.
    Returns:
        (..., C).
    Source: Ba et al. 2016, eq. 3-4.
    """
    centred = input - input.mean(-1, keepdim=True)
    output = centred * torch.rsqrt(centred.square().mean(-1, keepdim=True) + eps)
    output = output if weight is None else output * weight
    return output if bias is None else output + bias


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Gives every group of channels of every picture mean 0 and variance 1, then scale `weight` and shift `bias`.

    Unlike batch normalisation it never looks at the rest of the batch: the same in training and in use.

    Args:
        input: (B, C, ...); num_groups divides C.
        weight, bias: (C,) or None.
    Returns:
        the shape of input.
    Raises:
        ValueError: num_groups does not divide C.
    Source: Wu & He 2018, eq. 1, 2, 6 and 7, arXiv:1803.08494.
    """
    if input.shape[1] % num_groups:
        raise ValueError(f"num_groups={num_groups} does not divide the {input.shape[1]} channels; change one of them")
    groups = input.reshape(len(input), num_groups, -1)  # (B, G, C/G * ...)
    output = layer_norm(groups, eps=eps).view(input.shape)
    channel = (-1, *[1] * (input.dim() - 2))  # (C,) seen as (C, 1, 1)
    output = output if weight is None else output * weight.view(channel)
    return output if bias is None else output + bias.view(channel)


def upsample_nearest(input: Tensor, scale_factor: int = 2) -> Tensor:
    """Every pixel becomes a square of equal pixels: (B, C, H, W) -> (B, C, H * scale_factor, W * scale_factor)."""
    return input.repeat_interleave(scale_factor, dim=2).repeat_interleave(scale_factor, dim=3)


def average_pool2d(input: Tensor, kernel_size: int) -> Tensor:
    """The mean of every square: (B, C, H, W) -> (B, C, H // kernel_size, W // kernel_size); a remainder is dropped."""
    grid = (input.shape[2] // kernel_size, input.shape[3] // kernel_size)
    slices = window_slices(grid, kernel_size, kernel_size, 1)
    return sum(input[:, :, rows, columns] for rows, columns in slices) / kernel_size**2


def gelu(input: Tensor) -> Tensor:
    """GPT-2's smooth gate, x times the probability that a normal number is below x, in the tanh form ("gelu_new").

    Source: Hendrycks & Gimpel 2016, section 2.
    """
    return 0.5 * input * (1 + torch.tanh(math.sqrt(2 / math.pi) * (input + 0.044715 * input**3)))


def leaky_relu(input: Tensor, negative_slope: float = 0.2) -> Tensor:
    """x where positive, else negative_slope * x: a gate that never closes. Slope in [0, 1]; torch's default is 0.01.

    Source: Maas et al. 2013; the slope of 0.2 is Radford et al. 2015's.
    """
    # the slope at each point: sign is 1, 0 or -1, so its clamp is 1 or negative_slope (quicker than torch.where)
    return input * input.detach().sign().clamp(min=negative_slope)


def check_backend(backend: str) -> str:
    """The backend's name; a CourseError if there is none of that name."""
    if backend not in ("torch", "ours"):
        raise CourseError(f'backend="{backend}" is unknown; {nearest(backend, ["torch", "ours"])}')
    return backend


def add_weights(layer: Module, shape: tuple[int, ...], bias_size: int) -> None:
    """A layer's weight and bias (none if bias_size is 0): uniform within 1 / sqrt(fan in), the default of torch.nn."""
    root = math.sqrt(math.prod(shape[1:]))
    # He et al. 2015 with a slope of sqrt(5), step by step as torch does it: equal rounding gives equal bits
    bound = math.sqrt(3.0) * (math.sqrt(2.0 / (1 + 5)) / root)
    layer.weight = Parameter(torch.empty(shape).uniform_(-bound, bound))
    layer.bias = Parameter(torch.empty(bias_size).uniform_(-1 / root, 1 / root)) if bias_size else None


class Linear(Module):
    """`linear` with its weights: (..., in_features) -> (..., out_features)."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        add_weights(self, (out_features, in_features), out_features * bias)

    def forward(self, input: Tensor) -> Tensor:
        return linear(input, self.weight, self.bias)


class Embedding(Module):
    """One learned vector for each id: (...) int64 -> (..., embedding_dim)."""

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.weight = Parameter(torch.randn(num_embeddings, embedding_dim))

    def forward(self, input: Tensor) -> Tensor:
        # index_select refuses a negative id; weight[input] would count it from the end
        return self.weight.index_select(0, input.flatten()).view(*input.shape, self.weight.shape[1])


class Conv2d(Module):
    """`conv2d` with its weights: (B, in_channels, H, W) -> (B, out_channels, OH, OW).

    Args:
        backend: "torch" computes it with torch.nn.functional, for speed; "ours" with the function above.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0,
        dilation: Pair = 1, groups: int = 1, bias: bool = True, backend: str = "torch",
    ):  # fmt: skip
        super().__init__()
        self.settings = (pair(stride), pair(padding), pair(dilation), groups)
        self.backend = check_backend(backend)
        add_weights(self, (out_channels, in_channels // groups, *pair(kernel_size)), out_channels * bias)

    def forward(self, input: Tensor) -> Tensor:
        function = torch.nn.functional.conv2d if self.backend == "torch" else conv2d
        return function(input, self.weight, self.bias, *self.settings)


class ConvTranspose2d(Module):
    """`conv_transpose2d` with its weights; backend as for `Conv2d`."""

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Pair, stride: Pair = 1, padding: Pair = 0,
        output_padding: Pair = 0, groups: int = 1, bias: bool = True, dilation: Pair = 1, backend: str = "torch",
    ):  # fmt: skip
        super().__init__()
        self.settings = (pair(stride), pair(padding), pair(output_padding), groups, pair(dilation))
        self.backend = check_backend(backend)
        add_weights(self, (in_channels, out_channels // groups, *pair(kernel_size)), out_channels * bias)

    def forward(self, input: Tensor) -> Tensor:
        function = torch.nn.functional.conv_transpose2d if self.backend == "torch" else conv_transpose2d
        return function(input, self.weight, self.bias, *self.settings)


class BatchNorm2d(Module):
    """`batch_norm` with its weights and running statistics; backend as for `Conv2d`."""

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True, backend: str = "torch"
    ):
        super().__init__()
        self.eps, self.momentum, self.backend = eps, momentum, check_backend(backend)
        self.weight = Parameter(torch.ones(num_features)) if affine else None
        self.bias = Parameter(torch.zeros(num_features)) if affine else None
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.register_buffer("num_batches_tracked", torch.tensor(0))

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            self.num_batches_tracked += 1
        function = torch.nn.functional.batch_norm if self.backend == "torch" else batch_norm
        settings = (self.weight, self.bias, self.training, self.momentum, self.eps)
        return function(input, self.running_mean, self.running_var, *settings)


class LayerNorm(Module):
    """`layer_norm` with its weights: (..., normalized_shape) -> the same shape."""

    def __init__(self, normalized_shape: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.weight = Parameter(torch.ones(normalized_shape))
        self.bias = Parameter(torch.zeros(normalized_shape))

    def forward(self, input: Tensor) -> Tensor:
        return layer_norm(input, self.weight, self.bias, self.eps)


class GroupNorm(Module):
    """`group_norm` with its weights: (B, num_channels, ...) -> the same shape; backend as for `Conv2d`."""

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, backend: str = "torch"
    ):
        super().__init__()
        if num_channels % num_groups:
            raise ValueError(f"num_groups={num_groups} does not divide num_channels={num_channels}; change one of them")
        self.num_groups, self.eps, self.backend = num_groups, eps, check_backend(backend)
        self.weight = Parameter(torch.ones(num_channels)) if affine else None
        self.bias = Parameter(torch.zeros(num_channels)) if affine else None

    def forward(self, input: Tensor) -> Tensor:
        function = torch.nn.functional.group_norm if self.backend == "torch" else group_norm
        return function(input, self.num_groups, self.weight, self.bias, self.eps)


class ConditionalBatchNorm2d(Module):
    """Batch normalisation whose scale and shift are read from a condition, such as a caption's embedding.

    A linear layer turns condition (B, condition_size) into gamma and beta (B, num_features); the output is
    (1 + gamma) * normalised + beta, channels-last if the input is. The layer starts at zero: every caption first gets
    plain batch normalisation, and training learns where captions differ.

    Source: de Vries et al. 2017, eq. 4-6, arXiv:1707.00683.
    """

    def __init__(
        self, num_features: int, condition_size: int, eps: float = 1e-5, momentum: float = 0.1, backend: str = "torch"
    ):
        super().__init__()
        self.norm = BatchNorm2d(num_features, eps, momentum, affine=False, backend=backend)
        self.modulation = Linear(condition_size, 2 * num_features)
        for parameter in self.modulation.parameters():
            parameter.data.zero_()

    def forward(self, input: Tensor, condition: Tensor) -> Tensor:
        gamma, beta = self.modulation(condition)[:, :, None, None].chunk(2, dim=1)  # each (B, C, 1, 1)
        return torch.addcmul(beta, self.norm(input), 1 + gamma)  # one pass over the picture


def fan_in(layer: Module) -> float:
    """How many inputs one output of a linear or convolution layer adds up (a transposed convolution: on average)."""
    if isinstance(layer, ConvTranspose2d):  # weight (C, O / groups, kh, kw); a stride of 2 spreads it over 4 x the area
        stride, _, _, groups, _ = layer.settings
        return layer.weight[:, 0].numel() / groups / math.prod(stride)
    return layer.weight[0].numel()


@torch.no_grad()
def initialise_(module: Module, weight_std: Callable[[Module], float], scale_std: float) -> Module:
    """Normal weights for linear and convolution layers, scales around 1 for norms, biases zero; embeddings stay."""
    for layer in module.modules():
        if isinstance(layer, (Linear, Conv2d, ConvTranspose2d)):
            layer.weight.normal_(0.0, weight_std(layer))
        elif isinstance(layer, (BatchNorm2d, GroupNorm, LayerNorm)) and layer.weight is not None:
            layer.weight.normal_(1.0, scale_std)
        else:
            continue
        if layer.bias is not None:
            layer.bias.zero_()
    return module


def init_dcgan_(module: Module) -> Module:
    """DCGAN's start, for every layer inside: weights N(0, 0.02), scales of norms N(1, 0.02), biases 0.

    Source: Radford et al. 2015, section 4 (the norms' as in its published code). Returns the module.
    """
    return initialise_(module, lambda layer: 0.02, 0.02)


def init_kaiming_(module: Module, negative_slope: float = 0.0) -> Module:
    """Weights N(0, sqrt(2 / ((1 + negative_slope^2) fan_in))): the signal keeps its size through (leaky) ReLU layers.

    Scales of norms 1, biases 0; the linear layers of conditional norms go back to zero. Returns the module.

    Source: He et al. 2015, eq. 10 and 15.
    """
    initialise_(module, lambda layer: math.sqrt(2 / ((1 + negative_slope**2) * fan_in(layer))), 0.0)
    for layer in module.modules():
        if isinstance(layer, ConditionalBatchNorm2d):
            layer.modulation.weight.data.zero_()
    return module
