"""The safetensors format: tensors by the names of the network's state dict, and a head of JSON; no code.

A ResNet-18 to 101 has torchvision's names: load_state_dict(strict=True) takes it.
"""

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from hvdtrain.config.schema import Config
from hvdtrain.train.trained import network


def content(source: nn.Module, metadata: dict[str, str]) -> bytes:
    """The whole file."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().contiguous() for name, tensor in source.state_dict().items()}
    written: bytes = save(tensors, metadata)
    return written


def run(file: Path, config: Config) -> Callable[[torch.Tensor], torch.Tensor]:
    """What a network built afresh makes of these tensors. Where it has torchvision's names, it is torchvision's."""
    from safetensors.torch import load_file

    plain = config.model_copy(
        update={"precision": "float32", "model": config.model.model_copy(update={"channels_last": False})}
    )
    model: nn.Module = network(load_file(file), plain, torch.device("cpu"))
    return model
