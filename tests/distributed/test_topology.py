"""Who am I: every launcher's variables, and what is not believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.distributed.topology import _VARIABLES, Topology, from_environment, has_rank
from hvdtrain.errors import EnvironmentFault

MPIRUN = {"OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}


HOROVODRUN = {"HOROVOD_RANK": "3", "HOROVOD_SIZE": "8", "HOROVOD_LOCAL_RANK": "1"}
STEP = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_TASKS_PER_NODE": "2(x4)"}
TASK = {**STEP, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}
SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_ID": "7"}


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, Topology(0, 1, 0, "none")),
        (MPIRUN, Topology(3, 8, 1, "mpirun")),
        ({**MPIRUN, "OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, Topology(3, 8, 1, "mpirun", 2)),
        ({**MPIRUN, "PMIX_RANK": "3", **SCRIPT}, Topology(3, 8, 1, "mpirun")),
        (HOROVODRUN, Topology(3, 8, 1, "horovodrun")),
        ({**HOROVODRUN, "HOROVOD_LOCAL_SIZE": "4", "HOROVOD_CROSS_RANK": "0"}, Topology(3, 8, 1, "horovodrun", 4, 0)),
        ({"PMIX_RANK": "3", "SLURM_STEP_NUM_TASKS": "8", "SLURM_LOCALID": "1"}, Topology(3, 8, 1, "srun")),
        ({**TASK, "PMIX_RANK": "3"}, Topology(3, 8, 1, "srun", 2, 1)),
        ({**TASK, "PMIX_RANK": "3", "SLURM_STEP_TASKS_PER_NODE": "5,1,2"}, Topology(3, 8, 1, "srun", None, 1)),
        ({**TASK, "PMIX_RANK": "3", "SLURM_STEP_TASKS_PER_NODE": "odd"}, Topology(3, 8, 1, "srun", None, 1)),
        (TASK, Topology(3, 8, 1, "srun without MPI", 2, 1)),
        ({**TASK, "SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}, Topology(0, 1, 0, "none")),
        ({**TASK, "PMI_RANK": "3", "PMI_SIZE": "8"}, Topology(3, 8, 0, "mpiexec", local_rank_known=False)),
        ({"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1"}, Topology(3, 8, 1, "mpiexec")),
        (
            {"PMI_RANK": "3", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"},
            Topology(3, 8, 1, "mpiexec", 4),
        ),
        (
            {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1"},
            Topology(0, 1, 0, "mpirun", local_rank_known=False),
        ),
        (SCRIPT, Topology(0, 1, 0, "none")),
        ({**SCRIPT, "PMIX_RANK": "0"}, Topology(0, 1, 0, "none")),
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


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "8"}, "expected a local rank from 0 to 7"),
        ({"OMPI_COMM_WORLD_LOCAL_RANK": "-1"}, "expected a local rank from 0 to 7"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1"}, "expected a local rank from 0 to 0"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "9"}, "expected a local size from 1 to 8"),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "0"}, "expected a local size from 1 to 8"),
        ({"OMPI_COMM_WORLD_SIZE": "9" * 5000}, "expected whole numbers"),
        ({"OMPI_COMM_WORLD_SIZE": "٣"}, "expected whole numbers"),
    ],
)
def test_what_contradicts_itself_is_refused_in_one_short_line(change: dict[str, str], message: str) -> None:
    with pytest.raises(EnvironmentFault, match=message) as refused:
        from_environment({**MPIRUN, **change})
    assert len(str(refused.value)) < 300


def test_a_rank_beyond_0_without_a_size_is_no_worker_alone() -> None:
    with pytest.raises(EnvironmentFault, match=r"PMIX_RANK = 2 and no SLURM_STEP_NUM_TASKS: expected both"):
        from_environment({"PMIX_RANK": "2"})
    assert from_environment({"PMIX_RANK": "0"}).size == 1


MINE = Topology(3, 8, 1, "mpirun")


@pytest.mark.parametrize(
    ("found", "message", "everyones"),
    [
        ((0, 1, 0), "mpirun started 8 workers, but Horovod sees 1 worker: the launcher belongs to another MPI", True),
        ((3, 4, 1), "mpirun started 8 workers, but Horovod sees 4 workers", False),
        ((2, 8, 1), "rank 3 and local rank 1, but to Horovod it is rank 2 and local rank 1: variables of two", False),
        ((3, 8, 0), "rank 3 and local rank 1, but to Horovod it is rank 3 and local rank 0", False),
    ],
)
def test_what_horovod_finds_must_be_what_the_launcher_said(
    found: tuple[int, int, int], message: str, everyones: bool
) -> None:
    rank, size, local_rank = found
    with pytest.raises(EnvironmentFault, match=message) as refused:
        MINE.agrees(rank=rank, size=size, local_rank=local_rank)
    assert refused.value.everyones is everyones
    assert refused.value.remedy


def test_what_agrees_passes_and_what_the_launcher_did_not_say_is_not_compared() -> None:
    MINE.agrees(rank=3, size=8, local_rank=1)
    from_environment({"PMI_RANK": "3", "PMI_SIZE": "8"}).agrees(rank=3, size=8, local_rank=3)


def test_a_step_without_pmix_names_the_option() -> None:
    with pytest.raises(EnvironmentFault, match="srun started 8 tasks, but gave them neither PMIx nor PMI") as refused:
        from_environment(TASK).has_mpi()
    assert "srun --mpi=pmix" in refused.value.remedy
    for environment in ({}, MPIRUN, SCRIPT, {**TASK, "PMIX_RANK": "3"}):
        from_environment(environment).has_mpi()


NAMES = sorted({name for names in _VARIABLES.values() for name in names if name} | {"SLURM_STEP_TASKS_PER_NODE"})
TEXTS = st.one_of(st.integers(-2, 9).map(str), st.text(max_size=12), st.just("1" * 6000), st.just("2(x3),1"))


@given(st.dictionaries(st.sampled_from(NAMES), TEXTS))
def test_whatever_is_in_the_environment_gives_a_place_or_one_short_message(environment: dict[str, str]) -> None:
    try:
        place = from_environment(environment)
    except EnvironmentFault as error:
        assert len(str(error)) < 700
        assert "\n" not in str(error)
    else:
        assert 0 <= place.rank < place.size
        assert 0 <= place.local_rank < (place.local_size or place.size) <= place.size
