"""Where the time of a run's steps went: those of its reports added up. Pure."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from hvdtrain.metrics.breakdown import PARTS, Breakdown
from hvdtrain.metrics.efficiency import CAUSES, Baseline, Efficiency, weak
from hvdtrain.report.journal import RANKS
from hvdtrain.report.records import Run, Window

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Account:
    """Of the steps of some windows, all of one number of workers, and all comparable with a baseline where any are."""

    windows: tuple[Window, ...]
    uncompared: tuple[Window, ...]
    """Of as many workers, but without an efficiency, while others have one: the first of a process, and those with
    pictures of another size."""
    left_out: int
    """How many windows are of other numbers of workers."""
    workers: int
    steps: int
    step_seconds: float
    """Mean."""
    images_per_second: float
    """Of all workers, training alone counted."""
    parts: Mapping[str, float] | None
    """Of the run, seconds per step, by PARTS; None where it was not recorded."""
    efficiency: Efficiency | None
    baseline: Baseline | None
    """The last one, where there is an efficiency."""
    baselines: int
    """How many of them the efficiency is against."""
    ranks: Mapping[str, Numbers] | None
    """lag, input and compute of each rank, (workers,) seconds per step."""
    slowest: Mapping[int, float]
    """In which share of the windows a rank was the slowest, the most frequent first."""

    @property
    def seconds(self) -> float:
        """Of all these steps."""
        return self.steps * self.step_seconds

    @property
    def training_seconds(self) -> float:
        """Of all steps of as many workers, compared or not."""
        return self.seconds + sum(window.steps * window.step_seconds for window in self.uncompared)

    @property
    def losses(self) -> Mapping[str, float] | None:
        """Seconds per step by cause: against the baseline, or without one all that is surely no computing."""
        if self.efficiency:
            return {cause: ratio * self.step_seconds for cause, ratio in self.efficiency.losses.items()}
        if self.parts is None:
            return None
        return {cause: 0.0 if cause == "contention" else self.parts[cause] for cause in CAUSES}


def timed(run: Run, *, last: int | None = None) -> list[Window]:
    """The windows whose steps have a duration; only as many of the last."""
    found = [window for window in run.windows if window.step_seconds > 0]
    return found[-last:] if last else found


def account(run: Run, *, last: int | None = None, workers: int | None = None) -> Account | None:
    """None of a run without a report.

    Args:
        last: only as many of the last windows.
        workers: the number of workers whose steps count; None: that of the last window.
    """
    told = timed(run, last=last)
    if not told:
        return None
    workers = workers or run.starts[told[-1].start].world_size
    of_workers = tuple(window for window in told if run.starts[window.start].world_size == workers)
    compared, uncompared = (tuple(w for w in of_workers if _comparable(run, w) is wanted) for wanted in (True, False))
    windows = compared or of_workers
    steps = sum(window.steps for window in windows)
    seconds = sum(window.steps * window.step_seconds for window in windows)
    images = sum(window.steps * run.starts[window.start].global_batch for window in windows)
    efficiency, baselines = _efficiency(run, windows)
    return Account(
        windows=windows,
        uncompared=uncompared if compared else (),
        left_out=len(told) - len(of_workers),
        workers=workers,
        steps=steps,
        step_seconds=seconds / steps,
        images_per_second=images / seconds,
        parts=_parts(windows),
        efficiency=efficiency,
        baseline=baselines[-1] if baselines else None,
        baselines=len(baselines),
        ranks=_ranks(windows, workers),
        slowest=_slowest(windows),
    )


def _comparable(run: Run, window: Window) -> bool:
    return bool(window.parts and window.efficiency and window.start in run.baselines)  # a run may drop its baseline


def _parts(windows: Sequence[Window]) -> Mapping[str, float] | None:
    told = [window for window in windows if window.parts]
    if not told:
        return None
    steps = [window.steps for window in told]
    return {part: float(np.average([w.parts[part] for w in told if w.parts], weights=steps)) for part in PARTS}


def _efficiency(run: Run, windows: Sequence[Window]) -> tuple[Efficiency | None, list[Baseline]]:
    """Against the baseline that each window had. Those of several are averaged by the time of their steps."""
    groups: dict[tuple[str, float], list[Window]] = {}
    held: dict[tuple[str, float], Baseline] = {}
    for window in windows:
        if _comparable(run, window):
            baseline = run.baselines[window.start][1]
            one = baseline.source, baseline.step_seconds  # after a change of workers it is told again
            groups.setdefault(one, []).append(window)
            held[one] = baseline
    if not groups:
        return None, []
    baselines = list(held.values())
    each = [weak([_breakdown(w) for w in group], b) for group, b in zip(groups.values(), baselines, strict=True)]
    seconds = np.array([sum(w.steps * w.step_seconds for w in group) for group in groups.values()])
    shares = seconds / seconds.sum()
    ratio = float(shares @ [e.ratio for e in each])
    halves = [float(share) * (e.high - e.ratio) for share, e in zip(shares, each, strict=True)]
    told = [half for half in halves if math.isfinite(half)]  # a launch of one window has none
    half = math.hypot(*told) if told else math.nan
    return (
        Efficiency(
            ratio=ratio,
            low=ratio - half,
            high=ratio + half,
            losses={cause: float(shares @ [e.losses[cause] for e in each]) for cause in CAUSES},
            baseline=baselines[-1].source,
            baseline_workers=baselines[-1].workers,
        ),
        baselines,
    )


def _breakdown(window: Window) -> Breakdown:
    """As if all its steps had been alike: their means are all that was told."""
    assert window.parts is not None, "the caller chose those that have them"
    return Breakdown({part: np.full(window.steps, window.parts[part]) for part in PARTS}, {}, np.zeros(0))


def _ranks(windows: Sequence[Window], workers: int) -> Mapping[str, Numbers] | None:
    told = [window for window in windows if window.ranks and all(len(x) == workers for x in window.ranks.values())]
    if not told:
        return None
    steps = [window.steps for window in told]
    return {key: np.average([w.ranks[key] for w in told if w.ranks], axis=0, weights=steps) for key in RANKS}


def _slowest(windows: Sequence[Window]) -> dict[int, float]:
    ranks = Counter(window.slowest_rank for window in windows if window.slowest_rank is not None)
    return {rank: times / ranks.total() for rank, times in ranks.most_common()}
