"""Gradient sizes and backward work of the planner's networks, from torchvision, as hvdtrain/plan/layers.csv has them.

    python benchmarks/layers.py > hvdtrain/plan/layers.csv

A row is a module with parameters of its own, in order of registration: its elements, and the multiply-adds of one
picture's forward. A module without products, as batch norm, has those of one per output element.
"""

import csv
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from hvdtrain import torchvision

PIXELS = {
    "resnet18": 224,
    "resnet34": 224,
    "resnet50": 224,
    "resnet101": 224,
    "resnet152": 224,
    "vgg16": 224,
    "alexnet": 224,
    "inception_v3": 299,
    "efficientnet_b0": 224,
    "efficientnet_b4": 380,
}
FIELDS = ("model", "pixels", "layer", "elements", "forward_madds")


def layers(name: str) -> Iterator[dict[str, Any]]:
    """In order of registration, which gradients arrive against. Without the auxiliary head of Inception."""
    more = {"aux_logits": False, "init_weights": False} if name == "inception_v3" else {}
    with torch.device("meta"):
        model = getattr(torchvision.load().models, name)(weights=None, **more).eval()
        picture = torch.empty(1, 3, PIXELS[name], PIXELS[name])
    work: dict[str, int] = {}
    own = {path: module for path, module in model.named_modules() if list(module.parameters(recurse=False))}
    for path, module in own.items():
        module.register_forward_hook(lambda module, _, output, path=path: work.update({path: _madds(module, output)}))
    model(picture)
    for path, module in own.items():
        elements = sum(parameter.numel() for parameter in module.parameters(recurse=False))
        yield dict(zip(FIELDS, (name, PIXELS[name], path, elements, work[path]), strict=True))


def _madds(module: nn.Module, output: torch.Tensor) -> int:
    if isinstance(module, nn.Conv2d | nn.Linear):
        return output.numel() * module.weight[0].numel()
    return output.numel()


def main() -> None:
    writer = csv.DictWriter(sys.stdout, FIELDS, lineterminator="\n")
    writer.writeheader()
    for name in PIXELS:
        writer.writerows(layers(name))


if __name__ == "__main__":
    main()
