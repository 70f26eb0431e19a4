"""What only the rating booth does: it hides who drew, keeps every answer once, counts wins and agreement right."""

import csv
import re

import pytest
import torch
from explorers import controls, move, opening, settled

from course_lib.errors import CourseError
from course_lib.image_metrics import krippendorff_alpha
from course_lib.widgets import rating_booth
from course_lib.widgets.rating_booth import EQUAL, SIMULATED, wins_of_marks, wins_of_pairs

MODELS = ("shapes-32", "real")


@pytest.fixture
def booth(tmp_path):
    with opening(rating_booth, models=MODELS, n_captions=2, folder=tmp_path / "ratings") as open_one:
        yield open_one


def push(found, *names):
    for name in names:
        controls(found)[name].click()
        settled(found)


def rows_of(path):
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def readable(found):
    return re.sub('base64,[^"]*|<[^>]*>', " ", found.picture.value.replace("<img", "") + found.words.value)


def test_marks_are_kept_blind_and_each_picture_is_asked_for_once(booth, tmp_path):
    found, asked = booth(), []
    for mark in "5241":
        assert not re.search("shapes-32|real", readable(found)), "it tells who drew the picture"
        asked.append(found.picture.value)
        push(found, mark)
    assert len(set(asked)) == 4
    rows = rows_of(tmp_path / "ratings" / "marks.csv")
    assert [row["score"] for row in rows] == list("5241") and {row["rater"] for row in rows} == {"me"}
    assert {(row["picture"], row["system"]) for row in rows} == {(i, m) for i in "01" for m in MODELS}
    means = {m: sum(int(row["score"]) for row in rows if row["system"] == m) / 2 for m in MODELS}
    for model, mean in means.items():
        assert f"{model} {mean:.3g}" in re.sub(r"\s+", " ", readable(found))
    assert "alpha needs a second rater" in found.words.value
    push(found, "5")  # nothing is asked any more
    assert len(rows_of(tmp_path / "ratings" / "marks.csv")) == 4


def test_another_rater_begins_anew_and_the_first_goes_on_where_he_stopped(booth, tmp_path):
    found = booth()
    push(found, "3")
    move(found, "rater", "Ada")
    assert "Number 1 of 4" in found.words.value
    push(found, "1", "5", "1", "5")
    again = booth()
    assert "Number 2 of 4" in again.words.value
    push(again, "2", "4", "4")
    rows = rows_of(tmp_path / "ratings" / "marks.csv")
    items = sorted({(row["picture"], row["system"]) for row in rows})
    given = {(row["rater"], row["picture"], row["system"]): float(row["score"]) for row in rows}
    alpha = krippendorff_alpha(
        torch.tensor([[given[rater, *item] for item in items] for rater in ("Ada", "me")]), "ordinal"
    )
    assert f"alpha of 2 raters {alpha:.2f} (ordinal)" in again.words.value


def test_the_better_of_two_is_kept_by_name_whichever_side_it_is_on(booth, tmp_path):
    found = booth(n_captions=3)
    move(found, "task", "two by two")
    push(found, "left", "right", EQUAL)
    rows = rows_of(tmp_path / "ratings" / "pairs.csv")
    assert [row["winner"] for row in rows] == [rows[0]["first"], rows[1]["second"], EQUAL]
    won = {m: sum(row["winner"] == m for row in rows) + 0.5 for m in MODELS}
    share = (won["real"] + 0.5) / 4  # half a win is added for either: of two, strengths are shares of wins
    assert f"real - - {100 * share:.3g}" in re.sub(r"\s+", " ", readable(found))
    assert not (tmp_path / "ratings" / "marks.csv").exists()


def test_wins_are_counted_within_a_rater():
    given = [("0", "A", "r", 5), ("1", "A", "r", 2), ("0", "B", "r", 2), ("0", "A", "s", 1), ("0", "B", "s", 4)]
    rows = [dict(zip(("picture", "system", "rater", "score"), map(str, row), strict=True)) for row in given]
    # r: 5 beats 2, 2 and 2 are even; s: 4 beats 1; marks of r and s are not compared
    assert wins_of_marks(rows, ["A", "B"]).tolist() == [[0, 1.5], [1.5, 0]]
    pairs = [{"first": "B", "second": "A", "winner": winner} for winner in ("B", "B", "A", EQUAL)]
    assert wins_of_pairs(pairs, ["A", "B"]).tolist() == [[0, 1.5], [2.5, 0]]


def test_who_has_rated_nothing_sees_the_simulated_example(booth):
    found = booth()
    move(found, "show results", True)
    assert "An example: simulated marks, which nobody gave" in found.words.value
    rows = rows_of(SIMULATED)
    scores = torch.full((6, 30), torch.nan)
    for row in rows:
        scores[int(row["rater"][1]) - 1, int(row["picture"])] = float(row["score"])
    assert (
        f"{len(rows)} marks: Krippendorff's alpha of 6 raters {krippendorff_alpha(scores, 'ordinal'):.2f}"
        in found.words.value
    )
    mean = scores[:, 0::3].nanmean()
    assert f"A {mean:.3g}" in re.sub(r"\s+", " ", readable(found))
    assert controls(found)["5"].description == "5"
    push(found, "5")  # no picture is shown, so nothing is rated
    move(found, "show results", False)
    assert "Number 1 of 4" in found.words.value


def test_a_foreign_file_or_a_folder_that_is_none_is_told(booth, tmp_path):
    found = booth()
    (tmp_path / "ratings").write_text("a file", encoding="utf-8")
    push(found, "4")
    assert "cannot be written to" in found.alarm.value
    (tmp_path / "ratings").unlink()
    (tmp_path / "ratings").mkdir()
    (tmp_path / "ratings" / "marks.csv").write_text("name,mark\nA,5\n", encoding="utf-8")
    found.refresh()
    assert "has not the columns picture, system, rater, score" in found.alarm.value
    move(found, "rater", " ")
    assert "is no name" in found.alarm.value


@pytest.mark.parametrize(
    ("models", "told"),
    [
        (("shapes-32", "shapes-23"), 'no "shapes-23"; did you mean "shapes-32"'),
        (("shapes-32",), "two or three different ones"),
        (("shapes-32", "shapes-32"), "two or three different ones"),
        (("shapes-32", "shapes-64"), "of one picture size"),
    ],
)
def test_models_that_cannot_be_compared_are_told(models, told):
    with pytest.raises(CourseError, match=told):
        rating_booth(models)
