"""`hvdtrain status`: how a run stands, once or followed to its end, from the run's own files."""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from hvdtrain.errors import ConfigError
from hvdtrain.events import records
from hvdtrain.report import screen
from hvdtrain.report.journal import Journal
from hvdtrain.report.plain import plain
from hvdtrain.report.read import open_events, run
from hvdtrain.report.records import State
from hvdtrain.report.snapshot import Snapshot, snapshot, to_json

LOOK_SECONDS = 1.0
GOING_ON = (State.RUNNING.value, State.CHANGING.value)
REPORTS = 10  # over which a run tells its efficiency, and we its speed


def status(
    run_dir: Path,
    *,
    follow: bool = False,
    json: bool = False,
    going_on: Callable[[], bool] = lambda: True,
    job_over: bool = False,
) -> int:
    """Print how the run stands; returns 0, or 1 where it was killed.

    On a terminal a screen, which `follow` refreshes in its place until the run ends; elsewhere plain text, and with
    `follow` a line for each report. As JSON one object, with `follow` one a line.

    Args:
        going_on: what has to hold besides, for a run to be followed: a job may end without the run's saying so.
        job_over: no other workers can come any more.

    Raises:
        ConfigError: there is no run in `run_dir`.
    """
    moments = _moments(run_dir, job_over=job_over)
    last = next(moments)
    try:
        if follow:
            last = _followed(last, _while(going_on, moments), json=json)
        elif json:
            print(to_json(last, indent=2))
        elif (console := Console()).is_terminal:
            console.print(screen.whole(last))
        else:
            print(screen.plain(last))
    except KeyboardInterrupt:  # the way to stop looking
        return 0
    return 1 if last.state == State.KILLED.value else 0


def has_begun(run_dir: Path) -> bool:
    """Whether the run has come to its first event."""
    try:
        next(_moments(run_dir))
    except ConfigError:
        return False
    return True


def goes_on(run_dir: Path) -> bool:
    """Whether the run has come to its first event, and is not over."""
    return has_begun(run_dir) and now(run_dir)["state"] in GOING_ON


def now(run_dir: Path, *, job_over: bool = False) -> dict[str, Any]:
    """How the run stands, as `status` prints it for machines.

    Raises:
        ConfigError: there is no run in `run_dir`.
    """
    return dict(plain(next(_moments(run_dir, job_over=job_over))))


def _moments(run_dir: Path, *, job_over: bool = False) -> Iterator[Snapshot]:
    """How it stands, look after look. Of the events only what is new is read."""
    tail, journal = open_events(run_dir), Journal(keep_windows=REPORTS)
    while True:
        journal.add(records(tail.lines(), last_reports=REPORTS))
        found = run(run_dir, journal)
        if job_over and found.state is State.CHANGING:
            found = replace(found, state=State.KILLED)
        yield snapshot(found, now=time.time())
        time.sleep(LOOK_SECONDS)


def _followed(first: Snapshot, moments: Iterator[Snapshot], *, json: bool) -> Snapshot:
    """Until the run is over, whose last moment is returned."""
    console = Console()
    if console.is_terminal and not json:
        return _refreshed(first, moments, console)
    return _printed(first, moments, to_json if json else screen.line)


def _refreshed(first: Snapshot, moments: Iterator[Snapshot], console: Console) -> Snapshot:
    """One screen, in its place; the last one stays."""
    from rich.live import Live

    with Live(screen.whole(first), console=console, auto_refresh=False) as live:
        last = first
        for last in _until_over(first, moments):
            live.update(screen.whole(last), refresh=True)
    return last


def _printed(first: Snapshot, moments: Iterator[Snapshot], text: Callable[[Snapshot], str]) -> Snapshot:
    """A line for each report and for the end."""
    last, told = first, None
    for last in _until_over(first, moments):
        if told != (last.step, last.state):
            print(text(last), flush=True)
        told = last.step, last.state
    return last


def _while(condition: Callable[[], bool], moments: Iterator[Snapshot]) -> Iterator[Snapshot]:
    while condition():
        yield next(moments)


def _until_over(first: Snapshot, moments: Iterator[Snapshot]) -> Iterator[Snapshot]:
    """All up to the first that is of a run that goes on no more."""
    yield first
    running = first.state in GOING_ON
    while running and (each := next(moments, None)):
        yield each
        running = each.state in GOING_ON
