"""The cure is taken only where it is needed. Operators belong to a process, so each test has one of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
REAL_OPERATOR = """
import torch
library = torch.library.Library("torchvision", "DEF")
library.define("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
library.impl("nms", lambda dets, scores, iou_threshold: scores.argsort(descending=True), "CPU")
"""
ENSURE = "import torch; from course_lib.torchvision_ops import ensure_torchvision_ops\n"


def run(code: str) -> str:
    finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout.strip()


def test_torchvision_and_transformers_can_be_imported_afterwards():
    code = """
ensure_torchvision_ops()
import gc; gc.collect()
from torchvision import datasets, models, transforms, utils
from torchvision.transforms import v2
from transformers import GPT2Model
print(tuple(utils.make_grid(torch.zeros(4, 3, 8, 8), nrow=2).shape))
"""
    assert run(ENSURE + code) == "(3, 22, 22)"


def test_real_operators_are_left_alone():
    code = """
assert not ensure_torchvision_ops()
print(torch.ops.torchvision.nms(torch.zeros(2, 4), torch.tensor([0.1, 0.9]), 0.5).tolist())
"""
    assert run(REAL_OPERATOR + ENSURE + code) == "[1, 0]"


def test_operators_that_can_be_loaded_are_loaded_and_not_replaced():
    pytest.importorskip("torchvision")
    code = f"""
def load_library(path):
    global library
    exec({REAL_OPERATOR!r}, globals())
torch.ops.load_library = load_library
assert not ensure_torchvision_ops()
print(torch.ops.torchvision.nms(torch.zeros(2, 4), torch.tensor([0.1, 0.9]), 0.5).tolist())
"""
    assert run(ENSURE + code) == "[1, 0]"


def test_stand_ins_are_declared_once_and_only_where_nothing_else_helps():
    pytest.importorskip("torchvision")
    code = """
import importlib.util
def load_library(path):
    raise OSError("libcudart.so: cannot open shared object file")
torch.ops.load_library = load_library
find_spec, cuda = importlib.util.find_spec, torch.version.cuda

torch.version.cuda = "12.6"
print("torch with CUDA:", ensure_torchvision_ops())
torch.version.cuda = None
importlib.util.find_spec = lambda name: None
print("no torchvision:", ensure_torchvision_ops())
importlib.util.find_spec = find_spec
print("before:", hasattr(torch.ops.torchvision, "nms"))
print("cure:", ensure_torchvision_ops())
print("after:", hasattr(torch.ops.torchvision, "nms"), hasattr(torch.ops.torchvision, "qnms"))
print("again:", ensure_torchvision_ops())
"""
    assert run(ENSURE + code).splitlines() == [
        "torch with CUDA: False",
        "no torchvision: False",
        "before: False",
        "cure: True",
        "after: True True",
        "again: False",
    ]
