"""Before a run's first step: do all workers have the same of everything, and does a sum come out right, and how fast?

What differs would show later, as other numbers, a hang in a collective that only some workers come to, or a speed that
nobody can explain. To compare is pure; only the functions that are called collective talk.
"""

import hashlib
import json
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import torch

from hvdtrain.config.checks import shown
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.verdict import ranks_in_words
from hvdtrain.errors import ConfigError, EnvironmentFault

ELEMENTS = 12_800_000  # float32, 51.2 MB: the 25.6 M gradients of ResNet-50 in half precision
ROUNDS = 3  # timed, after one that opens connections and touches memory
SLOW_SECONDS = 1.0  # of that first one, beyond which it is enough
CLOCK_ROUNDS = 3
CLOCK_SECONDS = 2.0  # apart; beyond, the times of logs, events and metrics of several hosts do not fit together
MOST_TOLD = 4  # differences of one kind in a message

Facts = Mapping[str, str]  # what a worker says of itself, by name


def differences(everyone: Sequence[Facts], hosts: Sequence[str], names: Sequence[str]) -> list[str]:
    """A line for each of `names` that is not the same on all ranks: the few first, then the others. Pure.

    >>> facts = [{"torch": "2.13"}, {"torch": "2.12"}, {"torch": "2.13"}]
    >>> differences(facts, ["h1", "h2", "h2"], ["torch"])
    ['torch is 2.12 on rank 1 (h2), 2.13 on the others']

    Of two equal parts the one without rank 0 counts as the few.
    """
    told = []
    for name in names:
        ranks: dict[str, list[int]] = {}
        for rank, facts in enumerate(everyone):
            ranks.setdefault(facts.get(name, "missing"), []).append(rank)
        if len(ranks) == 1:
            continue
        usual = max(ranks, key=lambda value: (len(ranks[value]), -ranks[value][0]))
        odd = [value for value in ranks if value != usual]
        parts = [f"{_value(value)} on {_place(ranks[value], hosts)}" for value in odd[:MOST_TOLD]]
        more = [f"{len(odd) - MOST_TOLD} other values elsewhere"] if len(odd) > MOST_TOLD else []
        told.append(f"{name} is {', '.join([*parts, *more])}, {_value(usual)} on the others")
    return told


def _value(value: str) -> str:
    return shown(value, 40) or "empty"


def _place(ranks: Sequence[int], hosts: Sequence[str]) -> str:
    names = sorted({hosts[rank] for rank in ranks})
    return f"{ranks_in_words(ranks)} ({', '.join(names[:4])}{' …' if len(names) > 4 else ''})"


def agree(
    comm: Comm,
    host: str,
    *,
    settings: Facts,
    software: Facts,
    place: Facts,
) -> list[str]:
    """Compare all workers; warnings about what may differ but had better not. Collective.

    Args:
        settings: values of the configuration that have to be the same.
        software: versions that have to be the same.
        place: what gives a warning: devices, and software that changes no number.

    Raises:
        ConfigError: settings differ.
        EnvironmentFault: versions do.
    """
    everyone = comm.gather((host, dict(software), dict(place), _digest(settings)), "preflight: facts")
    hosts = [each[0] for each in everyone]
    if len({each[3] for each in everyone}) > 1:  # they are a hundred; all workers send them only where they differ
        every = comm.gather(dict(settings), "preflight: settings")
        told = differences(every, hosts, sorted({name for each in every for name in each}))
        raise ConfigError(
            f"the workers have different configurations: {_some(told)}",
            remedy="start all of them by one command line; see hvdtrain config … on each host",
        )
    if told := differences([each[1] for each in everyone], hosts, list(software)):
        raise EnvironmentFault(
            f"the workers have different software: {_some(told)}",
            remedy="make setup on each host, or one .venv on a shared disk; hvdtrain doctor there",
            everyones=True,
        )
    return differences([each[2] for each in everyone], hosts, list(place)) + clock_warnings(clock_offsets(comm), hosts)


def same_images(comm: Comm, host: str, digests: Facts) -> None:
    """Collective.

    Raises:
        EnvironmentFault: workers have other tables of images than most.
    """
    everyone = comm.gather((host, dict(digests)), "preflight: images")
    if told := differences([each[1] for each in everyone], [each[0] for each in everyone], list(digests)):
        raise EnvironmentFault(
            f"the workers have different images: {_some(told)}",
            remedy="hvdtrain data verify on each host; the memory or the network there may be faulty",
            everyones=True,
        )


def _digest(facts: Facts) -> str:
    return hashlib.sha256(json.dumps(dict(facts), sort_keys=True).encode()).hexdigest()


def _some(told: Sequence[str]) -> str:
    more = f"; and {len(told) - MOST_TOLD} more" if len(told) > MOST_TOLD else ""
    return "; ".join(told[:MOST_TOLD]) + more


def clock_offsets(comm: Comm) -> list[float]:
    """How far each rank's clock is ahead of the typical one, seconds. Collective.

    Each round all workers look at their clocks right after they have met. A worker may be held up in one round, which
    makes its clock look ahead, but hardly in most of them: the median of the rounds counts.
    """
    rounds = []
    for i in range(CLOCK_ROUNDS):
        comm.meet(f"preflight: clock {i}")
        rounds.append(comm.table(np.array([time.time()]), f"preflight: clocks {i}")[:, 0])
    times = np.stack(rounds)  # (rounds, ranks)
    return [float(offset) for offset in np.median(times - np.median(times, axis=1, keepdims=True), axis=0)]


def clock_warnings(offsets: Sequence[float], hosts: Sequence[str]) -> list[str]:
    """
    >>> clock_warnings([0.0, -3.5, 0.1, 0.0], ["h1", "h2", "h1", "h3"])
    ['the clock of rank 1 (h2) is 3.5 s behind the others: times in logs and metrics will not fit together']
    """
    middle = statistics.median(offsets)
    far: dict[str, list[int]] = {}
    for rank, offset in enumerate(offsets):
        if abs(offset - middle) > CLOCK_SECONDS:
            far.setdefault(hosts[rank], []).append(rank)
    told = []
    for ranks in list(far.values())[:MOST_TOLD]:
        ahead = offsets[ranks[0]] - middle
        how = f"{abs(ahead):.1f} s {'ahead of' if ahead > 0 else 'behind'} the others"
        told.append(f"the clock of {_place(ranks, hosts)} is {how}: times in logs and metrics will not fit together")
    return told


@dataclass(frozen=True)
class Sum:
    """How fast a sum over all workers is while nothing else goes on."""

    bytes: int
    seconds: float
    """Of the fastest of the rounds, until the last worker has it."""
    bus_gigabytes_per_second: float
    """2(k-1)/k of the bytes over the seconds: what around a ring leaves each worker, and what its link can be compared
    with, whatever k is (NCCL's tests call it busbw)."""

    def as_json(self) -> dict[str, float]:
        return asdict(self)


def sum_of_known(comm: Comm, device: torch.device, *, elements: int = ELEMENTS) -> Sum:
    """Sum numbers whose sum is known, several times; once where that takes long. Collective; for several workers.

    Each round every worker gives (rank mod 64 + 1) times 1, 2 … 8, over and over: all sums are whole numbers below
    2^24, exact in float32, up to 32,000 workers.

    Raises:
        EnvironmentFault: a sum is wrong, on any worker.
    """
    pattern = torch.arange(1, 9, dtype=torch.float32, device=device)  # (8,)
    numbers = torch.empty(elements // 8, 8, dtype=torch.float32, device=device)
    wanted = (pattern * sum(rank % 64 + 1 for rank in range(comm.size))).expand_as(numbers)
    rounds: list[float] = []
    while len(rounds) < 1 + ROUNDS and not (rounds and rounds[0] > SLOW_SECONDS):
        numbers.copy_((pattern * (comm.rank % 64 + 1)).expand_as(numbers))
        comm.meet(f"preflight: round {len(rounds)}")
        began = time.perf_counter()
        comm.wait(comm.start_sum(numbers, "preflight: sum"))
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds = time.perf_counter() - began
        wrong = (
            0 if torch.equal(numbers, wanted) else int((numbers != wanted).sum())
        )  # to count takes five times as long
        table = comm.table(np.array([seconds, wrong], np.float64), f"preflight: seconds {len(rounds)}")  # (ranks, 2)
        if table[:, 1].any():
            message = _wrong(table[:, 1].tolist(), elements)
            raise EnvironmentFault(message, remedy="hvdtrain doctor on its host", everyones=True)
        rounds.append(float(table[:, 0].max()))
    best, payload = min(rounds[1:] or rounds), numbers.numel() * numbers.element_size()
    return Sum(payload, best, 2 * (comm.size - 1) / comm.size * payload / best / 1e9)


def _wrong(counts: Sequence[float], elements: int) -> str:
    bad = [rank for rank, count in enumerate(counts) if count]
    return (
        f"the sum of {elements:,} known numbers over {len(counts)} workers is wrong on {ranks_in_words(bad)}: "
        f"up to {int(max(counts)):,} of them; a network, a GPU or memory is faulty, or MPI or NCCL is"
    )
