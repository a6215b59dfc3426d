"""Real workers: mpirun and horovodrun on this machine, with the embedded digits at 16 pixels."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store

TIMEOUT_SECONDS = 240
HVDTRAIN = str(Path(sys.executable).with_name("hvdtrain"))
MEASURED = "--metrics.baseline=measured"
SMALL = (
    "--config=demo --data.image_size=16 --epochs=2 --optim.decay_epochs=[1.5] --optim.base_lr=0.1 --run.report_every=1"
    " --metrics.baseline=none --distributed.preflight=false"
)


@dataclass(frozen=True)
class Job:
    """A run that has ended, or is going on."""

    folder: Path
    process: subprocess.Popen[str]

    def wait(self) -> tuple[int, str]:
        """Exit code and everything that was printed."""
        output, _ = self.process.communicate(timeout=TIMEOUT_SECONDS)
        return self.process.returncode, output

    def finish(self) -> "Job":
        code, output = self.wait()
        assert code == 0, output
        return self

    def events(self, name: str) -> list[dict[str, Any]]:
        file = self.folder / "events.jsonl"
        if not file.exists():
            return []
        records = [json.loads(line) for line in file.read_text().splitlines(keepends=True) if line.endswith("\n")]
        return [record for record in records if record["event"] == name]

    def environment(self) -> dict[str, Any]:
        environment: dict[str, Any] = json.loads((self.folder / "environment.json").read_text())
        return environment

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Look every few milliseconds until `condition` holds; fail if the job ends before."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not condition():
            assert self.process.poll() is None, f"the job ended before {what}:\n{self.wait()[1]}"
            assert time.monotonic() < deadline, f"{what} did not happen in {TIMEOUT_SECONDS} s"
            time.sleep(0.005)

    def weights(self, part: str = "model") -> dict[str, torch.Tensor]:
        """Of the last checkpoint; `average`: the moving average."""
        checkpoint = store.latest(self.folder / "checkpoints").checkpoint
        assert checkpoint is not None
        tensors: dict[str, torch.Tensor] = form.tensors(checkpoint.data, torch.device("cpu"))[part]
        return tensors


Launch = Callable[..., Job]


@pytest.fixture(scope="session")
def launch(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launch]:
    """launch(launcher, ranks, *options, name=…) starts `hvdtrain train`; what still runs at the end is ended.

    `program` is what starts instead of hvdtrain.
    """
    runs, speeds = tmp_path_factory.mktemp("runs"), tmp_path_factory.mktemp("baselines")
    jobs: list[Job] = []

    def start(
        launcher: str,
        ranks: int,
        *options: str,
        name: str,
        data: Path = digits,
        program: Sequence[str] = (HVDTRAIN,),
        **variables: str,
    ) -> Job:
        place = [f"--data.dir={data}", f"--run.dir={runs}", f"--run.name={name}", f"--metrics.baselines_dir={speeds}"]
        process = subprocess.Popen(
            [*command(launcher, ranks), *program, "train", *SMALL.split(), *place, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **root_variables(), **variables},
        )
        jobs.append(Job(runs / name, process))
        return jobs[-1]

    yield start
    end(jobs)


def end(jobs: Iterable[Job]) -> None:
    """What of them still runs."""
    for job in jobs:
        if job.process.poll() is None:
            job.process.terminate()
            job.process.wait(timeout=30)
        if job.process.stdout:
            job.process.stdout.close()


def command(launcher: str, ranks: int) -> list[str]:
    beside = str(Path(sys.executable).parent)
    if launcher == "none":
        return []
    program = launcher.split()[0]
    path = shutil.which(program, path=f"{beside}{os.pathsep}{os.environ['PATH']}")
    assert path, f"no {program} on PATH: hvdtrain doctor"
    if program == "mpirun":
        return [path, "--oversubscribe", "--bind-to", "none", "-np", str(ranks)]
    return [path, *launcher.split()[1:], "-np", str(ranks), "-H", f"localhost:{ranks}"]


def root_variables() -> dict[str, str]:
    """Open MPI refuses root unless told twice."""
    return {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"} if os.geteuid() == 0 else {}
