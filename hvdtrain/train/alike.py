"""What all workers of a run must have alike, and whether they do."""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata

import torch

from hvdtrain import __version__
from hvdtrain.config.schema import Config
from hvdtrain.distributed import preflight
from hvdtrain.distributed.comm import Comm
from hvdtrain.log import logger
from hvdtrain.train.environment import device_name

# Where a worker finds its files and binds its ports may be its host's affair; what a job asked for is nobody's by now.
OWN = ("data.dir", "data.stage_dir", "data.cache_dir", "data.threads", "metrics.address", "metrics.port")
OWN_SECTIONS = ("job.", "metrics.tls_", "metrics.client_ca", "metrics.baselines_dir")


def check(config: Config, comm: Comm, device: torch.device) -> list[str]:
    """Compare configuration, software, devices and clocks; warnings, the same on all ranks. Collective.

    Raises:
        ConfigError: settings differ.
        EnvironmentFault: versions of hvdtrain, torch or Horovod do.
    """
    if comm.size == 1:
        return []
    software = {"hvdtrain": __version__, "torch": torch.__version__, "Horovod": _version("horovod")}
    place = {"device": device_name(device), "DALI": _dali(), "Python": platform.python_version()}
    return preflight.agree(
        comm, os.uname().nodename, settings=dict(common_settings(config)), software=software, place=place
    )


def measure(config: Config, comm: Comm, device: torch.device) -> preflight.Sum | None:
    """Check and time a sum; None where it is switched off or nobody is there to sum with. Collective.

    Raises:
        EnvironmentFault: the sum is wrong.
    """
    if comm.size == 1 or not config.distributed.preflight:
        return None
    found = preflight.sum_of_known(comm, device)
    if comm.rank == 0:
        speed, seconds = found.bus_gigabytes_per_second, found.seconds
        logger.info("%.1f MB summed in %.0f ms, %.2f GB/s on the bus", found.bytes / 1e6, 1000 * seconds, speed)
    return found


def same_images(comm: Comm, digests: Mapping[str, str]) -> None:
    """Collective.

    Args:
        digests: of each part's table of images.

    Raises:
        EnvironmentFault: workers have different tables.
    """
    if comm.size > 1:
        named = {f"the table of {part} images": digest for part, digest in digests.items()}
        preflight.same_images(comm, os.uname().nodename, named)


def common_settings(config: Config) -> Iterator[tuple[str, str]]:
    """Every setting that all workers must have alike, and its value as JSON."""
    for name, value in config.settings().items():
        if name not in OWN and not name.startswith(OWN_SECTIONS):
            yield name, json.dumps(value)


def _dali() -> str:
    found = {f"nvidia-dali-cuda{cuda}": _version(f"nvidia-dali-cuda{cuda}") for cuda in (110, 120, 130)}
    return ", ".join(version for version in found.values() if version != "missing") or "missing"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "missing"
