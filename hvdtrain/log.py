"""What a run says to people: text lines to stderr and to logs/rank-N.log. To machines: see events.py."""

import logging
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

logger = logging.getLogger("hvdtrain")


def configure(rank: int, *, log_dir: Path | None = None) -> None:
    """Rank 0 speaks from INFO up and the others from WARNING up; each rank's file has everything, tracebacks too.

    Called once by the process that owns the run, never at import. Where the file cannot be written, the screen says so
    once and the run goes on.
    """
    line = f"%(asctime)s rank {rank} %(levelname)s %(message)s"
    on_screen = _Screen()
    on_screen.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    on_screen.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    handlers: list[logging.Handler] = [on_screen]
    if log_dir is not None:
        to_file = _File(log_dir / f"rank-{rank}.log")
        to_file.setFormatter(logging.Formatter(line))
        handlers.append(to_file)
    for old in logger.handlers[:]:
        logger.removeHandler(old)
        old.close()
    for handler in handlers:
        logger.addHandler(handler)
    logger.setLevel(logging.DEBUG)
    logger.propagate = False


class _Screen(logging.Handler):
    """Writes to whatever sys.stderr is at the time: a live display puts itself there to keep lines above it."""

    def emit(self, record: logging.LogRecord) -> None:
        _say(self.format(record))


class _File(logging.Handler):
    """Appends to a file. Lines that it does not take, as on a full disk, are lost."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._file: IO[bytes] | None = None
        self._fails = self._torn = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("ab", buffering=0)  # a buffer would keep what a full disk refuses, for ever
        except OSError as error:
            self._tell(error)

    def emit(self, record: logging.LogRecord) -> None:
        if self._file is None:
            return
        rest = b"\n" * self._torn + f"{self.format(record)}\n".encode(errors="backslashreplace")
        try:
            while rest:
                written = self._file.write(rest)
                rest = rest[written:]
                self._torn = self._torn if not written else bool(rest)
            self._fails = False
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        if self._file is not None:
            with suppress(OSError):
                self._file.close()
        super().close()

    def _tell(self, error: OSError) -> None:
        if not self._fails:
            _say(f"{self._path} cannot be written: {error.strerror}; the run goes on without it")
        self._fails = True


def _say(line: str) -> None:
    """To whatever sys.stderr is now. Where that is a file on a full disk, there is nobody to tell."""
    try:
        print(line, file=sys.stderr, flush=True)
    except BrokenPipeError:
        raise
    except OSError:
        pass


def duration(seconds: float) -> str:
    """
    >>> duration(0.42), duration(9.4), duration(95), duration(7322), duration(200_000)
    ('0.4 s', '9 s', '1 min 35 s', '2 h 2 min', '2 d 7 h')
    """
    if not math.isfinite(seconds):
        return "—"
    whole = round(seconds)
    if whole < 2:
        return f"{max(seconds, 0):.1f} s"
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 48 * 3600:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
