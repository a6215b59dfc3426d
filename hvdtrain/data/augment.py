"""The crop window and flip of each sample: pure functions of (seed, epoch, sample).

What decides how images are mixed in pairs is a pure function of (seed, place in the stream): the pair of a place is the
place // 2.
"""

import numpy as np
from numpy.typing import NDArray

from hvdtrain.data import keyed

ATTEMPTS = 10
_CROP, _FLIP, _WEIGHT, _CUT, _BOX = 2, 3, 4, 5, 6  # keep these random numbers apart from each other and the order's

Windows = NDArray[np.float32]  # (n, 4): top, left, height, width in pixels
Decoded = NDArray[np.int32]  # (n, 4): the same in whole pixels
Boxes = NDArray[np.int64]  # (n, 4): top, left, bottom, right in pixels, the last two no longer inside


def training_windows(
    *,
    seed: int,
    epochs: NDArray[np.int64],
    samples: NDArray[np.int64],
    heights: NDArray[np.int32],
    widths: NDArray[np.int32],
    area: tuple[float, float],
    aspect: tuple[float, float],
) -> Windows:
    """Random windows, distributed as torchvision's RandomResizedCrop draws them (Szegedy et al. 2015, section 6).

    Up to ten times: an area uniform in `area` of the image's, a width / height log-uniform in `aspect`. The first that
    fits is placed uniformly; if none fits, the largest centred window whose shape is within `aspect`.
    """
    crop = keyed.words(seed, _CROP, epochs, samples)
    attempt = np.arange(ATTEMPTS)[:, None]  # every number below is (ATTEMPTS, n)
    portion = area[0] + (area[1] - area[0]) * keyed.uniform(0, attempt, after=crop)
    low, high = np.log(aspect)
    shape = np.exp(low + (high - low) * keyed.uniform(1, attempt, after=crop))
    pixels = portion * heights.astype(np.float64) * widths
    width = np.rint(np.sqrt(pixels * shape))
    height = np.rint(np.sqrt(pixels / shape))
    fits = (width >= 1) & (width <= widths) & (height >= 1) & (height <= heights)
    first, column = fits.argmax(0), np.arange(len(samples))
    width, height = width[first, column], height[first, column]
    top = np.floor(keyed.uniform(2, after=crop) * (heights - height + 1))
    left = np.floor(keyed.uniform(3, after=crop) * (widths - width + 1))
    drawn = np.stack([top, left, height, width], axis=1)
    return np.where(fits.any(0)[:, None], drawn, _largest_centred(heights, widths, aspect)).astype(np.float32)


def flips(*, seed: int, epochs: NDArray[np.int64], samples: NDArray[np.int64], probability: float) -> NDArray[np.bool_]:
    """Whether each sample is mirrored left to right. Shape (n,)."""
    return keyed.uniform(seed, _FLIP, epochs, samples) < probability


def mixup_weights(
    *, seed: int, positions: NDArray[np.int64], alpha: float | NDArray[np.float64]
) -> NDArray[np.float32]:
    """Beta(alpha, alpha) weights of images mixed in pairs (Zhang et al. 2018, "mixup"), by CutMix too. Shape (n,).

    Places 2i and 2i+1 of the stream share one weight w: each image becomes w of itself and 1-w of the other.
    Drawn by a formula of two numbers, without rejection, for any alpha: Bailey 1994, "Polar generation of random
    variates with the t-distribution", gives t of 2·alpha degrees of freedom, and (1 + t / sqrt(2·alpha + t²)) / 2 is
    the weight.

    Args:
        alpha: above 0; one for all or one for each.

    >>> a, b, c = mixup_weights(seed=0, positions=np.array([6, 7, 8]), alpha=0.2)
    >>> bool(a == b), bool(a == c)
    (True, False)
    """
    pairs = positions // 2
    power = (1 - keyed.uniform(seed, _WEIGHT, pairs, 0)) ** (1 / alpha)  # small alpha: may underflow, giving 0 or 1
    cosine = np.cos(2 * np.pi * keyed.uniform(seed, _WEIGHT, pairs, 1))
    square = (1 - power) * cosine**2  # never 0 together with power: no float64 has a cosine of 0
    weights: NDArray[np.float64] = 0.5 + 0.5 * np.copysign(np.sqrt(square / (square + power)), cosine)
    return weights.astype(np.float32)


def cuts(*, seed: int, positions: NDArray[np.int64], mixup: float, cutmix: float) -> NDArray[np.bool_]:
    """Whether the pair of each place is mixed by CutMix: a fair coin where both alphas are above 0. Shape (n,)."""
    probability = 0.5 if mixup and cutmix else float(cutmix > 0)
    return keyed.uniform(seed, _CUT, positions // 2) < probability


def cutmix_boxes(
    *, seed: int, positions: NDArray[np.int64], weights: NDArray[np.float32], height: int, width: int
) -> Boxes:
    """What CutMix takes from the other picture of a pair, as torchvision draws it (Yun et al. 2019, "CutMix").

    A box of sqrt(1-w) of each side of the picture, its centre uniform over all pixels, of which what lies in the
    picture is left: up to a pixel, 1-w of its area, or less.
    """
    pairs = positions // 2
    half = 0.5 * np.sqrt(1 - weights.astype(np.float64))
    ends = []
    for axis, side in enumerate((height, width)):
        centre = np.floor(keyed.uniform(seed, _BOX, pairs, axis) * side)
        reach = np.trunc(half * side)
        ends.append((np.maximum(centre - reach, 0), np.minimum(centre + reach, side)))
    (top, bottom), (left, right) = ends
    return np.stack([top, left, bottom, right], axis=1).astype(np.int64)


def evaluation_windows(
    *, heights: NDArray[np.int32], widths: NDArray[np.int32], size: int, resize: float
) -> tuple[Windows, Decoded]:
    """What torchvision's Resize(resize · size) and CenterCrop(size) keep, in the image's own pixels, and fractions.

    Resizing this window at once gives the same picture as resizing first, without pixels that are thrown away. As in
    those, the filter at the window's edge reaches beyond it, so more than the window has to be decoded.
    """
    image = np.maximum(np.stack([heights, widths], axis=1), 1).astype(np.int64)  # (n, 2)
    shorter = np.rint(resize * size).astype(np.int64)
    resized = shorter * image // image.min(axis=1, keepdims=True)
    corner = np.rint((resized - size) / 2)
    scale = image / resized
    begin, end = corner * scale, (corner + size) * scale
    reach = np.maximum(scale, 1)  # of the triangular filter, pixels
    first = np.maximum(np.floor(begin - reach), 0).astype(np.int32)
    last = np.minimum(np.ceil(end + reach), image).astype(np.int32)
    windows = np.concatenate([begin, end - begin], axis=1).astype(np.float32)
    return windows, np.concatenate([first, last - first], axis=1)


def _largest_centred(heights: NDArray[np.int32], widths: NDArray[np.int32], aspect: tuple[float, float]) -> Windows:
    shape = widths / heights
    width = np.maximum(np.where(shape > aspect[1], np.rint(heights * aspect[1]), widths), 1)
    height = np.maximum(np.where(shape < aspect[0], np.rint(widths / aspect[0]), heights), 1)
    return np.stack([(heights - height) // 2, (widths - width) // 2, height, width], axis=1).astype(np.float32)
