"""Fields of records and of other JSON from files, whatever is in them."""

import math
from collections.abc import Mapping
from typing import Any

from hvdtrain.events import Record


def number(record: Record, key: str) -> float:
    """A field as a float; NaN where it is missing, null or no number."""
    return _float(record.get(key))


def count(record: Record, key: str, otherwise: int = 0) -> int:
    value = number(record, key)
    return int(value) if math.isfinite(value) else otherwise


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
    try:
        return float(value)
    except OverflowError:  # an integer that no run has written
        return math.nan
