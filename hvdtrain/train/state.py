"""What a run knows: all of it goes into a checkpoint, and nothing else decides how it goes on."""

import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

from hvdtrain.errors import NotFinite
from hvdtrain.train.finite import Finite
from hvdtrain.train.generators import Generators

LEAST_SCALE = 2.0**-24  # half precision's smallest number: of a loss scaled by less nothing is left


@dataclass
class TrainState:
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler | None = None  # where gradients are born or travel in half precision
    average: AveragedModel | None = None  # of the weights, over steps
    images_seen: int = 0
    step: int = 0
    last_step_images: int = 0  # kn of the last step, which another number of workers may have taken; 0: not known
    overflown: bool = False  # whether the last step was left out
    finite: Finite = field(default_factory=Finite)  # of the steps
    generators: Generators = field(default_factory=Generators)
    top1: float | None = None  # of the weights as they are, or of their average if that is better
    best_top1: float | None = None  # of all evaluations so far
    earlier_seconds: float = 0.0  # that the run took before this process went on with it
    began: float = field(default_factory=time.perf_counter)

    @property
    def spent_seconds(self) -> float:
        """Wall-clock time of all processes of this run, but for what was lost with them."""
        return self.earlier_seconds + time.perf_counter() - self.began

    def judged(self, top1: float) -> None:
        """The weights as they are have been evaluated."""
        self.top1 = top1
        self.best_top1 = max(top1, self.best_top1 or 0.0)

    def advance(self, images_seen: int) -> None:
        """A step is done."""
        self.last_step_images = images_seen - self.images_seen
        self.images_seen, self.step, self.top1 = images_seen, self.step + 1, None

    def scaled(self, loss: torch.Tensor) -> torch.Tensor:
        """The loss to call backward on."""
        scaled: torch.Tensor = self.scaler.scale(loss) if self.scaler else loss
        return scaled

    def update(self, *, lr: float, clip_norm: float | None) -> None:
        """Move the weights by the gradients, which are those of all workers: so all workers decide alike.

        With a scaler, a step whose gradients are not all finite is left out, and the next loss is scaled by less.

        Raises:
            NotFinite: they are not finite however little the loss is scaled.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        if self.scaler:
            self.scaler.unscale_(self.optimizer)
        if clip_norm is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), clip_norm)
        self._move()
        if self.average and not self.overflown:
            self.average.update_parameters(self.model)

    def _move(self) -> None:
        if not self.scaler:
            self.optimizer.step()
            return
        scale = self.scaler.get_scale()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.overflown = self.scaler.get_scale() < scale
        if self.overflown and scale <= LEAST_SCALE:
            raise NotFinite(
                f"training has diverged: gradients are not finite even with the loss scaled by {scale:g}",
                remedy="a smaller optim.base_lr, a longer optim.warmup_epochs, or --precision bf16",
            )

    def statistics(self) -> list[torch.Tensor]:
        """Batch norm's running ones, copied."""
        return [buffer.clone() for buffer in self.model.buffers()]

    def set_statistics(self, kept: list[torch.Tensor]) -> None:
        for buffer, values in zip(self.model.buffers(), kept, strict=True):
            buffer.copy_(values)

    def tensors(self) -> dict[str, Any]:
        """All that decides how the run goes on; tensors, numbers, texts and collections of them."""
        progress = {
            "images_seen": self.images_seen,
            "step": self.step,
            "last_step_images": self.last_step_images,
            "overflown": self.overflown,
            "top1": self.top1,
            "best_top1": self.best_top1,
        }
        return {"progress": progress} | {name: part.state_dict() for name, part in self._parts().items()}

    def load(self, tensors: dict[str, Any]) -> None:
        """Be as `tensors` was."""
        self.finite.forget()
        for name, part in self._parts().items():
            part.load_state_dict(tensors[name])
        progress = tensors["progress"]
        self.images_seen, self.step, self.overflown = progress["images_seen"], progress["step"], progress["overflown"]
        self.top1, self.best_top1 = progress["top1"], progress["best_top1"]
        self.last_step_images = progress.get("last_step_images", 0)  # older checkpoints do not say

    def _parts(self) -> dict[str, Any]:
        parts = {
            "model": self.model,
            "optimizer": self.optimizer,
            "scaler": self.scaler,
            "average": self.average,
            "generators": self.generators,
        }
        return {name: part for name, part in parts.items() if part is not None}
