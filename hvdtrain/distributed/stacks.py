"""Where every thread of this process is, written into its log: for whoever asks why a worker stands still."""

import faulthandler
import os
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import IO

WRITE_SECONDS = 3.0  # a file system that does not answer must not keep a worker that has to go


class Stacks:
    """Opens the log for appending, or standard error where that cannot be; `close` it."""

    def __init__(self, path: Path | None, rank: int) -> None:
        """
        Args:
            path: None where there is no log: then they go to standard error.
        """
        self._rank, self._has_log = rank, path is not None
        try:
            self._file = _log(path) if path else _stderr()
        except OSError:  # a full disk is no reason not to watch
            self._file = _stderr()

    def write(self, why: str) -> bool:
        """Whether it could be done in the time that there is for it."""
        return in_time(WRITE_SECONDS, partial(self._append, why) if self._has_log else self._tell)

    def _append(self, why: str) -> None:
        now = time.strftime("%Y-%m-%d %H:%M:%S")
        self._file.write(f"{now} rank {self._rank} CRITICAL {why}\nall threads of this worker:\n".encode())
        faulthandler.dump_traceback(self._file, all_threads=True)

    def _tell(self) -> None:
        """In one piece, for others write there, too; and why, somebody will say."""
        with tempfile.TemporaryFile() as whole:
            whole.write(f"all threads of rank {self._rank}:\n".encode())
            whole.flush()
            faulthandler.dump_traceback(whole, all_threads=True)
            whole.seek(0)
            self._file.write(whole.read())

    def write_unless_called_within(self, seconds: float) -> None:
        """Each call puts it off. It needs nothing of the interpreter, not even its lock, which a library may hold.

        After a suspension it is late for this call's timer, and the stacks may be written for nothing: no harm is done
        to a log. To people it would be alarming, so where there is none nothing is written.
        """
        if self._has_log:
            faulthandler.dump_traceback_later(seconds, file=self._file)

    def close(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        self._file.close()


def _log(path: Path) -> IO[bytes]:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab", buffering=0)


def _stderr() -> IO[bytes]:
    return os.fdopen(os.dup(2), "ab", buffering=0)


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
