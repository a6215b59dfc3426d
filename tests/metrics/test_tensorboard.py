"""Event files that TensorBoard itself reads, over a resume, without the package, and on a full disk."""

import sys
from pathlib import Path

import pytest

from hvdtrain.errors import EnvironmentFault
from hvdtrain.metrics import tensorboard
from hvdtrain.metrics.tensorboard import Board

REPORT = {
    "epoch": 0.5,
    "lr": 0.1,
    "loss": 2.0,
    "images_per_second": 100.0,
    "steps": 20,
    "step_seconds": 0.32,
    "parts": {"compute": 0.3, "input": 0.02},
    "slowest_rank": 1,
    "efficiency": None,
}


def seen(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """Tag -> (step, value) of each point, as TensorBoard's own reader finds them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder))
    reader.Reload()
    return {
        tag: [(point.step, pytest.approx(point.value)) for point in reader.Scalars(tag)]
        for tag in reader.Tags()["scalars"]
    }


def test_reports_and_evaluations_are_scalars_over_steps(tmp_path: Path) -> None:
    board = Board(tmp_path, step=0)
    board.write("start", step=0, world_size=2)
    board.write("report", step=20, **REPORT)
    board.write("evaluate", step=25, epoch=1.0, top1=0.5, top5=0.9, loss=1.5, images=10, seconds=1.0)
    board.write("report", step=40, **{**REPORT, "loss": float("nan"), "efficiency": {"ratio": 0.9, "kind": "weak"}})
    board.close()
    found = seen(tmp_path)
    assert set(found) == {
        *("train/loss", "train/lr", "train/epoch", "speed/images_per_second", "speed/step_seconds"),
        *("speed/efficiency", "seconds/compute", "seconds/input"),
        *("validation/top1", "validation/top5", "validation/loss"),
    }
    assert found["train/lr"] == [(20, 0.1), (40, 0.1)]
    assert found["train/loss"][0] == (20, 2.0)
    assert found["speed/efficiency"] == [(40, 0.9)]
    assert found["validation/top1"] == [(25, 0.5)]


def test_what_a_resumed_run_takes_back_is_gone(tmp_path: Path) -> None:
    first = Board(tmp_path, step=0)
    for step in (20, 40, 60):
        first.write("report", step=step, **REPORT)
    first.close()
    second = Board(tmp_path, step=40)
    second.write("report", step=60, **{**REPORT, "lr": 0.2})
    second.close()
    assert seen(tmp_path)["train/lr"] == [(20, 0.1), (40, 0.1), (60, 0.2)]


def test_without_the_package_a_run_does_not_begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard.compat.proto", None)
    with pytest.raises(EnvironmentFault, match=r"pip install 'hvdtrain\[tensorboard\]'"):
        Board(tmp_path, step=0)


def test_a_full_disk_is_told_once_and_the_run_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr(tensorboard.logger, "warning", lambda text, *values: told.append(text % values))
    board = Board(tmp_path, step=0)
    board._writer._writer.close()
    board._writer._writer = Path("/dev/full").open("wb", buffering=0)  # noqa: SIM115
    for step in (20, 40):
        board.write("report", step=step, **REPORT)
    board.close()
    assert [line.partition("cannot be written: ")[2] for line in told] == [
        "No space left on device; the run goes on without it"
    ]
