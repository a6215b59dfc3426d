"""Crop windows against torchvision's own RandomResizedCrop.get_params, and the proof that the comparison can fail.

Two samples of n and m numbers from one distribution have distribution functions that differ somewhere by more than
c(alpha)·sqrt((n+m)/(n·m)), c(alpha) = sqrt(-ln(alpha/2)/2), with a probability of about alpha (Kolmogorov and Smirnov),
where numbers repeat, as pixels do, with less. All seeds are fixed: what passes once passes always.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hvdtrain import torchvision
from hvdtrain.data import augment

AREA, ASPECT = (0.08, 1.0), (3 / 4, 4 / 3)
FALSE_ALARM = 1e-6  # of one comparison; there are some hundred below
SIGMAS = 4.89  # the normal distribution lies further out, on either side, with that probability
N = 20_000

SHAPES = [(500, 375), (375, 500), (224, 224), (50, 1000), (400, 40), (3, 5)]  # height, width
# In 50 x 1000 no attempt fits, for the smallest area is 55 high at the widest aspect; in 400 x 40 one in 40 does.

Array = NDArray[np.float64]  # windows are (n, 4): top, left, height, width


def apart(ours: np.ndarray, theirs: np.ndarray) -> float:
    """The two-sample Kolmogorov-Smirnov statistic: the largest distance of the distribution functions."""
    ours, theirs = np.sort(ours), np.sort(theirs)
    everywhere = np.concatenate([ours, theirs])
    below = (np.searchsorted(of, everywhere, side="right") / len(of) for of in (ours, theirs))
    return float(np.abs(next(below) - next(below)).max())


def bound(n: int, m: int, alpha: float = FALSE_ALARM) -> float:
    return float(np.sqrt(-np.log(alpha / 2) / 2) * np.sqrt((n + m) / (n * m)))


def ours(height: int, width: int) -> Array:
    return augment.training_windows(
        seed=11,
        epochs=np.arange(N) // 1000,
        samples=np.arange(N) % 1000,
        heights=np.full(N, height, np.int32),
        widths=np.full(N, width, np.int32),
        area=AREA,
        aspect=ASPECT,
    ).astype(np.float64)


@cache
def torchvisions(height: int, width: int) -> Array:
    torchvision.load()
    from torchvision.transforms import RandomResizedCrop

    image = torch.empty(3, height, width)
    with torch.random.fork_rng(devices=[]):  # it draws from the global generator
        torch.manual_seed(0)
        draws = [RandomResizedCrop.get_params(image, AREA, ASPECT) for _ in range(N)]
    return np.array(draws, np.float64)


def fallback(height: int, width: int) -> Array:
    """The largest centred window whose shape is within ASPECT, as numbers worked out by hand."""
    return np.array(
        {
            (500, 375): (0, 0, 500, 375),
            (375, 500): (0, 0, 375, 500),
            (224, 224): (0, 0, 224, 224),
            (50, 1000): (0, 466, 50, 67),
            (400, 40): (173, 0, 53, 40),
            (3, 5): (0, 0, 3, 4),
        }[height, width],
        np.float64,
    )


def differences(one: Array, other: Array, height: int, width: int) -> set[str]:
    """In what the two samples of windows differ more than chance explains."""
    quantities: dict[str, Callable[[Array], Array]] = {
        "area": lambda w: w[:, 2] * w[:, 3] / (height * width),
        "aspect": lambda w: w[:, 3] / w[:, 2],
        "top": lambda w: w[:, 0],
        "left": lambda w: w[:, 1],
        "bottom": lambda w: w[:, 0] + w[:, 2],
        "right": lambda w: w[:, 1] + w[:, 3],
    }
    limit = bound(len(one), len(other))
    found = {name for name, of in quantities.items() if apart(of(one), of(other)) > limit}

    central = [(windows == fallback(height, width)).all(1).mean() for windows in (one, other)]
    rate = np.average(central, weights=[len(one), len(other)])
    if abs(central[0] - central[1]) > SIGMAS * np.sqrt(rate * (1 - rate) * (1 / len(one) + 1 / len(other))):
        found.add("fallbacks")
    return found


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_windows_are_distributed_as_torchvisions(height: int, width: int) -> None:
    assert differences(ours(height, width), torchvisions(height, width), height, width) == set()
    for windows in (ours(height, width), torchvisions(height, width)):
        assert (windows >= (0, 0, 1, 1)).all()
        assert (windows[:, :2] + windows[:, 2:] <= (height, width)).all()


@pytest.mark.parametrize(("shape", "low", "high"), [((50, 1000), 1, 1), ((400, 40), 0.5, 0.9), ((224, 224), 0, 0.01)])
def test_the_shapes_have_the_fallback_always_often_and_seldom(shape: tuple[int, int], low: float, high: float) -> None:
    assert low <= (torchvisions(*shape) == fallback(*shape)).all(1).mean() <= high


def sampler(
    height: int,
    width: int,
    *,
    scale: Callable[[Array], Array] = lambda uniform: AREA[0] + (AREA[1] - AREA[0]) * uniform,
    shape: Callable[[Array], Array] = lambda uniform: ASPECT[0] * (ASPECT[1] / ASPECT[0]) ** uniform,
    whole: Callable[[Array], Array] = np.rint,
    place: Callable[[Array, Array], Array] = lambda uniform, room: np.floor(uniform * (room + 1)),
    attempts: int = 10,
    otherwise: tuple[int, int, int, int] | None = None,
) -> Array:
    """The same distribution once more, straightforwardly, with parts that can be replaced by wrong ones."""
    draw = np.random.default_rng(2)
    pixels = scale(draw.random((attempts, N))) * height * width
    aspect = shape(draw.random((attempts, N)))
    wide, tall = whole(np.sqrt(pixels * aspect)), whole(np.sqrt(pixels / aspect))
    fits = (wide >= 1) & (wide <= width) & (tall >= 1) & (tall <= height)
    chosen = fits.argmax(0), np.arange(N)
    wide, tall = wide[chosen], tall[chosen]
    top, left = place(draw.random(N), height - tall), place(draw.random(N), width - wide)
    central = fallback(height, width) if otherwise is None else np.array(otherwise)
    return np.where(fits.any(0)[:, None], np.stack([top, left, tall, wide], axis=1), central)


@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_the_sampler_without_a_fault_is_not_rejected(height: int, width: int) -> None:
    assert differences(sampler(height, width), torchvisions(height, width), height, width) == set()


@pytest.mark.parametrize(
    ("shape", "seen_in", "fault"),
    [
        ((375, 500), "aspect", {"shape": lambda u: ASPECT[0] + (ASPECT[1] - ASPECT[0]) * u}),  # not log-uniform
        ((375, 500), "aspect", {"shape": np.ones_like}),  # squares only
        ((375, 500), "aspect", {"shape": lambda u: (2 / 3) * (9 / 4) ** u}),  # up to 3:2
        ((375, 500), "area", {"scale": lambda u: 0.1 + 0.9 * u}),
        ((375, 500), "area", {"scale": lambda u: (AREA[0] ** 0.5 + (1 - AREA[0] ** 0.5) * u) ** 2}),  # a uniform side
        ((375, 500), "top", {"place": lambda u, room: room // 2}),  # always in the centre
        ((224, 224), "right", {"place": lambda u, room: np.floor(u * np.maximum(room, 1))}),  # never at the far edge
        ((3, 5), "area", {"whole": np.floor}),
        ((3, 5), "area", {"whole": np.ceil}),
        ((375, 500), "fallbacks", {"attempts": 1}),
        ((400, 40), "fallbacks", {"attempts": 8}),
        ((400, 40), "aspect", {"otherwise": (0, 0, 400, 40)}),  # the whole image where no attempt fits
        ((50, 1000), "aspect", {"otherwise": (0, 0, 50, 1000)}),
    ],
)
def test_a_sampler_with_a_fault_is_rejected(shape: tuple[int, int], seen_in: str, fault: dict[str, Any]) -> None:
    assert seen_in in differences(sampler(*shape, **fault), torchvisions(*shape), *shape)
