"""What a change of workers costs, elastic and by requeue: `python benchmarks/elastic.py --help`.

In every round, in turn: an elastic run of two workers on the digits, one of which is killed, comes back, is sent away
by SIGTERM and comes back; and a run under mpirun, killed or stopped by a signal and started again with one worker at
once, as if a batch system had no queue. What stood still is the time from the last step before the change to the first
step after it; what was done again are the images since the last commit, or the last checkpoint.
"""

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hvdtrain.data import demo
from hvdtrain.distributed import launch
from hvdtrain.provenance import hardware, revision

WAIT_SECONDS = 120
STEPS = 60  # before a change: more than an epoch, so that there is a checkpoint
RUN = (
    "train --config demo --epochs 100 --optim.decay_epochs [50] --data.threads 1 --run.report_every 1 "
    "--metrics.baseline none --train.global_batch_size 32 --evaluation.every_epochs 100"
)
Cost = tuple[float, int]  # seconds that the run stood still, images done again


class Run:
    """One run directory, and the launcher that works in it."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder / "run"
        place = ["--data.dir", str(data), "--run.dir", str(folder), "--run.name", "run"]
        self.train = [*RUN.split(), *place]
        self._log = (folder / "log").open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdout=self._log, stderr=self._log, env=launch.variables(1))

    def wait(self) -> None:
        assert self._process
        self._process.wait(WAIT_SECONDS)

    def end(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self.wait()
        self._log.close()

    def signal(self, number: int) -> None:
        """To rank 1."""
        workers = json.loads((self.folder / "environment.json").read_text())["workers"]
        os.kill(workers[1]["pid"], number)

    def change(self, do: Callable[[], None], *, workers: int) -> Cost:
        """Do it once some steps are done, and wait for the first step of so many workers."""
        self._until(lambda: len(self._reports()) >= STEPS)
        number = len(self._starts())
        do()
        self._until(lambda: len(starts := self._starts()) > number and starts[-1]["world_size"] == workers)
        self._until(lambda: bool(self._reports()))
        begin, reports = self._starts()[-1], self._events("report")
        before = [report for report in reports if report["time"] < begin["time"]][-1]
        again = max(before["images_seen"] - begin["images_seen"], 0)
        return self._reports()[0]["time"] - before["time"], again

    def _starts(self) -> list[dict[str, Any]]:
        return self._events("start", "resume")

    def _reports(self) -> list[dict[str, Any]]:
        """Of the workers there are: one for each of their steps."""
        starts = self._starts()
        return [each for each in self._events("report") if starts and each["time"] > starts[-1]["time"]]

    def _events(self, *names: str) -> list[dict[str, Any]]:
        file = self.folder / "events.jsonl"
        lines = file.read_text().splitlines(keepends=True) if file.exists() else []
        records = [json.loads(line) for line in lines if line.endswith("\n")]
        return [record for record in records if record["event"] in names]

    def _until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while not condition():
            if time.monotonic() > deadline:
                sys.exit(f"nothing happened for {WAIT_SECONDS} s: see {self._log.name}")
            time.sleep(0.01)


def elastic(run: Run) -> dict[str, Cost]:
    """Two names of this machine are two hosts, each of which stays away for a while after it has lost a worker."""
    horovodrun = shutil.which("horovodrun") or sys.exit("no horovodrun on PATH: hvdtrain doctor")
    how = ["--gloo", "-np", "2", "--min-np", "1", "--max-np", "2", "--network-interface", "lo"]
    how += ["--blacklist-cooldown-range", "3", "6"]
    hosts = ["--host-discovery-script", "printf 'localhost:1\\n127.0.0.1:1\\n'"]
    run.start([horovodrun, *how, *hosts, launch.program("hvdtrain"), *run.train, "--elastic"])
    found = {}
    for name, number in (("killed", signal.SIGKILL), ("sent away by SIGTERM", signal.SIGTERM)):
        found[f"elastic: one of two {name}"] = run.change(partial(run.signal, number), workers=1)
        found[f"elastic: a host comes, after {name}"] = run.change(lambda: None, workers=2)
    return found


def requeued(run: Run, name: str, number: int) -> dict[str, Cost]:
    """Of two workers one is left."""

    def again() -> None:
        run.signal(number)
        run.wait()
        run.start(launch.command(1, [*run.train, "--resume", "auto"]))

    run.start(launch.command(2, run.train))
    return {f"requeue: one of two {name}": run.change(again, workers=1)}


WAYS: tuple[Callable[[Run], dict[str, Cost]], ...] = (
    elastic,
    partial(requeued, name="killed", number=signal.SIGKILL),
    partial(requeued, name="stopped by SIGUSR1", number=signal.SIGUSR1),
)


def main() -> None:
    parser = argparse.ArgumentParser(description="What a change of workers costs, elastic and by requeue.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    costs: dict[str, list[Cost]] = {}
    with tempfile.TemporaryDirectory() as name:
        demo.write(Path(name) / "digits")
        for number in range(options.rounds):
            for way in WAYS if number % 2 == 0 else WAYS[::-1]:
                run = Run(Path(tempfile.mkdtemp(dir=name)), Path(name) / "digits")
                try:
                    found = way(run)
                finally:
                    run.end()
                for what, cost in found.items():
                    costs.setdefault(what, []).append(cost)
            print(f"round {number + 1} of {options.rounds}", file=sys.stderr, flush=True)
    rows = {what: row(each) for what, each in sorted(costs.items())}
    print(f"{'':48}{'stood still, s':>22}{'images again':>20}")
    for what, (seconds, images) in rows.items():
        print(f"{what:48}{seconds:>22}{images:>20}")
    if options.json:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "code": revision(),
            "hardware": hardware(),
            "options": {"rounds": options.rounds},
            "costs": costs,
        }
        options.json.write_text(json.dumps(record, indent=2) + "\n")


def row(costs: list[Cost]) -> tuple[str, str]:
    """Median and range of each."""
    seconds, images = [cost[0] for cost in costs], [cost[1] for cost in costs]
    return (
        f"{statistics.median(seconds):.1f} ({min(seconds):.1f}-{max(seconds):.1f})",
        f"{statistics.median(images):.0f} ({min(images)}-{max(images)})",
    )


if __name__ == "__main__":
    main()
