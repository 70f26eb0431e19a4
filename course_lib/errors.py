"""The one exception that speaks to the person at the keyboard.

A `CourseError` says which argument was wrong, which value it had and what to do instead.
`course` prints it without a traceback and exits with code 2; everything else is a defect and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class CourseError(ValueError):
    """Bad input, told in words: the argument, its value, the remedy."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that lists what is known and names the nearest match to `name`.

    >>> nearest("shape-32", ["shapes-32", "shapes-64"])
    'did you mean "shapes-32"? Known: shapes-32, shapes-64'
    """
    known = sorted(known)
    close = difflib.get_close_matches(str(name), known, n=1, cutoff=0.5)
    guess = f'did you mean "{close[0]}"? ' if close else ""
    return f"{guess}Known: {', '.join(known) or 'none'}"


def printable(text: str) -> str:
    """Control characters as escapes: a stranger's file must not steer the terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def require_range(name: str, value: float, low: float, high: float) -> None:
    """Raise a CourseError unless low <= value <= high; so it does for what is not a number."""
    if not low <= value <= high:
        raise CourseError(f"{name}={value} is out of range; use {low} to {high}")
