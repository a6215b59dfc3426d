"""The time of a run that was no training. Pure."""

import math
from bisect import bisect_left
from dataclasses import dataclass
from typing import Literal

from hvdtrain.report.records import Run

Reason = Literal["start-up", "baseline", "evaluation", "checkpoint", "down", "reset", "repeated"]


@dataclass(frozen=True)
class Pause:
    reason: Reason
    """down: between the last word of a process and the first of the next. reset: between two sets of workers of an
    elastic run. repeated: training that was lost with a process, and done again."""
    seconds: float
    times: int
    """How often; of what was repeated, how many steps."""


@dataclass(frozen=True)
class Span:
    """When a pause was, seconds since 1970."""

    reason: Reason
    begin: float
    end: float


def pauses(run: Run) -> tuple[Pause, ...]:
    """Those that took any time, the longest first."""
    told: list[Pause] = []
    by_reason: dict[Reason, list[Span]] = {}
    for span in spans(run):
        by_reason.setdefault(span.reason, []).append(span)
    for reason, those in by_reason.items():
        told.append(Pause(reason, sum(span.end - span.begin for span in those), len(those)))
    steps, seconds = _repeated(run)
    if steps:
        told.append(Pause("repeated", seconds, steps))
    return tuple(sorted(told, key=lambda pause: -pause.seconds))


def spans(run: Run) -> tuple[Span, ...]:
    """Every pause that has a begin and an end, in the order of time."""
    found = [Span("evaluation", each.time - each.seconds, each.time) for each in run.evaluations]
    for each in run.checkpoints:
        began = each.time - each.seconds
        found.append(Span("checkpoint", began, began + each.stalled_seconds))
    for index, (told, baseline) in run.baselines.items():
        began = run.starts[index].time
        if baseline.measured_at >= began:  # else it is of before, and took no time again
            found.append(Span("baseline", began, told))
    heard = run.starts[0].time
    events = sorted(_moments(run))
    for i, start in enumerate(run.starts[1:], 1):
        before = bisect_left(events, start.time)
        heard = events[before - 1] if before else heard
        if run.changed(i):
            found.append(Span("reset", max(heard, _last_step(run, i)), start.time))
        else:
            found.append(Span("down", heard, start.time))
    found.append(Span("start-up", run.start.time - _start_up(run), run.start.time))
    whole = [span for span in found if span.end > span.begin]  # a stored baseline takes no time; NaN is none
    return tuple(sorted(whole, key=lambda span: span.begin))


def wall_seconds(run: Run) -> float:
    """From the first start's beginning, as far as it is known, to the last thing that was told."""
    return max(_moments(run)) - run.starts[0].time + _start_up(run)


def _last_step(run: Run, start: int) -> float:
    """About when the workers before a reset did theirs, which no report may have told of any more."""
    told = [window for window in run.windows if window.start == start - 1 and window.images_per_second > 0]
    if not told:
        return -math.inf
    images = run.starts[start].images_seen + run.starts[start].lost_images - told[-1].images_seen
    return told[-1].time + max(images, 0) / told[-1].images_per_second


def _start_up(run: Run) -> float:
    """Of the last start, before it was told; 0 where the run has no end, which alone tells when the process began.

    That of an earlier start is part of the time that the run was down.
    """
    if not run.end or not math.isfinite(run.end.seconds) or len(run.starts) > 1:
        return 0.0
    return max(run.start.time - (run.end.time - run.end.seconds), 0.0)


def _moments(run: Run) -> list[float]:
    """When something was told."""
    times = [run.end.time] if run.end else []
    for events in (run.starts, run.windows, run.evaluations, run.checkpoints):
        times += [event.time for event in events]
    return [time for time in times if math.isfinite(time)] or [0.0]


def _repeated(run: Run) -> tuple[int, float]:
    """Steps, and their seconds, that a later start did again."""
    steps, seconds = 0, 0.0
    for window in run.windows:
        again = min((start.step for start in run.starts[window.start + 1 :]), default=window.step)
        lost = min(max(window.step - again, 0), window.steps)
        if lost and window.step_seconds > 0:
            steps, seconds = steps + lost, seconds + lost * window.step_seconds
    return steps, seconds
