"""The contenders of the allreduce bench, each in the processes that allreduce.py starts; what they do is said there."""

import os
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hvdtrain.bench.processes import Run, serve

if TYPE_CHECKING:
    import torch
    from torch import nn

SIZES = tuple(4096 * 4**i for i in range(8))  # of single tensors, bytes: 4 KiB to 64 MiB


def sizes(largest: int) -> list[int]:
    return [size for size in SIZES if size <= largest]


def single(size: int) -> str:
    """The name of a single tensor's contender.

    >>> single(4096)
    'single-4096'
    """
    return f"single-{size}"


def main() -> None:
    name, network, device, bucket_bytes, workers, largest = sys.argv[1:]
    share = 2 * (int(workers) - 1) / int(workers)
    if name == "ours":
        serve(_ours(network, device, int(bucket_bytes), int(largest)))
    else:
        serve({name: lambda: _other(name, network, device, int(bucket_bytes), share)})


def _ours(network: str, device: str, bucket_bytes: int, largest: int) -> dict[str, Callable[[], Run]]:
    import torch

    from hvdtrain.distributed.activity import Activity
    from hvdtrain.distributed.comm import HorovodComm
    from hvdtrain.distributed.threads import step_back
    from hvdtrain.distributed.topology import from_environment

    comm = HorovodComm(from_environment(os.environ), activity=Activity())
    where = _place(device, comm.local_rank)
    if device == "cpu":
        step_back(comm.threads)

    def all_buckets() -> Run:
        buckets = _buckets(network, bucket_bytes, where)

        def run(repetitions: int) -> None:
            for _ in range(repetitions):
                started = [comm.start_sum(bucket, f"bucket.{i}") for i, bucket in enumerate(buckets)]
                for handle in started:
                    comm.wait(handle)
            _done(where)

        return run

    def one(size: int) -> Run:
        tensor = torch.zeros(size // 4, device=where)

        def run(repetitions: int) -> list[float]:
            seconds = []
            for _ in range(repetitions):
                begin = time.perf_counter()
                comm.wait(comm.start_sum(tensor, single(size)))
                _done(where)
                seconds.append(time.perf_counter() - begin)
            return seconds

        return run

    sweep = {single(size): partial(one, size) for size in sizes(largest)}
    return {"ours": all_buckets, **sweep}


def _other(name: str, network: str, device: str, bucket_bytes: int, share: float) -> Run:
    if name == "horovod-fused":
        return _horovod_fused(network, device)
    if name == "copy":
        return _copy(_buckets(network, bucket_bytes, _place(device, 0)), share)
    if name in ("gloo", "nccl"):
        return _torch(name, network, device, bucket_bytes)
    return _mpi4py(_buckets(network, bucket_bytes, _place(device, 0)))


def _horovod_fused(network: str, device: str) -> Run:
    import horovod.torch as hvd
    import torch

    hvd.init()
    where = _place(device, hvd.local_rank())
    gradients = [torch.zeros_like(parameter, device=where) for parameter in list(model(network).parameters())[::-1]]

    def run(repetitions: int) -> None:
        for _ in range(repetitions):
            started = [hvd.allreduce_async_(g, name=f"g.{i}", op=hvd.Sum) for i, g in enumerate(gradients)]
            for handle in started:
                hvd.synchronize(handle)
        _done(where)

    return run


def _mpi4py(buckets: "Sequence[torch.Tensor]") -> Run:
    import mpi4py

    mpi4py.rc.threads = False  # as fast as MPI can be: no lock around its calls
    from mpi4py import MPI

    arrays = [bucket.numpy() for bucket in buckets]

    def run(repetitions: int) -> None:
        for _ in range(repetitions):
            for array in arrays:
                MPI.COMM_WORLD.Allreduce(MPI.IN_PLACE, array)

    return run


def _torch(backend: str, network: str, device: str, bucket_bytes: int) -> Run:
    from torch import distributed

    distributed.init_process_group(backend)
    where = _place(device, distributed.get_rank())
    buckets = _buckets(network, bucket_bytes, where)

    def run(repetitions: int) -> None:
        for _ in range(repetitions):
            started = [distributed.all_reduce(bucket, async_op=True) for bucket in buckets]
            for handle in started:
                handle.wait()
        _done(where)

    return run


def _copy(buckets: "Sequence[torch.Tensor]", share: float) -> Run:
    pairs = [(bucket[: round(share / 2 * len(bucket))], bucket.clone()) for bucket in buckets]

    def run(repetitions: int) -> None:
        for _ in range(repetitions):
            for source, target in pairs:  # twice: the ring goes around once to add, and once to spread the sums
                target[: len(source)].copy_(source)
                target[-len(source) :].copy_(source)

    return run


def model(name: str) -> "nn.Module":
    from hvdtrain.model.build import build

    return build(name, classes=1000, norm="batch", zero_gamma=True, head_std=0.01)


def _buckets(network: str, bucket_bytes: int, where: "torch.device") -> "list[torch.Tensor]":
    """Flat, as GradientBuckets has them; of zeros, so that no sum ever overflows."""
    import torch

    from hvdtrain.distributed.buckets import GradientBuckets
    from hvdtrain.distributed.comm import SoloComm

    found = GradientBuckets(model(network).parameters(), SoloComm(), bucket_bytes).sizes
    return [torch.zeros(size // 4, device=where) for size in found]


def _place(device: str, local_rank: int) -> "torch.device":
    import torch

    if device == "cuda":
        torch.cuda.set_device(local_rank)
        return torch.device("cuda", local_rank)
    return torch.device("cpu")


def _done(where: "torch.device") -> None:
    if where.type == "cuda":
        import torch

        torch.cuda.synchronize(where)


if __name__ == "__main__":
    main()
