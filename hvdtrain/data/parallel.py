"""Work on many images on all cores, and ahead of whoever wants it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from itertools import islice
from multiprocessing import get_context
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

WORTH_PROCESSES = 5_000  # images; fewer are looked at before another process has started
AHEAD = 4  # chunks per worker that wait for it


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


def one_ahead(items: Iterator[T]) -> Iterator[T]:
    """The same items; while the caller is busy with one, a thread makes the next."""
    with ThreadPoolExecutor(1, "one-ahead") as pool:
        coming = pool.submit(_take_one, items)
        while one := coming.result():
            coming = pool.submit(_take_one, items)
            yield from one


def _take_one(items: Iterator[T]) -> list[T]:
    return list(islice(items, 1))
