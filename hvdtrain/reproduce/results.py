"""From the events of runs to what is reported: errors, their spread over seeds, and what differs from what.

The rules are the paper's (section 5.1): a run's error is the median of its last five epochs', a cell's the mean and
standard deviation over its seeds. Here a seed has one order of images and one set of initial weights for all cells, so
that a difference between cells is taken seed by seed.
"""

import math
import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtrain.errors import DataError
from hvdtrain.events import Tail, records
from hvdtrain.metrics.efficiency import student
from hvdtrain.reproduce.cells import Cell, Row

LAST_EPOCHS = 5

Event = Mapping[str, Any]
Errors = Mapping[str, Mapping[int, float]]  # cell's name -> seed -> top-1 error, %


def read_events(file: Path) -> list[Event]:
    """The records of an events.jsonl; none where there is no file. A last line that is not whole is left out.

    Raises:
        DataError: another line is no JSON.
    """
    try:
        found = list(records(Tail(file).lines()))
    except FileNotFoundError:
        return []
    if None in found:
        remedy = f"rm -r {shlex.quote(str(file.parent))} and run again"
        raise DataError(f"{file}, record {found.index(None) + 1}: no JSON", remedy=remedy)
    return [record for record in found if record]


def begin(events: Sequence[Event]) -> Event:
    """The run's last start or resumption: world size, minibatch, images per epoch."""
    return [event for event in events if event["event"] in ("start", "resume")][-1]


def finished(events: Sequence[Event]) -> bool:
    return bool(events) and events[-1]["event"] == "end"


def run_error(events: Sequence[Event], *, epochs: float) -> float:
    """Top-1 error of a run, %: the median over its evaluations in the last five of its `epochs`.

    Steps that a resumed run took again count as the later ones. A step of more images than an epoch has leaves fewer
    than five evaluations.

    Raises:
        DataError: there are fewer than that.
    """
    top1 = {event["step"]: event for event in events if event["event"] == "evaluate"}
    first = epochs - LAST_EPOCHS + 1
    late: list[float] = [event["top1"] for _, event in sorted(top1.items()) if math.floor(event["epoch"]) >= first]
    begun = begin(events)
    most = min(LAST_EPOCHS, math.floor(epochs))
    least = min(most, 1 + (most - 1) * begun["images_per_epoch"] // begun["global_batch_size"])
    if len(late) < least:
        raise DataError(f"{len(late)} evaluations in the last {LAST_EPOCHS} epochs, expected {least} at least")
    return 100 * (1 - statistics.median(late))


def losses_by_epoch(events: Sequence[Event]) -> dict[int, float]:
    """Mean training loss of the steps that begin within each epoch, counted from 1; NaN where one was not finite.

    Every report counts alike: they are to be of equal numbers of steps, as with run.report_every 1.
    """
    images_per_epoch = begin(events)["images_per_epoch"]
    reports = {event["step"]: event for event in events if event["event"] == "report"}
    losses: dict[int, list[float]] = {}
    began = 0
    for _, report in sorted(reports.items()):
        loss = math.nan if report["loss"] is None else report["loss"]
        losses.setdefault(began // images_per_epoch + 1, []).append(loss)
        began = report["images_seen"]
    return {epoch: statistics.fmean(values) for epoch, values in losses.items()}


@dataclass(frozen=True)
class Spread:
    mean: float
    std: float | None  # of the sample, n - 1; None for one value
    n: int

    @property
    def interval(self) -> float | None:
        """Half the width of the mean's 95 % interval, by Student's t."""
        return None if self.std is None else student(self.n - 1) * self.std / math.sqrt(self.n)

    @property
    def sure(self) -> bool:
        """Whether the interval leaves 0 out."""
        return self.interval is not None and abs(self.mean) > self.interval


def spread(values: Sequence[float]) -> Spread:
    """
    >>> spread([1.0, 2.0, 6.0])
    Spread(mean=3.0, std=2.6457513110645907, n=3)
    """
    return Spread(statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values))


def difference(errors: Errors, cell: Cell, other: Cell) -> Spread:
    """Of `cell` minus `other`, seed by seed: what a seed does to both cancels."""
    return spread([error - errors[other.name][seed] for seed, error in sorted(errors[cell.name].items())])


def verdict(ours: Spread, papers: float) -> str:
    """Whether a difference has the sign of the paper's and is one at all: its 95 % interval leaves 0 out.

    >>> verdict(Spread(1.0, 0.6, 4), 2.14), verdict(Spread(1.0, 0.7, 4), 2.14), verdict(Spread(-1.0, 0.6, 4), 2.14)
    ('as in the paper', 'not shown: the interval holds 0', 'the opposite of the paper')
    """
    if ours.std is None:
        return "not shown: one seed"
    if not ours.sure:
        return "not shown: the interval holds 0"
    return "as in the paper" if (ours.mean > 0) == (papers > 0) else "the opposite of the paper"


def accuracy_kept(errors: Errors, sweep: Sequence[Row], baseline: Cell) -> int | None:
    """The largest minibatch up to which no row of the sweep is surely worse than the baseline; one seed cannot say."""
    kept = baseline.kn
    for row in sorted(sweep, key=lambda row: row.cell.kn):
        ours = difference(errors, row.cell, baseline)
        if ours.std is None:
            return None
        if ours.sure and ours.mean > 0 and row.cell.kn > baseline.kn:
            break
        kept = max(kept, row.cell.kn)
    return kept
