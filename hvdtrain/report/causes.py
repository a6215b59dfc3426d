"""Why not better: what cost how much, ranked, each with its evidence and with what to try. Pure.

A loss is blamed on the way of the worker that was ready last, as metrics/breakdown.py says, and ranked by the seconds
that it took from all steps of the reports looked at.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hvdtrain.report.account import Account
from hvdtrain.report.communication import communication
from hvdtrain.report.evidence import Case, Ground
from hvdtrain.report.pauses import Pause, pauses, wall_seconds
from hvdtrain.report.records import Run
from hvdtrain.report.units import milliseconds, plural
from hvdtrain.report.workers import contention, inputs, rest, straggler

NOTHING_TO_GAIN = 0.01  # of a step: below it a cause is named, but neither explained nor cured
LONG = 0.05  # of the run's time, or of a step
FASTER = 0.03  # of a step: computing that gains as much by company was compared with something else
LONG_SECONDS = 30.0
ENOUGH_WINDOWS = 5  # below, Student's factor alone makes an interval twice as wide as it will be

EXPLAIN: Mapping[str, Callable[[Case], Ground]] = {
    "input": inputs,
    "contention": contention,
    "straggler": straggler,
    "communication": communication,
    "rest": rest,
}


@dataclass(frozen=True)
class Loss:
    cause: str
    share: float
    """Of the step's time. With an efficiency, all shares and it sum to 1."""
    step_seconds: float
    run_seconds: float
    """Of all steps looked at."""
    evidence: tuple[str, ...]
    advice: tuple[str, ...]


@dataclass(frozen=True)
class Idle:
    """A pause, and what to do about it where it is long."""

    pause: Pause
    share: float
    """Of the run's time."""
    advice: str


@dataclass(frozen=True)
class Diagnosis:
    losses: tuple[Loss, ...]
    """All of metrics.efficiency.CAUSES, the costliest first; empty where steps were not taken apart."""
    idle: tuple[Idle, ...]
    notes: tuple[str, ...]
    """What cannot be said, why, and how it could; what the numbers are of."""


def diagnose(run: Run, account: Account | None) -> Diagnosis:
    return Diagnosis(
        losses=_losses(run, account) if account and account.losses else (),
        idle=_idle(run),
        notes=tuple(_notes(run, account)),
    )


def _losses(run: Run, account: Account) -> tuple[Loss, ...]:
    assert account.losses is not None, "the caller looked"
    found = []
    for cause, seconds in account.losses.items():
        share = seconds / account.step_seconds
        worth_it = share >= NOTHING_TO_GAIN
        ground = EXPLAIN[cause](Case(run, account, seconds)) if worth_it else Ground()
        loss = Loss(cause, share, seconds, seconds * account.steps, tuple(ground.evidence), tuple(ground.advice))
        found.append(loss)
    return tuple(sorted(found, key=lambda loss: -loss.run_seconds))


ADVICE = {
    "start-up": "the index of images is made once, and kept beside them or in --data.cache_dir",
    "baseline": "--metrics.baseline stored takes none, where a run or bench of the same setting has left one",
    "evaluation": "evaluate less often: --evaluation.every_epochs, or not before --evaluation.first_epoch",
    "checkpoint": "save less often: --checkpoint.every_epochs; or to a faster --run.dir",
    "down": "",
    "reset": "a lower --min-np of horovodrun waits for fewer hosts; and hosts that come and go less often",
    "repeated": "save more often: --checkpoint.every_epochs",
}


def _idle(run: Run) -> tuple[Idle, ...]:
    whole = wall_seconds(run)
    found = []
    for pause in pauses(run):
        share = pause.seconds / whole if whole > 0 else 0.0
        long = share >= LONG and pause.seconds >= LONG_SECONDS
        found.append(Idle(pause, share, _advice(run, pause) if long else ""))
    return tuple(found)


def _advice(run: Run, pause: Pause) -> str:
    if pause.reason == "repeated" and any(start.lost_images for start in run.starts):
        return "commit more often: --elastic.commit_steps"
    return ADVICE[pause.reason]


def _notes(run: Run, account: Account | None) -> Sequence[str]:
    if account is None:
        return ["no report yet: nothing is known of its steps; one comes every --run.report_every steps"]
    losses = account.losses
    if losses is None:
        return ["this version of hvdtrain did not take steps apart: what cost how much is not known"]
    found = []
    if account.efficiency is None:
        found.append(_no_efficiency(account))
    elif len(account.windows) < ENOUGH_WINDOWS:
        reports = plural(len(account.windows), "report")
        found.append(
            f"{reports} alone make no trustworthy interval of the efficiency: train longer, or lower --run.report_every"
        )
    if losses["contention"] < -FASTER * account.step_seconds:
        faster = milliseconds(-losses["contention"])
        found.append(
            f"computing is {faster} a step faster than in the baseline, and the efficiency too good by as much: "
            "the machine was busier then, or the look too short (--metrics.baseline_steps)"
        )
    if losses["communication"] > LONG * account.step_seconds and len(run.environment.hosts) != 1:
        found.append(
            "what the link could carry is not known here: compare with its data sheet (100 Gbit/s are 12.5 GB/s)"
        )
    if account.baselines > 1:
        found.append(f"the efficiency is against {account.baselines} baselines, one for each start, by time")
    if account.uncompared:
        reports = plural(len(account.uncompared), "report")
        found.append(
            f"{reports} without an efficiency {'is' if len(account.uncompared) == 1 else 'are'} left out: of the first "
            "steps of a process, or of pictures of another size than the baseline's"
        )
    if account.left_out:
        reports = plural(account.left_out, "report")
        found.append(
            f"{reports} of another number of workers {'is' if account.left_out == 1 else 'are'} left out, "
            "but for the table by number of workers"
        )
    if run.unreadable:
        found.append(f"{plural(run.unreadable, 'line')} of events.jsonl could not be read: torn by a kill")
    return found


def _no_efficiency(account: Account) -> str:
    if account.workers == 1:
        return (
            "one worker: nothing to scale; --metrics.baseline stored would compare it with an earlier run of one worker"
        )
    return (
        "no baseline, so no efficiency: shares are of the step itself, and contention cannot be told from computing; "
        "--metrics.baseline measured takes one in the first seconds of a run, stored that of hvdtrain bench scaling"
    )
