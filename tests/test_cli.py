"""The command line as one uses it: what it prints, what it writes, and that help does not wait for torch."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml
from PIL import Image

from course_lib import demo, evaluation, long_recipes, presets
from course_lib.cli import COMMANDS, main
from course_lib.generate import slug
from course_lib.images import from_uint8
from course_lib.text_to_image import TextToImage

ROOT = Path(__file__).parents[1]
PROMPT = "a small red circle at the center on gray"
CHINESE = "灰色背景上，中间有一个小的红色圆形"


def course(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def run(*arguments: str, **options) -> subprocess.CompletedProcess:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def read(path: Path) -> torch.Tensor:
    return from_uint8(np.array(Image.open(path))).permute(2, 0, 1)


# ---- help


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], *([command, "--help"] for command in COMMANDS)])
def test_help_is_there_and_does_not_load_torch(arguments):
    code = (
        "import sys\nfrom course_lib.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(sorted({'torch', 'numpy', 'PIL', 'yaml', 'matplotlib'} & set(sys.modules)))"
    )
    told = run("-c", code, *arguments)
    assert told.returncode == 0 and not told.stderr
    assert told.stdout.endswith("[]\n") and ("usage: course" in told.stdout or "words-to-pixels" in told.stdout)


def test_the_module_is_the_command():
    told = run("-m", "course_lib", "--help")
    assert told.returncode == 0 and all(command in told.stdout for command in COMMANDS)


# ---- generate


def test_generate_writes_each_picture_and_a_grid_that_say_what_they_show(workplace, capsys):
    assert course("generate", PROMPT, "--n_samples", 3, "--seed", 5, "--save_path", "out", "--device", "cpu") == 0
    stem = "a-small-red-circle-at-the-center-on-gray-seed5"
    assert names(workplace / "out") == [*(f"01-{stem}-0{i}.png" for i in (1, 2, 3)), f"grid-{stem}.png"]
    expected = TextToImage.from_pretrained("shapes-32").sample(PROMPT, 3, seed=5)
    for i, picture in enumerate(expected, 1):
        assert (read(workplace / "out" / f"01-{stem}-0{i}.png") - picture).abs().max() <= 1 / 255 + 1e-5
    for path in (workplace / "out").iterdir():
        assert Image.open(path).text["Description"] == PROMPT
    with Image.open(workplace / "out" / f"grid-{stem}.png") as grid:
        assert grid.size == (3 * 34 + 2, 34 + 2)
    told = capsys.readouterr()
    assert "3 pictures in" in told.out and "3 PNGs and their grid are in out" in told.out and not told.err


def test_the_keys_of_the_article_are_understood(workplace):
    keys = {
        "model_path": "tiny",
        "image_size": 32,
        "z_size": 8,
        "batch_size": 2,
        "n_samples": 2,
        "steps_per_sample": 3,
        "guidance_scale": 5,
        "save_samples": True,
        "save_path": "drawn",
    }
    Path("sample.yaml").write_text(yaml.safe_dump(keys), encoding="utf-8")
    assert course("generate", PROMPT, "--config", "sample.yaml") == 0
    paths = sorted((workplace / "drawn").iterdir())
    assert len(paths) == 3
    expected = TextToImage.from_pretrained("tiny").sample(PROMPT, 2, 3, 5.0)
    assert (torch.stack([read(path) for path in paths[:2]]) - expected).abs().max() < 0.02


def test_truncation_is_an_option_and_a_key_and_stands_in_the_notes(workplace):
    Path("sample.yaml").write_text("truncation: 0.5\nmodel_path: tiny\nn_samples: 1\n", encoding="utf-8")
    for folder, options in {"key": [], "option": ["--truncation", 0.25], "none": ["--truncation", 1]}.items():
        assert course("generate", PROMPT, "--config", "sample.yaml", *options, "--save_path", folder) == 0
    model = TextToImage.from_pretrained("tiny")
    for folder, truncation in {"key": 0.5, "option": 0.25, "none": 1.0}.items():
        picture = next((workplace / folder).glob("01-*.png"))
        assert (read(picture) - model.sample(PROMPT, 1, truncation=truncation)[0]).abs().max() <= 1 / 255 + 1e-5
        assert json.loads(Image.open(picture).text["Settings"])["truncation"] == truncation


@pytest.mark.parametrize("options", [["--truncation", 2], ["--truncation", 0.5, "--image", "start.png"]])
def test_a_truncation_that_cannot_be_is_refused(workplace, capsys, options):
    Image.new("RGB", (32, 32), "navy").save("start.png")
    assert course("generate", PROMPT, "--model", "tiny", *options) == 2
    assert capsys.readouterr().err.startswith(f"course: truncation={float(options[1])} is ")
    assert not (workplace / "samples").exists()


def test_options_win_over_the_file(workplace):
    keys = {"texts": [CHINESE], "model_path": "nowhere", "n_samples": 9, "save_path": "drawn", "guidance_scale": 2.0}
    Path("sample.yaml").write_text(yaml.safe_dump(keys, allow_unicode=True), encoding="utf-8")
    options = ["--model", "tiny", "--n_samples", 1, "--save_path", "elsewhere", "--guidance_scale", 1]
    assert course("generate", PROMPT, "--config", "sample.yaml", *options) == 0
    assert names(workplace / "elsewhere") == [f"01-{slug(PROMPT)}-seed0-01.png", f"grid-{slug(PROMPT)}-seed0.png"]
    assert not (workplace / "drawn").exists()
    expected = TextToImage.from_pretrained("tiny").sample(PROMPT, 1)[0]
    assert (read(workplace / "elsewhere" / f"01-{slug(PROMPT)}-seed0-01.png") - expected).abs().max() < 0.02


def test_the_file_may_hold_the_prompts(workplace):
    Path("sample.yaml").write_text(f"texts: [{PROMPT}, {CHINESE}]\nn_samples: 1\nmodel_path: tiny\n", encoding="utf-8")
    assert course("generate", "--config", "sample.yaml") == 0
    assert len(names(workplace / "samples")) == 3


def test_save_samples_false_writes_nothing(workplace, capsys):
    Path("sample.yaml").write_text("save_samples: false\nmodel_path: tiny\n", encoding="utf-8")
    assert course("generate", PROMPT, "--config", "sample.yaml") == 0
    assert names(workplace) == ["sample.yaml"] and "4 pictures" in capsys.readouterr().out


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_prompts_come_from_a_text_file_of_any_editor(workplace, mark, newline):
    lines = [PROMPT, "", "  " + CHINESE + "  ", PROMPT]
    Path("prompts.txt").write_bytes((mark + newline.join(lines)).encode("utf-8"))
    assert course("generate", "--texts", "prompts.txt", "--model", "tiny", "--n_samples", 2) == 0
    paths = sorted((workplace / "samples").glob("0*.png"))
    prompts = [PROMPT, PROMPT, CHINESE, CHINESE, PROMPT, PROMPT]
    assert [Image.open(path).text["Description"] for path in paths] == prompts, "no picture was written over"


def test_prompts_whose_names_are_alike_do_not_overwrite_each_other(workplace):
    prompts = [
        "a red ring",
        "a red ring!",
        "A RED ring",
        "a red ring " + "on gray " * 8,
        "a red ring " + "on gray " * 9,
    ]
    Path("prompts.txt").write_text("\n".join(prompts), encoding="utf-8")
    assert course("generate", "--texts", "prompts.txt", "--model", "tiny", "--n_samples", 1) == 0
    paths = sorted((workplace / "samples").glob("0*.png"))
    assert [Image.open(path).text["Description"] for path in paths] == [prompt.strip() for prompt in prompts]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A small RED circle!", "a-small-red-circle"),
        (CHINESE, "灰色背景上-中间有一个小的红色圆形"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\con.txt:x", "c-con-txt-x"),
        ("❤?*|<>", "prompt"),
        ("x" * 60, "x" * 40),
        ("x" * 39 + " y", "x" * 39),
        ("snake_case", "snake-case"),
    ],
)
def test_a_slug_is_a_safe_part_of_a_file_name(text, expected):
    assert slug(text) == expected


def test_unknown_words_are_warned_of_and_drawn_all_the_same(workplace, capsys):
    assert course("generate", "a rde cricle and a 龙, a rde one", "--model", "tiny", "--n_samples", 1) == 0
    assert capsys.readouterr().err.splitlines() == [
        'warning: tiny has never read "rde" (did you mean "red"?)',
        'warning: tiny has never read "cricle" (did you mean "circle"?)',
        'warning: tiny has never read "and" (did you mean "an"?)',
        'warning: tiny has never read "龙"',
    ]
    assert len(names(workplace / "samples")) == 2


def test_of_very_many_unknown_words_some_are_named(workplace, capsys):
    lines = [f"draw q{'abcdefghij'[i // 10]}{'abcdefghij'[i % 10]}q" for i in range(30)]
    Path("prompts.txt").write_text("\n".join(lines), encoding="utf-8")
    assert course("generate", "--texts", "prompts.txt", "--model", "tiny", "--n_samples", 1) == 0
    warnings = capsys.readouterr().err.splitlines()
    assert len(warnings) == 11 and "20 more words" in warnings[-1]


def test_a_picture_may_be_where_it_starts(workplace):
    Image.new("RGB", (60, 40), "navy").save("start.png")
    for arguments in (["--image", "start.png"], []):
        folder = "from-picture" if arguments else "plain"
        assert course("generate", PROMPT, "--model", "tiny", *arguments, "--save_path", folder) == 0
    start = read(Path("start.png"))[:, :1, :1]
    distances = [
        torch.stack([(read(p) - start).square().mean() for p in sorted((workplace / folder).glob("01*"))]).mean()
        for folder in ("from-picture", "plain")
    ]
    assert distances[0] < distances[1]


def test_a_console_that_cannot_show_chinese_does_not_end_the_run(workplace):
    (workplace / "prompts.txt").write_text("draw 龙", encoding="utf-8")
    command = [sys.executable, "-m", "course_lib", "generate", "--texts", "prompts.txt", "--model", "tiny"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    told = subprocess.run(command, cwd=workplace, env=environment, capture_output=True, text=True)
    assert told.returncode == 0 and 'never read "?"' in told.stderr


# ---- evaluate


def test_evaluate_prints_a_table(workplace, capsys):
    assert course("evaluate", "--model", "tiny", "--n", 8) == 0
    out = capsys.readouterr().out
    assert out.startswith("| captions ") and out.count("\n| ") == 5 and "diversity, generated over real: " in out


def test_evaluate_prints_json_and_nothing_else(workplace, capsys):
    arguments = ["--split", "train", "--seed", 3, "--steps_per_sample", 1, "--guidance_scale", 2, "--json"]
    assert course("evaluate", "--model", "tiny", "--n", 8, *arguments) == 0
    marks = json.loads(capsys.readouterr().out)
    settings = {"model": "tiny", "split": "train", "n": 8, "seed": 3, "steps_per_sample": 1, "guidance_scale": 2.0}
    assert settings.items() <= marks.items() and set(marks["accuracy"]) == set(evaluation.PAPERS)


def test_evaluate_can_sweep(workplace, capsys):
    assert course("evaluate", "--model", "tiny", "--n", 4, "--sweep") == 0
    assert capsys.readouterr().out.count("\n") == 11  # a head, a rule, nine rows


# ---- train


def test_train_ends_in_a_model_that_draws(workplace, capsys):
    assert course("train", "--preset", "tiny-gan", "--out", "run", "--seed", 4, "--device", "cpu") == 0
    run_folder = workplace / "run"
    assert names(run_folder) == ["checkpoints", "metrics.jsonl", "model", "run.json", "samples"]
    assert names(run_folder / "samples") == ["step-000003.png", "step-000006.png"]
    assert len((run_folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 6
    settings = json.loads((run_folder / "run.json").read_text(encoding="utf-8"))
    assert settings["preset"] == "tiny-gan" and settings["train"]["seed"] == 4
    model = TextToImage.from_pretrained(run_folder / "model")
    assert model.sample(PROMPT, 1).shape == (1, 3, 32, 32) and model.training_facts["train"]["seed"] == 4
    card = (run_folder / "model" / "README.md").read_text(encoding="utf-8")
    assert "course train --preset tiny-gan --seed 4 --out runs/tiny-gan" in card and "| English " in card
    assert "Done: " in capsys.readouterr().out
    assert course("generate", PROMPT, "--model", "run/model") == 0


def test_without_out_the_run_goes_to_the_folder_of_its_name(workplace):
    assert course("train", "--preset", "tiny-gan", "--steps", 2) == 0
    assert (workplace / "runs" / "tiny-gan" / "model").is_dir()


def test_a_finished_run_is_only_reported(workplace, capsys):
    assert course("train", "--preset", "tiny-gan", "--steps", 2, "--out", "run") == 0
    before = (workplace / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    assert course("train", "--resume", "run") == 0
    assert "run is finished." in capsys.readouterr().out
    assert (workplace / "run" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_a_finished_run_can_be_made_longer_and_its_card_says_so(workplace, capsys):
    assert course("train", "--preset", "tiny-gan", "--steps", 2, "--out", "run") == 0
    assert course("train", "--resume", "run", "--steps", 4) == 0
    assert (workplace / "run" / "model-2").is_dir(), "what was finished before is kept"
    card = (workplace / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert "course train --preset tiny-gan --steps 2 --out runs/tiny-gan`, then" in card
    assert "`course train --resume runs/tiny-gan --steps 4` (steps 4" in card
    lines = (workplace / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 2, 3, 4]
    assert course("train", "--resume", "run", "--steps", 3) == 2
    assert "steps=3 can't make this run of 4 steps longer" in capsys.readouterr().err
    assert course("train", "--resume", "run") == 0 and "is finished" in capsys.readouterr().out


def test_a_folder_in_which_another_process_trains_is_refused_and_a_stale_lock_is_not(workplace, capsys):
    assert course("train", "--preset", "tiny-gan", "--steps", 2, "--out", "run") == 0
    lock = workplace / "run" / "training.lock"
    assert not lock.exists()
    parent = psutil.Process().parent()
    lock.write_text(json.dumps({"process": parent.pid, "started": parent.create_time()}), encoding="utf-8")
    assert course("train", "--resume", "run", "--steps", 4) == 2
    assert f"is being trained by process {parent.pid}, started 2" in capsys.readouterr().err
    assert (workplace / "run" / "model").is_dir(), "nothing was touched"
    for stale in ({"process": parent.pid, "started": 1.0}, {"process": 10**9}, "torn"):
        lock.write_text(json.dumps(stale), encoding="utf-8")
        assert course("train", "--resume", "run") == 0
    assert not lock.exists()


def test_a_full_memory_is_told_with_the_remedy(workplace, monkeypatch, capsys):
    def full(self, data):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(long_recipes.ScaledTrainer, "step", full)
    assert course("train", "--preset", "tiny-gan", "--out", "run") == 2
    told = capsys.readouterr().err
    assert (
        "the memory is full; a --batch_size below 4 or bfloat16 needs less" in told
        and 'course train --resume "run"' in told
    )


def test_how_to_compute_is_kept_with_the_run(workplace):
    assert course("train", "--preset", "tiny-gan", "--steps", 2, "--out", "run", "--precision", "bfloat16") == 0
    assert json.loads((workplace / "run" / "run.json").read_text())["scale"] == {
        "precision": "bfloat16",
        "compile": "no",
    }
    assert TextToImage.from_pretrained(workplace / "run" / "model").training_facts["scale"]["precision"] == "bfloat16"


def stop_after(monkeypatch, steps: int) -> None:
    """Ctrl-C, pressed when a run has done so many steps."""
    original = long_recipes.MetricsLog.__call__

    def call(self, trainer, losses):
        original(self, trainer, losses)
        if trainer.steps_done == steps:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(long_recipes.MetricsLog, "__call__", call)


def count_steps(monkeypatch) -> list[int]:
    """The numbers of the training steps that are done from now on."""
    steps, original = [], long_recipes.ScaledTrainer.step

    def step(self, data):
        steps.append(self.steps_done)
        return original(self, data)

    monkeypatch.setattr(long_recipes.ScaledTrainer, "step", step)
    return steps


def test_ctrl_c_saves_and_resume_ends_in_the_same_weights(workplace, monkeypatch, capsys):
    assert course("train", "--preset", "tiny-gan", "--out", "whole") == 0
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(SystemExit) as stopped:
            course("train", "--preset", "tiny-gan", "--out", "run")
    assert stopped.value.code == 130
    assert 'The state is saved; go on with: course train --resume "run"' in capsys.readouterr().out
    assert not (workplace / "run" / "model").exists()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    steps = count_steps(monkeypatch)
    assert course("train", "--resume", "run") == 0
    assert steps == [3, 4, 5], "it went on where it had stopped"
    whole, resumed = (workplace / name / "model" / "model.safetensors" for name in ("whole", "run"))
    assert whole.read_bytes() == resumed.read_bytes()
    assert len((workplace / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()) == 6


def test_a_second_ctrl_c_ends_at_once_and_says_how_to_go_on(workplace, monkeypatch, capsys):
    original = long_recipes.MetricsLog.__call__

    def call(self, trainer, losses):
        original(self, trainer, losses)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(long_recipes.MetricsLog, "__call__", call)
    with pytest.raises(SystemExit) as stopped:
        course("train", "--preset", "tiny-gan", "--out", "run")
    assert stopped.value.code == 130 and "course train --resume" in capsys.readouterr().out
    assert names(workplace / "run") == ["metrics.jsonl", "run.json"]


def test_a_save_that_was_cut_short_is_found_again(workplace, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_after(patch, 3)
        course("train", "--preset", "tiny-gan", "--out", "run")
    state = workplace / "run" / "checkpoints" / "last"
    state.rename(state.with_name(".last.old"))  # killed between the two renames of a save
    steps = count_steps(monkeypatch)
    assert course("train", "--resume", "run") == 0 and steps == [3, 4, 5]
    rows = (workplace / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(row)["step"] for row in rows] == [1, 2, 3, 4, 5, 6]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows sends Ctrl-C to every process of a console")
def test_ctrl_c_from_another_process(workplace):
    """The command as a process of its own: a signal, exit code 130, a saved state, and a resume to the end."""
    code = (
        "import functools, sys; from course_lib import cli, long_recipes, presets; from tiny import tiny_preset;"
        "presets.PRESETS['tiny-gan'] = tiny_preset(steps=100, checkpoint_every=40, sample_every=40);"
        "long_recipes.EXAM = 10;"
        "sys.exit(cli.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", code, "train", "--device", "cpu"]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    pipes["env"] = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([*command, "--preset", "tiny-gan", "--out", "run"], **pipes)
    metrics = workplace / "run" / "metrics.jsonl"
    try:
        while process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130 and "Traceback" not in err, err
    assert 'course train --resume "run"' in out and (workplace / "run" / "checkpoints" / "last").is_dir()
    assert 0 < len(metrics.read_text(encoding="utf-8").splitlines()) < 100
    told = subprocess.run([*command, "--resume", "run"], **pipes, timeout=300)
    assert told.returncode == 0, told.stderr
    assert (workplace / "run" / "model" / "README.md").is_file()
    assert len(metrics.read_text(encoding="utf-8").splitlines()) == 100


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="torchrun's rendezvous wants libuv on Windows")
def test_torchrun_trains_in_two_processes_and_begins_anew_when_one_dies(workplace):
    """The second process is killed once, in the middle; the run goes on from its last checkpoint and ends as if not."""
    (workplace / "tiny_course.py").write_text(
        "import os, sys\n"
        "from course_lib import cli, long_recipes, presets, scale\n"
        "from tiny import tiny_preset\n"
        "presets.PRESETS['tiny-gan'] = tiny_preset(steps=12, checkpoint_every=4, sample_every=40)\n"
        "long_recipes.EXAM = 10\n"
        "step = scale.ScaledTrainer.step\n"
        "def mortal(self, data):\n"
        "    if self.steps_done == 6 and self.world.rank == 1 and os.environ['TORCHELASTIC_RESTART_COUNT'] == '0':\n"
        "        os._exit(9)\n"
        "    return step(self, data)\n"
        "scale.ScaledTrainer.step = mortal\n"
        "sys.exit(cli.main(sys.argv[1:]))\n",
        encoding="utf-8",
    )
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "--max-restarts=1"]
    command += ["tiny_course.py", "train", "--device", "cpu", "--preset", "tiny-gan", "--out", "run"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=400)
    assert told.returncode == 0, told.stderr
    lines = (workplace / "run" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 13)), "each step once"
    model = TextToImage.from_pretrained(workplace / "run" / "model")
    assert model.training_facts["processes"] == 2


# ---- demo


@pytest.mark.slow
def test_the_demo_draws_trains_and_scores(tmp_path, monkeypatch, capsys):
    live = presets.PRESETS[demo.LIVE]
    short = replace(live, data=replace(live.data, length=400), train=replace(live.train, steps=50, batch_size=8))
    monkeypatch.setitem(presets.PRESETS, demo.LIVE, short)
    monkeypatch.setattr(demo, "N_SCORED", 30)
    monkeypatch.setattr(evaluation, "DIVERSITY_CAPTIONS", 4)
    out = tmp_path / "samples" / "demo"
    assert course("demo", "--seconds", 1, "--out", out, "--device", "cpu") == 0
    assert names(out) == ["emoji.png", "progress.png", "prompts.png", "report.json"]
    report = json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert [row["model"] for row in report["rows"]] == ["shapes-32", "shapes-32-live"]
    assert all(row["n"] == 30 and 0 <= row["all"] <= 1 for row in report["rows"])
    assert sum(report["prompts"].values()) == 12 and set(report["prompts"]) == {*demo.PROMPTS, *demo.EMOJI_PROMPTS}
    assert 0 < report["live"]["steps"] <= 50
    for name in ("emoji.png", "progress.png", "prompts.png"):
        with Image.open(out / name) as figure:
            assert min(figure.size) > 300 and len(figure.text["Description"]) > 100
    told = capsys.readouterr().out
    assert "| shapes-32-live | 1 s" in told and "Next: course generate" in told


def test_half_of_the_demos_prompts_were_held_out_of_the_training():
    assert [demo.is_heldout(prompt) for prompt in demo.PROMPTS].count(True) == 4
    assert [demo.is_heldout(prompt) for prompt in demo.EMOJI_PROMPTS] == [True] * 8 + [False] * 4
    assert sum(prompt.isascii() for prompt in demo.PROMPTS) == 4
