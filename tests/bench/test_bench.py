"""What `make bench` makes of its measurements, and what it takes for a move; no test depends on a time."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from growth import growth, slope
from ipywidgets import (
    BoundedIntText,
    Checkbox,
    Combobox,
    Dropdown,
    FloatLogSlider,
    FloatSlider,
    IntSlider,
    Text,
    Textarea,
)
from measuring import beside, held_bytes, in_a_child, in_turn, peak_bytes
from moves import MOVES, Stopwatch, moves_of
from PIL import Image
from steps import exponents, preset_for

from course_lib.errors import CourseError
from course_lib.widgets.base import Explorer, Scene

CPU = torch.device("cpu")
PICTURE = Image.new("RGB", (8, 8))


def test_the_exponent_of_a_power_is_found():
    cells = [
        {"size": size, "batch": batch, "seconds": 1e-6 * batch**0.9 * (size**2) ** 1.1, "flops": batch * size**3}
        for size in (32, 64)
        for batch in (16, 32, 64)
    ]
    rows = exponents(cells)
    found = {row["at"]: row["exponent of time"] for row in rows}
    assert found == pytest.approx({"32 x 32 pixels": 0.9, "64 x 64 pixels": 0.9} | dict.fromkeys(
        ("batch 16", "batch 32", "batch 64"), 1.1
    ))  # fmt: skip
    assert {round(row["of the counted work"], 6) for row in rows} == {1.0, 1.5}


def test_growth_is_that_after_the_run_has_settled():
    marks = [(step, 10**8 + 500 * step if step > 20 else 10**7 * step) for step in range(1, 101)]
    assert slope(marks) == pytest.approx(500) and growth(marks) == pytest.approx(500 * 60)
    jagged = [(step, 10**8 + 10**7 * (step % 10 == 0)) for step in range(1, 101)]
    assert growth(jagged) == 0


def test_players_grow_with_their_pictures():
    preset = preset_for(64, 8)
    sizes = {preset.generator.image_size, preset.discriminator.image_size, preset.data.image_size}
    assert sizes == {64} and preset.train.batch_size == 8


def test_all_take_turns_and_the_first_round_does_not_count():
    called = []
    times = in_turn({name: lambda name=name: called.append(name) for name in "ab"}, CPU, 3)
    assert called == ["a", "b"] * 4 and {len(mine) for mine in times.values()} == {3}
    assert beside([2.0, 9.0, 4.0], [1.0, 3.0, 4.0]) == 2.0


def test_a_peak_stays_when_the_memory_is_given_back():
    before = held_bytes(CPU)
    much = torch.ones(2**25)  # 128 MiB
    held = held_bytes(CPU)
    del much
    assert held - before > 0.9 * 2**27 and held_bytes(CPU) < held - 0.9 * 2**27
    assert peak_bytes(CPU) > held - 2**22  # the system counts in steps


def test_a_child_answers_and_its_failure_is_told(tmp_path):
    program = tmp_path / "program.py"
    program.write_text("import json, sys\nprint('ready')\nprint(json.dumps(sys.argv[1:]))", encoding="utf-8")
    assert in_a_child(str(program), 1, "two") == ["1", "two"]
    program.write_text("raise ValueError('too tired')", encoding="utf-8")
    with pytest.raises(RuntimeError, match="too tired"):
        in_a_child(str(program))


@pytest.mark.parametrize(
    "control",
    [
        IntSlider(3, 1, 300),
        IntSlider(1, 1, 3),
        FloatSlider(0.5, min=0, max=1),
        FloatLogSlider(1e-3, min=-4, max=-1.5),
        BoundedIntText(7, min=0, max=2**60),
        Checkbox(False),
        Dropdown(options={"one": 1, "two": 2}),
        Combobox(value="mine", options=("a", "b")),
        Text("mine"),
        Textarea("a\nb\nc"),
    ],
    ids=lambda control: f"{type(control).__name__} {control.value!r}",
)
def test_every_move_changes_the_control(control):
    seen = []
    control.observe(lambda change: seen.append(change["new"]), "value")
    for move in itertools.islice(moves_of(control), MOVES + 1):
        move()
    assert len(seen) == MOVES + 1


def test_a_control_with_one_value_has_no_moves():
    assert list(moves_of(Dropdown(options=["only"]))) == []


def test_the_stopwatch_tells_words_from_pictures_and_leaves_out_what_is_refused():
    slider = IntSlider(0, 0, 9, description="number")

    def draw(value):
        yield Scene(None, words="begun")
        if value == 3:
            raise CourseError("not three")
        yield Scene(PICTURE, "a picture", "done")

    explorer = Explorer("made-up", "A made-up one", "Try it.", [slider], lambda: draw(slider.value))
    watch = Stopwatch(explorer)
    seen = watch.time(lambda: setattr(slider, "value", 5))
    assert list(seen) == ["answer", "picture"] and seen["answer"][0] <= seen["picture"][0]
    assert watch.time(lambda: setattr(slider, "value", 3)) is None
    assert watch.time(lambda: setattr(slider, "value", 4)) and not explorer.alarm.value
    explorer.close()


@pytest.mark.slow
def test_tables_are_kept_beside_those_of_other_runs(tmp_path):
    for name in ("growth", "ways"):
        command = [sys.executable, Path(__file__).parent, "--quick", "--data", tmp_path, "--only", name]
        subprocess.run(command, check=True, capture_output=True)
    kept = json.loads((tmp_path / "logs" / "bench-cpu.json").read_text(encoding="utf-8"))
    assert set(kept) == {"growth", "ways"} and all("torch" in table["machine"] for table in kept.values())
    page = (tmp_path / "BENCH.md").read_text(encoding="utf-8")
    assert page.index("## Each way to compute") < page.index("## Memory of a long training")
    assert "float32, compiled" in page and "< 20 in 10,000 steps" in page
