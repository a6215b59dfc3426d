"""Workers that are killed, sent away, or come: the run goes on, and every image counts once."""

import http.client
import random
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import torch

from hvdtrain import outcome

from ..faults.tally import Times, Trials
from .conftest import Launch, end
from .elastic import MORE, TWO, Elastic
from .test_accumulation import distance

pytestmark = pytest.mark.multiproc

IMAGES, EPOCHS = 1433, 12
COMMIT = 10  # steps
USUAL = (0.975, 0.995)  # top-1, at the head of presets/demo.yaml
SHORT = ("--epochs=3", "--data.image_size=16", "--run.report_every=5")
DECAY = "--optim.decay_epochs=[1.5]"

Start = Callable[..., Elastic]


@pytest.fixture
def start(digits: Path, tmp_path: Path) -> Iterator[Start]:
    """start(*options, …), see Elastic.start; what still runs at the end is ended."""
    begun: list[Elastic] = []

    def start(*options: str, **how: object) -> Elastic:
        begun.append(Elastic.start(tmp_path / str(len(begun)), digits, *options, **how))  # type: ignore[arg-type]
        return begun[-1]

    yield start
    end(each.job for each in begun)


def each_image_once(run: Elastic, epochs: int) -> None:
    samples = run.samples()
    assert set(samples.values()) == {1}
    whole = [sum(epoch == which for epoch, _ in samples) for which in range(epochs)]
    assert whole == [IMAGES] * epochs


def lost_images(run: Elastic) -> list[int]:
    """At each change of the workers."""
    lost: list[int] = [start["lost_images"] for start in run.starts() if "resets" in start]
    return lost


def answers(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=5)
    with suppress(OSError):
        connection.request("GET", "/metrics")
        return b"hvdtrain_steps_total" in connection.getresponse().read()
    return False


def all_targets_answer(run: Elastic, workers: int) -> None:
    """A dead one would be an alert, and a hole in every sum over workers."""
    run.job.until("the targets", lambda: len(run.addresses()) == workers)
    assert all(answers(address) for address in run.addresses())


@contextmanager
def there_is(file: Path) -> Iterator[None]:
    file.touch()
    yield
    file.unlink()


def test_two_kills_and_a_growth_cost_time_alone(start: Start, times: Times, trials: Trials, tmp_path: Path) -> None:
    with trials("two workers killed, one more host, in one run") as tally:
        for seed in range(times(1, 10)):
            with tally.one(f"seed {seed}"):
                brake = tmp_path / f"brake-{seed}"
                slow = (sys.executable, "-m", "tests.multiproc.faulty", "input", "all", "250", str(brake))
                _two_kills_and_a_growth(start(program=slow), brake, random.Random(seed))


def _two_kills_and_a_growth(run: Elastic, brake: Path, draw: random.Random) -> None:
    """While a worker is awaited there is a brake on: a fast machine would have trained to the end by then."""
    run.until_set(1, workers=2)
    run.until_steps(draw.choice([10, 20, 30]))
    time.sleep(draw.random() / 4)
    run.signal(draw.randrange(2))
    with there_is(brake):
        run.until_set(2, workers=1)
        run.until_set(3, workers=2)  # its host is there again after a while
        all_targets_answer(run, 2)
    run.until_steps(20)
    with there_is(brake):
        run.change_hosts(MORE)
        run.until_set(4, workers=3)
        all_targets_answer(run, 3)
    run.until_steps(20)
    run.signal(draw.randrange(3))
    run.until_set(5)
    run.job.finish()
    starts = run.starts()
    assert [start.get("resets", 0) for start in starts] == list(range(len(starts)))
    most = COMMIT * max(start["global_batch_size"] for start in starts)
    assert all(0 <= lost <= most for lost in lost_images(run))
    each_image_once(run, EPOCHS)
    low, high = USUAL
    assert low <= run.job.events("evaluate")[-1]["top1"] <= high
    assert outcome.read(run.job.folder) == outcome.Outcome(0, "finished")


@pytest.mark.parametrize(("number", "rank"), [(signal.SIGKILL, 0), (signal.SIGKILL, 1), (signal.SIGTERM, 0)])
def test_the_weights_are_those_of_a_run_that_nothing_happened_to(
    number: signal.Signals, rank: int, start: Start, undisturbed: dict[str, torch.Tensor]
) -> None:
    """The minibatch divides among one worker as among two. Rank 0 has the statistics of batch norm, and the files."""
    run = start(*SHORT, DECAY, "--precision=float64")
    run.until_set(1, workers=2)
    run.until_steps(15)
    run.signal(rank, number)
    run.until_set(2, workers=1)
    run.job.finish()
    assert [start["global_batch_size"] for start in run.starts()] == [32] * len(run.starts())
    assert {start["world_size"] for start in run.starts()} == {1, 2}
    lost = lost_images(run)
    if number == signal.SIGTERM:  # a host that says that it is about to go
        assert set(lost) == {0}
    assert max(lost) <= COMMIT * 32
    each_image_once(run, 3)
    assert distance(run.job.weights(), undisturbed) < 1e-10


@pytest.fixture(scope="module")
def undisturbed(launch: Launch) -> dict[str, torch.Tensor]:
    options = (*SHORT, "--precision=float64", "--train.global_batch_size=32")  # the rest is what `launch` says
    return launch("mpirun", 2, *options, name="never-changed").finish().weights()


def test_too_few_workers_end_it_in_time_and_lose_nothing(start: Start) -> None:
    run = start(*SHORT, DECAY, least=2, timeout_seconds=12)
    run.until_set(1, workers=2)
    run.until_steps(15)
    run.change_hosts("localhost:1\n")
    run.signal(1)
    began = time.monotonic()
    code, output = run.job.wait()
    assert code == 1
    assert time.monotonic() - began < 60
    assert "Please check that you have enough resources to run at least 2 Horovod processes" in output
    (saved,) = {int(step) for step in re.findall("the last commit, of step ([0-9]+), is saved", output)}
    assert saved >= run.job.events("report")[-1]["step"] - COMMIT
    told = outcome.read(run.job.folder)
    assert told is not None
    assert told.code == 75
    assert "--min-np" in told.message
    again = run.restart("--resume=auto")
    assert again.events("resume")[-1]["step"] == saved
    each_image_once(run, 3)


@pytest.mark.parametrize(
    ("hosts", "said"),
    [
        ("", "got no host, wanted one in each line"),
        ("localhost:many\n", "hosts:1: slots: got 'many', wanted a whole number"),
        (f"{TWO}no-such-host.invalid:1\n", "no-such-host.invalid"),
    ],
)
def test_no_hosts_or_wrong_ones_end_it_at_once(hosts: str, said: str, start: Start) -> None:
    """horovodrun's thread for a host without an address ends without a word, and it waits for ever."""
    began = time.monotonic()
    code, output = start(hosts=hosts, discover=True, timeout_seconds=600).job.wait()
    assert code == 1
    assert said in output
    assert time.monotonic() - began < 60


def test_hosts_that_do_not_come_are_waited_for_no_longer_than_asked(start: Start) -> None:
    began = time.monotonic()
    code, output = start(hosts="", timeout_seconds=5).job.wait()
    assert code == 1
    assert "enough resources to run at least 2 Horovod processes" in output
    assert time.monotonic() - began < 60


def test_a_new_worker_that_does_not_come_up_stops_nobody(start: Start) -> None:
    """The others, who would wait for it and be aborted from within Horovod, have trained on meanwhile."""
    run = start(*SHORT, DECAY, "--epochs=1000")
    run.until_set(1, workers=2)
    run.until_steps(10)
    run.signal(1)
    run.until_set(2, workers=1)
    before = _workers(run)
    run.job.until("a new worker", lambda: len(_workers(run)) > len(before))
    time.sleep(1)  # it loads torch
    (new,) = set(_workers(run)) - set(before)
    new.kill()
    run.until_set(3, workers=2)
    assert [start.get("resets", 0) for start in run.starts()] == [0, 1, 2]
    run.job.process.terminate()
    run.job.wait()
    told = outcome.read(run.job.folder)
    assert told is not None
    assert told.code == 75


def test_a_new_worker_waits_for_those_who_have_long_steps_to_do(start: Start) -> None:
    """Until their next commit, three times as long as Gloo would wait for them."""
    slow = (sys.executable, "-m", "tests.multiproc.faulty", "input", "0", "1000", "always")
    run = start(*SHORT, DECAY, "--epochs=1000", "--elastic.commit_steps=15", gloo_seconds=5, program=slow)
    run.until_set(1, workers=2)
    run.change_hosts(MORE)
    run.until_set(2, workers=3)
    assert [(start["world_size"], start["lost_images"]) for start in run.starts()[1:]] == [(3, 0)]
    run.job.process.terminate()
    run.job.wait()


def test_a_worker_that_hangs_leaves_alone(start: Start) -> None:
    faulty = (sys.executable, "-m", "tests.multiproc.faulty", "input", "1", "3600000", "alternately")
    run = start(*SHORT, DECAY, "--distributed.watchdog_seconds=8", program=faulty)
    run.until_set(1, workers=2)
    run.until_set(2, workers=1)
    left = psutil.Process(run.job.environment()["workers"][0]["pid"])
    run.change_hosts(f"{left.environ()['HOROVOD_HOSTNAME']}:1\n")  # nobody comes who would hang too
    run.job.finish()
    assert {tuple(event["ranks"]) for event in run.job.events("stalled")} == {(1,)}
    each_image_once(run, 3)


def test_what_rank_0_finds_wrong_ends_the_run_for_all(start: Start, tmp_path: Path) -> None:
    run = start(f"--data.dir={tmp_path}/nowhere")
    ended_for_all(run, 4, "no folder")


def test_a_checkpoint_that_cannot_be_saved_ends_the_run_for_all(start: Start) -> None:
    """The next rank 0 would have the same disk."""
    run = start(*SHORT, DECAY, "--checkpoint.every_epochs=0.2")
    run.until_set(1, workers=2)
    run.until_steps(10)
    shutil.rmtree(run.job.folder / "checkpoints")
    (run.job.folder / "checkpoints").touch()
    ended_for_all(run, 5, "cannot be saved")


def ended_for_all(run: Elastic, code: int, message: str) -> None:
    began = time.monotonic()
    ended, output = run.job.wait()
    assert ended == 1
    assert "going on with those that are left" not in output
    assert time.monotonic() - began < 60
    told = outcome.read(run.job.folder)
    assert told is not None
    assert (told.code, message in told.message) == (code, True)


def _workers(run: Elastic) -> list[psutil.Process]:
    found = []
    for process in psutil.Process(run.job.process.pid).children(recursive=True):
        with suppress(psutil.Error):
            words = process.cmdline()
            if any(word.endswith("/hvdtrain") for word in words[1:2]):
                found.append(process)
    return found


def test_only_an_elastic_launcher_may_start_it(launch: Launch) -> None:
    code, output = launch("mpirun", 2, "--elastic", "--train.global_batch_size=32", name="not-elastic").wait()
    assert code == 3
    assert output.count("expected horovodrun --gloo with --min-np and --host-discovery-script") == 1
