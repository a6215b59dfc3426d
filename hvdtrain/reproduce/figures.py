"""The two figures as PNG files, drawn so that they can be read in grey too. matplotlib is imported where it draws."""

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtrain.files import replace_whole
from hvdtrain.reproduce.cells import FIGURE_1, PAPERS_BASELINE, Cell, Row
from hvdtrain.reproduce.results import Errors, spread

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INCHES = (10.0, 4.0)
DPI = 150
DEVIATIONS = 2  # of a bar to either side
DARK, GREY = "#1b4f8a", "#6b6b6b"
WIDE = 5.0

Curves = Sequence[Mapping[int, float]]  # of each seed: epoch -> training loss
Measured = tuple[Cell, Curves]


def error_by_minibatch(file: Path, rows: Sequence[Row], errors: Errors, *, baseline: Cell, model: str) -> None:
    """Figure 1: error against the minibatch, mean ± two standard deviations; the paper's own beside it."""
    figure = _figure()
    ours, papers = figure.subplots(1, 2)
    spreads = [spread(list(errors[row.cell.name].values())) for row in rows]
    _sweep(
        ours,
        [row.cell.kn for row in rows],
        [each.mean for each in spreads],
        [each.std for each in spreads],
        base=baseline.kn,
    )
    seeds = spreads[0].n
    ours.set_title(f"{model} on digits, {'one seed' if seeds == 1 else f'{seeds} seeds'}")
    _sweep(
        papers,
        [point.kn for point in FIGURE_1],
        [point.error for point in FIGURE_1],
        [point.std for point in FIGURE_1],
        base=PAPERS_BASELINE,
    )
    papers.set_title("Goyal et al. 2017: ResNet-50 on ImageNet, 5 runs")
    _save(figure, file)


def _sweep(axes: "Axes", kn: Sequence[int], means: Sequence[float], stds: Sequence[float | None], *, base: int) -> None:
    order = sorted(range(len(kn)), key=lambda i: kn[i])
    bars = [DEVIATIONS * (stds[i] or 0.0) for i in order]
    level = means[list(kn).index(base)]
    axes.axhline(level, color=GREY, linewidth=1, linestyle="--", zorder=1, label=f"baseline, kn = {base}")
    axes.errorbar(
        [kn[i] for i in order],
        [means[i] for i in order],
        yerr=bars,
        color=DARK,
        marker="o",
        markersize=5,
        linewidth=1.5,
        capsize=3,
        label=f"mean ± {DEVIATIONS} standard deviations",
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(kn), [_short(each) for each in sorted(kn)], minor=False)
    axes.set_xlabel("minibatch kn, images")
    axes.set_ylabel("top-1 error, %")
    if max(means) > WIDE * min(means):  # a minibatch at which training fails would press all others together
        _logarithmic(axes)
        axes.set_ylabel("top-1 error, % (logarithmic)")
    axes.legend(loc="upper left", frameon=False)


def _short(kn: int) -> str:
    """
    >>> _short(512), _short(65536)
    ('512', '64k')
    """
    return f"{kn // 1024}k" if kn >= 1024 and kn % 1024 == 0 else str(kn)


def loss_by_epoch(file: Path, panels: Mapping[str, Measured], baseline: Measured, *, model: str) -> None:
    """Figure 2: training loss against the epoch, each kind of warm-up beside the baseline.

    Args:
        panels: title -> a cell and its curves.
    """
    figure = _figure()
    row = figure.subplots(1, len(panels), sharex=True, sharey=True, squeeze=False)[0]
    for axes, (title, (cell, curves)) in zip(row, panels.items(), strict=True):
        _curve(axes, baseline[1], GREY, "--", f"kn = {baseline[0].kn}, baseline")
        _curve(axes, curves, DARK, "-", f"kn = {cell.kn}")
        axes.set_title(title)
        axes.set_xlabel("epoch")
        axes.legend(loc="upper right", frameon=False)
    row[0].set_ylabel("training loss, nats")
    _logarithmic(row[0])
    seeds = len(baseline[1])
    figure.suptitle(f"{model} on digits, {'one seed' if seeds == 1 else f'mean and range of {seeds} seeds'}")
    _save(figure, file)


def _curve(axes: "Axes", curves: Curves, colour: str, style: str, label: str) -> None:
    epochs = sorted(set[int]().union(*curves))
    at = [[curve[epoch] for curve in curves if math.isfinite(curve.get(epoch, math.nan))] for epoch in epochs]
    low, high = ([end(losses) if losses else math.nan for losses in at] for end in (min, max))
    means = [statistics.fmean(losses) if losses else math.nan for losses in at]
    axes.fill_between(epochs, low, high, color=colour, alpha=0.25, linewidth=0)
    axes.plot(epochs, means, color=colour, linestyle=style, linewidth=1.5, label=label)


def _logarithmic(axes: "Axes") -> None:
    from matplotlib.ticker import LogLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter("{x:g}")


def _figure() -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=INCHES, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _save(figure: "Figure", file: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e4e4", linewidth=0.8)
        axes.set_axisbelow(True)
    with replace_whole(file, "wb") as open_file:
        figure.savefig(open_file, format="png")
