"""When a run counts as stuck."""

from hvdtrain.metrics.health import Pulse


def test_a_run_is_well_until_nothing_was_done_for_too_long() -> None:
    now = 1000.0
    pulse = Pulse(stuck_seconds=60, clock=lambda: now)
    now += 60  # no first step yet
    assert pulse.health()[0]
    now += 1
    assert pulse.health() == (False, "stuck: nothing done for 61 s, more than metrics.stuck_seconds = 60")
    pulse.beat()
    now += 0.25
    assert pulse.health() == (True, "getting on: last step or other work done 0.2 s ago")
    now += 60
    assert not pulse.health()[0]
