"""The rules that keep the library readable: who may import whom, what "from scratch" means, how large a module gets."""

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = ROOT / "course_lib"

# Bottom floor first: a module imports only modules on the left of it or above it. A new module gets its place here.
ORDER = """
    images
    data.captions data.pictures data.shapes data.emoji data.folder data.published data.audit data
    losses
    optim
    layers
    fit checkpoint image_encoder
    tokenizer text_encoder pretrained
    alignment
    vae
    gan
    text_gan
    batches training listeners
    scale speed
    text_to_image
    image_metrics metrics
    denoising unet diffusion diffusion_training
    emoji_metrics
    provenance
""".split()
CELLAR = ["errors", "torchvision_ops"]  # everybody may import these; they import nothing of the course
# The top floor may import everything; "" is course_lib/__init__.py.
TOP = """
    preset_data presets recipes long_recipes runs
    models evaluation emoji_evaluation folder_evaluation marks cards
    generate demo report plan ablation doctor audit_command house lesson widgets checks cli __main__
""".split()
TOP += [""]

CONTAINERS = {"Module", "Parameter", "Sequential", "ModuleList", "ModuleDict"}
MAY_CALL_FUNCTIONAL = {"layers", "text_encoder"}
# torch offers these outside torch.nn too, ready made
READY_MADE = re.compile(
    r"(conv\w*d|\w*_norm|embedding\w*|(max|avg|adaptive_avg)_pool\w*|\w*cross_entropy\w*|gru|lstm)$"
)
MAX_LINES_OF_A_MODULE = 250  # lines of code: what explains them is not counted
MAX_LINES_OF_CHECKS = 350  # a chapter's checks are mostly sentences: what is wrong, and which idea is behind it
MAX_LINES = 4800  # 4,500 and what chapter 13 needs to survive on several machines
MAX_LINES_OF_COMMANDS = 2550  # the top floor has its own limit: commands must not grow unseen either


def name_of(path: Path) -> str:
    """`course_lib/data/shapes.py` is "data.shapes", `course_lib/data/__init__.py` is "data"."""
    parts = path.relative_to(LIBRARY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def floor_of(name: str) -> int:
    """0 for the cellar, then the place in ORDER; the top floor is above all of them."""
    if name in CELLAR:
        return 0
    return len(ORDER) + 1 if name.split(".")[0] in TOP else ORDER.index(name) + 1


MODULES = {name_of(path): path for path in sorted(LIBRARY.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text(encoding="utf-8")) for name, path in MODULES.items()}
CHAPTERS = [name for name in MODULES if name in ORDER]
each_module = pytest.mark.parametrize("name", MODULES)
each_chapter = pytest.mark.parametrize("name", CHAPTERS)
below_the_top = pytest.mark.parametrize("name", [name for name in MODULES if name.split(".")[0] not in TOP])


def dotted(node: ast.AST) -> str:
    """ "torch.nn.Linear" for that expression, "" for one that is no chain of names."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (before := dotted(node.value)):
        return f"{before}.{node.attr}"
    return ""


def imported(tree: ast.AST, package: str = "course_lib") -> Iterator[tuple[str, str]]:
    """Every import, also inside functions, as (the name it gets here, what it stands for in full)."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.asname or alias.name.split(".")[0], alias.name
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            start = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield alias.asname or alias.name, f"{start}.{alias.name}"


def uses(tree: ast.AST) -> set[str]:
    """The full names of all that is imported or reached through what is imported: "torch.nn.functional.conv2d"."""
    meaning = {here: full for here, full in imported(tree) if here != full.split(".")[0]}
    found = {full for _, full in imported(tree)}
    for node in ast.walk(tree):
        first, _, rest = dotted(node).partition(".")
        if rest:
            found.add(f"{meaning.get(first, first)}.{rest}")
    return found


def own_modules_imported(name: str, tree: ast.AST) -> set[str]:
    is_package = MODULES[name].name == "__init__.py" if name in MODULES else False
    parent = name if is_package else name.rpartition(".")[0]
    found = set()
    for _, full in imported(tree, ".".join(filter(None, ["course_lib", parent]))):
        parts = full.split(".")
        if parts[0] != "course_lib" or full == "course_lib.__version__":
            continue
        if full == "course_lib.TextToImage":  # the package hands it out lazily
            parts = ["course_lib", "text_to_image"]
        while ".".join(parts[1:]) not in [*MODULES, *ORDER]:  # the tail may be a function, a class or a constant
            parts.pop()
        found.add(".".join(parts[1:]))
    return found


# ---- the helpers above can be wrong too


def test_the_helpers_see_every_way_to_import():
    source = """
import course_lib.images as pictures
def late():
    from course_lib import losses, TextToImage
    from .optim import Adam
    from course_lib.data.captions import parse
"""
    expected = {"images", "losses", "text_to_image", "optim", "data.captions"}
    assert own_modules_imported("layers", ast.parse(source)) == expected


@pytest.mark.parametrize(
    "line",
    [
        "import torch.nn as nn\nnn.Linear(1, 1)",
        "import torch\ntorch.nn.Linear(1, 1)",
        "from torch import nn\nnn.Linear(1, 1)",
        "from torch.nn import Linear",
        "import torch.nn\ntorch.nn.Linear(1, 1)",
    ],
)
def test_the_helpers_see_every_way_to_a_ready_made_layer(line):
    assert "torch.nn.Linear" in uses(ast.parse(line))


# ---- the rules


def test_every_module_has_a_floor():
    homeless = [name for name in MODULES if name not in [*CELLAR, *ORDER] and name.split(".")[0] not in TOP]
    assert not homeless, f"no place in ORDER for {homeless}"


@below_the_top
def test_imports_go_downwards(name):
    for other in own_modules_imported(name, TREES[name]):
        assert floor_of(other) < floor_of(name) or floor_of(other) == 0, f"{name} imports {other or 'course_lib'}"


@each_module
def test_the_tree_has_no_hidden_imports(name):
    calls = [dotted(node.func) for node in ast.walk(TREES[name]) if isinstance(node, ast.Call)]
    assert not [call for call in calls if call.endswith("import_module") or call == "__import__"]


@each_chapter
def test_layers_losses_and_optimisers_are_our_own(name):
    for full in uses(TREES[name]):
        parts = full.split(".")
        if parts[:2] == ["torch", "nn"] and len(parts) > 2:
            if parts[2] == "functional":
                assert name in MAY_CALL_FUNCTIONAL, f"{name} uses {full}"
            else:
                assert parts[2] in CONTAINERS, f"{name} uses {full}: only containers come from torch.nn"
        elif parts[0] == "torch" and len(parts) > 1:
            assert parts[1] != "optim", f"{name} uses {full}: the optimisers are in course_lib.optim"
            assert not READY_MADE.match(parts[1]), f"{name} uses {full}: write it, or call course_lib.layers"


@each_module
def test_nothing_reads_a_pickle(name):
    unsafe = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    assert not unsafe & {full.split(".")[0] for _, full in imported(TREES[name])}
    forbidden = {"torch.load", "torch.save", "torch.jit.load", "yaml.load", "yaml.unsafe_load", "yaml.full_load"}
    assert not forbidden & uses(TREES[name]), "pickles run code: use safetensors, JSON and yaml.safe_load"
    keywords = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.keyword)]
    assert "allow_pickle" not in [keyword.arg for keyword in keywords]


@each_module
def test_torchvision_and_transformers_come_after_the_cure(name):
    functions = [node for node in ast.walk(TREES[name]) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    cured = [node for function in functions if calls_the_cure(function) for node in ast.walk(function)]
    for node in ast.walk(TREES[name]):
        if isinstance(node, ast.Import | ast.ImportFrom) and node not in cured:
            packages = {full.split(".")[0] for _, full in imported(node)}
            assert not packages & {"torchvision", "transformers", "torchmetrics"}, (
                f"{name}, line {node.lineno}: import it in a function, after ensure_torchvision_ops()"
            )


def calls_the_cure(function: ast.AST) -> bool:
    calls = [node for node in ast.walk(function) if isinstance(node, ast.Call)]
    return any(dotted(call.func).endswith("ensure_torchvision_ops") for call in calls)


def lines_of_code(name: str) -> int:
    """Lines without blank ones, comments and docstrings."""
    kinds = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    explained = [node.body[0] for node in ast.walk(TREES[name]) if isinstance(node, kinds) and ast.get_docstring(node)]
    docstrings = {line for node in explained for line in range(node.lineno, node.end_lineno + 1)}
    lines = enumerate(MODULES[name].read_text(encoding="utf-8").splitlines(), start=1)
    return sum(bool(line.strip()) and line.strip()[0] != "#" for number, line in lines if number not in docstrings)


def test_only_code_is_counted():
    lines = MODULES["errors"].read_text(encoding="utf-8").splitlines()
    assert 5 < lines_of_code("errors") < len(lines) / 2


@each_module
def test_a_module_is_small(name):
    most = MAX_LINES_OF_CHECKS if name.startswith("checks.") else MAX_LINES_OF_A_MODULE
    assert lines_of_code(name) <= most, "a module that outgrows its chapter is two ideas"


def test_the_library_is_small():
    """The rooms that chapters build; commands, presets and widgets on the top floor are not read as a course is."""
    rooms = [*CHAPTERS, *CELLAR]
    assert sum(map(lines_of_code, rooms)) <= MAX_LINES
    commands = [name for name in MODULES if name not in rooms and name.split(".")[0] not in ("widgets", "checks")]
    assert sum(map(lines_of_code, commands)) <= MAX_LINES_OF_COMMANDS


@each_module
def test_everything_public_has_a_docstring(name):
    assert ast.get_docstring(TREES[name]), "a module opens with what the reader will find"
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    public = [node for node in TREES[name].body if isinstance(node, kinds) and not node.name.startswith("_")]
    assert not [node.name for node in public if not ast.get_docstring(node)]


@pytest.mark.parametrize(
    "module", ["course_lib", *(f"course_lib.{name}" for name in ("errors", "cli") if name in MODULES)]
)
def test_what_starts_first_stays_light(module):
    heavy = "{'torch', 'numpy', 'matplotlib', 'PIL', 'transformers', 'torchvision', 'IPython'}"
    code = f"import sys, {module}; print(sorted({heavy} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def text_files() -> Iterator[Path]:
    """The files that git has or would take; where there is no git, the files of the source folders."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True) if shutil.which("git") else None
    if listed is not None and listed.returncode == 0:
        paths = [ROOT / name for name in listed.stdout.split("\0") if name]
    else:
        paths = [*LIBRARY.rglob("*"), *Path(__file__).parent.rglob("*")]
    yield from (path for path in paths if path.is_file())


def test_no_file_names_a_folder_of_one_machine():
    home = re.compile(rb"/(?:root|home/[a-z]\w*|Users/[a-z]\w*)/|[A-Z]:\\+Users\\|/tmp/ipykernel|/ipykernel_\d")
    suffixes = {".py", ".md", ".toml", ".yml", ".yaml", ".json", ".ipynb", ".txt", ".cfg", ""}
    guilty = [
        f"{path.relative_to(ROOT)}: {found.group().decode()}"
        for path in text_files()
        if path.suffix in suffixes and path != Path(__file__)
        for found in [home.search(path.read_bytes())]
        if found
    ]
    assert not guilty
