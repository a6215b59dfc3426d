"""The answers: images per second, efficiency, hours and cost of k workers; how many meet a deadline; what limits."""

import math
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hvdtrain.errors import ConfigError
from hvdtrain.plan.ask import LARGEST, LARGEST_CLUSTER, Ask, check_workers
from hvdtrain.plan.residuals import quantiles
from hvdtrain.plan.setting import Setting
from hvdtrain.plan.step import Step, step

RECIPE_LIMIT = 8192
"""Images of a minibatch up to which the recipe keeps its accuracy (Goyal et al. 2017, figure 1)."""
Limit = Literal["computing", "communication", "negotiation", "stragglers", "input"]
WORTH_NAMING = 0.02  # of a step


@dataclass(frozen=True)
class Outcome:
    """A step, and what follows from it."""

    step: Step
    images_per_second: float  # of all workers
    weak: float  # E_w, up to 1: against one worker that does the same
    strong: float | None  # E_s: against one worker that does the whole minibatch, where that is what is asked

    @property
    def efficiency(self) -> float:
        return self.weak if self.strong is None else self.strong


@dataclass(frozen=True)
class Prediction(Outcome):
    """What a number of workers does, evaluation and checkpoints left out."""

    workers: int
    batch: int  # images of a worker at a time
    micro_batches: int
    low: float  # of efficiency, an 80 % interval
    high: float
    slow: float  # of images_per_second, an 80 % interval
    fast: float
    hours: float  # of all epochs
    price: float | None  # of a worker's hour
    limit: Limit

    @property
    def minibatch(self) -> int:
        return self.workers * self.batch * self.micro_batches

    @property
    def hours_between(self) -> tuple[float, float]:
        """An 80 % interval."""
        return self.hours * self.images_per_second / self.fast, self.hours * self.images_per_second / self.slow

    def cost(self, hours: float) -> float | None:
        """In the currency of the price; None without one."""
        return None if self.price is None else hours * self.workers * self.price


@dataclass(frozen=True)
class Deadline:
    """What meets it, or what comes nearest."""

    hours: float
    meets: Prediction | None
    fastest: Prediction
    why: str  # none does; empty where one does

    @property
    def surely(self) -> bool:
        """Whether at the slow end of the interval it is met, too."""
        return self.meets is not None and self.meets.hours_between[1] <= self.hours


def predict(setting: Setting, workers: int) -> Prediction:
    """How fast `workers` workers are, how long they take, what it costs, and what limits them.

    Raises:
        ConfigError: there are none or too many, or the minibatch that is asked for cannot be shared among so many.
    """
    check_workers("--gpus", workers)
    batch, micro_batches = _share(setting, workers)

    def outcome(setting: Setting) -> Outcome:
        return _outcome(setting, workers, batch, micro_batches)

    found = outcome(setting)
    ends = [(outcome(low), outcome(high)) for low, high in setting.ends(batch)]
    # Published series are off by the model of sums and waits, of which one worker has none.
    model = quantiles() if workers > 1 else (1.0, 1.0)
    model = model[0], min(model[1], max(1.0, 1 / found.weak))
    efficiencies = [(low.efficiency, high.efficiency) for low, high in ends]
    speeds = [(low.images_per_second, high.images_per_second) for low, high in ends]
    low, high = _interval(found.efficiency, model, efficiencies)
    slow, fast = _interval(found.images_per_second, model, speeds)
    return Prediction(
        **vars(found),
        workers=workers,
        batch=batch,
        micro_batches=micro_batches,
        low=low,
        high=min(1.0, high),
        slow=slow,
        fast=fast,
        hours=setting.images * setting.epochs / found.images_per_second / 3600,
        price=setting.price,
        limit=_limit(found.step),
    )


def _outcome(setting: Setting, workers: int, batch: int, micro_batches: int) -> Outcome:
    taken = _step(setting, workers, batch, micro_batches)
    weak, strong = _alone(setting, batch, micro_batches) / taken.seconds, None
    if setting.global_batch:
        whole = min(setting.batch, setting.global_batch)
        strong = _alone(setting, whole, 1) * setting.global_batch / whole / workers / taken.seconds
    return Outcome(taken, workers * batch * micro_batches / taken.seconds, weak, strong)


def _share(setting: Setting, workers: int) -> tuple[int, int]:
    """Images of a worker at a time, and how often before a sum."""
    if not setting.global_batch:
        return setting.batch, 1
    each, over = divmod(setting.global_batch, workers)
    if over or not each:
        raise ConfigError(f"--global-batch {setting.global_batch}: {workers} workers cannot share it equally")
    if each <= setting.batch:
        return each, 1
    micro_batches, over = divmod(each, setting.batch)
    if over:
        raise ConfigError(
            f"--global-batch {setting.global_batch}: {each} images of each of {workers} workers are no multiple of"
            f" --batch {setting.batch}"
        )
    return setting.batch, micro_batches


def _alone(setting: Setting, batch: int, micro_batches: int) -> float:
    """Seconds of one worker that does the same, late input included."""
    return _step(setting, 1, batch, micro_batches).seconds


def _step(setting: Setting, workers: int, batch: int, micro_batches: int) -> Step:
    taken = step(
        setting.compute(batch),
        setting.network,
        workers,
        setting.fabric,
        setting.fusion,
        setting.overheads,
        wire_bytes=setting.wire_bytes,
        micro_batches=micro_batches,
    )
    if not setting.input_rate:
        return taken
    of_node = min(workers, setting.fabric.per_node) * batch * micro_batches / setting.input_rate
    return taken.waiting(max(0.0, of_node - taken.seconds))


def _interval(value: float, model: tuple[float, float], ends: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """What is off by independent factors: from where 80 % of the published series lie when they are left out of the
    fit, and from the ends of what was assumed."""
    down, up = math.log(model[0]) ** 2, math.log(model[1]) ** 2
    for pair in ends:
        down += min(0.0, *(math.log(each / value) for each in pair)) ** 2
        up += max(0.0, *(math.log(each / value) for each in pair)) ** 2
    return value * math.exp(-math.sqrt(down)), value * math.exp(math.sqrt(up))


def _limit(taken: Step) -> Limit:
    parts: dict[Limit, float] = {
        "communication": taken.communication,
        "negotiation": taken.negotiation,
        "stragglers": taken.straggler,
        "input": taken.input,
    }
    name, most = max(parts.items(), key=lambda item: item[1])
    return name if most > WORTH_NAMING * taken.seconds else "computing"


def sweep(setting: Setting, most: int) -> list[Prediction]:
    """Of 1, 2, 4, … workers, and of `most`; without those that cannot share the minibatch that is asked for."""
    numbers = sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most})
    return list(_possible(setting, numbers))


def _possible(setting: Setting, numbers: Iterable[int]) -> Iterator[Prediction]:
    for workers in numbers:
        try:
            yield predict(setting, workers)
        except ConfigError:  # a minibatch that so many cannot share
            if not setting.global_batch:
                raise


def meet(setting: Setting, hours: float, most: int = Ask.most_workers) -> Deadline:
    """The fewest workers that are done in `hours`: any number of one node, and else whole nodes, up to `most` workers.

    Raises:
        ConfigError: no such number can share the minibatch that is asked for.
    """
    node = setting.fabric.per_node
    numbers = [*range(1, min(node, most) + 1), *range(2 * node, most + 1, node)]
    fastest: Prediction | None = None
    for found in _possible(setting, numbers):
        if found.hours <= hours:
            return Deadline(hours, found, found, "")
        if fastest is None or found.hours < fastest.hours:
            fastest = found
    if fastest is None:
        raise ConfigError(
            f"--global-batch {setting.global_batch}: no number of workers up to {most} can share it equally"
        )
    return Deadline(hours, None, fastest, _why(setting, fastest, most))


def _why(setting: Setting, fastest: Prediction, most: int) -> str:
    if setting.global_batch and not _stopped(setting, fastest, most):
        return (
            f"a minibatch of {setting.global_batch:,} images is done soonest by {fastest.workers:,} workers: beyond it"
            f" each has too little to compute, and {fastest.limit} takes the rest; a larger --global-batch would help"
        )
    room = f"of {most:,} workers, the most that were tried (--most-workers)"
    return f"{room}, the fastest are {fastest.workers:,}; {fastest.limit} limits them"


def _stopped(setting: Setting, fastest: Prediction, most: int) -> bool:
    """Whether more workers than were tried would be faster still."""
    wanted = setting.global_batch or 0
    more = (k for k in range(most + 1, min(wanted, LARGEST_CLUSTER) + 1) if wanted % k == 0)
    found = next(_possible(setting, more), None)
    return found is not None and found.hours < fastest.hours


def hours_of(text: str) -> float:
    """A time of the command line in hours.

    Raises:
        ConfigError: it is none, or 0.

    >>> hours_of("1h"), hours_of("90min"), hours_of("1h30m"), hours_of("2d"), hours_of("1:30")
    (1.0, 1.5, 1.5, 48.0, 1.5)
    """
    units = {"d": 24.0, "h": 1.0, "min": 1 / 60, "m": 1 / 60, "s": 1 / 3600}
    if clock := re.fullmatch(r"(\d+):([0-5]\d)(?::([0-5]\d))?", text):
        parts = zip(map(float, (clock[1], clock[2], clock[3] or 0)), "hms", strict=True)
        hours = sum(number * units[unit] for number, unit in parts)
    else:
        part = r"(\d+(?:\.\d+)?)\s*(min|[dhms])\s*"
        each = re.findall(part, text) if re.fullmatch(f"(?:{part})+", text) else []
        hours = sum(float(number) * units[unit] for number, unit in each)
    if not 0 < hours < LARGEST:
        raise ConfigError(f"--deadline {text}: not a time above 0; wanted such as 1h, 90min, 1h30m, 2d or 1:30")
    return hours
