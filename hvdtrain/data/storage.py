"""Where the bytes of the images are: each in a file of its own, or at an offset of a shard."""

import os
import resource
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from hvdtrain.data.index import Index
from hvdtrain.data.parallel import thread_pool
from hvdtrain.data.pillow import Span

Inputs = list[NDArray[np.uint8]]


class Storage(Protocol):
    by_name: bool
    """Whether `fetch` gives the names of files, which the decoder reads, instead of their contents."""

    def fetch(self, rows: NDArray[np.int64]) -> Callable[[], Inputs]:
        """Begin to read; the returned function waits. What cannot be read comes as no bytes, which no decoder takes."""

    def place(self, row: int) -> str:
        """Where it is, for a person."""


def storage(root: Path, index: Index, *, threads: int) -> Storage:
    """Where the images of `index`, which was made of `root`, are read."""
    return Shards(root, index, threads=threads) if index.shards else Folders(root, index)


class Folders:
    by_name = True

    def __init__(self, root: Path, index: Index) -> None:
        self._root, self._names = root, index.names

    def fetch(self, rows: NDArray[np.int64]) -> Callable[[], Inputs]:
        names = [np.frombuffer(os.fsencode(self.place(row)), np.uint8) for row in rows]
        return lambda: names

    def place(self, row: int) -> str:
        return f"{self._root}/{self._names[row]}"


class Shards:
    by_name = False

    def __init__(self, root: Path, index: Index, *, threads: int) -> None:
        self._root, self._index = root, index
        self._pool = thread_pool(max(threads, 1), "shards")
        self._descriptors: dict[int, int] = {}
        self._opening = Lock()
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # every shard stays open

    def fetch(self, rows: NDArray[np.int64]) -> Callable[[], Inputs]:
        reading = [self._pool.submit(self._bytes, row) for row in rows.tolist()]
        return lambda: [future.result() for future in reading]

    def _read(self, row: int) -> bytes:
        index = self._index
        assert index.shard is not None
        assert index.offsets is not None
        shard = int(index.shard[row])
        with self._opening:
            if shard not in self._descriptors:
                self._descriptors[shard] = os.open(self._root / index.shards[shard], os.O_RDONLY)
        return Span(self._descriptors[shard], int(index.offsets[row]), int(index.sizes[row])).read()

    def place(self, row: int) -> str:
        assert self._index.shard is not None
        return f"{self._root / self._index.shards[self._index.shard[row]]}:{self._index.names[row]}"

    def _bytes(self, row: int) -> NDArray[np.uint8]:
        try:
            return np.frombuffer(self._read(row), np.uint8)
        except OSError:
            return np.zeros(0, np.uint8)
