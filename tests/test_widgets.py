"""What holds for every explorer, without a browser: labels, alt text, words, errors, threads. See tests/browser too."""

import asyncio
import re
import threading
import time

import pytest
from explorers import settled
from ipywidgets import Button, FloatSlider, Widget
from matplotlib.figure import Figure

from course_lib import widgets
from course_lib.errors import CourseError
from course_lib.widgets.base import PICTURES, Explorer, Scene, leaves, table_html

each_explorer = pytest.mark.parametrize("name", widgets.__all__)


def explorer(draw, *controls: Widget) -> Explorer:
    return Explorer("made-up", "A made-up one", "Try it.", controls, draw)


def slider() -> FloatSlider:
    return FloatSlider(1.0, min=0, max=10, description="number")


@each_explorer
def test_it_opens_with_a_picture_in_words_too_and_without_an_error(name):
    found = settled(getattr(widgets, name)())
    assert found.alarm.value == "" and found.name == name.replace("_", "-")
    (alt,) = re.findall(r'<img alt="([^"]*)"', found.picture.value)
    assert len(alt) > 30 and len(re.sub("<[^>]*>", "", found.words.value)) > 10
    assert len(found.title) > 5 and found.about.endswith((".", "?"))
    found.close()


@each_explorer
def test_every_control_says_what_it_is(name):
    found = settled(getattr(widgets, name)())
    controls = leaves(found.children[1:2])
    assert controls and all(getattr(control, "description", "") for control in controls)
    found.close()


@each_explorer
def test_a_page_without_a_kernel_gets_its_picture(name):
    path = PICTURES / f"{name.replace('_', '-')}.png"
    assert path.exists(), "make screenshots"
    found = settled(getattr(widgets, name)())
    bundle = found._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert 'alt="The explorer ' in data["text/html"] and "image/png" in data and "Explorer: " in data["text/plain"]
    found.close()


@each_explorer
def test_closing_one_ends_its_thread_and_leaves_the_other_alone(name):
    threads = threading.active_count()
    one, other = (settled(getattr(widgets, name)()) for _ in range(2))
    before = other.picture.value
    one.close()
    assert one.comm is None and all(widget.comm is None for widget in leaves(one.children))
    other.refresh()
    settled(other)
    assert other.comm is not None and other.alarm.value == "" and other.picture.value == before
    other.close()
    assert threading.active_count() == threads


def test_moving_a_control_draws_with_its_value():
    number = slider()
    found = explorer(lambda: Scene(Figure(), "An empty figure.", f"number {number.value}"), number)
    number.value = 3
    assert "number 3.0" in found.words.value


def test_quick_moves_draw_once_and_the_last_one_wins():
    drawn, number = [], slider()
    found = explorer(lambda: drawn.append(number.value) or Scene(None, words=str(number.value)), number)

    async def play():
        for value in range(10):
            number.value = value
            await asyncio.sleep(0)
        await asyncio.sleep(0.2)

    asyncio.run(play())
    assert drawn == [1.0, 9.0] and "9.0" in found.words.value


def test_a_move_in_another_thread_never_shows_old_beside_new():
    number, shown = slider(), []

    def draw() -> Scene:
        first = number.value
        time.sleep(0.1)
        return Scene(None, words=f"{first} and {number.value}")

    found = explorer(draw, number)
    found.words.observe(lambda change: shown.append(change.new), "value")
    movers = [threading.Thread(target=setattr, args=(number, "value", value)) for value in (3.0, 4.0)]
    for mover in movers:
        mover.start()
        time.sleep(0.05)
    for mover in movers:
        mover.join()
    assert shown and all("4.0 and 4.0" in words for words in shown), shown


def test_an_error_is_told_in_words_and_goes_with_the_next_picture():
    number = slider()

    def draw() -> Scene:
        if number.value > 5:
            raise CourseError("number=7 is too much; use 5 or less")
        return Scene(None, words="fine")

    found = explorer(draw, number)
    number.value = 7
    assert "number=7 is too much" in found.alarm.value and 'role="alert"' in found.alarm.value
    number.value = 2
    assert found.alarm.value == "" and "fine" in found.words.value


def test_work_runs_beside_can_wait_and_can_be_stopped():
    def work():
        for count in range(10_000):
            time.sleep(0.005)
            yield Scene(None, words=f"step {count}")

    found = explorer(lambda: Scene(None, words="not begun"), Button(description="start"))
    task = found.run(work)
    time.sleep(0.2)
    task.paused = True
    time.sleep(0.1)
    seen = found.words.value
    time.sleep(0.1)
    assert found.words.value == seen != "" and task.running
    task.paused = False
    time.sleep(0.1)
    assert found.words.value != seen
    found.close()
    assert not task.running


def test_new_work_ends_the_old_and_an_error_in_it_is_told():
    def fails():
        yield Scene(None, words="begun")
        raise CourseError("the disk is full; make room")

    found = explorer(lambda: Scene(None), Button(description="start"))
    first = found.run(lambda: iter(lambda: Scene(None) if time.sleep(0.01) is None else None, 0))
    second = found.run(fails)
    assert not first.running
    second.join(10)
    assert "the disk is full; make room" in found.alarm.value
    found.close()


def test_what_a_reader_types_is_not_taken_for_html():
    assert "&lt;b&gt;" in table_html(["<b>"], [["<i>"]]) and "<i>" not in table_html(["a"], [["<i>"]])
