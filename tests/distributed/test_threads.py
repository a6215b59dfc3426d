"""Threads that step back, or are moved aside and come back."""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from hvdtrain.distributed import threads


@contextmanager
def other() -> Iterator[int]:
    """The id of a thread that waits for the block to end."""
    over, ids = threading.Event(), []
    started = threading.Event()

    def wait() -> None:
        ids.append(threading.get_native_id())
        started.set()
        over.wait(60)

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait(60)
    yield ids[0]
    over.set()
    thread.join()


def test_a_new_thread_is_one_of_mine_until_it_ends() -> None:
    before = threads.mine()
    assert threading.get_native_id() in before
    with other() as thread:
        assert thread in threads.mine() - before
    deadline = time.monotonic() + 60
    while thread in threads.mine():  # the system may take a moment longer than Python to see it end
        assert time.monotonic() < deadline


def test_who_steps_back_does_so_alone() -> None:
    with other() as gone:
        pass
    with other() as thread:
        threads.step_back({thread, gone})
        assert os.getpriority(os.PRIO_PROCESS, thread) == threads.NICENESS
        for _ in range(4):
            threads.step_back({thread})
        assert os.getpriority(os.PRIO_PROCESS, thread) == threads.LEAST
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == 0


def test_aside_is_one_core_and_afterwards_all_is_as_before() -> None:
    cores = os.sched_getaffinity(0)
    with other() as thread:
        with threads.aside({thread}):
            assert os.sched_getaffinity(thread) == {max(cores)}
            assert os.sched_getaffinity(0) == cores
        assert os.sched_getaffinity(thread) == cores


def test_also_when_the_block_fails() -> None:
    cores = os.sched_getaffinity(0)
    with pytest.raises(ZeroDivisionError), threads.aside({threading.get_native_id()}):
        raise ZeroDivisionError
    assert os.sched_getaffinity(0) == cores


def test_a_thread_that_has_ended_is_no_trouble() -> None:
    with other() as thread:
        pass
    with threads.aside({thread}):
        pass


def test_a_thread_born_meanwhile_is_not_left_aside() -> None:
    cores = os.sched_getaffinity(0)
    with threads.aside(threads.mine()):
        child = other()
        born = child.__enter__()
        assert os.sched_getaffinity(born) == {max(cores)}
    assert os.sched_getaffinity(born) == cores
    child.__exit__(None, None, None)
