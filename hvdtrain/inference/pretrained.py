"""torchvision's networks with its own weights or with somebody's, to compare with."""

import difflib
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from hvdtrain import torchvision
from hvdtrain.checkpoint.format import REFUSALS
from hvdtrain.config.schema import Config
from hvdtrain.distributed.comm import Comm, of_rank_0
from hvdtrain.errors import CheckpointError, ConfigError, EnvironmentFault
from hvdtrain.inference.subject import Subject
from hvdtrain.log import logger
from hvdtrain.train.trained import WEIGHTS, outputs

PREFIX = "torchvision:"
RESIZE, CROP = 256, 224  # pixels: the sizes of torchvision's first weights, and of its reference evaluation
INSIDE = ("state_dict", "model", "model_state_dict")  # where training scripts keep the weights among other things
PARALLEL = "module."  # DistributedDataParallel puts it before each name
METADATA = "_metadata"  # by which a network knows an older form of its weights, as mnasnet does
TRANSFORMING = ("googlenet", "inception_v3")  # torchvision's weights of these want pictures scaled as Inception's were
OF_DENSENET = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")  # as names were before torch forbade the dot


@dataclass(frozen=True)
class Pretrained:
    name: str
    """Of torchvision's network."""
    weights: str = ""
    """File with a state dict, or a name of torchvision's as IMAGENET1K_V1. Empty: torchvision's default ones."""
    resize: int | None = None
    """Shorter side, pixels. None: that of the weights, or RESIZE."""
    crop: int | None = None
    """Likewise, or CROP."""

    @property
    def file(self) -> Path | None:
        """Where the weights are, if they are in a file of this machine."""
        return Path(self.weights) if "/" in self.weights or "." in self.weights else None


def config(asked: Pretrained) -> Config:
    """How its validation pictures are made.

    Raises:
        ConfigError: torchvision has no such network or weights, or the sizes are none.
    """
    models = torchvision.load().models
    names = models.list_models(module=models)
    if asked.name not in names:
        near = difflib.get_close_matches(asked.name, names, n=1)
        raise ConfigError(
            f"{PREFIX}{asked.name}: expected a classifier of torchvision's{f'; the nearest is {near[0]}' * bool(near)}",
            remedy=f"hvdtrain eval {PREFIX}resnet50",
        )
    resize, crop, data = RESIZE, CROP, Config().data
    colours: dict[str, tuple[float, ...]] = {}
    if entry := _entry(asked):
        made = entry.transforms()
        resize, crop = made.resize_size[0], made.crop_size[0]
        colours = {"mean": tuple(made.mean), "std": tuple(made.std)}
        if made.interpolation.value != "bilinear":
            logger.warning(
                "%s was evaluated with %s interpolation, here bilinear", asked.name, made.interpolation.value
            )
    resize, crop = asked.resize or resize, asked.crop or crop
    if not 32 <= crop <= resize <= 4 * crop or crop > 1024:
        raise ConfigError(
            f"resize {resize}, crop {crop}: expected a crop of 32 to 1024 pixels and a resize of 1 to 4 times it"
        )
    sizes = {"image_size": crop, "eval_resize": resize / crop}
    return Config().model_copy(update={"data": data.model_copy(update={**sizes, **colours})})


def subject(asked: Pretrained, comm: Comm, device: torch.device) -> Subject:
    """Collective: rank 0 reads or downloads, and hands the weights round.

    Raises:
        CheckpointError: there are none in the file, or they are those of another network.
        EnvironmentFault: they cannot be downloaded.
    """
    read = partial(_read, asked.file) if asked.file else partial(_downloaded, asked)
    tensors = of_rank_0(comm, read, "weights")
    where = asked.weights or "torchvision's default weights"
    try:
        count = outputs(tensors)
        scaled = {"transform_input": _entry(asked) is not None, "init_weights": False}
        options = scaled if asked.name in TRANSFORMING else {}
        model = torchvision.load().models.get_model(asked.name, weights=None, num_classes=count, **options)
        model.load_state_dict(tensors)
    except (AssertionError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        cause = " ".join(str(error).split())[:300] or "there is no matrix in it"
        raise CheckpointError(f"{where} does not fit torchvision's {asked.name}: {cause}") from None
    model.to(device)
    about = {"model": f"{PREFIX}{asked.name}", "weights": asked.weights or str(_entry(asked)), "precision": "float32"}
    return Subject(f"torchvision's {asked.name}, {about['weights']}", about, {WEIGHTS: model.eval()}, count)


def _entry(asked: Pretrained) -> Any:
    """torchvision's description of the weights; None of somebody else's.

    A file is torchvision's where it has the name under which torchvision offers it, a part of its digest.

    Raises:
        ConfigError: torchvision has no weights of that name, or they tell no classes apart.
    """
    entries = torchvision.load().models.get_model_weights(asked.name)
    if asked.file:
        return next((entry for entry in entries if entry.url.rpartition("/")[2] == asked.file.name), None)
    name = asked.weights or "DEFAULT"
    able = [key for key, entry in entries.__members__.items() if entry.meta["categories"]]
    if name not in able:
        raise ConfigError(
            f"--weights {name}: expected a file, or one of {', '.join(able)}",
            remedy="--weights ./FILE.pth",
        )
    return entries[name]


def _downloaded(asked: Pretrained) -> dict[str, torch.Tensor]:
    entry = _entry(asked)
    try:
        tensors: dict[str, torch.Tensor] = entry.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:  # no network, no room, or a download of other contents
        raise EnvironmentFault(
            f"the weights {entry.url} cannot be had: {error}", remedy="--weights FILE.pth, brought from elsewhere"
        ) from None
    return _named(tensors)


def _read(file: Path) -> dict[str, torch.Tensor]:
    try:
        state: Any = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise CheckpointError(f"--weights {file} cannot be read: {error.strerror}") from None
    except REFUSALS:  # torch's message goes on to advise weights_only=False, which would run a stranger's code
        raise CheckpointError(f"--weights {file} holds something else than tensors, or is cut off") from None
    for name in INSIDE:
        if isinstance(state, Mapping) and isinstance(state.get(name), Mapping):
            state = state[name]
    if not isinstance(state, Mapping) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise CheckpointError(f"--weights {file}: expected a state dict, tensors by their names")
    return _named(state)


def _named(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same under the names that torchvision's networks have now, in their order."""
    tensors = OrderedDict(
        (OF_DENSENET.sub(r"\1\2", str(name).removeprefix(PARALLEL)), tensor) for name, tensor in state.items()
    )
    if isinstance(told := getattr(state, METADATA, None), Mapping):
        known = {f"{name}.".removeprefix(PARALLEL).removesuffix("."): value for name, value in told.items()}
        setattr(tensors, METADATA, known)
    return tensors
