"""Time that counts: that in which this process was able to look at its clock."""

import time
from collections.abc import Callable

MOST_SECONDS = 2.0  # between two looks, whatever the clock says; who looks four times a second is hardly later


class Awake:
    """A clock that stands still while the process is stopped, or its host asleep, so that nobody is blamed for that."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            clock: seconds, never going back.
        """
        self._clock, self._looked = clock, clock()
        self.seconds = 0.0
        """Until the last look."""

    def look(self) -> float:
        """Go on; the seconds since the last look that count."""
        now = self._clock()
        step = min(now - self._looked, MOST_SECONDS)
        self._looked = now
        self.seconds += step
        return step
