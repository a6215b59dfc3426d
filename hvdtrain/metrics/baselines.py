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
        found = Baseline(**{field.name: record[field.name] for field in fields(Baseline)})
        whole = abs(sum(found.parts[part] for part in PARTS) - found.step_seconds) < 1e-6 < found.step_seconds
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return found if whole and record["setting"] == dict(setting) else None


def _path(folder: Path, setting: Mapping[str, Any], workers: int, pixels: int) -> Path:
    digest = hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:16]
    return folder / f"{digest}-{workers}-{pixels}.json"
