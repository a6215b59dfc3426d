"""What the run is compared with: the same step by one worker alone, measured here before the first step.

Every worker takes its turn, one on each node at a time, while the others sleep. Then all step at once without summing
anything: what sharing a machine costs. Then the sum alone. Afterwards everything is as it was, to the last bit.
"""

import io
import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from hvdtrain.checkpoint import format as form
from hvdtrain.distributed import threads
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.reducer import LocalReducer
from hvdtrain.log import logger
from hvdtrain.metrics.breakdown import breakdown, lower_median
from hvdtrain.metrics.efficiency import Baseline, mean
from hvdtrain.train.build import Parts
from hvdtrain.train.clock import COLUMNS
from hvdtrain.train.loop import take_step
from hvdtrain.train.state import TrainState

SLOW = 1.1  # a worker that alone takes so much longer than the typical one is a straggler, and no baseline
TURNS = 8  # on a node at most: more of its workers would tell the same, and take their time
LONG_SECONDS = 60.0  # of a measurement; above, the log says how to do without
SUMS = 5  # of the gradients, the first of which is not timed


def measure(parts: Parts, comm: Comm, activity: Activity, *, steps: int, untimed: int) -> Baseline:
    """Collective.

    Args:
        steps: timed ones of each worker alone, and again of all at once.
        untimed: before them, until the decoder is at its pace.
    """
    with _unchanged(parts.state), parts.reducer.silent():
        first = _table(comm, _steps(parts, comm, untimed), "first")
        pace = float(lower_median(first[:, -1, -1]))  # the very first steps are slow everywhere
        own = _in_turn(parts, comm, activity, untimed + steps, pace)[untimed:]
        at_once = _steps(parts, comm, untimed + steps)[untimed:]
    alone = _table(comm, own, "alone")
    seconds = alone[:, :, -1].mean(1)  # NaN of those that had no turn
    sound = seconds <= SLOW * lower_median(seconds[~np.isnan(seconds)])
    step = breakdown(alone[sound].reshape(1, -1, len(COLUMNS)))
    samples = step.step_seconds if sound.sum() < steps else seconds[sound]
    return Baseline(
        source="measured",
        workers=1,
        pixels=parts.data.pixels(parts.state.images_seen),
        measured_at=time.time(),
        origin="one worker alone, before this run's first step",
        step_seconds=float(step.step_seconds.mean()),
        standard_error=mean(samples.tolist()).error,
        samples=len(samples),
        parts=step.parts,
        ranks=seconds.tolist(),
        together=breakdown(_table(comm, at_once, "at once")).parts["compute"],
        communication=_sum_alone(parts, comm),
    )


def _in_turn(parts: Parts, comm: Comm, activity: Activity, count: int, step_seconds: float) -> NDArray[np.float64]:
    """This worker's steps, taken while the others of its node sleep for about as long; NaN of one that has no turn."""
    own = np.full((count, len(COLUMNS)), np.nan)
    turns = min(TURNS, 1 + max(comm.gather(comm.local_rank, "turns")))
    if comm.rank == 0:
        seconds = turns * count * step_seconds
        without = "; --metrics.baseline none leaves it out" if seconds > LONG_SECONDS else ""
        logger.info("measuring one worker alone, %d on a node in turn: about %.0f s%s", turns, seconds, without)
    for turn in range(turns):
        activity.beat()
        comm.meet("turn")
        if turn == comm.local_rank:
            with threads.aside(comm.threads):
                own = _steps(parts, comm, count)
        else:  # to wait for the others in a collective would keep Horovod's threads busy, on every core
            with threads.aside(threads.mine()):
                time.sleep(count * step_seconds)
    comm.meet("turn")
    return own


def _steps(parts: Parts, comm: Comm, count: int) -> NDArray[np.float64]:
    """(count, 4) seconds, see StepClock.take. The images are read anew: a decoder that rested has batches in store."""
    alone, batches = LocalReducer(parts.state.model), parts.data.training(parts.state.images_seen)
    parts.clock.restart()
    for _ in range(count):
        take_step(parts, comm, batches, alone, lr=parts.schedule(parts.epoch))
    return parts.clock.take()


def _sum_alone(parts: Parts, comm: Comm) -> float:
    """Seconds of one sum of all gradients while nothing else goes on, the median of a few."""
    seconds = []
    for _ in range(SUMS):
        comm.meet("sum alone")
        parts.reducer.start()
        began = time.perf_counter()
        parts.reducer.wait()
        seconds.append(time.perf_counter() - began)
    by_rank = comm.table(np.array(seconds[1:]), "sums")
    return float(np.median(by_rank.min(0)))  # the last one to begin had nobody to wait for


def _table(comm: Comm, own: NDArray[np.float64], name: str) -> NDArray[np.float64]:
    """(workers, steps, 4)"""
    return comm.table(own.flatten(), f"baseline: {name}").reshape(comm.size, *own.shape)


@contextmanager
def _unchanged(state: TrainState) -> Iterator[None]:
    """Within, steps may be taken that nobody will know of."""
    kept = io.BytesIO()
    torch.save(state.tensors(), kept)  # in the host's memory, for the device may have none to spare
    yield
    state.load(form.tensors(kept.getvalue(), torch.device("cpu")))
