"""A checkpoint is whole or not there, holds what was saved, and nothing hostile gets in or out of its folder."""

import builtins
import errno
import json
import os
import pickle
import struct
import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch
from torch.nn import Module, ModuleList

from course_lib import checkpoint as module
from course_lib.checkpoint import (
    dataclass_from_dict,
    find_checkpoint,
    load_checkpoint,
    load_kind,
    load_weights,
    save_checkpoint,
)
from course_lib.errors import CourseError
from course_lib.layers import BatchNorm2d, Linear
from course_lib.text_encoder import TextEncoderConfig

OLD, NEW = {"weight": torch.zeros(2, 3)}, {"weight": torch.ones(2, 3)}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def saved(tmp_path):
    """A folder with one checkpoint, `OLD`."""
    return save_checkpoint(tmp_path / "model", OLD, {"width": 3}, {"README.md": "old"})


# --- round trip


def test_round_trip_is_exact(tmp_path):
    torch.manual_seed(0)
    table = torch.randn(4, 6)
    tensors = {
        "float": table,
        "same memory": table,
        "transposed": table.T,
        "row": table[1],
        "half": table.bfloat16(),
        "count": torch.tensor(7),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "empty": torch.zeros(0, 3),
        "bool": table > 0,
        "trained": table.clone().requires_grad_(),
    }
    config = {"width": 3, "betas": [0.5, 0.99], "name": "红", "nested": {"a": None, "b": True}}
    folder = save_checkpoint(tmp_path / "deep" / "model", tensors, config, {"tokenizer.json": "{}", "README.md": "红"})
    loaded, loaded_config = load_checkpoint(folder)
    assert loaded_config == config and loaded.keys() == tensors.keys()
    for name, x in tensors.items():
        assert torch.equal(loaded[name], x) and loaded[name].dtype == x.dtype, name
        loaded[name].zero_()  # can be written to
    assert (folder / "README.md").read_text(encoding="utf-8") == "红"
    assert names(folder) == ["README.md", "config.json", "model.safetensors", "tokenizer.json"]
    assert names(folder.parent) == ["model"]


def test_saving_again_replaces_the_whole_folder(saved):
    save_checkpoint(saved, NEW, {"width": 4})
    tensors, config = load_checkpoint(saved)
    assert torch.equal(tensors["weight"], NEW["weight"]) and config == {"width": 4}
    assert names(saved) == ["config.json", "model.safetensors"] and names(saved.parent) == ["model"]


def test_what_killed_saves_left_behind_is_cleaned_up(saved):
    for suffix in ("new", "old"):
        left = saved.with_name(f".model.{suffix}")
        left.mkdir()
        (left / "half.bin").write_bytes(b"x")
    save_checkpoint(saved, NEW, {})
    assert names(saved.parent) == ["model"] and torch.equal(load_checkpoint(saved)[0]["weight"], NEW["weight"])


# --- failures in the middle


def is_the_old_one(folder):
    tensors, config = load_checkpoint(folder)
    return (
        torch.equal(tensors["weight"], OLD["weight"]) and config == {"width": 3} and names(folder.parent) == ["model"]
    )


@pytest.mark.parametrize("fails_at", [1, 2])
@pytest.mark.parametrize("error", [OSError(errno.EROFS, "Read-only file system"), KeyboardInterrupt()])
def test_failing_renames_keep_the_old_one(saved, monkeypatch, fails_at, error):
    rename, calls = os.replace, []

    def replace(source, target):
        calls.append(target)
        if len(calls) == fails_at:
            raise error
        rename(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(CourseError if isinstance(error, OSError) else KeyboardInterrupt):
        save_checkpoint(saved, NEW, {})
    assert len(calls) >= fails_at and is_the_old_one(saved)


@pytest.mark.parametrize("broken", ["write", "fsync"])
def test_a_full_disk_keeps_the_old_one(saved, monkeypatch, broken):
    full = OSError(errno.ENOSPC, "No space left on device")
    opened = []

    def fail(*_):
        raise full

    def open_full(path, mode):
        file = builtins.open(path, mode)
        opened.append(path)
        if len(opened) == 2:  # the first file fits, the second does not
            file.close()
            raise full
        return file

    if broken == "write":
        monkeypatch.setattr(module, "open", open_full, raising=False)
    else:
        monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(CourseError, match="cannot save to.*model.*No space left on device"):
        save_checkpoint(saved, NEW, {}, {"README.md": "new"})
    assert is_the_old_one(saved)


def test_files_are_on_the_disk_before_the_rename(saved, monkeypatch):
    events = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (events.append("sync"), sync(handle)))
    monkeypatch.setattr(os, "replace", lambda *paths: (events.append("rename"), rename(*paths)))
    save_checkpoint(saved, NEW, {}, {"README.md": "new"})
    assert events.index("rename") >= 3 and events.count("rename") == 2  # three files first, then old out, new in


@pytest.mark.parametrize("killed_at", [1, 2, 3, 4])
def test_a_killed_process_leaves_a_whole_checkpoint(saved, killed_at):
    """Killed at the fsync of the tensors, before either rename, or before the old one is deleted."""
    script = f"""
import os, shutil, sys, torch
from pathlib import Path
from course_lib import checkpoint
events = []
def dies_at(number, call):
    def wrapped(*args, **kwargs):
        if number == {killed_at}: os._exit(9)
        return call(*args, **kwargs)
    return wrapped
if {killed_at} == 1: os.fsync = dies_at(1, os.fsync)
rename = os.replace
def replace(source, target):
    events.append(target)
    if len(events) + 1 == {killed_at}: os._exit(9)
    rename(source, target)
    if len(events) == 2 and {killed_at} == 4: os._exit(9)
os.replace = replace
checkpoint.save_checkpoint({str(saved)!r}, {{"weight": torch.ones(2, 3)}}, {{"width": 4}})
"""
    assert subprocess.run([sys.executable, "-c", script]).returncode == 9
    tensors, config = load_checkpoint(saved)
    expected = 1.0 if killed_at == 4 else 0.0
    assert (tensors["weight"] == expected).all() and config == {"width": 4 if killed_at == 4 else 3}
    assert load_checkpoint(find_checkpoint(saved))[1] == config
    save_checkpoint(saved, NEW, {"width": 5})  # and the next save puts all in order
    assert names(saved.parent) == ["model"] and load_checkpoint(saved)[1] == {"width": 5}


def test_a_read_only_or_impossible_place_is_an_error_in_words(tmp_path):
    (tmp_path / "file").write_text("x")
    for place in (tmp_path / "file", tmp_path / "file" / "model", tmp_path / ("x" * 300), "zero\0byte"):
        with pytest.raises(CourseError):
            save_checkpoint(place, NEW, {})
    assert names(tmp_path) == ["file"]


# --- nothing else is lost, nothing climbs out


@pytest.mark.parametrize("stranger", ["holiday.jpg", "sub/thesis.txt", "notes.md"])
def test_a_folder_with_other_things_is_not_replaced(tmp_path, stranger):
    path = tmp_path / "mine" / stranger
    path.parent.mkdir(parents=True)
    path.write_text("precious")
    with pytest.raises(CourseError, match="would be lost"):
        save_checkpoint(tmp_path / "mine", NEW, {})
    assert path.read_text() == "precious"


def test_other_things_beside_a_checkpoint_are_not_lost_either(saved):
    (saved / "samples").mkdir()
    with pytest.raises(CourseError, match="samples.*would be lost"):
        save_checkpoint(saved, NEW, {})
    assert torch.equal(load_checkpoint(saved)[0]["weight"], OLD["weight"])


@pytest.mark.parametrize(
    "name",
    ["../evil.txt", "a/b.txt", "..", "", ".hidden.md", "C:evil.txt", "a\\b.txt", "run.sh", "config.json", "a\0.md"],
)
def test_file_names_cannot_climb_out(tmp_path, name):
    with pytest.raises(ValueError, match="plain file name"):
        save_checkpoint(tmp_path / "model", NEW, {}, {name: "x"})
    assert names(tmp_path) == []


# --- damaged, foreign and hostile folders


def safetensors_file(header, data=b"", length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


class Malicious:
    def __reduce__(self):
        return (os.mkdir, ("pickle-was-run",))


DAMAGED_TENSORS = {
    "empty": b"",
    "short": b"\0" * 5,
    "random": bytes(range(256)) * 4,
    "pickle": pickle.dumps(Malicious()),
    "long header": safetensors_file({}, length=2**60),
    "header past the end": safetensors_file({}, length=500),
    "more than the file holds": safetensors_file({"w": {"dtype": "F32", "shape": [999], "data_offsets": [0, 3996]}}),
    "a billion": safetensors_file({"w": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}),
    "wrong size": safetensors_file({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 4]}}, b"1234"),
    "overlap": safetensors_file(
        {n: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} for n in "ab"}, b"1234"
    ),
    "unknown type": safetensors_file({"w": {"dtype": "Q9", "shape": [1], "data_offsets": [0, 4]}}, b"1234"),
    "exotic type": safetensors_file({"w": {"dtype": "F4", "shape": [8], "data_offsets": [0, 4]}}, b"1234"),
    "deep": safetensors_file(b"[" * 10_000),
}  # fmt: skip


@pytest.mark.parametrize("data", DAMAGED_TENSORS.values(), ids=DAMAGED_TENSORS)
def test_damaged_tensors_are_refused_in_words(saved, monkeypatch, data):
    monkeypatch.chdir(saved.parent)
    (saved / "model.safetensors").write_bytes(data)
    with pytest.raises(CourseError, match=r"model\.safetensors.*again"):
        load_checkpoint(saved)
    assert names(saved.parent) == ["model"]  # the pickle was not run


@pytest.mark.parametrize("cut", [1, 20, 100])
def test_truncated_tensors_are_refused_in_words(saved, cut):
    path = saved / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CourseError, match="truncated"):
        load_checkpoint(saved)


@pytest.mark.parametrize("text", ["", '{"width": 3', "[1, 2]", "3", "null", "[" * 100_000, "9" * 10_000])
def test_damaged_configs_are_refused_in_words(saved, text):
    (saved / "config.json").write_text(text)
    with pytest.raises(CourseError, match=r"config\.json.*again"):
        load_checkpoint(saved)


def test_a_config_that_is_not_text(saved):
    (saved / "config.json").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(CourseError, match="cannot read"):
        load_checkpoint(saved)


def test_what_is_no_checkpoint_is_named(saved, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("x")
    cases = {
        "nowhere": "not a folder that exists",
        "file": "not a folder",
        "folder": "no model.safetensors and no config",
    }
    for name, message in cases.items():
        with pytest.raises(CourseError, match=f"{name}.*{message}"):
            load_checkpoint(tmp_path / name)
    (saved / "config.json").unlink()
    with pytest.raises(CourseError, match=r"it has no config\.json"):
        load_checkpoint(saved)


# --- weights into a module


def small_net():
    net = Module()
    net.parts = ModuleList([Linear(3, 4), BatchNorm2d(4)])
    return net


def test_weights_and_buffers_are_loaded():
    torch.manual_seed(1)
    source, target = small_net(), small_net()
    source.parts[1].running_mean.add_(3)
    load_weights(target, source.state_dict(), "model")
    assert all(torch.equal(x, target.state_dict()[name]) for name, x in source.state_dict().items())


def test_another_architecture_is_described_and_loads_nothing():
    net = small_net()
    before = {name: x.clone() for name, x in net.state_dict().items()}
    tensors = {name: x + 1 for name, x in before.items() if "running" not in name}
    tensors |= {f"extra.{i}": torch.zeros(1) for i in range(5)} | {"parts.0.weight": torch.zeros(2, 3)}
    with pytest.raises(CourseError) as error:
        load_weights(net, tensors, "models/cat")
    for part in (
        '"models/cat" is a checkpoint of another architecture',
        "missing: parts.1.running_mean, parts.1.running_var",
        "unexpected: extra.0, extra.1, extra.2 and 2 more",
        "parts.0.weight (2, 3) instead of (4, 3)",
    ):
        assert part in str(error.value)
    assert all(torch.equal(x, before[name]) for name, x in net.state_dict().items())


# --- names of checkpoints


def test_find_by_name_by_path_and_nearest(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(home))
    monkeypatch.chdir(tmp_path)
    shapes = save_checkpoint(home / "shapes-32", OLD, {})
    other = save_checkpoint(tmp_path / "runs" / "mine", OLD, {})
    assert find_checkpoint("shapes-32") == shapes
    assert find_checkpoint(other) == find_checkpoint("runs/mine") == other
    for wrong in ("shape-32", "", ".", "..", "../home", "x" * 5000, "~nobody/model", "zero\0byte"):
        with pytest.raises(CourseError):
            find_checkpoint(wrong)
    with pytest.raises(CourseError, match='no checkpoint "shape-32".*did you mean "shapes-32"'):
        find_checkpoint("shape-32")


def test_named_checkpoints_are_those_of_the_project(monkeypatch):
    monkeypatch.delenv("COURSE_CHECKPOINTS", raising=False)
    assert module.checkpoints_folder() == module.CHECKPOINTS
    assert module.CHECKPOINTS.parts[-2:] == ("data", "checkpoints")
    assert (module.CHECKPOINTS.parents[1] / "course_lib" / "checkpoint.py").exists()


# --- configs


@dataclass(frozen=True)
class Settings:
    width: int
    rate: float = 0.1
    name: str = "x"
    flag: bool = False
    betas: tuple[float, float] = (0.5, 0.9)
    channels: tuple[int, ...] = ()
    parent: str | None = None

    def __post_init__(self):
        if self.width > 100:
            raise CourseError(f"width={self.width} is over 100")


def test_config_from_json():
    values = {"width": 3, "rate": 1, "flag": True, "betas": [0, 0.5], "channels": [1, 2, 3], "parent": "p"}
    made = dataclass_from_dict(Settings, json.loads(json.dumps(values)), "config.json")
    assert made == Settings(3, 1.0, "x", True, (0.0, 0.5), (1, 2, 3), "p")
    assert type(made.rate) is float and type(made.betas) is tuple
    assert dataclass_from_dict(Settings, {"width": 3, "parent": None}, "") == Settings(3)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 3, "widht": 4}, 'unknown key "widht"; did you mean "width"'),
        ({3: 4}, 'unknown key "3"'),
        ({}, '"width" is missing'),
        ({"width": "3"}, "width='3' is not of type int"),
        ({"width": True}, "width=True is not of type int"),
        ({"width": 3.0}, "width=3.0 is not of type int"),
        ({"width": None}, "width=None is not of type int"),
        ({"width": 3, "rate": True}, "rate=True is not of type float"),
        ({"width": 3, "rate": float("nan")}, "rate=nan is not"),
        ({"width": 3, "rate": float("inf")}, "rate=inf is not"),
        ({"width": 3, "rate": 10**400}, "rate=1000"),
        ({"width": 3, "flag": 1}, "flag=1 is not of type bool"),
        ({"width": 3, "name": ["a"]}, "name="),
        ({"width": 3, "betas": [0.5]}, "betas=.*tuple"),
        ({"width": 3, "betas": 0.5}, "betas=0.5 is not of type tuple"),
        ({"width": 3, "betas": [0.5, "x"]}, r"betas\[1\]='x' is not of type float"),
        ({"width": 3, "channels": [1, 2.5]}, r"channels\[1\]=2.5 is not of type int"),
        ({"width": 3, "channels": "12"}, "channels='12'"),
        ({"width": 3, "parent": 5}, "parent=5 is not of type str"),
        ({"width": 300}, "width=300 is over 100"),
        ([1, 2], "not an object"),
    ],
)
def test_wrong_configs_are_refused_in_words(values, message):
    with pytest.raises(CourseError, match=message):
        dataclass_from_dict(Settings, values, "config.json")


def test_a_value_that_would_be_endless_in_print_is_told_in_short():
    bomb = ["lol"]
    for _ in range(60):
        bomb = [bomb, bomb]  # 2 ** 60 words, written out
    with pytest.raises(CourseError) as told:
        dataclass_from_dict(TextEncoderConfig, {"vocab_size": bomb}, "config.yaml")
    assert len(str(told.value)) < 300


def test_a_checkpoint_of_another_kind_is_refused(tmp_path):
    save_checkpoint(tmp_path / "x", {"w": torch.zeros(2)}, {"kind": "vae"})
    folder, tensors, config = load_kind(tmp_path / "x", "vae", "vae-shapes-32")
    assert folder == tmp_path / "x" and list(tensors) == ["w"] and config["kind"] == "vae"
    with pytest.raises(CourseError, match='holds a vae checkpoint, not a dcgan one; use one such as "gan-shapes-32"'):
        load_kind(tmp_path / "x", "dcgan", "gan-shapes-32")
    save_checkpoint(tmp_path / "y", {"w": torch.zeros(2)}, {})
    with pytest.raises(CourseError, match="holds a foreign checkpoint"):
        load_kind(tmp_path / "y", "vae", "vae-shapes-32")
