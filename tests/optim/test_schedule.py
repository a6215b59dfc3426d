"""The learning rate: the paper's numbers, and what holds for every setting."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.optim.schedule import StepSchedule

epochs = st.floats(0, 200, allow_nan=False)
batches = st.integers(1, 100_000)


def goyal(kn: int, *, warmup: float = 5) -> StepSchedule:
    return StepSchedule(0.1, 256, kn, warmup_epochs=warmup, decay_epochs=(30, 60, 80), decay_factor=0.1)


@pytest.mark.parametrize(
    ("kn", "epoch", "rate"),
    [
        *((8192, 0, 0.1), (8192, 2.5, 1.65), (8192, 5, 3.2), (8192, 30, 0.32), (8192, 60, 0.032), (8192, 89, 0.0032)),
        *((256, 0, 0.1), (256, 29.99, 0.1), (256, 30, 0.01), (1024, 5, 0.4), (1024, 1, 0.16), (64, 0, 0.025)),
    ],
)
def test_the_papers_rates(kn: int, epoch: float, rate: float) -> None:
    assert goyal(kn)(epoch) == pytest.approx(rate)


@given(kn=batches)
def test_the_peak_is_linear_in_the_minibatch(kn: int) -> None:
    assert goyal(kn).peak == pytest.approx(0.1 * kn / 256)
    assert goyal(kn)(10) == goyal(kn).peak
    assert goyal(2 * kn)(40) == pytest.approx(2 * goyal(kn)(40))


@given(kn=st.integers(257, 100_000), epoch=st.floats(0, 4.99))
def test_warm_up_rises_in_a_straight_line_from_the_base_rate(kn: int, epoch: float) -> None:
    rate = goyal(kn)
    assert rate(0) == 0.1
    assert 0.1 <= rate(epoch) <= rate.peak
    assert rate(epoch) - 0.1 == pytest.approx((rate.peak - 0.1) * epoch / 5, abs=1e-12)
    assert rate(epoch + 0.005) > rate(epoch)


@given(kn=batches)
def test_warm_up_ends_without_a_jump(kn: int) -> None:
    rate = goyal(kn)
    assert rate(5 - 1e-9) == pytest.approx(rate(5), rel=1e-6)


@given(kn=st.integers(1, 256), epoch=st.floats(0, 29.9))
def test_a_minibatch_no_larger_than_the_reference_has_no_warm_up(kn: int, epoch: float) -> None:
    assert goyal(kn)(epoch) == goyal(kn).peak


@given(kn=batches, epoch=epochs)
def test_without_warm_up_the_rate_begins_at_its_peak(kn: int, epoch: float) -> None:
    rate = goyal(kn, warmup=0)
    assert rate(0) == rate.peak
    if epoch >= 5:
        assert rate(epoch) == goyal(kn)(epoch)


@given(kn=batches)
def test_the_rate_is_constant_between_the_borders_and_falls_at_them(kn: int) -> None:
    rate = goyal(kn)
    for before, after in pairwise((5, 30, 60, 80, 1000)):
        assert rate(before) == rate(after - 1e-6)
    for border in (30, 60, 80):
        assert rate(border) == pytest.approx(0.1 * rate(border - 1e-6))


@given(kn=batches, epoch=epochs)
def test_the_rate_is_positive_and_at_most_the_larger_of_base_and_peak(kn: int, epoch: float) -> None:
    assert 0 < goyal(kn)(epoch) <= max(0.1, goyal(kn).peak) * (1 + 1e-12)


@given(workers=st.integers(1, 512), batch=st.integers(1, 64), epoch=epochs)
def test_workers_and_batch_count_only_by_their_product(workers: int, batch: int, epoch: float) -> None:
    assert goyal(workers * batch)(epoch) == goyal(batch * workers)(epoch)


def test_a_border_within_the_warm_up_is_in_force_after_it() -> None:
    rate = StepSchedule(0.1, 1, 4, warmup_epochs=5, decay_epochs=(3,), decay_factor=0.5)
    assert rate(3) == pytest.approx(0.1 + 0.3 * 3 / 5)
    assert rate(5) == pytest.approx(0.2)


def test_no_borders_mean_no_decay() -> None:
    assert StepSchedule(0.1, 256, 256, warmup_epochs=0, decay_epochs=(), decay_factor=0.1)(10**6) == 0.1
