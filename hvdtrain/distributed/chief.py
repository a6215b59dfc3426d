"""What rank 0 knows of each worker, and how it learns it."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from hvdtrain.distributed.hub import LOST, Hub
from hvdtrain.distributed.verdict import Sight, Verdict, judge, lost_peers
from hvdtrain.distributed.wire import Garbage

BEAT_SECONDS = 1.0
MOST_BEAT_SECONDS = 2.0  # half of what makes somebody doubt whether a worker lives
BEATS_A_SECOND = 512  # that rank 0 hears without being slower for it: a fiftieth of a core takes twice as many
NEWS_SECONDS = 5.0  # of silence that are worth telling once a collective has failed


@dataclass(frozen=True)
class Worker:
    host: str
    pid: int


def beat_seconds(size: int, silence_seconds: float) -> float:
    """From one beat of a worker of `size` to its next.

    Args:
        silence_seconds: within which every worker has to be heard of.

    >>> [beat_seconds(size, 300.0) for size in (2, 512, 768, 1024, 4096)], beat_seconds(1024, 5.0)
    ([1.0, 1.0, 1.5, 2.0, 2.0], 1.25)
    """
    return max(BEAT_SECONDS, min(size / BEATS_A_SECOND, MOST_BEAT_SECONDS, silence_seconds / 4))


@dataclass(frozen=True)
class Beat:
    """What a worker says every `beat_seconds`, see `Sight`."""

    step: int
    phase: str
    collective: str
    idle_seconds: float

    @classmethod
    def of(cls, message: dict[str, Any]) -> "Beat":
        """
        Raises:
            Garbage: it is none.
        """
        step, phase = message.get("step"), message.get("phase")
        collective, idle = message.get("collective"), message.get("idle_seconds")
        if not isinstance(phase, str) or not isinstance(collective, str):
            raise Garbage
        if not isinstance(step, int) or not isinstance(idle, int | float):
            raise Garbage
        return cls(step, phase, collective, float(idle))


@dataclass
class _Known:
    heard: float  # when
    beat: Beat
    watched: bool = False
    lost: bool = False


class Table:
    """All workers; `now` is by one clock, in seconds."""

    def __init__(self, workers: Sequence[Worker], now: float) -> None:
        self._workers = workers
        self._known = [_Known(now, Beat(0, "start-up", "", 0.0)) for _ in workers]

    def watch(self, rank: int, now: float) -> None:
        self._known[rank].watched, self._known[rank].heard = True, now

    def forget(self, rank: int) -> None:
        self._known[rank].watched = False

    def hear(self, rank: int, beat: Beat, now: float) -> None:
        """While rank 0 was stopped, whoever waited for it got on no further: idleness grows by its time, too."""
        known = self._known[rank]
        grown = known.beat.idle_seconds + now - known.heard
        known.beat = beat if beat.idle_seconds <= grown else replace(beat, idle_seconds=grown)
        known.heard = now

    def lose(self, rank: int) -> None:
        self._known[rank].lost = True

    def sights(self, now: float) -> list[Sight]:
        return [
            Sight(rank, worker.host, worker.pid, now - known.heard, known.lost, **vars(known.beat))
            for rank, (worker, known) in enumerate(zip(self._workers, self._known, strict=True))
            if known.watched
        ]


class Chief:
    """Rank 0's part in the watch."""

    def __init__(self, workers: Sequence[Worker], now: float, *, silence_seconds: float, hub: Hub | None) -> None:
        """
        Args:
            hub: None for a worker that is alone.
        """
        self._hub, self._silence_seconds = hub, silence_seconds
        self.table = Table(workers, now)
        self._waited_for: set[int] = set()

    def look(self, now: float) -> None:
        """Hear what the others have said meanwhile. Whoever sends what is no beat is cut off."""
        lost = False
        for rank, message in self._hub.look() if self._hub else ():
            if LOST in message:
                self.table.lose(rank)
                lost = True
            elif "bye" in message:
                self._drop(rank)
                self.table.forget(rank)
            else:
                try:
                    self.table.hear(rank, Beat.of(message), now)
                except (Garbage, OverflowError):
                    self._drop(rank)
                    self.table.lose(rank)
        if lost and self._hub:
            self._hub.tell(news=self.news(now))

    def beat(self, now: float, own: Beat) -> Verdict | None:
        """Every `beat_seconds`: what is to be done about what is known."""
        self.table.hear(0, own, now)
        sights = self.table.sights(now)
        if self._hub:
            self._hub.answer = {**asdict(own), "news": lost_peers(sights, NEWS_SECONDS)}
        return judge(sights, self._silence_seconds)

    def news(self, now: float) -> str:
        """Who has gone, or seems to have."""
        return lost_peers(self.table.sights(now), NEWS_SECONDS)

    def watch(self, ranks: Iterable[int], now: float) -> None:
        """From now on. Whose connection has ended meanwhile counts as gone."""
        for rank in ranks:
            self.table.watch(rank, now)

    def tell_verdict(self, message: str, blamed: Sequence[int]) -> None:
        if self._hub:
            self._waited_for = self._hub.tell(verdict=message, blamed=list(blamed))

    def wait_until_done(self, now: float, most_seconds: float) -> None:
        """Until all who were told the verdict, and still speak, have done what there is to be done."""
        waited_for = self._waited_for - {
            sight.rank for sight in self.table.sights(now) if sight.silent_seconds >= NEWS_SECONDS
        }
        deadline = time.monotonic() + most_seconds
        while self._hub and waited_for and (left := deadline - time.monotonic()) > 0:
            waited_for -= {rank for rank, said in self._hub.look(left) if "done" in said or LOST in said}

    def leave(self, *, orderly: bool, wait_seconds: float) -> None:
        """
        Args:
            orderly: say goodbye, so that nobody is alarmed.
        """
        if not self._hub:
            return
        if orderly:
            self._hub.tell(bye=True)
            self._hub.finish(wait_seconds)
        else:
            self._hub.close()

    def _drop(self, rank: int) -> None:
        if self._hub:
            self._hub.drop(rank)
