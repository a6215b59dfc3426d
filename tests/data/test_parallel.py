"""Work done by others comes back in order, and no further ahead than is wanted."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from hvdtrain.data import parallel
from hvdtrain.data.parallel import one_ahead


def square(number: int) -> int:
    return number * number


@pytest.mark.parametrize("processes", [False, True])
@pytest.mark.parametrize("workers", [0, 1, 3])
def test_results_come_in_order(workers: int, processes: bool) -> None:
    assert list(parallel.parallel(square, range(30), workers=workers, processes=processes)) == [
        number * number for number in range(30)
    ]


def test_chunks_are_not_taken_long_before_they_are_worked_on() -> None:
    taken = 0

    def chunks() -> Iterator[int]:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield number

    results = parallel.parallel(square, chunks(), workers=2, processes=False)
    next(results)
    assert taken <= 2 * parallel.AHEAD + 1
    results.close()  # type: ignore[attr-defined]


def test_an_error_in_the_work_reaches_the_caller() -> None:
    def work(number: int) -> int:
        return 1 // (3 - number)

    with pytest.raises(ZeroDivisionError):
        list(parallel.parallel(work, range(9), workers=2, processes=False))


def test_one_item_is_made_while_the_caller_has_another() -> None:
    made, asked = [], threading.Event()

    def items() -> Iterator[int]:
        for number in range(4):
            made.append((number, threading.current_thread().name))
            if number == 1:
                asked.set()
            yield number

    with ThreadPoolExecutor(1, "one-ahead") as thread:
        ahead = one_ahead(items(), thread)
        assert next(ahead) == 0
        assert asked.wait(timeout=30)  # nobody has asked for 1 yet
        assert list(ahead) == [1, 2, 3]
    assert all(name.startswith("one-ahead") for _, name in made)


def test_whoever_leaves_early_leaves_nothing_going_on() -> None:
    begun, go_on, done = threading.Event(), threading.Event(), []

    def items() -> Iterator[int]:
        yield 0
        begun.set()
        go_on.wait(timeout=30)
        done.append(1)
        yield 1

    with ThreadPoolExecutor(1) as thread:
        ahead = one_ahead(items(), thread)
        assert next(ahead) == 0
        assert begun.wait(timeout=30)
        threading.Timer(0.05, go_on.set).start()
        ahead.close()  # type: ignore[attr-defined]
        assert done == [1]


def test_what_fails_ahead_fails_when_its_turn_comes() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("second")

    with ThreadPoolExecutor(1) as thread:
        ahead = one_ahead(items(), thread)
        assert next(ahead) == 1
        with pytest.raises(ValueError, match="second"):
            next(ahead)
