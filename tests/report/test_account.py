"""The sums of a report: nothing is lost between the steps and the words."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdtrain.metrics.efficiency import CAUSES
from hvdtrain.report.account import account
from hvdtrain.report.causes import diagnose
from hvdtrain.report.pauses import pauses, spans, wall_seconds
from hvdtrain.report.read import read
from hvdtrain.report.records import Run, Window
from hvdtrain.report.scaling import of_run
from tests.report.conftest import Examine
from tests.report.made import BEGAN, Fault, Made, records, write

RUNS = st.builds(
    Made,
    workers=st.integers(1, 5),
    windows=st.integers(1, 6),
    steps=st.integers(1, 20),
    contention=st.floats(-0.01, 0.05),
    exposed=st.floats(0, 0.05),
    jitter=st.floats(0, 0.02),
    baseline=st.sampled_from(["measured", "stored"]),
    seed=st.integers(0, 9),
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs") / "drawn"


@settings(max_examples=40)
@given(made=RUNS)
def test_efficiency_and_losses_sum_to_one(folder: Path, made: Made) -> None:
    run = read(write(folder, made))
    found = account(run)
    assert found is not None
    assert found.efficiency is not None
    diagnosis = diagnose(run, found)
    assert {loss.cause for loss in diagnosis.losses} == set(CAUSES)
    assert found.efficiency.ratio + sum(loss.share for loss in diagnosis.losses) == pytest.approx(1)
    step = found.efficiency.ratio * found.step_seconds + sum(loss.step_seconds for loss in diagnosis.losses)
    assert step == pytest.approx(found.step_seconds)
    assert found.steps == made.windows * made.steps
    assert found.images_per_second == pytest.approx(made.kn / found.step_seconds)
    assert [loss.run_seconds for loss in diagnosis.losses] == sorted(x.run_seconds for x in diagnosis.losses)[::-1]


@settings(max_examples=20)
@given(made=RUNS.map(lambda made: replace(made, baseline=None)))
def test_without_a_baseline_the_parts_of_a_step_sum_to_one(folder: Path, made: Made) -> None:
    run = read(write(folder, made))
    found = account(run)
    assert found is not None
    assert found.parts is not None
    assert found.efficiency is None
    losses = {loss.cause: loss.share for loss in diagnose(run, found).losses}
    assert losses["contention"] == 0
    assert found.parts["compute"] / found.step_seconds + sum(losses.values()) == pytest.approx(1)


def test_windows_count_by_their_steps(runs: Path) -> None:
    """A short last report of slow steps must not weigh as much as the others."""
    folder = write(runs / "r50", Made(windows=2, steps=20, ends=False))
    lines = (folder / "events.jsonl").read_text().splitlines()
    last = max(i for i, line in enumerate(lines) if '"report"' in line)
    record = json.loads(lines[last])
    record |= {"steps": 5, "step_seconds": 10 * record["step_seconds"]}
    record["parts"] = {part: 10 * seconds for part, seconds in record["parts"].items()}
    lines[last] = json.dumps(record)
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n")
    run = read(folder)
    first, second = run.windows
    found = account(run)
    assert found is not None
    assert found.steps == 25
    assert found.step_seconds == pytest.approx((20 * first.step_seconds + 5 * second.step_seconds) / 25)


def test_only_the_last_reports(examine: Examine) -> None:
    late = Made(workers=4, windows=10, faults=(Fault("straggler", 0.2, rank=3, since=8),))
    whole, two = examine(late), examine(late, last=2)
    assert whole.account is not None
    assert two.account is not None
    assert (len(whole.account.windows), len(two.account.windows)) == (10, 2)
    assert two.diagnosis.losses[0].step_seconds == pytest.approx(0.2, abs=0.01)
    assert whole.diagnosis.losses[0].step_seconds == pytest.approx(0.04, abs=0.01)


def resumed(runs: Path, first: Made, then: Made, *, step: int) -> Run:
    """A run killed after `first`, which goes on from `step` as `then`, an hour later."""
    folder = write(runs / "r50", replace(first, ends=False))
    events = records(replace(then, began=BEGAN + 3600))
    events[0]["event"] = "resume"
    for event in events:
        event["step"] += step
    with (folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in events)
    return read(folder)


def test_each_start_has_its_own_baseline(runs: Path) -> None:
    run = resumed(runs, Made(windows=5), Made(windows=5, compute=0.2, contention=0.008), step=100)
    found = account(run)
    assert found is not None
    assert found.efficiency is not None
    assert found.baselines == 2
    each = [account(replace(run, windows=part)) for part in (run.windows[:5], run.windows[5:])]
    ratios = [part.efficiency.ratio for part in each if part and part.efficiency]
    seconds = [part.seconds for part in each if part]
    assert found.efficiency.ratio == pytest.approx(np.average(ratios, weights=seconds))
    assert found.efficiency.ratio + sum(found.efficiency.losses.values()) == pytest.approx(1)
    assert "the efficiency is against 2 baselines, one for each start, by time" in diagnose(run, found).notes


def test_a_launch_of_one_report_leaves_the_others_their_interval(runs: Path) -> None:
    run = resumed(runs, Made(windows=5), Made(windows=1, epochs=1, compute=0.101), step=100)
    found, first = account(run), account(replace(run, windows=run.windows[:5]))
    assert found is not None
    assert found.efficiency is not None
    assert first is not None
    assert first.efficiency is not None
    share = first.seconds / found.seconds
    width = share * (first.efficiency.high - first.efficiency.low)
    assert found.efficiency.high - found.efficiency.low == pytest.approx(width)
    alone = account(replace(run, windows=run.windows[5:]))
    assert alone is not None
    assert alone.efficiency is not None
    assert np.isnan(alone.efficiency.low)


def test_another_number_of_workers_is_another_question(runs: Path) -> None:
    run = resumed(runs, Made(workers=2, windows=5), Made(workers=4, windows=3), step=100)
    found = account(run)
    assert found is not None
    assert (found.workers, len(found.windows), found.left_out) == (4, 3, 5)
    left_out = "5 reports of another number of workers are left out, but for the table by number of workers"
    assert left_out in diagnose(run, found).notes


def test_time_that_was_no_training(examine: Examine) -> None:
    run = examine(Made(windows=6, evaluation_seconds=2.0, checkpoint_seconds=0.4)).run
    told = {pause.reason: (pause.times, pause.seconds) for pause in pauses(run)}
    assert told["evaluation"] == (3, pytest.approx(6.0))
    assert told["checkpoint"] == (3, pytest.approx(1.2))
    assert told["baseline"] == (1, pytest.approx(9.0))
    assert told["start-up"] == (1, pytest.approx(12.5, abs=0.01))
    trained = sum(window.steps * window.step_seconds for window in run.windows)
    assert wall_seconds(run) == pytest.approx(trained + sum(seconds for _, seconds in told.values()), abs=0.05)


def test_what_a_kill_cost(runs: Path) -> None:
    run = resumed(runs, Made(windows=6, evaluation_seconds=0), Made(windows=6), step=70)
    told = {pause.reason: pause for pause in pauses(run)}
    assert told["repeated"].times == 50  # 120 steps were done, 70 were saved
    assert told["repeated"].seconds == pytest.approx(50 * 0.11, rel=0.1)
    last_word = max(each.time for each in (*run.windows[:6], *run.evaluations[:3], *run.checkpoints[:3]))
    assert told["down"].seconds == pytest.approx(BEGAN + 3600 - last_word)
    assert [span.reason for span in spans(run)].count("down") == 1


def test_a_stored_baseline_takes_no_time(examine: Examine) -> None:
    assert "baseline" not in {pause.reason for pause in pauses(examine(Made(windows=3, baseline="stored")).run)}


def warming_up(run: Run, windows: int, *, times: float = 10.0) -> Run:
    """The first windows had no efficiency, and were so much slower."""

    def slow(window: Window) -> Window:
        assert window.parts is not None
        return replace(
            window,
            efficiency=None,
            step_seconds=times * window.step_seconds,
            images_per_second=window.images_per_second / times,
            parts={part: times * seconds for part, seconds in window.parts.items()},
        )

    return replace(run, windows=(*map(slow, run.windows[:windows]), *run.windows[windows:]))


def test_all_of_the_account_is_of_steps_that_can_be_compared(examine: Examine) -> None:
    run = examine(Made(windows=8)).run
    warm, found = account(replace(run, windows=run.windows[2:])), account(warming_up(run, 2))
    assert warm is not None
    assert found is not None
    assert warm.efficiency is not None
    assert warm.parts is not None
    assert (found.efficiency, found.step_seconds, found.parts) == (warm.efficiency, warm.step_seconds, warm.parts)
    assert (found.images_per_second, found.slowest) == (warm.images_per_second, warm.slowest)
    assert found.losses == warm.losses
    assert found.parts is not None
    assert found.losses is not None
    assert sum(found.losses.values()) == pytest.approx(found.step_seconds * (1 - found.efficiency.ratio))
    assert (len(found.windows), len(found.uncompared), found.left_out) == (6, 2, 0)
    assert found.training_seconds == pytest.approx(
        found.seconds + sum(10 * w.steps * w.step_seconds for w in run.windows[:2])
    )
    left_out = "2 reports without an efficiency are left out"
    assert any(note.startswith(left_out) for note in diagnose(run, found).notes)
    assert not any("without an efficiency" in note for note in diagnose(run, warm).notes)


def test_where_nothing_can_be_compared_all_steps_count(examine: Examine) -> None:
    run = warming_up(examine(Made(windows=3, epochs=1)).run, 3)
    found = account(run)
    assert found is not None
    assert (found.efficiency, len(found.windows), found.uncompared) == (None, 3, ())


def test_a_scaling_proof_is_of_the_same_steps(examine: Examine) -> None:
    run = warming_up(examine(Made(windows=8)).run, 2)
    found = of_run(run)
    assert found is not None
    assert found.rounds == tuple(window.images_per_second for window in run.windows[2:])
