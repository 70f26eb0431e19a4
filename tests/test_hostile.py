"""Files from strangers: what they hold is never run, never unpacked, and never decides what is written where.

What one module keeps out by itself is tested with that module; `tests/README.md` lists it all.
"""

import io
import json
import os
import pickle
import re
import shlex
import shutil
import subprocess
import tarfile
import urllib.error
import urllib.request
import zipfile
from pathlib import Path

import psutil
import pytest
import torch
from browser.lab import server
from PIL import Image
from test_architecture import TREES, uses
from test_checkpoint import Malicious, safetensors_file

from course_lib.alignment import load_alignment
from course_lib.checkpoint import CHECKPOINTS, CONFIG, TENSORS
from course_lib.cli import main
from course_lib.data import CaptionedFolder
from course_lib.diffusion import DiffusionTextToImage
from course_lib.emoji_evaluation import load_tone_judge
from course_lib.emoji_metrics import ToneConfig, ToneJudge
from course_lib.errors import CourseError
from course_lib.evaluation import load_judge
from course_lib.gan import DCGANConfig, DCGANDiscriminator, DCGANGenerator
from course_lib.image_encoder import ImageEncoder, ImageEncoderConfig
from course_lib.text_encoder import load_text_encoder
from course_lib.text_gan import Discriminator, DiscriminatorConfig, Generator, GeneratorConfig
from course_lib.text_to_image import TextToImage
from course_lib.unet import DiffusionConfig, UNet
from course_lib.vae import VAE, VAEConfig

ROOT = Path(__file__).resolve().parents[1]
PROMPT = "a small red circle at the center on gray"


@pytest.fixture
def refused(workplace, capsys):
    """Run `course` with something hostile; it must be refused in one line, and leave no file behind."""

    def run(*arguments: object) -> str:
        before = sorted(workplace.parent.rglob("*"))
        assert main([str(argument) for argument in arguments]) == 2
        told = capsys.readouterr().err.strip()
        assert told.startswith("course: ") and "\n" not in told
        assert sorted(workplace.parent.rglob("*")) == before
        return told

    return run


@pytest.fixture
def link():
    """Make a symbolic link, or skip the test where the system makes none."""

    def make(path: Path, target: Path) -> None:
        path.unlink(missing_ok=True)
        try:
            path.symlink_to(target)
        except OSError:
            pytest.skip("this system makes no links")

    return make


# ---- what could run


def torch_pickle() -> bytes:
    torch.save({"weight": torch.zeros(2), "payload": Malicious()}, file := io.BytesIO())
    return file.getvalue()


PICKLES = {"pickle": lambda: pickle.dumps(Malicious()), "torch": torch_pickle}  # .pt, .bin and .ckpt are one of these
each_pickle = pytest.mark.parametrize("data", PICKLES.values(), ids=PICKLES)


@each_pickle
@pytest.mark.parametrize("name", ["model.pt", "pytorch_model.bin", "model.ckpt", "model.pkl"])
def test_a_pickle_is_no_checkpoint_and_is_not_run(refused, name, data):
    Path("strange").mkdir()
    Path("strange", name).write_bytes(data())
    Path("strange", CONFIG).write_text('{"kind": "text-to-image"}', encoding="utf-8")
    assert "no checkpoint" in refused("generate", PROMPT, "--model", f"strange/{name}")
    assert f"has no {TENSORS}" in refused("generate", PROMPT, "--model", "strange")
    assert "holds no run" in refused("train", "--resume", f"strange/{name}")


@each_pickle
def test_a_pickle_by_another_name_is_not_run_either(refused, workplace, data):
    Path("strange").write_bytes(data())
    for option in ("--config", "--texts"):
        assert "give a text file in UTF-8" in refused("generate", option, "strange")
    assert "no picture of a known format" in refused("generate", PROMPT, "--model", "tiny", "--image", "strange")
    assert "it is no PNG" in refused("inspect", "strange")
    for name in (CONFIG, TENSORS):
        shutil.copytree(workplace.parent / "checkpoints" / "tiny", "copy", dirs_exist_ok=True)
        shutil.copy("strange", Path("copy", name))
        assert "copy it again or train it again" in refused("generate", PROMPT, "--model", "copy")


@each_pickle
def test_a_pickle_beside_good_weights_is_not_looked_at(workplace, data):
    shutil.copytree(workplace.parent / "checkpoints" / "tiny", "model")
    for name in ("model.pt", "pytorch_model.bin", "training_args.bin", "tokenizer.pkl"):
        Path("model", name).write_bytes(data())
    assert main(["generate", PROMPT, "--model", "model"]) == 0
    assert sorted(path.name for path in workplace.iterdir()) == ["model", "samples"]


@pytest.mark.parametrize("kind", [[], {}, None, 5, "\x1b[2J", "x" * 1000])
def test_a_strange_kind_of_checkpoint_is_refused_and_disturbs_no_other(refused, workplace, kind):
    home = workplace.parent / "checkpoints"
    shutil.copytree(home / "tiny", home / "strange")
    config = json.loads((home / "tiny" / CONFIG).read_text(encoding="utf-8")) | {"kind": kind}
    (home / "strange" / CONFIG).write_text(json.dumps(config), encoding="utf-8")
    told = refused("generate", PROMPT, "--model", "strange")
    assert "checkpoint, not a text-to-image one" in told and "\x1b" not in told and len(told) < 500
    for vocabulary in (5, None):
        strange = config | {"kind": "text-to-image", "vocabulary": vocabulary}
        (home / "strange" / CONFIG).write_text(json.dumps(strange), encoding="utf-8")
        assert main(["generate", "a zebra", "--model", "tiny"]) == 0  # every model is asked whether it knows the word


# ---- what could unpack


def zip_slip() -> bytes:
    with zipfile.ZipFile(file := io.BytesIO(), "w") as archive:
        archive.writestr("../../evil.txt", "x")
        archive.writestr("metadata.jsonl", json.dumps({"file_name": "a.png", "text": "a ring"}))
    return file.getvalue()


def tar_slip() -> bytes:
    with tarfile.open(fileobj=(file := io.BytesIO()), mode="w:gz") as archive:
        archive.addfile(tarfile.TarInfo("../../evil.txt"))
    return file.getvalue()


@pytest.mark.parametrize("name, data", [("pictures.zip", zip_slip), ("pictures.tar.gz", tar_slip)])
def test_archives_are_not_unpacked(refused, name, data):
    Path(name).write_bytes(data())
    assert "is not a folder" in refused("audit", name)
    assert "no checkpoint" in refused("generate", PROMPT, "--model", name)
    assert "no picture of a known format" in refused("generate", PROMPT, "--model", "tiny", "--image", name)
    Path("pictures").mkdir()
    for disguise in (name, "a.png", "metadata.jsonl"):
        shutil.copy(name, Path("pictures", disguise))
    assert "is not UTF-8" in refused("audit", "pictures")


def test_no_module_can_unpack_an_archive():
    unpack = re.compile(r"(zipfile|tarfile|py7zr|rarfile)\b|shutil\.(unpack_archive|register_unpack)")
    assert not [(name, use) for name, tree in TREES.items() for use in uses(tree) if unpack.match(use)]


# ---- what could fill the memory


@pytest.fixture
def terabyte():
    """Make a file as long as that, from what it holds; one with a hole in it takes no place on the disk."""

    def stretch(path: Path) -> None:
        if os.name == "nt":
            pytest.skip("Windows would give the file its place")
        try:
            os.truncate(path, 2**40)
        except OSError:
            pytest.skip("this file system holds no file of that size")

    return stretch


@pytest.mark.parametrize("name", [TENSORS, CONFIG, "tokenizer.json"])
def test_a_terabyte_of_a_checkpoint_is_not_read(refused, workplace, terabyte, name):
    shutil.copytree(workplace.parent / "checkpoints" / "tiny", "copy")
    if name == TENSORS:  # its head speaks of as much
        head = {"w": {"dtype": "U8", "shape": [2**40 - 8192], "data_offsets": [0, 2**40 - 8192]}}
        Path("copy", name).write_bytes(safetensors_file(head))
    terabyte(Path("copy", name))
    told = refused("generate", PROMPT, "--model", "copy")
    assert name in told and ("over 10,000,000,000" in told or "longer than 10,000,000 bytes" in told)


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv", "a.txt"])
def test_a_terabyte_of_captions_is_not_read(workplace, capsys, terabyte, name):
    Path("pictures").mkdir()
    Image.effect_noise((64, 64), 90).save("pictures/a.png")
    Path("pictures", name).write_text("a ring", encoding="utf-8")
    terabyte(Path("pictures", name))
    assert main(["audit", "pictures"]) == 1 + name.startswith("metadata")
    assert "is longer than 500,000,000 bytes; split it" in "".join(capsys.readouterr())


LOADERS = {  # a shipped checkpoint of every kind, and what loads it
    "shapes-32": TextToImage.from_pretrained,
    "shapes-64-diffusion": DiffusionTextToImage.from_pretrained,
    "vae-shapes-32": VAE.from_pretrained,
    "gan-shapes-32": DCGANGenerator.from_pretrained,
    "gpt-captions": load_text_encoder,
    "align-shapes-32": load_alignment,
    "judge-32": lambda _: load_judge(32),
    "tones-32": lambda _: load_tone_judge(32),
}


def config_of(name: str) -> dict:
    return json.loads((CHECKPOINTS / name / CONFIG).read_text(encoding="utf-8"))


def sizes(config: dict) -> list[tuple[str, str]]:
    """The whole numbers in a configuration that say how large a part is: (part, name)."""
    parts = {part: values for part, values in config.items() if isinstance(values, dict) and part != "training"}
    return [(part, name) for part, values in parts.items() for name, value in values.items() if type(value) is int]


def test_every_kind_of_checkpoint_is_tried():
    shipped = {config_of(path.parent.name)["kind"] for path in CHECKPOINTS.glob(f"*/{CONFIG}")}
    assert shipped == {config_of(name)["kind"] for name in LOADERS}


@pytest.mark.parametrize(
    "name, part, size", [(name, part, size) for name in LOADERS for part, size in sizes(config_of(name))]
)
def test_a_billion_channels_are_refused_before_they_take_memory(tmp_path, monkeypatch, name, part, size):
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(tmp_path))
    shutil.copytree(CHECKPOINTS / name, tmp_path / name)
    LOADERS[name](name)
    for hostile in (10**9, 10**30, 0, -1):
        config = config_of(name)
        config[part][size] = hostile
        (tmp_path / name / CONFIG).write_text(json.dumps(config), encoding="utf-8")
        with pytest.raises(CourseError, match=size):
            LOADERS[name](name)


LARGEST = {
    "generator": lambda: Generator(GeneratorConfig(256, 2048, 2048, 2048, 256, "cross-attention")),
    "discriminator": lambda: Discriminator(DiscriminatorConfig(256, 2048, 256, 2048)),
    "DCGAN generator": lambda: DCGANGenerator(DCGANConfig(256, 4096, 64)),
    "DCGAN discriminator": lambda: DCGANDiscriminator(DCGANConfig(256, 4096, 64)),
    "VAE": lambda: VAE(VAEConfig(256, 2048, 1024)),
    "U-Net": lambda: UNet(DiffusionConfig(256, 4096, 256)),
    "image encoder": lambda: ImageEncoder(ImageEncoderConfig(256, 2048, 2048)),
    "judge of tones": lambda: ToneJudge(ToneConfig(256, 2048, 16)),
}


@pytest.mark.parametrize("make", LARGEST.values(), ids=LARGEST)
def test_the_largest_part_that_a_configuration_can_ask_for_fits_into_memory(make):
    with torch.device("meta"):  # shapes without numbers
        part = make()
    assert sum(x.numel() for x in part.state_dict().values()) < 500_000_000


def test_a_width_that_is_fine_for_small_pictures_is_too_much_for_large_ones():
    assert DCGANConfig(64, 100, 128).channels == (1024, 512, 256, 128)  # the paper's
    with pytest.raises(CourseError, match="width=65 is too much for image_size=256; use 1 to 64"):
        DCGANConfig(256, 100, 65)


def test_more_pictures_than_memory_are_refused_by_diffusion_too():
    model = DiffusionTextToImage.from_pretrained("shapes-32-diffusion")
    with pytest.raises(CourseError, match="n_samples=10000 for 1,000 prompts: ask for at most 81,380 pictures"):
        model.sample([PROMPT] * 1000, n_samples=10_000)


def test_a_bomb_among_good_pictures_is_named_and_not_decoded(workplace, capsys):
    Path("pictures").mkdir()
    Image.new("1", (10_000, 10_000)).save("pictures/bomb.png")  # twelve kilobytes that unpack to 300 megabytes
    Image.effect_noise((64, 64), 90).save("pictures/good.png")
    for name in ("bomb", "good"):
        Path(f"pictures/{name}.txt").write_text("a ring", encoding="utf-8")
    assert Path("pictures/bomb.png").stat().st_size < 20_000
    with pytest.warns(UserWarning, match="bomb.png: broken: 10000 x 10000 pixels are too many"):
        assert len(CaptionedFolder("pictures", 32, "all", max_bad=0.5)) == 1
    assert main(["audit", "pictures"]) == 1 and "too many" in capsys.readouterr().out


# ---- links


def test_a_link_in_the_place_of_a_picture_is_replaced_not_followed(workplace, link):
    assert main(["generate", PROMPT, "--model", "tiny"]) == 0
    drawn = sorted(Path("samples").iterdir())
    precious = workplace / "precious"
    precious.write_text("mine", encoding="utf-8")
    for path in drawn:
        link(path, precious)
    assert main(["generate", PROMPT, "--model", "tiny"]) == 0
    assert precious.read_text(encoding="utf-8") == "mine" and sorted(Path("samples").iterdir()) == drawn
    assert not any(path.is_symlink() for path in drawn)


def test_a_checkpoint_may_be_made_of_links_which_saving_does_not_follow(workplace, link):
    """A cache of models keeps its files elsewhere and links to them: reading is fine, for nothing in them is run."""
    elsewhere = workplace.parent / "checkpoints" / "tiny"
    before = {path.name: path.read_bytes() for path in elsewhere.iterdir()}
    Path("linked").mkdir()
    for path in elsewhere.iterdir():
        link(Path("linked", path.name), path)
    model = TextToImage.from_pretrained("linked")
    with torch.no_grad():
        model.generator.to_rgb.weight.add_(1)
    model.save_pretrained("linked")
    assert {path.name: path.read_bytes() for path in elsewhere.iterdir()} == before
    assert not any(path.is_symlink() for path in Path("linked").iterdir())


@pytest.mark.parametrize("name", ["training.lock", "metrics.jsonl", "run.json", "checkpoints"])
def test_a_strangers_run_cannot_write_through_a_link(refused, workplace, link, name):
    precious = workplace / "precious"
    precious.mkdir() if name == "checkpoints" else precious.write_text("{}", encoding="utf-8")
    settings = {"preset": "tiny-gan", "train": {"steps": 2}}
    Path("run").mkdir()
    Path("run/run.json").write_text(json.dumps(settings), encoding="utf-8")
    link(Path("run", name), precious)
    assert f'"{Path("run", name)}" is a link that leads out' in refused("train", "--resume", "run")
    assert list(precious.iterdir()) == [] if name == "checkpoints" else precious.read_text(encoding="utf-8") == "{}"


def test_links_within_a_run_and_to_it_are_fine(workplace, link, capsys):
    assert main(["train", "--preset", "tiny-gan", "--out", "run"]) == 0
    link(Path("run/best"), workplace / "run" / "model")
    link(Path("latest"), workplace / "run")
    assert main(["train", "--resume", "latest"]) == 0
    assert "is finished" in capsys.readouterr().out


# ---- who may talk to it


def let_in(address: str) -> bool:
    """Whether a server answers, and not with its login page."""
    try:
        return "/login" not in urllib.request.urlopen(address).geturl()
    except urllib.error.HTTPError as error:
        assert error.code == 403
        return False


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None or os.name == "nt", reason="make is not installed")
@pytest.mark.parametrize("target, options", [("lab", ["--no-browser", "--allow-root"]), ("app", ["--no-browser"])])
def test_servers_are_heard_on_this_machine_alone_and_ask_for_a_token(target, options, tmp_path, monkeypatch):
    monkeypatch.delenv("JUPYTER_TOKEN", raising=False)
    made = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = shlex.split(re.findall(r"-m ((?:jupyterlab|voila) .*)", made)[-1])
    words = [word for word in words if "$page" not in word]  # where it opens, which only the shell knows
    with server(ROOT, tmp_path, *words, *options) as port:
        sockets = [c for child in psutil.Process().children(recursive=True) for c in child.net_connections("inet")]
        assert {c.laddr.ip for c in sockets if c.status == psutil.CONN_LISTEN} == {"127.0.0.1"}
        address = f"http://127.0.0.1:{port}/"
        (token,) = set(re.findall(r"token=(\w+)", (tmp_path / "server.log").read_text(encoding="utf-8")))
        assert len(token) >= 32 and let_in(f"{address}?token={token}")
        for page in ("", "?token=", "?token=x", "api/kernels", "api/contents?token=x"):
            assert not let_in(address + page), page
