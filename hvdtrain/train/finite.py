"""Whether the numbers of a step are finite: told on all workers at the same step, by sums that are made anyway.

A loss that is not finite makes a number that travels with the gradients NaN (`Reducer.doubt`), and summed gradients are
the same on all workers: so each comes to the same answer alone.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Failed:
    step: int
    loss: torch.Tensor  # this worker's own, a scalar; finite where another's was not, or the gradient's norm


def answer_of(finite: torch.Tensor) -> Callable[[], bool]:
    """A boolean scalar, sent from its GPU at once: to read it waits for what was enqueued before it, and for nothing
    that was enqueued since."""
    if not finite.is_cuda:
        return lambda: bool(finite)
    here = torch.empty((), dtype=torch.bool, pin_memory=True).copy_(finite, non_blocking=True)
    sent = torch.cuda.Event()
    sent.record()

    def read() -> bool:
        sent.synchronize()
        return bool(here)

    return read


class Finite:
    """Answers, in the order of the steps. On a GPU an answer is waited for only where a step depends on it: the others
    are read when the next step is under way, which goes on meanwhile."""

    def __init__(self, *, certain: bool = True) -> None:
        """
        Args:
            certain: no step may be made whose numbers are not finite.
        """
        self.certain, self._later = certain, False
        self._open: deque[tuple[Callable[[], bool], Failed]] = deque()

    def allows(self, step: int, finite: torch.Tensor, loss: torch.Tensor) -> bool:
        """Whether to make the step, as far as that is known now.

        Args:
            finite: a boolean scalar on any device.
        """
        read = answer_of(finite)
        self._later = finite.is_cuda and not self.certain
        self._open.append((read, Failed(step, loss)))
        return self._later or read()

    def failed(self, *, now: bool) -> Failed | None:
        """The first step whose numbers were not finite, told once.

        Args:
            now: wait for the answer of the last step too.
        """
        while self._open:
            read, step = self._open[0]
            if self._later and not now and len(self._open) == 1:
                break
            self._open.popleft()
            if not read():
                return step
        return None

    def forget(self) -> None:
        self._open.clear()
