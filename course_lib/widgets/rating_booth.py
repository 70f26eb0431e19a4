"""RatingBooth (lesson 15): pictures of two or three models, rated blind; agreement and ranking of all who rated.

Ratings are rows of two CSV files: marks.csv (picture, system, rater, score) has the columns of the simulated marks of
lesson 15; pairs.csv (picture, first, second, rater, winner) the answers to "which of the two?".
"""

import csv
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path
from random import Random

import numpy as np
import torch
from ipywidgets import Button, Checkbox, Dropdown, HBox, Layout, Text
from matplotlib.figure import Figure
from torch import Tensor

from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError, nearest, require_range
from course_lib.evaluation import pictures_like
from course_lib.image_metrics import krippendorff_alpha
from course_lib.images import make_grid, to_pil
from course_lib.lesson import new_axes
from course_lib.metrics import bradley_terry
from course_lib.models import shipped_configs
from course_lib.runs import writable_folder
from course_lib.widgets.base import LABELS, PICTURES, SAMPLES, Explorer, Scene, loaded_model, table_html, with_words

REAL, EQUAL = "real", "equal"
MARKS, PAIRS = ("picture", "system", "rater", "score"), ("picture", "first", "second", "rater", "winner")
SIMULATED = PICTURES.parents[1] / "data" / "ratings" / "simulated.csv"
Row = Mapping[str, str]


def rating_booth(
    models: Sequence[str] = ("shapes-32", "shapes-32-diffusion", REAL),
    n_captions: int = 8,
    folder: str | Path = SAMPLES / "ratings",
) -> Explorer:
    """Rate pictures without knowing who drew them: by marks from 1 to 5, or two by two.

    Args:
        models: two or three of one picture size; "real" are pictures of the data set.
        n_captions: held-out captions; each model draws each of them once.
        folder: where marks.csv and pairs.csv are, or will be.
    Raises:
        CourseError: an unknown model, not two or three, of different sizes, or n_captions out of range.
    """
    size = common_size(models)
    require_range("n_captions", n_captions, 1, 100)
    exam, folder, drawn = CaptionedShapes("heldout", size, 15, length=n_captions), Path(folder), {}
    rater = Text("me", description="rater", continuous_update=False, layout=Layout(width="240px"), style=LABELS)
    task = Dropdown(
        options=["marks 1 to 5", "two by two"], description="task", layout=Layout(width="280px"), style=LABELS
    )
    look = Checkbox(False, description="show results", indent=False, layout=Layout(width="160px"))
    answers = {
        "marks 1 to 5": {"1": "not what was asked for, or no picture", "2": "", "3": "", "4": "", "5": "perfect"},
        "two by two": {"left": "the left one is better", EQUAL: "neither", "right": "the right one is better"},
    }
    boxes = {name: HBox([answer_button(*pair) for pair in of.items()]) for name, of in answers.items()}
    on_show: list[tuple] = []  # the pictures that an answer is about; empty while there are none

    def draw() -> Scene | Iterator[Scene]:
        on_show.clear()
        for name, box in boxes.items():
            box.layout.display = "flex" if name == task.value and not look.value else "none"
        if not rater.value.strip():
            raise CourseError(f'rater="{rater.value}" is no name; type one, "me" will do')
        by_marks, done = task.value == "marks 1 to 5", rated(folder, task.value, rater.value.strip())
        every = in_hidden_order(models, n_captions, rater.value.strip(), 1 if by_marks else 2)
        left = [item for item in every if (item[0], frozenset(item[1:])) not in done]
        if look.value or not left:
            return results(folder, models)
        return question(left[0], f"Number {len(every) - len(left) + 1} of {len(every)}")

    def question(item: tuple, count: str) -> Iterator[Scene]:
        number, *systems = item
        for system in systems:
            if (number, system) not in drawn:
                yield Scene(None, words="Drawing ...")
                drawn[number, system] = draw_one(system, exam, number)
        pictures, caption = torch.stack([drawn[number, system] for system in systems]), exam.caption(number)
        asks = "How good is it, from 1 to 5 (perfect)?" if len(systems) == 1 else "Which shows it better?"
        alt = f"{len(systems)} picture{'s' * (len(systems) > 1)} by nobody knows whom, for the caption: {caption}."
        on_show[:] = [item]
        yield Scene(shown(pictures, caption), alt, f"{count}. Asked for: <b>{html.escape(caption)}</b>. {asks}")

    def answer(button: Button) -> None:
        if on_show:
            number, *systems = on_show.pop()
            row = {"picture": str(number), "rater": rater.value.strip()}
            if len(systems) == 1:
                row |= {"system": systems[0], "score": button.description}
            else:
                winner = dict(zip(("left", EQUAL, "right"), (systems[0], EQUAL, systems[1]), strict=True))
                row |= {"first": systems[0], "second": systems[1], "winner": winner[button.description]}
            with_words(found.alarm, lambda: keep(folder, row))
            if not found.alarm.value:
                found.refresh()

    about = "Who drew what is hidden. Would you know the real pictures? After the last one, all is told."
    found = Explorer("rating-booth", "Rating booth", about, [rater, task, look, *boxes.values()], draw)
    for box in boxes.values():
        for button in box.children:
            button.on_click(answer)
    return found


def answer_button(name: str, tooltip: str) -> Button:
    """A button of an answer."""
    return Button(description=name, tooltip=tooltip or f"mark {name}", layout=Layout(width="76px"))


def common_size(models: Sequence[str]) -> int:
    """The picture size of models.

    Raises:
        CourseError: see `rating_booth`.
    """
    sizes = {name: config["image_size"] for name, config in shipped_configs().items()}
    for name in models:
        if name not in [*sizes, REAL]:
            raise CourseError(f'models: there is no "{name}"; {nearest(name, [*sizes, REAL])}')
    found = {sizes[name] for name in models if name != REAL} or {32}
    if len(set(models)) not in (2, 3) or len(set(models)) != len(models) or len(found) > 1:
        raise CourseError(f"models={tuple(models)}; give two or three different ones of one picture size")
    return found.pop()


def draw_one(system: str, exam: CaptionedShapes, number: int) -> Tensor:
    """A system's picture (3, S, S) for a caption."""
    if system == REAL:
        return pictures_like(exam.attributes(number), exam.image_size, number)[0]
    return loaded_model(system).sample(exam.caption(number), 1, seed=number)[0]


def in_hidden_order(models: Sequence[str], n_captions: int, rater: str, at_once: int) -> list[tuple]:
    """What a rater sees, one after the other: (caption's number, system) or (number, left system, right system).

    The same rater gets the same order again, every other another.
    """
    random = Random(f"{rater} {at_once}")
    items = [(i, *random.sample(some, at_once)) for i in range(n_captions) for some in combinations(models, at_once)]
    random.shuffle(items)
    return items


def shown(pictures: Tensor, caption: str) -> Figure:
    """One picture, or two side by side; no sign of who drew them."""
    with new_axes(caption, 1, 1, (6.5, 3.4)) as (figure, axis):
        axis.imshow(to_pil(make_grid(pictures, len(pictures), padding=4)), interpolation="nearest")
        axis.set_axis_off()
    return figure


# ---- the ratings


def read_rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    """The rows of a CSV file; none if there is no file.

    Raises:
        CourseError: unreadable, or of other columns.
    """
    if not path.exists():
        return []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise CourseError(f'"{path}" cannot be read ({error}); mend it or move it away') from error
    if any(set(row) != set(columns) or None in row.values() for row in rows):
        raise CourseError(f'"{path}" has not the columns {", ".join(columns)}; mend it or move it away')
    return rows


def keep(folder: Path, row: Row) -> None:
    """Append a rating to its file."""
    columns, name = (MARKS, "marks.csv") if "score" in row else (PAIRS, "pairs.csv")
    path = writable_folder(folder) / name
    is_new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerow(row)


def rated(folder: Path, task: str, rater: str) -> set[tuple[int, frozenset[str]]]:
    """What a rater has done: the caption's number, and the systems that were seen."""
    if task == "marks 1 to 5":
        rows, systems = read_rows(folder / "marks.csv", MARKS), ("system",)
    else:
        rows, systems = read_rows(folder / "pairs.csv", PAIRS), ("first", "second")
    return {(int(row["picture"]), frozenset(row[name] for name in systems)) for row in rows if row["rater"] == rater}


def wins_of_marks(rows: Sequence[Row], systems: Sequence[str]) -> Tensor:
    """(M, M): of any two marks that one rater gave to two systems, how often the first system's was higher; a tie is
    half a win for both."""
    wins = torch.zeros(len(systems), len(systems), dtype=torch.float64)
    for rater in {row["rater"] for row in rows}:
        given = [[float(r["score"]) for r in rows if (r["rater"], r["system"]) == (rater, name)] for name in systems]
        for i, j in combinations(range(len(systems)), 2):
            ahead = torch.tensor(given[i], dtype=torch.float64)[:, None] - torch.tensor(given[j], dtype=torch.float64)
            wins[i, j] += (ahead > 0).sum() + (ahead == 0).sum() / 2
            wins[j, i] += (ahead < 0).sum() + (ahead == 0).sum() / 2
    return wins


def wins_of_pairs(rows: Sequence[Row], systems: Sequence[str]) -> Tensor:
    """(M, M): how often the first system was preferred to the second; "equal" is half a win for both."""
    wins = torch.zeros(len(systems), len(systems), dtype=torch.float64)
    for row in rows:
        i, j = (systems.index(row[name]) for name in ("first", "second"))
        share = {row["first"]: 1.0, row["second"]: 0.0, EQUAL: 0.5}[row["winner"]]
        wins[i, j] += share
        wins[j, i] += 1 - share
    return wins


def strengths_of(wins: Tensor) -> list[float]:
    """Of Bradley and Terry, in percent; half a win more for everybody against everybody keeps them finite."""
    return (100 * bradley_terry(wins + 0.5)).tolist() if wins.any() else []


def agreement(rows: Sequence[Row], value: Callable[[Row], float], item: Callable[[Row], object], level: str) -> str:
    """Krippendorff's alpha in words, or why there is none."""
    raters, items = (sorted({key(row) for row in rows}, key=str) for key in (lambda row: row["rater"], item))
    if len(raters) < 2:
        return "alpha needs a second rater: a friend, or yourself next week under another name"
    ratings = torch.full((len(raters), len(items)), torch.nan)
    for row in rows:
        ratings[raters.index(row["rater"]), items.index(item(row))] = value(row)
    try:
        return f"Krippendorff's alpha of {len(raters)} raters {krippendorff_alpha(ratings, level):.2f} ({level})"
    except CourseError as error:
        return f"no alpha: {error}"


def results(folder: Path, models: Sequence[str]) -> Scene:
    """What all raters found; the simulated marks of lesson 15, if there are no others."""
    marks, pairs = read_rows(folder / "marks.csv", MARKS), read_rows(folder / "pairs.csv", PAIRS)
    whose, systems = "All ratings", sorted({*models, *(r["system"] for r in marks), *(r["first"] for r in pairs)})
    if not marks and not pairs:
        marks, whose = read_rows(SIMULATED, MARKS), "An example: simulated marks, which nobody gave"
        systems = sorted({row["system"] for row in marks})
    lines = []
    if marks:
        told = agreement(marks, lambda r: float(r["score"]), lambda r: (r["picture"], r["system"]), "ordinal")
        lines.append(f"{len(marks)} marks: {told}.")
    if pairs:
        told = agreement(
            pairs,
            lambda r: [*systems, EQUAL].index(r["winner"]),
            lambda r: (r["picture"], *sorted((r["first"], r["second"]))),
            "nominal",
        )
        lines.append(f"{len(pairs)} pairs: {told}.")
    none = [None] * len(systems)
    columns = {
        "mean mark (1 to 5)": [mean_mark(marks, name) for name in systems],
        "strength by marks (%)": strengths_of(wins_of_marks(marks, systems)) or none,
        "strength by pairs (%)": strengths_of(wins_of_pairs(pairs, systems)) or none,
    }
    rows = [
        (name, *("-" if x is None else f"{x:.3g}" for x in row))
        for name, *row in zip(systems, *columns.values(), strict=True)
    ]
    table = table_html(("", *columns), rows)
    alt = "; ".join(
        f"{name}: " + ", ".join(f"{k} {v}" for k, v in zip(columns, row, strict=True)) for name, *row in rows
    )
    return Scene(bars(whose, systems, columns), f"{whose}. {alt}", f"{whose}. {' '.join(lines)}{table}")


def mean_mark(marks: Sequence[Row], system: str) -> float | None:
    """Of a system; None if it has no marks."""
    given = [float(row["score"]) for row in marks if row["system"] == system]
    return sum(given) / len(given) if given else None


def bars(title: str, systems: Sequence[str], columns: Mapping[str, Sequence[float | None]]) -> Figure:
    """A panel of bars for each of the columns that holds something."""
    held = {name: column for name, column in columns.items() if any(x is not None for x in column)}
    with new_axes(title, len(held), 1, (9, 3)) as (figure, axes):
        for i, (axis, (name, column)) in enumerate(zip(np.ravel(axes), held.items(), strict=True)):
            drawn = axis.barh(systems, [x or 0 for x in column], color="#0072B2")
            axis.bar_label(drawn, ["" if x is None else f"{x:.3g}" for x in column], padding=3)
            axis.set(xlabel=name, xlim=(0, 115 if "%" in name else 5.75))
            axis.set_yticks(range(len(systems)), systems if i == 0 else [])
            axis.grid(False, axis="y")
            axis.invert_yaxis()
    return figure
