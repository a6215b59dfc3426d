"""Fields of records and of other JSON from files, whatever is in them."""

import math
from collections.abc import Mapping
from typing import Any

from hvdtrain.events import Record

LARGEST = 1e100  # a number beyond is a damaged one, and its square would be infinite


def number(record: Record, key: str) -> float:
    """A field as a float; NaN where it is missing, null, no number or beyond all that a run writes."""
    return _float(record.get(key))


def count(record: Record, key: str, otherwise: int = 0) -> int:
    """A field as a whole number of 64 bits: others no run has written."""
    value = number(record, key)
    return int(value) if abs(value) < 2**63 else otherwise


def text(record: Record, key: str) -> str:
    value = record.get(key)
    return value if isinstance(value, str) else ""


def numbers(record: Record, key: str) -> dict[str, float]:
    """A field that maps names to numbers; what it has of them."""
    value = record.get(key)
    return {str(name): number(value, name) for name in value} if isinstance(value, Mapping) else {}


def series(value: Any) -> tuple[float, ...]:
    """A list of numbers; what is none is NaN."""
    return tuple(map(_float, value)) if isinstance(value, list) else ()


def _float(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return math.nan
    return float(value) if abs(value) < LARGEST else math.nan
