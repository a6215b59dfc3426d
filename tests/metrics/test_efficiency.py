"""Efficiency against a baseline: the definition, the interval, and losses that sum to what is missing."""

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hvdtrain.metrics.breakdown import PARTS, Breakdown
from hvdtrain.metrics.efficiency import CAUSES, Baseline, mean, speed, student, weak

ALONE = Baseline(
    source="measured",
    workers=1,
    pixels=32,
    measured_at=1.0,
    origin="a test",
    step_seconds=0.1,
    standard_error=0.0,
    samples=10,
    parts={"input": 0.01, "compute": 0.085, "straggler": 0.0, "communication": 0.0, "rest": 0.005},
)


def window(steps: int = 5, **parts: float) -> Breakdown:
    seconds = {**ALONE.parts, **parts}
    run = {part: np.full(steps, seconds[part]) for part in PARTS}
    return Breakdown(run, {}, np.zeros(2))


def test_a_run_at_the_pace_of_one_worker_alone_is_wholly_efficient() -> None:
    found = weak([window(), window()], ALONE)
    assert found.ratio == pytest.approx(1)
    assert list(found.losses.values()) == pytest.approx([0] * 5)


def test_it_is_the_baselines_step_over_the_runs() -> None:
    found = weak([window(communication=0.025)], ALONE)
    assert found.ratio == pytest.approx(0.1 / 0.125)
    assert found.losses == pytest.approx({cause: 0.2 if cause == "communication" else 0 for cause in CAUSES})
    assert (found.kind, found.baseline, found.baseline_workers) == ("weak", "measured", 1)


@pytest.mark.parametrize(("part", "cause"), list(zip(PARTS, CAUSES, strict=True)))
def test_each_part_that_grows_is_its_own_cause(part: str, cause: str) -> None:
    found = weak([window(**{part: ALONE.parts[part] + 0.1})], ALONE)
    assert found.losses == pytest.approx({name: 0.5 if name == cause else 0 for name in CAUSES})


def test_what_one_worker_waits_for_alone_is_no_loss_of_scaling() -> None:
    """An input-bound baseline scales well; that it is slow is another matter."""
    slow = replace(ALONE, parts={**ALONE.parts, "input": 0.91}, step_seconds=1.0)
    assert weak([window(input=0.91)], slow).ratio == pytest.approx(1)


def test_longer_windows_weigh_more() -> None:
    found = weak([window(30), window(10, compute=0.085 + 0.1)], ALONE)
    assert found.ratio == pytest.approx(0.1 / (0.1 + 0.025))


@given(
    st.lists(st.dictionaries(st.sampled_from(PARTS), st.floats(0, 3)), min_size=1, max_size=6),
    st.dictionaries(st.sampled_from(PARTS), st.floats(0.001, 3)),
)
def test_efficiency_and_losses_sum_to_one(windows: list[dict[str, float]], alone: dict[str, float]) -> None:
    parts = {**ALONE.parts, **alone}
    found = weak([window(**each) for each in windows], replace(ALONE, parts=parts, step_seconds=sum(parts.values())))
    assert found.ratio + sum(found.losses.values()) == pytest.approx(1)


def test_one_window_has_no_interval() -> None:
    found = weak([window()], ALONE)
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_the_interval_has_the_spread_of_the_windows_and_that_of_the_baseline() -> None:
    seconds = [0.2, 0.21, 0.19, 0.2]
    windows = [window(compute=s - 0.015) for s in seconds]
    error = stats.sem(seconds) * stats.t.ppf(0.975, 3) / 0.2
    found = weak(windows, ALONE)
    assert found.high - found.ratio == pytest.approx(found.ratio - found.low) == pytest.approx(0.5 * error, rel=1e-3)
    uncertain = weak(windows, replace(ALONE, standard_error=0.002))
    of_baseline = stats.t.ppf(0.975, 9) * 0.002 / 0.1
    assert uncertain.high - uncertain.ratio == pytest.approx(0.5 * math.hypot(error, of_baseline), rel=1e-3)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    generator, covered = np.random.default_rng(0), 0
    for _ in range(400):
        alone = generator.normal(0.1, 0.005, 10)
        of_alone = mean(list(alone))
        parts = {**ALONE.parts, "compute": of_alone.value - 0.015}
        baseline = replace(ALONE, step_seconds=of_alone.value, standard_error=of_alone.error, parts=parts)
        windows = [window(compute=s - 0.015) for s in generator.normal(0.2, 0.01, 10)]
        found = weak(windows, baseline)
        covered += found.low <= 0.5 <= found.high
    assert 0.92 * 400 < covered < 0.985 * 400


@pytest.mark.parametrize("freedom", [1, 2, 5, 10, 29, 30])
def test_students_factors_are_those_of_the_distribution(freedom: int) -> None:
    assert student(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-3)


def test_the_mean_of_one_value_has_no_error() -> None:
    assert mean([2.0]).value == 2
    assert math.isnan(mean([2.0]).error)
    assert math.isnan(mean([2.0]).half_width)


def test_a_runs_speed_is_a_baseline_for_the_next() -> None:
    windows = [window(communication=0.02), window(communication=0.03)]
    eight = speed(windows, workers=8, pixels=32, measured_at=7.0, origin="run r")
    assert (eight.workers, eight.measured_at, eight.origin) == (8, 7.0, "run r")
    assert eight.step_seconds == pytest.approx(0.125) == pytest.approx(sum(eight.parts.values()))
    found = weak([window(communication=0.05)], eight)
    assert found.ratio == pytest.approx(0.125 / 0.15)
    assert found.losses["communication"] == pytest.approx(0.025 / 0.15)
    assert found.baseline_workers == 8


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "80.0 % (78.0-82.0 %) of one worker alone, measured in this run"),
        ({"low": math.nan, "high": math.nan}, "80.0 % of one worker alone, measured in this run"),
        ({"baseline": "stored", "baseline_workers": 8}, "80.0 % (78.0-82.0 %) of 8 workers, measured before"),
    ],
)
def test_it_is_never_told_without_its_baseline(changes: dict[str, Any], text: str) -> None:
    found = replace(weak([window(communication=0.025)], ALONE), low=0.78, high=0.82)
    assert str(replace(found, **changes)) == text


def test_a_window_much_shorter_than_the_others_is_no_sample_of_its_own() -> None:
    """As the last one of a run may be; its steps count all the same."""
    windows = [window(20, compute=c) for c in (0.1, 0.11, 0.12)]
    short = [*windows, window(1, compute=0.5)]
    spread = [found.high - found.low for found in (weak(windows, ALONE), weak(short, ALONE))]
    assert spread[1] == pytest.approx(spread[0], rel=0.2)
    assert weak(short, ALONE).ratio < weak(windows, ALONE).ratio
