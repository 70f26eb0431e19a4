"""The frame around the course: packaging files that agree with each other, and a Makefile that works from any state."""

import ast
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PROJECT = PYPROJECT["project"]
TARGETS = ["help", "demo", "test", "test-quick", "test-long", "lab", "app", "notebooks", "exercises", "class"]
TARGETS += ["screenshots", "bench", "clean"]


# ---- files that must agree


def test_the_project_is_named_and_licensed():
    assert PROJECT["name"] == "words-to-pixels"
    assert PROJECT["license"] == "Apache-2.0"
    assert PROJECT["requires-python"] == ">=3.11"
    assert PROJECT["scripts"] == {"course": "course_lib.cli:main"}
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text and "Version 2.0, January 2004" in text and "END OF TERMS AND CONDITIONS" in text


@pytest.mark.parametrize(
    ("package", "oldest", "first_refused"), [("torch", "2.6", "2.14"), ("torchvision", "0.21", "0.29")]
)
def test_the_torch_pair_is_capped(package, oldest, first_refused):
    (requirement,) = [Requirement(line) for line in PROJECT["dependencies"] if Requirement(line).name == package]
    assert oldest in requirement.specifier
    assert first_refused not in requirement.specifier


def test_the_library_imports_only_what_is_declared():
    declared = {Requirement(line).name for line in PROJECT["dependencies"]}
    for extra in ("eval", "openmoji"):
        declared |= {Requirement(line).name for line in PROJECT["optional-dependencies"][extra]}
    name_on_index = {"PIL": "pillow", "yaml": "pyyaml", "IPython": "jupyterlab", "jupyter_client": "jupyterlab"}
    for path in (ROOT / "course_lib").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module and not node.level else []
            for package in {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"course_lib"}:
                known = {package, package.replace("_", "-"), name_on_index.get(package)}
                assert known & declared, f"{path.name} imports {package}, which pyproject.toml does not name"


def test_the_extras():
    assert set(PROJECT["optional-dependencies"]) == {"dev", "eval", "openmoji"}


def test_conda_takes_its_packages_from_pyproject():
    dependencies = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    (pip_part,) = [entry["pip"] for entry in dependencies if isinstance(entry, dict)]
    assert [shlex.split(line) for line in pip_part] == [["-e", ".[dev]"]]  # the quotes are pip's, not YAML's
    conda_names = [re.split("[=<>]", entry)[0] for entry in dependencies if isinstance(entry, str)]
    assert conda_names == ["python", "pip"]


def test_continuous_integration_runs_the_command_of_the_readme():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "make demo" in readme and "make test" in readme
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text(encoding="utf-8").rstrip().endswith("\nmake test")
    subprocess.run(["bash", "-n", str(script)], check=True)


# ---- the Makefile, run in a folder of its own with a Python that only pretends


FAKE_PYTHON = """#!/bin/sh
# Answers what the Makefile asks as a Python {version} would, and notes in {log} what it was told to do.
case "$1 $2" in
    "-c "*) exec "{python}" -c "import sys, types; sys.version_info = {version}; \\
sys.modules.setdefault('pip', types.ModuleType('pip')); $2" ;;
    "--version ") echo "Python {version}" ;;
    "-m venv") echo venv >> "{log}"; mkdir -p "$3/bin"; cp "$0" "$3/bin/python" ;;
    "-m pip") for last in "$@"; do :; done; echo "pip $last" >> "{log}"; [ ! -e "{log}.pip-fails" ] ;;
    *) echo "$*" >> "{log}" ;;
esac
"""


class Sandbox:
    """A copy of the Makefile in a folder whose PATH holds nothing but a few tools and pretended Pythons."""

    def __init__(self, folder: Path):
        self.project = folder / "a project"  # with a space, as on many desktops
        self.tools = folder / "tools"
        self.log = folder / "log"
        self.project.mkdir(parents=True)
        self.tools.mkdir()
        for name in ("Makefile", "pyproject.toml"):
            shutil.copy(ROOT / name, self.project)
        for tool in ("cat", "touch", "rm", "mkdir", "cp", "awk", "find"):
            (self.tools / tool).symlink_to(shutil.which(tool))

    @property
    def venv(self) -> Path:
        return self.project / ".venv"

    def add_python(self, path: Path, version: tuple[int, int] = (3, 12)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(FAKE_PYTHON.format(version=version, log=self.log, python=sys.executable))
        path.chmod(0o755)
        return path

    def make(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run make; its `done` lists what Python was told to do meanwhile."""
        self.log.write_text("")
        environment = {"PATH": str(self.tools), "HOME": str(self.project)}
        command = [shutil.which("make"), *arguments]
        run = subprocess.run(command, cwd=self.project, env=environment, capture_output=True, text=True)
        run.done = self.log.read_text().splitlines()
        return run

    def pip_fails(self, fails: bool) -> None:
        marker = Path(f"{self.log}.pip-fails")
        marker.touch() if fails else marker.unlink()


@pytest.fixture
def sandbox(tmp_path):
    if shutil.which("make") is None or os.name == "nt":
        pytest.skip("make is not installed")
    return Sandbox(tmp_path)


@pytest.fixture
def installed(sandbox):
    """A sandbox in which `make demo` has already run once."""
    sandbox.add_python(sandbox.tools / "python3")
    assert sandbox.make("demo").done == ["venv", "pip .", "-m course_lib demo"]
    return sandbox


def test_the_first_run_makes_everything_and_says_so(sandbox):
    sandbox.add_python(sandbox.tools / "python3")
    run = sandbox.make("demo")
    assert run.returncode == 0
    assert run.done == ["venv", "pip .", "-m course_lib demo"]
    assert "Making .venv" in run.stdout and "takes some minutes" in run.stdout


def test_the_second_run_installs_nothing(installed):
    assert installed.make("demo").done == ["-m course_lib demo"]


def test_tests_need_more_packages_than_the_demo(installed):
    first, second, third = installed.make("test-quick"), installed.make("test-quick"), installed.make("demo")
    assert first.done == ["pip .[dev]", "-m pytest -m not slow"]
    assert second.done == ["-m pytest -m not slow"]
    assert third.done == ["-m course_lib demo"]


def test_make_test_checks_style_and_runs_everything(installed):
    style = ["-m ruff check .", "-m ruff format --check ."]
    assert installed.make("test").done == ["pip .[dev]", *style, "-m pytest -n 2 --dist worksteal"]


def test_tests_first_then_the_demo_installs_once(sandbox):
    sandbox.add_python(sandbox.tools / "python3")
    assert "pip .[dev]" in sandbox.make("test").done
    assert sandbox.make("demo").done == ["-m course_lib demo"]


def test_changed_dependencies_are_installed(installed):
    for path in [installed.project / "pyproject.toml", *installed.venv.iterdir()]:
        os.utime(path, (1_000_000_000, 1_000_000_000))
    os.utime(installed.project / "pyproject.toml", (1_000_000_100, 1_000_000_100))
    assert installed.make("demo").done == ["pip .", "-m course_lib demo"]
    assert installed.make("demo").done == ["-m course_lib demo"]


def test_an_installation_that_was_cut_off_starts_anew(sandbox):
    sandbox.add_python(sandbox.tools / "python3")
    sandbox.pip_fails(True)
    run = sandbox.make("demo")
    assert run.returncode != 0 and run.done == ["venv", "pip ."]
    assert "The installation failed" in run.stderr
    sandbox.pip_fails(False)
    assert sandbox.make("demo").done == ["venv", "pip .", "-m course_lib demo"]
    assert sandbox.make("demo").done == ["-m course_lib demo"]


def test_a_venv_of_an_older_python_is_made_anew(installed):
    installed.add_python(installed.venv / "bin" / "python", version=(3, 10))
    run = installed.make("demo")
    assert run.done == ["venv", "pip .", "-m course_lib demo"]
    assert "made anew" in run.stdout


def test_a_venv_whose_python_was_removed_is_made_anew(installed):
    (installed.venv / "bin" / "python").unlink()
    (installed.venv / "bin" / "python").symlink_to(installed.project / "no longer here")
    assert installed.make("demo").done == ["venv", "pip .", "-m course_lib demo"]


def test_an_empty_venv_is_made_anew(sandbox):
    sandbox.add_python(sandbox.tools / "python3")
    sandbox.venv.mkdir()
    assert sandbox.make("demo").done == ["venv", "pip .", "-m course_lib demo"]


def test_a_moved_folder_gets_its_venv_anew(installed):
    installed.project = installed.project.rename(installed.project.with_name("moved"))
    assert installed.make("demo").done == ["venv", "pip .", "-m course_lib demo"]


def test_a_sound_venv_made_by_hand_is_kept(sandbox):
    sandbox.add_python(sandbox.venv / "bin" / "python")
    assert sandbox.make("demo").done == ["pip .", "-m course_lib demo"]


def test_an_older_python_is_passed_over(sandbox):
    sandbox.add_python(sandbox.tools / "python3", version=(3, 10))
    sandbox.add_python(sandbox.tools / "python3.11", version=(3, 11))
    run = sandbox.make("demo")
    assert run.done == ["venv", "pip .", "-m course_lib demo"]
    assert "(python3.11)" in run.stdout


@pytest.mark.parametrize("old", [(3, 10), (2, 7)])
def test_no_usable_python_is_told_clearly(sandbox, old):
    sandbox.add_python(sandbox.tools / "python3", version=old)
    run = sandbox.make("demo")
    assert run.returncode != 0 and run.done == []
    assert "No Python 3.11 or newer" in run.stderr and "make PYTHON=" in run.stderr
    assert not sandbox.venv.exists()


def test_the_python_that_was_asked_for_is_used(sandbox):
    mine = sandbox.add_python(sandbox.project / "my python" / "python3")
    assert sandbox.make("demo", f"PYTHON={mine}").done == ["venv", "pip .", "-m course_lib demo"]


def test_a_bad_python_that_was_asked_for_is_not_replaced_silently(sandbox):
    sandbox.add_python(sandbox.tools / "python3")
    run = sandbox.make("demo", "PYTHON=no-such-python")
    assert run.returncode != 0 and "no-such-python" in run.stderr and run.done == []


def test_clean_removes_the_venv_and_keeps_the_work(installed):
    (installed.project / "runs").mkdir()
    assert installed.make("clean").returncode == 0
    assert not installed.venv.exists() and (installed.project / "runs").exists()


def test_help_is_the_default_and_names_every_target(sandbox):
    run = sandbox.make()
    assert run.returncode == 0 and run.done == []
    assert re.findall(r"^  (\S+) ", run.stdout, flags=re.M) == TARGETS


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_can_be_rehearsed(sandbox, target):
    run = sandbox.make("-n", target)
    assert run.returncode == 0, run.stderr
    assert run.done == [] and not sandbox.venv.exists()
