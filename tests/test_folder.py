"""A folder of pictures is read as it is, and what is wrong with it is told."""

import json
import multiprocessing
import os
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from torch.utils.data import DataLoader

from course_lib.data import CaptionedFolder
from course_lib.data.folder import is_held_out, read_captions
from course_lib.data.published import coco_captions, flickr8k_captions, flowers102_captions
from course_lib.errors import CourseError
from course_lib.images import prepare_image


def draw(path: Path, level: int = 0, size: int = 16) -> Path:
    """One grey picture with noise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(level).integers(0, 255, (size, size, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    return path


def write_jsonl(folder: Path, entries: list) -> None:
    text = "".join(json.dumps(entry, ensure_ascii=False) + "\n" for entry in entries)
    (folder / "metadata.jsonl").write_text(text, encoding="utf-8")


@pytest.fixture
def twenty(tmp_path):
    """Twenty good pictures, listed in metadata.jsonl."""
    names = [f"img/{i:02d}.png" for i in range(20)]
    for i, name in enumerate(names):
        draw(tmp_path / name, i)
    write_jsonl(tmp_path, [{"file_name": name, "text": f"picture {name}"} for name in names])
    return tmp_path


def add_line(folder: Path, entry: object) -> None:
    with open(folder / "metadata.jsonl", "a", encoding="utf-8") as file:
        file.write((entry if isinstance(entry, str) else json.dumps(entry)) + "\n")


def rows_of(dataset: CaptionedFolder) -> set:
    return {(dataset.attributes(i)["file_name"], dataset.caption(i)) for i in range(len(dataset))}


# ---- three ways to write captions


def test_jsonl(twenty):
    dataset = CaptionedFolder(twenty, 16, "all")
    assert len(dataset) == 20 and dataset.problems == []
    image, caption = dataset[7]
    name = dataset.attributes(7)["file_name"]
    assert caption == f"picture {name}" == dataset.caption(7)
    torch.testing.assert_close(image, prepare_image(twenty / name, 16))
    torch.testing.assert_close(dataset.images([3, 7])[1], image)
    assert dataset.images(range(0)).shape == (0, 3, 16, 16)
    assert dataset.source_size(0) == (16, 16)
    torch.testing.assert_close(dataset[-13][0], image)
    with pytest.raises(IndexError):
        dataset[20]


def test_csv_of_a_spreadsheet(tmp_path):
    draw(tmp_path / "a.png")
    draw(tmp_path / "b.png")
    text = '\ufefffile_name,text\r\na.png,"a cat, ""asleep""\r\non a mat"\r\nb.png,一只狗\r\n'
    (tmp_path / "metadata.csv").write_bytes(text.encode())
    assert rows_of(CaptionedFolder(tmp_path, 16, "all")) == {("a.png", 'a cat, "asleep" on a mat'), ("b.png", "一只狗")}


def test_text_files_beside_the_pictures(tmp_path):
    draw(tmp_path / "cats" / "a.JPG")
    draw(tmp_path / "b.png")
    draw(tmp_path / ".hidden" / "c.png")
    (tmp_path / "cats" / "a.txt").write_text("a cat\n\na sleeping cat\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("a dog", encoding="utf-8")
    expected = {("cats/a.JPG", "a cat"), ("cats/a.JPG", "a sleeping cat"), ("b.png", "a dog")}
    dataset = CaptionedFolder(tmp_path, 16, "all")
    assert rows_of(dataset) == expected and not dataset.problems


def test_metadata_below_the_folder_counts_from_where_it_stands(tmp_path):
    draw(tmp_path / "train" / "a.png")
    write_jsonl(tmp_path / "train", [{"file_name": "a.png", "text": "a"}])
    assert rows_of(CaptionedFolder(tmp_path, 16, "all")) == {("train/a.png", "a")}


# ---- splits


def test_the_split_follows_the_name_alone(tmp_path):
    names = [f"{i}.png" for i in range(1000)]
    assert 70 < sum(map(is_held_out, names)) < 130
    assert is_held_out("0.png") and not is_held_out("2.png")  # the same in every release
    assert is_held_out("caf\u00e9 0.png") == is_held_out("cafe\u0301 0.png")  # as macOS would write it


def test_train_and_heldout_are_all(twenty):
    parts = [rows_of(CaptionedFolder(twenty, 16, split)) for split in ("train", "heldout", "all")]
    assert parts[0] | parts[1] == parts[2] and not parts[0] & parts[1]
    assert all(is_held_out(name) for name, _ in parts[1]) and parts[1]
    train = CaptionedFolder(twenty, 16)
    assert rows_of(train.with_split("heldout")) == parts[1] and rows_of(train) == parts[0]
    with pytest.raises(CourseError, match="split=.*test"):
        train.with_split("test")


def test_the_seed_orders_but_does_not_choose(twenty):
    one, two = (CaptionedFolder(twenty, 16, "train", seed) for seed in (0, 1))
    assert one.rows != two.rows and sorted(one.rows) == sorted(two.rows)
    assert one.rows == CaptionedFolder(twenty, 16, "train", 0).rows


def test_captions_of_one_picture_stay_together(twenty):
    for i in range(20):
        add_line(twenty, {"file_name": f"img/{i:02d}.png", "text": f"again {i}"})
    files = [{name for name, _ in rows_of(CaptionedFolder(twenty, 16, split))} for split in ("train", "heldout")]
    assert not files[0] & files[1]


# ---- what is wrong is told


def problems_of(folder: Path) -> dict[str, str]:
    with pytest.warns(UserWarning, match="see .problems"):
        dataset = CaptionedFolder(folder, 16, "all", max_bad=0.5)
    assert len(dataset) == 20
    return dict(dataset.problems)


@pytest.mark.parametrize(
    "name, reason",
    [
        ("nowhere.png", "missing"),
        ("img", "missing"),
        ("", "empty"),
        ("../outside.png", "climbs"),
        ("img/../img/00.png", "climbs"),  # the same file by another name would be in two splits
        ("..\\outside.png", "climbs"),
        ("/etc/hostname", "absolute"),
        ("C:\\outside.png", "absolute"),
        ("C:outside.png", "absolute"),
        ("\\\\server\\share\\x.png", "absolute"),
        ("a\0b.png", "null"),
        ("\ud800.png", "broken|missing"),
        ("x" * 5000, "missing"),
    ],
)
def test_names_that_cannot_be_used(twenty, name, reason):
    draw(twenty.parent / "outside.png")
    add_line(twenty, {"file_name": name, "text": "x"})
    ((_, told),) = problems_of(twenty).items()
    assert any(word in told for word in reason.split("|"))


@pytest.mark.parametrize("by", ["file", "folder"])
def test_links_cannot_climb_out(twenty, by, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    draw(outside / "secret.png")
    try:
        (twenty / "link").symlink_to(outside if by == "folder" else outside / "secret.png")
    except OSError:
        pytest.skip("this system makes no links")
    name = "link/secret.png" if by == "folder" else "link"
    add_line(twenty, {"file_name": name, "text": "x"})
    assert "out of the folder" in problems_of(twenty)[name]


def test_captions_cannot_be_links_out(tmp_path, tmp_path_factory):
    secret = tmp_path_factory.mktemp("outside") / "secret"
    secret.write_text("password")
    draw(tmp_path / "a.png")
    try:
        (tmp_path / "a.txt").symlink_to(secret)
    except OSError:
        pytest.skip("this system makes no links")
    with pytest.raises(CourseError, match="out of the folder") as told:
        CaptionedFolder(tmp_path, 16)
    assert "password" not in str(told.value)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_no_picture(twenty):
    os.mkfifo(twenty / "pipe")  # opening one waits for ever
    add_line(twenty, {"file_name": "pipe", "text": "x"})
    assert "missing" in problems_of(twenty)["pipe"]


def broken(folder: Path, kind: str) -> None:
    path = draw(folder / "bad.png", size=64)
    data = path.read_bytes()
    if kind == "cut short":
        data = data[: len(data) // 2]
    elif kind == "damaged inside":
        data = data[:5000] + b"\0" * 100 + data[5100:]
    path.write_bytes({"empty": b"", "text": b"no picture"}.get(kind, data))
    add_line(folder, {"file_name": "bad.png", "text": "x"})


@pytest.mark.parametrize("kind", ["cut short", "damaged inside", "empty", "text"])
def test_broken_pictures(twenty, kind):
    broken(twenty, kind)
    assert "broken" in problems_of(twenty)["bad.png"]


def test_heads_only_finds_what_is_no_picture_and_later_names_the_file(twenty):
    broken(twenty, "text")
    with pytest.warns(UserWarning, match="bad.png"):
        assert len(CaptionedFolder(twenty, 16, "all", decode_check=False)) == 20
    broken(twenty, "cut short")
    dataset = CaptionedFolder(twenty, 16, "all", max_bad=0.1, captions=[("bad.png", "x")], decode_check=False)
    with pytest.raises(CourseError, match="bad.png"):
        dataset[0]


@pytest.mark.parametrize(
    "line, reason",
    [
        ({"file_name": "img/00.png", "text": " \t"}, "caption is empty"),
        ({"file_name": "img/00.png", "text": " picture  img/00.png "}, "duplicate"),
        ({"file_name": "img/00.png"}, '"text"'),
        ({"file_name": "img/00.png", "text": 5}, '"text"'),
        ("{", '"text"'),
        ("[" * 100_000, '"text"'),
        ("7", '"text"'),
    ],
)
def test_lines_that_cannot_be_used(twenty, line, reason):
    add_line(twenty, line)
    ((file, told),) = problems_of(twenty).items()
    assert reason in told and ("img/00.png" in file or "line 21" in file)


def test_pictures_without_a_caption_are_told(twenty):
    draw(twenty / "img" / "forgotten.png")
    assert "no metadata file" in problems_of(twenty)["img/forgotten.png"]


def test_missing_and_unreadable_text_files_are_told(tmp_path):
    for name in ("a", "b", "c"):
        draw(tmp_path / f"{name}.png")
    (tmp_path / "a.txt").write_text("fine")
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    with pytest.warns(UserWarning):
        dataset = CaptionedFolder(tmp_path, 16, "all", max_bad=0.7)
    problems = dict(dataset.problems)
    assert "UTF-8" in problems["b.png"] and "missing" in problems["c.png"] and len(dataset) == 1


def test_more_than_the_stated_share_is_an_error_that_lists_them(twenty):
    for i in range(30):
        add_line(twenty, {"file_name": f"gone{i}.png", "text": "x"})
    with pytest.raises(CourseError, match="30 of 50 entries") as told:
        CaptionedFolder(twenty, 16, max_bad=0.59)
    assert "gone0.png: the file is missing" in str(told.value) and "and 10 more" in str(told.value)
    with pytest.warns(UserWarning, match="30 of 50"):
        CaptionedFolder(twenty, 16, max_bad=0.6)


def test_a_good_folder_gives_no_warning(twenty):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CaptionedFolder(twenty, 16)


@pytest.mark.parametrize("content", [b"", b"name,caption\na.png,a\n", b"file_name,text\na.png,caf\xe9\n"])
def test_a_csv_file_that_cannot_be_read_is_told(tmp_path, content):
    draw(tmp_path / "a.png")
    (tmp_path / "metadata.csv").write_bytes(content)
    with pytest.raises(CourseError, match="file_name|UTF-8"):
        CaptionedFolder(tmp_path, 16)


@pytest.mark.parametrize(
    "wrong", [{"split": "test"}, {"image_size": 48}, {"fit": "stretch"}, {"max_bad": 2}, {"folder": "nowhere"}]
)
def test_wrong_arguments_are_named_with_the_remedy(twenty, wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(CourseError, match=f"{name}=.*{value}"):
        CaptionedFolder(**{"folder": twenty, **wrong})


def test_an_empty_folder_is_told(tmp_path):
    with pytest.raises(CourseError, match="metadata.jsonl"):
        CaptionedFolder(tmp_path)


# ---- any bytes


line = st.one_of(
    st.binary(max_size=60),
    st.builds(
        lambda name, text: json.dumps({"file_name": name, "text": text}).encode(),
        st.one_of(st.text(max_size=12), st.sampled_from(["a.png", "./a.png", "../a.png", "/a.png", "~", "a.png/b"])),
        st.one_of(st.text(max_size=12), st.none(), st.integers()),
    ),
)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    folder = tmp_path_factory.mktemp("any")
    draw(folder / "a.png")
    return folder


def read_anything(folder: Path, name: str, data: bytes) -> None:
    """Everything in the file ends as a row that works or as a problem, or the whole file is refused with a reason."""
    (folder / name).write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = CaptionedFolder(folder, 16, "all", max_bad=1.0)
    except CourseError:
        return
    finally:
        (folder / name).unlink()
    assert all(reason and isinstance(file, str) for file, reason in dataset.problems)
    for i in range(len(dataset)):
        assert dataset.attributes(i)["file_name"] == "a.png" and dataset.caption(i).strip()
    assert dataset.images(range(len(dataset))).shape == (len(dataset), 3, 16, 16)


any_bytes = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@any_bytes
@given(st.lists(line, max_size=5))
def test_any_bytes_in_jsonl(scratch, lines):
    read_anything(scratch, "metadata.jsonl", b"\n".join(lines))


@any_bytes
@given(st.one_of(st.binary(max_size=80), st.lists(line, max_size=4).map(lambda x: b"file_name,text\n" + b"\n".join(x))))
def test_any_bytes_in_csv(scratch, data):
    read_anything(scratch, "metadata.csv", data)


@any_bytes
@given(st.binary(max_size=60))
def test_any_bytes_in_a_text_file(scratch, data):
    read_anything(scratch, "a.txt", data)


@any_bytes
@given(st.text(max_size=20))
def test_any_name_is_used_or_told(scratch, name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        dataset = CaptionedFolder(scratch, 16, "all", max_bad=1.0, captions=[(name, "x")])
    assert len(dataset) + len(dataset.problems) == 1


# ---- worker processes


@pytest.mark.parametrize("start", [m for m in ("fork", "spawn") if m in multiprocessing.get_all_start_methods()])
def test_workers_decode(twenty, start):
    dataset = CaptionedFolder(twenty, 16, "all")
    loader = DataLoader(dataset, batch_size=8, num_workers=1, multiprocessing_context=start)
    images, captions = zip(*loader, strict=True)
    torch.testing.assert_close(torch.cat(images), dataset.images(range(20)))
    assert [caption for batch in captions for caption in batch] == [dataset.caption(i) for i in range(20)]


# ---- published data sets


def test_coco(tmp_path):
    draw(tmp_path / "val" / "000.jpg")
    data = {
        "images": [{"id": 7, "file_name": "000.jpg", "height": 1}],
        "annotations": [{"image_id": 7, "id": i, "caption": f"caption {i} "} for i in range(5)],
    }
    (tmp_path / "captions.json").write_text(json.dumps(data))
    dataset = CaptionedFolder(tmp_path / "val", 16, "all", captions=coco_captions(tmp_path / "captions.json"))
    assert rows_of(dataset) == {("000.jpg", f"caption {i}") for i in range(5)}


FLICKR = {
    "captions.html": "<table><tr><td><a href='x'>http://flickr.com/photos/u/1000/</a></td>"
    "<td><ul><li>A dog runs .</li><li>A cat, asleep .</li></ul></td></tr></table>",
    "Flickr8k.token.txt": "1000_ab.jpg#0\tA dog runs .\n1000_ab.jpg#1\tA cat, asleep .\n",
    "captions.txt": 'image,caption\n1000_ab.jpg,A dog runs .\n1000_ab.jpg,"A cat, asleep ."\n',
}


@pytest.mark.parametrize("name", FLICKR)
def test_flickr8k(tmp_path, name):
    draw(tmp_path / "Images" / "1000_ab.jpg")
    (tmp_path / name).write_text(FLICKR[name])
    rows = flickr8k_captions(tmp_path / "Images", tmp_path / name)
    assert rows == [("1000_ab.jpg", "A dog runs ."), ("1000_ab.jpg", "A cat, asleep .")]
    assert len(CaptionedFolder(tmp_path / "Images", 16, "all", captions=rows)) == 2


def matlab(labels: bytes, compressed: bool = True) -> bytes:
    """A MATLAB 5 file with one uint8 row named "labels"."""

    def element(kind: int, data: bytes) -> bytes:
        return struct.pack("<II", kind, len(data)) + data + b"\0" * (-len(data) % 8)

    short_name = struct.pack("<HH4s", 1, 3, b"abc")  # names of up to four letters are packed into the head
    name = element(1, b"labels") if compressed else short_name
    sizes = element(5, struct.pack("<ii", 1, len(labels)))
    body = element(14, element(6, struct.pack("<II", 9, 0)) + sizes + name + element(2, labels))
    packed = zlib.compress(body)
    return b"MATLAB 5.0".ljust(128) + (struct.pack("<II", 15, len(packed)) + packed if compressed else body)


@pytest.mark.parametrize("compressed", [True, False])
def test_flowers102(tmp_path, compressed):
    (tmp_path / "imagelabels.mat").write_bytes(matlab(bytes([77, 1, 102, 1, 5]), compressed))
    rows = flowers102_captions(tmp_path)
    assert rows[:2] == [
        ("jpg/image_00001.jpg", "a photo of a passion flower, a type of flower"),
        ("jpg/image_00002.jpg", "a photo of a pink primrose, a type of flower"),
    ]
    assert len(rows) == 5


@pytest.mark.parametrize("data", [b"", b"x" * 50, b"x" * 300, matlab(bytes([5]))[:150], matlab(bytes([103]))])
def test_files_of_another_kind_are_told(tmp_path, data):
    for name in ("imagelabels.mat", "captions.json", "captions.txt"):
        (tmp_path / name).write_bytes(data)
    with pytest.raises(CourseError, match="imagelabels.mat"):
        flowers102_captions(tmp_path)
    with pytest.raises(CourseError, match="captions.json"):
        coco_captions(tmp_path / "captions.json")
    with pytest.raises(CourseError, match="nowhere"):
        flickr8k_captions(tmp_path, tmp_path / "nowhere.txt")


def test_reading_opens_no_picture(twenty):
    for path in (twenty / "img").iterdir():
        path.write_bytes(b"")
    rows, problems = read_captions(twenty)
    assert len(rows) == 20 and not problems
