"""Crop windows, flips and mixup's weights: where they lie and what they depend on. Beside torchvision's crops they are
laid in test_crop_distribution.py.
"""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain import torchvision
from hvdtrain.data import augment
from tests.data.test_crop_distribution import SIGMAS, apart, bound

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
pixels = st.one_of(st.integers(1, 12), st.integers(1, 6000))


def windows(height: Any, width: Any, samples: Any = 200, *, seed: int = 0, epoch: int = 0, **ranges: Any) -> np.ndarray:
    samples = np.arange(samples) if isinstance(samples, int) else np.asarray(samples)
    return augment.training_windows(
        seed=seed,
        epochs=np.full(len(samples), epoch),
        samples=samples,
        heights=np.broadcast_to(np.int32(height), len(samples)),
        widths=np.broadcast_to(np.int32(width), len(samples)),
        area=ranges.get("area", AREA),
        aspect=ranges.get("aspect", ASPECT),
    )


def inside(found: np.ndarray, height: Any, width: Any) -> bool:
    top, left, tall, wide = found.astype(np.float64).T
    whole = (found == np.rint(found)).all()
    return bool(
        whole and (np.minimum(top, left) >= 0).all() and (np.minimum(tall, wide) >= 1).all()
        and (top + tall <= height).all() and (left + wide <= width).all()
    )  # fmt: skip


def test_the_windows_never_change() -> None:
    found = augment.training_windows(
        seed=3,
        epochs=np.array([0, 0, 5, 5]),
        samples=np.array([0, 1, 2, 3]),
        heights=np.array([375, 500, 1, 2000], np.int32),
        widths=np.array([500, 333, 1, 9], np.int32),
        area=AREA,
        aspect=ASPECT,
    )
    assert found.dtype == np.float32
    assert found.tolist() == [[0, 54, 363, 397], [344, 5, 156, 128], [0, 0, 1, 1], [994, 0, 12, 9]]


def test_the_flips_never_change() -> None:
    found = augment.flips(seed=3, epochs=np.full(24, 5), samples=np.arange(24), probability=0.5)
    assert np.flatnonzero(found).tolist() == [0, 1, 2, 3, 6, 8, 9, 11, 12, 18, 21, 23]


@given(height=pixels, width=pixels, seed=st.integers(0, 2**32), epoch=st.integers(0, 100))
def test_a_training_window_lies_inside_its_image(height: int, width: int, seed: int, epoch: int) -> None:
    assert inside(windows(height, width, 40, seed=seed, epoch=epoch), height, width)


@given(height=pixels, width=pixels, resize=st.floats(1, 4), size=st.integers(16, 300))
def test_an_evaluation_window_lies_in_the_middle_of_what_is_decoded(
    height: int, width: int, resize: float, size: int
) -> None:
    windows, decoded = augment.evaluation_windows(
        heights=np.array([height]), widths=np.array([width]), size=size, resize=resize
    )
    assert (windows.dtype, decoded.dtype) == (np.float32, np.int32)
    assert inside(decoded, height, width)
    (window,), (around,) = windows.astype(np.float64), decoded
    for begin, extent, first, count, image in zip(
        window[:2], window[2:], around[:2], around[2:], (height, width), strict=True
    ):
        assert first - 1e-3 <= begin < begin + extent <= (first + count) * (1 + 1e-6)
        assert abs(begin + extent / 2 - image / 2) <= image / min(height, width) / resize / size * 1.01 * min(
            height, width
        )


def test_a_one_pixel_image_has_a_window_whatever_the_aspect() -> None:
    assert inside(windows(1, 1, aspect=(0.1, 0.3)), 1, 1)


def test_an_image_too_long_for_any_draw_gives_the_largest_centred_window() -> None:
    wide = windows(10, 1000, 50)
    assert {tuple(window) for window in wide.tolist()} == {(0, 493, 10, 13)}  # 13 = round(10 · 4/3)
    tall = windows(1000, 10, 50)
    assert {tuple(window) for window in tall.tolist()} == {(493, 0, 13, 10)}


def test_a_window_depends_on_seed_epoch_and_sample_alone() -> None:
    everyone = windows(375, 500, 100, epoch=4)
    some = np.array([70, 3, 3, 99])
    np.testing.assert_array_equal(windows(375, 500, some, epoch=4), everyone[some])
    assert (windows(375, 500, 100, epoch=5) != everyone).any(1).mean() > 0.95
    assert (windows(375, 500, 100, epoch=4, seed=1) != everyone).any(1).mean() > 0.95
    assert len(np.unique(everyone, axis=0)) > 95


def test_areas_are_uniform_and_aspects_log_uniform_where_everything_fits() -> None:
    found = windows(3000, 3000, 20_000, area=(0.1, 0.3), aspect=(0.5, 2)).astype(np.float64)
    area = found[:, 2] * found[:, 3] / 9e6
    log_aspect = np.log(found[:, 3] / found[:, 2])
    even = np.linspace(0.05, 0.95, 19)
    np.testing.assert_allclose(np.quantile(area, even), 0.1 + 0.2 * even, atol=0.003)
    np.testing.assert_allclose(np.quantile(log_aspect, even), np.log(2) * (2 * even - 1), atol=0.02)
    assert abs(np.corrcoef(area, log_aspect)[0, 1]) < 0.02
    room = found[:, 0] / (3000 - found[:, 2])
    np.testing.assert_allclose(np.quantile(room, even), even, atol=0.015)
    assert abs(np.corrcoef(room, found[:, 1] / (3000 - found[:, 3]))[0, 1]) < 0.02


@pytest.mark.parametrize("probability", [0, 0.1, 0.5, 1])
def test_flips_have_their_rate(probability: float) -> None:
    samples = np.arange(20_000)
    found = augment.flips(seed=0, epochs=np.zeros_like(samples), samples=samples, probability=probability)
    assert found.dtype == np.bool_
    assert abs(found.mean() - probability) < (0.011 if 0 < probability < 1 else 1e-9)


def test_a_flip_depends_on_seed_epoch_and_sample_and_not_on_the_crop() -> None:
    samples = np.arange(2000)

    def flips(seed: int, epoch: int, samples: np.ndarray = samples) -> np.ndarray:
        return augment.flips(seed=seed, epochs=np.full(len(samples), epoch), samples=samples, probability=0.5)

    np.testing.assert_array_equal(flips(0, 3, samples[::-7]), flips(0, 3)[::-7])
    for other in (flips(1, 3), flips(0, 4)):
        assert 0.45 < (other == flips(0, 3)).mean() < 0.55
    area = windows(3000, 3000, 2000, epoch=3)[:, 2:].prod(1)
    assert abs(np.corrcoef(area, flips(0, 3))[0, 1]) < 0.06


# What a chi-square of so many degrees of freedom exceeds with a probability of one in a million
MOST = {1: 23.93, 9: 44.81}


def chi_square(one: np.ndarray, other: np.ndarray) -> float:
    """Of the table that counts how often each of `one`'s values meets each of `other`'s: are they related?"""
    counts = np.zeros((one.max() + 1, other.max() + 1))
    np.add.at(counts, (one.astype(int).ravel(), other.astype(int).ravel()), 1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0) / counts.sum()
    return float(((counts - expected) ** 2 / expected).sum())


def flip_grid(seed: int) -> np.ndarray:
    """(400 epochs, 500 samples)"""
    epochs, samples = (grid.ravel() for grid in np.indices((400, 500)))
    return augment.flips(seed=seed, epochs=epochs, samples=samples, probability=0.5).reshape(400, 500)


def test_flips_have_nothing_to_do_with_windows() -> None:
    samples = np.arange(50_000)
    found = windows(375, 500, samples, epoch=2).astype(np.float64)
    flips = augment.flips(seed=0, epochs=np.full_like(samples, 2), samples=samples, probability=0.5)
    top, left, tall, wide = found.T
    for quantity in (tall * wide, wide / tall, top, left, top + tall, left + wide):
        tenths = np.argsort(np.argsort(quantity, kind="stable")) * 10 // len(samples)
        assert chi_square(tenths, flips) < MOST[9]
        assert chi_square(tenths, tenths >= 5) > 1000 * MOST[9]  # were it so, it would be seen


@pytest.mark.parametrize(("epochs", "samples"), [(1, 0), (2, 0), (3, 0), (0, 1), (0, 2), (0, 3), (1, 1), (16, 64)])
def test_flips_have_nothing_to_do_with_those_of_other_epochs_and_samples(epochs: int, samples: int) -> None:
    grid = flip_grid(0)
    assert chi_square(grid[epochs:, samples:], grid[: 400 - epochs, : 500 - samples]) < MOST[1]


def test_flips_have_nothing_to_do_with_those_of_another_seed() -> None:
    assert chi_square(flip_grid(0), flip_grid(1)) < MOST[1]


@pytest.mark.parametrize("axis", [0, 1])
def test_no_sample_and_no_epoch_is_flipped_more_or_more_evenly_than_by_chance(axis: int) -> None:
    grid = flip_grid(0)
    counts, n = grid.sum(axis), grid.shape[axis]
    spread = ((counts - n / 2) ** 2 / (n / 4)).sum()  # a chi-square of len(counts) degrees of freedom
    assert abs(spread - len(counts)) < SIGMAS * np.sqrt(2 * len(counts))


def weights(alpha: float, n: int = 20_000, *, seed: int = 0) -> np.ndarray:
    """One for each of n pairs."""
    return augment.mixup_weights(seed=seed, positions=np.arange(0, 2 * n, 2), alpha=alpha).astype(np.float64)


def test_the_mixup_weights_never_change() -> None:
    found = augment.mixup_weights(seed=3, positions=np.arange(10**9, 10**9 + 8), alpha=0.2)
    assert found.dtype == np.float32
    expected = [0.99624050, 0.93337047, 0.23761174, 0.12087470]
    np.testing.assert_allclose(found, np.repeat(expected, 2), rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.1, 0.2, 0.4, 0.5, 1, 2, 30])
def test_mixup_weights_are_beta_distributed(alpha: float) -> None:
    found, n = weights(alpha), 20_000
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(found.mean() - 0.5) < SIGMAS * np.sqrt(variance / n)
    # the fourth central moment over the variance squared is 3 - 6 / (2·alpha + 3)
    assert abs(found.var() / variance - 1) < SIGMAS * np.sqrt((2 - 6 / (2 * alpha + 3)) / n)
    numpys = np.random.default_rng(0).beta(alpha, alpha, n)
    # to six digits: finer than a float32 is near 1, and no picture shows it
    assert apart(found.round(6), numpys.round(6)) < bound(n, n)
    assert apart(found.round(6), (1 - found).round(6)) < bound(n, n)
    assert apart(found.round(6), np.random.default_rng(0).beta(alpha * 1.25, alpha * 1.25, n).round(6)) > bound(n, n)


@given(
    seed=st.integers(0, 2**64 - 1),
    positions=st.lists(st.integers(0, 2**50), min_size=1, max_size=20),
    alpha=st.floats(1e-4, 1e4),
)
def test_a_mixup_weight_is_a_fraction_that_depends_on_seed_and_pair_alone(
    seed: int, positions: list[int], alpha: float
) -> None:
    places = np.array(positions)
    found = augment.mixup_weights(seed=seed, positions=places, alpha=alpha)
    assert found.shape == places.shape
    assert ((found >= 0) & (found <= 1)).all()
    np.testing.assert_array_equal(augment.mixup_weights(seed=seed, positions=places ^ 1, alpha=alpha), found)
    for place, weight in zip(places, found, strict=True):  # alone as in company
        assert augment.mixup_weights(seed=seed, positions=np.array([place]), alpha=alpha) == weight


def test_pairs_and_seeds_have_mixup_weights_of_their_own() -> None:
    found = weights(1)
    assert len(np.unique(found)) > 19_900  # of float32s, some 20 of 20,000 meet another
    for other in (weights(1, seed=1), np.roll(found, 1), np.roll(found, 2)):
        assert abs(np.corrcoef(found, other)[0, 1]) < SIGMAS / np.sqrt(len(found))


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 224), (1200, 800), (97, 1001)])
def test_the_evaluation_window_is_what_resizing_and_centre_cropping_keep(height: int, width: int) -> None:
    torchvision.load()
    from torchvision.transforms.v2.functional import center_crop, resize

    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = torch.stack([rows, columns]).float()  # each pixel holds where it lies in the image
    kept = center_crop(resize(places, [256], antialias=False), [224, 224])
    scale = np.array([height, width]) / resize(places, [256]).shape[1:]
    edges = torch.stack([kept[0, 0, 0], kept[1, 0, 0], kept[0, -1, -1], kept[1, -1, -1]]).double()
    edges += (
        torch.tensor([-1, -1, 1, 1]) * torch.from_numpy(np.tile(scale, 2)) / 2
    )  # from pixels' centres to their edges
    (window,), _ = augment.evaluation_windows(
        heights=np.array([height]), widths=np.array([width]), size=224, resize=256 / 224
    )
    top, left, tall, wide = window.astype(np.float64)
    apart = edges.numpy() - np.array([top, left, top + tall, left + wide])
    assert np.abs(apart).max() < 0.01
