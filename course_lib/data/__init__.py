"""Captioned data sets, all with one interface: `dataset[i]` is (image, caption). Built in chapter 02."""

from course_lib.data.emoji import CaptionedEmoji
from course_lib.data.folder import CaptionedFolder
from course_lib.data.shapes import CaptionedShapes

__all__ = ["CaptionedEmoji", "CaptionedFolder", "CaptionedShapes"]
