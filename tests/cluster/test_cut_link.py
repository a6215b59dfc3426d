"""A link that is cut between two hosts tells nobody; the job ends nevertheless, and says which host it misses."""

import time

import pytest

from ..multiproc.test_failures import messages
from ..multiproc.test_watchdog import ENDLESS, SILENCE_SECONDS, SLACK_SECONDS, WATCHED, in_training, runs, stacks
from .conftest import Network

pytestmark = pytest.mark.multiproc


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_a_cut_link_ends_the_workers_with_the_host_named(network: Network, launcher: str) -> None:
    job = network.launch(WATCHED, *ENDLESS, name="cut", launcher=launcher)
    workers = in_training(job)
    network.cut("h2")
    deadline = time.monotonic() + SILENCE_SECONDS + SLACK_SECONDS
    while alive := [pid for pid in workers if runs(pid)]:
        assert time.monotonic() < deadline, f"processes {alive} still run"
        time.sleep(0.1)
    if launcher == "mpirun":  # it waits for a word of h2, for a quarter of an hour
        network.end_processes()
    code, output = job.wait()
    assert code != 0
    assert time.monotonic() < deadline, output
    (message,) = messages(output)
    assert message.startswith(f"rank 0: nothing was heard of rank 1 on h2 (process {workers[1]}) for ")
    assert "rank 0 waits in " in message
    (event,) = job.events("stalled")
    assert event["ranks"] == [1]
    assert all(stacks(job, rank) for rank in (0, 1))
    while (left := network.processes()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left == {}
