"""A worker that stands still, in whatever way, ends the job with one message that says which it is."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from .conftest import Job, Launch, command, end, root_variables
from .test_failures import LAUNCHERS, messages

pytestmark = pytest.mark.multiproc

SILENCE_SECONDS = 8
SLACK_SECONDS = 25  # of a busy machine, and of launchers that wait before they kill
ENDLESS = ("--data.batch_size=4", "--epochs=5000", "--checkpoint.every_epochs=5000", "--evaluation.every_epochs=5000")
WATCHED = f"--distributed.watchdog_seconds={SILENCE_SECONDS}"
HOST = platform.node()

Watched = Callable[..., Job]


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """watched(launcher, ranks, what, rank, …) starts the program of that name; what still runs at the end is ended."""
    jobs: list[Job] = []

    def start(launcher: str, ranks: int, *arguments: object) -> Job:
        folder = tmp_path / str(len(jobs))
        program = [sys.executable, "-m", "tests.multiproc.watched", folder, ranks, SILENCE_SECONDS, *arguments]
        process = subprocess.Popen(
            [*command(launcher, ranks), *map(str, program)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **root_variables()},
        )
        jobs.append(Job(folder, process))
        return jobs[-1]

    yield start
    end(jobs)


def pids(job: Job) -> list[int]:
    return [worker["pid"] for worker in job.environment()["workers"]]


def in_training(job: Job) -> list[int]:
    """The workers' process ids, once they train and have said so."""
    job.until("the first steps", lambda: len(job.events("report")) > 3)
    time.sleep(2)
    return pids(job)


def stacks(job: Job, rank: int) -> str:
    """What the log has from the first stack on."""
    text = (job.folder / "logs" / f"rank-{rank}.log").read_text()
    return text[text.index("most recent call first") :] if "most recent call first" in text else ""


def ended_after(job: Job, began: float) -> str:
    """The one message of a job that has failed in time."""
    code, output = job.wait()
    seconds = time.monotonic() - began
    assert code != 0, output
    told = messages(output)
    assert len(told) == 1, output
    print(f"after {seconds:.1f} s: {told[0]}")
    assert SILENCE_SECONDS - 2 < seconds < SILENCE_SECONDS + SLACK_SECONDS, output
    return told[0]


def runs(pid: int) -> bool:
    """Not one that has ended, but whose parent has not looked yet."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] not in "ZX"
    return False


def left_over(processes: list[int]) -> list[int]:
    """Those that still run a little later; ended now."""
    deadline = time.monotonic() + SLACK_SECONDS
    while (alive := [pid for pid in processes if runs(pid)]) and time.monotonic() < deadline:
        time.sleep(0.1)
    for pid in alive:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return alive


@pytest.mark.parametrize(("stopped", "ranks"), [(1, 2), (0, 2), (2, 3)])
def test_a_stopped_worker_is_named(launch: Launch, stopped: int, ranks: int) -> None:
    """Under both launchers at once, to save time."""
    jobs = [
        launch(launcher, ranks, WATCHED, *ENDLESS, name=f"stopped-{stopped}-{ranks}-{launcher.split()[0]}")
        for launcher in LAUNCHERS
    ]
    workers = [in_training(job) for job in jobs]
    began = time.monotonic()
    for of_job in workers:
        os.kill(of_job[stopped], signal.SIGSTOP)
    for job, of_job in zip(jobs, workers, strict=True):
        message = ended_after(job, began)
        speaker = 1 if stopped == 0 else 0
        assert message.startswith(f"rank {speaker}: nothing was heard of rank {stopped} on {HOST} (process ")
        assert f"(process {of_job[stopped]})" in message
        assert "last seen in training, step" in message
        assert all(stacks(job, rank) for rank in range(ranks) if rank != stopped)
        if stopped:
            (event,) = job.events("stalled")
            assert event["ranks"] == [stopped]
            assert event["message"] in message
            assert event["images_seen"] > 0
        assert left_over(of_job) == []


def test_a_loader_that_never_comes_back_is_named_with_who_waits_for_it(launch: Launch) -> None:
    faulty = (sys.executable, "-m", "tests.multiproc.faulty", "input", "1", "3600000", "alternately")
    job = launch("mpirun", 2, WATCHED, *ENDLESS, name="never", program=faulty)
    job.until("the first steps", lambda: len(job.events("report")) > 3)
    message = ended_after(job, time.monotonic())
    assert message.startswith("rank 0: no step was done for ")
    assert f"rank 1 on {HOST}" in message
    assert "and holds up the others: rank 0 waits in" in message
    assert "in sleep" in stacks(job, 1) or "faulty.py" in stacks(job, 1)
    (event,) = job.events("stalled")
    assert event["ranks"] == [1]


def test_workers_in_different_collectives_are_named(watched: Watched) -> None:
    job = watched("mpirun", 2, "part", 1)
    code, output = job.wait()
    assert code == 7
    (message,) = messages(output)
    assert "workers wait in different collectives: rank 0 waits in numbers; rank 1 waits in elsewhere" in message
    assert "watched.py" in stacks(job, 0)
    assert "watched.py" in stacks(job, 1)


def test_a_worker_whose_interpreter_is_held_writes_its_stacks_nevertheless(watched: Watched) -> None:
    job = watched("mpirun", 2, "hold", 1)
    code, output = job.wait()
    assert code == 7
    (message,) = messages(output)
    assert message.startswith(f"rank 0: nothing was heard of rank 1 on {HOST}")
    assert "rank 0 waits in numbers" in message
    assert "watched.py" in stacks(job, 1)


def test_a_worker_that_has_gone_is_named_by_those_that_miss_it(watched: Watched) -> None:
    """horovodrun leaves the others time to speak; mpirun does not."""
    code, output = watched("horovodrun --gloo", 2, "leave", 1).wait()
    assert code != 0
    (message,) = messages(output)
    assert message.startswith("rank 0: a collective failed")
    assert f"rank 1 on {HOST} (process " in message
    assert "closed its connection" in message


def test_a_job_that_was_suspended_goes_on(launch: Launch) -> None:
    steps = 600
    job = launch("mpirun", 2, WATCHED, *ENDLESS, f"--max_steps={steps}", name="suspended")
    job.until("the first steps", lambda: len(job.events("report")) > 3)
    workers = pids(job)
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    assert len(job.events("report")) < steps / 2
    time.sleep(2 * SILENCE_SECONDS)
    for pid in workers:
        os.kill(pid, signal.SIGCONT)
    job.finish()
    assert job.events("end")[0]["step"] == steps
    assert job.events("stalled") == []


def test_who_is_done_may_leave_in_any_order(watched: Watched) -> None:
    code, output = watched("mpirun", 3, "nothing", 0, 5).wait()
    assert code == 0, output
    assert output.split() == ["over"] * 3
