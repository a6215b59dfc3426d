"""What a cause is explained from, and what an explanation is."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from hvdtrain.config.schema import Config
from hvdtrain.metrics.breakdown import lower_median
from hvdtrain.metrics.efficiency import Baseline
from hvdtrain.report.account import Account, Numbers
from hvdtrain.report.records import Environment, Run


@dataclass(frozen=True)
class Ground:
    evidence: Sequence[str] = ()
    """Sentences, without a full stop."""
    advice: Sequence[str] = ()
    """What to try, the likeliest first."""


@dataclass(frozen=True)
class Case:
    """A loss of `seconds` per step."""

    run: Run
    account: Account
    seconds: float

    @property
    def workers(self) -> int:
        return self.account.workers

    @property
    def environment(self) -> Environment:
        return self.run.environment

    @property
    def config(self) -> Config:
        """The run's, or where it cannot be read the defaults."""
        return self.run.config or Config()

    @property
    def baseline(self) -> Baseline | None:
        return self.account.baseline

    def place(self, rank: int) -> str:
        """A rank and, among several hosts, its own."""
        several = len(self.environment.hosts) > 1
        return f"rank {rank} on {self.environment.host(rank)}" if several else f"rank {rank}"


@dataclass(frozen=True)
class Spread:
    """Seconds per step of each rank, and how far they lie apart."""

    values: Numbers = field(compare=False)

    @cached_property
    def typical(self) -> float:
        return float(lower_median(self.values))

    @property
    def largest(self) -> float:
        return float(self.values.max())

    @property
    def smallest(self) -> float:
        return float(self.values.min())

    @property
    def rank(self) -> int:
        """Of the largest."""
        return int(self.values.argmax())

    def excess(self, rank: int) -> float:
        return float(self.values[rank]) - self.typical

    def outliers(self) -> list[int]:
        """The ranks that are nearer to the largest than to the typical one, the largest first."""
        half = (self.largest + self.typical) / 2
        return [int(rank) for rank in np.argsort(-self.values) if self.values[rank] >= half]


def listed(words: Sequence[str], most: int = 4) -> str:
    """
    >>> listed(["a"]), listed(["a", "b", "c"]), listed(list("abcdef"))
    ('a', 'a, b and c', 'a, b, c, d and 2 more')
    """
    if len(words) > most:
        return f"{', '.join(words[:most])} and {len(words) - most} more"
    return " and ".join(filter(None, [", ".join(words[:-1]), *words[-1:]]))
