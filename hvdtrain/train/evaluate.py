"""Accuracy on the validation images, each counted once by whichever worker has it."""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.comm import Comm
from hvdtrain.train.step import Arithmetic


@dataclass(frozen=True)
class Evaluation:
    images: int
    top1: float  # fraction
    top5: float  # fraction
    loss: float  # mean per image


def evaluate(model: nn.Module, batches: Iterable[Batch], arithmetic: Arithmetic, comm: Comm) -> Evaluation:
    """Every worker calls this with its share; sums and counts are added up once, and then divided."""
    share_statistics(model, comm)
    model.eval()
    images, top1, top5, loss = 0, 0, 0, 0.0
    with torch.inference_mode():
        for batch in batches:
            if not len(batch.labels):
                continue  # none of its images can be decoded
            logits = arithmetic.forward(model, batch.images)
            best = logits.topk(min(5, logits.shape[1])).indices  # (n, 5)
            hit = best == batch.labels[:, None]
            images += len(batch.labels)
            top1 += int(hit[:, 0].sum())
            top5 += int(hit.sum())
            loss += float(functional.cross_entropy(logits, batch.labels, reduction="sum"))
    model.train()
    all_images, all_top1, all_top5, all_loss = comm.sum([images, top1, top5, loss], "evaluation")
    return Evaluation(int(all_images), all_top1 / all_images, all_top5 / all_images, all_loss / all_images)


def share_statistics(model: nn.Module, comm: Comm) -> None:
    """Give every worker rank 0's batch norm statistics, which are the run's."""
    statistics = [buffer for buffer in model.buffers() if buffer.is_floating_point()]
    if not statistics:
        return
    flat = torch.cat([buffer.flatten() for buffer in statistics])
    comm.broadcast_(flat, "batch norm statistics")
    for buffer, values in zip(statistics, flat.split([b.numel() for b in statistics]), strict=True):
        buffer.copy_(values.view_as(buffer))
