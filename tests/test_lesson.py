"""What lessons share: figures that can be heard, tables that tell equal from different, the map, the first cell."""

import io
import re

import nbformat
import pytest
import torch
from build_notebooks import execute, joined, read_script, remembered, renew_house, tidy
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_notebook, new_output
from PIL import Image

from course_lib import house, lesson
from course_lib.errors import CourseError

ALT = "A line that rises from 0 to 1."


@pytest.fixture
def shown(monkeypatch):
    """What was put on the page: (data, metadata) of each output."""
    outputs = []
    monkeypatch.setattr(lesson, "_display", lambda page, metadata=None: outputs.append((page, metadata or {})))
    return outputs


def labelled(axis):
    axis.set(xlabel="x", ylabel="y")


# ---- the first cell


def test_setup_fixes_all_random_numbers_and_uses_one_thread(monkeypatch):
    monkeypatch.delenv("COURSE_DEVICE", raising=False)
    threads = torch.get_num_threads()
    try:
        assert lesson.setup().type == "cpu" and torch.get_num_threads() == 1
        first = torch.rand(3), lesson.np.random.rand(3), lesson.random.random()
        lesson.setup()
        again = torch.rand(3), lesson.np.random.rand(3), lesson.random.random()
        assert (first[0] == again[0]).all() and (first[1] == again[1]).all() and first[2] == again[2]
    finally:
        torch.set_num_threads(threads)


def test_setup_takes_the_device_from_the_environment(monkeypatch):
    monkeypatch.setenv("COURSE_DEVICE", "auto")
    assert lesson.setup().type == ("cuda" if torch.cuda.is_available() else "cpu")
    monkeypatch.setenv("COURSE_DEVICE", "gpu")
    with pytest.raises(CourseError, match='"gpu"'):
        lesson.setup()


def test_mistakes_are_told_in_a_sentence():
    with pytest.raises(NameError) as caught:
        undefined_thing  # noqa: B018, F821
    assert '"undefined_thing"' in lesson.explain(caught.value) and "Run All Above" in lesson.explain(caught.value)
    assert lesson.explain(CourseError("n=0: use 1")) == "n=0: use 1"


@pytest.mark.slow
def test_in_a_notebook_the_sentence_takes_the_place_of_the_trace(tmp_path):
    cells = ["from course_lib.lesson import setup; device = setup()", "logits + 1"]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    with pytest.raises(CellExecutionError, match="not known yet"):
        execute(notebook, tmp_path)
    (output,) = notebook.cells[1].outputs
    assert output.ename == "NameError" and len(output.traceback) == 1 and "Traceback" not in output.traceback[0]


# ---- figures


def test_a_figure_is_shown_with_its_alt_text_everywhere(shown):
    with lesson.figure("Title", ALT + ' "Steep" & so on', size=(4, 2)) as axis:
        axis.plot([0, 1])
        labelled(axis)
    ((page, metadata),) = shown
    assert 'alt="A line that rises from 0 to 1. &quot;Steep&quot; &amp; so on"' in page["text/html"]
    assert metadata["image/png"]["alt"] in page["text/plain"]
    assert f'base64,{page["image/png"]}"' in page["text/html"]
    drawn = Image.open(io.BytesIO(lesson.base64.b64decode(page["image/png"])))
    assert drawn.size == (800, 400) and 'width="400"' in page["text/html"]  # twice as fine as it is shown


@pytest.mark.parametrize("alt", ["", "A figure."])
def test_a_figure_without_a_description_is_refused(shown, alt):
    with pytest.raises(ValueError, match="too little"), lesson.figure("Title", alt) as axis:
        labelled(axis)
    assert not shown


def test_an_axis_without_labels_is_refused(shown):
    with pytest.raises(ValueError, match="no label"), lesson.figure("Title", ALT) as axis:
        axis.set(xlabel="x")
    assert not shown
    with lesson.figure("Title", ALT, columns=2) as (picture, hidden):
        picture.imshow([[0, 1]])
        hidden.set_axis_off()
    assert len(shown) == 1


def test_figures_leave_matplotlib_as_it_was(shown):
    import matplotlib

    before = dict(matplotlib.rcParams)
    lesson.lines([0, 1], {"a": [0, 1], "b": torch.tensor([1.0, 0.0], requires_grad=True)}, "T", ("x", "y"), ALT)
    assert dict(matplotlib.rcParams) == before and len(shown) == 1


def test_lines_can_be_told_apart_without_colour(shown, monkeypatch):
    styles = []
    monkeypatch.setattr(
        lesson, "show", lambda figure, alt: styles.extend(x.get_linestyle() for x in figure.axes[0].lines)
    )
    lesson.lines([0, 1], {str(i): [0, i] for i in range(4)}, "T", ("x", "y"), ALT, ylim=(0, 5))
    assert len(set(styles)) == 4


def test_a_heatmap_writes_its_numbers_in_readable_colours(shown, monkeypatch):
    texts = {}
    monkeypatch.setattr(
        lesson, "show", lambda figure, alt: texts.update((t.get_text(), t.get_color()) for t in figure.axes[0].texts)
    )
    lesson.heatmap(torch.tensor([[0.0, 0.5, 1.0]]), "T", (["row"], ["a", "b", "c"]), ALT)
    assert texts["0.00"] == "white" and texts["1.00"] == "black" and len(texts) == 3
    with pytest.raises(ValueError, match="as many labels"):
        lesson.heatmap(torch.zeros(2, 2), "T", (["row"], ["a", "b"]), ALT)


def dot(axis, place):
    axis.plot(place, place, "o")
    axis.set(xlabel="x", ylabel="y", xlim=(0, 9), ylim=(0, 9))


@pytest.mark.parametrize(("size", "sheet"), [((4, 2), (400, 600)), ((2, 2), (600, 200))])
def test_an_animation_moves_without_a_kernel_and_stands_still_where_html_is_not_shown(shown, size, sheet):
    lesson.animate(range(5), dot, "T", ALT + ' "Steep"', size)
    ((page, metadata),) = shown
    (code,) = re.findall(r'src="data:image/gif;base64,([^"]*)"', page["text/html"])
    moving = Image.open(io.BytesIO(lesson.base64.b64decode(code)))
    assert moving.n_frames == 5 and moving.size == (100 * size[0], 100 * size[1]) and moving.info["loop"] == 0
    assert 'alt="A line that rises from 0 to 1. &quot;Steep&quot;"' in page["text/html"]
    assert page["text/html"].startswith("<details open>")  # who is disturbed by what moves can fold it away
    still = Image.open(io.BytesIO(lesson.base64.b64decode(page["image/png"])))
    assert still.size == sheet and metadata["image/png"]["alt"] in page["text/plain"]
    first = still.crop((0, 0, *moving.size))
    last = still.crop((still.width - moving.width, still.height - moving.height, *still.size))
    for at, frame in [(0, first), (4, last)]:
        moving.seek(at)
        gap = lesson.np.asarray(moving.convert("RGB")).astype(int) - lesson.np.asarray(frame.convert("RGB"))
        assert abs(gap).mean() < 1


def test_an_animation_keeps_the_rules_of_figures(shown, monkeypatch):
    with pytest.raises(ValueError, match="no label"):
        lesson.animate([1], lambda axis, frame: axis.plot([0, frame]), "T", ALT)
    with pytest.raises(ValueError, match="too little"):
        lesson.animate([1], dot, "T", "Moves.")
    monkeypatch.setattr(lesson, "MAX_ANIMATION", 5000)
    with pytest.raises(ValueError, match="fewer frames"):
        lesson.animate([1, 2], dot, "T", ALT)
    assert not shown


def test_chinese_captions_stand_beside_the_pictures_as_text(shown):
    lesson.pictures(torch.zeros(2, 3, 16, 16), ["红色圆形", "a <b> square"], "二")
    (_, metadata), (captions, _) = shown
    assert "红色圆形" in captions["text/html"] and "a &lt;b&gt; square" in captions["text/html"]
    assert "红色圆形" in metadata["image/png"]["alt"]
    shown.clear()
    lesson.pictures(torch.zeros(2, 3, 16, 16), ["a red circle", "a square"], "Two")
    assert len(shown) == 1 and shown[0][1]["image/png"]["alt"] == "Two: a red circle; a square"


# ---- tables


def test_a_table_is_text_and_html(shown):
    lesson.table(
        [{"name": "a<b", "value": 1 / 3, "ok": True}, {"name": "c", "value": torch.tensor([2.0]), "ok": False}]
    )
    ((page, _),) = shown
    assert page["text/plain"].splitlines() == ["name  value   ok", "a<b   0.3333  yes", "c     2       no"]
    assert "<td>a&lt;b</td><td>0.3333</td><td>yes</td>" in page["text/html"]


def test_compare_tells_exact_from_close_from_different(shown):
    one = torch.ones(5)
    lesson.compare({"same": (one, one), "rounded": (one, one + 1e-6), "number": (0.5, 0.5)})
    text = shown[0][0]["text/plain"]
    assert re.search(r"same +shape \(5,\) +shape \(5,\) +exact +0$", text, flags=re.M)
    assert re.search(r"rounded .* close +1e-06$", text, flags=re.M)
    with pytest.raises(AssertionError, match="wrong"):
        lesson.compare({"right": (1.0, 1.0), "wrong": (1.0, 1.1)})
    assert "DIFFERENT" in shown[1][0]["text/plain"]  # the table comes first


@pytest.mark.parametrize(("ours", "theirs"), [(float("nan"), 1.0), (float("inf"), 1.0), (torch.tensor([1, 2]), [1, 3])])
def test_compare_is_not_fooled(shown, ours, theirs):
    with pytest.raises(AssertionError, match="part"):
        lesson.compare({"part": (ours, theirs)})


def test_compare_refuses_other_shapes(shown):
    with pytest.raises(ValueError, match=r"\(2, 1\).*\(2,\)"):
        lesson.compare({"part": (torch.ones(2, 1), torch.ones(2))})


# ---- the map


def test_every_room_is_on_one_floor():
    assert sorted(number for floor in house.FLOORS for number in floor) == list(range(len(house.CHAPTERS)))
    assert all(15 % len(floor) == 0 for floor in house.FLOORS)


@pytest.mark.parametrize("chapter", range(len(house.CHAPTERS)))
def test_the_room_is_lit_and_the_earlier_ones_are_built(chapter):
    lines = house.house(chapter).splitlines()
    assert lines[-1] == f"  class c{chapter:02} lit"
    built = [line for line in lines if line.endswith(" built")]
    assert built == ([f"  class {','.join(f'c{number:02}' for number in range(chapter))} built"] if chapter else [])
    assert sum(f'["{chapter:02} ' in line for line in lines) == 1


# ---- what `make notebooks` does to a lesson

SCRIPT = (
    '# %% [markdown]\n# ```mermaid\n# block-beta\n#   x\n# ```\n\n# %% tags=["a"]\nx = 1\n\n# %% tags=["a"]\nx = 1\n'
)


def test_a_text_becomes_the_same_notebook_each_time(tmp_path):
    script = tmp_path / "scripts" / "03_x.py"
    script.parent.mkdir()
    script.write_text(SCRIPT, encoding="utf-8")
    notebook = read_script(script)
    nbformat.validate(notebook)
    assert [cell.id for cell in notebook.cells] == [cell.id for cell in read_script(script).cells]
    assert len({cell.id for cell in notebook.cells}) == 3  # also for two cells of one text
    assert house.house(3) in notebook.cells[0].source and notebook.cells[1].metadata == {"tags": ["a"]}
    renew_house(script)
    assert read_script(script) == notebook and "# " + house.house(3).splitlines()[-1] in script.read_text("utf-8")


def test_outputs_are_joined_and_lose_the_machine():
    pieces = [new_output("stream", name="stdout", text=text) for text in ("a\n", f"{lesson.__file__}\n")]
    notebook = new_notebook(cells=[new_code_cell("f()", outputs=pieces)])
    tidy(notebook)
    (output,) = notebook.cells[0].outputs
    assert output.text.startswith("a\nwords-to-pixels") and output.text.count("\n") == 2
    assert len(joined([pieces[0], new_output("stream", name="stderr", text="b")])) == 2


def test_a_record_changes_only_with_a_reason(tmp_path):
    path = tmp_path / "03_x.ipynb"
    assert remembered(path, 10.4, 404) == {"seconds": 10, "peak_mb": 400}
    nbformat.write(new_notebook(metadata={"course": {"seconds": 10, "peak_mb": 400}}), path)
    assert remembered(path, 14, 500) == {"seconds": 10, "peak_mb": 400}
    assert remembered(path, 31, 500) == {"seconds": 31, "peak_mb": 400}
