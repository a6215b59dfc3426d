"""Saving in the background: what is written is the state as it was, one at a time, and no failure goes unnoticed."""

import os
import threading
import time
from pathlib import Path

import pytest
import torch

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.writer import Writer
from hvdtrain.errors import CheckpointError

from .saving import about

CPU = torch.device("cpu")


@pytest.fixture
def slow_disk(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """fsync does not return before the event is set."""
    goes_on, fsync = threading.Event(), os.fsync

    def slow(descriptor: int) -> None:
        assert goes_on.wait(60)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", slow)
    return goes_on


def weights(path: Path) -> torch.Tensor:
    found: torch.Tensor = form.tensors(form.read(path).data, CPU)["model"]["w"]
    return found


def test_training_goes_on_while_the_state_as_it_was_is_written(tmp_path: Path, slow_disk: threading.Event) -> None:
    state = {"model": {"w": torch.zeros(4)}, "list": [torch.zeros(2), ("x", 1.5, None)]}
    with Writer(tmp_path, keep=3) as writer:
        writer.save(state, about(1))
        state["model"]["w"].fill_(9)  # type: ignore[call-overload,index]
        assert store.paths(tmp_path) == []
        slow_disk.set()
    (path,) = store.paths(tmp_path)
    assert torch.equal(weights(path), torch.zeros(4))
    found = form.tensors(form.read(path).data, CPU)
    assert found["list"][1] == ("x", 1.5, None)


def test_what_is_durable_is_told_once_with_what_it_took(tmp_path: Path, slow_disk: threading.Event) -> None:
    with Writer(tmp_path, keep=3) as writer:
        writer.save({"w": torch.zeros(4)}, about(1))
        assert list(writer.take_saved()) == []
        time.sleep(0.05)
        slow_disk.set()
        writer.finish()
        (saved,) = writer.take_saved()
        assert saved.manifest.images_seen == 1
        assert saved.path == tmp_path / "images-000000000001"
        assert 0 < saved.stalled_seconds < saved.seconds
        assert saved.seconds > 0.05
        assert list(writer.take_saved()) == []


def test_a_second_save_waits_for_the_first_and_its_wait_is_counted(tmp_path: Path, slow_disk: threading.Event) -> None:
    with Writer(tmp_path, keep=3) as writer:
        writer.save({"w": torch.zeros(4)}, about(1))
        threading.Timer(0.1, slow_disk.set).start()
        writer.save({"w": torch.ones(4)}, about(2))
        assert [path.name for path in store.paths(tmp_path)][-1:] == ["images-000000000001"]
        writer.finish()
        first, second = writer.take_saved()
        assert first.stalled_seconds < 0.1 < second.stalled_seconds + 0.05
    assert len(store.paths(tmp_path)) == 2


def test_the_copy_is_made_into_the_same_memory_again_and_follows_a_change_of_shape(tmp_path: Path) -> None:
    state = {"model": {"w": torch.arange(4.0)}}
    with Writer(tmp_path, keep=9) as writer:
        for images_seen in (1, 2, 3):
            state["model"]["w"] = torch.full((images_seen + 2,), float(images_seen))
            writer.save(state, about(images_seen))
    assert [weights(path).tolist() for path in store.paths(tmp_path)] == [[3.0] * 5, [2.0] * 4, [1.0] * 3]


def test_memory_order_is_kept(tmp_path: Path) -> None:
    w = torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last)
    with Writer(tmp_path, keep=9) as writer:
        writer.save({"model": {"w": w}}, about(1))
    (path,) = store.paths(tmp_path)
    assert weights(path).stride() == w.stride()
    assert torch.equal(weights(path), w)


def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)


def test_a_failed_save_is_raised_at_the_next_check_and_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Writer(tmp_path, keep=3) as writer:
        writer.check()
        full(monkeypatch)
        writer.save({"w": torch.zeros(4)}, about(1))
        with pytest.raises(CheckpointError, match="000001 cannot be saved: No space left on device → make room"):
            writer.finish()
        writer.check()
    assert list(tmp_path.iterdir()) == []


def test_the_next_save_does_not_begin_over_a_failed_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Writer(tmp_path, keep=3) as writer:
        full(monkeypatch)
        writer.save({"w": torch.zeros(4)}, about(1))
        with pytest.raises(CheckpointError, match="000001 cannot be saved"):
            writer.save({"w": torch.zeros(4)}, about(2))


def test_at_the_end_a_failure_is_raised_unless_something_else_ends_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    full(monkeypatch)
    with pytest.raises(CheckpointError, match="cannot be saved"), Writer(tmp_path, keep=3) as writer:
        writer.save({"w": torch.zeros(4)}, about(1))
    with pytest.raises(KeyboardInterrupt), Writer(tmp_path, keep=3) as writer:
        writer.save({"w": torch.zeros(4)}, about(1))
        raise KeyboardInterrupt
    assert "cannot be saved: No space left on device" in caplog.text


def test_a_save_in_progress_is_finished_whatever_ends_the_run(tmp_path: Path, slow_disk: threading.Event) -> None:
    threading.Timer(0.1, slow_disk.set).start()
    with pytest.raises(ValueError, match="the run's own"), Writer(tmp_path, keep=3) as writer:
        writer.save({"model": {"w": torch.ones(4)}}, about(1))
        raise ValueError("the run's own")
    assert torch.equal(weights(store.paths(tmp_path)[0]), torch.ones(4))


def test_old_ones_go_when_the_new_one_is_safe(tmp_path: Path) -> None:
    with Writer(tmp_path, keep=2) as writer:
        for images_seen, top1 in enumerate([None, 0.9, 0.1, 0.2, 0.3], start=1):
            writer.save({"w": torch.zeros(4)}, about(images_seen, top1))
    assert [path.name[-1] for path in store.paths(tmp_path)] == ["5", "4", "2"]


def test_beginning_sweeps_what_a_killed_process_left(tmp_path: Path) -> None:
    (tmp_path / ".images-000000000020.77.tmp").mkdir(parents=True)
    with Writer(tmp_path, keep=2):
        assert list(tmp_path.iterdir()) == []
