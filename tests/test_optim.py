"""Optimisers against torch.optim: weights and state, step by step; and the weight average."""

import copy

import pytest
import torch
from torch import nn

from course_lib import optim

SHAPES = [(8, 3, 4, 4), (16, 7), (16,), ()]


def parameters(seed=0, dtype=torch.float32):
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=random).to(dtype).requires_grad_() for shape in SHAPES]


def set_gradients(params, step, skip=()):
    """The same gradients for equal steps, of very different sizes; none for the parameters in `skip`."""
    random = torch.Generator().manual_seed(1000 + step)
    for row, parameter in enumerate(params):
        gradient = torch.randn(parameter.shape, generator=random).to(parameter) * 10.0 ** (row * 2 - 4)
        parameter.grad = None if row in skip else gradient


PAIRS = {
    "descent": (lambda p: optim.GradientDescent(p, 0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (lambda p: optim.Momentum(p, 0.1), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "momentum_half": (lambda p: optim.Momentum(p, 0.1, 0.5), lambda p: torch.optim.SGD(p, 0.1, momentum=0.5)),
    "adam": (lambda p: optim.Adam(p), lambda p: torch.optim.Adam(p)),
    "adam_gan": (
        lambda p: optim.Adam(p, 2e-4, (0.0, 0.99), 1e-6),
        lambda p: torch.optim.Adam(p, 2e-4, (0.0, 0.99), 1e-6),
    ),
    "adam_decay": (
        lambda p: optim.Adam(p, 1e-2, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, 1e-2, weight_decay=0.1),
    ),
}


def assert_equal_to_torch(ours, our_params, theirs, their_params):
    for a, b in zip(our_params, their_params, strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)
    for name, tensors in ours.state.items():
        for tensor, parameter in zip(tensors, their_params, strict=True):
            if theirs.state[parameter]:
                torch.testing.assert_close(tensor, theirs.state[parameter][name], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("name", PAIRS)
def test_equal_to_torch_over_100_steps(name, dtype):
    ours_params, their_params = parameters(dtype=dtype), parameters(dtype=dtype)
    ours, theirs = PAIRS[name][0](ours_params), PAIRS[name][1](their_params)
    start = copy.deepcopy(ours_params)
    for step in range(100):
        for params in (ours_params, their_params):
            set_gradients(params, step)
        ours.step(), theirs.step()
        assert_equal_to_torch(ours, ours_params, theirs, their_params)
    assert all((a != b).all() for a, b in zip(start, ours_params, strict=True))


@pytest.mark.parametrize("name", PAIRS)
def test_equal_to_torch_when_gradients_are_missing_or_zero(name):
    ours_params, their_params = parameters(), parameters()
    ours, theirs = PAIRS[name][0](ours_params), PAIRS[name][1](their_params)
    for step, skip in enumerate([(0, 1, 2, 3), (0,), (1, 2), (), (0, 3), ()]):
        for params in (ours_params, their_params):
            set_gradients(params, step, skip)
            if 2 not in skip:
                params[2].grad.zero_()
        ours.step(), theirs.step()
        assert_equal_to_torch(ours, ours_params, theirs, their_params)
    assert ours.steps == [3, 4, 4, 4]


@pytest.mark.parametrize("name", PAIRS)
def test_learning_rate_may_change_between_steps(name):
    ours_params, their_params = parameters(), parameters()
    ours, theirs = PAIRS[name][0](ours_params), PAIRS[name][1](their_params)
    for step in range(5):
        ours.lr = theirs.param_groups[0]["lr"] = 0.1 / (step + 1)
        for params in (ours_params, their_params):
            set_gradients(params, step)
        ours.step(), theirs.step()
    assert_equal_to_torch(ours, ours_params, theirs, their_params)


@pytest.mark.parametrize("bias_correction", [True, False])
def test_adam_update_for_one_tensor(bias_correction):
    params, single = parameters(), parameters()
    optimizer, state = optim.Adam(params, 0.01, (0.8, 0.99)), [[torch.zeros_like(p) for p in single] for _ in range(2)]
    for step in range(1, 21):
        set_gradients(params, step), set_gradients(single, step)
        optimizer.step()
        with torch.no_grad():
            for p, m, v in zip(single, *state, strict=True):
                optim.adam_update(p, p.grad, m, v, step, 0.01, (0.8, 0.99), bias_correction=bias_correction)
    near = [torch.allclose(a, b, atol=1e-6) for a, b in zip(params, single, strict=True)]
    assert all(near) if bias_correction else not any(near)


def test_without_bias_correction_the_first_step_is_3_16_times_too_long():
    steps = []
    for bias_correction in (True, False):
        p = torch.zeros(5, dtype=torch.float64)
        optim.adam_update(p, torch.ones_like(p), p * 0, p * 0, 1, lr=1e-3, bias_correction=bias_correction)
        steps.append(p.abs().mean().item())
    assert steps[0] == pytest.approx(1e-3, rel=1e-6)
    assert steps[1] / steps[0] == pytest.approx(0.1 / 0.001**0.5, rel=1e-4) and round(steps[1] / steps[0], 2) == 3.16


@pytest.mark.parametrize("name", PAIRS)
def test_state_dict_continues_exactly(name):
    params = parameters()
    optimizer = PAIRS[name][0](params)
    for step in range(5):
        set_gradients(params, step, skip=(1,) if step == 0 else ())
        optimizer.step()
    saved = {key: tensor.clone() for key, tensor in optimizer.state_dict().items()}
    resumed_params = copy.deepcopy(params)
    resumed = PAIRS[name][0](resumed_params)
    resumed.load_state_dict(saved)
    for step in range(5, 10):
        for each, chosen in ((params, optimizer), (resumed_params, resumed)):
            set_gradients(each, step)
            chosen.step()
    assert all(torch.equal(a, b) for a, b in zip(params, resumed_params, strict=True))
    assert saved["step"].tolist() == [5, 4, 5, 5]  # loading took copies: stepping on has not changed what was saved


def test_state_dict_is_flat_and_goes_through_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file

    params = parameters()
    optimizer = optim.Adam(params)
    set_gradients(params, 0)
    optimizer.step()
    expected = {"step"} | {f"{name}.{row}" for name in ("exp_avg", "exp_avg_sq") for row in range(len(SHAPES))}
    assert optimizer.state_dict().keys() == expected
    save_file(optimizer.state_dict(), tmp_path / "state.safetensors")
    other = optim.Adam(parameters())
    other.load_state_dict(load_file(tmp_path / "state.safetensors"))
    assert other.steps == [1] * len(SHAPES)
    assert all(torch.equal(a, b) for a, b in zip(other.state["exp_avg"], optimizer.state["exp_avg"], strict=True))


def test_load_state_dict_refuses_another_models_state():
    optimizer = optim.Adam(parameters())
    with pytest.raises(ValueError, match=r"exp_avg\.3"):
        optimizer.load_state_dict(optim.Adam(parameters()[:3]).state_dict())
    with pytest.raises(ValueError, match="exp_avg"):
        optimizer.load_state_dict(optim.Momentum(parameters(), 0.1).state_dict())
    wrong = {name: tensor + 1 for name, tensor in optimizer.state_dict().items()} | {"exp_avg.1": torch.ones(16, 8)}
    with pytest.raises(ValueError, match=r"exp_avg\.1.*\(16, 8\).*\(16, 7\)"):
        optimizer.load_state_dict(wrong)
    assert optimizer.steps == [0] * 4 and (optimizer.state["exp_avg"][0] == 0).all()


def test_zero_grad_and_generators_of_parameters():
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(2, 3)).sum().backward()
    optimizer.zero_grad()
    assert len(optimizer.params) == 4 and all(p.grad is None for p in model.parameters())
    before = copy.deepcopy(model)
    optimizer.step()  # nothing to do
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("name", ["descent", "momentum", "adam"])
def test_finds_the_bottom_of_a_bowl(name):
    point = torch.tensor([3.0, -2.0], requires_grad=True)
    optimizer = PAIRS[name][0]([point])
    optimizer.lr = 0.05
    for _ in range(300):
        optimizer.zero_grad()
        (point**2 * torch.tensor([1.0, 2.0])).sum().backward()
        optimizer.step()
    assert point.norm() < 1e-2


def test_wrong_settings_are_refused():
    with pytest.raises(ValueError, match="params is empty"):
        optim.Adam([])
    with pytest.raises(ValueError, match="lr=-1"):
        optim.GradientDescent(parameters(), -1)
    with pytest.raises(ValueError, match="betas"):
        optim.Adam(parameters(), betas=(0.9, 1.0))
    with pytest.raises(ValueError, match="eps"):
        optim.Adam(parameters(), eps=-1e-8)
    with pytest.raises(ValueError, match="decay=1.5"):
        optim.WeightAverage(nn.Linear(2, 2), 1.5)


def test_weight_average_equals_a_loop_by_hand():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).to(memory_format=torch.channels_last)
    average = optim.WeightAverage(model, decay=0.9)
    by_hand = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    for _ in range(5):
        optimizer.zero_grad()
        model(torch.randn(4, 3, 8, 8)).square().mean().backward()
        optimizer.step()
        average.update(model)
        for name, tensor in model.state_dict().items():
            by_hand[name] = 0.9 * by_hand[name] + 0.1 * tensor if tensor.is_floating_point() else tensor.clone()
    for name, tensor in average.model.state_dict().items():
        torch.testing.assert_close(tensor, by_hand[name], atol=1e-6, rtol=1e-5)
    assert average.model[1].num_batches_tracked == 5
    assert not average.model.training and not any(p.requires_grad for p in average.model.parameters())
    assert model.training and all(p.requires_grad for p in model.parameters())
    assert not torch.allclose(average.model[0].weight, model[0].weight, atol=1e-3)
