"""What a run says to people: text lines to stderr and to logs/rank-N.log. To machines: see events.py."""

import logging
import sys
from pathlib import Path

logger = logging.getLogger("hvdtrain")


def configure(rank: int, *, log_dir: Path | None = None) -> None:
    """Rank 0 speaks from INFO up and the others from WARNING up; each rank's file has everything, tracebacks too.

    Called once by the process that owns the run, never at import.
    """
    line = f"%(asctime)s rank {rank} %(levelname)s %(message)s"
    on_screen = _Screen()
    on_screen.setLevel(logging.INFO if rank == 0 else logging.WARNING)
    on_screen.setFormatter(logging.Formatter("%(message)s" if rank == 0 else f"[rank {rank}] %(message)s"))
    handlers: list[logging.Handler] = [on_screen]
    if log_dir is not None:
        log_dir.mkdir(parents=True, exist_ok=True)
        to_file = logging.FileHandler(log_dir / f"rank-{rank}.log")
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
        print(self.format(record), file=sys.stderr, flush=True)
