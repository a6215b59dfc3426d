"""What this worker is doing, for those who watch it: written by the thread that does it, read by any other."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

TRAINING, EVALUATING = "training", "evaluating"
UNITS = {TRAINING: "step", EVALUATING: "batch"}
"""Phases that must get on, and what has to be done in them again and again."""


class Activity:
    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: seconds, never going back.
        """
        self._clock = clock
        self._last = clock()
        self.step = 0
        """Optimiser steps done, or batches evaluated where nothing is trained."""
        self.phase = "start-up"
        """One of `UNITS`, which must not stop; or the name of something else that may take its time."""
        self.collective = ""
        """What it waits for the others in; empty while it does not."""

    @property
    def idle_seconds(self) -> float:
        """Since it last got on."""
        return self._clock() - self._last

    def beat(self) -> None:
        """It gets on: a step is done, or something else that takes its time."""
        self._last = self._clock()

    @contextmanager
    def doing(self, phase: str) -> Iterator[None]:
        """Within, it does something else than before; both ends are signs of life.

        What fails within leaves the phase as it is, for whoever tells what the worker was doing.
        """
        before, self.phase = self.phase, phase
        self.beat()
        yield
        self.phase = before
        self.beat()

    @contextmanager
    def waiting_in(self, collective: str) -> Iterator[None]:
        self.collective = collective
        try:
            yield
        finally:
            self.collective = ""
