"""How fast real training is on 1, 2, … workers of one machine: weak scaling, at a constant batch of each worker.

Every measurement is a training run of its own, `hvdtrain train` with the settings given. The numbers of workers take
turns in rounds, forwards and backwards, so that a change in the machine's mood meets all; efficiency is taken round by
round. A worker has the same CPU threads however many there are, so that it is the workers that are compared.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from hvdtrain.config.schema import Config
from hvdtrain.distributed import launch
from hvdtrain.errors import HvdtrainError
from hvdtrain.events import Tail, records
from hvdtrain.files import pretty_json, write_whole
from hvdtrain.log import logger
from hvdtrain.provenance import hardware, revision

WINDOW = 20  # steps of a report
WARM_UP = 2  # windows that do not count
NEVER = 1e9  # epochs


@dataclass(frozen=True)
class Speed:
    images_per_second: float  # of all workers together
    device_name: str  # of rank 0


@dataclass(frozen=True)
class Point:
    workers: int
    rounds: tuple[Speed, ...]

    @property
    def speeds(self) -> list[float]:
        """Images per second of all workers together, round by round."""
        return [speed.images_per_second for speed in self.rounds]


def measure(config: Config, folder: Path, *, workers: Sequence[int], rounds: int, steps: int) -> list[Point]:
    """Run all, and return the speeds by number of workers.

    Args:
        config: what to train; what would interrupt the steps is left out, and the minibatch is n of each worker.
        folder: where the run directories go. They are removed when they have been read.
        workers: numbers of them, the smallest first.
        steps: timed ones of each run, rounded up to whole reports.

    Raises:
        HvdtrainError: a run failed.
    """
    speeds: dict[int, list[Speed]] = {count: [] for count in workers}
    threads = int(os.environ.get("OMP_NUM_THREADS", max(1, len(os.sched_getaffinity(0)) // max(workers))))
    for number in range(rounds):
        for count in workers if number % 2 == 0 else reversed(workers):
            speed = run(config, folder, count, threads=threads, steps=steps)
            logger.info("round %d of %d: %d workers, %.1f images/s", number + 1, rounds, count, speed.images_per_second)
            speeds[count].append(speed)
    return [Point(count, tuple(found)) for count, found in speeds.items()]


def record(points: Sequence[Point], config: Config) -> dict[str, Any]:
    """For machines, and for `hvdtrain report --scaling`."""
    return {
        "kind": "weak",
        "model": config.model.name,
        "precision": config.precision,
        "batch_size": config.data.batch_size,
        "image_size": config.data.image_size,
        "device_name": points[0].rounds[0].device_name,
        "hardware": hardware(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["hvdtrain", *sys.argv[1:]]),
        "code": revision(),
        "points": [{"workers": point.workers, "rounds": point.speeds} for point in points],
    }


def save(path: Path, points: Sequence[Point], config: Config) -> None:
    write_whole(path, pretty_json(record(points, config)))


def run(config: Config, folder: Path, workers: int, *, threads: int, steps: int) -> Speed:
    """One training run in `folder`; see `measure`."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / f"{workers}-workers"
    shutil.rmtree(place, ignore_errors=True)
    settings = only_steps(config, place, threads=threads, steps=steps)
    file = folder / f"{workers}-workers.yaml"
    write_whole(file, yaml.safe_dump(settings))
    command = launch.command(workers, ["train", "--config", str(file)])
    ended = subprocess.run(
        command, env=launch.variables(threads), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode != 0:
        last = "\n".join((ended.stdout + ended.stderr).splitlines()[-12:])
        raise HvdtrainError(f"{shlex.join(command)} ended with exit code {ended.returncode}:\n{last}")
    device_name = json.loads((place / "environment.json").read_text())["workers"][0]["device_name"]
    events = records(Tail(place / "events.jsonl").lines())
    reports = [event for event in events if event and event["event"] == "report"][WARM_UP:]
    shutil.rmtree(place)
    seconds = sum(report["steps"] * report["step_seconds"] for report in reports)
    images = sum(report["steps"] for report in reports) * workers * config.data.batch_size
    return Speed(images / seconds, device_name)


def only_steps(config: Config, place: Path, *, threads: int, steps: int) -> dict[str, Any]:
    """The settings of a run in `place` that does nothing but steps."""
    settings = config.model_dump(mode="json")
    settings |= {"epochs": NEVER, "max_steps": (WARM_UP + -(-steps // WINDOW)) * WINDOW, "resume": "never"}
    settings["run"] |= {"dir": str(place.parent), "name": place.name, "report_every": WINDOW}
    settings["data"]["threads"] = config.data.threads or threads
    settings["train"]["global_batch_size"] = None
    settings["evaluation"] |= {"every_epochs": NEVER, "at_end": False}
    settings["checkpoint"]["every_epochs"] = NEVER
    settings["metrics"]["baseline"] = "none"
    return settings
