"""Single pictures: the classes that a network takes them for."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from hvdtrain.config.schema import Config
from hvdtrain.data.augment import evaluation_windows
from hvdtrain.data.decoder import Pictures, Request, Undecodable
from hvdtrain.data.pillow import FAULTS, decode, measure, regular
from hvdtrain.data.reference import ReferenceDecoder
from hvdtrain.train.build import ARITHMETIC
from hvdtrain.train.step import Arithmetic


@dataclass(frozen=True)
class Prediction:
    image: str
    """Its path, as it was given."""
    best: tuple[tuple[int, float], ...] = ()
    """(class, probability), the likeliest first."""
    fault: str = ""
    """Why it cannot be decoded."""


def predict(
    model: nn.Module, images: Iterable[str], config: Config, device: torch.device, *, top: int
) -> Iterator[Prediction]:
    """In order, as soon as a batch is full. Pictures are made as in the run's evaluation, by Pillow.

    Args:
        model: in evaluation mode, on `device`.
        top: how many classes of each.
    """
    dtype, autocast = ARITHMETIC[config.precision]
    arithmetic = Arithmetic(dtype, autocast, config.model.channels_last)
    pictures = _Pictures(config, device)
    waiting: list[Prediction | str] = []
    batch: list[torch.Tensor] = []
    for image in images:
        try:
            batch.append(pictures.of(image))
            waiting.append(image)
        except (*FAULTS, Undecodable) as error:
            waiting.append(Prediction(image, fault=_cause(error)))
        if len(batch) == config.evaluation.batch_size:
            yield from _answered(waiting, _best(model, batch, arithmetic, top))
            waiting, batch = [], []
    yield from _answered(waiting, _best(model, batch, arithmetic, top))


class _Pictures:
    def __init__(self, config: Config, device: torch.device) -> None:
        data = config.data
        self._size, self._resize = data.image_size, data.eval_resize
        self._decoder = ReferenceDecoder(
            pictures=Pictures(data.image_size, data.mean, data.std), device=device, threads=1, prefetch=0, by_name=True
        )

    def of(self, image: str) -> torch.Tensor:
        """(1, 3, H, W).

        Raises:
            one of FAULTS, or Undecodable: it cannot be read, or decoded.
        """
        with regular(image) as span:
            height, width = measure(span)
            if not height:
                decode(span.read())  # which says why
                raise OSError("no image")
        windows, decoded = evaluation_windows(
            heights=np.array([height], np.int32),
            widths=np.array([width], np.int32),
            size=self._size,
            resize=self._resize,
        )
        name: NDArray[np.uint8] = np.frombuffer(os.fsencode(image), np.uint8)
        request = Request([name], windows, decoded, np.zeros(1, np.bool_))
        (picture,) = self._decoder.decode([request])
        return picture


def _cause(error: BaseException) -> str:
    told = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(told.split()) or type(error).__name__


@torch.inference_mode()
def _best(
    model: nn.Module, batch: list[torch.Tensor], arithmetic: Arithmetic, top: int
) -> list[tuple[tuple[int, float], ...]]:
    if not batch:
        return []
    probabilities = arithmetic.forward(model, torch.cat(batch)).softmax(1)
    values, classes = probabilities.topk(min(top, probabilities.shape[1]))
    return [tuple(zip(*row, strict=True)) for row in zip(classes.tolist(), values.tolist(), strict=True)]


def _answered(waiting: list[Prediction | str], best: list[tuple[tuple[int, float], ...]]) -> Iterator[Prediction]:
    found = iter(best)
    for each in waiting:
        yield each if isinstance(each, Prediction) else Prediction(each, next(found))
