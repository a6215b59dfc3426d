"""FFCV's input pipeline for benchmarks/input.py, in an environment that has it.

FFCV 1.0.2 wants its own: `apt-get install pkg-config libopencv-dev libturbojpeg0-dev`, then `pip install ffcv`.
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from ffcv.fields import IntField, RGBImageField
from ffcv.fields.basics import IntDecoder
from ffcv.fields.rgb_image import RandomResizedCropRGBImageDecoder
from ffcv.loader import Loader, OrderOption
from ffcv.transforms import NormalizeImage, RandomHorizontalFlip, Squeeze, ToTensor, ToTorchImage
from ffcv.writer import DatasetWriter
from PIL import Image


class Folder:
    """root/<class>/<image> as pairs of picture and label."""

    def __init__(self, root: Path) -> None:
        self.files = sorted(root.glob("*/*"))
        self.classes = sorted({file.parent.name for file in self.files})

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> tuple[Image.Image, int]:
        file = self.files[row]
        with Image.open(file) as image:
            return image.convert("RGB"), self.classes.index(file.parent.name)


def pipeline(options: SimpleNamespace, quality: int, mean: Any, std: Any, area: Any, aspect: Any) -> Iterator[Any]:
    """Endless batches from a file in which every image is encoded again, its longer side shrunk to at most 500."""
    folder = Folder(Path(options.data) / "train")
    file = f"{options.scratch}/train.beton"
    image = RGBImageField(write_mode="jpg", max_resolution=500, jpeg_quality=quality)
    DatasetWriter(file, {"image": image, "label": IntField()}, num_workers=options.cores).from_indexed_dataset(folder)
    size = (options.image, options.image)
    decoder = RandomResizedCropRGBImageDecoder(size, scale=area, ratio=aspect)
    normalise = NormalizeImage(255 * np.array(mean), 255 * np.array(std), np.float32)
    loader = Loader(
        file,
        batch_size=options.batch,
        num_workers=options.cores,
        order=OrderOption.RANDOM,
        os_cache=True,
        drop_last=True,
        indices=np.tile(np.arange(len(folder)), 100),  # spares it the pause between two epochs
        pipelines={
            "image": [decoder, RandomHorizontalFlip(), normalise, ToTensor(), ToTorchImage()],
            "label": [IntDecoder(), ToTensor(), Squeeze()],
        },
    )
    while True:
        yield from loader
