"""A host that is cut off without a word: the run goes on without it, once ssh has noticed."""

from pathlib import Path

import pytest

from ..multiproc.elastic import Elastic
from .conftest import HOSTS, Network

pytestmark = pytest.mark.multiproc

KEEP_ALIVE = "    ServerAliveInterval 2\n    ServerAliveCountMax 2\n"
HOSTS_THERE_ARE = "h1:1\nh2:1\n"


def test_the_run_goes_on_without_a_host_that_is_cut_off(network: Network, tmp_path: Path) -> None:
    config = Path("/etc/netns/h1/ssh/ssh_config")
    config.write_text(config.read_text() + KEEP_ALIVE)
    run = Elastic.start(
        tmp_path / "runs",
        network.data,
        *("--epochs=3", "--data.image_size=16", "--data.threads=1", "--run.report_every=1"),
        hosts=HOSTS_THERE_ARE,
        interface="eth0",
        gloo_seconds=5,
        on=(str(HOSTS), "on", "h1"),
        OMP_NUM_THREADS="1",
    )
    network.jobs.append(run.job)
    run.until_set(1, workers=2)
    run.until_steps(10)
    network.cut("h2")
    run.until_set(2, workers=1)
    run.job.finish()
    assert set(run.samples().values()) == {1}
