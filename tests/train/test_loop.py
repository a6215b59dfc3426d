"""What happens when is decided by counts alone."""

from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.train.loop import Cadence, _evaluation_is_missing, crossed
from hvdtrain.train.state import TrainState

from .workers import state


@pytest.mark.parametrize(
    ("before", "after", "every", "due"),
    [
        *((0, 1, 1, True), (0, 0.99, 1, False), (1, 1.5, 1, False), (1.9, 2, 1, True), (0, 7, 1, True)),
        *((0, 0.25, 0.5, False), (0.25, 0.5, 0.5, True), (2, 4, 5, False), (4.5, 5.5, 5, True), (0, 0, 1, False)),
    ],
)
def test_a_multiple_is_crossed_when_it_is_reached(before: float, after: float, every: float, due: bool) -> None:
    assert crossed(before, after, every) is due


@given(
    steps=st.lists(st.integers(1, 50), min_size=1, max_size=60),
    images=st.integers(1, 100),
    every=st.sampled_from([0.25, 0.5, 1, 2, 3.5]),
)
def test_on_any_way_each_multiple_is_crossed_once_at_most_and_none_is_lost(
    steps: list[int], images: int, every: float
) -> None:
    epochs = [sum(steps[:i]) / images for i in range(len(steps) + 1)]
    times = sum(crossed(before, after, every) for before, after in pairwise(epochs))
    multiples = {i for i in range(1, 4000) if i * every <= epochs[-1]}
    reached = {min(j for j, epoch in enumerate(epochs) if epoch >= i * every) for i in multiples}
    assert times == len(reached)


@given(seen=st.lists(st.integers(0, 10**7), min_size=3, max_size=3, unique=True), every=st.floats(0.01, 10))
def test_a_stop_between_changes_nothing(seen: list[int], every: float) -> None:
    first, middle, last = (images / 1_281_167 for images in sorted(seen))
    assert crossed(first, last, every) == (crossed(first, middle, every) or crossed(middle, last, every))


EACH_EPOCH = Cadence(report_steps=1, evaluate_epochs=1, evaluate_from=0, evaluate_at_end=True, save_epochs=1)


def is_missing(of: TrainState, *, kn: int) -> bool:
    """In a run with this minibatch, which goes on from there; an epoch has 100 images."""
    objective, data = SimpleNamespace(global_batch=kn), SimpleNamespace(train=range(100))
    parts: Any = SimpleNamespace(state=of, over=False, epoch=of.images_seen / 100, objective=objective, data=data)
    return _evaluation_is_missing(EACH_EPOCH, parts)


@pytest.mark.parametrize(
    ("seen", "kn", "missing"),
    [((80, 104), 8, True), ((80, 104), 2, True), ((96, 104, 108), 24, False), ((96, 104, 108), 4, False)],
)
def test_whether_the_last_step_owed_an_evaluation_is_told_by_its_own_minibatch(
    seen: tuple[int, ...], kn: int, missing: bool
) -> None:
    before, after = state(), state()
    for images in seen:
        before.advance(images)
    after.load(before.tensors())
    assert is_missing(after, kn=kn) is missing


def test_a_checkpoint_that_does_not_tell_is_taken_as_of_the_same_minibatch() -> None:
    old, after = state(), state()
    old.advance(104)
    tensors = old.tensors()
    del tensors["progress"]["last_step_images"]
    after.load(tensors)
    assert is_missing(after, kn=8)
    assert not is_missing(after, kn=4)
