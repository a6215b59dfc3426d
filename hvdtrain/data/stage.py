"""Copying the images that a node will read to a fast folder of its own."""

import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvdtrain.data import order
from hvdtrain.data.index import Index
from hvdtrain.errors import DataError, EnvironmentFault
from hvdtrain.log import logger

COPIES = 8  # at a time: a network disk answers several askers faster than one
COPY_BYTES = 1 << 20
MARGIN = 0.02  # of the file system that stays free


def folder(chosen: str, environment: Mapping[str, str]) -> Path:
    """Where a node stages: what was chosen, or its job's own folder, or its memory."""
    return Path(chosen or environment.get("SLURM_TMPDIR") or "/dev/shm")


def training_rows(
    *, seed: int, images: int, images_seen: int, total_images: int, ranks: list[int], size: int, batch_size: int
) -> NDArray[np.bool_]:
    """(images,) whether any of `ranks` reads the row between `images_seen` and `total_images` of the stream."""
    needed = np.zeros(images, np.bool_)
    for epoch in range(images_seen // images, -(-total_images // images)):
        if needed.all():
            break
        positions = epoch * images + np.arange(images)
        reader = (positions - images_seen) // batch_size % size
        here = np.isin(reader, ranks) & (positions >= images_seen) & (positions < total_images)
        needed[order.permutation(seed, epoch, images)[here]] = True
    return needed


def evaluation_rows(*, images: int, ranks: list[int], size: int, batch_size: int) -> NDArray[np.bool_]:
    """(images,) whether any of `ranks` evaluates the row."""
    needed = np.zeros(images, np.bool_)
    for rank in ranks:
        share = order.evaluation_share(batches=-(-images // batch_size), rank=rank, size=size)
        needed[share.start * batch_size : share.stop * batch_size] = True
    return needed


def files(index: Index, rows: NDArray[np.bool_], root: Path) -> dict[str, int]:
    """The files below `root` that hold those rows, and the bytes of each; images that cannot be read are left out."""
    rows = rows & ~index.unreadable
    if index.shard is None:
        return {index.names[row]: int(index.sizes[row]) for row in np.flatnonzero(rows).tolist()}
    shards = [index.shards[shard] for shard in np.unique(index.shard[rows]).tolist()]
    return {shard: (root / shard).stat().st_size for shard in shards}


def missing(wanted: Mapping[str, int], target: Path) -> dict[str, int]:
    """Those of the files that are not in `target` with their size already."""
    found = {}
    for name, size in wanted.items():
        path = target / name
        if not path.exists() or path.stat().st_size != size:
            found[name] = size
    return found


def check_space(needed: int, target: Path) -> None:
    """
    Raises:
        EnvironmentFault: `target`'s file system has less room than `needed` bytes.
    """
    disk = shutil.disk_usage(target)
    room = disk.free - int(disk.total * MARGIN)
    if needed > room:
        raise EnvironmentFault(
            f"{target} has room for {room / 1e9:.1f} GB, this node's images take {needed / 1e9:.1f} GB",
            remedy="set data.stage_dir to a larger disk, or data.stage to none",
        )


def copy(wanted: Mapping[str, int], source: Path, target: Path, done: Callable[[int], None]) -> None:
    """Copy files of known bytes, each appearing whole; `done` hears the bytes of each.

    A file that cannot be read is left out: it will count as an image that cannot be decoded.

    Raises:
        DataError: a file cannot be written, or has another size than the index says.
    """

    def copy_one(name: str) -> None:
        path = target / name
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            original = (source / name).open("rb")
        except OSError as error:
            logger.warning("not staged: %s", error)
            return
        try:
            with original:
                path.parent.mkdir(parents=True, exist_ok=True)
                with temporary.open("wb") as near:
                    shutil.copyfileobj(original, near, COPY_BYTES)
                    size = near.tell()
            if size != wanted[name]:
                raise DataError(f"{source / name} has {size} bytes, the index says {wanted[name]}")
            temporary.replace(path)
        except OSError as error:
            raise DataError(f"cannot stage {source / name} in {target}: {error}") from None
        finally:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
        done(size)

    with ThreadPoolExecutor(COPIES) as pool:
        try:
            list(pool.map(copy_one, wanted))
        except DataError:
            pool.shutdown(cancel_futures=True)
            raise
