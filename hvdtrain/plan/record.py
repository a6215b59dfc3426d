"""The same answers for machines."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from hvdtrain.plan import residuals
from hvdtrain.plan.ask import Ask
from hvdtrain.plan.capacity import Deadline, Prediction
from hvdtrain.plan.constants import constants
from hvdtrain.plan.goals import LARGEST_ERROR
from hvdtrain.plan.series import everything
from hvdtrain.plan.setting import Setting


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
        result["deadline"]["surely"] = deadline.surely
        result["deadline"]["why"] = deadline.why
    return result


def prediction(found: Prediction) -> dict[str, Any]:
    """Times in seconds, but `hours`; ratios between 0 and 1; `_low` and `_high` are the ends of 80 % intervals. There
    is a strong efficiency where --global-batch asks for it."""
    parts = {"compute": found.step.compute, "communication": found.step.communication}
    parts |= {"negotiation": found.step.negotiation, "straggler": found.step.straggler}
    parts |= {"input": found.step.input}
    fewest, most = found.hours_between
    return {
        "workers": found.workers,
        "batch": found.batch,
        "micro_batches": found.micro_batches,
        "minibatch": found.minibatch,
        "images_per_second": found.images_per_second,
        "images_per_second_low": found.slow,
        "images_per_second_high": found.fast,
        "step_seconds": found.step.seconds,
        "parts_seconds": parts,
        "sums_seconds": found.step.busy,
        "efficiency_weak": found.weak,
        "efficiency_strong": found.strong,
        "efficiency_low": found.low,
        "efficiency_high": found.high,
        "hours": found.hours,
        "hours_low": fewest,
        "hours_high": most,
        "cost": found.cost(found.hours),
        "cost_low": found.cost(fewest),
        "cost_high": found.cost(most),
        "limit": found.limit,
    }


def validation() -> dict[str, Any]:
    errors = residuals.of_series()
    return {
        "kind": "plan-validation",
        "mean_error": residuals.mean(),
        "above_tenth": [name for name, error in errors.items() if error > LARGEST_ERROR],
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
