"""hvdtrain-discover asks a real Slurm."""

import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hvdtrain.discover import expand

from .private_slurm import Slurm

pytestmark = pytest.mark.multiproc

SLEEP = "--wrap=sleep 600"
Discover = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """hvdtrain-discover where n1 to n4 have addresses: in a mount namespace with an /etc/hosts of its own."""
    (tmp_path / "hosts").write_text("".join(f"127.0.1.{node} n{node}\n" for node in range(1, 5)))
    inside = f'mount --bind {tmp_path}/hosts /etc/hosts && exec {sys.executable} -m hvdtrain.discover "$@"'
    file = tmp_path / "discover"
    file.write_text(f'#!/bin/bash\nexec unshare --mount bash -c {shlex.quote(inside)} discover "$@"\n')
    file.chmod(0o755)
    return file


@pytest.fixture
def discover(slurm: Slurm, program: Path) -> Discover:
    def ask(*arguments: str) -> tuple[int, str, str]:
        ran = slurm.run(program, *arguments)
        return ran.returncode, ran.stdout, ran.stderr

    return ask


@pytest.fixture
def n2(slurm: Slurm) -> Iterator[Callable[[str], None]]:
    """n2(state) sets it."""

    def becomes(state: str) -> None:
        reason = [] if state == "RESUME" else ["Reason=test"]
        slurm.ask("scontrol", "update", "NodeName=n2", f"State={state}", *reason)

    yield becomes
    slurm.clear()
    slurm.run("scontrol", "update", "NodeName=n2", "State=RESUME")
    states = ("sinfo", "-h", "-N", "-n", "n2", "-o", "%T")
    # mixed: Slurm 22.05 counts its cores again when the next job comes
    slurm.until("n2 to be there", lambda: set(slurm.ask(*states).split()) <= {"idle", "mixed"})


def submit(slurm: Slurm, *options: str) -> str:
    return slurm.ask("sbatch", "--parsable", "--output=/dev/null", *options, SLEEP).strip()


def test_a_second_job_of_the_name_brings_its_node_and_takes_it_along(slurm: Slurm, discover: Discover) -> None:
    code, out, err = discover("--slurm", "grows")
    assert (code, out) == (3, "")
    assert err == "hvdtrain-discover: squeue: got no node, wanted running jobs of the name 'grows' → squeue --me\n"

    submit(slurm, "--job-name=grows", "--exclusive", "--nodelist=n3")
    submit(slurm, "--job-name=other", "--exclusive", "--nodelist=n1")
    slurm.until("the first node", lambda: discover("--slurm", "grows") == (0, "n3:1\n", ""))
    second = submit(slurm, "--job-name=grows", "--nodelist=n2")
    slurm.until("the second node", lambda: discover("--slurm", "grows", "--slots=4") == (0, "n2:4\nn3:4\n", ""))
    third = submit(slurm, "--job-name=grows", "--nodelist=n2")
    slurm.until("more slots there", lambda: discover("--slurm", "grows") == (0, "n2:2\nn3:1\n", ""))
    slurm.ask("scancel", second, third)
    slurm.until("the second node's end", lambda: discover("--slurm", "grows") == (0, "n3:1\n", ""))


@pytest.mark.parametrize("state", ["DRAIN", "FAIL", "DOWN"])
def test_a_node_that_is_taken_out_of_service_is_left_out(
    slurm: Slurm, discover: Discover, n2: Callable[[str], None], state: str
) -> None:
    submit(slurm, "--job-name=bears", "--nodes=2", "--no-kill", "--nodelist=n[1-2]", "--ntasks-per-node=2")
    slurm.until("both nodes", lambda: discover("--slurm", "bears") == (0, "n1:1\nn2:1\n", ""))
    n2(state)
    slurm.until("one to go", lambda: discover("--slurm", "bears") == (0, "n1:1\n", ""))
    if state == "DRAIN":
        n2("RESUME")
        slurm.until("it to come back", lambda: discover("--slurm", "bears") == (0, "n1:1\nn2:1\n", ""))


def test_inside_a_job_it_tells_of_that_job(slurm: Slurm, program: Path, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    slurm.ask("sbatch", "--parsable", "--output=/dev/null", "--job-name=same", "--nodelist=n4", SLEEP)
    options = ["--job-name=same", "--nodelist=n[1-2]", "--ntasks-per-node=2", f"--output={inside}"]
    slurm.ask("sbatch", *options, f"--wrap={program} --slurm; {program} --slurm same; echo over")
    slurm.until("an answer", lambda: inside.exists() and inside.read_text().endswith("over\n"))
    assert inside.read_text() == "n1:2\nn2:2\n" + "n1:2\nn2:2\nn4:2\n" + "over\n"


def test_a_node_without_an_address_is_named(slurm: Slurm) -> None:
    job = submit(slurm, "--job-name=nowhere", "--nodelist=n4")
    slurm.until("the job", lambda: "RUNNING" in slurm.ask("squeue", "-h", "-j", job, "-o", "%T"))
    ran = slurm.run(sys.executable, "-m", "hvdtrain.discover", "--slurm", "nowhere")
    assert (ran.returncode, ran.stdout) == (3, "")
    assert "squeue: got n4 (" in ran.stderr


@pytest.mark.parametrize(
    "nodes", ["n1", "n[1-4]", "n[08-11,3]", "a,b1,c[2,4-5]", "r[1-2]c[03-04]", "gpu-[098-101]", "r9-x,r[10-11]"]
)
def test_slurm_expands_names_alike(slurm: Slurm, nodes: str) -> None:
    assert expand(nodes) == slurm.ask("scontrol", "show", "hostnames", nodes).split()
