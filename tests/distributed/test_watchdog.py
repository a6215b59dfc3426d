"""Time that does not count, stacks, and what the watchdog leaves alone."""

import json
import socket
import threading
import time
from pathlib import Path

import pytest

from hvdtrain.distributed.activity import TRAINING, Activity
from hvdtrain.distributed.awake import MOST_SECONDS, Awake
from hvdtrain.distributed.chief import Beat, Chief, Table, Worker
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.follower import turn_seconds
from hvdtrain.distributed.stacks import Stacks, in_time
from hvdtrain.distributed.verdict import judge
from hvdtrain.distributed.watchdog import Watchdog
from hvdtrain.errors import PeerLost

from .test_verdict import SILENCE, sight

PATIENCE_SECONDS = 60.0  # of a test; nothing here takes a second


class Clock:
    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


def test_time_slept_through_does_not_count() -> None:
    clock = Clock()
    awake = Awake(clock)
    for _ in range(4):
        clock.seconds += 0.25
        awake.look()
    assert awake.seconds == 1.0
    clock.seconds += 3600
    assert awake.look() == MOST_SECONDS
    assert awake.seconds == 1.0 + MOST_SECONDS


def test_a_suspended_job_is_not_ended_when_it_goes_on(tmp_path: Path) -> None:
    """Neither for the others' silence nor for its own idleness; but what follows counts again."""
    clock, silence = Clock(), 8.0
    activity = Activity(clock)
    watchdog = Watchdog(SoloComm(), activity, silence_seconds=silence, run_dir=tmp_path)
    watchdog._awake = Awake(clock)
    chief = Chief([Worker("h1", 1), Worker("h1", 2)], 0.0, silence_seconds=silence, hub=None)
    chief.watch([0, 1], 0.0)
    activity.phase = TRAINING

    def goes_on(seconds: float) -> bool:
        clock.seconds += seconds
        now = watchdog._go_on()
        return chief.beat(now, watchdog._own_beat()) is None

    chief.table.hear(1, Beat(1, TRAINING, "numbers", 0.0), watchdog._awake.seconds)
    assert goes_on(1.0)
    assert goes_on(3600.0)
    assert activity.idle_seconds > 3600
    for _ in range(4):
        assert goes_on(1.0)
    assert not all(goes_on(1.0) for _ in range(4))


def test_who_waited_for_rank_0_while_that_was_stopped_is_not_blamed_for_it() -> None:
    """All the beats that came meanwhile are heard at one moment."""
    table = Table([Worker("h1", 1), Worker("h1", 2)], 0.0)
    table.watch(1, 0.0)
    for second in range(1, 60):
        table.hear(1, Beat(5, TRAINING, "numbers", float(second)), 1.0)
    assert [known.idle_seconds for known in table.sights(1.0)] == [1.0]
    table.hear(1, Beat(5, TRAINING, "numbers", 60.0), 2.0)
    assert [known.idle_seconds for known in table.sights(2.0)] == [2.0]
    table.hear(1, Beat(6, TRAINING, "numbers", 0.5), 3.0)
    assert [known.idle_seconds for known in table.sights(3.0)] == [0.5]


def test_the_turn_to_speak_goes_to_rank_1_or_to_another_host() -> None:
    workers = [Worker("h1", 0), Worker("h1", 1), Worker("h2", 2), Worker("h2", 3)]
    assert [turn_seconds(rank, workers) for rank in (1, 2, 3)] == [0.0, 5.0, 10.0]


def test_stacks_are_written_with_a_heading_and_again_by_the_timer(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "rank-3.log"
    stacks = Stacks(log, 3)
    assert stacks.write("nobody moves")
    assert "rank 3 CRITICAL nobody moves\n" in log.read_text()
    assert "test_stacks_are_written_with_a_heading" in log.read_text()
    stacks.write_unless_called_within(0.05)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while "Timeout (" not in log.read_text() and time.monotonic() < deadline:
        time.sleep(0.01)
    stacks.close()
    assert "Timeout (" in log.read_text()
    assert not stacks.write("the file is closed")


def test_what_never_ends_is_left_to_itself() -> None:
    never = threading.Event()
    assert not in_time(0.05, never.wait)
    never.set()
    assert in_time(PATIENCE_SECONDS, lambda: None)


def test_a_worker_alone_is_watched_without_a_socket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "create_server", None)
    with Watchdog(SoloComm(), Activity(), silence_seconds=9.0, run_dir=tmp_path):
        assert "watchdog" in {thread.name for thread in threading.enumerate()}
    assert "watchdog" not in {thread.name for thread in threading.enumerate()}
    with Watchdog(SoloComm(), Activity(), silence_seconds=0.0, run_dir=tmp_path):
        assert "watchdog" not in {thread.name for thread in threading.enumerate()}


def test_errors_pass_through(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvdtrain.distributed.watchdog.NEWS_WAIT_SECONDS", 0.1)
    for error in (KeyError("x"), PeerLost("a collective failed")):
        with (
            pytest.raises(type(error)) as raised,
            Watchdog(SoloComm(), Activity(), silence_seconds=9.0, run_dir=tmp_path),
        ):
            raise error
        assert raised.value is error


def test_stacks_without_a_log_are_one_piece_on_standard_error(capfd: pytest.CaptureFixture[str]) -> None:
    stacks = Stacks(None, 3)
    stacks.write_unless_called_within(0.05)  # nobody is alarmed after a suspension
    time.sleep(0.2)
    assert capfd.readouterr().err == ""
    assert stacks.write("somebody else says why")
    stacks.close()
    told = capfd.readouterr().err
    assert told.startswith("all threads of rank 3:\n")
    assert "test_stacks_without_a_log" in told
    assert "says why" not in told


def test_the_event_has_the_images_of_the_last_record_and_makes_no_run_of_none(tmp_path: Path) -> None:
    watchdog = Watchdog(SoloComm(), Activity(), silence_seconds=9.0, run_dir=tmp_path)
    verdict = judge([sight(0, idle_seconds=SILENCE)], SILENCE)
    assert verdict
    events = tmp_path / "events.jsonl"
    watchdog._record(tmp_path, verdict)
    assert not events.exists()
    events.write_text('{"time": 1, "event": "report", "step": 3, "images_seen": 96}\n')
    watchdog._activity.step = 4
    watchdog._record(tmp_path, verdict)
    record = json.loads(events.read_text().splitlines()[1])
    assert record["event"] == "stalled"
    assert (record["step"], record["images_seen"], record["ranks"]) == (4, 96, [0])
    assert record["message"] == verdict.message
