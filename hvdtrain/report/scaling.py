"""Scaling: images per second over the number of workers, from `hvdtrain bench scaling` or from finished runs.

    E(k|b) = (X(k) / k) / (X(b) / b)        b: the smallest number of workers that was measured

Weak scaling: every worker keeps its batch n. Rounds measured one after the other share whatever else went on, so E is
taken round by round where all have as many, and its mean and 95 % interval are those of the rounds by Student's t.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hvdtrain.errors import ConfigError
from hvdtrain.metrics.efficiency import Mean, mean, student
from hvdtrain.report.account import account
from hvdtrain.report.fields import count, number, series, text
from hvdtrain.report.read import read_json
from hvdtrain.report.records import Run, State
from hvdtrain.report.units import moment, plural

SETTING = ("model", "precision", "batch_size", "image_size")
WANTED = 0.75  # what allocation committees ask for


@dataclass(frozen=True)
class Measured:
    """X of one number of workers."""

    workers: int
    rounds: tuple[float, ...]
    """Images per second of all workers; of a run, that of each report."""
    run: str = ""
    """Which run it is from; empty: the bench."""

    @property
    def images_per_second(self) -> Mean:
        return mean(self.rounds)


@dataclass(frozen=True)
class Point:
    measured: Measured
    efficiency: float
    low: float
    high: float
    """95 % interval; NaN of a single round, and no wider than the point at the base itself."""


@dataclass(frozen=True)
class Scaling:
    model: str
    precision: str
    batch_size: int | None
    image_size: int | None
    device_name: str
    date: str
    command: str
    code: str
    """Commit or version."""
    points: tuple[Point, ...]
    """By number of workers."""

    @property
    def base(self) -> int:
        """b."""
        return self.points[0].measured.workers

    @property
    def reaches(self) -> int | None:
        """The largest k up to which every interval lies above what is wanted; the base itself needs no proof."""
        proven = None
        for workers in sorted({point.measured.workers for point in self.points} - {self.base}):
            those = [point for point in self.points if point.measured.workers == workers]
            if not all(point.low >= WANTED for point in those):
                break
            proven = workers
        return proven


def read(file: Path) -> tuple[Mapping[str, Any], list[Measured]]:
    """What `hvdtrain bench scaling` wrote: what it was measured with, and what.

    Raises:
        ConfigError: it is not that.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such file", remedy="hvdtrain bench scaling writes one")
    values = read_json(file)
    points = values.get("points")
    measured = []
    for point in points if isinstance(points, list) else []:
        if isinstance(point, Mapping) and number(point, "workers") >= 1:
            rounds = tuple(x for x in series(point.get("rounds")) if x > 0)
            measured += [Measured(int(number(point, "workers")), rounds)] if rounds else []
    if not measured:
        raise ConfigError(
            f"{file}: expected points of workers and rounds, got {_shape(values)}",
            remedy="hvdtrain bench scaling writes such a file",
        )
    if (kind := values.get("kind", "weak")) != "weak":
        raise ConfigError(f"{file}: expected weak scaling, at a constant batch of each worker, got {kind}")
    return values, measured


def _shape(values: Mapping[str, Any]) -> str:
    return f"a file of {', '.join(map(str, values))}" if values else "no JSON object"


def of_run(run: Run) -> Measured | None:
    """None of a run that has not finished, or without a report."""
    counted = account(run)
    if run.state is not State.FINISHED or counted is None:
        return None
    speeds = tuple(window.images_per_second for window in counted.windows if window.images_per_second > 0)
    return Measured(counted.workers, speeds, run.name) if speeds else None


def scaling(file: Path | None, runs: Sequence[Run]) -> Scaling:
    """Of the bench's file together with finished runs of the same model, precision and batch, or of such runs alone.

    Raises:
        ConfigError: the file is none, a run is of something else, or there is only one number of workers.
    """
    values, measured = read(file) if file else (_settings(runs[0]), [])
    wanted = {key: values.get(key) for key in SETTING}
    for run in runs:
        got = {key: value for key, value in _settings(run).items() if key in wanted}
        if any(got[key] != wanted[key] for key in wanted if got.get(key) and wanted[key]):
            raise ConfigError(f"{run.folder}: expected a run of {_words(wanted)}, got one of {_words(got)}")
        if found := of_run(run):
            measured.append(found)
    if len({each.workers for each in measured}) < 2:
        raise ConfigError(
            f"scaling: expected several numbers of workers, got {sorted({each.workers for each in measured})}",
            remedy="hvdtrain bench scaling, or finished runs on several numbers of workers",
        )
    hardware = values.get("hardware")
    cores = count(hardware, "cores") if isinstance(hardware, Mapping) else 0
    return Scaling(
        model=text(values, "model"),
        precision=text(values, "precision"),
        batch_size=_integer(values, "batch_size"),
        image_size=_integer(values, "image_size"),
        device_name=text(values, "device_name") + (f", {plural(cores, 'core')}" if cores else ""),
        date=_date(values),
        command=text(values, "command"),
        code=text(values, "code"),
        points=points(measured),
    )


def comparable(runs: Sequence[Run]) -> bool:
    """Whether these runs make a scaling proof by themselves: several numbers of workers, and all else alike."""
    settings = {tuple(str(_settings(run)[key]) for key in SETTING) for run in runs}
    workers = {found.workers for run in runs if (found := of_run(run))}
    return len(settings) == 1 and len(workers) > 1


def points(measured: Sequence[Measured]) -> tuple[Point, ...]:
    """E of each, by number of workers; b is the smallest, the bench's own before a run's."""
    ordered = sorted(measured, key=lambda each: (each.workers, each.run))
    return tuple(_point(each, ordered[0]) for each in ordered)


def _point(one: Measured, base: Measured) -> Point:
    if one is base:
        return Point(one, 1.0, 1.0, 1.0)
    scale = base.workers / one.workers
    if len(one.rounds) == len(base.rounds) and not (one.run or base.run):
        each = mean([scale * x / b for x, b in zip(one.rounds, base.rounds, strict=True)])
        return Point(one, each.value, each.value - each.half_width, each.value + each.half_width)
    ratio = scale * statistics.fmean(one.rounds) / statistics.fmean(base.rounds)
    errors = [x.error / x.value for x in (one.images_per_second, base.images_per_second)]
    freedom = min(len(one.rounds), len(base.rounds)) - 1  # the cautious one
    half = ratio * student(freedom) * math.hypot(*errors)
    return Point(one, ratio, ratio - half, ratio + half)


def _settings(run: Run) -> dict[str, Any]:
    """Of a run, as the bench's file has them."""
    config, environment = run.config, run.environment
    return {
        "model": config.model.name if config else "",
        "precision": config.precision if config else "",
        "batch_size": config.data.batch_size if config else None,
        "image_size": config.data.image_size if config else None,
        "device_name": ", ".join(environment.device_names),
        "date": _iso(run.start.time),
        "command": environment.command,
        "code": environment.versions.get("commit", ""),
    }


def _iso(seconds: float) -> str:
    """Empty where the time is not known."""
    try:
        return datetime.fromtimestamp(seconds, timezone.utc).isoformat()
    except (OverflowError, ValueError, OSError):
        return ""


def _words(settings: Mapping[str, Any]) -> str:
    model, precision = settings.get("model"), settings.get("precision")
    return f"{model}, {precision}, n = {settings.get('batch_size')}, {settings.get('image_size')} pixels"


def _integer(values: Mapping[str, Any], key: str) -> int | None:
    value = number(values, key)
    return int(value) if math.isfinite(value) else None


def _date(values: Mapping[str, Any]) -> str:
    """As people write it, or as it stands there."""
    given = text(values, "date")
    try:
        return moment(datetime.fromisoformat(given.replace("Z", "+00:00")).timestamp())
    except (ValueError, OverflowError):
        return given
