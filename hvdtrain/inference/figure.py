"""An evaluation as PNG, readable in grey too: how well each class is known, and what is taken for what."""

from typing import TYPE_CHECKING

from hvdtrain.figures import BLUE, INK, PALE, RED, figure, png
from hvdtrain.inference.evaluate import Judged, Report
from hvdtrain.train.trained import AVERAGE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_NAMED = 40  # classes whose names can be read beside each other
MOST_PAIRS = 15
NAME = 16  # characters of a class's name at an axis


def draw(report: Report) -> bytes:
    """Of the weights themselves, or of their average where that is better."""
    judged = max(report.judged, key=lambda each: each.result.top1)
    picture = figure(4.2)
    picture.suptitle(_title(report, judged), fontsize=9, x=0.01, ha="left")
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    _classes(left, report, judged)
    _pairs(right, report, judged)
    return png(picture, grid=False)


def _title(report: Report, judged: Judged) -> str:
    of = ", moving average" if judged.weights == AVERAGE else ""
    return f"{report.title}{of}: top-1 {100 * judged.result.top1:.2f} % of {judged.result.images:,} images"


def _classes(axes: "Axes", report: Report, judged: Judged) -> None:
    confusion = judged.confusion
    worst, right, images = confusion.worst(), confusion.top1, confusion.images  # each is counted anew when it is asked
    shares = [100 * right[label] / images[label] for label in worst]
    places = range(len(worst))
    if len(worst) <= MOST_NAMED:
        axes.bar(places, shares, color=BLUE, width=0.8)
        axes.set_xticks(places, [_cut(report.classes[label]) for label in worst], rotation=90 * (len(worst) > 12))
        axes.set_xlabel("class")
    else:
        axes.fill_between(places, shares, color=BLUE, alpha=0.3, linewidth=0)
        axes.plot(places, shares, color=BLUE, linewidth=1.2)
        axes.set_xlabel(f"{len(worst):,} classes, the worst at the left")
    axes.axhline(100 * judged.result.top1, color=INK, linestyle="--", linewidth=1, label="of all images")
    low = max(0.0, min(shares) - 5) if min(shares) > 60 else 0.0
    axes.set_ylim(low, 100.5)
    axes.set_title("top-1 of each class, %" + f" (from {low:.0f} on)" * (low > 0), fontsize=9)
    axes.legend(loc="lower right", fontsize=8)


def _pairs(axes: "Axes", report: Report, judged: Judged) -> None:
    pairs = judged.confusion.pairs()[:MOST_PAIRS]
    names = [f"{_cut(report.classes[label])} as {_cut(report.classes[other])}" for label, other, _ in pairs]
    axes.barh(range(len(pairs)), [count for _, _, count in pairs], color=RED, height=0.7)
    axes.set_yticks(range(len(pairs)), names, fontsize=8)
    axes.invert_yaxis()
    axes.locator_params(axis="x", integer=True)
    axes.set_xlabel("images")
    axes.set_title("taken for another", fontsize=9)
    if not pairs:
        axes.text(0.5, 0.5, "none", transform=axes.transAxes, ha="center", color=PALE)


def _cut(name: str) -> str:
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
