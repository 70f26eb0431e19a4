"""The command `course audit`: is a folder of pictures, or a data set of the course, fit for training?

Exit code 0 says yes, 1 that something would spoil training; the report says what. Chapter 02 explains the checks.
"""

import argparse
import warnings
from pathlib import Path

from course_lib.alignment import load_alignment
from course_lib.data import CaptionedEmoji, CaptionedFolder, CaptionedShapes
from course_lib.data.audit import AuditReport, audit
from course_lib.data.captions import vocabulary
from course_lib.errors import CourseError, printable_lines
from course_lib.images import save_figure

IMAGE_SIZE = 64
OWN = {"shapes": CaptionedShapes, "emoji": CaptionedEmoji}


def command_audit(options: argparse.Namespace) -> int:
    """`course audit FOLDER|shapes|emoji`.

    Args:
        options: what ("shapes", "emoji" or a folder), json (bool), figure (path of a PNG or None), n (pictures to
            look at).
    Returns:
        The exit code: 1 if something would spoil training, else 0.
    Raises:
        CourseError: there is no such folder, nothing in it has a caption, or the figure cannot be written.
    """
    if not 1 <= options.n <= 100_000:
        raise CourseError(f"n={options.n} is out of range; use 1 to 100,000")
    report = audit_of(str(options.what), options.n)
    print(report.to_json() if options.json else printable_lines(report.table()))
    if options.figure:
        save_figure(report.figure(), options.figure)
    return int(report.spoils_training)


def audit_of(what: str, n: int) -> AuditReport:
    """The audit of a data set of the course, by name, or of a folder; what is held out is compared with it."""
    if what in OWN:
        pictures, exam = (OWN[what](split, IMAGE_SIZE) for split in ("train", "heldout"))
        if what != "shapes":
            return audit(pictures, n, exam)
        model, tokenizer = load_alignment("align-shapes-32")
        return audit(pictures, n, exam, vocabulary(), lambda images, texts: model.similarity(images, texts, tokenizer))
    if not Path(what).expanduser().is_dir():
        raise CourseError(f'"{what}" is not a folder; give one, or {" or ".join(OWN)}')
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what cannot be used stands in the report
        pictures = CaptionedFolder(what, IMAGE_SIZE, max_bad=1.0)
    return audit(pictures, n, pictures.with_split("heldout"))
