"""The figures of a run, or of several, as PNG: readable in grey too."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hvdtrain.figures import INK, PALE, figure, png, run_looks
from hvdtrain.metrics.breakdown import PARTS
from hvdtrain.metrics.efficiency import CAUSES
from hvdtrain.report.canvas import (
    Bin,
    Clock,
    Numbers,
    begin_of,
    bins,
    legend_beside,
    short,
)
from hvdtrain.report.marks import mark_changes, mark_pauses
from hvdtrain.report.palette import LOOKS
from hvdtrain.report.records import Run, Window
from hvdtrain.report.study import Study
from hvdtrain.report.units import plural, tenths

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ALL_RANKS = 16  # up to which each has its number at the axis
Windows = Sequence[Window]


def training(studies: Sequence[Study]) -> bytes:
    """Loss, top-1 and learning rate over the epochs, of several runs one upon the other."""
    picture = figure(3.6 if len(studies) > 1 else 3.2)
    losses, accuracies, rates = picture.subplots(1, 3)
    for study, (colour, style) in zip(studies, run_looks(len(studies)), strict=True):
        run, line = study.run, {"color": colour, "linestyle": style, "linewidth": 1.3}
        losses.plot(*_by_epoch(run, "loss"), **line, label=short(run.name))
        rates.plot(*_by_epoch(run, "lr"), **line)
        found = [each for each in run.evaluations if math.isfinite(each.top1)]
        at = [each.epoch for each in found]
        dots = {"marker": "o", "markersize": 3 if len(found) < 40 else 1.5}
        accuracies.plot(at, [100 * each.top1 for each in found], **line, **dots)
        losses.plot(at, [each.loss for each in found], color=colour, linestyle="", **dots)
    for axes, name in ((losses, "loss, nats"), (accuracies, "top-1, %"), (rates, "learning rate")):
        axes.set_xlabel("epoch")
        axes.set_title(name, fontsize=10)
    losses.set_title("loss, nats (line: training, dots: validation)", fontsize=8)
    if len(studies) > 1:
        picture.legend(loc="outside lower center", ncols=min(len(studies), 4), frameon=False)
    return png(picture)


def _by_epoch(run: Run, what: str) -> tuple[list[float], list[float]]:
    """Means of neighbouring reports; broken where the run went on from an earlier step."""
    epochs: list[float] = []
    values: list[float] = []
    before: Window | None = None
    for each in bins(run.windows):
        first, last = each.windows[0], each.windows[-1]
        if before and first.start != before.start and run.starts[first.start].step < before.step:
            epochs.append(first.epoch)
            values.append(math.nan)
        before = last
        epochs.append(last.epoch)
        values.append(each.mean([getattr(window, what) for window in each.windows]))
    return epochs, values


def throughput(studies: Sequence[Study]) -> bytes:
    """Images per second over the time. One run: of all its workers, with its pauses and with what as many lone workers
    do; several: of each worker, which alone compares."""
    picture = figure(2.8)
    axes = picture.subplots()
    told = [study for study in studies if study.account]
    longest = max((_timed(study.run) for study in told), key=lambda windows: windows[-1].time - windows[0].time)
    clock = Clock.of(longest)
    for study, (colour, style) in zip(told, run_looks(len(told)), strict=True):
        windows = _timed(study.run)
        own = Clock(begin_of(windows[0]), clock.unit, clock.name)
        speed = partial(_speed, of=study.run if len(told) > 1 else None)
        times, speeds = _profile(windows, own, speed)
        axes.plot(times, speeds[:, 0], color=colour, linestyle=style, linewidth=1.4, label=short(study.run.name))
    axes.margins(x=0)
    if len(told) == 1:
        _perfect(axes, told[0].run, clock)
        mark_pauses(axes, told[0].run, clock)
        mark_changes(axes, told[0].run, clock)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("images/s of each worker" if len(told) > 1 else "images/s of all workers")
    axes.yaxis.set_major_formatter("{x:,.0f}")
    clock.label(axes)
    legend_beside(axes)
    return png(picture)


def _timed(run: Run) -> list[Window]:
    return [window for window in run.windows if window.step_seconds > 0]


def _speed(group: Bin, of: Run | None) -> list[float]:
    """One number: of all workers, or of each worker of a run."""
    seconds = [window.steps * window.step_seconds for window in group.windows]
    images = [s * window.images_per_second for s, window in zip(seconds, group.windows, strict=True)]
    return [sum(images) / sum(seconds) / (of.starts[group.windows[0].start].world_size if of else 1)]


def _perfect(axes: "Axes", run: Run, clock: Clock) -> None:
    """What as many lone workers do as there were at a time, for as long as a baseline held."""
    times: list[float] = []
    levels: list[float] = []
    workers = set()
    for index, (_, baseline) in run.baselines.items():
        windows = [window for window in _timed(run) if window.start == index]
        compared = [window for window in windows if window.efficiency] or windows
        if compared:
            start = run.starts[index]
            level = start.global_batch / baseline.step_seconds
            times += [clock(begin_of(windows[0])), clock(compared[-1].time), math.nan]
            levels += [level, level, math.nan]
            workers.add(start.world_size)
    if workers:
        name = f"{workers.pop() if len(workers) == 1 else 'k'} x the baseline"
        axes.plot(times, levels, color=PALE, linewidth=1.2, linestyle="--", label=name)


def _profile(windows: Windows, clock: Clock, values: Callable[[Bin], Sequence[float]]) -> tuple[Numbers, Numbers]:
    """(t,) times and (t, j) values: those of each bin from its begin to its end, and NaN between two starts."""
    times: list[float] = []
    levels: list[Sequence[float]] = []
    start = windows[0].start
    for each in bins(windows):
        level = values(each)
        if each.windows[0].start != start:
            times.append(clock(each.begin))
            levels.append([math.nan] * len(level))
        start = each.windows[0].start
        times += [clock(each.begin), clock(each.end)]
        levels += [level, level]
    return np.array(times), np.array(levels)


def losses(study: Study) -> bytes:
    """Efficiency, and above it what was lost to what, up to 100 %; without a baseline the parts of a step."""
    run, account = study.run, study.account
    assert account and account.parts, "the caller knows that steps were taken apart"
    windows = [window for window in _timed(run) if window.parts]
    picture = figure(3.4)
    axes = picture.subplots()
    clock = Clock.of(windows)
    if account.efficiency:
        names: Sequence[str] = ("efficiency", *CAUSES)
        means = (account.efficiency.ratio, *(account.efficiency.losses[cause] for cause in CAUSES))
        windows = [window for window in windows if window.efficiency and window.start in run.baselines]
        times, shares = _profile(windows, clock, lambda group: _efficiency(run, group))
    else:
        names = ("compute", *(part for part in PARTS if part != "compute"))
        means = tuple(account.parts[name] / account.step_seconds for name in names)
        times, shares = _profile(windows, clock, lambda group: _parts(group, names))
    _stack(axes, times, _drawable(shares), [f"{n}  {tenths(m)} %" for n, m in zip(names, means, strict=True)], names)
    axes.plot(times, 100 * shares[:, 0], color=INK, linewidth=1.2)
    axes.margins(x=0)
    axes.set_ylim(0, max(100.0, 105 * float(np.nanmax(shares[:, 0]))))
    mark_pauses(axes, run, clock)
    mark_changes(axes, run, clock)
    axes.set_ylabel("scaling efficiency, %" if account.efficiency else "share of a step, %")
    clock.label(axes)
    legend_beside(axes, f"means of {plural(account.workers, 'worker')}" if account.left_out else "")
    return png(picture)


def _efficiency(run: Run, group: Bin) -> list[float]:
    """E and the losses by CAUSES, summing to 1."""
    baseline = run.baselines[group.windows[0].start][1]
    step = group.mean([window.step_seconds for window in group.windows])
    spent = _parts(group, PARTS)
    return [baseline.step_seconds / step, *(s - baseline.parts[p] / step for s, p in zip(spent, PARTS, strict=True))]


def _parts(group: Bin, names: Sequence[str]) -> list[float]:
    """Shares of a step."""
    step = group.mean([window.step_seconds for window in group.windows])
    return [group.mean([w.parts[name] for w in group.windows if w.parts]) / step for name in names]


def _drawable(shares: Numbers) -> Numbers:
    """A loss below 0, which is noise, cannot be stacked: it is drawn as none, and the others fill what is left."""
    first, others = shares[:, :1].clip(0, 1), shares[:, 1:].clip(0)
    fill = (1 - first) / np.maximum(others.sum(1, keepdims=True), 1e-12)
    return np.concatenate([first, others * fill], axis=1)


def _stack(axes: "Axes", times: Numbers, shares: Numbers, labels: Sequence[str], names: Sequence[str]) -> None:
    tops = 100 * np.cumsum(shares, axis=1)
    bottom = np.zeros(len(times))
    for i, name in enumerate(names):
        look = LOOKS.get(name, LOOKS["efficiency"])
        axes.fill_between(
            times,
            bottom,
            tops[:, i],
            facecolor=look.colour,
            edgecolor="white",
            hatch=look.hatch,
            linewidth=0,
            label=labels[i],
        )
        bottom = tops[:, i]


def lags(study: Study) -> bytes:
    """How much later than the typical worker each rank was ready: time to the right, ranks downwards."""
    windows = [window for window in _timed(study.run) if window.ranks]
    groups = bins(windows)
    workers = max(len(window.ranks["lag"]) for window in windows if window.ranks)
    clock = Clock.of(windows)
    edges = [clock(groups[0].begin)]
    columns: list[Numbers] = []
    nobody = np.full(workers, np.nan)
    start = groups[0].windows[0].start
    for group in groups:
        if group.windows[0].start != start:
            edges.append(max(clock(group.begin), edges[-1]))
            columns.append(nobody)
        start = group.windows[0].start
        rows = [window.ranks["lag"] for window in group.windows if window.ranks]
        same = [row for row in rows if len(row) == len(rows[-1])]
        edges.append(max(clock(group.end), edges[-1]))
        columns.append(np.concatenate([np.mean(same, axis=0), nobody[len(rows[-1]) :]]))  # there may have been fewer
    late = np.stack(columns, axis=1)
    picture = figure(min(1.6 + 0.2 * workers, 4.2))
    axes = picture.subplots()
    image = axes.pcolormesh(edges, np.arange(workers + 1) - 0.5, 1000 * late.clip(0), cmap="cividis", vmin=0)
    axes.invert_yaxis()
    mark_changes(axes, study.run, clock)
    if workers <= ALL_RANKS:
        axes.set_yticks(range(workers))
    axes.set_ylabel("rank")
    clock.label(axes)
    picture.colorbar(image, ax=axes, label="ready later than\nthe typical rank, ms", pad=0.015)
    return png(picture, grid=False)
