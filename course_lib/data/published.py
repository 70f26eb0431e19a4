"""Captions of three published data sets that are on the disk already, for `CaptionedFolder`. Built in chapter 02."""

import csv
import io
import json
import struct
import zlib
from pathlib import Path

from course_lib.data.folder import Row
from course_lib.errors import CourseError
from course_lib.torchvision_ops import ensure_torchvision_ops


def captions_of(folder: str | Path, annotations: str | Path | None) -> list[Row] | None:
    """The captions of a published data set, whichever it is; None if the folder holds its own.

    Args:
        folder: of the pictures, with imagelabels.mat if they are Flowers102.
        annotations: COCO's file (.json) or Flickr8k's (.html, .txt); None: there is none beside the folder.
    Raises:
        CourseError: the file cannot be read or is another one.
    """
    if annotations is None:
        return flowers102_captions(folder) if (Path(folder).expanduser() / "imagelabels.mat").exists() else None
    if Path(annotations).suffix.lower() == ".json":
        return coco_captions(annotations)
    return flickr8k_captions(folder, annotations)


def coco_captions(annotations: str | Path) -> list[Row]:
    """The captions of COCO, such as annotations/captions_train2017.json; `folder` is then the one with the pictures.

    Reads the file that `torchvision.datasets.CocoCaptions` reads, without the package that it needs.

    Raises:
        CourseError: the file cannot be read or is another one.
    Source: Chen et al. 2015, arXiv:1504.00325.
    """
    try:
        data = json.loads(Path(annotations).expanduser().read_bytes())
        names = {entry["id"]: entry["file_name"] for entry in data["images"]}
        return _require_text([(names[entry["image_id"]], entry["caption"]) for entry in data["annotations"]])
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unread(annotations, "captions_train2017.json", error) from error


def flickr8k_captions(folder: str | Path, annotations: str | Path) -> list[Row]:
    """The captions of Flickr8k: the web page torchvision reads, Flickr8k.token.txt, or captions.txt with commas.

    Args:
        folder: holds the pictures.
        annotations: the file with the captions.
    Raises:
        CourseError: the file cannot be read or is another one.
    Source: Hodosh et al. 2013, doi:10.1613/jair.3994.
    """
    ensure_torchvision_ops()
    from torchvision.datasets import Flickr8k

    path, home = Path(annotations).expanduser(), Path(folder).expanduser()
    try:
        if path.suffix.lower() in (".html", ".htm"):
            found = Flickr8k(str(home), str(path)).annotations  # path -> captions
            return [(Path(name).relative_to(home).as_posix(), text) for name, texts in found.items() for text in texts]
        text = path.read_bytes().decode("utf-8-sig")
        if text.startswith("image,"):
            return _require_text([(entry["image"], entry["caption"]) for entry in csv.DictReader(io.StringIO(text))])
        pairs = [line.split("\t", 1) for line in text.splitlines() if line.strip()]
        return _require_text([(name.rpartition("#")[0], caption) for name, caption in pairs])
    except (OSError, ValueError, KeyError, IndexError, csv.Error) as error:
        raise _unread(annotations, "Flickr8k.token.txt", error) from error


def flowers102_captions(folder: str | Path) -> list[Row]:
    """A caption for each picture of Flowers102, from its class: "a photo of a moon orchid, a type of flower".

    Args:
        folder: torchvision's "flowers-102", with imagelabels.mat and the folder jpg; pass the same to CaptionedFolder.
    Raises:
        CourseError: imagelabels.mat cannot be read or is another one.
    Source: Nilsback and Zisserman 2008, "Automated flower classification over a large number of classes".
    """
    ensure_torchvision_ops()
    from torchvision.datasets import Flowers102

    path = Path(folder).expanduser() / "imagelabels.mat"
    try:
        kinds = [Flowers102.classes[label - 1] for label in _matlab_bytes(path.read_bytes())]
    except (OSError, ValueError, IndexError, AttributeError, struct.error, zlib.error) as error:
        raise _unread(path, "imagelabels.mat", error) from error
    texts = [f"a photo of {'an' if kind[0] in 'aeiou' else 'a'} {kind}, a type of flower" for kind in kinds]
    return [(f"jpg/image_{i:05d}.jpg", text) for i, text in enumerate(texts, start=1)]


def _matlab_bytes(data: bytes) -> bytes:
    """The numbers of the one uint8 array in a MATLAB 5 file; SciPy, which can read all of that format, is large."""
    kind, length = struct.unpack_from("<II", data, 128)  # after the head of the file: type and length of an element
    body = data[136 : 136 + length]
    if kind == 15:  # compressed
        kind, length, *_ = struct.unpack_from("<II", body := zlib.decompress(body))
        body = body[8 : 8 + length]
    if kind != 14:
        raise ValueError("no array in it")
    parts, place = [], 0
    while place < len(body):  # flags, sizes, name, numbers
        kind, length = struct.unpack_from("<II", body, place)
        short, length = (4, kind >> 16) if kind >> 16 else (8, length)  # up to four bytes are packed into the head
        parts.append((kind & 0xFFFF, body[place + short : place + short + length]))
        place += 8 if short == 4 else 8 + -(-length // 8) * 8
    if len(parts) != 4 or parts[3][0] != 2:
        raise ValueError("its numbers are not uint8")
    return parts[3][1]


def _require_text(rows: list[Row]) -> list[Row]:
    if not all(isinstance(name, str) and isinstance(caption, str) for name, caption in rows):
        raise ValueError("a file name or a caption is not text")
    return rows


def _unread(path: str | Path, example: str, error: Exception) -> CourseError:
    return CourseError(f'"{path}" cannot be read as {example} ({type(error).__name__}: {error})')
