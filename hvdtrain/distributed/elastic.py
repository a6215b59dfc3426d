"""One set of workers after the other: a worker's life between the changes that horovodrun's elastic driver makes.

Horovod's elastic API finds out that workers were lost or that hosts came, and starts itself again (`run_fn`); what is
trained, and from where it goes on, is the caller's.
"""

import gc
import os
from collections.abc import Callable
from typing import Protocol

from hvdtrain.distributed import connections, rendezvous
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.answering import Answering
from hvdtrain.distributed.comm import Comm, HorovodComm
from hvdtrain.distributed.rendezvous import Asking, Driver, Place, Removed
from hvdtrain.distributed.topology import Topology, from_environment
from hvdtrain.errors import PeerLost
from hvdtrain.log import logger


class WorkersChange(Exception):
    """Hosts came, or some are about to go: all workers stop at the same step, and meet again in another number."""


class Hosts(Protocol):
    def check(self) -> None:
        """Whether hosts have come or gone, and whoever works there is ready. Collective.

        Raises:
            WorkersChange: so it is.
        """

    def check_at_the_end(self) -> None:
        """Likewise, but those who are on their way are waited for: they would find nobody. All workers get one answer.

        Raises:
            WorkersChange: some are.
        """


def through_changes(
    live: Callable[[Comm, Topology, Hosts], None],
    activity: Activity,
    *,
    wait_seconds: float,
    asked_to_leave: Callable[[], str],
) -> None:
    """Call `live` for each set of workers that this worker is one of, until it returns.

    It may raise WorkersChange, or PeerLost, after which it is called anew with those that are there then.

    Args:
        wait_seconds: how long the others may keep this worker waiting for its place.
        asked_to_leave: the signal that asks this worker to leave, or nothing.

    Raises:
        EnvironmentFault: no elastic horovodrun has started this worker, or it has gone.
        Stalled: there is no place in time.
        Preempted: a signal came while this worker waited for its place.
    """
    driver = Driver.of(os.environ)
    import horovod.torch as hvd
    from horovod.common.elastic import State, run_fn
    from horovod.common.exceptions import HorovodInternalError, HostsUpdatedInterrupt

    class News(State):  # type: ignore[misc]
        """What rank 0 hears of hosts. Weights and the like are kept elsewhere: saving and restoring are no-ops."""

        comm: HorovodComm
        place: Place
        asking: Asking | None = None
        some_are_told = False

        def __init__(self) -> None:
            super().__init__(self._rank_0s, lambda: self.comm.rank)

        def check(self) -> None:
            """Training goes on while new workers load what they need, and if they fail, as if nothing had been."""
            if self.asking is None:
                try:
                    self.check_host_updates()
                except HostsUpdatedInterrupt:
                    self.asking, self.some_are_told = Asking(driver, members=self.place.members), False
                return
            mine = [float(self.asking.over), float(self.asking.stays)]
            over, stays = self.comm.sum(mine, "asking for places")
            if stays == self.comm.size:
                self.asking = None
            elif over > stays or self.some_are_told:  # whoever has not heard it asks on, for ever if nobody else did
                raise WorkersChange
            self.some_are_told = over > 0

        def check_at_the_end(self) -> None:
            if self.asking:
                raise WorkersChange

        def take_place(self) -> Place:
            asking, self.asking = self.asking, None
            self.place = rendezvous.place(driver, asking, wait_seconds=wait_seconds, asked_to_leave=asked_to_leave)
            return self.place

        def on_reset(self) -> None:
            """Horovod's own forgets what it was told while workers met: those hosts it would never take in."""

        def save(self) -> None: ...

        def restore(self) -> None: ...

        def sync(self) -> None: ...

        def _rank_0s(self, value: object) -> object:
            return self.comm.broadcast_object(value, "hosts")

    def in_this_set(news: News) -> None:
        topology = from_environment(os.environ)
        news.comm = HorovodComm(topology, activity=activity)
        try:
            live(news.comm, topology, news)
        except PeerLost as error:
            logger.warning("%s; going on with those that are left", error)
            raise HorovodInternalError(str(error)) from error
        except WorkersChange as change:
            raise HostsUpdatedInterrupt(skip_sync=False) from change

    answering: Answering | None = None

    def meet_again() -> None:
        nonlocal answering
        activity.phase = "start-up"  # what the set before was doing when it ended is over
        gc.collect()  # what the set before has left: a network, pictures decoded ahead
        hvd.shutdown()
        connections.hang_up(news.comm.connections)  # else who has not noticed yet waits for Gloo's time to be over
        with activity.doing("meeting other workers"):
            answering = answering or Answering(driver)
            answering.place = news.take_place().answer

    news = News()
    try:
        news.take_place()
        run_fn(in_this_set, meet_again)(news)
    except Removed:
        logger.warning("horovodrun has no place for %s[%d] any more: leaving", driver.host, driver.slot)
