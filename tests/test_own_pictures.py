"""Training on a folder of the reader's own: every preset for photographs, from its folder to a model with its card."""

import itertools
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_cli import course
from test_folder import matlab

from course_lib import cards, presets
from course_lib.batches import EmbeddedPictures
from course_lib.data import CaptionedFolder, CaptionedShapes
from course_lib.images import to_pil
from course_lib.long_recipes import embed
from course_lib.plan import pictures_in
from course_lib.presets import PHOTO_SIZES, PUBLISHED, folder_preset, get_preset
from course_lib.speed import peak_bytes_of
from course_lib.text_to_image import TextToImage

PICTURES = 64
SHAPES = CaptionedShapes("all", 64, length=PICTURES, captions="varied")
LABELS = bytes(1 + i % 102 for i in range(PICTURES))


def birds(folder: Path) -> list[str]:
    """As in CUB: name.txt beside name.jpg, several captions in it."""
    for i in range(PICTURES):
        to_pil(SHAPES.images([i])[0]).save(folder / f"{i:03}.jpg")
        lines = [SHAPES.caption(i), f"picture {i}, seen by someone else"]
        (folder / f"{i:03}.txt").write_text("\n".join(lines), encoding="utf-8")
    return []


def flowers(folder: Path) -> list[str]:
    """As torchvision has Flowers102: jpg/image_00001.jpg and the labels in a MATLAB file."""
    (folder / "jpg").mkdir()
    for i in range(PICTURES):
        to_pil(SHAPES.images([i])[0]).save(folder / "jpg" / f"image_{i + 1:05}.jpg")
    (folder / "imagelabels.mat").write_bytes(matlab(LABELS))
    return []


def scenes(folder: Path) -> list[str]:
    """As in COCO: the captions in a JSON file beside the folder."""
    images = [{"id": i, "file_name": f"{i:03}.jpg"} for i in range(PICTURES)]
    notes = [{"image_id": i, "caption": f"{SHAPES.caption(i)}{end}"} for i in range(PICTURES) for end in ("", " again")]
    for image in images:
        to_pil(SHAPES.images([image["id"]])[0]).save(folder / image["file_name"])
    path = folder.parent / "captions.json"
    path.write_text(json.dumps({"images": images, "annotations": notes}), encoding="utf-8")
    return ["--captions", str(path)]


LAYOUTS = {"cub": birds, "flowers": flowers, "coco": scenes}


def with_tiny_reader(monkeypatch, name: str) -> None:
    """The preset, with the text encoder of the checkpoint "tiny" in place of MiniLM, which is no part of the course."""
    preset = get_preset(name)
    players = {part: replace(getattr(preset, part), text_size=16) for part in ("generator", "discriminator")}
    monkeypatch.setitem(presets.PRESETS, name, replace(preset, text_encoder="tiny", **players))


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "size"), list(itertools.product(PUBLISHED, PHOTO_SIZES)))
def test_each_preset_trains_on_a_small_folder(workplace, monkeypatch, capsys, kind, size):
    with_tiny_reader(monkeypatch, f"{kind}-{size}")
    monkeypatch.setattr(cards, "GRID_SAMPLES", 1)
    (workplace / "mine").mkdir()
    data = ["--data", "mine", *LAYOUTS[kind](workplace / "mine")]
    run = ["train", "--preset", f"{kind}-{size}", *data, "--batch_size", 2, "--out", "run"]
    assert course(*run, "--steps", 1) == 0, capsys.readouterr().err
    model = TextToImage.from_pretrained(workplace / "run" / "model")
    assert model.sample(["a red circle"], 1).shape == (1, 3, size, size)
    card = (workplace / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert '--data "mine"' in card and "| heldout " in card and "their licence says" in card


def test_a_run_on_a_folder_goes_on_with_it(workplace, monkeypatch, capsys):
    with_tiny_reader(monkeypatch, "cub-64")
    (workplace / "mine").mkdir()
    birds(workplace / "mine")
    run = ["train", "--preset", "cub-64", "--data", "mine", "--batch_size", 4, "--out", "run"]
    assert course(*run, "--steps", 1) == 0
    assert course("train", "--resume", "run", "--steps", 2) == 0, capsys.readouterr().err
    assert course("train", "--resume", "run", "--data", "mine") == 2
    assert "leave out --data" in capsys.readouterr().err
    assert course("evaluate", "--model", "run/model") == 0, "what it was trained on is found again"


def test_a_folder_is_asked_for_and_only_by_presets_that_draw_one(workplace, capsys):
    for name in ("cub-64", "shapes-32"):
        (workplace / "mine").mkdir(exist_ok=True)
        with_folder = [] if name == "cub-64" else ["--data", "mine"]
        assert course("train", "--preset", name, *with_folder, "--dry-run") == (0 if name == "cub-64" else 2)
    assert "those for a folder: cub-64, " in capsys.readouterr().err


def test_without_its_folder_a_preset_says_how_to_name_it(workplace, monkeypatch, capsys):
    with_tiny_reader(monkeypatch, "coco-64")
    assert course("train", "--preset", "coco-64") == 2
    assert "name their folder: --data FOLDER" in capsys.readouterr().err
    assert not (workplace / "runs").exists()


def test_a_folder_that_is_too_small_is_told_before_the_training(workplace, monkeypatch, capsys):
    with_tiny_reader(monkeypatch, "cub-64")
    (workplace / "mine").mkdir()
    birds(workplace / "mine")
    for i in range(20, PICTURES):
        (workplace / "mine" / f"{i:03}.jpg").unlink()
    assert course("train", "--preset", "cub-64", "--data", "mine", "--batch_size", 2) == 2
    told = capsys.readouterr().err
    assert 'folder="mine" has ' in told and "give at least 2 (--batch_size) and 4" in told
    assert not (workplace / "runs").exists()


def test_a_picture_with_several_captions_is_kept_once(tmp_path):
    birds(tmp_path)
    pictures = CaptionedFolder(tmp_path, 16, "all")
    reader = TextToImage.from_pretrained("shapes-32")
    data = embed(pictures, reader.text_encoder, reader.tokenizer, torch.device("cpu"))
    assert len(data.images) == PICTURES and len(data.texts) == 2 * PICTURES == len(data.shown)
    kept = data.images[data.shown].float() / 127.5 - 1
    assert (kept - pictures.images(range(len(pictures)))).abs().max() <= 1 / 127.5 + 1e-6


def test_another_caption_of_the_same_picture_is_not_wrong():
    """Two pictures with eight captions each: neighbours in a batch often show the same one."""
    texts = torch.randn(16, 5)
    images = torch.stack([torch.full((3, 16, 16), value, dtype=torch.uint8) for value in (0, 255)])
    data = EmbeddedPictures(images, texts, torch.zeros(5), shown=torch.arange(16) % 2)
    batch = data.batch(64, 0.0, 0.0, torch.Generator().manual_seed(0))
    shown = batch.images[:, 0, 0, 0]
    assert torch.equal(batch.wrong, shown != shown.roll(1, 0)) and 0 < batch.wrong.sum() < 64
    row = (batch.texts[:, None] == texts).all(2).int().argmax(1)
    assert torch.equal(shown > 0, row % 2 == 1), "each caption has its own picture"


# ---- the dry run


def test_a_dry_run_tells_what_is_needed_and_writes_nothing(workplace, capsys):
    assert course("train", "--preset", "coco-64", "--batch_size", 8, "--steps", 1000, "--dry-run") == 0
    told = capsys.readouterr().out
    assert "1,000 steps of 8 pictures: each of 82,783 is shown 0 times." in told
    assert "1.0 GB for the pictures" in told and "a rented H100" in told
    assert not list(workplace.iterdir())
    assert course("train", "--preset", "judge-32", "--dry-run") == 2
    assert "no text-to-image GAN" in capsys.readouterr().err


def test_a_dry_run_counts_the_pictures_of_a_folder_once(tmp_path):
    birds(tmp_path)
    preset = folder_preset("cub", 64)
    own = replace(preset, data=replace(preset.data, folder=str(tmp_path)))
    assert pictures_in(preset) == 11_788 and 0.8 * PICTURES < pictures_in(own) < PICTURES
    assert pictures_in(get_preset("shapes-32")) == 20_000


def test_the_most_memory_is_that_of_one_time():
    x = torch.ones(1000, requires_grad=True)

    def run() -> None:
        first = x * 2  # 4,000 bytes
        second = first.view(10, 100) + 1  # and 4,000 more; the view is no new memory
        del first, second
        (x * 3).sum()

    assert peak_bytes_of(run) == 8000
    assert peak_bytes_of(lambda: [x * 2, x * 3, x * 4]) == 12_000
