"""The threads of this process, which cores they run on, and who goes first there."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NICENESS = 5  # more than others: a third of their share
LEAST = 19


def mine() -> set[int]:
    """Thread ids of this process, those of libraries included; empty where the system has no /proc."""
    tasks = Path("/proc/self/task")
    return {int(task.name) for task in tasks.iterdir()} if tasks.exists() else set()


def move(thread: int, cores: Iterable[int]) -> None:
    """Let a thread run on these cores only; one that has ended stays ended."""
    with suppress(OSError):
        os.sched_setaffinity(thread, set(cores))


def move_all(cores: Iterable[int]) -> None:
    """All of this process's."""
    for thread in mine():
        move(thread, cores)


def step_back(threads: Iterable[int]) -> None:
    """Let these threads run behind whoever computes on this machine.

    For Horovod's where all workers compute on the CPUs of one node: waiting for the others, they ask for the core again
    and again. What they add up costs the same whenever they do it, so they had better do it while the worker waits for
    it. A network would be idle meanwhile, so on several nodes they stay as they are. By no more than that: beside
    two processes that filled both cores a run at nice 10 was slower by a third, at nice 5 by a few percent.
    """
    for thread in threads:
        with suppress(OSError):  # it has ended
            own = os.getpriority(os.PRIO_PROCESS, thread)
            os.setpriority(os.PRIO_PROCESS, thread, min(own + NICENESS, LEAST))


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
