"""The archives of ILSVRC2012 as they were published, and tar archives read without trusting them."""

import hashlib
import os
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from hvdtrain.errors import DataError

CHUNK_BYTES = 1 << 22
ANOTHER = "complete it, or --no-digest for an archive of the same form that is not the official one"


@dataclass(frozen=True)
class Published:
    """What an official archive is known by."""

    md5: str
    size: int | None = None  # bytes
    classes: int = 1000
    images: int = 0


# MD5 as torchvision.datasets.imagenet has them; a size is looked at first, since a digest takes minutes.
PUBLISHED = {
    "train": Published("1d675b47d978889d74fa0da5fadfb00e", size=147_897_477_120, images=1_281_167),
    "val": Published("29b22e2961454d5413ddabcf34fc5622", size=6_744_924_160, images=50_000),
    "devkit": Published("fa75699e90414af021442c21a62c3abf"),
}


@dataclass(frozen=True)
class Image:
    """An image inside an archive, and the class it belongs to."""

    wnid: str
    name: str
    begin: int  # where its bytes begin in the archive
    size: int  # bytes


def members(
    file: BinaryIO, where: str, allowed: re.Pattern[str], form: str, *, begin: int = 0, size: int
) -> Iterator[tarfile.TarInfo]:
    """The members of the tar archive in file[begin : begin + size], in order; offsets count from the file's start.

    Args:
        where: the archive, in words, for messages.
        allowed: what the whole name of every member has to match; any other member is refused.
        form: the same in words.

    Raises:
        DataError: no tar archive, cut off or torn, without members, or with one that is refused or there twice.
    """
    end, stop = begin, begin + size
    seen: dict[str, None] = {}
    file.seek(begin)  # tarfile begins where the file stands
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if member.offset + tarfile.BLOCKSIZE > stop:
                    break
                if member.offset_data + member.size > stop:
                    raise DataError(f"{where} is cut off: it has {size} bytes, {member.name!r} goes on after them")
                if not allowed.fullmatch(member.name) or not member.isreg() or member.issparse() or member.size < 0:
                    raise DataError(f"{where} has {_kind(member)} {member.name!r}: expected only files named {form}")
                if member.name in seen:
                    raise DataError(f"{where} has {member.name!r} twice")
                seen[member.name] = None
                end = member.offset_data + -(-member.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
                yield member
    except (tarfile.TarError, OSError, EOFError, ValueError, OverflowError, MemoryError) as error:
        raise DataError(f"{where} is no tar archive, or is torn: {error}") from None
    # tarfile takes a header that it cannot read, and a file that ends between two members, for the end of the archive
    file.seek(end)
    if end + tarfile.BLOCKSIZE > stop or file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        last = f" after {list(seen)[-1]!r}" if seen else ""
        raise DataError(
            f"{where} is no tar archive, or is torn{last}: expected a member or the end at byte {end - begin}"
        )
    if not seen:
        raise DataError(f"{where} is empty: expected files named {form}")


def _kind(member: tarfile.TarInfo) -> str:
    return "a file" if member.isreg() else "a folder" if member.isdir() else "a link or device"


def content(file: BinaryIO, image: Image, where: str) -> bytes:
    """
    Raises:
        DataError: the archive cannot be read there.
    """
    try:
        data = os.pread(file.fileno(), image.size, image.begin)
    except OSError as error:
        raise DataError(f"cannot read {image.name} in {where}: {error}") from None
    if len(data) != image.size:
        raise DataError(f"{where} is cut off in {image.name}: {len(data)} of {image.size} bytes")
    return data


def check_size(part: str, archive: Path) -> None:
    """
    Raises:
        DataError: it has not the size of the official archive of `part`.
    """
    size, wanted = archive.stat().st_size, PUBLISHED[part].size
    if wanted is not None and size != wanted:
        raise DataError(f"{archive} has {size} bytes: the official {part} archive has {wanted}", remedy=ANOTHER)


def check_digest(part: str, archive: Path, done: Callable[[int], None]) -> str:
    """The archive's MD5, after reading all of it; `done` hears how many more bytes were read.

    Raises:
        DataError: it is not that of the official archive of `part`.
    """
    state, wanted = hashlib.md5(usedforsecurity=False), PUBLISHED[part].md5
    with archive.open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            state.update(chunk)
            done(len(chunk))
    if state.hexdigest() != wanted:
        raise DataError(
            f"{archive} has MD5 {state.hexdigest()}: the official {part} archive has {wanted}", remedy=ANOTHER
        )
    return wanted
