"""How fast one device computes by itself: as hardware.csv has it, or as near as the table comes."""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache

from hvdtrain.errors import ConfigError
from hvdtrain.plan import hardware
from hvdtrain.plan.allreduce import Fabric
from hvdtrain.plan.ask import Ask
from hvdtrain.plan.constants import Constants
from hvdtrain.plan.hardware import How
from hvdtrain.plan.models import network
from hvdtrain.plan.step import MIB, Fusion, computing, step

ALIKE = {"bf16": ("fp16",), "fp16": ("bf16",)}
"""Precisions of the same width, which are about as fast as each other."""
DEPTHWISE = ("efficientnet", "mobilenet")
"""Families whose multiply-adds are few to a byte, and take a device several times as long as a ResNet's."""

# By which factor a speed may be wrong, minus 1.
TABULATED, BETWEEN, OTHER_PRECISION = 0.03, 0.05, 0.1
OTHER_BATCH = 0.15  # for each doubling
OTHER_NETWORK = 0.3
OTHER_KIND = 5.0  # of EfficientNet-B4 an A100 would do 866 images/s, as it does 938 of ResNet-50: 165 were measured


@dataclass(frozen=True)
class Speed:
    """Of one device alone."""

    images_per_second: float
    how: How
    source: str
    spread: float  # by which factor it may be wrong, minus 1

    def seconds(self, batch: int) -> float:
        return batch / self.images_per_second


@dataclass(frozen=True)
class Published:
    """A row of the table."""

    gpu: str
    model: str
    precision: str
    batch: int
    workers: int
    images_per_second: float  # of all of them
    source: str


@cache
def published() -> tuple[Published, ...]:
    return tuple(
        Published(
            row["name"],
            row["model"],
            row["precision"],
            int(row["batch"]),
            int(row["workers"]),
            float(row["value"]),
            row["source"],
        )
        for row in hardware.rows()
        if row["kind"] == "gpu"
    )


@cache
def alone(row: Published, shared: Constants) -> Speed:
    """Of one of the workers by itself. What sums add to the step of several of one node is taken off as a plan with
    the defaults would add it: that plan says what was measured."""
    if row.workers == 1:
        return Speed(row.images_per_second, "tabulated", row.source, TABULATED)
    link = hardware.host_link(row.gpu)
    inside = shared.within(hardware.within(link), link)
    fabric = Fabric(row.workers, inside, inside, shared.hop_seconds, Ask.algorithm)
    fusion = Fusion("buckets", Ask.bucket_mib * MIB)

    def together(compute: float) -> float:
        return step(compute, network(row.model), row.workers, fabric, fusion, shared.overheads()).seconds

    taken = row.workers * row.batch / row.images_per_second
    seconds = computing(taken, together)
    source = (
        f"{row.workers} together do {row.images_per_second:,.0f}, of which what sums add is taken off: {row.source}"
    )
    return Speed(row.batch / seconds, "assumed", source, TABULATED)


@cache
def speed(gpu: str, model: str, precision: str, batch: int, shared: Constants) -> Speed:
    """
    Raises:
        ConfigError: nothing is known of this device at this precision.
    """
    hardware.host_link(gpu)
    network(model)
    of_gpu = [each for each in published() if each.gpu == gpu]
    for name in (precision, *ALIKE.get(precision, ())):
        known = [each for each in of_gpu if each.precision == name]
        if not known:
            continue
        same = sorted((each for each in known if each.model == model), key=lambda each: each.batch)
        found = _of_model(same, batch, shared) if same else _scaled(known, model, batch, shared)
        return found if name == precision else _less_sure(found, OTHER_PRECISION, f"as fast as {name}")
    there = ", ".join(dict.fromkeys(each.precision for each in of_gpu))
    raise ConfigError(
        f"--gpu {gpu} --precision {precision}: no published speed; there is one at {there}",
        remedy="measure one worker, and say --images-per-second-per-gpu",
    )


def measured(images_per_second: float, option: str, at: int, batch: int) -> Speed:
    """What the user measured at batch `at`, for batch `batch`."""
    return _at_batch(Speed(images_per_second, "measured", option, 0.0), at, batch)


def _of_model(rows: list[Published], batch: int, shared: Constants) -> Speed:
    """Of rows of the network itself, the smallest batch first."""
    first, last, near = rows[0], rows[-1], _nearest(rows, batch)
    if first.batch < batch < last.batch and batch != near.batch:
        low, high = (alone(each, shared).seconds(each.batch) for each in (first, last))
        seconds = low + (high - low) * (batch - first.batch) / (last.batch - first.batch)
        source = f"between batch {first.batch} and {last.batch}: {near.source}"
        return Speed(batch / seconds, "assumed", source, BETWEEN)
    found = _at_batch(alone(near, shared), near.batch, batch)
    return found if near.batch != batch else replace(found, source=f"{found.source}; batch {batch}")


def _scaled(rows: list[Published], model: str, batch: int, shared: Constants) -> Speed:
    """By the multiply-adds of a network that was measured: of its own family, or ResNet-50, or the nearest batch."""
    family = _family(model)
    alike = [each for each in rows if _family(each.model) == family]
    near = _nearest(alike or [each for each in rows if each.model == "resnet50"] or rows, batch)
    crosses = (family in DEPTHWISE) != (_family(near.model) in DEPTHWISE)
    there = alone(near, shared)
    ratio = network(near.model).madds / network(model).madds
    found = _at_batch(replace(there, images_per_second=there.images_per_second * ratio), near.batch, batch)
    return _less_sure(found, OTHER_KIND if crosses else OTHER_NETWORK, f"by multiply-adds from {near.model}")


def _at_batch(known: Speed, at: int, batch: int) -> Speed:
    if at == batch:
        return known
    return _less_sure(known, OTHER_BATCH * max(1.0, _doublings(at, batch)), f"images/s as at batch {at}")


def _less_sure(known: Speed, spread: float, why: str) -> Speed:
    return replace(known, how="assumed", source=f"{why}: {known.source}", spread=math.hypot(known.spread, spread))


def _nearest(rows: Iterable[Published], batch: int) -> Published:
    return min(rows, key=lambda each: _doublings(each.batch, batch))


def _doublings(one: int, other: int) -> float:
    return abs(math.log2(one / other))


def _family(model: str) -> str:
    """
    >>> _family("efficientnet_b4"), _family("resnet101")
    ('efficientnet', 'resnet')
    """
    found = re.match("[a-z]+", model)
    return found[0] if found else model
