"""Who is blamed for what, and in which words."""

from dataclasses import replace
from pathlib import Path

import pytest

from hvdtrain.distributed.activity import EVALUATING, TRAINING
from hvdtrain.distributed.verdict import Sight, judge, lost_peers

SILENCE = 300.0


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


def test_who_evaluates_alone_must_get_on_but_may_be_slower_than_those_that_are_done() -> None:
    done, slow = stuck(0, "evaluation"), sight(1)
    for phase in (TRAINING, EVALUATING):
        assert judge([replace(done, phase=phase), replace(slow, phase=phase)], SILENCE) is None
    verdict = judge([replace(done, phase=EVALUATING), replace(slow, phase=EVALUATING, idle_seconds=SILENCE)], SILENCE)
    assert verdict
    assert verdict.message == (
        "no batch was done for 5 min 0 s: rank 1 on h1 (process 101) waits for nobody (evaluating, batch 47) and holds "
        "up the others: rank 0 waits in evaluation"
    )


@pytest.mark.parametrize(
    ("sights", "ending"),
    [
        ([sight(0), sight(1, silent_seconds=SILENCE)], "; stacks of the others"),
        ([sight(0, idle_seconds=SILENCE)], "see"),
        ([stuck(0, "a"), stuck(1, "a")], "; stacks of all"),
        ([stuck(0, "a"), stuck(1, "b")], "see"),
    ],
)
def test_what_to_do_says_where_the_stacks_are(sights: list[Sight], ending: str, tmp_path: Path) -> None:
    verdict = judge(sights, SILENCE)
    assert verdict
    assert f"{ending} in {tmp_path}/rank-" in verdict.remedy_with(tmp_path)
    assert f"{ending} on standard error" in verdict.remedy_with(None)
    assert "{" not in verdict.remedy_with(None) + verdict.remedy_with(tmp_path)


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
