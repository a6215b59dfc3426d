"""The wall clock jumps, as it does when somebody sets it: nothing that a run measures or decides comes from it."""

import json
import math
import random
import re
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from ..multiproc.conftest import HVDTRAIN, Job, Launch
from ..multiproc.test_repeat import assert_identical
from .tally import Times, Trials

pytestmark = pytest.mark.multiproc

STEPS, SETTLED = 200, 100  # no jump after that
HOUR, DAYS = 3600.0, 3 * 86400.0
RUN = (
    *("--data.batch_size=4", f"--max_steps={STEPS}", "--checkpoint.every_epochs=0.3", "--evaluation.every_epochs=0.4"),
    "--distributed.watchdog_seconds=8",
)


@pytest.fixture(scope="module")
def undisturbed(launch: Launch) -> Job:
    return launch("mpirun", 2, *RUN, name="steady-clock").finish()


def test_the_clock_jumps(launch: Launch, undisturbed: Job, trials: Trials, times: Times) -> None:
    """An hour and three days, forth and back in random order, at random steps, on one rank or both."""
    with trials("wall clock jumps by an hour and by days") as tally:
        for seed in range(times(2, 8)):
            with tally.one(f"seed {seed}"):
                chance = random.Random(seed)
                amounts = chance.sample([HOUR, -HOUR, DAYS, -DAYS], 4)
                jumps = dict(zip(chance.sample(range(2, SETTLED), 4), amounts, strict=True))
                ranks = ["0", "0,1", "1"][seed % 3]
                program = (sys.executable, "-m", "tests.faults.clock", ranks, json.dumps(jumps))
                job = launch("mpirun", 2, *RUN, name=f"jumping-clock-{seed}", program=program)
                job.until("the last jump", lambda job=job: last_step(job) > SETTLED)
                served = list(durations_served(job))
                watched = hvdtrain("status", job)
                job.finish()
                assert_identical(job, undisturbed)
                assert job.events("stalled") == []
                assert ("0" in ranks) == bool(backwards(job))
                assert len(served) > 50
                assert all(value >= 0 or math.isnan(value) for _, value in served), served
                told = dict(durations_told(job.folder))
                assert told
                assert {place: value for place, value in told.items() if value < 0} == {}
                for text in (watched, hvdtrain("status", job), hvdtrain("report", job)):
                    assert not re.search(r"(?<![\w.])-\d[\d.,]* *(ms|s|min|h|d)\b", text), text
                assert f"{STEPS}" in hvdtrain("report", job)


def last_step(job: Job) -> int:
    reports = job.events("report")
    return int(reports[-1]["step"]) if reports else 0


def backwards(job: Job) -> list[float]:
    """By how much the times of the records go back."""
    when = [event["time"] for event in job.events("report")]
    return [after - before for before, after in pairwise(when) if after < before]


def durations_served(job: Job) -> Iterator[tuple[str, float]]:
    for worker in job.environment()["workers"]:
        with urllib.request.urlopen(f"http://{worker['metrics']}/metrics", timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                name, _, value = line.rpartition(" ")
                if "_seconds" in name and not name.startswith("#"):
                    yield name, float(value)


def durations_told(folder: Path) -> Iterator[tuple[str, float]]:
    for number, line in enumerate((folder / "events.jsonl").read_text().splitlines()):
        for name, value in json.loads(line).items():
            if name.endswith("seconds"):
                yield f"line {number}: {name}", value


def hvdtrain(verb: str, job: Job) -> str:
    ran = subprocess.run([HVDTRAIN, verb, job.folder], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    return ran.stdout
