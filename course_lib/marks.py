"""The marks of a model, whatever it draws: shapes are marked by the attributes their captions name, emoji by whether
their names are found again. `course evaluate`, the model cards and `course report` use these."""

from typing import Any

from course_lib.emoji_evaluation import emoji_lines, emoji_marks
from course_lib.errors import CourseError
from course_lib.evaluation import accuracy_rows, evaluate, format_table, realism, realism_lines
from course_lib.folder_evaluation import folder_marks
from course_lib.models import AnyModel
from course_lib.preset_data import EmojiConfig, FolderConfig, data_of

REALISM_PICTURES = 500


def marks_of(model: AnyModel, split: str = "heldout", n: int = 2000, seed: int = 0, **sampling: Any) -> dict[str, Any]:
    """All that is measured of a model.

    Args:
        model: of any kind.
        split, n: of the captions for shapes; emoji and folders have splits and numbers of their own.
        seed: of captions and noise.
        sampling: settings of `sample`.
    Returns:
        For shapes what `evaluate` returns, with "realism", or None where the extra packages are missing; for emoji what
        `emoji_marks` returns, and for a folder the same without what is known of emoji only.
    """
    data = data_of(model.training_facts)
    if isinstance(data, EmojiConfig):
        return emoji_marks(model, seed=seed, **sampling)
    if isinstance(data, FolderConfig):
        return folder_marks(model, data, min(n, REALISM_PICTURES), seed, **sampling)
    marks = evaluate(model, split, n, seed, **sampling)
    try:
        return marks | {"realism": realism(model, split, min(n, REALISM_PICTURES), seed, **sampling)}
    except CourseError as error:  # without the extra packages the rest is still worth reading
        return marks | {"realism": None, "missing": str(error)}


def marks_text(marks: dict[str, Any]) -> str:
    """The marks as tables and lines."""
    if "accuracy" not in marks:
        return emoji_lines(marks)
    tables = [format_table(accuracy_rows(marks))]
    if "pairs" in marks:
        tables.append(format_table(accuracy_rows({"accuracy": marks["pairs"], "n": marks["n"]})))
    lines = (
        f"no kernel distance: {marks.get('missing', 'not measured')}"
        if marks.get("realism") is None
        else realism_lines(marks["realism"])
    )
    diversity = f"diversity, generated over real: {marks['diversity']:.2f}"
    return "\n\n".join([*tables, f"{diversity}\n{lines}"])
