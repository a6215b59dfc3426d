"""Every series that a run exports, in one table: the two classes below.

Throughput is rate(hvdtrain_images_total[1m]); a mean step is rate(…_seconds_sum[1m]) / rate(…_seconds_count[1m]). A
worker's rank is a label that its scrape target brings along (see targets.py), so no series repeats it, and none is of a
layer.
"""

from collections.abc import Mapping

from prometheus_client import Counter, Gauge, Histogram, Info, disable_created_metrics

from hvdtrain.metrics.breakdown import PARTS
from hvdtrain.metrics.efficiency import CAUSES
from hvdtrain.metrics.series import Registry, Series, make_all

# Seconds: a step to within half of itself, a wait to a factor of three.
STEPS = (0.004, 0.006, 0.01, 0.016, 0.025, 0.04, 0.06, 0.1, 0.16, 0.25, 0.4, 0.6, 1, 1.6, 2.5, 4, 6, 10, 25, 60)
WAITS = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
FILES = (0.1, 0.3, 1, 3, 10, 30, 100, 300)

AGAINST = ("kind", "baseline", "baseline_workers")
RUN = ("run", "model", "precision", "world_size", "global_batch_size", "batch_size", "version", "commit", "torch")


class RunMetrics:
    """Of the whole run: rank 0 exports them."""

    step = Series(Histogram, "hvdtrain_step_seconds", "Duration of a step", buckets=STEPS)
    input_wait = Series(
        Histogram, "hvdtrain_input_wait_seconds", "Time that a step's last worker waited for its images", buckets=WAITS
    )
    communication = Series(
        Histogram,
        "hvdtrain_exposed_communication_seconds",
        "Time from the last worker's being ready to the sum of a step's gradients",
        buckets=WAITS,
    )

    efficiency = Series(
        Gauge,
        "hvdtrain_scaling_efficiency_ratio",
        "Speed of a worker over its speed in the baseline, with the same batch; last 10 reports",
        labels=AGAINST,
    )
    efficiency_low = Series(
        Gauge, "hvdtrain_scaling_efficiency_low_ratio", "Lower end of its 95 % interval", labels=AGAINST
    )
    efficiency_high = Series(
        Gauge, "hvdtrain_scaling_efficiency_high_ratio", "Upper end of its 95 % interval", labels=AGAINST
    )
    scaling_loss = Series(
        Gauge,
        "hvdtrain_scaling_loss_ratio",
        "Efficiency lost, by cause; with the efficiency they sum to 1",
        labels=("cause",),
        values=CAUSES,
    )
    baseline_time = Series(
        Gauge, "hvdtrain_baseline_timestamp_seconds", "When the baseline was measured, seconds since 1970"
    )
    baseline_images_per_second = Series(
        Gauge, "hvdtrain_baseline_images_per_second", "Speed of one worker in the baseline"
    )
    slowest_rank = Series(Gauge, "hvdtrain_slowest_rank", "Worker that was ready the latest on average, last report")
    slowest_rank_lag = Series(
        Gauge, "hvdtrain_slowest_rank_lag_seconds", "How much later than the typical worker it was ready"
    )

    loss = Series(Gauge, "hvdtrain_loss", "Mean training loss since the last report, all workers")
    lr = Series(Gauge, "hvdtrain_learning_rate", "Learning rate of the last step")
    epoch = Series(Gauge, "hvdtrain_epoch", "Epochs done, a fraction")
    epochs = Series(Gauge, "hvdtrain_epochs", "Epochs at the end of the run")
    top1 = Series(Gauge, "hvdtrain_top1_ratio", "Top-1 accuracy of the last evaluation")
    average_top1 = Series(Gauge, "hvdtrain_average_top1_ratio", "Top-1 accuracy of the moving average of the weights")
    loss_scale = Series(Gauge, "hvdtrain_loss_scale", "Factor of the loss in half precision")
    overflows = Series(Counter, "hvdtrain_steps_overflown", "Steps left out because a gradient was not finite")

    not_finite = Series(
        Counter,
        "hvdtrain_steps_not_finite",
        "Steps with a loss or gradient that was not finite, by what was done",
        labels=("action",),
        values=("stop", "skip", "rewind"),
    )

    checkpoint = Series(
        Histogram,
        "hvdtrain_checkpoint_seconds",
        "Time until a checkpoint was durable, most of it in the background",
        buckets=FILES,
    )
    checkpoints = Series(Counter, "hvdtrain_checkpoints", "Checkpoints written since this process started")
    last_checkpoint = Series(
        Gauge, "hvdtrain_last_checkpoint_timestamp_seconds", "When the last checkpoint was written, seconds since 1970"
    )
    pause = Series(
        Counter,
        "hvdtrain_pause_seconds",
        "Time that was no training, by reason",
        labels=("reason",),
        values=("evaluation", "checkpoint"),
    )

    buckets = Series(Gauge, "hvdtrain_gradient_buckets", "Buckets that the gradients travel in")
    largest_bucket = Series(Gauge, "hvdtrain_bucket_bytes", "Size of the largest gradient bucket")
    world_size = Series(Gauge, "hvdtrain_world_size", "Workers of the run")
    global_batch = Series(Gauge, "hvdtrain_global_batch_images", "Images of a step, all workers: the minibatch kn")
    restarts = Series(Gauge, "hvdtrain_restarts", "How often the run was started before")
    resets = Series(Gauge, "hvdtrain_resets", "How often its workers have changed since, while it went on: --elastic")
    elastic_wait = Series(
        Gauge,
        "hvdtrain_elastic_wait_seconds",
        "How long workers may wait for others when they change; 0: not --elastic",
    )
    run_info = Series(Info, "hvdtrain_run", "What run this is; join on it", labels=(*RUN, "slurm_job_id"))

    def __init__(self, registry: Registry, info: Mapping[str, str]) -> None:
        make_all(self, registry)
        self.run_info.info(dict(info))


class Metrics:
    """Of one worker: every rank exports them."""

    images = Series(Counter, "hvdtrain_images", "Training images that this worker has trained on")
    skipped = Series(Counter, "hvdtrain_images_skipped", "Training images left out because they cannot be decoded")
    steps = Series(Counter, "hvdtrain_steps", "Optimiser steps done since this process started")
    part = Series(
        Counter,
        "hvdtrain_step_part_seconds",
        "Time of this worker's steps, by what it went to; straggler: waiting for the last one, whatever held that up",
        labels=("part",),
        values=PARTS,
    )
    allreduces = Series(
        Counter,
        "hvdtrain_allreduces",
        "Sums of gradient buckets over all workers; 0 with Horovod's own fusion, as the next two",
    )
    payload_bytes = Series(Counter, "hvdtrain_allreduce_payload_bytes", "Size of the gradients summed")
    wire_bytes = Series(
        Counter, "hvdtrain_allreduce_wire_bytes", "What a worker of k sends for them in a ring: 2(k-1)/k of the payload"
    )
    lag = Series(
        Gauge, "hvdtrain_rank_lag_seconds", "How much later than the typical worker this one was ready, last report"
    )
    last_step = Series(Gauge, "hvdtrain_last_step_timestamp_seconds", "When the last step ended, seconds since 1970")
    worker_info = Series(Info, "hvdtrain_worker", "Where this worker runs", labels=("host", "device", "device_name"))

    def __init__(self, *, rank: int, run_info: Mapping[str, str], worker_info: Mapping[str, str]) -> None:
        """
        Args:
            run_info: the labels of hvdtrain_run_info.
            worker_info: those of hvdtrain_worker_info.
        """
        disable_created_metrics()
        self.registry = Registry()
        self.together = self.registry.together
        make_all(self, self.registry)
        self.worker_info.info(dict(worker_info))
        self.run = RunMetrics(self.registry, run_info) if rank == 0 else None
