"""What lets others watch a run: metrics over HTTP, the file by which Prometheus finds them, events, the display."""

import platform
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.preflight import Sum
from hvdtrain.distributed.tuning import Tuning
from hvdtrain.events import EventLog, Tail, records
from hvdtrain.files import pretty_json
from hvdtrain.metrics import targets
from hvdtrain.metrics.exporter import Exporter
from hvdtrain.metrics.health import health
from hvdtrain.metrics.heartbeat import Heartbeat
from hvdtrain.metrics.registry import Metrics
from hvdtrain.metrics.tensorboard import Board
from hvdtrain.metrics.tls import Tls
from hvdtrain.provenance import revision
from hvdtrain.train import folder
from hvdtrain.train.build import Parts
from hvdtrain.train.data import Machine
from hvdtrain.train.environment import describe, device_name, run_info
from hvdtrain.train.progress import Display
from hvdtrain.train.record import Record, Traffic
from hvdtrain.train.trace import Trace


@dataclass(frozen=True)
class Watched:
    record: Record
    environment: dict[str, Any]  # as in environment.json
    addresses: list[str]  # of the metrics, by rank


@contextmanager
def watched(
    config: Config,
    comm: Comm,
    parts: Parts,
    machine: Machine,
    activity: Activity,
    *,
    threads: int,
    tuning: Tuning,
    measured: Sum | None,
) -> Iterator[Watched]:
    """Within, the run is there for all to see. Collective.

    Args:
        threads: CPU threads that this worker computes with.
        measured: how fast a sum was before the run.
    """
    commit = comm.broadcast_object(revision() if comm.rank == 0 else "", "revision")
    metrics = Metrics(
        rank=comm.rank,
        run_info=run_info(config, world_size=comm.size, global_batch=parts.objective.global_batch, commit=commit),
        worker_info={
            "host": platform.node(),
            "device": str(machine.device),
            "device_name": device_name(machine.device),
        },
    )
    record = Record(metrics, activity, comm.rank, len(parts.data.train), Traffic.of(parts.reducer.sizes, comm.size))
    with ExitStack() as until_the_end:
        exporter = until_the_end.enter_context(_exporter(config, comm, metrics, activity))
        environment = describe(
            comm,
            machine.device,
            threads=threads,
            tuning=tuning,
            bucket_bytes=parts.reducer.sizes,
            endpoint=f"{targets.advertised_host(config.metrics.address)}:{exporter.port}",
            commit=commit,
        )
        environment["preflight"] = measured.as_json() if measured else None
        environment["images"] = {part: source.index.digest for part, source in parts.data.sources.items()}
        environment["classes"] = list(parts.data.train.classes)
        endpoints = [worker["metrics"] for worker in environment["workers"]]
        if config.run.trace_images:
            record.trace = Trace(config.run_dir / "images", comm.rank, parts.data.train)
        if metrics.run:
            metrics.run.world_size.set(comm.size)
            metrics.run.elastic_wait.set(config.elastic.wait_seconds if config.elastic.enabled else 0)
            metrics.run.epochs.set(parts.total_images / len(parts.data.train))
            metrics.run.buckets.set(len(parts.reducer.sizes))
            metrics.run.largest_bucket.set(max(parts.reducer.sizes, default=0))
            folder.write(config.run_dir / "config.yaml", to_yaml(config))
            folder.write(config.run_dir / "environment.json", pretty_json(environment))
            text = targets.text(config.run_name, endpoints, exporter.scheme)
            until_the_end.enter_context(Heartbeat(targets.file(config.run_dir), text))
            record.events = EventLog(config.run_dir / "events.jsonl")
            if config.run.tensorboard:
                record.board = Board(config.run_dir / "tensorboard", step=parts.state.step)
            record.launches = _launches(config.run_dir / "events.jsonl")
            record.display = until_the_end.enter_context(
                Display(
                    total_images=parts.total_images,
                    epochs=parts.total_images / len(parts.data.train),
                    plain_every_seconds=config.run.console_seconds,
                )
            )
        until_the_end.callback(record.close)
        yield Watched(record, environment, [f"{exporter.scheme}://{endpoint}/metrics" for endpoint in endpoints])


def _exporter(config: Config, comm: Comm, metrics: Metrics, activity: Activity) -> Exporter:
    chosen = config.metrics
    return Exporter(
        metrics.registry,
        partial(health, activity, chosen.stuck_seconds),
        address=chosen.address,
        port=chosen.port + comm.local_rank,
        tls=Tls.of(chosen.tls_certificate, chosen.tls_key, chosen.client_ca),
    )


def _launches(events: Path) -> int:
    """How often the run was started so far; that workers change while it goes on is no start."""
    before = records(Tail(events).lines(), last_reports=0)
    begun = [record for record in before if record and record["event"] in ("start", "resume")]
    return sum(not record.get("resets") for record in begun)
