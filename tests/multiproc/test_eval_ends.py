"""hvdtrain eval never waits for ever: who has stopped is named, who is asked to leave leaves with all the others."""

import os
import platform
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from hvdtrain.distributed import topology

from ..trained import random_run
from .conftest import HVDTRAIN, Job, command, end, root_variables
from .test_failures import LAUNCHERS, messages
from .test_watchdog import SILENCE_SECONDS, ended_after, left_over

pytestmark = pytest.mark.multiproc

HOST = platform.node()
SECONDS = 30  # in which all have to have left: a batch takes a few milliseconds, but the machine may be busy
BEGINS_ANEW = "before all images were counted → the same command begins anew; there was nothing to save"

Evaluate = Callable[..., Job]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its evaluation takes a minute: 50,000 pictures of noise, one at a time."""
    folder, _ = random_run(
        tmp_path_factory.mktemp("run") / "noise",
        "resnet8",
        classes=1000,
        evaluation={"batch_size": 1},
        distributed={"watchdog_seconds": SILENCE_SECONDS},
    )
    settings = folder / "config.yaml"
    settings.write_text(settings.read_text().replace("source: images", "source: synthetic"))
    return folder


@pytest.fixture
def evaluate(run: Path) -> Iterator[Evaluate]:
    """evaluate(launcher, ranks) starts `hvdtrain eval`; what still runs at the end is ended, and the run is unchanged.

    `fault` and `rank`: of tests.multiproc.faulty_eval.
    """
    jobs: list[Job] = []
    before = contents(run)

    def start(launcher: str, ranks: int, fault: str = "", rank: int = 0) -> Job:
        faulty = [sys.executable, "-m", "tests.multiproc.faulty_eval", fault, str(rank)]
        process = subprocess.Popen(
            [*command(launcher, ranks), *(faulty if fault else [HVDTRAIN]), "eval", str(run)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **root_variables(), "OMP_NUM_THREADS": "1"},
        )
        jobs.append(Job(run, process))
        return jobs[-1]

    yield start
    alive = [pid for job in jobs if job.process.poll() is None for pid in workers(job).values()]
    end(jobs)
    for pid in alive:  # one that is stopped outlives its launcher
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    assert contents(run) == before


def contents(folder: Path) -> dict[Path, Any]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def workers(job: Job) -> dict[int, int]:
    """Process ids by rank."""
    found = {}
    with suppress(psutil.Error):
        mine = psutil.Process(job.process.pid)
        for process in (mine, *mine.children(recursive=True)):
            with suppress(psutil.Error):
                environment = process.environ()
                if "eval" in process.cmdline() and topology.has_rank(environment, outside=os.environ):
                    found[topology.from_environment(environment).rank] = process.pid
    return found


def listens(pid: int) -> bool:
    """To what asks it to leave: it has begun with its images."""
    with suppress(OSError):
        (caught,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if "SigCgt" in line)
        return bool(int(caught.split()[1], 16) & 1 << (signal.SIGUSR2 - 1))
    return False


def busy(job: Job, ranks: int) -> list[int]:
    """The workers' process ids, once all are at their images."""
    found: dict[int, int] = {}

    def there() -> bool:
        time.sleep(0.1)
        found.update(workers(job) if len(found) < ranks else {})
        return len(found) == ranks and all(map(listens, found.values()))

    job.until("its first images", there)
    time.sleep(2.5)  # they have said so, too
    return [found[rank] for rank in range(ranks)]


def left_within_seconds(job: Job, processes: list[int]) -> tuple[int, list[str]]:
    """Exit code and messages of a job whose workers have all gone in time."""
    began = time.monotonic()
    code, output = job.wait()
    assert time.monotonic() - began < SECONDS, output
    assert left_over(processes) == []
    return code, messages(output)


@pytest.mark.parametrize(("stopped", "ranks"), [(1, 2), (0, 2), (2, 3)])
def test_a_stopped_worker_is_named_and_the_others_leave(evaluate: Evaluate, stopped: int, ranks: int) -> None:
    job = evaluate("mpirun", ranks)
    processes = busy(job, ranks)
    began = time.monotonic()
    os.kill(processes[stopped], signal.SIGSTOP)
    message = ended_after(job, began)
    speaker = 1 if stopped == 0 else 0
    assert job.process.returncode == 7
    assert message.startswith(f"rank {speaker}: nothing was heard of rank {stopped} on {HOST} (process ")
    assert f"(process {processes[stopped]})" in message
    assert "last seen in evaluating, batch " in message
    assert message.endswith("stacks of the others on standard error")
    assert left_over(processes) == []


def test_a_worker_whose_images_never_come_is_named_with_who_waits_for_it(evaluate: Evaluate) -> None:
    job = evaluate("mpirun", 2, "sleep", 1)
    code, output = job.wait()
    assert code == 7, output
    (message,) = messages(output)
    assert message.startswith("rank 0: no batch was done for ")
    assert f": rank 1 on {HOST} (process " in message
    assert " waits for nobody (evaluating, batch 50) and holds up the others: rank 0 waits in agreement" in message
    assert message.endswith(" → see on standard error where it is")
    assert "all threads of rank 1:" in output
    assert "faulty_eval.py" in output


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_killed_worker_ends_the_others(evaluate: Evaluate, launcher: str) -> None:
    job = evaluate(launcher, 2)
    processes = busy(job, 2)
    os.kill(processes[1], signal.SIGKILL)
    code, _ = left_within_seconds(job, processes)
    assert code != 0


def test_a_worker_that_has_gone_without_a_word_is_named(evaluate: Evaluate) -> None:
    """horovodrun, for it sees nothing wrong in exit code 0, and leaves the others time to speak. Where Gloo does not
    tell that the connection is gone, the watchdog does, with its own exit code."""
    code, output = evaluate("horovodrun --gloo", 2, "leave", 1).wait()
    assert code != 0
    (message,) = messages(output)
    assert f"rank 1 on {HOST} (process " in message
    assert "closed its connection" in message
    told_by_gloo = message.startswith("rank 0: a collective failed, another worker has gone: ")
    assert f"Exit code: {6 if told_by_gloo else 7}" in output


@pytest.mark.parametrize(
    ("number", "rank"), [(signal.SIGTERM, 1), (signal.SIGUSR1, 0), (signal.SIGUSR2, 1), (signal.SIGINT, 1)]
)
def test_a_signal_to_one_worker_ends_all_with_its_code(evaluate: Evaluate, number: signal.Signals, rank: int) -> None:
    job = evaluate("mpirun", 2)
    processes = busy(job, 2)
    os.kill(processes[rank], number)
    code, told = left_within_seconds(job, processes)
    assert code == 128 + number
    assert told == [f"stopped by {number.name} {BEGINS_ANEW}"]


def test_a_signal_that_mpirun_hands_on_is_told_once(evaluate: Evaluate) -> None:
    job = evaluate("mpirun", 2)
    processes = busy(job, 2)
    job.process.send_signal(signal.SIGUSR2)
    assert left_within_seconds(job, processes) == (140, [f"stopped by SIGUSR2 {BEGINS_ANEW}"])


def test_a_signal_ends_workers_of_horovodrun(evaluate: Evaluate) -> None:
    job = evaluate("horovodrun --gloo", 2)
    processes = busy(job, 2)
    os.kill(processes[1], signal.SIGTERM)
    code, told = left_within_seconds(job, processes)
    assert code == 1  # which it makes of all
    assert told == [f"stopped by SIGTERM {BEGINS_ANEW}"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_launcher_that_is_interrupted_leaves_no_worker(evaluate: Evaluate, launcher: str) -> None:
    """They get TERM, and the end a second later: time enough to speak as a rule, but not to speak twice."""
    job = evaluate(launcher, 2)
    processes = busy(job, 2)
    job.process.send_signal(signal.SIGINT)
    code, told = left_within_seconds(job, processes)
    assert code != 0
    assert told in ([], [f"stopped by SIGTERM {BEGINS_ANEW}"])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_that_is_alone(evaluate: Evaluate, number: signal.Signals) -> None:
    job = evaluate("none", 1)
    job.until("its first images", lambda: listens(job.process.pid))
    job.process.send_signal(number)
    code, told = left_within_seconds(job, [])
    assert code == 128 + number
    assert told == ["interrupted" if number == signal.SIGINT else f"stopped by SIGTERM {BEGINS_ANEW}"]
