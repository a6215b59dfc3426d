"""events.jsonl: its lines, read whole or followed while they are written, and the records in them."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

REPORT = b'"event": "report"'
HEAD = 120  # bytes of a line within which its event is named

Record = Mapping[str, Any]


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
        record = json.loads(line, parse_int=float)  # which also takes what no integer of C would
    except ValueError:  # not JSON, or not even UTF-8
        return None
    return record if isinstance(record, dict) and isinstance(record.get("event"), str) else None


def number(record: Record, key: str) -> float:
    """A field as a float; NaN where it is missing, null or no number."""
    value = record.get(key)
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def count(record: Record, key: str, otherwise: int = 0) -> int:
    value = number(record, key)
    return int(value) if math.isfinite(value) else otherwise


def text(record: Record, key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def numbers(record: Record, key: str) -> dict[str, float]:
    """A field that maps names to numbers; what it has of them."""
    value = record.get(key)
    return {str(name): number(value, name) for name in value} if isinstance(value, Mapping) else {}


def series(value: Any) -> tuple[float, ...]:
    """A list of numbers; what is none is NaN."""
    return tuple(float(x) if isinstance(x, int | float) else math.nan for x in value) if isinstance(value, list) else ()
