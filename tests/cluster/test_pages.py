"""The commands of docs/slurm.md under a real Slurm; those of hosts.md and elastic.md on several hosts."""

from pathlib import Path

import pytest

from ..pages import DOCS, TRIED, Place, commands
from .conftest import HOSTS, Network
from .private_slurm import Slurm

pytestmark = pytest.mark.multiproc

# Four nodes without GPUs, of one worker each, stand for the page's.
FOUR_NODES = {
    "--job.nodes 32 --job.gpus_per_node 8": "--job.nodes 2",
    "--job.nodes 2 --job.gpus_per_node 8": "--job.nodes 2",
    "--job.gpus_per_node 8": "--job.workers_per_node 1",
    "--job.partition long": "--job.partition batch",
    "--scaling 1,2,4,8": "--scaling 1,2 --max_steps 60",
}
# h1 and h2 stand for a and b. Root's Open MPI asks for two more variables, a tree that is not installed for a third.
EXPORTED = ("PYTHONPATH", "OMP_NUM_THREADS", "OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")
TWO_HOSTS = {
    "--config goyal_r50_8k": "--config PLACE/digits.yaml --max_steps 10",  # six runs, of which none need be long
    "-np 16": "-np 2",
    "a:8,b:8": "h1:1,h2:1",
    "a slots=8": "h1 slots=1",
    "b slots=8": "h2 slots=1",
    "ssh b": "ssh h2",
    "--elastic --config goyal_r50_8k": "--elastic --config PLACE/digits.yaml --train.global_batch_size 32",
    "--min-np 8 --max-np 64": "--min-np 1 --max-np 2",
    "-x PATH": " ".join(f"-x {name}" for name in ("PATH", *EXPORTED)),
}


def test_every_command_of_the_slurm_page_runs(
    slurm: Slurm, digits: Path, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    place = Place(tmp_path / "page", also=FOUR_NODES, environment=slurm.environment())
    (tmp_path / "page" / "imagenet").symlink_to(digits)
    tries = pytestconfig.stash.setdefault(TRIED, [])
    for command in commands((DOCS / "slurm.md").read_text(), "slurm.md"):
        place.do(command, tries)


@pytest.mark.parametrize("page", ["hosts.md", "elastic.md"])
def test_every_command_of_a_page_about_hosts_runs(
    page: str, network: Network, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    place = Place(tmp_path / "page", also=TWO_HOSTS, environment={}, on=[str(HOSTS), "on", "h1"])
    (tmp_path / "page" / "imagenet").symlink_to(network.data)
    tries = pytestconfig.stash.setdefault(TRIED, [])
    for command in commands((DOCS / page).read_text(), page):
        place.do(command, tries)
