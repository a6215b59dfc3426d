"""hvdtrain eval under real launchers: the same counts of every class, whatever the number of workers."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from ..trained import Digits
from .conftest import HVDTRAIN, TIMEOUT_SECONDS, command, root_variables

pytestmark = pytest.mark.multiproc


def evaluate(launcher: str, ranks: int, *options: object) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*command(launcher, ranks), HVDTRAIN, "eval", *map(str, options)],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        env={**os.environ, **root_variables(), "OMP_NUM_THREADS": "1"},
        check=False,
    )


def record(launcher: str, ranks: int, run: Path, folder: Path) -> dict[str, Any]:
    file = folder / f"{launcher.split()[0]}-{ranks}.json"
    done = evaluate(launcher, ranks, run, "--json", file)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("images      364 of ") == 1  # one of them speaks
    found: dict[str, Any] = json.loads(file.read_text())
    assert found["workers"] == ranks
    return found


@pytest.fixture(scope="module")
def alone(trained_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return record("none", 1, trained_digits.run, tmp_path_factory.mktemp("alone"))


@pytest.mark.parametrize(("launcher", "ranks"), [("mpirun", 1), ("mpirun", 2), ("mpirun", 3), ("horovodrun --gloo", 2)])
def test_the_counts_of_every_class_are_those_of_one_worker(
    launcher: str, ranks: int, alone: dict[str, Any], trained_digits: Digits, tmp_path: Path
) -> None:
    found = record(launcher, ranks, trained_digits.run, tmp_path)
    assert [each["weights"] for each in found["evaluations"]] == ["weights", "average"]
    for mine, theirs in zip(found["evaluations"], alone["evaluations"], strict=True):
        assert mine["per_class"] == theirs["per_class"]
        assert mine["confusions"] == theirs["confusions"]
        assert (mine["images"], mine["top1"], mine["top5"]) == (364, theirs["top1"], theirs["top5"])
        assert mine["loss"] == theirs["loss"]


def test_a_checkpoint_that_is_not_there_is_told_once(trained_digits: Digits) -> None:
    done = evaluate("mpirun", 2, trained_digits.run / "checkpoints" / "images-1")
    assert done.returncode == 5
    told = [line for line in done.stderr.splitlines() if line.startswith("hvdtrain: ")]
    assert len(told) == 1
    assert "images-1: no such run directory or checkpoint" in told[0]


def test_what_one_process_does_is_refused_under_a_launcher(trained_digits: Digits, tmp_path: Path) -> None:
    for verb in (["predict", trained_digits.run, "x.jpg"], ["export", trained_digits.run, "--format", "onnx"]):
        more = ["--out", tmp_path / "out"] if verb[0] == "export" else []
        done = subprocess.run(
            [*command("mpirun", 2), HVDTRAIN, *map(str, [*verb, *more])],
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            env={**os.environ, **root_variables()},
            check=False,
        )
        assert done.returncode == 2
        assert "one process does it, mpirun started 2: call it without" in done.stderr
