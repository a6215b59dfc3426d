"""Work on many images on all cores, and ahead of whoever wants it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from itertools import islice
from multiprocessing import get_context
from threading import Barrier
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORTH_PROCESSES = 5_000  # images; fewer are looked at before another process has started
AHEAD = 4  # chunks per worker that wait for it


def thread_pool(threads: int, name: str, initializer: Callable[[], object] = lambda: None) -> ThreadPoolExecutor:
    """A pool whose threads are all there when it is.

    Where memory is short one that is started later may not come to life, and whoever starts it then waits for ever.
    """
    started = Barrier(threads + 1)
    made = ThreadPoolExecutor(threads, name, initializer)
    for _ in range(threads):
        made.submit(started.wait)
    started.wait()
    return made


def parallel(work: Callable[[T], R], chunks: Iterable[T], *, workers: int, processes: bool) -> Iterator[R]:
    """The results in order, as many chunks ahead as keep the workers busy.

    Processes are spawned, not forked: the caller may hold an MPI library, which does not survive a fork.
    """
    workers = max(workers, 1)
    pool: Executor = (
        ProcessPoolExecutor(workers, mp_context=get_context("spawn")) if processes else ThreadPoolExecutor(workers)
    )
    ahead: deque[Future[R]] = deque()
    with pool:
        for chunk in chunks:
            ahead.append(pool.submit(work, chunk))
            if len(ahead) > AHEAD * workers:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def one_ahead(items: Iterator[T], thread: Executor) -> Iterator[T]:
    """The same items; while the caller is busy with one, `thread`, which alone touches `items`, makes the next."""
    coming = thread.submit(_take_one, items)
    try:
        while one := coming.result():
            coming = thread.submit(_take_one, items)
            yield from one
    finally:
        wait([coming])


def _take_one(items: Iterator[T]) -> list[T]:
    return list(islice(items, 1))
