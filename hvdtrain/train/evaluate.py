"""Accuracy on the validation images, each counted once by whichever worker has it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.comm import Comm
from hvdtrain.errors import Preempted
from hvdtrain.train.step import Arithmetic


@dataclass(frozen=True)
class Evaluation:
    images: int
    top1: float  # fraction
    top5: float  # fraction
    loss: float  # mean per image


@dataclass
class Counts:
    """Of the images of one worker."""

    images: int = 0
    top1: int = 0
    top5: int = 0
    loss: float = 0.0  # summed

    @torch.inference_mode()
    def add(self, model: nn.Module, batch: Batch, arithmetic: Arithmetic) -> torch.Tensor:
        """Returns the classes that the model takes each image for, the likeliest first: (n, up to 5) int64."""
        logits = arithmetic.forward(model, batch.images)
        best = logits.topk(min(5, logits.shape[1])).indices  # (n, 5)
        hit = best == batch.labels[:, None]
        self.images += len(batch.labels)
        self.top1 += int(hit[:, 0].sum())
        self.top5 += int(hit.sum())
        self.loss += float(functional.cross_entropy(logits, batch.labels, reduction="sum"))
        return best


def evaluate(
    model: nn.Module,
    batches: Iterable[Batch],
    arithmetic: Arithmetic,
    comm: Comm,
    *,
    leave: Callable[[], bool] = lambda: False,
    each: Callable[[torch.Tensor, torch.Tensor], None] = lambda labels, best: None,
) -> Evaluation:
    """Every worker calls this with its share; sums and counts are added up once, and then divided.

    Args:
        batches: of all workers the same number, some of them empty.
        leave: asked after each batch, by all workers.
        each: is told labels (n,) and the likeliest classes (n, up to 5) of each batch of this worker, both int64.

    Raises:
        Preempted: it said so.
    """
    share_statistics(model, comm)
    counts = Counts()
    model.eval()
    try:
        for batch in batches:
            if len(batch.labels):
                each(batch.labels, counts.add(model, batch, arithmetic))
            if leave():
                raise Preempted("within an evaluation")
    finally:
        model.train()
    images, top1, top5, loss = comm.sum([counts.images, counts.top1, counts.top5, counts.loss], "evaluation")
    return Evaluation(int(images), top1 / images, top5 / images, loss / images)


def share_statistics(model: nn.Module, comm: Comm) -> None:
    """Give every worker rank 0's batch norm statistics, which are the run's."""
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not statistics:
        return
    flat = torch.cat([buffer.flatten() for buffer in statistics])
    comm.broadcast_(flat, "batch norm statistics")
    for buffer, values in zip(statistics, flat.split([b.numel() for b in statistics]), strict=True):
        buffer.copy_(values.view_as(buffer))
