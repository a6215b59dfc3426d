"""Which allreduce algorithm is really in use, told from its rounding.

Floating-point addition is not associative, so the last bits of a sum betray the order in which it was made. A ring cuts
the tensor into one chunk per rank and adds each chunk beginning at another rank: the order rotates from chunk to chunk.
Recursive doubling, trees and reduce-broadcast use one order throughout.

Of many ranks a few are witnesses, evenly spread; the others add zeros, which round nothing, and so do the witnesses in
all but some of the elements. A ring of a thousand ranks is a ring of its witnesses.
"""

import torch

from hvdtrain.distributed.comm import Comm

ELEMENTS_PER_RANK = 4096  # 16 KiB each: above the size at which MPI libraries would stay with a latency algorithm
MOST_WITNESSES = 8  # of more, few elements would have a sum that one order alone gives


def algorithm(comm: Comm, device: torch.device) -> str:
    """`ring`, `not a ring`, or that it cannot be told. Collective: every rank calls it."""
    if comm.size == 1:
        return "none"
    if comm.size == 2:
        return "any (two ranks add a + b whatever the algorithm)"
    ranks = witnesses(comm.size)
    numbers = {rank: _numbers(rank, len(ranks) * ELEMENTS_PER_RANK) for rank in ranks}
    total = torch.zeros(comm.size * ELEMENTS_PER_RANK)
    places = torch.arange(len(ranks) * ELEMENTS_PER_RANK) * comm.size // len(ranks)
    if comm.rank in numbers:
        total[places] = numbers[comm.rank]
    total = total.to(device)
    comm.wait(comm.start_sum(total, "which algorithm"))
    return "ring" if is_ring(list(numbers.values()), total.cpu()[places]) else "not a ring"


def witnesses(size: int) -> list[int]:
    """The ranks of `size` that give numbers.

    >>> witnesses(3), witnesses(1024)[:4], len(witnesses(1024))
    ([0, 1, 2], [0, 128, 256, 384], 8)
    """
    count = min(size, MOST_WITNESSES)
    return [place * size // count for place in range(count)]


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
