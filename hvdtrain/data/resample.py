"""Decoded windows -> normalised pictures, on the CPU.

torch's antialiased resampling of bytes is a vectorised twin of Pillow's, the same to one grey level and some times as
fast as DALI's on a CPU (benchmarks/README.md has the figures).
"""

import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from hvdtrain.data.decoder import Pictures
from hvdtrain.data.parallel import thread_pool

CHUNKS_PER_THREAD = 2  # of a batch: fewer and threads wait for the last, more and each costs its hand-over

Pixels = NDArray[np.uint8]  # (height, width, 3)


class Resampler:
    def __init__(self, pictures: Pictures, *, device: torch.device, threads: int) -> None:
        """
        Args:
            device: where the pictures are to be; a GPU gets them as bytes and normalises them itself.
        """
        self._size, self._dtype, self._device = pictures.size, pictures.dtype, device
        self._on_cpu = device.type == "cpu"
        self._scale = 1 / (255 * torch.tensor(pictures.std, dtype=torch.float64))
        self._shift = -255 * torch.tensor(pictures.mean, dtype=torch.float64) * self._scale
        # one row of a picture at a time: channels alone would be too short for vector instructions
        self._scales, self._shifts = (c.float().repeat(pictures.size) for c in (self._scale, self._shift))
        self._memory = Memory()
        self._threads = max(threads, 1)
        self._pool = single_threaded(self._threads)

    def pictures(
        self,
        windows: Sequence[Pixels],
        begins: NDArray[np.float32],
        ends: NDArray[np.float32],
        flips: NDArray[np.bool_],
    ) -> torch.Tensor:
        """(n, 3, size, size), channels-last in memory.

        Args:
            windows: n decoded windows.
            begins, ends: (n, 2) row and column of the corners of what is shown, in pixels of the windows.
            flips: (n,)
        """
        shape = len(windows), self._size, self._size, 3
        if self._on_cpu:
            batch = torch.from_numpy(self._memory.take(shape))
        else:
            batch = torch.empty(shape, dtype=torch.uint8, pin_memory=True)
        images = list(zip(batch, windows, begins, ends, flips.tolist(), strict=True))
        chunk = -(-len(images) // (CHUNKS_PER_THREAD * self._threads))
        list(self._pool.map(self._fill, (images[i : i + chunk] for i in range(0, len(images), chunk))))
        if self._on_cpu:
            return batch.to(self._dtype).permute(0, 3, 1, 2)
        scale, shift = self._scale.float().to(self._device), self._shift.float().to(self._device)
        return (batch.to(self._device, non_blocking=True) * scale + shift).to(self._dtype).permute(0, 3, 1, 2)

    def _fill(self, images: list[tuple[torch.Tensor, Pixels, NDArray[np.float32], NDArray[np.float32], bool]]) -> None:
        for place, window, begin, end, flip in images:
            picture = self._resize(window, begin, end)  # (1, 3, size, size), channels-last in memory
            if flip:
                picture = picture.flip(-1)
            rows = place.view(self._size, -1)
            rows.copy_(picture.permute(0, 2, 3, 1).reshape(self._size, -1))
            if self._on_cpu:
                torch.addcmul(self._shifts, rows, self._scales, out=rows)

    def _resize(self, window: Pixels, begin: NDArray[np.float32], end: NDArray[np.float32]) -> torch.Tensor:
        size = (self._size, self._size)
        if begin.any() or (end != window.shape[:2]).any():  # only Pillow can begin between two pixels
            box = (*begin[::-1].tolist(), *np.minimum(end, window.shape[:2])[::-1].tolist())
            resized = Image.fromarray(window).resize(size, Image.Resampling.BILINEAR, box=box)
            return torch.from_numpy(np.array(resized))[None].permute(0, 3, 1, 2)
        pixels = torch.from_numpy(window)[None].permute(0, 3, 1, 2)
        return functional.interpolate(pixels, size=size, mode="bilinear", antialias=True)


class Memory:
    """Arrays that are used again once nobody holds a tensor of theirs.

    Fresh memory comes page by page from the kernel, which costs a picture a third of the time of its decoding.
    """

    def __init__(self) -> None:
        self._arrays: list[NDArray[np.float32]] = []
        (self._references_when_free,) = _references([np.empty(0, np.float32)])

    def take(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """An array of any content. Whoever has it, or a tensor of it, has it alone."""
        free = [references == self._references_when_free for references in _references(self._arrays)]
        for array, unused in zip(self._arrays, free, strict=True):
            if unused and array.shape == shape:
                return array
        self._arrays = [array for array, unused in zip(self._arrays, free, strict=True) if not unused]
        self._arrays.append(np.empty(shape, np.float32))
        return self._arrays[-1]


def _references(arrays: list[NDArray[np.float32]]) -> list[int]:
    return [sys.getrefcount(array) for array in arrays]


def single_threaded(threads: int) -> ThreadPoolExecutor:
    """A pool of threads in each of which torch computes on one thread, while in the caller's it goes on as it does.

    How many threads an operation takes is a setting of the thread that calls it, and the pool would start as many for
    each of its own. But to set it also sets what MKL takes everywhere; hence it is set anew in the caller at the end.
    """
    before = torch.get_num_threads()
    made = thread_pool(threads, "resample", _take_one_thread)
    torch.set_num_threads(before)
    return made


def _take_one_thread() -> None:
    torch.get_num_threads()  # a thread's first question gives it the process's setting, which would undo an earlier one
    torch.set_num_threads(1)
