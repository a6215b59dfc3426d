"""What launchers and users put into the environment, at random: a place among the workers or a tuning, or an error."""

import random

import pytest

from hvdtrain.config.machines import DistributedConfig
from hvdtrain.distributed.fabric import FABRICS
from hvdtrain.distributed.topology import Topology, from_environment
from hvdtrain.distributed.tuning import tune
from hvdtrain.errors import ConfigError, EnvironmentFault

from .tally import Times, Trials

PLACES = [
    *("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    *("OMPI_COMM_WORLD_LOCAL_RANK", "PMIX_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "PMI_RANK", "PMI_SIZE"),
    *("MPI_LOCALRANKID", "SLURM_PROCID", "SLURM_NTASKS", "SLURM_NODEID", "SLURM_STEP_TASKS_PER_NODE"),
    *("HOROVOD_LOCAL_SIZE", "HOROVOD_CROSS_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"),
]
TUNING = [
    *("HOROVOD_FUSION_THRESHOLD", "OMPI_MCA_coll_tuned_use_dynamic_rules", "OMPI_MCA_coll_tuned_allreduce_algorithm"),
    *("NCCL_ALGO", "OMPI_MCA_mpi_yield_when_idle", "HOROVOD_CYCLE_TIME", "OMPI_MCA_btl_tcp_if_exclude"),
    *("NCCL_SOCKET_IFNAME", "OMPI_MCA_btl_tcp_if_include", "OMP_NUM_THREADS"),
]
VALUES = [
    *("", " ", "0", "1", "2", "3", "8", "-1", "+1", " 2 ", "1.0", "1e3", "0x1", "1_0", "ring", "nan", "\udcff", "\n"),
    *("9" * 30, "9" * 5000, "00", "-0", "٣", "None", "1,2", "1(x2)", "4\0"),
]


def drawn(names: list[str], draw: random.Random) -> dict[str, str]:
    chosen = draw.sample(names, draw.randrange(len(names) + 1))
    return {name: draw.choice(VALUES) if draw.random() < 0.8 else str(draw.randrange(300)) for name in chosen}


def test_places_at_random(trials: Trials, times: Times) -> None:
    launchers = set()
    with trials("launchers' variables at random") as tally:
        for seed in range(times(20_000, 200_000)):
            environment = drawn(PLACES, random.Random(seed))
            with tally.one(f"seed {seed}: {environment}"):
                try:
                    place = from_environment(environment)
                except EnvironmentFault as error:
                    assert "expected" in str(error)
                    launchers.add("refused")
                else:
                    assert isinstance(place, Topology)
                    assert 0 <= place.rank < place.size
                    launchers.add(place.launcher)
    assert launchers == {"refused", "none", "horovodrun", "mpirun", "srun", "mpiexec", "srun without MPI"}


def tune_or_refuse(environment: dict[str, str], draw: random.Random) -> bool:
    config = DistributedConfig(
        reducer=draw.choice(["buckets", "horovod"]),
        ring=draw.random() < 0.5,
        yield_when_idle=draw.random() < 0.5,
        fabric=draw.choice(list(FABRICS)),
        interfaces=draw.choice([(), ("eth0",)]),
    )
    try:
        tuning = tune(environment, config, on_cpus_of_one_node=draw.random() < 0.5)
    except ConfigError as error:
        assert "expected a number of bytes" in str(error)
        return False
    assert tuning.bucket_bytes >= 0
    assert all(environment[name] == value for name, value in tuning.kept.items())
    assert not set(tuning.environment) & set(environment) - {"HOROVOD_FUSION_THRESHOLD"}
    return True


def test_tunings_at_random(trials: Trials, times: Times) -> None:
    outcomes = set()
    with trials("tuning variables at random") as tally:
        for seed in range(times(20_000, 200_000)):
            draw = random.Random(seed)
            environment = drawn(TUNING, draw)
            with tally.one(f"seed {seed}: {environment}"):
                outcomes.add(tune_or_refuse(environment, draw))
    assert outcomes == {True, False}


@pytest.mark.parametrize("threshold", ["9" * 5000, "²"])
def test_digits_that_are_no_number(threshold: str) -> None:
    with pytest.raises(ConfigError):
        tune({"HOROVOD_FUSION_THRESHOLD": threshold}, DistributedConfig(), on_cpus_of_one_node=False)
