"""Runs whose workers come and go: what a change cost, how the run did with each number of workers, how it is drawn."""

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtrain.figures import figure
from hvdtrain.report import marks, plots, text
from hvdtrain.report.account import account
from hvdtrain.report.canvas import Clock
from hvdtrain.report.changes import changes, in_words, rows, sizes
from hvdtrain.report.marks import FEW_LINES, mark_changes
from hvdtrain.report.page import report
from hvdtrain.report.pauses import pauses, spans
from hvdtrain.report.read import read
from hvdtrain.report.records import Run
from hvdtrain.report.study import study
from tests.report import changed
from tests.report.changed import BETWEEN_SECONDS, Set
from tests.report.made import BEGAN, Made, records
from tests.report.test_page import page
from tests.report.test_plots import OF_ONE, pixels

Golden = Callable[[Path, str], None]
RECORDS = Path(__file__).parents[1] / "golden"
FEW = (Set(2, 6), Set(1, 4, baseline=False), Set(2, 5, lost_steps=7, unreported_steps=3), Set(3, 9, resets=2))


def elastic(runs: Path, sets: Sequence[Set] = FEW) -> Run:
    return read(changed.write(runs / "r50", sets))


def test_the_report_of_an_elastic_run(runs: Path, golden: Golden) -> None:
    golden(RECORDS / "report_elastic.txt", text.one(study(changed.write(runs / "r50", FEW))) + "\n")


def test_what_the_changes_cost(runs: Path) -> None:
    run = elastic(runs)
    found = changes(run)
    assert found is not None
    assert (found.times, found.workers, found.lost_images) == (4, (2, 1, 2, 3), 7 * 64)
    assert found.between_seconds == pytest.approx(3 * BETWEEN_SECONDS, abs=0.01)  # though no report told of 3 steps
    assert (run.changes, run.launches) == (4, 1)
    told = {pause.reason: pause for pause in pauses(run)}
    assert told["reset"].times == 3
    assert told["repeated"].times == 4  # of the 7 steps that were lost, those of which a report had told
    assert "down" not in told


def test_a_baseline_that_still_holds_is_no_pause_and_no_other_one(runs: Path) -> None:
    run = elastic(runs, [Set(2, 5), Set(1, 3), Set(2, 5)])
    assert len(run.baselines) == 3
    assert [span.reason for span in spans(run)].count("baseline") == 1
    found = account(run)
    assert found is not None
    assert (found.baselines, len(found.windows), found.left_out) == (1, 10, 3)


def test_each_number_of_workers_has_its_line(runs: Path) -> None:
    run = elastic(runs)
    found = sizes(run)
    assert [(each.workers, each.steps) for each in found] == [(1, 40), (2, 110), (3, 90)]
    assert sum(each.share for each in found) == pytest.approx(1)
    for each in found:
        alone = account(
            replace(run, windows=tuple(w for w in run.windows if run.starts[w.start].world_size == each.workers))
        )
        assert alone is not None
        assert each.images_per_second == alone.images_per_second
        assert each.efficiency == alone.efficiency
    assert [each.efficiency is None for each in found] == [True, False, False]
    assert rows(found)[0][3:5] == ("—", "—")
    assert sizes(run, last=9) == ()


def test_shares_of_time_are_of_all_steps(runs: Path) -> None:
    run = elastic(runs, [Set(2, 5), Set(1, 5)])
    before = sizes(run)
    first = tuple(replace(window, efficiency=None) for window in run.windows[:3])
    after = sizes(replace(run, windows=(*first, *run.windows[3:])))
    assert [(each.steps, each.share) for each in after] == [(each.steps, pytest.approx(each.share)) for each in before]
    assert after[1].efficiency != before[1].efficiency


def test_a_run_whose_workers_stay_has_neither(runs: Path) -> None:
    run = elastic(runs, [Set(2, 5)])
    assert changes(run) is None
    assert sizes(run) == ()
    assert "workers changed" not in " ".join(text.one(study(run.folder)).split())


def test_what_is_launched_again_was_down(runs: Path) -> None:
    run = elastic(runs, FEW[:2])
    later = records(Made(3, 4, 10, began=BEGAN + 3600))
    later[0]["event"] = "resume"
    with (run.folder / "events.jsonl").open("a") as file:
        file.writelines(json.dumps(event) + "\n" for event in later)
    run = read(run.folder)
    assert (run.changes, run.launches) == (1, 2)
    assert [span.reason for span in spans(run) if span.reason in ("down", "reset")] == ["reset", "down"]
    assert "begun 2 times" in text.state(run)


def test_of_many_sets_the_first_and_the_last_are_named(runs: Path) -> None:
    found = changes(elastic(runs, [Set(1 + i % 9, 1) for i in range(40)]))
    assert found is not None
    assert in_words(found) == (
        "changed 39 times, k = 1, 2, 3, 4, 5, 6, …, 8, 9, 1, 2, 3, 4: no image twice, 8 min 4 s between"
    )


def test_machines_and_pages_are_told_too(runs: Path) -> None:
    folder = changed.write(runs / "r50", FEW)
    (run,) = json.loads(report([folder], as_json=True))["runs"]
    assert (run["changes"]["times"], run["changes"]["workers"]) == (4, [2, 1, 2, 3])
    assert [each["workers"] for each in run["by_workers"]] == [1, 2, 3]
    found = page([folder])
    assert len(found.pictures) == 4
    assert "workers changed 4 times, k = 2, 1, 2, 3: 448 images once more, 37 s between" in found.text
    assert "by number of workers steps images/s" in found.text


@pytest.mark.parametrize("draw", OF_ONE, ids=["losses", "lags", "training", "throughput"])
@pytest.mark.parametrize("sets", [FEW, FEW[:2], [Set(1 + i % 7, 2) for i in range(60)]], ids=["few", "alone", "many"])
def test_whatever_changed_there_is_a_figure(draw: Callable[..., bytes], sets: Sequence[Set], runs: Path) -> None:
    pixels(draw(study(changed.write(runs / "r50", sets))))


def test_perfect_scaling_follows_the_workers(runs: Path) -> None:
    run = elastic(runs)
    axes = figure(3).subplots()
    plots._perfect(axes, run, Clock.of(run.windows))
    (line,) = axes.get_lines()
    levels = [y for y in line.get_ydata() if y == y]
    alone = 32 / run.baselines[0][1].step_seconds
    assert levels == pytest.approx([2 * alone] * 4 + [3 * alone] * 2)
    assert line.get_label() == "k x the baseline"


def test_several_runs_are_compared_by_worker(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told = study(changed.write(runs / "r50", [Set(2, 5), Set(8, 5)], jitter=0.0))
    speeds: list[float] = []
    profile = plots._profile
    monkeypatch.setattr(
        plots, "_profile", lambda *given: (found := profile(*given), speeds.extend(found[1][:, 0].tolist()))[0]
    )
    plots.throughput([told, told])
    assert [speed for speed in speeds if speed == speed] == pytest.approx(
        [287] * len([s for s in speeds if s == s]), rel=0.03
    )


@pytest.mark.parametrize("count", [4, 30, 120])
def test_marks_of_changes_leave_each_other_room(count: int, runs: Path) -> None:
    run = elastic(runs, [Set(90 + i % 20, 1) for i in range(count)])
    drawn = figure(3)
    axes = drawn.subplots()
    clock = Clock.of(run.windows)
    axes.set_xlim(0, clock(run.windows[-1].time))
    mark_changes(axes, run, clock)
    boxes = [words.get_window_extent() for words in axes.texts]
    assert boxes
    assert all(a.x1 < b.x0 for a, b in itertools.pairwise(boxes))
    assert len(boxes) == count - 1 or count > 4
    heights = {line.get_ydata()[0] for line in axes.get_lines()}
    assert heights == ({0.0} if count - 1 <= FEW_LINES else {0.94})


def test_pauses_are_found_once_for_a_figure(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = elastic(runs), []
    monkeypatch.setattr(marks, "spans", lambda run: asked.append(run) or spans(run))
    axes = figure(2.0).subplots()
    axes.plot([0, 100], [0, 1])
    marks.mark_pauses(axes, run, Clock.of(run.windows))
    assert len(asked) == 1
