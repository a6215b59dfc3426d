"""Which images of an index are left out: those that cannot be decoded.

A masked image keeps its row and its slot in the stream, so the order of all others never changes; its slot is empty.
On disk, in quarantine.jsonl, each line is {"image": "train/n01440764/n01440764_10026.JPEG", "reason": "…"}.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvdtrain.data.index import Index
from hvdtrain.errors import DataError, EnvironmentFault
from hvdtrain.files import write_whole

FILE = "quarantine.jsonl"


class Quarantine:
    """The masked rows of one index on one worker."""

    def __init__(self, index: Index) -> None:
        self.masked: NDArray[np.bool_] = index.unreadable.copy()  # (images,)
        self.found: dict[int, str] = {}  # row -> reason; this worker found them and the others do not know yet

    def add(self, row: int, reason: str) -> None:
        """Mask what this worker could not decode."""
        if not self.masked[row]:
            self.masked[row] = True
            self.found[row] = reason

    def mask(self, rows: Iterable[int]) -> None:
        """Mask what others found."""
        self.masked[list(rows)] = True

    def take_found(self) -> dict[int, str]:
        found, self.found = self.found, {}
        return found

    @property
    def ratio(self) -> float:
        """Masked images over all images."""
        return float(self.masked.mean())


def rows_of(index: Index, part: str, listed: Iterable[str]) -> list[int]:
    """The rows of `index`, which is that of `part`, that are listed; images that it does not have are passed over."""
    names = {name.removeprefix(f"{part}/") for name in listed if name.startswith(f"{part}/")}
    found = {name: row for name in names if (row := _row_of(index, name)) is not None}
    strange = names - found.keys()  # gone, or in shards whose classes are not the folders of their members
    others = [row for row in range(len(index)) if index.names[row] in strange] if strange else []
    return sorted([*found.values(), *others])


def _row_of(index: Index, name: str) -> int | None:
    """The row of the image, sought where its folder's class is: a look at every name of a million takes seconds."""
    folder = name.rpartition("/")[0]
    at = bisect_left(index.classes, folder)
    first, last = np.searchsorted(index.labels, [at, at + 1]).tolist()
    row = bisect_left(index.names, name, first, last)
    return row if row < last and index.names[row] == name else None


def read(path: Path) -> dict[str, str]:
    """Name -> reason; empty where there is no such file.

    Raises:
        DataError: it cannot be read, or a line is something else.
    """
    try:
        lines = path.read_text().splitlines()
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read the quarantine list {path}: {error}") from None
    reasons = {}
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            reasons[str(entry["image"])] = str(entry["reason"])
        except (ValueError, LookupError, TypeError, RecursionError):
            expected = f'{path}:{number}: expected {{"image": …, "reason": …}}, got {line[:80]!r}'
            raise DataError(expected, remedy="hvdtrain data verify") from None
    return reasons


def write(path: Path, reasons: Mapping[str, str]) -> None:
    """Replace the list at `path`.

    Raises:
        EnvironmentFault: it cannot be written; the list that was there stays.
    """
    lines = (json.dumps({"image": name, "reason": reason}) + "\n" for name, reason in sorted(reasons.items()))
    try:
        write_whole(path, "".join(lines))
    except OSError as error:
        raise EnvironmentFault(
            f"the quarantine list {path} cannot be written: {error.strerror}",
            remedy=f"df -h {path.parent}, then --resume auto",
        ) from None
