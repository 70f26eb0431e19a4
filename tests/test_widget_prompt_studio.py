"""What only the prompt studio does: the judge's verdict, warnings, stopping, saving, going back."""

import json
import re
import time

import pytest
import torch
from explorers import controls, move, opening, settled

from course_lib.data.captions import SINGLE
from course_lib.errors import CourseError
from course_lib.evaluation import load_judge
from course_lib.generate import GenerateConfig, generate
from course_lib.images import prepare_image
from course_lib.models import load_model
from course_lib.provenance import read_provenance
from course_lib.text_to_image import TextToImage
from course_lib.widgets import prompt_studio


@pytest.fixture
def studio(tmp_path):
    with opening(prompt_studio, save_path=tmp_path / "drawn") as open_one:
        yield open_one


def test_the_judge_is_asked_about_what_the_prompt_names(studio):
    prompt = "a red green circle at the center on cream"  # no size; the first colour counts
    found, model, judge = studio(prompt, n_samples=8, seed=5), load_model("shapes-32"), load_judge(32)
    images = torch.cat([model.sample(prompt, 1, seed=5 + i) for i in range(8)])
    seen = [{name: SINGLE[name][k] for name, k in zip(SINGLE, row, strict=True)} for row in judge.read(images).tolist()]
    named = {"color": "red", "shape": "circle", "position": "center", "background": "cream"}
    counts = {name: sum(row[name] == value for row in seen) for name, value in named.items()}
    assert 0 < counts["color"] + counts["shape"] + counts["position"] < 24, "choose a prompt that is drawn half right"
    for name, value in named.items():
        assert f"{name} {value} {'✓' if counts[name] == 8 else '✗'} {counts[name]} of 8" in found.words.value
    assert "size" not in found.words.value
    for i, row in enumerate(seen):
        marks = ", ".join(f"{name} {'✓' if row[name] == value else '✗'}" for name, value in named.items())
        assert f"seed {5 + i}: {marks}" in found.picture.value


def test_of_two_objects_each_is_marked_where_the_caption_puts_it(studio):
    found = studio("a red circle right of a blue star on navy", "shapes-64", n_samples=2)
    assert "color red ✓ 2 of 2" in found.words.value and "relation right of ✓ 2 of 2" in found.words.value
    assert "shape2 star ✓ 2 of 2" in found.words.value
    move(found, "model", "shapes-32")  # was trained on one object: nobody can say
    assert "judge" not in found.words.value and "not judged" in found.picture.value


def test_a_word_that_the_model_never_read_is_told_with_a_model_that_has(studio):
    found = studio("rocket")
    assert "shapes-32 has never read &quot;rocket&quot;" in found.words.value
    known = re.search(r"The model (\S+) has read every word", found.words.value)[1]
    assert "rocket" in load_model(known).vocabulary
    move(found, "model", known)
    assert "never read" not in found.words.value


def test_mistakes_are_told_in_words(studio, tmp_path):
    found = studio()
    move(found, "prompt", "  ")
    assert "is empty; say what to draw" in found.alarm.value
    (tmp_path / "drawn").write_text("a file where the folder should be", encoding="utf-8")
    move(found, "prompt", "a ring")
    controls(found)["Save"].click()
    assert "cannot be written to" in found.alarm.value
    with pytest.raises(CourseError, match='model="shapes-23".*did you mean "shapes-32"'):
        prompt_studio(model="shapes-23")


def test_a_long_drawing_tells_how_far_it_is_and_can_be_stopped(studio, monkeypatch):
    found, quick = studio(), TextToImage.sample
    before = found.picture.value
    monkeypatch.setattr(TextToImage, "sample", lambda *a, **k: time.sleep(0.2) or quick(*a, **k))
    controls(found)["pictures"].value = 8
    time.sleep(0.9)
    assert re.search("Drawing picture [3-7] of 8", found.words.value)
    started = time.monotonic()
    controls(found)["Stop"].click()
    assert time.monotonic() - started < 1 and not found.tasks
    assert "Stopped" in found.words.value and found.picture.value == before and found.alarm.value == ""


def test_a_saved_picture_says_how_to_draw_it_again(studio, tmp_path):
    found = studio("a small pink moon", n_samples=2, seed=3)
    move(found, "truncation", 0.5)
    controls(found)["Save"].click()
    paths = sorted((tmp_path / "drawn").glob("*.png"))
    assert len(paths) == 2 and all(path.name in found.children[-2].value for path in paths)
    notes = read_provenance(paths[1])
    assert (notes["Generated"], notes["Description"], notes["Seed"]) == ("true", "a small pink moon", "4")
    settings = json.loads(notes["Settings"])
    del settings["prompts"], settings["picture"]
    again = GenerateConfig(
        (notes["Description"],), notes["Model"], seed=4, save_path=str(tmp_path / "again"), **settings
    )
    drawn = generate(again)[0]
    assert torch.equal(prepare_image(drawn, 32), prepare_image(paths[1], 32))


def test_an_earlier_drawing_comes_back(studio):
    found = studio("a ring", n_samples=1)
    first = found.picture.value
    move(found, "prompt", "a star")
    move(found, "model", "shapes-32-diffusion")
    assert controls(found)["steps"].min == 1 and controls(found)["truncation"].disabled
    history = controls(found)["history"]
    (label, back) = history.options[-1]
    assert label.startswith("a ring") and found.picture.value != first and found.children[-1].value.count("<img") >= 3
    history.value = back
    assert settled(found).picture.value == first and controls(found)["steps"].value == 0
