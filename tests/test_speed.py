"""Counting and estimating: work against a count by hand, costs against arithmetic; nothing here depends on a time."""

import pytest
import torch
from test_scale import make_data, trainer
from torch.utils.flop_counter import FlopCounterMode

from course_lib import layers
from course_lib.scale import ScaledTrainer
from course_lib.speed import (
    WARM_UP,
    Estimate,
    Work,
    estimate,
    matrix_rate,
    measure_step,
    memory_rate,
    seconds_of,
    step_flops,
    work_of,
)
from course_lib.training import AdversarialTrainer

CPU = torch.device("cpu")


def test_a_convolution_counts_as_by_hand():
    """5 pictures, 3 -> 8 channels, 4 x 4 kernel, stride 2, 16 -> 8 pixels."""
    layer, images = layers.Conv2d(3, 8, 4, stride=2, padding=1, bias=False), torch.randn(5, 3, 16, 16)
    by_hand = 2 * (5 * 8 * 8 * 8) * (3 * 4 * 4)  # numbers that come out, each of 48 products that are added up
    work = work_of(lambda: layer(images))
    assert work == Work(by_hand, 4 * (5 * 3 * 16 * 16 + 8 * 3 * 4 * 4 + 5 * 8 * 8 * 8), 1)
    assert work.intensity == by_hand / work.bytes
    forward_and_back = work_of(lambda: layer(images).sum().backward())
    assert forward_and_back.flops == 2 * by_hand, "the slope of the weights costs as much as the pass"
    images.requires_grad_()
    assert work_of(lambda: layer(images).sum().backward()).flops == 3 * by_hand, "and so does that of the pictures"


def test_bytes_are_those_that_are_read_and_written():
    x, y = torch.randn(2, 100)
    assert work_of(lambda: x + y) == Work(0, 4 * 300, 1)
    assert work_of(lambda: x.add_(y)) == Work(0, 4 * 300, 1), "in place writes too"
    assert work_of(lambda: x.double()).bytes == 100 * (4 + 8)
    assert work_of(lambda: x.view(10, 10).T[0]) == Work(0, 0, 0), "views move nothing"


def test_a_step_is_counted_and_done():
    one, data = trainer(), make_data(64, 16)
    with_r1, without = step_flops(one, data), step_flops(one, data)
    assert with_r1 > without > 0 and one.steps_done == 2
    with FlopCounterMode(display=False) as theirs:
        one.step(data)
    assert theirs.get_total_flops() == without
    double = trainer(settings={"batch_size": 32})
    double.step(data)
    assert step_flops(double, data) == 2 * without


@pytest.mark.parametrize("kind", [AdversarialTrainer, ScaledTrainer])
def test_steps_are_timed_after_a_warm_up(kind):
    one = trainer(kind)
    measured = measure_step(one, make_data(64, 16), steps=4)
    assert one.steps_done == WARM_UP + 4
    assert measured.seconds > 0 and measured.peak_bytes is None


def test_the_time_is_the_median_and_the_first_run_does_not_count(monkeypatch):
    ticks = iter([0.0, 1.0, 10.0, 15.0, 20.0, 22.0])
    monkeypatch.setattr("course_lib.speed.now", lambda device: next(ticks))
    runs = []
    assert seconds_of(lambda: runs.append(1), CPU, repeats=3) == 2.0
    assert len(runs) == 4


def test_rates_are_work_for_each_second(monkeypatch):
    monkeypatch.setattr("course_lib.speed.seconds_of", lambda run, device: (run(), 0.5)[1])
    assert matrix_rate(CPU) == matrix_rate(CPU, torch.bfloat16) == 4 * 1024**3
    assert memory_rate(CPU) == 4 * 2**28


def test_an_estimate_is_arithmetic():
    """36,000 pictures ten times at 50 a second: 7,200 seconds."""
    assert estimate(36_000, 10, 50, watts=500, price_per_hour=3) == Estimate(hours=2, kwh=1, cost=6)
    assert estimate(36_000, 0.5, 5, 10, 0) == Estimate(1, 0.01, 0)
