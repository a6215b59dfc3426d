"""How often a fault was tried, and how often something was lost by it."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field

Times = Callable[[int, int], int]
"""times(few, many): how often a fault is tried in `make test` and in `make soak`."""

Trials = Callable[[str], "AbstractContextManager[Tally]"]
"""`with trials("what is tried") as tally:`, and within `with tally.one("which"):` around each single trial."""


@dataclass
class Tally:
    fault: str
    tried: int = 0
    lost: list[str] = field(default_factory=list)

    @property
    def survived(self) -> int:
        return self.tried - len(self.lost)

    @contextmanager
    def one(self, which: str) -> Iterator[None]:
        """One trial; whatever it raises is a loss, and is remembered with `which`, by which it can be repeated."""
        self.tried += 1
        try:
            yield
        except Exception as error:
            self.lost.append(f"{which}: {type(error).__name__}: {error}")


def table(tallies: list[Tally]) -> str:
    """
    >>> print(table([Tally("kill -9", tried=5)]))
    | fault | tried | survived | lost |
    |---|---:|---:|---:|
    | kill -9 | 5 | 5 | 0 |
    """
    rows = [f"| {t.fault} | {t.tried:,} | {t.survived:,} | {len(t.lost):,} |" for t in tallies]
    return "\n".join(["| fault | tried | survived | lost |", "|---|---:|---:|---:|", *rows])
