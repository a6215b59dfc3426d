"""Sums between two reports."""

import time

import pytest
import torch

from hvdtrain.distributed.comm import SoloComm
from hvdtrain.train.meters import Meters


class TwoWorkers(SoloComm):
    """The other worker has the sums given here."""

    def __init__(self, others: list[float]) -> None:
        self.others = others

    def sum(self, values: list[float], name: str) -> list[float]:
        return [ours + others for ours, others in zip(values, self.others, strict=True)]


def filled() -> Meters:
    meters = Meters()
    meters.add(torch.tensor(6.0), 4, 0.5)
    meters.add(torch.tensor(2.0), 4, 0.25)
    return meters


def test_a_report_has_means_over_all_images_and_steps() -> None:
    report = filled().report(SoloComm())
    assert report.loss == 1.0
    assert report.input_wait_seconds == 0.375


def test_sums_and_counts_are_added_over_the_workers_before_they_are_divided() -> None:
    report = filled().report(TwoWorkers([40.0, 2, 2, 1.25]))
    assert report.loss == 48 / 10  # and not the mean of 1 and 20
    assert report.input_wait_seconds == 0.5


def test_after_a_report_the_sums_begin_anew() -> None:
    meters = filled()
    meters.report(SoloComm())
    meters.add(torch.tensor(3.0), 1, 0.125)
    report = meters.report(SoloComm())
    assert (report.loss, report.input_wait_seconds) == (3, 0.125)


def test_throughput_counts_all_workers_images_over_the_time_since_the_last_report() -> None:
    meters = filled()
    meters.began = time.perf_counter() - 4
    assert meters.report(TwoWorkers([0, 32, 2, 0])).images_per_second == pytest.approx(10, rel=0.2)
    assert meters.began > time.perf_counter() - 4


def test_time_that_is_left_out_does_not_count() -> None:
    meters = filled()
    meters.began = time.perf_counter() - 10
    meters.leave_out(8)
    assert meters.report(SoloComm()).images_per_second == pytest.approx(4, rel=0.2)


def test_adding_does_not_change_the_loss_that_was_given() -> None:
    loss = torch.tensor(1.0)
    meters = Meters()
    meters.add(loss, 1, 0)
    meters.add(torch.tensor(2.0), 1, 0)
    assert float(loss) == 1
