"""The promise of a run: its images, windows and flips depend on (seed, epoch, sample) alone.

Not on the number of workers, not on the batch size, not on where it stopped nor on what it then went on, and not on
anyone's global random numbers.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdtrain.data import augment, loader, order
from hvdtrain.data.loader import Augmentation

USUAL = Augmentation(area=(0.08, 1), aspect=(3 / 4, 4 / 3), flip=0.5)

Entry = tuple[int, int, tuple[float, ...], bool]  # epoch, sample, window, flip


class Table:
    """What plans need of an index: the shapes of its images, here of all sorts."""

    def __init__(self, images: int) -> None:
        rows = np.arange(images)
        self.heights = (1 + rows * 37 % 500).astype(np.int32)
        self.widths = (1 + rows * 101 % 700).astype(np.int32)

    def __len__(self) -> int:
        return len(self.heights)


def steps(table: Any, *, seed: int, seen: int, size: int, batch_size: int) -> Iterator[tuple[list[Entry], int]]:
    """Step by step what all ranks read, rank after rank, and the images seen by then, on which they must agree."""
    ranks = [
        loader.training_plans(table, USUAL, seed=seed, images_seen=seen, rank=rank, size=size, batch_size=batch_size)
        for rank in range(size)
    ]
    for plans in zip(*ranks, strict=True):
        assert {plan.samples.shape for plan in plans} == {(batch_size,)}
        (seen_now,) = {plan.images_seen for plan in plans}
        yield (
            [entry for plan in plans for entry in entries(plan.epochs, plan.samples, plan.windows, plan.flips)],
            seen_now,
        )


def entries(epochs: np.ndarray, samples: np.ndarray, windows: np.ndarray, flips: np.ndarray) -> list[Entry]:
    return list(zip(epochs.tolist(), samples.tolist(), map(tuple, windows.tolist()), flips.tolist(), strict=True))


def undisturbed(table: Any, *, seed: int, start: int, count: int) -> list[Entry]:
    """Places start … of the stream, read by one rank, one image at a time."""
    alone = steps(table, seed=seed, seen=start, size=1, batch_size=1)
    return [entry for read, _ in islice(alone, count) for entry in read]


images = st.integers(1, 200)
seeds = st.integers(0, 2**64 - 1)
# size, batch size, steps up to the last checkpoint, steps after it, which are lost and read again
segments = st.tuples(st.integers(1, 8), st.integers(1, 16), st.integers(0, 3), st.integers(0, 1))


@settings(max_examples=60)
@given(images=images, seed=seeds, start=st.integers(0, 1000), plan=st.lists(segments, min_size=1, max_size=4))
def test_a_run_reads_the_same_stream_however_it_is_cut_and_stopped(
    images: int, seed: int, start: int, plan: list[tuple[int, int, int, int]]
) -> None:
    table, kept, everything = Table(images), [], []
    seen = start
    for size, batch_size, saved, lost in plan:
        checkpoint = seen
        for number, (read, after) in enumerate(
            islice(steps(table, seed=seed, seen=checkpoint, size=size, batch_size=batch_size), saved + lost)
        ):
            assert after == checkpoint + (number + 1) * size * batch_size
            everything.append((after - len(read), read))
            if number < saved:
                kept += read
                seen = after
    assert len(kept) == seen - start

    end = max([seen, *(place + len(read) for place, read in everything)])
    stream = undisturbed(table, seed=seed, start=start, count=end - start)
    assert kept == stream[: seen - start]
    for place, read in everything:  # what was lost was no different from what is read in its place
        assert read == stream[place - start : place - start + len(read)]

    for first in range(-start % images, len(kept) - images + 1, images):  # the whole epochs
        epoch = (start + first) // images
        whole = sorted((of, sample) for of, sample, _, _ in kept[first : first + images])
        assert whole == [(epoch, sample) for sample in range(images)]


@settings(max_examples=200)
@given(images=images, seed=seeds, start=st.integers(0, 10**9), size=st.integers(1, 8), batch_size=st.integers(1, 16))
def test_windows_and_flips_are_those_of_the_seed_the_epoch_and_the_sample(
    images: int, seed: int, start: int, size: int, batch_size: int
) -> None:
    """Not of the place within the epoch either: they are looked up here from the epoch's samples in rising order."""
    table = Table(images)
    read, _ = next(steps(table, seed=seed, seen=start, size=size, batch_size=batch_size))
    samples = np.arange(images)
    table_of_epoch = {}
    for epoch in range(start // images, (start + len(read) - 1) // images + 1):
        epochs = np.full(images, epoch)
        windows = augment.training_windows(
            seed=seed,
            epochs=epochs,
            samples=samples,
            heights=table.heights,
            widths=table.widths,
            area=USUAL.area,
            aspect=USUAL.aspect,
        )
        flips = augment.flips(seed=seed, epochs=epochs, samples=samples, probability=USUAL.flip)
        table_of_epoch[epoch] = entries(epochs, samples, windows, flips)
    for place, entry in enumerate(read, start):
        epoch, within = divmod(place, images)
        assert entry == table_of_epoch[epoch][order.permutation(seed, epoch, images)[within]]


def global_states() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), (name, keys.tolist(), *rest), torch.get_rng_state().tolist()


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Python's, numpy's and torch's global generators seeded, and put back afterwards."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def test_planning_neither_draws_from_the_global_generators_nor_depends_on_them() -> None:
    plans = []
    for global_seed in (0, 1):
        order.permutation.cache_clear()  # so that the second run computes what the first did
        with seeded(global_seed):
            before = global_states()
            read = [step for step, _ in islice(steps(Table(50), seed=5, seen=7, size=2, batch_size=16), 4)]
            weights = augment.mixup_weights(seed=5, positions=np.arange(100), alpha=0.2)
            assert global_states() == before
        plans.append((read, weights.tolist()))
    assert plans[0] == plans[1]
    with seeded(0), seeded(1):  # and the states compared above do tell a single draw
        before = global_states()
        for draw in (random.random, np.random.random, lambda: torch.rand(1)):
            draw()
            assert global_states() != before
            before = global_states()
