"""Crop windows and flips: where they lie, what they depend on, and that they are torchvision's in distribution."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.data import augment
from hvdtrain.model import torchvision

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


@given(height=pixels, width=pixels, resize=st.floats(1, 4))
def test_an_evaluation_window_is_the_centred_square(height: int, width: int, resize: float) -> None:
    found = augment.evaluation_windows(heights=np.array([height]), widths=np.array([width]), resize=resize)
    assert found.dtype == np.float32
    assert inside(found, height, width)
    top, left, tall, wide = found[0]
    assert tall == wide
    assert abs(tall - max(1, min(height, width) / resize)) <= 0.5
    assert 0 <= (height - tall) - 2 * top <= 1
    assert 0 <= (width - wide) - 2 * left <= 1


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


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (200, 800), (64, 64)])
def test_windows_are_distributed_as_torchvisions(height: int, width: int) -> None:
    torchvision.load()
    from torchvision.transforms import RandomResizedCrop

    n = 4000
    ours = windows(height, width, n).astype(np.float64)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    theirs = np.array([RandomResizedCrop.get_params(image, AREA, ASPECT) for _ in range(n)], np.float64)
    quantiles = np.linspace(0.05, 0.95, 19)
    for name, of, scale in (
        ("area", lambda w: w[:, 2] * w[:, 3] / (height * width), 1.0),
        ("log aspect", lambda w: np.log(w[:, 3] / w[:, 2]), 2 * np.log(4 / 3)),
        ("top", lambda w: w[:, 0] / height, 1.0),
        ("left", lambda w: w[:, 1] / width, 1.0),
    ):
        # Two quantiles of 4,000 draws each differ by 0.011 of the range (standard deviation), two means by 0.006; an
        # aspect drawn evenly instead of log-evenly moves the mean by 0.04, a side instead of an area by 0.2.
        apart = np.abs(np.quantile(of(ours), quantiles) - np.quantile(of(theirs), quantiles)) / scale
        assert apart.max() < 0.05, name
        assert abs(of(ours).mean() - of(theirs).mean()) / scale < 0.015, name


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


@pytest.mark.parametrize(("height", "width"), [(375, 500), (500, 333), (224, 224), (1200, 800), (97, 1001)])
def test_the_evaluation_window_is_what_resizing_and_centre_cropping_keep(height: int, width: int) -> None:
    torchvision.load()
    from torchvision.transforms.v2.functional import center_crop, resize

    rows, columns = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
    places = torch.stack([rows, columns]).float()  # each pixel holds where it lies in the image
    kept = center_crop(resize(places, [256], antialias=False), [224, 224])
    scale = min(height, width) / 256
    edges = torch.stack([kept[0, 0, 0], kept[1, 0, 0], kept[0, -1, -1], kept[1, -1, -1]]).double()
    edges += torch.tensor([-1, -1, 1, 1]) * scale / 2  # from the centres of the outer pixels to their edges
    top, left, tall, wide = augment.evaluation_windows(
        heights=np.array([height]), widths=np.array([width]), resize=256 / 224
    )[0].astype(np.float64)
    # torchvision rounds the cut to its resized pixels, we to the image's: within one of the coarser
    apart = edges.numpy() - np.array([top, left, top + tall, left + wide])
    assert np.abs(apart).max() <= max(scale, 1)
