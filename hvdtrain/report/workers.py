"""Input, contention, stragglers and the rest: losses that arise on the workers themselves."""

import math
from collections.abc import Iterator

from hvdtrain.report.evidence import Case, Ground, Spread, listed
from hvdtrain.report.units import milliseconds, percent, plural

ONE_RANKS = 0.5  # of the loss: a rank whose own mean explains as much is slow, and does not only have bad moments
OFTEN_REPORTED = 10  # steps


def inputs(case: Case) -> Ground:
    """Waiting for batches."""
    if not case.account.ranks:
        return Ground(["which ranks wait was not recorded"], list(_faster_input(case)))
    wait = Spread(case.account.ranks["input"])
    few = wait.outliers()
    few = few if wait.excess(few[0]) > wait.typical and len(few) <= max(case.workers // 4, 1) < case.workers else []
    if not few:
        least = f"{milliseconds(wait.smallest)} to " if case.workers > 1 else ""
        who = "every rank" if case.workers > 1 else "the worker"
        waits = f"{who} waits {least}{milliseconds(wait.largest)} a step for a batch{_alone_it_waits(case)}"
        return Ground([waits, _source(case)], list(_faster_input(case)))
    who = listed([case.place(rank) for rank in few])
    waits = f"{who} wait{'s' * (len(few) == 1)} {milliseconds(wait.largest)} a step for a batch"
    where = case.environment.host(few[0]) or "that machine"
    return Ground(
        [
            f"{waits}, the typical rank {milliseconds(wait.typical)}: not the decoding itself, but a slow place",
            _source(case),
        ],
        [f"look at the storage, the page cache and the neighbours of {where}", *_nearer_input(case)],
    )


def _alone_it_waits(case: Case) -> str:
    return f", alone {milliseconds(case.baseline.parts['input'])}" if case.baseline else ""


def _source(case: Case) -> str:
    data = case.config.data
    threads = plural(data.threads, "thread") if data.threads else "its share of the cores"
    if data.source == "synthetic":
        return "the images are synthetic: making them costs memory bandwidth alone"
    ahead = plural(data.prefetch, "batch", "batches")
    return (
        f"each worker decodes with {threads} (data.threads {data.threads}), {ahead} ahead, "
        f"data.decoder {data.decoder}, data.device {data.device}, data.stage {data.stage}"
    )


def _nearer_input(case: Case) -> Iterator[str]:
    data = case.config.data
    if data.source == "synthetic":
        return
    if data.stage == "none":
        yield "--data.stage copy, which brings the images to the node before the first step"
    yield f"--data.prefetch {2 * data.prefetch}, which rides out stalls, but no lasting slowness"


def _faster_input(case: Case) -> Iterator[str]:
    data = case.config.data
    if data.source == "synthetic":
        return
    if data.decoder == "pillow":
        yield "--data.decoder dali"
    if data.device == "cpu" and case.environment.on_gpus:
        yield "--data.device gpu"
    yield "hvdtrain data pack with --max-side 400: fewer pixels to read and decode, one file instead of thousands"
    if data.threads:
        yield f"more --data.threads than {data.threads}, where cores are idle"
    yield from _nearer_input(case)


def contention(case: Case) -> Ground:
    """Computing that takes longer than alone."""
    baseline, parts = case.baseline, case.account.parts
    assert baseline and parts, "without them contention is not known"
    alone, now = baseline.parts["compute"], parts["compute"]
    evidence = [f"computing takes {milliseconds(now)} a step, alone {milliseconds(alone)}"]
    with_others, with_sums = now - alone, 0.0
    if baseline.together is None:
        evidence.append("whether the others' computing or the communication slows it, a stored baseline does not say")
    else:
        with_others, with_sums = baseline.together - alone, now - baseline.together
        evidence += [
            f"all at once without communication took {milliseconds(baseline.together)} then: what is above computing "
            "alone is cores, caches, memory or power shared, the rest communication or what else ran here since",
        ]
    evidence.append(_crowd(case))
    return Ground(evidence, list(_less_contention(case, by_sums=with_sums > with_others)))


def _crowd(case: Case) -> str:
    hosts = max(len(case.environment.hosts), 1)
    threads = {worker.threads for worker in case.environment.workers if worker.threads}
    each = f" of {plural(max(threads), 'thread')} each" if threads else ""
    set_by_hand = case.environment.variables.get("OMP_NUM_THREADS")
    omp = f", OMP_NUM_THREADS = {set_by_hand}" if set_by_hand else ""
    return f"{plural(-(-case.workers // hosts), 'worker')} a host{each}{omp}"


def _less_contention(case: Case, *, by_sums: bool) -> Iterator[str]:
    if not case.config.distributed.yield_when_idle and not case.environment.on_gpus:
        yield "--distributed.yield_when_idle true, so that waiting takes no core from computing"
    if case.environment.on_gpus:
        yield "the GPUs' clocks, power and temperature under full load: nvidia-smi -q -d PERFORMANCE"
    if case.config.data.source == "images" and (not by_sums or not case.environment.on_gpus):
        yield "fewer --data.threads, if decoding takes cores from computing"
    if not case.environment.on_gpus:
        yield "fewer workers a host, with more threads each"


def straggler(case: Case) -> Ground:
    """One worker that computes longer than the typical one, and all that wait for it."""
    ranks, slowest = case.account.ranks, case.account.slowest
    if not ranks or not slowest:
        return Ground(["which rank is late was not recorded"])
    lag, compute = Spread(ranks["lag"]), Spread(ranks["compute"])
    rank = compute.rank
    if compute.excess(rank) < ONE_RANKS * case.seconds:
        often, times = next(iter(slowest.items()))
        mean = milliseconds(compute.excess(rank))
        return Ground(
            [
                f"{case.place(often)} is the slowest in {percent(times)} of the reports",
                f"but none computes more than {mean} longer on average: jitter of all, no slow place",
            ],
            ["cores that nothing else uses: more of them per worker, and fewer --data.threads"],
        )
    late = f"{case.place(rank)} is ready {milliseconds(lag.excess(rank))} later than the typical worker"
    share = percent(slowest.get(rank, 0.0))
    evidence = [
        f"{late}, the slowest in {share} of the reports: it computes {milliseconds(compute.excess(rank))} longer"
    ]
    evidence += _neighbours(case, rank, compute)
    evidence += _alone(case, rank)
    host = case.environment.host(rank) or "its machine"
    advice = [f"hvdtrain doctor on {host}; its clocks and temperature, and what else runs there"]
    if len(case.environment.hosts) > 1:
        advice.append(f"another node in the place of {host}")
    return Ground(evidence, advice)


def _neighbours(case: Case, rank: int, compute: Spread) -> Iterator[str]:
    """Whether a whole host is slow."""
    hosts = [worker.host for worker in case.environment.workers]
    if len(set(hosts)) < 2 or len(hosts) != len(compute.values):
        return
    others = [other for other, host in enumerate(hosts) if host == hosts[rank] and other != rank]
    if others and min(compute.excess(other) for other in others) > compute.excess(rank) / 2:
        yield f"so are the other {plural(len(others), 'rank')} of {hosts[rank]}: the host is slow, not one device"


def _alone(case: Case, rank: int) -> Iterator[str]:
    """Whether it was slow before it had anyone to wait for it."""
    ranks = case.baseline.ranks if case.baseline else None
    if not ranks or rank >= len(ranks) or len(ranks) < 2:
        return
    told = sorted(filter(math.isfinite, ranks))  # on a crowded node not all had a turn
    more = ranks[rank] - told[(len(told) - 1) // 2] if told else math.nan
    if math.isnan(more):
        return
    if more > case.seconds / 2:
        yield f"alone its step takes {milliseconds(more)} longer than others' too: the machine itself"
    else:
        yield "alone it is as fast as the others: it is slowed by what runs beside it, or since"


def rest(case: Case) -> Ground:
    """What has no name of its own."""
    run = case.config.run
    advice = []
    if run.trace_images:
        advice.append("--run.trace_images false")
    if run.report_every < OFTEN_REPORTED:
        advice.append(f"--run.report_every {2 * OFTEN_REPORTED}, each report costs two small collectives")
    return Ground(["metrics, reports and Python between the lines, on the worker that is ready last"], advice)
