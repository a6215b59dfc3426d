"""What a reproduction leaves for others to judge: results.json, with what was measured, by what code, where."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime, timezone
from typing import Any

from hvdtrain.config.schema import Config
from hvdtrain.provenance import hardware
from hvdtrain.reproduce.cells import SOURCE, Plan, Row
from hvdtrain.reproduce.results import Errors, difference, spread
from hvdtrain.reproduce.text import RULES


def record(plan: Plan, errors: Errors, config: Config, code: Sequence[str]) -> dict[str, Any]:
    """results.json: enough to judge the figures and to make them again.

    Args:
        config: of the baseline.
        code: the commits or versions that the runs were made with.
    """
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["hvdtrain", *sys.argv[1:]]),
        "code": list(code),
        "hardware": hardware(),
        "settings": config.model_dump(mode="json", exclude={"run": {"dir", "name"}, "seed": True, "metrics": True}),
        "rules": RULES.splitlines(),
        "cells": {
            cell.name: {
                "kn": cell.kn,
                "ranks": cell.ranks,
                "options": [*plan.options, *cell.options],
                "errors": {str(seed): error for seed, error in errors[cell.name].items()},
                "error": asdict(spread(list(errors[cell.name].values()))),
                "difference_to_baseline": asdict(difference(errors, cell, plan.baseline)),
            }
            for cell in plan.cells
        },
        "tables": [_row(row) for row in plan.table],
        "sweep": [_row(row) for row in plan.sweep],
        "paper": SOURCE,
    }


def _row(row: Row) -> dict[str, Any]:
    return {"label": row.label, "cell": row.cell.name, "paper": asdict(row.paper) if row.paper else None}
