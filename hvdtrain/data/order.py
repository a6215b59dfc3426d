"""Who reads what, when: pure functions of the seed and the number of images seen.

Training reads one endless stream, the permutations of epochs 0, 1, 2 … one after the other. A step takes the next kn
of it, k workers of n each, wherever an epoch may end; so the stream does not depend on the number of workers, nor on
how often the run was stopped.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hvdtrain.data import keyed

_ORDER = 1  # keeps the order's random numbers apart from the augmentation's


@dataclass(frozen=True)
class Slice:
    """What one worker reads in some steps: batches of n images one after the other, m in all."""

    samples: NDArray[np.int64]  # (m,) rows of the index
    epochs: NDArray[np.int64]  # (m,) the epoch in which each is read
    positions: NDArray[np.int64]  # (m,) their places in the stream


@lru_cache(maxsize=2)  # a step may lie across the border of two epochs
def permutation(seed: int, epoch: int, images: int) -> NDArray[np.int64]:
    """The order of one epoch: each of 0 … images-1 once. Shape (images,)."""
    order = np.argsort(keyed.words(seed, _ORDER, epoch, np.arange(images)), kind="stable")
    order.flags.writeable = False
    return order


def training_slice(
    *, seed: int, images: int, images_seen: int, rank: int, size: int, batch_size: int, batches: int = 1
) -> Slice:
    """So many batches of `rank`, from that of the step on that begins when the whole run has seen `images_seen`."""
    firsts = images_seen + rank * batch_size + size * batch_size * np.arange(batches)
    positions = (firsts[:, None] + np.arange(batch_size)).reshape(-1)
    epochs, within = np.divmod(positions, images)
    samples = np.empty(len(positions), np.int64)
    for epoch in np.unique(epochs):
        here = epochs == epoch
        samples[here] = permutation(seed, int(epoch), images)[within[here]]
    return Slice(samples, epochs, positions)


def evaluation_share(*, batches: int, rank: int, size: int) -> range:
    """The batches that `rank` evaluates: contiguous, none twice, none left out, shares differing by one at most.

    Whole batches are dealt out, not images: so every image is evaluated beside the same others whatever the number of
    workers, and its result is the same to the last bit.

    >>> [list(evaluation_share(batches=7, rank=r, size=3)) for r in range(3)]
    [[0, 1], [2, 3], [4, 5, 6]]
    """
    return range(rank * batches // size, (rank + 1) * batches // size)
