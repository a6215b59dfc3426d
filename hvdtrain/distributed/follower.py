"""What another worker knows of rank 0, and whose turn it is to speak when that has gone."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, replace

from hvdtrain.distributed.chief import NEWS_SECONDS, Beat, Worker
from hvdtrain.distributed.verdict import Sight, Verdict, judge, lost_peers
from hvdtrain.distributed.wire import Garbage, Link

PATIENCE_SECONDS = 5.0  # longer than rank 0, which can name the cause where it lives and has waited for stacks
TURN_SECONDS = 5.0


class Follower:
    """Its part in the watch."""

    def __init__(
        self, rank: int, workers: Sequence[Worker], now: float, *, silence_seconds: float, link: Link | None
    ) -> None:
        """
        Args:
            link: None where rank 0 cannot be reached; then nobody is watched from here.
        """
        self._rank, self._workers = rank, workers
        self._link, self._silence_seconds = link, silence_seconds
        self._heard, self._first = now, Beat(0, "start-up", "", 0.0)
        self._over = self._lost = False
        self._told = ""
        self.verdict = ""
        """Rank 0's, once there is one."""
        self.blamed: list[int] = []
        """Ranks that it blames."""

    def look(self, now: float) -> None:
        """Hear what rank 0 has said meanwhile."""
        if self._over or not self._link:
            return
        for message in self._link.look():
            self._heard = now
            self._told = str(message.get("news", self._told))
            if "verdict" in message:
                blamed = message.get("blamed")
                self.verdict, self.blamed = str(message["verdict"]), blamed if isinstance(blamed, list) else []
            self._over = self._over or "bye" in message
            if "step" in message:
                with suppress(Garbage):
                    self._first = Beat.of(message)
        if self._over:
            self._link.close()
        self._lost = not self._link.open

    def beat(self, now: float, own: Beat) -> Verdict | None:
        """Every `beat_seconds`: say how it goes, and what is to be done about rank 0."""
        if self._over or not self._link:
            return None
        self._link.send(**asdict(own))
        me = self._sight(self._rank, own, silent_seconds=0.0)
        return judge([self._rank_0(now), me], self._silence_seconds + PATIENCE_SECONDS)

    def news(self, now: float) -> str:
        """Who has gone, or seems to have, as far as rank 0 said before it went itself."""
        if self._over or self._told or not self._link:
            return self._told
        return lost_peers([self._rank_0(now)], NEWS_SECONDS)

    def done(self) -> None:
        if self._link:
            self._link.send(done=True)

    def leave(self, *, orderly: bool, wait_seconds: float) -> None:
        """
        Args:
            orderly: say goodbye, so that nobody is alarmed.
        """
        if not self._link:
            return
        if orderly and not self._over:
            self._link.send(bye=True)
            self._link.finish(wait_seconds)
        else:
            self._link.close()

    def _rank_0(self, now: float) -> Sight:
        return self._sight(0, self._first, silent_seconds=now - self._heard, lost=self._lost)

    def _sight(self, rank: int, beat: Beat, *, silent_seconds: float, lost: bool = False) -> Sight:
        """Whether steps get done is rank 0's to judge, so nobody is seen to be idle here."""
        worker, told = self._workers[rank], replace(beat, idle_seconds=0.0)
        return Sight(rank, worker.host, worker.pid, silent_seconds, lost, **asdict(told))


def turn_seconds(rank: int, workers: Sequence[Worker]) -> float:
    """How long this one leaves it to others to say that rank 0 has gone: launchers end everyone as soon as the first
    has left, so where that one lives only one speaks. Rank 1 is first, unless its host has gone with rank 0's."""
    elsewhere = [other for other, worker in enumerate(workers) if worker.host != workers[0].host]
    return TURN_SECONDS * (0 if rank == 1 else 1 if rank in elsewhere[:1] else 2)
