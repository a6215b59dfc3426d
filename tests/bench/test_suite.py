"""All benches one after the other: a failure is told and stops none, and every goal is in one table."""

import json
import stat
from pathlib import Path

import pytest

from hvdtrain.bench import suite
from hvdtrain.cli import main
from hvdtrain.distributed import launch

FAKE = """\
#!/bin/sh
echo "$@" >>"{log}"
[ "$2" = step ] && exit 3
while [ $# -gt 0 ]; do
    [ "$1" = --json ] && cp "{record}" "$2"
    shift
done
"""
RECORD = {
    "ratios": [
        {"name": "ours / theirs", "goal": 0.9, "verdict": "holds", "median": 0.95, "low": 0.9, "high": 1.0},
        {"name": "ours / limit", "goal": None, "verdict": "", "median": 0.5, "low": 0.5, "high": 0.5},
    ]
}


def test_a_failure_is_told_and_stops_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    log, record, program = tmp_path / "log", tmp_path / "record.json", tmp_path / "hvdtrain"
    record.write_text(json.dumps(RECORD))
    program.write_text(FAKE.format(log=log, record=record))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setattr(launch, "program", lambda name: str(program))
    monkeypatch.setattr("hvdtrain.data.demo.write", lambda folder: folder.mkdir())
    results = tmp_path / "results"
    assert main(["bench", "all", "--dir", str(results), "--quick"]) == 1
    assert [line.split()[1] for line in log.read_text().splitlines()] == list(suite.QUICK)
    table = capfd.readouterr().out.rpartition("bench       ratio")[2].splitlines()
    assert [line.split()[0] for line in table[1:]] == ["allreduce", "scaling", "input", "step"]
    assert table[1].split() == ["allreduce", "ours", "/", "theirs", "0.950", "0.90", "holds"]
    assert table[-1] == "step        failed, exit code 3; above is why"


def test_quick_and_standard_run_the_same_benches() -> None:
    assert list(suite.QUICK) == list(suite.STANDARD)
