"""Where every thread of this process is, written into its log: for whoever asks why a worker stands still."""

import faulthandler
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

WRITE_SECONDS = 3.0  # a file system that does not answer must not keep a worker that has to go


class Stacks:
    """Opens the log for appending, or standard error where that cannot be; `close` it."""

    def __init__(self, path: Path, rank: int) -> None:
        self._rank = rank
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("ab", buffering=0)
        except OSError:  # a full disk is no reason not to watch
            self._file = os.fdopen(os.dup(2), "ab", buffering=0)

    def write(self, why: str) -> bool:
        """Whether it could be done in the time that there is for it."""

        def append() -> None:
            now = time.strftime("%Y-%m-%d %H:%M:%S")
            self._file.write(f"{now} rank {self._rank} CRITICAL {why}\nall threads of this worker:\n".encode())
            faulthandler.dump_traceback(self._file, all_threads=True)

        return in_time(WRITE_SECONDS, append)

    def write_unless_called_within(self, seconds: float) -> None:
        """Each call puts it off. It needs nothing of the interpreter, not even its lock, which a library may hold.

        After a suspension it is late for this call's timer, and the stacks may be written for nothing: no harm is done.
        """
        faulthandler.dump_traceback_later(seconds, file=self._file)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()


def in_time(seconds: float, action: Callable[[], object]) -> bool:
    """Whether `action` came to its end within so long; if not, it is left to itself. A disk that is full, or away, is
    no reason to fail: whoever calls this has worse to tell."""
    done = threading.Event()

    def act() -> None:
        try:
            action()
        except (OSError, ValueError):  # ValueError: the file was closed
            return
        done.set()

    threading.Thread(target=act, name="watchdog's last acts", daemon=True).start()
    return done.wait(seconds)
