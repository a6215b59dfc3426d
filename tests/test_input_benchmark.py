"""benchmarks/input.py runs, and measures what it is asked to."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).parents[1] / "benchmarks" / "input.py"
CONTENDERS = ("ours", "torchvision", "dali-plain")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """What it printed, and its JSON."""
    figures = tmp_path_factory.mktemp("input") / "figures.json"
    small = ["--images", "64", "--rounds", "1", "--batches", "2", "--discard", "2", "--batch", "16", "--cores", "2"]
    nothing = ["--peers-python", shutil.which("false") or "false"]  # ends at once
    command = [sys.executable, PROGRAM, *small, *nothing, "--json", figures, "--contenders", *CONTENDERS, "ffcv"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(figures.read_text())


def test_every_contender_has_figures(ran: tuple[str, dict[str, Any]]) -> None:
    (figures,) = ran[1]["rounds"]
    assert set(figures) == {*CONTENDERS, "training"}
    for name in CONTENDERS:
        assert set(figures[name]) == {"alone", "company", "training"}
        assert all(value > 0 for value in figures[name].values())
    assert figures["training"]["alone"] > 0


def test_a_contender_that_cannot_run_is_named_with_its_reason(ran: tuple[str, dict[str, Any]]) -> None:
    printed, record = ran
    assert record["missing"] == {"ffcv": "ended with 1"}
    assert "not measured: ended with 1" in printed


def test_ratios_are_held_against_their_goals(ran: tuple[str, dict[str, Any]]) -> None:
    (figures,) = ran[1]["rounds"]
    ratios = ran[0].partition("ratio ")[2].splitlines()[1:]
    assert len(ratios) == 4
    assert ratios[1].startswith("ours / torchvision, company")
    wanted = figures["ours"]["company"] / figures["torchvision"]["company"]
    assert f" {wanted:.3f} " in ratios[1]
    assert ratios[1].endswith("2.50  holds" if wanted >= 2.5 else "2.50  missed")
