"""TrainingDashboard: its run is `course train`'s, to the last bit, stopped or not; the page stays free."""

import json
import re
import sys
import time

import pytest
import torch

from course_lib.checkpoint import load_checkpoint
from course_lib.errors import CourseError
from course_lib.listeners import MetricsLog
from course_lib.runs import resume_run, start_run
from course_lib.widgets import training_dashboard
from course_lib.widgets.base import leaves

STEPS = 44


def dashboard(out="run", **changes):
    explorer = training_dashboard("tiny-gan", out, **{"steps": STEPS, "sample_every": 20, **changes})
    return explorer, {control.description: control for control in leaves(explorer.children[1:2])}


def step_of(explorer) -> int:
    found = re.search(r"Step (\d+) of", explorer.words.value)
    return int(found[1]) if found else 0


def wait_for(condition, seconds=120):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it took too long"
        time.sleep(0.02)


def state_of(folder):
    tensors, config = load_checkpoint(folder / "checkpoints" / "last")
    return tensors, config["steps_done"]


def test_a_run_that_was_stopped_ends_as_that_of_course_train_does(workplace, monkeypatch):
    module, made = sys.modules["course_lib.widgets.training_dashboard"], []

    class Recorded(MetricsLog):
        def __call__(self, trainer, losses):
            made.append(trainer.steps_done)
            super().__call__(trainer, losses)

    monkeypatch.setattr(module, "MetricsLog", Recorded)
    explorer, parts = dashboard()
    assert "Step 0 of 44; Start trains in the folder run." in explorer.words.value and not (workplace / "run").exists()
    parts["Start"].click()
    wait_for(lambda: step_of(explorer) > 0)
    begun = time.monotonic()
    parts["Stop"].click()
    assert time.monotonic() - begun < 0.5  # it does not wait for the thread
    explorer.tasks[0].join(60)
    stopped = state_of(workplace / "run")[1]
    assert 0 < stopped < STEPS and f"Step {stopped} of {STEPS}, stopped; " in explorer.words.value
    parts["Start"].click()
    explorer.tasks[0].join(120)
    assert explorer.alarm.value == "" and "Step 44 of 44, finished" in explorer.words.value
    assert made == list(range(1, STEPS + 1))  # each step once, none again after the stop
    settings = json.loads((workplace / "run" / "run.json").read_text())["train"]
    start_run("tiny-gan", settings, workplace / "other", torch.device("cpu"))
    ours, theirs = (state_of(workplace / name) for name in ("run", "other"))
    assert ours[1] == theirs[1] == STEPS and all(torch.equal(ours[0][name], theirs[0][name]) for name in theirs[0])
    logs = [(workplace / name / "metrics.jsonl").read_text() for name in ("run", "other")]
    assert logs[0] == logs[1] and len(logs[0].splitlines()) == STEPS
    last = json.loads(logs[0].splitlines()[-1])
    assert f"loss of D {last['loss_d']:.2f}, of G {last['loss_g']:.2f}" in explorer.words.value
    explorer.close()


def test_course_train_goes_on_with_its_folder_and_it_with_that_of_course_train(workplace):
    explorer, parts = dashboard()
    parts["Start"].click()
    wait_for(lambda: step_of(explorer) > 0)
    with pytest.raises(CourseError, match="is being trained"):
        resume_run(workplace / "run", torch.device("cpu"))
    explorer.close()
    assert resume_run(workplace / "run", torch.device("cpu")) == workplace / "run" / "model"
    other, parts = dashboard()
    assert "Step 44 of 44, finished" in other.words.value and "loss of D" in other.words.value
    parts["New run"].click()
    assert "Start trains in the folder run-2" in other.words.value
    parts["batch"].value = 12
    parts["Start"].click()
    wait_for(lambda: (workplace / "run-2" / "run.json").exists())
    assert json.loads((workplace / "run-2" / "run.json").read_text())["train"]["batch_size"] == 12
    other.close()


def test_pause_waits_and_the_page_stays_free(workplace):
    explorer, parts = dashboard(steps=100_000)
    for _ in range(2):  # the second Start goes on after the pause
        begun = time.monotonic()
        parts["Start"].click()
        assert time.monotonic() - begun < 2
        before = step_of(explorer)
        wait_for(lambda before=before: step_of(explorer) > before + 20)
        parts["Pause"].click()
        seen, since = "", time.monotonic()  # it is heard after the part at hand, whose picture may still be drawn
        while time.monotonic() < since + 3:
            if explorer.words.value != seen:
                seen, since = explorer.words.value, time.monotonic()
            assert step_of(explorer) < before + 1000
            time.sleep(0.05)
        assert explorer.tasks[0].running and "s left" in seen
    explorer.close()
    assert not explorer.tasks and state_of(workplace / "run")[1] >= step_of(explorer)


def test_another_folder_and_another_preset_are_refused_in_words(workplace):
    (workplace / "run").mkdir()
    (workplace / "run" / "letter.txt").write_text("dear reader")
    with pytest.raises(CourseError, match='resume="run" holds no run'):
        dashboard()
    with pytest.raises(CourseError, match='preset="judge-32" is no GAN for single shapes; use "shapes-32-live"'):
        training_dashboard("judge-32")
