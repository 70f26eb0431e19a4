"""GanArena: it plays lesson 10's game, its buttons do what they say, and it disturbs nobody."""

import re
import threading
import time

import matplotlib
import pytest
import torch
from explorers import controls

from course_lib.errors import CourseError
from course_lib.gan import AdversarialStep, MLPDiscriminator, MLPGenerator, ring_centers, ring_of_gaussians
from course_lib.lesson import new_axes
from course_lib.widgets import gan_arena


def round_of(explorer) -> int:
    return int(re.search(r"Round (\d+)", explorer.words.value)[1])


def arena_of(explorer):
    """The game that it holds."""
    held = [cell.cell_contents for cell in explorer._draw.__closure__]
    (state,) = [value for value in held if isinstance(value, dict)]
    return state["arena"]


def wait_for(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)


def test_it_plays_the_game_of_the_lesson_and_leaves_the_dice_alone():
    state = torch.get_rng_state()
    explorer = gan_arena(rounds=40)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(0)
    players = MLPGenerator(initialise=False), MLPDiscriminator(initialise=False)
    game = AdversarialStep(*players, learning_rates=(2e-3, 4e-3), r1_weight=0.01)
    random = torch.Generator().manual_seed(0)
    for _ in range(40):
        told = game(ring_of_gaussians(128, random))
    assert f"Round 40: loss of D {told['loss_d']:.3f}, of G {told['loss_g']:.3f}; " in explorer.words.value
    points = game.generator(torch.randn(500, 2, generator=torch.Generator().manual_seed(1)))
    near = (points[:, None] - ring_centers()).norm(dim=-1) < 0.3  # three standard deviations
    share, heaps = near.any(1).float().mean(), int((near.float().mean(0) >= 1 / 32).sum())
    assert f"{heaps} of 8 modes covered, {share:.0%} of the points" in explorer.words.value
    explorer.close()


def test_start_pause_step_and_reset():
    explorer = gan_arena(rounds=0)
    parts = controls(explorer)
    parts["Start"].click()
    wait_for(lambda: round_of(explorer) >= 20)
    assert round_of(explorer) % 20 == 0 and explorer.tasks[0].running
    parts["Pause"].click()
    stopped = round_of(explorer)
    time.sleep(0.2)
    assert round_of(explorer) == stopped and not any(task.running for task in explorer.tasks)
    parts["Step"].click()
    parts["Step"].click()
    after = round_of(explorer)
    assert stopped + 2 <= after <= stopped + 22  # up to a picture's rounds may have been played when Pause came
    parts["Step"].click()
    assert round_of(explorer) == after + 1
    parts["Reset"].click()
    assert round_of(explorer) == 0 and "nothing played yet" in explorer.words.value
    explorer.close()


def test_the_museum_sets_the_controls_and_a_control_cures_the_game_that_is_on():
    explorer = gan_arena("dominant D", rounds=0)
    parts = controls(explorer)
    assert parts["loss"].value == "saturating" and parts["G's rate"].value == pytest.approx(2e-4)
    arena = arena_of(explorer)
    assert arena.game.discriminator_steps == 10
    assert arena.game.loss == "saturating"
    parts["loss"].value = "non-saturating"
    parts["G's rate"].value = 1e-3
    assert arena.game.loss == "non-saturating"
    assert arena.game.generator_optimizer.lr == pytest.approx(1e-3) and arena.game.discriminator_optimizer.lr == 4e-3
    for case, loss, rates in (("mode", "non-saturating", (4e-3, 4e-3)), ("dominant", "saturating", (2e-4, 4e-3))):
        parts["museum"].value = next(name for name in parts["museum"].options if name.startswith(case))
        arena = arena_of(explorer)
        optimizers = arena.game.generator_optimizer, arena.game.discriminator_optimizer
        assert tuple(optimizer.lr for optimizer in optimizers) == pytest.approx(rates) and arena.game.loss == loss
        assert (parts["G's rate"].value, parts["D's rate"].value) == pytest.approx(rates)
    for _ in range(3):
        parts["Step"].click()
    assert round_of(explorer) == 3
    explorer.close()


def test_an_unknown_case_is_told():
    with pytest.raises(CourseError, match='case="mode colapse" is not in the museum; .*mode collapse'):
        gan_arena("mode colapse")


def test_a_cell_and_a_thread_take_turns_in_drawing():
    """Else each would give back the other's settings of matplotlib, and all later figures would have them."""
    before, order = dict(matplotlib.rcParams), []

    def draw():
        with new_axes("the thread's", 1, 1, None):
            order.append("thread")

    thread = threading.Thread(target=draw)
    with new_axes("the cell's", 1, 1, None):
        thread.start()
        thread.join(0.3)
        order.append("cell")
    thread.join(10)
    assert order == ["cell", "thread"] and dict(matplotlib.rcParams) == before


def test_closing_it_ends_the_game():
    explorer = gan_arena(rounds=0)
    controls(explorer)["Start"].click()
    (task,) = explorer.tasks
    explorer.close()
    assert not task.running and explorer.alarm.value == ""
