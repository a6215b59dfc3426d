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
CYCLE_SECONDS = 0.001  # Horovod looks for new gradients that often
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Fusion:
    """How gradients become sums.

    `buckets`: of fixed contents, as distributed/buckets.py fills them, closed before they would exceed `limit_bytes`.
    `timed`: Horovod's own, whatever is there when the last sum has ended. `tensor`: each gradient by itself.
    """

    kind: Literal["buckets", "timed", "tensor"]
    limit_bytes: float
    cycle_seconds: float = CYCLE_SECONDS


@dataclass(frozen=True)
class Overheads:
    """What communication costs besides bytes and hops."""

    jitter: float  # standard deviation of a step's computing, as a fraction of it
    negotiation_seconds: float  # of agreeing that a gradient is there on all workers, for each doubling of these
    shared: float  # how much slower computing is while a sum runs beside it on the same device
    fixed_seconds: float | None = None
    """Measured, of a sum of `fixed_workers`: the cycle and agreeing upon it together."""
    fixed_workers: int = 1

    def agreed(self) -> "Overheads":
        """The same, if all workers knew at once. What was measured as fixed is taken to be agreeing alone."""
        return replace(self, negotiation_seconds=0.0, fixed_seconds=None if self.fixed_seconds is None else 0.0)

    def wait(self, workers: int, cycle_seconds: float) -> float:
        """Seconds until all workers know that a gradient is there on all of them."""
        if self.fixed_seconds is None:
            return cycle_seconds / 2 + self.negotiation_seconds * math.log2(workers)
        return self.fixed_seconds + self.negotiation_seconds * max(0.0, math.log2(workers / self.fixed_workers))


@dataclass(frozen=True)
class Step:
    """Seconds of one step."""

    compute: float
    communication: float  # what computing does not hide
    straggler: float
    busy: float  # of all sums together, hidden or not
    negotiation: float = 0.0  # what agreeing upon the sums adds to that
    input: float = 0.0

    @property
    def seconds(self) -> float:
        return self.compute + self.communication + self.negotiation + self.straggler + self.input

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
    """The seconds of one step of `workers` workers, by what they go to.

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
    sizes = network.elements * wire_bytes

    def exposed(overheads: Overheads) -> tuple[float, float]:
        wait = overheads.wait(workers, fusion.cycle_seconds)
        end, busy = _queue(ready, sizes, fusion, wait, lambda size: fabric.seconds(size, workers))
        late = max(0.0, end - compute)
        # Sums that run beside computing take cores and memory bandwidth of the device from it.
        return late + overheads.shared * max(0.0, busy - late), busy

    whole, busy = exposed(overheads)
    sums = min(whole, exposed(overheads.agreed())[0])
    return Step(compute, sums, compute * overheads.jitter * latest(workers), busy, negotiation=whole - sums)


def computing(wanted: float, seconds: Callable[[float], float]) -> float:
    """By bisection, how long a worker computes in a step that takes the seconds `wanted`.

    Args:
        seconds: of a step, by those of computing.
    """
    low, high = 0.0, wanted
    for _ in range(20):
        middle = (low + high) / 2
        low, high = (middle, high) if seconds(middle) < wanted else (low, middle)
    return high


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
