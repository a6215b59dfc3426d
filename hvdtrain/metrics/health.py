"""Whether a run still gets on."""

import time
from collections.abc import Callable


class Pulse:
    """When this worker last got on, told by one assignment a step and asked for by whoever wants to know."""

    def __init__(self, *, stuck_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            stuck_seconds: how long without a beat is too long; the first is due as long after now.
            clock: seconds, never going back.
        """
        self._stuck_seconds, self._clock = stuck_seconds, clock
        self._last = clock()

    def beat(self) -> None:
        """A step is done, or something else that takes its time."""
        self._last = self._clock()

    def health(self) -> tuple[bool, str]:
        """Whether the run gets on, and a line that says it."""
        idle = self._clock() - self._last
        if idle > self._stuck_seconds:
            return (
                False,
                f"stuck: nothing done for {idle:.0f} s, more than metrics.stuck_seconds = {self._stuck_seconds:g}",
            )
        return True, f"getting on: last step or other work done {idle:.1f} s ago"
