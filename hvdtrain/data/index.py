"""Folders of images -> one table: path, label, pixel size of each."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from hvdtrain.errors import DataError

SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp"})


@dataclass(frozen=True)
class Index:
    root: Path
    classes: tuple[str, ...]
    paths: tuple[str, ...]  # below root, sorted
    labels: NDArray[np.int64]  # (images,) positions in classes
    heights: NDArray[np.int32]  # (images,) pixels
    widths: NDArray[np.int32]  # (images,) pixels

    def __len__(self) -> int:
        return len(self.paths)


def build(root: Path, *, threads: int) -> Index:
    """Read root/<class>/<image>; labels count the classes in sorted order.

    Raises:
        DataError: there is no such folder, no class, no image, or an image whose header cannot be read.
    """
    if not root.is_dir():
        raise DataError(f"no folder {root}: expected {root}/<class>/*.JPEG", remedy="set data.dir")
    try:
        classes = tuple(sorted(entry.name for entry in root.iterdir() if entry.is_dir()))
        files = [sorted(e.name for e in (root / name).iterdir() if e.suffix.lower() in SUFFIXES) for name in classes]
    except OSError as error:
        raise DataError(f"cannot read the folders of {root}: {error}") from None
    paths = [f"{name}/{file}" for name, inside in zip(classes, files, strict=True) for file in inside]
    labels = np.repeat(np.arange(len(classes)), [len(inside) for inside in files])
    if not paths:
        raise DataError(f"no images in {root}: expected {root}/<class>/*.JPEG", remedy="set data.dir")
    with ThreadPoolExecutor(max_workers=max(threads, 1)) as pool:
        sizes = np.array(list(pool.map(_size, (root / path for path in paths))), np.int32)
    return Index(root, classes, tuple(paths), labels.astype(np.int64), sizes[:, 0], sizes[:, 1])


def _size(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except (OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{path} is no image that can be read: {error}") from None
