"""What never stands in the package's source: ways in which data becomes code."""

import ast
import ipaddress
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import hvdtrain
from hvdtrain.config.schema import Config

PACKAGE = Path(hvdtrain.__file__).parent
FILES = sorted(PACKAGE.rglob("*.py"))

UNPICKLERS = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "marshal", "shelve", "joblib", "jsonpickle"}
LOADING = {"load", "loads", "Unpickler", "open", "DbfilenameShelf", "Shelf"}
SHELLS = {
    "os.system",
    "os.popen",
    "subprocess.getoutput",
    "subprocess.getstatusoutput",
    "asyncio.create_subprocess_shell",
}
CODE = {"eval", "exec", "compile", "builtins.eval", "builtins.exec", "builtins.compile"}
UNSAFE_YAML = {"unsafe_load", "unsafe_load_all", "full_load", "full_load_all"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader"}

Found = Iterator[tuple[int, str]]


def names(tree: ast.AST) -> dict[str, str]:
    """What each imported name means: `from os import system as run` -> run: os.system."""
    meant = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                first = alias.name.partition(".")[0]
                meant[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module:
            meant.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return meant


def dotted(node: ast.expr, meant: dict[str, str]) -> str:
    """`np.load` -> numpy.load, where np is what numpy was imported as; empty for what is no name."""
    if isinstance(node, ast.Name):
        return meant.get(node.id, node.id)
    if isinstance(node, ast.Attribute) and (before := dotted(node.value, meant)):
        return f"{before}.{node.attr}"
    return ""


def calls(tree: ast.AST) -> Iterator[tuple[ast.Call, str]]:
    meant = names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield node, dotted(node.func, meant)


def is_literally(call: ast.Call, keyword: str, value: object) -> bool:
    return any(k.arg == keyword and isinstance(k.value, ast.Constant) and k.value.value is value for k in call.keywords)


def unpickled(tree: ast.AST) -> Found:
    for call, name in calls(tree):
        if name == "torch.load" and not is_literally(call, "weights_only", True):
            yield call.lineno, "torch.load without weights_only=True"
        module, _, function = name.rpartition(".")
        if module.partition(".")[0] in UNPICKLERS and function in LOADING:
            yield call.lineno, name
        if name == "numpy.load" and any(k.arg is None for k in call.keywords):
            yield call.lineno, "numpy.load with options that cannot be read here"
        allowing = any(k.arg == "allow_pickle" for k in call.keywords) and not is_literally(call, "allow_pickle", False)
        if name == "numpy.load" and (allowing or len(call.args) > 2):
            yield call.lineno, "numpy.load with allow_pickle"


def unsafe_yaml(tree: ast.AST) -> Found:
    meant = names(tree)
    safe = set(SAFE_LOADERS)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and any(dotted(b, meant).rpartition(".")[2] in safe for b in node.bases):
            safe.add(node.name)
    for call, name in calls(tree):
        module, _, function = name.rpartition(".")
        if module != "yaml":
            continue
        if function in UNSAFE_YAML:
            yield call.lineno, name
        if function in ("load", "load_all"):
            given = [*call.args[1:2], *(k.value for k in call.keywords if k.arg == "Loader")]
            if [dotted(loader, meant).rpartition(".")[2] in safe for loader in given] != [True]:
                yield call.lineno, f"{name} with another loader than a SafeLoader"


def evaluated(tree: ast.AST) -> Found:
    for call, name in calls(tree):
        if name in CODE:
            yield call.lineno, name


def in_a_shell(tree: ast.AST) -> Found:
    for call, name in calls(tree):
        if name in SHELLS:
            yield call.lineno, name
        for keyword in call.keywords:
            off = isinstance(keyword.value, ast.Constant) and keyword.value.value is False
            if keyword.arg == "shell" and not off:
                yield call.lineno, f"{name} with shell"


RULES: tuple[Callable[[ast.AST], Found], ...] = (unpickled, unsafe_yaml, evaluated, in_a_shell)


@pytest.mark.parametrize("rule", RULES)
def test_the_package_has_none(rule: Callable[[ast.AST], Found]) -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {what}"
        for path in FILES
        for line, what in rule(ast.parse(path.read_text()))
    ]
    assert found == []


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        (unpickled, "import torch\ntorch.load(f)"),
        (unpickled, "import torch\ntorch.load(f, weights_only=False)"),
        (unpickled, "import torch\ntorch.load(f, weights_only=some)"),
        (unpickled, "from torch import load\nload(f)"),
        (unpickled, "import torch as t\ndef f():\n    t.load(f)"),
        (unpickled, "import pickle\npickle.loads(b)"),
        (unpickled, "from pickle import load as read\nread(f)"),
        (unpickled, "import pickle\npickle.Unpickler(f).load()"),
        (unpickled, "import marshal\nmarshal.load(f)"),
        (unpickled, "import shelve\nshelve.open(f)"),
        (unpickled, "import cloudpickle\ncloudpickle.loads(b)"),
        (unpickled, "import numpy as np\nnp.load(f, allow_pickle=True)"),
        (unpickled, "import numpy as np\nnp.load(f, None, True)"),
        (unpickled, "import numpy as np\nnp.load(f, **options)"),
        (unsafe_yaml, "import yaml\nyaml.load(f, yaml.Loader)"),
        (unsafe_yaml, "import yaml\nyaml.load(f, Loader=yaml.FullLoader)"),
        (unsafe_yaml, "import yaml\nyaml.load(f)"),
        (unsafe_yaml, "import yaml\nyaml.unsafe_load(f)"),
        (unsafe_yaml, "from yaml import load, Loader\nload(f, Loader)"),
        (unsafe_yaml, "import yaml\nclass Mine(yaml.Loader): pass\nyaml.load(f, Mine)"),
        (evaluated, "eval(text)"),
        (evaluated, "import builtins\nbuiltins.exec(text)"),
        (evaluated, "compile(text, '', 'exec')"),
        (in_a_shell, "import subprocess\nsubprocess.run(text, shell=True)"),
        (in_a_shell, "import subprocess\nsubprocess.run(text, shell=some)"),
        (in_a_shell, "import os\nos.system(text)"),
        (in_a_shell, "from os import popen\npopen(text)"),
        (in_a_shell, "import subprocess\nsubprocess.getoutput(text)"),
    ],
)
def test_what_is_forbidden_is_seen(rule: Callable[[ast.AST], Found], source: str) -> None:
    assert len(list(rule(ast.parse(source)))) == 1


@pytest.mark.parametrize(
    "source",
    [
        "import torch\ntorch.load(f, weights_only=True)\nmodel.load(f)\nmodel.eval()\ntorch.compile(model)",
        "import pickle\ntry: pass\nexcept pickle.UnpicklingError: pass",
        "import numpy as np\nnp.load(f)\nnp.load(f, allow_pickle=False)",
        "import yaml\nclass Mine(yaml.SafeLoader): pass\nyaml.load(f, Mine)\nyaml.load(f, Loader=Mine)",
        "import yaml\nyaml.safe_load(f)",
        "import re, json\nre.compile(text)\njson.loads(text)",
        "import subprocess\nsubprocess.run([program], shell=False)",
    ],
)
def test_what_is_allowed_is_let_through(source: str) -> None:
    assert [found for rule in RULES for found in rule(ast.parse(source))] == []


def test_nobody_on_another_host_reaches_the_metrics_unless_asked_for() -> None:
    assert ipaddress.ip_address(Config().metrics.address).is_loopback
