"""DALI: images and windows in, pictures out.

DALI decides nothing: which image, which window and whether it is mirrored are its inputs. On a GPU it does everything;
on a CPU it decodes, which it does as fast as can be, and resample.py does the rest.
"""

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from nvidia.dali import fn, pipeline_def, types
from nvidia.dali import math as dmath
from nvidia.dali.plugin.pytorch import feed_ndarray

from hvdtrain.data.decoder import Pictures, Request, Undecodable
from hvdtrain.data.parallel import one_ahead, thread_pool
from hvdtrain.data.resample import Resampler

DTYPES = {torch.float32: types.FLOAT, torch.float16: types.FLOAT16}

# The share of images for the hardware decoder, where a GPU has one (A100, H100): about what keeps it and the CUDA
# decoder equally busy (DALI's documentation, "Image Decoding"). To be measured.
HARDWARE_LOAD = 0.75

NO_MEMORY = ("std::bad_alloc", "CUDA allocation failed", "out of memory")

BEYOND = "its window ends beyond the image: the file has changed since it was indexed"


class DaliDecoder:
    """Decodes requests in order, `prefetch` batches ahead of whoever takes the pictures."""

    def __init__(
        self,
        *,
        batch_size: int,
        pictures: Pictures,
        decode_on_gpu: bool,
        device: torch.device,
        threads: int,
        prefetch: int,
        by_name: bool,
        largest: tuple[int, int],
        thread: ThreadPoolExecutor | None = None,
    ) -> None:
        """
        Args:
            batch_size: largest number of images in a request.
            decode_on_gpu: DALI's hybrid CPU/GPU decoder, and resizing on the GPU.
            device: where `decode` leaves the pictures.
            threads: CPU threads that decode.
            by_name: requests name files instead of holding their bytes.
            largest: height and width of the largest image, pixels; on a GPU memory for it is taken at once, so that
                decoding does not stop to get more in the middle of an epoch.
            thread: the one that decodes ahead on a CPU, which decoders of one process can share; by default its own.
        """
        self._thread = thread or thread_pool(1, "decode-ahead")
        self._device = device
        self._requests: Iterator[Request] = iter(())
        self._dtype = pictures.dtype
        self._resampler = None if decode_on_gpu else Resampler(pictures, device=device, threads=threads)
        self._graph = {"pictures": pictures, "by_name": by_name, "gpu_memory_for": largest if decode_on_gpu else None}
        self._machine = {"num_threads": threads, "device_id": device.index if decode_on_gpu else None}
        self._batch_size, self._prefetch = batch_size, prefetch
        self._pipeline = self._build()

    def decode(self, requests: Iterable[Request]) -> Iterator[torch.Tensor]:
        pictures = self._afresh(iter(requests))
        return one_ahead(pictures, self._thread) if self._resampler else pictures

    def fault(self, request: Request) -> str | None:
        pipeline = _graph(
            lambda: _columns(request), **self._graph, **self._machine, batch_size=1, prefetch_queue_depth=1
        )
        pipeline.build()
        try:
            fits, *_ = pipeline.run()
        except RuntimeError as error:
            return _cause(error)
        return None if _all(fits) else BEYOND

    def _build(self) -> Any:
        pipeline = _graph(
            lambda: _columns(next(self._requests)),
            **self._graph,
            **self._machine,
            batch_size=self._batch_size,
            prefetch_queue_depth=self._prefetch,
        )
        pipeline.build()
        return pipeline

    def _afresh(self, requests: Iterator[Request]) -> Iterator[torch.Tensor]:
        for _ in self._run_until_empty(iter(())):
            pass  # what an earlier decode had asked for and nobody took
        yield from self._run_until_empty(requests)

    def _run_until_empty(self, requests: Iterator[Request]) -> Iterator[torch.Tensor]:
        self._requests = requests
        self._pipeline.reset()
        while True:
            failure = None
            try:
                fits, *outputs = self._pipeline.run()
            except StopIteration:
                return
            except RuntimeError as error:
                failure = _cause(error)
            if failure is None and not _all(fits):
                failure = BEYOND
            if failure is not None:  # the error, whose traceback would keep the pipeline alive, is gone by now
                self._pipeline = self._build()  # one that has failed is dead; a new one costs milliseconds
                raise Undecodable(f"DALI: {failure}")
            yield self._resampled(*outputs) if self._resampler else self._copied(*outputs)

    def _resampled(self, windows: Any, *others: Any) -> torch.Tensor:
        assert self._resampler is not None
        begins, ends, flips = (np.asarray(column.as_tensor()) for column in others)
        return self._resampler.pictures([np.asarray(window) for window in windows], begins, ends, flips != 0)

    def _copied(self, pictures: Any) -> torch.Tensor:
        """DALI's memory is its own again at the next run, so the pictures move to a tensor of ours."""
        decoded = pictures.as_tensor()
        batch = torch.empty(decoded.shape(), dtype=self._dtype, device=self._device)  # (n, H, W, 3)
        feed_ndarray(decoded, batch, cuda_stream=torch.cuda.current_stream())
        return batch.permute(0, 3, 1, 2)


def _all(flags: Any) -> bool:
    """Whether none of a batch of scalars from DALI is 0."""
    return bool(np.asarray(flags.as_tensor()).all())


def _columns(request: Request) -> tuple[Any, ...]:
    """Images; corner and size of what is decoded; within that, begin and end of what is shown; flips."""
    corner, extent = request.decoded[:, :2].copy(), request.decoded[:, 2:].copy()
    begin = (request.windows[:, :2] - corner).astype(np.float32)
    end = (begin + request.windows[:, 2:]).astype(np.float32)
    return request.inputs, corner, extent, begin, end, request.flips.astype(np.int32)


def _cause(error: RuntimeError) -> str:
    """What DALI's report says after its stack of frames.

    Raises:
        MemoryError: it was want of memory, which is no fault of an image.
    """
    cause = " ".join(str(error).partition("encountered:")[2].partition("Current pipeline")[0].split()) or str(error)
    if any(text in cause for text in NO_MEMORY):
        raise MemoryError(f"DALI: {cause}") from None
    return cause


@pipeline_def
def _graph(
    columns: Callable[[], Any], *, pictures: Pictures, by_name: bool, gpu_memory_for: tuple[int, int] | None
) -> Any:
    """Outputs: whether each window lies in its image; then, on a GPU, the pictures, and on a CPU the decoded windows
    with begin, end and flip of each.
    """
    images, start, shape, begin, end, flip = fn.external_source(
        columns,
        num_outputs=6,
        dtype=[types.UINT8, types.INT32, types.INT32, types.FLOAT, types.FLOAT, types.INT32],
        ndim=[1, 1, 1, 1, 1, 0],
    )
    if by_name:
        images = fn.io.file.read(images)
    # When the decoder meets what is no image, or a window that ends beyond it, the process may end by a segmentation
    # fault (DALI 2.4.0). So another operator looks at the header first, which fails in an orderly way; and a window is
    # cut to what there is of the image, and said to be.
    size = fn.cast(fn.peek_image_shape(images, adjust_orientation=False)[:2], dtype=types.INT32)
    first = dmath.min(start, size - 1)
    last = dmath.min(start + shape, size)
    fits = fn.reductions.min(fn.cast(start + shape == last, dtype=types.INT32))
    decode = partial(
        fn.decoders.image_slice,
        images,
        first,
        dmath.max(last - first, 1),
        axis_names="HW",
        output_type=types.RGB,
        adjust_orientation=False,  # Pillow does not turn images by their EXIF tag, and windows are in stored pixels
    )
    if gpu_memory_for is None:
        return fits, decode(device="cpu"), begin, end, flip
    pixels = decode(
        device="mixed",
        hw_decoder_load=HARDWARE_LOAD,
        preallocate_height_hint=gpu_memory_for[0],
        preallocate_width_hint=gpu_memory_for[1],
        jpeg_fancy_upsampling=True,  # as libjpeg-turbo does, so that both devices give the same pictures
    )
    # Without antialiasing up to 1.5 % of top-1 is lost: NVIDIA/DALI issues 400, 1111, 1507.
    resized = fn.resize(
        pixels,
        size=[pictures.size] * 2,
        roi_start=begin,
        roi_end=end,
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )
    return fits, fn.crop_mirror_normalize(
        resized,
        mirror=flip,
        dtype=DTYPES[pictures.dtype],
        output_layout="HWC",
        mean=[255 * m for m in pictures.mean],
        std=[255 * s for s in pictures.std],
    )
