"""What one sum over all workers takes, in terms of alpha and beta: the time of a hop, and of a byte.

Bandwidths are effective bytes/s in one direction: of a worker within its node, and of a node towards the network. Where
these come from is for others to know (hardware.py, constants.py, fit.py).
"""

import math
from dataclasses import dataclass
from typing import Literal

Algorithm = Literal["ring", "hierarchical", "halving-doubling", "hierarchical-halving"]
ALGORITHMS: tuple[Algorithm, ...] = ("ring", "hierarchical", "halving-doubling", "hierarchical-halving")


@dataclass(frozen=True)
class Fabric:
    """What the workers are joined by."""

    per_node: int  # workers
    within: float  # bytes/s of a worker, in one direction
    across: float  # bytes/s of a node, likewise
    hop_seconds: float  # of one hop, whatever its size
    algorithm: Algorithm = "ring"

    def nodes(self, workers: int) -> int:
        return math.ceil(workers / self.per_node)

    def seconds(self, size: float, workers: int) -> float:
        """Of the sum of `size` bytes over `workers` workers, with nothing else on the way."""
        if workers == 1 or size == 0:
            return 0.0
        nodes, inside = self.nodes(workers), min(workers, self.per_node)
        slowest = self.within if nodes == 1 else min(self.within, self.across)
        if self.algorithm == "ring" or (nodes == 1 and self.algorithm.startswith("hierarchical")):
            return ring(size, workers, slowest, self.hop_seconds)
        if self.algorithm == "halving-doubling":
            # in an exchange between nodes all workers of one talk through its link at once
            shared = self.within if nodes == 1 else min(self.within, self.across / inside)
            return halving_doubling(size, workers, shared, self.hop_seconds)
        across = halving_doubling if self.algorithm == "hierarchical-halving" else ring
        local = 2 * chain(size, inside, self.within, self.hop_seconds)
        return local + across(size, nodes, slowest, self.hop_seconds)  # one worker of each node sends


def ring(size: float, workers: int, bandwidth: float, hop_seconds: float) -> float:
    """Reduce-scatter and all-gather in 2 (k - 1) hops of 1/k of the data (Patarasuk and Yuan 2009). A ring that follows
    the nodes, as NCCL's does, enters and leaves each of them once: its bandwidth is that of the slowest link.

    >>> ring(2e9, 4, 1e9, 0.0), ring(0, 4, 1e9, 1e-6)
    (3.0, 6e-06)
    """
    return 2 * (workers - 1) * (size / workers / bandwidth + hop_seconds)


def halving_doubling(size: float, workers: int, bandwidth: float, hop_seconds: float) -> float:
    """The same bytes in 2 log2 k exchanges (Thakur et al. 2005). A number of workers that is no power of two costs as
    many exchanges as the next one.

    >>> halving_doubling(100e6, 4, 1e9, 0.0), halving_doubling(0, 5, 1e9, 1e-6)
    (0.15, 6e-06)
    """
    if workers == 1:
        return 0.0
    return 2 * (workers - 1) / workers * size / bandwidth + 2 * math.ceil(math.log2(workers)) * hop_seconds


def chain(size: float, workers: int, bandwidth: float, hop_seconds: float) -> float:
    """A pipelined reduction to one worker, or a broadcast from it.

    >>> chain(100e6, 4, 1e9, 0.0), chain(100e6, 1, 1e9, 5e-6)
    (0.1, 0.0)
    """
    return size / bandwidth + (workers - 1) * hop_seconds if workers > 1 else 0.0
