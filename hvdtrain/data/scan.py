"""Folders or tar shards of images -> their index, made once and kept for all later runs."""

import errno
import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvdtrain.data import index as table
from hvdtrain.data import shards
from hvdtrain.data.extract import UNFINISHED
from hvdtrain.data.index import Index, Names
from hvdtrain.data.parallel import WORTH_PROCESSES, parallel
from hvdtrain.data.pillow import SUFFIXES, measure, regular
from hvdtrain.data.progress import progress
from hvdtrain.errors import DataError
from hvdtrain.log import logger

BESIDE = ".hvdtrain"  # folder beside train/ and val/ with what is known of them
CHUNK = 500  # images that one worker measures at a time
THREADS_PER_PROCESS = 4  # they wait for a network disk more than they compute
REMEDY = "--data.dir DIR, of eval --data DIR; hvdtrain data demo DIR writes digits to try with"
SPOT_CHECKS = 256  # files whose size is asked for when a kept index is taken


def find(root: Path, *, cache: Path, workers: int) -> Index:
    """The index of `root`: the one that was kept where nothing has changed since, or a new one, which is kept.

    It is kept beside `root`, or below `cache` where that cannot be written.

    Raises:
        DataError: no such folder, no images, or images that cannot be told apart into classes.
        MemoryError: for want of it.
    """
    try:
        if not root.is_dir():
            raise DataError(f"no folder {root}: expected {root}/<class>/*.JPEG or {root}/*.tar", remedy=REMEDY)
        if (root / UNFINISHED).exists():
            raise DataError(f"{root} is not finished", remedy="hvdtrain data prepare, which goes on with it")
        print_now = fingerprint(root)
        places = kept_at(root, cache)
        for place in places:
            if _exists(place) and (known := _kept(place, root, print_now)):
                return known
        logger.info("indexing %s", root)
        index = scan(root, workers=workers)
    except OSError as error:
        if error.errno == errno.ENOMEM:
            raise MemoryError(f"while reading {root}") from None
        raise DataError(f"cannot read {root}: {error}") from None
    keep(index, places, fingerprint=print_now)
    return index


def kept_at(root: Path, cache: Path) -> tuple[Path, Path]:
    """Where the index of `root` may lie: beside it, or in a cache folder under the digest of its path."""
    elsewhere = hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:16]
    return root.parent / BESIDE / f"{root.name}.npz", cache / elsewhere / f"{root.name}.npz"


def keep(index: Index, places: Sequence[Path], *, fingerprint: str) -> None:
    """Save the index at the first place that can be written."""
    for place in places:
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            table.save(place, index, fingerprint=fingerprint)
            return
        except OSError as error:
            reason = error
    logger.warning("the index cannot be kept, it will be made anew by every run: %s", reason)


def fingerprint(root: Path) -> str:
    """Changes when a file below `root` appears, vanishes or is renamed, at the cost of one look per class or shard."""
    packed = shards.files(root)
    listed = [root / shards.CLASSES] if packed and (root / shards.CLASSES).exists() else []
    entries = [*packed, *listed] or [root / name for name in ("", *_classes(root))]
    seen = [(entry.name, entry.stat().st_mtime_ns, entry.stat().st_size if packed else 0) for entry in entries]
    return hashlib.sha256(json.dumps(seen).encode()).hexdigest()[:16]


def scan(root: Path, *, workers: int) -> Index:
    """Look at every image below `root`: <class>/<image> files, or tar shards as webdataset writes them."""
    if shards.files(root):
        return shards.scan(root, workers=workers)
    classes = _classes(root)
    files = [sorted(e.name for e in os.scandir(root / name) if _is_image(e.name)) for name in classes]
    paths = [f"{name}/{file}" for name, inside in zip(classes, files, strict=True) for file in inside]
    if not paths:
        raise DataError(f"no images in {root}: expected {root}/<class>/*.JPEG or {root}/*.tar", remedy=REMEDY)
    chunks = [(str(root), paths[i : i + CHUNK]) for i in range(0, len(paths), CHUNK)]
    found: list[NDArray[np.int64]] = []
    with progress("indexing images", len(paths)) as advance:
        for measured in parallel(_measure_files, chunks, workers=workers, processes=len(paths) >= WORTH_PROCESSES):
            found.append(measured)
            advance(len(measured))
    columns: NDArray[np.int64] = np.concatenate(found)
    return Index(
        classes=classes,
        names=Names.of(paths),
        labels=np.repeat(np.arange(len(classes)), [len(inside) for inside in files]).astype(np.int64),
        sizes=columns[:, 0].copy(),
        heights=columns[:, 1].astype(np.int32),
        widths=columns[:, 2].astype(np.int32),
    )


def _measure_files(chunk: tuple[str, list[str]]) -> NDArray[np.int64]:
    """Bytes, height, width of each file. Shape (files, 3)."""
    root, paths = chunk
    rows = np.zeros((len(paths), 3), np.int64)

    def measure_every(first: int) -> None:
        for row in range(first, len(paths), THREADS_PER_PROCESS):
            rows[row] = _measure_file(f"{root}/{paths[row]}")

    with ThreadPoolExecutor(THREADS_PER_PROCESS) as pool:
        list(pool.map(measure_every, range(THREADS_PER_PROCESS)))
    return rows


def _measure_file(path: str) -> tuple[int, int, int]:
    try:
        with regular(path) as span:
            return span.size, *measure(span)
    except OSError:
        return 0, 0, 0


def _kept(place: Path, root: Path, fingerprint: str) -> Index | None:
    """The index at `place`, unless it is torn or the images have changed."""
    try:
        index, made_for = table.load(place)
    except DataError as error:
        logger.warning("%s; making it anew", error)
        return None
    if made_for != fingerprint:
        logger.info("%s has changed since %s was made", root, place)
        return None
    if not index.shards:
        for row in range(0, len(index), max(len(index) // SPOT_CHECKS, 1)):
            path = root / index.names[row]
            if path.exists() and path.stat().st_size != index.sizes[row]:
                logger.info("%s has changed since %s was made", path, place)
                return None
    return index


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except OSError:
        return False


def _classes(root: Path) -> tuple[str, ...]:
    return tuple(sorted(e.name for e in os.scandir(root) if e.is_dir() and not e.name.startswith(".")))


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")
