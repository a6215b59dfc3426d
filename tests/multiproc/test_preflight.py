"""Workers that a foreign launcher started, or that are not alike, end before the first step, with one message."""

import os
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from hvdtrain.distributed.cores import numbers
from hvdtrain.distributed.preflight import ELEMENTS
from hvdtrain.report.units import bandwidth

from .conftest import HVDTRAIN, MEASURED, SMALL, Job, Launch, root_variables
from .test_failures import LAUNCHERS, messages

pytestmark = pytest.mark.multiproc

FEW = "--max_steps=2"


def by_hand(folder: Path, data: Path, variables: list[dict[str, str]]) -> list[tuple[int, str]]:
    """Exit code and output of a worker for each of `variables`, started all at once."""
    place = [f"--data.dir={data}", f"--run.dir={folder}", "--run.name=alone", FEW]
    workers = [
        subprocess.Popen(
            [HVDTRAIN, "train", *SMALL.split(), *place],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, **root_variables(), **own},
        )
        for own in variables
    ]
    return [(worker.wait(timeout=120), worker.communicate()[0]) for worker in workers]


def test_another_mpis_mpirun_is_told_at_once_and_no_run_begins(tmp_path: Path, digits: Path) -> None:
    """MPICH's mpiexec sets these, and Horovod's Open MPI does not know them: three times rank 0 of 1."""
    ended = by_hand(
        tmp_path, digits, [{"PMI_RANK": str(r), "PMI_SIZE": "3", "MPI_LOCALRANKID": str(r)} for r in range(3)]
    )
    assert [code for code, _ in ended] == [3, 3, 3]
    told = [messages(output) for _, output in ended]
    (message,) = told[0]
    assert told[1:] == [[f"rank {r}: {message}"] for r in (1, 2)], "later, for no launcher has ended them"
    assert message.startswith(
        "mpiexec started 3 workers, but Horovod sees 1 worker: the launcher belongs to another MPI"
    )
    assert message.endswith("→ hvdtrain doctor")
    assert not any(tmp_path.iterdir())


def test_variables_of_an_mpirun_that_is_not_there(tmp_path: Path, digits: Path) -> None:
    """As with an mpirun of an Open MPI that Horovod's cannot talk to: it sees itself alone, or cannot start."""
    names = ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK")
    ended = by_hand(tmp_path, digits, [dict(zip(names, (str(r), "2", str(r)), strict=True)) for r in range(2)])
    assert all(code != 0 for code, _ in ended)
    assert "mpirun started 2 workers, but Horovod sees 1 worker" in ended[0][1]
    assert not any(tmp_path.iterdir())


def test_tasks_of_srun_without_pmix_name_the_option(tmp_path: Path, digits: Path) -> None:
    tasks = [{"SLURM_PROCID": str(r), "SLURM_STEP_NUM_TASKS": "2", "SLURM_LOCALID": str(r)} for r in range(2)]
    ended = by_hand(tmp_path, digits, tasks)
    assert [code for code, _ in ended] == [3, 3]
    (message,) = messages(ended[0][1])
    assert "neither PMIx nor PMI" in message
    assert "srun --mpi=pmix" in message
    assert not any(tmp_path.iterdir())


OF_ITS_OWN = """
import os, sys
from hvdtrain import cli
if os.environ.get("OMPI_COMM_WORLD_RANK", os.environ.get("HOROVOD_RANK")) == "2":
    {change}
sys.exit(cli.main())
"""


def started(launch: Launch, launcher: str, change: str, name: str, *options: str) -> tuple[int, str, Job]:
    """Three workers, on the last of which `change` comes first."""
    program = (sys.executable, "-c", OF_ITS_OWN.format(change=change))
    job = launch(launcher, 3, FEW, *options, name=f"{name}-{launcher.split()[0]}", program=program)
    code, output = job.wait()
    return code, output, job


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_another_configuration_on_one_worker_is_named(launch: Launch, launcher: str) -> None:
    change = 'sys.argv += ["--seed=7", "--data.prefetch=5", "--data.threads=1"]'
    code, output, job = started(launch, launcher, change, "other-seed")
    assert code != 0
    (message,) = messages(output)
    assert "the workers have different configurations: " in message
    assert "seed is 7 on rank 2 (" in message
    assert ", 0 on the others" in message
    assert "data.prefetch is 5 on rank 2" in message
    assert "data.threads" not in message, "how many decode is each worker's own affair"
    assert not job.folder.exists()


def test_another_torch_on_one_worker_is_named(launch: Launch) -> None:
    code, output, job = started(launch, "mpirun", 'import torch; torch.__version__ = "2.0.1"', "other-torch")
    assert code == 3
    (message,) = messages(output)
    assert re.search(r"different software: torch is 2\.0\.1 on rank 2 \(.+\), \S+ on the others", message)
    assert not job.folder.exists()


def test_another_clock_and_device_are_warnings(launch: Launch) -> None:
    change = (
        "import time; from hvdtrain.train import alike; now = time.time; time.time = lambda: now() - 60;"
        ' alike.device_name = lambda _: "a slow one"'
    )
    code, output, _ = started(launch, "mpirun", change, "other-clock")
    assert code == 0, output
    assert re.search(r"device is a slow one on rank 2 \(.+\), .+ on the others", output)
    assert re.search(r"the clock of rank 2 \(.+\) is (59\.\d|60\.\d) s behind the others", output)


def test_a_wrong_sum_ends_the_run_before_its_first_step(launch: Launch) -> None:
    change = (
        "from hvdtrain.distributed.comm import HorovodComm; right = HorovodComm.wait;"
        " HorovodComm.wait = lambda self, handle: (right(self, handle), 'preflight: sum' == handle[1] and"
        " self.spoil())[0]; first = HorovodComm.start_sum;"
        " HorovodComm.start_sum = lambda self, t, n: (setattr(self, 'spoil', lambda: t.view(-1)[:3].add_(1)), "
        "first(self, t, n))[1]"
    )
    code, output, job = started(launch, "mpirun", change, "wrong-sum", "--distributed.preflight=true")
    assert code == 3, output
    (message,) = messages(output)
    assert f"the sum of {ELEMENTS:,} known numbers over 3 workers is wrong on rank 2: up to 3 of them" in message
    assert job.events("start") == []


def tuning(job: Job) -> dict[str, dict[str, Any]]:
    return {each["name"]: each for each in job.environment()["tuning"]}


def test_what_is_chosen_reaches_horovod_and_open_mpi(launch: Launch, tmp_path: Path) -> None:
    """Horovod's timeline marks each cycle; Open MPI shows the parameters that it took from the environment."""
    timeline = tmp_path / "timeline.json"
    job = launch(
        "mpirun",
        2,
        "--max_steps=20",
        *("--distributed.cycle_milliseconds=40", "--distributed.interfaces=[lo]", "--distributed.fabric=cpu"),
        name="tuned",
        HOROVOD_TIMELINE=str(timeline),
        HOROVOD_TIMELINE_MARK_CYCLES="1",
        OMPI_MCA_mpi_show_mca_params="environment",
        OMPI_MCA_coll_adapt_priority="1",
    )
    code, output = job.wait()
    assert code == 0, output
    marks = re.findall(r'"CYCLE_START".*?"ts":\s*(\d+)', timeline.read_text()) or re.findall(
        r'"ts":\s*(\d+)[^}]*"CYCLE_START"', timeline.read_text()
    )
    between = sorted(int(b) - int(a) for a, b in pairwise(marks))  # microseconds
    assert len(between) > 20
    assert between[len(between) // 2] > 35_000, "Horovod looks every millisecond by itself"
    for shown in (
        *("coll_tuned_allreduce_algorithm=ring", "coll_han_priority=0", "mpi_yield_when_idle=true"),
        *("btl_tcp_if_include=lo", "pml=ob1", "coll_adapt_priority=1"),
    ):
        assert re.search(rf"\b{shown} \(environment\)", output), shown
    found = tuning(job)
    assert (found["HOROVOD_CYCLE_TIME"]["value"], found["HOROVOD_CYCLE_TIME"]["by"]) == (
        "40",
        "distributed.cycle_milliseconds",
    )
    assert found["OMPI_MCA_pml"] | {"why": ""} == {
        "name": "OMPI_MCA_pml",
        "value": "ob1",
        "by": "fabric cpu",
        "why": "",
    }
    assert found["OMPI_MCA_coll_adapt_priority"]["by"] == "environment"
    assert job.environment()["set_by_user"] == {"OMPI_MCA_coll_adapt_priority": "1"}
    assert "OMPI_MCA_coll_adapt_priority = 1 comes from the environment and stays" in output


def test_a_sum_is_timed_before_the_run_and_shown_by_the_report(launch: Launch) -> None:
    job = launch("mpirun", 2, "--max_steps=8", MEASURED, "--distributed.preflight=true", name="timed")
    code, output = job.wait()
    assert code == 0, output
    found = job.environment()["preflight"]
    assert found["bytes"] == 4 * ELEMENTS
    assert found["bus_gigabytes_per_second"] == pytest.approx(found["bytes"] / found["seconds"] / 1e9)  # 2(k-1)/k is 1
    speed = bandwidth(1e9 * found["bus_gigabytes_per_second"])
    assert re.search(r"51\.2 MB summed in \d+ ms, \d+\.\d\d GB/s on the bus", output)
    told = subprocess.run([HVDTRAIN, "report", str(job.folder)], capture_output=True, text=True, check=True).stdout
    assert "communication" not in told or f"came to {speed} on the bus" in " ".join(told.split())


def test_each_worker_of_a_node_has_cores_of_its_own(launch: Launch) -> None:
    job = launch("mpirun", 2, FEW, "--distributed.bind=auto", name="bound").finish()
    first, second = (set(numbers(worker["cores"])) for worker in job.environment()["workers"])
    assert first | second == os.sched_getaffinity(0)
    assert not first & second


def test_it_can_be_switched_off_and_one_worker_has_none(launch: Launch) -> None:
    off = launch("mpirun", 2, FEW, "--distributed.bind=none", name="untimed").finish()
    assert off.environment()["preflight"] is None
    assert {len(numbers(worker["cores"])) for worker in off.environment()["workers"]} == {len(os.sched_getaffinity(0))}
    alone = launch("none", 1, FEW, "--distributed.preflight=true", name="untimed-alone").finish()
    assert alone.environment()["preflight"] is None
