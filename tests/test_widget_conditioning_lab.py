"""What only the conditioning lab does: one noise for both sentences, the judge's counts, sentences it cannot use."""

import re

import pytest
import torch
from explorers import controls

from course_lib.data.captions import SINGLE
from course_lib.errors import CourseError
from course_lib.evaluation import load_judge
from course_lib.text_to_image import TextToImage
from course_lib.widgets import conditioning_lab


def readings(sentence: str, seed: int) -> torch.Tensor:
    """What the judge sees on 24 pictures, drawn from noises that are made here."""
    model = TextToImage.from_pretrained("shapes-32")
    z = torch.randn(24, model.generator.config.z_size, generator=torch.Generator().manual_seed(seed))
    return load_judge(32).read(model.generator(z, model.encode_text([sentence]).expand(24, -1)))


def test_what_follows_and_what_stays_is_counted():
    found = conditioning_lab("a red star", "shape")
    controls(found)["new value"].value = "ring"
    controls(found)["seed"].value = 4
    one, other = (readings(sentence, 4) for sentence in ("a red star", "a red ring"))
    ring = (other[:, 2] == SINGLE["shape"].index("ring")).sum()
    stays = dict(zip(SINGLE, (one == other).sum(0).tolist(), strict=True))
    assert 0 < sum(stays[name] for name in ("size", "position", "background")) < 72  # left unsaid: not all stay
    assert f"shape follows in {ring}" in found.words.value
    for name in ("size", "color", "position", "background"):
        assert (
            f"{name} stays in {stays[name]}" in found.words.value
            and f"{name} stays in {stays[name]}" in found.picture.value
        )
    rows = re.sub("<[^>]*>", " ", found.words.value).split("same in both pictures")[1].split()
    red = (one[:, 1] == SINGLE["color"].index("red")).sum()
    assert rows[rows.index("color") + 1 : rows.index("color") + 3] == ["red", str(red.item())]
    assert rows[rows.index("size") + 1 : rows.index("size") + 3] == ["(unsaid)", "0"]
    found.close()


def test_only_values_that_are_new_are_offered():
    found = conditioning_lab()
    assert controls(found)["new value"].options == tuple(c for c in SINGLE["color"] if c != "red")
    controls(found)["sentence"].value = "one small golden moon, lower left, grey"
    assert "yellow" not in controls(found)["new value"].options and "red" in controls(found)["new value"].options
    controls(found)["attribute"].value = "background"
    assert controls(found)["new value"].options == ("navy", "cream") and found.alarm.value == ""
    assert "a small yellow crescent at the bottom left on navy" in found.words.value
    found.close()


@pytest.mark.parametrize(
    ("sentence", "told"),
    [
        ("a star", "names no color; add one of red, green"),
        ("something red", "names no shape; add one of circle"),
        ("a red star above a blue ring", "names two objects; name one"),
    ],
)
def test_a_sentence_that_will_not_do_is_told(sentence, told):
    found = conditioning_lab()
    controls(found)["sentence"].value = sentence
    assert told in found.alarm.value
    found.close()


def test_an_unknown_attribute_is_told():
    with pytest.raises(CourseError, match='attribute="colour".*did you mean "color"'):
        conditioning_lab(attribute="colour")
