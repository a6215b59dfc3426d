"""Several hosts with a network between them, on this machine."""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ..multiproc.conftest import HVDTRAIN, SMALL, Job, root_variables
from . import private_slurm
from .private_slurm import Slurm

HOSTS = Path(__file__).with_name("hosts")
OVER_TCP = [word for key in ("btl_tcp_if_include", "oob_tcp_if_include") for word in ("--mca", key, "eth0")]


@dataclass(frozen=True)
class Network:
    """Two hosts, h1 and h2."""

    runs: Path
    data: Path
    jobs: list[Job] = field(default_factory=list)

    def launch(
        self,
        *options: str,
        name: str,
        launcher: str = "mpirun",
        hosts: Sequence[str] = ("-H", "h1:1,h2:1"),
        grace_seconds: int | None = None,
    ) -> Job:
        """`hvdtrain train`, one worker on each.

        Args:
            launcher: mpirun, horovodrun, which uses Gloo, or horovodrun --mpi.
            hosts: how it is told of them.
            grace_seconds: of `hvdtrain launch`, under which the launcher then runs.
        """
        beside = Path(sys.executable).parent
        program = shutil.which(launcher.split()[0], path=f"{beside}{os.pathsep}{os.environ['PATH']}")
        assert program, f"no {launcher} on PATH: hvdtrain doctor"
        variables = {**root_variables(), "PATH": os.environ["PATH"], "OMP_NUM_THREADS": "1"}
        variables |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
        exported = [word for variable in variables for word in ("-x", variable)]
        how = {
            "mpirun": ["--bind-to", "none", *OVER_TCP, *exported],
            "horovodrun": ["--gloo", "--network-interfaces", "eth0"],
            "horovodrun --mpi": ["--mpi", "--network-interfaces", "eth0", "--mpi-args=--mca oob_tcp_if_include eth0"],
        }[launcher]
        watched = [] if grace_seconds is None else [HVDTRAIN, "launch", "--grace", str(grace_seconds)]
        hosts = ["-np", "2", *hosts]
        place = [f"--data.dir={self.data}", f"--run.dir={self.runs}", f"--run.name={name}"]
        train = [HVDTRAIN, "train", *SMALL.split(), *place, f"--metrics.baselines_dir={self.runs}", "--data.threads=1"]
        process = subprocess.Popen(
            [str(HOSTS), "on", "h1", *watched, program, *hosts, *how, *train, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **variables},
        )
        self.jobs.append(Job(self.runs / name, process))
        return self.jobs[-1]

    def cut(self, host: str) -> None:
        """Nothing passes to it or from it any more, and nobody is told."""
        subprocess.run(["ip", "-n", "hvsw", "link", "set", host.replace("h", "p"), "down"], check=True)

    def mend(self, host: str) -> None:
        subprocess.run(["ip", "-n", "hvsw", "link", "set", host.replace("h", "p"), "up"], check=True)

    def processes(self, *hosts: str, sshd: bool = False) -> dict[int, str]:
        """Ids and names of what runs on these hosts, or on all.

        Args:
            sshd: also the hosts' doors, and whoever still stands in them.
        """
        found = {}
        for host in hosts or ("h1", "h2"):
            there = subprocess.run(["ip", "netns", "pids", host], capture_output=True, text=True, check=False)
            found |= {int(pid): _name(int(pid)) for pid in there.stdout.split()}
        return {pid: name for pid, name in found.items() if name and (sshd or "sshd" not in name)}

    def end_processes(self, *, sshd: bool = False) -> None:
        for pid in self.processes(sshd=sshd):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def throttle(self, megabits: int | None) -> None:
        """Let each host send so many Mbit/s, or as many as it can."""
        for host in ("h1", "h2"):
            tc = ["ip", "netns", "exec", host, "tc", "qdisc"]
            if megabits:
                bucket = ["tbf", "rate", f"{megabits}mbit", "burst", "16kb", "latency", "400ms"]
                subprocess.run([*tc, "add", "dev", "eth0", "root", *bucket], check=True)
            else:
                subprocess.run([*tc, "del", "dev", "eth0", "root"], check=True)


@pytest.fixture
def network(digits: Path, tmp_path: Path) -> Iterator[Network]:
    network = Network(tmp_path, digits)
    try:
        subprocess.run([HOSTS, "up", tmp_path / "hosts", "2"], check=True)
        _until(lambda: subprocess.run([HOSTS, "on", "h1", "ssh", "h2", "true"], capture_output=True).returncode == 0)
        yield network
    finally:
        for job in network.jobs:
            job.process.kill()
            job.process.wait()
            if job.process.stdout:
                job.process.stdout.close()
        network.end_processes(sshd=True)
        subprocess.run([HOSTS, "down", tmp_path / "hosts"], check=True)


@pytest.fixture(scope="session")
def slurm_of_session(digits: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Slurm]:
    folder = tmp_path_factory.mktemp("slurm")
    try:
        yield private_slurm.up(folder, digits)
    finally:
        Slurm(folder, digits).down()


@pytest.fixture
def slurm(slurm_of_session: Slurm) -> Iterator[Slurm]:
    """A Slurm without jobs."""
    yield slurm_of_session
    slurm_of_session.clear()


def _name(pid: int) -> str:
    """Empty when it has ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text()
    return ""


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "h2 lets nobody in by ssh"
        time.sleep(0.1)
