"""When a worker counts as stuck."""

from hvdtrain.distributed.activity import Activity
from hvdtrain.metrics.health import health


def test_a_run_is_well_until_nothing_was_done_for_too_long() -> None:
    now = 1000.0
    activity = Activity(lambda: now)
    now += 60  # no first step yet
    assert health(activity, 60)[0]
    now += 1
    assert health(activity, 60) == (False, "stuck: nothing done for 61 s in start-up; metrics.stuck_seconds = 60")
    activity.beat()
    now += 0.25
    assert health(activity, 60) == (True, "healthy: last progress 0.2 s ago")
    now += 60
    with activity.waiting_in("gradients.0"):
        assert health(activity, 60)[1].startswith("stuck: nothing done for 60 s in start-up, waiting for gradients.0;")
