"""A living run's file is there and fresh; a dead one's goes."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hvdtrain.metrics import targets
from hvdtrain.metrics.heartbeat import BEAT_SECONDS, Heartbeat
from hvdtrain.metrics.targets import STALE_SECONDS, SWEPT_SECONDS

TEXT = targets.text("r", ["a:9470"])
OTHER = targets.text("r", ["b:9470"])


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return new("mine", tmp_path)


def new(run: str, runs: Path) -> Path:
    (runs / run).mkdir()
    return targets.file(runs / run)


def age(path: Path, seconds: float) -> None:
    then = path.stat().st_mtime - seconds
    os.utime(path, (then, then))


def wait_until(condition: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < give_up
        time.sleep(0.01)


def beating(path: Path, text: str = TEXT) -> Heartbeat:
    return Heartbeat(path, text, beat_seconds=0.02)


@contextmanager
def killed_run(path: Path) -> Iterator[None]:
    """A run of another process, killed within the block's first line; its file stays."""
    program = f"""
import time
from pathlib import Path
from hvdtrain.metrics.heartbeat import Heartbeat
heartbeat = Heartbeat(Path({str(path)!r}), {OTHER!r}, beat_seconds=0.02)
print("beating", flush=True)
time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout
        assert run.stdout.readline() == "beating\n"
        run.send_signal(signal.SIGKILL)
        assert run.wait() == -signal.SIGKILL
    yield


def test_a_beat_is_often_enough_for_three_to_be_late() -> None:
    assert 4 * BEAT_SECONDS <= STALE_SECONDS


def test_the_file_is_there_at_once_and_gone_in_the_end(path: Path) -> None:
    with Heartbeat(path, TEXT):
        assert path.read_text() == TEXT
    assert list(path.parent.iterdir()) == []


def test_it_goes_by_an_error_too_and_the_thread_with_it(path: Path) -> None:
    threads = threading.active_count()
    with pytest.raises(ZeroDivisionError), Heartbeat(path, TEXT):
        assert threading.active_count() == threads + 1
        raise ZeroDivisionError
    assert not path.exists()
    assert threading.active_count() == threads


def test_it_is_touched_while_the_run_lives(path: Path) -> None:
    with beating(path):
        for _ in range(3):
            age(path, STALE_SECONDS + 20)
            wait_until(lambda: targets.alive(path))
        assert path.read_text() == TEXT


def test_it_is_written_again_by_a_run_that_was_taken_for_dead(path: Path) -> None:
    with beating(path):
        path.unlink()
        wait_until(path.exists)
        assert path.read_text() == TEXT


def test_a_run_whose_folder_is_gone_makes_it_again(path: Path) -> None:
    with beating(path):
        path.parent.rename(path.parent.with_name("away"))
        wait_until(path.exists)
    assert not path.exists()


def test_a_run_that_is_removed_with_all_around_it_ends_without_an_error(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    with beating(new("mine", tmp_path / "runs")):
        shutil.rmtree(tmp_path / "runs")
        time.sleep(0.1)
        assert not (tmp_path / "runs").exists()


def test_a_killed_runs_file_expires_and_a_living_run_removes_it(path: Path, tmp_path: Path) -> None:
    dead = new("dead", tmp_path)
    with killed_run(dead), beating(path):
        assert targets.alive(dead)
        time.sleep(0.1)
        assert dead.read_text() == OTHER
        age(dead, STALE_SECONDS + 20)
        assert not targets.alive(dead)
        time.sleep(0.1)
        assert dead.exists()  # for Prometheus to see that its workers are down
        age(dead, SWEPT_SECONDS)
        wait_until(lambda: not dead.exists())
        assert path.read_text() == TEXT
        assert dead.parent.exists()


def test_two_runs_in_one_folder_of_runs_leave_each_other_alone(path: Path, tmp_path: Path) -> None:
    other = new("other", tmp_path)
    with beating(path), beating(other, OTHER):
        age(path, STALE_SECONDS - 20)
        age(other, STALE_SECONDS - 20)
        time.sleep(0.1)
        assert (path.read_text(), other.read_text()) == (TEXT, OTHER)
    assert not path.exists()
    assert not other.exists()


def test_of_two_runs_in_one_directory_the_file_is_the_later_ones(path: Path) -> None:
    with beating(path, OTHER):
        with beating(path, TEXT):
            time.sleep(0.1)
            assert path.read_text() == TEXT
        wait_until(path.exists)  # the earlier one, which lives on, is found again
        assert path.read_text() == OTHER
    assert not path.exists()


def test_a_run_that_ends_leaves_the_file_of_the_one_that_goes_on_in_its_directory(path: Path) -> None:
    with beating(path, OTHER):
        earlier = beating(path, TEXT)
        path.write_text(OTHER)
        earlier.close()
        assert path.read_text() == OTHER


def test_the_file_of_a_killed_run_in_ones_own_directory_is_replaced(path: Path) -> None:
    with killed_run(path), beating(path):
        assert path.read_text() == TEXT
    assert not path.exists()


def test_an_earlier_run_does_not_keep_a_killed_later_one_alive(path: Path) -> None:
    with beating(path), killed_run(path):
        assert path.read_text() == OTHER
        age(path, SWEPT_SECONDS + 20)
        wait_until(lambda: path.exists() and path.read_text() == TEXT)


def test_where_it_cannot_be_written_the_run_goes_on_and_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / ".targets").touch()
    with caplog.at_level("WARNING", logger="hvdtrain"), beating(path := targets.file(tmp_path / "run")):
        assert "Prometheus does not find this run" in caplog.text
        (tmp_path / ".targets").unlink()
        wait_until(path.exists)
        assert path.read_text() == TEXT


@pytest.mark.parametrize(
    ("umask", "around", "wanted"),
    [
        (0o000, 0o1777, 0o1777),
        (0o022, 0o1777, 0o1755),
        (0o002, 0o2770, 0o2770),
        (0o027, 0o3777, 0o3750),
        (0o077, 0o777, 0o700),
        (0o000, 0o4755, 0o755),
    ],
)
def test_who_may_make_runs_may_tell_of_them_as_far_as_the_umask_lets(
    umask: int, around: int, wanted: int, tmp_path: Path
) -> None:
    tmp_path.chmod(around)
    path = targets.file(tmp_path / "run")
    before = os.umask(umask)
    try:
        with beating(path):
            assert path.parent.stat().st_mode & 0o7777 == wanted
            assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    finally:
        os.umask(before)


def test_a_folder_that_is_there_keeps_its_mode(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o1770)
    with beating(path):
        assert path.parent.stat().st_mode & 0o7777 == 0o1770
