"""Which allreduce algorithm is really in use, told from its rounding.

Floating-point addition is not associative, so the last bits of a sum betray the order in which it was made. A ring cuts
the tensor into one chunk per rank and adds each chunk beginning at another rank: the order rotates from chunk to chunk.
Recursive doubling, trees and reduce-broadcast use one order throughout.
"""

import torch

from hvdtrain.distributed.comm import Comm

ELEMENTS_PER_RANK = 4096  # 16 KiB each: above the size at which MPI libraries would stay with a latency algorithm


def algorithm(comm: Comm, device: torch.device) -> str:
    """`ring`, `not a ring`, or that it cannot be told. Collective: every rank calls it."""
    if comm.size == 1:
        return "none"
    if comm.size == 2:
        return "any (two ranks add a + b whatever the algorithm)"
    parts = [_numbers(rank, comm.size * ELEMENTS_PER_RANK) for rank in range(comm.size)]
    total = parts[comm.rank].clone().to(device)
    comm.wait(comm.start_sum(total, "which algorithm"))
    return "ring" if is_ring(parts, total.cpu()) else "not a ring"


def is_ring(parts: list[torch.Tensor], total: torch.Tensor) -> bool:
    """Whether each element of `total` is the sum of `parts`, all (n,) float32, made around one ring of ranks, and every
    rank begins its share of the elements."""
    size = len(parts)
    for ring in (parts, parts[::-1]):
        match = torch.stack([rotated_sum(ring, start) == total for start in range(size)])  # (ranks, n)
        alone = match & (match.sum(0) == 1)
        if match.any(0).all() and (alone.sum(1) > total.numel() / size / 10).all():
            return True
    return False


def rotated_sum(parts: list[torch.Tensor], start: int) -> torch.Tensor:
    """((parts[start] + parts[start + 1]) + …), ranks counted round."""
    total = parts[start].clone()
    for i in range(1, len(parts)):
        total += parts[(start + i) % len(parts)]
    return total


def _numbers(rank: int, n: int) -> torch.Tensor:
    return torch.randn(n, generator=torch.Generator().manual_seed(rank))
