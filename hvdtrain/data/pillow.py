"""What Pillow makes of the bytes of an image: its size, its pixels, or what is wrong with it."""

import errno
import io
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
from PIL import Image, UnidentifiedImageError

# Formats that DALI decodes as well; every other file counts as no image, so that both decoders see the same ones. Not
# TIFF, of which DALI and Pillow take different kinds.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp"})

# The warning is raised where warnings are errors.
_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)
FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, *_BOMBS)
_HEAD_BYTES = 16384
_LARGEST_BYTES = 1 << 28  # of a file that is read whole though its first bytes promise no image
START_OF_SCAN, END_OF_JPEG = b"\xff\xda", b"\xff\xd9"  # neither can be inside a scan
_LAST_BYTES = {"JPEG": END_OF_JPEG, "PNG": b"IEND\xaeB`\x82"}


@dataclass(frozen=True)
class Span:
    """An encoded image inside an open file."""

    descriptor: int
    offset: int
    size: int  # bytes

    def read(self, begin: int = 0, length: int | None = None) -> bytes:
        length = self.size - begin if length is None else min(length, self.size - begin)
        return os.pread(self.descriptor, max(length, 0), self.offset + begin)


def measure(span: Span) -> tuple[int, int]:
    """Height and width in pixels as stored; (0, 0) for what is no image, or one that has lost its end.

    Reads the first bytes and the last, and the whole image only where those leave a doubt.
    """
    try:
        with _opened(span) as image:
            last = _LAST_BYTES.get(image.format or "")
            if last is None or span.read(span.size - len(last)) != last:
                decode(span.read())
            return image.height, image.width
    except FAULTS:
        return 0, 0


def decode(data: bytes) -> Image.Image:
    """The whole picture.

    Raises:
        one of FAULTS: it cannot be decoded to its last pixel.
    """
    image = _open(data)
    image.load()
    if image.format == "JPEG" and data.rfind(END_OF_JPEG) < data.rfind(START_OF_SCAN):
        raise OSError("it has no end, as a download that was broken off")  # libjpeg makes gray of the zeros after it
    return image


def _open(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:  # its own words are about the place in memory
        raise UnidentifiedImageError("it begins like no JPEG, PNG, BMP or WebP") from None


def rgb(image: Image.Image) -> Image.Image:
    """Red, green and blue of eight bits, as DALI makes them of gray, palette, CMYK, transparent and deeper pictures."""
    if image.mode.startswith("I"):  # 16 bits of gray, which Pillow would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) // 257).astype(np.uint8))
    return image.convert("RGB")


def read_file(path: str) -> bytes:
    """The bytes of a regular file. A pipe is not waited for.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    with regular(path) as span:
        return span.read()


@contextmanager
def regular(path: str) -> Iterator[Span]:
    """An open regular file.

    Raises:
        OSError: it cannot be opened, or is a folder, a pipe, a socket or a device.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno == errno.ENXIO:
            raise OSError("a socket") from None
        raise OSError(error.errno, error.strerror) from None
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError("a folder" if stat.S_ISDIR(status.st_mode) else "a pipe or a device")
        yield Span(descriptor, 0, status.st_size)
    finally:
        os.close(descriptor)


def _opened(span: Span) -> Image.Image:
    head = span.read(0, _HEAD_BYTES)
    try:
        return _open(head)
    except FAULTS:
        if len(head) == span.size or span.size > _LARGEST_BYTES:
            raise
        return _open(span.read())  # a header may be longer
