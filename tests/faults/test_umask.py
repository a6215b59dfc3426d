"""What a run leaves is as closed to others as the umask says, every file and folder of it."""

import os
import stat
from pathlib import Path

import pytest

from ..multiproc.conftest import Launch

IMAGES = "--run.trace_images=true"


@pytest.mark.parametrize("umask", [0o077, 0o027], ids=["077", "027"])
def test_nothing_of_a_run_is_more_open_than_the_umask(umask: int, launch: Launch, tmp_path: Path) -> None:
    speeds, runs = tmp_path / "speeds", tmp_path / "runs"
    before = os.umask(umask)
    try:
        places = f"--run.dir={runs}", f"--metrics.baselines_dir={speeds}"
        job = launch("none", 1, "--max_steps=12", IMAGES, *places, name="closed")
        job.until("targets are written", (runs / ".targets" / "closed.json").exists)
        targets = mode(runs / ".targets" / "closed.json")
        job.finish()
    finally:
        os.umask(before)
    found = {path.relative_to(tmp_path): mode(path) for path in tmp_path.rglob("*")}
    names = {path.name for path in found}
    assert {"config.yaml", "environment.json", "events.jsonl", "rank-0.log", "rank-0.csv", ".targets"} <= names
    assert any(path.parts[0] == "speeds" and path.suffix == ".json" for path in found)
    assert any("checkpoints" in path.parts[:-1] for path in found)
    assert {str(path): f"{bits:o}" for path, bits in found.items() if bits & umask} == {}
    assert targets & umask == 0
    # who is let in by it, is let in: nothing is closed by other means
    assert found[Path("runs/closed/events.jsonl")] == 0o666 & ~umask
    assert found[Path("runs/closed/checkpoints")] == 0o777 & ~umask


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)
