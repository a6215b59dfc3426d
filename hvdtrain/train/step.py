"""One optimiser step."""

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch.nn import functional

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import Comm
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


def train_step(
    state: TrainState,
    batch: Batch,
    *,
    lr: float,
    global_batch: int,
    arithmetic: Arithmetic,
    comm: Comm,
    buckets: GradientBuckets | None,
) -> torch.Tensor:
    """Forward, backward, sum the gradients over all workers, update. Returns this worker's summed loss, on its device.

    Every worker's loss is divided by the global minibatch, so the sum of gradients is their mean over kn images
    (Goyal et al. 2017, section 3, remark 3); over those of them that are there, where some could not be decoded.
    Without `buckets` the optimiser itself sums, or there is one worker.
    """
    for group in state.optimizer.param_groups:
        group["lr"] = lr
    if buckets is not None:
        buckets.start(batch.skipped)
    else:
        state.optimizer.zero_grad()
        (skipped,) = comm.sum([float(batch.skipped)], "skipped")
        global_batch -= int(skipped)
    loss = torch.zeros((), device=batch.images.device)
    if len(batch.labels):
        logits = arithmetic.forward(state.model, batch.images)
        loss = functional.cross_entropy(logits, batch.labels, reduction="sum")
        (loss / global_batch).backward()
    if buckets is not None:
        _make_up(buckets, buckets.wait(), global_batch)
    state.optimizer.step()
    return loss.detach()


def _make_up(buckets: GradientBuckets, skipped: torch.Tensor, global_batch: int) -> None:
    """Turn sums over the images that are there, divided by kn, into their mean.

    On a GPU the factor of 1 is multiplied too: to ask whether it is 1 would make the processor wait for the device.
    """
    if skipped.is_cuda or float(skipped):
        buckets.scale(global_batch / (global_batch - skipped).clamp(min=1))
