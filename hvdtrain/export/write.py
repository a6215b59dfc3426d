"""Export: write beside the place, compare with the checkpoint, and only then put it there."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from hvdtrain.config.schema import Config
from hvdtrain.errors import CheckpointError, EnvironmentFault
from hvdtrain.export import onnx, safetensors
from hvdtrain.export.metadata import metadata
from hvdtrain.files import replace_whole
from hvdtrain.train import trained
from hvdtrain.train.folder import naming
from hvdtrain.train.trained import Trained

LIMIT = 1e-5  # of the largest logit
BATCHES = (4, 1)  # images; of two sizes, so that one is not the size that a format has frozen
NEEDS = {"safetensors": ("safetensors",), "onnx": ("onnx", "onnxruntime")}

Run = Callable[[torch.Tensor], torch.Tensor]
"""Images (n, 3, H, W) float32 -> logits (n, classes) float32."""


@dataclass(frozen=True)
class Exported:
    title: str
    difference: float
    """Largest of all logits compared, over the largest logit of its batch."""
    images: int
    """That were compared."""
    size: int  # bytes


def export(found: Trained, config: Config, form: str, out: Path, *, weights: str, opset: int) -> Exported:
    """Write the network in float32 to `out`, replacing what is there.

    Args:
        form: `safetensors` or `onnx`.
        weights: `weights`, or their `average`.
        opset: of ONNX's operators.

    Raises:
        CheckpointError: the checkpoint has no such network, or one whose logits are not finite.
        EnvironmentFault: a package is missing, `out` cannot be written, or what was written gives other logits than
            the checkpoint. What was at `out` is as it was.
    """
    _there(form)
    model = trained.chosen(found, config, torch.device("cpu"), average=weights == trained.AVERAGE)
    source = model.float().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    source.eval()
    classes = trained.named(found.classes, trained.outputs(source.state_dict()))
    told = metadata(found, config, classes, weights=weights)
    side = config.data.image_size
    with naming(out, "cannot be written"), replace_whole(out, "wb") as file:
        if form == "safetensors":
            content = safetensors.content(source, told)
        else:
            content = onnx.content(source, told, side=side, opset=opset)
        file.write(content)
        file.flush()
        written = Path(file.name)
        run = safetensors.run(written, config) if form == "safetensors" else onnx.run(written)
        difference = compare(source, run, side, out=out, form=form)
    return Exported(found.title(config), difference, sum(BATCHES), len(content))


@torch.inference_mode()
def compare(source: nn.Module, run: Run, side: int, *, out: Path, form: str) -> float:
    """The largest difference of the logits of a few fixed pictures of noise, over the largest logit of their batch.

    Raises:
        CheckpointError: the checkpoint's own logits are not finite.
        EnvironmentFault: it is more than LIMIT, or there are no such logits.
    """
    worst = 0.0
    generator = torch.Generator().manual_seed(0)
    for count in BATCHES:
        images = torch.randn(count, 3, side, side, generator=generator)
        wanted, found = source(images), run(images)
        scale = float(wanted.abs().max())
        if not torch.isfinite(wanted).all():
            raise CheckpointError(f"{out} is not written: the checkpoint's own logits are not finite")
        if found.shape != wanted.shape:
            raise _differs(out, form, f"logits of shape {tuple(found.shape)}, expected {tuple(wanted.shape)}")
        difference = float((found - wanted).abs().max()) / (scale or 1.0)
        if not difference <= LIMIT:
            raise _differs(out, form, f"a logit off by {difference:.1e} of the largest, expected at most {LIMIT:.0e}")
        worst = max(worst, difference)
    return worst


def _differs(out: Path, form: str, how: str) -> EnvironmentFault:
    packages = " ".join(NEEDS[form])
    return EnvironmentFault(
        f"{out} is not written: the exported network differs from the checkpoint: {how}",
        remedy=f"try other versions: pip install -U {packages}",
    )


def _there(form: str) -> None:
    for package in NEEDS[form]:
        try:
            import_module(package)
        except ImportError as error:
            raise EnvironmentFault(
                f"--format {form} needs the package {package}: {error}", remedy=f"pip install {' '.join(NEEDS[form])}"
            ) from None
