"""The loop learns, does its steps in order, and stops when the loss is no number."""

import math

import pytest
import torch

from course_lib.fit import fit, warmup_cosine
from course_lib.layers import Linear
from course_lib.optim import Adam


def line_problem():
    """Find y = 2x - 1 from points on it."""
    torch.manual_seed(0)
    model = Linear(1, 1)
    x = torch.linspace(-1, 1, 16)[:, None]
    return model, lambda step: (x, 2 * x - 1), lambda model, x, y: (model(x) - y).square().mean()


def test_fit_reaches_the_answer():
    model, batch, loss = line_problem()
    losses = fit(model, batch, loss, Adam(model.parameters(), lr=0.1), 200)
    assert len(losses) == 200 and losses[0] > 0.1 and losses[-1] < 1e-4
    assert torch.allclose(model.weight, torch.tensor([[2.0]]), atol=0.02)
    assert torch.allclose(model.bias, torch.tensor([-1.0]), atol=0.02)


def test_fit_equals_a_loop_written_out():
    model, batch, loss = line_problem()
    twin, _, _ = line_problem()
    losses = fit(model, batch, loss, Adam(model.parameters(), lr=0.1), 5)
    optimizer = torch.optim.Adam(twin.parameters(), lr=0.1)
    for step in range(5):
        value = loss(twin, *batch(step))
        assert value.item() == pytest.approx(losses[step], abs=1e-6)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert torch.allclose(model.weight, twin.weight, atol=1e-6)


def test_schedule_and_listener_see_every_step():
    model, batch, loss = line_problem()
    optimizer = Adam(model.parameters(), lr=1.0)
    seen = []
    losses = fit(
        model,
        batch,
        loss,
        optimizer,
        3,
        on_step=lambda step, value: seen.append((step, value, optimizer.lr)),
        learning_rate=lambda step: 0.1 / (step + 1),
    )
    assert seen == [(step, losses[step], 0.1 / (step + 1)) for step in range(3)]


def test_each_step_gets_its_own_batch_and_training_mode():
    model, batch, loss = line_problem()
    model.eval()
    steps = []
    fit(model, lambda step: steps.append(step) or batch(step), loss, Adam(model.parameters(), lr=0.1), 4)
    assert steps == [0, 1, 2, 3] and model.training


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_before_it_spoils_the_weights(bad):
    model, batch, loss = line_problem()
    weights = []

    def breaks(model, x, y):
        weights.append(model.weight.detach().clone())
        return loss(model, x, y) * (bad if len(weights) == 3 else 1)

    with pytest.raises(FloatingPointError, match="step 2"):
        fit(model, batch, breaks, Adam(model.parameters(), lr=0.1), 10)
    assert torch.equal(model.weight, weights[-1]) and len(weights) == 3


def test_progress_bar_shows_name_and_loss(capsys):
    model, batch, loss = line_problem()
    fit(model, batch, loss, Adam(model.parameters(), lr=0.1), 3, progress="a line")
    shown = capsys.readouterr().err
    assert "a line" in shown and "3/3" in shown and "loss=" in shown
    fit(model, batch, loss, Adam(model.parameters(), lr=0.1), 3)
    assert capsys.readouterr().err == ""


def test_warmup_cosine_by_hand():
    rate = warmup_cosine(peak=1.0, steps=14, warmup=4)
    assert [rate(step) for step in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rate(4) == 1.0 and rate(9) == pytest.approx(0.5) and rate(14) == pytest.approx(0.0)
    assert min(rate(step) for step in range(14)) > 0


def test_cosine_equals_torch():
    rate = warmup_cosine(peak=0.3, steps=20)
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert rate(step) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


@pytest.mark.parametrize("warmup", [-1, 10, 11])
def test_warmup_out_of_range(warmup):
    with pytest.raises(ValueError, match=f"warmup={warmup}"):
        warmup_cosine(1.0, 10, warmup)
