"""How a run stands: what a person sees at a glance."""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtrain.report import screen
from hvdtrain.report.palette import LOOKS
from hvdtrain.report.records import Run, State
from hvdtrain.report.snapshot import Snapshot, snapshot, to_json
from tests.report.conftest import Examine
from tests.report.made import Fault, Made

Golden = Callable[[Path, str], None]
RECORDS = Path(__file__).parents[1] / "golden"

GOING = Made(
    workers=256,
    windows=60,
    ends=False,
    quarantined=3,
    faults=(Fault("straggler", 0.03, rank=77), Fault("input", 0.01, rank=4)),
)


def halfway(run: Run, *, state: State = State.RUNNING) -> Run:
    """As it was after half of its reports."""
    half = run.windows[: len(run.windows) // 2]
    now = half[-1].time
    return replace(
        run,
        state=state,
        heard=now,
        windows=half,
        evaluations=tuple(each for each in run.evaluations if each.time <= now),
        checkpoints=tuple(each for each in run.checkpoints if each.time <= now),
    )


def at(run: Run, seconds: float = 2.0) -> Snapshot:
    """So long after its last report."""
    return snapshot(run, now=run.windows[-1].time + seconds)


def test_the_screen_of_a_run_that_goes(examine: Examine, golden: Golden) -> None:
    run = halfway(examine(GOING, name="r50-256").run)
    golden(RECORDS / "status_running.txt", screen.plain(at(run)) + "\n")
    golden(RECORDS / "status_running_line.txt", screen.line(at(run)) + "\n")


def test_for_machines_it_is_the_same(examine: Examine) -> None:
    now = at(halfway(examine(GOING).run))
    told = json.loads(to_json(now))
    assert told.keys() == {field.name for field in dataclasses.fields(Snapshot)}
    assert told["efficiency"] + sum(told["losses"].values()) == pytest.approx(1)
    assert told["slowest"][0] == {"rank": 77, "host": "node009", "seconds": now.slowest[0].seconds}
    assert json.loads(to_json(replace(now, efficiency=float("nan"))))["efficiency"] is None


def test_the_screen_of_a_killed_one(examine: Examine, golden: Golden) -> None:
    run = halfway(examine(replace(GOING, workers=2, baseline=None, faults=()), name="demo").run, state=State.KILLED)
    golden(RECORDS / "status_killed.txt", screen.plain(at(run, 3600)) + "\n")
    assert screen.line(at(run)) == "killed at epoch 1.50/3, step 600, top-1 27.36 %"


def test_the_screen_of_a_finished_one(examine: Examine, golden: Golden) -> None:
    run = examine(Made(workers=8, windows=12), name="r50").run
    golden(RECORDS / "status_finished.txt", screen.plain(snapshot(run, now=run.heard + 86400)) + "\n")


def test_time_left_has_the_pauses_that_are_to_come(examine: Examine) -> None:
    pauses = {"evaluation_seconds": 100.0, "checkpoint_seconds": 7.0, "background_seconds": 20.0}
    made = Made(workers=2, windows=40, epochs=4, ends=False, **pauses)
    run = halfway(examine(made).run)
    assert run.checkpoints[-1].seconds == 27.0
    training = 20 * made.steps * run.windows[-1].step_seconds
    assert at(run).left_seconds == pytest.approx(training + 2 * 107.0, rel=0.02)


def test_what_was_lost_is_still_to_come(examine: Examine) -> None:
    run = halfway(examine(Made(workers=2, windows=40, ends=False)).run)
    before = at(run)
    again = replace(run.start, time=run.windows[-1].time + 1, step=100, images_seen=100 * run.start.global_batch)
    now = at(replace(run, starts=(*run.starts, again)))
    assert (before.step, now.step) == (400, 100)
    assert now.epoch == pytest.approx(before.epoch / 4)
    assert now.left_seconds == pytest.approx(before.left_seconds * 700 / 400, rel=0.05)


def test_silence_is_noticed_only_when_it_is_unusual(examine: Examine) -> None:
    run = halfway(examine(Made(windows=20, ends=False)).run)
    assert at(run, 59).warnings == ()
    assert at(run, 61).warnings == ("no report for 1 min 1 s, one came every 2 s: it evaluates, saves or hangs",)
    slow = tuple(replace(window, time=window.time * 1 + 100 * i) for i, window in enumerate(run.windows))
    assert at(replace(run, windows=slow), 500).warnings == ()


def test_a_loss_that_is_no_number_is_a_warning(examine: Examine) -> None:
    run = halfway(examine(Made(windows=20, ends=False)).run)
    broken = replace(run, windows=(*run.windows[:-1], replace(run.windows[-1], loss=float("nan"))))
    assert at(broken).warnings == ("the loss is not finite at step 200",)
    assert "loss —" in screen.plain(at(broken))
    assert "loss not finite" in screen.line(at(broken))


def test_the_slowest_ranks_are_named(examine: Examine) -> None:
    now = at(halfway(examine(GOING).run))
    assert [(lag.rank, lag.host) for lag in now.slowest[:2]] == [(77, "node009"), (4, "node000")]
    assert now.slowest[0].seconds == pytest.approx(0.03, abs=0.002)


@pytest.mark.parametrize("ratio", [0.0, 0.004, 0.5, 0.777, 1.0, 1.2])
def test_the_bar_has_its_length_whatever_is_in_it(ratio: float, examine: Examine) -> None:
    losses = {"input": -0.05, "contention": (1 - ratio) / 2, "straggler": (1 - ratio) / 2, "communication": 0.0}
    now = replace(at(halfway(examine(Made(windows=4, ends=False)).run)), efficiency=ratio, losses=losses)
    bar = screen.efficiency_bar(now).plain
    assert len(bar) == screen.BAR
    assert bar.count(LOOKS["efficiency"].cell) == pytest.approx(min(ratio, 1) * screen.BAR, abs=1)


def test_before_the_first_report_there_is_a_screen_too(examine: Examine) -> None:
    run = replace(examine(Made(windows=2, ends=False)).run, windows=(), evaluations=(), checkpoints=())
    shown = screen.plain(snapshot(run, now=run.heard))
    assert "no report yet" in shown
    assert "efficiency" not in shown
