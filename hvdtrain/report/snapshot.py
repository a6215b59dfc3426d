"""How a run stands at one moment: what `hvdtrain status` shows. Pure but for the run that it is given."""

import itertools
import json
import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass

from hvdtrain.log import duration
from hvdtrain.report import text
from hvdtrain.report.plain import plain
from hvdtrain.report.records import Run, State, Window
from hvdtrain.report.units import plural

SLOWEST = 4  # ranks that are named
STALLED_AFTER = 10  # times the usual time between two reports
STALLED_SECONDS = 60.0  # but not before
WARNINGS = 3


@dataclass(frozen=True)
class Lag:
    rank: int
    host: str
    seconds: float
    """Per step, later than the typical worker."""


@dataclass(frozen=True)
class Snapshot:
    """Numbers that are not known are NaN or None."""

    run: str
    state: str
    what: str
    """Model, precision, n, k, kn and hardware."""
    world_size: int
    changes: int
    """How often its workers changed while it went on."""
    step: int
    epoch: float
    epochs: float
    left_seconds: float
    """Until the end, evaluations and checkpoints included."""
    images_per_second: float
    """This and all that is of steps: of the workers that there are now."""
    step_seconds: float
    loss: float
    top1: float
    top1_epoch: float
    efficiency: float
    low: float
    high: float
    losses: Mapping[str, float]
    """Ratios by cause; empty without an efficiency."""
    against: str
    """The baseline in words."""
    slowest: tuple[Lag, ...]
    report_age_seconds: float
    report_every_seconds: float
    checkpoint_age_seconds: float
    checkpoint: str
    heard_age_seconds: float
    warnings: tuple[str, ...]

    @property
    def share_done(self) -> float:
        return self.epoch / self.epochs if self.epochs > 0 else math.nan


def snapshot(run: Run, *, now: float) -> Snapshot:
    last = run.windows[-1] if run.windows else None
    current = last if last and last.start == len(run.starts) - 1 else None
    found = current.efficiency if current else None
    evaluation = run.evaluations[-1] if run.evaluations else None
    checkpoint = run.checkpoints[-1] if run.checkpoints else None
    return Snapshot(
        run=run.name,
        state=run.state.value,
        what=text.what(run, changed=f", changed {plural(run.changes, 'time')}" if run.changes else ""),
        world_size=run.start.world_size,
        changes=run.changes,
        step=run.step,
        epoch=run.epoch,
        epochs=run.epochs,
        left_seconds=_left(run) if run.state is State.RUNNING else math.nan,
        images_per_second=current.images_per_second if current else math.nan,
        step_seconds=current.step_seconds if current else math.nan,
        loss=last.loss if last else math.nan,
        top1=evaluation.top1 if evaluation else math.nan,
        top1_epoch=evaluation.epoch if evaluation else math.nan,
        efficiency=found.ratio if found else math.nan,
        low=found.low if found else math.nan,
        high=found.high if found else math.nan,
        losses=found.losses if found else {},
        against=text.against(run.baseline, run.start) if found and run.baseline else "",
        slowest=_slowest(run, current),
        report_age_seconds=now - last.time if last else math.nan,
        report_every_seconds=_every(run),
        checkpoint_age_seconds=now - checkpoint.time if checkpoint else math.nan,
        checkpoint=checkpoint.path if checkpoint else "",
        heard_age_seconds=now - run.heard,
        warnings=tuple(_warnings(run, now)),
    )


def to_json(now: Snapshot, *, indent: int | None = None) -> str:
    """Seconds and ratios; null for what is not known."""
    return json.dumps(plain(now), indent=indent)


def _left(run: Run) -> float:
    """At the speed of the last reports with as many workers, else at that of each of others; and with as many pauses of
    the same length as are to come."""
    k = run.start.world_size
    windows = [window for window in run.windows if run.starts[window.start].world_size == k] or run.windows
    images = sum(window.steps * run.starts[window.start].global_batch for window in windows)
    seconds = sum(window.steps * window.step_seconds * run.starts[window.start].world_size for window in windows) / k
    if not images or not run.start.images_per_epoch:
        return math.nan
    left = run.start.total_images - run.images_seen
    epochs = left / run.start.images_per_epoch
    pauses = 0.0
    if run.config and run.evaluations:
        pauses += run.evaluations[-1].seconds * epochs / run.config.evaluation.every_epochs
    if run.config and run.checkpoints:  # written while training goes on, but for its begin
        pauses += run.checkpoints[-1].stalled_seconds * epochs / run.config.checkpoint.every_epochs
    return left * seconds / images + pauses


def _every(run: Run) -> float:
    """Seconds from report to report, as a rule."""
    times = [window.time for window in run.windows]
    return statistics.median(b - a for a, b in itertools.pairwise(times)) if len(times) > 1 else math.nan


def _slowest(run: Run, last: Window | None) -> tuple[Lag, ...]:
    """Of the last report, the slowest first."""
    ranks = last.ranks if last else None
    lags = sorted(enumerate(ranks["lag"]), key=lambda each: -each[1]) if ranks and len(ranks["lag"]) > 1 else []
    return tuple(Lag(rank, run.environment.host(rank), seconds) for rank, seconds in lags[:SLOWEST])


def _warnings(run: Run, now: float) -> list[str]:
    """The worst first."""
    found = []
    if run.state is State.KILLED:
        ago = duration(now - run.heard)
        found.append(f"it was killed, or ended by an error, and last showed life {ago} ago: see {run.folder}/logs")
    age = now - max(run.start.time, run.windows[-1].time if run.windows else 0.0)
    every = _every(run)
    usually = f", one came every {duration(every)}" if math.isfinite(every) else ""
    if run.state is State.RUNNING and age > max(STALLED_AFTER * every if usually else 0, STALLED_SECONDS):
        found.append(f"no report for {duration(age)}{usually}: it evaluates, saves or hangs")
    if run.windows and not math.isfinite(run.windows[-1].loss):
        found.append(f"the loss is not finite at step {run.windows[-1].step:,}")
    if run.quarantined:
        last = run.quarantined[-1]
        found.append(f"{plural(len(run.quarantined), 'image')} left out, the last {last.image} ({last.reason})")
    return found[:WARNINGS]
