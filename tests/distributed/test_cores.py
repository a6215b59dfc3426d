"""Which cores are a worker's: disjoint, even, and within a NUMA node where they fit."""

import os
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hvdtrain.distributed import cores
from hvdtrain.distributed.comm import SoloComm


@st.composite
def machines(draw: st.DrawFn) -> tuple[list[int], dict[int, frozenset[int]], int]:
    """Cores in any order, those of each node, and a number of workers that they are enough for."""
    sizes = draw(st.lists(st.integers(1, 12), min_size=1, max_size=5))
    order = draw(st.permutations(range(sum(sizes))))
    nodes = {}
    for number, size in enumerate(sizes):
        nodes[number], order = frozenset(order[:size]), order[size:]
    usable = draw(st.permutations(sorted(frozenset().union(*nodes.values()))))
    usable = usable[: draw(st.integers(1, len(usable)))]
    told = {number: each for number, each in nodes.items() if draw(st.integers(0, 9))}
    return usable, told, draw(st.integers(1, len(usable)))


@given(machines())
def test_shares_are_disjoint_even_and_within_a_node_where_they_fit(
    machine: tuple[list[int], dict[int, frozenset[int]], int],
) -> None:
    usable, nodes, workers = machine
    shares = [cores.share(usable, nodes, rank, workers) for rank in range(workers)]
    taken = [core for share in shares for core in share]
    assert len(set(taken)) == len(taken)
    assert set(taken) <= set(usable)
    least = len(usable) // workers
    assert {len(share) for share in shares} <= {least, least + 1}
    groups = [each & set(usable) for each in nodes.values()]
    groups.append(set(usable) - set().union(*groups))
    if sum(len(group) // least for group in groups) >= workers:
        assert all(any(set(share) <= group for group in groups) for share in shares)
    else:
        assert set(taken) == set(usable)


@given(machines())
def test_all_cores_of_one_node_are_given(machine: tuple[list[int], dict[int, frozenset[int]], int]) -> None:
    usable, _, workers = machine
    assume(workers)
    taken = [core for rank in range(workers) for core in cores.share(usable, {}, rank, workers)]
    assert taken == usable


def test_workers_fill_both_sockets_and_not_one_of_them() -> None:
    nodes = {0: frozenset(range(8)), 1: frozenset(range(8, 16))}
    assert cores.share(range(16), nodes, 1, 2) == list(range(8, 16))
    assert [cores.share(range(16), nodes, rank, 16) for rank in (0, 8, 15)] == [[0], [8], [15]]


def test_more_workers_than_cores_have_no_shares() -> None:
    with pytest.raises(ValueError, match="local rank 2 of 3 on 2 cores"):
        cores.share([0, 1], {}, 2, 3)


def system(tmp_path: Path) -> Path:
    for node, text in ((0, "0-1,4-5\n"), (1, "2-3,6-7\n")):
        (tmp_path / f"node/node{node}").mkdir(parents=True)
        (tmp_path / f"node/node{node}/cpulist").write_text(text)
    for core in range(8):
        folder = tmp_path / f"cpu/cpu{core}/topology"
        folder.mkdir(parents=True)
        (folder / "thread_siblings_list").write_text(f"{core % 4},{core % 4 + 4}\n")
    return tmp_path


def test_nodes_and_siblings_are_read_from_the_system(tmp_path: Path) -> None:
    there = system(tmp_path)
    assert cores.numa_nodes(there) == {0: frozenset({0, 1, 4, 5}), 1: frozenset({2, 3, 6, 7})}
    order = cores.physical_order(range(8), there)
    assert order == [0, 4, 1, 5, 2, 6, 3, 7]
    assert cores.share(order, cores.numa_nodes(there), 1, 4) == [1, 5]


def test_a_system_that_does_not_tell_has_one_node(tmp_path: Path) -> None:
    (tmp_path / "node/node0").mkdir(parents=True)
    (tmp_path / "node/node0/cpulist").write_text("what\n")
    assert cores.numa_nodes(tmp_path) == {}
    assert cores.physical_order([3, 1], tmp_path) == [1, 3]


class Neighbours(SoloComm):
    def __init__(self, others: list[object]) -> None:
        self.others = others

    def gather(self, value: object, name: str) -> list[object]:  # type: ignore[override]
        return [value, *self.others]


MINE = [0, 1, 2, 3, 4]
HOST = os.uname().nodename


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """Where threads were moved to."""
    places: list[list[int]] = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(MINE))
    monkeypatch.setattr(cores.threads, "move", lambda _, own: places.append(own))
    return places


def test_two_that_share_all_cores_get_half_of_them_each(moved: list[list[int]]) -> None:
    own = cores.bind(Neighbours([(HOST, MINE, True)]), wanted=True)
    assert len(own) in (2, 3)
    assert moved
    assert all(place == own for place in moved)


@pytest.mark.parametrize(
    "others",
    [
        [],
        [("elsewhere", MINE, True)],
        [(HOST, MINE[:1], True)],
        [(HOST, MINE, False)],
        [(HOST, MINE, True)] * 1000,
    ],
)
def test_who_is_alone_was_bound_by_the_launcher_or_has_no_core_of_its_own_stays(
    others: list[object], moved: list[list[int]]
) -> None:
    assert cores.bind(Neighbours(others), wanted=True) == MINE
    assert not moved
