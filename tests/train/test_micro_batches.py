"""The micro-batches of a step are taken one by one, and what they were is counted."""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from hvdtrain.data.loader import Batch, Plan
from hvdtrain.train.clock import HostTime, StepClock
from hvdtrain.train.micro_batches import MicroBatches


def plan(number: int) -> Plan:
    rows = np.array([number])
    windows = np.zeros((1, 4), np.float32)
    return Plan(rows, rows, rows, windows, windows.astype(np.int32), rows == 0, images_seen=8 * (number + 1))


def clock() -> StepClock:
    return StepClock(HostTime())


def stream(planned: bool = True) -> Iterator[Batch]:
    """Without end: the i-th batch lacks i % 3 of its four images."""
    number = 0
    while True:
        n = 4 - number % 3
        yield Batch(
            torch.zeros(n, 3, 1, 1),
            torch.zeros(n, dtype=torch.int64),
            images_seen=8 * (number + 1),
            skipped=4 - n,
            plan=plan(number) if planned else None,
        )
        number += 1


@pytest.mark.parametrize("count", [1, 3, 5])
def test_they_are_counted_as_they_are_taken(count: int) -> None:
    step = MicroBatches(stream(), count, clock())
    taken = list(step)
    assert [batch.images_seen for batch in taken] == [8 * (i + 1) for i in range(count)]
    assert step.images == sum(len(batch.labels) for batch in taken)
    assert step.skipped == 4 * count - step.images
    assert step.images_seen == 8 * count  # that of the last one
    assert [plan.samples.tolist() for plan in step.plans] == [[i] for i in range(count)]


def test_none_is_taken_before_it_is_wanted_nor_after_the_last() -> None:
    """One too many would be an image that no step uses, and a wait for it."""
    source = stream()
    for step_number in range(3):
        step = MicroBatches(source, 2, clock())
        taken = iter(step)
        next(taken)
        assert step.images_seen == 8 * (2 * step_number + 1)
        assert len(list(taken)) == 1
    assert next(source).images_seen == 8 * 7


def test_steps_in_a_row_count_for_themselves() -> None:
    source = stream()
    first, second = MicroBatches(source, 2, clock()), MicroBatches(source, 2, clock())
    assert (len(list(first)), len(list(second))) == (2, 2)
    assert (first.images, second.images) == (4 + 3, 2 + 4)
    assert (len(first.plans), len(second.plans)) == (2, 2)


def test_batches_without_a_plan_leave_none() -> None:
    step = MicroBatches(stream(planned=False), 2, clock())
    assert len(list(step)) == 2
    assert step.plans == []


@dataclass
class Slow:
    """A source that knows how long it was worked on."""

    seconds: float = 0.0

    def __iter__(self) -> Iterator[Batch]:
        for batch in stream():
            began = time.perf_counter()
            time.sleep(0.02)
            self.seconds += time.perf_counter() - began
            yield batch


def test_waiting_for_the_input_is_counted_and_working_on_it_is_not() -> None:
    source, worked, began, counting = Slow(), 0.0, time.perf_counter(), clock()
    for _ in MicroBatches(iter(source), 3, counting):
        at_work = time.perf_counter()
        time.sleep(0.05)
        worked += time.perf_counter() - at_work
    counting.ready()
    counting.summed()
    ((waited, computed, *_),) = counting.take()
    assert computed == 0
    assert source.seconds <= waited <= time.perf_counter() - began - worked
