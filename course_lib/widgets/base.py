"""What all explorers share: labelled controls, a picture with alt text, the same in words, errors in words, an end.

An explorer is a column of ipywidgets. Moving a control draws anew; many quick moves draw once, with the last values.
Work that takes longer than a glance runs in a `Task`, a thread that can be stopped, so that the page never freezes.
"""

import asyncio
import base64
import html
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from ipywidgets import HTML, Box, Button, Combobox, FloatSlider, IntSlider, Layout, VBox, Widget
from matplotlib.figure import Figure
from PIL import Image

from course_lib.evaluation import load_judge
from course_lib.lesson import encode, explain, photograph
from course_lib.models import load_model

PICTURES = Path(__file__).resolve().parents[2] / "docs" / "widgets"  # of the explorers, for pages without a kernel
SAMPLES = PICTURES.parents[1] / "samples"  # where explorers save, if no other folder is named
RETRIES = 5  # of a drawing that was overtaken by another move
PATIENCE = 0.03  # seconds without another move before a picture is drawn
WIDE = Layout(width="420px")
LABELS = {"description_width": "130px"}
KNOB = {"layout": Layout(width="400px"), "style": {"description_width": "80px"}}
loaded_model, loaded_judge = cache(load_model), cache(load_judge)  # read once for all explorers of a page


class Scene(NamedTuple):
    """What an explorer shows at the moment.

    Args:
        picture: matplotlib's figure, or a picture; None leaves the one that is there.
        alt: what is to be seen, for a reader who cannot see it.
        words: the same as text or HTML below the picture: numbers, verdicts.
    """

    picture: Figure | Image.Image | None
    alt: str = ""
    words: str = ""


class Explorer(VBox):
    """A widget of a lesson.

    Args:
        name: of the file in docs/widgets that shows it where no kernel runs.
        title: one line; about: what to try, one sentence or two.
        controls: from left to right; those with a `value` draw anew when it changes. A box of controls counts as one
            place on the page, and what it holds as controls.
        draw: () -> Scene, from the controls' values; or, for what takes longer, an iterator of Scenes, which is gone
            through as by `run`. (It reads the controls before it returns: their values belong to the page's thread.)
    """

    def __init__(
        self, name: str, title: str, about: str, controls: Sequence[Widget],
        draw: Callable[[], Scene | Iterator[Scene]],
    ):  # fmt: skip
        self.name, self.title, self.about, self._draw = name, title, about, draw
        self._waiting: asyncio.TimerHandle | None = None
        self._moves, self._drawing = 0, threading.RLock()  # a notebook may tell of each move in another thread
        self.tasks: list[Task] = []
        self.picture, self.words, self.alarm = HTML(), HTML(), HTML()
        head = HTML(f"<b>{html.escape(title)}</b><br>{html.escape(about)}")
        row = Box(controls, layout=Layout(flex_flow="row wrap", align_items="center", grid_gap="4px 16px"))
        super().__init__([head, row, self.picture, self.words, self.alarm], layout=Layout(max_width="920px"))
        self.add_class("course-explorer")
        self.add_class(f"course-{name}")
        for control in leaves(controls):
            if control.has_trait("value") and not getattr(control, "_quiet", False):
                control.observe(self._moved, "value")
        self.refresh()

    def refresh(self, *_: Any) -> None:
        """Draw now, with the values that the controls have."""
        self._waiting = None
        with self._drawing:
            with_words(self.alarm, self._draw_now)

    def _draw_now(self) -> None:
        for _ in range(RETRIES):
            before, drawn = self._moves, self._draw()
            if before == self._moves:  # else a control was moved meanwhile, and what was drawn mixes old and new
                break
        if isinstance(drawn, Scene):
            self.show(drawn)
        else:
            self.run(lambda: drawn)

    def show(self, scene: Scene) -> None:
        """Put a picture and its words on the page; an earlier error goes."""
        if scene.picture is not None:
            self.picture.value = as_html(scene.picture, scene.alt)
        self.words.value, self.alarm.value = f'<div role="status">{scene.words}</div>', ""

    def _moved(self, _: Any) -> None:
        self._moves += 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # a script or a test: no one else will wake us up
            self.refresh()
            return
        if self._waiting is not None:
            self._waiting.cancel()
        self._waiting = loop.call_later(PATIENCE, self.refresh)

    def run(self, work: Callable[[], Iterator[Scene]]) -> "Task":
        """Start work in a thread: each Scene that it yields is shown. What runs already is stopped first."""
        self.halt()
        task = Task(work, self.show, self.alarm)
        self.tasks = [task]
        return task.start()

    def halt(self, *_: Any) -> None:
        """Stop the work that is going on, if there is any."""
        for task in self.tasks:
            task.stop()
        self.tasks = []

    def stop_button(self, button: Button, words: str) -> None:
        """Let a button end the work that is going on, and say what the reader may do then."""

        def stop(_: Button) -> None:
            if any(task.running for task in self.tasks):
                self.halt()
                self.show(Scene(None, words=f"Stopped. {words}"))

        button.on_click(stop)

    def close(self) -> None:
        """End its thread and take it, and all it holds, off the page."""
        self.halt()
        if self._waiting is not None:
            self._waiting.cancel()
        for widget in leaves(self.children):
            widget.close()
        super().close()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        """The live widget; where no kernel runs, its picture or at least its name."""
        bundle = super()._repr_mimebundle_(**options)
        data = bundle[0] if isinstance(bundle, tuple) else bundle
        if data is None:  # closed
            return bundle
        data["text/plain"] = f"Explorer: {self.title}. {self.about} (Run this cell to use it.)"
        if (path := PICTURES / f"{self.name}.png").exists():
            code = base64.b64encode(path.read_bytes()).decode()
            alt = html.escape(f"The explorer {self.title}. {self.about} Run the cell to use it.")
            data["image/png"] = code
            data["text/html"] = f'<img alt="{alt}" width="800" src="data:image/png;base64,{code}">'
        return bundle


class Task:
    """Work in a thread of its own that can be stopped after each of its parts.

    Args:
        work: a generator function; what it yields is handed to `show`.
        show: called in the thread.
        alarm: where an error is told.
    """

    def __init__(self, work: Callable[[], Iterator[Any]], show: Callable[[Any], None], alarm: HTML):
        self._work, self._show, self._alarm = work, show, alarm
        self._stop, self._paused = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "Task":
        """Begin."""
        self._thread.start()
        return self

    def _run(self) -> None:
        with_words(self._alarm, self._go_through)

    def _go_through(self) -> None:
        for part in self._work():
            if self._stop.is_set():
                return
            self._show(part)
            while self._paused.is_set() and not self._stop.wait(0.05):
                pass

    @property
    def running(self) -> bool:
        """True until it is finished, stopped or has failed."""
        return self._thread.is_alive()

    @property
    def paused(self) -> bool:
        """True if it waits; setting it makes it wait or go on."""
        return self._paused.is_set()

    @paused.setter
    def paused(self, yes: bool) -> None:
        (self._paused.set if yes else self._paused.clear)()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        self._stop.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def join(self, seconds: float | None = None) -> None:
        """Wait until it is finished."""
        self._thread.join(seconds)


def with_words(alarm: HTML, action: Callable[[], None]) -> None:
    """Do it; an error is told inside the widget, in words."""
    try:
        action()
    except Exception as error:  # whatever it is: a page must not lose it
        told = f"{'' if str(error) else type(error).__name__}{explain(error)}"
        alarm.value = f'<div role="alert" style="color:#a40000"><b>This did not work.</b> {html.escape(told)}</div>'


def leaves(widgets: Sequence[Widget]) -> list[Widget]:
    """All widgets in a row of widgets and boxes, boxes left out."""
    found = []
    for widget in widgets:
        found += leaves(widget.children) if isinstance(widget, Box) else [widget]
    return found


def quiet(control: Widget) -> Widget:
    """A control whose changes draw nothing by themselves, because a button does."""
    control._quiet = True
    return control


def slider(value: float, low: float, high: float, step: float, name: str, tooltip: str) -> FloatSlider | IntSlider:
    """A knob of a model; it draws when it is let go, not on the way."""
    kind = IntSlider if isinstance(step, int) else FloatSlider
    about = {"description": name, "tooltip": tooltip, "continuous_update": False}
    return kind(value, min=low, max=high, step=step, **about, **KNOB)


def sentence_box(value: str, options: Sequence[str], name: str) -> Combobox:
    """A line to type in or to choose from; it draws when Enter is pressed."""
    about = {"description": name, "tooltip": "Type words, or choose one of the proposed sentences; Enter draws"}
    return Combobox(
        value=value, options=options, ensure_option=False, continuous_update=False, **about,
        **KNOB | {"layout": Layout(width="640px")},
    )  # fmt: skip


def as_html(picture: Figure | Image.Image, alt: str) -> str:
    """A figure or a picture for an HTML widget, with alt text."""
    if isinstance(picture, Figure):
        picture = photograph(picture)
    code = encode(picture, "PNG", compress_level=1)  # quick rather than small: it never leaves this machine
    size = f'width="{picture.width}" style="max-width:100%; height:auto"'
    return f'<img alt="{html.escape(alt)}" {size} src="data:image/png;base64,{code}">'


def table_html(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """A small table of what is seen."""
    cells = ["".join(f"<th scope='col' style='padding:0 12px'>{html.escape(str(x))}</th>" for x in header)]
    cells += ["".join(f"<td style='padding:0 12px'>{html.escape(str(x))}</td>" for x in row) for row in rows]
    return f"<table>{''.join(f'<tr>{row}</tr>' for row in cells)}</table>"
