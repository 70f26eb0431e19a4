"""`make class`: an nbgrader course folder with every exercise as an assignment, ready to be released.

    python tests/make_class.py [FOLDER]        default: class

FOLDER/source holds the solutions, FOLDER/release what students get. Files that are there are kept: grades, submissions
and your own changes to nbgrader_config.py are safe; the sources are brought up to date.
"""

import os
import shutil
import sys
from pathlib import Path

from build_exercises import SOLUTIONS, texts
from nbgrader.apps import NbGraderAPI
from traitlets.config import Config

COURSE = "words-to-pixels"
CONFIG = '''"""Settings of nbgrader for this course; see its documentation."""

c = get_config()  # noqa: F821
c.CourseDirectory.course_id = "words-to-pixels"
c.ExecutePreprocessor.timeout = 300  # seconds a cell may take while grading
c.ClearSolutions.code_stub = {"python": "# YOUR CODE HERE\\nraise NotImplementedError()"}
# Where students fetch and submit; a folder that all of them can write to, on Linux or macOS:
# c.Exchange.root = "exchange"
'''


def settings(folder: Path, exchange: Path | None = None) -> Config:
    """nbgrader's settings for a course folder."""
    config = Config()
    config.CourseDirectory.root, config.CourseDirectory.course_id = str(folder), COURSE
    config.CourseDirectory.db_url = f"sqlite:///{(folder / 'gradebook.db').as_posix()}"
    config.ExecutePreprocessor.timeout = 300
    if exchange is not None:
        config.Exchange.root = str(exchange)
    return config


def make_class(folder: Path, names: list[str]) -> NbGraderAPI:
    """Write the course folder and generate what students get.

    Args:
        folder: made here if it is not there.
        names: of the exercises, such as "03_losses".
    Returns:
        nbgrader's interface to it.
    """
    os.environ["PATH"] = str(Path(sys.executable).parent) + os.pathsep + os.environ["PATH"]  # it calls alembic
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "nbgrader_config.py").exists():
        (folder / "nbgrader_config.py").write_text(CONFIG, encoding="utf-8")
    api = NbGraderAPI(config=settings(folder))
    for name in names:
        source = folder / "source" / name
        source.mkdir(parents=True, exist_ok=True)
        shutil.copy(SOLUTIONS / f"{name}.ipynb", source)
        told = api.generate_assignment(name, force=True)
        if not told["success"]:
            sys.exit(f"{name} could not be generated:\n{told['log']}{told.get('error', '')}")
        print(f"{name}: {folder / 'release' / name}", flush=True)
    return api


if __name__ == "__main__":
    make_class(Path(sys.argv[1] if sys.argv[1:] else "class").resolve(), [text.stem for text in texts()])
