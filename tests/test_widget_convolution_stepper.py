"""The windows' numbers are torch's, in words too; what does not fit is told."""

import re

import pytest
import torch
from explorers import controls, plain
from torch.nn import functional as F

from course_lib.widgets import convolution_stepper
from course_lib.widgets.convolution_stepper import NUMBERS, PICTURE

SETTINGS = [
    ("-1 1; -1 1", 1, 0, 1),
    ("1 2 3; 4 5 6; 7 8 9", 2, 1, 1),
    ("1 -2 3", 1, 1, 3),
    ("1 2; 3 4; 5 6; 7 8", 3, 2, 2),
]


@pytest.mark.parametrize("transposed", [False, True], ids=["convolution", "transposed"])
@pytest.mark.parametrize(("text", "stride", "padding", "dilation"), SETTINGS)
def test_after_the_last_step_the_numbers_are_torchs(text, stride, padding, dilation, transposed):
    found = convolution_stepper(text, transposed=transposed)
    hands = controls(found)
    for name, value in {"stride": stride, "padding": padding, "dilation": dilation}.items():
        hands[name].value = value
    hands["step"].value = hands["step"].max
    kernel = torch.tensor([[float(x) for x in row.split()] for row in text.split(";")])[None, None]
    if transposed:  # the margin, which the padding crops, is shown too
        theirs = F.conv_transpose2d(NUMBERS[None, None], kernel, None, stride, 0, 0, 1, dilation)[0, 0]
    else:
        theirs = F.conv2d(PICTURE[None, None], kernel, None, stride, padding, dilation)[0, 0]
    ours = re.search(r"row by row: (.*?)\.<br>", found.words.value)[1].split("; ")
    assert torch.equal(torch.tensor([[float(x) for x in row.split()] for row in ours]), theirs)
    assert "All steps together are equal to conv" in plain(found) and found.alarm.value == ""


def test_each_window_is_multiplied_and_added_in_words():
    found = convolution_stepper(step=1)
    hands = controls(found)
    hands["step"].value = 18  # row 4 of five, column 3: the foot of the edge
    assert "Window 18 of 25, for row 4, column 3 of the output: 0·(-1) + 2·1 + 1·(-1) + 1·1 = 2." in plain(found)
    assert "= 2." in found.picture.value
    hands["stride"].value = 3  # now there are 2 x 2 windows: the slider may not point beyond the last
    assert hands["step"].value == hands["step"].max == 4 and "Window 4 of 4" in plain(found)


@pytest.mark.parametrize("wrong", ["1 2; 3", "", "a b", "1 2 3 4 5", "nan"])
def test_a_kernel_that_cannot_be_read_is_told_in_words(wrong):
    found = convolution_stepper()
    before = found.picture.value
    controls(found)["kernel"].value = wrong
    assert "cannot be read" in found.alarm.value and "equally long" in found.alarm.value
    assert found.picture.value == before
    controls(found)["kernel"].value = "1"
    assert found.alarm.value == "" and "Window" in plain(found)


def test_what_does_not_fit_is_told_in_words():
    found = convolution_stepper("1 1 1 1; 1 1 1 1; 1 1 1 1; 1 1 1 1")
    controls(found)["dilation"].value = 3
    assert "dilation=3 spreads the kernel over 10 pixels, and the padded picture has 6" in found.alarm.value
    controls(found)["padding"].value = 2
    assert found.alarm.value == "" and "Window 1 of 1" in plain(found)
