"""Several runs side by side: a column for each."""

import math
from collections.abc import Callable, Sequence

from hvdtrain.log import duration
from hvdtrain.metrics.efficiency import CAUSES
from hvdtrain.report.account import Account
from hvdtrain.report.records import Run
from hvdtrain.report.study import Study
from hvdtrain.report.units import UNKNOWN, milliseconds, number, tenths


def rows(studies: Sequence[Study]) -> list[tuple[str, list[str]]]:
    """Name and values of each line of the table, the values in the order of the runs; lines that no run has are left
    out."""
    of_run = [(name, [value(study.run) for study in studies]) for name, value in OF_RUN]
    of_steps = [
        (name, [value(study.account) if study.account else "" for study in studies]) for name, value in OF_STEPS
    ]
    lost = [(f"  {cause}, %", [_lost(study.account, cause) for study in studies]) for cause in CAUSES]
    return [
        (name, [value or UNKNOWN for value in values]) for name, values in (*of_run, *of_steps, *lost) if any(values)
    ]


def _lost(account: Account | None, cause: str) -> str:
    if account is None or not account.losses or (cause == "contention" and not account.efficiency):
        return ""
    return tenths(account.losses[cause] / account.step_seconds)


def _top1(run: Run) -> str:
    return f"{100 * run.evaluations[-1].top1:.2f}" if run.evaluations else ""


def _commit(run: Run) -> str:
    return run.environment.versions.get("commit", "")[:10]


def _efficiency(account: Account) -> str:
    return tenths(account.efficiency.ratio) if account.efficiency else ""


def _interval(account: Account) -> str:
    found = account.efficiency
    return f"{tenths(found.low)} to {tenths(found.high)}" if found and math.isfinite(found.low) else ""


def _baseline(account: Account) -> str:
    return f"{account.baseline.workers}, {account.baseline.source}" if account.baseline else ""


OF_RUN: Sequence[tuple[str, Callable[[Run], str]]] = (
    ("state", lambda run: run.state.value),
    ("model", lambda run: run.config.model.name if run.config else ""),
    ("precision", lambda run: run.config.precision if run.config else ""),
    ("workers k", lambda run: f"{run.start.world_size:,}"),
    ("batch n", lambda run: f"{run.batch_size:,}" if run.batch_size else ""),
    ("minibatch kn", lambda run: f"{run.start.global_batch:,}"),
    ("commit", _commit),
    ("epochs", lambda run: f"{run.epoch:.2f} of {run.epochs:.4g}"),
    ("top-1, %", _top1),
)
OF_STEPS: Sequence[tuple[str, Callable[[Account], str]]] = (
    ("training", lambda account: duration(account.training_seconds)),
    ("images/s", lambda account: number(account.images_per_second)),
    ("  per worker", lambda account: number(account.images_per_second / account.workers)),
    ("step", lambda account: milliseconds(account.step_seconds)),
    ("baseline", _baseline),
    ("efficiency, %", _efficiency),
    ("  95 % interval", _interval),
)
