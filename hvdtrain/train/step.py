"""One optimiser step."""

from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn import functional

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.reducer import Reducer
from hvdtrain.model.norms import frozen_statistics
from hvdtrain.train.clock import StepClock
from hvdtrain.train.state import TrainState


@dataclass(frozen=True)
class Arithmetic:
    dtype: torch.dtype  # of the weights
    autocast: torch.dtype | None  # of the convolutions and products, where it differs
    channels_last: bool

    def forward(self, model: torch.nn.Module, images: torch.Tensor) -> torch.Tensor:
        """Images (n, 3, H, W) of any dtype and memory order -> logits (n, classes), at least float32."""
        order = torch.channels_last if self.channels_last else torch.contiguous_format
        # autocast takes pictures of any type: half-precision ones need no copy in float32
        images = images.to(images.dtype if self.autocast else self.dtype, memory_format=order)
        cast = torch.autocast(images.device.type, self.autocast) if self.autocast else nullcontext()
        with cast:
            logits: torch.Tensor = model(images)
        return logits.to(self.dtype)


@dataclass(frozen=True)
class Objective:
    """What a step minimises, and how far it may go."""

    global_batch: int  # kn, images
    label_smoothing: float = 0.0
    clip_norm: float | None = None

    def loss(self, logits: torch.Tensor, batch: Batch) -> torch.Tensor:
        """Cross-entropy summed over the images of one micro-batch, a scalar."""

        def entropy(labels: torch.Tensor, reduction: str) -> torch.Tensor:
            return functional.cross_entropy(logits, labels, reduction=reduction, label_smoothing=self.label_smoothing)

        if batch.mixed is None:
            return entropy(batch.labels, "sum")
        own, other = entropy(batch.labels, "none"), entropy(batch.mixed.others, "none")
        return torch.lerp(other, own, batch.mixed.weights.to(own.dtype)).sum()


def train_step(
    state: TrainState,
    micro_batches: Iterable[Batch],
    *,
    lr: float,
    objective: Objective,
    arithmetic: Arithmetic,
    reducer: Reducer,
    clock: StepClock,
) -> torch.Tensor:
    """Forward, backward, sum the gradients over all workers, update. Returns this worker's summed loss, on its device.

    Every loss is divided by the global minibatch kn, so the sum of gradients over micro-batches and workers is their
    mean (Goyal et al. 2017, section 3, remark 3); over those images that are there, where some could not be decoded.
    Where a loss or a gradient of any worker is not finite the state stays as it was, and knows it (`state.finite`).
    Batch normalisation's running statistics are those of the first micro-batch: what they would be with one each.
    """
    with clock.spent_on("compute"):
        reducer.start()
        statistics = state.statistics() if state.finite.certain else None
        total = torch.zeros((), device=next(state.model.parameters()).device)
    for number, batch in enumerate(micro_batches):
        with clock.spent_on("compute"):
            reducer.skip(batch.skipped)
            if len(batch.labels):
                with frozen_statistics(state.model) if number else nullcontext():
                    loss = objective.loss(arithmetic.forward(state.model, batch.images), batch)
                reducer.doubt(loss.detach())
                state.scaled(loss / objective.global_batch).backward()
                total = total + loss.detach()
    clock.ready()
    skipped = reducer.wait()
    clock.summed()
    with clock.spent_on("compute"):
        finite = reducer.finite(gradients=state.scaler is None)  # a scaler deals with its own
        if state.finite.allows(state.step + 1, finite, total):
            _make_up(reducer, skipped, objective.global_batch)
            state.update(lr=lr, clip_norm=objective.clip_norm)
        elif statistics is not None:  # forward has moved them, maybe to where no return is
            state.set_statistics(statistics)
    return total


def _make_up(reducer: Reducer, skipped: torch.Tensor, global_batch: int) -> None:
    """Turn sums over the images that are there, divided by kn, into their mean.

    On a GPU the factor of 1 is multiplied too: to ask whether it is 1 would make the processor wait for the device.
    """
    if skipped.is_cuda or float(skipped):
        reducer.scale(global_batch / (global_batch - skipped).clamp(min=1))
