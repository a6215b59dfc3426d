"""Published measurements of how training scales: what was measured, on what, and which of it counts.

series.csv and published.csv were written, with every exclusion and its reason, before there was anything to compare
with them. They are not to be changed to suit a prediction.
"""

import csv
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from hvdtrain.plan.step import MIB, Fusion

# What the sources ran with. Horovod's defaults were 64 MiB and 5 ms before 0.21, 128 MiB and 1 ms since (CHANGELOG.md);
# NVIDIA's code of MLPerf sums all gradients as one group, at a cycle of 0.1 ms; torch's DDP has buckets of 25 MiB.
# Where a source does not say: as DDP.
FUSIONS = {
    "horovod64": Fusion("timed", 64 * MIB, 0.005),
    "horovod128": Fusion("timed", 128 * MIB, 0.001),
    "mlperf64": Fusion("buckets", math.inf, 0.0001),
    "ddp": Fusion("buckets", 25 * MIB, 0.0),
    "caffe2": Fusion("tensor", 0, 0.0),
    "tensor": Fusion("tensor", 0, 0.0),
    "": Fusion("buckets", 25 * MIB, 0.0),
}


@dataclass(frozen=True)
class Measured:
    """One point: throughput, efficiency or both, as the source has it."""

    workers: int
    images_per_second: float | None  # of all workers
    efficiency: float | None  # up to 1, against the series' first point
    how: str  # read, derived, …


@dataclass(frozen=True)
class Series:
    """How one system scaled, the fewest workers first."""

    name: str
    kind: str  # weak, strong
    reason: str  # why it does not count; empty where it does
    source: str
    model: str
    gpu: str
    per_node: int
    network: str
    nic_gbit: float  # of a node; 0 within one
    transport: str  # rdma, tcp, none
    intra: str  # a link of hardware.csv
    batch: int  # of each worker; 0 where it is not known, or not constant
    precision: str
    wire_bytes: int
    algorithm: str
    overlap: bool
    fusion: str  # of FUSIONS
    points: Sequence[Measured]

    @property
    def used(self) -> bool:
        return not self.reason

    @property
    def base(self) -> Measured:
        """The smallest point, which calibrates."""
        return self.points[0]

    def efficiency(self, point: Measured) -> float:
        """E(k | b), b the smallest number of workers."""
        if point is self.base:
            return 1.0
        if point.efficiency is not None:
            return point.efficiency
        assert point.images_per_second and self.base.images_per_second, f"{self.name} is listed as used"
        return point.images_per_second / self.base.images_per_second * self.base.workers / point.workers


@cache
def everything() -> tuple[Series, ...]:
    folder = files("hvdtrain.plan")
    with (folder / "published.csv").open() as file:
        points = list(csv.DictReader(file))
    with (folder / "series.csv").open() as file:
        return tuple(
            _series(row, (each for each in points if each["series"] == row["series"])) for row in csv.DictReader(file)
        )


def used() -> tuple[Series, ...]:
    return tuple(each for each in everything() if each.used)


def _series(row: dict[str, str], points: Iterable[dict[str, str]]) -> Series:
    return Series(
        name=row["series"],
        kind=row["kind"],
        reason=row["reason"],
        source=row["source"],
        model=row["model"],
        gpu=row["gpu"],
        per_node=int(row["gpus_per_node"] or 0),
        network=row["network"],
        nic_gbit=float(row["nic_gbit"] or 0),
        transport=row["transport"],
        intra=row["intra"],
        batch=int(row["batch"] or 0),
        precision=row["precision"],
        wire_bytes=int(row["wire_bytes"] or 4),
        algorithm=row["algorithm"],
        overlap=row["overlap"] != "no",
        fusion=row["fusion"],
        points=[
            Measured(
                int(each["gpus"]),
                float(each["images_per_s"]) if each["images_per_s"] else None,
                float(each["efficiency"]) if each["efficiency"] else None,
                each["how"],
            )
            for each in points
        ],
    )
