"""The checkpoints of a run: a folder each, which appears whole under its final name.

The one with the most images is the latest; there is no pointer that could dangle. One that turns out broken is renamed,
so that nothing stumbles over it twice, and kept for a person to look at.
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint.format import Broken, Checkpoint, Manifest
from hvdtrain.errors import CheckpointError
from hvdtrain.files import folder_whole, sync_folder

NAMES = "images-*"
ASIDE = "broken-"
RESERVE = 2**20  # bytes; for the manifest, and for whoever else writes meanwhile


@dataclass(frozen=True)
class Latest:
    checkpoint: Checkpoint | None
    broken: tuple[Broken, ...]
    """What is wrong with those that would have been later; they have been put aside."""


def save(folder: Path, tensors: dict[str, Any], manifest: Manifest) -> Path:
    """Write one checkpoint into `folder`; returns its path, under which it is whole and durable. One of the same images
    is of the same state; it gives way only where this one knows an accuracy and that one did not.

    Raises:
        CheckpointError: it cannot be written; what was there before is as it was.
    """
    path = folder / f"images-{manifest.images_seen:012}"
    try:
        if path.exists():
            there = _whole(path)
            if there is None:
                _put_aside(path)
            elif there.top1 is not None or manifest.top1 is None:
                return path
        with folder_whole(path) as temporary:
            form.write(temporary, tensors, manifest)
            if path.exists():
                path.rename(_older(path))
        shutil.rmtree(_older(path), ignore_errors=True)
    except (OSError, MemoryError, RuntimeError) as error:
        raise CheckpointError(
            f"{path} cannot be saved: {_cause(error)}", remedy="make room, then --resume auto"
        ) from error
    return path


def check_space(folder: Path, size: int) -> None:
    """
    Args:
        size: of the tensors to come, bytes.

    Raises:
        CheckpointError: there is no room for them.
    """
    try:
        free, needed = shutil.disk_usage(folder).free, size + RESERVE
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be looked at: {error.strerror}", remedy=f"df -h {folder}") from None
    if free < needed:
        raise CheckpointError(
            f"{folder} has no room for a checkpoint: {free / 1e6:,.0f} MB free, it takes {needed / 1e6:,.0f} MB",
            remedy="make room, then --resume auto",
        )


def paths(folder: Path) -> list[Path]:
    """All that have the name of a checkpoint, the latest first."""
    return sorted(folder.glob(NAMES), reverse=True)


def latest(folder: Path) -> Latest:
    """The latest whole checkpoint of a run; None where there is none at all.

    Raises:
        CheckpointError: there are some, but none is whole; or one may not be read, or has another schema.
    """
    broken: dict[Path, Broken] = {}
    for path in folder.glob(f".{NAMES}.old"):  # its successor was to come in the very moment of a kill
        if not (whole := path.with_name(path.name[1:].removesuffix(".old"))).exists():
            path.rename(whole)
    for path in paths(folder):
        try:
            checkpoint = form.read(path)
        except Broken as error:
            broken[path] = error
            continue
        for each in broken:
            try:
                _put_aside(each)
            except OSError as error:
                cause = f"{each} is broken, and cannot be put aside: {error.strerror}"
                raise CheckpointError(cause, remedy=f"df -h {folder}; ls -ld {folder}") from None
        return Latest(checkpoint, tuple(broken.values()))
    if broken:
        raise CheckpointError(
            f"none of the {len(broken)} checkpoints in {folder} is whole: {next(iter(broken.values()))}",
            remedy=f"to begin anew, move {folder} away",
        )
    return Latest(None, ())


def prune(folder: Path, keep: int) -> None:
    """Remove all but the last `keep` checkpoints and the one with the best accuracy. What is broken does not count as
    one of them, and stays.

    Raises:
        OSError: one cannot be removed.
    """
    whole: dict[Path, Manifest] = {}
    for path in paths(folder):
        try:
            whole[path] = form.read_manifest(path)
        except CheckpointError:
            continue
    judged = {path: manifest.top1 for path, manifest in whole.items() if manifest.top1 is not None}
    best = max(judged, key=lambda path: (judged[path], path), default=None)
    for path in list(whole)[keep:]:
        if path != best:
            going = path.with_name(f".{path.name}.{os.getpid()}.tmp")
            path.rename(going)  # at once: half a checkpoint is none
            shutil.rmtree(going)


def sweep(folder: Path) -> None:
    """Remove what processes left half when they were killed. Only when no other process writes here."""
    for left in (*folder.glob(f".{NAMES}.tmp"), *folder.glob(f".{NAMES}.old")):
        shutil.rmtree(left, ignore_errors=True)


def _whole(path: Path) -> Manifest | None:
    try:
        return form.read(path).manifest
    except CheckpointError:
        return None


def _older(path: Path) -> Path:
    return path.with_name(f".{path.name}.old")


def _cause(error: BaseException) -> str:
    """What the disk said, where torch raises an error of its own over an archive that it could not end."""
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError):
            return link.strerror or str(link)
        link = link.__cause__ or link.__context__
    return str(error).partition("\n")[0] or "out of memory"


def _put_aside(path: Path) -> None:
    aside = path.with_name(ASIDE + path.name)
    shutil.rmtree(aside, ignore_errors=True)
    path.rename(aside)
    sync_folder(path.parent)
