"""A worker alone, behind the face that the loop knows."""

import inspect
from collections.abc import Callable
from typing import Any

import pytest
import torch

from hvdtrain.distributed.comm import Comm, HorovodComm, SoloComm, of_rank_0, on_rank_0
from hvdtrain.errors import DataError, HvdtrainError

from ..train.workers import at_once, beside


def test_alone_every_collective_gives_back_what_came() -> None:
    comm = SoloComm()
    assert (comm.rank, comm.size, comm.local_rank) == (0, 1, 0)
    tensor = torch.arange(3.0)
    comm.wait(comm.start_sum(tensor, "t"))
    comm.broadcast_(tensor, "t")
    assert tensor.tolist() == [0, 1, 2]
    assert comm.sum([1.5, 2], "s") == [1.5, 2]
    assert comm.broadcast_object({"a": 1}, "o") == {"a": 1}
    assert comm.gather("x", "g") == ["x"]
    comm.close()


def test_both_comms_have_the_same_face() -> None:
    face = {name for name, _ in inspect.getmembers(Comm, inspect.isfunction) if not name.startswith("_")}
    assert face >= {"start_sum", "wait", "sum", "broadcast_", "broadcast_object", "gather", "close"}
    for comm in (SoloComm, HorovodComm):
        for name in face:
            ours, theirs = (list(inspect.signature(getattr(cls, name)).parameters) for cls in (comm, Comm))
            assert ours == theirs


def test_what_rank_0_does_is_its_own_or_handed_to_all() -> None:
    comms, done = beside(3), []

    def action() -> str:
        done.append("once")
        return "found"

    assert at_once(*(lambda comm=comm: on_rank_0(comm, action, "look") for comm in comms)) == ["found", None, None]  # type: ignore[misc]
    assert at_once(*(lambda comm=comm: of_rank_0(comm, action, "look") for comm in comms)) == ["found"] * 3  # type: ignore[misc]
    assert done == ["once", "once"]


@pytest.mark.parametrize("together", [on_rank_0, of_rank_0])
def test_what_fails_on_rank_0_is_everyones_failure_and_told_once(together: Callable[..., Any]) -> None:
    """As a lost worker it would be gone on without, and the next rank 0 would fail of the same."""

    def fail() -> None:
        raise DataError("no folder", remedy="prepare")

    def failure(comm: Comm) -> HvdtrainError:
        with pytest.raises(DataError) as raised:
            together(comm, fail, "look")
        return raised.value

    failures = at_once(*(lambda comm=comm: failure(comm) for comm in beside(3)))  # type: ignore[misc]
    assert [str(each) for each in failures] == ["no folder → prepare"] * 3
    assert [each.everyones for each in failures] == [False, True, True]
    assert str(failure(SoloComm())) == "no folder → prepare"
