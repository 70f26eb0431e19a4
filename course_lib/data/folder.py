"""A folder of the reader's own pictures with captions. Built in chapter 02.

The captions stand in `metadata.jsonl` or `metadata.csv` (`file_name`, `text`; the "imagefolder" convention of Hugging
Face), or in `name.txt` beside `name.jpg`. Pictures are decoded when they are asked for, so a DataLoader does it in its
worker processes. What cannot be used is told with file and reason.
"""

import copy
import csv
import hashlib
import io
import json
import os
import unicodedata
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from course_lib.data.pictures import CaptionedPictures
from course_lib.errors import CourseError, nearest
from course_lib.images import FORMATS, prepare_image, require_image_size

SPLITS = ("train", "heldout", "all")
HELD_OUT = 0.1  # share of the file names
METADATA = ("metadata.jsonl", "metadata.csv")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm")
MAX_TEXT_BYTES = 500_000_000  # of captions in one file: some million
LISTED = 20  # problems that an error message spells out

Row = tuple[str, str]  # file name relative to the folder, with "/", and one caption of it


class Problem(NamedTuple):
    """One entry that cannot be used: the file, or the line that should name one, and why."""

    file: str
    reason: str


# ---- captions in the folder


def read_captions(folder: Path) -> tuple[list[Row], list[Problem]]:
    """All captions in a folder and the folders below it.

    Returns:
        (file name, caption) pairs, and what could not be read. Names are not checked yet.
    Raises:
        CourseError: a metadata file cannot be read at all, or is not UTF-8.
    """
    files = sorted(_walk(folder))
    rows, problems = [], []
    metadata = [name for name in files if PurePosixPath(name).name in METADATA]
    for name in metadata:
        reader = _read_jsonl if name.endswith(".jsonl") else _read_csv
        for line, (file, caption) in reader(_read_text(folder, name), name):
            if isinstance(file, str) and isinstance(caption, str):
                rows.append(((PurePosixPath(name).parent / file).as_posix() if file else "", caption))
            else:
                problems.append(Problem(f"{name}, line {line}", 'it has no "file_name" and "text"'))
    pictures = sorted({name for name in files if name.lower().endswith(SUFFIXES)} - {name for name, _ in rows})
    if metadata:
        return rows, problems + [Problem(name, "no metadata file has a caption for it") for name in pictures]
    return _read_neighbours(folder, pictures)


def _walk(folder: Path) -> Iterator[str]:
    """The files below a folder, relative and with "/"; hidden ones and links to folders are passed over."""
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if not name.startswith("."):
                yield Path(here, name).relative_to(folder).as_posix()


def _read_text(folder: Path, name: str) -> str:
    """A text file of the folder; CourseError if it cannot be read."""
    path = folder / name
    try:
        if (reason := _why_unsafe(folder, name)) or not path.is_file():
            raise CourseError(f'"{path}" is not used: {reason or "the file is missing"}')
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise CourseError(f'"{path}" is longer than {MAX_TEXT_BYTES:,} bytes; split it into several folders')
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CourseError(f'"{path}" is not UTF-8 text (byte {error.start}); save it as UTF-8') from None
    except OSError as error:
        raise CourseError(f'"{path}" cannot be read ({error.strerror})') from error


def _read_jsonl(text: str, name: str) -> Iterator[tuple[int, tuple[object, object]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                entry = json.loads(line)
            except (ValueError, RecursionError):
                entry = None
            yield number, (entry.get("file_name"), entry.get("text")) if isinstance(entry, dict) else (None, None)


def _read_csv(text: str, name: str) -> Iterator[tuple[int, tuple[object, object]]]:
    reader = csv.DictReader(io.StringIO(text, newline=""))
    try:
        if not {"file_name", "text"} <= set(reader.fieldnames or ()):
            raise CourseError(f'"{name}" has no columns file_name and text in its first line; write "file_name,text"')
        for entry in reader:
            yield reader.line_num, (entry["file_name"], entry["text"])
    except csv.Error as error:
        raise CourseError(f'"{name}", line {reader.line_num}: not CSV ({error})') from None


def _read_neighbours(folder: Path, pictures: list[str]) -> tuple[list[Row], list[Problem]]:
    """`name.txt` beside `name.jpg`, a caption a line."""
    rows, problems = [], []
    for name in pictures:
        try:
            lines = _read_text(folder, str(PurePosixPath(name).with_suffix(".txt"))).splitlines()
            rows += [(name, line) for line in lines if line.strip()] or [(name, "")]
        except CourseError as error:
            problems.append(Problem(name, f"it has no caption: {error}"))
    return rows, problems


# ---- what can be used


def _why_unsafe(folder: Path, name: str) -> str:
    """Why a name must not be opened: it leads out of the folder. "" if it does not."""
    windows = PureWindowsPath(name)
    if PurePosixPath(name).is_absolute() or windows.drive or windows.root:
        return "the name is absolute; write it relative to the metadata file"
    if ".." in windows.parts:  # it also takes "/" for a separator
        return 'the name climbs with ".."; write it without'
    real, home = os.path.realpath(folder / name), os.path.realpath(folder)
    if os.path.commonpath([real, home]) != home:
        return "it leads out of the folder; copy the file into it"
    return ""


def _why_unusable(folder: Path, name: str, decode: bool) -> str:
    """Why a file gives no picture, "" if it does: it leads out of the folder, is missing or is broken."""
    try:
        if not name or (reason := _why_unsafe(folder, name)):
            return reason if name else "the file name is empty"
        if not os.path.isfile(folder / name):
            return "the file is missing"
        if decode:
            prepare_image(folder / name, 16)
        else:
            Image.open(folder / name, formats=FORMATS).close()
    except CourseError as error:
        return f"broken: {error.__cause__}"
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:  # ValueError: a zero byte
        return f"broken: {error}"
    return ""


def usable(folder: Path, rows: Iterable[Row], decode: bool) -> tuple[list[Row], list[Problem]]:
    """Sort out the rows that give a picture with a caption.

    Args:
        folder: where the files are.
        rows: (file name, caption); a file may have several captions.
        decode: True decodes every picture once, in threads; False reads the files' heads only.
    Returns:
        The good rows, captions without space around them; a problem for each of the others.
    """
    names = list(dict.fromkeys(name for name, _ in rows))
    # Pillow lets other threads run while it decodes; filters of warnings, though, belong to all threads together
    with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        reasons = dict(zip(names, pool.map(lambda name: _why_unusable(folder, name, decode), names), strict=True))
    good, problems = {}, []  # a dictionary, for its order
    for name, caption in rows:
        row = name, " ".join(caption.split())
        reason = reasons[name] or ("the caption is empty" if not row[1] else "")
        if not reason and row in good:
            reason = "duplicate: the same file with the same caption"
        if reason:
            problems.append(Problem(name, reason))
        else:
            good[row] = None
    return list(good), problems


def is_held_out(name: str) -> bool:
    """True for a tenth of all file names, by their hash: a new picture moves no other one to another split."""
    digest = hashlib.sha256(unicodedata.normalize("NFC", name).encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:4], "big") < HELD_OUT * 2**32


class CaptionedFolder(CaptionedPictures):
    """Pictures in a folder with their captions; the interface of `CaptionedShapes`.

    Args:
        folder: holds pictures and metadata.jsonl or metadata.csv (file_name, text), or name.txt beside each name.jpg.
        image_size: 16, 32, 64, 128 or 256 pixels; see `images.prepare_image`.
        split: "train"; "heldout", a tenth of the file names; or "all".
        seed: another seed, another order; what belongs to a split does not depend on it.
        max_bad: share of the entries, 0 to 1, that may be unusable; they are skipped, with a warning.
        fit: "crop" the middle square, or "pad" with white.
        captions: (file name, caption) pairs to use instead of the files in the folder, such as `coco_captions` gives.
        decode_check: decode every picture once now, so that none can turn out broken while training; False is quicker
            and reads only the heads of the files.
    Raises:
        CourseError: an argument is out of range, there are no pictures, or too many entries are unusable.

    A picture with several captions comes up once for each; they are always in the same split.
    """

    def __init__(
        self,
        folder: str | Path,
        image_size: int = 64,
        split: str = "train",
        seed: int = 0,
        max_bad: float = 0.05,
        fit: str = "crop",
        captions: Sequence[Row] | None = None,
        decode_check: bool = True,
    ):
        require_image_size(image_size)
        for argument, value, known in [("split", split, SPLITS), ("fit", fit, ("crop", "pad"))]:
            if value not in known:
                raise CourseError(f'{argument}="{value}" is unknown; {nearest(value, known)}')
        if not 0 <= max_bad <= 1:
            raise CourseError(f"max_bad={max_bad} is out of range; use a share from 0 to 1")
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise CourseError(f'folder="{folder}" is not a folder that exists')
        self.image_size, self.seed, self.fit = image_size, seed, fit
        rows, unread = read_captions(self.folder) if captions is None else (list(captions), [])
        self.usable, unusable = usable(self.folder, rows, decode_check)
        self.problems = unread + unusable
        self._report(len(self.usable), max_bad)
        self._choose(split)

    def _choose(self, split: str) -> None:
        rows = sorted(row for row in self.usable if split == "all" or is_held_out(row[0]) == (split == "heldout"))
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed))
        self.split, self.rows = split, [rows[i] for i in order.tolist()]

    def with_split(self, split: str) -> "CaptionedFolder":
        """The same folder with another split, "train", "heldout" or "all"; the files are not checked again."""
        if split not in SPLITS:
            raise CourseError(f'split="{split}" is unknown; {nearest(split, SPLITS)}')
        other = copy.copy(self)
        other._choose(split)
        return other

    def _report(self, good: int, max_bad: float) -> None:
        """Tell what was skipped: a warning, or an error when it is too much."""
        bad, whole = len(self.problems), good + len(self.problems)
        if not whole:
            raise CourseError(f'folder="{self.folder}" has no pictures with captions in metadata.jsonl or name.txt')
        told = [f"  {file}: {reason}" for file, reason in self.problems[:LISTED]]
        told += [f"  and {bad - LISTED} more"] * (bad > LISTED)
        told.insert(0, f'{bad} of {whole} entries in "{self.folder}" cannot be used:')
        if bad > max_bad * whole:
            raise CourseError("\n".join([*told, f"mend or remove them, or allow more than max_bad={max_bad}"]))
        if bad:
            warnings.warn("\n".join([*told, "they are skipped; see .problems"]), stacklevel=3)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[Tensor, str]:
        name, caption = self.rows[index]  # negative indices, IndexError past the end
        return prepare_image(self.folder / name, self.image_size, self.fit), caption

    def attributes(self, index: int) -> dict[str, str]:
        """The file name, the only thing known for certain."""
        return {"file_name": self.rows[index][0]}

    def caption(self, index: int) -> str:
        """The caption of one picture."""
        return self.rows[index][1]

    def same_picture(self) -> list[int]:
        """For each index the first one with the same file: a picture may have several captions."""
        first: dict[str, int] = {}
        return [first.setdefault(name, i) for i, (name, _) in enumerate(self.rows)]

    def images(self, indices: list[int] | range, device: str | torch.device = "cpu") -> Tensor:
        """The pictures with these indices, decoded now: (B, 3, S, S) float32 in [-1, 1]."""
        paths, size = [self.folder / self.rows[i][0] for i in indices], self.image_size
        with ThreadPoolExecutor() as pool:
            pictures = list(pool.map(lambda path: prepare_image(path, size, self.fit), paths))
        return torch.stack(pictures).to(device) if pictures else torch.empty(0, 3, size, size, device=device)

    def source_size(self, index: int) -> tuple[int, int]:
        """Width and height of the file's own picture in pixels, from its head."""
        with Image.open(self.folder / self.rows[index][0], formats=FORMATS) as picture:
            return picture.size
