"""Ends a job that would hang, and says who hangs.

Horovod waits for ever for a worker that is stopped, whose host has gone or that never comes to the sum. So every worker
has a thread that tells rank 0 every second or two, over a connection of its own, how it goes. Rank 0 judges
(verdict.py), tells everyone to write down where its threads are, says which worker it is, and leaves; launchers then
end the others.
"""

import os
import platform
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn

from hvdtrain import outcome
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.awake import Awake
from hvdtrain.distributed.chief import Beat, Chief, Worker, beat_seconds
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.follower import Follower, turn_seconds
from hvdtrain.distributed.hub import Hub
from hvdtrain.distributed.limits import needed
from hvdtrain.distributed.stacks import Stacks, in_time
from hvdtrain.distributed.verdict import Verdict, ranks_in_words
from hvdtrain.distributed.wire import Offer, connect
from hvdtrain.errors import PeerLost, Stalled
from hvdtrain.events import EventLog, Tail, records
from hvdtrain.log import logger

LOOK_SECONDS = 0.25  # between two looks at what came
ENTRY_LOOK_SECONDS = 0.02  # while workers come in
APART_SECONDS = 0.0005  # of one worker after the other: some systems let 128 wait to be let in, and turn others away
NEWS_WAIT_SECONDS = 2.0  # after a collective failed, for the reason
GOODBYE_SECONDS = 1.0
MOST_HOSTS = 4  # in a message
DONE_SECONDS = 3.0  # that rank 0 waits for the others' stacks
RECORD_SECONDS = 3.0  # for the event; a file system that does not answer may be why nothing moves
LEAVE_SECONDS = 5.0  # that the others leave rank 0 to speak; at the end of all, whatever else happens, everybody leaves
LAST_SECONDS = 30.0


class Watchdog:
    """Watches from entering to leaving the block. All workers enter; that is collective."""

    def __init__(
        self,
        comm: Comm,
        activity: Activity,
        *,
        silence_seconds: float,
        run_dir: Path | None,
        others_go_on: bool = False,
    ) -> None:
        """
        Args:
            silence_seconds: within which every worker has to be heard of, and a step to get done in training, or a
                batch in an evaluation. 0: no watch.
            run_dir: has the outcome, the events and, in logs, the stacks. None: it is nobody's run; the stacks go to
                standard error.
            others_go_on: only those leave who are blamed.
        """
        self._others_go_on, self._looked_on = others_go_on, False
        self._comm, self._activity = comm, activity
        self._silence_seconds, self._run_dir = silence_seconds, run_dir
        self._logs = run_dir / "logs" if run_dir else None
        self._awake, self._idle_seconds = Awake(), 0.0
        self._look_seconds = ENTRY_LOOK_SECONDS
        self._beat_seconds = beat_seconds(comm.size, silence_seconds)
        self._leaving = threading.Event()
        self._thread = threading.Thread(target=self._live, name="watchdog", daemon=True)
        self._workers: list[Worker] = []
        self._side: Chief | Follower

    def __enter__(self) -> "Watchdog":
        """
        Raises:
            PeerLost: another worker has gone.
        """
        if not self._silence_seconds:
            return self
        comm = self._comm
        self._stacks = Stacks(self._logs / f"rank-{comm.rank}.log" if self._logs else None, comm.rank)
        try:
            self._workers = comm.gather(Worker(platform.node(), os.getpid()), "watchdog: workers")
            self._side = self._lead() if comm.rank == 0 else self._follow()
        except BaseException:
            self._stacks.close()
            raise
        self._look_seconds = LOOK_SECONDS
        self._stacks.write_unless_called_within(self._timer_seconds)
        if not self._thread.is_alive():
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """
        Raises:
            PeerLost: the error was one, and here is who has gone.
        """
        if not self._silence_seconds:
            return
        news = self._news() if isinstance(error, PeerLost) else ""
        self._stop(orderly=error is None or isinstance(error, PeerLost))
        if news and isinstance(error, PeerLost):
            raise PeerLost(f"{error.args[0]}; {news}", remedy=error.remedy) from error

    def _lead(self) -> Chief:
        comm, workers, hub = self._comm, self._workers, None
        one_host = len({worker.host for worker in workers}) == 1
        if comm.size > 1:
            try:
                hub = Hub(comm.size, one_host=one_host)
            except OSError as error:
                logger.warning("the workers cannot be watched: this host cannot be listened on: %s", error.strerror)
        chief = self._side = Chief(workers, self._awake.seconds, silence_seconds=self._silence_seconds, hub=hub)
        self._thread.start()
        try:
            comm.broadcast_object(hub.offer if hub else None, "watchdog: address")
            reached = [0, *(rank for rank, came in enumerate(comm.gather(True, "watchdog: reached")) if rank and came)]
        except BaseException:
            self._stop(orderly=False)
            raise
        missing = [rank for rank in range(comm.size) if rank not in reached]
        if hub and missing:
            logger.warning("%s", _unreached(missing, workers, hub))
        chief.watch(reached, self._awake.seconds)
        return chief

    def _follow(self) -> Follower:
        nothing: Offer | None = None
        offer = self._comm.broadcast_object(nothing, "watchdog: address")
        if offer:
            time.sleep(self._comm.rank * APART_SECONDS)
        link = connect(offer, self._comm.rank) if offer else None
        try:
            self._comm.gather(link is not None, "watchdog: reached")
        except BaseException:
            if link:
                link.close()
            raise
        return Follower(
            self._comm.rank, self._workers, self._awake.seconds, silence_seconds=self._silence_seconds, link=link
        )

    def _live(self) -> None:
        next_beat = 0.0
        while not self._leaving.wait(self._look_seconds):
            now, verdict = self._go_on(), None
            self._side.look(now)
            if now >= next_beat:
                next_beat = now + self._beat_seconds
                self._stacks.write_unless_called_within(self._timer_seconds)
                verdict = self._side.beat(now, self._own_beat())
            if isinstance(self._side, Follower) and self._side.verdict:
                self._obey(self._side)
            if verdict and self._stays(verdict.ranks):
                self._look_on(verdict)
            elif verdict:
                self._end(verdict)

    def _go_on(self) -> float:
        """The time that counts. What the process slept through is no idleness either."""
        step = self._awake.look()
        self._idle_seconds = min(self._activity.idle_seconds, self._idle_seconds + step)
        return self._awake.seconds

    def _own_beat(self) -> Beat:
        activity = self._activity
        return Beat(activity.step, activity.phase, activity.collective, round(self._idle_seconds, 1))

    @property
    def _timer_seconds(self) -> float:
        """Before rank 0 ends the job, for it cannot tell a worker to write its stacks that hears nothing."""
        return max(self._silence_seconds - 2 * self._beat_seconds, self._silence_seconds / 2)

    def _news(self) -> str:
        deadline = time.monotonic() + NEWS_WAIT_SECONDS
        while not (news := self._side.news(self._awake.seconds)) and time.monotonic() < deadline:
            time.sleep(ENTRY_LOOK_SECONDS)
        return news

    def _stop(self, *, orderly: bool) -> None:
        self._leaving.set()
        if self._thread.is_alive():
            self._thread.join()
        self._side.leave(orderly=orderly, wait_seconds=GOODBYE_SECONDS)
        self._stacks.close()

    def _stays(self, blamed: Sequence[int]) -> bool:
        return self._others_go_on and self._comm.rank not in blamed

    def _look_on(self, verdict: Verdict) -> None:
        """The blamed leave; of those who are lost with their host Horovod tells, after a time of its own."""
        if self._looked_on:
            return
        self._looked_on = True
        message = f"{verdict.message}; the others go on without → {verdict.remedy_with(self._logs)}"
        if isinstance(self._side, Chief):
            self._side.tell_verdict(message, verdict.ranks)
            if run_dir := self._run_dir:
                in_time(RECORD_SECONDS, partial(self._record, run_dir, verdict))
        self._stacks.write(message)
        logger.warning("%s", message)

    def _obey(self, side: Follower) -> None:
        if not self._stays(side.blamed):
            self._leave_it_to_rank_0(side)
        self._stacks.write(side.verdict)
        side.verdict = ""

    def _end(self, verdict: Verdict) -> NoReturn:
        _leave_after(LAST_SECONDS)
        message = str(Stalled(verdict.message, remedy=verdict.remedy_with(self._logs)))
        if isinstance(self._side, Chief):
            began = time.monotonic()
            self._side.tell_verdict(message, verdict.ranks)
            self._stacks.write(message)
            self._side.wait_until_done(self._awake.seconds, DONE_SECONDS - (time.monotonic() - began))
            if run_dir := self._run_dir:
                in_time(RECORD_SECONDS, partial(outcome.tell, run_dir, Stalled.exit_code, message))
                in_time(RECORD_SECONDS, partial(self._record, run_dir, verdict))
        else:
            self._stacks.write(message)
            time.sleep(turn_seconds(self._comm.rank, self._workers))
        self._say(message)
        os._exit(Stalled.exit_code)

    def _leave_it_to_rank_0(self, side: Follower) -> NoReturn:
        _leave_after(LAST_SECONDS)
        self._stacks.write(side.verdict)
        side.done()
        time.sleep(LEAVE_SECONDS)
        os._exit(Stalled.exit_code)

    def _record(self, run_dir: Path, verdict: Verdict) -> None:
        """Into the events of a run that has begun; a file that this alone began would look like a run."""
        path = run_dir / "events.jsonl"
        if not path.exists():
            return
        seen = 0  # the images of the last record, which is the last that anybody knows
        for record in records(Tail(path).lines()):
            if record and isinstance(record.get("images_seen"), int):
                seen = record["images_seen"]
        step = self._activity.step
        with closing(EventLog(path)) as events:
            events.write("stalled", step=step, images_seen=seen, ranks=verdict.ranks, message=verdict.message)

    def _say(self, message: str) -> None:
        """As `hvdtrain.cli` does, but whoever holds the lock of Python's stderr cannot keep it back."""
        in_time(1.0, sys.stdout.flush)
        who = f"rank {self._comm.rank}: " if self._comm.size > 1 else ""
        with suppress(OSError):
            os.write(2, f"hvdtrain: {who}{message}\n".encode(errors="replace"))


def _unreached(missing: Sequence[int], workers: Sequence[Worker], hub: Hub) -> str:
    """In words, with what to do about it."""
    hosts = ", ".join(sorted({workers[rank].host for rank in missing})[:MOST_HOSTS])
    who = f"{ranks_in_words(missing)} on {hosts} cannot reach port {hub.offer.port} of {workers[0].host}"
    wanted = needed(len(workers))
    if hub.open_files < wanted:
        remedy = f"rank 0 may open {hub.open_files} files: ask for a limit (nofile) of {wanted} on {workers[0].host}"
    else:
        remedy = "let the workers' hosts talk to each other on all TCP ports"
    return f"{who}: their silence will go unnoticed → {remedy}"


def _leave_after(seconds: float) -> None:
    """Whatever the last acts wait for."""
    timer = threading.Timer(seconds, os._exit, [Stalled.exit_code])
    timer.daemon = True
    timer.start()
