"""How far the model is from what was published, each series being predicted with constants that do not know it."""

from dataclasses import dataclass
from functools import cache

import numpy as np

from hvdtrain.plan.calibrate import efficiencies
from hvdtrain.plan.constants import constants
from hvdtrain.plan.series import Series, used

WITHIN = (0.1, 0.9)  # of the series: 80 % lie between


@dataclass(frozen=True)
class Row:
    """A measured point beside its prediction."""

    series: Series
    workers: int
    measured: float
    predicted: float

    @property
    def error(self) -> float:
        return self.predicted - self.measured


@cache
def rows() -> tuple[Row, ...]:
    """Of all series that count, without the points that calibrate them."""
    found = []
    for each in used():
        predicted = efficiencies(each, constants(each.name))
        found += [
            Row(each, point.workers, each.efficiency(point), float(value))
            for point, value in zip(each.points[1:], predicted, strict=True)
        ]
    return tuple(found)


def of_series() -> dict[str, float]:
    """Mean absolute error of each, in efficiency."""
    names = dict.fromkeys(row.series.name for row in rows())
    return {name: float(np.mean([abs(row.error) for row in rows() if row.series.name == name])) for name in names}


def mean() -> float:
    """Mean absolute error of efficiency; every series weighs the same."""
    return float(np.mean(list(of_series().values())))


@cache
def quantiles() -> tuple[float, float]:
    """Between which share of its prediction 80 % of what was measured lies; every series weighs the same."""
    ratios = np.array([row.measured / row.predicted for row in rows()])
    names = [row.series.name for row in rows()]
    weights = np.array([1 / names.count(name) for name in names])
    order = np.argsort(ratios)
    at = (np.cumsum(weights[order]) - weights[order] / 2) / weights.sum()
    low, high = np.interp(WITHIN, at, ratios[order])
    return min(float(low), 1.0), max(float(high), 1.0)
