"""The same answers for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hvdtrain.plan import residuals
from hvdtrain.plan.capacity import Deadline, Prediction
from hvdtrain.plan.constants import constants
from hvdtrain.plan.series import everything
from hvdtrain.plan.setting import Ask, Setting


def answer(ask: Ask, setting: Setting, found: Sequence[Prediction], deadline: Deadline | None = None) -> dict[str, Any]:
    result: dict[str, Any] = {
        "kind": "plan",
        "asked": {key: value for key, value in asdict(ask).items() if key != "fit"},
        "inputs": [asdict(each) for each in setting.inputs],
        "predictions": [prediction(each) for each in found],
    }
    if ask.fit:
        result["fit"] = ask.fit.as_dict()
    if deadline:
        meets = prediction(deadline.meets) if deadline.meets else None
        result["deadline"] = {"hours": deadline.hours, "meets": meets, "fastest": prediction(deadline.fastest)}
        result["deadline"]["why"] = deadline.why
    return result


def prediction(found: Prediction) -> dict[str, Any]:
    """Times in seconds, but `hours`; ratios between 0 and 1."""
    parts = {"compute": found.step.compute, "communication": found.step.communication}
    parts |= {"straggler": found.step.straggler, "input": found.step.input}
    return {
        "workers": found.workers,
        "batch": found.batch,
        "micro_batches": found.micro_batches,
        "minibatch": found.minibatch,
        "images_per_second": found.images_per_second,
        "step_seconds": found.step.seconds,
        "parts_seconds": parts,
        "sums_seconds": found.step.busy,
        "efficiency_weak": found.weak,
        "efficiency_strong": found.weak if found.strong is None else found.strong,
        "efficiency_low": found.low,
        "efficiency_high": found.high,
        "hours": found.hours,
        "cost": found.cost,
        "limit": found.limit,
    }


def validation() -> dict[str, Any]:
    errors = residuals.of_series()
    return {
        "kind": "plan-validation",
        "mean_error": residuals.mean(),
        "above_tenth": [name for name, error in errors.items() if error > 0.1],
        "constants": asdict(constants()),
        "series": [
            {
                "series": each.name,
                "kind": each.kind,
                "used": each.used,
                "reason": each.reason,
                "source": each.source,
                "error": errors.get(each.name),
                "points": [
                    {"workers": row.workers, "measured": row.measured, "predicted": row.predicted}
                    for row in residuals.rows()
                    if row.series.name == each.name
                ],
            }
            for each in everything()
        ],
    }
