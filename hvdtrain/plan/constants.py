"""The few numbers that all predictions share, and how far they are from each published series when it is left out.

calibrate.py fits them; constants.csv has them: of all series, and of all but one for each series.
"""

import csv
from dataclasses import astuple, dataclass, fields
from functools import cache
from importlib.resources import files

from hvdtrain.plan.step import Overheads


@dataclass(frozen=True)
class Constants:
    rdma: float
    """Share of a network's nominal speed that a sum reaches with RDMA: RoCE, InfiniBand, Omni-Path."""
    tcp: float
    """Of what travels over sockets, the share that is not headers."""
    tcp_bytes: float
    """What a node's cores copy for its sockets, bytes/s: to each byte's time on the wire comes that of its copy, which
    RDMA does without."""
    nvlink: float
    """Share of NVLink's nominal speed, all links of a GPU together."""
    pcie: float
    """Share of PCI Express's nominal speed."""
    hop_seconds: float
    """Of one hop of a sum, whatever its size."""
    jitter: float
    """Standard deviation of a worker's computing from step to step, as a fraction of it."""
    negotiation_seconds: float
    """Of agreeing on a sum, for each doubling of the workers."""
    shared: float
    """How much slower computing is while a sum runs beside it."""

    def across(self, nominal: float, transport: str) -> float:
        """Effective bytes/s of a node's link to the network."""
        if transport != "tcp":
            return nominal * self.rdma
        wire = nominal * self.tcp
        return wire * self.tcp_bytes / (wire + self.tcp_bytes)

    def overheads(self) -> Overheads:
        return Overheads(self.jitter, self.negotiation_seconds, self.shared)

    def within(self, nominal: float, link: str) -> float:
        """Effective bytes/s of a worker's link within its node."""
        return nominal * (self.nvlink if link.startswith("nv") else self.pcie)


NAMES = tuple(field.name for field in fields(Constants))


@cache
def table() -> dict[str, Constants]:
    """By the series that was left out; `""`: none was."""
    with (files("hvdtrain.plan") / "constants.csv").open() as file:
        return {row["left_out"]: Constants(*(float(row[name]) for name in NAMES)) for row in csv.DictReader(file)}


def constants(left_out: str = "") -> Constants:
    return table()[left_out]


def lines(found: dict[str, Constants]) -> list[str]:
    """Of constants.csv."""
    rows = [",".join([name, *(f"{value:.6g}" for value in astuple(each))]) for name, each in found.items()]
    return [",".join(["left_out", *NAMES]), *rows]
