"""One job at a time in a run directory."""

import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from hvdtrain.errors import EnvironmentFault
from hvdtrain.process import born
from hvdtrain.train import lock
from hvdtrain.train.lock import NAME, Owner, held


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(lock, "WATCH_SECONDS", 0.6)
    monkeypatch.setattr(lock, "LOOK_SECONDS", 0.05)


def leave_behind(run_dir: Path, owner: Owner) -> None:
    (run_dir / NAME).write_text(json.dumps(asdict(owner)))


def test_it_is_given_back(tmp_path: Path) -> None:
    with held(tmp_path):
        assert Owner(**json.loads((tmp_path / NAME).read_text())).pid == os.getpid()
    assert [*tmp_path.iterdir()] == []


def test_the_second_is_refused_and_told_who_has_it(
    tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with held(tmp_path):
        monkeypatch.setenv("SLURM_JOB_ID", "18")
        wanted = f"{tmp_path} is in use by job 17, process {os.getpid()} on .* → hvdtrain status"
        with pytest.raises(EnvironmentFault, match=wanted), held(tmp_path):
            pass
        assert (tmp_path / NAME).exists()


def test_a_requeued_job_takes_over_from_itself_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    leave_behind(tmp_path, replace(Owner.me(), host="elsewhere", token="other"))
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began < lock.WATCH_SECONDS / 2


def test_whose_it_is_can_be_read_and_whose_it_was(tmp_path: Path) -> None:
    assert lock.owner(tmp_path) is None
    with held(tmp_path) as owner:
        assert lock.owner(tmp_path) == owner
    assert lock.owner(tmp_path) is None
    leave_behind(tmp_path, owner)
    assert lock.owner(tmp_path) == owner


def test_an_heir_looks_for_nobody(tmp_path: Path, quick: None) -> None:
    """Those who were its workers know that it is gone, or that it has to give way."""
    before = replace(Owner.me(), host="elsewhere", token="other")
    leave_behind(tmp_path, before)
    began = time.monotonic()
    with held(tmp_path, heir_of=before) as owner:
        assert time.monotonic() - began < lock.WATCH_SECONDS / 2
        assert Owner(**json.loads((tmp_path / NAME).read_text())) == owner != before


def test_an_heir_of_one_takes_nothing_from_another(tmp_path: Path, quick: None) -> None:
    with held(tmp_path) as owner:
        another = replace(owner, token="another")
        with pytest.raises(EnvironmentFault, match="is in use by"), held(tmp_path, heir_of=another):
            pass


@pytest.mark.parametrize("change", [{"pid": 2**22 - 1}, {"born": 1.0}])
def test_a_process_of_this_host_that_has_gone_is_known_to_have(change: dict[str, float], tmp_path: Path) -> None:
    leave_behind(tmp_path, replace(Owner.me(), token="other", **change))  # type: ignore[arg-type]
    began = time.monotonic()
    with held(tmp_path):
        assert time.monotonic() - began < lock.WATCH_SECONDS / 2


def test_one_that_goes_meanwhile_is_not_waited_for(tmp_path: Path) -> None:
    """A killed run's rank 0, which its launcher has not quite ended yet."""
    dying = subprocess.Popen(["sleep", "1"])
    leave_behind(tmp_path, replace(Owner.me(), pid=dying.pid, born=born(dying.pid), token="other"))
    began = time.monotonic()
    with held(tmp_path):
        assert dying.poll() == 0
        assert time.monotonic() - began < lock.WATCH_SECONDS / 2


def test_what_nobody_keeps_young_is_taken_over(tmp_path: Path, quick: None) -> None:
    leave_behind(tmp_path, replace(Owner.me(), host="elsewhere", token="other"))
    with held(tmp_path):
        assert Owner(**json.loads((tmp_path / NAME).read_text())).host != "elsewhere"


def test_what_another_host_keeps_young_is_not(tmp_path: Path, quick: None) -> None:
    leave_behind(tmp_path, replace(Owner.me(), host="elsewhere", token="other"))
    over = threading.Event()
    other = Owner(**json.loads((tmp_path / NAME).read_text()))
    thread = threading.Thread(target=lock._beat, args=(tmp_path / NAME, other, over))
    thread.start()
    try:
        with pytest.raises(EnvironmentFault, match="on elsewhere"), held(tmp_path):
            pass
    finally:
        over.set()
        thread.join()


def test_a_second_step_of_the_same_job_is_refused(tmp_path: Path, quick: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "17")
    with held(tmp_path), pytest.raises(EnvironmentFault, match="is in use by job 17"), held(tmp_path):
        pass


def test_who_has_lost_it_leaves_without_a_word(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from hvdtrain.train import lock
lock.BEAT_SECONDS = 0.05
with lock.held(Path({str(tmp_path)!r})):
    print("mine", flush=True)
    time.sleep(60)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout
    assert process.stdout.readline() == "mine\n"
    other = replace(Owner.me(), host="elsewhere", token="other")
    (tmp_path / "new").write_text(json.dumps(asdict(other)))
    (tmp_path / "new").rename(tmp_path / NAME)
    _, said = process.communicate(timeout=30)
    assert process.returncode == EnvironmentFault.exit_code
    assert f"{tmp_path} was taken over by " in said
    assert Owner(**json.loads((tmp_path / NAME).read_text())) == other


@pytest.mark.parametrize("text", ["", "{", "[]", '{"host": 1}'])
def test_a_torn_one_is_taken_over(text: str, tmp_path: Path) -> None:
    (tmp_path / NAME).write_text(text)
    with held(tmp_path):
        pass


def test_of_many_at_once_one_gets_it(tmp_path: Path) -> None:
    program = f"""
import sys, time
from pathlib import Path
from hvdtrain.errors import EnvironmentFault
from hvdtrain.process import born
from hvdtrain.train.lock import held
try:
    with held(Path({str(tmp_path)!r})):
        print("mine", flush=True)
        sys.stdin.read()
except EnvironmentFault:
    print("refused", flush=True)
"""
    leave_behind(tmp_path, replace(Owner.me(), pid=2**22 - 1, token="other"))
    command = [sys.executable, "-c", program]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(6)]
    said = []
    for process in processes:
        assert process.stdout
        said.append(process.stdout.readline().strip())
    for process in processes:
        process.communicate()
    assert sorted(said) == ["mine", *["refused"] * 5]
