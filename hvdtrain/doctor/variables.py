"""What a run started here would tell MPI, NCCL and Horovod."""

from collections.abc import Mapping
from itertools import groupby

from hvdtrain.config.machines import DistributedConfig
from hvdtrain.distributed.tuning import tune
from hvdtrain.doctor.finding import Finding
from hvdtrain.errors import ConfigError


def tuning(environment: Mapping[str, str], *, on_cpu: bool) -> Finding:
    """By the default settings, in this environment: each variable's value, under who said so.

    Args:
        on_cpu: there is no GPU.
    """
    try:
        found = tune(environment, DistributedConfig(), on_cpus_of_one_node=on_cpu)
    except ConfigError as error:
        return Finding("tuning", str(error), False, "unset it, or correct it")
    said = sorted((each.by, each.name, each.value) for each in found.values if each.by != "default")
    parts = [
        f"{by}: {', '.join(f'{name}={value}' for _, name, value in each)}"
        for by, each in groupby(said, key=lambda one: one[0])
    ]
    return Finding("tuning", "; ".join(parts))
