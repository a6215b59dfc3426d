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
WARM_UP = 2  # reports of a process whose steps are no measure of its speed


@dataclass(frozen=True)
class Report:
    """Of the steps since the last one, over all workers."""

    loss: float  # mean per image
    images_per_second: float
    breakdown: Breakdown
    efficiency: Efficiency | None  # of the last LIVE_WINDOWS reports; None while there is none


@dataclass
class Totals:
    """Of all workers, however many, since the run began."""

    images: float = 0.0
    seconds: float = 0.0  # of training


@dataclass
class Meters:
    clock: StepClock
    baseline: Baseline | None = None
    windows: deque[Breakdown] = field(default_factory=lambda: deque(maxlen=LIVE_WINDOWS))
    """The last LIVE_WINDOWS reports' steps, all with pictures of one size; the first WARM_UP of a process left out."""
    warming_up: int = WARM_UP
    loss_sum: torch.Tensor | None = None
    images: int = 0
    pixels: int = 0  # height of the pictures of the last step
    mixed: bool = False  # whether the steps since the last report had pictures of several sizes
    totals: Totals = field(default_factory=Totals)

    @property
    def images_per_second(self) -> float:
        """Of all workers since the run began; 0 before the first report."""
        return self.totals.images / self.totals.seconds if self.totals.seconds else 0.0

    @property
    def efficiency(self) -> Efficiency | None:
        """Of `windows`; None without any, and without a baseline of pictures of this size."""
        if self.baseline is None or self.baseline.pixels != self.pixels or not self.windows:
            return None
        return weak(self.windows, self.baseline)

    def add(self, loss: torch.Tensor, step: MicroBatches) -> None:
        self.loss_sum = loss if self.loss_sum is None else self.loss_sum + loss
        if step.pixels and step.pixels != self.pixels:
            self.windows.clear()
            self.mixed = self.mixed or self.images > 0
            self.pixels = step.pixels
        self.images += step.images

    def forget(self) -> None:
        """The steps since the last report: they were in vain."""
        self.clock.take()
        self.loss_sum, self.images, self.mixed = None, 0, False

    def report(self, comm: Comm) -> Report:
        """Add up over the workers and begin anew. Collective; waits for the device."""
        loss = 0.0 if self.loss_sum is None else float(self.loss_sum)
        table = comm.table(np.concatenate([[loss, self.images], self.clock.take().flatten()]), "report")
        mixed, self.mixed = self.mixed, False
        self.loss_sum, self.images = None, 0
        loss, images = table[:, :2].sum(0).tolist()
        window = breakdown(table[:, 2:].reshape(comm.size, -1, len(COLUMNS)))
        seconds = float(window.step_seconds.sum())
        if self.warming_up:
            self.warming_up -= 1
        elif not mixed:
            self.windows.append(window)
        self.totals.images += images
        self.totals.seconds += seconds
        return Report(
            loss=loss / images if images else math.nan,  # every image of these steps may have been left out
            images_per_second=images / seconds,
            breakdown=window,
            efficiency=self.efficiency,
        )
