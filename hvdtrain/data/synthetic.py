"""Noise in place of images, to measure everything but reading and decoding them."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray

from hvdtrain.data.decoder import Pictures, Request
from hvdtrain.data.index import Index, Names
from hvdtrain.data.storage import Inputs

CLASSES = 1000
IMAGES = {"train": 1_281_167, "val": 50_000}  # ILSVRC 2012


def index(part: str) -> Index:
    """ImageNet's number of rows, sizes and classes, without names."""
    images = IMAGES[part]
    rows = np.arange(images)
    return Index(
        classes=tuple(f"{number:04}" for number in range(CLASSES)),
        names=Names(np.zeros(0, np.uint8), np.zeros(images, np.int64)),
        labels=rows * CLASSES // images,
        sizes=np.zeros(images, np.int64),
        heights=np.full(images, 375, np.int32),
        widths=np.full(images, 500, np.int32),
    )


class NoStorage:
    by_name = False

    def fetch(self, rows: NDArray[np.int64]) -> Callable[[], Inputs]:
        return list

    def place(self, row: int) -> str:
        return f"synthetic image {row}"


class NoiseDecoder:
    """Answers every request with the same pictures."""

    def __init__(self, *, batch_size: int, pictures: Pictures, device: torch.device) -> None:
        shape = batch_size, pictures.size, pictures.size, 3
        noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        self._noise = noise.to(device, pictures.dtype).permute(0, 3, 1, 2)

    def decode(self, requests: Iterable[Request]) -> Iterator[torch.Tensor]:
        for request in requests:
            yield self._noise[: len(request.windows)]

    def fault(self, request: Request) -> str | None:
        return None
