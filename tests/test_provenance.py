"""A generated PNG says so, a stranger's PNG can do no harm, and copies of training pictures are found."""

import io
import json

import numpy as np
import pytest
import torch
from PIL import Image, PngImagePlugin

from course_lib.data.shapes import CaptionedShapes
from course_lib.errors import CourseError
from course_lib.generate import GenerateConfig, save
from course_lib.images import save_image
from course_lib.provenance import inspect_file, memorisation_score, nearest_pictures, provenance_text, read_provenance

PROMPT = "a red circle\n一个红色的圆形 ❤"


def write(path, picture=None, **notes):
    chunks = PngImagePlugin.PngInfo()
    for name, text in notes.items():
        chunks.add_text(name, text)
    (picture or Image.new("RGB", (4, 4))).save(path, "PNG", pnginfo=chunks)
    return path


# ---- notes


def test_notes_make_the_round_trip(tmp_path):
    notes = provenance_text("shapes-32", PROMPT, 7, {"guidance_scale": 2.0, "image": "Bild-ä.png", "n_samples": 4})
    save_image(torch.zeros(3, 16, 16), tmp_path / "a.png", notes)
    read = read_provenance(tmp_path / "a.png")
    assert read == notes
    assert (read["Generated"], read["Description"], read["Model"], read["Seed"]) == ("true", PROMPT, "shapes-32", "7")
    assert "Bild-ä.png" in read["Settings"]  # readable as it stands
    assert json.loads(read["Settings"]) == {"guidance_scale": 2.0, "image": "Bild-ä.png", "n_samples": 4}


def test_what_the_command_saves_can_be_drawn_again_from_its_notes(tmp_path):
    texts = ("a red circle", "a blue star")
    config = GenerateConfig(
        texts, n_samples=2, guidance_scale=1.0, seed=5, image="private/folder/me.png", save_path=str(tmp_path)
    )
    *singles, grid = save(torch.zeros(4, 3, 16, 16), config)
    notes = [read_provenance(path) for path in singles]
    assert [note["Description"] for note in notes] == [texts[0], texts[0], texts[1], texts[1]]
    assert [json.loads(note["Settings"])["picture"] for note in notes] == [1, 2, 3, 4]
    settings = json.loads(notes[0]["Settings"])
    assert settings["n_samples"] == 2 and settings["prompts"] == 2 and settings["guidance_scale"] == 1.0
    assert "private" not in str(notes) and str(tmp_path) not in str(notes)
    assert read_provenance(grid)["Generated"] == "true" and texts[1] in read_provenance(grid)["Description"]


def test_inspect_prints_the_notes(tmp_path, capsys):
    save_image(torch.zeros(3, 16, 16), tmp_path / "a.png", provenance_text("shapes-32", PROMPT, 7, {}))
    assert inspect_file(tmp_path / "a.png") == 0
    told = capsys.readouterr().out
    assert "shapes-32" in told and r"a red circle\n一个红色的圆形 ❤" in told and "true" in told


@pytest.mark.parametrize("notes", [{}, {"Title": "holiday"}, {"Generated": "false"}])
def test_a_picture_without_the_flag_is_told_apart(tmp_path, capsys, notes):
    assert inspect_file(write(tmp_path / "a.png", **notes)) == 1
    assert "does not say" in capsys.readouterr().out


def test_a_strangers_notes_cannot_steer_the_terminal(tmp_path, capsys):
    write(tmp_path / "a.png", Description="\x1b[2J\x1b]0;owned\x07\u202e\r", **{"\x85name": "x"})
    inspect_file(tmp_path / "a.png")
    told = capsys.readouterr().out
    assert not set(told) & set("\x1b\x07\u202e\r\x85") and r"\x1b[2J" in told


def bomb():
    """A small file whose note unpacks to a gigabyte's worth of nothing, were it let."""
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("Comment", "x" * 40_000_000, zip=True)
    Image.new("RGB", (4, 4)).save(file := io.BytesIO(), "PNG", pnginfo=chunks)
    return file.getvalue()


def cut():
    Image.fromarray(np.random.randint(0, 255, (64, 64, 3), dtype=np.uint8)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()[:2000]


def jpeg():
    Image.new("RGB", (4, 4)).save(file := io.BytesIO(), "JPEG")
    return file.getvalue()


def huge():
    Image.new("1", (10_000, 10_000)).save(file := io.BytesIO(), "PNG")
    return file.getvalue()


@pytest.mark.parametrize("content", [bomb, cut, jpeg, huge, lambda: b"", lambda: b"hello"])
def test_what_is_no_whole_png_is_refused(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content())
    with pytest.raises(CourseError, match="too many" if content is huge else "cannot be read"):
        read_provenance(tmp_path / "a.png")


def test_a_missing_file_is_told(tmp_path):
    with pytest.raises(CourseError, match="No such file"):
        inspect_file(tmp_path / "missing.png")


# ---- copies


def test_each_sample_finds_its_nearest():
    training = torch.rand(40, 3, 8, 8) * 2 - 1
    wanted = torch.tensor([7, 39, 0, 7, 12])
    samples = training[wanted].clone()
    samples[3] += 0.25
    found = nearest_pictures(samples, training, batch_size=2)
    assert torch.equal(found.index, wanted)
    torch.testing.assert_close(found.distance, torch.tensor([0, 0, 0, 0.25, 0]))
    assert (found.distance[[0, 1, 2, 4]] == 0).all()
    assert nearest_pictures(torch.ones(1, 3, 8, 8), -torch.ones(1, 3, 8, 8)).distance == 2
    alike = 0.9 + 0.02 * torch.rand(60, 3, 32, 32)  # here multiplying out loses digits
    assert (nearest_pictures(alike, alike).distance == 0).all()
    features = torch.tensor([[0.0, 0.0], [3.0, 4.0]])
    torch.testing.assert_close(nearest_pictures(features[:1], features[1:]).distance, torch.tensor([12.5**0.5]))


@pytest.mark.parametrize(("n", "m", "size"), [(0, 3, 8), (3, 0, 8), (3, 3, 16)])
def test_sets_that_do_not_fit_are_refused(n, m, size):
    with pytest.raises(ValueError, match="two sets of one form"):
        nearest_pictures(torch.zeros(n, 3, 8, 8), torch.zeros(m, 3, size, size))


def test_memorisation_is_told_from_understanding():
    def fresh(n, seed):
        return CaptionedShapes("all", 16, seed, length=n).images(range(n))

    training, heldout, honest = fresh(600, 1), fresh(150, 2), fresh(150, 3)
    understood = memorisation_score(honest, training, heldout)
    assert 0.85 < understood.ratio < 1.15 and 0.4 < understood.closer < 0.6
    copied = memorisation_score(training[:150] + 0.01 * torch.randn(150, 3, 16, 16), training, heldout)
    assert copied.ratio < 0.2 and copied.closer > 0.95
    noise = memorisation_score(torch.rand(50, 3, 16, 16) * 2 - 1, training, heldout)
    assert noise.ratio > 2 and noise.closer < 0.05


def test_memorisation_by_hand():
    training = torch.zeros(1, 1)
    samples, heldout = torch.tensor([[1.0], [2.0], [3.0]]), torch.tensor([[2.0], [4.0], [9.0]])
    # nearer: 1 beats three, 2 ties with one and beats two, 3 beats two: 7.5 of 9
    score = memorisation_score(samples, training, heldout)
    assert score.ratio == pytest.approx(0.5) and score.closer == pytest.approx(7.5 / 9)
