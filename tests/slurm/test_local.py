"""`hvdtrain submit --local`: real workers on this machine, without Slurm, under the same verbs."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from ..multiproc.conftest import HVDTRAIN, SMALL

pytestmark = pytest.mark.multiproc


class Machine:
    """A folder of runs."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.runs, self._data = folder / "runs", data

    def hvdtrain(self, *words: str, code: int = 0) -> str:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
        ran = subprocess.run(
            [HVDTRAIN, *words], capture_output=True, text=True, timeout=120, check=False, env=environment
        )
        assert ran.returncode == code, ran.stdout + ran.stderr
        return ran.stdout + ran.stderr

    def submit(self, *options: str, name: str) -> Path:
        place = [f"--data.dir={self._data}", f"--run.dir={self.runs}", f"--run.name={name}"]
        place.append(f"--metrics.baselines_dir={self.runs}")
        self.hvdtrain("submit", *SMALL.split(), *place, "--local", "--job.nodes=2", "--data.threads=1", *options)
        return self.runs / name


@pytest.fixture
def machine(tmp_path: Path, digits: Path) -> Machine:
    return Machine(tmp_path, digits)


def test_two_workers_run_in_the_background_to_their_end(machine: Machine) -> None:
    run = machine.submit(name="whole")
    (submission,) = json.loads((run / "job.json").read_text())["submissions"]
    assert submission["kind"] == "local"
    assert json.loads(machine.hvdtrain("status", str(run), "--json"))["job"]["state"] == "RUNNING"
    assert "is RUNNING" in machine.hvdtrain("submit", f"--run.dir={machine.runs}", "--run.name=whole", code=2)

    followed = machine.hvdtrain("logs", str(run), "-f")
    assert machine.hvdtrain("wait", submission["id"], "--runs", str(machine.runs)).endswith("COMPLETED  finished\n")
    assert followed == (run / "job-1.out").read_text()
    assert "2 workers on cpu" in followed
    assert "the run is over: finished" in followed
    assert machine.hvdtrain("logs", str(run), "--rank", "1") == (run / "logs" / "rank-1.log").read_text()
    assert "has ranks 0 to 1" in machine.hvdtrain("logs", str(run), "--rank", "7", code=2)
    assert "COMPLETED" in machine.hvdtrain("jobs", "--runs", str(machine.runs))


def test_it_is_cancelled_with_all_that_it_started_and_resumed(machine: Machine) -> None:
    run = machine.submit("--epochs=500", name="long")
    deadline = time.monotonic() + 60
    while not (run / "events.jsonl").exists():
        assert time.monotonic() < deadline, machine.hvdtrain("logs", str(run))
        time.sleep(0.2)
    assert "CANCELLED" in machine.hvdtrain("cancel", str(run))
    assert "CANCELLED" in machine.hvdtrain("cancel", str(run))
    assert subprocess.run(["pgrep", "-f", f"{run}/submitted.yaml"], check=False, capture_output=True).stdout == b""
    machine.hvdtrain("wait", str(run), code=130)

    assert "--job.* alone" in machine.hvdtrain("resume", str(run), "--epochs", "3", code=2)
    machine.hvdtrain("resume", str(run), "--local", "--job.nodes=1")
    told = json.loads(machine.hvdtrain("status", str(run), "--json"))["job"]
    assert (told["state"], told["submissions"]) == ("RUNNING", 2)
    machine.hvdtrain("cancel", str(run))
    assert (run / "job-2.out").exists()
