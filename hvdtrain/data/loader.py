"""The index, the order and the windows, decoded: batches of pictures with their labels."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

import numpy as np
import torch
from numpy.typing import NDArray

from hvdtrain.data import augment, order
from hvdtrain.data.augment import Decoded, Windows
from hvdtrain.data.decoder import Decoder, Request, Undecodable
from hvdtrain.data.index import Index
from hvdtrain.data.mix import Mixed, Mixing, mix
from hvdtrain.data.quarantine import Quarantine
from hvdtrain.data.storage import Inputs, Storage
from hvdtrain.errors import DataError
from hvdtrain.log import logger

PLANNED_TOGETHER = 1024  # images: for a small batch a call of NumPy would cost more than what it computes
READ_AHEAD = 1  # batches that are read while the decoder has enough to do
ATTEMPTS = 3  # to decode batches of which every image can be decoded alone


@dataclass(frozen=True)
class Augmentation:
    area: tuple[float, float]  # of a crop, as a fraction of the image
    aspect: tuple[float, float]  # width / height of a crop
    flip: float  # probability


@dataclass(frozen=True)
class Plan:
    """One batch before it is read."""

    samples: NDArray[np.int64]  # (n,) rows of the index
    epochs: NDArray[np.int64]  # (n,) the epoch in which each is read; 0 in evaluation
    positions: NDArray[np.int64]  # (n,) their places in the stream; rows of the index in evaluation
    windows: Windows  # (n, 4) what is shown of each image
    decoded: Decoded  # (n, 4) what is decoded for it
    flips: NDArray[np.bool_]  # (n,)
    images_seen: int  # by the whole run, when the step on this batch is done; 0 in evaluation

    def __len__(self) -> int:
        return len(self.samples)

    def where(self, chosen: NDArray[np.bool_] | slice) -> "Plan":
        """This plan for some of its samples only."""
        columns = ("samples", "epochs", "positions", "windows", "decoded", "flips")
        return replace(self, **{name: getattr(self, name)[chosen] for name in columns})


@dataclass(frozen=True)
class Batch:
    images: torch.Tensor  # (m, 3, H, W) float32 or float16, channels-last memory order; m <= n
    labels: torch.Tensor  # (m,) int64
    images_seen: int  # by the whole run, when the step on this batch is done
    skipped: int = 0  # n - m: slots of this batch whose image is masked
    plan: Plan | None = None  # of the m pictures
    mixed: Mixed | None = None  # what `images` were mixed from

    @staticmethod
    def empty() -> "Batch":
        return Batch(torch.empty(0, 3, 1, 1), torch.empty(0, dtype=torch.int64), images_seen=0)


@dataclass
class Source:
    """A data set that can be read."""

    index: Index
    storage: Storage
    decoder: Decoder
    quarantine: Quarantine = field(init=False)

    def __post_init__(self) -> None:
        self.quarantine = Quarantine(self.index)


def training_plans(
    index: Index,
    augmentation: Augmentation,
    *,
    seed: int,
    images_seen: int,
    rank: int,
    size: int,
    batch_size: int,
) -> Iterator[Plan]:
    """This rank's batches of the endless stream from `images_seen` on. Needs no image, only the index.

    Args:
        images_seen: by the whole run, where a step begins: with m micro-batches a step takes m of these plans.
        batch_size: n, images of this worker in each plan.
    """
    together = max(1, PLANNED_TOGETHER // batch_size)
    while True:
        part = order.training_slice(
            seed=seed,
            images=len(index),
            images_seen=images_seen,
            rank=rank,
            size=size,
            batch_size=batch_size,
            batches=together,
        )
        windows = augment.training_windows(
            seed=seed,
            epochs=part.epochs,
            samples=part.samples,
            heights=np.maximum(index.heights[part.samples], 1),  # 0 where unreadable, and then masked
            widths=np.maximum(index.widths[part.samples], 1),
            area=augmentation.area,
            aspect=augmentation.aspect,
        )
        flips = augment.flips(seed=seed, epochs=part.epochs, samples=part.samples, probability=augmentation.flip)
        decoded = windows.astype(np.int32)
        whole = Plan(part.samples, part.epochs, part.positions, windows, decoded, flips, images_seen)
        for first in range(0, len(whole), batch_size):
            images_seen += size * batch_size
            yield replace(whole.where(slice(first, first + batch_size)), images_seen=images_seen)


def evaluation_plans(
    index: Index, *, image_size: int, resize: float, rank: int, size: int, batch_size: int
) -> Iterator[Plan]:
    """This rank's share of all images, each once, cut into the same batches whatever the number of ranks."""
    for batch in order.evaluation_share(batches=-(-len(index) // batch_size), rank=rank, size=size):
        samples = np.arange(batch * batch_size, min((batch + 1) * batch_size, len(index)))
        windows, decoded = augment.evaluation_windows(
            heights=index.heights[samples], widths=index.widths[samples], size=image_size, resize=resize
        )
        zeros = np.zeros(len(samples), np.int64)
        yield Plan(samples, zeros, samples, windows, decoded, zeros.astype(np.bool_), images_seen=0)


def batches(plans: Iterable[Plan], source: Source) -> Iterator[Batch]:
    """The plans' pictures and labels, in order; what cannot be decoded is quarantined, and its slot stays empty.

    The decoder takes plans ahead; each batch still carries its own `images_seen`.

    Raises:
        DataError: decoding fails again and again though each image can be decoded alone.
    """
    upcoming = iter(plans)
    failures = 0
    while True:
        waiting: deque[_Asked] = deque()
        try:
            for batch in _decoded(upcoming, waiting, source):
                yield batch
                failures = 0
            return
        except Undecodable as error:
            failures += 1
            if not _quarantine_faulty(waiting, source) and failures == ATTEMPTS:
                doubt = f"{error}, {ATTEMPTS} times in a row, though each image alone can be decoded"
                raise DataError(doubt) from error
            upcoming = chain([asked.plan for asked in waiting], upcoming)


def mixed(batches: Iterable[Batch], mixing: Mixing) -> Iterator[Batch]:
    """Training batches with their pictures mixed in pairs."""
    for batch in batches:
        if not len(batch.labels):
            yield batch
            continue
        assert batch.plan is not None
        done = mix(batch.images, batch.labels, batch.plan.positions, mixing)
        yield replace(batch, images=done.images, mixed=done)


@dataclass(frozen=True)
class _Asked:
    """A plan on its way through storage and decoder."""

    plan: Plan
    valid: Plan  # its samples that are not masked

    def answered(self, images: torch.Tensor, source: Source) -> Batch:
        labels = torch.from_numpy(source.index.labels[self.valid.samples]).to(images.device, non_blocking=True)
        return Batch(images, labels, self.plan.images_seen, len(self.plan) - len(self.valid), self.valid)

    def empty(self, source: Source) -> Batch:
        return self.answered(torch.empty(0, 3, 1, 1), source)


def _decoded(plans: Iterator[Plan], waiting: deque[_Asked], source: Source) -> Iterator[Batch]:
    """Batches until the plans end or one cannot be decoded; `waiting` then holds the plans that have no batch yet."""
    for images in source.decoder.decode(_requests(plans, waiting, source)):
        while not len(waiting[0].valid):
            yield waiting.popleft().empty(source)
        yield waiting.popleft().answered(images, source)
    while waiting:
        yield waiting.popleft().empty(source)


def _requests(plans: Iterator[Plan], waiting: deque[_Asked], source: Source) -> Iterator[Request]:
    """What is left of each plan without the masked images; nothing for a plan of which nothing is left."""
    reading: deque[tuple[Plan, Callable[[], Inputs]]] = deque()
    for plan in plans:
        masked = source.quarantine.masked[plan.samples]
        valid = plan.where(~masked) if masked.any() else plan
        waiting.append(_Asked(plan, valid))
        if len(valid):
            reading.append((valid, source.storage.fetch(valid.samples)))
        if len(reading) > READ_AHEAD:
            yield _request(*reading.popleft())
    while reading:
        yield _request(*reading.popleft())


def _request(plan: Plan, inputs: Callable[[], Inputs]) -> Request:
    return Request(inputs(), plan.windows, plan.decoded, plan.flips)


def _quarantine_faulty(waiting: Iterable[_Asked], source: Source) -> bool:
    """Decode what is waiting image by image and mask what fails. Whether something did."""
    faulty = False
    for plan in (asked.valid for asked in waiting):
        for i, row in enumerate(plan.samples.tolist()):
            alone = plan.where(np.arange(len(plan)) == i)
            reason = source.decoder.fault(_request(alone, source.storage.fetch(alone.samples)))
            if reason is not None:
                logger.warning("left out: %s cannot be decoded: %s", source.storage.place(row), reason)
                source.quarantine.add(row, reason)
                faulty = True
    return faulty
