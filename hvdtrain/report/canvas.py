"""What the figures of a run share: their axis of time and its bins."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from hvdtrain.report.records import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_BINS = 160  # of a picture's width: more are not seen apart
NAME = 24  # characters of a run in a legend

Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class Clock:
    """Seconds since 1970 -> what an axis of time shows."""

    begin: float
    unit: float
    name: str

    @classmethod
    def of(cls, windows: Sequence[Window]) -> "Clock":
        begin = begin_of(windows[0])
        length = windows[-1].time - begin
        unit, name = (3600, "h") if length > 2 * 3600 else (60, "min") if length > 180 else (1, "s")
        return cls(begin, unit, name)

    def __call__(self, seconds: float) -> float:
        return (seconds - self.begin) / self.unit

    def label(self, axes: "Axes") -> None:
        axes.set_xlabel(f"time since the first step, {self.name}")


def begin_of(window: Window) -> float:
    """When its first step began, had nothing come between."""
    return window.time - window.steps * window.step_seconds


@dataclass(frozen=True)
class Bin:
    """Neighbouring reports of one start."""

    begin: float
    """Seconds since 1970. Pauses lie within."""
    windows: Sequence[Window]

    @property
    def end(self) -> float:
        return self.windows[-1].time

    def mean(self, values: Sequence[float]) -> float:
        """By steps; one value of each window."""
        return float(np.average(values, weights=[window.steps for window in self.windows]))


def bins(windows: Sequence[Window]) -> list[Bin]:
    """As many as a picture can show."""
    size = math.ceil(len(windows) / MOST_BINS)
    found: list[Bin] = []
    group: list[Window] = []
    for window, after in itertools.zip_longest(windows, windows[1:]):
        group.append(window)
        if after is None or len(group) == size or after.start != window.start:
            follows = found and found[-1].windows[-1].start == window.start
            found.append(Bin(found[-1].end if follows else begin_of(group[0]), group))
            group = []
    return found


def legend_beside(axes: "Axes", title: str = "") -> None:
    """To the right of the axes, the last drawn at the top, as in a stack."""
    handles, labels = axes.get_legend_handles_labels()
    legend = axes.legend(handles[::-1], labels[::-1], loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False)
    legend.set_title(title)


def short(name: str) -> str:
    """
    >>> short("r50-256-2026-11-21-with-a-long-story"), short("r50")
    ('r50-256-2026-11-21-with…', 'r50')
    """
    return name if len(name) <= NAME else f"{name[: NAME - 1]}…"
