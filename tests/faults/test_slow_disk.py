"""A disk that takes seconds for each save holds training up only where a second save waits for the first."""

import json
import sys
from itertools import pairwise
from pathlib import Path

import pytest

from ..multiproc.conftest import Job, Launch
from ..multiproc.test_repeat import assert_identical
from .tally import Times, Trials

pytestmark = pytest.mark.multiproc

STEPS = 120
RUN = ("--data.batch_size=4", f"--max_steps={STEPS}", "--evaluation.at_end=false")
OFTEN, SELDOM = "--checkpoint.every_epochs=0.15", "--checkpoint.every_epochs=0.4"
SAVES = {OFTEN: 5, SELDOM: 2}


@pytest.fixture(scope="module")
def undisturbed(launch: Launch) -> Job:
    return launch("mpirun", 2, *RUN, name="fast-disk").finish()


def test_training_goes_on_while_a_save_takes_seconds(
    launch: Launch, undisturbed: Job, trials: Trials, times: Times, tmp_path: Path
) -> None:
    """Saves far apart, and so close that each has to wait for the one before."""
    with trials("disk that takes seconds for each save") as tally:
        for number, (seconds, often) in enumerate([(1.0, SELDOM), (0.3, OFTEN), (0.05, OFTEN)] * times(1, 2)):
            if number < times(2, 6):
                with tally.one(f"{seconds:g} s each, {often}"):
                    saves = tmp_path / str(number)
                    program = (sys.executable, "-m", "tests.faults.slow_disk", str(seconds), str(saves))
                    job = launch("mpirun", 2, *RUN, often, name=f"slow-disk-{number}", program=program).finish()
                    check(job, [json.loads(line) for line in saves.read_text().splitlines()], SAVES[often], seconds)
                    assert_identical(job, undisturbed)


def check(job: Job, saves: list[list[float]], expected: int, seconds: float) -> None:
    saved = job.events("checkpoint")
    assert len(saves) == len(saved) == expected
    assert all(end - begin > 4 * seconds for begin, end in saves)  # two files, their folder, and the folder around
    assert all(end <= begin for (_, end), (begin, _) in pairwise(saves)), "two at a time"
    assert saved[-1]["step"] == STEPS  # what was begun last was waited for
    (first, *_), reports = saved, job.events("report")
    meanwhile = [report for report in reports if first["step"] < report["step"] and report["time"] < first["time"]]
    assert len(meanwhile) > 5
    assert first["stalled_seconds"] < seconds < first["seconds"]
