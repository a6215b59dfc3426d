"""Who is blamed for what and in which words; time that does not count; and the wire, against whoever connects to it."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtrain.distributed.activity import TRAINING, Activity
from hvdtrain.distributed.awake import MOST_SECONDS, Awake
from hvdtrain.distributed.chief import Beat, Chief, Table, Worker
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.follower import Follower, turn_seconds
from hvdtrain.distributed.hub import LOST, MOST_STRANGERS, Hub
from hvdtrain.distributed.stacks import Stacks, in_time
from hvdtrain.distributed.verdict import Sight, judge, lost_peers
from hvdtrain.distributed.watchdog import Watchdog
from hvdtrain.distributed.wire import MOST_BYTES, Link, addresses, connect, line
from hvdtrain.errors import PeerLost

SILENCE = 300.0
PATIENCE_SECONDS = 60.0  # of a test; nothing here takes a second


def sight(rank: int, **more: object) -> Sight:
    """Trains, was heard of just now, and got on a moment ago."""
    sound = Sight(rank, f"h{rank // 2 + 1}", 100 + rank, 0.5, step=47, phase=TRAINING, idle_seconds=0.1)
    return replace(sound, **more)  # type: ignore[arg-type]


def stuck(rank: int, collective: str) -> Sight:
    return sight(rank, collective=collective, idle_seconds=SILENCE + rank)


def test_a_job_that_gets_on_is_left_alone() -> None:
    assert judge([sight(rank) for rank in range(4)], SILENCE) is None
    assert judge([sight(0, collective="gradients.0"), sight(1, silent_seconds=299.0)], SILENCE) is None
    assert judge([], SILENCE) is None


def test_who_is_silent_is_named_with_what_was_last_seen_and_what_the_others_wait_in() -> None:
    waiting = [sight(rank, collective="gradients.3", idle_seconds=400.0) for rank in (0, 1, 2)]
    verdict = judge([*waiting, sight(3, silent_seconds=301.0)], SILENCE)
    assert verdict
    assert verdict.ranks == [3]
    assert verdict.message == (
        "nothing was heard of rank 3 on h2 (process 103) for 5 min 1 s, last seen in training, step 47; "
        "ranks 0-2 wait in gradients.3"
    )
    assert "ssh h2 ps" in verdict.remedy
    assert "-p 103" in verdict.remedy


@pytest.mark.parametrize("phase", ["start-up", "evaluation", TRAINING])
def test_silence_counts_in_every_phase(phase: str) -> None:
    verdict = judge([sight(0), sight(1, phase=phase, silent_seconds=SILENCE)], SILENCE)
    assert verdict
    assert verdict.ranks == [1]
    assert f"last seen in {phase}, step 47" in verdict.message


def test_a_lost_connection_is_told_as_such() -> None:
    verdict = judge([sight(0), sight(1, silent_seconds=SILENCE, lost=True)], SILENCE)
    assert verdict
    assert verdict.message.startswith(
        "rank 1 on h1 (process 101) closed its connection, and nothing was heard of it for 5"
    )


def test_of_a_thousand_silent_workers_the_hosts_are_named() -> None:
    gone = [sight(rank, host=f"h{rank // 8}", silent_seconds=310.0) for rank in range(8, 1024)]
    verdict = judge([*(sight(rank) for rank in range(8)), *gone], SILENCE)
    assert verdict
    assert verdict.ranks == list(range(8, 1024))
    assert verdict.message == (
        "nothing was heard of 1016 workers for 5 min 10 s or longer: ranks 8-15 on h1, ranks 80-87 on h10, "
        "ranks 800-807 on h100, ranks 808-815 on h101 and 123 more"
    )


def test_a_thousand_workers_are_not_compared_with_each_other() -> None:
    class Alone(Sight):
        __slots__ = ()
        __hash__ = None  # type: ignore[assignment]

        def __eq__(self, other: object) -> bool:
            raise AssertionError("compared")

    sights = [Alone(rank, "h", rank, silent_seconds=SILENCE * (rank % 2)) for rank in range(1024)]
    verdict = judge(sights, SILENCE)
    assert verdict
    assert verdict.ranks == list(range(1, 1024, 2))


def test_who_holds_up_the_others_is_named() -> None:
    sights = [stuck(0, "gradients.3"), stuck(1, "gradients.3"), sight(2, idle_seconds=SILENCE + 1)]
    verdict = judge(sights, SILENCE)
    assert verdict
    assert verdict.ranks == [2]
    assert verdict.message == (
        "no step was done for 5 min 0 s: rank 2 on h2 (process 102) waits for nobody (training, step 47) and holds up "
        "the others: ranks 0, 1 wait in gradients.3"
    )
    assert "rank-2.log" in verdict.remedy


def test_workers_that_parted_are_named_by_collective() -> None:
    sights = [stuck(rank, "report" if rank == 1 else "gradients.3") for rank in range(8)]
    verdict = judge(sights, SILENCE)
    assert verdict
    assert verdict.ranks == list(range(8))
    assert verdict.message.endswith(
        "workers wait in different collectives: ranks 0, 2-7 wait in gradients.3; rank 1 waits in report"
    )


def test_where_all_have_come_the_network_is_to_blame() -> None:
    verdict = judge([stuck(rank, "gradients.3") for rank in range(8)], SILENCE)
    assert verdict
    assert "ranks 0-7 wait in gradients.3, where all that are watched have come" in verdict.message


def test_a_worker_alone_that_does_no_step() -> None:
    verdict = judge([sight(0, idle_seconds=SILENCE)], SILENCE)
    assert verdict
    assert verdict.message == (
        "no step was done for 5 min 0 s: rank 0 on h1 (process 100) does no step (training, step 47)"
    )


def test_silence_is_told_before_idleness_for_it_is_the_cause() -> None:
    verdict = judge([stuck(0, "gradients.3"), sight(1, silent_seconds=SILENCE, idle_seconds=SILENCE)], SILENCE)
    assert verdict
    assert verdict.ranks == [1]


def test_nobody_is_blamed_while_another_may_be_silent() -> None:
    """The last beat came after the last step, so that idleness is seen to last before silence is."""
    waiting = [stuck(0, "gradients.3"), sight(1, collective="gradients.3", silent_seconds=SILENCE - 0.5)]
    assert judge(waiting, SILENCE) is None
    verdict = judge([stuck(0, "gradients.3"), sight(1, silent_seconds=SILENCE)], SILENCE)
    assert verdict
    assert verdict.ranks == [1]


@pytest.mark.parametrize("phase", ["start-up", "evaluation", "checkpoint"])
def test_another_phase_may_take_its_time_and_others_may_wait_for_it(phase: str) -> None:
    """As those do that wait until rank 0 has written its checkpoint."""
    assert judge([sight(0, phase=phase, idle_seconds=9999.0), stuck(1, "end of the pause")], SILENCE) is None
    assert judge([sight(rank, phase=phase, idle_seconds=9999.0, collective="sum") for rank in (0, 1)], SILENCE) is None


def test_a_worker_that_waits_in_another_phase_is_no_excuse() -> None:
    verdict = judge([stuck(0, "gradients.3"), sight(1, phase="evaluation", collective="counts")], SILENCE)
    assert verdict
    assert "rank 0 waits in gradients.3; rank 1 waits in counts" in verdict.message


def test_many_collectives_are_cut_short_but_not_the_rarest() -> None:
    sights = [stuck(rank, f"c{min(rank // 2, 9)}" if rank < 20 else "last") for rank in range(21)]
    verdict = judge(sights, SILENCE)
    assert verdict
    assert verdict.message.endswith("; …; rank 20 waits in last")


def test_after_a_failed_collective_less_is_worth_telling() -> None:
    assert lost_peers([sight(0), sight(1)], 5.0) == ""
    assert "rank 1 on h1 (process 101) closed its connection" in lost_peers([sight(0), sight(1, lost=True)], 5.0)
    assert "nothing was heard of rank 1" in lost_peers([sight(0), sight(1, silent_seconds=6.0)], 5.0)


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


@contextmanager
def a_hub(size: int) -> Iterator[Hub]:
    """It serves while the block waits in `until`."""
    hub = Hub(size, one_host=True)
    try:
        yield hub
    finally:
        hub.close()


def joined(hub: Hub, *ranks: int) -> list[Link]:
    """Workers that have connected, as their processes would."""
    links: list[Link] = []
    for rank in ranks:
        thread = threading.Thread(target=lambda rank=rank: links.append(connect(hub.offer, rank)))  # type: ignore
        thread.start()
        until(hub, lambda: not thread.is_alive())  # noqa: B023
    assert all(links)
    return links


def until(hub: Hub, condition: object) -> list[tuple[int, dict[str, object]]]:
    said, deadline = [], time.monotonic() + PATIENCE_SECONDS
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline
        said += hub.look(0.01)
    return said


def heard(hub: Hub, rank: int, **message: object) -> bool:
    said: list[tuple[int, dict[str, object]]] = []
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (rank, message) not in said and time.monotonic() < deadline:
        said += hub.look(0.01)
    return (rank, message) in said


def raw(hub: Hub) -> socket.socket:
    return socket.create_connection((hub.offer.addresses[0], hub.offer.port), 5)


def ended(connection: socket.socket) -> bool:
    connection.setblocking(False)
    try:
        return connection.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def hello(hub: Hub, rank: object, token: str | None = None) -> bytes:
    offer = replace(hub.offer, token=hub.offer.token if token is None else token)
    return line({"rank": rank, "proof": offer.proof(f"rank {rank}")})


GARBAGE = {
    "random bytes": lambda hub: os.urandom(3000) + b"\n",
    "a line without an end": lambda hub: b"x" * (3 * MOST_BYTES),
    "a huge line": lambda hub: b'"' + b"x" * (3 * MOST_BYTES) + b'"\n',
    "another job's token": lambda hub: hello(hub, 1, token="0" * 32),
    "no proof": lambda hub: line({"rank": 1}),
    "a proof that is no text": lambda hub: line({"rank": 1, "proof": 5}),
    "half a character": lambda hub: b'{"rank": 1, "proof": "\\ud800"}\n',
    "the proof of another rank": lambda hub: line({"rank": 2, "proof": hub.offer.proof("rank 1")}),
    "no such rank": lambda hub: hello(hub, 7),
    "rank 0 itself": lambda hub: hello(hub, 0),
    "a rank that is no number": lambda hub: hello(hub, "1"),
    "no object": lambda hub: b"[1, 2]\n",
    "brackets": lambda hub: b"[" * MOST_BYTES + b"\n",
    "a number of many digits": lambda hub: b"9" * MOST_BYTES + b"\n",
    "HTTP": lambda hub: b"GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n",
}


@pytest.mark.parametrize("what", GARBAGE)
def test_a_stranger_is_cut_off_and_the_others_do_not_notice(what: str) -> None:
    with a_hub(3) as hub, raw(hub) as stranger:
        (link,) = joined(hub, 1)
        stranger.sendall(GARBAGE[what](hub))
        until(hub, lambda: ended(stranger))
        assert hub.connected == {1}
        link.send(step=1)
        assert heard(hub, 1, step=1)
        link.close()


def test_who_says_nothing_is_sent_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvdtrain.distributed.hub.STRANGER_SECONDS", 0.2)
    with a_hub(3) as hub, raw(hub) as silent, raw(hub) as slow:
        slow.sendall(hello(hub, 1)[:10])
        until(hub, lambda: ended(silent) and ended(slow))
        assert hub.connected == set()


def test_a_crowd_of_strangers_keeps_no_worker_out() -> None:
    with a_hub(3) as hub, ExitStack() as crowd:
        for _ in range(MOST_STRANGERS + 20):
            crowd.enter_context(raw(hub))
            hub.look()
        (link,) = joined(hub, 2)
        assert hub.connected == {2}
        link.close()


def test_a_slow_worker_is_heard_when_its_line_is_whole() -> None:
    with a_hub(2) as hub, raw(hub) as slow:
        for byte in hello(hub, 1):
            slow.sendall(bytes([byte]))
            hub.look()
        until(hub, lambda: hub.connected == {1})


def test_a_worker_that_reads_nothing_costs_no_memory_and_no_time() -> None:
    with a_hub(3) as hub:
        deaf, link = joined(hub, 1, 2)
        hub.answer = {"news": "x" * 1000}
        for _ in range(10_000):
            hub.tell(news="x" * 1000)
        assert all(len(channel._going) < 2 * MOST_BYTES for channel in hub._peers.values())
        link.send(step=1)
        assert heard(hub, 2, step=1)
        deaf.close()
        link.close()


def test_a_goodbye_arrives_before_the_end_of_its_connection() -> None:
    with a_hub(2) as hub:
        (link,) = joined(hub, 1)
        hub.answer = {"news": ""}
        link.send(step=1)
        assert heard(hub, 1, step=1)  # and the answer lies unread
        link.send(bye=True)
        thread = threading.Thread(target=link.finish, args=[PATIENCE_SECONDS])
        thread.start()
        assert heard(hub, 1, bye=True)
        hub.drop(1)
        thread.join()
        assert not link.open


def test_a_connection_that_breaks_is_told_once() -> None:
    with a_hub(2) as hub:
        (link,) = joined(hub, 1)
        link.close()
        assert heard(hub, 1, **{LOST: True})
        assert hub.look() == []


def test_what_is_no_beat_ends_a_connection_and_counts_as_lost() -> None:
    with a_hub(3) as hub:
        bad, good = joined(hub, 1, 2)
        chief = Chief([Worker("h", rank) for rank in range(3)], 0.0, silence_seconds=SILENCE, hub=hub)
        chief.watch(range(3), 0.0)
        bad.send(step="one")
        good.send(step=3, phase=TRAINING, collective="", idle_seconds=0.5)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not (hub.connected == {2} and chief.table.sights(1.0)[2].step == 3) and time.monotonic() < deadline:
            chief.look(1.0)
        assert [known.lost for known in chief.table.sights(1.0)] == [False, True, False]
        assert "rank 1" in chief.news(1.0)
        bad.close()
        good.close()


def test_only_this_job_s_rank_0_is_taken_for_it() -> None:
    with a_hub(2) as theirs, a_hub(2) as ours, ExitStack() as over:
        offer = replace(ours.offer, port=theirs.offer.port)
        found: list[Link | None] = []
        thread = threading.Thread(target=lambda: found.append(connect(offer, 1)))
        thread.start()
        until(theirs, lambda: not thread.is_alive())
        over.callback(thread.join)
        assert found == [None]


def test_addresses_of_this_host_are_such_as_others_may_reach() -> None:
    assert not [address for address in addresses() if address.startswith(("127.", "fe80", "::1"))]


def test_rank_0_that_has_gone_is_missed_a_little_later_than_it_would_miss_others() -> None:
    with a_hub(2) as hub:
        (link,) = joined(hub, 1)
        workers = [Worker("h1", 10), Worker("h2", 11)]
        follower = Follower(1, workers, 0.0, silence_seconds=8.0, link=link)
        own = Beat(3, TRAINING, "gradients.1", 99.0)
        assert follower.beat(8.5, own) is None
        verdict = follower.beat(13.5, own)
        assert verdict
        assert verdict.ranks == [0]
        assert "nothing was heard of rank 0 on h1 (process 10) for 14 s" in verdict.message
        assert "rank 1 waits in gradients.1" in verdict.message
        hub.tell(bye=True)
        while not follower._over:
            follower.look(14.0)
        assert follower.beat(999.0, own) is None
        follower.leave(orderly=True, wait_seconds=1.0)


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


def test_the_event_has_the_images_of_the_last_record_and_makes_no_run_of_none(tmp_path: Path) -> None:
    watchdog = Watchdog(SoloComm(), Activity(), silence_seconds=9.0, run_dir=tmp_path)
    verdict = judge([sight(0, idle_seconds=SILENCE)], SILENCE)
    assert verdict
    events = tmp_path / "events.jsonl"
    watchdog._record(verdict)
    assert not events.exists()
    events.write_text('{"time": 1, "event": "report", "step": 3, "images_seen": 96}\n')
    watchdog._activity.step = 4
    watchdog._record(verdict)
    record = json.loads(events.read_text().splitlines()[1])
    assert record["event"] == "stalled"
    assert (record["step"], record["images_seen"], record["ranks"]) == (4, 96, [0])
    assert record["message"] == verdict.message


def test_rank_0_serves_a_thousand() -> None:
    """On an idle machine it takes 2 % of a core; what is held is that it does not grow out of hand."""
    size = 1024
    with a_hub(size) as hub:
        connections = []
        for rank in range(1, size):
            connections.append(raw(hub))
            connections[-1].sendall(hello(hub, rank))
            hub.look()
        until(hub, lambda: len(hub.connected) == size - 1)
        chief = Chief([Worker("h", rank) for rank in range(size)], 0.0, silence_seconds=SILENCE, hub=hub)
        chief.watch(range(size), 0.0)
        beat, seconds = Beat(47, TRAINING, "gradients.3", 0.4), 5
        cost = 0.0
        for second in range(1, seconds + 1):
            for connection in connections:
                connection.sendall(line(vars(beat)))
            began = time.thread_time()
            deadline = time.monotonic() + PATIENCE_SECONDS
            while sum(known.heard == second for known in chief.table._known) < size - 1:
                chief.look(second)
                assert time.monotonic() < deadline
            assert chief.beat(second, beat) is None
            cost += time.thread_time() - began
            for connection in connections:
                connection.recv(1 << 16)
        for connection in connections:
            connection.close()
    print(f"{1000 * cost / seconds:.0f} ms of each second")
    assert cost / seconds < 0.25
