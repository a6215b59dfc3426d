"""Contenders in processes of their own: stopped while others run, and missed when they end."""

import time
from pathlib import Path

import pytest

from hvdtrain.bench.processes import Group, Listening, listening
from hvdtrain.errors import HvdtrainError

MODULE = "tests.bench.counting"


@pytest.fixture(autouse=True)
def in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    monkeypatch.chdir(Path(__file__).parents[2])


def group(listener: Listening, *arguments: str) -> Group:
    return Group(MODULE, arguments or ("on",), listener, workers=2, how="torch", threads=1)


def test_it_stands_still_but_for_its_turns() -> None:
    with listening() as listener, group(listener) as counting:
        before = dict(counting.told("counted", 1))
        assert set(before) == {"0", "1"}
        time.sleep(0.5)
        stopped = dict(counting.told("counted", 1))
        counting.go_on()
        time.sleep(0.5)
        ran = dict(counting.told("counted", 1))
        for rank in ("0", "1"):
            assert stopped[rank] - before[rank] < (ran[rank] - stopped[rank]) / 2
        assert counting.seconds("counted", 1) >= 0


def test_a_job_of_several_nodes_has_them_all_on_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    with listening() as listener, group(listener) as counting:
        for pid in counting._pids:
            inherited = Path(f"/proc/{pid}/environ").read_text()
            assert "PATH=" in inherited
            assert "SLURM_" not in inherited


def test_who_ends_before_the_first_turn_is_named() -> None:
    with listening() as listener, pytest.raises(HvdtrainError, match=f"{MODULE} early ended before its first turn"):
        group(listener, "early")


def test_who_ends_in_its_turn_is_named_and_nobody_is_left() -> None:
    with listening() as listener, group(listener) as counting:
        with pytest.raises(HvdtrainError, match="dies: one of its processes ended in its turn"):
            counting.seconds("dies", 99)
        processes = counting._started
    assert [process.poll() is not None for process in processes] == [True, True]
