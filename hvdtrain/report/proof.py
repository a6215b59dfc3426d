"""The scaling proof as a picture: throughput and efficiency over the number of workers."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hvdtrain.figures import INK, PALE, figure, png, run_looks
from hvdtrain.report.canvas import short
from hvdtrain.report.scaling import WANTED, Point, Scaling

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKS = "osD^vP"


def proof(scaling: Scaling) -> bytes:
    """PNG."""
    from matplotlib.ticker import LogLocator, NullLocator

    picture = figure(3.5)
    speeds, efficiencies = picture.subplots(1, 2)
    sources = list(dict.fromkeys(point.measured.run for point in scaling.points))
    workers = sorted({point.measured.workers for point in scaling.points})
    base = scaling.points[0]
    alone = base.measured.images_per_second.value / scaling.base
    speeds.plot(workers, [k * alone for k in workers], color=PALE, linestyle=":", label="ideal")
    efficiencies.axhline(100, color=PALE, linestyle=":", label="ideal")
    efficiencies.axhline(100 * WANTED, color=INK, linestyle="--", linewidth=1.2, label=f"{100 * WANTED:.0f} %")
    looks = zip(sources, run_looks(len(sources)), MARKS * len(sources), strict=False)
    for source, (colour, _), mark in looks:
        those = [point for point in scaling.points if point.measured.run == source]
        name = short(source) if source else "measured, 95 % interval"
        above = [stands_above(point, scaling.points) for point in those]
        _draw(speeds, efficiencies, those, colour, mark, name, above=above)
    for axes in (speeds, efficiencies):
        axes.set_xscale("log", base=2)
        axes.set_xticks(_ticks(workers), [f"{k:,}" for k in _ticks(workers)], minor=False)
        axes.set_xlabel("workers k")
    speeds.set_yscale("log")
    far = workers[-1] >= 8 * workers[0]
    speeds.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if far else range(1, 10)))
    speeds.yaxis.set_minor_locator(NullLocator())
    speeds.set_ylabel("images/s of all workers")
    speeds.yaxis.set_major_formatter("{x:,.0f}")
    efficiencies.set_ylabel(f"weak scaling efficiency E(k|{scaling.base}), %")
    highest = max(100 * (p.high if math.isfinite(p.high) else p.efficiency) for p in scaling.points)
    efficiencies.set_ylim(0, max(108.0, 1.04 * highest))
    efficiencies.legend(loc="lower left", frameon=False)
    return png(picture)


def stands_above(point: Point, points: Sequence[Point]) -> bool:
    """Where a point's number stands: of several at one number of workers those of the higher half above, the others and
    a lone one below, so that no two cover each other and each is next to its point."""
    there = [other for other in points if other.measured.workers == point.measured.workers]
    there.sort(key=lambda other: other.efficiency, reverse=True)
    return next(place for place, other in enumerate(there) if other is point) < len(there) // 2


def _draw(
    speeds: "Axes",
    efficiencies: "Axes",
    points: Sequence[Point],
    colour: str,
    mark: str,
    name: str,
    *,
    above: Sequence[bool],
) -> None:
    at = [point.measured.workers for point in points]
    speeds.plot(
        at, [p.measured.images_per_second.value for p in points], color=colour, marker=mark, markersize=5, linewidth=1.2
    )
    values = [100 * point.efficiency for point in points]
    bars = [100 * (p.high - p.efficiency) if math.isfinite(p.high) else 0.0 for p in points]
    efficiencies.errorbar(
        at, values, yerr=bars, color=colour, marker=mark, markersize=5, linewidth=1.2, capsize=3, label=name
    )
    upon_lines = {"facecolor": "white", "edgecolor": "none", "pad": 0.8, "alpha": 0.85}
    where: dict[str, Any] = {
        "textcoords": "offset points",
        "ha": "center",
        "fontsize": 8,
        "bbox": upon_lines,
    }
    for k, value, bar, up in zip(at, values, bars, above, strict=True):
        end, away, side = (value + bar, 4, "bottom") if up else (value - bar, -4, "top")
        efficiencies.annotate(f"{value:.0f}", (k, end), (0, away), va=side, **where)


def _ticks(workers: Sequence[int]) -> list[int]:
    """Numbers of workers to write at an axis, none upon another.

    >>> _ticks([1, 2, 3, 4, 8, 256])
    [1, 2, 4, 8, 256]
    """
    shown = [workers[0]]
    for k in workers[1:]:
        if k >= 1.6 * shown[-1]:
            shown.append(k)
    return shown
