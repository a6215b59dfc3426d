"""A link that is cut between two hosts tells nobody; the job ends nevertheless, and says which host it misses."""

import time

import pytest

from ..faults.tally import Times, Trials
from ..multiproc.conftest import Job
from ..multiproc.test_failures import messages
from ..multiproc.test_watchdog import ENDLESS, SILENCE_SECONDS, SLACK_SECONDS, WATCHED, in_training, runs, stacks
from .conftest import Network

pytestmark = pytest.mark.multiproc

GRACE_SECONDS = 5


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_a_cut_link_ends_the_job_with_the_host_named(
    network: Network, launcher: str, trials: Trials, times: Times
) -> None:
    with trials(f"link of a host cut, under {launcher}") as tally:
        for number in range(times(1, 4)):
            with tally.one(f"number {number}"):
                job = network.launch(
                    WATCHED, *ENDLESS, name=f"cut-{number}", launcher=launcher, grace_seconds=GRACE_SECONDS
                )
                workers = in_training(job)
                network.cut("h2")
                _ended_with_the_host_named(network, job, workers)
            network.end_processes()
            network.mend("h2")


def _ended_with_the_host_named(network: Network, job: Job, workers: list[int]) -> None:
    deadline = time.monotonic() + SILENCE_SECONDS + GRACE_SECONDS + SLACK_SECONDS
    code, output = job.wait()
    assert code != 0
    assert time.monotonic() < deadline, output
    message, *rest = messages(output)
    assert message.startswith(f"rank 0: nothing was heard of rank 1 on h2 (process {workers[1]}) for ")
    assert "rank 0 waits in " in message
    assert all("is still there 5 s after the last of its workers" in line for line in rest), rest
    while left := [*network.processes("h1"), *(pid for pid in workers if runs(pid))]:
        assert time.monotonic() < deadline, f"processes {left} still run"
        time.sleep(0.1)
    (event,) = job.events("stalled")
    assert event["ranks"] == [1]
    assert all(stacks(job, rank) for rank in (0, 1))
