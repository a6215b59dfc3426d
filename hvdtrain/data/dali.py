"""The DALI graph: paths and windows in, normalised pictures out. CPU and GPU share it; only the device differs.

DALI decides nothing: which file, which window and whether it is mirrored are its inputs.
"""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.plugin.pytorch import feed_ndarray
from PIL import Image

from hvdtrain.data.augment import Windows
from hvdtrain.errors import DataError


@dataclass(frozen=True)
class Request:
    """The pictures of one batch."""

    paths: Sequence[str]
    windows: Windows  # (n, 4): top, left, height, width in pixels of the file
    flips: NDArray[np.bool_]  # (n,)


@dataclass(frozen=True)
class Colours:
    mean: tuple[float, float, float]  # of pixels from 0 to 1
    std: tuple[float, float, float]


class Decoder:
    """Decodes requests in order, `prefetch` batches ahead of whoever takes the pictures."""

    def __init__(
        self,
        *,
        batch_size: int,
        image_size: int,
        colours: Colours,
        decode_on_gpu: bool,
        device: torch.device,
        threads: int,
        prefetch: int,
    ) -> None:
        """
        Args:
            batch_size: largest number of images in a request.
            image_size: height and width of the pictures, pixels.
            decode_on_gpu: DALI's hybrid CPU/GPU decoder, and resizing on the GPU.
            device: where `take` leaves the pictures.
            threads: CPU threads that decode.
        """
        self.device = device
        self._requests: Iterator[Request] = iter(())
        self._in_work: deque[Request] = deque(maxlen=prefetch + 1)
        self._pipeline = _graph(
            self._next_inputs,
            image_size=image_size,
            colours=colours,
            place="gpu" if decode_on_gpu else "cpu",
            batch_size=batch_size,
            num_threads=threads,
            device_id=device.index if decode_on_gpu else None,
            prefetch_queue_depth=prefetch,
        )
        self._pipeline.build()

    def decode(self, requests: Iterable[Request]) -> Iterator[torch.Tensor]:
        """One (n, 3, image_size, image_size) float32 tensor in channels-last memory order for each request.

        Requests are taken from the iterable `prefetch` batches before their pictures are.

        Raises:
            DataError: a file is missing, or no image that can be decoded. The decoder is of no more use then.
        """
        for _ in self._run_until_empty(iter(())):
            pass  # what an earlier decode had asked for and nobody took
        yield from self._run_until_empty(iter(requests))

    def _run_until_empty(self, requests: Iterator[Request]) -> Iterator[torch.Tensor]:
        self._requests = requests
        self._pipeline.reset()
        while True:
            try:
                (pictures,) = self._pipeline.run()
            except StopIteration:
                return
            except RuntimeError as error:
                culprit = _undecodable(path for request in self._in_work for path in request.paths)
                raise DataError(f"cannot decode {culprit or 'an image'} (DALI: {_cause(error)})") from error
            yield self._copy(pictures)

    def _next_inputs(self) -> tuple[list[NDArray[np.uint8]], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        request = next(self._requests)
        self._in_work.append(request)
        paths = [np.frombuffer(os.fsencode(path), np.uint8) for path in request.paths]
        windows = request.windows.astype(np.int32)
        return paths, windows[:, :2].copy(), windows[:, 2:].copy(), request.flips.astype(np.int32)

    def _copy(self, pictures: Any) -> torch.Tensor:
        """DALI's memory is its own again at the next run, so the pictures move to a tensor of ours."""
        decoded = pictures.as_tensor()
        batch = torch.empty(decoded.shape(), device=self._pictures_device)  # (n, H, W, 3)
        feed_ndarray(decoded, batch, cuda_stream=torch.cuda.current_stream() if batch.is_cuda else None)
        return batch.to(self.device).permute(0, 3, 1, 2)

    @property
    def _pictures_device(self) -> torch.device:
        return torch.device("cpu") if self._pipeline.device_id is None else self.device


def _cause(error: RuntimeError) -> str:
    """What DALI's report says after its stack of frames."""
    return " ".join(str(error).partition("encountered:")[2].partition("Current pipeline")[0].split()) or str(error)


def _undecodable(paths: Iterable[str]) -> str | None:
    """The first file that PIL cannot decode either; DALI does not say which one it was."""
    for path in paths:
        try:
            with Image.open(path) as image:
                image.load()
        except (OSError, SyntaxError) as error:
            return f"{path}: {error}"
    return None


@pipeline_def
def _graph(inputs: Callable[[], Any], *, image_size: int, colours: Colours, place: str) -> Any:
    paths, start, shape, flip = fn.external_source(
        inputs, num_outputs=4, dtype=[types.UINT8, types.INT32, types.INT32, types.INT32], ndim=[1, 1, 1, 0]
    )
    pixels = fn.decoders.image_slice(
        fn.io.file.read(paths),
        start,
        shape,
        axis_names="HW",
        device="mixed" if place == "gpu" else "cpu",
        output_type=types.RGB,
        adjust_orientation=False,  # PIL does not turn images by their EXIF tag either, and windows are in stored pixels
    )
    # Without antialiasing up to 1.5 % of top-1 is lost: NVIDIA/DALI issues 400, 1111, 1507.
    resized = fn.resize(pixels, size=[image_size, image_size], interp_type=types.INTERP_LINEAR, antialias=True)
    return fn.crop_mirror_normalize(
        resized,
        mirror=flip,
        dtype=types.FLOAT,
        output_layout="HWC",
        mean=[255 * m for m in colours.mean],
        std=[255 * s for s in colours.std],
    )
