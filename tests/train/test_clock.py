"""Where the time of steps goes, on a time line that the test moves itself."""

import pytest

from hvdtrain.train.clock import COLUMNS, StepClock


class Scripted:
    """A time line that stands still until it is moved; `read` counts how often a span was asked for."""

    def __init__(self) -> None:
        self.now, self.read = 100.0, 0

    def mark(self) -> float:
        return self.now

    def between(self, begin: float, end: float) -> float:
        self.read += 1
        return end - begin


class Steps:
    def __init__(self) -> None:
        self.time = Scripted()
        self.clock = StepClock(self.time)

    def spend(self, part: str, seconds: float) -> None:
        with self.clock.spent_on(part):  # type: ignore[arg-type]
            self.time.now += seconds

    def step(self, *, update: float = 0, rest: float = 0, inputs: tuple[float, ...] = (1,), wait: float = 0) -> None:
        self.spend("compute", update)
        self.time.now += rest
        for seconds in inputs:
            self.spend("input", seconds)
            self.spend("compute", 10)
        self.clock.ready()
        self.time.now += wait
        self.clock.summed()

    def take(self) -> list[dict[str, float]]:
        return [dict(zip(COLUMNS, row, strict=True)) for row in self.clock.take().tolist()]


def test_a_step_goes_from_sum_to_sum_and_has_the_update_by_the_first_of_them() -> None:
    steps = Steps()
    steps.step(update=2, rest=0.5, inputs=(1,), wait=4)
    steps.step(update=3, rest=0, inputs=(0.25,), wait=0)
    assert steps.take() == [
        {"input": 1, "compute": 12, "ready": 13.5, "total": 17.5},
        {"input": 0.25, "compute": 13, "ready": 13.25, "total": 13.25},
    ]


def test_micro_batches_add_up() -> None:
    steps = Steps()
    steps.step(inputs=(1, 2, 4), wait=1)
    assert steps.take() == [{"input": 7, "compute": 30, "ready": 37, "total": 38}]


def test_a_pause_is_cut_out_of_the_step_in_which_it_falls() -> None:
    steps = Steps()
    steps.step()
    steps.spend("compute", 2)  # the update
    steps.spend("pause", 1000)
    steps.step()
    assert steps.take()[1] == {"input": 1, "compute": 12, "ready": 13, "total": 13}


def test_what_was_taken_is_gone_and_the_step_under_way_goes_on() -> None:
    steps = Steps()
    steps.step()
    steps.spend("compute", 2)
    assert len(steps.take()) == 1
    assert steps.take() == []
    assert steps.clock.take().shape == (0, 4)
    steps.step(wait=3)
    assert steps.take() == [{"input": 1, "compute": 12, "ready": 13, "total": 16}]


def test_after_a_restart_nothing_of_before_counts() -> None:
    steps = Steps()
    steps.spend("compute", 50)
    steps.clock.restart()
    steps.step()
    assert steps.take() == [{"input": 1, "compute": 10, "ready": 11, "total": 11}]


def test_nothing_is_read_before_it_is_taken() -> None:
    """On a GPU reading waits for the device."""
    steps = Steps()
    for _ in range(5):
        steps.step()
    assert steps.time.read == 0
    steps.take()
    assert steps.time.read > 0


def test_a_step_that_fails_leaves_no_span() -> None:
    steps = Steps()
    with pytest.raises(ZeroDivisionError), steps.clock.spent_on("compute"):
        raise ZeroDivisionError
