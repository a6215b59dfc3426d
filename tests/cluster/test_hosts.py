"""Hosts without a batch system: every way to start a run on several of them, as the README has it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import HOSTS, Network

pytestmark = pytest.mark.multiproc

RUN = ("--precision=float64", "--max_steps=20", "--data.batch_size=8")
READ = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=10).read().decode())"


def test_every_launcher_trains_across_hosts_and_all_agree(network: Network, tmp_path: Path) -> None:
    """MPI and Gloo add in different orders, and a hostfile is no other order than -H."""
    mpi, horovod = tmp_path / "mpi-hosts", tmp_path / "horovod-hosts"
    mpi.write_text("h1 slots=1\nh2 slots=1\n")
    horovod.write_text("h1 slots=1\nh2 slots=1\n")
    given = {
        "mpirun": ("mpirun", ("-H", "h1:1,h2:1")),
        "mpirun-hostfile": ("mpirun", ("--hostfile", str(mpi))),
        "gloo": ("horovodrun", ("-H", "h1:1,h2:1")),
        "gloo-hostfile": ("horovodrun", ("--hostfile", str(horovod))),
        "horovodrun-mpi": ("horovodrun --mpi", ("-H", "h1:1,h2:1")),
    }
    weights = {}
    for name, (launcher, hosts) in given.items():
        job = network.launch(*RUN, name=name, launcher=launcher, hosts=hosts).finish()
        assert [worker["host"] for worker in job.environment()["workers"]] == ["h1", "h2"], name
        weights[name] = job.weights()
    wanted = weights["mpirun"]
    for name, found in weights.items():
        assert found.keys() == wanted.keys()
        for key, tensor in found.items():
            torch.testing.assert_close(tensor, wanted[key], rtol=0, atol=1e-10, msg=lambda text, n=name: f"{n}: {text}")


def test_metrics_are_where_the_targets_say_for_every_host(network: Network) -> None:
    job = network.launch("--epochs=1000", "--metrics.address=0.0.0.0", name="scraped")
    job.until("its start", lambda: bool(job.events("start")))
    groups = json.loads((network.runs / ".targets" / "scraped.json").read_text())
    assert [group["labels"]["rank"] for group in groups] == ["0", "1"]
    for host in ("h1", "h2"):
        for group in groups:
            (address,) = group["targets"]
            command = [str(HOSTS), "on", host, sys.executable, "-c", READ, f"http://{address}/metrics"]
            text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
            assert 'hvdtrain_worker_info{device="cpu"' in text
            assert f'host="h{int(group["labels"]["rank"]) + 1}"' in text
