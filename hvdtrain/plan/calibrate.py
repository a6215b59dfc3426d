"""The constants that all predictions share, from published series: least squares that outliers pull at little.

Every series weighs the same, however many points it has. Of each one the smallest point sets the computing time, and
does not count.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from hvdtrain.plan import hardware
from hvdtrain.plan.allreduce import ALGORITHMS, Fabric
from hvdtrain.plan.constants import Constants
from hvdtrain.plan.models import network
from hvdtrain.plan.series import FUSIONS, Series
from hvdtrain.plan.step import Step, computing, step

Numbers = NDArray[np.float64]

BOUNDS = {
    "rdma": (0.1, 1.0),
    "tcp_bytes": (0.5e9, 20e9),
    "jitter": (0.001, 0.05),
    "negotiation_seconds": (1e-6, 1e-2),
    "shared": (0.001, 0.5),
}
"""What is fitted. The others stay as START has them: the series hardly tell of them, for what their sums do within a
node is hidden by computing, and headers are as long as they are."""
START = Constants(
    rdma=0.8,
    tcp=0.95,  # 1,460 bytes of payload in 1,538 on the wire
    tcp_bytes=4e9,
    nvlink=0.8,
    pcie=0.7,
    hop_seconds=5e-6,
    jitter=0.02,
    negotiation_seconds=1e-3,
    shared=0.05,
)
"""Whence the search begins, and where a constant stays that a sample tells nothing of: VGG-16 alone tells of RDMA."""
BELIEF = 1e-3
"""How strongly it is held: being off by 1 in the search's measure costs half of that."""
PULL = 0.01  # an error of efficiency from which on a point pulls no harder


def at(series: Series, workers: int, compute: float, constants: Constants) -> Step:
    """The step of `workers` workers that compute for so many seconds, on the machines of `series`."""
    fabric = Fabric(
        per_node=series.per_node,
        within=constants.within(hardware.within(series.intra), series.intra),
        across=constants.across(series.nic_gbit / 8 * 1e9, series.transport),
        hop_seconds=constants.hop_seconds,
        algorithm=next(each for each in ALGORITHMS if each == series.algorithm),
    )
    return step(
        compute,
        network(series.model),
        workers,
        fabric,
        FUSIONS[series.fusion],
        constants.overheads(),
        wire_bytes=series.wire_bytes,
        overlap=series.overlap,
    )


def compute_seconds(series: Series, constants: Constants) -> float:
    """Of one worker, such that the step of the smallest point is as it was measured."""
    assert series.base.images_per_second, f"{series.name} is listed as used"
    wanted = series.base.workers * series.batch / series.base.images_per_second
    workers = series.base.workers
    if workers == 1:
        return wanted
    return computing(wanted, lambda compute: at(series, workers, compute, constants).seconds)


def efficiencies(series: Series, constants: Constants) -> Numbers:
    """(points - 1,) predicted E(k | b) of all points but the smallest."""
    compute = compute_seconds(series, constants)
    base = at(series, series.base.workers, compute, constants).seconds
    return np.array([base / at(series, point.workers, compute, constants).seconds for point in series.points[1:]])


def fit(some: Sequence[Series], start: Constants = START, *, rounds: int = 12) -> Constants:
    """Gauss and Newton's steps, damped, of weights that fall beyond PULL (Huber 1964)."""
    wanted = [np.array([each.efficiency(point) for point in each.points[1:]]) for each in some]
    weights = np.concatenate([np.full(len(each), 1 / len(each)) for each in wanted])
    target = np.concatenate(wanted)

    def residuals(place: Numbers) -> Numbers:
        predicted: Numbers = np.concatenate([efficiencies(each, _constants(place)) for each in some])
        errors: Numbers = predicted - target
        return errors

    def loss(errors: Numbers, place: Numbers) -> float:
        size = np.abs(errors)
        far = np.where(size < PULL, size**2 / 2, PULL * (size - PULL / 2))
        return float((weights * far).sum() + BELIEF * ((place - believed) ** 2).sum() / 2)

    believed = _place(START)
    place = _place(start)
    errors = residuals(place)
    damping = 1e-3
    for _ in range(rounds):
        slopes = _slopes(residuals, place, errors)
        pull = weights * np.minimum(1, PULL / np.maximum(np.abs(errors), 1e-12))
        square = slopes.T @ (pull[:, None] * slopes) + BELIEF * np.eye(len(place))
        down = slopes.T @ (pull * errors) + BELIEF * (place - believed)
        for _ in range(8):
            move = -np.linalg.solve(square + damping * np.diag(np.diag(square)), down)
            there = np.clip(place + np.clip(move, -1, 1), -6, 6)
            new = residuals(there)
            if loss(new, there) < loss(errors, place):
                damping /= 5
                break
            damping *= 5
        else:
            break
        done = loss(errors, place) - loss(new, there) < 1e-6 * loss(errors, place)
        place, errors = there, new
        if done:
            break
    return _constants(place)


def _slopes(residuals: Callable[[Numbers], Numbers], place: Numbers, errors: Numbers) -> Numbers:
    columns = []
    for i in range(len(place)):
        moved = place.copy()
        moved[i] += 0.01
        columns.append((residuals(moved) - errors) / 0.01)
    return np.stack(columns, axis=1)


def _constants(place: Numbers) -> Constants:
    """From where the search is, without bounds, to what lies between them."""
    shares = 1 / (1 + np.exp(-place))
    found = {n: lo * (hi / lo) ** float(share) for (n, (lo, hi)), share in zip(BOUNDS.items(), shares, strict=True)}
    return replace(START, **found)


def _place(constants: Constants) -> Numbers:
    pairs = [(getattr(constants, name), *BOUNDS[name]) for name in BOUNDS]
    shares = np.clip([np.log(value / lo) / np.log(hi / lo) for value, lo, hi in pairs], 1e-3, 1 - 1e-3)
    place: Numbers = np.log(shares / (1 - shares))
    return place
