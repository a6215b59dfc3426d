"""A run from its launch to its summary."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvdtrain import log
from hvdtrain.checkpoint import store
from hvdtrain.config.schema import Config
from hvdtrain.distributed import device as devices
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import Comm, HorovodComm, SoloComm
from hvdtrain.distributed.topology import Topology
from hvdtrain.distributed.tuning import Tuning, tune
from hvdtrain.errors import CheckpointError, ConfigError
from hvdtrain.log import duration, logger
from hvdtrain.metrics import baselines, targets
from hvdtrain.metrics.efficiency import Baseline, speed
from hvdtrain.train import baseline, environment, recipe
from hvdtrain.train.build import Parts, build
from hvdtrain.train.data import Machine
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.loop import Cadence, evaluate_and_record, train
from hvdtrain.train.meters import Meters
from hvdtrain.train.record import Record
from hvdtrain.train.state import TrainState
from hvdtrain.train.trace import forget_after
from hvdtrain.train.watch import watched

FEWEST_WINDOWS = 5  # of reports, for a speed that others are compared with


def run(config: Config, topology: Topology) -> None:
    """Train as `config` says and print the summary. Every worker calls this."""
    began = time.perf_counter()
    recipe.schedule(config, recipe.global_batch(config, topology.size))  # what cannot be is refused before the start
    tuning = _tune(config)
    activity = Activity()
    comm: Comm = HorovodComm(expected_size=topology.size, activity=activity) if topology.size > 1 else SoloComm()
    device = devices.select(comm.local_rank)
    cores = devices.share_of_cores(comm)
    threads = devices.use_threads(cores)

    folder, first = config.run_dir, comm.rank == 0
    if first:
        _claim(folder, config)
    comm.gather(None, "run directory")  # nobody writes before rank 0 has made the folder
    log.configure(comm.rank, log_dir=folder / "logs")
    for name, value in tuning.kept.items():
        logger.info("%s = %s comes from the environment and stays", name, value)

    checkpoint = _checkpoint(config, comm)
    if first and checkpoint:
        forget_after(folder / "images", checkpoint.manifest.images_seen)
    machine = Machine(device, cores, topology.launcher)
    images_seen = checkpoint.manifest.images_seen if checkpoint else 0
    parts = build(config, comm, machine, bucket_bytes=tuning.bucket_bytes, images_seen=images_seen)
    if checkpoint:
        _go_on(parts, checkpoint)
    with watched(config, comm, parts, machine, activity, threads=threads, tuning=tuning) as seen:
        record = seen.record
        if first:
            _announce(config, parts, world_size=comm.size, place=device.type, environment=seen.environment)
        record.started(
            parts.state,
            world_size=comm.size,
            global_batch=parts.objective.global_batch,
            batch=config.data.batch_size,
            total_images=parts.total_images,
        )
        setting = environment.setting(
            config, machine, threads=threads, micro_batches=parts.micro_batches, images=parts.data.train.digest
        )
        meters = Meters(parts.clock, _baseline(config, comm, parts, record, setting))
        if meters.baseline:
            record.compared(parts.state, meters.baseline, images=parts.objective.global_batch // comm.size)
        train(parts, comm, meters, record, _cadence(config), _saving(config, parts) if first else None)
        result = evaluate_and_record(parts, comm, record) if config.evaluation.at_end else None
        if first:
            seconds = time.perf_counter() - began
            record.ended(parts.state, seconds=seconds, images_per_second=meters.images_per_second)
            _keep_speeds(config, meters, setting, workers=comm.size)
            print(_summary(result, meters, comm.size, seconds, folder, seen.addresses), flush=True)
    parts.data.close()
    comm.close()


def _tune(config: Config) -> Tuning:
    tuning = tune(
        os.environ,
        buckets=config.distributed.reducer == "buckets",
        bucket_mib=config.distributed.bucket_mib,
        ring=config.distributed.ring,
        yield_when_idle=config.distributed.yield_when_idle,
    )
    os.environ.update(tuning.environment)
    return tuning


def _claim(folder: Path, config: Config) -> None:
    """Make the run directory, or go on in it."""
    if config.resume == "never" and (folder / "events.jsonl").exists():
        raise ConfigError(f"{folder} holds a run already", remedy="--resume auto to go on, or another --run.name")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)


@dataclass(frozen=True)
class Checkpoint:
    manifest: store.Manifest
    tensors: bytes


def _checkpoint(config: Config, comm: Comm) -> Checkpoint | None:
    """Where to go on. Rank 0 reads and hands the bytes round: one reader, and no doubt about what was read."""
    found = None
    if comm.rank == 0 and config.resume != "never":
        checkpoints = config.run_dir / "checkpoints"
        path = store.newest(checkpoints) if config.resume == "auto" else Path(config.resume)
        if path is not None:
            found = Checkpoint(*store.read(path))
            if found.manifest.config_digest != config.digest():
                raise CheckpointError(
                    f"{path} belongs to configuration {found.manifest.config_digest}, this one is {config.digest()}",
                    remedy=f"compare with {config.run_dir}/config.yaml",
                )
            logger.info(
                "resuming from %s: step %d, %d images seen", path, found.manifest.step, found.manifest.images_seen
            )
    return comm.broadcast_object(found, "checkpoint")


def _go_on(parts: Parts, checkpoint: Checkpoint) -> None:
    manifest, data = checkpoint.manifest, parts.data.train.digest
    if manifest.data_digest != data:  # another order: images would be seen twice, and others not at all
        raise CheckpointError(
            f"the checkpoint was made with the training images {manifest.data_digest}, these are {data}",
            remedy="hvdtrain data verify, or begin a new run",
        )
    device = next(parts.state.model.parameters()).device
    parts.state.load(store.tensors(checkpoint.tensors, device), images_seen=manifest.images_seen, step=manifest.step)


def _cadence(config: Config) -> Cadence:
    return Cadence(
        report_steps=config.run.report_every,
        evaluate_epochs=config.evaluation.every_epochs,
        evaluate_from=config.evaluation.first_epoch,
        save_epochs=config.checkpoint.every_epochs,
    )


def _saving(config: Config, parts: Parts) -> Callable[[TrainState], Path]:
    def save(state: TrainState) -> Path:
        return store.save(
            config.run_dir / "checkpoints",
            state.tensors(),
            images_seen=state.images_seen,
            step=state.step,
            config_digest=config.digest(),
            data_digest=parts.data.train.digest,
        )

    return save


def _baseline(config: Config, comm: Comm, parts: Parts, record: Record, setting: dict[str, Any]) -> Baseline | None:
    """What efficiency is measured against; None where there is nothing, and then there is no efficiency."""
    chosen = config.metrics
    if chosen.baseline == "measured" and comm.size > 1 and not parts.over:
        untimed = config.data.prefetch + 1
        return baseline.measure(parts, comm, record.activity, steps=chosen.baseline_steps, untimed=untimed)
    found = None
    if chosen.baseline == "stored" and comm.rank == 0:
        folder = chosen.baselines_dir.expanduser()
        pixels = parts.data.pixels(parts.state.images_seen)
        found = baselines.load(folder, setting, workers=chosen.baseline_workers, pixels=pixels)
        if found is None:
            wanted = f"{chosen.baseline_workers} worker{'s' * (chosen.baseline_workers > 1)} under these settings"
            logger.warning("no scaling efficiency: %s has no speed of %s; a finished run leaves one", folder, wanted)
    return comm.broadcast_object(found, "baseline")


def _keep_speeds(config: Config, meters: Meters, setting: dict[str, Any], *, workers: int) -> None:
    """For later runs to compare theirs with: how fast this one was at its end, and what it was itself compared with."""
    speeds = []
    if len(meters.windows) >= FEWEST_WINDOWS:
        end = f"the end of run {config.run_name}"
        now = time.time()
        speeds.append(speed(meters.windows, workers=workers, pixels=meters.pixels, measured_at=now, origin=end))
    if meters.baseline and meters.baseline.source == "measured":
        speeds.append(replace(meters.baseline, origin=f"one worker alone, before the first step of {config.run_name}"))
    folder = config.metrics.baselines_dir.expanduser()
    try:
        for kept in speeds:
            baselines.save(folder, setting, kept)
    except OSError as error:  # no reason to fail a run that is done
        logger.warning("this run's speed is not kept in %s: %s", folder, error.strerror)


def _announce(config: Config, parts: Parts, *, world_size: int, place: str, environment: dict[str, Any]) -> None:
    """What a person should know before the first step: above all the global minibatch and the rate it implies."""
    data, batch, kn = parts.data, config.data.batch_size, parts.objective.global_batch
    peak = recipe.schedule(config, kn).peak
    workers = f"{world_size} worker{'s' * (world_size > 1)}"
    micro = f" x {parts.micro_batches}" if parts.micro_batches > 1 else ""
    logger.info("run %s", config.run_dir)
    algorithm = environment["allreduce_algorithm"]
    logger.info("%s, %s, %s on %s; allreduce: %s", config.model.name, config.precision, workers, place, algorithm)
    logger.info("minibatch kn = %d x %d%s = %d images, peak rate %g", world_size, batch, micro, kn, peak)
    for group in parts.state.optimizer.param_groups:
        numbers, decay = sum(p.numel() for p in group["params"]), group["weight_decay"]
        logger.info("%s: %d tensors, %d numbers, weight decay %g", group["name"], len(group["params"]), numbers, decay)
    logger.info(
        "%d training and %d validation images, %d classes", len(data.train), len(data.val), len(data.train.classes)
    )
    logger.info("Prometheus targets in %s", targets.file(config.run_dir))


def _summary(
    result: Evaluation | None, meters: Meters, workers: int, seconds: float, folder: Path, addresses: list[str]
) -> str:
    shown = ", ".join(addresses[:4])
    lines = [""]
    if result:
        lines.append(f"top-1       {100 * result.top1:.2f} % of {result.images} validation images")
    lines.append(f"throughput  {meters.images_per_second:,.1f} images/s on {workers} worker{'s' * (workers > 1)}")
    if efficiency := meters.efficiency:
        lines.append(f"efficiency  {efficiency}")
    lines += [
        f"took        {duration(seconds)}",
        f"run         {folder}; what cost how much: hvdtrain report {folder}",
        f"metrics     were at {shown}{' …' if len(addresses) > 4 else ''}",
    ]
    return "\n".join(lines)
