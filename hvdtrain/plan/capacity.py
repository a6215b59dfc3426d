"""The answers: images per second, efficiency, hours and cost of k workers; how many meet a deadline; what limits."""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hvdtrain.errors import ConfigError
from hvdtrain.plan.residuals import quantiles
from hvdtrain.plan.setting import Setting
from hvdtrain.plan.step import Step, step

MOST_WORKERS = 4096
RECIPE_LIMIT = 8192
"""Images of a minibatch up to which the recipe keeps its accuracy (Goyal et al. 2017, figure 1)."""
Limit = Literal["computing", "communication", "stragglers", "input"]
WORTH_NAMING = 0.02  # of a step


@dataclass(frozen=True)
class Prediction:
    workers: int
    batch: int  # images of a worker at a time
    micro_batches: int
    step: Step
    images_per_second: float
    weak: float  # E_w: against one worker that does the same
    strong: float | None  # E_s: against one worker that does the whole minibatch, where that is what is asked
    low: float  # of efficiency
    high: float
    hours: float
    cost: float | None
    limit: Limit

    @property
    def efficiency(self) -> float:
        return self.weak if self.strong is None else self.strong

    @property
    def minibatch(self) -> int:
        return self.workers * self.batch * self.micro_batches


@dataclass(frozen=True)
class Deadline:
    hours: float
    meets: Prediction | None
    fastest: Prediction
    why: str  # none does; empty where one does


def predict(setting: Setting, workers: int) -> Prediction:
    """
    Raises:
        ConfigError: the minibatch that is asked for cannot be shared among so many.
    """
    if workers < 1:
        raise ConfigError(f"--gpus {workers}: wanted 1 or more")
    batch, micro_batches = _share(setting, workers)
    taken = _step(setting, workers, batch, micro_batches)
    efficiency = _alone(setting, batch, micro_batches) / taken.seconds
    low, high = _interval(setting, workers, batch, micro_batches, efficiency)
    strong = None
    if setting.global_batch:
        strong = setting.compute * setting.global_batch / setting.batch / workers / taken.seconds
        low, high = low * strong / efficiency, min(1.0, high * strong / efficiency)
    per_second = workers * batch * micro_batches / taken.seconds
    hours = setting.images * setting.epochs / per_second / 3600
    cost = None if setting.price is None else hours * workers * setting.price
    return Prediction(
        workers, batch, micro_batches, taken, per_second, efficiency, strong, low, high, hours, cost, _limit(taken)
    )


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
    """Seconds of one worker that does the same."""
    return setting.compute * batch / setting.batch * micro_batches


def _step(setting: Setting, workers: int, batch: int, micro_batches: int) -> Step:
    taken = step(
        setting.compute * batch / setting.batch,
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


def _interval(setting: Setting, workers: int, batch: int, micro_batches: int, efficiency: float) -> tuple[float, float]:
    """From where 80 % of the published series lie when they are left out of the fit, and from what was assumed."""
    if workers == 1:
        return efficiency, efficiency
    below, above = quantiles()
    down, up = (efficiency * (1 - below)) ** 2, (efficiency * (above - 1)) ** 2
    for ends in setting.ranges.values():
        others = [_alone(end, batch, micro_batches) / _step(end, workers, batch, micro_batches).seconds for end in ends]
        down += max(0.0, efficiency - min(others)) ** 2
        up += max(0.0, max(others) - efficiency) ** 2
    return max(0.0, efficiency - math.sqrt(down)), min(1.0, efficiency + math.sqrt(up))


def _limit(taken: Step) -> Limit:
    parts: dict[Limit, float] = {
        "communication": taken.communication,
        "stragglers": taken.straggler,
        "input": taken.input,
    }
    name, most = max(parts.items(), key=lambda item: item[1])
    return name if most > WORTH_NAMING * taken.seconds else "computing"


def sweep(setting: Setting, most: int) -> list[Prediction]:
    """Of 1, 2, 4, … workers, and of `most`."""
    numbers = sorted({2**i for i in range(most.bit_length()) if 2**i <= most} | {most})
    return list(_possible(setting, numbers))


def _possible(setting: Setting, numbers: Sequence[int]) -> Iterator[Prediction]:
    for workers in numbers:
        try:
            yield predict(setting, workers)
        except ConfigError:  # a minibatch that so many cannot share
            if not setting.global_batch:
                raise


def meet(setting: Setting, hours: float, most: int = MOST_WORKERS) -> Deadline:
    """The fewest workers that are done in time: any number of one node, and else whole nodes."""
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
    if setting.global_batch:
        return (
            f"a minibatch of {setting.global_batch:,} images is done soonest by {fastest.workers:,} workers: beyond it"
            f" each has too little to compute, and {fastest.limit} takes the rest; a larger --global-batch would help"
        )
    room = f"of {most:,} workers, the most that were tried (--most-workers)"
    return f"{room}, the fastest are {fastest.workers:,}; {fastest.limit} limits them"


def hours_of(text: str) -> float:
    """
    >>> hours_of("1h"), hours_of("90min"), hours_of("2d"), hours_of("1:30")
    (1.0, 1.5, 48.0, 1.5)
    """
    units = {"h": 1.0, "min": 1 / 60, "m": 1 / 60, "d": 24.0, "s": 1 / 3600}
    clock = re.fullmatch(r"(\d+):([0-5]\d)(?::([0-5]\d))?", text)
    if clock:
        return int(clock[1]) + int(clock[2]) / 60 + int(clock[3] or 0) / 3600
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(h|min|m|d|s)", text)
    if not found or not float(found[1]):
        raise ConfigError(f"--deadline {text}: not a time; wanted such as 1h, 90min, 2d or 1:30")
    return float(found[1]) * units[found[2]]
