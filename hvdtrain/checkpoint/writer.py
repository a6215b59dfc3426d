"""Saves in the background: training stands still while the state is copied to memory, not while it is written."""

import io
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Manifest
from hvdtrain.checkpoint.host_copy import HostCopy
from hvdtrain.errors import CheckpointError
from hvdtrain.log import logger


@dataclass(frozen=True)
class Saved:
    path: Path
    manifest: Manifest
    stalled_seconds: float  # that training stood still for it
    seconds: float  # from its begin until it was durable


class Writer:
    """One checkpoint at a time: a second one waits for the first, so that there is never more than one copy in memory.

    Use as a context; its end waits for the save in progress. The thread that writes is there from the beginning: where
    memory is short, one that is started does not always come to life, and whoever starts it waits for ever.
    """

    def __init__(self, folder: Path, *, keep: int) -> None:
        """
        Args:
            folder: of all checkpoints of the run; made if need be.
            keep: so many of the last ones stay, and the best one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        store.sweep(folder)
        self._folder, self._keep = folder, keep
        self._copy = HostCopy()
        self._thread = ThreadPoolExecutor(1, "checkpoint writer")
        self._saving: Future[None] = self._thread.submit(torch.save, {}, io.BytesIO())  # takes what torch wants of it
        self._saving.result()
        self._saved: deque[Saved] = deque()
        self._failure: CheckpointError | None = None

    def save(self, tensors: dict[str, Any], manifest: Manifest) -> None:
        """Copy `tensors`, and leave the rest to the background.

        Raises:
            CheckpointError: there is no room for them, or the save before has failed.
        """
        began = time.perf_counter()
        self._join()
        self.check()
        size = _size(tensors)
        store.check_space(self._folder, size)
        copied = self._copy.of(tensors)
        stalled = time.perf_counter() - began
        self._saving = self._thread.submit(self._write, copied, manifest, began, stalled)

    def check(self) -> None:
        """
        Raises:
            CheckpointError: a save has failed since the last call.
        """
        if failure := self._failure:
            self._failure = None
            raise failure

    def take_saved(self) -> Iterator[Saved]:
        """What has become durable since the last call."""
        while self._saved:
            yield self._saved.popleft()

    def finish(self) -> None:
        """Return when the save in progress is durable.

        Raises:
            CheckpointError: it has failed.
        """
        self._join()
        self.check()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._join()
        self._thread.shutdown()
        if self._failure:
            if kind is None:
                self.check()
            logger.error("%s", self._failure)  # what ends the run already is told elsewhere

    def _join(self) -> None:
        self._saving.result()

    def _write(self, tensors: dict[str, Any], manifest: Manifest, began: float, stalled: float) -> None:
        try:
            path = store.save(self._folder, tensors, manifest)
        except CheckpointError as error:
            self._failure = error
            return
        self._saved.append(Saved(path, manifest, stalled, time.perf_counter() - began))
        try:
            store.prune(self._folder, self._keep)
        except OSError as error:  # the new one is safe; the next save tries again
            logger.warning("an old checkpoint in %s cannot be removed: %s", self._folder, error.strerror)


def _size(value: Any) -> int:
    """Bytes of all tensors in a state."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_size, value.values()))
    return sum(map(_size, value)) if isinstance(value, list | tuple) else 0
