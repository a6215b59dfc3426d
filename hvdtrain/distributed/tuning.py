"""What Horovod, MPI and NCCL are told through the environment, before any of them starts.

Every variable has one value in force, and somebody who said so: the environment that the user started the run in wins
over a setting, a setting over the preset of the fabric (fabric.py), that over what suits workers on the CPUs of one
node or workers that come and go, and that over what the library does by itself.

Not told: to mpirun, by which network its own daemons talk (oob_tcp_if_include). It runs before any of this.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass

from hvdtrain.config.checks import shown
from hvdtrain.config.machines import DistributedConfig
from hvdtrain.distributed.fabric import FABRICS, Advice
from hvdtrain.errors import ConfigError

MIB = 2**20
FUSION = "HOROVOD_FUSION_THRESHOLD"
# The algorithm is coll_tuned's, so that has to be the component that is asked: on several nodes Open MPI 5 prefers
# coll_han (priority 35 to 30, open-mpi/ompi#11389), and hcoll and ucc go before both where a site has them.
RING = {
    "OMPI_MCA_coll_tuned_use_dynamic_rules": "1",
    "OMPI_MCA_coll_tuned_allreduce_algorithm": "4",
    "OMPI_MCA_coll_han_priority": "0",
    "OMPI_MCA_coll_adapt_priority": "0",
    "OMPI_MCA_coll_hcoll_enable": "0",
    "OMPI_MCA_coll_ucc_enable": "0",
    "NCCL_ALGO": "Ring",
}
# What the libraries do by themselves: Horovod 0.28.1, horovod/common/operations.cc and parameter_manager.cc.
DEFAULTS = {
    "HOROVOD_CYCLE_TIME": "1",
    "HOROVOD_CACHE_CAPACITY": "1024",
    "HOROVOD_HIERARCHICAL_ALLREDUCE": "0",
    "HOROVOD_GLOO_IFACE": None,
    "HOROVOD_THREAD_AFFINITY": None,
    "OMP_NUM_THREADS": None,
    "NCCL_ALGO": None,
    "NCCL_SOCKET_IFNAME": None,
    "OMPI_MCA_btl_tcp_if_include": None,
    "OMPI_MCA_mpi_yield_when_idle": "0",
}
ON_ONE_CPU_NODE = Advice(
    "HOROVOD_CYCLE_TIME",
    "0.1",
    "Horovod's thread runs while a worker waits for it, so it may look as often as it likes",
)
WHERE_WORKERS_COME_AND_GO = Advice(
    "HOROVOD_GLOO_TIMEOUT_SECONDS",
    "10",
    "who waits for a worker behind a cut link has nothing else to tell it; Horovod's own are 30",
)
# torch has read these before any configuration was: device.py does what they would.
_IN_PROCESS = ("OMP_NUM_THREADS",)
# Two settings of which Open MPI takes one: the first silences the second.
_EXCLUDES = {"OMPI_MCA_btl_tcp_if_include": "OMPI_MCA_btl_tcp_if_exclude"}


@dataclass(frozen=True)
class Value:
    name: str
    value: str | None
    """In force. None: the library decides by itself."""
    by: str
    """environment, a setting (`distributed.ring`), a fabric (`fabric ethernet`), CPUs of one node, workers
    that come and go, or default."""
    why: str = ""


@dataclass(frozen=True)
class Tuning:
    bucket_bytes: int
    values: tuple[Value, ...]
    """By name: what is in force, and who said so."""
    kept: dict[str, str]
    """Variables that we would have set otherwise, but the user had set."""

    @property
    def environment(self) -> dict[str, str]:
        """Variables to set, in force together with what the user set."""
        ours = (each for each in self.values if _ours(each) and each.name not in _IN_PROCESS)
        return {each.name: each.value for each in ours if each.value is not None}

    def as_json(self) -> list[dict[str, str | None]]:
        return [asdict(each) for each in self.values]


def tune(
    environment: Mapping[str, str], config: DistributedConfig, *, on_cpus_of_one_node: bool, elastic: bool = False
) -> Tuning:
    """Pure: the user's environment and the configuration -> what to set. A value that the user set wins.

    With our own buckets, HOROVOD_FUSION_THRESHOLD (bytes, 0: no fusion) is the bucket size, and Horovod's own fusion
    off: it groups tensors by the moment at which they are ready, so the order of summation, and with it the last bits,
    would change from run to run.

    Args:
        on_cpus_of_one_node: where all workers compute.
        elastic: they come and go.

    Raises:
        ConfigError: HOROVOD_FUSION_THRESHOLD is no number of bytes.
    """
    wanted = {name: Value(name, value, "default") for name, value in DEFAULTS.items()}
    advised = [("CPUs of one node", ON_ONE_CPU_NODE)] if on_cpus_of_one_node else []
    advised += [("workers that come and go", WHERE_WORKERS_COME_AND_GO)] if elastic else []
    advised += [(f"fabric {config.fabric}", advice) for advice in FABRICS[config.fabric]]
    for by, advice in advised:
        wanted[advice.name] = Value(advice.name, advice.value, by, advice.why)
    wanted |= {each.name: each for each in _settings(config)}
    values = {name: each for name, each in wanted.items() if name not in environment}
    kept = {}
    for name in wanted.keys() & environment.keys():
        values[name] = Value(name, environment[name], "environment")
        if wanted[name].by != "default" and wanted[name].value != environment[name]:
            kept[name] = environment[name]
    for one, other in _EXCLUDES.items():
        if values.get(one, Value(one, None, "default")).value is not None and other in values and _ours(values[other]):
            del values[other]
        elif other in environment and one in values and _ours(values[one]):
            values[one], kept[other] = Value(one, None, "default"), environment[other]
    bucket_bytes = round(config.bucket_mib * MIB)
    if config.reducer == "buckets":
        if FUSION in environment:
            bucket_bytes, kept[FUSION] = _bytes(environment[FUSION]), environment[FUSION]
        values[FUSION] = Value(FUSION, "0", "distributed.reducer", "buckets are fused by hvdtrain, by fixed contents")
    elif FUSION in environment:
        values[FUSION] = Value(FUSION, environment[FUSION], "environment")
    return Tuning(bucket_bytes, tuple(values[name] for name in sorted(values)), dict(sorted(kept.items())))


def _settings(config: DistributedConfig) -> Iterator[Value]:
    if config.ring:
        for name, value in RING.items():
            yield Value(name, value, "distributed.ring")
    if config.yield_when_idle:
        yield Value("OMPI_MCA_mpi_yield_when_idle", "1", "distributed.yield_when_idle")
    if config.cycle_milliseconds is not None:
        yield Value("HOROVOD_CYCLE_TIME", f"{config.cycle_milliseconds:g}", "distributed.cycle_milliseconds")
    if config.cache_capacity is not None:
        yield Value("HOROVOD_CACHE_CAPACITY", str(config.cache_capacity), "distributed.cache_capacity")
    if config.hierarchical_allreduce is not None:
        on = str(int(config.hierarchical_allreduce))
        yield Value("HOROVOD_HIERARCHICAL_ALLREDUCE", on, "distributed.hierarchical_allreduce")
    if config.interfaces:
        by, names = "distributed.interfaces", config.interfaces
        yield Value("OMPI_MCA_btl_tcp_if_include", ",".join(names), by)
        yield Value("NCCL_SOCKET_IFNAME", "=" + ",".join(names), by)  # without =, eth1 is eth10 too
        yield Value("HOROVOD_GLOO_IFACE", names[0], by)
    if config.threads is not None:
        yield Value("OMP_NUM_THREADS", str(config.threads), "distributed.threads")


def _ours(value: Value) -> bool:
    return value.by not in ("environment", "default")


def _bytes(threshold: str) -> int:
    if not (threshold.isascii() and threshold.isdigit() and len(threshold) < 19):
        raise ConfigError(f"{FUSION} = {shown(threshold)}: expected a number of bytes")
    return int(threshold)
