"""The threads of this process, and which cores they run on."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def mine() -> set[int]:
    """Thread ids of this process, those of libraries included; empty where the system has no /proc."""
    tasks = Path("/proc/self/task")
    return {int(task.name) for task in tasks.iterdir()} if tasks.exists() else set()


def move(thread: int, cores: Iterable[int]) -> None:
    """Let a thread run on these cores only; one that has ended stays ended."""
    with suppress(OSError):
        os.sched_setaffinity(thread, set(cores))


@contextmanager
def aside(threads: Iterable[int]) -> Iterator[None]:
    """Within, these threads run on the last of their cores only, and leave the others to whoever computes.

    A thread that they start meanwhile would stay there for ever, so it comes back as this one does.
    """
    cores, known = os.sched_getaffinity(0), mine()
    before = {}
    for thread in threads:
        with suppress(OSError):  # it has ended
            before[thread] = os.sched_getaffinity(thread)
            os.sched_setaffinity(thread, {max(before[thread])})
    try:
        yield
    finally:
        for thread in before.keys() | (mine() - known):
            with suppress(OSError):
                os.sched_setaffinity(thread, before.get(thread, cores))
