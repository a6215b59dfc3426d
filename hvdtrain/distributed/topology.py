"""This process's place among the workers, read from what the launcher put into the environment."""

from collections.abc import Mapping
from dataclasses import dataclass

from hvdtrain.errors import EnvironmentFault

# launcher: rank, size, local rank. The first row whose rank and size are both set wins. Slurm's own SLURM_PROCID is not
# asked: a batch script has it too, and would pass for rank 0 of many.
_VARIABLES = {
    "horovodrun": ("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK"),
    "mpirun": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"),
    "srun": ("PMIX_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID"),
    "mpiexec": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID"),
}


@dataclass(frozen=True)
class Topology:
    rank: int
    size: int
    local_rank: int
    launcher: str
    """horovodrun, mpirun, srun, mpiexec, or none for a process started by hand."""


def from_environment(environment: Mapping[str, str]) -> Topology:
    """The place that the launcher gave to this process; rank 0 of 1 without a launcher.

    Raises:
        EnvironmentFault: a launcher's variables are not whole numbers, or the rank is not below the size.
    """
    for launcher, names in _VARIABLES.items():
        if all(name in environment for name in names[:2]):
            given = {name: environment.get(name, "0") for name in names}
            try:
                rank, size, local_rank = (int(value) for value in given.values())
            except ValueError:
                raise EnvironmentFault(f"{launcher} gave {given}: expected whole numbers") from None
            if not 0 <= rank < size:
                raise EnvironmentFault(f"{launcher} gave {given}: expected a rank from 0 to {size - 1}")
            return Topology(rank, size, local_rank, launcher)
    return Topology(rank=0, size=1, local_rank=0, launcher="none")


def has_rank(environment: Mapping[str, str], *, outside: Mapping[str, str]) -> bool:
    """Whether a launcher that was started in the environment `outside` gave a rank to a process.

    A variable that was there before the launcher, as PMIX_RANK in a batch script, tells nothing.
    """
    return any(rank in environment and rank not in outside for rank, *_ in _VARIABLES.values())
