"""All benches with standard settings, each a command of its own, and one table of all goals.

Sized for two CPU cores: a quarter of an hour, or a few minutes where it is to be seen only whether all of it works.
"""

import json
import shlex
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtrain.distributed import launch
from hvdtrain.errors import EnvironmentFault
from hvdtrain.log import logger

STANDARD = {
    "allreduce": "--rounds 6",
    "step": "--starts 3 --rounds 2 --steps 4",
    "scaling": "--config demo --rounds 4 --steps 100",
    "input": "--rounds 5",
}
QUICK = {
    "allreduce": "--rounds 3 --repetitions 3 --model resnet18",
    "step": "--rounds 3 --steps 2 --model resnet18 --image 64",
    "scaling": "--config demo --rounds 2 --steps 40",
    "input": "--rounds 2 --batches 4",
}


@dataclass(frozen=True)
class Goal:
    """One that a bench was held against."""

    bench: str
    ratio: str
    median: float
    least: float
    verdict: str


def run(folder: Path, *, quick: bool) -> int:
    """Run all; the exit code. `folder` gets KIND.json and KIND.png of each, and the digits that scaling trains on.

    Raises:
        EnvironmentFault: the folder cannot be made, or there is no hvdtrain.
    """
    from hvdtrain.data import demo

    digits = folder / "digits"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not digits.exists():
            demo.write(digits)
    except OSError as error:
        raise EnvironmentFault(f"--dir {folder}: {error.strerror}", remedy="name a folder to write to") from error
    goals: list[Goal] = []
    failed: dict[str, int] = {}
    for name, options in (QUICK if quick else STANDARD).items():
        file = folder / f"{name}.json"
        file.unlink(missing_ok=True)  # an earlier one's would stand for this one's
        command = command_of(name, options, folder)
        print(f"\n$ hvdtrain {shlex.join(command)}", flush=True)
        begin = time.monotonic()
        code = subprocess.run([launch.program("hvdtrain"), *command], check=False).returncode
        logger.info("bench %s took %.0f s", name, time.monotonic() - begin)
        if code or not file.exists():
            failed[name] = code or 1
        else:
            goals += goals_of(name, json.loads(file.read_text()))
    print(f"\n{table(goals, failed)}", flush=True)
    return 1 if failed else 0


def command_of(name: str, options: str, folder: Path) -> list[str]:
    """Words after `hvdtrain`. Pure.

    >>> shlex.join(command_of("input", "--rounds 5", Path("runs/bench")))
    'bench input --rounds 5 --json runs/bench/input.json --figure runs/bench/input.png'
    """
    data = ["--data.dir", str(folder / "digits")] if name == "scaling" else []
    results = ["--json", str(folder / f"{name}.json"), "--figure", str(folder / f"{name}.png")]
    return ["bench", name, *options.split(), *data, *results]


def goals_of(bench: str, record: Mapping[str, Any]) -> list[Goal]:
    """Of what a bench has written. Pure."""
    return [
        Goal(bench, each["name"], each["median"], each["goal"], each["verdict"])
        for each in record["ratios"]
        if each["goal"] is not None
    ]


def table(goals: Sequence[Goal], failed: Mapping[str, int]) -> str:
    """Every goal, and every bench that failed with its exit code. Pure."""
    width = max([24, *(len(goal.ratio) + 2 for goal in goals)])
    lines = [f"{'bench':12}{'ratio':{width}}{'median':>8}{'goal':>8}"]
    lines += [f"{g.bench:12}{g.ratio:{width}}{g.median:>8.3f}{g.least:>8.2f}  {g.verdict}" for g in goals]
    lines += [f"{bench:12}failed, exit code {code}; above is why" for bench, code in failed.items()]
    return "\n".join(lines)
