"""What comes of a step whose loss or gradient is not finite: the same on all workers."""

import math
from typing import Literal

from hvdtrain.distributed.comm import Comm
from hvdtrain.errors import NotFinite
from hvdtrain.train.record import Record
from hvdtrain.train.state import TrainState

Policy = Literal["stop", "skip", "rewind"]
REMEDY = "a smaller optim.base_lr or a longer warm-up; or --resume auto with --train.not_finite skip or rewind"


class GoBack(NotFinite):
    """To the last checkpoint, and on from there."""


class Doubt:
    def __init__(self, policy: Policy, *, most_skipped: int) -> None:
        """
        Args:
            most_skipped: steps that may be left out one after the other.
        """
        self._policy, self._most_skipped = policy, most_skipped
        self._last, self._in_a_row = -1, 0
        self._gone_back: set[int] = set()

    def settle(self, state: TrainState, comm: Comm, record: Record, *, now: bool) -> None:
        """After each step. Collective where one was not finite, and only there.

        Args:
            now: wait for the answer of this very step, which on a GPU may come with the next one.

        Raises:
            GoBack: to the last checkpoint.
            NotFinite: the run is to end.
        """
        failed = state.finite.failed(now=now)
        if failed is None:
            return
        step = failed.step
        losses = comm.gather(math.isfinite(float(failed.loss)), "not finite")
        ranks = [rank for rank, finite in enumerate(losses) if not finite]
        self._in_a_row = self._in_a_row + 1 if step == self._last + 1 else 1
        self._last = step
        ending = self._ending(step)
        action = "stop" if ending is not None else self._policy
        record.not_finite(state, step=step, what="loss" if ranks else "gradient", ranks=ranks, action=action)
        whose = f"the loss of rank {', '.join(map(str, ranks[:8]))}" if ranks else "the norm of the gradient"
        message = f"step {step}: {whose} is not finite"
        if ending is not None:
            raise NotFinite(message + ending, remedy=REMEDY)
        if self._policy == "rewind":
            self._gone_back.add(step)
            raise GoBack(message)

    def _ending(self, step: int) -> str | None:
        """Why the run is to end; None if it is not."""
        if self._policy == "skip" and self._in_a_row > self._most_skipped:
            return f", number {self._in_a_row} in a row: expected at most train.most_skipped = {self._most_skipped}"
        if self._policy == "rewind" and step in self._gone_back:
            return " again after going back: no passing fault of a machine, the run itself diverges"
        return "" if self._policy == "stop" else None
