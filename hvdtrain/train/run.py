"""A run from its launch to its summary."""

import os
import platform
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import prometheus_client
import torch

from hvdtrain import __version__, log
from hvdtrain.checkpoint import store
from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.distributed import device as devices
from hvdtrain.distributed import ring
from hvdtrain.distributed.comm import Comm, HorovodComm, SoloComm
from hvdtrain.distributed.topology import Topology
from hvdtrain.distributed.tuning import Tuning, tune
from hvdtrain.errors import CheckpointError, ConfigError
from hvdtrain.files import write_whole
from hvdtrain.log import EventLog, logger
from hvdtrain.metrics import targets
from hvdtrain.metrics.exporter import Exporter
from hvdtrain.metrics.registry import Metrics
from hvdtrain.train.build import Machine, Parts, build
from hvdtrain.train.loop import Cadence, evaluate_and_record, train
from hvdtrain.train.progress import Display, duration
from hvdtrain.train.record import Record
from hvdtrain.train.state import TrainState

# Variables of these families decide how a run behaves, so environment.json keeps them.
_FAMILIES = ("HOROVOD_", "OMPI_MCA_", "NCCL_", "OMP_", "MKL_", "CUDA_", "SLURM_", "UCX_")


def run(config: Config, topology: Topology) -> None:
    """Train as `config` says and print the summary. Every worker calls this."""
    began = time.perf_counter()
    tuning = tune(
        os.environ,
        buckets=config.distributed.reducer == "buckets",
        bucket_mib=config.distributed.bucket_mib,
        ring=config.distributed.ring,
        yield_when_idle=config.distributed.yield_when_idle,
    )
    os.environ.update(tuning.environment)
    comm: Comm = HorovodComm(expected_size=topology.size) if topology.size > 1 else SoloComm()
    device = devices.select(comm.local_rank)
    cores = devices.share_of_cores(comm)
    threads = devices.use_threads(cores)

    folder = config.run_dir
    if comm.rank == 0:
        _claim(folder, config)
    comm.gather(None, "run directory")  # nobody writes before rank 0 has made the folder
    log.configure(comm.rank, log_dir=folder / "logs")
    for name, value in tuning.kept.items():
        logger.info("%s = %s comes from the environment and stays", name, value)

    parts = build(config, comm, Machine(device, cores, tuning.bucket_bytes))
    _resume(config, parts.state, comm)
    metrics = Metrics(prometheus_client.CollectorRegistry(), _run_info(config, comm, parts))
    exporter = Exporter(metrics.registry, address=config.metrics.address, port=config.metrics.port + comm.local_rank)
    endpoint = f"{targets.advertised_host(config.metrics.address)}:{exporter.port}"
    endpoints = comm.gather(endpoint, "metrics endpoints")
    environment = _environment(comm, device, threads, parts, tuning)
    workers = comm.gather(_worker(comm, device, threads, endpoint), "workers")
    record = Record(metrics, None, None, len(parts.data.train))
    if comm.rank == 0:
        targets.write(folder / "targets.json", config.run_name, endpoints)
        write_whole(folder / "environment.json", log.pretty_json({**environment, "workers": workers}))
        record.events = EventLog(folder / "events.jsonl")
        _announce(config, parts, comm, device, environment, endpoints[0], record.events)
        record.display = Display(
            total_images=parts.total_images,
            epochs=parts.total_images / len(parts.data.train),
            plain_every_seconds=config.run.console_seconds,
        )
    cadence = Cadence(config.run.report_every, config.evaluation.every_epochs, config.checkpoint.every_epochs)
    save = partial(_save, folder / "checkpoints", config.digest()) if comm.rank == 0 else None
    images_per_second = train(parts, comm, record, cadence, save)
    if record.display:
        record.display.close()
    result = evaluate_and_record(parts, comm, record)
    if record.events:
        seconds = time.perf_counter() - began
        record.events.write(
            "end",
            step=parts.state.step,
            images_seen=parts.state.images_seen,
            seconds=seconds,
            images_per_second=images_per_second,
        )
        print(
            f"\ntop-1        {100 * result.top1:.2f} % of {result.images} validation images"
            f"\nthroughput   {images_per_second:,.1f} images/s on {comm.size} worker{'s' * (comm.size > 1)}"
            f"\ntook         {duration(seconds)}"
            f"\nrun          {folder}"
            f"\nmetrics were at {', '.join(f'http://{e}/metrics' for e in endpoints[:4])}"
            f"{' …' if len(endpoints) > 4 else ''}",
            flush=True,
        )
    exporter.close()
    comm.close()


def _claim(folder: Path, config: Config) -> None:
    """Make the run directory, or go on in it."""
    if config.resume == "never" and (folder / "events.jsonl").exists():
        raise ConfigError(f"{folder} holds a run already", remedy="--resume auto to go on, or another --run.name")
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    write_whole(folder / "config.yaml", to_yaml(config))


def _resume(config: Config, state: TrainState, comm: Comm) -> None:
    """Rank 0 reads the checkpoint and hands its bytes round: one reader, and no doubt about what was read."""
    found = None
    if comm.rank == 0 and config.resume != "never":
        checkpoints = config.run_dir / "checkpoints"
        path = store.newest(checkpoints) if config.resume == "auto" else Path(config.resume)
        if path is not None:
            manifest, data = store.read(path)
            if manifest.config_digest != config.digest():
                raise CheckpointError(
                    f"{path} belongs to configuration {manifest.config_digest}, this one is {config.digest()}",
                    remedy=f"compare with {config.run_dir}/config.yaml",
                )
            logger.info("resuming from %s: step %d, %d images seen", path, manifest.step, manifest.images_seen)
            found = (manifest, data)
    received = comm.broadcast_object(found, "checkpoint")
    if received is not None:
        manifest, data = received
        device = next(state.model.parameters()).device
        state.load(store.tensors(data, device), images_seen=manifest.images_seen, step=manifest.step)


def _save(checkpoints: Path, config_digest: str, state: TrainState) -> Path:
    return store.save(
        checkpoints,
        state.tensors(),
        images_seen=state.images_seen,
        step=state.step,
        config_digest=config_digest,
    )


def _run_info(config: Config, comm: Comm, parts: Parts) -> dict[str, str]:
    return {
        "run": config.run_name,
        "model": config.model.name,
        "precision": config.precision,
        "world_size": str(comm.size),
        "global_batch_size": str(parts.global_batch),
        "version": __version__,
        "slurm_job_id": os.environ.get("SLURM_JOB_ID", ""),
    }


def _environment(comm: Comm, device: torch.device, threads: int, parts: Parts, tuning: Tuning) -> dict[str, Any]:
    """Everything about this machine and its software that decides how the run behaves. Collective."""
    return {
        "command": sys.argv,
        "hvdtrain": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "world_size": comm.size,
        "global_batch_size": parts.global_batch,
        "bucket_bytes": parts.buckets.sizes if parts.buckets else [],
        "allreduce_algorithm": ring.algorithm(comm, device),
        "set_by_user": tuning.kept,
        "variables": {k: v for k, v in sorted(os.environ.items()) if k.startswith(_FAMILIES)},
    }


def _worker(comm: Comm, device: torch.device, threads: int, endpoint: str) -> dict[str, Any]:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "rank": comm.rank,
        "host": platform.node(),
        "pid": os.getpid(),
        "device": str(device),
        "device_name": name,
        "threads": threads,
        "metrics": endpoint,
    }


def _announce(
    config: Config,
    parts: Parts,
    comm: Comm,
    device: torch.device,
    environment: dict[str, Any],
    endpoint: str,
    events: EventLog,
) -> None:
    """What a person should know before the first step: above all the global minibatch and the rate it implies."""
    data, state = parts.data, parts.state
    logger.info("run %s", config.run_dir)
    logger.info(
        "%s on %d worker%s (%s), %s; allreduce: %s",
        config.model.name,
        comm.size,
        "s" * (comm.size > 1),
        device.type,
        config.precision,
        environment["allreduce_algorithm"],
    )
    logger.info(
        "minibatch kn = %d x %d = %d images; peak learning rate %g; %d training and %d validation images, %d classes",
        comm.size,
        config.data.batch_size,
        parts.global_batch,
        config.optim.base_lr * parts.global_batch / config.optim.reference_batch,
        len(data.train),
        len(data.val),
        len(data.train.classes),
    )
    logger.info("metrics at http://%s/metrics, Prometheus targets in %s/targets.json", endpoint, config.run_dir)
    events.write(
        "resume" if state.images_seen else "start",
        step=state.step,
        images_seen=state.images_seen,
        world_size=comm.size,
        global_batch_size=parts.global_batch,
        images_per_epoch=len(data.train),
        total_images=parts.total_images,
    )
