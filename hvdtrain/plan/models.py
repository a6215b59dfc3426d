"""Networks as communication sees them: how large each layer's gradient is, and when backward has made it."""

import csv
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from hvdtrain.errors import ConfigError

BACKWARD = 2 / 3
"""Of a step's computing. Backward does two products for each of forward's: with respect to weights and to activations.
Goyal et al. 2017, section 4.3, measured 120 ms of 192."""


@dataclass(frozen=True)
class Network:
    """Layers stand in the order in which their gradients arrive, the last one first."""

    name: str
    pixels: int  # a side of its pictures
    madds: float  # of one picture's forward
    elements: NDArray[np.int64]  # (layers,) of each layer's gradient
    ready: NDArray[np.float64]  # (layers,), when a gradient is there: a fraction of backward, up to 1

    @property
    def parameters(self) -> int:
        return int(self.elements.sum())


@cache
def networks() -> dict[str, Network]:
    """All that layers.csv has. benchmarks/layers.py makes it from torchvision."""
    with (files("hvdtrain.plan") / "layers.csv").open() as file:
        rows = list(csv.DictReader(file))
    names = dict.fromkeys(row["model"] for row in rows)
    return {name: _network(name, [row for row in rows if row["model"] == name][::-1]) for name in names}


def network(name: str) -> Network:
    """
    Raises:
        ConfigError: the planner does not know it.
    """
    known = networks()
    if name not in known:
        raise ConfigError(f"--model {name}: not a network that the planner knows; wanted one of {', '.join(known)}")
    return known[name]


def _network(name: str, rows: list[dict[str, str]]) -> Network:
    work = np.cumsum([float(row["forward_madds"]) for row in rows])
    elements = np.array([int(row["elements"]) for row in rows])
    return Network(name, int(rows[0]["pixels"]), float(work[-1]), elements, work / work[-1])
