"""Devices and links, each figure with its source: hardware.csv."""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from hvdtrain.errors import ConfigError
from hvdtrain.plan.models import network, networks

How = Literal["asked", "measured", "tabulated", "assumed"]
Row = Mapping[str, str]

NETWORKS = {"fdr": 56.0, "edr": 100.0, "hdr": 200.0, "ndr": 400.0}
"""Gbit/s of four lanes of InfiniBand, by the generation's name (InfiniBand Trade Association)."""
RDMA_FROM = 40.0
"""Gbit/s from which on a network is taken to be used with RDMA, where nobody says."""
ALIKE = {"bf16": ("fp16",), "fp16": ("bf16",)}
"""Precisions of the same width, which are about as fast as each other."""


@dataclass(frozen=True)
class Input:
    """Something that a prediction rests on, and where it is from."""

    name: str
    value: str
    how: How
    source: str = ""


@dataclass(frozen=True)
class Speed:
    """Of one device alone."""

    images_per_second: float
    how: How
    source: str
    spread: float  # by which factor it may be wrong, minus 1


@cache
def rows() -> tuple[Row, ...]:
    with (files("hvdtrain.plan") / "hardware.csv").open() as file:
        return tuple(csv.DictReader(file))


@cache
def within(link: str) -> float:
    """Nominal bytes/s of a worker's link within its node, in one direction."""
    return 1e9 * float(_row("within", link, "--within")["value"])


def host_link(gpu: str) -> str:
    """What joins GPUs of this kind within a node, where nobody says."""
    return _row("host", gpu, "--gpu")["value"]


def source(kind: str, name: str) -> tuple[How, str]:
    row = _row(kind, name, "--within")
    return ("tabulated" if row["how"] == "tabulated" else "assumed"), row["source"]


def gbit(text: str) -> float:
    """Of a node's links to the network, together.

    >>> gbit("50gbit"), gbit("8x200gbit"), gbit("EDR"), gbit("2xhdr"), gbit("25")
    (50.0, 1600.0, 100.0, 400.0, 25.0)
    """
    found = re.fullmatch(
        r"(?:(\d+)x)?(?:(\d+(?:\.\d+)?)(?:gbit/s|gbit|gbe|g)?|([a-z]+))", text.lower().replace(" ", "")
    )
    speed = float(found[2]) if found and found[2] else NETWORKS.get(found[3] if found else "")
    if not found or not speed:
        names = ", ".join(NETWORKS)
        raise ConfigError(f"--link {text}: not a speed; wanted such as 50gbit, 8x200gbit, or one of {names}")
    return speed * int(found[1] or 1)


def speed(gpu: str, model: str, precision: str, batch: int) -> Speed:
    """Images per second of one device: as tabulated, or as near as the table comes.

    Raises:
        ConfigError: nothing is known of this device at this precision.
    """
    host_link(gpu)
    network(model)
    of_gpu = [row for row in rows() if row["kind"] == "gpu" and row["name"] == gpu]
    for name in (precision, *ALIKE.get(precision, ())):
        known = sorted((row for row in of_gpu if row["precision"] == name), key=lambda row: int(row["batch"]))
        same = [row for row in known if row["model"] == model]
        found = _of_model(same, batch) if same else _scaled(known, model)
        if found:
            as_well = name == precision
            return (
                found
                if as_well
                else Speed(found.images_per_second, "assumed", f"as fast as {name}: {found.source}", 0.1)
            )
    there = ", ".join(dict.fromkeys(row["precision"] for row in of_gpu))
    raise ConfigError(
        f"--gpu {gpu} --precision {precision}: no published speed; there is one at {there}",
        remedy="measure one worker, and say --images-per-second-per-gpu",
    )


def _of_model(rows: list[Row], batch: int) -> Speed:
    exact = [row for row in rows if int(row["batch"]) == batch]
    if exact:
        return Speed(float(exact[0]["value"]), "tabulated", f"{exact[0]['source']}; batch {batch}", 0.03)
    near = min(rows, key=lambda row: abs(int(row["batch"]) - batch))
    between = [row for row in (rows[0], rows[-1]) if len(rows) > 1]
    if between and int(rows[0]["batch"]) < batch < int(rows[-1]["batch"]):
        first, last = ((int(row["batch"]), int(row["batch"]) / float(row["value"])) for row in between)
        seconds = first[1] + (last[1] - first[1]) * (batch - first[0]) / (last[0] - first[0])
        return Speed(batch / seconds, "assumed", f"between batch {first[0]} and {last[0]}: {near['source']}", 0.05)
    return Speed(float(near["value"]), "assumed", f"images/s as at batch {near['batch']}: {near['source']}", 0.15)


def _scaled(rows: list[Row], model: str) -> Speed | None:
    """By the multiply-adds of a network that was measured."""
    for row in rows:
        if row["model"] in networks():
            ratio = network(row["model"]).madds / network(model).madds
            by = f"by multiply-adds from {row['model']}: {row['source']}"
            return Speed(float(row["value"]) * ratio, "assumed", by, 0.3)
    return None


def _row(kind: str, name: str, option: str) -> Row:
    for row in rows():
        if row["kind"] == kind and row["name"] == name:
            return row
    known = ", ".join(row["name"] for row in rows() if row["kind"] == kind)
    raise ConfigError(f"{option} {name}: not known; wanted one of {known}")
