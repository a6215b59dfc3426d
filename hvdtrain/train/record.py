"""What is told of a run while it goes: metrics by every rank; events and the display by rank 0, which has them."""

import math
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hvdtrain.data.loader import Batch
from hvdtrain.log import EventLog, logger
from hvdtrain.metrics.registry import Metrics
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.meters import Report
from hvdtrain.train.progress import Display
from hvdtrain.train.state import TrainState
from hvdtrain.train.trace import Trace


@dataclass
class Record:
    metrics: Metrics
    events: EventLog | None
    display: Display | None
    images_per_epoch: int
    trace: Trace | None = None

    def started(self, state: TrainState, *, world_size: int, global_batch: int, total_images: int) -> None:
        self._write(
            "resume" if state.images_seen else "start",
            state,
            world_size=world_size,
            global_batch_size=global_batch,
            images_per_epoch=self.images_per_epoch,
            total_images=total_images,
        )

    def step(self, state: TrainState, batch: Batch, *, lr: float, input_wait: float, seconds: float) -> None:
        metrics = self.metrics
        metrics.images.inc(len(batch.labels))
        metrics.skipped.inc(batch.skipped)
        metrics.steps.inc()
        metrics.step.observe(seconds)
        metrics.input_wait.observe(input_wait)
        metrics.lr.set(lr)
        metrics.epoch.set(self._epoch(state))
        metrics.last_step.set(time.time())
        if self.trace:
            self.trace.step(batch)

    def report(self, state: TrainState, report: Report, *, lr: float) -> None:
        self.metrics.loss.set(report.loss)
        self._write(
            "report",
            state,
            epoch=self._epoch(state),
            lr=lr,
            loss=report.loss,
            images_per_second=report.images_per_second,
            input_wait_seconds=report.input_wait_seconds,
        )
        if self.display:
            if not math.isfinite(report.loss):
                logger.warning("loss is %s at step %d", report.loss, state.step)
            self.display.show(
                step=state.step,
                epoch=self._epoch(state),
                images_seen=state.images_seen,
                loss=report.loss,
                images_per_second=report.images_per_second,
            )

    def evaluated(self, state: TrainState, result: Evaluation, seconds: float) -> None:
        self.metrics.top1.set(result.top1)
        epoch = self._epoch(state)
        self._write(
            "evaluate",
            state,
            epoch=epoch,
            top1=result.top1,
            top5=result.top5,
            loss=result.loss,
            images=result.images,
            seconds=seconds,
        )
        if self.events:
            rates = f"top-1 {100 * result.top1:.2f} %  top-5 {100 * result.top5:.2f} %"
            logger.info("epoch %.2f  %s  of %d validation images", epoch, rates, result.images)

    def quarantined(self, state: TrainState, part: str, image: str, reason: str) -> None:
        self._write("quarantine", state, part=part, image=image, reason=reason)

    def saved(self, state: TrainState, path: Path, seconds: float) -> None:
        self._write("checkpoint", state, path=str(path), seconds=seconds)

    def ended(self, state: TrainState, *, seconds: float, images_per_second: float) -> None:
        self._write("end", state, seconds=seconds, images_per_second=images_per_second)
        if self.events:
            self.events.close()
        if self.trace:
            self.trace.close()

    def _write(self, event: str, state: TrainState, **fields: Any) -> None:
        if self.events:
            self.events.write(event, step=state.step, images_seen=state.images_seen, **fields)

    def _epoch(self, state: TrainState) -> float:
        return state.images_seen / self.images_per_epoch
