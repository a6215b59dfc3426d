"""Exposed communication: what of summing the gradients is left when the last worker has done its backward."""

import math
from collections.abc import Iterator, Sequence

from hvdtrain.report.evidence import Case, Ground
from hvdtrain.report.units import MIB, bandwidth, mib, milliseconds, percent, plural

LONG_RING = 32  # workers from which hops around a ring may cost more than bytes
BUCKETS_WANTED = 8  # about as many that all but an eighth of the bytes can leave before backward ends
SLOW, SLOW_SECONDS = 125e6, 0.01  # bytes per second of gigabit Ethernet; of a sum, beyond any latency
LARGE = 4 * MIB  # below, a sum costs its latency and not its bytes


def communication(case: Case) -> Ground:
    return Ground(list(_evidence(case)), list(_advice(case)))


def _evidence(case: Case) -> Iterator[str]:
    sizes, alone = case.environment.bucket_bytes, _alone(case)
    if sizes:
        largest = f"of {mib(sizes[0])}" if len(sizes) == 1 else f"of up to {mib(max(sizes))}, {mib(sum(sizes))} in all"
        little = "" if sum(sizes) >= LARGE else ", which cost their latency more than their bytes"
        yield f"{plural(len(sizes), 'bucket')} {largest}{little}"
    else:
        yield "Horovod fuses the gradients itself: in which pieces they travel is not known"
    if speed := case.environment.bus_bytes_per_second:
        yield f"a large sum before the first step came to {bandwidth(speed)} on the bus"
    if not alone:
        yield "how long the sum takes alone is not known, so neither what of it hides behind backward"
        return
    takes = f"all gradients alone take {milliseconds(alone)}"
    if speed := _bytes_per_second(case):
        takes += f", {bandwidth(speed)} per worker on the bus (2(k-1)/k of {mib(sum(sizes))})"
    yield takes
    if case.seconds < alone:
        yield f"{percent(1 - case.seconds / alone)} of that hides behind backward"
    else:
        yield f"nothing of that hides: beside computing it takes {milliseconds(case.seconds - alone)} longer than alone"
    if len(sizes) > 1:
        last = alone * sizes[-1] / sum(sizes)
        yield f"the last bucket, {mib(sizes[-1])}, is full when backward ends: about {milliseconds(last)} cannot hide"


def _alone(case: Case) -> float | None:
    """Seconds of summing all gradients while nothing else goes on."""
    return case.baseline.communication if case.baseline else None


def _bytes_per_second(case: Case) -> float | None:
    """Of each worker, in both directions alike, while nothing else goes on: what around a ring goes out."""
    alone, payload = _alone(case), sum(case.environment.bucket_bytes)
    return 2 * (case.workers - 1) / case.workers * payload / alone if alone and payload else None


def _advice(case: Case) -> Iterator[str]:
    distributed, sizes = case.config.distributed, case.environment.bucket_bytes
    alone, speed = _alone(case), _bytes_per_second(case)
    if alone and speed and speed < SLOW and alone > SLOW_SECONDS * len(sizes):
        if len(case.environment.hosts) == 1:
            yield "cores that nothing else uses: so slow is no memory, the sum waits for a core"
        else:
            yield (
                "the network: so slow is no link between nodes; which interface is taken, say "
                "OMPI_MCA_btl_tcp_if_include and NCCL_SOCKET_IFNAME"
            )
    large = not sizes or sum(sizes) >= LARGE
    if large and distributed.compression == "none" and case.config.precision != "float64":
        yield "--distributed.compression fp16, which halves the bytes"
    if wanted := _bucket_mib(sizes):
        why = "so that more leave early" if wanted < max(sizes) / MIB else "fewer and larger ones"
        yield f"--distributed.bucket_mib {wanted:g}, {why}"
    if distributed.ring and case.workers >= LONG_RING:
        hops = 2 * (case.workers - 1)
        yield f"--distributed.ring false, which lets MPI or NCCL choose: a bucket takes {hops} hops around the ring"
    yield "a larger --train.global_batch_size in micro-batches sums less often, and changes the recipe"


def _bucket_mib(sizes: Sequence[int]) -> float | None:
    """A bucket size, MiB, with which more could hide; None where these are as good.

    >>> _bucket_mib([25 * MIB] * 3 + [23 * MIB]), _bucket_mib([MIB // 4] * 100), _bucket_mib([8 * MIB] * 12)
    (8.0, 2.0, None)
    >>> _bucket_mib([300_000]) is None  # one latency is better than eight
    True
    """
    payload = sum(sizes)
    if payload < LARGE:
        return None
    wanted = max(2.0 ** math.floor(math.log2(payload / BUCKETS_WANTED / MIB)), 1.0)
    too_large = max(sizes) / MIB > 1.5 * wanted
    too_small = len(sizes) > 4 * BUCKETS_WANTED and payload / len(sizes) < MIB
    return wanted if too_large or too_small else None
