"""What of the machine is this worker's."""

import os

import pytest
import torch

from hvdtrain.distributed import device
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.distributed.device import Gpus
from hvdtrain.errors import EnvironmentFault


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
    assert device.select(SoloComm()) == torch.device("cpu")


def sight(local_rank: int, *gpus: str, host: str = "h1", chosen: bool = False) -> Gpus:
    return Gpus(host, local_rank, gpus, chosen)


@pytest.mark.parametrize(
    ("sights", "taken"),
    [
        ([sight(0), sight(1)], [None, None]),
        ([sight(0, "a", "b"), sight(1, "a", "b")], [0, 1]),
        ([sight(0, "a", "b", "c"), sight(1, "a", "b", "c")], [0, 1]),
        ([sight(0, "a", chosen=True), sight(1, "b", chosen=True)], [0, 0]),
        ([sight(0, "a"), sight(1, "b")], [0, 0]),
        ([sight(0, "a"), sight(0, "b", host="h2")], [0, 0]),
    ],
)
def test_each_worker_takes_the_gpu_of_its_local_rank_or_the_only_one_it_sees(
    sights: list[Gpus], taken: list[int | None]
) -> None:
    assert [device.gpu(sights, rank) for rank in range(len(sights))] == taken


@pytest.mark.parametrize(
    ("sights", "message"),
    [
        ([sight(0, "a"), sight(1, "a")], "2 workers on h1 have 1 GPU: expected one for each"),
        ([sight(i, "a", "b") for i in range(3)], "3 workers on h1 have 2 GPUs: expected one for each"),
        ([sight(i, "a", "b", chosen=True) for i in range(3)], "3 workers on h1 have 2 GPUs"),
        ([sight(0, "a"), sight(0, host="h2")], "rank 1 on h2 sees no GPU, but others do"),
    ],
)
def test_too_few_gpus_are_an_error_on_every_rank(sights: list[Gpus], message: str) -> None:
    for rank in range(len(sights)):
        with pytest.raises(EnvironmentFault, match=message) as refused:
            device.gpu(sights, rank)
        assert refused.value.everyones
        assert refused.value.remedy


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    told: list[str] = []
    monkeypatch.setattr(device.logger, "warning", lambda text, *values: told.append(text % values))
    return told


def test_a_gpu_is_shared_where_cuda_visible_devices_gives_each_worker_one(warnings: list[str]) -> None:
    both = [sight(0, "a", chosen=True), sight(1, "a", chosen=True)]
    assert [device.gpu(both, rank) for rank in (0, 1)] == [0, 0]
    assert warnings == ["2 workers on h1 have 1 GPU, and share them as CUDA_VISIBLE_DEVICES says"]


def test_of_many_hosts_each_has_one_worker_that_tells_of_it(warnings: list[str]) -> None:
    all_of_them = [Gpus(f"h{rank // 8}", rank % 8, ("a",), chosen=True) for rank in range(64)]
    for rank in range(64):
        assert device.gpu(all_of_them, rank) == 0
    assert warnings == [f"8 workers on h{n} have 1 GPU, and share them as CUDA_VISIBLE_DEVICES says" for n in range(8)]


@pytest.mark.gpu
def test_a_worker_takes_the_gpu_of_its_local_rank() -> None:
    assert device.select(SoloComm()) == torch.device("cuda", 0)
