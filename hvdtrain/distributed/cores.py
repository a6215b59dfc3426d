"""Which cores of its node are a worker's, where its launcher left all of them to everybody.

A worker that is moved to another socket leaves its memory behind: Linux gives memory from the NUMA node of the core
that first touches it. So each worker gets cores of its own, next to each other, and within one node where they fit; its
memory comes from there by itself. Workers are taken in the order of their local ranks, as GPUs are on most machines.

Not the default: of nine pairs of runs, two workers on two cores that other jobs used too, the bound run's steps were
shorter in six, by 3 to 54 %, but in one 15 times as long: it cannot leave a core that somebody else has taken.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from hvdtrain.distributed import threads
from hvdtrain.distributed.comm import Comm
from hvdtrain.log import logger

SYSTEM = Path("/sys/devices/system")


def share(cores: Sequence[int], nodes: Mapping[int, frozenset[int]], local_rank: int, local_size: int) -> list[int]:
    """The cores of the worker of this local rank: as many as each other's, or one more; nobody else's.

    Where all workers fit into NUMA nodes whole, each does, and a node's rest may belong to nobody; else the shares go
    on across the border.

    Args:
        cores: that the workers may run on, hardware threads of one core side by side.
        nodes: the cores of each NUMA node. What is in none of them counts as one more node.

    Raises:
        ValueError: there are more workers than cores.

    >>> two = {0: frozenset({0, 1, 2, 3}), 1: frozenset({4, 5, 6, 7})}
    >>> [share(range(8), two, rank, 4) for rank in range(4)]
    [[0, 1], [2, 3], [4, 5], [6, 7]]
    >>> [share(range(8), two, rank, 3) for rank in range(3)]
    [[0, 1], [2, 3], [4, 5, 6]]
    """
    if not 0 <= local_rank < local_size <= len(cores):
        raise ValueError(f"local rank {local_rank} of {local_size} on {len(cores)} cores")
    least = len(cores) // local_size
    groups = _by_node(cores, nodes)
    workers = _spread([len(group) // least for group in groups], [len(group) for group in groups], local_size)
    if workers is None:
        groups, workers, most = [[core for group in groups for core in group]], [local_size], None
    else:
        most = least + 1
    for group, count in zip(groups, workers, strict=True):
        if local_rank < count:
            return _part(group, local_rank, count, most)
        local_rank -= count
    raise AssertionError("every worker has a node")


def _by_node(cores: Sequence[int], nodes: Mapping[int, frozenset[int]]) -> list[list[int]]:
    known = frozenset().union(*nodes.values())
    sets = [*(nodes[node] for node in sorted(nodes)), frozenset(cores) - known]
    return [group for each in sets if (group := [core for core in cores if core in each])]


def _spread(most: Sequence[int], cores: Sequence[int], workers: int) -> list[int] | None:
    """So many workers for each node, the next always where it gets the most cores; None where not all find a place."""
    if sum(most) < workers:
        return None
    counts = [0] * len(most)
    for _ in range(workers):
        free = [node for node, count in enumerate(counts) if count < most[node]]
        counts[max(free, key=lambda node: cores[node] / (counts[node] + 1))] += 1
    return counts


def _part(group: Sequence[int], place: int, count: int, most: int | None) -> list[int]:
    size, longer = divmod(len(group), count)
    if most is not None and size >= most:
        size, longer = most, 0
    begin = place * size + min(place, longer)
    return list(group[begin : begin + size + (place < longer)])


def bind(comm: Comm, *, wanted: bool) -> list[int]:
    """Keep this worker, with all its threads, on its share where the launcher left the same cores to all workers of the
    node; returns the cores that it may run on. Collective.

    Where there are more workers than cores, or a worker is alone on its node, nothing is bound.
    """
    mine = sorted(os.sched_getaffinity(0))
    everyone = comm.gather((os.uname().nodename, mine, wanted), "cores to bind to")
    neighbours = [rank for rank, (host, *_) in enumerate(everyone) if host == os.uname().nodename]
    shared = all(everyone[rank][1:] == (mine, True) for rank in neighbours)
    if not shared or not 1 < len(neighbours) <= len(mine):
        return mine
    own = share(physical_order(mine, SYSTEM), numa_nodes(SYSTEM), neighbours.index(comm.rank), len(neighbours))
    threads.move_all(own)
    logger.debug("bound to cores %s", ", ".join(map(str, own)))
    return own


def numa_nodes(system: Path) -> dict[int, frozenset[int]]:
    """The cores of each NUMA node; none where the system does not tell."""
    found = {}
    for file in system.glob("node/node*/cpulist"):
        number = file.parent.name.removeprefix("node")
        if number.isdigit() and (cores := _cores(file)):
            found[int(number)] = frozenset(cores)
    return found


def physical_order(cores: Sequence[int], system: Path) -> list[int]:
    """Hardware threads of one core side by side: two workers share a core only at the border of their shares."""
    first = {}
    for core in cores:
        siblings = _cores(system / f"cpu/cpu{core}/topology/thread_siblings_list")
        first[core] = min(siblings, default=core)
    return sorted(cores, key=lambda core: (first[core], core))


def _cores(file: Path) -> list[int]:
    try:
        return numbers(file.read_text())
    except (OSError, ValueError):
        return []


def in_words(cores: Iterable[int]) -> str:
    """As Linux's lists of cores; the inverse of `numbers`.

    >>> in_words({0, 1, 2, 3, 8, 10, 11}), in_words([])
    ('0-3,8,10-11', '')
    """
    runs: list[list[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][-1] + 1:
            runs[-1].append(core)
        else:
            runs.append([core])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 1 else f"{run[0]}" for run in runs)


def numbers(text: str) -> list[int]:
    """Of Linux's lists of cores.

    >>> numbers("0-3,8,10-11"), numbers("")
    ([0, 1, 2, 3, 8, 10, 11], [])
    """
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if part:
            found += range(int(first), int(last or first) + 1)
    return found
