"""The index, the order and the windows, decoded: batches of pictures with their labels."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from hvdtrain.data import augment, order
from hvdtrain.data.augment import Windows
from hvdtrain.data.dali import Decoder, Request
from hvdtrain.data.index import Index


@dataclass(frozen=True)
class Batch:
    images: torch.Tensor  # (n, 3, H, W) float32, channels-last memory order
    labels: torch.Tensor  # (n,) int64
    images_seen: int  # by the whole run, when the step on this batch is done


@dataclass(frozen=True)
class Augmentation:
    area: tuple[float, float]  # of a crop, as a fraction of the image
    aspect: tuple[float, float]  # width / height of a crop
    flip: float  # probability


@dataclass(frozen=True)
class Plan:
    """One batch before it is read."""

    samples: NDArray[np.int64]  # (n,) rows of the index
    windows: Windows  # (n, 4)
    flips: NDArray[np.bool_]  # (n,)
    images_seen: int  # by the whole run, when the step on this batch is done


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
    """This rank's batches of the endless stream from `images_seen` on. Needs no image, only the index."""
    while True:
        part = order.training_slice(
            seed=seed, images=len(index), images_seen=images_seen, rank=rank, size=size, batch_size=batch_size
        )
        windows = augment.training_windows(
            seed=seed,
            epochs=part.epochs,
            samples=part.samples,
            heights=index.heights[part.samples],
            widths=index.widths[part.samples],
            area=augmentation.area,
            aspect=augmentation.aspect,
        )
        flips = augment.flips(seed=seed, epochs=part.epochs, samples=part.samples, probability=augmentation.flip)
        images_seen += size * batch_size
        yield Plan(part.samples, windows, flips, images_seen)


def evaluation_plans(index: Index, *, resize: float, rank: int, size: int, batch_size: int) -> Iterator[Plan]:
    """This rank's share of all images, each once; the last batch may be smaller. No image is seen by the training."""
    share = np.array(order.evaluation_share(images=len(index), rank=rank, size=size), np.int64)
    windows = augment.evaluation_windows(heights=index.heights, widths=index.widths, resize=resize)
    for start in range(0, len(share), batch_size):
        samples = share[start : start + batch_size]
        yield Plan(samples, windows[samples], np.zeros(len(samples), np.bool_), images_seen=0)


def batches(plans: Iterable[Plan], index: Index, decoder: Decoder) -> Iterator[Batch]:
    """The plans' pictures and labels. The decoder takes plans ahead; each batch still carries its own `images_seen`."""
    in_work: deque[Plan] = deque()

    def requests() -> Iterator[Request]:
        for plan in plans:
            in_work.append(plan)
            paths = [f"{index.root}/{index.paths[sample]}" for sample in plan.samples]
            yield Request(paths, plan.windows, plan.flips)

    for images in decoder.decode(requests()):
        plan = in_work.popleft()
        labels = torch.from_numpy(index.labels[plan.samples]).to(images.device, non_blocking=True)
        yield Batch(images, labels, plan.images_seen)
