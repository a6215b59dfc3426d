"""A run from its launch to its summary."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from hvdtrain import log
from hvdtrain.checkpoint.writer import Writer
from hvdtrain.config.schema import Config
from hvdtrain.distributed import device as devices
from hvdtrain.distributed.activity import TRAINING, Activity
from hvdtrain.distributed.comm import Comm, HorovodComm, SoloComm
from hvdtrain.distributed.cores import bind
from hvdtrain.distributed.topology import Topology
from hvdtrain.distributed.tuning import Tuning, tune
from hvdtrain.distributed.watchdog import Watchdog
from hvdtrain.errors import NotFinite
from hvdtrain.log import duration, logger
from hvdtrain.metrics import baselines, targets
from hvdtrain.metrics.efficiency import Baseline, speed
from hvdtrain.train import agreement, baseline, checkpoints, environment, memory, recipe
from hvdtrain.train import folder as run_folder
from hvdtrain.train.build import Parts, build
from hvdtrain.train.checkpoints import Saving
from hvdtrain.train.data import Machine
from hvdtrain.train.doubt import Doubt, GoBack
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.loop import Cadence, evaluate_and_record, train
from hvdtrain.train.meters import Meters
from hvdtrain.train.record import Record
from hvdtrain.train.trace import forget_after
from hvdtrain.train.watch import watched

FEWEST_WINDOWS = 5  # of reports, for a speed that others are compared with


def run(config: Config, topology: Topology) -> None:
    """Train as `config` says and print the summary. Every worker calls this."""
    began = time.perf_counter()
    recipe.schedule(config, recipe.global_batch(config, topology.size))  # what cannot be is refused before the start
    tuning = _tune(config)
    activity = Activity()
    with memory.naming(activity):
        _run(config, topology, tuning, activity, began)


def _run(config: Config, topology: Topology, tuning: Tuning, activity: Activity, began: float) -> None:
    comm: Comm = HorovodComm(topology, activity=activity) if topology.size > 1 else SoloComm()
    device = devices.select(comm)
    warnings = agreement.check(config, comm, device)
    share = devices.share_of_cores(comm)
    bind(comm, wanted=config.distributed.bind == "auto")
    threads = devices.use_threads(config.distributed.threads or share)

    folder, first = config.run_dir, comm.rank == 0
    if first:
        run_folder.claim(folder, resume=config.resume)
    comm.gather(None, "run directory")  # nobody writes before rank 0 has made the folder
    log.configure(comm.rank, log_dir=folder / "logs")
    for name, value in tuning.kept.items():
        logger.info("%s = %s comes from the environment and stays", name, value)
    for warning in warnings if first else ():
        logger.warning("%s", warning)

    with ExitStack() as until_the_end:
        watchdog = Watchdog(comm, activity, silence_seconds=config.distributed.watchdog_seconds, run_dir=folder)
        until_the_end.enter_context(watchdog)
        measured = agreement.measure(config, comm, device)
        machine = Machine(device, share, topology.launcher)
        parts = _parts(config, comm, machine, tuning)
        agreement.same_images(comm, {part: source.index.digest for part, source in parts.data.sources.items()})
        saving = until_the_end.enter_context(_saving(config, parts)) if first else None
        seen = until_the_end.enter_context(
            watched(config, comm, parts, machine, activity, threads=threads, tuning=tuning, measured=measured)
        )
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
        result = _train(config, parts, comm, meters, record, saving)
        activity.phase = "the end"
        if result is None and config.evaluation.at_end:  # the run was over already: somebody asks again
            result = evaluate_and_record(parts, comm, record)
        if saving:
            record.saved(saving.finish())
            seconds = time.perf_counter() - began
            record.ended(parts.state, seconds=seconds, images_per_second=meters.images_per_second)
            _keep_speeds(config, meters, setting, workers=comm.size)
            print(_summary(result, meters, comm.size, seconds, folder, seen.addresses), flush=True)
        parts.data.close()
    comm.close()


def _parts(config: Config, comm: Comm, machine: Machine, tuning: Tuning) -> Parts:
    """Those of the run, as it begins or as a checkpoint has left them. Collective."""
    checkpoint = checkpoints.find(config, comm)
    images_seen = checkpoint.manifest.images_seen if checkpoint else 0
    if comm.rank == 0:
        forget_after(config.run_dir / "images", images_seen)
    parts = build(config, comm, machine, bucket_bytes=tuning.bucket_bytes, images_seen=images_seen)
    if checkpoint:
        checkpoints.load(parts, checkpoint)
        parts.state.earlier_seconds = checkpoint.manifest.spent_seconds
    return parts


def _tune(config: Config) -> Tuning:
    tuning = tune(os.environ, config.distributed)
    os.environ.update(tuning.environment)
    return tuning


def _cadence(config: Config) -> Cadence:
    return Cadence(
        report_steps=config.run.report_every,
        evaluate_epochs=config.evaluation.every_epochs,
        evaluate_from=config.evaluation.first_epoch,
        evaluate_at_end=config.evaluation.at_end,
        save_epochs=config.checkpoint.every_epochs,
    )


@contextmanager
def _saving(config: Config, parts: Parts) -> Iterator[Saving]:
    with Writer(checkpoints.folder(config), keep=config.checkpoint.keep) as writer:
        yield Saving(writer, config_digest=config.digest(), data_digest=parts.data.train.digest)


def _train(
    config: Config, parts: Parts, comm: Comm, meters: Meters, record: Record, saving: Saving | None
) -> Evaluation | None:
    """To the end, and as often as need be from the last checkpoint again."""
    doubt = Doubt(config.train.not_finite, most_skipped=config.train.most_skipped)
    while True:
        try:
            with record.activity.doing(TRAINING):
                return train(parts, comm, meters, record, _cadence(config), doubt, saving)
        except GoBack as error:
            with record.activity.doing("going back"):
                _go_back(error, config, parts, comm, meters, record, saving)


def _go_back(
    reason: GoBack, config: Config, parts: Parts, comm: Comm, meters: Meters, record: Record, saving: Saving | None
) -> None:
    if saving:
        record.saved(saving.finish())
    checkpoint = comm.broadcast_object(checkpoints.latest(config) if saving else None, "last checkpoint")
    if checkpoint is None:
        raise NotFinite(f"{reason}, and there is no checkpoint yet to go back to") from None
    checkpoints.load(parts, checkpoint)
    meters.forget()
    if record.trace:
        record.trace.forget_after(parts.state.images_seen)
    if saving:
        logger.warning("%s: going back to step %d", reason, parts.state.step)


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
