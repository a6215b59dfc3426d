"""The crop window and flip of each sample: pure functions of (seed, epoch, sample)."""

import numpy as np
from numpy.typing import NDArray

from hvdtrain.data import keyed

ATTEMPTS = 10
_CROP, _FLIP = 2, 3  # keep these random numbers apart from each other and from the order's

Windows = NDArray[np.float32]  # (n, 4): top, left, height, width in pixels


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
    attempt = np.arange(ATTEMPTS)[:, None]  # every number below is (ATTEMPTS, n)
    portion = area[0] + (area[1] - area[0]) * keyed.uniform(seed, _CROP, epochs, samples, 0, attempt)
    low, high = np.log(aspect)
    shape = np.exp(low + (high - low) * keyed.uniform(seed, _CROP, epochs, samples, 1, attempt))
    pixels = portion * heights.astype(np.float64) * widths
    width = np.rint(np.sqrt(pixels * shape))
    height = np.rint(np.sqrt(pixels / shape))
    fits = (width >= 1) & (width <= widths) & (height >= 1) & (height <= heights)
    first, column = fits.argmax(0), np.arange(len(samples))
    width, height = width[first, column], height[first, column]
    top = np.floor(keyed.uniform(seed, _CROP, epochs, samples, 2) * (heights - height + 1))
    left = np.floor(keyed.uniform(seed, _CROP, epochs, samples, 3) * (widths - width + 1))
    drawn = np.stack([top, left, height, width], axis=1)
    return np.where(fits.any(0)[:, None], drawn, _largest_centred(heights, widths, aspect)).astype(np.float32)


def flips(*, seed: int, epochs: NDArray[np.int64], samples: NDArray[np.int64], probability: float) -> NDArray[np.bool_]:
    """Whether each sample is mirrored left to right. Shape (n,)."""
    return keyed.uniform(seed, _FLIP, epochs, samples) < probability


def evaluation_windows(*, heights: NDArray[np.int32], widths: NDArray[np.int32], resize: float) -> Windows:
    """The centred square that "resize the shorter side to resize·s, crop s" keeps, in the image's own pixels.

    Cutting first and resizing once gives the same picture as resizing first, without pixels that are thrown away.
    """
    side = np.maximum(np.rint(np.minimum(heights, widths) / resize), 1)
    return np.stack([(heights - side) // 2, (widths - side) // 2, side, side], axis=1).astype(np.float32)


def _largest_centred(heights: NDArray[np.int32], widths: NDArray[np.int32], aspect: tuple[float, float]) -> Windows:
    shape = widths / heights
    width = np.maximum(np.where(shape > aspect[1], np.rint(heights * aspect[1]), widths), 1)
    height = np.maximum(np.where(shape < aspect[0], np.rint(widths / aspect[0]), heights), 1)
    return np.stack([(heights - height) // 2, (widths - width) // 2, height, width], axis=1).astype(np.float32)
