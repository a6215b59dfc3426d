"""The file by which Prometheus finds the workers, and how one that nobody keeps is told."""

import json
import os
import socket
import time
from pathlib import Path

import pytest

from hvdtrain.metrics import targets
from hvdtrain.metrics.targets import STALE_SECONDS, SWEPT_SECONDS


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return targets_of("mine", tmp_path)


def targets_of(run: str, runs: Path, *, untouched_seconds: float = 0) -> Path:
    """The targets file of a run that touched it so long ago."""
    path = targets.file(runs / run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(targets.text(run, ["a:9470"]))
    then = path.stat().st_mtime - untouched_seconds
    os.utime(path, (then, then))
    return path


def test_every_rank_is_a_target_with_its_labels_in_order() -> None:
    assert json.loads(targets.text("demo", ["a:9470", "a:9471", "b:9470"])) == [
        {"targets": ["a:9470"], "labels": {"run": "demo", "rank": "0"}},
        {"targets": ["a:9471"], "labels": {"run": "demo", "rank": "1"}},
        {"targets": ["b:9470"], "labels": {"run": "demo", "rank": "2"}},
    ]


def test_targets_with_tls_say_so_to_prometheus() -> None:
    (group,) = json.loads(targets.text("demo", ["a:9470"], "https"))
    assert group["labels"] == {"run": "demo", "rank": "0", "__scheme__": "https"}


@pytest.mark.parametrize("address", ["127.0.0.1", "10.1.2.3", "node7.cluster"])
def test_an_address_is_its_own_name(address: str) -> None:
    assert targets.advertised_host(address) == address


@pytest.mark.parametrize("address", ["0.0.0.0", "::"])
def test_behind_a_wildcard_the_host_is_told_by_its_name(address: str) -> None:
    assert targets.advertised_host(address) == socket.getfqdn()


def test_an_ipv6_address_is_told_in_brackets() -> None:
    assert targets.advertised_host("::1") == "[::1]"


def test_a_run_lives_while_its_file_is_touched(tmp_path: Path) -> None:
    assert targets.alive(targets_of("a", tmp_path))
    assert targets.alive(targets_of("b", tmp_path, untouched_seconds=STALE_SECONDS - 20))
    assert not targets.alive(targets_of("c", tmp_path, untouched_seconds=STALE_SECONDS + 20))
    assert not targets.alive(targets.file(tmp_path / "d"))


def test_a_clock_of_this_host_that_is_wrong_does_not_matter(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for wrong in (0.0, time.time() + 1e6):
        monkeypatch.setattr(time, "time", lambda wrong=wrong: wrong)
        assert targets.alive(path)
        assert targets.sweep(path.parent) == []


def test_where_nothing_can_be_written_this_hosts_clock_has_to_do(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(folder: Path) -> float:
        raise PermissionError(folder)

    monkeypatch.setattr(targets, "_now", refused)
    assert targets.alive(path)
    monkeypatch.setattr(time, "time", lambda: path.stat().st_mtime + STALE_SECONDS + 20)
    assert not targets.alive(path)
    assert targets.sweep(path.parent) == []


def test_a_sweep_removes_the_files_of_dead_runs_and_nothing_else(tmp_path: Path) -> None:
    living = [targets_of("a", tmp_path), targets_of("b", tmp_path, untouched_seconds=SWEPT_SECONDS - 20)]
    dead = [targets_of(name, tmp_path, untouched_seconds=SWEPT_SECONDS + 20) for name in ("c", "d")]
    folder = dead[0].parent
    others = [tmp_path / "c" / "events.jsonl", tmp_path / "notes.json", folder / "notes.txt", folder / "x" / "y.json"]
    for other in others:
        other.parent.mkdir(parents=True, exist_ok=True)
        other.touch()
        os.utime(other, (0, 0))
    assert sorted(targets.sweep(folder)) == dead
    assert targets.sweep(folder) == []
    assert all(path.exists() for path in (*living, *others))
    assert {path.name for path in folder.iterdir()} == {"a.json", "b.json", "notes.txt", "x"}


def test_a_file_that_vanishes_while_it_is_judged_is_no_trouble(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = targets_of("ended", tmp_path, untouched_seconds=SWEPT_SECONDS + 20)
    other = targets_of("other", tmp_path, untouched_seconds=SWEPT_SECONDS + 20)
    touched = targets._touched

    def vanishing(file: Path) -> float:
        found = touched(file)
        path.unlink(missing_ok=True)
        return found

    monkeypatch.setattr(targets, "_touched", vanishing)
    assert targets.sweep(path.parent) == [other]


def test_a_folder_that_is_not_there_has_nothing_to_sweep(tmp_path: Path) -> None:
    assert targets.sweep(tmp_path / "none") == []


def test_a_run_has_one_file_however_its_directory_is_called(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "latest").symlink_to("mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert targets.file(Path()) == targets.file((tmp_path / "latest").resolve()) == path
