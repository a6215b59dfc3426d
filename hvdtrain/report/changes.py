"""A run whose workers changed: how often, at what cost, and how it did with each number of them. Pure."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hvdtrain.log import duration
from hvdtrain.metrics.efficiency import Efficiency
from hvdtrain.report.account import account, timed
from hvdtrain.report.pauses import spans
from hvdtrain.report.records import Run
from hvdtrain.report.units import UNKNOWN, number, plural, tenths

SETS_SHOWN = 12  # of workers; of more, the first and the last ones
NAME, HEAD = "by number of workers", ("steps", "images/s", "efficiency", "95 % interval", "of training")


@dataclass(frozen=True)
class Changes:
    times: int
    workers: tuple[int, ...]
    """Of each set, in their order."""
    lost_images: int
    """That were done once more."""
    between_seconds: float
    """From the last step of a set to the start of the next, in all."""


@dataclass(frozen=True)
class Size:
    """All steps with one number of workers."""

    workers: int
    steps: int
    images_per_second: float
    """This and the efficiency of those that a baseline can be compared with, where there are such."""
    efficiency: Efficiency | None
    """Against the baselines that held then."""
    share: float
    """Of the time of all steps."""


def changes(run: Run) -> Changes | None:
    """None where they never changed while it went on."""
    if not run.changes:
        return None
    return Changes(
        times=run.changes,
        workers=tuple(start.world_size for start in run.starts),
        lost_images=sum(start.lost_images for start in run.starts),
        between_seconds=sum(span.end - span.begin for span in spans(run) if span.reason == "reset"),
    )


def sizes(run: Run, *, last: int | None = None) -> tuple[Size, ...]:
    """By number of workers, the fewest first; empty where all steps were done with one number of them.

    Args:
        last: only as many of the last windows.
    """
    numbers = sorted({run.starts[window.start].world_size for window in timed(run, last=last)})
    found = [counted for k in numbers if (counted := account(run, last=last, workers=k))]
    whole = sum(counted.training_seconds for counted in found)
    each = (
        Size(
            workers=told.workers,
            steps=sum(window.steps for window in (*told.windows, *told.uncompared)),
            images_per_second=told.images_per_second,
            efficiency=told.efficiency,
            share=told.training_seconds / whole,
        )
        for told in found
    )
    return tuple(each) if len(found) > 1 else ()


def in_words(changes: Changes) -> str:
    """
    >>> in_words(Changes(3, (2, 1, 2, 3), 480, 62.0))
    'changed 3 times, k = 2, 1, 2, 3: 480 images once more, 1 min 2 s between'
    """
    k = [f"{workers:,}" for workers in changes.workers]
    if len(k) > SETS_SHOWN:
        k = [*k[: SETS_SHOWN // 2], "…", *k[-SETS_SHOWN // 2 :]]
    lost = f"{plural(changes.lost_images, 'image')} once more" if changes.lost_images else "no image twice"
    times = plural(changes.times, "time")
    return f"changed {times}, k = {', '.join(k)}: {lost}, {duration(changes.between_seconds)} between"


def rows(sizes: Sequence[Size]) -> list[tuple[str, ...]]:
    """Of a table: how many workers, and under HEAD."""
    return [
        (
            plural(each.workers, "worker"),
            f"{each.steps:,}",
            number(each.images_per_second),
            f"{tenths(each.efficiency.ratio)} %" if each.efficiency else UNKNOWN,
            _interval(each.efficiency),
            f"{tenths(each.share)} %",
        )
        for each in sizes
    ]


def table(sizes: Sequence[Size]) -> Iterator[str]:
    """Lines for a terminal."""
    if sizes:
        yield f"{NAME:<24}" + _columns(HEAD)
    for name, *values in rows(sizes):
        yield f"  {name:<22}" + _columns(values)


def _columns(values: Sequence[str]) -> str:
    return "".join(f"{value:>{width}}" for value, width in zip(values, (9, 12, 13, 20, 14), strict=True))


def _interval(found: Efficiency | None) -> str:
    if found is None or not math.isfinite(found.low):
        return UNKNOWN
    return f"{tenths(found.low)} to {tenths(found.high)} %"
