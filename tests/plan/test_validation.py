"""The planner against published measurements, each series predicted with constants that do not know it.

The goals are a mean error of efficiency of 5 %, no series above 10 %, and the paper's iteration time within 3 points.
The third holds. The first two do not, for the series in MISSED: there the bounds are what was reached.
"""

import json
from pathlib import Path

import numpy as np
import pytest

from hvdtrain.plan import record, residuals, text
from hvdtrain.plan.calibrate import fit
from hvdtrain.plan.constants import constants, table
from hvdtrain.plan.goals import papers_iteration
from hvdtrain.plan.series import everything, used

ALLOWED = (
    "other accelerators",
    "parameter servers",
    "another non-allreduce system",
    "evaluation in the clock",
    "batch per worker shrinks with k",
    "input-bound",
    "single point without a base",
    "duplicates",
    "figure from memory",
    "second-hand summary",
    "no hardware details",
)
MEAN_REACHED = 0.064  # the goal is 0.05
MEDIAN_REACHED = 0.038
MISSED = {  # the goal is none
    "horovod-416": "loses 20 % within a PCIe switch, at sums that computing should hide",
    "dle-effnet-b4-v100-fp32": "loses 28 % on two DGX-1 and more, of a network that nobody names",
    "dle-effnet-b4-v100-amp": "loses 25 % within NVLink: CPU-bound augmentation, which the source says of B0 alone",
    "dlperf-gluon-fp16": "loses 18 % on 2 GPUs and 56 % on 8 within NVLink: real images, decoded on the host",
    "dlperf-tf1-fp16-b256": "loses 26 % on two nodes, where fp32 on the same hosts loses 12 %: real images",
    "dlperf-tf2-fp16-b128": "loses 16 % on 2 GPUs within NVLink, and 44 % on two nodes: real images",
    "dlperf-tf2-fp16-b256": "as at batch 128",
    "dlperf-tf2-fp16-b320": "as at batch 128",
    "mlperf30-dell-r750xa-1opa": "loses 19 % from one node to two; how its PCIe reaches the adapter is not said",
    "mlperf30-dell-r750xa-2opa": "loses 17 %, with twice the network",
}


def test_the_mean_error_is_what_was_reached() -> None:
    assert residuals.mean() <= MEAN_REACHED
    assert float(np.median(list(residuals.of_series().values()))) <= MEDIAN_REACHED


def test_no_other_series_is_off_by_more_than_a_tenth() -> None:
    assert {name for name, error in residuals.of_series().items() if error > 0.1} == set(MISSED)


def test_the_papers_iteration_takes_twelve_per_cent_longer_at_352() -> None:
    assert papers_iteration() == pytest.approx(0.12, abs=0.03)


def test_each_goal_is_told_beside_what_was_reached() -> None:
    said = text.validation().splitlines()[-3:]
    assert [line.split()[-1] for line in said] == ["missed", "missed", "holds"]
    assert f" {residuals.mean():.1%} " in said[0]
    assert f" {len(MISSED)} of 62 " in said[1]
    assert " +12.1% " in said[2]


def test_every_exclusion_has_a_reason_that_was_allowed() -> None:
    excluded = [each for each in everything() if not each.used]
    assert [each.name for each in excluded if not each.reason.startswith(ALLOWED)] == []
    assert (len(used()), len(excluded)) == (62, 83)


def test_what_counts_has_a_base_and_something_to_compare() -> None:
    for each in used():
        assert each.base.images_per_second, each.name
        assert each.batch, each.name
        assert len(each.points) > 1, each.name
        assert [point.workers for point in each.points] == sorted({point.workers for point in each.points}), each.name


def test_each_series_is_predicted_without_itself() -> None:
    assert set(table()) == {"", *(each.name for each in used())}
    name = "horovod-vgg16-25g"  # the one that tells most
    others = [each for each in used() if each.name != name]
    again = fit(others, constants(), rounds=12)
    assert again.rdma == pytest.approx(constants(name).rdma, rel=0.05)
    assert again.jitter == pytest.approx(constants(name).jitter, rel=0.1)


def test_the_stored_record_is_of_these_constants() -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "plan-validation.json"
    stored, now = json.loads(file.read_text()), record.validation()
    assert stored["mean_error"] == pytest.approx(now["mean_error"], abs=1e-3)
    assert stored["above_tenth"] == now["above_tenth"]


def test_the_table_has_every_series() -> None:
    said = text.validation()
    assert all(f"\n{each.name}" in said if each.used else f"  {each.name}: " in said for each in everything())
    assert max(map(len, said.splitlines())) <= 100
