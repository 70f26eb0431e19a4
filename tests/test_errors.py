"""Bad input is told in one line that names argument, value and remedy; exit code 2; nothing is written or changed."""

import io
import json
import os
import shutil
import struct
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny import tiny_model, tiny_preset

from course_lib import cli, long_recipes, presets
from course_lib.checkpoint import find_checkpoint
from course_lib.cli import MAX_FILE_BYTES, main
from course_lib.errors import CourseError, nearest
from course_lib.runs import choose_device, writable_folder
from course_lib.text_gan import GeneratorConfig
from course_lib.training import train as train_loop

ROOT = Path(__file__).parents[1]
PROMPT = "a small red circle at the center on gray"


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder to work in with one file in it, and checkpoints of its own."""
    home = tmp_path / "checkpoints"
    tiny_model().save_pretrained(home / "tiny")
    shutil.copytree(find_checkpoint("judge-32"), home / "judge-32")
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(home))
    monkeypatch.setitem(presets.PRESETS, "tiny-gan", tiny_preset())
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    Path("file").write_text("precious", encoding="utf-8")
    return tmp_path


@pytest.fixture
def refuse(workplace, capsys):
    """Run `course` with bad arguments, check what is true of every refusal, and return the message."""

    def everything() -> dict[str, bytes | None]:
        paths = sorted(workplace.rglob("*"))
        return {str(path): path.read_bytes() if path.is_file() else None for path in paths}

    def run(*arguments: object) -> str:
        before = everything()
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as ended:  # argparse
            code = ended.code
        told = capsys.readouterr()
        assert code == 2, f"exit code {code}; {told.out}"
        lines = told.err.rstrip("\n").split("\n")
        assert len(lines) == 1 and lines[0].startswith("course: "), told.err
        assert "Done" not in told.out and "PNGs" not in told.out
        assert everything() == before, "something was written"
        return lines[0]

    return run


def generate(refuse, *arguments: object) -> str:
    return refuse("generate", PROMPT, "--model", "tiny", *arguments)


# ---- options


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ([], "required: COMMAND"),
        (["genrate"], "invalid choice: 'genrate'"),
        (["train"], "--preset --resume is required"),
        (["train", "--preset", "x", "--resume", "y"], "not allowed with"),
        (["generate", "x", "--device", "gpu"], "--device: invalid choice: 'gpu'"),
        (["generate", "x", "--n_samples", "many"], "--n_samples: invalid int value: 'many'"),
        (["generate", "x", "--n_samples", "1e3"], "--n_samples: invalid int value: '1e3'"),
        (["generate", "x", "--guidance_scale", "5,0"], "--guidance_scale: invalid float value: '5,0'"),
        (["generate", "x", "--guidence_scale", "5"], "unrecognized arguments: --guidence_scale"),
        (["evaluate", "--split", "test"], "--split: invalid choice: 'test'"),
        (["evaluate", "--n", "nan"], "--n: invalid int value: 'nan'"),
        (["demo", "--seconds", "soon"], "--seconds: invalid float value: 'soon'"),
    ],
)
def test_a_wrong_option_is_told_in_one_line_too(refuse, arguments, told):
    message = refuse(*arguments)
    assert told in message and message.endswith("--help")


@pytest.mark.parametrize("seconds", ["0", "-5", "nan", "inf", "1e99"])
def test_seconds_of_the_demo(refuse, seconds):
    assert f"seconds={float(seconds)} is out of range; use 1 to 86400" in refuse("demo", "--seconds", seconds)


def test_the_demo_cannot_write_into_a_file(refuse, monkeypatch):
    monkeypatch.delenv("COURSE_CHECKPOINTS")  # the shipped models
    assert '"file" cannot be written to' in refuse("demo", "--out", "file")


def test_the_demo_misses_its_models_before_it_writes(refuse):
    assert 'no checkpoint "shapes-32"' in refuse("demo")


# ---- prompts


@pytest.mark.parametrize("prompt", ["", "   ", "\n", "\u200b", "　"])
def test_an_empty_prompt(refuse, prompt):
    assert 'is empty; say what to draw, such as "a small red circle"' in refuse("generate", prompt, "--model", "tiny")


def test_no_prompt(refuse):
    assert "there is no prompt; say what to draw" in refuse("generate", "--model", "tiny")


def test_a_prompt_that_is_too_long_is_not_cut_in_silence(refuse):
    message = refuse("generate", "y" * 126 + "zebra", "--model", "tiny")
    assert 'the limit is 126: "zebra" would be cut; shorten the text' in message


def test_a_prompt_and_a_file_of_prompts(refuse):
    Path("prompts.txt").write_text(PROMPT, encoding="utf-8")
    assert "a prompt and --texts were both given; choose one" in generate(refuse, "--texts", "prompts.txt")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "No such file"),
        (b"", "has no prompt; write one a line"),
        (b" \n\r\n\t\n", "has no prompt; write one a line"),
        ("Größe".encode("latin-1"), "give a text file in UTF-8"),
        ("a red circle".encode("utf-16"), "give a text file in UTF-8"),
        (b"a red circle\n" * (MAX_FILE_BYTES // 10), "is longer than 10,000,000 bytes"),
        (b"a red circle\n\xe2\x80\x8b\n", "is empty"),
    ],
)
def test_a_file_of_prompts(refuse, data, told):
    if data is not None:
        Path("prompts.txt").write_bytes(data)
    assert told in refuse("generate", "--texts", "prompts.txt", "--model", "tiny")


def test_a_folder_is_no_file_of_prompts(refuse):
    assert 'texts="." cannot be read' in refuse("generate", "--texts", ".", "--model", "tiny")


# ---- numbers


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_samples", 0),
        ("n_samples", -1),
        ("n_samples", 10**8),
        ("n_samples", 10**40),
        ("steps_per_sample", -1),
        ("steps_per_sample", 10**9),
        ("guidance_scale", "nan"),
        ("guidance_scale", "inf"),
        ("guidance_scale", "-1"),
        ("guidance_scale", "1e300"),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", 10**40),
    ],
)
def test_numbers_of_generate(refuse, option, value):
    message = generate(refuse, f"--{option}={value}")
    assert f"{option}=" in message and ("use 0 to" in message or "use 1 to" in message or "of type float" in message)


def test_more_pictures_than_fit_into_memory(refuse):
    Path("prompts.txt").write_text("a red circle\n" * 1000, encoding="utf-8")
    message = refuse("generate", "--texts", "prompts.txt", "--model", "tiny", "--n_samples", 10_000)
    assert "n_samples=10000 for 1,000 prompts: ask for at most 81,380 pictures at once" in message


@pytest.mark.parametrize(
    ("option", "value"), [("n", 0), ("n", 10**9), ("seed", -1), ("seed", 10**40), ("guidance_scale", "nan")]
)
def test_numbers_of_evaluate(refuse, option, value):
    assert f"{option}={value} is out of range; use" in refuse("evaluate", "--model", "tiny", f"--{option}={value}")


def test_a_sweep_has_steps_and_scales_of_its_own(refuse):
    message = refuse("evaluate", "--model", "tiny", "--sweep", "--guidance_scale", 2)
    assert "leave out --steps_per_sample, --guidance_scale" in message


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("steps", 0),
        ("batch_size", -4),
        ("learning_rate", "nan"),
        ("learning_rate", "inf"),
        ("learning_rate", 0),
        ("learning_rate", 10),
        ("r1_weight", "nan"),
        ("mse_weight", "inf"),
        ("text_dropout", 2),
        ("average_decay", -0.5),
        ("checkpoint_every", 0),
    ],
)
def test_numbers_of_train(refuse, option, value):
    assert f"{option}=" in refuse("train", "--preset", "tiny-gan", "--out", "run", f"--{option}={value}")


def test_a_setting_that_a_preset_does_not_have(refuse):
    message = refuse("train", "--preset", "judge-32", "--out", "run", "--checkpoint_every", 5)
    assert 'unknown key "checkpoint_every"' in message and "batch_size, learning_rate, seed, steps" in message


# ---- pictures


def png_of(width: int, height: int, data: bytes = b"") -> bytes:
    """A PNG that claims to be so large, and holds only `data`."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")


def real_png() -> bytes:
    picture = Image.effect_noise((64, 48), 90)
    picture.save(buffer := io.BytesIO(), "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (None, "No such file"),
        (b"", "no picture of a known format"),
        (b"this is a text, whatever its name says", "no picture of a known format"),
        (real_png()[:-900], "cannot be read"),
        (real_png()[:40], "cannot be read"),
        (png_of(60_000, 60_000), "3600000000 pixels"),
        (png_of(9_000, 9_000), "9000 x 9000 pixels are too many"),
        (png_of(8, 8), "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known format"),
    ],
    ids="missing empty text half head bomb large hollow postscript".split(),
)
def test_a_picture_to_begin_from(refuse, data, told):
    if data is not None:
        Path("start.png").write_bytes(data)
    message = generate(refuse, "--image", "start.png")
    assert 'image "start.png" cannot be read' in message and told in message and "use a whole PNG" in message


def test_a_mask_needs_a_picture_and_must_be_one(refuse):
    Path("real.png").write_bytes(real_png())
    assert "mask goes with an image" in generate(refuse, "--mask", "real.png")
    assert 'image "file" cannot be read' in generate(refuse, "--image", "real.png", "--mask", "file")


def test_a_folder_is_no_picture(refuse):
    assert 'image "." cannot be read' in generate(refuse, "--image", ".")


# ---- settings in YAML


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("n_samples: four", "n_samples='four' is not of type int"),
        ("n_samples: 2.5", "n_samples=2.5 is not of type int"),
        ("n_samples: true", "n_samples=True is not of type int"),
        ("n_samples:", "n_samples=None is not of type int"),
        ("guidance_scale: .nan", "guidance_scale=nan is not of type float"),
        ("save_samples: 1", "save_samples=1 is not of type bool"),
        ("save_path: [a]", "save_path=['a'] is not of type str"),
        ("n_sample: 4", 'unknown key "n_sample"; did you mean "n_samples"?'),
        ("image_size: 64", "image_size=64, but tiny has 32; leave it out"),
        ("z_size: 128", "z_size=128, but tiny has 8; leave it out"),
        ("batch_size: 0", "batch_size=0 is out of range; use 1 to 10000"),
        ("device: gpu", 'device="gpu" is unknown; use auto, cpu or cuda'),
        ("image: nowhere.png", 'image "nowhere.png" cannot be read'),
        ('save_path: "a\\0b"', "cannot be written to"),
        ('image: "a\\0b"', "cannot be read"),
        ("a: [1", 'config="c.yaml" is not YAML'),
        ("\tx: 1", 'config="c.yaml" is not YAML'),
        ("seed: 2024-13-45", "is not YAML (month must be in 1..12)"),
        ("seed: !!bool x", "is not YAML"),
        ("seed: !!timestamp x", "is not YAML"),
        ("seed: !!python/object/apply:os.system [echo]", "is not YAML"),
        ("n_samples: " + "9" * 5000, "is not YAML"),
        ("[" * 2000, "is not YAML"),
        ("- n_samples", "does not hold keys and values"),
        ("just words", "does not hold keys and values"),
        ("", "does not hold keys and values"),
        ("1: 2", "does not hold keys and values"),
    ],
)
def test_a_file_of_settings(refuse, text, told):
    Path("c.yaml").write_text(text, encoding="utf-8")
    assert told in generate(refuse, "--config", "c.yaml")


@pytest.mark.parametrize(("data", "told"), [(None, "No such file"), (b"\xff\xfe\x00", "give a text file in UTF-8")])
def test_a_file_of_settings_that_cannot_be_read(refuse, data, told):
    if data is not None:
        Path("c.yaml").write_bytes(data)
    message = generate(refuse, "--config", "c.yaml")
    assert 'config="c.yaml" cannot be read' in message and told in message


# ---- models, presets, devices


def test_the_nearest_model_and_preset_are_suggested(refuse):
    assert 'no checkpoint "tinny" by name or path; did you mean "tiny"?' in refuse("evaluate", "--model", "tinny")
    assert 'did you mean "tiny"?' in refuse("generate", PROMPT, "--model", "tinny")
    message = refuse("train", "--preset", "shapes-33", "--out", "run")
    assert 'preset="shapes-33" is unknown; did you mean "shapes-32"?' in message


def test_models_of_another_kind(refuse):
    assert "holds a judge checkpoint" in refuse("generate", PROMPT, "--model", "judge-32")
    assert "holds a judge checkpoint" in refuse("evaluate", "--model", "judge-32")


def test_damaged_models(refuse, workplace):
    weights = workplace / "checkpoints" / "tiny" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    assert "is truncated" in generate(refuse)
    weights.unlink()
    assert "has no model.safetensors" in generate(refuse)


def test_an_absurd_model(refuse, workplace):
    path = workplace / "checkpoints" / "tiny" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["generator"]["width"] = 10**9
    path.write_text(json.dumps(config), encoding="utf-8")
    assert "width=1000000000 is" in generate(refuse)


@pytest.mark.parametrize(
    "command", [["generate", PROMPT, "--model", "tiny"], ["evaluate", "--model", "tiny"], ["demo"]]
)
def test_a_device_that_is_not_there(refuse, monkeypatch, command):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device=cuda, but this torch sees no CUDA device; use device=cpu" in refuse(*command, "--device", "cuda")


def test_training_on_a_device_that_is_not_there(refuse, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "device=cuda" in refuse("train", "--preset", "tiny-gan", "--out", "run", "--device", "cuda")


def test_auto_takes_what_is_there(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device("auto") == choose_device("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto") == choose_device("cuda") == torch.device("cuda")
    assert choose_device("cpu") == torch.device("cpu")


# ---- folders


@pytest.mark.parametrize("folder", ["file", "file/below", "x" * 300])
def test_pictures_cannot_be_saved_there(refuse, folder):
    message = generate(refuse, "--save_path", folder)
    assert f'"{Path(folder)}" cannot be written to' in message and "choose another folder" in message


@pytest.mark.skipif(
    os.name == "nt" or not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere"
)
def test_a_read_only_folder(refuse, workplace):
    folder = workplace / "work" / "locked"
    folder.mkdir(mode=0o500)
    assert "cannot be written to" in generate(refuse, "--save_path", "locked")


def test_a_full_disk(workplace, monkeypatch, capsys):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("course_lib.images.os.replace", full)
    assert main(["generate", PROMPT, "--model", "tiny"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not list(Path("samples").iterdir()), "nothing half written is left"


def test_proving_that_one_can_write_leaves_no_trace(tmp_path):
    assert writable_folder(tmp_path / "a" / "b").is_dir()
    assert not list((tmp_path / "a" / "b").iterdir())


# ---- runs


def train(refuse, *arguments: object) -> str:
    return refuse("train", "--preset", "tiny-gan", *arguments)


def test_a_run_folder_that_holds_something(refuse):
    Path("photos").mkdir()
    Path("photos/metrics.jsonl").write_text("precious", encoding="utf-8")
    assert 'out="photos" is not empty; choose a new folder' in train(refuse, "--out", "photos")
    assert "is not empty" in train(refuse, "--out", ".")


def test_a_run_folder_with_a_file_in_its_way(refuse):
    assert '"file" cannot be written to' in train(refuse, "--out", "file")
    assert "cannot be written to" in train(refuse, "--out", "file/run")


@pytest.mark.parametrize("missing", ["tiny", "judge-32"])
def test_what_a_preset_builds_on_is_missed_before_the_training(refuse, workplace, missing):
    shutil.rmtree(workplace / "checkpoints" / missing)
    assert f'no checkpoint "{missing}"' in train(refuse, "--out", "run")


def test_a_resumed_run_keeps_its_settings(refuse):
    message = refuse("train", "--resume", "run", "--learning_rate", 0.1, "--out", "x")
    assert "--resume goes on with the run's own settings; leave out --learning_rate, --out" in message


def test_there_is_nothing_to_resume(refuse):
    for folder in ("nowhere", ".", "file"):
        assert f'resume="{folder}" holds no run' in refuse("train", "--resume", folder)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        "[" * 100_000,
        '{"preset": "tiny-gan"}',
        '{"preset": "tiny-gan", "train": 5}',
        '{"preset": ["tiny-gan"], "train": {}}',
        '{"preset": "tiny-gam", "train": {}}',
        '{"preset": "tiny-gan", "train": {"steps": "many"}}',
        '{"preset": "tiny-gan", "train": {"steps": 0}}',
        '{"preset": "tiny-gan", "train": {"step": 5}}',
        "\xff",
    ],
)
def test_a_damaged_run_file(refuse, text):
    Path("run").mkdir()
    Path("run/run.json").write_bytes(text.encode("latin-1"))
    assert 'resume="run" holds no run (run.json: ' in refuse("train", "--resume", "run")


@pytest.fixture
def stopped(workplace, monkeypatch, capsys):
    """A run of the preset tiny-gan that was stopped after three of six steps."""

    def three_steps(trainer, *arguments, stop, **options):
        train_loop(trainer, *arguments, stop=lambda: trainer.steps_done == 3, **options)

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(long_recipes, "train", three_steps)
        main(["train", "--preset", "tiny-gan", "--out", "run", "--device", "cpu"])
    capsys.readouterr()
    return Path("run")


def resume(capsys) -> str:
    assert main(["train", "--resume", "run", "--device", "cpu"]) == 2
    assert not Path("run/model").exists()
    last = capsys.readouterr().err.rstrip("\n").split("\n")[-1]
    assert last.startswith("course: ")
    return last


def test_the_state_of_another_run(stopped, monkeypatch, capsys):
    settings = json.loads((stopped / "run.json").read_text(encoding="utf-8"))
    other = replace(tiny_preset(), generator=GeneratorConfig(32, 8, 16, 8, width=6))
    monkeypatch.setitem(presets.PRESETS, "other", other)
    (stopped / "run.json").write_text(json.dumps({**settings, "preset": "other"}), encoding="utf-8")
    assert "another architecture" in resume(capsys)


def test_a_truncated_state(stopped, capsys):
    weights = stopped / "checkpoints" / "last" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:999])
    assert "is truncated" in resume(capsys)


def test_a_model_is_no_state(stopped, workplace, capsys):
    shutil.rmtree(stopped / "checkpoints" / "last")
    shutil.copytree(workplace / "checkpoints" / "tiny", stopped / "checkpoints" / "last")
    assert "is no training state" in resume(capsys)


def test_a_training_that_diverges_is_told_without_a_traceback(workplace, monkeypatch, capsys):
    monkeypatch.setattr("course_lib.training.MOST_SKIPPED", 2)
    monkeypatch.setattr("course_lib.training.discriminator_loss", lambda real, *_: real.sum() * float("nan"))
    assert main(["train", "--preset", "tiny-gan", "--out", "run", "--device", "cpu"]) == 2
    told = capsys.readouterr().err
    assert "course: step 2: 3 updates in a row were left out, because the gradient of discriminator." in told
    assert "(loss nan) was not finite; go back to the last checkpoint, with a smaller learning_rate" in told


# ---- the program around it


def test_defects_keep_their_traceback(workplace, monkeypatch):
    """Only bad input is told in one line: whoever mends a defect needs to see where it is."""

    def broken(*_):
        raise RuntimeError("a defect")

    monkeypatch.setitem(cli.COMMANDS, "demo", broken)
    with pytest.raises(RuntimeError, match="a defect"):
        main(["demo"])


def test_ctrl_c_anywhere_ends_with_130(workplace, monkeypatch, capsys):
    def pressed(*_):
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.COMMANDS, "demo", pressed)
    assert main(["demo"]) == 130 and "Stopped." in capsys.readouterr().err


def test_the_exit_code_reaches_the_shell(workplace):
    command = [sys.executable, "-m", "course_lib", "generate", "", "--model", "tiny"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    told = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert told.returncode == 2 and told.stderr.startswith("course: the prompt '' is empty") and not told.stdout
    assert not Path("samples").exists()


def test_a_course_error_is_a_value_error_and_the_nearest_name_is_found():
    assert issubclass(CourseError, ValueError)
    assert nearest("shape-32", ["shapes-32", "judge-32"]).startswith(
        'did you mean "shapes-32"? Known: judge-32, shapes'
    )
    assert nearest("zzz", ["shapes-32"]) == "Known: shapes-32"
    assert nearest("zzz", []) == "Known: none"
