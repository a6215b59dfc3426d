"""How fast a model's gradients are summed over the workers of this machine, against what else could sum them.

    ours             the program's own: flat buckets through Horovod, started all, then waited for, as after backward
    horovod-fused    Horovod with each gradient by itself and its own fusion
    mpi4py           MPI_Allreduce of the same buckets in place, one after the other, with the same ring
    mpi4py-default   the same with whatever algorithm MPI chooses
    gloo             torch.distributed over Gloo, the same buckets, started all, then waited for
    copy             the limit: as many processes at once, each copying what a worker of a ring has to receive

On GPUs: ours, horovod-fused, and nccl, which is torch.distributed over NCCL.

The figure is bus bandwidth, as nccl-tests has it: bytes of the gradients over seconds, times 2(k-1)/k, which is the
share of them that each worker of a ring sends, and receives. On one machine every byte received is a byte copied in
memory, at the least: `copy` does that and no more, so it is on the same scale. Half of them have to be added, too.

Besides, `ours` sums single tensors of rising size; every repetition's seconds are in the JSON, for the time that an
allreduce takes is a line over the bytes, and `hvdtrain plan` wants that line.
"""

import os
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from statistics import median
from textwrap import fill
from typing import Any, Literal

from hvdtrain.bench import sums
from hvdtrain.bench.processes import Group, Listening, listening
from hvdtrain.bench.result import Result
from hvdtrain.bench.rounds import Goal, known, take_turns, want_gpu
from hvdtrain.config.machines import DistributedConfig
from hvdtrain.distributed.tuning import tune
from hvdtrain.errors import ConfigError
from hvdtrain.log import logger

SWEEP_SECONDS = 0.4  # of one size in one round, about
SWEEP_MOST = 40  # repetitions of one size in one round
HOW: dict[str, Literal["mpirun", "torch", "alone"]] = {
    "ours": "mpirun",
    "horovod-fused": "mpirun",
    "mpi4py": "mpirun",
    "mpi4py-default": "mpirun",
    "gloo": "torch",
    "nccl": "torch",
    "copy": "alone",
}
CONTENDERS = tuple(HOW)
GOALS = (
    Goal("ours", "mpi4py", 0.9),
    Goal("ours", "gloo", 1.0),
    Goal("ours", "horovod-fused", 1.0),
    Goal("ours", "nccl", 0.9),
    Goal("mpi4py", "mpi4py-default"),
    Goal("ours", "copy"),
)


@dataclass(frozen=True)
class Options:
    model: str = "resnet50"
    """Whose gradients."""
    workers: int = 2
    mib: float = DistributedConfig().bucket_mib
    """Size of a bucket, MiB."""
    device: Literal["cpu", "cuda"] = "cpu"
    threads: int = 1
    """Of each worker."""
    repetitions: int = 10
    """Sums of all gradients in a turn."""
    largest: int = sums.SIZES[-1]
    """Bytes of the largest single tensor."""
    contenders: tuple[str, ...] = ()
    """Empty: all."""

    @property
    def chosen(self) -> tuple[str, ...]:
        here = {"cpu": set(CONTENDERS) - {"nccl"}, "cuda": {"ours", "horovod-fused", "nccl"}}[self.device]
        return tuple(name for name in CONTENDERS if name in (self.contenders or here))


def measure(options: Options, rounds: int) -> Result:
    """
    Raises:
        ConfigError: fewer than two workers, or an unknown contender.
        HvdtrainError: the processes of a contender end.
    """
    if options.workers < 2:
        raise ConfigError(f"--workers {options.workers}: expected 2 at least, for one has nobody to sum with")
    known(options.contenders, CONTENDERS)
    if options.device == "cuda":
        want_gpu()
    with listening() as listener, ExitStack() as stack:
        groups = {name: stack.enter_context(_group(name, options, listener)) for name in options.chosen}
        total, sizes = _bytes(options)
        bus = total * 2 * (options.workers - 1) / options.workers

        def speed(name: str) -> float:
            groups[name].seconds(name, 1)  # what was stopped comes back to cold caches
            return bus * options.repetitions / groups[name].seconds(name, options.repetitions) / 1e9

        figures = take_turns({name: partial(speed, name) for name in groups}, rounds)
        rows = _sweep(groups["ours"], options, rounds) if "ours" in groups else []
    return Result(
        kind="allreduce",
        title=(
            f"bus bandwidth of the sum of {options.model}'s gradients, {total / 1e6:.1f} MB in {len(sizes)} buckets, "
            f"{options.workers} workers, {options.device}"
        ),
        unit="GB/s",
        figures=figures,
        goals=GOALS,
        limit="copy" if "copy" in figures else None,
        notes=(_line(rows),) if rows else (),
        details={
            "workers": options.workers,
            "between": "within a node",
            "bytes": total,
            "buckets": sizes,
            "device": options.device,
            "repetitions": options.repetitions,
            "rows": rows,
        },
    )


def variables(name: str, environment: Mapping[str, str], mib: float, *, on_cpu: bool) -> dict[str, str]:
    """What a contender's processes are told beside the user's environment: the program's own tuning, but for the
    fusion or the ring that it is to have of its own. Pure."""
    config = DistributedConfig(
        bucket_mib=mib,
        reducer="horovod" if name == "horovod-fused" else "buckets",
        ring=name != "mpi4py-default",
    )
    return tune(environment, config, on_cpus_of_one_node=on_cpu and name == "ours").environment


def _group(name: str, options: Options, listener: Listening) -> Group:
    logger.info("%s: %d processes", name, options.workers)
    given = (options.model, options.device, _bucket_bytes(options), options.workers, options.largest)
    told = variables(name, os.environ, options.mib, on_cpu=options.device == "cpu")
    return Group(
        sums.__name__,
        [name, *map(str, given)],
        listener,
        workers=options.workers,
        how=HOW[name],
        threads=options.threads,
        variables=told,
    )


def _bucket_bytes(options: Options) -> int:
    """A HOROVOD_FUSION_THRESHOLD of the user's wins, as in a run."""
    config = DistributedConfig(bucket_mib=options.mib)
    return tune(os.environ, config, on_cpus_of_one_node=options.device == "cpu").bucket_bytes


def _bytes(options: Options) -> tuple[int, list[int]]:
    """Of the gradients, and of each bucket with its padding."""
    from hvdtrain.distributed.buckets import plan

    parameters = list(sums.model(options.model).parameters())[::-1]
    groups = plan(parameters, _bucket_bytes(options))
    sizes = [sum(parameter.nbytes for parameter in group) for group in groups]
    return sum(sizes), sizes


def _sweep(ours: Group, options: Options, rounds: int) -> list[dict[str, Any]]:
    """Each size's repetitions of all rounds; of each the seconds of the worker that took the longest."""
    rows: dict[int, list[float]] = {size: [] for size in sums.sizes(options.largest)}
    for number in range(rounds):
        for size, seconds in rows.items() if number % 2 == 0 else reversed(rows.items()):
            first = max(value[0] for value in ours.told(sums.single(size), 1))
            count = max(3, min(SWEEP_MOST, round(SWEEP_SECONDS / first)))
            seconds += map(max, zip(*ours.told(sums.single(size), count), strict=True))
    return [{"workers": options.workers, "bytes": size, "seconds": seconds} for size, seconds in rows.items()]


def _line(rows: Sequence[Mapping[str, Any]]) -> str:
    """The medians over the sizes, in words."""
    told = ", ".join(f"{row['bytes'] / 1024:,.0f} KiB {1e3 * median(row['seconds']):.3g} ms" for row in rows)
    return fill(f"one tensor by ours, median: {told}", 98)
