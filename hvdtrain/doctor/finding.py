"""A line of the table."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

GIB = 2**30
MIB = 2**20
SET_UP = "make setup"
SET_UP_ANEW = "make clean setup"

Facts = Mapping[str, Any]  # what a probe found, or {"error": one line}


@dataclass(frozen=True)
class Finding:
    name: str
    value: str
    ok: bool | None = True  # None: a run does without it
    remedy: str = ""
