"""What the tests of explorers share: opening and closing one, its controls by name, its words and tables."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ipywidgets import Widget

from course_lib.widgets.base import Explorer, leaves


def settled(found: Explorer) -> Explorer:
    """When its work, if some is going on, is done."""
    for task in found.tasks:
        task.join(60)
    return found


def controls(found: Explorer) -> dict[str, Widget]:
    """Description -> control."""
    return {control.description: control for control in leaves(found.children[1:2])}


def move(found: Explorer, name: str, value: object) -> None:
    """Give a control another value, and wait for what follows."""
    controls(found)[name].value = value
    settled(found)


def rows(found: Explorer) -> list[list[str]]:
    """The cells of the table in the words below the picture, without its head."""
    lines = re.findall(r"<tr>(.*?)</tr>", found.words.value)
    return [re.findall(r"<td[^>]*>(.*?)</td>", line) for line in lines[1:]]


def plain(found: Explorer) -> str:
    """The words below the picture, without what only formats them."""
    return re.sub(r"\s*<[^>]*>\s*", " ", found.words.value)


@contextmanager
def opening(kind: Callable[..., Explorer], **usual: object) -> Iterator[Callable[..., Explorer]]:
    """Within it one opens explorers of a kind, with these settings and more; at the end all are closed."""
    opened = []

    def open_one(*arguments: object, **settings: object) -> Explorer:
        opened.append(kind(*arguments, **usual | settings))
        return settled(opened[-1])

    yield open_one
    for one in opened:
        one.close()
