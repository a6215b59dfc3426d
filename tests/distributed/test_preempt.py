"""A signal asks, and all workers come to the same answer at the same point."""

import os
import signal
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.preempt import AGREE_SECONDS, MOST_POINTS, Agreement, StopRequest


class Together(SoloComm):
    """A worker of several whose others say what `others` says."""

    def __init__(self, others: list[list[float]], signals: list[str]) -> None:
        self.size = 1 + len(others)
        self.others, self.signals, self.asked = others, signals, 0

    def sum(self, values: list[float], name: str) -> list[float]:
        self.asked += 1
        return [sum(column) for column in zip(values, *self.others, strict=True)]

    def gather(self, value: str, name: str) -> list[str]:  # type: ignore[override]
        return [value, *self.signals]


def request(name: str = "") -> StopRequest:
    asked = StopRequest()
    asked.signal = name
    return asked


def test_nobody_asked() -> None:
    agreement = Agreement(SoloComm(), request())
    assert not agreement.now()
    assert agreement.signals == ()


def test_one_that_was_asked_is_enough() -> None:
    agreement = Agreement(Together([[1.0, 0.0], [0.0, 0.0]], ["SIGUSR2", ""]), request())
    assert agreement.now()
    assert agreement.signals == ("SIGUSR2",)


def test_every_signal_is_told_once() -> None:
    agreement = Agreement(Together([[1.0, 0.0], [1.0, 0.0]], ["SIGUSR2", "SIGTERM"]), request("SIGUSR2"))
    assert agreement.now()
    assert agreement.signals == ("SIGTERM", "SIGUSR2")


@pytest.mark.parametrize(
    ("mine", "theirs", "stay"),
    [
        *(("", "SIGTERM", True), ("SIGTERM", "", True)),
        ("SIGTERM", "SIGTERM", False),  # the launcher ends them all
        *(("", "SIGUSR1", False), ("SIGTERM", "SIGUSR2", False)),  # a batch system speaks to a job, whoever it tells
    ],
)
def test_term_to_some_is_about_their_hosts(mine: str, theirs: str, stay: bool) -> None:
    agreement = Agreement(Together([[float(bool(theirs)), 0.0]], [theirs]), request(mine))
    assert not agreement.some_stay
    assert agreement.now()
    assert agreement.by_rank == (mine, theirs)
    assert agreement.some_stay == stay


@pytest.mark.parametrize(("point_seconds", "points"), [(0.1, 20), (0.001, MOST_POINTS), (0.8, 2), (60.0, 1)])
def test_workers_agree_about_every_two_seconds(point_seconds: float, points: int) -> None:
    now = 0.0
    comm = Together([], [])
    agreement = Agreement(comm, request(), clock=lambda: now)
    asked_at = []
    for point in range(3 * points + 3):
        now += point_seconds
        before = comm.asked
        agreement.reached()
        if comm.asked > before:
            asked_at.append(point)
    assert asked_at[:2] == [0, points]
    assert points * point_seconds <= AGREE_SECONDS or points == 1


def test_slow_points_after_many_fast_ones_do_not_wait_for_their_number() -> None:
    """As steps of seconds after batches of an evaluation."""
    now = 0.0
    comm = Together([], [])
    agreement = Agreement(comm, request(), clock=lambda: now)
    for _ in range(300):
        now += 0.01
        agreement.reached()
    agreement.afresh()
    before = comm.asked
    now += 4.0
    agreement.reached()
    assert comm.asked == before + 1
    now += 4.0
    agreement.reached()
    assert comm.asked == before + 2


@given(st.lists(st.integers(0, 100_000), min_size=2, max_size=8))
def test_workers_of_any_speed_agree_at_the_same_points(milliseconds: list[int]) -> None:
    """Each has a clock of its own; what it counts by is everybody's."""
    chosen = set()
    for rank, own in enumerate(milliseconds):
        now = 0.0
        others = [[0.0, float(other)] for i, other in enumerate(milliseconds) if i != rank]
        comm = Together(others, [""] * len(others))
        agreement = Agreement(comm, request(), clock=lambda: now)  # noqa: B023 it is called in this round only
        now = own / 1000
        agreement.reached()
        points = 1
        while comm.asked == 1:
            agreement.reached()
            points += 1
        chosen.add(points)
    assert len(chosen) == 1


def test_it_may_be_agreed_more_often() -> None:
    now = 0.0
    agreed = []
    for every in (2.0, 0.25):
        comm = Together([], [])
        agreement = Agreement(comm, request(), every_seconds=every, clock=lambda: now)  # noqa: B023 it is called in this round only
        for _ in range(1001):
            now += 0.01
            assert not agreement.reached()
        agreed.append(comm.asked)
    assert agreed == [1 + 1000 // 200, 1 + 1000 // 25]


@pytest.mark.parametrize(
    ("asked", "for_good", "stays"), [(False, True, False), (True, False, False), (True, True, True)]
)
def test_a_signal_asks_for_a_while_and_once_asked_for_good(asked: bool, for_good: bool, stays: bool) -> None:
    before = signal.getsignal(signal.SIGUSR2)
    try:
        with StopRequest().heard(signal.SIGUSR2, for_good=for_good) as listening:
            if asked:
                os.kill(os.getpid(), signal.SIGUSR2)
            assert listening.signal == "SIGUSR2" * asked
        assert (signal.getsignal(signal.SIGUSR2) != before) == stays
    finally:
        signal.signal(signal.SIGUSR2, before)


@pytest.mark.parametrize("name", ["SIGUSR1", "SIGUSR2", "SIGTERM"])
def test_a_signal_sets_a_flag_and_a_second_one_kills_nobody(name: str) -> None:
    program = f"""
import os, signal
from hvdtrain.distributed.preempt import StopRequest
request = StopRequest().listen()
print(repr(request.signal))
for number in (signal.{name}, signal.SIGTERM, signal.SIGUSR1, signal.{name}):
    os.kill(os.getpid(), number)
print(request.signal)
import sys
print("torch" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert ran.stdout.split() == ["''", name, "False"]
