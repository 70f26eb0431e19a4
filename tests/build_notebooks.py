"""`make notebooks`: writes each lesson from its text, runs it in a fresh kernel and keeps what it printed and drew.

    python tests/build_notebooks.py             lessons whose text is newer than what was run
    python tests/build_notebooks.py 03 07       these, in any case
    python tests/build_notebooks.py all         every lesson, in any case

The text, notebooks/scripts/NN_topic.py, is the source: edit that, never the notebook. Cells are marked by jupytext's
percent format; a cell's tags stand in its marker. A lesson that fails leaves its old notebook as it was.
"""

import ast
import hashlib
import os
import re
import sys
import threading
import time
from pathlib import Path

import jupytext
import nbformat
import psutil
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from course_lib.house import house

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = ROOT / "notebooks"
TIMEOUT = 600  # seconds a cell may take
LIVE_WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
HOUSE = re.compile(r"(?<=```mermaid\n)block-beta\n.*?(?=\n```)", flags=re.S)


def scripts() -> list[Path]:
    """The lessons' texts, in the order of their numbers."""
    return sorted((NOTEBOOKS / "scripts").glob("[0-9][0-9]_*.py"))


def notebook_of(script: Path) -> Path:
    """The notebook that is written from a text."""
    return script.parents[1] / f"{script.stem}.ipynb"


def read_script(script: Path) -> NotebookNode:
    """The text as a notebook without outputs; a cell's id depends on its text alone, so that ids do not wander."""
    notebook = jupytext.reads(script.read_text(encoding="utf-8"), fmt="py:percent")
    notebook.metadata = NotebookNode(kernelspec=KERNEL, language_info={"name": "python"})
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    seen: dict[str, int] = {}
    for cell in notebook.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = NotebookNode(tags=tags) if tags else NotebookNode()
        if cell.cell_type == "markdown":
            cell.source = HOUSE.sub(house(int(script.name[:2])), cell.source)
        name = hashlib.sha256(cell.source.encode()).hexdigest()[:8]
        seen[name] = seen.get(name, 0) + 1
        cell.id = name if seen[name] == 1 else f"{name}-{seen[name]}"
    return notebook


def sources(notebook: NotebookNode) -> list[tuple[str, str, tuple[str, ...]]]:
    """What script and notebook must agree in: (kind, text, tags) of every cell."""
    return [(cell.cell_type, cell.source, tuple(cell.metadata.get("tags", []))) for cell in notebook.cells]


def is_current(script: Path) -> bool:
    """True if the notebook is there, says what the text says, and every cell of it was run in order."""
    path = notebook_of(script)
    if not path.exists():
        return False
    notebook = nbformat.read(path, as_version=4)
    counts = [cell.execution_count for cell in notebook.cells if cell.cell_type == "code"]
    return sources(notebook) == sources(read_script(script)) and counts == list(range(1, len(counts) + 1))


def execute(notebook: NotebookNode, folder: Path) -> tuple[float, float]:
    """Run every cell in a fresh kernel of this very Python; returns seconds, kernel start included, and peak MB."""
    client = NotebookClient(
        notebook, timeout=TIMEOUT, kernel_name="python3", record_timing=False, store_widget_state=False
    )
    client.extra_arguments = ["--log-level=ERROR"]  # it warns that it talks over this machine's own TCP
    client.resources = {"metadata": {"path": str(folder)}}
    peak, done, begin = [0.0], threading.Event(), time.perf_counter()
    watch = threading.Thread(target=watch_memory, args=(client, peak, done))
    watch.start()
    try:
        client.execute()
    finally:
        done.set()
        watch.join()
    return time.perf_counter() - begin, peak[0]


def watch_memory(client: NotebookClient, peak: list[float], done: threading.Event) -> None:
    """Note the largest memory, in MB, of the kernel and what it starts, until told that it is done."""
    while not done.wait(0.1):
        process = getattr(getattr(client.km, "provisioner", None), "process", None)
        try:
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            peak[0] = max(peak[0], sum(member.memory_info().rss for member in family) / 1e6)
        except (AttributeError, psutil.Error):  # not started yet, or just gone
            continue


def tidy(notebook: NotebookNode) -> None:
    """Join what a stream printed in pieces; a machine's folders become words."""
    places = {str(ROOT): "words-to-pixels", str(Path.home()): "~"}
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = joined(cell.outputs)
        for output in cell.outputs:
            output.get("metadata", {}).pop("needs_background", None)
            output.get("data", {}).pop(LIVE_WIDGET, None)  # without a kernel its picture is shown instead
            texts = output if output.output_type == "stream" else output.get("data", {})
            for key in ("text", "text/plain", "text/html", "text/markdown"):
                for place, word in places.items():
                    if key in texts:
                        texts[key] = texts[key].replace(place, word)


def joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """A stream arrives in pieces that depend on timing: neighbours of one name become one."""
    result: list[NotebookNode] = []
    for output in outputs:
        if result and output.output_type == "stream" == result[-1].output_type and output.name == result[-1].name:
            result[-1].text += output.text
        else:
            result.append(output)
    return result


def remembered(path: Path, seconds: float, peak_mb: float) -> dict[str, int]:
    """What the run took, as a record; one within a factor of two of the last leaves that as it is: no empty changes."""
    new = {"seconds": max(1, round(seconds)), "peak_mb": round(peak_mb / 10) * 10}
    old = nbformat.read(path, as_version=4).metadata.get("course", {}) if path.exists() else {}
    return {key: old[key] if key in old and old[key] / 2 <= new[key] <= old[key] * 2 else new[key] for key in new}


def build(script: Path) -> dict[str, int]:
    """Write, run and save one lesson; returns its record of seconds and peak MB."""
    notebook, path = read_script(script), notebook_of(script)
    seconds, peak_mb = execute(notebook, path.parent)
    tidy(notebook)
    notebook.metadata.pop("widgets", None)
    notebook.metadata.language_info = NotebookNode(name="python")  # nbclient adds this machine's Python version
    notebook.metadata.course = remembered(path, seconds, peak_mb)
    renew_house(script)
    nbformat.validate(notebook)
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(nbformat.writes(notebook) + "\n", encoding="utf-8", newline="\n")
    os.replace(unfinished, path)
    return notebook.metadata.course


def renew_house(script: Path) -> None:
    """The map of the house in the text is written by the library, so that all lessons show the same one."""
    text = script.read_text(encoding="utf-8")
    drawn = "\n".join(f"# {line}" for line in house(int(script.name[:2])).splitlines())
    new = re.sub(r"(?<=# ```mermaid\n)# block-beta\n.*?(?=\n# ```)", lambda _: drawn, text, flags=re.S)
    if new != text:
        script.write_text(new, encoding="utf-8", newline="\n")


def chosen(arguments: list[str]) -> list[Path]:
    """The lessons that the arguments name; without any, those whose notebook is not current."""
    known = {script.name[:2]: script for script in scripts()}
    if not arguments:
        return [script for script in known.values() if not is_current(script)]
    if arguments == ["all"]:
        return list(known.values())
    if unknown := [number for number in arguments if number not in known]:
        sys.exit(f"there is no lesson {', '.join(unknown)}; known: {', '.join(known)}")
    return [known[number] for number in arguments]


def main() -> int:
    """Build what was asked for; 1 if a lesson failed, after all others were tried."""
    failed = []
    for script in chosen(sys.argv[1:]):
        try:
            ast.parse(script.read_text(encoding="utf-8"))
            record = build(script)
            print(f"{script.stem}: {record['seconds']} s, at most {record['peak_mb']} MB", flush=True)
        except (CellExecutionError, SyntaxError) as error:
            failed.append(script.stem)
            print(f"{script.stem} failed; its notebook is as it was\n{error}", file=sys.stderr, flush=True)
    if not failed:
        print("All lessons that were asked for are written and run." if sys.argv[1:] else "Every lesson is current.")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
