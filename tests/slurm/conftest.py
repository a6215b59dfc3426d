"""A Slurm that is a few scripts."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.slurm.fakes import command

Answer = Callable[[str, str], Path]


@pytest.fixture
def bin_folder(tmp_path: Path) -> Path:
    return tmp_path / "bin"


@pytest.fixture
def answers(bin_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """answers(name, text): from now on a command of Slurm's is this script. Without one it is not there."""
    bin_folder.mkdir()
    for name in ("bash", "sleep", "printf", "env", "kill"):
        (bin_folder / name).symlink_to(next(p for d in ("/usr/bin", "/bin") if (p := Path(d, name)).exists()))
    monkeypatch.setenv("PATH", str(bin_folder))
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    return lambda name, text: command(bin_folder, name, text)


def row(job: str, state: str, *, restarts: int = 0, nodes: str = "", reason: str = "None") -> str:
    """A line of squeue's as it is asked for them."""
    return f"echo '{job:<40}|{state:<40}|{restarts:<12}|{2:<12}|{nodes:<400}|{reason:<200}|{'UNLIMITED':<20}|'"
