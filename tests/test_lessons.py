"""The rules that keep the lessons true: each is run as it stands, says what the library says, and can be read by all.

A rule is a function from a lesson to complaints. The lower half runs every rule on every lesson; the upper half proves
that each rule notices what it is for.
"""

import ast
import importlib
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nbformat
import pytest
from build_notebooks import NOTEBOOKS, ROOT, is_current, notebook_of, read_script, scripts, sources
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from course_lib.house import CHAPTERS, house

MUST_EXIST = range(9)
CELLS, LINES, COLUMNS = (20, 45), 15, 110
CHECKED_CHAPTERS, CHECKED_SHARE = range(1, 6), 0.6
SECONDS, MEGABYTES, WORDS_A_LINE = 90, 2000, (4, 8)
SPEAKERS = {"print", "show", "display", "figure", "lines", "heatmap", "pictures", "table", "compare"}
MACHINE = re.compile(r"/(?:root|home/\w+|Users/\w+|work|tmp)/|[A-Z]:\\+Users\\|ipykernel_\d|0x[0-9a-f]{8,}")


class Lesson(NamedTuple):
    """A chapter's number and its notebook."""

    chapter: int
    notebook: NotebookNode

    def cells(self, kind: str) -> list[NotebookNode]:
        return [cell for cell in self.notebook.cells if cell.cell_type == kind]

    def outputs(self) -> list[NotebookNode]:
        return [output for cell in self.cells("code") for output in cell.outputs]

    def prose(self) -> str:
        return "\n\n".join(cell.source for cell in self.cells("markdown"))


def tags(cell: NotebookNode) -> list[str]:
    return cell.metadata.get("tags", [])


def text_of(output: NotebookNode) -> str:
    """Everything in an output that can be read; pictures are left out."""
    page = output.get("data", {})
    readable = [str(value) for kind, value in page.items() if not kind.startswith("image/")]
    return re.sub(r"base64,[^\"]*", "", " ".join([output.get("text", ""), *readable]))


def code_lines(cell: NotebookNode) -> list[str]:
    return [line for line in cell.source.splitlines() if line.strip() and not line.strip().startswith("#")]


# ---- the rules


def run_top_to_bottom(lesson: Lesson) -> list[str]:
    counts = [cell.execution_count for cell in lesson.cells("code")]
    return [] if counts == list(range(1, len(counts) + 1)) else [f"cells were run in the order {counts}"]


def no_error_and_no_warning(lesson: Lesson) -> list[str]:
    outputs = lesson.outputs()
    errors = [f"{output.ename}: {output.evalue}" for output in outputs if output.output_type == "error"]
    streams = [output.text for output in outputs if output.get("name") == "stderr"]
    return errors + streams + [text for text in map(text_of, outputs) if re.search(r"\w+Warning:", text)]


def names_no_machine(lesson: Lesson) -> list[str]:
    texts = [text_of(output) for output in lesson.outputs()] + [cell.source for cell in lesson.notebook.cells]
    return [found.group() for text in texts for found in [MACHINE.search(text.replace(str(ROOT), "/tmp/"))] if found]


def keeps_no_leftovers(lesson: Lesson) -> list[str]:
    found = set(lesson.notebook.metadata) - {"kernelspec", "language_info", "course"}
    for cell in lesson.notebook.cells:
        found |= set(cell.metadata) - {"tags"}
    return [f"metadata {name}" for name in sorted(found)]


def speaks_where_it_should(lesson: Lesson) -> list[str]:
    """A cell that prints or draws outside a function, or ends in an expression that has a value, has an output."""
    silent = [cell for cell in lesson.cells("code") if not cell.outputs]
    return [f"no output: {cell.source[:60]}" for cell in silent if must_speak(ast.parse(cell.source))]


def must_speak(tree: ast.Module) -> bool:
    definitions = (ast.FunctionDef, ast.ClassDef, ast.Lambda)
    run = [node for part in tree.body if not isinstance(part, definitions) for node in ast.walk(part)]
    calls = {node.func.id for node in run if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    ends_in_a_value = bool(tree.body) and isinstance(tree.body[-1], ast.Expr)
    return bool(calls & SPEAKERS) or (ends_in_a_value and not isinstance(tree.body[-1].value, ast.Call))


def every_picture_has_alt_text(lesson: Lesson) -> list[str]:
    missing = []
    for output in lesson.outputs():
        page = output.get("data", {})
        images = re.findall(r"<img\b[^>]*>", page.get("text/html", ""))
        alts = [re.search(r'\balt="([^"]*)"', image) for image in images]
        if any(kind.startswith("image/") for kind in page) and not images:
            missing.append("a picture outside lesson.figure, show or pictures")
        missing += ["a picture whose alt text is short" for alt in alts if not alt or len(alt.group(1)) < 15]
    bare = re.findall(r"!\[\s*\]\(|<img(?![^>]*\balt=\"\w)[^>]*>", lesson.prose())
    return missing + [f"no alt text: {image}" for image in bare]


def fits_the_page(lesson: Lesson) -> list[str]:
    low, high = CELLS
    count = sum("explorer" not in tags(cell) for cell in lesson.notebook.cells)  # that one is played with, not read
    long = [cell for cell in lesson.cells("code") if len(code_lines(cell)) > LINES]
    wide = [line for cell in lesson.cells("code") for line in cell.source.splitlines() if len(line) > COLUMNS]
    number = [] if low <= count <= high else [f"{count} cells; {low} to {high} make a lesson"]
    return (
        number + [f"{len(code_lines(cell))} lines: {cell.source[:60]}" for cell in long] + [f"wide: {x}" for x in wide]
    )


def shows_what_the_library_says(lesson: Lesson) -> list[str]:
    """A cell with tags lib:MODULE.NAME holds those functions and classes, in that order, and nothing else."""
    drifted = []
    for cell in lesson.cells("code"):
        if names := [tag.removeprefix("lib:") for tag in tags(cell) if tag.startswith("lib:")]:
            originals = [definition(name) for name in names]
            if None in originals:
                drifted.append(f"not all of {names} are in the library")
            elif skeleton(ast.parse(cell.source)) != skeleton(ast.Module(originals, [])):
                drifted.append(f"the cell that shows {', '.join(names)} differs from the library")
    return drifted


def names_all_of_its_module(lesson: Lesson) -> list[str]:
    """Each public function and class of the chapter's modules is shown under its tag, or named in `backticks`."""
    shown = {tag for cell in lesson.cells("code") for tag in tags(cell)}
    named = set(re.findall(r"\w+", " ".join(re.findall(r"(?<!`)`([^`\n]+)`(?!`)", lesson.prose()))))
    public = [(module, name) for module in CHAPTERS[lesson.chapter].modules for name in definitions(module)]
    mine = [(module, name) for module, name in public if not name.startswith("_")]
    return [f"{module}.{name}" for module, name in mine if f"lib:{module}.{name}" not in shown and name not in named]


@cache
def definitions(module: str) -> dict[str, ast.stmt]:
    """The functions and classes of a module, by name."""
    path = Path(importlib.import_module(f"course_lib.{module}").__file__)
    found = ast.parse(path.read_text(encoding="utf-8")).body
    return {node.name: node for node in found if isinstance(node, ast.FunctionDef | ast.ClassDef)}


def definition(name: str) -> ast.stmt | None:
    module, _, last = name.rpartition(".")
    exists = module and (ROOT / "course_lib" / f"{module.replace('.', '/')}.py").exists()
    return definitions(module).get(last) if exists else None


def skeleton(tree: ast.Module) -> str:
    """A program without its docstrings, comments and layout."""
    tree = ast.parse(ast.unparse(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            node.body = node.body[1:] or [ast.Pass()]
    return ast.dump(tree)


def is_checked_on_every_run(lesson: Lesson) -> list[str]:
    """In the first chapters most outputs are the same everywhere, and are compared."""
    code = lesson.cells("code")
    share = sum("nbval-check-output" in tags(cell) for cell in code) / max(1, len(code))
    enough = lesson.chapter not in CHECKED_CHAPTERS or share >= CHECKED_SHARE
    return [] if enough else [f"only {share:.0%} of the code cells are tagged nbval-check-output"]


def needs_nothing_special(lesson: Lesson) -> list[str]:
    """Plain Python, in every notebook program, and figures only through course_lib.lesson."""
    found = []
    for cell in lesson.cells("code"):
        found += [line for line in cell.source.splitlines() if re.match(r"\s*[%!]", line)]
        found += [line for line in code_lines(cell) if re.search(r"\b(matplotlib|plt|IPython)\b", line)]
        found += [tag for tag in tags(cell) if tag in ("raises-exception", "nbval-skip", "nbval-ignore-output")]
    return found


def opens_and_closes_as_all_do(lesson: Lesson) -> list[str]:
    first, prose = lesson.notebook.cells[0].source, lesson.prose()
    wanted = [f"# {lesson.chapter:02} · ", "**You will build**", "**You need**", "**Time**"]
    missing = [f"the first cell lacks {part}" for part in wanted if part not in first]
    closing = ["## What changed in the library", "## Three questions", "## Papers"]
    missing += [f"there is no {part}" for part in closing if part not in prose]
    missing += [] if "**Predict.**" in prose else ["nothing is to be predicted"]
    return missing + ([] if house(lesson.chapter) in prose else ["the map of the house is not lesson.house's"])


def answers_are_folded_right(lesson: Lesson) -> list[str]:
    """Markdown inside <details> is only drawn after an empty line."""
    wrong = []
    for cell in lesson.cells("markdown"):
        opened, closed = cell.source.count("<details>"), cell.source.count("</details>")
        good = re.findall(r"<details><summary>[^\n]+</summary>\n\n.+?\n\n</details>", cell.source, flags=re.S)
        wrong += [] if opened == closed == len(good) else [cell.source[:60]]
    last = lesson.prose().partition("## Three questions")[2].partition("\n## ")[0]
    return wrong + ([] if last.count("<details>") == 3 else ["three questions want three folded answers"])


RULES: list[Callable[[Lesson], list[str]]] = [
    run_top_to_bottom,
    no_error_and_no_warning,
    names_no_machine,
    keeps_no_leftovers,
    speaks_where_it_should,
    every_picture_has_alt_text,
    fits_the_page,
    shows_what_the_library_says,
    names_all_of_its_module,
    is_checked_on_every_run,
    needs_nothing_special,
    opens_and_closes_as_all_do,
    answers_are_folded_right,
]


# ---- each rule notices what it is for


def small_lesson(*cells: NotebookNode) -> Lesson:
    """A lesson 03 that breaks no rule, with more cells at its end."""
    opening = "# 03 · Losses\n\n**You will build** it. **You need** it. **Time**: 1 minute. **Predict.** What?"
    question = "<details><summary>Answer</summary>\n\nYes.\n\n</details>\n\n"
    closing = f"## What changed in the library\n\n## Three questions\n\n{question * 3}## Papers"
    names = " ".join(f"`{name}`" for name in definitions("losses"))
    texts = [opening, f"```mermaid\n{house(3)}\n```", names, *(f"Word {i}." for i in range(17)), closing]
    notebook = new_notebook(cells=[*map(new_markdown_cell, texts), *cells], metadata={"course": {"seconds": 1}})
    return Lesson(3, notebook)


def code(source: str, *outputs: NotebookNode, count: int = 1, tagged: str = "nbval-check-output") -> NotebookNode:
    return new_code_cell(source, execution_count=count, outputs=list(outputs), metadata={"tags": tagged.split()})


def page(**data: str) -> NotebookNode:
    return new_output("display_data", data={kind.replace("_", "/"): value for kind, value in data.items()})


MSE = "def mse_loss(input: Tensor, target: Tensor) -> Tensor:\n    require_same_shape(input, target)\n"
GOOD = [
    code("x = 1"),
    code("print(x)", new_output("stream", name="stdout", text="1\n"), count=2),
    code(MSE + "    return ((input - target) ** 2).mean()  # why", count=3, tagged="lib:losses.mse_loss"),
    code("figure()", page(image_png="iVBO", text_html='<img alt="five words tell it all" src="">'), count=4),
]
BAD = {
    run_top_to_bottom: code("x = 1", count=7),
    no_error_and_no_warning: code("f()", new_output("stream", name="stderr", text="oh")),
    names_no_machine: code("f()", page(text_plain="/".join(["", "home", "ada", "x.png"]))),
    keeps_no_leftovers: new_code_cell("x = 1", metadata={"execution": {"started": "now"}}),
    speaks_where_it_should: code("for i in range(3):\n    print(i)"),
    every_picture_has_alt_text: code("f()", page(image_png="iVBO")),
    fits_the_page: code("x = 1\n" * 16),
    shows_what_the_library_says: code(MSE + "    return (input - target).mean()", tagged="lib:losses.mse_loss"),
    is_checked_on_every_run: code("x = 1", tagged=""),
    needs_nothing_special: code("%matplotlib inline"),
    answers_are_folded_right: new_markdown_cell("<details><summary>Answer</summary>\nno empty line\n</details>"),
}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_good_lesson_breaks_no_rule(rule):
    assert rule(small_lesson(*GOOD)) == []


@pytest.mark.parametrize("rule", BAD, ids=lambda rule: rule.__name__)
def test_the_rule_notices(rule):
    assert rule(small_lesson(BAD[rule]))


@pytest.mark.parametrize(
    ("rule", "cell"),
    [
        (no_error_and_no_warning, code("f()", new_output("error", ename="ValueError", evalue="x", traceback=[]))),
        (no_error_and_no_warning, code("f()", new_output("stream", name="stdout", text="a UserWarning: x"))),
        (names_no_machine, code("f()", page(text_html=f"<p>{ROOT}/notebooks</p>"))),
        (names_no_machine, code("f()", page(text_plain="<function f at 0x7f12a4c3d5e0>"))),
        (speaks_where_it_should, code("x = 1\nx")),
        (speaks_where_it_should, code("with figure() as axis:\n    axis.plot()")),
        (every_picture_has_alt_text, code("f()", page(text_html='<img alt="figure" src="x">'))),
        (every_picture_has_alt_text, new_markdown_cell("![](docs/prompts.png)")),
        (fits_the_page, code(f"x = '{'x' * 110}'")),
        (shows_what_the_library_says, code("def gone(): ...", tagged="lib:losses.gone")),
        (shows_what_the_library_says, code("def gone(): ...", tagged="lib:nothing.gone")),
        (shows_what_the_library_says, code("x = 1\n" + GOOD[2].source, tagged="lib:losses.mse_loss")),
        (needs_nothing_special, code("import matplotlib.pyplot as plt")),
        (needs_nothing_special, code("1 / 0", tagged="raises-exception")),
    ],
)
def test_the_rules_notice_also(rule, cell):
    assert rule(small_lesson(cell))


@pytest.mark.parametrize("part", ["**Time**", "**Predict.**", "## Papers", "block-beta"])
def test_a_missing_part_is_noticed(part):
    lesson = small_lesson()
    for cell in lesson.notebook.cells:
        cell.source = cell.source.replace(part, "")
    assert opens_and_closes_as_all_do(lesson)


def test_a_function_that_no_cell_names_is_noticed():
    lesson = small_lesson()
    lesson.notebook.cells[2].source = lesson.notebook.cells[2].source.replace("`softplus`", "softplus")
    assert names_all_of_its_module(lesson) == ["losses.softplus"]
    shown = code("def softplus(x): ...", tagged="lib:losses.softplus")
    lesson.notebook.cells.append(shown)
    assert names_all_of_its_module(lesson) == []


def test_a_lesson_too_short_is_noticed():
    assert fits_the_page(Lesson(3, new_notebook(cells=[new_markdown_cell("Hello.")])))


def test_only_the_docstring_may_differ():
    ours = 'def f(x):\n    """Short."""\n    # why\n    return (x)'
    assert skeleton(ast.parse(ours)) == skeleton(ast.parse('def f(x):\n    """Long.\n\n    Text."""\n    return x'))
    assert skeleton(ast.parse(ours)) != skeleton(ast.parse("def f(x=1):\n    return x"))


# ---- the lessons

SCRIPTS = {script.stem: script for script in scripts()}
each_lesson = pytest.mark.parametrize("name", SCRIPTS)


@cache
def lesson_named(name: str) -> Lesson:
    path = notebook_of(SCRIPTS[name])
    assert path.exists(), f"run: make notebooks ONLY={name[:2]}"
    return Lesson(int(name[:2]), nbformat.read(path, as_version=4))


@each_lesson
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_lesson_keeps_the_rule(rule, name):
    complaints = rule(lesson_named(name))
    assert not complaints, "\n".join([f"{len(complaints)} complaints:", *complaints])


@each_lesson
def test_text_and_notebook_are_a_pair(name):
    assert sources(lesson_named(name).notebook) == sources(read_script(SCRIPTS[name])), (
        f"edit notebooks/scripts/{name}.py, then: make notebooks ONLY={name[:2]}"
    )
    assert is_current(SCRIPTS[name])
    nbformat.validate(lesson_named(name).notebook)


@each_lesson
@pytest.mark.slow
def test_the_lesson_runs_again_and_says_the_same(name):
    """nbval in its lax mode: every cell must run, and those tagged nbval-check-output must give what they gave."""
    options = ["--nbval-lax", "--nbval-current-env", "--nbval-cell-timeout=600", "-q", "--color=no"]
    options += [f"--nbval-sanitize-with={ROOT / 'tests' / 'nbval_sanitize.cfg'}", "-p", "no:cacheprovider"]
    command = [sys.executable, "-m", "pytest", *options, str(notebook_of(SCRIPTS[name]))]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", errors="replace")
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]


def test_every_notebook_has_its_text():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} <= set(SCRIPTS)
    numbers = [name[:2] for name in SCRIPTS]
    assert len(numbers) == len(set(numbers)), "two lessons have one number"


def test_no_lesson_is_missing():
    there = {int(name[:2]) for name in SCRIPTS}
    assert not [f"{chapter:02}" for chapter in MUST_EXIST if chapter not in there]


@pytest.mark.filterwarnings("default")  # elsewhere a warning fails
def test_budget(tell):
    """What each run took, as the run itself recorded it: a table to read; too much is a warning, not a failure."""
    rows = [budget_row(name) for name in SCRIPTS]
    heavy = [row["lesson"] for row in rows if row["seconds"] > SECONDS or row["peak MB"] > MEGABYTES]
    tell("\n".join("  ".join(f"{value!s:>12}" for value in line) for line in [rows[0], *map(dict.values, rows)]))
    tell(f"all lessons: {sum(row['seconds'] for row in rows)} s")
    if heavy:
        warnings.warn(f"over {SECONDS} s or {MEGABYTES} MB: {', '.join(heavy)}", stacklevel=1)


def budget_row(name: str) -> dict[str, object]:
    lesson = lesson_named(name)
    record = lesson.notebook.metadata.course
    lines = sum(len(code_lines(cell)) for cell in lesson.cells("code"))
    prose = lesson.prose().partition("## What changed in the library")[0]
    prose = re.sub(
        r"```.*?```|\$\$.*?\$\$|\$[^$]+\$|<[^>]+>|^\|[^\n]*", " ", prose, flags=re.S | re.M
    )  # sentences only
    checked = sum("nbval-check-output" in tags(cell) for cell in lesson.cells("code"))
    return {
        "lesson": name[:12],
        "seconds": record["seconds"],
        "peak MB": record["peak_mb"],
        "cells": len(lesson.notebook.cells),
        "code lines": lines,
        "words a line": f"{len(prose.split()) / lines:.1f}",
        "checked": f"{checked / len(lesson.cells('code')):.0%}",
    }
