"""What a run tells machines: events.jsonl, its records, who writes it and how it is read.

events.jsonl holds one JSON object a line; a number that is not finite is null. Every record of a run has

    time         seconds since 1970, float
    event        one of the names below
    step         optimiser steps done so far
    images_seen  training images that all workers together have seen so far

and by event:

    start        world_size, global_batch_size, batch_size, images_per_epoch, total_images
    resume       the same, when the run goes on from a checkpoint; where it goes on with other workers (--elastic), from
                 their last commit, also resets: how often they have changed since its start or the resume without it;
                 lost_images: images since the commit, which are done again
    changed      settings that are others than at the start before: [before, now] of each, by its dotted name
    baseline     source, workers, measured_at, origin, step_seconds, standard_error, samples, parts, ranks, together,
                 communication: what efficiency is measured against, see metrics/efficiency.py
    report       epoch, lr, loss, images_per_second; steps since the last one and step_seconds of each; parts, ranks:
                 where these went, see metrics/breakdown.py; slowest_rank; efficiency, or null without a baseline
    evaluate     epoch, top1, top5, loss, images, seconds; average_top1, average_top5, average_loss
    quarantine   part, image, reason: an image that cannot be decoded is left out from now on
    not_finite   what: loss or gradient; ranks whose loss it was; action: stop, skip or rewind
    checkpoint   path; step and images_seen are the checkpoint's; stalled_seconds that training stood still for it;
                 seconds until it was durable
    stalled      ranks, message: whom the watchdog blames and for what; images_seen is that of the record before
    preempted    message: a signal asked the run to leave, and all is saved
    end          seconds, images_per_second
"""

import json
import math
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from hvdtrain.errors import EnvironmentFault
from hvdtrain.log import logger
from hvdtrain.masking import masked_fields

REPORT = b'"event": "report"'
HEAD = 120  # bytes of a line within which its event is named

Record = Mapping[str, Any]


class EventLog:
    """Appends records to events.jsonl, each line at once. What cannot be written, as on a full disk, is lost: readers
    step over its torn piece, the run goes on, and the log says what is missing."""

    def __init__(self, path: Path) -> None:
        """
        Raises:
            EnvironmentFault: the file cannot be opened.
        """
        self._path = path
        self._failing = False
        self._missing = 0  # records lost since it began to fail
        self._rest = b""  # of the last line, not written
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file: IO[bytes] = path.open("a+b", buffering=0)  # a line is one write, however long
            self._torn = _ends_within_a_line(self._file)
        except OSError as error:
            raise EnvironmentFault(
                f"{path} cannot be written: {error.strerror}", remedy=f"df -h {path.parent}; ls -ld {path.parent}"
            ) from None

    def write(self, event: str, *, step: int, **fields: Any) -> None:
        """Secrets in `fields` are masked."""
        record = {"time": time.time(), "event": event, "step": step, **masked_fields(fields)}
        line = json.dumps(_json_value(record)).encode() + b"\n"
        try:
            self._append(b"\n" + line if self._torn else line)
        except OSError as error:
            if not self._failing:
                logger.warning("%s cannot be written: %s; the run goes on without it", self._path, error.strerror)
            self._failing = True
            self._missing += self._rest != b"\n"  # which the next one begins with
        else:
            if self._failing:
                logger.warning("%s can be written again; records missing there: %d", self._path, self._missing)
            self._failing, self._missing = False, 0

    def close(self) -> None:
        if self._failing:
            logger.warning("%s is not whole; records missing there: %d", self._path, self._missing)
        try:
            self._file.close()
        except OSError as error:  # a network disk may say only now that it is full
            logger.warning("%s may not be whole: %s", self._path, error.strerror)

    def _append(self, line: bytes) -> None:
        """A short write is gone on with: the next one says why it was short."""
        self._rest = line
        while self._rest:
            written = self._file.write(self._rest)
            self._rest = self._rest[written:]
            self._torn = bool(self._rest) if written else self._torn


def _ends_within_a_line(file: IO[bytes]) -> bool:
    """As the file of a run that was killed while it wrote does."""
    if file.seek(0, os.SEEK_END) == 0:
        return False
    file.seek(-1, os.SEEK_END)
    return file.read(1) != b"\n"


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
    except (ValueError, RecursionError):  # not JSON, not even UTF-8, or nested without end
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None
