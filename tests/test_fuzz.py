"""Whatever is typed, and whatever a file holds: an answer or a refusal in words. Never a traceback, never a hang, never
a file outside the folder that the output was to go to.

`make test` tries a few hundred cases, always the same; `make test-long` some thousand new ones.
"""

import argparse
import contextlib
import io
import json
import os
import shutil
import signal
import struct
import sys
import tempfile
import typing
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from course_lib import ablation, cli, evaluation
from course_lib.checkpoint import CONFIG, TENSORS
from course_lib.data.emoji import cache_folder
from course_lib.doctor import run_doctor
from course_lib.errors import CourseError
from course_lib.generate import GenerateConfig
from course_lib.images import prepare_image
from course_lib.provenance import read_provenance

TIMES = settings.default.max_examples // 100  # 1; `--hypothesis-profile=long` makes it more
LONGEST = 120  # seconds for one case: far more than any needs on a slow machine, far less than for ever
PROMPT = "a small red circle at the center on gray"
pytestmark = pytest.mark.filterwarnings("ignore:::PIL")  # it warns of what it can make something of all the same


def cases(number: int) -> settings:
    """So many cases, or more in the long suite."""
    return settings(
        max_examples=number * TIMES,
        derandomize=TIMES == 1,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
    )


# ---- what is true of every answer


class Watch:
    """Python tells an audit hook of every file that is opened, made, moved or removed, and of every program that is
    started. A hook stays for ever, so there is one, and it listens while `places` is a list."""

    PATHS = {  # event -> how many of its arguments are paths
        "open": 1,
        "os.link": 2,
        "os.mkdir": 1,
        "os.remove": 1,
        "os.rename": 2,
        "os.rmdir": 1,
        "os.symlink": 2,
        "os.truncate": 1,
        "shutil.rmtree": 1,
    }
    PROGRAMS = {"os.exec", "os.posix_spawn", "os.startfile", "os.system", "subprocess.Popen"}
    WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

    def __init__(self):
        self.places: list[str] | None = None
        sys.addaudithook(self.note)

    def note(self, event: str, arguments: tuple) -> None:
        if self.places is None:
            return
        if event in self.PROGRAMS:
            self.places.append(f"a program: {arguments[0]}")
        if event == "open" and not arguments[2] & self.WRITES:
            return
        for path in arguments[: self.PATHS.get(event, 0)]:
            inside_rmtree = event in ("os.remove", "os.rmdir") and arguments[-1] >= 0  # relative to an open folder
            there = event == "os.mkdir" and os.path.isdir(path)  # nothing is made
            if isinstance(path, str | bytes | os.PathLike) and not inside_rmtree and not there:
                self.places.append(os.path.realpath(os.fsdecode(path)))

    @contextlib.contextmanager
    def listening(self) -> Iterator[list[str]]:
        self.places = places = []
        try:
            yield places
        finally:
            self.places = None


WATCH = Watch()


@contextlib.contextmanager
def no_hang() -> Iterator[None]:
    """Within it a case that takes too long fails, where the system has alarms."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return
    before = signal.signal(signal.SIGALRM, lambda *_: pytest.fail(f"no answer within {LONGEST} seconds"))
    signal.alarm(LONGEST)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


Course = Callable[..., tuple[int, str]]


@pytest.fixture(scope="module")
def warm() -> None:
    """Packages make their own caches when they are first imported; this imports them all."""
    run_doctor()


@pytest.fixture
def course(warm, workplace, monkeypatch, capsys) -> Course:
    """Run the command in an empty folder beside the folder `given` with the files it may read; check what is true of
    every answer; return the exit code and all that was printed."""
    # what would take minutes is not tried here: a run of an ablation, twelve settings of a sweep
    row = {"steps": 1, "accuracy": {"all": 0.5, "shape": 0.5}, "diversity": 0.5}
    monkeypatch.setattr(
        ablation, "run_variant", lambda name, seed, t: [{"variant": name, "seed": seed, "cpu_seconds": t, **row}]
    )
    monkeypatch.setattr(evaluation, "SWEEP", ((0, 2), (1.0,)))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # modules that are imported late

    cache = cache_folder()  # of emoji; it stays where it is
    monkeypatch.setenv("COURSE_CACHE", str(cache))

    def run(arguments: list[str], files: Mapping[str, bytes] = {}) -> tuple[int, str]:  # noqa: B006
        place = Path(tempfile.mkdtemp(dir=workplace))
        for name, data in files.items():
            (place / "given" / name).parent.mkdir(parents=True, exist_ok=True)
            (place / "given" / name).write_bytes(data)
        for name in ("work", "home"):
            (place / name).mkdir()
        for name in ("HOME", "USERPROFILE"):  # what begins with "~" is written there, not to the home of who tests
            monkeypatch.setenv(name, str(place / "home"))
        capsys.readouterr()
        with contextlib.chdir(place / "work"), no_hang(), WATCH.listening() as written:
            try:
                code = cli.main(arguments)
            except SystemExit as ended:  # argparse
                code = ended.code
        told = capsys.readouterr()
        may = [place / "work", place / "home", cache, os.devnull]
        may += [os.environ["COURSE_CHECKPOINTS"]] if "--card" in arguments else []
        may = [os.path.realpath(path) for path in may]
        strays = [path for path in written if not any(Path(path).is_relative_to(folder) for folder in may)]
        assert not strays, f"written outside: {strays}"
        assert code in (0, 1, 2, cli.INTERRUPTED) and "Traceback" not in told.err, told.err
        if code == 2:
            assert any(line.startswith("course: ") for line in told.err.split("\n")), told.err
            assert not list((place / "work").rglob("*.png")), "it was refused, and drawn all the same"
        assert not list((place / "work").glob("~*")), "a folder named ~: whoever removes it removes their home"
        if "\x1b" not in "".join(arguments):
            assert "\x1b" not in told.out + told.err, "what a file holds steers the terminal"
        shutil.rmtree(place)
        return code, told.out + told.err

    return run


def test_the_watch_sees_what_is_written_moved_and_removed(tmp_path):
    path = tmp_path / "a.txt"
    with WATCH.listening() as written:
        path.write_text("x")
        path.read_text()
        path.rename(tmp_path / "b.txt")
        (tmp_path / "folder").mkdir()
        shutil.rmtree(tmp_path / "folder")
    home = os.path.realpath(tmp_path)
    assert [os.path.relpath(place, home) for place in written] == [
        *("a.txt", "a.txt", "b.txt", "folder"),
        *["folder"] * (len(written) - 4),  # `rmtree` and what it calls
    ]


def test_a_file_beside_the_folder_a_traceback_and_a_hang_are_noticed(course, monkeypatch):
    monkeypatch.setitem(cli.COMMANDS, "doctor", lambda _: Path("../stray.txt").write_text("x") and 0)
    with pytest.raises(AssertionError, match="written outside.*stray"):
        course(["doctor"])
    monkeypatch.setitem(cli.COMMANDS, "doctor", lambda _: [][0])
    with pytest.raises(IndexError):
        course(["doctor"])
    if hasattr(signal, "SIGALRM"):
        monkeypatch.setitem(cli.COMMANDS, "doctor", lambda _: os.kill(os.getpid(), signal.SIGALRM))
        with pytest.raises(pytest.fail.Exception, match="no answer within"):
            course(["doctor"])


# ---- pieces


def picture(kind: str, mode: str = "RGB", **options: object) -> bytes:
    noise = Image.effect_noise((24, 16), 90)
    noise.convert(mode).save(file := io.BytesIO(), kind, **options)
    return file.getvalue()


def notes() -> PngImagePlugin.PngInfo:
    info = PngImagePlugin.PngInfo()
    info.add_text("Generated", "true")
    info.add_itxt("Description", "红", zip=True)
    info.add_text("Model", "tiny", zip=True)
    return info


EXIF = Image.Exif()
EXIF[0x0112] = 6  # lies on its side
PICTURES = [
    picture("PNG", pnginfo=notes()),
    picture("PNG", "P", transparency=3),
    picture("PNG", "I;16"),
    picture("PNG", "LA", exif=EXIF),
    picture("JPEG", exif=EXIF),
    picture("JPEG", "CMYK", progressive=True),
    picture("GIF", "P", save_all=True, append_images=[Image.new("P", (24, 16), 5)]),
    picture("WEBP"),
    picture("WEBP", "RGBA", lossless=True),
    picture("BMP"),
    picture("TIFF", compression="tiff_lzw"),
    picture("PPM"),
]


def with_right_sums(data: bytes) -> bytes:
    """A PNG whose chunks have the check sums that their new contents ask for: damage then reaches the decoder."""
    parts, place = [data[:8]], 8
    while place + 12 <= len(data):
        length = min(struct.unpack_from(">I", data, place)[0], len(data) - place - 12)
        body = data[place + 4 : place + 8 + length]
        parts.append(struct.pack(">I", length) + body + struct.pack(">I", zlib.crc32(body)))
        place += 12 + length
    return b"".join(parts)


@st.composite
def damaged(draw: st.DrawFn, sources: list[bytes]) -> bytes:
    """One of the sources with bytes flipped, overwritten, taken out, put in, repeated, or cut off."""
    data = draw(st.sampled_from(sources))
    for _ in range(draw(st.integers(0, 4))):
        at, length = draw(st.integers(0, max(0, len(data) - 1))), draw(st.integers(1, 40))
        before, piece, after = data[:at], data[at : at + length], data[at + length :]
        new = draw(
            st.sampled_from([b"", piece * 2, bytes(b ^ 0xFF for b in piece), b"\xff\xff\xff\xff", b"\0" * length])
            | st.binary(max_size=length)
        )
        data = before + new + draw(st.sampled_from([after, after, after, b""]))
    return with_right_sums(data) if data[:4] == b"\x89PNG" and draw(st.booleans()) else data


# Numbers that are quickly done, or refused: nothing between 10 and 2^32 that would only take long.
INTEGERS = [0, 1, 2, 3, 4, 10, -1, 2**32 - 1, 2**32, 10**10, 10**40]
NUMBERS = [0.0, 0.5, 1.0, 2.0, 100.0, -1.0, 1e-300, 1e300, float("nan"), float("inf")]
WORDS = st.sampled_from(["", " ", "-", "--", "x", "x" * 300, "红", "a\nb", "\u200b", "\x1b[2J", "\udcff", "../../up"])
WORDS |= st.text(st.characters(exclude_characters="\0"), max_size=12)  # no system hands a zero byte to a program
# Where output is sent: anything but out of the folder, which whoever typed it would have meant.
OUT = st.sampled_from(
    ["out", "a b/c", "red.png", "file.md", ".", "", "-", "~", "~/x", "x" * 300, "红", "o\n", "\udcff"]
)
OUT |= st.text(st.characters(exclude_characters="\0/\\:~"), max_size=8).filter(lambda name: name != "..")
GIVEN = {
    "picture.png": PICTURES[0],
    "cut.jpg": PICTURES[4][:300],
    "c.yaml": b"n_samples: 2\n",
    "broken.yaml": b"[",
    "texts.txt": f"{PROMPT}\n红\n".encode(),
    "pictures/a.png": PICTURES[0],
    "pictures/a.txt": b"a red ring",
    "log.jsonl": b'{"variant": "base", "seed": 0, "cpu_seconds": 100.0}\n',
    "broken.jsonl": b"{\n7\n",
    "run/run.json": b'{"preset": "tiny-gan", "train": {"steps": 2, "batch_size": 4}}',
    "stray/run.json": b'{"preset": "tiny-gan", "train": {"steps": 2}, "scale": {"precision": 4}, "steps_before": [{}]}',
}
GIVEN_NAMES = [f"../given/{name}" for name in [*GIVEN, "pictures", "run", "stray", "nowhere"]]


# ---- command lines

OUTPUTS = {"out", "save_path", "figure", "log"}
MODELS = st.sampled_from(["tiny", "tiny", "tiny", "judge-32", "tinny", "..", "~nobody"]) | WORDS
TYPED = {  # by the name of an argument; what is not here follows from its type, so new options are tried by themselves
    "model": MODELS,
    "preset": st.sampled_from(["tiny-gan", "tiny-gam"]) | WORDS,  # the others would train for minutes
    "compile": st.just("no"),  # a compiler takes minutes too
    "prompt": st.just(PROMPT) | WORDS,
    "what": st.sampled_from(["emoji", "shapes", *GIVEN_NAMES]) | WORDS,
    "device": st.sampled_from(["cpu", "cpu", "auto", "gpu"]),
    "resume": st.sampled_from(["run", "../given/nowhere", "stray"]) | OUT,
}
INPUTS = st.sampled_from(GIVEN_NAMES) | OUT


def typed(action: argparse.Action) -> st.SearchStrategy[str]:
    """What might be typed for an argument."""
    if action.dest in TYPED:
        return TYPED[action.dest]
    if action.choices:
        return st.sampled_from([*action.choices]) | WORDS
    if action.type is int:
        return st.sampled_from([*map(str, INTEGERS), "1e3", "x", "", "٣", "1_0"])
    if action.type is float:
        return st.sampled_from([*map(str, NUMBERS), "5,0", "x", ""])
    return OUT if action.dest in OUTPUTS else INPUTS


def subparsers() -> dict[str, argparse.ArgumentParser]:
    (action,) = [a for a in cli.build_parser()._actions if isinstance(a, argparse._SubParsersAction)]
    return action.choices


@st.composite
def command_lines(draw: st.DrawFn) -> list[str]:
    """A command with some of its arguments, and now and then something that does not belong there."""
    name = draw(st.sampled_from(sorted(cli.COMMANDS)))
    actions = subparsers()[name]._actions
    needed = [action for action in actions if not action.option_strings and draw(st.integers(0, 5))]
    needed += [action for action in actions if action.dest == "n"]  # two thousand pictures, were it left out
    others = [action for action in actions if action.option_strings and action not in needed]
    words = []
    for action in needed + draw(st.lists(st.sampled_from(others), max_size=6, unique=True)):
        value = [] if action.nargs == 0 else [draw(typed(action))]
        option = action.option_strings[-1:]
        glued = option and value and draw(st.booleans())  # --n=-1 is understood where --n -1 is not
        words.append([f"{option[0]}={value[0]}"] if glued else [*option, *value])
    words += draw(st.lists(st.lists(WORDS, min_size=1, max_size=2), max_size=1)) if not draw(st.integers(0, 7)) else []
    return [name, *(word for group in draw(st.permutations(words)) for word in group)]


def test_every_command_is_tried():
    assert set(subparsers()) == set(cli.COMMANDS)


@cases(70)
@given(arguments=command_lines())
@example(arguments=["evaluate", "--model", "tiny", "--n", "3"])  # each of these has failed once
@example(arguments=["ablate", "--log", "../given/broken.jsonl"])
@example(arguments=["generate", PROMPT, "--model", "tiny", "--save_path=~/x"])
def test_any_command_line(course, arguments):
    course(arguments, GIVEN)


@cases(15)
@given(arguments=st.lists(WORDS | st.sampled_from(["generate", "--help", "--version", "-h", "--n=1"]), max_size=5))
def test_any_words(course, arguments):
    course(arguments)


# ---- settings in YAML

SCALARS = st.none() | st.booleans() | st.sampled_from(INTEGERS) | st.sampled_from(NUMBERS) | WORDS
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS | SCALARS, inner, max_size=3),
    max_leaves=6,
)
FITTING = {
    int: st.sampled_from([1, 2, 3]),
    float: st.sampled_from([0.0, 0.5, 1.0, 2]),
    bool: st.booleans(),
    str: INPUTS,
}
OWN = {
    "texts": st.lists(st.just(PROMPT) | WORDS, max_size=3),
    "model_path": MODELS,
    "save_path": OUT,
    "image": st.just("../given/picture.png") | INPUTS,
    "device": TYPED["device"],
    "image_size": st.just(32),
    "z_size": st.just(8),
}
KEYS = {  # a new setting is tried by itself; of `int | None` the first is taken
    name: OWN.get(name, FITTING.get(next(iter(typing.get_args(kind)), kind), WORDS))
    for name, kind in typing.get_type_hints(GenerateConfig).items()
}
LINES = [
    *(
        "texts: [red]",
        "texts: &a [red, *a]",
        "a: &a [x]",
        "b: &b [*a, *a]",
        "c: [*b, *b]",
        "texts: *b",
        "<<: {seed: 1}",
    ),
    *(
        "<<: *a",
        "seed: 0o7",
        "seed: 1_0",
        "seed: 2024-01-01",
        "seed: !!int '7'",
        "seed: !!binary aGk=",
        "? [a, b]\n: c",
    ),
    *(
        "model_path: tiny",
        "n_samples: 2",
        "n_samples: 1e1",
        "save_path: |\n  out",
        "---",
        "...",
        "%YAML 1.1",
        "  ",
        "- x",
    ),
    *(
        "texts: !!python/name:os.system",
        "texts: !!set {a}",
        "image: !!omap [a: 1]",
        '"\\ud800": 1',
        'texts: ["\\ud800"]',
    ),
]


@st.composite
def settings_files(draw: st.DrawFn) -> bytes:
    """Keys and values, most of them right; or lines that mean something to YAML; or bytes that mean nothing."""
    chosen = {"texts": [PROMPT], "model_path": "tiny"} | draw(st.fixed_dictionaries({}, optional=KEYS))
    wrong = draw(st.dictionaries(st.sampled_from(sorted(KEYS)) | WORDS, ANYTHING, max_size=1))
    wrong.pop("save_path", None)  # any word might lead out of the folder
    text = yaml.safe_dump(chosen | wrong, allow_unicode=draw(st.booleans())).encode("utf-8", "surrogatepass")
    lines = "\n".join(draw(st.lists(st.sampled_from(LINES), max_size=6))).encode()
    whole = st.sampled_from([text, text, text, lines, text + lines])
    return draw(whole | whole | damaged([text + lines]) | st.binary(max_size=30))


@cases(50)
@given(data=settings_files(), prompt=st.booleans())
@example(data=b'model_path: tiny\nsave_path: "~/x"', prompt=True)
@example(data=b'"\\e[2J": 1', prompt=True)
def test_any_file_of_settings(course, data, prompt):
    course(["generate", *[PROMPT] * prompt, "--config", "../given/settings.yaml"], GIVEN | {"settings.yaml": data})


# ---- pictures


@cases(80)
@given(data=damaged(PICTURES) | st.binary(max_size=60), fit=st.sampled_from(["crop", "pad"]))
def test_any_picture_is_read_or_refused(tmp_path_factory, data, fit):
    path = tmp_path_factory.getbasetemp() / "any-picture"
    path.write_bytes(data)
    with no_hang(), WATCH.listening() as written:
        try:
            image = prepare_image(path, 16, fit)
            assert image.shape == (3, 16, 16) and image.abs().max() <= 1
        except CourseError as error:
            assert "use a whole PNG" in str(error)
        with contextlib.suppress(CourseError):
            assert all(isinstance(text, str) for text in read_provenance(path).values())
    assert not written


@cases(10)
@given(image=damaged(PICTURES), mask=st.none() | damaged(PICTURES))
def test_any_picture_to_begin_from(course, image, mask):
    mask_too = ["--mask", "../given/mask"] if mask is not None else []
    files = {"image": image, "mask": mask or b""}
    course(["generate", PROMPT, "--model", "tiny", "--n_samples", "1", "--image", "../given/image", *mask_too], files)


@cases(20)
@given(data=damaged(PICTURES[:3]) | st.binary(max_size=60))
def test_any_picture_that_is_inspected(course, data):
    assert course(["inspect", "../given/a.png"], {"a.png": data})[0] in (0, 1, 2)


# ---- folders of captioned pictures

NAMES = st.sampled_from(
    ["a.png", "b.jpg", "./a.png", "../secret.png", "sub/c.gif", "/secret.png", "a.png/b", "nul", ""]
)
CAPTIONS = {
    "metadata.jsonl": st.lists(
        st.builds(lambda name, text: json.dumps({"file_name": name, "text": text}).encode(), NAMES | WORDS, ANYTHING)
        | st.binary(max_size=30),
        max_size=5,
    ).map(b"\n".join),
    "metadata.csv": st.lists(
        st.builds(lambda name, text: f'{name},"{text}"'.encode("utf-8", "replace"), NAMES, WORDS)
        | st.binary(max_size=30),
        max_size=5,
    ).map(lambda lines: b"\n".join([b"file_name,text", *lines])),
    "a.txt": st.binary(max_size=40) | WORDS.map(lambda text: text.encode("utf-8", "replace")),
    "b.txt": st.just(b"a ring\na circle"),
    "sub/c.txt": st.just(b"a cross"),
    "sub/metadata.csv": st.just(b"file_name,text\n../a.png,up\nc.gif,here\n"),
}


@cases(40)
@given(
    captions=st.fixed_dictionaries({}, optional=CAPTIONS),
    pictures=st.fixed_dictionaries(
        {"a.png": damaged(PICTURES)}, optional={n: damaged(PICTURES) for n in ("b.jpg", "sub/c.gif")}
    ),
    options=st.sampled_from([[], [], ["--json"], ["--n", "1"]]),
)
def test_any_folder_of_captioned_pictures(course, captions, pictures, options):
    files = {f"pictures/{name}": data for name, data in (captions | pictures).items()} | {"secret.png": PICTURES[0]}
    code, told = course(["audit", "../given/pictures", *options], files)
    if code < 2 and options == ["--json"]:
        json.loads(told)


# ---- checkpoints


@st.composite
def replaced(draw: st.DrawFn, value: object) -> object:
    """A JSON value with something else in one place of it."""
    if isinstance(value, dict | list) and value and draw(st.integers(0, 9)):
        keys = sorted(value) if isinstance(value, dict) else range(len(value))
        key, copy = draw(st.sampled_from(keys)), value.copy()
        copy[key] = draw(replaced(value[key]))
        return copy
    return draw(ANYTHING | st.sampled_from([value, [value], {"x": value}, [value] * 50]))


@cases(50)
@given(data=st.data())
def test_any_checkpoint(course, data):
    """A checkpoint with one thing changed in its settings, its tokenizer or the head of its weights."""
    home = Path(os.environ["COURSE_CHECKPOINTS"], "tiny")
    files = {path.name: path.read_bytes() for path in home.iterdir() if path.is_file()}
    name = data.draw(st.sampled_from([CONFIG, CONFIG, "tokenizer.json", TENSORS]))
    if name == TENSORS:
        length = 8 + struct.unpack_from("<Q", files[name])[0]
        head = files[name][:length]
        changed = data.draw(damaged([head]))
        if data.draw(st.booleans()):  # the length fits again
            changed = struct.pack("<Q", max(0, len(changed) - 8)) + changed[8:]
        files[name] = changed + files[name][length:]
    else:
        files[name] = json.dumps(data.draw(replaced(json.loads(files[name])))).encode()
    command = data.draw(st.sampled_from([["generate", PROMPT, "--n_samples", "1"], ["evaluate", "--n", "4"]]))
    course([*command, "--model", "../given/model"], {f"model/{name}": content for name, content in files.items()})
