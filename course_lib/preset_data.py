"""Which pictures a preset trains on, and what a checkpoint keeps of that."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from course_lib.checkpoint import dataclass_from_dict
from course_lib.data.captions import vocabulary, words_of
from course_lib.data.emoji import CaptionedEmoji
from course_lib.data.folder import CaptionedFolder
from course_lib.data.published import captions_of
from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError, nearest


@dataclass(frozen=True)
class ShapesConfig:
    """Which captioned shapes to train on; the arguments of `CaptionedShapes`."""

    image_size: int = 32
    length: int = 20_000
    language: str = "both"
    captions: str = "varied"
    seed: int = 0
    grammar: str = "full"
    scene: str = "single"

    def dataset(self, split: str = "train") -> CaptionedShapes:
        """The data set it describes."""
        return CaptionedShapes(split=split, **vars(self))

    def vocabulary(self) -> frozenset[str]:
        """The words that its captions can hold."""
        return vocabulary()


@dataclass(frozen=True)
class EmojiConfig:
    """Which captioned emoji to train on; the arguments of `CaptionedEmoji`."""

    image_size: int = 32
    style: str = "twemoji"
    language: str = "en"
    seed: int = 0

    def dataset(self, split: str = "train") -> CaptionedEmoji:
        """The data set it describes."""
        return CaptionedEmoji(split=split, **vars(self))

    def vocabulary(self) -> frozenset[str]:
        """The words of its training captions."""
        return words_in(self.dataset())


@dataclass(frozen=True)
class FolderConfig:
    """Which folder of captioned pictures to train on; `--data` and `--captions` name it.

    Args:
        image_size: pixels.
        folder: of the pictures; captions: the file with their captions, "" where they lie in the folder.
        seed: of the order.
        length: pictures in the published data set, for an estimate before there is a folder.
    """

    image_size: int = 64
    folder: str = ""
    captions: str = ""
    seed: int = 0
    length: int = 0

    def dataset(self, split: str = "train") -> CaptionedFolder:
        """The data set it describes; its files are checked once, and again when some came to the folder or left it."""
        home = Path(self.folder).expanduser().absolute()
        return _checked(self, home, home.stat().st_mtime_ns if home.exists() else 0).with_split(split)

    def vocabulary(self) -> frozenset[str]:
        """The words of its training captions."""
        return words_in(self.dataset())


@lru_cache(maxsize=1)
def _checked(config: FolderConfig, home: Path, changed: int) -> CaptionedFolder:
    if not config.folder:
        raise CourseError("this preset draws what your own pictures show; name their folder: --data FOLDER")
    captions = captions_of(config.folder, config.captions or None)
    return CaptionedFolder(config.folder, config.image_size, "all", config.seed, captions=captions)


def words_in(dataset: CaptionedEmoji | CaptionedFolder) -> frozenset[str]:
    """The words of all captions."""
    return frozenset(word for i in range(len(dataset)) for word in words_of(dataset.caption(i)))


DataConfig = ShapesConfig | EmojiConfig | FolderConfig
DATA_SETS = {"shapes": ShapesConfig, "emoji": EmojiConfig, "folder": FolderConfig}


def data_record(data: DataConfig) -> dict[str, Any]:
    """What a checkpoint keeps of its training data; `data_of` reads it."""
    name = next(name for name, kind in DATA_SETS.items() if type(data) is kind)
    return {"data_set": name, **vars(data)}


def data_of(training_facts: dict[str, Any]) -> DataConfig:
    """The training data of a model, as its checkpoint records it; the shapes if it says nothing.

    Raises:
        CourseError: the record is damaged.
    """
    record = training_facts.get("data")
    record = dict(record) if isinstance(record, dict) else {}
    kind = str(record.pop("data_set", "shapes"))
    if kind not in DATA_SETS:
        raise CourseError(f'the model\'s training data, "{kind}", is unknown; {nearest(kind, DATA_SETS)}')
    return dataclass_from_dict(DATA_SETS[kind], record, "the model's training data")
