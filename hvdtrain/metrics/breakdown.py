"""What a step's time went to, and who is to blame. Pure.

Two views of the same steps. A worker's own: what it did and what it waited for. The run's: the way of whoever was ready
last, for a step lasts as long as that way takes, and every other worker's wait is that worker's doing. A slow loader
thus counts as input once, where it is, and not as the waiting of all its peers.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PARTS = ("input", "compute", "straggler", "communication", "rest")

Seconds = NDArray[np.float64]


@dataclass(frozen=True)
class Breakdown:
    run: Mapping[str, Seconds]
    """The run's PARTS, (steps,) seconds each, summing to the steps' durations: input, rest and communication on the way
    of the worker that was ready last; compute of the typical worker; straggler: how much longer the last computed."""
    workers: Mapping[str, Seconds]
    """Each worker's own PARTS, (workers,) seconds per step, summing to its step. straggler: from its being ready to the
    last one's; communication: from then on to the sum."""
    lag: Seconds
    """(workers,) how much later each was ready than the typical worker, seconds per step; below 0 for faster ones."""

    @property
    def steps(self) -> int:
        return len(self.run["compute"])

    @property
    def step_seconds(self) -> Seconds:
        """(steps,) durations."""
        durations: Seconds = np.sum(list(self.run.values()), axis=0)
        return durations

    @property
    def parts(self) -> dict[str, float]:
        """The run's, seconds per step."""
        return {part: float(seconds.mean()) for part, seconds in self.run.items()}

    @property
    def slowest(self) -> int:
        """The rank with the largest lag."""
        return int(self.lag.argmax())


def breakdown(table: Seconds) -> Breakdown:
    """Take the steps of all workers apart.

    Args:
        table: (workers, steps, 4) seconds: input wait, compute, ready and total, the last two counted from the moment
            at which the previous step's sum was there.
    """
    waited, computed, ready, total = np.moveaxis(table, -1, 0)  # (workers, steps) each
    last = ready.argmax(0), np.arange(ready.shape[1])
    typical = lower_median(computed)
    behind = ready.max(0) - ready
    return Breakdown(
        run={
            "input": waited[last],
            "compute": typical,
            "straggler": computed[last] - typical,
            "communication": (total - ready)[last],
            "rest": (ready - waited - computed)[last],
        },
        workers={
            "input": waited.mean(1),
            "compute": computed.mean(1),
            "straggler": behind.mean(1),
            "communication": (total - ready - behind).mean(1),
            "rest": (ready - waited - computed).mean(1),
        },
        lag=(ready - lower_median(ready)).mean(1),
    )


def lower_median(values: Seconds) -> Seconds:
    """Over the first axis; of two the smaller, so that one slow worker of two does not pass for the typical one.

    >>> lower_median(np.array([3.0, 1.0])), lower_median(np.array([9.0, 2.0, 1.0]))
    (np.float64(1.0), np.float64(2.0))
    """
    middle: Seconds = np.sort(values, axis=0)[(len(values) - 1) // 2]
    return middle
