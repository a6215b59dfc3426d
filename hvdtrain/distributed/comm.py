"""How workers talk: Horovod's collectives, or none at all for a worker that is alone.

Both classes have one face, so that the loop does not ask which it has. Every collective has a name of its own: Horovod
matches calls by name, and its default names come from a counter that drifts apart after any uneven work.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from hvdtrain.distributed import connections, limits, threads
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.topology import Topology
from hvdtrain.errors import EnvironmentFault, HvdtrainError, PeerLost

T = TypeVar("T")

LOOK_SECONDS = 0.001  # between two looks of a worker that sleeps until the others have come


class Comm(Protocol):
    rank: int
    size: int
    local_rank: int
    threads: frozenset[int]
    """Ids of the threads that do the talking, now and then, even when there is nothing to say."""

    def start_sum(self, tensor: torch.Tensor, name: str) -> Any:
        """Begin to sum `tensor` over the workers in place; returns what `wait` takes. The tensor must be contiguous.

        Raises:
            PeerLost: another worker has gone.
        """

    def wait(self, handle: Any) -> None:
        """Return when the sum is in its tensor.

        Raises:
            PeerLost: another worker has gone.
        """

    def sum(self, values: list[float], name: str) -> list[float]:
        """The sums of `values` over the workers, in float64."""

    def broadcast_(self, tensor: torch.Tensor, name: str) -> None:
        """Overwrite `tensor` with rank 0's, whatever its memory format."""

    def broadcast_object(self, value: T, name: str) -> T:
        """Rank 0's value."""

    def gather(self, value: T, name: str) -> list[T]:
        """Everyone's value, by rank."""

    def table(self, row: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        """Everyone's (n,) numbers as (workers, n)."""

    def meet(self, name: str) -> None:
        """Return when all workers have called this. Who waits sleeps, and leaves its cores to the others."""

    def waiting_in(self, name: str) -> AbstractContextManager[None]:
        """Within, this worker waits for the others in a collective that is not one of the above.

        Raises:
            PeerLost: another worker has gone.
        """

    def close(self) -> None: ...


class SoloComm:
    """One worker: every sum is its own, every broadcast a no-op."""

    rank = 0
    size = 1
    local_rank = 0
    threads: frozenset[int] = frozenset()

    def start_sum(self, tensor: torch.Tensor, name: str) -> None: ...

    def wait(self, handle: None) -> None: ...

    def sum(self, values: list[float], name: str) -> list[float]:
        return values

    def broadcast_(self, tensor: torch.Tensor, name: str) -> None: ...

    def broadcast_object(self, value: T, name: str) -> T:
        return value

    def gather(self, value: T, name: str) -> list[T]:
        return [value]

    def table(self, row: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return row[None]

    def meet(self, name: str) -> None: ...

    def waiting_in(self, name: str) -> AbstractContextManager[None]:
        return nullcontext()

    def close(self) -> None: ...


class HorovodComm:
    def __init__(self, topology: Topology, *, activity: Activity) -> None:
        """Start Horovod.

        Args:
            topology: what the launcher says of this worker.
            activity: is told what this worker waits in.

        Raises:
            EnvironmentFault: Horovod cannot start, or finds another place among the workers than the launcher gave:
                the sign of an mpirun that belongs to another MPI than the one Horovod was built with.
        """
        topology.has_mpi()
        limits.allow_open_files(limits.needed(topology.size))  # Gloo connects each worker to each
        before, open_before = threads.mine(), connections.mine()
        try:
            import horovod.torch as hvd

            hvd.init()
        except (ImportError, ValueError, RuntimeError) as error:
            raise EnvironmentFault(f"Horovod does not start: {error}", remedy="hvdtrain doctor") from error
        self._hvd, self._activity = hvd, activity
        self.threads = frozenset(threads.mine() - before)
        self.connections = connections.mine() - open_before
        """To the other workers, by the kernel's names for them; Gloo's, or MPI's over TCP."""
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()
        topology.agrees(rank=self.rank, size=self.size, local_rank=self.local_rank)

    def start_sum(self, tensor: torch.Tensor, name: str) -> Any:
        with _peers():
            return self._hvd.allreduce_async_(tensor, name=name, op=self._hvd.Sum), name

    def done(self, handle: Any) -> bool:
        """Whether `wait` would return at once."""
        return bool(self._hvd.poll(handle[0]))

    def wait(self, handle: Any) -> None:
        started, name = handle
        with self.waiting_in(name):
            self._hvd.synchronize(started)

    def sum(self, values: list[float], name: str) -> list[float]:
        total = torch.tensor(values, dtype=torch.float64)
        self.wait(self.start_sum(total, name))
        return [float(value) for value in total]

    def broadcast_(self, tensor: torch.Tensor, name: str) -> None:
        with self.waiting_in(name), torch.no_grad():
            dense = tensor.detach().contiguous()
            self._hvd.broadcast_(dense, root_rank=0, name=name)
            tensor.copy_(dense)

    def broadcast_object(self, value: T, name: str) -> T:
        with self.waiting_in(name):
            received: T = self._hvd.broadcast_object(value, root_rank=0, name=name)
            return received

    def gather(self, value: T, name: str) -> list[T]:
        with self.waiting_in(name):
            values: list[T] = self._hvd.allgather_object(value, name=name)
            return values

    def table(self, row: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        with self.waiting_in(name):
            rows: NDArray[np.float64] = self._hvd.allgather(torch.from_numpy(row)[None], name=name).numpy()
            return rows

    def meet(self, name: str) -> None:
        handle = self.start_sum(torch.zeros(1), name)
        with self._activity.waiting_in(name):
            while not self.done(handle):
                time.sleep(LOOK_SECONDS)
        self.wait(handle)

    @contextmanager
    def waiting_in(self, name: str) -> Iterator[None]:
        with _peers(), self._activity.waiting_in(name):
            yield

    def close(self) -> None:
        self._hvd.shutdown()


def on_rank_0(comm: Comm, action: Callable[[], T], name: str) -> T | None:
    """What `action` gives, on rank 0, which alone does it while the others sleep; nothing elsewhere. Collective.

    What fails there is everyone's failure. Else rank 0, which leaves, would be a lost worker to the others, and where
    workers come and go they would meet without it, and the next rank 0 fail of the same.

    Raises:
        HvdtrainError: rank 0's, on all ranks; rank 0 tells of it.
    """
    found: T | None = None
    mine: HvdtrainError | None = None
    if comm.rank == 0:
        try:
            found = action()
        except HvdtrainError as error:
            mine = error
    comm.meet(name)
    if failure := comm.broadcast_object(mine, name):
        failure.everyones |= comm.rank != 0
        raise failure
    return found


def of_rank_0(comm: Comm, action: Callable[[], T], name: str) -> T:
    """Likewise, but what `action` gives is handed to all. Collective.

    Raises:
        HvdtrainError: rank 0's, on all ranks; rank 0 tells of it.
    """
    found: Any = on_rank_0(comm, action, name)
    received: T = comm.broadcast_object(found, name)
    return received


@contextmanager
def _peers() -> Iterator[None]:
    """Within, a collective of Horovod's that fails raises PeerLost."""
    from horovod.common.exceptions import HorovodInternalError

    try:
        yield
    except HorovodInternalError as error:
        cause = " ".join(str(error).split()).partition(". ")[0]  # more than that is advice
        raise PeerLost(f"a collective failed, another worker has gone: {cause}") from error
