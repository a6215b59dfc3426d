"""What is told of a run while it goes: metrics by every rank; events and the display by rank 0, which has them."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from hvdtrain.checkpoint.writer import Saved
from hvdtrain.distributed.activity import Activity
from hvdtrain.events import EventLog
from hvdtrain.log import logger
from hvdtrain.metrics.breakdown import Breakdown
from hvdtrain.metrics.efficiency import Baseline, Efficiency
from hvdtrain.metrics.registry import Metrics, RunMetrics
from hvdtrain.metrics.tensorboard import Board
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.meters import Report
from hvdtrain.train.micro_batches import MicroBatches
from hvdtrain.train.progress import Display
from hvdtrain.train.state import TrainState
from hvdtrain.train.trace import Trace


@dataclass(frozen=True)
class Traffic:
    """What a worker sends in one step."""

    allreduces: int = 0
    payload_bytes: int = 0
    wire_bytes: float = 0.0

    @classmethod
    def of(cls, bucket_bytes: list[int], workers: int) -> "Traffic":
        """Around a ring each worker sends 2(k-1)/k of the payload (Goyal et al. 2017, section 4.1)."""
        payload = sum(bucket_bytes)
        return cls(len(bucket_bytes), payload, 2 * (workers - 1) / workers * payload)


@dataclass
class Record:
    metrics: Metrics
    activity: Activity
    rank: int
    images_per_epoch: int
    traffic: Traffic = Traffic()
    events: EventLog | None = None
    display: Display | None = None
    trace: Trace | None = None
    board: Board | None = None
    launches: int = 0
    """Of the run, that its events told of before this record began."""

    def started(
        self,
        state: TrainState,
        *,
        world_size: int,
        global_batch: int,
        batch: int,
        total_images: int,
        resets: int,
        lost_images: int,
    ) -> None:
        """
        Args:
            resets: how often the run's workers have changed while it went on.
            lost_images: that were used since the last commit when they changed, and will be again.
        """
        if run := self.metrics.run:
            run.restarts.set(max(self.launches - bool(resets), 0))
            run.resets.set(resets)
            run.global_batch.set(global_batch)
        self._write(
            "resume" if state.images_seen or resets else "start",
            state,
            world_size=world_size,
            global_batch_size=global_batch,
            batch_size=batch,
            images_per_epoch=self.images_per_epoch,
            total_images=total_images,
            **({"resets": resets, "lost_images": lost_images} if resets else {}),
        )

    def changed(self, state: TrainState, settings: dict[str, list[Any]]) -> None:
        for name, (before, now) in settings.items():
            logger.warning("%s was %s before, and is %s from step %d on", name, before, now, state.step)
        self._write("changed", state, settings=settings)

    def compared(self, state: TrainState, baseline: Baseline, *, images: int) -> None:
        """
        Args:
            images: of one worker in a step.
        """
        if run := self.metrics.run:
            run.baseline_time.set(baseline.measured_at)
            run.baseline_images_per_second.set(images / baseline.step_seconds)
        self.activity.beat()
        self._write("baseline", state, **baseline.as_dict())

    def step(self, state: TrainState, step: MicroBatches, *, lr: float) -> None:
        metrics = self.metrics
        metrics.images.inc(step.images)
        metrics.skipped.inc(step.skipped)
        metrics.steps.inc()
        metrics.allreduces.inc(self.traffic.allreduces)
        metrics.payload_bytes.inc(self.traffic.payload_bytes)
        metrics.wire_bytes.inc(self.traffic.wire_bytes)
        metrics.last_step.set(time.time())
        self.activity.step = state.step
        self.activity.beat()
        if run := metrics.run:
            run.lr.set(lr)
            run.epoch.set(self._epoch(state))
            if state.scaler:
                run.loss_scale.set(state.scaler.get_scale())
                run.overflows.inc(state.overflown)
        if self.trace:
            for plan in step.plans:
                self.trace.write(plan)

    def report(self, state: TrainState, report: Report, *, lr: float) -> None:
        spent = report.breakdown
        with self.metrics.together:
            for part, seconds in spent.workers.items():
                self.metrics.part.labels(part).inc(max(0.0, float(seconds[self.rank])) * spent.steps)
            self.metrics.lag.set(float(spent.lag[self.rank]))
            if self.metrics.run:
                _tell(self.metrics.run, report)
        self._write(
            "report",
            state,
            epoch=self._epoch(state),
            lr=lr,
            loss=report.loss,
            images_per_second=report.images_per_second,
            steps=spent.steps,
            step_seconds=float(spent.step_seconds.mean()),
            parts=spent.parts,
            ranks=_by_rank(spent),
            slowest_rank=spent.slowest,
            efficiency=report.efficiency.as_dict() if report.efficiency else None,
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
                efficiency=report.efficiency.ratio if report.efficiency else None,
            )

    def evaluated(self, state: TrainState, result: Evaluation, average: Evaluation | None, seconds: float) -> None:
        """
        Args:
            average: of the moving average of the weights, where there is one.
        """
        self.activity.beat()
        averages = {}
        if average:
            averages = {"average_top1": average.top1, "average_top5": average.top5, "average_loss": average.loss}
        if run := self.metrics.run:
            run.top1.set(result.top1)
            run.pause.labels("evaluation").inc(seconds)
            if average:
                run.average_top1.set(average.top1)
        epoch = self._epoch(state)
        self._write(
            "evaluate",
            state,
            epoch=epoch,
            top1=result.top1,
            top5=result.top5,
            loss=result.loss,
            **averages,
            images=result.images,
            seconds=seconds,
        )
        if self.events:
            rates = f"top-1 {100 * result.top1:.2f} %  top-5 {100 * result.top5:.2f} %"
            beside = f" ({100 * average.top1:.2f} % and {100 * average.top5:.2f} % averaged)" if average else ""
            logger.info("epoch %.2f  %s%s  of %d validation images", epoch, rates, beside, result.images)

    def quarantined(self, state: TrainState, part: str, image: str, reason: str) -> None:
        self._write("quarantine", state, part=part, image=image, reason=reason)

    def not_finite(self, state: TrainState, *, step: int, what: str, ranks: list[int], action: str) -> None:
        if run := self.metrics.run:
            run.not_finite.labels(action).inc()
        if self.events:
            self.events.write(
                "not_finite", step=step, images_seen=state.images_seen, what=what, ranks=ranks, action=action
            )
            logger.warning("step %d: the %s is not finite: %s", step, what, action)

    def saved(self, news: Iterable[Saved]) -> None:
        for saved in news:
            if run := self.metrics.run:
                run.checkpoint.observe(saved.seconds)
                run.checkpoints.inc()
                run.last_checkpoint.set(time.time())
                run.pause.labels("checkpoint").inc(saved.stalled_seconds)
            if self.events:
                self.events.write(
                    "checkpoint",
                    step=saved.manifest.step,
                    images_seen=saved.manifest.images_seen,
                    path=str(saved.path),
                    stalled_seconds=saved.stalled_seconds,
                    seconds=saved.seconds,
                )

    def preempted(self, state: TrainState, message: str) -> None:
        self._write("preempted", state, message=message)
        self.close()

    def ended(self, state: TrainState, *, seconds: float, images_per_second: float) -> None:
        self._write("end", state, seconds=seconds, images_per_second=images_per_second)
        self.close()

    def close(self) -> None:
        """Nothing is told any more."""
        for each in (self.events, self.trace, self.board):
            if each:
                each.close()
        self.events = self.trace = self.board = None

    def _write(self, event: str, state: TrainState, **fields: Any) -> None:
        if self.events:
            self.events.write(event, step=state.step, images_seen=state.images_seen, **fields)
        if self.board:
            self.board.write(event, step=state.step, **fields)

    def _epoch(self, state: TrainState) -> float:
        return state.images_seen / self.images_per_epoch


def _tell(run: RunMetrics, report: Report) -> None:
    spent = report.breakdown
    for histogram, values in (
        (run.step, spent.step_seconds),
        (run.input_wait, spent.run["input"]),
        (run.communication, spent.run["communication"]),
    ):
        for seconds in values.tolist():
            histogram.observe(seconds)
    run.loss.set(report.loss)
    run.slowest_rank.set(spent.slowest)
    run.slowest_rank_lag.set(float(spent.lag.max()))
    _tell_efficiency(run, report.efficiency)


def _tell_efficiency(run: RunMetrics, efficiency: Efficiency | None) -> None:
    if efficiency is None:  # no baseline, or none any more: no number is better than an old one
        for gauge in (run.efficiency, run.efficiency_low, run.efficiency_high, run.scaling_loss):
            gauge.clear()
        return
    against = {
        "kind": efficiency.kind,
        "baseline": efficiency.baseline,
        "baseline_workers": str(efficiency.baseline_workers),
    }
    run.efficiency.labels(**against).set(efficiency.ratio)
    run.efficiency_low.labels(**against).set(efficiency.low)
    run.efficiency_high.labels(**against).set(efficiency.high)
    for cause, ratio in efficiency.losses.items():
        run.scaling_loss.labels(cause).set(ratio)


def _by_rank(spent: Breakdown) -> dict[str, list[float]]:
    """Seconds per step of each rank, to the microsecond: a thousand ranks are a long line already."""
    columns = {"lag": spent.lag, "input": spent.workers["input"], "compute": spent.workers["compute"]}
    return {name: [round(float(seconds), 6) for seconds in values] for name, values in columns.items()}
