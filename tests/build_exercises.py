"""`make exercises`: writes the solutions from their texts, runs them, and takes the answers out for the class.

    python tests/build_exercises.py             solutions whose text is newer than what was run, and their exercises
    python tests/build_exercises.py 03 07       these, in any case
    python tests/build_exercises.py all         all of them

The text, solutions/scripts/NN_topic.py, is the source (jupytext's percent format). A cell's tag says what nbgrader
makes of it:

    solve:ID            the learner's code goes between ### BEGIN SOLUTION and ### END SOLUTION
    check:ID:POINTS     a check; what stands between ### BEGIN HIDDEN TESTS and ### END HIDDEN TESTS is for the grader
    explain:ID:POINTS   the learner's words, graded by hand

exercises/NN_topic.ipynb is the solution without its answers, hidden tests and outputs; it is never edited.
"""

import ast
import os
import sys
from pathlib import Path

import nbformat
from build_notebooks import ROOT, execute, read_script, tidy
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbgrader.preprocessors import ClearHiddenTests, ClearOutput, ClearSolutions, LockCells

SOLUTIONS, EXERCISES = ROOT / "solutions", ROOT / "exercises"
NO_OUTPUT = {"execution_count": None, "outputs": []}


def texts() -> list[Path]:
    """The solutions' texts, in the order of their numbers."""
    return sorted((SOLUTIONS / "scripts").glob("[0-9][0-9]_*.py"))


def nbgrader_metadata(tags: list[str]) -> dict[str, object]:
    """What nbgrader must know of a cell with these tags; nothing for an ordinary cell."""
    for tag in tags:
        kind, _, rest = tag.partition(":")
        name, _, points = rest.partition(":")
        if kind in ("solve", "check", "explain"):
            answer, graded = kind != "check", kind != "solve"
            record = {"grade": graded, "grade_id": f"{kind}-{name}", "locked": not answer, "solution": answer}
            record |= {"schema_version": 3, "task": False}
            return record | ({"points": int(points)} if graded else {})
    return {}


def solution_of(text: Path) -> NotebookNode:
    """The nbgrader source version, not yet run."""
    notebook = read_script(text)
    for cell in notebook.cells:
        record = nbgrader_metadata(cell.metadata.pop("tags", []))
        cell.metadata = NotebookNode(nbgrader=NotebookNode(record)) if record else NotebookNode()
    return notebook


def exercise_of(solution: NotebookNode) -> NotebookNode:
    """What a class gets: no answers, no hidden tests, no outputs; checks are locked."""
    notebook = nbformat.from_dict(solution)
    notebook = nbformat.reads(nbformat.writes(notebook), as_version=4)  # a copy that shares nothing
    for step in (LockCells(), ClearSolutions(), ClearOutput(), ClearHiddenTests()):
        notebook, _ = step.preprocess(notebook, {})
    notebook.metadata = NotebookNode(kernelspec=solution.metadata.kernelspec, language_info={"name": "python"})
    return notebook


def without_outputs(notebook: NotebookNode) -> list[tuple[str, str, dict]]:
    """What text and notebook must agree in."""
    return [(cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]


def is_current(text: Path) -> bool:
    """True if solution and exercise say what the text says, and the solution was run."""
    paths = [folder / f"{text.stem}.ipynb" for folder in (SOLUTIONS, EXERCISES)]
    if not all(path.exists() for path in paths):
        return False
    solution, exercise = (nbformat.read(path, as_version=4) for path in paths)
    ran = all(cell.execution_count for cell in solution.cells if cell.cell_type == "code")
    fresh = solution_of(text)
    return (
        ran
        and without_outputs(solution) == without_outputs(fresh)
        and without_outputs(exercise) == without_outputs(exercise_of(fresh))
    )


def write(notebook: NotebookNode, path: Path) -> None:
    """All or nothing."""
    nbformat.validate(notebook)
    path.parent.mkdir(exist_ok=True)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    os.replace(unfinished, path)


def build(text: Path) -> float:
    """Write, run and save one solution and its exercise; returns seconds."""
    ast.parse(text.read_text(encoding="utf-8"))
    solution = solution_of(text)
    seconds, _ = execute(solution, SOLUTIONS)
    tidy(solution)
    solution.metadata.pop("widgets", None)
    solution.metadata.language_info = NotebookNode(name="python")
    write(solution, SOLUTIONS / f"{text.stem}.ipynb")
    write(exercise_of(solution_of(text)), EXERCISES / f"{text.stem}.ipynb")
    return seconds


def main() -> int:
    """Build what was asked for; 1 if a solution failed, after all others were tried."""
    known, wanted, failed = {text.name[:2]: text for text in texts()}, sys.argv[1:], []
    if unknown := [number for number in wanted if number not in [*known, "all"]]:
        sys.exit(f"there is no solution {', '.join(unknown)}; known: {', '.join(known)}")
    chosen = [known[number] for number in wanted] if wanted and wanted != ["all"] else list(known.values())
    for text in [text for text in chosen if wanted or not is_current(text)]:
        try:
            print(f"{text.stem}: {build(text):.0f} s", flush=True)
        except (CellExecutionError, SyntaxError) as error:
            failed.append(text.stem)
            print(f"{text.stem} failed; its notebooks are as they were\n{error}", file=sys.stderr, flush=True)
    if not failed:
        print("Every exercise is current.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
