"""The report letter by letter, of runs that were never run."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hvdtrain.config.schema import Config
from hvdtrain.report import text, timeline
from hvdtrain.report.causes import diagnose
from hvdtrain.report.scaling import scaling
from hvdtrain.report.study import Study
from tests.report.conftest import Examine
from tests.report.made import Fault, Made
from tests.report.test_scaling import BENCH

Golden = Callable[[Path, str], None]
HERE = Path(__file__).parent
RECORDS = HERE.parent / "golden"

BF16 = Config.model_validate({"precision": "bf16", "data": {"batch_size": 256}})
SLOW = Made(
    workers=256,
    windows=40,
    config=BF16,
    faults=(Fault("straggler", 0.03, rank=77, since=10), Fault("communication", 0.02)),
    quarantined=3,
    evaluation_seconds=20,
)


@pytest.fixture
def slow(examine: Examine) -> Study:
    return examine(SLOW, name="r50-256")


def test_a_report_of_256_ranks(slow: Study, golden: Golden) -> None:
    golden(RECORDS / "report_256_ranks.txt", text.render([slow]) + "\n")


def test_a_report_of_one_worker_with_a_timeline(examine: Examine, golden: Golden) -> None:
    alone = examine(Made(workers=1, windows=3, baseline=None, ends=False), name="alone")
    alone = replace(alone, run=replace(alone.run, heard=alone.run.windows[-1].time))  # not when the test wrote it
    alone = replace(alone, timeline=replace(timeline.read(HERE / "timeline.json"), file=Path("timeline.json")))
    golden(RECORDS / "report_one_worker.txt", text.render([alone]) + "\n")


def test_several_runs_stand_side_by_side(slow: Study, examine: Examine, golden: Golden) -> None:
    studies = [slow]
    studies += [examine(Made(workers=k, windows=6, seed=k), name=f"demo-{k}") for k in (1, 2, 4)]
    studies += [examine(Made(workers=2, windows=3, baseline=None), name="a-name-that-is-longer-than-its-column")]
    golden(RECORDS / "report_side_by_side.txt", text.beside(studies) + "\n")


def test_the_scaling_proof(tmp_path: Path, golden: Golden) -> None:
    file = tmp_path / "scaling.json"
    file.write_text(json.dumps(BENCH))
    golden(RECORDS / "report_scaling.txt", text.proof(scaling(file, [])) + "\n")


@pytest.mark.parametrize("workers", [1, 2, 3, 300])
@pytest.mark.parametrize("baseline", ["measured", "stored", None])
def test_no_line_is_wider_than_a_terminal(workers: int, baseline: str, examine: Examine) -> None:
    made = Made(workers=workers, windows=2, baseline=baseline, quarantined=2)  # type: ignore[arg-type]
    lines = text.render([examine(made.with_fault("input", 0.1)), examine(made, name="b")]).splitlines()
    assert max(map(len, lines)) <= text.COLUMNS
    assert not any(line != line.rstrip() for line in lines)


def test_a_baseline_says_what_it_is_and_how_old(examine: Examine) -> None:
    stored = text.one(examine(Made(workers=4, windows=6, baseline="stored")))
    assert "weak scaling, n = 32 of each worker constant" in stored
    words = " ".join(stored.split())
    assert (
        "against 1 worker alone, stored, measured 2026-11-20 07:12 UTC, 24 h 0 min before this run "
        "(hvdtrain bench scaling): 316 images/s, a step of 101 ms"
    ) in words


def test_one_report_makes_no_interval(examine: Examine) -> None:
    assert "% (no interval: one report)" in text.one(examine(Made(windows=1, epochs=1)))


def test_before_the_first_report_there_is_little_to_say(examine: Examine) -> None:
    begun = examine(Made(windows=3))
    run = replace(begun.run, windows=(), evaluations=(), checkpoints=(), end=None)
    words = text.one(Study(run, None, diagnose(run, None)))
    assert "no report yet" in words
    assert "share" not in words


def test_a_unit_stays_with_its_number() -> None:
    for width in range(80, 101):
        lines = text.wrapped("x" * width + " 12 % or kn = 4 of 0.5 GB/s")
        assert not any(line.endswith(("12", "kn", "=", "0.5")) for line in lines[:1]), lines
        assert " ".join(lines) == "x" * width + " 12 % or kn = 4 of 0.5 GB/s"
