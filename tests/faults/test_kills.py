"""Real workers killed or stopped at a random moment, and a resume that ends as if nothing had been."""

import os
import random
import signal
from collections.abc import Callable
from functools import cache

import pytest

from hvdtrain.checkpoint import store

from ..multiproc.conftest import Job, Launch
from ..multiproc.test_failures import messages
from .tally import Times, Trials

pytestmark = pytest.mark.multiproc

STEPS = 120
RUN = (
    *("--data.batch_size=4", f"--max_steps={STEPS}", "--evaluation.every_epochs=0.4", "--checkpoint.every_epochs=0.2"),
    "--distributed.watchdog_seconds=8",
)
ALL_BUT_THE_LAST = STEPS - 10  # a kill after that may come too late


def digest(job: Job) -> str:
    """Of the whole last state: weights, momentum, statistics, generators, place in the images."""
    checkpoint = store.latest(job.folder / "checkpoints").checkpoint
    assert checkpoint is not None
    assert checkpoint.manifest.step == STEPS
    return checkpoint.manifest.tensors_sha256


Undisturbed = Callable[[str, int], str]


@pytest.fixture(scope="module")
def undisturbed(launch: Launch) -> Undisturbed:
    """The digest of a run by this launcher on so many ranks. MPI and Gloo sum three numbers in different orders."""

    @cache
    def of(launcher: str, ranks: int) -> str:
        name = f"never-killed-{launcher.split()[0]}-{ranks}"
        return digest(launch(launcher, ranks, *RUN, name=name).finish())

    return of


def at(job: Job, step: int) -> None:
    """Return when a checkpoint is durable and this step done; the job goes on."""

    def there() -> bool:
        reports = job.events("report")
        return bool(job.events("checkpoint")) and bool(reports) and reports[-1]["step"] >= step

    job.until(f"step {step}", there)


def test_kill(launch: Launch, undisturbed: Undisturbed, trials: Trials, times: Times) -> None:
    """-9, of a random rank at a random step after the last save, again and again until the run is done."""
    with trials("kill -9 of a random rank, then resume") as tally:
        for seed in range(times(2, 30)):
            with tally.one(f"seed {seed}"):
                chance = random.Random(seed)
                ranks = chance.choice([2, 3])
                launcher = chance.choice(["mpirun", "mpirun", "horovodrun --gloo"])
                victim, step = chance.randrange(ranks), chance.randint(5, ALL_BUT_THE_LAST)
                job = launch(launcher, ranks, *RUN, name=f"killed-{seed}")
                at(job, step)
                os.kill(job.environment()["workers"][victim]["pid"], signal.SIGKILL)
                code, output = job.wait()
                assert code != 0, output
                assert job.events("report")[-1]["step"] < STEPS
                resumed = launch(launcher, ranks, *RUN, "--resume=auto", name=f"killed-{seed}").finish()
                assert digest(resumed) == undisturbed(launcher, ranks)


def test_stop(launch: Launch, undisturbed: Undisturbed, trials: Trials, times: Times) -> None:
    """SIGSTOP: the rank lives, and does nothing any more. The watchdog names it and ends the job."""
    with trials("SIGSTOP of a random rank, then resume") as tally:
        for seed in range(times(1, 4)):
            with tally.one(f"seed {seed}"):
                chance = random.Random(seed)
                ranks, launcher = chance.choice([2, 3]), ["mpirun", "horovodrun --gloo"][seed % 2]
                victim = chance.randrange(ranks)
                job = launch(launcher, ranks, *RUN, name=f"stopped-{seed}")
                at(job, chance.randint(5, ALL_BUT_THE_LAST))
                pid = job.environment()["workers"][victim]["pid"]
                os.kill(pid, signal.SIGSTOP)
                code, output = job.wait()
                assert code != 0, output
                (message,) = messages(output)
                assert f"nothing was heard of rank {victim} on" in message
                assert f"(process {pid})" in message
                resumed = launch(launcher, ranks, *RUN, "--resume=auto", name=f"stopped-{seed}").finish()
                assert digest(resumed) == undisturbed(launcher, ranks)


HARMLESS = (signal.SIGWINCH, signal.SIGCHLD, signal.SIGURG, signal.SIGCONT)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def test_storm_of_harmless_signals(launch: Launch, undisturbed: Undisturbed, trials: Trials, times: Times) -> None:
    """What terminals, children and batch systems send all the time, thousands of them, with short stops between."""
    with trials("storm of harmless signals") as tally:
        for seed in range(times(1, 3)):
            with tally.one(f"seed {seed}"):
                chance = random.Random(seed)
                job = launch("mpirun", 2, *RUN, name=f"storm-{seed}")
                at(job, 1)
                pids = [worker["pid"] for worker in job.environment()["workers"]]
                sent = 0
                while job.process.poll() is None:
                    try:
                        os.kill(chance.choice(pids), chance.choice(HARMLESS))
                        if sent % 500 == 0:
                            os.kill(pids[0], signal.SIGSTOP)
                            os.kill(pids[0], signal.SIGCONT)
                    except ProcessLookupError:
                        break
                    sent += 1
                    signal.sigtimedwait([], 0.001)
                assert digest(job.finish()) == undisturbed("mpirun", 2)
                assert sent > 500


def test_storm_of_ending_signals(launch: Launch, undisturbed: Undisturbed, trials: Trials, times: Times) -> None:
    """Many at once, to all workers and the launcher: the job ends, and nothing that was saved is lost."""
    with trials("storm of ending signals, then resume") as tally:
        for seed in range(times(1, 6)):
            with tally.one(f"seed {seed}"):
                chance = random.Random(seed)
                job = launch("mpirun", 2, *RUN, name=f"ended-{seed}")
                at(job, chance.randint(5, ALL_BUT_THE_LAST))
                pids = [*(worker["pid"] for worker in job.environment()["workers"]), job.process.pid]
                for _ in range(50):
                    try:
                        os.kill(chance.choice(pids), chance.choice(ENDING))
                    except ProcessLookupError:
                        continue
                    signal.sigtimedwait([], 0.002)
                code, output = job.wait()
                assert code != 0, output
                assert "Traceback" not in output
                resumed = launch("mpirun", 2, *RUN, "--resume=auto", name=f"ended-{seed}").finish()
                assert digest(resumed) == undisturbed("mpirun", 2)
