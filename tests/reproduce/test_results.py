"""From events to errors, spreads, differences and verdicts."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hvdtrain.errors import DataError
from hvdtrain.events import EventLog
from hvdtrain.reproduce.cells import Cell, Row, gradual
from hvdtrain.reproduce.results import (
    Spread,
    accuracy_kept,
    difference,
    finished,
    losses_by_epoch,
    read_events,
    run_error,
    spread,
    verdict,
)

percents = st.lists(st.floats(0, 100), min_size=2, max_size=12)


def start(*, kn: int = 32, images: int = 600, event: str = "start") -> dict[str, Any]:
    return {"event": event, "step": 0, "global_batch_size": kn, "images_per_epoch": images, "world_size": 1}


def evaluations(errors: Mapping[float, float], *, first_step: int = 1) -> list[dict[str, Any]]:
    """epoch -> error in %."""
    return [
        {"event": "evaluate", "step": first_step + i, "epoch": epoch, "top1": 1 - error / 100}
        for i, (epoch, error) in enumerate(errors.items())
    ]


def reports(losses: list[float | None], *, kn: int) -> list[dict[str, Any]]:
    return [{"event": "report", "step": i, "images_seen": i * kn, "loss": loss} for i, loss in enumerate(losses, 1)]


def test_a_runs_error_is_the_median_of_its_last_five_epochs() -> None:
    # neither their mean (15), the last (3), the best (1), nor the median of all (11)
    errors = {5.0: 90, 6.0: 80, 55.9: 70, 56.01: 1, 57.02: 60, 58.03: 4, 59.04: 7, 60.05: 3}
    assert run_error([start(), *evaluations(errors)], epochs=60) == pytest.approx(4)


def test_evaluations_may_begin_with_the_last_five_epochs() -> None:
    errors = {56.0: 5, 57.0: 2, 58.0: 9, 59.0: 3, 60.0: 4}
    assert run_error([start(), *evaluations(errors)], epochs=60) == pytest.approx(4)


def test_an_evaluation_that_is_missing_is_an_error() -> None:
    errors = {55.0: 1, 56.0: 5, 57.0: 2, 59.0: 3, 60.0: 4}
    with pytest.raises(DataError, match="4 evaluations in the last 5 epochs, expected 5 at least"):
        run_error([start(), *evaluations(errors)], epochs=60)


def test_steps_larger_than_an_epoch_leave_fewer_evaluations() -> None:
    events = [start(kn=1024), *evaluations({54.6: 90, 56.3: 6, 58.0: 2, 59.7: 3, 61.4: 5})]
    assert run_error(events, epochs=60) == pytest.approx(4)  # between 3 and 5
    with pytest.raises(DataError, match="2 evaluations in the last 5 epochs, expected 3 at least"):
        run_error([start(kn=1024), *evaluations({54.6: 90, 56.3: 6, 61.4: 5})], epochs=60)


def test_a_run_of_fewer_than_five_epochs_has_fewer() -> None:
    assert run_error([start(), *evaluations({1.0: 9, 2.0: 5})], epochs=2) == pytest.approx(7)


def test_what_a_resumed_run_did_again_counts_once_and_as_the_later() -> None:
    before = evaluations({56.0: 5, 57.0: 50, 58.0: 50})
    again = evaluations({57.0: 2, 58.0: 9, 59.0: 3, 60.0: 4}, first_step=2)
    assert run_error([start(), *before, start(event="resume"), *again], epochs=60) == pytest.approx(4)


@pytest.mark.parametrize(
    ("losses", "kn", "expected"),
    [
        ([4.0, 2.0, 1.0, 0.5], 300, {1: 3.0, 2: 0.75}),
        ([4.0, 2.0, 1.0, 0.5], 256, {1: 7 / 3, 2: 0.5}),  # the third step begins in the first epoch, and ends after it
        ([4.0, 2.0, 1.0], 1000, {1: 4.0, 2: 2.0, 4: 1.0}),  # the third epoch has no step of its own
        ([4.0], 600, {1: 4.0}),
    ],
)
def test_a_step_belongs_to_the_epoch_in_which_it_begins(
    losses: list[float | None], kn: int, expected: dict[int, float]
) -> None:
    assert losses_by_epoch([start(kn=kn), *reports(losses, kn=kn)]) == pytest.approx(expected)


def test_a_loss_that_was_not_finite_leaves_its_epoch_without_a_number() -> None:
    losses = losses_by_epoch([start(), *reports([2.0, None, 1.0, 3.0], kn=300)])
    assert math.isnan(losses.pop(1))
    assert losses == {2: 2.0}


def test_losses_of_steps_taken_again_count_once() -> None:
    events = [start(), *reports([4.0, 99.0], kn=300), start(event="resume"), *reports([4.0, 2.0], kn=300)[1:]]
    assert losses_by_epoch(events) == {1: 3.0}


def test_events_are_read_as_they_are_written(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    assert read_events(file) == []
    log = EventLog(file)
    log.write("report", step=1, loss=math.nan)
    log.write("end", step=2)
    events = read_events(file)
    assert [(event["event"], event["step"]) for event in events] == [("report", 1), ("end", 2)]
    assert events[0]["loss"] is None
    assert finished(events)
    log.write("resume", step=2)
    log.close()
    assert not finished(read_events(file))
    assert not finished([])


def test_a_last_line_that_is_cut_is_left_out_and_another_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    whole = json.dumps({"event": "start"})
    file.write_text(f'{whole}\n{{"event": "en')
    assert read_events(file) == [{"event": "start"}]
    file.write_text(f'{whole}\n{{"event": "en\n{whole}\n')
    with pytest.raises(DataError, match=r"events.jsonl, record 2: no JSON → rm -r .* and run again"):
        read_events(file)


@given(values=percents)
def test_the_spread_is_the_samples(values: list[float]) -> None:
    found = spread(values)
    assert found.n == len(values)
    assert found.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert found.std == pytest.approx(np.std(values, ddof=1), abs=1e-9)
    half = stats.t.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values))
    assert found.interval == pytest.approx(half, rel=1e-3, abs=1e-9)


def test_one_seed_has_no_spread_and_decides_nothing() -> None:
    assert spread([3.0]) == Spread(3.0, None, 1)
    assert spread([3.0]).interval is None
    assert not spread([3.0]).sure


@given(seeds=percents, effect=st.floats(-10, 10))
def test_what_a_seed_does_to_both_cells_cancels_in_their_difference(seeds: list[float], effect: float) -> None:
    one, other = Cell("one", 32), Cell("other", 256)
    errors = {"one": dict(enumerate(seeds)), "other": {n: seeds[n] + effect for n in reversed(range(len(seeds)))}}
    found = difference(errors, other, one)
    assert found.mean == pytest.approx(effect, abs=1e-9)
    assert found.std == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize(
    ("ours", "papers", "said"),
    [
        (Spread(1.0, 0.6, 4), 2.14, "as in the paper"),
        (Spread(-1.0, 0.6, 4), -2.14, "as in the paper"),
        (Spread(1.0, 0.6, 4), -2.14, "the opposite of the paper"),
        (Spread(-1.0, 0.6, 4), 2.14, "the opposite of the paper"),
        (Spread(1.0, 0.9, 4), 2.14, "not shown: the interval holds 0"),
        (Spread(1.0, 0.8, 5), 2.14, "as in the paper"),
        (Spread(0.0, 0.0, 4), 2.14, "not shown: the interval holds 0"),
        (Spread(5.0, None, 1), 2.14, "not shown: one seed"),
    ],
)
def test_verdicts(ours: Spread, papers: float, said: str) -> None:
    assert verdict(ours, papers) == said


def kept(worse: dict[int, float], *, seeds: int = 4) -> int | None:
    """`accuracy_kept` where a minibatch is `worse` than its baseline of 32 by so much, give or take 0.1."""
    rows = [Row("", gradual(kn), None) for kn in (256, 16, 64, 32)]  # in no order

    def error(kn: int, seed: int) -> float:
        return 3 + worse.get(kn, 0) + (0.1 * (-1) ** seed if kn != 32 else 0)

    errors = {row.cell.name: {seed: error(row.cell.kn, seed) for seed in range(seeds)} for row in rows}
    return accuracy_kept(errors, rows, gradual(32))


@pytest.mark.parametrize(
    ("worse", "limit"),
    [({}, 256), ({256: 1}, 64), ({64: 1}, 32), ({64: 1, 256: 1}, 32), ({16: 1}, 256), ({256: -1}, 256)],
)
def test_accuracy_is_kept_up_to_the_first_minibatch_that_is_surely_worse(worse: dict[int, float], limit: int) -> None:
    assert kept(worse) == limit


def test_one_seed_does_not_say_how_far_accuracy_is_kept() -> None:
    assert kept({256: 50}, seeds=1) is None
