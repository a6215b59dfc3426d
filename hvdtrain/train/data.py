"""The images of a run: which they are, where each worker reads them, and what is left out."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import chain, groupby, islice, repeat
from pathlib import Path

import numpy as np
import torch

from hvdtrain.config.checks import expanded
from hvdtrain.config.schema import Config
from hvdtrain.data import scan, synthetic
from hvdtrain.data.decoder import Decoder, Pictures
from hvdtrain.data.diagnose import dali_installed
from hvdtrain.data.index import Index
from hvdtrain.data.loader import (
    Augmentation,
    Batch,
    Plan,
    Source,
    batches,
    evaluation_plans,
    mixed,
    training_plans,
)
from hvdtrain.data.mix import Mixing
from hvdtrain.data.parallel import thread_pool
from hvdtrain.data.storage import Storage, storage
from hvdtrain.distributed.comm import Comm, on_rank_0
from hvdtrain.errors import ConfigError, DataError, EnvironmentFault
from hvdtrain.train import recipe
from hvdtrain.train.quarantine import SharedQuarantine
from hvdtrain.train.staging import Staged, stage

PARTS = ("train", "val")


@dataclass(frozen=True)
class Machine:
    """What of the machine is this worker's."""

    device: torch.device
    threads: int  # CPU threads that decode images
    launcher: str = "none"


class Data:
    """The images of a run on one worker."""

    def __init__(self, config: Config, comm: Comm, machine: Machine, images_seen: int = 0) -> None:
        """Collective.

        Args:
            images_seen: from where training will go on, which decides what has to be staged.
        """
        self._config, self._comm = config, comm
        self.train, self.val = _indices(config, comm, machine.threads)
        self._staged: Staged | None = None
        roots = {part: config.data.dir / part for part in PARTS}
        if config.data.stage == "copy" and config.data.source == "images":
            self._staged = stage(config, comm, machine.launcher, self.train, self.val, images_seen=images_seen)
            roots = self._staged.roots
        thread = thread_pool(1, "decode-ahead")
        self._decoders = {
            "train": partial(make_decoder, config, machine, thread, self.train, config.data.batch_size),
            "val": partial(make_decoder, config, machine, thread, self.val, config.evaluation.batch_size),
        }
        self.sources = {}
        for part, index in (("train", self.train), ("val", self.val)):
            stored = open_storage(config, machine, index, roots[part])
            decoder = self._decoders[part](stored.by_name, config.data.image_size)
            self.sources[part] = Source(index, stored, decoder)
        self.quarantine = SharedQuarantine(config, comm, self.sources)

    @property
    def largest_size(self) -> int:
        """Of a training picture, pixels a side."""
        data = self._config.data
        return max((size for _, size in data.train_sizes), default=data.image_size)

    @property
    def in_pairs(self) -> bool:
        """Whether pictures are mixed with their neighbours, so that batches have to be even."""
        return self._config.data.mixup > 0 or self._config.data.cutmix > 0

    def close(self) -> None:
        """Give the node's disk or memory back. Every worker of the node must be done with its images."""
        self._comm.gather(None, "images")
        if self._staged:
            self._staged.remove()

    def training(self, images_seen: int) -> Iterator[Batch]:
        """This worker's training batches, without end, from `images_seen` on, where a step begins."""
        data, seed = self._config.data, self._config.seed
        plans = training_plans(
            self.train,
            Augmentation(data.crop_area, data.crop_aspect, data.flip),
            seed=seed,
            images_seen=images_seen,
            rank=self._comm.rank,
            size=self._comm.size,
            batch_size=data.batch_size,
        )
        pictures = batches(plans, self.sources["train"])
        if data.train_sizes:
            pictures = self._growing(plans, images_seen)
        if self.in_pairs:
            return mixed(pictures, Mixing(data.mixup, data.cutmix, seed))
        return pictures

    def pixels(self, images_seen: int) -> int:
        """Of a side of the training pictures of the step that begins there."""
        sizes = self._config.data.train_sizes or ((0, self._config.data.image_size),)
        return [pixels for epoch, pixels in sizes if epoch <= images_seen / len(self.train)][-1]

    def _growing(self, plans: Iterator[Plan], images_seen: int) -> Iterator[Batch]:
        """Batches of progressive resizing: a new decoder where the size changes, which costs about a second."""
        source, global_batch = self.sources["train"], recipe.global_batch(self._config, self._comm.size)

        def size(plan: Plan) -> int:
            place = plan.images_seen - self._config.data.batch_size * self._comm.size  # where its micro-batch begins
            return self.pixels(place - (place - images_seen) % global_batch)  # all of a step have one size

        for pixels, phase in groupby(plans, size):
            source.decoder = self._decoders["train"](source.storage.by_name, pixels)
            yield from batches(phase, source)

    def validation(self) -> Iterator[Batch]:
        """This worker's share of the validation images, once. Every worker's has as many batches: one may be empty."""
        return validation_share(self._config, self._comm, self.sources["val"])


def validation_share(config: Config, comm: Comm, source: Source) -> Iterator[Batch]:
    """This worker's share of the images of `source`, as `Data.validation` has it."""
    plans = evaluation_plans(
        source.index,
        image_size=config.data.image_size,
        resize=config.data.eval_resize,
        rank=comm.rank,
        size=comm.size,
        batch_size=config.evaluation.batch_size,
    )
    rounds = -(-len(source.index) // (config.evaluation.batch_size * comm.size))
    return islice(chain(batches(plans, source), repeat(Batch.empty())), rounds)


def _indices(config: Config, comm: Comm, threads: int) -> tuple[Index, Index]:
    """Rank 0 looks at the files, for a million are too many for each of a thousand workers to ask after."""
    if config.data.source == "synthetic":
        return synthetic.index("train"), synthetic.index("val")

    def look() -> tuple[Index, Index]:
        cache = expanded("data.cache_dir", config.data.cache_dir)
        train, val = (scan.find(config.data.dir / part, cache=cache, workers=threads) for part in PARTS)
        if train.classes != val.classes:
            odd = sorted(set(train.classes) ^ set(val.classes))
            raise DataError(f"{config.data.dir}: train and val have different classes: {', '.join(odd[:5])}")
        return train, val

    train, val = on_rank_0(comm, look, "indices") or (None, None)
    return broadcast_index(train, comm, "train"), broadcast_index(val, comm, "val")


def broadcast_index(index: Index | None, comm: Comm, part: str) -> Index:
    """Rank 0's index, column by column: pickled whole, a million rows would be in memory three times."""
    columns = index.columns() if index else {}
    form = (index.classes, index.shards, {n: (c.shape, c.dtype.str) for n, c in columns.items()}) if index else None
    received = comm.broadcast_object(form, f"index of {part}")
    assert received is not None
    classes, shards, shapes = received
    for name, (shape, dtype) in shapes.items():
        columns.setdefault(name, np.empty(shape, dtype))
        if comm.size > 1 and len(columns[name]):
            columns[name] = np.require(columns[name], requirements=["W", "C"])
            comm.broadcast_(torch.from_numpy(columns[name]), f"index of {part}: {name}")
    return index or Index.of(columns, classes, shards)


def _decode_on_gpu(config: Config, device: torch.device) -> bool:
    if config.data.device == "gpu" and device.type != "cuda":
        raise ConfigError("data.device = gpu: expected cpu or auto, this worker has no GPU")
    if config.data.device == "gpu" and config.data.decoder == "pillow":
        raise ConfigError("data.device = gpu: expected cpu or auto with data.decoder = pillow")
    return _uses_dali(config) and config.data.device != "cpu" and device.type == "cuda"


def _uses_dali(config: Config) -> bool:
    if config.data.decoder == "dali" and not dali_installed():
        raise EnvironmentFault("data.decoder = dali: DALI is not installed", remedy="make setup, or choose pillow")
    return config.data.decoder != "pillow" and dali_installed()


def open_storage(config: Config, machine: Machine, index: Index, root: Path) -> Storage:
    """Where the images of `index` are read: folders or shards in `root`, or none for synthetic ones."""
    if config.data.source == "synthetic":
        return synthetic.NoStorage()
    return storage(root, index, threads=config.data.threads or machine.threads)


def make_decoder(
    config: Config,
    machine: Machine,
    thread: ThreadPoolExecutor,
    index: Index,
    batch_size: int,
    by_name: bool,
    size: int,
) -> Decoder:
    """One that gives pictures (n, 3, size, size), float32, or where a GPU decodes for half precision float16.

    Args:
        thread: on which DALI decodes ahead.
        batch_size: the most images that are asked of it at once.
        by_name: the storage gives files' names in place of their contents.

    Raises:
        ConfigError, EnvironmentFault: the decoder or the device that is asked for is not to be had.
    """
    on_gpu, threads = _decode_on_gpu(config, machine.device), config.data.threads or machine.threads
    pictures = Pictures(
        size=size,
        mean=config.data.mean,
        std=config.data.std,
        dtype=torch.float16 if on_gpu and config.precision in ("bf16", "fp16") else torch.float32,
    )
    if config.data.source == "synthetic":
        return synthetic.NoiseDecoder(batch_size=batch_size, pictures=pictures, device=machine.device)
    if not _uses_dali(config):
        from hvdtrain.data.reference import ReferenceDecoder

        return ReferenceDecoder(
            pictures=pictures,
            device=machine.device,
            threads=threads,
            prefetch=config.data.prefetch,
            by_name=by_name,
        )
    from hvdtrain.data.dali import DaliDecoder

    return DaliDecoder(
        batch_size=batch_size,
        pictures=pictures,
        decode_on_gpu=on_gpu,
        device=machine.device,
        threads=threads,
        prefetch=config.data.prefetch,
        by_name=by_name,
        largest=(int(index.heights.max()), int(index.widths.max())),
        thread=thread,
    )
