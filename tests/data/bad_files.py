"""Files with the names of images that no decoder takes, of every kind that a data set was seen to have."""

import io
import os
import stat
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image


def write(folder: Path, image: bytes) -> dict[str, str]:
    """Make the files in `folder`, which is there, out of a sound JPEG; name -> kind of fault.

    The JPEG is one of 64 pixels or more, in colour, without a thumbnail: without their end, smaller ones are decoded.
    The kinds are those of hvdtrain.data.diagnose; the unreadable ones are a folder, a pipe, a socket and links.
    """
    with Image.open(io.BytesIO(image)) as picture:
        shown = picture.convert("RGB")
    png, gif, webp = (_encoded(shown, format) for format in ("PNG", "GIF", "WEBP"))
    scan, zipped = image.find(b"\xff\xda"), png.find(b"IDAT") + 4
    half = (scan + len(image)) // 2
    contents = {
        "empty.JPEG": ("empty", b""),
        "half.JPEG": ("truncated", image[:half]),
        "endless.JPEG": ("truncated", image[:-2]),
        "zero_tail.JPEG": ("truncated", image[:half] + bytes(len(image) - half)),
        "cut_short.png": ("truncated", png[: len(png) // 2]),
        "cut.webp": ("truncated", webp[: len(webp) // 2]),
        "head.JPEG": ("header-only", image[:scan]),
        "mark.jpg": ("header-only", image[:3]),
        "start.png": ("header-only", png[:33]),
        "twice.JPEG": ("corrupt", image[:half] + image),
        "hole.png": ("corrupt", png[:zipped] + b"\xff" * 9 + png[zipped + 9 :]),
        "text.JPEG": ("no-image", b"no picture\n" * 9),
        "page.JPEG": ("no-image", b"<!DOCTYPE html><title>404 Not Found</title>"),
        "zeros.JPEG": ("no-image", bytes(5000)),
        "noise.JPEG": ("no-image", np.random.default_rng(0).bytes(5000)),
        "moving.JPEG": ("other-format", gif),
        "bomb.png": ("bomb", _bomb()),
    }
    for name, (_, content) in contents.items():
        (folder / name).write_bytes(content)
    (folder / "folder.JPEG").mkdir()
    (folder / "nowhere.JPEG").symlink_to(folder / "none")
    (folder / "circle.JPEG").symlink_to(folder / "circle.JPEG")
    os.mkfifo(folder / "pipe.JPEG")
    os.mknod(folder / "socket.JPEG", 0o600 | stat.S_IFSOCK)
    irregular = ("folder.JPEG", "nowhere.JPEG", "circle.JPEG", "pipe.JPEG", "socket.JPEG")
    return {name: kind for name, (kind, _) in contents.items()} | dict.fromkeys(irregular, "unreadable")


def _encoded(picture: Image.Image, format: str) -> bytes:
    file = io.BytesIO()
    picture.save(file, format)
    return file.getvalue()


def _bomb() -> bytes:
    """The PNG of a picture of 4,000,000,000 pixels, of which it has none."""
    header = struct.pack(">IIBBBBB", 80_000, 50_000, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b""))
    parts = (
        struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        for kind, content in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
