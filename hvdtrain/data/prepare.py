"""The archives of ILSVRC2012 -> train/<wnid>/*.JPEG and val/<wnid>/*.JPEG."""

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from hvdtrain.data.archives import PUBLISHED, Image, check_digest, check_size, members
from hvdtrain.data.devkit import validation_wnids
from hvdtrain.data.extract import Batch, Held, Part, count, extract, progress_in_mb, recorded
from hvdtrain.data.scan import BESIDE
from hvdtrain.errors import ConfigError, DataError, EnvironmentFault
from hvdtrain.log import logger

BATCH_IMAGES = 1000  # of the validation archive, 135 MB; a class of the training archive has as much
MARGIN = 0.03  # of the bytes to write: partly filled blocks, folders

CLASS_TAR = re.compile(r"n[0-9]{8}\.tar")
VAL_IMAGE = re.compile(r"ILSVRC2012_val_[0-9]{8}\.JPEG")


def prepare(
    folder: Path,
    *,
    train: Path | None = None,
    val: Path | None = None,
    devkit: Path | None = None,
    check_digests: bool = True,
) -> dict[str, int]:
    """Write folder/train/<wnid>/*.JPEG from `train`, and folder/val/<wnid>/*.JPEG from `val` and `devkit`.

    One that was interrupted goes on; one that was finished changes nothing. The archives are only read.

    Args:
        train: ILSVRC2012_img_train.tar.
        val: ILSVRC2012_img_val.tar.
        devkit: ILSVRC2012_devkit_t12.tar.gz, which says what class each validation image is of.
        check_digests: take the published archives alone, by size and MD5, before anything is written. Without it any
            archive of the same form will do.

    Returns:
        Images of each part that was asked for.

    Raises:
        ConfigError: no archive, or val without devkit, or devkit without val.
        DataError: an archive is not what it should be, or the folder has images that are not the archive's.
        EnvironmentFault: the disk is too small or cannot be written, or another process is at it.
    """
    given = {name: path for name, path in (("devkit", devkit), ("train", train), ("val", val)) if path is not None}
    if not given or (val is None) != (devkit is None):
        raise ConfigError(f"archives given: {', '.join(given) or 'none'}; expected train, or val and devkit, or all")
    try:
        if check_digests:
            for name, archive in given.items():
                check_size(name, archive)
            if devkit is not None:
                check_digest("devkit", devkit, lambda _: None)
        parts = {"train": _train(folder, train)} if train is not None else {}
        if val is not None and devkit is not None:
            parts["val"] = _val(folder, val, devkit)
        _check_space(parts.values())
        digests = {name: part.md5 for name, part in parts.items()}
        for name, part in parts.items():
            if check_digests and part.md5 != PUBLISHED[name].md5:
                with progress_in_mb(f"MD5 of {part.archive.name}", part.archive.stat().st_size) as advance:
                    digests[name] = check_digest(name, part.archive, advance)
    except OSError as error:
        raise DataError(f"cannot read: {error}") from None
    for name, part in parts.items():
        if not part.whole() or part.md5 != digests[name]:
            extract(part, digests[name])
        else:
            logger.info("%s was finished before", part.root)
        _check_counts(name, part, official=check_digests)
    return {name: _images(part) for name, part in parts.items()}


def _train(folder: Path, archive: Path) -> Part:
    where, size = str(archive), archive.stat().st_size
    with archive.open("rb") as file:
        tars = {tar.name[: -len(".tar")]: tar for tar in members(file, where, CLASS_TAR, "<wnid>.tar", size=size)}
    md5, known = recorded(_record(folder, "train"), archive)
    return Part(
        archive=archive,
        root=folder / "train",
        record=_record(folder, "train"),
        md5=md5,
        batches=[
            Batch(frozenset({wnid}), tar.size, partial(_class, where, wnid, tar.offset_data, tar.size))
            for wnid, tar in tars.items()
        ],
        room={wnid: tar.size for wnid, tar in tars.items()},
        expected=known,
        held=_held(folder / "train", tars),
    )


def _class(where: str, wnid: str, begin: int, size: int, file: BinaryIO) -> Iterator[Image]:
    """The images of one class of the training archive."""
    allowed = re.compile(rf"{wnid}_[0-9]+\.JPEG")
    inside = members(file, f"{wnid}.tar in {where}", allowed, f"{wnid}_<number>.JPEG", begin=begin, size=size)
    return (Image(wnid, member.name, member.offset_data, member.size) for member in inside)


def _val(folder: Path, archive: Path, devkit: Path) -> Part:
    wnids = validation_wnids(devkit)
    images: list[Image] = []
    with archive.open("rb") as file:
        form = "ILSVRC2012_val_<eight digits>.JPEG"
        for member in members(file, str(archive), VAL_IMAGE, form, size=archive.stat().st_size):
            number = int(re.sub("[^0-9]", "", member.name.removeprefix("ILSVRC2012")))
            if not 1 <= number <= len(wnids):
                raise DataError(f"{archive} has {member.name}: the ground truth in {devkit} has {len(wnids)} lines")
            images.append(Image(wnids[number - 1], member.name, member.offset_data, member.size))
    if len(images) != len(wnids):
        raise DataError(f"{archive} has {len(images)} images: the ground truth in {devkit} has {len(wnids)} lines")
    numbers, sizes = Counter[str](), Counter[str]()
    for image in images:
        numbers[image.wnid] += 1
        sizes[image.wnid] += image.size
    md5, _ = recorded(_record(folder, "val"), archive)
    return Part(
        archive=archive,
        root=folder / "val",
        record=_record(folder, "val"),
        md5=md5,
        batches=[_listed(images[first : first + BATCH_IMAGES]) for first in range(0, len(images), BATCH_IMAGES)],
        room=dict(sizes),
        expected={wnid: (number, sizes[wnid]) for wnid, number in numbers.items()},
        held=_held(folder / "val", numbers),
    )


def _listed(images: list[Image]) -> Batch:
    wnids = frozenset(image.wnid for image in images)
    return Batch(wnids, sum(image.size for image in images), lambda _: images)


def _record(folder: Path, part: str) -> Path:
    return folder / BESIDE / f"prepared-{part}.json"


def _held(root: Path, wnids: Iterable[str]) -> Held:
    """What the class folders hold. There must be no other folders, for training would count them as classes."""
    if not root.exists():
        return {}
    found = {entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith(".")}
    if strange := sorted(found.difference(wnids)):
        raise DataError(f"{root} has the folder {strange[0]}, which the archive has not", remedy="choose another DIR")
    return {wnid: count(root / wnid) for wnid in sorted(found)}


def _check_space(parts: Iterable[Part]) -> None:
    needed = Counter[int]()
    for part in parts:
        place = next(path for path in (part.root, *part.root.absolute().parents) if path.exists())
        disk = place.stat().st_dev
        needed[disk] += int(part.needed() * (1 + MARGIN))
        free = shutil.disk_usage(place).free
        if needed[disk] > free:
            raise EnvironmentFault(
                f"{place} has {free / 1e9:.3f} GB free: {needed[disk] / 1e9:.3f} GB are needed",
                remedy="make room, or choose another DIR",
            )


def _check_counts(name: str, part: Part, *, official: bool) -> None:
    found, published = (_images(part), len(part.expected)), PUBLISHED[name]
    logger.info("%s has %d images of %d classes", part.root, *found)
    if official and found != (published.images, published.classes):
        raise DataError(
            f"{part.root} has {found[0]} images of {found[1]} classes: expected {published.images} of "
            f"{published.classes}"
        )


def _images(part: Part) -> int:
    return sum(images for images, _ in part.expected.values())
