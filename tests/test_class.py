"""A class with nbgrader: generate, release, collect and autograde, with a right and a wrong submission."""

import sys
from pathlib import Path

import nbformat
import pytest
from build_exercises import solution_of, texts
from make_class import COURSE, make_class, settings
from nbgrader.api import Gradebook
from nbgrader.apps import NbGraderAPI

NAME = "03_losses"
SWAPPED = "return (targets * softplus(logits) + (1 - targets) * softplus(-logits)).mean()"
RIGHT = "return (targets * softplus(-logits) + (1 - targets) * softplus(logits)).mean()"


def submission(wrong: bool) -> nbformat.NotebookNode:
    """The solution as a student hands it in; the wrong one swaps the labels in exercise 2."""
    text = next(text for text in texts() if text.stem == NAME)
    notebook = solution_of(text)
    for cell in notebook.cells:
        if wrong:
            cell.source = cell.source.replace(RIGHT, SWAPPED)
        cell.source = "\n".join(line for line in cell.source.splitlines() if "SOLUTION" not in line)
    return notebook


def points_of(course: Path, student: str) -> tuple[float, float]:
    """(points of exercise 2, all points from checks) of a student."""
    with Gradebook(f"sqlite:///{(course / 'gradebook.db').as_posix()}") as gradebook:
        grades = gradebook.find_submission_notebook(NAME, NAME, student).grades
        scores = {grade.name: grade.auto_score for grade in grades if grade.name.startswith("check-")}
    return scores["check-bce-with-logits"], sum(scores.values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.skipif(sys.platform == "win32", reason="nbgrader's exchange needs Linux or macOS; see exercises/README.md")
def test_a_class_from_release_to_grades(tmp_path):
    course, exchange = tmp_path / "course", tmp_path / "exchange"
    exchange.mkdir(mode=0o777)
    exchange.chmod(0o777)
    make_class(course, [NAME])
    released = nbformat.read(course / "release" / NAME / f"{NAME}.ipynb", as_version=4)
    page = nbformat.writes(released)
    assert "BEGIN SOLUTION" not in page and "raise NotImplementedError()" in page

    api = NbGraderAPI(config=settings(course, exchange))
    assert api.release_assignment(NAME)["success"]
    for student in ("ada", "bob"):
        inbox = exchange / COURSE / "inbound" / f"{student}+{NAME}+2026-01-01 10:00:00.000000 UTC+0000000000"
        inbox.mkdir(parents=True)
        nbformat.write(submission(student == "bob"), inbox / f"{NAME}.ipynb")
        (inbox / "timestamp.txt").write_text("2026-01-01 10:00:00.000000 UTC")
    collected = api.collect(NAME)
    assert collected["success"], collected
    for student in ("ada", "bob"):
        graded = api.autograde(NAME, student)
        assert graded["success"], graded
    possible = sum(
        cell.metadata.nbgrader.points
        for cell in released.cells
        if cell.metadata.get("nbgrader", {}).get("grade_id", "").startswith("check-")
    )
    assert points_of(course, "ada") == (4, possible)
    assert points_of(course, "bob") == (0, possible - 4)
