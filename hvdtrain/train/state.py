"""What a run knows: all of it goes into a checkpoint, and nothing else decides how it goes on."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


@dataclass
class TrainState:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    images_seen: int = 0
    step: int = 0

    def tensors(self) -> dict[str, Any]:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, tensors: dict[str, Any], *, images_seen: int, step: int) -> None:
        self.model.load_state_dict(tensors["model"])
        self.optimizer.load_state_dict(tensors["optimizer"])
        self.images_seen = images_seen
        self.step = step
