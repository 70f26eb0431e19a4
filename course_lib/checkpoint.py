"""Saving and loading a model: tensors in safetensors, settings in JSON, never pickle. Chapter 06 builds it.

A checkpoint is a folder: `model.safetensors`, `config.json` and a few text files (`tokenizer.json`, `README.md`).
It is written beside its place and renamed into it, so at every moment one whole checkpoint can be loaded:
`.NAME.new` is one being written, `.NAME.old` the one before, kept until the new one stands.
"""

import json
import os
import reprlib
import shutil
import sys
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, TypeVar

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor
from torch.nn import Module

from course_lib.errors import CourseError, nearest

CHECKPOINTS = Path(__file__).resolve().parent.parent / "data" / "checkpoints"
TENSORS, CONFIG = "model.safetensors", "config.json"
REMEDY = "copy it again or train it again"
MAX_BYTES = 10**10  # of weights or of a configuration; the largest model that the course can build has a third of it
TEXT_FILES = {".json", ".jsonl", ".md", ".txt"}
CARD_FILES = TEXT_FILES | {".png"}  # what may lie beside the weights: a card has pictures too
Config = TypeVar("Config")


def save_checkpoint(
    folder: str | Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any], files: Mapping[str, str] | None = None
) -> Path:
    """Write a checkpoint folder; whatever goes wrong, the one that was there before stays as it was.

    Args:
        folder: where; what is there is replaced if it is a checkpoint.
        tensors: name -> tensor, on any device.
        config: what JSON can hold.
        files: plain file name -> text, written beside them.
    Returns:
        The folder.
    Raises:
        CourseError: the folder holds something else, or cannot be written (full, read-only).
        ValueError: a name in `files` is not a plain file name.
    """
    folder = _resolve(folder)
    contents = {TENSORS: _pack(tensors), CONFIG: (json.dumps(dict(config), indent=2) + "\n").encode()}
    for name, text in (files or {}).items():
        _require_plain_name(name)
        contents[name] = text.encode()
    new = _beside(folder, "new")
    try:
        _require_replaceable(folder, set(contents))
        folder.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed
        _write_folder(new, contents)
        _swap(new, folder)
    except OSError as error:
        reason = error.strerror or error
        raise CourseError(f'cannot save to "{folder}": {reason}; free space or choose another folder') from error
    finally:
        shutil.rmtree(new, ignore_errors=True)
    return folder


def _resolve(folder: str | Path) -> Path:
    try:
        return Path(os.path.realpath(os.path.expanduser(folder)))
    except ValueError as error:  # a zero byte in the name
        raise CourseError(f"folder={str(folder)!r} cannot be a folder's name: {error}") from None


def _pack(tensors: Mapping[str, Tensor]) -> bytes:
    # clone: safetensors refuses tensors that share memory
    return safetensors.torch.save({name: x.detach().cpu().contiguous().clone() for name, x in tensors.items()})


def _require_plain_name(name: str) -> None:
    plain = name.replace("-", "").replace("_", "").replace(".", "").isalnum() and not name.startswith(".")
    if not plain or not name.isascii() or name in (TENSORS, CONFIG) or Path(name).suffix not in TEXT_FILES:
        raise ValueError(f'files: "{name}" is not a plain file name that ends in one of {sorted(TEXT_FILES)}')


def _require_replaceable(folder: Path, names: set[str]) -> None:
    if not folder.exists():
        return
    if not folder.is_dir():
        raise CourseError(f'"{folder}" is a file; choose a folder for the checkpoint')
    there = [path for path in folder.iterdir() if path.is_dir() or not path.name.startswith(".")]
    strangers = [p.name for p in there if p.is_dir() or (p.name not in names and p.suffix not in CARD_FILES)]
    if strangers or (there and not (folder / TENSORS).exists()):
        found = (strangers or [path.name for path in there])[0]
        raise CourseError(f'"{folder}" holds "{found}", which would be lost; choose another folder for the checkpoint')


def _beside(folder: Path, suffix: str) -> Path:
    return folder.with_name(f".{folder.name}.{suffix}")


def _write_folder(folder: Path, contents: Mapping[str, bytes]) -> None:
    folder.mkdir()
    for name, data in contents.items():
        with open(folder / name, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())  # on the disk, not only in its cache, before the rename
    _sync_folder(folder)


def _swap(new: Path, folder: Path) -> None:
    """Put `new` in the place of `folder`. A process killed between the renames leaves `.old`, which loading finds."""
    old = _beside(folder, "old")
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.replace(folder, old)
    try:
        os.replace(new, folder)
    except BaseException:
        if old.exists():
            os.replace(old, folder)
        raise
    _sync_folder(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open a folder
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def load_checkpoint(folder: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a checkpoint folder.

    Args:
        folder: what `save_checkpoint` wrote.
    Returns:
        name -> tensor on the CPU, and the config.
    Raises:
        CourseError: there is no such folder, or a file of it is missing, truncated or foreign.
    """
    folder = require_checkpoint(folder)
    for path in (folder / TENSORS, folder / CONFIG):
        if path.stat().st_size > MAX_BYTES:
            raise CourseError(f'"{path}" has {path.stat().st_size:,} bytes; over {MAX_BYTES:,} none is read; {REMEDY}')
    try:
        tensors, text = (folder / TENSORS).read_bytes(), (folder / CONFIG).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError, MemoryError) as error:
        raise CourseError(f'cannot read the checkpoint "{folder}": {error}; {REMEDY}') from None
    return _unpack(tensors, folder / TENSORS), _parse_config(text, folder / CONFIG)


def require_checkpoint(folder: str | Path) -> Path:
    """The folder, or the one kept beside it when a save was cut short; CourseError if neither is a checkpoint."""
    resolved = _resolve(folder)
    if not os.path.lexists(resolved) and os.path.isdir(_beside(resolved, "old")):
        return _beside(resolved, "old")
    if not os.path.isdir(resolved):
        raise CourseError(f'checkpoint "{folder}" is not a folder that exists; give one, or train it: course train')
    missing = [name for name in (TENSORS, CONFIG) if not os.path.isfile(resolved / name)]
    if missing:
        raise CourseError(f'"{folder}" is not a checkpoint: it has no {" and no ".join(missing)}; {REMEDY}')
    return resolved


def _unpack(data: bytes, source: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load(data)
    except (SafetensorError, KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CourseError(f'"{source}" is truncated or not a safetensors file ({error}); {REMEDY}') from None


def _parse_config(text: str, source: Path) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CourseError(f'"{source}" is not JSON ({error}); {REMEDY}') from None
    if not isinstance(config, dict):
        raise CourseError(f'"{source}" holds a {type(config).__name__}, not an object {{...}}; {REMEDY}')
    return config


def load_weights(module: Module, tensors: Mapping[str, Tensor], source: str | Path) -> None:
    """Copy tensors into a module's parameters and buffers: all of them, by name and shape, or none.

    Raises:
        CourseError: names or shapes differ; lists the first three of each, `source` names where they are from.
    """
    ours = module.state_dict()
    differences = {
        "missing": [name for name in ours if name not in tensors],
        "unexpected": [name for name in tensors if name not in ours],
        "of another shape": [
            f"{name} {tuple(tensors[name].shape)} instead of {tuple(x.shape)}"
            for name, x in ours.items()
            if name in tensors and tensors[name].shape != x.shape
        ],
    }
    told = [f"{what}: {', '.join(names[:3])}{_and_more(names)}" for what, names in differences.items() if names]
    if told:
        raise CourseError(f'"{source}" is a checkpoint of another architecture ({"; ".join(told)})')
    module.load_state_dict(dict(tensors))


def _and_more(names: list[str]) -> str:
    return f" and {len(names) - 3} more" if len(names) > 3 else ""


def checkpoints_folder() -> Path:
    """Where named checkpoints are: `data/checkpoints` of the project, or what COURSE_CHECKPOINTS says."""
    return Path(os.environ.get("COURSE_CHECKPOINTS") or CHECKPOINTS)


def find_checkpoint(name_or_path: str | Path) -> Path:
    """The folder of a checkpoint: a name under `data/checkpoints`, else a path.

    Raises:
        CourseError: neither is there; suggests the nearest name.
    """
    name, home = str(name_or_path), checkpoints_folder()
    is_name = name not in ("", ".", "..") and Path(name).name == name
    for folder in [home / name] * is_name + [name] * bool(name):
        resolved = _resolve(folder)
        if os.path.isdir(resolved) or os.path.isdir(_beside(resolved, "old")):
            return require_checkpoint(folder)
    known = [path.parent.name for path in home.glob(f"[!.]*/{CONFIG}")]
    raise CourseError(f'no checkpoint "{name[:80]}" by name or path; {nearest(name, known)}')


def load_kind(name_or_path: str | Path, kind: str, example: str) -> tuple[Path, dict[str, Tensor], dict[str, Any]]:
    """Find a checkpoint and load it, if it is of the right kind.

    Args:
        name_or_path: as for `find_checkpoint`.
        kind: what its configuration must call itself, such as "vae".
        example: the name of a shipped one, for the error.
    Returns:
        its folder, tensors and configuration.
    Raises:
        CourseError: no such checkpoint, a damaged one, or one of another kind.
    """
    folder = find_checkpoint(name_or_path)
    tensors, config = load_checkpoint(folder)
    if (found := config.get("kind", "foreign")) != kind:
        raise CourseError(f'"{folder}" holds a {found} checkpoint, not a {kind} one; use one such as "{example}"')
    return folder, tensors, config


def dataclass_from_dict(cls: type[Config], values: Mapping[str, Any], source: str | Path) -> Config:
    """Build a config from what JSON or YAML held, checking every key and type.

    Args:
        cls: a dataclass whose fields are int, float, str, bool, tuple[...] of these, or one of them | None.
        values: key -> value; a field with a default may be missing.
        source: where the values are from, for the message.
    Raises:
        CourseError: an unknown or missing key, a wrong type, or a value that `cls` itself refuses.
    """
    if not isinstance(values, Mapping):
        raise CourseError(f"{source}: {_short(values)} is not an object with keys {{...}}")
    kinds, known = typing.get_type_hints(cls), {field.name: field for field in fields(cls)}
    for key in values:
        if key not in known:
            raise CourseError(f'{source}: unknown key "{key}"; {nearest(key, known)}')
    for name, field in known.items():
        if name not in values and field.default is MISSING and field.default_factory is MISSING:
            raise CourseError(f'{source}: the key "{name}" is missing')
    return cls(**{key: _convert(value, kinds[key], f"{source}: {key}") for key, value in values.items()})


def _convert(value: Any, kind: Any, name: str) -> Any:
    """`value` as a `kind`: a whole number may stand for a float, a list for a tuple; nothing else is changed."""
    options = typing.get_args(kind)
    if isinstance(kind, types.UnionType):
        (inner,) = (option for option in options if option is not types.NoneType)
        return None if value is None else _convert(value, inner, name)
    if typing.get_origin(kind) is tuple and isinstance(value, list | tuple):
        inners = options[:1] * len(value) if options[-1] is Ellipsis else options
        if len(inners) == len(value):
            names = [f"{name}[{i}]" for i in range(len(value))]
            return tuple(map(_convert, value, inners, names))
    if kind is float and type(value) in (int, float) and abs(value) <= sys.float_info.max:
        return float(value)
    if kind in (int, str, bool) and type(value) is kind:  # True is not a 1 here
        return value
    expected = kind.__name__ if isinstance(kind, type) and not options else str(kind)
    raise CourseError(f"{name}={_short(value)} is not of type {expected}")


def _short(value: Any) -> str:
    text = reprlib.repr(value)  # shortens while it writes: a nest of YAML aliases would never end
    return text if len(text) <= 60 else f"{text[:57]}..."
