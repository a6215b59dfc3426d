"""Speeds that were measured before, kept to compare later runs with.

A folder with one JSON file for each setting, number of workers and size of pictures; the newest measurement replaces
the one before. A setting is what decides how long a step takes: model, batch, images, precision, device, versions.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

from hvdtrain.files import write_whole
from hvdtrain.metrics.breakdown import PARTS
from hvdtrain.metrics.efficiency import Baseline


def save(folder: Path, setting: Mapping[str, Any], baseline: Baseline) -> Path:
    """Keep `baseline` for later runs of `setting`; returns its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, setting, baseline.workers, baseline.pixels)
    kept = replace(baseline, source="stored", ranks=None, together=None, communication=None)
    write_whole(path, json.dumps({"setting": dict(setting), **kept.as_dict()}, indent=2) + "\n")
    return path


def load(folder: Path, setting: Mapping[str, Any], *, workers: int, pixels: int) -> Baseline | None:
    """The newest speed of `workers` workers under exactly `setting`, with pictures of `pixels` a side; None where there
    is none that can be read."""
    try:
        record = json.loads(_path(folder, setting, workers, pixels).read_text())
        same = record["setting"] == dict(setting)
        found = Baseline(**{field.name: record[field.name] for field in fields(Baseline)})
        whole = abs(sum(found.parts[part] for part in PARTS) - found.step_seconds) < 1e-6 < found.step_seconds
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return None
    return found if same and whole and _sound(found) else None


def _sound(found: Baseline) -> bool:
    """Whether each field is of its kind: the sum alone does not tell of those that are not in it."""
    counts = found.workers, found.pixels, found.samples
    numbers = found.measured_at, found.step_seconds, found.standard_error, *found.parts.values()
    optional = found.together, found.communication, *(found.ranks if isinstance(found.ranks, list) else [])
    return (
        found.source == "stored"
        and isinstance(found.origin, str)
        and (found.ranks is None or isinstance(found.ranks, list))
        and all(type(count) is int and 0 < count < 2**63 for count in counts)
        and all(map(_is_number, numbers))
        and all(number is None or _is_number(number) for number in optional)
    )


def _is_number(value: object) -> bool:
    """NaN is one: the error of a single sample."""
    return isinstance(value, float) or (type(value) is int and abs(value) < 2**63)


def _path(folder: Path, setting: Mapping[str, Any], workers: int, pixels: int) -> Path:
    digest = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{digest}-{workers}-{pixels}.json"
