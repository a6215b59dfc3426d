"""A run that is asked to leave saves, leaves as one, and comes back to the same weights."""

import os
import random
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from hvdtrain import outcome
from hvdtrain.checkpoint import store
from hvdtrain.outcome import Outcome

from ..faults.tally import Times, Trials
from .conftest import Job, Launch
from .test_failures import messages
from .test_repeat import assert_identical

pytestmark = pytest.mark.multiproc

# Evaluations of many batches, so that a signal can come within one.
RUN = ("--epochs=6", "--evaluation.batch_size=2", "--checkpoint.every_epochs=0.5", "--data.threads=1")
EVERYWHERE = ("mpirun", "horovodrun --gloo")


@pytest.fixture(scope="module", params=EVERYWHERE)
def undisturbed(launch: Launch, request: pytest.FixtureRequest) -> tuple[str, Job]:
    launcher = request.param
    return launcher, launch(launcher, 2, *RUN, name=f"not-preempted-{EVERYWHERE.index(launcher)}").finish()


def ranks(job: Job, *, starts: int = 1) -> list[int]:
    """Process ids, after so many starts; the environment is told when start-up is nearly over."""
    job.until("its start", lambda: len([*job.events("start"), *job.events("resume")]) >= starts)
    return [worker["pid"] for worker in job.environment()["workers"]]


def preempted(job: Job, launcher: str) -> str:
    """Its one message."""
    return as_preempted(job, launcher, *job.wait())


def as_preempted(job: Job, launcher: str, code: int, output: str) -> str:
    assert code == (75 if launcher == "mpirun" else 1), output  # horovodrun makes 1 of all
    (message,) = messages(output)
    assert outcome.read(job.folder) == Outcome(75, message)
    assert message.startswith("stopped ")
    assert message.endswith(" → --resume auto goes on from there")
    assert not [*(job.folder / "checkpoints").glob(".*")]
    return message


def goes_on(launch: Launch, launcher: str, name: str, wanted: Job) -> Job:
    resumed = launch(launcher, 2, *RUN, "--resume=auto", name=name).finish()
    assert outcome.read(resumed.folder) == Outcome(0, "finished")
    assert_identical(resumed, wanted)
    assert evaluations(resumed) == evaluations(wanted)
    return resumed


def evaluations(job: Job) -> dict[int, tuple[float, float]]:
    return {event["step"]: (event["top1"], event["loss"]) for event in job.events("evaluate")}


def in_start_up(job: Job) -> None:
    job.until("the run directory", lambda: (job.folder / "logs" / "rank-0.log").exists())


def in_a_step(job: Job) -> None:
    job.until("some steps", lambda: len(job.events("report")) >= 20)


def in_an_evaluation(job: Job) -> None:
    """A report is told right before."""
    job.until("the end of an epoch", lambda: any(event["epoch"] >= 1 for event in job.events("report")))


def in_a_save(job: Job) -> None:
    job.until(
        "a save", lambda: any((job.folder / "checkpoints").glob(".*")) or bool(store.paths(job.folder / "checkpoints"))
    )


MOMENTS = {"step": in_a_step, "evaluation": in_an_evaluation, "save": in_a_save}


@pytest.mark.parametrize("moment", MOMENTS)
def test_asked_at_that_moment_it_comes_back_to_the_same_weights(
    moment: str, launch: Launch, undisturbed: tuple[str, Job]
) -> None:
    launcher, wanted = undisturbed
    name = f"preempted-in-{moment}-{EVERYWHERE.index(launcher)}"
    job = launch(launcher, 2, *RUN, name=name)
    processes = ranks(job)
    MOMENTS[moment](job)
    os.kill(processes[1], signal.SIGUSR2)  # one of the workers alone
    assert " by SIGUSR2 → " in preempted(job, launcher)
    (event,) = job.events("preempted")
    assert job.events("checkpoint")[-1]["step"] == event["step"] < wanted.events("report")[-1]["step"]
    goes_on(launch, launcher, name, wanted)


def test_asked_before_its_first_step_it_leaves_without_a_checkpoint(
    launch: Launch, undisturbed: tuple[str, Job]
) -> None:
    launcher, wanted = undisturbed
    name = f"preempted-in-start-up-{EVERYWHERE.index(launcher)}"
    job = launch(launcher, 2, *RUN, name=name)
    in_start_up(job)
    processes = ranks(job) if job.events("start") else _workers(job)
    os.kill(processes[0], signal.SIGTERM)
    assert preempted(job, launcher).startswith("stopped before the first step by SIGTERM")
    assert store.paths(job.folder / "checkpoints") == []
    goes_on(launch, launcher, name, wanted)


def _workers(job: Job) -> list[int]:
    import psutil

    def trains(process: psutil.Process) -> bool:
        try:
            line = process.cmdline()
        except psutil.Error:
            return False
        return len(line) > 2 and line[1].endswith("/hvdtrain") and line[2] == "train"

    found: list[int] = []

    def all_there() -> bool:
        found[:] = [p.pid for p in psutil.Process(job.process.pid).children(recursive=True) if trains(p)]
        return len(found) == 2

    job.until("its workers", all_there)
    return found


def test_again_and_again_by_any_signal_to_anybody(
    launch: Launch, undisturbed: tuple[str, Job], trials: Trials, times: Times
) -> None:
    launcher, wanted = undisturbed
    with trials(f"preempted by signals at random moments, under {launcher}, then resume") as tally:
        for seed in range(times(1, 12)):
            chance = random.Random(seed)
            name = f"preempted-{seed}-{EVERYWHERE.index(launcher)}"
            with tally.one(f"seed {seed}"):
                for turn in range(2):
                    job = launch(launcher, 2, *RUN, "--resume=auto", name=name)
                    processes = ranks(job, starts=1 + turn)
                    time.sleep(chance.uniform(0, 1.5))
                    for _ in range(chance.randint(1, 3)):
                        number = chance.choice([signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
                        if _asks(chance.choice(processes), number):
                            time.sleep(chance.uniform(0, 0.3))
                    code, output = job.wait()
                    if code:
                        as_preempted(job, launcher, code, output)
                    else:
                        assert outcome.read(job.folder) == Outcome(0, "finished")  # it was over before it was asked
                goes_on(launch, launcher, name, wanted)


def _asks(process: int, number: int) -> bool:
    try:
        os.kill(process, number)
    except ProcessLookupError:
        return False
    return True


def test_mpirun_hands_the_signal_to_its_workers(launch: Launch) -> None:
    job = launch("mpirun", 2, *RUN, name="preempted-by-mpirun")
    ranks(job)
    in_a_step(job)
    job.process.send_signal(signal.SIGUSR2)
    assert " by SIGUSR2 → " in preempted(job, "mpirun")


def test_a_run_goes_on_with_its_minibatch_on_another_number_of_workers(launch: Launch) -> None:
    """n stays, m changes; a number of workers that cannot share the minibatch is refused with those that can."""
    options = ("--epochs=12", "--data.batch_size=8", "--run.trace_images=true", "--evaluation.every_epochs=12")
    whole = launch("mpirun", 4, *options, name="minibatch-undisturbed").finish()
    name = "minibatch-stays"
    for turn, workers in enumerate((4, 2)):
        job = launch("mpirun", workers, *options, "--resume=auto", name=name)
        processes, done = ranks(job, starts=1 + turn), len(job.events("report"))
        job.until("some steps", partial(_did_more_than, job, done + 10))
        os.kill(processes[0], signal.SIGUSR2)
        preempted(job, "mpirun")
    job = launch("mpirun", 1, *options, "--resume=auto", name=name).finish()
    starts = [*job.events("start"), *job.events("resume")]
    assert [(start["world_size"], start["global_batch_size"]) for start in starts] == [(4, 32), (2, 32), (1, 32)]
    assert _images(job) == _images(whole)
    code, output = launch("mpirun", 3, *options, "--resume=auto", name=name).wait()
    assert code == 2
    (message,) = messages(output)
    assert message.endswith("minibatch of 32 images evenly → resume it on 1, 2 or 4 workers")


def _did_more_than(job: Job, steps: int) -> bool:
    return len(job.events("report")) > steps


def _images(job: Job) -> list[str]:
    """All that were used, whoever used them; without their place, which counts micro-batches of all workers."""
    files = sorted((job.folder / "images").glob("rank-*.csv"))
    return sorted(line.partition(",")[2] for file in files for line in file.read_text().splitlines()[1:])


def test_a_second_job_is_refused_while_the_first_one_trains(launch: Launch) -> None:
    job = launch("mpirun", 2, "--epochs=1000", name="occupied")
    ranks(job)
    code, output = launch("mpirun", 2, "--epochs=1000", "--resume=auto", name="occupied").wait()
    assert code == 3, output
    (message,) = messages(output)
    assert f"rank 0: {job.folder} is in use by process " in message
    os.kill(ranks(job)[0], signal.SIGUSR2)  # which still are the first one's
    preempted(job, "mpirun")


def test_a_changed_configuration_is_refused_or_recorded(launch: Launch) -> None:
    first = ("--epochs=2", "--seed=1")
    launch("mpirun", 2, *first, name="edited").finish()
    more = ("--epochs=3", "--seed=1", "--resume=auto")
    code, output = launch("mpirun", 2, *more, name="edited").wait()
    assert code == 5
    assert "epochs was 2.0, is 3.0 → compare with " in messages(output)[0]
    job = launch("mpirun", 2, *more, "--resume_changed=accept", name="edited").finish()
    (event,) = job.events("changed")
    assert event["settings"] == {"epochs": [2.0, 3.0]}
    assert Path(job.events("checkpoint")[-1]["path"]).name == f"images-{-(-3 * 1433 // 32) * 32:012}"
