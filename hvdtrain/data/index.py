"""The table of a data set's images: name, label, bytes and pixel size of each, in columns of a few bytes per image.

It is made once (see scan.py) and read by every worker of every run after that, a million rows in well under a second.
"""

import hashlib
import json
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from hvdtrain.errors import DataError
from hvdtrain.files import replace_whole

SCHEMA = 1

# What numpy and zipfile raise over a file that is no table of ours, or has a damaged byte.
_TORN = (
    OSError,
    ValueError,
    LookupError,
    TypeError,
    AttributeError,
    RuntimeError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
)


class Names(Sequence[str]):
    """Many texts in one array of bytes: a million Python strings would take three times the memory."""

    def __init__(self, letters: NDArray[np.uint8], ends: NDArray[np.int64]) -> None:
        self.letters = letters  # (bytes of all texts,)
        self.ends = ends  # (texts,) where each ends in letters

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Names":
        encoded = [os.fsencode(text) for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        return cls(np.frombuffer(b"".join(encoded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        if not -len(self) <= row < len(self):
            raise IndexError(row)
        row %= len(self)
        begin = self.ends[row - 1] if row else 0
        return os.fsdecode(self.letters[begin : self.ends[row]].tobytes())

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Names):
            return NotImplemented
        return np.array_equal(self.letters, other.letters) and np.array_equal(self.ends, other.ends)


@dataclass(frozen=True)
class Index:
    """Rows are sorted by class and then by name, wherever the bytes of the images lie."""

    classes: tuple[str, ...]
    names: Names  # class/file of each image
    labels: NDArray[np.int64]  # (images,) positions in classes
    sizes: NDArray[np.int64]  # (images,) bytes of the encoded image
    heights: NDArray[np.int32]  # (images,) pixels; 0 where the image cannot be read
    widths: NDArray[np.int32]  # (images,) pixels; 0 where the image cannot be read
    shards: tuple[str, ...] = ()  # the tar files that hold the images; none where each is a file of its own
    shard: NDArray[np.int32] | None = None  # (images,) positions in shards
    offsets: NDArray[np.int64] | None = None  # (images,) where the image begins in its shard

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(cls, columns: Mapping[str, NDArray[Any]], classes: tuple[str, ...], shards: tuple[str, ...]) -> "Index":
        """The inverse of `columns`."""
        others = {name: column for name, column in columns.items() if name not in ("letters", "ends")}
        return cls(classes, Names(columns["letters"], columns["ends"]), **others, shards=shards)

    def columns(self) -> dict[str, NDArray[Any]]:
        """All that is one number per image or letter."""
        every = {"letters": self.names.letters, "ends": self.names.ends}
        every |= {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: column for name, column in every.items() if isinstance(column, np.ndarray)}

    @property
    def unreadable(self) -> NDArray[np.bool_]:
        """(images,) what was no image when the index was made."""
        unreadable: NDArray[np.bool_] = self.heights == 0
        return unreadable

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits over what decides the pictures of a run: not over whether shards or folders hold them."""
        state = hashlib.sha256(json.dumps([SCHEMA, self.classes]).encode())
        for column in (self.names.letters, self.names.ends, self.labels, self.sizes, self.heights, self.widths):
            state.update(np.ascontiguousarray(column).data)
        return state.hexdigest()[:16]


def save(path: Path, index: Index, *, fingerprint: str) -> None:
    """Write the table to `path` in one instant; `fingerprint` says of what state of the files it is the table."""
    header = {
        "schema": SCHEMA,
        "fingerprint": fingerprint,
        "digest": index.digest,
        "classes": index.classes,
        "shards": index.shards,
    }
    columns: dict[str, Any] = dict(index.columns())
    with replace_whole(path, "wb") as file:
        np.savez(file, header=np.frombuffer(json.dumps(header).encode(), np.uint8), **columns)


def load(path: Path) -> tuple[Index, str]:
    """The table at `path` and the fingerprint that it was saved with.

    Raises:
        DataError: there is none, it is torn, or another version wrote it.
    """
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            columns = {name: file[name] for name in file.files}
        header = json.loads(columns.pop("header").tobytes())
        if header["schema"] != SCHEMA:
            raise DataError(f"{path} has schema {header['schema']}: expected {SCHEMA}")
        index = Index.of(columns, tuple(header["classes"]), tuple(header["shards"]))
        if index.digest != header["digest"] or len({not index.shards, index.shard is None, index.offsets is None}) > 1:
            raise DataError(f"{path} is torn: its digest is {index.digest}, expected {header['digest']}")
        return index, str(header["fingerprint"])
    except _TORN as error:
        raise DataError(f"{path} is no index: {error}") from None
