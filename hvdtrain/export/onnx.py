"""The ONNX format: the network's operators with their weights, for any number of images at a time."""

import io
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

INPUT, OUTPUT, BATCH = "images", "logits", "batch"


def content(source: nn.Module, metadata: dict[str, str], *, side: int, opset: int) -> bytes:
    """The whole file: float32, the batch's axis dynamic, `metadata` as metadata_props.

    torch's exporter by tracing needs no other package, and makes of batch norm and convolution one operator.

    Args:
        side: height and width of the pictures, pixels.
        opset: 13 to 20, which the exporter knows and runtimes of the last years run.
    """
    import onnx

    traced = io.BytesIO()
    axis = {0: BATCH}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, that tracing is its older way
        torch.onnx.export(
            source,
            (torch.zeros(2, 3, side, side),),
            cast("Any", traced),
            dynamo=False,
            opset_version=opset,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_axes={INPUT: axis, OUTPUT: axis},
        )
    model = onnx.load_model_from_string(traced.getvalue())
    onnx.helper.set_model_props(model, metadata)
    onnx.checker.check_model(model)
    written: bytes = model.SerializeToString()
    return written


def run(file: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """What ONNX Runtime makes of it, on the CPU."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])

    def logits(images: torch.Tensor) -> torch.Tensor:
        (found,) = session.run([OUTPUT], {INPUT: images.numpy()})
        return torch.from_numpy(found)

    return logits
