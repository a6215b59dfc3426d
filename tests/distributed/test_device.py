"""What of the machine is this worker's."""

import os

import pytest
import torch

from hvdtrain.distributed import device
from hvdtrain.distributed.comm import SoloComm


class Neighbours(SoloComm):
    """Workers that gather to a list made up here."""

    def __init__(self, others: list[object]) -> None:
        self.others = others

    def gather(self, value: object, name: str) -> list[object]:  # type: ignore[override]
        return [value, *self.others]


HOST, CORES = os.uname().nodename, tuple(sorted(os.sched_getaffinity(0)))


def test_alone_all_cores_are_ones_own() -> None:
    assert device.share_of_cores(SoloComm()) == len(CORES)


def test_workers_on_the_same_cores_share_them_and_others_do_not_count() -> None:
    assert device.share_of_cores(Neighbours([("elsewhere", CORES), (HOST, (999,))])) == len(CORES)
    assert device.share_of_cores(Neighbours([(HOST, CORES)])) == max(1, len(CORES) // 2)
    assert device.share_of_cores(Neighbours([(HOST, CORES)] * 1000)) == 1


def test_threads_are_the_share_unless_the_user_chose(monkeypatch: pytest.MonkeyPatch) -> None:
    before = torch.get_num_threads()
    try:
        monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
        assert device.use_threads(1) == torch.get_num_threads() == 1
        torch.set_num_threads(2)
        monkeypatch.setenv("OMP_NUM_THREADS", "2")
        assert device.use_threads(1) == 2
    finally:
        torch.set_num_threads(before)


def test_without_a_gpu_the_device_is_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.select(3) == torch.device("cpu")


@pytest.mark.gpu
def test_a_worker_takes_the_gpu_of_its_local_rank() -> None:
    assert device.select(0) == torch.device("cuda", 0)
    assert device.select(torch.cuda.device_count()) == torch.device("cuda", 0)
