"""Devices and links, each figure with its source: hardware.csv."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from hvdtrain.errors import ConfigError

How = Literal["asked", "measured", "tabulated", "assumed"]
Row = Mapping[str, str]

NETWORKS = {"fdr": 56.0, "edr": 100.0, "hdr": 200.0, "ndr": 400.0}
"""Gbit/s of four lanes of InfiniBand, by the generation's name (InfiniBand Trade Association)."""
MOST_GBIT = 1e6  # more than any node has
RDMA_FROM = 40.0
"""Gbit/s from which on a network is taken to be used with RDMA, where nobody says."""


@dataclass(frozen=True)
class Input:
    """Something that a prediction rests on, and where it is from."""

    name: str
    value: str
    how: How
    source: str = ""


@cache
def rows() -> tuple[Row, ...]:
    with (files("hvdtrain.plan") / "hardware.csv").open() as file:
        return tuple(csv.DictReader(file))


@cache
def within(link: str) -> float:
    """Nominal bytes/s of a worker's link within its node, in one direction.

    Raises:
        ConfigError: the link is not in the table.
    """
    return 1e9 * float(_row("within", link, "--within")["value"])


def host_link(gpu: str) -> str:
    """What joins GPUs of this kind within a node, where nobody says.

    Raises:
        ConfigError: the GPU is not in the table.
    """
    return _row("host", gpu, "--gpu")["value"]


def source(kind: str, name: str) -> tuple[How, str]:
    """How a row of the table came about, and where it is from."""
    row = _row(kind, name, "--within")
    return ("tabulated" if row["how"] == "tabulated" else "assumed"), row["source"]


def gbit(text: str) -> float:
    """Gbit/s of a node's links to the network, together.

    Raises:
        ConfigError: it is no speed, and no network that has one.

    >>> gbit("50gbit"), gbit("8x200gbit"), gbit("EDR"), gbit("2xhdr"), gbit("25"), gbit("100Gb/s")
    (50.0, 1600.0, 100.0, 400.0, 25.0, 100.0)
    """
    found = re.fullmatch(
        r"(?:(\d+)x)?(?:(\d+(?:\.\d+)?)(?:[Gg]b(?:/s|ps)|(?i:gbit/s|gbit|gbe|g)?)|([A-Za-z]+))", text.replace(" ", "")
    )
    speed = 0.0
    if found:
        speed = (float(found[2]) if found[2] else NETWORKS.get(found[3].lower(), 0.0)) * int(found[1] or 1)
    if not 0 < speed <= MOST_GBIT:
        names = ", ".join(NETWORKS)
        wanted = f"a speed above 0 such as 50gbit, 100Gb/s or 8x200gbit (bits, not bytes), or one of {names}"
        raise ConfigError(f"--link {text}: not a speed; wanted {wanted}")
    return speed


def _row(kind: str, name: str, option: str) -> Row:
    for row in rows():
        if row["kind"] == kind and row["name"] == name:
            return row
    known = ", ".join(row["name"] for row in rows() if row["kind"] == kind)
    raise ConfigError(f"{option} {name}: not known; wanted one of {known}")
