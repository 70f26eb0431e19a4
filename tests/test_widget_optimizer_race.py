"""The race goes as torch's optimisers go, and says who leaves the map."""

import pytest
import torch
from explorers import controls, plain, rows

from course_lib.errors import CourseError
from course_lib.widgets import optimizer_race
from course_lib.widgets.optimizer_race import SURFACES


@pytest.mark.parametrize(("surface", "rate"), [("narrow valley", 0.05), ("saddle", 0.1), ("bent valley", 0.02)])
def test_the_race_goes_as_torch_optim_goes(surface, rate):
    ground = SURFACES[surface]
    found = optimizer_race(surface, rate, steps=30)
    controls(found)["beta 1"].value = 0.8
    theirs = {
        "gradient descent": lambda point: torch.optim.SGD([point], rate),
        "momentum": lambda point: torch.optim.SGD([point], rate, momentum=0.8),
        "Adam": lambda point: torch.optim.Adam([point], rate, (0.8, 0.999)),
    }
    for (name, gap, loss), make in zip(rows(found), theirs.values(), strict=True):
        point = torch.tensor(ground.start, requires_grad=True)
        optimizer = make(point)
        for _ in range(30):
            optimizer.zero_grad()
            ground.loss(*point).backward()
            optimizer.step()
        away = min((point - torch.tensor(place)).norm().item() for place in ground.minima)
        assert name in theirs and gap == f"{away:.4f}" and loss == f"{ground.loss(*point).item():.5f}"


def test_the_minima_are_minima():
    for ground in SURFACES.values():
        for place in ground.minima:
            point = torch.tensor(place, requires_grad=True)
            (slope,) = torch.autograd.grad(ground.loss(*point), point)
            around = [ground.loss(*(point + 0.1 * torch.randn(2))) for _ in range(20)]
            assert slope.norm() < 1e-5 and min(around) > ground.loss(*point)


def test_without_its_correction_adams_first_step_is_3_16_times_as_long():
    found = optimizer_race("bowl", 0.1, steps=1)
    gap = {}
    for corrected in (True, False):
        controls(found)["bias correction"].value = corrected
        gap[corrected] = float(rows(found)[2][1])
    start = torch.tensor([-2.0, 1.0])
    for corrected, length in ((True, 0.1), (False, 0.1 * (1 - 0.9) / (1 - 0.999) ** 0.5)):
        assert abs((start + length * torch.tensor([1.0, -1.0])).norm() - gap[corrected]) < 1e-3


def test_who_leaves_the_map_is_told_and_the_others_go_on():
    found = optimizer_race("narrow valley", 0.2)  # beyond two over the curvature, 0.08
    (descent, momentum, adam), alt = rows(found), found.picture.value
    assert descent[1] == momentum[1] == "off the map" and float(adam[1]) < 1
    # its y is 1 at first and multiplied by 1 - 0.2 * 25 = -4 at each step: beyond 100 after step 4
    assert descent[2] == "left it for good at step 4" and "left it for good at step 4" in alt
    assert "the nearest to a minimum is Adam" in plain(found) and found.alarm.value == ""


@pytest.mark.parametrize(("wrong", "remedy"), [({"surface": "bowls"}, '"bowl"'), ({"steps": 0}, "1 to 200")])
def test_a_race_that_cannot_be_is_refused(wrong, remedy):
    with pytest.raises(CourseError, match=remedy):
        optimizer_race(**wrong)
