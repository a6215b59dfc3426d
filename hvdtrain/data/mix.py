"""Mixup and CutMix: the pictures of a batch mixed in pairs of neighbours in the stream, as augment.py draws it."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from hvdtrain.data import augment


@dataclass(frozen=True)
class Mixing:
    """How pairs are mixed. At least one alpha is above 0; if both are, a fair coin decides for each pair."""

    mixup: float  # alpha of Beta(alpha, alpha), from which the weights are drawn; 0: no mixup
    cutmix: float  # likewise
    seed: int


@dataclass(frozen=True)
class Mixed:
    """The loss of a picture is weights · that of its own label + (1 - weights) · that of the other one."""

    images: torch.Tensor  # (m, 3, H, W) of the type of the images mixed
    others: torch.Tensor  # (m,) int64: the partner's label, or the picture's own where it was not mixed
    weights: torch.Tensor  # (m,) float32: share of the picture's own label, 1 where it was not mixed


def mix(images: torch.Tensor, labels: torch.Tensor, positions: NDArray[np.int64], mixing: Mixing) -> Mixed:
    """Mix each picture with its partner, places 2i and 2i+1 of the stream being partners of each other.

    Inside a box a picture becomes (1-s)·picture + s·partner; outside it stays as it is. Both of a pair have one box.

        mixup   (Zhang et al. 2018)  s = 1-w, w ~ Beta(alpha, alpha); the box is the whole picture
        CutMix  (Yun et al. 2019)    s = 1; the box is augment.cutmix_boxes'

    The label's weight is the mean of its picture's: 1 - s · box area / picture area. All is drawn by (seed, pair), so
    it does not matter with which others a pair is in a batch. A picture whose partner is missing is not mixed.

    Args:
        images: (m, 3, H, W) float32 or float16; they stay as they are. Half-precision ones are mixed in float32.
        labels: (m,) int64.
        positions: (m,) places of the pictures in the stream, rising.

    >>> pictures = torch.tensor([0.0, 1, 2, 3, 4]).view(5, 1, 1, 1)
    >>> places = np.array([6, 7, 9, 10, 11])  # 8 cannot be decoded
    >>> mixed = mix(pictures, torch.tensor([70, 71, 72, 73, 74]), places, Mixing(mixup=1, cutmix=0, seed=0))
    >>> mixed.others.tolist()
    [71, 70, 72, 74, 73]
    >>> [[round(x, 2) for x in column.flatten().tolist()] for column in (mixed.weights, mixed.images)]
    [[0.35, 0.35, 1.0, 0.37, 0.37], [0.65, 0.35, 2.0, 3.63, 3.37]]
    """
    height, width = images.shape[2:]
    first = np.flatnonzero(positions[1:] // 2 == positions[:-1] // 2)  # rows whose partner is the next row
    shares, boxes = _drawn(positions[first], height, width, mixing)
    top, left, bottom, right = boxes.T

    partners, weights = np.arange(len(positions)), np.ones(len(positions))
    partners[first], partners[first + 1] = first + 1, first
    weights[first] = weights[first + 1] = 1 - shares * ((bottom - top) * (right - left) / (height * width))
    return Mixed(
        images=_blended(images, first, _per_pixel(shares, boxes, images, whole=not mixing.cutmix)),
        others=labels[_on(labels.device, partners)],
        weights=_on(labels.device, weights.astype(np.float32)),
    )


def _drawn(
    positions: NDArray[np.int64], height: int, width: int, mixing: Mixing
) -> tuple[NDArray[np.float64], augment.Boxes]:
    """The partner's share s and the box of each pair."""
    seed = mixing.seed
    cut = augment.cuts(seed=seed, positions=positions, mixup=mixing.mixup, cutmix=mixing.cutmix)
    weights = augment.mixup_weights(seed=seed, positions=positions, alpha=np.where(cut, mixing.cutmix, mixing.mixup))
    boxes = augment.cutmix_boxes(seed=seed, positions=positions, weights=weights, height=height, width=width)
    return np.where(cut, 1, 1 - weights.astype(np.float64)), np.where(cut[:, None], boxes, [0, 0, height, width])


def _per_pixel(shares: NDArray[np.float64], boxes: augment.Boxes, images: torch.Tensor, *, whole: bool) -> torch.Tensor:
    """The partner's share of each pixel, broadcastable to (pairs, 3, H, W); `whole`: all boxes are whole pictures."""
    numbers = np.concatenate([shares[None], boxes.T]).astype(np.float32)[..., None, None, None]
    share: torch.Tensor
    share, top, left, bottom, right = _on(images.device, numbers)
    if whole:
        return share
    channels, height, width = images.shape[1:]
    row = torch.arange(height, device=images.device)[:, None, None]
    column = torch.arange(width, device=images.device)[:, None]
    # (pairs, H, W, 3), as channels-last images are in memory, and written out for each channel: runs of one channel's
    # three numbers would be ten times as slow as those of a row
    columns = ((left <= column) & (column < right)).repeat(1, 1, 1, channels)
    return torch.mul(share * ((top <= row) & (row < bottom)), columns).permute(0, 3, 1, 2)


def _blended(images: torch.Tensor, first: NDArray[np.int64], shares: torch.Tensor) -> torch.Tensor:
    """Rows i and i+1 of the images, each with the other's share in it, for each i of `first`; the rest as they are."""
    blended = images.to(torch.float32, copy=True)
    borders = np.flatnonzero(np.diff(first, prepend=-3) != 2).tolist()  # there nothing was left out between two pairs
    for begin, end in pairwise([*borders, len(first)]):
        even = slice(int(first[begin]), int(first[end - 1]) + 1, 2)
        odd = slice(even.start + 1, even.stop + 1, 2)
        blended[even].lerp_(images[odd].float(), shares[begin:end])
        blended[odd].lerp_(images[even].float(), shares[begin:end])
    return blended.to(images.dtype)


def _on(device: torch.device, numbers: NDArray[Any]) -> torch.Tensor:
    return torch.from_numpy(numbers).to(device, non_blocking=True)  # else a GPU would have to finish all work before it
