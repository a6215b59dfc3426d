"""How a run ended, in one line."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hvdtrain import outcome
from hvdtrain.outcome import Outcome


def test_what_was_told_is_read(tmp_path: Path) -> None:
    outcome.tell(tmp_path, 75, "stopped at step 3\nby SIGUSR2")
    assert (tmp_path / "outcome").read_text() == "75 stopped at step 3 by SIGUSR2\n"
    assert outcome.read(tmp_path) == Outcome(75, "stopped at step 3 by SIGUSR2")
    assert [path.name for path in tmp_path.iterdir()] == ["outcome"]


def test_the_first_to_tell_is_right(tmp_path: Path) -> None:
    outcome.tell(tmp_path, 5, "the cause")
    outcome.tell(tmp_path, 6, "what came of it")
    assert outcome.read(tmp_path) == Outcome(5, "the cause")


def test_where_one_has_told_others_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outcome.tell(tmp_path, 5, "the cause")
    monkeypatch.setattr(Path, "write_text", None)
    outcome.tell(tmp_path, 6, "what came of it")


def test_of_many_at_once_one_is_first_and_whole(tmp_path: Path) -> None:
    threads = [threading.Thread(target=outcome.tell, args=(tmp_path, 6, f"{i} " * 900)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told = outcome.read(tmp_path)
    assert told
    assert len(set(told.message.split())) == 1


def test_a_new_run_forgets(tmp_path: Path) -> None:
    outcome.forget(tmp_path)
    outcome.tell(tmp_path, 0, "finished")
    outcome.forget(tmp_path)
    assert outcome.read(tmp_path) is None


@pytest.mark.parametrize("text", ["", "\n", "x finished", "-1 x", "1000 x", "\xff\x00", "75"])
def test_something_else_is_no_outcome_or_one_without_words(text: str, tmp_path: Path) -> None:
    (tmp_path / "outcome").write_bytes(text.encode("latin-1"))
    assert outcome.read(tmp_path) == (Outcome(75, "") if text == "75" else None)


def test_a_full_disk_leaves_none_that_is_empty(tmp_path: Path) -> None:
    program = f"""
import resource
from pathlib import Path
from hvdtrain import outcome
resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
outcome.tell(Path({str(tmp_path)!r}), 5, "no room")
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert [*tmp_path.iterdir()] == []
    outcome.tell(tmp_path, 0, "finished")
    assert outcome.read(tmp_path) == Outcome(0, "finished")


def test_where_nothing_can_be_written_nothing_is_said(tmp_path: Path) -> None:
    outcome.tell(tmp_path / "none", 1, "lost")
    assert outcome.read(tmp_path / "none") is None
