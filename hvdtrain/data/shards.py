"""Tar shards as the webdataset package reads and writes them, indexed so that any image is read by its offset.

A sample is an image `key.JPEG` and its label `key.cls`, a decimal number, side by side in one tar. Names of classes
come from classes.txt beside the shards, one a line; without it from the members' folders; else they are the numbers.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvdtrain.data.index import Index, Names
from hvdtrain.data.parallel import WORTH_PROCESSES, parallel
from hvdtrain.data.pillow import SUFFIXES, Span, measure
from hvdtrain.data.progress import progress
from hvdtrain.errors import DataError

CLASSES = "classes.txt"
LABEL_SUFFIX = ".cls"
LABEL_BYTES = 16  # of a .cls at most
MOST_CLASSES = 1_000_000  # where only the labels tell how many there are


@dataclass(frozen=True)
class Member:
    """An image in a shard."""

    name: str
    label: int | None  # from its .cls
    offset: int
    size: int  # bytes
    height: int
    width: int


def files(root: Path) -> list[Path]:
    """The shards in `root`, in the order of their names."""
    return sorted(path for path in root.glob("*.tar") if not path.name.startswith("."))


def scan(root: Path, *, workers: int) -> Index:
    """The index of all shards in `root`, its rows sorted by class and name as those of folders are.

    Raises:
        DataError: a shard is no tar file or cut off, holds no image, or says nothing of a sample's class.
    """
    paths = files(root)
    found: list[list[Member]] = []
    with progress("indexing shards", len(paths)) as advance:
        likely = sum(path.stat().st_size for path in paths) // 100_000  # images; ImageNet's have 110 kB
        for members in parallel(_members, map(str, paths), workers=workers, processes=likely >= WORTH_PROCESSES):
            found.append(members)
            advance(1)
    shard = np.repeat(np.arange(len(paths)), [len(members) for members in found]).astype(np.int32)
    members = [member for inside in found for member in inside]
    if not members:
        raise DataError(f"no images in the shards of {root}: expected members such as n01440764/1.JPEG")
    classes, labels = _classes(root, members)
    order = np.array(sorted(range(len(members)), key=lambda i: (labels[i], members[i].name)))
    numbers = np.array([(m.offset, m.size, m.height, m.width) for m in members], np.int64)[order]
    return Index(
        classes=classes,
        names=Names.of(members[i].name for i in order),
        labels=labels[order],
        sizes=numbers[:, 1].copy(),
        heights=numbers[:, 2].astype(np.int32),
        widths=numbers[:, 3].astype(np.int32),
        shards=tuple(path.name for path in paths),
        shard=shard[order],
        offsets=numbers[:, 0].copy(),
    )


def _members(path: str) -> list[Member]:
    """The images of one shard in the order in which they lie there."""
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if member.size < 0 or tar.offset <= member.offset:  # it would lead back to where it came from, for ever
                    raise DataError(f"{path} is damaged at byte {member.offset}: a size below zero")
                stem, suffix = _split(member.name)
                if not member.isreg():
                    continue
                if suffix == LABEL_SUFFIX:
                    content = tar.extractfile(member)
                    digits = content.read(LABEL_BYTES + 1) if content else b""
                    if len(digits) > LABEL_BYTES:
                        raise DataError(f"{path}: {member.name} has {member.size} bytes: expected a decimal number")
                    labels[stem] = int(digits)
                elif suffix in SUFFIXES and not Path(member.name).name.startswith("."):
                    images[member.name] = member
            end = tar.offset
        size = Path(path).stat().st_size
        with Path(path).open("rb", buffering=0) as file:
            # tarfile takes a header that it cannot read for the end of the archive, which has a block of zeros
            if Span(file.fileno(), end, size - end).read(0, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise DataError(f"{path} is cut off or damaged at byte {end}")
            found = []
            for name, member in images.items():
                if member.offset_data + member.size > size:
                    raise DataError(f"{path} is cut off inside {name}")
                span = Span(file.fileno(), member.offset_data, member.size)
                label = labels.get(_split(name)[0])
                found.append(Member(name, label, span.offset, span.size, *measure(span)))
            return found
    except (OSError, tarfile.TarError, ValueError) as error:
        raise DataError(f"{path} is no tar shard: {error}") from None
    except (OverflowError, MemoryError):  # tarfile asks for as many bytes as a header says
        raise DataError(f"{path} is no tar shard: a header in it tells of more bytes than there can be") from None


def _classes(root: Path, members: list[Member]) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Names of the classes, and the label of each member."""
    folders = [member.name.rpartition("/")[0] for member in members]
    listed = root / CLASSES
    if listed.exists():
        try:
            classes = tuple(listed.read_text("utf-8").removesuffix("\n").split("\n"))
        except (OSError, ValueError) as error:
            raise DataError(f"cannot read {listed}: {error}") from None
    elif all(folders):
        classes = tuple(sorted(set(folders)))
    else:
        highest = max((member.label for member in members if member.label), default=0)
        if highest >= MOST_CLASSES:
            raise DataError(f"a label in the shards of {root} is {highest}: expected less than {MOST_CLASSES}")
        classes = tuple(str(number) for number in range(1 + highest))
    numbers = {name: number for number, name in enumerate(classes)}
    labels = np.empty(len(members), np.int64)
    for i, (member, folder) in enumerate(zip(members, folders, strict=True)):
        label = numbers.get(folder, -1) if member.label is None else member.label
        if not 0 <= label < len(classes):
            got = f"no {LABEL_SUFFIX} and no known folder" if member.label is None else f"label {member.label}"
            raise DataError(f"{member.name} in the shards of {root} has {got}: expected one of {len(classes)} classes")
        labels[i] = label
    return classes, labels


def _split(name: str) -> tuple[str, str]:
    stem, dot, suffix = name.rpartition(".")
    return stem, (dot + suffix).lower()
