"""Faults of every kind, each many times: how many were tried, how many were survived, what was lost.

`make test` tries each a few times; `make soak`, which is pytest --soak, tries many, for as long as some hours.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import pytest

from .tally import Tally

Times = Callable[[int, int], int]
Trials = Callable[[str], AbstractContextManager[Tally]]

TALLIES = pytest.StashKey[list[Tally]]()


@pytest.fixture
def times(pytestconfig: pytest.Config) -> Times:
    """times(few, many): how often a fault is tried in `make test` and in `make soak`."""

    def choose(few: int, many: int) -> int:
        return many if pytestconfig.getoption("--soak") else few

    return choose


@pytest.fixture
def trials(pytestconfig: pytest.Config) -> Trials:
    """`with trials("what is tried") as tally:`, and within `with tally.one("which"):` around each single trial.

    What a trial raises is counted and goes on to the next; the end of the outer block fails if one was lost, or if
    none was tried.
    """

    @contextmanager
    def begin(fault: str) -> Iterator[Tally]:
        tally = Tally(fault)
        pytestconfig.stash.setdefault(TALLIES, []).append(tally)
        began = time.monotonic()
        yield tally
        tally.seconds = time.monotonic() - began
        assert tally.tried, f"{fault}: nothing was tried"
        assert not tally.lost, f"{fault}: {len(tally.lost)} of {tally.tried} lost:\n" + "\n".join(tally.lost[:20])

    return begin
