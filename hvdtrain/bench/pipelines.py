"""The contenders of the input bench, each in a process of its own; what they do is said in input.py.

All but the limit end in normalised float32 pictures, one batch in one block of memory: random crop of 8 to 100 % of the
area, resized, mirrored or not.
"""

import json
import os
import random
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from hvdtrain.bench.processes import Run, serve

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels from 0 to 1
TRAINING = "training"  # the process that keeps contenders company
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # of crops


@dataclass(frozen=True)
class Setting:
    data: str
    """Folder with train/<class>/* and val/<class>/*."""
    batch: int
    image: int
    """Pixels."""
    cores: int
    """Threads, or worker processes."""
    device: str = "cpu"
    """cpu or gpu: where DALI decodes."""


def main() -> None:
    name, values = sys.argv[1:]
    setting = Setting(**json.loads(values))
    if name == TRAINING:
        serve({name: lambda: company(setting)})
        os._exit(0)  # its thread computes; an orderly end would abort within it
    serve({name: lambda: CONTENDERS[name](setting)})


def ours(setting: Setting) -> Run:
    """The loader of a training run: decodes the window only, antialiased triangle filter, channels-last."""
    import torch

    from hvdtrain.config.recipe import DataConfig
    from hvdtrain.config.schema import Config
    from hvdtrain.distributed.comm import SoloComm
    from hvdtrain.train.data import Data, Machine

    data = DataConfig(
        dir=Path(setting.data),
        batch_size=setting.batch,
        image_size=setting.image,
        threads=setting.cores,
        device="gpu" if setting.device == "gpu" else "cpu",
    )
    device = torch.device("cuda" if setting.device == "gpu" else "cpu")
    loader = Data(Config(data=data), SoloComm(), Machine(device, setting.cores))
    return taken(batch.images for batch in loader.training(images_seen=0))


def torchvision(setting: Setting) -> Run:
    """ImageFolder in a DataLoader of one worker per core: Pillow decodes the whole image and resizes the window,
    antialiased triangle filter, contiguous."""
    from torch.utils.data import DataLoader

    from hvdtrain.torchvision import load

    folder = load().datasets.ImageFolder(f"{setting.data}/train", transform(setting.image))
    # An endless sampler spares it the pause between two epochs, which ours has not either.
    loader = DataLoader(
        folder, setting.batch, sampler=Endless(len(folder)), num_workers=setting.cores, persistent_workers=True
    )
    return taken(loader)


class Endless:
    """One random order of all images after the other."""

    def __init__(self, images: int) -> None:
        self.images = images

    def __iter__(self) -> Iterator[int]:
        while True:
            yield from random.sample(range(self.images), self.images)


def transform(size: int) -> Any:
    """As torchvision's examples train with."""
    from hvdtrain.torchvision import load

    transforms = load().transforms
    return transforms.Compose(
        [
            transforms.RandomResizedCrop(size, scale=AREA, ratio=ASPECT),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )


def dali_plain(setting: Setting, antialias: bool = True) -> Run:
    """NVIDIA DALI as its examples have it: file reader, image_random_crop, resize, crop_mirror_normalize; decodes the
    window only, antialiased triangle filter, channels-last; as many threads and batches ahead as ours."""
    from nvidia.dali import fn, pipeline_def, types
    from nvidia.dali.plugin.pytorch import DALIGenericIterator

    @pipeline_def(**_graph(setting))
    def graph() -> Any:
        pixels, labels = _windows(setting)
        size = [setting.image, setting.image]
        resized = fn.resize(pixels, size=size, interp_type=types.INTERP_LINEAR, antialias=antialias)
        pictures = fn.crop_mirror_normalize(
            resized,
            mirror=fn.random.coin_flip(probability=0.5),
            dtype=types.FLOAT,
            output_layout="HWC",
            mean=[255 * m for m in MEAN],
            std=[255 * s for s in STD],
        )
        return pictures, labels

    return taken(DALIGenericIterator(graph(), ["pictures", "labels"], size=-1))


def decode_only(setting: Setting) -> Run:
    """DALI decodes the windows, and nothing is done with them."""
    from nvidia.dali import pipeline_def

    @pipeline_def(**_graph(setting))
    def graph() -> Any:
        return _windows(setting)

    pipeline = graph()
    pipeline.build()
    return taken(iter(pipeline.run, None))


def _graph(setting: Setting) -> dict[str, Any]:
    on_gpu = setting.device == "gpu"
    return {
        "batch_size": setting.batch,
        "num_threads": setting.cores,
        "device_id": 0 if on_gpu else None,
        "prefetch_queue_depth": 2,
    }


def _windows(setting: Setting) -> tuple[Any, Any]:
    from nvidia.dali import fn, types

    files, labels = fn.readers.file(file_root=f"{setting.data}/train", random_shuffle=True, name="files")
    pixels = fn.decoders.image_random_crop(
        files,
        device="mixed" if setting.device == "gpu" else "cpu",
        output_type=types.RGB,
        random_area=AREA,
        random_aspect_ratio=ASPECT,
        num_attempts=10,
    )
    return pixels, labels


def company(setting: Setting) -> Run:
    """A training of ResNet-18 on as many threads as there are cores, which goes on whenever the process may run."""
    import torch
    from torch.nn import functional

    from hvdtrain.model.build import build

    torch.set_num_threads(setting.cores)
    batch = 8
    model = build("resnet18", classes=1000, norm="batch", zero_gamma=True, head_std=0.01)
    model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # which torch has, not its stubs
    pictures = torch.randn(batch, 3, setting.image, setting.image).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,))

    def train() -> None:
        while True:
            functional.cross_entropy(model(pictures), labels).backward()
            model.zero_grad()

    threading.Thread(target=train, daemon=True).start()
    return lambda repetitions: None


def taken(batches: Iterable[Any]) -> Run:
    """Takes so many from an endless iterable."""
    endless = iter(batches)

    def take(count: int) -> None:
        for _ in islice(endless, count):
            pass

    return take


CONTENDERS: dict[str, Callable[[Setting], Run]] = {
    "ours": ours,
    "torchvision": torchvision,
    "dali-plain": dali_plain,
    "decode-only": decode_only,
}

if __name__ == "__main__":
    main()
