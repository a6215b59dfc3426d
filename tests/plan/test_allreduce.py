"""The costs of a sum against the sum itself, played step by step."""

import pytest

from hvdtrain.plan.allreduce import ALGORITHMS, Fabric, halving_doubling, ring


def played_ring(size: float, workers: int, bandwidth: float, hop: float) -> float:
    """Reduce-scatter, then all-gather: in each round everybody sends the chunk that it got in the last one."""
    clocks = [0.0] * workers
    chunks = [[float(worker == 0)] * workers for worker in range(workers)]
    for turn in range(2 * (workers - 1)):
        sent = [(clocks[w], (w - turn) % workers) for w in range(workers)]
        values = [chunks[w][chunk] for w, (_, chunk) in enumerate(sent)]
        for worker in range(workers):
            left = (worker - 1) % workers
            begun, chunk = sent[left]
            clocks[worker] = max(clocks[worker], begun) + size / workers / bandwidth + hop
            adds = turn < workers - 1
            chunks[worker][chunk] = values[left] + (chunks[worker][chunk] if adds else 0)
    assert all(chunk == 1.0 for mine in chunks for chunk in mine), "everybody has the sum of all"
    return max(clocks)


@pytest.mark.parametrize("workers", [1, 2, 3, 8, 13])
def test_a_ring_costs_what_playing_it_takes(workers: int) -> None:
    assert ring(1e8, workers, 1e9, 5e-6) == pytest.approx(played_ring(1e8, workers, 1e9, 5e-6))


@pytest.mark.parametrize("workers", [2, 8, 64, 1024])
def test_halving_moves_the_rings_bytes_in_fewer_exchanges(workers: int) -> None:
    assert halving_doubling(1e8, workers, 1e9, 0) == pytest.approx(ring(1e8, workers, 1e9, 0))
    assert halving_doubling(1e8, workers, 1e9, 1e-5) <= ring(1e8, workers, 1e9, 1e-5)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("workers", [1, 2, 8, 12, 64, 256])
def test_a_faster_link_is_never_slower(algorithm: str, workers: int) -> None:
    def taken(across: float, within: float) -> float:
        return Fabric(8, within, across, 5e-6, algorithm).seconds(1e8, workers)  # type: ignore[arg-type]

    speeds = [1e8, 1e9, 1e10, 1e11]
    by_network = [taken(speed, 1e10) for speed in speeds]
    assert by_network == sorted(by_network, reverse=True)
    inside = [taken(1e9, speed) for speed in speeds]
    assert inside == sorted(inside, reverse=True)
    assert (taken(1e9, 1e10) == 0) == (workers == 1)


def test_a_flat_ring_enters_each_node_once() -> None:
    flat = Fabric(8, 1e11, 1e9, 0.0).seconds(1e8, 64)
    assert flat == pytest.approx(2 * 63 / 64 * 1e8 / 1e9)


def test_workers_of_a_node_share_its_link_but_not_what_joins_them() -> None:
    """In each exchange all eight talk to another node at once, or each to one of its own."""
    bytes_of_one = 2 * 63 / 64 * 1e8
    wide, narrow = (Fabric(8, 1e9, across, 0.0, "halving-doubling").seconds(1e8, 64) for across in (1e12, 4e9))
    assert wide == pytest.approx(bytes_of_one / 1e9)
    assert narrow == pytest.approx(bytes_of_one / (4e9 / 8))


@pytest.mark.parametrize("algorithm", ["hierarchical", "hierarchical-halving"])
def test_the_one_that_sends_for_its_node_is_as_fast_as_a_worker(algorithm: str) -> None:
    fast, faster = (Fabric(8, 1e9, across, 0.0, algorithm).seconds(1e8, 64) for across in (1e9, 1e12))  # type: ignore[arg-type]
    assert fast == faster
