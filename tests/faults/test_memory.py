"""One rank of two out of memory, whatever it is doing: it says so, the job ends, and a resume goes on as if nothing had
been. The kernel's own way of ending such a rank is a kill; that of some libraries, an abort or a crash."""

import random
import re
import subprocess
import sys

import pytest

from hvdtrain.checkpoint import store

from ..multiproc.conftest import Job, Launch
from ..multiproc.test_repeat import assert_identical
from .ready import SECONDS
from .runs import one_message, only_whole_checkpoints
from .tally import Times, Trials

pytestmark = pytest.mark.multiproc

STEPS = 12
RUN = (
    *("--data.batch_size=64", f"--max_steps={STEPS}", "--evaluation.batch_size=364", "--data.threads=1"),
    *("--checkpoint.every_epochs=0.1", "--evaluation.every_epochs=0.1"),
)
SAID = {
    "import": r"lib\w+\.so: failed to map segment from shared object → hvdtrain doctor",
    "start-up": r"out of memory in start-up: ",
    "step": r"out of memory with data.batch_size = 64 on the CPU(: \d+ would fit|, and 1 would not fit) → ",
    "evaluation": "out of memory in (evaluation|saving): ",  # what is in store may do for a small evaluation
    "saving": "out of memory in saving: ",
}

# How a rank ends when it is a library that gets no memory and gives up or goes on without: mpirun's exit code.
ENDED_BY_LIBRARY = {127: "cannot allocate memory for thread-local data: ABORT", 134: "signal 6", 139: "signal 11"}

SPARE = {"import": 100}  # MiB; with none the interpreter itself does not begin


@pytest.fixture(scope="module")
def undisturbed(launch: Launch) -> Job:
    return launch("mpirun", 2, *RUN, name="memory-enough").finish()


def short(launch: Launch, name: str, rank: int, when: str, spare: int) -> Job:
    program = (sys.executable, "-m", "tests.faults.short_of_memory", str(rank), when, str(spare))
    return launch("mpirun", 2, *RUN, "--resume=auto", name=name, program=program)


def test_no_memory_left(launch: Launch, undisturbed: Job, trials: Trials, times: Times) -> None:
    """One run that is hit by one after the other, goes on in between, and gets memory in the end."""
    with trials("one rank of two out of memory, then resume") as tally:
        for turn in range(times(1, 2)):
            name = f"no-memory-{turn}"
            for number, when in enumerate(SAID):
                rank = 0 if when == "saving" else (turn + number) % 2
                with tally.one(f"{when}, rank {rank}, turn {turn}"):
                    job = short(launch, name, rank, when, SPARE.get(when, 0))
                    message = ended(job, rank)
                    print(f"{when}: {message}")
                    assert message in ENDED_BY_LIBRARY.values() or re.match(f"rank {rank}: ({SAID[when]})", message)
            with tally.one(f"the end of turn {turn}"):
                goes_on(launch, name, undisturbed)


def test_little_memory_left(launch: Launch, undisturbed: Job, trials: Trials, times: Times) -> None:
    """Some MiB, which may be enough, or only for a while: then it is something later that ends the run."""
    with trials("one rank of two short of memory, then resume") as tally:
        for seed in range(times(1, 6)):
            chance = random.Random(seed)
            when, spare = chance.choice([*SAID][1:]), chance.choice([1, 2, 3, 5, 8, 13, 21, 34, 55, 89])
            rank = 0 if when == "saving" else chance.randrange(2)
            with tally.one(f"seed {seed}: {when}, rank {rank}, {spare} MiB left"):
                job = short(launch, f"little-memory-{seed}", rank, when, spare)
                if message := ended(job, rank):
                    print(f"{when}, {spare} MiB: {message}")
                goes_on(launch, f"little-memory-{seed}", undisturbed)


def ended(job: Job, rank: int) -> str:
    """Its one message, or how a library has ended it; none where the memory was enough."""
    try:
        output, _ = job.process.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        job.process.terminate()
        output, _ = job.process.communicate(timeout=SECONDS)
        raise AssertionError(f"it did not end within {SECONDS} s:\n{output}") from None
    only_whole_checkpoints(job.folder)
    if job.process.returncode == 0:
        return ""
    if cry := ENDED_BY_LIBRARY.get(job.process.returncode):
        assert cry in output, output
        return cry
    message = one_message(output)
    assert job.process.returncode in (3, 5), output
    assert message.startswith(f"rank {rank}: "), message
    assert re.search("memory|failed to map", message), message
    return message


def goes_on(launch: Launch, name: str, undisturbed: Job) -> None:
    resumed = launch("mpirun", 2, *RUN, "--resume=auto", name=name).finish()
    assert [*resumed.folder.glob("quarantine.jsonl")] == []  # want of memory is no fault of an image
    assert_identical(resumed, undisturbed)
    assert store.paths(resumed.folder / "checkpoints")[0].name == f"images-{STEPS * 128:012}"
