"""The records of a run in the order in which they come, put where they belong."""

import math
from collections import deque
from collections.abc import Iterable
from typing import Any, cast

from hvdtrain.events import Record
from hvdtrain.metrics.breakdown import PARTS
from hvdtrain.metrics.efficiency import CAUSES, Baseline, Efficiency
from hvdtrain.report.fields import count, number, numbers, series, text
from hvdtrain.report.records import Checkpoint, End, Evaluation, Quarantined, Start, Window

RANKS = ("lag", "input", "compute")
MOST_STEPS = 1_000_000  # between two reports; more is a damaged number


class Journal:
    """What the events so far say; grows while a run goes on."""

    def __init__(self, *, keep_windows: int | None = None) -> None:
        """
        Args:
            keep_windows: only as many of the last reports; None: all.
        """
        self.starts: list[Start] = []
        self.baselines: dict[int, tuple[float, Baseline]] = {}
        self.windows: deque[Window] = deque(maxlen=keep_windows)
        self.evaluations: list[Evaluation] = []
        self.checkpoints: list[Checkpoint] = []
        self.quarantined: list[Quarantined] = []
        self.end: End | None = None
        self.preempted_at: float | None = None
        """When the run left because a signal asked it to; None unless that was its last word."""
        self.last: tuple[float, int, int] = (math.nan, 0, 0)
        """Of the last record of any kind: time, step, images seen."""
        self.unreadable = 0

    def add(self, records: Iterable[Record | None]) -> None:
        for record in records:
            if record is None:
                self.unreadable += 1
            else:
                self._add(record)

    def _add(self, record: Record) -> None:
        event = record["event"]
        before, images_before = self.last[1:]
        self.last = number(record, "time"), count(record, "step"), count(record, "images_seen")
        if event == "checkpoint":  # of a step that was long ago when it is durable
            self.last = self.last[0], max(before, self.last[1]), max(images_before, self.last[2])
        if event in ("start", "resume"):
            self.starts.append(_start(record))
            self.end = self.preempted_at = None
        elif not self.starts:  # its line was torn
            self.unreadable += 1
        elif event == "baseline" and number(record, "step_seconds") > 0:
            self.baselines[len(self.starts) - 1] = number(record, "time"), _baseline(record)
        elif event == "report":
            self.windows.append(_window(record, self.starts, before))
        elif event == "evaluate":
            self.evaluations.append(_evaluation(record))
        elif event == "checkpoint":
            self.checkpoints.append(_checkpoint(record))
        elif event == "quarantine":
            self.quarantined.append(_quarantined(record))
        elif event == "preempted":
            self.preempted_at = number(record, "time")
        elif event == "end":
            self.end = _end(record)


def _start(record: Record) -> Start:
    return Start(
        time=number(record, "time"),
        step=count(record, "step"),
        images_seen=count(record, "images_seen"),
        world_size=max(count(record, "world_size", 1), 1),
        global_batch=count(record, "global_batch_size"),
        images_per_epoch=count(record, "images_per_epoch"),
        total_images=count(record, "total_images"),
        resets=max(count(record, "resets"), 0),
        lost_images=max(count(record, "lost_images"), 0),
    )


def _baseline(record: Record) -> Baseline:
    parts = numbers(record, "parts")
    measured = text(record, "source") == "measured"
    optional = {key: value for key in ("together", "communication") if math.isfinite(value := number(record, key))}
    return Baseline(
        source="measured" if measured else "stored",
        workers=max(count(record, "workers", 1), 1),
        pixels=count(record, "pixels"),
        measured_at=number(record, "measured_at"),
        origin=text(record, "origin"),
        step_seconds=number(record, "step_seconds"),
        standard_error=number(record, "standard_error"),
        samples=count(record, "samples"),
        parts={part: parts.get(part, 0.0) for part in PARTS},
        ranks=series(record.get("ranks")) or None,
        **optional,
    )


def _window(record: Record, starts: list[Start], step_before: int) -> Window:
    """A report of an older version says neither how many steps it is of nor how long they took."""
    step, speed, start = count(record, "step"), number(record, "images_per_second"), starts[-1]
    steps = count(record, "steps")
    if not 0 < steps <= MOST_STEPS:
        steps = min(max(step - max(step_before, start.step), 1), MOST_STEPS)
    seconds = number(record, "step_seconds")
    if not math.isfinite(seconds):
        seconds = start.global_batch / speed if speed > 0 else math.nan
    parts, ranks = numbers(record, "parts"), record.get("ranks")
    told = isinstance(ranks, dict) and all(_whole(series(ranks.get(key))) for key in RANKS)
    slowest = number(record, "slowest_rank")
    return Window(
        time=number(record, "time"),
        step=step,
        images_seen=count(record, "images_seen"),
        start=len(starts) - 1,
        epoch=number(record, "epoch"),
        lr=number(record, "lr"),
        loss=number(record, "loss"),
        images_per_second=speed,
        steps=steps,
        step_seconds=seconds,
        parts=parts if all(math.isfinite(parts.get(part, math.nan)) for part in PARTS) else None,
        ranks={key: series(cast("Any", ranks)[key]) for key in RANKS} if told else None,
        slowest_rank=int(slowest) if 0 <= slowest < 2**31 else None,
        efficiency=_efficiency(record.get("efficiency")),
    )


def _whole(values: tuple[float, ...]) -> bool:
    return bool(values) and all(map(math.isfinite, values))


def _efficiency(value: Any) -> Efficiency | None:
    if not isinstance(value, dict) or not math.isfinite(ratio := number(value, "ratio")):
        return None
    losses = numbers(value, "losses")
    return Efficiency(
        ratio=ratio,
        low=number(value, "low"),
        high=number(value, "high"),
        losses={cause: losses.get(cause, math.nan) for cause in CAUSES},
        baseline="measured" if text(value, "baseline") == "measured" else "stored",
        baseline_workers=count(value, "baseline_workers", 1),
    )


def _evaluation(record: Record) -> Evaluation:
    return Evaluation(
        time=number(record, "time"),
        step=count(record, "step"),
        epoch=number(record, "epoch"),
        top1=number(record, "top1"),
        top5=number(record, "top5"),
        loss=number(record, "loss"),
        average_top1=number(record, "average_top1"),
        images=count(record, "images"),
        seconds=number(record, "seconds"),
    )


def _checkpoint(record: Record) -> Checkpoint:
    """One of an older version was written while training stood still."""
    seconds, stalled = number(record, "seconds"), number(record, "stalled_seconds")
    return Checkpoint(
        time=number(record, "time"),
        step=count(record, "step"),
        path=text(record, "path"),
        stalled_seconds=stalled if math.isfinite(stalled) else seconds,
        seconds=seconds,
    )


def _quarantined(record: Record) -> Quarantined:
    return Quarantined(number(record, "time"), text(record, "part"), text(record, "image"), text(record, "reason"))


def _end(record: Record) -> End:
    speed = number(record, "images_per_second")
    return End(number(record, "time"), count(record, "step"), number(record, "seconds"), speed)
