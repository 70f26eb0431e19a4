"""What only the film of a drawing does: it is the model's own drawing, is computed once, can be stopped and goes on."""

import importlib
import re
import time

import pytest
import torch
from explorers import controls, move, opening

from course_lib.batches import step_random
from course_lib.data.captions import SINGLE
from course_lib.denoising import dynamic_threshold
from course_lib.diffusion import DiffusionTextToImage, draw_pictures
from course_lib.evaluation import load_judge
from course_lib.widgets import denoising_film

module = importlib.import_module("course_lib.widgets.denoising_film")
PROMPT = "a small blue ring at the bottom right"  # the ground is left open


@pytest.fixture
def film():
    with opening(denoising_film) as open_one:
        yield open_one


@pytest.mark.parametrize("guidance", [0.0, 1.0, 3.0])
def test_the_last_answer_is_the_picture_that_the_model_draws(guidance):
    made = module.Film(PROMPT, 5, guidance, 4)
    assert list(made.rest) == [1, 2, 3, 4]
    drawn = DiffusionTextToImage.from_pretrained("shapes-32-diffusion").sample(PROMPT, 1, 4, guidance, seed=5)
    assert torch.equal(made.answers[-1], drawn)


def test_words_tell_the_step_the_noise_and_what_the_judge_sees(film):
    model, judge, answers = DiffusionTextToImage.from_pretrained("shapes-32-diffusion"), load_judge(32), []
    tokens, mask = model.encode_text([PROMPT])

    def listen(clean):
        answers.append(dynamic_threshold(clean))
        return answers[-1]

    draw_pictures(model.base, tokens, mask, [step_random(2, 0)], 10, 6.0, listen)
    rows = [
        [values[k] for values, k in zip(SINGLE.values(), row, strict=True)] for row in judge.read(torch.cat(answers))
    ]
    found = film(PROMPT, seed=2, guidance=6.0, steps=10, step=4)  # of 10 steps the fourth begins at time 700
    kept = torch.cos(torch.tensor((0.7 + 0.008) / 1.008 * torch.pi / 2)) ** 2
    assert f"Step 4 of 10, time 700: noise is {1 - kept:.1%} of the variance" in found.words.value
    wanted = ["small", "blue", "ring", "bottom right", None]
    for place in (0, 3, 9):
        move(found, "step", place + 1)
        told = [
            f"{name} {seen}" + ("" if right is None else " ✓" if seen == right else " ✗")
            for name, seen, right in zip(SINGLE, rows[place], wanted, strict=True)
        ]
        assert ", ".join(told) in found.words.value
    right = sum(row[:4] == wanted[:4] for row in rows)
    assert right < 10, "choose settings in which some answers are wrong"
    assert f"names in {right} of the 10 answers" in found.words.value


def test_leafing_and_going_back_compute_nothing(film, monkeypatch):
    found = film(PROMPT, steps=3, step=1)
    first = found.picture.value
    move(found, "guidance", 4.0)
    assert found.picture.value != first
    monkeypatch.setattr(module, "predict", lambda *_: pytest.fail("computed again"))
    move(found, "step", 3)
    move(found, "guidance", 2.0)
    move(found, "step", 1)
    assert found.picture.value == first and found.alarm.value == ""


def test_a_film_is_told_of_can_be_stopped_and_goes_on_where_it_was(film, monkeypatch):
    found, calls, quick = film(PROMPT, steps=3, step=3), [], module.predict
    before = found.picture.value
    monkeypatch.setattr(module, "predict", lambda *a: time.sleep(0.1) or calls.append(1) or quick(*a))
    controls(found)["guidance"].value = 5.0
    controls(found)["steps"].value = 12
    time.sleep(0.6)
    assert re.search(r"Drawing: step \d+ of 12", found.words.value)
    started = time.monotonic()
    controls(found)["Stop"].click()
    assert time.monotonic() - started < 1 and "Stopped" in found.words.value and found.picture.value == before
    count = len(calls)
    time.sleep(0.3)
    assert len(calls) == count < 14
    move(found, "step", 2)
    assert "Step 2 of 12" in found.words.value and len(calls) <= 3 + 12  # what was begun is not begun again


def test_a_film_in_the_making_does_not_cover_the_one_that_is_looked_at(film, monkeypatch):
    found, quick = film(PROMPT, steps=3, step=3), module.predict
    before = found.picture.value
    monkeypatch.setattr(module, "predict", lambda *a: time.sleep(0.1) or quick(*a))
    controls(found)["seed"].value = 1
    time.sleep(0.05)
    move(found, "seed", 0)
    time.sleep(0.5)
    assert found.picture.value == before and "Step 3 of 3" in found.words.value


def test_fewer_steps_end_the_slider_of_steps_earlier(film):
    found = film(PROMPT, steps=6, step=6)
    move(found, "steps", 4)
    assert controls(found)["step"].value == controls(found)["step"].max == 4
    assert "Step 4 of 4, time 250" in found.words.value


def test_mistakes_are_told_in_words(film):
    found = film(PROMPT, steps=2)
    move(found, "prompt", "  ")
    assert "the prompt is empty; say what to draw" in found.alarm.value
    move(found, "step", 1)
    assert "the prompt is empty" in found.alarm.value  # and not something about an index
    move(found, "prompt", "a rocket")
    assert found.alarm.value == "" and "has never read &quot;rocket&quot;" in found.words.value
    assert "✓" not in found.words.value and "✗" not in found.words.value
