"""A worker alone, behind the face that the loop knows."""

import inspect

import torch

from hvdtrain.distributed.comm import Comm, HorovodComm, SoloComm


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
