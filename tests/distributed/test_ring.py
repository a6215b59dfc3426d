"""Algorithms give themselves away by their rounding: each is done here by hand, and told apart."""

from collections.abc import Callable
from functools import reduce

import pytest
import torch

from hvdtrain.distributed import ring
from hvdtrain.distributed.comm import SoloComm

Allreduce = Callable[[list[torch.Tensor]], torch.Tensor]
SIZES = [3, 4, 5, 8]


def numbers(size: int, n: int = 1 << 12) -> list[torch.Tensor]:
    return [torch.randn(n * size, generator=torch.Generator().manual_seed(100 + rank)) for rank in range(size)]


def around(parts: list[torch.Tensor], first: int, step: int) -> torch.Tensor:
    """Chunk c starts at rank first + c and goes from rank to rank by `step`."""
    size = len(parts)
    chunks = [part.chunk(size) for part in parts]
    return torch.cat(
        [
            reduce(torch.add, [chunks[(first + chunk + step * hop) % size][chunk] for hop in range(size)])
            for chunk in range(size)
        ]
    )


def sequential(parts: list[torch.Tensor]) -> torch.Tensor:
    return reduce(torch.add, parts)


def doubling(parts: list[torch.Tensor]) -> torch.Tensor:
    """Neighbours, then neighbouring pairs, …; the odd one out is added to a neighbour before."""
    parts = list(parts)
    while len(parts) & (len(parts) - 1):
        parts[:2] = [parts[0] + parts[1]]
    while len(parts) > 1:
        parts = [a + b for a, b in zip(parts[::2], parts[1::2], strict=True)]
    return parts[0]


def halving(parts: list[torch.Tensor]) -> torch.Tensor:
    """Rank i with rank i + n/2, as in recursive halving (Rabenseifner)."""
    parts = list(parts)
    while len(parts) > 1:
        half = len(parts) // 2
        parts = [a + b for a, b in zip(parts[:half], parts[half:], strict=True)]
    return parts[0]


def exact(parts: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(parts).double().sum(0).float()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("step", [1, -1])
@pytest.mark.parametrize("first", [0, 1, 2])
def test_a_ring_is_told_wherever_it_starts_and_whichever_way_it_turns(size: int, first: int, step: int) -> None:
    parts = numbers(size)
    assert ring.is_ring(parts, around(parts, first, step))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("algorithm", [sequential, doubling, exact])
def test_other_orders_are_no_ring(size: int, algorithm: Allreduce) -> None:
    parts = numbers(size)
    assert not ring.is_ring(parts, algorithm(parts))
    assert not ring.is_ring(parts, algorithm(parts[1:] + parts[:1]))


@pytest.mark.parametrize("size", [4, 8])
def test_recursive_halving_is_no_ring(size: int) -> None:
    parts = numbers(size)
    assert not ring.is_ring(parts, halving(parts))


@pytest.mark.parametrize("size", SIZES)
def test_a_ring_with_one_wrong_bit_is_no_ring(size: int) -> None:
    parts = numbers(size)
    total = around(parts, 0, 1)
    total[17] *= 1 + 1e-5
    assert not ring.is_ring(parts, total)


@pytest.mark.parametrize("size", SIZES)
def test_a_ring_of_part_of_the_ranks_order_is_no_ring(size: int) -> None:
    """All chunks but one begin at rank 0."""
    parts = numbers(size)
    total = sequential(parts)
    total[: total.numel() // size] = around(parts, 1, 1)[: total.numel() // size]
    assert not ring.is_ring(parts, total)


def test_the_rotated_sum_begins_where_it_is_told() -> None:
    parts = [torch.tensor([value]) for value in (1e8, 1.0, -1e8)]
    assert [float(ring.rotated_sum(parts, start)) for start in range(3)] == [0, 0, 1]
    assert float(parts[0]) == 1e8


class Ranks(SoloComm):
    """Rank 0 of `size`, the others' numbers being known; sums with `allreduce`."""

    def __init__(self, size: int, allreduce: Allreduce) -> None:
        self.size, self.allreduce = size, allreduce

    def start_sum(self, tensor: torch.Tensor, name: str) -> None:
        among = ring.witnesses(self.size)
        given = tensor != 0
        parts = [torch.zeros_like(tensor) for _ in range(self.size)]
        for rank in among:
            parts[rank][given] = ring._numbers(rank, int(given.sum()))
        assert torch.equal(parts[0], tensor)
        tensor.copy_(self.allreduce(parts))


@pytest.mark.parametrize("size", [*SIZES, 9, 16, 50])
def test_the_answer_of_a_collective(size: int) -> None:
    cpu = torch.device("cpu")
    for first, step in ((0, 1), (1, 1), (2, -1)):
        assert ring.algorithm(Ranks(size, lambda parts, f=first, s=step: around(parts, f, s)), cpu) == "ring"  # type: ignore[misc]
    for other in (sequential, doubling, exact):
        assert ring.algorithm(Ranks(size, other), cpu) == "not a ring"


class Weighed(SoloComm):
    """Of `size`; keeps what it was to sum, which is no ring."""

    def __init__(self, size: int) -> None:
        self.size, self.elements, self.given = size, 0, 0

    def start_sum(self, tensor: torch.Tensor, name: str) -> None:
        self.elements, self.given = tensor.numel(), int((tensor != 0).sum())


def test_a_thousand_ranks_are_told_by_a_few_of_them() -> None:
    """With the numbers of all, each rank would hold 16 GiB of them, and add them up a million times."""
    comm = Weighed(1024)
    assert ring.algorithm(comm, torch.device("cpu")) == "not a ring"
    assert comm.elements == 1024 * ring.ELEMENTS_PER_RANK
    assert comm.given == ring.MOST_WITNESSES * ring.ELEMENTS_PER_RANK


def test_one_or_two_ranks_do_not_tell() -> None:
    cpu = torch.device("cpu")
    assert ring.algorithm(SoloComm(), cpu) == "none"
    assert ring.algorithm(Ranks(2, sequential), cpu).startswith("any ")
