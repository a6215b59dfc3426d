"""A run from its launch to its summary."""

import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from importlib import import_module

import torch

from hvdtrain import log, outcome
from hvdtrain.checkpoint.format import Manifest
from hvdtrain.checkpoint.writer import Writer
from hvdtrain.config.schema import Config
from hvdtrain.data.diagnose import dali_installed
from hvdtrain.distributed import device as devices
from hvdtrain.distributed import elastic
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import Comm, HorovodComm, SoloComm, of_rank_0
from hvdtrain.distributed.cores import bind
from hvdtrain.distributed.elastic import Hosts, WorkersChange
from hvdtrain.distributed.preempt import Agreement, StopRequest
from hvdtrain.distributed.threads import move_all, step_back
from hvdtrain.distributed.topology import Topology
from hvdtrain.distributed.tuning import Tuning, tune
from hvdtrain.distributed.watchdog import Watchdog
from hvdtrain.errors import CheckpointError, HvdtrainError, PeerLost, Preempted
from hvdtrain.log import logger
from hvdtrain.train import alike, begin, checkpoints, course, environment, lock, memory, recipe, speeds
from hvdtrain.train import folder as run_folder
from hvdtrain.train.checkpoints import Saving
from hvdtrain.train.data import Machine
from hvdtrain.train.elastic import Kept, Leaves, Past
from hvdtrain.train.loop import evaluate_and_record, save
from hvdtrain.train.meters import Meters
from hvdtrain.train.told import announce, summary
from hvdtrain.train.watch import watched

SAVE_TURN_SECONDS, MOST_TURNS = 0.3, 8  # of workers that would all write the same


@dataclass(frozen=True)
class Process:
    """What of a run is this process's, whoever the other workers are."""

    config: Config
    request: StopRequest
    activity: Activity
    tuning: Tuning
    cores: frozenset[int]  # that its launcher gave to it
    began: float  # time.perf_counter


@dataclass(frozen=True)
class Changes:
    """Of a run whose workers come and go."""

    kept: Kept
    hosts: Hosts


def run(config: Config, topology: Topology, request: StopRequest) -> None:
    """Train as `config` says and print the summary. Every worker calls this.

    Raises:
        Preempted: `request` came to one of the workers; all is saved.
    """
    began = time.perf_counter()
    if config.resume == "never":  # what cannot be is refused before the start; a run that goes on keeps its minibatch
        recipe.schedule(config, recipe.global_batch(config, topology.size))
    process = Process(config, request, Activity(), _tune(config, topology), frozenset(os.sched_getaffinity(0)), began)
    if config.elastic.enabled:
        _through_changes(process)
        return
    solo = topology.size == 1
    comm: Comm = SoloComm() if solo else HorovodComm(topology, activity=process.activity)
    _with_workers(process, comm, topology)


def _through_changes(process: Process) -> None:
    chosen, request = process.config.elastic, process.request
    if dali_installed():  # what takes seconds to load, before it has a place: from then on the others wait for it
        import_module("hvdtrain.data.dali")
    kept = Kept(every_steps=chosen.commit_steps)

    def live(comm: Comm, topology: Topology, hosts: Hosts) -> None:
        with kept.entering(comm.rank):
            _with_workers(process, comm, topology, Changes(kept, hosts))

    try:
        elastic.through_changes(
            live, process.activity, wait_seconds=chosen.wait_seconds, asked_to_leave=lambda: request.signal
        )
    except Leaves:
        raise
    except HvdtrainError as error:
        folder = process.config.run_dir
        if kept.among_workers:  # it is told already, and the first to tell is right
            outcome.tell(folder, error.exit_code, str(error))
        elif kept.past.owner and lock.owner(folder) in (None, kept.past.owner):  # else it is others', who may go on
            _leave_commit(process.config, kept)
            outcome.tell(folder, error.exit_code, str(error))
        raise


def _leave_commit(config: Config, kept: Kept) -> None:
    """On disk, when no other set of workers comes about."""
    time.sleep(SAVE_TURN_SECONDS * min(kept.rank, MOST_TURNS))  # whoever comes later finds it there
    try:
        step = kept.save(checkpoints.folder(config))
    except CheckpointError as error:
        logger.error("%s", error)
    else:
        if step is not None:
            logger.warning("the last commit, of step %d, is saved", step)


def _with_workers(process: Process, comm: Comm, topology: Topology, changes: Changes | None = None) -> None:
    """From where the run is to its end, or until its workers change."""
    config, activity, tuning = process.config, process.activity, process.tuning
    device = devices.select(comm)
    if device.type == "cpu" and topology.on_one_node:
        step_back(comm.threads)
    warnings = alike.check(config, comm, device)
    if changes:
        move_all(process.cores)  # the set of workers before may have bound it
    share = devices.share_of_cores(comm)
    bind(comm, wanted=config.distributed.bind == "auto")
    threads = devices.use_threads(config.distributed.threads or share)

    commit = changes.kept.meet(comm) if changes else None
    past = changes.kept.past if changes else Past()
    if past.owner and config.resume == "never":  # it is this run's own directory that is there
        config = config.model_copy(update={"resume": "auto"})
    folder, first = config.run_dir, comm.rank == 0
    with ExitStack() as until_the_end:
        claimed = run_folder.claimed(folder, resume=config.resume, heir_of=past.owner)
        # nobody writes before rank 0 has made the folder
        past.owner = of_rank_0(comm, partial(until_the_end.enter_context, claimed), "run directory")
        goes_on = (PeerLost, WorkersChange, Leaves) if changes else ()
        until_the_end.enter_context(run_folder.outcome_told(folder, comm.rank, goes_on=goes_on))
        until_the_end.enter_context(memory.naming(activity))
        log.configure(comm.rank, log_dir=folder / "logs")
        for name, value in tuning.kept.items() if not past.resets else ():
            logger.info("%s = %s comes from the environment and stays", name, value)
        for warning in warnings if first else ():
            logger.warning("%s", warning)
        watchdog = Watchdog(
            comm,
            activity,
            silence_seconds=config.distributed.watchdog_seconds,
            run_dir=folder,
            others_go_on=changes is not None,
        )
        until_the_end.enter_context(watchdog)
        measured = alike.measure(config, comm, device) if not past.resets else None
        machine = Machine(device, share, topology.launcher)
        settings_changed = checkpoints.changed(config) if first and config.resume != "never" else {}
        parts = begin.begin(config, comm, machine, tuning, commit, past)
        alike.same_images(comm, {part: source.index.digest for part, source in parts.data.sources.items()})
        belongs = checkpoints.belongs(config, parts, workers=comm.size)
        saving = until_the_end.enter_context(_saving(config, belongs)) if first else None
        seen = until_the_end.enter_context(
            watched(config, comm, parts, machine, activity, threads=threads, tuning=tuning, measured=measured)
        )
        record = seen.record
        if first:
            announce(config, parts, world_size=comm.size, place=device.type, environment=seen.environment, past=past)
        record.started(
            parts.state,
            world_size=comm.size,
            global_batch=parts.objective.global_batch,
            batch=config.data.batch_size,
            total_images=parts.total_images,
            resets=past.resets,
            lost_images=max(past.images_seen - parts.state.images_seen, 0),
        )
        if settings_changed:
            record.changed(parts.state, settings_changed)
        setting = environment.setting(
            config, machine, threads=threads, micro_batches=parts.micro_batches, images=parts.data.train.digest
        )
        baseline = speeds.find(config, comm, parts, activity, setting, before=past.baselines)
        meters = Meters(parts.clock, baseline, totals=past.totals)
        if meters.baseline:
            record.compared(parts.state, meters.baseline, images=parts.objective.global_batch // comm.size)
        agreement = Agreement(comm, process.request)
        committing = changes.kept.begin(comm, parts, belongs, changes.hosts) if changes else None
        was_over = parts.over
        try:
            result = course.to_the_end(
                config, parts, comm, meters, record, agreement=agreement, saving=saving, committing=committing
            )
            activity.phase = "the end"
            if was_over:  # somebody asks again, or the workers changed right after the last step
                if config.evaluation.at_end:
                    result = evaluate_and_record(parts, comm, record, agreement)
                save(saving, parts.state, comm)
        except Preempted as error:
            if committing and agreement.some_stay:
                course.let_go(error, agreement, comm, record, saving, committing)
            raise course.preempted(error, folder, agreement, parts, comm, record, saving) from None
        course.finish(saving, record, comm)
        if saving:
            seconds = time.perf_counter() - process.began
            record.ended(parts.state, seconds=seconds, images_per_second=meters.images_per_second)
            speeds.keep(config, meters, setting, workers=comm.size)
            addresses = seen.addresses
            print(
                summary(result, meters, seconds, folder, addresses, workers=comm.size, resets=past.resets), flush=True
            )
        parts.data.close()
    comm.close()


def _tune(config: Config, topology: Topology) -> Tuning:
    changing = config.elastic.enabled
    cpus = topology.on_one_node and not changing and not torch.cuda.is_available()
    tuning = tune(os.environ, config.distributed, on_cpus_of_one_node=cpus, elastic=changing)
    os.environ.update(tuning.environment)
    return tuning


@contextmanager
def _saving(config: Config, belongs: Manifest) -> Iterator[Saving]:
    with Writer(checkpoints.folder(config), keep=config.checkpoint.keep) as writer:
        yield Saving(writer, belongs)
