"""How far a long walk over many images has come: a bar on a terminal, a line now and then elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hvdtrain.log import logger

QUIET_SECONDS = 5.0  # what is done sooner needs no line


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with how many more are done."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = TextColumn(what), BarColumn(bar_width=None), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, expand=True, transient=True) as bar:
            task = bar.add_task(what, total=total)
            yield lambda more: bar.advance(task, more)
        return
    done, last = 0, time.monotonic()

    def advance(more: int) -> None:
        nonlocal done, last
        done += more
        if time.monotonic() - last >= QUIET_SECONDS:
            last = time.monotonic()
            logger.info("%s: %d of %d", what, done, total)

    yield advance
