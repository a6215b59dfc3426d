"""Sums between two reports."""

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hvdtrain.distributed.comm import SoloComm
from hvdtrain.train.clock import COLUMNS, HostTime, StepClock
from hvdtrain.train.meters import LIVE_WINDOWS, Meters
from hvdtrain.train.micro_batches import MicroBatches

from ..metrics.test_efficiency import ALONE


class Known(StepClock):
    """A clock of steps that took as long as the test says."""

    def __init__(self, *steps: float) -> None:
        self.steps = list(steps)

    def take(self) -> NDArray[np.float64]:
        rows = [(0.1 * s, 0.7 * s, 0.9 * s, s) for s in self.steps]
        self.steps = []
        return np.array(rows).reshape(-1, len(COLUMNS))


class TwoWorkers(SoloComm):
    """The other worker's sums come first, and its steps are ours."""

    size = 2

    def __init__(self, loss: float, images: float) -> None:
        self.other = [loss, images]

    def table(self, row: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return np.stack([row, np.concatenate([self.other, row[2:]])])


def step(images: int, pixels: int = 32) -> MicroBatches:
    return MicroBatches(iter(()), 1, StepClock(HostTime()), images=images, pixels=pixels if images else 0)


def filled(*steps: float, **more: Any) -> Meters:
    meters = Meters(Known(*(steps or (0.5, 1.5))), warming_up=0, **more)
    meters.add(torch.tensor(6.0), step(4))
    meters.add(torch.tensor(2.0), step(4))
    return meters


def test_a_report_has_means_over_all_images_and_steps() -> None:
    report = filled().report(SoloComm())
    assert report.loss == 1.0
    assert report.breakdown.parts == pytest.approx(
        {"input": 0.1, "compute": 0.7, "straggler": 0, "communication": 0.1, "rest": 0.1}
    )


def test_sums_and_counts_are_added_over_the_workers_before_they_are_divided() -> None:
    report = filled().report(TwoWorkers(40.0, 2))
    assert report.loss == 48 / 10  # and not the mean of 1 and 20


def test_throughput_is_all_workers_images_over_the_duration_of_the_steps() -> None:
    report = filled(1.5, 2.5).report(TwoWorkers(0.0, 32))
    assert report.images_per_second == pytest.approx(40 / 4)


def test_after_a_report_the_sums_begin_anew() -> None:
    meters = filled(1.0, 1.0)
    meters.report(SoloComm())
    meters.add(torch.tensor(3.0), step(1))
    meters.clock = Known(0.25)
    report = meters.report(SoloComm())
    assert (report.loss, report.images_per_second) == (3, 4)
    assert meters.images_per_second == pytest.approx(9 / 2.25)  # of the whole run


def test_where_every_image_was_left_out_the_loss_is_no_number() -> None:
    meters = Meters(Known(1.0))
    meters.add(torch.tensor(0.0), step(0))
    assert np.isnan(meters.report(SoloComm()).loss)


def test_adding_does_not_change_the_loss_that_was_given() -> None:
    loss = torch.tensor(1.0)
    meters = Meters(Known(1.0))
    meters.add(loss, step(1))
    meters.add(torch.tensor(2.0), step(1))
    assert float(loss) == 1


def test_without_a_baseline_there_is_no_efficiency() -> None:
    assert filled().report(TwoWorkers(1.0, 8)).efficiency is None


def test_efficiency_is_that_of_the_last_reports_together() -> None:
    meters = filled(9.0, 9.0, baseline=ALONE)  # long ago, and forgotten by the end
    meters.report(SoloComm())
    for seconds in [0.125, 0.25] * (LIVE_WINDOWS // 2):
        meters.clock = Known(seconds)
        report = meters.report(SoloComm())
    assert report.efficiency is not None
    assert report.efficiency.ratio == pytest.approx(0.1 / 0.1875)
    assert report.efficiency.low < report.efficiency.ratio < report.efficiency.high


def test_pictures_of_another_size_than_the_baselines_are_compared_with_nothing() -> None:
    meters = filled(0.5, 0.5, baseline=ALONE)
    for images, pixels, compared in ((4, 32, True), (0, 0, True), (4, 64, False), (4, 64, False), (4, 32, True)):
        meters.add(torch.tensor(1.0), step(images, pixels))
        meters.clock = Known(0.5)
        assert (meters.report(SoloComm()).efficiency is not None) is compared
    assert len(meters.windows) == 1  # those before were of another size


def test_a_report_of_pictures_of_two_sizes_is_compared_with_nothing() -> None:
    meters = Meters(Known(), baseline=ALONE, warming_up=0)
    sizes = ((64, 64), (64, 32), (32, 32))
    for pair, seconds, compared in zip(sizes, (0.5, 0.4, 0.125), (False, False, True), strict=True):
        for pixels in pair:
            meters.add(torch.tensor(1.0), step(4, pixels))
        meters.clock = Known(seconds, seconds)
        found = meters.report(SoloComm()).efficiency
        assert (found is not None) is compared
    assert found is not None
    assert found.ratio == pytest.approx(0.8)


def test_what_was_in_vain_mixes_no_sizes() -> None:
    meters = Meters(Known(), baseline=ALONE, warming_up=0)
    meters.add(torch.tensor(1.0), step(4, 64))
    meters.add(torch.tensor(1.0), step(4, 32))
    meters.forget()
    meters.add(torch.tensor(1.0), step(4, 32))
    meters.clock = Known(0.125)
    assert meters.report(SoloComm()).efficiency is not None


def test_the_first_reports_of_a_process_are_no_measure_of_its_speed() -> None:
    meters = Meters(Known(9.0), baseline=ALONE)
    for seconds in (9.0, 9.0, 0.125):
        meters.add(torch.tensor(1.0), step(4))
        meters.clock = Known(seconds)
        report = meters.report(SoloComm())
        assert (report.efficiency is not None) is (seconds < 9)
    assert report.efficiency is not None
    assert report.efficiency.ratio == pytest.approx(0.8)
    assert meters.images_per_second == pytest.approx(12 / 18.125)  # of which all steps are a part


def test_before_the_first_report_there_is_no_speed_and_no_efficiency() -> None:
    """As in a run that goes on where it had ended already."""
    meters = Meters(Known(), baseline=ALONE)
    assert meters.images_per_second == 0
    assert meters.efficiency is None
