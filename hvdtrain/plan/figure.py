"""The planner's pictures, as PNG, readable in grey too. matplotlib is imported where it draws."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hvdtrain.figures import BLUE, GREEN, GRID, INK, ORANGE, PALE, RED, figure, png
from hvdtrain.plan import residuals
from hvdtrain.plan.capacity import Prediction
from hvdtrain.plan.goals import LARGEST_ERROR, MEAN_ERROR
from hvdtrain.plan.residuals import Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WANTED = 75  # %, what allocation committees ask for


def curve(found: Sequence[Prediction]) -> bytes:
    """Throughput and efficiency over the number of workers."""
    picture = figure(3.5)
    speeds, efficiencies = picture.subplots(1, 2)
    workers = [each.workers for each in found]
    alone = found[0].images_per_second / found[0].workers
    speeds.plot(workers, [k * alone for k in workers], color=PALE, linestyle=":", label="ideal")
    speeds.plot(
        workers, [each.images_per_second for each in found], color=BLUE, marker="o", markersize=4, label="predicted"
    )
    slow, fast = [each.slow for each in found], [each.fast for each in found]
    speeds.fill_between(workers, slow, fast, color=BLUE, alpha=0.18, linewidth=0, label="80 % interval")
    speeds.set_yscale("log")
    speeds.set_ylabel("images/s of all workers")
    speeds.yaxis.set_major_formatter("{x:,.0f}")
    speeds.legend(loc="upper left", frameon=False)
    low, high = ([100 * getattr(each, end) for each in found] for end in ("low", "high"))
    strong = found[-1].strong is not None
    efficiencies.fill_between(workers, low, high, color=BLUE, alpha=0.18, linewidth=0, label="80 % interval")
    efficiencies.plot(
        workers, [100 * each.efficiency for each in found], color=BLUE, marker="o", markersize=4, label="predicted"
    )
    efficiencies.axhline(WANTED, color=INK, linestyle="--", linewidth=1.2, label=f"{WANTED} %")
    efficiencies.set_ylim(0, 105)
    efficiencies.set_ylabel(f"{'strong' if strong else 'weak'} scaling efficiency, %")
    efficiencies.legend(loc="lower left", frameon=False)
    shown = workers[:: max(1, len(workers) // 6)]
    for axes in (speeds, efficiencies):
        axes.set_xscale("log", base=2)
        axes.set_xticks(shown, [f"{k:,}" for k in shown], minor=False)
        axes.set_xlabel("workers k")
    return png(picture)


def validation() -> bytes:
    """Predicted over measured efficiency of every published point that counts, and the errors of the series."""
    picture = figure(6.0)
    points, bars = picture.subplots(1, 2)
    points.plot([30, 105], [30, 105], color=PALE, linestyle=":")
    points.fill_between([30, 105], [20, 95], [40, 115], color=GRID, linewidth=0, label="within 10 %")
    looks = {
        "within a node": (GREEN, "o", lambda row: row.workers <= row.series.per_node),
        "over RDMA": (BLUE, "s", lambda row: row.workers > row.series.per_node and row.series.transport == "rdma"),
        "over TCP": (RED, "^", lambda row: row.workers > row.series.per_node and row.series.transport == "tcp"),
    }
    for name, (colour, mark, belongs) in looks.items():
        _dots(points, [row for row in residuals.rows() if belongs(row)], name, colour, mark)
    points.set_xlim(38, 103)
    points.set_ylim(38, 103)
    points.set_xlabel("measured efficiency, %")
    points.set_ylabel("predicted without the series, %")
    points.legend(loc="lower right", frameon=False)
    errors = sorted(residuals.of_series().items(), key=lambda item: item[1])
    colours = [RED if error > LARGEST_ERROR else ORANGE if error > MEAN_ERROR else GREEN for _, error in errors]
    bars.barh([name for name, _ in errors], [100 * error for _, error in errors], color=colours, height=0.75)
    bars.axvline(100 * residuals.mean(), color=INK, linestyle="--", linewidth=1, label="mean")
    bars.tick_params(axis="y", labelsize=5, length=0)
    bars.set_ylim(-0.8, len(errors) - 0.2)
    bars.set_xlabel("error of a series, % of efficiency")
    bars.legend(loc="lower right", frameon=False)
    return png(picture, grid=False)


def _dots(axes: "Axes", rows: Sequence[Row], name: str, colour: str, mark: str) -> None:
    measured = [100 * row.measured for row in rows]
    predicted = [100 * row.predicted for row in rows]
    axes.scatter(measured, predicted, s=14, color=colour, marker=mark, label=name, alpha=0.8, linewidth=0)
