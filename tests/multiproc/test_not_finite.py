"""A loss that is NaN on one real worker: what comes of it is the same on all, and is what was asked for."""

import csv
import sys
from itertools import pairwise
from typing import Any

import pytest

from .conftest import Job, Launch
from .test_failures import messages
from .test_repeat import assert_identical

pytestmark = pytest.mark.multiproc

STEP, STEPS = 30, 60
RUN = ("--data.batch_size=4", f"--max_steps={STEPS}", "--checkpoint.every_epochs=0.1", "--evaluation.at_end=false")


def spoilt(launch: Launch, when: str, *options: str, name: str, rank: int = 1) -> Job:
    program = (sys.executable, "-m", "tests.multiproc.not_finite", str(rank), str(STEP), when)
    return launch("mpirun", 2, *RUN, *options, name=name, program=program)


def told(job: Job) -> list[dict[str, Any]]:
    return [{key: event[key] for key in ("step", "what", "ranks", "action")} for event in job.events("not_finite")]


@pytest.fixture(scope="module")
def undisturbed(launch: Launch) -> Job:
    return launch("mpirun", 2, *RUN, name="all-finite").finish()


def test_stop_ends_the_job_once_with_the_rank_and_a_resume_goes_on_as_if_nothing_had_been(
    launch: Launch, undisturbed: Job
) -> None:
    job = spoilt(launch, "always", name="stopped")
    code, output = job.wait()
    assert code == 8
    (message,) = messages(output)
    assert message.startswith(f"step {STEP}: the loss of rank 1 is not finite → a smaller optim.base_lr")
    assert told(job) == [{"step": STEP, "what": "loss", "ranks": [1], "action": "stop"}]
    assert_identical(launch("mpirun", 2, *RUN, "--resume=auto", name="stopped").finish(), undisturbed)


def test_skip_leaves_the_step_out_on_both(launch: Launch, undisturbed: Job) -> None:
    """Rank 0's batch norm statistics too, which are the run's."""
    job = spoilt(launch, "always", "--train.not_finite=skip", name="skipped", rank=0).finish()
    assert told(job) == [{"step": STEP, "what": "loss", "ranks": [0], "action": "skip"}]
    weights, reference = job.weights(), undisturbed.weights()
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())
    assert any(not bool((weights[name] == reference[name]).all()) for name in weights)


def test_a_passing_fault_costs_nothing_with_rewind(launch: Launch, undisturbed: Job) -> None:
    job = spoilt(launch, "once", "--train.not_finite=rewind", "--run.trace_images=true", name="rewound").finish()
    assert told(job) == [{"step": STEP, "what": "loss", "ranks": [1], "action": "rewind"}]
    steps = [event["step"] for event in job.events("report")]
    back = next(after for before, after in pairwise(steps) if after <= before)
    assert steps[-1] == STEPS
    assert back <= STEP
    assert_identical(job, undisturbed)
    with (job.folder / "images" / "rank-1.csv").open() as file:
        traced = [int(line["images_seen"]) for line in csv.DictReader(file)]
    assert traced == [8 * step for step in range(1, STEPS + 1) for _ in range(4)]  # each step's four images once


def test_a_run_that_diverges_is_not_rewound_for_ever(launch: Launch) -> None:
    job = spoilt(launch, "always", "--train.not_finite=rewind", name="diverged")
    code, output = job.wait()
    assert code == 8
    (message,) = messages(output)
    assert "again after going back: no passing fault of a machine" in message
    assert [event["action"] for event in told(job)] == ["rewind", "stop"]


def test_without_a_checkpoint_there_is_nothing_to_go_back_to(launch: Launch) -> None:
    job = spoilt(launch, "once", "--train.not_finite=rewind", "--checkpoint.every_epochs=50", name="too-early")
    code, output = job.wait()
    assert code == 8
    assert "is not finite, and there is no checkpoint yet to go back to" in messages(output)[0]
