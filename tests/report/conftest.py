"""Runs that were never run, each in a folder of its own below the current one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from hvdtrain.report.study import Study, study
from tests.report.made import Made, write

Write = Callable[..., Path]
Examine = Callable[..., Study]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of runs, relative to where the test is, so that what is printed is the same everywhere."""
    monkeypatch.chdir(tmp_path)
    folder = Path("runs")
    folder.mkdir()
    return folder


@pytest.fixture
def examine(runs: Path) -> Examine:
    """examine(made, name=…) writes the run and reads it again."""

    def made_and_read(made: Made, *, name: str = "made", last: int | None = None) -> Study:
        return study(write(runs / name, made), last=last)

    return made_and_read
