"""Writing the images of an archive so that whatever is killed when, what is there is whole and is not done twice.

A batch of images is written into a hidden folder; then the whole batch is made durable at once, for a million fsyncs
would take longer than all the rest; then each image gets its name. What was done is recorded beside train/ and val/, so
that the finished is known to be so without another look into the archive.
"""

import ctypes
import errno
import fcntl
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hvdtrain.data.archives import Image, content
from hvdtrain.data.progress import progress
from hvdtrain.errors import DataError, EnvironmentFault
from hvdtrain.files import write_whole
from hvdtrain.log import logger

UNFINISHED = ".unfinished"  # folder in train/ or val/ until all images are there
HEADER_BYTES = 512  # of an image in a tar archive
MB = 1_000_000
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

Held = dict[str, tuple[int, int]]  # wnid -> images, bytes of them all


@dataclass(frozen=True)
class Batch:
    """Images that are made durable and get their names together."""

    wnids: frozenset[str]
    size: int  # bytes, at most
    images: Callable[[BinaryIO], Iterable[Image]]  # of the open archive


@dataclass(frozen=True)
class Part:
    """train or val: what is to be there, and what is."""

    archive: Path
    root: Path
    record: Path
    md5: str | None  # of the archive, where it is known to be the official one
    batches: list[Batch]
    room: dict[str, int]  # wnid -> bytes that its images take at most
    expected: Held  # of the classes whose images are known; extraction adds the others
    held: Held  # of the classes that have a folder

    def whole(self) -> bool:
        return not self.unfinished() and not (self.root / UNFINISHED).exists()

    def unfinished(self) -> list[Batch]:
        return [batch for batch in self.batches if not all(map(self._done, batch.wnids))]

    def needed(self) -> int:
        """Bytes still to be written, at most."""
        there = {wnid: size + images * HEADER_BYTES for wnid, (images, size) in self.held.items()}
        return sum(max(size - there.get(wnid, 0), 0) for wnid, size in self.room.items() if not self._done(wnid))

    def _done(self, wnid: str) -> bool:
        return wnid in self.expected and self.expected[wnid] == self.held.get(wnid)


def extract(part: Part, md5: str | None) -> None:
    """Write the images that are not there, and those of another size; complete `part.expected`.

    Args:
        md5: of the archive, to be recorded.

    Raises:
        DataError: the archive cannot be read, or a class folder holds what is not from the archive.
        EnvironmentFault: the disk is full or cannot be written, or another process is at it.
    """
    batches = part.unfinished()
    try:
        with _locked(part.record.parent), _staging(part.root) as staging, part.archive.open("rb") as file:
            _save(part, md5)
            with progress_in_mb(f"writing {part.root.name}", sum(batch.size for batch in batches)) as advance:
                for batch in batches:
                    _write(part, batch, file, staging, advance)
                    _save(part, md5)
            _sync_file_system(part.root)  # the last names too
            for wnid in sorted({wnid for batch in batches for wnid in batch.wnids}):
                _check(part.root / wnid, part.expected[wnid])
    except OSError as error:
        remedy = "make room, then the same command goes on from here" if error.errno in FULL else ""
        raise EnvironmentFault(f"cannot write to {part.root}: {error}", remedy=remedy) from None


def _write(part: Part, batch: Batch, file: BinaryIO, staging: Path, advance: Callable[[int], None]) -> None:
    found = dict.fromkeys(batch.wnids, (0, 0))
    fresh: list[Image] = []
    for image in batch.images(file):
        path = part.root / image.wnid / image.name
        if image.wnid not in part.held or not path.is_file() or path.stat().st_size != image.size:
            (staging / image.name).write_bytes(content(file, image, str(part.archive)))
            fresh.append(image)
        images, size = found[image.wnid]
        found[image.wnid] = images + 1, size + image.size
        advance(image.size)
    if fresh:
        _sync_file_system(staging)
    for image in fresh:
        (part.root / image.wnid).mkdir(exist_ok=True)
        (staging / image.name).replace(part.root / image.wnid / image.name)
    for wnid, known in found.items():
        part.expected.setdefault(wnid, known)


def _check(folder: Path, expected: tuple[int, int]) -> None:
    there = count(folder)
    if there != expected:
        raise DataError(
            "{} has {} files of {} bytes in all: expected {} of {}".format(folder, *there, *expected),
            remedy="take out what is not from the archive",
        )


def count(folder: Path) -> tuple[int, int]:
    """Files and bytes in a class folder; hidden files are none of the images."""
    sizes = [entry.stat().st_size for entry in os.scandir(folder) if not entry.name.startswith(".")]
    return len(sizes), sum(sizes)


def _sync_file_system(folder: Path) -> None:
    """syncfs(2), which Python has not: os.sync would wait for every disk of the machine, and hide that one failed."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).syncfs(descriptor):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(folder))
    finally:
        os.close(descriptor)


@contextmanager
def _staging(root: Path) -> Iterator[Path]:
    """An empty folder on the file system of the class folders. It stays, emptied, if the block raises."""
    staging = root / UNFINISHED
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    try:
        yield staging
    except BaseException:
        for path in staging.iterdir():
            path.unlink()
        raise
    staging.rmdir()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps other processes out, and clears away what a killed one has left."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "prepare.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise EnvironmentFault(f"another process is preparing {folder.parent}", remedy="wait for it") from None
        except OSError as error:
            logger.debug("%s has no locks: %s", folder, error)  # which some network disks have not
        for torn in folder.glob(".prepared-*.tmp"):
            torn.unlink()
        yield


def recorded(record: Path, archive: Path) -> tuple[str | None, Held]:
    """MD5 and classes that were recorded of this archive; nothing where it is another one, or has changed."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        found = json.loads(record.read_text())
        if found["archive"] == _identity(archive):
            return found["md5"], {wnid: (images, size) for wnid, (images, size) in found["classes"].items()}
    return None, {}


def _save(part: Part, md5: str | None) -> None:
    known = {"archive": _identity(part.archive), "md5": md5, "classes": dict(sorted(part.expected.items()))}
    write_whole(part.record, json.dumps(known) + "\n")


def _identity(archive: Path) -> list[int]:
    return [archive.stat().st_size, archive.stat().st_mtime_ns]


@contextmanager
def progress_in_mb(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """A function to call with how many more bytes are done."""
    rest = 0
    with progress(f"{what}, MB", total // MB) as advance:

        def more(count: int) -> None:
            nonlocal rest
            whole, rest = divmod(rest + count, MB)
            if whole:
                advance(whole)

        yield more
