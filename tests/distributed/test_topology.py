"""Who am I: every launcher's variables, and what is not believed."""

import pytest

from hvdtrain.distributed.topology import Topology, from_environment, has_rank
from hvdtrain.errors import EnvironmentFault

MPIRUN = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, Topology(0, 1, 0, "none")),
        (MPIRUN, Topology(3, 8, 1, "mpirun")),
        ({"HOROVOD_RANK": "3", "HOROVOD_SIZE": "8", "HOROVOD_LOCAL_RANK": "1"}, Topology(3, 8, 1, "horovodrun")),
        ({"PMIX_RANK": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, Topology(3, 8, 1, "srun")),
        ({"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"}, Topology(3, 8, 1, "mpiexec")),
        ({"PMI_RANK": "3", "PMI_SIZE": "8"}, Topology(3, 8, 0, "mpiexec")),
        ({"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"}, Topology(0, 1, 0, "mpirun")),
    ],
)
def test_each_launchers_variables(environment: dict[str, str], found: Topology) -> None:
    assert from_environment(environment) == found


def test_horovodrun_is_believed_before_mpirun_which_it_may_call() -> None:
    horovodrun = {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2", "HOROVOD_LOCAL_RANK": "1"}
    assert from_environment({**MPIRUN, **horovodrun}) == Topology(1, 2, 1, "horovodrun")


def test_mpirun_within_a_slurm_job_is_mpirun() -> None:
    slurm = {"PMIX_RANK": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_LOCALID": "0", "SLURM_PROCID": "0"}
    assert from_environment({**slurm, **MPIRUN}).launcher == "mpirun"


def test_a_batch_script_is_no_worker() -> None:
    script = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_JOB_ID": "1", "PMIX_RANK": "0"}
    assert from_environment(script) == Topology(0, 1, 0, "none")


@pytest.mark.parametrize("change", [{"OMPI_COMM_WORLD_RANK": "a"}, {"OMPI_COMM_WORLD_LOCAL_RANK": ""}])
def test_what_is_no_number_is_refused_and_shown(change: dict[str, str]) -> None:
    with pytest.raises(EnvironmentFault, match=r"mpirun gave .*OMPI_COMM_WORLD_RANK.*: expected whole numbers"):
        from_environment({**MPIRUN, **change})


@pytest.mark.parametrize("rank", ["8", "9", "-1"])
def test_a_rank_outside_the_world_is_refused(rank: str) -> None:
    with pytest.raises(EnvironmentFault, match="expected a rank from 0 to 7"):
        from_environment({**MPIRUN, "OMPI_COMM_WORLD_RANK": rank})


@pytest.mark.parametrize("name", ["HOROVOD_RANK", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK"])
def test_a_worker_is_told_by_a_rank_that_is_not_everybodys(name: str) -> None:
    assert has_rank({name: "0"}, outside={})
    assert not has_rank({name: "1"}, outside={name: "0"})
    assert not has_rank({"SLURM_PROCID": "0", "PATH": "/bin"}, outside={})
