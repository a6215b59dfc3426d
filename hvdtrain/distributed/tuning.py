"""What Horovod, MPI and NCCL are told through the environment, before any of them starts."""

from collections.abc import Mapping
from dataclasses import dataclass

from hvdtrain.errors import ConfigError

MIB = 2**20
OPEN_MPI_RING = "4"  # coll_tuned_allreduce_algorithm


@dataclass(frozen=True)
class Tuning:
    bucket_bytes: int
    environment: dict[str, str]
    """Variables to set, in force together with what the user set."""
    kept: dict[str, str]
    """Variables that we would have set otherwise, but the user had set."""


def tune(
    environment: Mapping[str, str], *, buckets: bool, bucket_mib: float, ring: bool, yield_when_idle: bool
) -> Tuning:
    """Pure: the user's environment and the configuration -> what to set. A value that the user set wins.

    With `buckets`, HOROVOD_FUSION_THRESHOLD (bytes, 0: no fusion) is the bucket size, and Horovod's own fusion off: it
    groups tensors by the moment at which they are ready, so the order of summation, and with it the last bits, would
    change from run to run.
    """
    wanted: dict[str, str] = {}
    if ring:
        wanted["OMPI_MCA_coll_tuned_use_dynamic_rules"] = "1"
        wanted["OMPI_MCA_coll_tuned_allreduce_algorithm"] = OPEN_MPI_RING
        wanted["NCCL_ALGO"] = "Ring"
    if yield_when_idle:
        wanted["OMPI_MCA_mpi_yield_when_idle"] = "1"
    kept = {name: environment[name] for name, value in wanted.items() if environment.get(name, value) != value}
    changes = {name: value for name, value in wanted.items() if name not in environment}
    bucket_bytes = round(bucket_mib * MIB)
    if buckets:
        threshold = environment.get("HOROVOD_FUSION_THRESHOLD")
        if threshold is not None:
            if not (threshold.isascii() and threshold.isdigit() and len(threshold) < 19):
                raise ConfigError(f"HOROVOD_FUSION_THRESHOLD = {threshold}: expected a number of bytes")
            bucket_bytes = int(threshold)
            kept["HOROVOD_FUSION_THRESHOLD"] = threshold
        changes["HOROVOD_FUSION_THRESHOLD"] = "0"
    return Tuning(bucket_bytes, changes, kept)
