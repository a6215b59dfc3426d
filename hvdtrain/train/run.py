"""A run from its launch to its summary."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hvdtrain import log, outcome
from hvdtrain.checkpoint.format import Manifest
from hvdtrain.checkpoint.writer import Writer
from hvdtrain.config.schema import Config
from hvdtrain.distributed import device as devices
from hvdtrain.distributed.activity import TRAINING, Activity
from hvdtrain.distributed.comm import Comm, HorovodComm, SoloComm
from hvdtrain.distributed.cores import bind
from hvdtrain.distributed.preempt import Agreement, StopRequest
from hvdtrain.distributed.topology import Topology
from hvdtrain.distributed.tuning import Tuning, tune
from hvdtrain.distributed.watchdog import Watchdog
from hvdtrain.errors import NotFinite, Preempted
from hvdtrain.log import logger
from hvdtrain.train import alike, checkpoints, environment, memory, recipe, speeds
from hvdtrain.train import folder as run_folder
from hvdtrain.train.build import Parts, build
from hvdtrain.train.checkpoints import Saving
from hvdtrain.train.data import Machine
from hvdtrain.train.doubt import Doubt, GoBack
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.loop import Cadence, evaluate_and_record, train
from hvdtrain.train.meters import Meters
from hvdtrain.train.record import Record
from hvdtrain.train.told import announce, summary
from hvdtrain.train.trace import forget_after
from hvdtrain.train.watch import watched


def run(config: Config, topology: Topology, request: StopRequest) -> None:
    """Train as `config` says and print the summary. Every worker calls this.

    Raises:
        Preempted: `request` came to one of the workers; all is saved.
    """
    began = time.perf_counter()
    if config.resume == "never":  # what cannot be is refused before the start; a run that goes on keeps its minibatch
        recipe.schedule(config, recipe.global_batch(config, topology.size))
    tuning = _tune(config)
    activity = Activity()
    comm: Comm = HorovodComm(topology, activity=activity) if topology.size > 1 else SoloComm()
    device = devices.select(comm)
    warnings = alike.check(config, comm, device)
    share = devices.share_of_cores(comm)
    bind(comm, wanted=config.distributed.bind == "auto")
    threads = devices.use_threads(config.distributed.threads or share)

    folder, first = config.run_dir, comm.rank == 0
    with ExitStack() as until_the_end:
        if first:
            until_the_end.enter_context(run_folder.claimed(folder, resume=config.resume))
        comm.gather(None, "run directory")  # nobody writes before rank 0 has made the folder
        until_the_end.enter_context(run_folder.outcome_told(folder, comm.rank))
        until_the_end.enter_context(memory.naming(activity))
        log.configure(comm.rank, log_dir=folder / "logs")
        for name, value in tuning.kept.items():
            logger.info("%s = %s comes from the environment and stays", name, value)
        for warning in warnings if first else ():
            logger.warning("%s", warning)
        watchdog = Watchdog(comm, activity, silence_seconds=config.distributed.watchdog_seconds, run_dir=folder)
        until_the_end.enter_context(watchdog)
        measured = alike.measure(config, comm, device)
        machine = Machine(device, share, topology.launcher)
        changes = checkpoints.changed(config) if first and config.resume != "never" else {}
        parts = _parts(config, comm, machine, tuning)
        alike.same_images(comm, {part: source.index.digest for part, source in parts.data.sources.items()})
        saving = until_the_end.enter_context(_saving(config, parts, workers=comm.size)) if first else None
        seen = until_the_end.enter_context(
            watched(config, comm, parts, machine, activity, threads=threads, tuning=tuning, measured=measured)
        )
        record = seen.record
        if first:
            announce(config, parts, world_size=comm.size, place=device.type, environment=seen.environment)
        record.started(
            parts.state,
            world_size=comm.size,
            global_batch=parts.objective.global_batch,
            batch=config.data.batch_size,
            total_images=parts.total_images,
        )
        if changes:
            record.changed(parts.state, changes)
        setting = environment.setting(
            config, machine, threads=threads, micro_batches=parts.micro_batches, images=parts.data.train.digest
        )
        meters = Meters(parts.clock, speeds.find(config, comm, parts, activity, setting))
        if meters.baseline:
            record.compared(parts.state, meters.baseline, images=parts.objective.global_batch // comm.size)
        agreement = Agreement(comm, request)
        try:
            result = _train(config, parts, comm, meters, record, agreement=agreement, saving=saving)
            activity.phase = "the end"
            if result is None and config.evaluation.at_end:  # the run was over already: somebody asks again
                result = evaluate_and_record(parts, comm, record, agreement)
                if saving:
                    saving.save(parts.state)  # which knows its accuracy now
        except Preempted as error:
            raise _preempted(error, folder, agreement, parts, comm, record, saving) from None
        if saving:
            record.saved(saving.finish())
            seconds = time.perf_counter() - began
            record.ended(parts.state, seconds=seconds, images_per_second=meters.images_per_second)
            speeds.keep(config, meters, setting, workers=comm.size)
            print(summary(result, meters, comm.size, seconds, folder, seen.addresses), flush=True)
        parts.data.close()
    comm.close()


def _parts(config: Config, comm: Comm, machine: Machine, tuning: Tuning) -> Parts:
    """Those of the run, as it begins or as a checkpoint has left them. Collective."""
    checkpoint = checkpoints.find(config, comm)
    images_seen = checkpoint.manifest.images_seen if checkpoint else 0
    if comm.rank == 0:
        forget_after(config.run_dir / "images", images_seen)
    if checkpoint:
        before = checkpoint.manifest
        config = recipe.going_on(config, workers=comm.size, global_batch=before.global_batch)
        if comm.rank == 0 and before.workers not in (0, comm.size):
            logger.info("workers: %d, before: %d; the minibatch stays what it was", comm.size, before.workers)
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
def _saving(config: Config, parts: Parts, *, workers: int) -> Iterator[Saving]:
    belongs = Manifest(
        images_seen=0,
        step=0,
        config_digest=config.digest(),
        data_digest=parts.data.train.digest,
        workers=workers,
        global_batch=parts.objective.global_batch,
    )
    with Writer(checkpoints.folder(config), keep=config.checkpoint.keep) as writer:
        yield Saving(writer, belongs)


def _train(
    config: Config,
    parts: Parts,
    comm: Comm,
    meters: Meters,
    record: Record,
    *,
    agreement: Agreement,
    saving: Saving | None,
) -> Evaluation | None:
    """To the end, and as often as need be from the last checkpoint again."""
    doubt = Doubt(config.train.not_finite, most_skipped=config.train.most_skipped)
    while True:
        try:
            with record.activity.doing(TRAINING):
                return train(
                    parts, comm, meters, record, _cadence(config), doubt=doubt, agreement=agreement, saving=saving
                )
        except GoBack as error:
            with record.activity.doing("going back"):
                _go_back(error, config, parts, comm, meters, record, saving)


def _preempted(
    error: Preempted,
    run_dir: Path,
    agreement: Agreement,
    parts: Parts,
    comm: Comm,
    record: Record,
    saving: Saving | None,
) -> Preempted:
    """What to leave with, once all is saved. Collective: launchers end everyone as soon as one has left."""
    record.activity.phase = "leaving"
    if saving:
        record.saved(saving.finish())
    message = f"stopped {error.args[0]} by {' and '.join(agreement.signals)}"
    record.preempted(parts.state, message)
    left = Preempted(message, remedy="--resume auto goes on from there")
    if saving:
        outcome.tell(run_dir, left.exit_code, str(left))
    comm.meet("all is saved")
    parts.data.close()
    return left


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
