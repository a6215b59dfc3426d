"""This process's place among the workers, read from what the launcher put into the environment.

The classic silent failure is an mpirun of another MPI than the one that Horovod was built with: N workers start, and
each believes that it is rank 0 of 1. So what the launcher says is compared with what Horovod finds (`Topology.agrees`).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from hvdtrain.config.checks import shown
from hvdtrain.errors import EnvironmentFault

# Local size and node may be unknown: mpirun numbers no nodes. In Slurm the local size is counted from the whole layout.
_NAMES = ("rank", "size", "local_rank", "local_size", "node")
_VARIABLES = {
    "horovodrun": (
        "HOROVOD_RANK",
        "HOROVOD_SIZE",
        "HOROVOD_LOCAL_RANK",
        "HOROVOD_LOCAL_SIZE",
        "HOROVOD_CROSS_RANK",
    ),
    "mpirun": (
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    "srun": ("PMIX_RANK", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", "SLURM_NODEID"),
    "mpiexec": ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    # A batch script has SLURM_PROCID too, but it is no step: it has no SLURM_STEP_NUM_TASKS.
    "srun without MPI": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "", "SLURM_NODEID"),
}
_WORKERS = {launcher: names for launcher, names in _VARIABLES.items() if launcher != "srun without MPI"}
_LAYOUT = "SLURM_STEP_TASKS_PER_NODE"
_NUMBER = re.compile(r"-?[0-9]{1,9}", re.ASCII)
_GROUP = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?", re.ASCII)
MOST_SHOWN = 40  # characters of a value in a message


@dataclass(frozen=True)
class Topology:
    """Which worker this is of how many, as the launcher's variables say."""

    rank: int
    size: int
    local_rank: int
    """0 where the launcher does not say."""
    launcher: str
    """horovodrun, mpirun, srun, mpiexec, or none for a process started by hand; `srun without MPI` for a task of a step
    whose tasks do not know of each other."""
    local_size: int | None = None
    """Workers on this node."""
    node: int | None = None
    """Number of this node, counted from 0."""
    local_rank_known: bool = True

    @property
    def on_one_node(self) -> bool:
        """As far as the launcher says."""
        return self.local_size == self.size

    def agrees(self, *, rank: int, size: int, local_rank: int) -> None:
        """What Horovod found is what the launcher said.

        Raises:
            EnvironmentFault: it is not.
        """
        if size != self.size:
            raise EnvironmentFault(
                f"{self.launcher} started {self.size} workers, but Horovod sees {_worker(size)}: the launcher belongs "
                "to another MPI than the one Horovod was built with",
                remedy="hvdtrain doctor",
                everyones=size == 1,
            )
        wanted = (self.rank, self.local_rank if self.local_rank_known else local_rank)
        if wanted != (rank, local_rank):
            raise EnvironmentFault(
                f"{self.launcher} made this worker rank {self.rank} and local rank {wanted[1]}, but to Horovod it is "
                f"rank {rank} and local rank {local_rank}: variables of two launchers are in its environment",
                remedy="env | grep -E '_(RANK|SIZE|LOCALID|PROCID)='",
            )

    def has_mpi(self) -> None:
        """
        Raises:
            EnvironmentFault: this is one of several tasks that no MPI connects, and that would each train alone.
        """
        if self.launcher == "srun without MPI" and self.size > 1:
            raise EnvironmentFault(
                f"srun started {self.size} tasks, but gave them neither PMIx nor PMI: each would be rank 0 of 1",
                remedy="srun --mpi=pmix …; srun --mpi=list names what this Slurm has",
                everyones=True,
            )


def from_environment(environment: Mapping[str, str]) -> Topology:
    """The place that the launcher gave to this process; rank 0 of 1 without a launcher.

    The first launcher whose rank and size are both there is believed.

    Raises:
        EnvironmentFault: a launcher's variables are not whole numbers, contradict each other, or give a rank beyond 0
            and no size.
    """
    for launcher, names in _VARIABLES.items():
        if names[0] in environment and names[1] in environment:
            found = _place(launcher, names, environment)
            if launcher in _WORKERS or found.size > 1:
                return found
    _no_rank_without_size(environment)
    return Topology(rank=0, size=1, local_rank=0, launcher="none")


def _place(launcher: str, names: tuple[str, ...], environment: Mapping[str, str]) -> Topology:
    given = {name: environment[name] for name in names if name in environment}
    texts = {what: given[name] for what, name in zip(_NAMES, names, strict=False) if name in given}
    if not all(_NUMBER.fullmatch(text) for text in texts.values()):
        raise EnvironmentFault(f"{launcher} gave {_told(given)}: expected whole numbers")
    numbers = {what: int(text) for what, text in texts.items()}
    rank, size, local_rank, node = numbers["rank"], numbers["size"], numbers.get("local_rank", 0), numbers.get("node")
    if not 0 <= rank < size:
        raise EnvironmentFault(f"{launcher} gave {_told(given)}: expected a rank from 0 to {size - 1}")
    local_size = numbers.get("local_size")
    if local_size is not None and not 1 <= local_size <= size:
        raise EnvironmentFault(f"{launcher} gave {_told(given)}: expected a local size from 1 to {size}")
    if not 0 <= local_rank < (local_size or size):
        raise EnvironmentFault(
            f"{launcher} gave {_told(given)}: expected a local rank from 0 to {(local_size or size) - 1}"
        )
    if node is not None and node < 0:
        raise EnvironmentFault(f"{launcher} gave {_told(given)}: expected a node from 0 on")
    if node is not None and launcher.startswith("srun"):
        counted = tasks_on(environment.get(_LAYOUT, ""), node)
        local_size = counted if local_rank < (counted or 0) <= size else None
    return Topology(rank, size, local_rank, launcher, local_size, node, local_rank_known="local_rank" in numbers)


def tasks_on(layout: str, node: int) -> int | None:
    """The tasks on the node of that number in Slurm's notation; None where it does not say.

    >>> tasks_on("2(x3),1", 2), tasks_on("2(x3),1", 3), tasks_on("4", 0), tasks_on("2", 1), tasks_on("2(x", 0)
    (2, 1, 4, None, None)
    """
    for group in layout[:10_000].split(","):
        match = _GROUP.fullmatch(group)
        if match is None:
            return None
        nodes = int(match[2] or 1)
        if 0 <= node < nodes:
            return int(match[1])
        node -= nodes
    return None


def has_rank(environment: Mapping[str, str], *, outside: Mapping[str, str]) -> bool:
    """Whether a launcher that was started in the environment `outside` gave a rank to a process.

    A variable that was there before the launcher, as PMIX_RANK in a batch script, tells nothing.
    """
    return any(rank in environment and rank not in outside for rank, *_ in _WORKERS.values())


def _no_rank_without_size(environment: Mapping[str, str]) -> None:
    """A batch script may have a PMIX_RANK of 0; a rank beyond that is one of several, of a launcher not known here."""
    for rank, size, *_ in _WORKERS.values():
        text = environment.get(rank, "")
        if size not in environment and _NUMBER.fullmatch(text) and int(text) > 0:
            raise EnvironmentFault(
                f"{rank} = {text} and no {size}: expected both; a launcher that is not known here started this worker",
                remedy="use mpirun, horovodrun or srun --mpi=pmix of the MPI that hvdtrain doctor names",
            )


def _told(given: Mapping[str, str]) -> str:
    return ", ".join(f"{name} = {shown(value, MOST_SHOWN) or repr(value)}" for name, value in given.items())


def _worker(size: int) -> str:
    return "1 worker" if size == 1 else f"{size} workers"
