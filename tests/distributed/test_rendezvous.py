"""A worker's place among the others, agreed on at Horovod's own driver while hosts come and workers fail."""

import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from hvdtrain.distributed import rendezvous
from hvdtrain.distributed.rendezvous import PORT, VARIABLES, Asking, Driver, Place, Removed
from hvdtrain.errors import EnvironmentFault, Preempted, Stalled

from .driver import LAUNCHED, Cluster, Start, until

COME_SECONDS = 0.5


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    monkeypatch.setattr(rendezvous, "COME_SECONDS", COME_SECONDS)


def nobody() -> str:
    return ""


def take(of: Driver, asking: Asking | None = None, *, wait_seconds: float = 20.0, signal: str = "") -> Place:
    return rendezvous.place(of, asking, wait_seconds=wait_seconds, asked_to_leave=lambda: signal)


class Workers:
    """Each waits for its place in a thread of its own."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self._pool = ThreadPoolExecutor(9)

    def come(self, name: str, asking: Asking | None = None) -> "Future[Place]":
        return self._pool.submit(take, self.cluster.driver(name), asking)

    def host_comes(self, name: str) -> None:
        self.cluster.hosts.slots[name] = 1
        until(lambda: self.cluster.elastic._host_manager.current_hosts.get_slots(name), "its discovery")

    def train(self, *names: str) -> dict[str, Asking]:
        """They ask for places, and do not wait."""
        return {name: Asking(self.cluster.driver(name), members=names) for name in names}


def places(*found: "Future[Place]") -> list[Place]:
    return [each.result(20) for each in found]


def members(*found: "Future[Place]") -> list[tuple[str, ...]]:
    return [place.members for place in places(*found)]


@pytest.fixture
def launched(start: Start) -> Callable[..., Workers]:
    """Workers that have begun to train together."""

    def begin(*, most: int = 9, **slots: int) -> Workers:
        workers = Workers(start(most=most, **slots))
        places(*(workers.come(name) for name in list(workers.cluster.started)))
        return workers

    return begin


def test_all_who_are_launched_connect(start: Start) -> None:
    workers = Workers(start(a=1, b=2))
    first = workers.come("a:0")
    time.sleep(0.1)
    assert not first.done()
    found = places(first, workers.come("b:0"), workers.come("b:1"))
    order = found[0].members
    assert sorted(order) == ["a:0", "b:0", "b:1"]
    assert {place.members for place in found} == {order}
    for name, place in zip(("a:0", "b:0", "b:1"), found, strict=True):
        rank, size, *_ = place.answer.split(",")
        assert (order[int(rank)], size) == (name, "3")


def test_the_place_is_in_the_environment(start: Start) -> None:
    place = take(start(a=1).driver("a:0"))
    assert ",".join(os.environ[name] for name in VARIABLES) == place.answer == "0,1,0,1,0,1"


def test_who_is_left_of_three_connects_at_once(launched: Callable[..., Workers]) -> None:
    workers = launched(a=1, b=1, c=1)
    workers.cluster.end("b:0", 1)
    both = members(workers.come("a:0"), workers.come("c:0"))
    assert both[0] == both[1]
    assert sorted(both[0]) == ["a:0", "c:0"]


def test_a_new_host_costs_those_who_train_nothing_and_waits_for_them(launched: Callable[..., Workers]) -> None:
    """It takes its time to load, and they take theirs for the step that they are in: longer than Gloo would wait."""
    workers = launched(a=1, b=1)
    workers.host_comes("c")
    training = workers.train("a:0", "b:0")
    until(lambda: "c:0" in workers.cluster.started, "its start")
    time.sleep(2 * COME_SECONDS)
    assert not any(asking.over for asking in training.values())

    new = workers.come("c:0")
    until(lambda: all(asking.over for asking in training.values()), "word of it")
    assert not any(asking.stays for asking in training.values())
    late = workers.come("a:0", training["a:0"])
    time.sleep(2 * COME_SECONDS)
    assert not new.done()
    assert not late.done()
    found = members(late, new, workers.come("b:0", training["b:0"]))
    assert sorted(found[0]) == ["a:0", "b:0", "c:0"]
    assert len(set(found)) == 1


def test_a_new_worker_that_fails_changes_nothing(launched: Callable[..., Workers]) -> None:
    workers = launched(a=1, b=1)
    order = workers.train("a:0", "b:0")
    until(lambda: all(asking.stays or asking.over for asking in order.values()), "an answer")
    names = order["a:0"]._place.members
    workers.host_comes("c")
    training = workers.train(*names)
    until(lambda: "c:0" in workers.cluster.started, "its start")
    workers.cluster.end("c:0", 1)
    until(lambda: all(asking.over for asking in training.values()), "word of it")
    assert all(asking.stays for asking in training.values())


def test_a_new_worker_that_fails_while_the_others_stop_is_not_waited_for(launched: Callable[..., Workers]) -> None:
    workers = launched(a=1, b=1)
    workers.host_comes("c")
    training = workers.train("a:0", "b:0")
    until(lambda: "c:0" in workers.cluster.started, "its start")
    workers.come("c:0")
    until(lambda: all(asking.over for asking in training.values()), "word of it")
    workers.cluster.end("c:0", 1)
    found = members(*(workers.come(name, asking) for name, asking in training.items()))
    assert [sorted(each) for each in found] == [["a:0", "b:0"]] * 2


def test_the_same_answer_with_another_worker_beside_is_another_set(launched: Callable[..., Workers]) -> None:
    """Rank 0 of two beside b is rank 0 of two beside c: c has to come up first."""
    workers = launched(a=1, b=1, most=2)
    first = workers.cluster.elastic._rank_assignments[0].hostname
    second = ({"a", "b"} - {first}).pop()
    workers.host_comes("c")
    workers.cluster.end(f"{second}:0", 1)
    left = workers.come(f"{first}:0")
    until(lambda: "c:0" in workers.cluster.started, "its start")
    time.sleep(2 * COME_SECONDS)
    assert not left.done()
    assert members(left, workers.come("c:0")) == [(f"{first}:0", "c:0")] * 2


def test_who_trained_and_lost_a_worker_waits_with_the_others(launched: Callable[..., Workers]) -> None:
    """Its question is on its way already, from when it trained."""
    workers = launched(a=1, b=1, c=1)
    training = workers.train("a:0", "b:0")
    time.sleep(0.1)
    workers.cluster.end("c:0", 1)
    found = members(*(workers.come(name, asking) for name, asking in training.items()))
    assert [sorted(each) for each in found] == [["a:0", "b:0"]] * 2


def test_nobody_connects_when_rank_0_was_held_up(
    launched: Callable[..., Workers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others may have given it up: all ask again."""
    workers, held = launched(a=1, b=1), threading.Event()
    left = Driver.left

    def slow(driver: Driver, key: str) -> str | None:
        if key == "0" and not held.is_set():
            held.set()
            time.sleep(1.5 * COME_SECONDS)
        return left(driver, key)

    monkeypatch.setattr(Driver, "left", slow)
    asked = []
    monkeypatch.setattr(Driver, "ask", lambda driver, ask=Driver.ask: asked.append(str(driver)) or ask(driver))
    members(workers.come("a:0"), workers.come("b:0"))
    assert sorted(asked) == ["a:0", "a:0", "b:0", "b:0"]


def test_a_worker_without_a_place_is_told_so(launched: Callable[..., Workers]) -> None:
    workers = launched(a=1, b=1)
    first = workers.cluster.elastic._rank_assignments[0].hostname
    other = ({"a", "b"} - {first}).pop()
    del workers.cluster.hosts.slots[other]
    until(lambda: not workers.cluster.elastic._host_manager.current_hosts.get_slots(other), "its going")
    stays, goes = workers.come(f"{first}:0"), workers.come(f"{other}:0")
    with pytest.raises(Removed):
        goes.result(20)
    assert members(stays) == [(f"{first}:0",)]


def test_it_waits_no_longer_than_it_may(start: Start) -> None:
    with pytest.raises(Stalled, match=r"within elastic.wait_seconds = 0.3: .*neither"):
        take(start(a=1, b=1).driver("a:0"), wait_seconds=0.3)


def test_a_signal_ends_the_waiting(start: Start) -> None:
    with pytest.raises(Preempted, match=r"stopped by SIGTERM after waiting .*--elastic-timeout"):
        take(start(a=1, b=1).driver("a:0"), signal="SIGTERM")


def test_a_driver_that_has_gone_is_no_wait(start: Start) -> None:
    cluster = start(a=1, b=1)
    cluster.elastic.stop()
    cluster.server._httpd.socket.close()  # server_close would join who waits there
    began = time.monotonic()
    with pytest.raises(EnvironmentFault, match=r"horovodrun at 127.0.0.1:\d+ does not answer"):
        take(cluster.driver("a:0"))
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    "missing", ["HOROVOD_ELASTIC", "HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT", "HOROVOD_HOSTNAME"]
)
def test_only_an_elastic_horovodrun_is_a_driver(missing: str) -> None:
    launched = {**LAUNCHED, PORT: "1"}
    Driver.of(launched)
    del launched[missing]
    with pytest.raises(EnvironmentFault, match="expected horovodrun --gloo with --min-np") as error:
        Driver.of(launched)
    assert error.value.everyones
