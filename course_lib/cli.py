"""The command `course`: demo, train, generate and the rest. Each subcommand imports what it needs when it runs.

Bad input is told in one line and exits with code 2; nothing that exists is overwritten by it.
"""

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any, NoReturn

from course_lib import __version__
from course_lib.errors import CourseError, printable_lines, require_range

INTERRUPTED = 130  # what a shell reports for Ctrl-C
MAX_FILE_BYTES = 10_000_000  # of prompts or settings


class Parser(argparse.ArgumentParser):
    """A parser that tells a mistake in one line; argparse would print the whole usage first."""

    def error(self, message: str) -> NoReturn:
        """Tell it and exit with code 2."""
        self.exit(2, f"course: {message}; see {self.prog} --help\n")


def path(text: str) -> Path:
    """A path as it was typed; "~" is the home folder, also in --out=~/run, where shells leave it as it is."""
    return Path(os.path.expanduser(text))


def build_parser() -> argparse.ArgumentParser:
    """All subcommands and their options."""
    parser = Parser(prog="course", description="Words to Pixels: pictures from sentences, from scratch.")
    parser.add_argument("--version", action="version", version=f"words-to-pixels {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    demo = commands.add_parser("demo", help="draw from the shipped model, then train a small one live and score it")
    demo.add_argument("--seconds", type=float, default=150, help="length of the live run (default 150)")
    demo.add_argument("--out", type=path, default=Path("samples/demo"), help="folder for the pictures and the report")

    train = commands.add_parser("train", help="train a preset, or go on with a run")
    what = train.add_mutually_exclusive_group(required=True)
    what.add_argument("--preset", help="what to train; a wrong name lists them all")
    what.add_argument("--resume", type=path, metavar="RUN", help="go on with the run in this folder; --steps: longer")
    train.add_argument("--out", type=path, help="a new folder for the run (default runs/PRESET)")
    train.add_argument("--data", type=path, metavar="FOLDER", help="your own pictures, for presets such as cub-64")
    train.add_argument("--captions", type=path, metavar="FILE", help="their captions, where the folder holds none")
    train.add_argument("--dry-run", action="store_true", help="say what the training would need, and end")
    train.add_argument("--precision", choices=("float32", "bfloat16"), help="of convolutions and products (lesson 13)")
    train.add_argument("--compile", choices=("no", "yes", "cuda-graph"), help="fuse each pass (lesson 13)")
    for name, kind in SETTINGS.items():
        train.add_argument(f"--{name}", type=kind, help=f"instead of the preset's {name.replace('_', ' ')}")

    generate = commands.add_parser("generate", help="draw pictures for a sentence")
    generate.add_argument("prompt", nargs="?", help='what to draw, such as "a small red circle at the center on gray"')
    generate.add_argument("--texts", type=path, metavar="FILE", help="a text file with one prompt a line")
    generate.add_argument("--config", type=path, metavar="FILE", help="settings in YAML; options given here win")
    generate.add_argument("--model", help="a name under data/checkpoints or a folder (default shapes-32)")
    generate.add_argument("--n_samples", type=int, help="pictures for each prompt (default 4)")
    generate.add_argument("--steps_per_sample", type=int, help="refinement steps (default 0: plain GAN sampling)")
    generate.add_argument("--guidance_scale", type=float, help="how strongly refinement follows the prompt (default 1)")
    generate.add_argument("--image", type=path, help="a picture to begin from; the prompt changes it")
    generate.add_argument("--mask", type=path, help="a picture, white where --image is to be painted anew")
    generate.add_argument("--truncation", type=float, help="0 to 1: less, more usual and more alike (default 1)")
    generate.add_argument("--seed", type=int, help="another seed, other pictures (default 0)")
    generate.add_argument("--save_path", type=path, help="folder for the PNGs (default samples)")

    evaluate = commands.add_parser("evaluate", help="measure how often a model draws what the caption says")
    evaluate.add_argument("--model", default="shapes-32")
    evaluate.add_argument("--split", default="heldout", choices=("heldout", "train"))
    evaluate.add_argument("--n", type=int, default=2000, help="pictures for each kind of caption (default 2000)")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--steps_per_sample", type=int, help="default: the model's own")
    evaluate.add_argument("--guidance_scale", type=float, help="default: the model's own")
    evaluate.add_argument(
        "--sweep", action="store_true", help="instead: several steps and guidance scales (shapes only)"
    )
    evaluate.add_argument(
        "--card", action="store_true", help="write the marks, a sample grid and the card to the model"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of tables")

    audit = commands.add_parser("audit", help="is a data set fit for training?")
    audit.add_argument("what", help="shapes, emoji, or a folder of captioned pictures")
    audit.add_argument("--n", type=int, default=2000, help="pictures to look at (default 2000)")
    audit.add_argument("--figure", type=path, metavar="PNG", help="draw the report too")
    audit.add_argument("--json", action="store_true", help="print JSON instead of a table")

    report = commands.add_parser("report", help="every shipped text-to-image model side by side")
    report.add_argument("--out", type=path, default=Path("data/RESULTS.md"), help="default data/RESULTS.md")
    report.add_argument("--n", type=int, default=500, help="pictures for each setting of GAN and diffusion")

    ablate = commands.add_parser(
        "ablate", help="what each part of the recipe is worth: trains what is not in the log yet"
    )
    ablate.add_argument("--log", type=path, default=Path("data/logs/ablations.jsonl"), help="of finished runs")
    ablate.add_argument("--out", type=path, default=Path("data/ABLATIONS.md"), help="default data/ABLATIONS.md")
    ablate.add_argument("--seeds", type=int, default=3, help="runs a variant (default 3)")
    ablate.add_argument("--seconds", type=float, default=100, help="processor time a run (default 100)")

    inspect = commands.add_parser("inspect", help="what a PNG says of how it was made")
    inspect.add_argument("file", type=path)
    commands.add_parser("doctor", help="what of this machine and installation is fine, and what is not")
    for command in (demo, train, generate, evaluate, report):
        command.add_argument("--device", default=None, choices=("auto", "cpu", "cuda"), help="default auto")
    return parser


SETTINGS = {  # of training, each the same name as the preset's field
    "steps": int,
    "batch_size": int,
    "learning_rate": float,
    "seed": int,
    "r1_weight": float,
    "average_decay": float,
    "text_dropout": float,
    "mse_weight": float,
    "checkpoint_every": int,
    "sample_every": int,
}


def command_demo(options: argparse.Namespace) -> None:
    """`course demo`."""
    from course_lib.demo import run_demo
    from course_lib.runs import choose_device

    require_range("seconds", options.seconds, 1, 86_400)
    run_demo(options.seconds, options.out, choose_device(options.device or "auto"))


def command_train(options: argparse.Namespace) -> None:
    """`course train`."""
    from course_lib.plan import plan
    from course_lib.runs import choose_device, resume_run, start_run
    from course_lib.scale import ScaleConfig

    scale = {name: getattr(options, name) for name in ("precision", "compile") if getattr(options, name) is not None}
    changes = {name: getattr(options, name) for name in SETTINGS if getattr(options, name) is not None}
    device = choose_device(options.device or "auto")
    data = {"folder": options.data, "captions": options.captions}
    data = {name: str(place) for name, place in data.items() if place is not None}
    ours = {"out": options.out, "data": options.data, "captions": options.captions, "dry-run": options.dry_run}
    others = [f"--{name}" for name in [*changes, *scale, *filter(ours.get, ours)] if name != "steps"]
    if options.resume and others:
        raise CourseError(f"--resume goes on with the run's own settings; leave out {', '.join(others)}")
    if options.dry_run:
        print(plan(options.preset, changes, device, ScaleConfig(**scale), data))
        return
    folder = options.resume or options.out or Path("runs") / options.preset
    saved = "The state is saved"
    try:
        if options.resume:
            model = resume_run(folder, device, options.steps)
        else:
            model = start_run(options.preset, changes, folder, device, ScaleConfig(**scale), data)
    except KeyboardInterrupt:
        model, saved = None, "What was saved last is kept"
    if model is None:
        print(f'\nStopped. {saved}; go on with: course train --resume "{folder}"')
        raise SystemExit(INTERRUPTED)
    print(f"\nDone: {model}\nIts card: {model / 'README.md'}")


def command_generate(options: argparse.Namespace) -> None:
    """`course generate`."""
    from course_lib.checkpoint import dataclass_from_dict
    from course_lib.generate import GenerateConfig, generate

    values = read_yaml(options.config) if options.config else {}
    if options.prompt is not None and options.texts:
        raise CourseError("a prompt and --texts were both given; choose one")
    if options.prompt is not None:
        values["texts"] = [options.prompt]
    elif options.texts:
        values["texts"] = read_texts(options.texts)
    names = "n_samples steps_per_sample guidance_scale truncation seed image mask save_path device".split()
    given = {name: getattr(options, name) for name in names} | {"model_path": options.model}
    values |= {name: str(v) if isinstance(v, Path) else v for name, v in given.items() if v is not None}
    generate(dataclass_from_dict(GenerateConfig, values, options.config or "options"))


def command_evaluate(options: argparse.Namespace) -> None:
    """`course evaluate`."""
    from course_lib.cards import write_card
    from course_lib.checkpoint import find_checkpoint
    from course_lib.evaluation import format_table, sweep
    from course_lib.marks import marks_of, marks_text
    from course_lib.models import load_model
    from course_lib.runs import choose_device
    from course_lib.text_to_image import MAX_SEED

    require_range("n", options.n, 1, 20_000)
    require_range("seed", options.seed, 0, MAX_SEED)
    sampling = {name: getattr(options, name) for name in ("steps_per_sample", "guidance_scale")}
    sampling = {name: value for name, value in sampling.items() if value is not None}
    if options.sweep and options.card:
        raise CourseError("--sweep tries many settings and a card tells of one; leave out one of the two")
    if options.sweep and sampling:
        raise CourseError("--sweep tries steps and scales of its own; leave out --steps_per_sample, --guidance_scale")
    model = load_model(options.model, choose_device(options.device or "auto"))
    if options.sweep:
        rows = sweep(model, options.split, options.n, options.seed)
        print(json.dumps(rows, indent=2) if options.json else format_table(rows))
        return
    marks = {"model": options.model, **marks_of(model, options.split, options.n, options.seed, **sampling)}
    if options.card:
        write_card(find_checkpoint(options.model), model, marks, **sampling)
    print(json.dumps(marks, indent=2) if options.json else marks_text(marks))


def read_text(option: str, path: Path) -> str:
    """The text of a file that an option names.

    Raises:
        CourseError: missing, unreadable, too long, or not UTF-8.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CourseError(f'{option}="{path}" cannot be read ({reason}); give a text file in UTF-8') from error
    if len(data) > MAX_FILE_BYTES:
        raise CourseError(f'{option}="{path}" is longer than {MAX_FILE_BYTES:,} bytes; give a shorter one')
    return text


def read_yaml(path: Path) -> dict[str, Any]:
    """The keys and values of a YAML file.

    Raises:
        CourseError: unreadable, not YAML, or no keys and values.
    """
    import yaml

    text = read_text("config", path)
    try:
        values = yaml.safe_load(text)
    except Exception as error:  # a malformed date or number makes PyYAML raise almost anything
        told = " ".join(str(error).split())
        raise CourseError(f'config="{path}" is not YAML ({told}); write "n_samples: 8" and the like') from error
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise CourseError(f'config="{path}" does not hold keys and values, such as "n_samples: 8"')
    return values


def read_texts(path: Path) -> list[str]:
    """The prompts in a text file, one a line; empty lines are passed over."""
    texts = [line.strip() for line in read_text("texts", path).splitlines() if line.strip()]
    if not texts:
        raise CourseError(f'texts="{path}" has no prompt; write one a line')
    return texts


def command_audit(options: argparse.Namespace) -> int:
    """`course audit`; exit code 1 when something would spoil training."""
    from course_lib.audit_command import command_audit

    return command_audit(options)


def command_report(options: argparse.Namespace) -> None:
    """`course report`."""
    from course_lib.report import write_report
    from course_lib.runs import choose_device

    require_range("n", options.n, 1, 20_000)
    write_report(options.out, options.n, choose_device(options.device or "auto"))
    print(options.out)


def command_ablate(options: argparse.Namespace) -> None:
    """`course ablate`."""
    from course_lib.ablation import ablate

    require_range("seeds", options.seeds, 1, 100)
    require_range("seconds", options.seconds, 1, 3600)
    ablate(options.log, options.out, options.seeds, options.seconds)
    print(options.out)


def command_inspect(options: argparse.Namespace) -> int:
    """`course inspect`; exit code 1 when the picture does not say that it was generated."""
    from course_lib.provenance import inspect_file

    return inspect_file(options.file)


def command_doctor(options: argparse.Namespace) -> int:
    """`course doctor`; exit code 1 when something needed is missing."""
    from course_lib.doctor import run_doctor

    return run_doctor()


COMMANDS = {  # each returns its exit code; None is 0
    "demo": command_demo,
    "train": command_train,
    "generate": command_generate,
    "evaluate": command_evaluate,
    "audit": command_audit,
    "report": command_report,
    "ablate": command_ablate,
    "inspect": command_inspect,
    "doctor": command_doctor,
}


def main(arguments: list[str] | None = None) -> int:
    """Run `course`; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a notebook's streams take everything
            stream.reconfigure(errors="replace")  # a console that can't show Chinese must not end the run
    options = build_parser().parse_args(arguments)
    try:
        return COMMANDS[options.command](options) or 0
    except (CourseError, OSError, FloatingPointError) as error:  # bad input, a full disk, a training that diverged
        print(f"course: {printable_lines(str(error))}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return INTERRUPTED
