"""The scaling proof: efficiency round by round, its intervals, and what may stand in one picture."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError
from hvdtrain.report.scaling import Measured, Scaling, comparable, points, scaling
from tests.report.conftest import Examine
from tests.report.made import Made

SPEEDS = {
    1: [2470.0, 2455.0, 2482.0, 2461.0, 2475.0],
    2: [4880.0, 4851.0, 4902.0, 4870.0, 4889.0],
    8: [18810.0, 18702.0, 18930.0, 18790.0, 18850.0],
    64: [137700.0, 136900.0, 138300.0, 137200.0, 138000.0],
    256: [449800.0, 452900.0, 447100.0, 450300.0, 451000.0],
}
BENCH: dict[str, Any] = {
    "kind": "weak",
    "model": "resnet50",
    "precision": "bf16",
    "batch_size": 256,
    "image_size": 224,
    "device_name": "NVIDIA H100 80GB HBM3",
    "hardware": {"cores": 96},
    "date": "2026-11-20T10:00:00+00:00",
    "command": "hvdtrain bench scaling --workers 1,2,8,64,256 --config goyal_r50_8k",
    "code": "741e248",
    "points": [{"workers": workers, "rounds": rounds} for workers, rounds in SPEEDS.items()],
}


def read(tmp_path: Path, **changes: Any) -> Scaling:
    file = tmp_path / "scaling.json"
    file.write_text(json.dumps(BENCH | changes))
    return scaling(file, [])


def test_efficiency_is_taken_round_by_round(tmp_path: Path) -> None:
    found = read(tmp_path)
    assert [point.measured.workers for point in found.points] == [1, 2, 8, 64, 256]
    assert (found.points[0].efficiency, found.points[0].low, found.points[0].high) == (1, 1, 1)
    each = np.array(SPEEDS[256]) / 256 / np.array(SPEEDS[1])
    low, high = stats.t.interval(0.95, 4, each.mean(), stats.sem(each))
    last = found.points[-1]
    assert last.efficiency == pytest.approx(each.mean())
    assert (last.low, last.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))
    assert (found.base, found.reaches) == (1, 64)
    assert found.device_name == "NVIDIA H100 80GB HBM3, 96 cores"


@given(
    mood=st.lists(st.floats(0.5, 2.0), min_size=2, max_size=6),
    share=st.floats(0.5, 1.0),
    base=st.integers(1, 8),
    times=st.integers(2, 64),
)
def test_what_slows_a_whole_round_does_not_widen_the_interval(
    mood: list[float], share: float, base: int, times: int
) -> None:
    alone = Measured(base, tuple(100 * base * m for m in mood))
    many = Measured(base * times, tuple(100 * base * times * share * m for m in mood))
    _, point = points([many, alone])
    assert point.efficiency == pytest.approx(share)
    assert point.high - point.low == pytest.approx(0, abs=1e-9)


def test_one_round_has_no_interval() -> None:
    _, point = points([Measured(1, (100.0,)), Measured(2, (180.0,))])
    assert point.efficiency == pytest.approx(0.9)
    assert math.isnan(point.low)


def test_nothing_is_proven_beyond_a_gap(tmp_path: Path) -> None:
    dip = [{"workers": k, "rounds": [100.0 * k * e, 101.0 * k * e]} for k, e in ((1, 1), (2, 0.9), (4, 0.6), (8, 0.9))]
    assert read(tmp_path, points=dip).reaches == 2
    assert read(tmp_path, points=dip[:1] + dip[2:]).reaches is None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file → hvdtrain bench scaling writes one"),
        ("{", "expected points of workers and rounds, got no JSON object"),
        ('{"kind": "weak"}', "got a file of kind"),
        ('{"points": [{"workers": 2, "rounds": []}]}', "expected points of workers and rounds"),
        ('{"kind": "strong", "points": [{"workers": 2, "rounds": [1.0]}]}', "expected weak scaling.*got strong"),
        ('{"points": [{"workers": 2, "rounds": [1.0]}]}', r"expected several numbers of workers, got \[2\]"),
    ],
)
def test_what_is_no_result(content: str | None, message: str, tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    if content is not None:
        file.write_text(content)
    with pytest.raises(ConfigError, match=message):
        scaling(file, [])


def test_finished_runs_make_a_proof(examine: Examine) -> None:
    runs = [examine(Made(workers=k, windows=8, seed=k), name=f"k{k}").run for k in (1, 2, 8)]
    assert comparable(runs)
    found = scaling(None, runs)
    assert [point.measured.run for point in found.points] == ["k1", "k2", "k8"]
    assert (found.model, found.batch_size, found.code) == ("resnet50", 32, "741e248")
    last = found.points[-1]
    assert last.low < last.efficiency < last.high
    # what the runs themselves measured against one worker alone, before the first step
    assert last.efficiency == pytest.approx(0.89, abs=0.02)


def test_a_run_stands_beside_the_bench(examine: Examine, tmp_path: Path) -> None:
    file = tmp_path / "scaling.json"
    file.write_text(json.dumps(BENCH))
    same = Config.model_validate({"precision": "bf16", "data": {"batch_size": 256}})
    found = scaling(file, [examine(Made(workers=8, windows=5, config=same), name="r50").run])
    assert [(point.measured.workers, point.measured.run) for point in found.points][2:4] == [(8, ""), (8, "r50")]
    assert found.base == 1
    other = examine(Made(workers=8, windows=5), name="other").run
    with pytest.raises(
        ConfigError, match=r"runs/other: expected a run of resnet50, bf16, n = 256, 224 pixels, got one"
    ):
        scaling(file, [other])


def test_runs_that_differ_or_have_not_ended_make_none(examine: Examine) -> None:
    two, four = (examine(Made(workers=k, windows=4), name=f"k{k}").run for k in (2, 4))
    going = examine(Made(workers=4, windows=4, ends=False), name="going").run
    other = examine(Made(workers=4, windows=4, config=Config.model_validate({"precision": "bf16"})), name="other").run
    assert comparable([two, four])
    assert not comparable([two, going])
    assert not comparable([two, other])
    assert not comparable([two, two])
    assert not comparable([])
