"""The same pictures through Pillow: what DALI is held to, and what decodes where DALI has no build.

Pillow is what torchvision's transforms end in; the tests hold both decoders to torchvision itself.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from hvdtrain.data.decoder import Pictures, Request, Undecodable
from hvdtrain.data.parallel import thread_pool
from hvdtrain.data.pillow import FAULTS, decode, read_file, rgb


class ReferenceDecoder:
    """Decodes requests in order, `prefetch` batches ahead of whoever takes the pictures."""

    def __init__(self, *, pictures: Pictures, device: torch.device, threads: int, prefetch: int, by_name: bool) -> None:
        """
        Args:
            device: where `decode` leaves the pictures.
            threads: CPU threads that decode.
            by_name: requests name files instead of holding their bytes.
        """
        self.device = device
        self._pictures, self._by_name, self._prefetch = pictures, by_name, prefetch
        self._pool = thread_pool(max(threads, 1), "decode")

    def decode(self, requests: Iterable[Request]) -> Iterator[torch.Tensor]:
        ahead: deque[list[Future[torch.Tensor]]] = deque()
        try:
            for request in requests:
                ahead.append([self._pool.submit(self._picture, *image) for image in _images(request)])
                if len(ahead) > self._prefetch:
                    yield self._batch(ahead.popleft())
            while ahead:
                yield self._batch(ahead.popleft())
        finally:
            for future in (future for batch in ahead for future in batch):
                future.cancel()

    def fault(self, request: Request) -> str | None:
        try:
            for image in _images(request):
                self._picture(*image)
        except FAULTS as error:
            return str(error)
        return None

    def _batch(self, futures: list[Future[torch.Tensor]]) -> torch.Tensor:
        try:
            batch = torch.stack([future.result() for future in futures])  # (n, H, W, 3)
        except FAULTS as error:
            raise Undecodable(f"Pillow: {error}") from error
        return batch.to(self.device, self._pictures.dtype).permute(0, 3, 1, 2)

    def _picture(
        self, data: NDArray[np.uint8], window: NDArray[np.float32], decoded: NDArray[np.int32], flip: bool
    ) -> torch.Tensor:
        """Shape (H, W, 3), float32."""
        image = rgb(decode(read_file(os.fsdecode(data.tobytes())) if self._by_name else data.tobytes()))
        top, left, height, width = decoded.tolist()
        if top + height > image.height or left + width > image.width:
            end = f"{top + height}x{left + width}"
            raise ValueError(f"it has {image.height}x{image.width} pixels, the window ends at {end}")
        begin = window[:2] - decoded[:2]
        end = np.minimum(begin + window[2:], decoded[2:])
        shown = image.crop((left, top, left + width, top + height)).resize(
            (self._pictures.size, self._pictures.size),
            Image.Resampling.BILINEAR,
            box=(float(begin[1]), float(begin[0]), float(end[1]), float(end[0])),
        )
        if flip:
            shown = shown.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        pixels = torch.from_numpy(np.array(shown)).float() / 255
        mean, std = torch.tensor(self._pictures.mean), torch.tensor(self._pictures.std)
        return (pixels - mean) / std


def _images(request: Request) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int32], bool]]:
    yield from zip(request.inputs, request.windows, request.decoded, request.flips.tolist(), strict=True)
