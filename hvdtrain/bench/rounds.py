"""Contenders take turns, and what counts is the ratio of two of them within a round.

A shared machine changes its speed by tens of percent within minutes. Whoever runs in the same round meets the same
mood, and every other round goes backwards, so that nobody always comes first.
"""

import math
import statistics
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hvdtrain.errors import ConfigError, EnvironmentFault
from hvdtrain.log import logger

CONFIDENCE = 0.95
Rounds = dict[str, list[float]]
"""Contender -> its figure in each round."""


def want_gpu() -> None:
    """
    Raises:
        EnvironmentFault: torch sees no GPU.
    """
    import torch

    if not torch.cuda.is_available():
        raise EnvironmentFault("--device asks for a GPU, and torch sees none here", remedy="hvdtrain doctor")


def known(wanted: Iterable[str], contenders: Collection[str]) -> None:
    """
    Raises:
        ConfigError: one that is wanted is none of them.
    """
    for name in wanted:
        if name not in contenders:
            raise ConfigError(f"--contenders {name}: expected some of {', '.join(contenders)}")


def take_turns(contenders: Mapping[str, Callable[[], float]], rounds: int) -> Rounds:
    """Call each contender once in every round; it returns its figure."""
    figures: Rounds = {name: [] for name in contenders}
    began = time.monotonic()
    logger.info("%d round%s of %s", rounds, "s" * (rounds != 1), ", ".join(contenders))
    for number in range(rounds):
        names = list(contenders)
        for name in names if number % 2 == 0 else names[::-1]:
            figures[name].append(contenders[name]())
        told = ", ".join(f"{name} {values[-1]:.4g}" for name, values in figures.items())
        left = (time.monotonic() - began) / (number + 1) * (rounds - number - 1)
        ahead = f"; {left:.0f} s left" if number + 1 < rounds else ""
        logger.info("round %d of %d: %s%s", number + 1, rounds, told, ahead)
    return figures


@dataclass(frozen=True)
class Spread:
    """The median of a few values and an interval that holds the true one, as far as so few values can tell."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """
        >>> Spread.of([1.0, 4.0, 2.0])
        Spread(median=2.0, low=1.0, high=4.0)
        """
        ordered = sorted(values)
        cut = _cut(len(ordered))
        return cls(statistics.median(ordered), ordered[cut], ordered[-1 - cut])


def _cut(count: int) -> int:
    """How many of the smallest, and of the largest, lie outside of the median's 95 % interval (sign test).

    With five values the interval is all of them, and its confidence 94 %.

    >>> [_cut(count) for count in (1, 5, 6, 9, 12, 20)]
    [0, 0, 0, 1, 2, 5]
    """
    cut = 0
    while cut < (count - 1) // 2:
        outside = sum(math.comb(count, i) for i in range(cut + 2)) / 2 ** (count - 1)
        if outside > 1 - CONFIDENCE:
            break
        cut += 1
    return cut


@dataclass(frozen=True)
class Goal:
    """What the ratio of two contenders is to be."""

    top: str
    bottom: str
    least: float | None = None
    """None: shown, and nothing is expected of it."""

    @property
    def name(self) -> str:
        return f"{self.top} / {self.bottom}"


@dataclass(frozen=True)
class Ratio:
    goal: Goal
    rounds: tuple[float, ...]
    """top / bottom of each round: neighbours in time, so that what slows the machine slows both."""

    @property
    def spread(self) -> Spread:
        return Spread.of(self.rounds)

    @property
    def verdict(self) -> str:
        """
        >>> Ratio(Goal("a", "b", 0.9), (0.91, 0.95)).verdict, Ratio(Goal("a", "b", 0.97), (0.91, 0.95)).verdict
        ('holds', 'missed')
        """
        if self.goal.least is None:
            return ""
        return "holds" if self.spread.median >= self.goal.least else "missed"


def ratios(figures: Rounds, goals: Iterable[Goal]) -> list[Ratio]:
    """Those of which both contenders took part."""
    return [
        Ratio(goal, tuple(a / b for a, b in zip(figures[goal.top], figures[goal.bottom], strict=True)))
        for goal in goals
        if figures.get(goal.top) and figures.get(goal.bottom)
    ]
