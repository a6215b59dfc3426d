"""The rules of living in this house, for every file of the package: floors, names, size, nothing at import."""

import ast
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import hvdtrain

PACKAGE = Path(hvdtrain.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

ROOMS_BY_FLOOR = (
    ("errors", "files", "log", "masking", "outcome", "process", "provenance"),
    ("config", "events", "figures", "torchvision"),
    ("distributed",),
    ("data", "model", "optim", "metrics", "checkpoint"),
    ("train",),
    ("plan", "bench", "slurm", "report", "reproduce", "doctor", "inference", "export", "discover"),
    ("cli",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS_BY_FLOOR) for room in rooms}

FORBIDDEN_NAMES = {"utils", "helpers", "common", "base", "manager", "handler", "engine"}
FORBIDDEN_CLASSES = ("Manager", "Handler", "Engine", "Helper", "Trainer")
HEAVY = ("torch", "horovod", "nvidia.dali", "torchvision", "mpi4py")
MOST_LINES = 300


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str | None:
    """The room of a dotted name, `hvdtrain.data.order` -> `data`; None for the package itself and for strangers."""
    parts = module.split(".")
    return parts[1] if parts[0] == "hvdtrain" and len(parts) > 1 else None


def imported(tree: ast.AST, module: str) -> Iterator[str]:
    """Dotted names of all modules imported anywhere in the tree, functions included."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            start = ".".join([*package, *([node.module] if node.module else [])])
            # `from hvdtrain import log` names a room in its list, `from hvdtrain.log import logger` before it
            yield from (f"{start}.{alias.name}" if start == "hvdtrain" else start for alias in node.names)


def upward(source: str, module: str) -> list[str]:
    """Imports of `module` that do not lead down or stay in the room."""
    here = room(module)
    if here is None:
        return []
    targets = {there for name in imported(ast.parse(source), module) if (there := room(name)) in FLOOR}
    return sorted(f"{module} -> {there}" for there in targets if there != here and FLOOR[there] >= FLOOR[here])


def test_every_room_has_a_floor() -> None:
    rooms = {room(module_name(path)) for path in FILES} - {None}
    assert rooms <= FLOOR.keys()


def test_imports_go_down_only() -> None:
    assert [line for path in FILES for line in upward(path.read_text(), module_name(path))] == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hvdtrain.data.order", "from hvdtrain.model import build"),
        ("hvdtrain.data.order", "def f():\n    import hvdtrain.train.loop"),
        ("hvdtrain.config.load", "from hvdtrain import cli"),
        ("hvdtrain.log", "from .errors import ConfigError"),
        ("hvdtrain.doctor", "if True:\n    from hvdtrain.plan.capacity import hours"),
    ],
)
def test_an_import_across_or_up_is_seen(module: str, source: str) -> None:
    assert len(upward(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("hvdtrain.data.order", "from hvdtrain.data import keyed\nfrom . import augment"),
        ("hvdtrain.cli", "from hvdtrain import __version__, doctor, log"),
        ("hvdtrain.metrics.targets", "import json, torch\nfrom hvdtrain.files import write_whole"),
    ],
)
def test_an_import_downward_or_within_the_room_is_allowed(module: str, source: str) -> None:
    assert upward(source, module) == []


@pytest.mark.parametrize("name", ROOMS_BY_FLOOR[0])
def test_the_ground_floor_stands_on_the_standard_library_alone(name: str) -> None:
    source = (PACKAGE / f"{name}.py").read_text()
    modules = set(imported(ast.parse(source), f"hvdtrain.{name}")) - {"hvdtrain.__version__"}
    assert {module.split(".")[0] for module in modules} <= sys.stdlib_module_names


RUN = "runs/demo"
JOB = {"submissions": [{"kind": "slurm", "id": "7", "output": "slurm-7.out"}]}


@pytest.mark.parametrize(
    "arguments",
    [
        *(["--help"], ["config"], ["train", "--help"], ["config", "--config", "demo"]),
        *(["submit", "--config", "demo", "--dry-run"], ["resume", RUN, "--dry-run"], ["resume", "--help"]),
        *(["submit", "--scaling", "1,2", "--dry-run"], ["submit", "--prepare", "archives", "--dry-run"]),
        *(["plan", "--help"], ["plan", "--gpus", "64"], ["plan", "--validate"]),
        *(["eval", "--help"], ["predict", "--help"], ["export", "--help"]),
        *(["jobs"], ["jobs", "--json"], ["status", RUN, "--json"], ["status", RUN], ["logs", RUN], ["cancel", RUN]),
    ],
    ids=" ".join,
)
def test_on_a_login_node_nothing_heavy_is_imported(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / RUN).mkdir(parents=True)
    (tmp_path / RUN / "job.json").write_text(json.dumps(JOB))
    (tmp_path / RUN / "submitted.yaml").write_text("seed: 6\n")
    (tmp_path / RUN / "cancelled").touch()
    (tmp_path / RUN / "slurm-7.out").write_text("a line\n" * 6)
    program = f"""
import os, sys
os.environ["SLURM_CONF"] = "/dev/null"
from hvdtrain.cli import main
try:
    code = main({arguments!r})
except SystemExit as end:
    code = end.code
print("loaded", sorted(name for name in {HEAVY!r} if name in sys.modules), "code", code)
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "loaded [] code 0"
    assert len(ran.stdout.splitlines()) > (1 if arguments[-1] in ("jobs", RUN) else 5)


def test_importing_does_nothing_but_define(tmp_path: Path) -> None:
    names = [module_name(path) for path in FILES]
    program = f"""
import importlib, logging, os, threading
import prometheus_client
before = set(prometheus_client.REGISTRY._names_to_collectors)
environment = dict(os.environ)
threads = threading.active_count()
modules = [importlib.import_module(name) for name in {names!r}]
assert set(prometheus_client.REGISTRY._names_to_collectors) == before, "a series was registered"
assert not logging.getLogger("hvdtrain").handlers, "logging was set up"
assert logging.getLogger("hvdtrain").level == logging.NOTSET, "logging was set up"
assert threading.active_count() == threads, "a thread was started"
changed = {{k for k in os.environ.keys() | environment if os.environ.get(k) != environment.get(k)}}
assert not {{k for k in changed if k.startswith(("HOROVOD", "OMPI", "NCCL", "OMP_", "CUDA"))}}, changed
print(len(modules))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stderr == ""
    assert ran.stdout == f"{len(names)}\n"
    assert list(tmp_path.iterdir()) == []


def test_no_file_or_folder_has_a_name_that_says_nothing() -> None:
    assert [path for path in PACKAGE.rglob("*") if path.stem in FORBIDDEN_NAMES] == []


def test_no_class_has_a_name_that_says_nothing() -> None:
    classes = [
        node.name for path in FILES for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]
    assert classes
    assert [name for name in classes if name.endswith(FORBIDDEN_CLASSES)] == []


def test_only_main_catches_everything() -> None:
    catches = []
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ExceptHandler):
                caught = ast.unparse(node.type) if node.type else ""
                reraised = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if re.search(r"\b(Base)?Exception\b", caught or "BaseException") and not reraised:
                    catches.append(f"{module_name(path)} catches {caught or 'everything'}")
    assert catches == ["hvdtrain.cli catches Exception"]


def test_a_file_of_more_than_300_lines_asks_to_be_split() -> None:
    lines = {module_name(path): len(path.read_text().splitlines()) for path in FILES}
    assert {module: count for module, count in lines.items() if count > MOST_LINES} == {}
