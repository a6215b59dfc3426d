"""The contenders of benchmarks/input.py, each a process that takes batches from one input pipeline when it is told to.

A contender is made by a function of `CONTENDERS`, from the options to a `Take`; what it does is said there. All end in
float32 pictures of 224 pixels, normalised, one batch in one block of memory. This file imports nothing but the standard
library before it knows whose process it is: contenders may live in another environment than ours.
"""

import json
import random
import sys
import tarfile
import time
from collections.abc import Callable, Iterable
from itertools import islice
from multiprocessing.connection import Connection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of pixels from 0 to 1
AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)  # of crops
TRAINING = "training"  # the process that keeps contenders company

Take = Callable[[int], None]  # takes so many batches
Options = SimpleNamespace  # data, packed, packed_400, scratch: paths; batch, image, cores: numbers


def main() -> None:
    name, file, options = sys.argv[1:]
    connection = Connection(int(file))
    setting = Options(**json.loads(options))
    if name == TRAINING:
        train(connection, setting)
    else:
        contend(connection, CONTENDERS[name](setting))


def contend(connection: Connection, take: Take) -> None:
    """Answer (discarded, timed) numbers of batches with the times when the timed ones began and ended."""
    take(2)
    connection.send("warm")
    while True:
        try:
            discarded, timed = connection.recv()
        except EOFError:
            return
        take(discarded)
        begin = time.perf_counter()  # one clock for all processes of a machine
        take(timed)
        connection.send((begin, time.perf_counter()))


def train(connection: Connection, options: Options) -> None:
    """ResNet-18 forward and backward on as many threads as there are cores; answer times with the images between."""
    import torch
    from torch.nn import functional

    from hvdtrain.model.build import build

    torch.set_num_threads(options.cores)
    batch = 8  # small: a step is to be short beside the span that is asked for
    model = build("resnet18", classes=1000, norm="batch", zero_gamma=True, head_std=0.01)
    model.to(memory_format=torch.channels_last)
    pictures = torch.randn(batch, 3, options.image, options.image).to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (batch,))
    ends: list[float] = []
    while True:
        functional.cross_entropy(model(pictures), labels).backward()
        model.zero_grad()
        ends.append(time.perf_counter())
        if len(ends) == 3:
            connection.send("warm")
        if len(ends) > 3 and connection.poll():
            try:
                begin, end = connection.recv()
            except EOFError:
                return
            connection.send(batch * (_steps(ends, end) - _steps(ends, begin)))


def _steps(ends: list[float], moment: float) -> float:
    """Steps done until then, as a fraction of the one that was being done."""
    done = next(i for i, end in enumerate(ends) if end >= moment)
    return done + (moment - ends[done - 1]) / (ends[done] - ends[done - 1])


def _from(batches: Iterable[Any]) -> Take:
    """Takes from an endless iterable."""
    endless = iter(batches)

    def take(count: int) -> None:
        for _ in islice(endless, count):
            pass

    return take


def ours(options: Options, folder: str = "") -> Take:
    """The loader of a training run: decodes the window only, antialiased triangle filter, channels-last."""
    from hvdtrain.bench import pipelines

    return pipelines.ours(_setting(options, folder))


def _setting(options: Options, folder: str = "") -> Any:
    from hvdtrain.bench.pipelines import Setting

    return Setting(folder or options.data, options.batch, options.image, options.cores)


def ours_packed(options: Options) -> Take:
    """The same from tar shards of the same files."""
    return ours(options, options.packed)


def ours_packed_400(options: Options) -> Take:
    """The same from tar shards of images whose longer side was shrunk to at most 400 pixels: other files."""
    return ours(options, options.packed_400)


def torchvision(options: Options) -> Take:
    """ImageFolder in a DataLoader of one worker per core."""
    from hvdtrain.bench import pipelines

    return pipelines.torchvision(_setting(options))


def webdataset(options: Options) -> Take:
    """The usual webdataset pipeline over tar shards of the same files: decode("pil"), a shuffle buffer of 1,000 images,
    torchvision's transforms, batched in the DataLoader's workers, one per core."""
    from webdataset import WebDataset, WebLoader

    from hvdtrain.bench.pipelines import transform

    shards = _tar_shards(options, count=4 * options.cores)
    pipeline = (
        WebDataset(shards, shardshuffle=len(shards))
        .repeat()
        .shuffle(1000)
        .decode("pil")
        .to_tuple("jpg", "cls")
        .map_tuple(transform(options.image))
        .batched(options.batch, partial=False)
    )
    return _from(WebLoader(pipeline, batch_size=None, num_workers=options.cores, persistent_workers=True))


def _tar_shards(options: Options, count: int) -> list[str]:
    """Files dealt out to shards in random order."""
    train = Path(options.data) / "train"
    classes = sorted(folder.name for folder in train.iterdir() if folder.is_dir())
    files = sorted(train.glob("*/*"))
    random.Random(0).shuffle(files)
    paths = [Path(options.scratch) / f"shard-{number:04}.tar" for number in range(count)]
    for number, path in enumerate(paths):
        with tarfile.open(path, "w") as shard:
            for file in files[number::count]:
                shard.add(file, f"{file.stem}.jpg")
                label = Path(options.scratch) / "label"
                label.write_text(str(classes.index(file.parent.name)))
                shard.add(label, f"{file.stem}.cls")
    return [str(path) for path in paths]


def dali_plain(options: Options, antialias: bool = True) -> Take:
    """NVIDIA DALI as its examples have it."""
    from hvdtrain.bench import pipelines

    return pipelines.dali_plain(_setting(options), antialias)


def dali_plain_no_antialias(options: Options) -> Take:
    """The same without antialiasing: its fastest form, whose pictures cost accuracy."""
    return dali_plain(options, antialias=False)


def ffcv(options: Options, quality: int = 90) -> Take:
    """FFCV's own file, of the JPEG quality that its authors use for ImageNet: half the bytes of the files here. Decodes
    the whole image with the fast inverse DCT, OpenCV's area filter, channels-last; one thread per core."""
    from ffcv_peer import pipeline

    return _from(pipeline(options, quality, MEAN, STD, AREA, ASPECT))


def ffcv_97(options: Options) -> Take:
    """The same with the quality that gives about as many bytes as the files here have."""
    return ffcv(options, quality=97)


def limit(options: Options) -> Take:
    """libjpeg-turbo and a resampler in C, one thread per core: see limit.c."""
    from limit import pictures

    return pictures(options, MEAN, STD, AREA, ASPECT)


CONTENDERS: dict[str, Callable[[Options], Take]] = {
    "ours": ours,
    "ours-packed": ours_packed,
    "ours-packed-400": ours_packed_400,
    "torchvision": torchvision,
    "webdataset": webdataset,
    "dali-plain": dali_plain,
    "dali-plain-no-antialias": dali_plain_no_antialias,
    "ffcv": ffcv,
    "ffcv-97": ffcv_97,
    "limit": limit,
}

if __name__ == "__main__":
    main()
