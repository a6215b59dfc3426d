"""Sums that grow each step and are read only when they are reported, so that no step waits for the device."""

import math
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import torch

from hvdtrain.distributed.comm import Comm
from hvdtrain.metrics.breakdown import Breakdown, breakdown
from hvdtrain.metrics.efficiency import Baseline, Efficiency, weak
from hvdtrain.train.clock import COLUMNS, StepClock
from hvdtrain.train.micro_batches import MicroBatches

LIVE_WINDOWS = 10  # reports over which the efficiency is taken: long enough for an interval, short enough to be live


@dataclass(frozen=True)
class Report:
    """Of the steps since the last one, over all workers."""

    loss: float  # mean per image
    images_per_second: float
    breakdown: Breakdown
    efficiency: Efficiency | None  # of the last LIVE_WINDOWS reports


@dataclass
class Meters:
    clock: StepClock
    baseline: Baseline | None = None
    windows: deque[Breakdown] = field(default_factory=lambda: deque(maxlen=LIVE_WINDOWS))
    """The last LIVE_WINDOWS reports' steps."""
    loss_sum: torch.Tensor | None = None
    images: int = 0
    pixels: int = 0  # height of the pictures of the last step
    all_images: float = 0.0  # of all workers since the run began
    all_seconds: float = 0.0  # of training

    @property
    def images_per_second(self) -> float:
        """Of all workers since the run began."""
        return self.all_images / self.all_seconds

    @property
    def efficiency(self) -> Efficiency | None:
        """Of `windows`; None without a baseline."""
        return weak(self.windows, self.baseline) if self.baseline else None

    def add(self, loss: torch.Tensor, step: MicroBatches) -> None:
        self.loss_sum = loss if self.loss_sum is None else self.loss_sum + loss
        self.images += step.images
        if step.pixels:
            if self.pixels and step.pixels != self.pixels:
                self.baseline = None  # which was measured with pictures of another size
            self.pixels = step.pixels

    def report(self, comm: Comm) -> Report:
        """Add up over the workers and begin anew. Collective; waits for the device."""
        loss = 0.0 if self.loss_sum is None else float(self.loss_sum)
        table = comm.table(np.concatenate([[loss, self.images], self.clock.take().flatten()]), "report")
        self.loss_sum, self.images = None, 0
        loss, images = table[:, :2].sum(0).tolist()
        window = breakdown(table[:, 2:].reshape(comm.size, -1, len(COLUMNS)))
        seconds = float(window.step_seconds.sum())
        self.windows.append(window)
        self.all_images += images
        self.all_seconds += seconds
        return Report(
            loss=loss / images if images else math.nan,  # every image of these steps may have been left out
            images_per_second=images / seconds,
            breakdown=window,
            efficiency=self.efficiency,
        )
