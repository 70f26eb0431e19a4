"""The exercises: graders are graded, notebooks are generated, and nothing of a solution reaches a learner."""

import ast
import importlib
import re
import time

import nbformat
import pytest
from build_exercises import EXERCISES, SOLUTIONS, exercise_of, is_current, nbgrader_metadata, solution_of, texts
from build_notebooks import ROOT

from course_lib.checks.core import Answer, CheckFailed, random

CHECKED = sorted(path.stem for path in (ROOT / "course_lib" / "checks").glob("*.py") if path.stem[0] != "_")
CHECKED.remove("core")
LEAST_WRONG, LEAST_RIGHT = 5, 2
SECONDS = 30  # a check takes less than 2; busy neighbours make the machine slower
TEXTS = {text.stem: text for text in texts()}
each_text = pytest.mark.parametrize("name", TEXTS)
each_chapter = pytest.mark.parametrize("chapter", CHECKED)


def checks_of(chapter: str) -> dict[str, object]:
    """The checks of a chapter by name."""
    module = importlib.import_module(f"course_lib.checks.{chapter}")
    return {name: value for name, value in vars(module).items() if name.startswith("check_")}


def answers(kind: str) -> list:
    """(check, answer ...) of every mutant, as parameters of a test."""
    found = []
    for chapter in CHECKED:
        table = getattr(importlib.import_module(f"mutants.{chapter}"), kind)
        for check, rows in table.items():
            for name, row in rows.items():
                found.append(pytest.param(checks_of(chapter)[check], row, id=f"{check}-{name}"))
    return found


# ---- what all checks share


def test_a_learner_sees_a_sentence_and_no_stack_trace():
    failed = CheckFailed("mse_loss: too large")
    assert failed._render_traceback_() == ["✗ mse_loss: too large"]


def test_an_answer_that_never_ends_is_given_up(capsys):
    def for_ever():
        while True:
            pass

    started = time.monotonic()
    with pytest.raises(CheckFailed, match="never ends"):
        Answer("f", for_ever, seconds=0.2)()
    assert time.monotonic() - started < 10
    print("still heard")
    assert "still heard" in capsys.readouterr().out


def test_the_line_that_raised_is_named():
    def f(x):
        y = x + 1
        return y.nothing

    with pytest.raises(CheckFailed, match="in its line 3 with AttributeError"):
        Answer("f", f)(random(0, 2))


def test_prints_of_an_answer_are_held_back(capsys):
    Answer("f", lambda: print("noise"))()
    assert capsys.readouterr().out == ""


def test_infinities_must_agree_and_nan_is_never_right():
    answer = Answer("f", lambda: None)
    answer.expect(float("inf"), float("inf"), "x")
    for wrong in (float("nan"), -float("inf"), 1.0):
        with pytest.raises(CheckFailed):
            answer.expect(wrong, float("inf"), "x")
    with pytest.raises(CheckFailed):
        answer.expect(float("nan"), float("nan"), "x")


def test_a_gradient_that_is_missing_or_wrong_is_noticed():
    x = random(0, 3)
    with pytest.raises(CheckFailed, match="no gradient flows"):
        Answer("f", lambda x: x.detach() ** 2).expect_gradient((x,), lambda x: x**2, "the slope")
    with pytest.raises(CheckFailed, match="the slope is"):
        Answer("f", lambda x: x**3).expect_gradient((x,), lambda x: x**2, "the slope")
    Answer("f", lambda x: x * x).expect_gradient((x,), lambda x: x**2, "the slope")


# ---- the graders are graded


@pytest.mark.parametrize(("check", "row"), answers("WRONG"))
def test_a_wrong_answer_is_told_what_is_wrong(check, row):
    answer, words = row
    started = time.monotonic()
    with pytest.raises(CheckFailed) as failed:
        check(answer)
    assert words in str(failed.value)
    assert time.monotonic() - started < SECONDS


@pytest.mark.parametrize(("check", "answer"), answers("RIGHT"))
def test_a_right_answer_passes_however_it_is_written(check, answer, capsys):
    check(answer)
    check(answer, seed=100)
    assert capsys.readouterr().out.startswith("✓ ")


@each_chapter
def test_every_check_is_graded(chapter):
    """Enough wrong and right answers for each check of the chapter, and none for checks that are not there."""
    tables = importlib.import_module(f"mutants.{chapter}")
    assert set(tables.WRONG) == set(tables.RIGHT) == set(checks_of(chapter))
    for check in checks_of(chapter):
        assert len(tables.WRONG[check]) >= LEAST_WRONG, check
        assert len(tables.RIGHT[check]) >= LEAST_RIGHT, check


def test_how_many_wrong_answers_are_found(tell):
    """The count for the reader of the test's output; each one is a test of its own above."""
    killed = 0
    for parameter in answers("WRONG"):
        check, (answer, words) = parameter.values
        try:
            check(answer)
        except CheckFailed as failed:
            killed += words in str(failed)
    total = len(answers("WRONG"))
    tell(f"wrong answers found: {killed} / {total}; right ones passed: {len(answers('RIGHT'))}")
    assert killed == total


# ---- the notebooks


def kind_of(cell: nbformat.NotebookNode) -> str:
    """ "solve", "check", "explain", or "" for an ordinary cell."""
    return cell.metadata.get("nbgrader", {}).get("grade_id", "").partition("-")[0]


@each_text
def test_solution_and_exercise_are_current(name):
    assert is_current(TEXTS[name]), f"edit solutions/scripts/{name}.py, then: make exercises"
    for folder in (SOLUTIONS, EXERCISES):
        nbformat.validate(nbformat.read(folder / f"{name}.ipynb", as_version=4))


def test_every_notebook_has_its_text():
    for folder in (SOLUTIONS, EXERCISES):
        assert {path.stem for path in folder.glob("*.ipynb")} == set(TEXTS)


@each_text
def test_a_solution_ran_without_an_error_or_a_warning(name):
    for cell in nbformat.read(SOLUTIONS / f"{name}.ipynb", as_version=4).cells:
        for output in cell.get("outputs", []):
            assert output.output_type != "error" and output.get("name") != "stderr", output


@each_text
def test_an_exercise_holds_no_trace_of_its_solution(name):
    solution, exercise = solution_of(TEXTS[name]), nbformat.read(EXERCISES / f"{name}.ipynb", as_version=4)
    assert exercise.cells == exercise_of(solution).cells
    page = nbformat.writes(exercise)
    assert not re.search(r"(BEGIN|END) (SOLUTION|HIDDEN)", page)
    for cell in exercise.cells:
        assert not cell.get("outputs") and cell.get("execution_count") is None
    for cell in solution.cells:
        for secret in re.findall(r"BEGIN SOLUTION[^\n]*\n(.*?)\n[^\n]*END SOLUTION", cell.source, flags=re.S):
            assert secret.strip() not in page, secret


@each_text
def test_an_exercise_has_the_form_of_all(name):
    cells = solution_of(TEXTS[name]).cells
    prose = "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    records = [cell.metadata.nbgrader for cell in cells if "nbgrader" in cell.metadata]
    names = [record.grade_id for record in records]
    assert len(names) == len(set(names))
    checked = [n.removeprefix("check-") for n in names if n.startswith("check-")]
    explained = [n for n in names if n.startswith("explain-")]
    assert 3 <= len(checked) + len(explained) <= 5 and explained
    assert all(f"solve-{n}" in names for n in checked)
    assert re.search(r"## \d Find the bug", prose), "one exercise is to find a bug"
    assert "**Going further.**" in prose
    for part in ("**Why.**", "**Expected.**", "Hint 1", "Hint 2", "Hint 3"):
        assert prose.count(part) >= len(checked), part
    assert prose.count("<details>") == prose.count("</details>")
    for cell in cells:
        if kind_of(cell) == "solve":
            assert re.search(r"### BEGIN SOLUTION\n.+\n *### END SOLUTION", cell.source, flags=re.S)
        if kind_of(cell) == "check":
            assert "### BEGIN HIDDEN TESTS" in cell.source


@each_text
def test_points_in_the_table_are_the_points_of_the_cells(name):
    cells = solution_of(TEXTS[name]).cells
    rows = re.findall(r"^\| \d \|.*\| (\d+) \|$", cells[0].source, flags=re.M)
    points = [cell.metadata.nbgrader.points for cell in cells if "points" in cell.metadata.get("nbgrader", {})]
    assert list(map(int, rows)) == points


@each_text
@pytest.mark.slow
def test_nbgrader_accepts_the_solution_and_refuses_the_exercise(name):
    from nbgrader.validator import Validator

    assert Validator().validate(str(SOLUTIONS / f"{name}.ipynb")) == {}
    told = Validator().validate(str(EXERCISES / f"{name}.ipynb"))
    checks = [cell for cell in solution_of(TEXTS[name]).cells if kind_of(cell) == "check"]
    assert len(told["failed"]) == len(checks)


def test_tags_become_what_nbgrader_reads():
    assert nbgrader_metadata(["solve:x"]) == {
        "grade": False, "grade_id": "solve-x", "locked": False, "solution": True, "schema_version": 3, "task": False,
    }  # fmt: skip
    assert nbgrader_metadata(["check:x:3"])["points"] == 3 and nbgrader_metadata(["check:x:3"])["locked"]
    assert nbgrader_metadata(["explain:y:2"])["solution"] and nbgrader_metadata(["explain:y:2"])["grade"]
    assert nbgrader_metadata(["other"]) == {}


def test_solutions_are_python():
    for text in TEXTS.values():
        ast.parse(text.read_text(encoding="utf-8"))
