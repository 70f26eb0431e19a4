"""How long an explorer lets its reader wait: from a moved control to what is drawn, as on a page, in this process.

The page's event loop runs, so that several changes of one move draw once; the 30 ms in which an explorer waits for
further moves are left out. Explorers compute on the CPU, in one thread, as in the lessons.
"""

import asyncio
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import Any
from unittest.mock import patch

import torch
from ipywidgets import BoundedIntText, Checkbox, Combobox, FloatLogSlider, Text, Textarea, Widget

from course_lib import widgets
from course_lib.evaluation import format_table
from course_lib.widgets import base
from course_lib.widgets.base import Explorer, Scene, leaves

MOVES, LIMIT = 5, 300  # moves of a control that count, milliseconds
LONGEST = 20  # seconds that a picture is waited for
WORDS = ("red", "blue", "circle", "star", "large", "small")  # for a line to type in
BUTTONS = {"gan_arena": ("Step", "Start"), "training_dashboard": ("New run", "Start")}  # where no slider draws alone


class Stopwatch:
    """Notes when an explorer shows words, and when a picture."""

    def __init__(self, explorer: Explorer):
        self.explorer, self.plain_show = explorer, explorer.show
        explorer.show = self.show

    def show(self, scene: Scene) -> None:
        """What the explorer's own `show` does, and then a look at both clocks."""
        self.plain_show(scene)
        clocks = time.perf_counter() - self.started[0], time.process_time() - self.started[1]
        self.seen.setdefault("answer", clocks)
        if scene.picture is not None:
            self.seen.setdefault("picture", clocks)

    def time(self, act: Callable[[], Any]) -> dict[str, tuple[float, float]] | None:
        """Move something and wait for the picture: what was shown after how many seconds, on the wall's clock and of
        the processor. None if the move asked for what the explorer refuses in words."""

        async def move() -> None:
            act()
            until = time.perf_counter() + LONGEST
            while "picture" not in self.seen and not self.explorer.alarm.value and time.perf_counter() < until:
                await asyncio.sleep(0.0005)

        self.seen: dict[str, tuple[float, float]] = {}
        self.explorer.alarm.value, self.started = "", (time.perf_counter(), time.process_time())
        asyncio.run(move())
        self.explorer.halt()
        return None if self.explorer.alarm.value or not self.seen else self.seen


def values_of(control: Widget) -> list[Any]:
    """Some values that a reader could give to a control."""
    if isinstance(control, Textarea):
        lines = control.value.splitlines()
        return ["\n".join(lines[i:] + lines[:i]) for i in range(len(lines))]
    if isinstance(control, Combobox):
        return list(control.options)
    if control.has_trait("options"):
        return [value for _, value in control._options_full]
    if isinstance(control, Checkbox):
        return [True, False]
    if isinstance(control, Text):
        return list(WORDS)
    high = control.min + MOVES if isinstance(control, BoundedIntText) else control.max
    numbers = torch.linspace(control.min, high, MOVES + 1).tolist()
    if isinstance(control, FloatLogSlider):
        return [control.base**number for number in numbers]
    return numbers if isinstance(control.value, float) else sorted({round(number) for number in numbers})


def moves_of(control: Widget) -> Iterator[Callable[[], None]]:
    """One move after the other, each to a value that the control does not have; none if it has only one."""
    values = values_of(control)
    for value in itertools.cycle(values) if len(values) > 1 else ():
        if value != control.value:
            yield lambda value=value: setattr(control, "value", value)


def times_of(name: str, folder: Path, moves: int) -> dict[str, list[dict[str, tuple[float, float]]]]:
    """Control -> what `Stopwatch.time` says of each of its moves, the first one left out."""
    own = {"rating_booth": {"folder": folder}, "training_dashboard": {"out": folder / "run"}}
    explorer = getattr(widgets, name)(**own.get(name, {}))
    for task in explorer.tasks:
        task.join()
    watch, times = Stopwatch(explorer), {}
    for control in leaves(explorer.children[1:2]):
        before, acts = getattr(control, "value", None), ()
        if control.description in BUTTONS.get(name, ()):
            acts = itertools.repeat(control.click)
        elif control.has_trait("value") and not getattr(control, "_quiet", False) and not control.disabled:
            acts = moves_of(control)
        seen = [watch.time(act) for act in itertools.islice(acts, moves + 1)][1:]
        if seen := [one for one in seen if one]:
            times[control.description] = seen
        if before is not None and control.value != before:
            watch.time(lambda control=control, before=before: setattr(control, "value", before))
    explorer.close()
    return times


def measure(device: torch.device, quick: bool) -> dict[str, Any]:
    """Explorer -> control -> median seconds on the wall and of the processor, to the answer and to the picture."""
    record, torch_random = {}, torch.random.get_rng_state()
    with tempfile.TemporaryDirectory() as folder, patch.object(base, "PATIENCE", 0.0):
        for name in widgets.__all__:
            times = times_of(name, Path(folder, name), 1 if quick else MOVES)
            record[name] = {control: medians(seen) for control, seen in times.items()}
            print(f"explorers: {name}", flush=True)
    torch.random.set_rng_state(torch_random)
    return record


def medians(seen: list[dict[str, tuple[float, float]]]) -> dict[str, list[float]]:
    """Of the answers and of the pictures: [wall, processor] in seconds; no pictures in time: none."""
    kinds = {kind: [one[kind] for one in seen if kind in one] for kind in ("answer", "picture")}
    return {kind: [median(clock) for clock in zip(*pairs, strict=True)] for kind, pairs in kinds.items() if pairs}


def tell(record: dict[str, Any]) -> str:
    """The table in Markdown."""
    table = []
    for name, controls in record.items():
        waits = {control: of.get("picture", [LONGEST])[0] for control, of in controls.items()}
        slowest = max(waits, key=waits.get)
        answer, picture = controls[slowest]["answer"], controls[slowest].get("picture")
        quick = sum(1000 * wait < LIMIT for wait in waits.values())
        table.append(
            {
                "explorer": name.replace("_", "-"),
                f"< {LIMIT} ms": f"{quick} of {len(waits)}",
                "slowest control": slowest,
                "first answer (ms)": f"{1000 * answer[0]:.0f}",
                "picture (ms)": f"{1000 * picture[0]:.0f}" if picture else "-",
                "of the processor (ms)": f"{1000 * picture[1]:.0f}" if picture else "-",
            }
        )
    return "\n\n".join(
        [
            f"From a moved control to the new picture, the median of {MOVES} moves; of each explorer its slowest "
            f"control, and how many of its controls draw within {LIMIT} ms. What takes longer by its nature (diffusion "
            "steps, refinement, a game that is played) says in words how far it is, and that is its first answer.",
            format_table(table),
        ]
    )
