"""Layers against torch: value, gradient, state and first random numbers, over grids of settings."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad, gradcheck, gradgradcheck

from course_lib import layers
from course_lib.errors import CourseError

CHANNELS_LAST = torch.channels_last


def random(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def assert_same(ours, theirs, inputs, **settings):
    """Value and gradients of two functions of the same tensors."""
    a, b = ours(*inputs, **settings), theirs(*inputs, **settings)
    torch.testing.assert_close(a, b, msg=lambda text: f"value: {text}")
    wanted = [x for x in inputs if isinstance(x, torch.Tensor) and x.requires_grad]
    direction = random(*a.shape, dtype=a.dtype, seed=9).detach()  # a plain sum would hide errors of sign and place
    for x, y in zip(grad(a, wanted, direction), grad(b, wanted, direction), strict=True):
        torch.testing.assert_close(x, y, msg=lambda text: f"gradient: {text}")


@pytest.mark.parametrize("shape", [(5, 3), (2, 4, 3), (3,), (0, 3)])
def test_linear(shape):
    assert_same(layers.linear, F.linear, [random(*shape), random(4, 3, seed=1), random(4, seed=2)])
    assert_same(layers.linear, F.linear, [random(*shape), random(4, 3, seed=1)])


CONVOLUTIONS = [
    {},
    {"stride": 2},
    {"padding": 1},
    {"dilation": 2, "padding": 2},
    {"groups": 2},
    {"stride": 2, "padding": 1, "dilation": 2, "groups": 2},
    {"stride": (2, 3), "padding": (0, 2), "dilation": (2, 1)},
    {"groups": 4, "padding": (1, 0)},
    {"stride": 3, "padding": 3},
]


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize("settings", CONVOLUTIONS, ids=str)
def test_conv2d(settings, kernel):
    input, weight = random(2, 4, 9, 8), random(8, 4 // settings.get("groups", 1), *kernel, seed=1)
    assert_same(layers.conv2d, F.conv2d, [input, weight, random(8, seed=2)], **settings)
    assert_same(layers.conv2d, F.conv2d, [input, weight], **settings)


def test_conv2d_of_more_pictures_than_fit_the_cache():
    input, weight = random(2 * layers.IN_CACHE + 3, 2, 5, 5), random(4, 2, 3, 3, seed=1)
    assert_same(layers.conv2d, F.conv2d, [input, weight, random(4, seed=2)], padding=1)


@pytest.mark.parametrize("kernel", [(3, 3), (1, 1), (2, 3), (4, 4)])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"stride": 2},
        {"padding": 1},
        {"stride": 2, "padding": 1},
        {"stride": 2, "padding": 1, "output_padding": 1},
        {"stride": (3, 2), "output_padding": (2, 0)},
        {"dilation": 2, "padding": (0, 1)},
        {"dilation": 3, "output_padding": 2, "padding": 1},
        {"groups": 2, "stride": 2},
        {"groups": 4, "stride": (1, 2), "padding": 1, "output_padding": (0, 1), "dilation": (2, 1)},
    ],
    ids=str,
)
def test_conv_transpose2d(settings, kernel):
    input, weight = random(2, 4, 4, 5), random(4, 8 // settings.get("groups", 1), *kernel, seed=1)
    assert_same(layers.conv_transpose2d, F.conv_transpose2d, [input, weight, random(8, seed=2)], **settings)
    assert_same(layers.conv_transpose2d, F.conv_transpose2d, [input, weight], **settings)


def test_convolutions_in_float32_and_channels_last():
    input = random(4, 16, 8, 8, dtype=torch.float32).detach().to(memory_format=CHANNELS_LAST).requires_grad_()
    weight, bias = random(16, 16, 3, 3, dtype=torch.float32), random(16, dtype=torch.float32)
    for ours, theirs in ((layers.conv2d, F.conv2d), (layers.conv_transpose2d, F.conv_transpose2d)):
        a, b = ours(input, weight, bias, 2, 1), theirs(input, weight, bias, 2, 1)
        torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)


def test_convolution_gradients_are_the_derivative_twice():
    """R1 needs the gradient of a gradient."""
    input, weight, bias = random(1, 2, 4, 3), random(4, 1, 2, 2, seed=1), random(4, seed=2)
    assert gradcheck(lambda *x: layers.conv2d(*x, 2, 1, 1, 2), (input, weight, bias))
    assert gradgradcheck(lambda *x: layers.conv2d(*x, 2, 1, 1, 2), (input, weight, bias))
    weight = random(2, 2, 2, 3, seed=1)
    assert gradcheck(lambda *x: layers.conv_transpose2d(*x, 2, 1, 1, 2), (input, weight, bias))
    assert gradgradcheck(lambda *x: layers.conv_transpose2d(*x, 2, 1, 1, 2), (input, weight, bias))


def test_convolution_edges():
    """No pictures at all, and a kernel as large as the picture."""
    weight = random(4, 2, 3, 3, seed=1)
    assert layers.conv2d(random(0, 2, 5, 5), weight).shape == (0, 4, 3, 3)
    assert layers.conv_transpose2d(random(0, 4, 5, 5), weight).shape == (0, 2, 7, 7)
    assert_same(layers.conv2d, F.conv2d, [random(2, 2, 3, 3), weight])
    big = (1e18 * random(1, 2, 4, 4, dtype=torch.float32)).detach().requires_grad_()
    assert_same(layers.conv2d, F.conv2d, [big, random(4, 2, 3, 3, dtype=torch.float32, seed=1)], padding=1)


@pytest.mark.parametrize("settings", [{}, {"padding": 1}, {"stride": (2, 1), "padding": (0, 2), "dilation": (1, 2)}])
def test_unfold(settings):
    assert_same(layers.unfold, F.unfold, [random(2, 3, 6, 7)], kernel_size=(2, 3), **settings)


def test_conv_transpose_is_the_transpose():
    """<conv(x), y> = <x, conv_transpose(y)>."""
    x, weight = random(1, 3, 8, 8), random(5, 3, 4, 4, seed=1)
    y = random(1, 5, 4, 4, seed=2)
    left = (layers.conv2d(x, weight, stride=2, padding=1) * y).sum()
    right = (x * layers.conv_transpose2d(y, weight, stride=2, padding=1)).sum()
    torch.testing.assert_close(left, right)


def test_shapes_that_do_not_fit_are_refused_in_words():
    input = torch.zeros(2, 3, 5, 5)
    with pytest.raises(ValueError, match=r"do not fit; input must be \(B, 4, H, W\)"):
        layers.conv2d(input, torch.zeros(8, 4, 3, 3))
    with pytest.raises(ValueError, match="groups=2"):
        layers.conv2d(torch.zeros(2, 4, 5, 5), torch.zeros(7, 2, 3, 3), groups=2)
    with pytest.raises(ValueError, match="do not fit"):
        layers.conv2d(input[0], torch.zeros(8, 3, 3, 3))
    with pytest.raises(ValueError, match=r"kernel_size=\(6, 6\) is larger"):
        layers.conv2d(input, torch.zeros(8, 3, 6, 6))
    with pytest.raises(ValueError, match="do not fit"):
        layers.conv_transpose2d(input, torch.zeros(4, 8, 3, 3))
    with pytest.raises(ValueError, match="output_padding=2 must be below"):
        layers.conv_transpose2d(input, torch.zeros(3, 8, 3, 3), stride=2, output_padding=2)
    with pytest.raises(ValueError, match="one value a channel"):
        layers.batch_norm(torch.zeros(1, 3, 1, 1), None, None, training=True)


@pytest.mark.parametrize("shape", [(4, 3, 5, 5), (6, 3), (2, 3, 1, 1), (4, 3, 7)])
@pytest.mark.parametrize("affine", [True, False])
def test_batch_norm_in_training_and_evaluation(shape, affine):
    weight, bias = (random(3, seed=1), random(3, seed=2)) if affine else (None, None)
    for training in (True, False):
        statistics = [[random(3, seed=3).detach(), random(3, seed=4).detach().abs()] for _ in range(2)]
        inputs = [[(2 * random(*shape) + 1).detach().requires_grad_(), *moving, weight, bias] for moving in statistics]
        a = layers.batch_norm(*inputs[0], training=training, momentum=0.3)
        b = F.batch_norm(*inputs[1], training=training, momentum=0.3)
        torch.testing.assert_close(a, b)
        torch.testing.assert_close(statistics[0], statistics[1])
        leaves = [[x for x in each if x is not None and x.requires_grad] for each in inputs]
        direction = random(*shape, seed=5).detach()
        for x, y in zip(grad(a, leaves[0], direction), grad(b, leaves[1], direction), strict=True):
            torch.testing.assert_close(x, y)


def test_batch_norm_derivative_and_extremes():
    assert gradgradcheck(lambda x: layers.batch_norm(x, None, None, training=True), (random(3, 2, 2, 2),))
    for input in (torch.full((4, 2, 3, 3), 7.0), 1e15 * random(4, 2, 3, 3, dtype=torch.float32).detach()):
        ours = layers.batch_norm(input, None, None, training=True)
        # dividing by sqrt(eps) makes the rounding of the mean of equal numbers 300 times larger
        torch.testing.assert_close(ours, F.batch_norm(input, None, None, training=True), atol=1e-3, rtol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 8), (8,), (0, 8)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_layer_norm(shape, dtype):
    def torch_layer_norm(input, weight=None, bias=None, eps=1e-5):
        return F.layer_norm(input, (8,), weight, bias, eps)

    inputs = [random(*shape, dtype=dtype), random(8, dtype=dtype, seed=1), random(8, dtype=dtype, seed=2)]
    assert_same(layers.layer_norm, torch_layer_norm, inputs)
    assert_same(layers.layer_norm, torch_layer_norm, inputs[:1], eps=1e-3)
    assert gradcheck(layers.layer_norm, (random(3, 4),))


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (1, 1, 1, 1)])
@pytest.mark.parametrize("scale_factor", [1, 2, 3])
def test_upsample_nearest(shape, scale_factor):
    assert_same(layers.upsample_nearest, F.interpolate, [random(*shape)], scale_factor=scale_factor)


@pytest.mark.parametrize("shape", [(2, 3, 4, 6), (2, 3, 7, 5)])
@pytest.mark.parametrize("kernel_size", [1, 2, 3])
def test_average_pool2d(shape, kernel_size):
    assert_same(layers.average_pool2d, F.avg_pool2d, [random(*shape)], kernel_size=kernel_size)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_activations_also_at_extremes(dtype):
    values = [-1e4, -100.0, -10.0, -1.0, -1e-3, 0.0, 1e-3, 1.0, 10.0, 100.0, 1e4]
    x = torch.tensor(values, dtype=dtype, requires_grad=True)
    assert_same(layers.gelu, lambda x: F.gelu(x, approximate="tanh"), [x])
    assert_same(layers.leaky_relu, lambda x: F.leaky_relu(x, 0.2), [x])
    for slope in (0.0, 0.01, 1.0):
        assert_same(lambda x: layers.leaky_relu(x, slope), lambda x: F.leaky_relu(x, slope), [x])  # noqa: B023
    infinite = torch.tensor([-torch.inf, torch.inf], dtype=dtype)
    assert torch.equal(layers.leaky_relu(infinite), infinite)
    assert gradgradcheck(layers.gelu, (random(5),)) and gradgradcheck(layers.leaky_relu, (random(5),))


MODULES = [
    ("Linear", (5, 7), {}, (3, 5)),
    ("Linear", (5, 7), {"bias": False}, (2, 3, 5)),
    ("Conv2d", (4, 6, 3), {}, (2, 4, 8, 8)),
    ("Conv2d", (4, 6, (2, 3), 2, (1, 0), 2, 2, False), {}, (2, 4, 8, 8)),
    ("ConvTranspose2d", (4, 6, 4, 2, 1), {}, (2, 4, 5, 5)),
    ("ConvTranspose2d", (4, 6, (3, 2), 2, 1, (1, 0), 2, True, (1, 2)), {}, (2, 4, 5, 5)),
    ("BatchNorm2d", (4,), {}, (3, 4, 5, 5)),
    ("BatchNorm2d", (4, 1e-3, 0.5, False), {}, (3, 4, 5, 5)),
    ("LayerNorm", (6,), {}, (2, 3, 6)),
    ("LayerNorm", (6,), {"eps": 1e-3}, (2, 3, 6)),
]


@pytest.mark.parametrize("backend", ["torch", "ours"])
@pytest.mark.parametrize(("name", "arguments", "settings", "shape"), MODULES)
def test_modules_are_drop_in(name, arguments, settings, shape, backend):
    """Same weights under the same seed, same names, same outputs, gradients and state, in training and evaluation."""
    torch.manual_seed(3)
    theirs = getattr(torch.nn, name)(*arguments, **settings)
    torch.manual_seed(3)
    choice = {"backend": backend} if name in ("Conv2d", "ConvTranspose2d", "BatchNorm2d") else {}
    ours = getattr(layers, name)(*arguments, **settings, **choice)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(ours.state_dict().values(), theirs.state_dict().values(), strict=True))
    for training in (True, True, False):
        input = random(*shape, dtype=torch.float32)
        a, b = ours.train(training)(input), theirs.train(training)(input)
        torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-5)
        direction = random(*a.shape, dtype=torch.float32, seed=4).detach()
        ours_wrt, theirs_wrt = [input, *ours.parameters()], [input, *theirs.parameters()]
        for x, y in zip(grad(a, ours_wrt, direction), grad(b, theirs_wrt, direction), strict=True):
            torch.testing.assert_close(x, y, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours.state_dict(), theirs.state_dict())


def test_embedding_is_drop_in():
    torch.manual_seed(3)
    theirs = torch.nn.Embedding(9, 5)
    torch.manual_seed(3)
    ours = layers.Embedding(9, 5)
    assert torch.equal(ours.weight, theirs.weight)
    for ids in (torch.tensor([[0, 8, 3], [3, 3, 1]]), torch.tensor(4), torch.zeros(0, 2, dtype=torch.int64)):
        a, b = ours(ids), theirs(ids)
        assert torch.equal(a, b)
        torch.testing.assert_close(grad(a.square().sum(), ours.weight), grad(b.square().sum(), theirs.weight))
    for wrong in (9, -1):
        with pytest.raises((IndexError, RuntimeError)):
            ours(torch.tensor([wrong]))


def test_many_seeds_and_sizes_give_torchs_bits():
    for size in range(1, 40):
        torch.manual_seed(size)
        theirs = torch.nn.Linear(size, 50)
        torch.manual_seed(size)
        ours = layers.Linear(size, 50)
        assert torch.equal(ours.weight, theirs.weight) and torch.equal(ours.bias, theirs.bias)


@pytest.mark.parametrize(
    "make", [lambda b: layers.Conv2d(1, 1, 1, backend=b), lambda b: layers.BatchNorm2d(1, backend=b)]
)
def test_unknown_backend_names_the_nearest(make):
    with pytest.raises(CourseError, match='backend="tosch" is unknown; did you mean "torch"'):
        make("tosch")


@pytest.mark.parametrize("backend", ["torch", "ours"])
def test_conditional_norm_starts_as_plain_batch_norm(backend):
    conditional, plain = layers.ConditionalBatchNorm2d(4, 6, backend=backend), torch.nn.BatchNorm2d(4, affine=False)
    for training in (True, False):
        input, condition = random(3, 4, 5, 5, dtype=torch.float32), random(3, 6, dtype=torch.float32)
        conditional.train(training), plain.train(training)
        torch.testing.assert_close(conditional(input, condition), plain(input), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(dict(conditional.norm.state_dict()), dict(plain.state_dict()))


def test_conditional_norm_scales_and_shifts_each_picture_by_its_own_condition():
    torch.manual_seed(0)
    layer = layers.ConditionalBatchNorm2d(4, 6).double()
    layer.modulation.weight.data.normal_()
    layer.modulation.bias.data.normal_()
    input, condition = random(3, 4, 5, 5), random(3, 6, seed=1)
    output, normalised = layer(input, condition), F.batch_norm(input, None, None, training=True)
    for picture in range(3):
        modulation = layer.modulation.weight @ condition[picture] + layer.modulation.bias
        gamma, beta = modulation[:4, None, None], modulation[4:, None, None]
        torch.testing.assert_close(output[picture], normalised[picture] * (1 + gamma) + beta)
    assert (grad(output.square().sum(), condition)[0] != 0).all()
    assert gradcheck(layer, (input[:, :, :2, :2].detach().requires_grad_(), condition))


@pytest.mark.parametrize("backend", ["torch", "ours"])
@pytest.mark.parametrize("training", [True, False])
def test_conditional_norm_stays_channels_last(backend, training):
    layer = layers.init_dcgan_(layers.ConditionalBatchNorm2d(8, 6, backend=backend)).train(training)
    input = torch.randn(4, 8, 5, 5).to(memory_format=CHANNELS_LAST).requires_grad_()
    output = layer(input, torch.randn(4, 6))
    (gradient,) = grad(output.square().sum(), input)
    for tensor in (output, gradient, layers.leaky_relu(input), layers.average_pool2d(input, 2)):
        assert tensor.is_contiguous(memory_format=CHANNELS_LAST)


class Tower(torch.nn.Module):
    """Ten layers of one kind with an activation after each; the variances after every one."""

    def __init__(self, make):
        super().__init__()
        self.layers = torch.nn.ModuleList(make() for _ in range(10))

    def variances(self, x, negative_slope):
        found = []
        for layer in self.layers:
            x = layer(x)
            found.append(x.var().item())
            x = layers.leaky_relu(x, negative_slope)
        return found


TOWERS = [
    (lambda: layers.Linear(512, 512), (128, 512)),
    (lambda: layers.Conv2d(64, 64, 3, padding=1), (8, 64, 12, 12)),
    (lambda: layers.Conv2d(64, 64, 1, groups=2), (8, 64, 12, 12)),
]


@pytest.mark.parametrize("negative_slope", [0.0, 0.2])
@pytest.mark.parametrize(("make", "shape"), TOWERS)
def test_kaiming_keeps_the_signal_alive_where_others_lose_it(make, shape, negative_slope):
    torch.manual_seed(0)
    tower, x = Tower(make), torch.randn(shape)
    with torch.no_grad():
        assert tower.variances(x, negative_slope)[-1] < 0.05  # torch's default, a tenth or less of the signal
        assert layers.init_kaiming_(tower, negative_slope) is tower
        variances = tower.variances(x, negative_slope)
    assert all(1 / 5 < variance / 2 < 3 for variance in variances), variances


def test_kaiming_counts_what_a_transposed_convolution_really_adds_up():
    torch.manual_seed(0)
    for groups in (1, 2):
        layer = layers.init_kaiming_(layers.ConvTranspose2d(64, 32, 4, 2, 1, groups=groups))
        with torch.no_grad():
            output = layer(torch.randn(8, 64, 8, 8))[:, :, 2:-2, 2:-2]
        assert 1.6 < output.var().item() < 2.4  # He et al.: twice the variance, of which ReLU passes half


class Nested(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first = torch.nn.Sequential(layers.Conv2d(16, 64, 3), layers.BatchNorm2d(64), layers.LayerNorm(256))
        self.second = torch.nn.ModuleList([layers.ConvTranspose2d(64, 32, 4), layers.Linear(64, 64)])
        self.conditional = layers.ConditionalBatchNorm2d(32, 64)
        self.embedding = layers.Embedding(20, 8)
        self.without = layers.Conv2d(4, 4, 1, bias=False)


def test_init_dcgan_reaches_every_layer():
    torch.manual_seed(0)
    model = Nested()
    words = model.embedding.weight.clone()
    assert layers.init_dcgan_(model) is model
    for layer in (model.first[0], *model.second, model.conditional.modulation):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1) and abs(layer.weight.mean().item()) < 0.002
        assert (layer.bias == 0).all()
    for norm in model.first[1:]:
        assert norm.weight.mean().item() == pytest.approx(1, abs=0.01)
        assert norm.weight.std().item() == pytest.approx(0.02, rel=0.3) and (norm.bias == 0).all()
    assert model.without.weight.std() < 0.05 and torch.equal(words, model.embedding.weight)
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_init_kaiming_reaches_every_layer():
    torch.manual_seed(0)
    model = layers.init_dcgan_(Nested())
    layers.init_kaiming_(model, negative_slope=0.2)
    convolution, line = model.first[0], model.second[1]
    assert convolution.weight.std().item() == pytest.approx(math.sqrt(2 / 1.04 / (16 * 9)), rel=0.05)
    assert line.weight.std().item() == pytest.approx(math.sqrt(2 / 1.04 / 64), rel=0.05)
    assert all((norm.weight == 1).all() for norm in model.first[1:])
    assert (model.conditional.modulation.weight == 0).all()
