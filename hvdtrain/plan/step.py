"""A step taken apart, before it is taken: what computes, and what waits for whom."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from hvdtrain.plan.allreduce import Fabric
from hvdtrain.plan.models import BACKWARD, Network

MIB = 2**20
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Fusion:
    """How gradients become sums.

    `buckets`: of fixed contents, as distributed/buckets.py fills them, closed before they would exceed `limit_bytes`.
    `timed`: Horovod's own, whatever is there when the last sum has ended. `tensor`: each gradient by itself.
    """

    kind: Literal["buckets", "timed", "tensor"] = "buckets"
    limit_bytes: float = 25 * MIB
    cycle_seconds: float = 0.001  # Horovod looks for new gradients that often


@dataclass(frozen=True)
class Overheads:
    """What communication costs besides bytes and hops."""

    jitter: float  # standard deviation of a step's computing, as a fraction of it
    negotiation_seconds: float  # of agreeing that a gradient is there on all workers, for each doubling of these
    shared: float  # how much slower computing is while a sum runs beside it on the same device


@dataclass(frozen=True)
class Step:
    """Seconds of one step."""

    compute: float
    communication: float  # what computing does not hide
    straggler: float
    busy: float  # of all sums together, hidden or not
    input: float = 0.0

    @property
    def seconds(self) -> float:
        return self.compute + self.communication + self.straggler + self.input

    def waiting(self, seconds: float) -> "Step":
        """The same, for whom images come that much later than everything else is done."""
        return replace(self, input=seconds)


def step(
    compute: float,
    network: Network,
    workers: int,
    fabric: Fabric,
    fusion: Fusion,
    overheads: Overheads,
    *,
    wire_bytes: int = 4,
    overlap: bool = True,
    micro_batches: int = 1,
) -> Step:
    """
    Args:
        compute: seconds of forward, backward and update of one worker alone, of one micro-batch.
        wire_bytes: of an element while it travels.
        overlap: gradients travel while backward makes others; else all come at its end.
        micro_batches: before the sums, which begin in the last one's backward.
    """
    begin = compute * (micro_batches - BACKWARD)
    last, compute = compute, compute * micro_batches
    if workers == 1:
        return Step(compute, 0.0, 0.0, 0.0)
    ready = begin + last * BACKWARD * (network.ready if overlap else np.ones_like(network.ready))
    wait = fusion.cycle_seconds / 2 + overheads.negotiation_seconds * math.log2(workers)
    end, busy = _queue(ready, network.elements * wire_bytes, fusion, wait, lambda size: fabric.seconds(size, workers))
    # Sums that run beside computing take cores and memory bandwidth of the device from it.
    exposed = max(0.0, end - compute)
    exposed += overheads.shared * max(0.0, busy - exposed)
    return Step(compute, exposed, compute * overheads.jitter * latest(workers), busy)


def latest(workers: int) -> float:
    """How many standard deviations the slowest of k workers is behind the typical one, if they vary normally and
    independently of each other (Blom 1958).

    >>> [round(latest(k), 2) for k in (1, 2, 8, 512)]
    [0.0, 0.59, 1.43, 3.03]
    """
    return _NORMAL.inv_cdf((workers - 0.375) / (workers + 0.25))


def _queue(
    ready: NDArray[np.float64],
    sizes: NDArray[np.int64],
    fusion: Fusion,
    wait: float,
    seconds: Callable[[float], float],
) -> tuple[float, float]:
    """When the last sum has ended, if each begins when it is agreed upon and the one before has ended; and how long all
    take together."""
    end = busy = group = first = there = 0.0
    for arrives, size in [*zip(ready.tolist(), sizes.tolist(), strict=True), (math.inf, 0)]:
        full = group + size > fusion.limit_bytes or fusion.kind == "tensor" or math.isinf(arrives)
        if group and (full or (fusion.kind == "timed" and arrives > max(first + fusion.cycle_seconds, end - wait))):
            taken = seconds(group)
            end = max(there + wait, end) + taken
            busy += taken
            group = 0.0
        first, there = (first if group else arrives), arrives
        group += size
    return end, busy
