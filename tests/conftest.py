"""What every test runs under: few threads, fixed seeds, no window, no network."""

import os
import random
import shutil
import signal
import socket

# Read once, when torch and matplotlib are imported. Passive threads sleep while they wait: on a busy machine spinning
# threads make a training step many times slower.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:  # two tests at a time, and what they start: each has a core of its own
    os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
from hypothesis import settings  # noqa: E402
from tiny import tiny_model, tiny_preset  # noqa: E402

from course_lib import evaluation, long_recipes, presets  # noqa: E402
from course_lib.checkpoint import find_checkpoint  # noqa: E402
from course_lib.torchvision_ops import ensure_torchvision_ops  # noqa: E402

settings.register_profile("long", max_examples=2000)  # `make test-long`: `test_fuzz` takes 20 times as many cases

torch.set_num_threads(min(2, torch.get_num_threads()))
ensure_torchvision_ops()  # the tests themselves import transformers and torchmetrics to compare with


# A shell starts background jobs with Ctrl-C ignored, and children inherit that; the tests of Ctrl-C need it heard.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def fixed_seeds() -> None:
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test that reaches for another machine fails; this machine itself (notebook kernels) stays within reach."""
    connect = socket.socket.connect

    def connect_here(self: socket.socket, address: object) -> None:
        if isinstance(address, tuple) and address[0] not in ("127.0.0.1", "localhost", "::1"):
            raise AssertionError(f"a test tried to reach {address[0]}: tests use no network")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", connect_here)


@pytest.fixture
def tell(record_property):
    """Print a text at the end of the whole run, for its reader."""
    return lambda text: record_property("told", text)


def pytest_terminal_summary(terminalreporter) -> None:
    """What tests wanted to `tell`, wherever they ran."""
    for report in terminalreporter.getreports("passed") + terminalreporter.getreports("failed"):
        for name, text in report.user_properties:
            if name == "told":
                terminalreporter.write_line(text)


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """An empty folder to work in, with checkpoints of its own: "tiny", "shapes-32" (tiny as well) and the judge."""
    home = tmp_path / "checkpoints"
    shutil.copytree(find_checkpoint("judge-32"), home / "judge-32")
    tiny_model().save_pretrained(home / "tiny")
    tiny_model().save_pretrained(home / "shapes-32")
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(home))
    monkeypatch.setitem(presets.PRESETS, "tiny-gan", tiny_preset())
    monkeypatch.setattr(long_recipes, "EXAM", 10)
    monkeypatch.setattr(evaluation, "DIVERSITY_CAPTIONS", 4)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "work"
