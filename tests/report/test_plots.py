"""The figures are whole PNG files that show what they should, whatever was measured."""

import io
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageColor

from hvdtrain.metrics.efficiency import CAUSES
from hvdtrain.report import plots
from hvdtrain.report.canvas import MOST_BINS, bins
from hvdtrain.report.palette import LOOKS
from hvdtrain.report.proof import proof, stands_above
from hvdtrain.report.scaling import Measured, Point, scaling
from hvdtrain.report.study import Study, study
from tests.report.conftest import Examine
from tests.report.made import BEGAN, Fault, Made, records
from tests.report.test_scaling import BENCH

ALL_CAUSES = Made(
    workers=8,
    windows=30,
    input_wait=0.004,
    contention=0.03,
    exposed=0.03,
    faults=(Fault("straggler", 0.03, rank=2), Fault("input", 0.08, rank=5, since=15)),
)
OF_ONE: list[Callable[[Study], bytes]] = [
    plots.losses,
    plots.lags,
    lambda each: plots.training([each]),
    lambda each: plots.throughput([each]),
]


def pixels(png: bytes) -> NDArray[np.uint8]:
    """(H, W, 3)"""
    with Image.open(io.BytesIO(png)) as image:
        assert (image.format, image.width) == ("PNG", 1350)
        drawn = np.asarray(image.convert("RGB"))
    assert len(np.unique(drawn @ (1 << 16, 1 << 8, 1))) > 15
    return drawn


def share(drawn: NDArray[np.uint8], colour: str) -> float:
    """Of the picture that is exactly of that colour."""
    return float(np.all(drawn == ImageColor.getrgb(colour), axis=-1).mean())


@pytest.mark.parametrize("draw", OF_ONE, ids=["losses", "lags", "training", "throughput"])
@pytest.mark.parametrize(
    "made",
    [
        Made(workers=2, windows=1, epochs=1),
        Made(workers=2, windows=400, epochs=200, steps=2),
        Made(workers=40, windows=3, baseline=None),
        Made(workers=3, windows=9, contention=-0.05, exposed=0.0),
        replace(ALL_CAUSES, ends=False),
    ],
    ids=["one report", "more pauses than can be seen", "no baseline", "faster than the baseline", "all causes"],
)
def test_whatever_was_measured(draw: Callable[[Study], bytes], made: Made, examine: Examine) -> None:
    pixels(draw(examine(made)))


def test_each_cause_has_its_colour(examine: Examine) -> None:
    found = examine(ALL_CAUSES)
    drawn = pixels(plots.losses(found))
    assert found.account is not None
    assert found.account.efficiency is not None
    area = share(drawn, LOOKS["efficiency"].colour) / found.account.efficiency.ratio
    assert 0.3 < area < 0.8
    for cause in set(CAUSES) - {"rest"}:
        assert share(drawn, LOOKS[cause].colour) > 0.2 * area * found.account.efficiency.losses[cause], cause
    calm = pixels(plots.losses(examine(replace(ALL_CAUSES, faults=(), exposed=0.0))))
    assert share(calm, LOOKS["input"].colour) < 0.005  # in the legend alone
    assert share(calm, LOOKS["communication"].colour) < 0.005


@pytest.mark.parametrize("windows", [1, 7, 159, 160, 161, 400])
def test_bins_hold_every_report_once_and_have_no_gap_but_between_starts(windows: int, examine: Examine) -> None:
    told = examine(Made(windows=windows, steps=1, epochs=1)).run.windows
    again = tuple(replace(window, start=1, time=window.time + 1e6) for window in told)
    found = bins((*told, *again))
    assert len(found) <= MOST_BINS + 2
    assert [window for each in found for window in each.windows] == [*told, *again]
    second = next(i for i, each in enumerate(found) if each.windows[0].start == 1)
    assert found[second].begin == pytest.approx(again[0].time - again[0].step_seconds)
    for before, after in itertools.pairwise(found):
        assert after is found[second] or after.begin == before.end


def test_losses_below_nothing_leave_no_gap() -> None:
    shares = np.array([[0.8, -0.1, 0.2, 0.1], [1.1, -0.1, 0.0, 0.0], [0.5, 0.5, 0.0, 0.0]])
    drawable = plots._drawable(shares)
    assert drawable.min() >= 0
    assert drawable.sum(1) == pytest.approx(1)
    assert drawable[0, 2] / drawable[0, 3] == pytest.approx(2)


def test_a_late_rank_is_a_bright_line(examine: Examine) -> None:
    drawn = pixels(plots.lags(examine(Made(workers=256, windows=30).with_fault("straggler", 0.05, rank=77))))
    bright = np.argwhere((drawn[:, :1100] > (200, 180, 0)).all(-1) & (drawn[:, :1100, 2] < 120))
    assert len(bright) > 500
    assert np.ptp(bright[:, 0]) <= 4


def test_a_run_that_went_on_with_more_workers(examine: Examine, runs: Path) -> None:
    examine(Made(workers=2, windows=5, ends=False), name="r")
    later = records(Made(workers=4, windows=5, began=BEGAN + 600))
    with (runs / "r" / "events.jsonl").open("a") as file:
        file.writelines(
            json.dumps(event | {"event": event["event"].replace("start", "resume")}) + "\n" for event in later
        )
    found = study(runs / "r")
    assert len(found.run.starts) == 2
    for draw in OF_ONE:
        pixels(draw(found))


def test_a_loss_that_is_no_number_is_a_gap(examine: Examine) -> None:
    found = examine(Made(windows=6))
    lost = tuple(replace(window, loss=float("nan"), lr=float("nan")) for window in found.run.windows)
    pixels(plots.training([replace(found, run=replace(found.run, windows=lost, evaluations=()))]))


def test_several_runs_lie_one_upon_the_other(examine: Examine) -> None:
    studies = [examine(Made(workers=2, windows=5 + k, seed=k), name=f"run-{k}" + "x" * 30) for k in range(8)]
    for draw in (plots.training, plots.throughput):
        two = pixels(draw(studies[:2]))
        assert share(two, "#D55E00") > share(pixels(draw(studies[:1])), "#D55E00")
        pixels(draw(studies))


@pytest.mark.parametrize("points", [2, 3, 5])
def test_the_proof(points: int, tmp_path: Path, examine: Examine) -> None:
    file = tmp_path / "scaling.json"
    file.write_text(json.dumps(BENCH | {"points": BENCH["points"][:points]}))
    drawn = pixels(proof(scaling(file, [])))
    assert share(drawn, "#0072B2") > 0.001
    runs = [examine(Made(workers=k, windows=1, epochs=1), name=f"k{k}").run for k in (2, 8)]
    pixels(proof(scaling(None, runs)))


def test_of_two_numbers_at_one_place_the_higher_stands_above() -> None:
    bench, run, lone = (
        Point(Measured(k, (1.0,), name), e, e, e) for k, name, e in [(2, "", 0.83), (2, "digits", 0.79), (4, "", 0.7)]
    )
    for points in ([bench, run, lone], [lone, run, bench]):
        assert [stands_above(point, points) for point in (bench, run, lone)] == [True, False, False]


def test_the_looks_are_told_apart() -> None:
    assert list(LOOKS) == ["efficiency", *CAUSES]
    for what in ("colour", "cell", "terminal"):
        assert len({getattr(look, what) for look in LOOKS.values()}) == len(LOOKS), what
    textures = [(look.hatch, sum(ImageColor.getrgb(look.colour))) for look in LOOKS.values()]
    assert len(set(textures)) == len(LOOKS)  # in grey too
