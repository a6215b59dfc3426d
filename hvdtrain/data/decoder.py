"""What every decoder takes and gives. There are two: dali.py, and reference.py where DALI has no build."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from hvdtrain.data.augment import Decoded, Windows
from hvdtrain.data.storage import Inputs
from hvdtrain.errors import DataError


@dataclass(frozen=True)
class Request:
    """The pictures of one batch."""

    inputs: Inputs  # n encoded images, or the names of the files that hold them
    windows: Windows  # (n, 4): top, left, height, width in pixels of the file: what is shown
    decoded: Decoded  # (n, 4): likewise: what is decoded, at least the window; the filter sees no other pixels
    flips: NDArray[np.bool_]  # (n,)


@dataclass(frozen=True)
class Pictures:
    """What a decoder is to make of the windows."""

    size: int  # height and width, pixels
    mean: tuple[float, float, float]  # of red, green, blue; pixels run from 0 to 1
    std: tuple[float, float, float]
    dtype: torch.dtype = torch.float32  # or float16


class Undecodable(DataError):
    """Some image of the requests in work cannot be decoded. The decoder can be used again."""


class Decoder(Protocol):
    def decode(self, requests: Iterable[Request]) -> Iterator[torch.Tensor]:
        """One (n, 3, size, size) tensor in channels-last memory order for each request, in order.

        Requests may be taken from the iterable some batches before their pictures are.

        Raises:
            Undecodable: no picture of the requests that were taken and not answered will come.
        """

    def fault(self, request: Request) -> str | None:
        """Why this request of one image cannot be decoded, or None if it can."""
