"""The run directory: how the run ended is told there once, and not before it has."""

from pathlib import Path

import pytest

from hvdtrain import outcome
from hvdtrain.errors import DataError, HvdtrainError, NotFinite, PeerLost, Preempted
from hvdtrain.outcome import Outcome
from hvdtrain.train.elastic import Leaves
from hvdtrain.train.folder import outcome_told


@pytest.mark.parametrize(
    ("rank", "error", "told"),
    [
        (0, NotFinite("loss"), Outcome(8, "loss")),
        (1, NotFinite("loss"), None),  # rank 0 does
        (1, DataError("torn"), Outcome(4, "torn")),
        (1, PeerLost("rank 0"), None),
        (0, Preempted("stopped"), Outcome(75, "stopped")),
        (0, Leaves("the others go on"), None),
        (1, Leaves("the others go on"), None),
    ],
)
def test_only_an_end_of_the_run_is_its_outcome(
    rank: int, error: HvdtrainError, told: Outcome | None, tmp_path: Path
) -> None:
    with pytest.raises(type(error)), outcome_told(tmp_path, rank, goes_on=(PeerLost, Leaves)):
        raise error
    assert outcome.read(tmp_path) == told


def test_a_worker_that_leaves_says_so_itself() -> None:
    assert not Leaves("the others go on").everyones
    assert Leaves("the others go on").exit_code == Preempted.exit_code


def test_a_run_that_finished_has_not_ended_as_a_worker_thought_that_was_left_behind(tmp_path: Path) -> None:
    with outcome_told(tmp_path, 0):
        outcome.tell(tmp_path, 75, "stopped by SIGTERM after waiting for other workers")
    assert outcome.read(tmp_path) == Outcome(0, "finished")
    with outcome_told(tmp_path, 1):
        pass
    assert outcome.read(tmp_path) == Outcome(0, "finished")
