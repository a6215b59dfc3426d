"""The stream of images: everyone together reads it once, whoever they are and however often they stopped."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdtrain.data import order

sizes = st.integers(1, 8)
batch_sizes = st.integers(1, 12)
images = st.integers(1, 60)
seeds = st.integers(0, 2**32)


def stream(seed: int, images: int, start: int, count: int) -> list[tuple[int, int]]:
    """Places `start` … of the endless stream, by definition: (epoch, sample) one after the other."""
    places = [divmod(position, images) for position in range(start, start + count)]
    return [(epoch, int(order.permutation(seed, epoch, images)[within])) for epoch, within in places]


def step(seed: int, images: int, seen: int, size: int, batch_size: int) -> list[tuple[int, int]]:
    """What all ranks read in one step, by rank."""
    read = []
    for rank in range(size):
        part = order.training_slice(
            seed=seed, images=images, images_seen=seen, rank=rank, size=size, batch_size=batch_size
        )
        assert part.samples.shape == part.epochs.shape == (batch_size,)
        read += list(zip(part.epochs.tolist(), part.samples.tolist(), strict=True))
    return read


def test_the_permutations_never_change() -> None:
    assert order.permutation(0, 0, 10).tolist() == [9, 7, 5, 8, 6, 4, 0, 2, 3, 1]
    assert order.permutation(0, 1, 10).tolist() == [3, 8, 2, 6, 7, 9, 1, 0, 5, 4]
    assert order.permutation(7, 3, 12).tolist() == [9, 1, 7, 6, 3, 5, 11, 10, 4, 2, 0, 8]


@given(seed=seeds, epoch=st.integers(0, 1000), images=st.integers(1, 500))
def test_each_epoch_has_each_sample_once(seed: int, epoch: int, images: int) -> None:
    assert sorted(order.permutation(seed, epoch, images)) == list(range(images))


def test_seeds_and_epochs_shuffle_apart() -> None:
    orders = {tuple(order.permutation(seed, epoch, 50)) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_place_of_an_epoch_is_as_likely_for_every_sample() -> None:
    where = np.stack([np.argsort(order.permutation(0, epoch, 8)) for epoch in range(4000)])  # (epochs, samples)
    counts = np.stack([(where == place).sum(0) for place in range(8)])
    chi_square = ((counts - 500) ** 2 / 500).sum()  # 49 degrees of freedom: standard deviation 10
    assert 20 < chi_square < 90


def test_a_permutation_that_is_handed_out_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        order.permutation(0, 0, 10)[0] = 5


@given(seed=seeds, images=images, seen=st.integers(0, 500), size=sizes, batch_size=batch_sizes)
def test_the_ranks_together_read_the_next_kn_of_the_stream(
    seed: int, images: int, seen: int, size: int, batch_size: int
) -> None:
    assert step(seed, images, seen, size, batch_size) == stream(seed, images, seen, size * batch_size)


@given(seed=seeds, images=images, seen=st.integers(0, 500), size=sizes, other=sizes, batch_size=batch_sizes)
def test_a_step_of_kn_images_is_the_same_for_any_number_of_workers(
    seed: int, images: int, seen: int, size: int, other: int, batch_size: int
) -> None:
    assert step(seed, images, seen, size, batch_size * other) == step(seed, images, seen, other, batch_size * size)


@settings(max_examples=50)
@given(
    seed=seeds, images=images, legs=st.lists(st.tuples(sizes, batch_sizes, st.integers(1, 4)), min_size=1, max_size=5)
)
def test_a_run_that_stops_and_goes_on_at_other_sizes_misses_nothing_and_repeats_nothing(
    seed: int, images: int, legs: list[tuple[int, int, int]]
) -> None:
    seen, read = 0, []
    for size, batch_size, steps in legs:
        for _ in range(steps):
            read += step(seed, images, seen, size, batch_size)
            seen += size * batch_size
    assert read == stream(seed, images, 0, seen)
    for epoch in range(seen // images):
        assert sorted(sample for e, sample in read if e == epoch) == list(range(images))


@given(
    seed=seeds,
    images=st.integers(1, 40),
    seen=st.integers(0, 100),
    batch_size=st.integers(1, 20),
    batches=st.integers(1, 8),
    place=st.integers(1, 4).flatmap(lambda size: st.tuples(st.integers(0, size - 1), st.just(size))),
)
def test_several_batches_at_once_are_those_of_one_step_after_the_other(
    seed: int, images: int, seen: int, batch_size: int, batches: int, place: tuple[int, int]
) -> None:
    rank, size = place
    where = {"seed": seed, "images": images, "rank": rank, "size": size, "batch_size": batch_size}
    together = order.training_slice(images_seen=seen, batches=batches, **where)
    each = [order.training_slice(images_seen=seen + i * size * batch_size, **where) for i in range(batches)]
    for column in ("samples", "epochs", "positions"):
        wanted = [number for part in each for number in getattr(part, column)]
        assert getattr(together, column).tolist() == wanted


def test_a_step_may_cross_the_border_of_an_epoch() -> None:
    part = order.training_slice(seed=0, images=10, images_seen=8, rank=0, size=1, batch_size=4)
    assert part.epochs.tolist() == [0, 0, 1, 1]
    assert part.samples.tolist() == [3, 1, 3, 8]


def test_a_batch_may_be_larger_than_the_data() -> None:
    part = order.training_slice(seed=0, images=10, images_seen=5, rank=0, size=1, batch_size=30)
    assert part.epochs.tolist() == [0] * 5 + [1] * 10 + [2] * 10 + [3] * 5


@given(batches=st.integers(0, 300), size=st.integers(1, 40))
def test_evaluation_deals_out_every_batch_once(batches: int, size: int) -> None:
    shares = [order.evaluation_share(batches=batches, rank=rank, size=size) for rank in range(size)]
    assert [batch for share in shares for batch in share] == list(range(batches))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_one_worker_evaluates_everything() -> None:
    assert order.evaluation_share(batches=7, rank=0, size=1) == range(7)


def test_where_workers_outnumber_batches_some_evaluate_nothing() -> None:
    assert [len(order.evaluation_share(batches=2, rank=rank, size=5)) for rank in range(5)] == [0, 0, 1, 0, 1]
