"""Where the time of a worker's steps goes, told by marks that cost no waiting.

    zero   the sum of the last step's gradients is there, on all workers at the same moment
           compute   the update by that sum
           rest      whatever has no name: metrics, reports, Python between the lines
           input     waiting for a batch      } once for each micro-batch
           compute   forward and backward     }
    ready  all gradients of this worker are on their way
           waiting for the slowest worker, then for what is left of the sum
    zero   of the next step

A mark is a reading of the host's clock on a CPU and an event in the stream on a GPU, read when it is reported: no step
waits for the device. Only spans are compared between workers, each from its own zero, so that clocks need not agree.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

COLUMNS = ("input", "compute", "ready", "total")


class Time(Protocol):
    """A source of marks."""

    def mark(self) -> Any: ...

    def between(self, begin: Any, end: Any) -> float:
        """Seconds; may wait until `end` has come about."""


class HostTime:
    def mark(self) -> float:
        return time.perf_counter()

    def between(self, begin: float, end: float) -> float:
        return end - begin


class CudaTime:
    """The time line of the current stream: a mark comes about when the work enqueued before it is done."""

    def mark(self) -> torch.cuda.Event:
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def between(self, begin: torch.cuda.Event, end: torch.cuda.Event) -> float:
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1000


def of(device: torch.device) -> Time:
    return CudaTime() if device.type == "cuda" else HostTime()


class StepClock:
    def __init__(self, time: Time) -> None:
        self._time = time
        self._done: list[_Marks] = []
        self.restart()

    def restart(self) -> None:
        """Now is zero, on all workers: to be called when they have just met."""
        self._marks = _Marks(self._time.mark())

    @contextmanager
    def spent_on(self, part: Literal["input", "compute", "pause"]) -> Iterator[None]:
        """Count the block as one part of the step under way. A pause is no training and is cut out of the step."""
        begin = self._time.mark()
        yield
        self._marks.spans.append((part, begin, self._time.mark()))

    def ready(self) -> None:
        """This worker has done its share of the step and begins to wait for the others'."""
        self._marks.ready = self._time.mark()

    def summed(self) -> None:
        """The step's sum is there: the next step begins."""
        self._marks.end = self._time.mark()
        self._done.append(self._marks)
        self._marks = _Marks(self._marks.end)

    def take(self) -> NDArray[np.float64]:
        """Seconds of the steps since the last call, (steps, 4) in the order of COLUMNS; `ready` and `total` are counted
        from zero. Waits for the device."""
        rows = [self._row(marks) for marks in self._done]
        self._done.clear()
        return np.array(rows, np.float64).reshape(-1, len(COLUMNS))

    def _row(self, marks: "_Marks") -> tuple[float, ...]:
        spent = {"input": 0.0, "compute": 0.0, "pause": 0.0}
        for part, begin, end in marks.spans:
            spent[part] += self._time.between(begin, end)
        ready, total = (self._time.between(marks.zero, mark) - spent["pause"] for mark in (marks.ready, marks.end))
        return spent["input"], spent["compute"], ready, total


class _Marks:
    """Of one step."""

    ready: Any
    end: Any

    def __init__(self, zero: Any) -> None:
        self.zero = zero
        self.spans: list[tuple[str, Any, Any]] = []
