"""Folders of images -> tar shards, which a network disk reads faster than a million files.

The shards are standard ones of the webdataset package. Their images lie in a random order, for those who read them one
after the other; this package reads by offset, in the order and to the pictures of the folders.
"""

import io
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from hvdtrain.data import keyed, scan, shards
from hvdtrain.data.index import Index
from hvdtrain.data.parallel import WORTH_PROCESSES, parallel
from hvdtrain.data.pillow import FAULTS, decode, read_file, rgb
from hvdtrain.data.progress import progress
from hvdtrain.errors import DataError, EnvironmentFault
from hvdtrain.files import replace_whole, write_whole

RESAMPLING = Image.Resampling.LANCZOS  # the sharpest of Pillow's filters: what is lost is the pixels alone
PACKING = "packing.json"  # beside the shards: of what, and how
QUALITY = 92  # of JPEGs made anew; ImageNet's own have 96 on average


@dataclass(frozen=True)
class Shard:
    """One tar file to write."""

    path: Path
    root: Path  # of the folders
    images: tuple[tuple[str, int], ...]  # name below root, label
    max_side: int | None


def pack(source: Path, target: Path, *, cache: Path, workers: int, shard_bytes: int, max_side: int | None) -> int:
    """Write target/<part>/<part>-000000.tar … for each of train and val in `source`; returns the number of images.

    A shard that is there already is kept, so a packing that was stopped goes on.

    Args:
        cache: where the index of `source` is kept if `source` cannot be written.
        shard_bytes: size from which a next shard begins.
        max_side: shrink images whose longer side is longer, pixels; None leaves every byte as it is.

    Raises:
        DataError: `source` has no images or names that cannot be packed, or `target` has shards of another packing.
        EnvironmentFault: `target` cannot be written.
    """
    parts = [part for part in ("train", "val") if (source / part).is_dir()]
    if not parts:
        raise DataError(f"{source} has neither train/ nor val/: expected {source}/train/<class>/*.JPEG")
    images = 0
    for part in parts:
        index = scan.find(source / part, cache=cache, workers=workers)
        if index.shards:
            raise DataError(f"{source / part} is packed already")
        _check_names(index)
        _check_target(target / part)
        try:
            _pack(index, source / part, target / part, workers=workers, shard_bytes=shard_bytes, max_side=max_side)
        except OSError as error:
            raise EnvironmentFault(
                f"cannot write {target / part}: {error}", remedy="the same command goes on"
            ) from None
        scan.find(target / part, cache=cache, workers=workers)
        images += len(index)
    return images


def _pack(index: Index, root: Path, folder: Path, *, workers: int, shard_bytes: int, max_side: int | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    planned = list(_plan(index, root, folder, shard_bytes=shard_bytes, max_side=max_side))
    _claim(folder, {"source": index.digest, "shard_bytes": shard_bytes, "max_side": max_side})
    write_whole(folder / shards.CLASSES, "".join(f"{name}\n" for name in index.classes))
    with progress(f"packing {folder.name}", len(index)) as advance:
        for written in parallel(_write, planned, workers=workers, processes=len(index) >= WORTH_PROCESSES):
            advance(written)


def _check_names(index: Index) -> None:
    """The webdataset package takes a name up to its first dot for the key, and the rest for the kind of content."""
    keys = set()
    for name in index.names:
        path = Path(name)
        key = name[: -len(path.suffix)]
        if "." in path.stem or key in keys:
            raise DataError(f"{name} cannot be packed: expected one dot in a file's name, and one image of that name")
        keys.add(key)
    for name in index.classes:
        if "\n" in name or not _is_text(name):
            raise DataError(f"the class {name!r} cannot be packed: expected a name of one line of text")


def _check_target(folder: Path) -> None:
    """Shards among class folders would be taken for the data set instead of them."""
    if folder.is_dir() and (classes := [entry.name for entry in folder.iterdir() if entry.is_dir()]):
        raise DataError(
            f"{folder} has the folder {min(classes)}: expected none, or shards alone", remedy="another TARGET"
        )


def _is_text(name: str) -> bool:
    """Whether its bytes are UTF-8: those that are not are surrogates here, which nothing can be written with."""
    return not any("\ud800" <= letter <= "\udfff" for letter in name)


def _claim(folder: Path, packing: dict[str, Any]) -> None:
    """Say what the shards in `folder` are, or see that they are just these."""
    file = folder / PACKING
    if file.exists() and (known := file.read_bytes().strip()) != json.dumps(packing).encode():
        raise DataError(f"{file} has {known[:200]!r}: expected {json.dumps(packing)}", remedy="another folder")
    if not file.exists() and shards.files(folder):
        raise DataError(f"{folder} has shards of another packing", remedy="another folder")
    write_whole(file, json.dumps(packing) + "\n")


def _plan(index: Index, root: Path, folder: Path, *, shard_bytes: int, max_side: int | None) -> Iterator[Shard]:
    """Which images go into which shard: the same every time."""
    order = np.argsort(keyed.words(0, np.arange(len(index))), kind="stable")
    shard_of = np.cumsum(index.sizes[order]) // shard_bytes
    for number, rows in enumerate(np.split(order, np.flatnonzero(np.diff(shard_of)) + 1)):
        images = tuple((index.names[row], int(index.labels[row])) for row in rows.tolist())
        yield Shard(folder / f"{folder.name}-{number:06}.tar", root, images, max_side)


def _write(shard: Shard) -> int:
    """Returns the number of images."""
    if not shard.path.exists():
        with replace_whole(shard.path, "wb") as file, tarfile.open(fileobj=file, mode="w|") as tar:
            for name, label in shard.images:
                _add(tar, name, _content(shard, name))
                _add(tar, f"{name.rpartition('.')[0]}{shards.LABEL_SUFFIX}", str(label).encode())
    return len(shard.images)


def _content(shard: Shard, name: str) -> bytes:
    """The image's bytes, shrunk if it is too large; those of what is no image stay as they are, and keep their row."""
    try:
        data = read_file(f"{shard.root}/{name}")
    except OSError:
        return b""
    if shard.max_side is None:
        return data
    try:
        image = decode(data)
    except FAULTS:
        return data
    if max(image.size) <= shard.max_side:
        return data
    small = rgb(image)
    small.thumbnail((shard.max_side, shard.max_side), RESAMPLING)
    packed = io.BytesIO()
    small.save(packed, "JPEG", quality=QUALITY)
    return packed.getvalue()


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
