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
from hvdtrain.distributed.cores import in_words
from hvdtrain.distributed.tuning import Tuning
from hvdtrain.masking import masked, masked_command, masked_fields
from hvdtrain.provenance import processor
from hvdtrain.train.data import Machine

# Variables of these families decide how a run behaves.
FAMILIES = ("HOROVOD_", "OMPI_MCA_", "NCCL_", "OMP_", "MKL_", "CUDA_", "SLURM_", "UCX_", "GLIBC_", "MALLOC_")


def describe(
    comm: Comm,
    device: torch.device,
    *,
    threads: int,
    tuning: Tuning,
    bucket_bytes: list[int],
    endpoint: str,
    commit: str,
) -> dict[str, Any]:
    """Versions, settings in force, the allreduce algorithm really chosen, and every worker's place; secrets masked.
    Collective.

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
        "device_name": device_name(device),
        "threads": threads,
        "cores": in_words(os.sched_getaffinity(0)),
        "metrics": endpoint,
    }
    return {
        "command": masked_command(sys.argv),
        "hvdtrain": __version__,
        "commit": commit,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "world_size": comm.size,
        "bucket_bytes": bucket_bytes,
        "allreduce_algorithm": ring.algorithm(comm, device),
        "tuning": masked_fields(tuning.as_json()),
        "set_by_user": masked(tuning.kept),
        "variables": masked({name: value for name, value in sorted(os.environ.items()) if name.startswith(FAMILIES)}),
        "workers": comm.gather(worker, "workers"),
    }


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else processor()


def run_info(config: Config, *, world_size: int, global_batch: int, commit: str) -> dict[str, str]:
    return {
        "run": config.run_name,
        "model": config.model.name,
        "precision": config.precision,
        "world_size": str(world_size),
        "global_batch_size": str(global_batch),
        "batch_size": str(config.data.batch_size),
        "version": __version__,
        "commit": commit,
        "torch": torch.__version__,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
    }


def setting(config: Config, machine: Machine, *, threads: int, micro_batches: int, images: str) -> dict[str, Any]:
    """What decides how long a step takes, but for the size of pictures and the nodes: under equal ones, speeds may be
    compared.

    Args:
        threads: that compute.
        images: digest of the training images.
    """
    data = config.data
    return {
        "model": config.model.name,
        "network": config.model.model_dump(include={"norm", "compile", "channels_last"}),
        "batch_size": data.batch_size,
        "micro_batches": micro_batches,
        "images": images,
        "input": data.model_dump(mode="json", include={"source", "decoder", "device", "prefetch", "stage"}),
        "decoding_threads": data.threads or machine.threads,
        "mixing": bool(data.mixup or data.cutmix),
        "average": bool(config.train.ema_decay),
        "optimizer": config.optim.name,
        "precision": config.precision,
        "distributed": config.distributed.model_dump(mode="json", exclude={"preflight"}),
        "device": device_name(machine.device),
        "threads": threads,
        "torch": torch.__version__,
        "hvdtrain": __version__,
    }
