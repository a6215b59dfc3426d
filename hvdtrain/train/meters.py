"""Sums that grow each step and are read only when they are reported, so that no step waits for the device."""

import math
import time
from dataclasses import dataclass, field

import torch

from hvdtrain.distributed.comm import Comm


@dataclass
class Report:
    loss: float  # mean per image over all workers
    images_per_second: float  # of all workers together
    input_wait_seconds: float  # mean per step and worker


@dataclass
class Meters:
    """Of one worker, since the last report."""

    loss_sum: torch.Tensor | None = None
    images: int = 0
    steps: int = 0
    input_wait_seconds: float = 0.0
    began: float = field(default_factory=time.perf_counter)

    def add(self, loss: torch.Tensor, images: int, input_wait_seconds: float) -> None:
        self.loss_sum = loss if self.loss_sum is None else self.loss_sum + loss
        self.images += images
        self.steps += 1
        self.input_wait_seconds += input_wait_seconds

    def leave_out(self, seconds: float) -> None:
        """Do not count the last `seconds`, which were no training."""
        self.began += seconds

    def report(self, comm: Comm) -> Report:
        """Add up over the workers and begin anew. Collective; waits for the device."""
        loss = 0.0 if self.loss_sum is None else float(self.loss_sum)
        loss, images, steps, waited = comm.sum([loss, self.images, self.steps, self.input_wait_seconds], "report")
        now = time.perf_counter()
        mean = loss / images if images else math.nan  # every image of these steps may have been left out
        report = Report(mean, images / (now - self.began), waited / steps)
        self.loss_sum, self.images, self.steps, self.input_wait_seconds, self.began = None, 0, 0, 0.0, now
        return report
