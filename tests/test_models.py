"""Which models are shipped, what each knows, and what the report makes of them."""

import json
import shutil

import pytest
import torch
from tiny import tiny_model

from course_lib import report
from course_lib.checkpoint import checkpoints_folder, find_checkpoint
from course_lib.cli import main
from course_lib.diffusion import DiffusionTextToImage
from course_lib.errors import CourseError
from course_lib.models import load_model, shipped_configs, who_knows
from course_lib.provenance import read_provenance
from course_lib.text_to_image import TextToImage
from course_lib.unet import DiffusionConfig, UNet

MARKS = {
    "seed": 0,
    "accuracy": {"English": {"all": 0.875}},
    "pairs": {"English": {"all": 0.5}},
    "diversity": 0.75,
    "realism": {"kernel_distance": [0.125, 0.1, 0.2]},
}


def tiny_diffusion() -> DiffusionTextToImage:
    model = tiny_model()
    torch.manual_seed(0)
    unet = UNet(DiffusionConfig(32, 16, width=8))
    return DiffusionTextToImage(unet, None, model.text_encoder, model.tokenizer, ["red", "rocket"])


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder of checkpoints: a GAN, a diffusion model, a judge, and something broken."""
    folder = tmp_path / "checkpoints"
    shutil.copytree(find_checkpoint("judge-32"), folder / "judge-32")
    tiny_model().save_pretrained(folder / "shapes-32")
    tiny_diffusion().save_pretrained(folder / "shapes-32-diffusion")
    for name in ("shapes-32", "shapes-32-diffusion"):
        (folder / name / "marks.json").write_text(json.dumps(MARKS), encoding="utf-8")
    (folder / "broken").mkdir()
    (folder / "broken" / "config.json").write_text("{", encoding="utf-8")
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(folder))
    return folder


def test_models_of_every_kind_are_found_and_loaded(home):
    assert list(shipped_configs()) == ["shapes-32", "shapes-32-diffusion"]
    assert isinstance(load_model("shapes-32"), TextToImage)
    assert isinstance(load_model("shapes-32-diffusion"), DiffusionTextToImage)
    with pytest.raises(CourseError, match="holds a judge checkpoint"):
        load_model("judge-32")


def test_a_model_that_knows_the_words_is_named(home, tmp_path, capsys):
    assert who_knows(["red", "rocket"]) == ["shapes-32-diffusion"] and who_knows(["red", "unicorn"]) == []
    arguments = ["generate", "red rocket", "--model", "shapes-32", "--n_samples", "1", "--save_path", str(tmp_path)]
    assert main(arguments) == 0
    told = capsys.readouterr().err
    assert 'shapes-32 has never read "rocket"' in told and "--model shapes-32-diffusion" in told


def test_generate_draws_with_a_diffusion_model_too(home, tmp_path, capsys):
    common = ["generate", "red", "--model", "shapes-32-diffusion", "--n_samples", "1", "--save_path", str(tmp_path)]
    assert main([*common, "--steps_per_sample", "2"]) == 0
    assert len(list(tmp_path.glob("*.png"))) == 2
    picture = str(next(tmp_path.glob("0*.png")))
    assert main([*common, "--image", picture, "--mask", picture]) == 2
    assert "mask is given, but shapes-32-diffusion" in capsys.readouterr().err
    assert main([*common, "--truncation", "0.5"]) == 2
    assert "truncation is given, but shapes-32-diffusion cannot shrink its noise; use a GAN" in capsys.readouterr().err
    settings = tmp_path / "sample.yaml"
    settings.write_text("z_size: 64\n", encoding="utf-8")
    assert main([*common, "--config", str(settings)]) == 2
    assert "z_size=64, but shapes-32-diffusion has none" in capsys.readouterr().err


def test_the_report_puts_all_side_by_side(home, monkeypatch):
    monkeypatch.setattr(report, "TIMED_BATCHES", (1, 2))
    monkeypatch.setattr(report, "DUEL_SETTINGS", {"shapes-32": ((0, 1.0),), "shapes-32-diffusion": ((1, 1.0),)})
    monkeypatch.setattr("course_lib.evaluation.DIVERSITY_CAPTIONS", 2)
    out = home.parent / "RESULTS.md"
    report.write_report(out, 4, torch.device("cpu"))
    text = out.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| shapes-32")]
    assert len(rows) == 4 and all("87.5 % / 50.0 %" in row and "0.125" in row for row in rows[:2])
    assert "ms at 2" in text and "course report --n 4" in text and "Equal training" not in text


def test_the_report_shows_the_log_of_training_compute(tmp_path):
    row = {"preset": "shapes-32", "steps": 10, "batch_size": 48, "flops": 5 * 10**12, "all": 0.5, "diversity": 1.0}
    (tmp_path / "compute.json").write_text(json.dumps([row]), encoding="utf-8")
    (told,) = report.compute_rows(tmp_path / "compute.json")
    assert told["10^12 FLOP"] == 5 and told["all"] == "50.0 %" and told["batch"] == 48


def test_a_report_without_marks_says_how_to_get_them(home):
    (home / "shapes-32" / "marks.json").unlink()
    with pytest.raises(CourseError, match="course evaluate --model shapes-32 --card"):
        report.row_of("shapes-32", torch.device("cpu"))


def test_every_shipped_model_has_card_marks_and_grid():
    for name in shipped_configs():
        folder = checkpoints_folder() / name
        assert {"README.md", "marks.json", "samples.png"} <= {path.name for path in folder.iterdir()}, name
        card = (folder / "README.md").read_text(encoding="utf-8")
        assert "Licence" in card and f"--preset {name}" in card and "Wh" in card, name
    total = sum(path.stat().st_size for path in checkpoints_folder().rglob("*") if path.is_file())
    assert total <= 60_000_000


def test_the_notes_hold_the_models_own_settings_where_none_were_given(home, tmp_path):
    arguments = ["generate", "red", "--model", "shapes-32", "--n_samples", "1", "--save_path", str(tmp_path)]
    assert main(arguments) == 0
    settings = json.loads(read_provenance(next(tmp_path.glob("0*.png")))["Settings"])
    assert settings["steps_per_sample"] == 0 and settings["guidance_scale"] == 1.0
