"""A Slurm of four nodes on this machine, and what tests ask of it."""

import json
import os
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..multiproc.conftest import HVDTRAIN, SMALL

PATIENCE_SECONDS = 180
ENOUGH_SECONDS = 60  # for a command


@dataclass(frozen=True)
class Slurm:
    """Nodes n1 to n4 of four cores; partitions batch, and high, which preempts it."""

    folder: Path
    data: Path

    @property
    def runs(self) -> Path:
        return self.folder / "runs"

    def environment(self) -> dict[str, str]:
        """In which Slurm's commands and hvdtrain know it."""
        inherited = {
            key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "OMPI_", "PMIX_"))
        }
        slurm_conf = str(self.folder / "slurm.conf")
        # Ranks of one node take each other for ranks of several, and shared memory for usable.
        return {**inherited, "SLURM_CONF": slurm_conf, "OMPI_MCA_btl": "self,tcp", "OMP_NUM_THREADS": "1"}

    def ask(self, *words: str | Path) -> str:
        """Run a command to its end; what it printed. It has to succeed."""
        ran = self.run(*words)
        assert ran.returncode == 0, f"{words}: {ran.stdout}{ran.stderr}"
        return ran.stdout

    def run(self, *words: str | Path, seconds: float = ENOUGH_SECONDS) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*words],
            env=self.environment(),
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    def hvdtrain(self, *words: str | Path, seconds: float = ENOUGH_SECONDS) -> "subprocess.CompletedProcess[str]":
        return self.run(HVDTRAIN, *words, seconds=seconds)

    def submit(self, *options: str, name: str) -> Path:
        """A short run of digits; its run directory."""
        place = [f"--data.dir={self.data}", f"--run.dir={self.runs}", f"--run.name={name}"]
        speeds = f"--metrics.baselines_dir={self.folder / 'baselines'}"
        self.ask(HVDTRAIN, "submit", *SMALL.split(), *place, speeds, "--data.threads=1", *options)
        return self.runs / name

    def job(self, run: Path) -> dict[str, Any]:
        """As `hvdtrain status --json` tells it."""
        told: dict[str, Any] = json.loads(self.hvdtrain("status", run, "--json").stdout)["job"]
        return told

    def state(self, run: Path) -> str:
        """Slurm's own word."""
        return self.ask("squeue", "-h", "-t", "all", "-j", self.job_id(run), "-o", "%T").strip()

    def job_id(self, run: Path) -> str:
        listed = json.loads((run / "job.json").read_text())["submissions"]
        number: str = listed[-1]["id"]
        return number

    def output(self, run: Path) -> str:
        """What the newest job has printed so far."""
        file = run / f"slurm-{self.job_id(run)}.out"
        return file.read_text() if file.exists() else ""

    def steps(self, run: Path) -> int:
        """That the run has reported."""
        file = run / "events.jsonl"
        lines = file.read_text().splitlines() if file.exists() else []
        return sum('"report"' in line for line in lines)

    def until(self, what: str, condition: Callable[[], bool], *, run: Path | None = None) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not condition():
            printed = self.output(run) if run else ""
            assert time.monotonic() < deadline, f"{what} did not happen in {PATIENCE_SECONDS} s:\n{printed}"
            time.sleep(0.2)

    def warns_of_preemption(self, warns: bool) -> None:
        """Whether a job that is preempted gets its own signal first, or its workers SIGTERM at once."""
        file = self.folder / "slurm.conf"
        lines = [line for line in file.read_text().splitlines() if not line.startswith("SlurmctldParameters=")]
        file.write_text("\n".join([*lines, *["SlurmctldParameters=preempt_send_user_signal"] * warns, ""]))
        self.ask("scontrol", "reconfigure")

    def preempt(self, seconds: int = 1) -> str:
        """Start a job of higher priority on all cores; its id."""
        whole = ["--partition=high", "--nodes=4", "--exclusive", f"--output={self.folder / 'urgent.out'}"]
        return self.ask("sbatch", "--parsable", *whole, f"--wrap=sleep {seconds}").strip()

    def clear(self) -> None:
        """No job is left, and none will come back."""
        for job in self.ask("squeue", "-h", "-o", "%i").split():
            self.run("scancel", job)
        self.until("the end of all jobs", lambda: not self.ask("squeue", "-h", "-o", "%i").split())

    def down(self) -> None:
        with suppress(AssertionError, subprocess.TimeoutExpired):
            self.clear()
        subprocess.run([Path(__file__).with_name("slurm-down"), self.folder], check=True)


def up(folder: Path, data: Path) -> Slurm:
    """
    Raises:
        CalledProcessError: it does not come up: its ports may be taken.
    """
    subprocess.run([Path(__file__).with_name("slurm-up"), folder], check=True)
    made = Slurm(folder, data)
    made.runs.mkdir()
    return made
