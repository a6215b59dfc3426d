"""What a run was made of: the content of environment.json and of the hvdtrain_run_info metric."""

import os
import platform
import sys
from typing import Any

import torch

from hvdtrain import __version__
from hvdtrain.config.schema import Config
from hvdtrain.distributed import ring
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.tuning import Tuning

# Variables of these families decide how a run behaves.
FAMILIES = ("HOROVOD_", "OMPI_MCA_", "NCCL_", "OMP_", "MKL_", "CUDA_", "SLURM_", "UCX_")


def describe(
    comm: Comm, device: torch.device, *, threads: int, tuning: Tuning, bucket_bytes: list[int], endpoint: str
) -> dict[str, Any]:
    """Versions, settings in force, the allreduce algorithm really chosen, and every worker's place. Collective.

    Args:
        threads: CPU threads that this worker computes with.
        bucket_bytes: sizes of the gradient buckets, in the order of backward.
        endpoint: host:port of this worker's metrics.
    """
    worker = {
        "rank": comm.rank,
        "host": platform.node(),
        "pid": os.getpid(),
        "device": str(device),
        "device_name": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine(),
        "threads": threads,
        "metrics": endpoint,
    }
    return {
        "command": sys.argv,
        "hvdtrain": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "world_size": comm.size,
        "bucket_bytes": bucket_bytes,
        "allreduce_algorithm": ring.algorithm(comm, device),
        "set_by_user": tuning.kept,
        "variables": {name: value for name, value in sorted(os.environ.items()) if name.startswith(FAMILIES)},
        "workers": comm.gather(worker, "workers"),
    }


def run_info(config: Config, *, world_size: int, global_batch: int) -> dict[str, str]:
    return {
        "run": config.run_name,
        "model": config.model.name,
        "precision": config.precision,
        "world_size": str(world_size),
        "global_batch_size": str(global_batch),
        "version": __version__,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
    }
