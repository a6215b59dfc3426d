"""A worker's place in the next set of workers, agreed on at horovodrun's elastic driver before Horovod connects any.

The driver answers `GET /rank_and_size/HOST:SLOT` once every worker of the last set has asked or ended; then it has
chosen the hosts of the next one and started workers on new ones. Horovod takes the first answer and connects: a worker
that fails to come up, loads torch for longer than Gloo waits, or has a long step to end, then aborts all the others
from within C++. So workers meet at the driver first. Whoever has an answer leaves word with it, which it keeps until
the next round; when all have, rank 0 lets them connect, and else they ask again: that waits without limit for those who
are still on their way, or for news that they have failed. Who trains on meanwhile says so, and is told when to stop.
"""

import http.client
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass

from hvdtrain.errors import EnvironmentFault, Preempted, Stalled
from hvdtrain.log import duration, logger

ADDRESS, PORT = "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT"
QUESTION = "/rank_and_size/"
VARIABLES = (  # in the order of the driver's answer
    *("HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    *("HOROVOD_CROSS_RANK", "HOROVOD_CROSS_SIZE"),
)
WORD, ALL = "/meeting/", "all"
CONNECT, STOP, STAY, AGAIN = "connect", "stop", "stay", "again"
COME_SECONDS = 3.0  # that rank 0 waits for the others of its round
WORD_SECONDS = 10.0  # that they wait for its word; far more, for it must not let some of them connect alone
FIRST_LOOK_SECONDS, LOOK_SECONDS = 0.01, 0.1
TELL_SECONDS = 10.0  # of waiting, after which a person is told


class Removed(Exception):
    """The driver has no place for this worker: its host is no longer wanted, or has failed."""


@dataclass(frozen=True)
class Driver:
    """horovodrun, and who this worker is to it."""

    address: str
    port: int
    host: str
    slot: int

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> "Driver":
        """
        Raises:
            EnvironmentFault: no elastic horovodrun started this process.
        """
        try:
            if environment["HOROVOD_ELASTIC"] != "1":
                raise KeyError
            names = (ADDRESS, PORT, "HOROVOD_HOSTNAME", "HOROVOD_LOCAL_RANK")
            address, port, host, slot = (environment[name] for name in names)
            return cls(address, int(port), host, int(slot))
        except (KeyError, ValueError):
            raise EnvironmentFault(
                "elastic.enabled: expected horovodrun --gloo with --min-np and --host-discovery-script to start the"
                " workers",
                remedy="hvdtrain-discover --help",
                everyones=True,
            ) from None

    def ask(self) -> str:
        """A place, six numbers between commas. Waits, without end, for every worker of the last set.

        Raises:
            OSError: the driver does not answer.
            HTTPException: likewise.
        """
        answer = self._request("GET", f"{QUESTION}{self}")
        if answer is None:
            raise http.client.HTTPException("no such question")
        return answer

    def leave(self, key: str, word: str) -> None:
        """Leave word for the others of this round, until the next.

        Raises:
            OSError, HTTPException: the driver does not answer.
        """
        self._request("PUT", WORD + key, word)

    def left(self, key: str) -> str | None:
        """What somebody of this round has left; None where nobody has.

        Raises:
            OSError, HTTPException: the driver does not answer.
        """
        return self._request("GET", WORD + key)

    def __str__(self) -> str:
        return f"{self.host}:{self.slot}"

    def _request(self, method: str, path: str, body: str = "") -> str | None:
        connection = http.client.HTTPConnection(self.address, self.port)
        with closing(connection):
            connection.request(method, path, body)
            answer = connection.getresponse()
            text = answer.read().decode()
        if answer.status == http.HTTPStatus.NOT_FOUND:
            return None
        if answer.status != http.HTTPStatus.OK:
            raise http.client.HTTPException(f"status {answer.status}")
        return text


@dataclass(frozen=True)
class Place:
    answer: str  # the driver's
    members: tuple[str, ...]  # of the set of workers, by rank


class Asking:
    """Asks for a place in the background, with those who do so too; a worker that trains meanwhile loses nothing."""

    def __init__(self, driver: Driver, *, members: Sequence[str] | None = None) -> None:
        """
        Args:
            members: those with whom this worker trains on meanwhile, by rank; None where it only waits.
        """
        self._driver, self._trains_with = driver, members
        self._place, self._word = Place("", ()), ""
        self._failed: Exception | None = None
        self._over = threading.Event()
        threading.Thread(target=self._ask, name="asking for a place", daemon=True).start()

    @property
    def over(self) -> bool:
        """Whether `take` would not wait."""
        return self._over.is_set()

    @property
    def stays(self) -> bool:
        """Whether it came out that everybody who trains goes on with the same workers."""
        return self.over and self._word == STAY

    def train_no_longer(self) -> None:
        """This worker only waits from now on."""
        self._trains_with = None

    def take(self, *, wait_seconds: float, asked_to_leave: Callable[[], str]) -> Place | None:
        """The place, which is in this process's environment from then on; None where others were training: who has
        stopped then asks anew.

        Args:
            wait_seconds: from now on, for everybody, all rounds together.
            asked_to_leave: the signal that asks this worker to leave, or nothing.

        Raises:
            Removed: there is no place for this worker.
            Preempted: a signal came while it waited.
            Stalled: somebody neither asked nor ended in time.
            EnvironmentFault: horovodrun has gone.
        """
        self._wait(wait_seconds, asked_to_leave)
        if isinstance(self._failed, Removed):
            raise self._failed
        if self._failed:
            raise EnvironmentFault(
                f"horovodrun at {self._driver.address}:{self._driver.port} does not answer: {self._failed}",
                remedy="what horovodrun said before has the cause; --resume auto goes on",
            )
        if self._word != CONNECT:
            return None
        os.environ.update(zip(VARIABLES, self._place.answer.split(","), strict=True))
        return self._place

    def _ask(self) -> None:
        try:
            self._word = AGAIN
            while self._word == AGAIN:
                answer = self._driver.ask()
                if answer.startswith("-1"):
                    raise Removed
                rank, size = (int(number) for number in answer.split(",")[:2])
                self._word, *members = self._meet(rank, size).split()
                self._place = Place(answer, tuple(members))
        except (OSError, http.client.HTTPException, ValueError, Removed) as error:
            self._failed = error
        self._over.set()

    def _meet(self, rank: int, size: int) -> str:
        """Rank 0's word, and the names of all."""
        before = self._trains_with
        self._driver.leave(str(rank), f"{self._driver} {'waits' if before is None else 'trains'}")
        if rank == 0:
            word = self._decide(size, before)
            self._driver.leave(ALL, word)
            return word
        return self._left(ALL, time.monotonic() + WORD_SECONDS) or AGAIN

    def _decide(self, size: int, before: Sequence[str] | None) -> str:
        until = time.monotonic() + COME_SECONDS
        came = [self._left(str(rank), until) for rank in range(size)]
        if None in came or time.monotonic() > until:  # whoever was held up this long may have been given up
            return AGAIN
        members, states = zip(*(one.split() for one in came if one), strict=True)
        trains = states.count("trains")
        word = CONNECT if not trains else STAY if trains == size and members == tuple(before or ()) else STOP
        return " ".join((word, *members))

    def _left(self, key: str, until: float) -> str | None:
        """What somebody leaves before that time."""
        wait = FIRST_LOOK_SECONDS
        while (found := self._driver.left(key)) is None and time.monotonic() < until:
            time.sleep(wait)
            wait = min(2 * wait, LOOK_SECONDS)
        return found

    def _wait(self, wait_seconds: float, asked_to_leave: Callable[[], str]) -> None:
        began, told = time.monotonic(), False
        while not self._over.wait(LOOK_SECONDS):
            waited = time.monotonic() - began
            if name := asked_to_leave():
                raise Preempted(
                    f"stopped by {name} after waiting {duration(waited)} for other workers or hosts; horovodrun does"
                    " so, too, when there are less than --min-np for longer than --elastic-timeout",
                    remedy="--resume auto goes on from there",
                    everyones=False,
                )
            if waited >= wait_seconds:
                raise Stalled(
                    f"no place among the workers within elastic.wait_seconds = {wait_seconds:g}: one of those before"
                    " has neither come nor ended, or horovodrun waits for hosts",
                    remedy="--elastic-timeout ends horovodrun's waiting for hosts; ps on the hosts shows who hangs",
                )
            if waited >= TELL_SECONDS and not told:
                told = True
                logger.info("waiting for the others, or for hosts; at most %s more", duration(wait_seconds - waited))


def place(
    driver: Driver, asking: Asking | None = None, *, wait_seconds: float, asked_to_leave: Callable[[], str]
) -> Place:
    """That of a worker that does not train, or no longer, in a set whose members may all connect now.

    Args:
        asking: what it began while it trained.
        wait_seconds, asked_to_leave: see `Asking.take`, which says what is raised.
    """
    asking = asking or Asking(driver)
    asking.train_no_longer()
    while not (found := asking.take(wait_seconds=wait_seconds, asked_to_leave=asked_to_leave)):
        asking = Asking(driver)
    return found
