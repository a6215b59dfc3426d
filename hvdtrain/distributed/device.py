"""The device, cores and random generators of this worker."""

import os

import torch

from hvdtrain.distributed.comm import Comm


def select(local_rank: int) -> torch.device:
    """The GPU of this local rank, made current; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


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
