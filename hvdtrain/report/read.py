"""A run directory -> Run: whole or torn, alive or killed, of this version or an older one."""

import difflib
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvdtrain import outcome
from hvdtrain.config.load import from_file
from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError
from hvdtrain.events import Tail, records
from hvdtrain.metrics import targets
from hvdtrain.report.journal import Journal
from hvdtrain.report.records import Environment, Run, State, Worker
from hvdtrain.train import lock

VERSIONS = ("hvdtrain", "commit", "python", "torch", "cuda")


def read(folder: Path) -> Run:
    """
    Raises:
        ConfigError: `folder` is no run directory, or its run has not come to its first event.
    """
    tail, journal = open_events(folder), Journal()
    journal.add(records(tail.lines()))
    return run(folder, journal)


def open_events(folder: Path) -> Tail:
    """
    Raises:
        ConfigError: there is no events.jsonl; says what is there instead and what was perhaps meant.
    """
    file = folder / "events.jsonl"
    if file.is_file():
        return Tail(file)
    if not folder.exists():
        raise ConfigError(f"{folder}: no such run directory", remedy=_meant(folder))
    if not folder.is_dir():
        raise ConfigError(f"{folder}: expected a run directory, got a file", remedy=_meant(folder.parent / "?"))
    if (folder / "logs").is_dir():
        raise ConfigError(f"{folder}: the run has written no event yet", remedy=f"see {folder / 'logs'}")
    inside = _runs_in(folder)
    if inside:
        raise ConfigError(f"{folder} holds {len(inside)} runs, is none itself", remedy=f"name one: {inside[0]}")
    raise ConfigError(f"{folder}: expected a run directory, found no events.jsonl", remedy=_meant(folder))


def _meant(folder: Path) -> str:
    """The run beside `folder`, or below runs/, that has the nearest name, or the newest."""
    beside = {path.name: path for path in _runs_in(folder.parent) or _runs_in(Path("runs"))}
    near = difflib.get_close_matches(folder.name, beside, n=1) or list(beside)[:1]
    return f"perhaps {beside[near[0]]}" if near else "hvdtrain train makes one, in --run.dir"


def _runs_in(folder: Path) -> list[Path]:
    """Newest first."""
    if not folder.is_dir():
        return []
    return [
        file.parent
        for file in sorted(folder.glob("*/events.jsonl"), key=lambda file: file.stat().st_mtime, reverse=True)
    ]


def run(folder: Path, journal: Journal) -> Run:
    """What the journal and the other files say at this moment.

    Raises:
        ConfigError: the journal has no start.
    """
    if not journal.starts:
        torn = f" and {journal.unreadable} torn lines" if journal.unreadable else ""
        raise ConfigError(f"{folder}/events.jsonl: expected a start, found none{torn}", remedy=f"see {folder / 'logs'}")
    config = _config(folder / "config.yaml")
    state, heard = _state(folder, journal, config)
    return Run(
        folder=folder,
        state=state,
        heard=heard,
        config=config,
        environment=_environment(folder / "environment.json"),
        starts=tuple(journal.starts),
        baselines=dict(journal.baselines),
        windows=tuple(journal.windows),
        evaluations=tuple(journal.evaluations),
        checkpoints=tuple(journal.checkpoints),
        quarantined=tuple(journal.quarantined),
        end=journal.end,
        unreadable=journal.unreadable,
    )


def _state(folder: Path, journal: Journal, config: Config | None) -> tuple[State, float]:
    """Ended as its events say; else alive while it touches its targets file or, where that cannot be written, its lock;
    and between two sets of workers for as long as these wait for each other."""
    if journal.end:
        return State.FINISHED, journal.end.time
    if journal.preempted_at is not None:
        return State.PREEMPTED, journal.preempted_at
    beating = [targets.file(folder.resolve()), folder / lock.NAME]
    told = [*beating, folder / "events.jsonl"]
    heard = max(map(_touched, told))
    if targets.alive(*beating):
        return State.RUNNING, heard
    expected = config.elastic.wait_seconds if config and config.elastic.enabled else 0.0
    if expected and outcome.read(folder) is None and targets.age(told) <= expected:
        return State.CHANGING, heard
    return State.KILLED, heard


def _touched(file: Path) -> float:
    """When; long ago where it is gone, as at any moment it may be."""
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0


def _config(file: Path) -> Config | None:
    """None where it is missing, torn or of a version that had other settings."""
    try:
        return from_file(file)
    except ConfigError:
        return None


def _environment(file: Path) -> Environment:
    values = read_json(file)
    workers = values.get("workers")
    sizes = values.get("bucket_bytes")
    variables = values.get("variables")
    command = values.get("command")
    preflight = values.get("preflight")
    return Environment(
        workers=tuple(_worker(rank, each) for rank, each in enumerate(workers if isinstance(workers, list) else ())),
        bucket_bytes=tuple(size for size in sizes if isinstance(size, int)) if isinstance(sizes, list) else (),
        variables={str(k): str(v) for k, v in variables.items()} if isinstance(variables, Mapping) else {},
        algorithm=str(values.get("allreduce_algorithm") or ""),
        command=" ".join(map(str, command)) if isinstance(command, list) else "",
        bus_bytes_per_second=_bus(preflight) if isinstance(preflight, Mapping) else None,
        versions={name: str(values[name]) for name in VERSIONS if values.get(name)},
    )


def _bus(preflight: Mapping[str, Any]) -> float | None:
    speed = preflight.get("bus_gigabytes_per_second")
    return 1e9 * speed if isinstance(speed, int | float) and 0 < speed < math.inf else None


def _worker(rank: int, value: Any) -> Worker:
    told = value if isinstance(value, Mapping) else {}
    threads = told.get("threads")
    return Worker(
        rank=rank,
        host=str(told.get("host") or ""),
        device=str(told.get("device") or ""),
        device_name=str(told.get("device_name") or told.get("device") or ""),
        threads=threads if isinstance(threads, int) else None,
    )


def read_json(file: Path) -> Mapping[str, Any]:
    """The object in a file; empty where it is missing, torn or something else."""
    try:
        value = json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}
