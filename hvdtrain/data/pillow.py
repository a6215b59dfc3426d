"""What Pillow makes of the bytes of an image: its size, its pixels, or what is wrong with it."""

import io
import os
import struct
import zlib
from dataclasses import dataclass

from PIL import Image

# Formats that DALI decodes as well; every other file counts as no image, so that both decoders see the same ones.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF")
SUFFIXES = frozenset({".jpeg", ".jpg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

FAULTS = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, Image.DecompressionBombError)
_HEAD_BYTES = 16384
_LAST_BYTES = {"JPEG": b"\xff\xd9", "PNG": b"IEND\xaeB`\x82"}


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
    image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    image.load()
    return image


def _opened(span: Span) -> Image.Image:
    head = span.read(0, _HEAD_BYTES)
    try:
        return Image.open(io.BytesIO(head), formats=FORMATS)
    except FAULTS:
        if len(head) == span.size:
            raise
        return Image.open(io.BytesIO(span.read()), formats=FORMATS)  # a header may be longer
