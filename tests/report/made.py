"""Run directories as a run writes them, of invented but likely numbers: steps are drawn, and taken apart by the code
that a real run uses."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.metrics import targets
from hvdtrain.metrics.breakdown import Breakdown, breakdown
from hvdtrain.metrics.efficiency import Baseline, weak

BEGAN = 1_795_245_120.0  # 2026-11-21 07:12 UTC
MIB = 2**20
LIVE_WINDOWS = 10
DEFAULTS = Config()


@dataclass(frozen=True)
class Fault:
    """What happens to one rank, or to the link, in every step from window `since` on."""

    kind: Literal["input", "straggler", "communication"]
    seconds: float
    rank: int = 0
    since: int = 0


@dataclass(frozen=True)
class Made:
    """A run to be written. Times are seconds per step."""

    workers: int = 2
    windows: int = 30
    steps: int = 20
    compute: float = 0.100
    input_wait: float = 0.0005
    jitter: float = 0.002
    contention: float = 0.004
    together: float = 0.003  # of the contention, without any communication
    exposed: float = 0.006
    summed_alone: float = 0.031
    rest: float = 0.0007
    faults: tuple[Fault, ...] = ()
    baseline: Literal["measured", "stored"] | None = "measured"
    ends: bool = True
    epochs: int = 3
    evaluation_seconds: float = 2.0
    checkpoint_seconds: float = 0.4  # that training stands still
    background_seconds: float = 0.0  # until it is durable, meanwhile
    quarantined: int = 0
    hosts_of: int = 8
    config: Config = DEFAULTS
    began: float = BEGAN
    seed: int = 0

    @property
    def kn(self) -> int:
        return self.workers * self.config.data.batch_size

    @property
    def images_per_epoch(self) -> int:
        return self.windows * self.steps * self.kn // self.epochs

    def with_fault(self, kind: Literal["input", "straggler", "communication"], seconds: float, rank: int = 0) -> "Made":
        return replace(self, faults=(*self.faults, Fault(kind, seconds, rank)))


def write(folder: Path, made: Made) -> Path:
    """The whole directory."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    (folder / "config.yaml").write_text(to_yaml(made.config))
    (folder / "environment.json").write_text(json.dumps(environment(made)))
    events = records(made)
    (folder / "events.jsonl").write_text("".join(json.dumps(event) + "\n" for event in events))
    if not made.ends:
        touch(folder, events[-1]["time"])
    return folder


def touch(folder: Path, moment: float) -> None:
    """As a run that last lived at that moment."""
    there = targets.file(folder)
    there.parent.mkdir(exist_ok=True)
    there.write_text("[]")
    for path in (there, folder / "events.jsonl"):
        os.utime(path, (moment, moment))


def environment(made: Made) -> dict[str, Any]:
    cuda = made.workers > 2
    workers = [
        {
            "rank": rank,
            "host": f"node{rank // made.hosts_of:03d}",
            "pid": 4000 + rank,
            "device": f"cuda:{rank % made.hosts_of}" if cuda else "cpu",
            "device_name": "NVIDIA H100 80GB HBM3" if cuda else "AMD EPYC 9124 16-Core Processor",
            "threads": 4,
            "metrics": f"node{rank // made.hosts_of:03d}:{9470 + rank % made.hosts_of}",
        }
        for rank in range(made.workers)
    ]
    return {
        "command": ["/opt/bin/hvdtrain", "train", "--config", "goyal_r50_8k"],
        "hvdtrain": "0.1.0",
        "commit": "741e248",
        "python": "3.11.7",
        "torch": "2.9.0",
        "cuda": "13.0" if cuda else None,
        "world_size": made.workers,
        "bucket_bytes": [25 * MIB, 25 * MIB, 25 * MIB, 22 * MIB, 1 * MIB] if made.workers > 1 else [],
        "allreduce_algorithm": "ring",
        "set_by_user": {},
        "variables": {"HOROVOD_FUSION_THRESHOLD": "0", "OMP_NUM_THREADS": "4"},
        "workers": workers,
    }


def records(made: Made) -> list[dict[str, Any]]:
    draw = np.random.default_rng(made.seed)
    clock, step, images = made.began, 0, 0
    told: list[dict[str, Any]] = []

    def tell(event: str, **fields: Any) -> None:
        told.append({"time": round(clock, 3), "event": event, "step": step, "images_seen": images, **fields})

    total = made.windows * made.steps * made.kn
    tell(
        "start",
        world_size=made.workers,
        global_batch_size=made.kn,
        batch_size=made.config.data.batch_size,
        images_per_epoch=made.images_per_epoch,
        total_images=total,
    )
    baseline = reference(made, draw)
    if baseline:
        clock += 9.0 if baseline.source == "measured" else 0.0
        tell("baseline", **baseline.as_dict())
    seen: list[Breakdown] = []
    for window in range(made.windows):
        spent = breakdown(table(made, window, draw))
        seen.append(spent)
        seconds = float(spent.step_seconds.mean())
        clock += made.steps * seconds
        step, images = step + made.steps, images + made.steps * made.kn
        epoch = images / made.images_per_epoch
        efficiency = weak(seen[-LIVE_WINDOWS:], baseline).as_dict() if baseline else None
        tell(
            "report",
            epoch=epoch,
            lr=rate(epoch, made.epochs),
            loss=loss(epoch, made.epochs) + 0.02 * draw.standard_normal(),
            images_per_second=made.kn / seconds,
            steps=made.steps,
            step_seconds=seconds,
            parts=spent.parts,
            ranks={
                "lag": spent.lag.round(6).tolist(),
                "input": spent.workers["input"].round(6).tolist(),
                "compute": spent.workers["compute"].round(6).tolist(),
            },
            slowest_rank=spent.slowest,
            efficiency=finite(efficiency),
        )
        if window < made.quarantined:
            tell("quarantine", part="train", image=f"n01440764/broken_{window}.JPEG", reason="truncated")
        if (window + 1) * made.epochs % made.windows < made.epochs:
            clock += made.evaluation_seconds
            top1 = 0.76 * (1 - 0.8 ** (epoch + 1))
            evaluated = {"top1": top1, "top5": min(1.2 * top1, 1.0), "loss": loss(epoch, made.epochs) + 0.3}
            tell("evaluate", epoch=epoch, **evaluated, images=50_000, seconds=made.evaluation_seconds)
            clock += made.checkpoint_seconds
            tell(
                "checkpoint",
                path=f"runs/made/checkpoints/images-{images:012d}",
                stalled_seconds=made.checkpoint_seconds,
                seconds=made.checkpoint_seconds + made.background_seconds,
            )
            told[-1]["time"] += made.background_seconds
    if made.ends:
        tell("end", seconds=clock - made.began + 12.5, images_per_second=made.kn / seconds)
    return told


def reference(made: Made, draw: np.random.Generator) -> Baseline | None:
    """What one worker did alone."""
    if made.baseline is None:
        return None
    alone = made.compute + made.input_wait + made.rest
    measured = made.baseline == "measured"
    parts = {"input": made.input_wait, "compute": made.compute, "straggler": 0.0, "communication": 0.0}
    return Baseline(
        source=made.baseline,
        workers=1,
        pixels=224,
        measured_at=made.began + 9 if measured else made.began - 86400,
        origin="one worker alone, before this run's first step" if measured else "hvdtrain bench scaling",
        step_seconds=alone,
        standard_error=0.0004,
        samples=20,
        parts={**parts, "rest": made.rest},
        ranks=[alone + 0.0003 * float(x) for x in draw.standard_normal(made.workers)] if measured else None,
        together=made.compute + made.together if measured else None,
        communication=made.summed_alone if measured and made.workers > 1 else None,
    )


def table(made: Made, window: int, draw: np.random.Generator) -> NDArray[np.float64]:
    """(workers, steps, 4) what the clocks of all workers say of a window's steps."""
    shape = made.workers, made.steps
    waited = made.input_wait * (1 + 0.2 * draw.random(shape))
    computed = made.compute + (made.contention if made.workers > 1 else 0.0)
    computed = computed + made.jitter * np.abs(draw.standard_normal(shape)) * draw.random((made.workers, 1))
    summed = made.exposed * (1 + 0.1 * draw.random(made.steps)) if made.workers > 1 else np.zeros(made.steps)
    for fault in made.faults:
        if window >= fault.since:
            if fault.kind == "input":
                waited[fault.rank] += fault.seconds
            elif fault.kind == "straggler":
                computed[fault.rank] += fault.seconds
            else:
                summed += fault.seconds
    ready = waited + computed + made.rest
    total = np.broadcast_to(ready.max(0) + summed, shape)
    return np.stack([waited, computed, ready, total], axis=-1)


def rate(epoch: float, epochs: int) -> float:
    return 0.1 * 0.1 ** int(3 * epoch / epochs)


def loss(epoch: float, epochs: int) -> float:
    return 1.2 + 5.7 * float(np.exp(-4 * epoch / epochs)) - 0.3 * int(3 * epoch / epochs)


def finite(value: Any) -> Any:
    """As events.jsonl has it: what is not finite is null."""
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    return None if isinstance(value, float) and not np.isfinite(value) else value
