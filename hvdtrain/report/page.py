"""`hvdtrain report`: what is known of one or several runs, as words, as numbers for machines, and as a page."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hvdtrain.errors import ConfigError
from hvdtrain.files import write_whole
from hvdtrain.report import scaling as proofs
from hvdtrain.report import text, timeline
from hvdtrain.report.changes import changes
from hvdtrain.report.pauses import wall_seconds
from hvdtrain.report.plain import plain
from hvdtrain.report.scaling import Scaling
from hvdtrain.report.study import Study, study


def report(
    run_dirs: Sequence[Path],
    *,
    html: Path | None = None,
    as_json: bool = False,
    timeline: Path | None = None,
    scaling: Path | None = None,
    last: int | None = None,
) -> str:
    """What to print.

    Args:
        html: where a page with the figures is written to as well.
        timeline: Horovod's timeline of the one run.
        scaling: what `hvdtrain bench scaling` wrote, to be drawn together with the runs that have finished. Without
            it, runs of one setting on several numbers of workers make a scaling proof by themselves.
        last: look at so many of the last reports only, instead of all.

    Raises:
        ConfigError: something is not there, or not what it should be.
    """
    if not run_dirs and not scaling:
        raise ConfigError(
            "report: expected a run directory or --scaling FILE, got neither", remedy="hvdtrain report RUN"
        )
    if timeline and len(run_dirs) != 1:
        raise ConfigError(f"--timeline {timeline}: expected the one run that it is of, got {len(run_dirs)}")
    if last is not None and last < 1:
        raise ConfigError(f"--last {last}: expected 1 report at least")
    told = _timeline(timeline)
    studies = [study(folder, last=last, timeline=told) for folder in run_dirs]
    runs = [each.run for each in studies]
    proof = proofs.scaling(scaling, runs) if scaling or proofs.comparable(runs) else None
    if html:
        from hvdtrain.report.html import page

        try:
            write_whole(html, page(studies, proof))
        except OSError as error:
            raise ConfigError(f"--html {html}: {error.strerror}") from None
    return to_json(studies, proof) if as_json else text.render(studies, proof)


def _timeline(file: Path | None) -> "timeline.Timeline | None":
    return timeline.read(file) if file else None


def to_json(studies: Sequence[Study], scaling: Scaling | None = None) -> str:
    """The same for machines: seconds, ratios and counts, and null for what is not known."""
    value = {"runs": [as_dict(study) for study in studies], "scaling": plain(scaling)}
    return json.dumps(value, indent=2)


def as_dict(study: Study) -> dict[str, Any]:
    run, account = study.run, study.account
    last = run.evaluations[-1] if run.evaluations else None
    counted = None
    if account:
        counted = {field.name: getattr(account, field.name) for field in dataclasses.fields(account)}
        counted |= {"windows": len(account.windows), "uncompared": len(account.uncompared), "seconds": account.seconds}
    values: dict[str, Any] = plain(
        {
            "run": run.name,
            "folder": str(run.folder),
            "state": run.state,
            "last_sign_of_life": run.heard,
            "model": run.config.model.name if run.config else None,
            "precision": run.config.precision if run.config else None,
            "world_size": run.start.world_size,
            "batch_size": run.batch_size,
            "global_batch_size": run.start.global_batch,
            "step": run.step,
            "images_seen": run.images_seen,
            "epoch": run.epoch,
            "epochs": run.epochs,
            "wall_seconds": wall_seconds(run),
            "evaluation": last,
            "changes": changes(run),
            "by_workers": study.sizes,
            "quarantined": run.quarantined,
            "environment": run.environment,
            "steps": counted,
            "losses": study.diagnosis.losses,
            "idle": [
                {**dataclasses.asdict(e.pause), "share": e.share, "advice": e.advice} for e in study.diagnosis.idle
            ],
            "timeline": study.timeline,
            "notes": study.diagnosis.notes,
        }
    )
    return values
