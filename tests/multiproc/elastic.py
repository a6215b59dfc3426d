"""A run whose workers come and go, as horovodrun has them: two names of this machine are two hosts."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvdtrain.files import write_whole
from hvdtrain.metrics import targets

from .conftest import HVDTRAIN, Job, command, root_variables

TWO = "localhost:1\n127.0.0.1:1\n"
MORE = "localhost:1\n127.0.0.1:2\n"
COOL_DOWN = ("3", "6")  # seconds that a host stays away after a worker there was lost


@dataclass(frozen=True)
class Elastic:
    """A job, and the list of hosts that its discovery script prints."""

    job: Job
    hosts: Path

    @classmethod
    def start(
        cls,
        folder: Path,
        data: Path,
        *options: str,
        least: int = 1,
        hosts: str = TWO,
        discover: bool = False,
        timeout_seconds: int = 60,
        interface: str = "lo",
        gloo_seconds: int = 30,
        on: tuple[str, ...] = (),
        program: tuple[str, ...] = (HVDTRAIN,),
        **variables: str,
    ) -> "Elastic":
        """`hvdtrain train --elastic` on the digits.

        Args:
            interface: of the network between the hosts.
            gloo_seconds: after which a worker that says nothing counts as lost.
            on: command that runs another one on the host of horovodrun.
            program: what starts instead of hvdtrain.
            least: --min-np.
            discover: hvdtrain-discover reads the file of hosts, which is printed as it is otherwise.
            timeout_seconds: for which horovodrun waits for hosts.
        """
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / "hosts"
        write_whole(file, hosts)
        beside = str(Path(sys.executable).parent)
        horovodrun = shutil.which("horovodrun", path=f"{beside}{os.pathsep}{os.environ['PATH']}")
        assert horovodrun, "no horovodrun on PATH: hvdtrain doctor"
        finder = f"{sys.executable} -m hvdtrain.discover" if discover else "cat"
        launcher = [*on, horovodrun, "--gloo", "-np", "2", "--min-np", str(least), "--max-np", "3"]
        launcher += ["--network-interface", interface, "--gloo-timeout-seconds", str(gloo_seconds)]
        launcher += ["--host-discovery-script", f"{finder} {file}", "--elastic-timeout", str(timeout_seconds)]
        launcher += ["--blacklist-cooldown-range", *COOL_DOWN]
        place = [f"--data.dir={data}", f"--run.dir={folder}", "--run.name=run", "--run.trace_images=true"]
        train = [*program, "train", "--elastic", "--config=demo", "--train.global_batch_size=32", *place]
        train += ["--metrics.baseline=none", *options]
        process = subprocess.Popen(
            [*launcher, *train],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **root_variables(), **variables},
        )
        return cls(Job(folder / "run", process), file)

    def restart(self, *options: str) -> Job:
        """The same run by mpirun, to its end."""
        arguments = [*map(str, self.job.process.args)]  # type: ignore[union-attr]
        train = arguments[arguments.index(HVDTRAIN) :]
        process = subprocess.Popen(
            [*command("mpirun", 2), *(word for word in train if word != "--elastic"), *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **root_variables()},
        )
        return replace(self.job, process=process).finish()

    def change_hosts(self, text: str) -> None:
        write_whole(self.hosts, text)

    def starts(self) -> list[dict[str, Any]]:
        """Of each set of workers, in order."""
        return sorted([*self.job.events("start"), *self.job.events("resume")], key=lambda event: event["time"])

    def until_set(self, number: int, workers: int | None = None) -> None:
        """Until there are so many workers, or any number, in the set of that number or a later one."""
        self.job.until(
            f"{workers} workers, set {number}",
            lambda: len(starts := self.starts()) >= number and workers in (None, starts[-1]["world_size"]),
        )

    def until_steps(self, count: int) -> None:
        """Until the workers there are have reported so many steps."""
        begin = self.starts()[-1]
        self.job.until(
            f"{count} steps",
            lambda: any(
                report["time"] > begin["time"] and report["step"] >= begin["step"] + count
                for report in self.job.events("report")
            ),
        )

    def signal(self, rank: int, number: int = signal.SIGKILL) -> None:
        os.kill(self.job.environment()["workers"][rank]["pid"], number)

    def addresses(self) -> list[str]:
        """Of the metrics, as Prometheus is told."""
        groups = json.loads(targets.file(self.job.folder).read_text())
        return [address for group in groups for address in group["targets"]]

    def samples(self) -> Counter[tuple[int, int]]:
        """How often the steps that count took an image, by epoch and image."""
        found: Counter[tuple[int, int]] = Counter()
        for file in (self.job.folder / "images").glob("rank-*.csv"):
            with file.open(newline="") as lines:
                found.update((int(line["epoch"]), int(line["sample"])) for line in csv.DictReader(lines))
        return found
