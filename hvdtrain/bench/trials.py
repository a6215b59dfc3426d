"""A training run that does nothing but steps, and how fast it was."""

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from hvdtrain.config.schema import Config
from hvdtrain.distributed import launch
from hvdtrain.errors import HvdtrainError
from hvdtrain.events import Tail, records
from hvdtrain.files import write_whole

WINDOW = 20  # steps of a report
WARM_UP = 2  # windows that do not count
NEVER = 1e9  # epochs

Reports = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Speed:
    images_per_second: float  # of all workers together
    device_name: str  # of rank 0


@dataclass(frozen=True)
class Trial:
    """How a short training is started."""

    workers: int
    micro_batches: int = 1
    """Of each worker and step."""
    independent: bool = False
    """So many runs of one worker at once."""
    launcher: tuple[str, ...] = ()
    """Words before `hvdtrain train`, in which {workers} and {nodes} are replaced; empty: mpirun on this machine."""
    per_node: int = 1
    """Workers on each node, for {nodes}."""

    def command(self, arguments: Sequence[str]) -> list[str]:
        """Of a run, or of each of the independent ones.

        >>> Trial(16, launcher=("srun", "--nodes={nodes}", "-n{workers}"), per_node=8).command(["train"])
        ['srun', '--nodes=2', '-n16', 'hvdtrain', 'train']

        Raises:
            EnvironmentFault: there is no hvdtrain or no mpirun.
        """
        if not self.launcher:
            return launch.command(1 if self.independent else self.workers, arguments)
        numbers = {"{workers}": self.workers, "{nodes}": -(-self.workers // self.per_node)}
        words = list(self.launcher)
        for name, number in numbers.items():
            words = [word.replace(name, str(number)) for word in words]
        return [*words, "hvdtrain", *arguments]  # of the PATH there, which may be another host's or a container's


def threads_of_each(most: int) -> int:
    """CPU threads of a worker where `most` share a machine like this one; OMP_NUM_THREADS wins."""
    return int(os.environ.get("OMP_NUM_THREADS", max(1, len(os.sched_getaffinity(0)) // most)))


def run(config: Config, folder: Path, trial: Trial, *, threads: int, steps: int) -> Speed:
    """Train in `folder`, and remove the run directories.

    Raises:
        HvdtrainError: a run failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kind = "alone" if trial.independent else "workers"
    count = trial.workers if trial.independent else 1
    places = [folder / f"{trial.workers}-{kind}{f'-{i}' if trial.independent else ''}" for i in range(count)]
    try:
        _train(config, places, trial, threads=threads, steps=steps)
        images = config.data.batch_size * trial.micro_batches * (1 if trial.independent else trial.workers)
        speed = images * steps_per_second([_reports(place) for place in places])
        environment = json.loads((places[0] / "environment.json").read_text())
        return Speed(speed, environment["workers"][0]["device_name"])
    finally:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)


def steps_per_second(runs: Sequence[Reports]) -> float:
    """The sum over all runs, of the reports that lie within the time in which all of them were stepping. Pure.

    >>> one = [{"time": t, "steps": 10, "step_seconds": 0.5} for t in (5.0, 10.0, 15.0)]
    >>> late = [{"time": t, "steps": 10, "step_seconds": 1.0} for t in (14.0, 24.0)]
    >>> steps_per_second([one]), steps_per_second([one, late])
    (2.0, 3.0)
    """
    begins = [[each["time"] - each["steps"] * each["step_seconds"] for each in reports] for reports in runs]
    first, last = max(each[0] for each in begins), min(reports[-1]["time"] for reports in runs)
    total = 0.0
    for reports, starts in zip(runs, begins, strict=True):
        within = [r for r, begin in zip(reports, starts, strict=True) if begin >= first and r["time"] <= last]
        counted = within or reports  # of runs that hardly met, what there is
        total += sum(r["steps"] for r in counted) / sum(r["steps"] * r["step_seconds"] for r in counted)
    return total


def only_steps(
    config: Config, place: Path, *, threads: int, steps: int, global_batch_size: int | None = None
) -> dict[str, Any]:
    """The settings of a run in `place` that does nothing but steps.

    Args:
        global_batch_size: kn; None: n of each worker.
    """
    settings = config.model_dump(mode="json")
    settings |= {"epochs": NEVER, "max_steps": (WARM_UP + -(-steps // WINDOW)) * WINDOW, "resume": "never"}
    settings["run"] |= {"dir": str(place.parent), "name": place.name, "report_every": WINDOW}
    settings["data"]["threads"] = config.data.threads or threads
    settings["train"]["global_batch_size"] = global_batch_size
    settings["evaluation"] |= {"every_epochs": NEVER, "at_end": False}
    settings["checkpoint"]["every_epochs"] = NEVER
    settings["metrics"]["baseline"] = "none"
    return settings


def _train(config: Config, places: Sequence[Path], trial: Trial, *, threads: int, steps: int) -> None:
    """All at once, each with its output in a file beside its run directory; the output is removed at the end."""
    kn = trial.workers * trial.micro_batches * config.data.batch_size if trial.micro_batches > 1 else None
    started: list[subprocess.Popen[bytes]] = []
    outputs: list[Path] = []
    try:
        for place in places:
            shutil.rmtree(place, ignore_errors=True)
            file, output = place.with_suffix(".yaml"), place.with_suffix(".out")
            settings = only_steps(config, place, threads=threads, steps=steps, global_batch_size=kn)
            write_whole(file, yaml.safe_dump(settings))
            command = trial.command(["train", "--config", str(file)])
            outputs.append(output)
            with output.open("wb") as printed:
                started.append(
                    subprocess.Popen(
                        command,
                        env=launch.variables(threads) | (_gpu(len(started)) if trial.independent else {}),
                        stdin=subprocess.DEVNULL,
                        stdout=printed,
                        stderr=subprocess.STDOUT,
                    )
                )
        for process, output in zip(started, outputs, strict=True):
            if process.wait() != 0:
                last = "\n".join(output.read_text(errors="replace").splitlines()[-12:])
                raise HvdtrainError(f"{shlex.join(command)} ended with exit code {process.returncode}:\n{last}")
    finally:
        for process in started:
            if process.poll() is None:
                process.terminate()
                process.wait()
        for output in outputs:
            output.unlink(missing_ok=True)


def _gpu(number: int) -> dict[str, str]:
    """That of the GPUs here which a run of one worker is to have: by itself each would take the first."""
    visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    return {"CUDA_VISIBLE_DEVICES": visible[number] if number < len(visible) else str(number)}


def _reports(place: Path) -> Reports:
    events = records(Tail(place / "events.jsonl").lines())
    return [event for event in events if event and event["event"] == "report"][WARM_UP:]
