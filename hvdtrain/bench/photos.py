"""Photographs of ImageNet's sizes for tests and benchmarks: `python benchmarks/photos.py DIR`.

Each is a window of one of eight photographs that come inside the wheels of scikit-learn and scikit-image, so nothing is
downloaded. Window, shape, mirroring and JPEG quality vary, and with them the work of a decoder. The files have about
90 kB on average (ImageNet's: 110 kB) and 4:2:0 chroma. JPEG quality is higher than ImageNet's for it: most windows are
enlarged a little, and enlarged photographs have less detail.
"""

import io
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from hvdtrain.errors import EnvironmentFault

SHAPES = (  # width, height, how often: about as in ImageNet, whose commonest by far is 500 x 375
    (500, 375, 0.45),
    (500, 333, 0.15),
    (375, 500, 0.15),
    (333, 500, 0.05),
    (500, 500, 0.05),
    (400, 300, 0.05),
    (300, 400, 0.02),
    (640, 480, 0.05),
    (800, 600, 0.03),
)
QUALITY = (95, 98)  # lowest and highest of Pillow's JPEG encoder
PORTION = (0.7, 1.0)  # lowest and highest, of the longest window of its shape that the photograph has room for


def write(folder: Path, *, images: int, classes: int = 10, seed: int = 0, part: str = "train") -> None:
    """Write folder/<part>/<class>/<name>.JPEG: the same bytes for the same arguments and versions of the libraries.

    Picture i is the same however many follow it. Two parts, or two seeds, have no picture in common.
    """
    if images < classes:
        raise ValueError(f"{images} images for {classes} classes: expected one each at least")
    files = [folder / part / f"n{number % classes:04}" / f"{part}_{number:07}.JPEG" for number in range(images)]
    for file in files[:classes]:
        file.parent.mkdir(parents=True, exist_ok=True)
    photographs()  # not by several threads at once
    with ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:  # Pillow resizes and encodes without the GIL
        pictures = pool.map(lambda number: picture((seed, zlib.crc32(part.encode()), number)), range(images))
        for file, content in zip(files, pictures, strict=True):
            file.write_bytes(content)


def picture(key: Sequence[int]) -> bytes:
    """The JPEG file that belongs to the key."""
    random = np.random.default_rng(key)
    sources = photographs()
    photograph = sources[random.integers(len(sources))]
    shapes, odds = [shape[:2] for shape in SHAPES], [shape[2] for shape in SHAPES]
    width, height = shapes[random.choice(len(shapes), p=odds)]
    scale = random.uniform(*PORTION) * min(photograph.width / width, photograph.height / height)
    left = random.uniform(0, photograph.width - scale * width)
    top = random.uniform(0, photograph.height - scale * height)
    window = (left, top, left + scale * width, top + scale * height)
    shown = photograph.resize((width, height), Image.Resampling.BICUBIC, box=window)
    if random.random() < 0.5:
        shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=int(random.integers(*QUALITY, endpoint=True)), subsampling="4:2:0")
    return file.getvalue()


@lru_cache(maxsize=1)
def photographs() -> tuple[Image.Image, ...]:
    """The colour photographs in both wheels: temple, flower, portrait, cup, cat, rocket, a motorcycle seen twice.

    Raises:
        EnvironmentFault: one of the wheels is not installed.
    """
    try:
        import skimage.data  # both take long to import
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise EnvironmentFault(
            f"no photographs to measure with: {error}",
            remedy="--data DIR with train/<class>/*, or pip install scikit-image scikit-learn",
        ) from None

    left, right, _ = skimage.data.stereo_motorcycle()
    others = (getattr(skimage.data, name)() for name in ("astronaut", "coffee", "chelsea", "rocket"))
    return tuple(Image.fromarray(pixels) for pixels in (*load_sample_images().images, *others, left, right))
