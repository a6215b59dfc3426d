"""One encoded image -> what is wrong with it, and what is unusual.

A fault is what training would fail on: Pillow cannot decode the whole picture, or DALI cannot. All else that is worth
knowing is an oddity. Not found is what no decoder notices: a flipped bit or overwritten bytes inside a JPEG's
entropy-coded data, over which libjpeg goes on with a warning that Pillow does not pass on and wrong pixels.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
from PIL import Image, UnidentifiedImageError

from hvdtrain.data.pillow import END_OF_JPEG, FAULTS, FORMATS, START_OF_SCAN, Span, decode, regular

TINY = 32  # pixels; a training crop of a shorter side would be mostly enlargement
DIGEST_BYTES = 16
DALI_BATCH = 16  # images


@dataclass(frozen=True)
class Kind:
    meaning: str
    fault: bool


KINDS = {
    "unreadable": Kind("cannot be read: no permission, a broken link, or a folder, pipe or socket", True),
    "empty": Kind("has no bytes", True),
    "no-image": Kind("is no image: text, zeros, random bytes", True),
    "other-format": Kind(f"is an image, but none of {', '.join(FORMATS)}", True),
    "header-only": Kind("ends before the first pixel", True),
    "truncated": Kind("ends before the picture does", True),
    "corrupt": Kind("is whole, but the decoder gives up on what is inside", True),
    "bomb": Kind("has so many pixels that Pillow takes it for an attack", True),
    "not-dali": Kind("is decoded by Pillow, but not by DALI", True),
    "stale-index": Kind("is not what its index says: training would cut windows of another image", False),
    "label-conflict": Kind("has the bytes of an image of another class", False),
    "leak": Kind("has the bytes of a training image, in val", False),
    "duplicate": Kind("has the bytes of another image of its class and part", False),
    "cmyk": Kind("is for print: CMYK or YCCK, whose colours change in RGB", False),
    "gray": Kind("has no colour", False),
    "palette": Kind("has a palette", False),
    "transparent": Kind("has transparency, which is dropped", False),
    "16-bit": Kind("has more than 8 bits per colour", False),
    "tiny": Kind(f"is shorter than {TINY} pixels on one side", False),
    "turned": Kind("is to be turned by its EXIF tag, which training does not do", False),
    "suffix": Kind("has the suffix of another format", False),
    "frames": Kind("holds several pictures, of which the first is taken", False),
}

_SUFFIXES = {
    **dict.fromkeys(("JPEG", "MPO"), (".jpeg", ".jpg")),  # MPO: what Pillow calls a JPEG with another behind it
    **{format: (f".{format.lower()}",) for format in ("PNG", "BMP", "WEBP")},
}
# By how they begin; the boxes of AVIF and HEIF have their length before.
_OTHER_FORMATS = {
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x0a": "JPEG XL",
    b"8BPS": "Photoshop",
}
_ALPHA = frozenset({"RGBA", "LA", "PA", "RGBa", "La"})
_GRAY = frozenset({"1", "L", "LA", "La", "I", "F"})
# DQT, DHT, DRI, COM, baseline, extended and progressive SOF, APP0-15: with others, or bytes between them, DALI's parser
# may refuse what libjpeg reads.
_USUAL_SEGMENTS = frozenset({0xDB, 0xC4, 0xDD, 0xFE, 0xC0, 0xC1, 0xC2, *range(0xE0, 0xF0)})
_ORIENTATION = 0x0112  # EXIF tag
_HEADER_BYTES = {"BMP": 54, "WEBP": 30}


@dataclass(frozen=True)
class Place:
    """Where an image is to be read."""

    path: str
    name: str  # of the image, which is another than the shard's
    span: tuple[int, int] | None = None  # offset and bytes in a shard; None: the whole file


@dataclass(frozen=True)
class Diagnosis:
    findings: tuple[tuple[str, str], ...] = ()  # kind, detail
    size: int = 0  # bytes
    height: int = 0  # pixels; 0 where it cannot be decoded
    width: int = 0
    digest: bytes = bytes(DIGEST_BYTES)  # of its bytes; zeros where it cannot be decoded
    ask_dali: bool = False  # whether DALI may refuse what Pillow has decoded


def examine(place: Place) -> Diagnosis:
    """Read and decode one image."""
    try:
        data = read(place)
    except OSError as error:
        return Diagnosis((("unreadable", str(error)),))
    try:
        image = decode(data)
    except FAULTS as error:
        return Diagnosis((fault(data, error),), len(data))
    return Diagnosis(
        findings=tuple(oddities(image, data, place.name)),
        size=len(data),
        height=image.height,
        width=image.width,
        digest=hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest(),
        ask_dali=not _usual_jpeg(data),
    )


def read(place: Place) -> bytes:
    """The bytes of one image.

    Raises:
        OSError: it cannot be read, or is no file.
    """
    with regular(place.path) as whole:
        return (Span(whole.descriptor, *place.span) if place.span else whole).read()


def fault(data: bytes, error: Exception) -> tuple[str, str]:
    """Kind and detail of an image that Pillow has refused with `error`."""
    if not data:
        return "empty", "0 bytes"
    said = str(error)
    if isinstance(error, Image.DecompressionBombError):
        return "bomb", said
    format = _format(data)
    if format is None:
        if data[4:8] == b"ftyp":
            return "other-format", "AVIF, HEIF or a video"
        for mark, other in _OTHER_FORMATS.items():
            if data.startswith(mark):
                return "other-format", other
        return "no-image", f"begins with {data[:24]!r}" if any(data) else f"{len(data)} zero bytes"
    if isinstance(error, UnidentifiedImageError):
        said = f"its {format} header cannot be read"  # Pillow's own words have an address of memory in them
    zeros = len(data) - len(data.rstrip(b"\0"))
    if zeros > DIGEST_BYTES:
        said = f"{said}; its last {zeros} bytes are zero"
    if _header_only(data, format):
        return "header-only", said
    return ("truncated" if _cut(data, format) else "corrupt"), said


def oddities(image: Image.Image, data: bytes, name: str) -> Iterator[tuple[str, str]]:
    """Kind and detail of all that is unusual with an image that was decoded."""
    mode, format = image.mode, str(image.format)
    if mode == "CMYK":
        yield "cmyk", "YCCK" if image.info.get("adobe_transform") == 2 else "CMYK"
    if mode in _GRAY or mode.startswith("I;"):
        yield "gray", mode
    if mode in ("P", "PA"):
        yield "palette", mode
    if mode in _ALPHA or "transparency" in image.info:
        yield "transparent", mode
    if format == "PNG" and data[24] > 8:
        yield "16-bit", f"{data[24]} bits"
    if min(image.size) < TINY:
        yield "tiny", f"{image.width}x{image.height} pixels"
    orientation = _orientation(image)
    if orientation != 1:
        yield "turned", f"orientation {orientation}"
    if not name.lower().endswith(_SUFFIXES.get(format, ())):
        yield "suffix", format
    if frames := _more_frames(image):
        yield "frames", frames


def dali_installed() -> bool:
    return find_spec("nvidia") is not None and find_spec("nvidia.dali") is not None


def dali_faults(
    places: Sequence[Place], sizes: Sequence[tuple[int, int]], *, threads: int
) -> Iterator[tuple[str, str] | None]:
    """Kind and detail, or None, of images that Pillow has decoded to those heights and widths, pixels."""
    import torch

    from hvdtrain.data.dali import DaliDecoder
    from hvdtrain.data.decoder import Pictures, Request, Undecodable

    decoder = DaliDecoder(
        batch_size=DALI_BATCH,
        pictures=Pictures(size=16, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0)),
        decode_on_gpu=False,
        device=torch.device("cpu"),
        threads=threads,
        prefetch=1,
        by_name=False,
        largest=(1, 1),
    )

    def request(data: Sequence[bytes], first: int) -> Request:
        whole = np.array([(0, 0, height, width) for height, width in sizes[first : first + len(data)]], np.int32)
        inputs = [np.frombuffer(one, np.uint8) for one in data]
        return Request(inputs, whole.astype(np.float32), whole, np.zeros(len(data), np.bool_))

    for first in range(0, len(places), DALI_BATCH):
        data = [_read_or_nothing(place) for place in places[first : first + DALI_BATCH]]
        try:
            for _ in decoder.decode([request(data, first)]):
                yield from [None] * len(data)
        except Undecodable:
            for i, one in enumerate(data):
                reason = decoder.fault(request([one], first + i))
                kind = "truncated" if _cut(one, _format(one)) else "not-dali"
                yield None if reason is None else (kind, f"DALI: {reason}")


def _read_or_nothing(place: Place) -> bytes:
    try:
        return read(place)
    except OSError:
        return b""  # which DALI does not take


def _format(data: bytes) -> str | None:
    """Which of FORMATS the first bytes promise."""
    if data[:2] == b"\xff\xd8":
        return "JPEG"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNG"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    return "BMP" if data[:2] == b"BM" and data[6:10] == bytes(4) else None


def _header_only(data: bytes, format: str) -> bool:
    first = {"JPEG": START_OF_SCAN, "PNG": b"IDAT"}.get(format)
    return len(data) <= _HEADER_BYTES[format] if first is None else first not in data


def _cut(data: bytes, format: str | None) -> bool:
    """Whether the end is missing, as far as the format tells."""
    if format == "JPEG":  # both marks can be in a thumbnail as well, which comes first
        return data.rfind(END_OF_JPEG) < data.rfind(START_OF_SCAN)
    if format == "PNG":
        return b"IEND\xaeB`\x82" not in data
    if format == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    return int.from_bytes(data[4:8], "little") + 8 > len(data)  # WEBP


def _usual_jpeg(data: bytes) -> bool:
    """Whether it has its end, and its segments follow one on the other up to the first scan, as decoders want them."""
    at = 2 if data.rfind(END_OF_JPEG) > data.rfind(START_OF_SCAN) else len(data)
    while data[:2] == b"\xff\xd8" and data[at : at + 1] == b"\xff" and at + 4 <= len(data):
        if data[at : at + 2] == START_OF_SCAN:
            return True
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] not in _USUAL_SEGMENTS or length < 2:
            return False
        at += 2 + length
    return False


def _orientation(image: Image.Image) -> int:
    """1: as stored, or the tag says nothing sensible."""
    try:
        value = image.getexif().get(_ORIENTATION)
    except FAULTS:
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _more_frames(image: Image.Image) -> str:
    try:
        frames = getattr(image, "n_frames", 1)
    except (*FAULTS, TypeError):  # the second cannot be read, which nobody wants
        return "2 pictures or more"
    return f"{frames} pictures" if frames > 1 else ""
