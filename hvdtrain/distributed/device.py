"""The device, cores and random generators of this worker."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.verdict import ranks_in_words
from hvdtrain.errors import EnvironmentFault
from hvdtrain.log import logger


def select(comm: Comm) -> torch.device:
    """The GPU of this worker's local rank, made current; the CPU where there is none. Collective.

    A worker that sees one GPU only takes it: CUDA_VISIBLE_DEVICES, or the launcher, has chosen for it.

    Raises:
        EnvironmentFault: some workers have a GPU and others none, or a node has fewer GPUs than workers.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    gpus = tuple(str(torch.cuda.get_device_properties(index).uuid) for index in range(count))
    mine = Gpus(os.uname().nodename, comm.local_rank, gpus, chosen="CUDA_VISIBLE_DEVICES" in os.environ)
    index = gpu(comm.gather(mine, "GPUs"), comm.rank)
    if index is None:
        return torch.device("cpu")
    device = torch.device("cuda", index)
    torch.cuda.set_device(device)
    return device


@dataclass(frozen=True)
class Gpus:
    """What a worker sees of its node's GPUs."""

    host: str
    local_rank: int
    gpus: tuple[str, ...]
    """What tells each from all others in the world."""
    chosen: bool
    """By CUDA_VISIBLE_DEVICES."""

    @property
    def own(self) -> int:
        """Number of the one that it takes, which need not be there."""
        return 0 if len(self.gpus) == 1 else self.local_rank


def gpu(sights: Sequence[Gpus], rank: int) -> int | None:
    """Pure: the number of the GPU, among those that it sees, that this rank takes; None where nobody sees any.

    Two workers on one GPU are a mistake as a rule, half as fast and refused by NCCL. But where CUDA_VISIBLE_DEVICES
    gives each of them exactly one, somebody meant it.

    Args:
        sights: by rank.

    Raises:
        EnvironmentFault: as `select`.
    """
    without = [each for each, sight in enumerate(sights) if not sight.gpus]
    if len(without) == len(sights):
        return None
    if without:
        hosts = ", ".join(sorted({sights[each].host for each in without})[:4])
        one = len(without) == 1
        raise EnvironmentFault(
            f"{ranks_in_words(without)} on {hosts} {'sees' if one else 'see'} no GPU, but others do: expected one for "
            "each worker, or for none",
            remedy="hvdtrain doctor there; is CUDA_VISIBLE_DEVICES empty, or no GPU asked for (--gpus-per-task)?",
            everyones=True,
        )
    by_host: dict[str, list[Gpus]] = {}
    for sight in sights:
        by_host.setdefault(sight.host, []).append(sight)
    for host in sorted(by_host):
        _enough(host, by_host[host], tells=sights[rank] is by_host[host][0])
    return sights[rank].own


def _enough(host: str, workers: Sequence[Gpus], *, tells: bool) -> None:
    """
    Args:
        tells: this rank warns, one of its host; of a thousand each would tell of a hundred hosts.
    """
    taken = [worker.gpus[worker.own] for worker in workers if worker.own < len(worker.gpus)]
    if len(set(taken)) == len(workers):
        return
    gpus = len({each for worker in workers for each in worker.gpus})
    told = f"{len(workers)} workers on {host} have {gpus} GPU{'s' * (gpus > 1)}"
    if not all(worker.chosen and len(worker.gpus) == 1 for worker in workers):
        raise EnvironmentFault(
            f"{told}: expected one for each",
            remedy=f"at most {gpus} on each node; to share on purpose, give each one by CUDA_VISIBLE_DEVICES",
            everyones=True,
        )
    if tells:
        logger.warning("%s, and share them as CUDA_VISIBLE_DEVICES says", told)


def share_of_cores(comm: Comm) -> int:
    """Cores that this worker may count as its own: those it may run on, divided by the workers confined to the same."""
    cores = tuple(sorted(os.sched_getaffinity(0)))
    everyone = comm.gather((os.uname().nodename, cores), "cores")
    return max(1, len(cores) // everyone.count((os.uname().nodename, cores)))


def use_threads(share: int) -> int:
    """Let torch compute with `share` threads unless OMP_NUM_THREADS says otherwise; returns the number in force."""
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(share)
    return torch.get_num_threads()
