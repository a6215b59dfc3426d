"""What a run says: text lines to stderr and to logs/rank-N.log, and events.jsonl for machines.

events.jsonl holds one JSON object a line; a number that is not finite is null. Every record of a run has

    time         seconds since 1970, float
    event        one of the names below
    step         optimiser steps done so far
    images_seen  training images that all workers together have seen so far

and by event:

    start        world_size, global_batch_size, batch_size, images_per_epoch, total_images
    resume       the same, when the run goes on from a checkpoint
    baseline     source, workers, measured_at, origin, step_seconds, standard_error, samples, parts, ranks, together,
                 communication: what efficiency is measured against, see metrics/efficiency.py
    report       epoch, lr, loss, images_per_second; steps since the last one and step_seconds of each; parts, ranks:
                 where these went, see metrics/breakdown.py; slowest_rank; efficiency, or null without a baseline
    evaluate     epoch, top1, top5, loss, images, seconds; average_top1, average_top5, average_loss
    quarantine   part, image, reason: an image that cannot be decoded is left out from now on
    checkpoint   path, seconds
    end          seconds, images_per_second
"""

import json
import logging
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

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


class EventLog:
    """Appends records to events.jsonl, each line written whole and at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = path.open("a", buffering=1)

    def write(self, event: str, *, step: int, **fields: Any) -> None:
        record = {"time": time.time(), "event": event, "step": step, **fields}
        self._file.write(json.dumps(_json_value(record)) + "\n")

    def close(self) -> None:
        self._file.close()


def _json_value(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null, however deep they are."""
    if isinstance(value, Mapping):
        return {key: _json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def pretty_json(value: Any) -> str:
    return json.dumps(value, indent=2) + "\n"
