"""A signal asks a run to leave, and the workers agree on the step after which they do.

The handler only sets a flag. Not every worker gets the signal, and none at the same step, so the flags are summed at
points of which every worker has the same number: about every two seconds, counted in points, which are the same
everywhere, and not by anybody's clock.
"""

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # torch takes seconds to load, in which a signal would kill
    from hvdtrain.distributed.comm import Comm

# Batch systems send USR2 where they are asked to, some sites USR1, and TERM where nobody has asked.
SIGNALS = (signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)
AGREE_SECONDS = 2.0
MOST_POINTS = 1000  # between two agreements


class StopRequest:
    """Whether this process has been asked to leave. It may be asked again and again."""

    def __init__(self) -> None:
        self.signal = ""
        """Name of the first one; empty while there was none."""

    def listen(self) -> "StopRequest":
        """From now on, for good: a worker that leaves must not be killed by a second signal on its way."""
        for number in SIGNALS:
            signal.signal(number, self._ask)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)  # held back while the program began: allocator.py
        return self

    @contextmanager
    def heard(self, *numbers: signal.Signals, for_good: bool) -> Iterator["StopRequest"]:
        """Within, these signals ask; before and after they do what they did.

        Args:
            for_good: once asked, they ask afterwards too: who has to say why all leave must not be killed on its way.
                The others may be, by a launcher that has seen the first one leave.
        """
        before = {number: signal.signal(number, self._ask) for number in numbers}
        try:
            yield self
        finally:
            for number, action in () if self.signal and for_good else before.items():
                signal.signal(number, action)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number).name


class Agreement:
    """Whether the workers leave: the same answer for all of them at the same point."""

    def __init__(
        self,
        comm: "Comm",
        request: StopRequest,
        *,
        every_seconds: float = AGREE_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Args:
            every_seconds: between two agreements, about.
            clock: seconds, never going back.
        """
        self._comm, self._request, self._clock, self._every = comm, request, clock, every_seconds
        self.afresh()
        self.signals: tuple[str, ...] = ()
        """What the workers were asked by, after the answer was yes."""
        self.by_rank: tuple[str, ...] = ()
        """Likewise, each worker; empty for one that was not asked."""

    @property
    def some_stay(self) -> bool:
        """Whether TERM, by which a host says that it is about to go, came to some of the workers only."""
        return self.signals == ("SIGTERM",) and not all(self.by_rank)

    def afresh(self) -> None:
        """Points of another kind begin, which may take longer: agree at the first of them."""
        self._last, self._points, self._next = self._clock(), 0, 1

    def reached(self) -> bool:
        """To be called at every point, be it a step or a batch of an evaluation. Collective at some of them."""
        self._points += 1
        return self._points >= self._next and self.now()

    def now(self) -> bool:
        """Agree at this very point. Collective."""
        passed = self._clock() - self._last
        milliseconds = round(1000 * passed / max(self._points, 1))  # whole: a sum that no order of adding changes
        asked, typical = self._comm.sum([float(bool(self._request.signal)), float(milliseconds)], "agreement")
        if asked:
            self.by_rank = tuple(self._comm.gather(self._request.signal, "stop"))
            self.signals = tuple(sorted({name for name in self.by_rank if name}))
        seconds = max(typical, 1.0) / 1000 / self._comm.size
        self._next = min(max(int(self._every / seconds), 1), MOST_POINTS)
        self._last, self._points = self._clock(), 0
        return bool(asked)
