"""What a run tells machines: events.jsonl, its records, who writes it and how it is read.

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
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

REPORT = b'"event": "report"'
HEAD = 120  # bytes of a line within which its event is named

Record = Mapping[str, Any]


class EventLog:
    """Appends records to events.jsonl, each line written whole and at once."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = path.open("ab", buffering=0)  # a line is one write, however long

    def write(self, event: str, *, step: int, **fields: Any) -> None:
        record = {"time": time.time(), "event": event, "step": step, **fields}
        self._file.write(json.dumps(_json_value(record)).encode() + b"\n")

    def close(self) -> None:
        self._file.close()


def _json_value(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null, however deep they are."""
    if isinstance(value, Mapping):
        return {key: _json_value(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_json_value(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class Tail:
    """The lines that a growing file has got since the last look. Only whole lines count: the last one may be torn."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._position = 0

    def lines(self) -> list[bytes]:
        """
        Raises:
            OSError: the file is not there.
        """
        with self._path.open("rb") as file:
            if file.seek(0, 2) < self._position:  # somebody put another file there
                self._position = 0
            file.seek(self._position)
            new = file.read()
        whole, newline, _ = new.rpartition(b"\n")
        self._position += len(whole) + len(newline)
        return whole.split(b"\n") if newline else []


def records(lines: Iterable[bytes], *, last_reports: int | None = None) -> Iterator[Record | None]:
    """The records of the lines in their order; None for a line that is none.

    A worker killed while it wrote leaves half a line, and the next start writes on right behind: what follows is saved.

    Args:
        last_reports: leave out all reports but as many of the last, unread: a long run of many workers has megabytes of
            them.
    """
    if last_reports is not None:
        lines = _only_last(list(lines), last_reports)
    for line in lines:
        if line.strip():
            record = _record(line)
            if record is None and (again := line.rfind(b'{"time"')) > 0:
                yield None
                record = _record(line[again:])
            yield record


def _only_last(lines: list[bytes], count: int) -> list[bytes]:
    reports = [i for i, line in enumerate(lines) if REPORT in line[:HEAD]]
    left_out = set(reports[: max(len(reports) - count, 0)])
    return [line for i, line in enumerate(lines) if i not in left_out]


def _record(line: bytes) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:  # not JSON, or not even UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None
