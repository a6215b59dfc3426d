"""A run and all that is to be said of it."""

from dataclasses import dataclass
from pathlib import Path

from hvdtrain.report import read
from hvdtrain.report.account import Account, account
from hvdtrain.report.causes import Diagnosis, diagnose
from hvdtrain.report.changes import Size, sizes
from hvdtrain.report.records import Run
from hvdtrain.report.timeline import Timeline


@dataclass(frozen=True)
class Study:
    run: Run
    account: Account | None
    """None before the first report."""
    diagnosis: Diagnosis
    timeline: Timeline | None = None
    sizes: tuple[Size, ...] = ()
    """Where steps were done with several numbers of workers."""


def study(folder: Path, *, last: int | None = None, timeline: Timeline | None = None) -> Study:
    """
    Args:
        last: only as many of the last reports.

    Raises:
        ConfigError: there is no run in `folder`.
    """
    run = read.read(folder)
    counted = account(run, last=last)
    return Study(run, counted, diagnose(run, counted), timeline, sizes(run, last=last))
