"""Scaling efficiency against a baseline, with its interval and with what was lost where. Pure.

Weak scaling, at a constant batch n of each worker:

    E(k|b) = [X(k) / k] / [X(b) / b] = T(b) / T(k)

X is images per second of k workers, T the duration of their step, input, allreduce and update included, evaluation and
checkpoints not. Both ends of a span are the completion of an allreduce: a barrier of all workers that the device has
reached too; of a worker alone, the same place in its step. The definition is that of Goyal et al. 2017, section 5.5,
whose b is 8.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from hvdtrain.metrics.breakdown import PARTS, Breakdown

CAUSES = ("input", "contention", "straggler", "communication", "rest")
"""Of lost efficiency, in the order of PARTS: contention is what computing takes beyond the baseline's computing."""

# 97.5 % quantiles of Student's t for 1, 2, … degrees of freedom, to three digits (any table); beyond, 1.96 is near.
_STUDENT = (
    *(12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131),
    *(2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042),
)


@dataclass(frozen=True)
class Mean:
    """Of a few values that are independent of each other."""

    value: float
    error: float  # standard error; NaN of a single value
    count: int

    @property
    def half_width(self) -> float:
        """Of the 95 % interval."""
        return student(self.count - 1) * self.error


def mean(values: Sequence[float]) -> Mean:
    """
    >>> mean([1.0, 3.0])
    Mean(value=2.0, error=1.0, count=2)
    """
    array = np.asarray(values, np.float64)
    error = float(array.std(ddof=1)) / math.sqrt(len(array)) if len(array) > 1 else math.nan
    return Mean(float(array.mean()), error, len(array))


def student(freedom: int) -> float:
    """Factor from a standard error to the half width of a 95 % interval.

    >>> student(1), student(9), student(1000)
    (12.71, 2.262, 1.96)
    """
    return _STUDENT[freedom - 1] if 1 <= freedom <= len(_STUDENT) else 1.96


@dataclass(frozen=True)
class Baseline:
    """What a run is compared with."""

    source: Literal["measured", "stored"]
    workers: int  # b
    pixels: int  # a side of the pictures: larger ones take longer
    measured_at: float  # seconds since 1970
    origin: str  # in words: which run or bench
    step_seconds: float
    standard_error: float  # of step_seconds
    samples: int  # that step_seconds is the mean of: steps, or windows of steps
    parts: Mapping[str, float]  # seconds per step by PARTS; of one worker alone straggler and communication are 0
    ranks: Sequence[float] | None = None  # step seconds of each worker alone
    together: float | None = None  # compute seconds of a typical worker when all compute at once and none communicates
    communication: float | None = None  # seconds of summing all gradients with nothing else going on

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Efficiency:
    """E(k|b), and what it lacks to 1."""

    ratio: float
    low: float  # 95 % interval; NaN of a single window
    high: float
    losses: Mapping[str, float]  # by CAUSES; with `ratio` they sum to 1
    baseline: Literal["measured", "stored"]
    baseline_workers: int
    kind: Literal["weak"] = "weak"

    def __str__(self) -> str:
        """
        >>> print(Efficiency(0.912, 0.9, 0.924, {}, "measured", 1))
        91.2 % (90.0-92.4 %) of one worker alone, measured in this run
        """
        interval = "" if math.isnan(self.low) else f" ({100 * self.low:.1f}-{100 * self.high:.1f} %)"
        how = "measured in this run" if self.baseline == "measured" else "measured before"
        than = "one worker alone" if self.baseline_workers == 1 else f"{self.baseline_workers} workers"
        return f"{100 * self.ratio:.1f} %{interval} of {than}, {how}"

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def weak(windows: Sequence[Breakdown], baseline: Baseline) -> Efficiency:
    """Of the steps in `windows`, at least one. The interval takes windows, not steps, as its samples: neighbouring
    steps are too alike to count as independent ones. A window much shorter than others is no sample."""
    step_seconds = float(np.concatenate([window.step_seconds for window in windows]).mean())
    longest = max(window.steps for window in windows)
    spread = mean([float(window.step_seconds.mean()) for window in windows if 2 * window.steps > longest])
    ratio = baseline.step_seconds / step_seconds
    half = ratio * math.hypot(spread.half_width / step_seconds, _relative_half_width(baseline))
    losses = {}
    for part, cause in zip(PARTS, CAUSES, strict=True):
        spent = float(np.concatenate([window.run[part] for window in windows]).mean())
        losses[cause] = (spent - baseline.parts[part]) / step_seconds
    return Efficiency(ratio, ratio - half, ratio + half, losses, baseline.source, baseline.workers)


def speed(windows: Sequence[Breakdown], *, workers: int, pixels: int, measured_at: float, origin: str) -> Baseline:
    """What `windows` say of `workers` workers, for later runs to be compared with."""
    parts = {part: float(np.concatenate([window.run[part] for window in windows]).mean()) for part in PARTS}
    return Baseline(
        source="measured",
        workers=workers,
        pixels=pixels,
        measured_at=measured_at,
        origin=origin,
        step_seconds=sum(parts.values()),
        standard_error=mean([float(window.step_seconds.mean()) for window in windows]).error,
        samples=len(windows),
        parts=parts,
    )


def _relative_half_width(baseline: Baseline) -> float:
    return Mean(baseline.step_seconds, baseline.standard_error, baseline.samples).half_width / baseline.step_seconds
