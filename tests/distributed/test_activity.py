"""What a worker says it is doing."""

import pytest

from hvdtrain.distributed.activity import TRAINING, Activity


def test_phases_nest() -> None:
    activity = Activity()
    with activity.doing(TRAINING):
        with activity.doing("evaluation"):
            assert activity.phase == "evaluation"
        assert activity.phase == TRAINING
    assert activity.phase == "start-up"


def test_what_fails_leaves_its_phase_to_be_told() -> None:
    activity = Activity()

    def fail() -> None:
        with activity.doing(TRAINING), activity.doing("evaluation"):
            raise MemoryError

    with pytest.raises(MemoryError):
        fail()
    assert activity.phase == "evaluation"


def test_both_ends_of_a_phase_are_signs_of_life() -> None:
    now = 0.0
    activity = Activity(clock=lambda: now)
    now = 5.0
    with activity.doing("saving"):
        assert activity.idle_seconds == 0
        now = 9.0
        assert activity.idle_seconds == 4
    assert activity.idle_seconds == 0
