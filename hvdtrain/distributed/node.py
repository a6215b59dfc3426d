"""Which workers share a machine."""

import platform

from hvdtrain.distributed.comm import Comm


def members(comm: Comm, launcher: str) -> list[int]:
    """The ranks on this worker's node, in order; the first does what a node needs once. Collective.

    MPI knows who shares memory; horovodrun over Gloo knows hosts by their names.
    """
    if comm.size > 1 and launcher in ("mpirun", "srun", "mpiexec"):
        from mpi4py import MPI

        node = MPI.COMM_WORLD.Split_type(MPI.COMM_TYPE_SHARED)
        ranks: list[int] = sorted(node.allgather(comm.rank))
        node.Free()
        return ranks
    names = comm.gather(platform.node(), "nodes")
    return [rank for rank, name in enumerate(names) if name == names[comm.rank]]
