"""Evaluations and predictions in words, and for machines."""

import os
import shlex
import sys
from collections.abc import Iterator
from datetime import datetime, timezone
from typing import Any

from hvdtrain import __version__
from hvdtrain.inference.evaluate import Judged, Report
from hvdtrain.inference.predict import Prediction
from hvdtrain.provenance import revision
from hvdtrain.train.trained import AVERAGE

SCHEMA = 1
MOST = 8  # classes and pairs of a table
NAME = 26  # characters of a class's name in a table


def text(report: Report) -> str:
    """At most 100 columns, but for paths."""
    left_out = f", {report.left_out} more cannot be decoded" if report.left_out else ""
    workers = f"{report.workers} worker{'s' * (report.workers > 1)}"
    images = f"{report.judged[0].result.images:,} of {report.data}/val, each once{left_out}"
    lines = [
        f"network     {report.title}",
        f"images      {images}",
        f"pictures    {report.preprocessing}; on {workers}",
    ]
    for judged in report.judged:
        lines += ["", *_judged(report, judged)]
    return "\n".join(lines)


def _judged(report: Report, judged: Judged) -> Iterator[str]:
    result, confusion = judged.result, judged.confusion
    if len(report.judged) > 1:
        yield "the moving average of the weights" if judged.weights == AVERAGE else "the weights themselves"
    yield f"top-1       {100 * result.top1:6.2f} %  {sum(confusion.top1):,} of {result.images:,}"
    yield f"top-5       {100 * result.top5:6.2f} %  {sum(confusion.top5):,} of {result.images:,}"
    yield f"loss        {result.loss:.4f} nats"
    images, top1, top5 = confusion.images, confusion.top1, confusion.top5
    wrong = [label for label in confusion.worst() if top1[label] < images[label]][:MOST]
    if not wrong:
        return
    yield ""
    yield f"{'worst classes':{NAME + 2}}{'top-1':>9}{'top-5':>9}{'images':>9}"
    for label in wrong:
        shares = "".join(f"{100 * hits[label] / images[label]:>7.1f} %" for hits in (top1, top5))
        yield f"  {_cut(report.classes[label]):{NAME}}{shares}{images[label]:>9,}"
    yield ""
    yield f"{'most confused':{NAME + 2}}{'taken for':{NAME + 2}}{'images':>9}"
    for label, other, count in confusion.pairs()[:MOST]:
        share = f"{100 * count / images[label]:>8.1f} % of them"
        yield f"  {_cut(report.classes[label]):{NAME}}{_cut(report.classes[other]):{NAME + 2}}{count:>9,}{share}"


def record(report: Report) -> dict[str, Any]:
    """All counts, and the pairs of classes of which one was taken for the other at least once."""
    return {
        "schema": SCHEMA,
        "command": shlex.join(["hvdtrain", *sys.argv[1:]]),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "hvdtrain": __version__,
        "commit": revision(),
        "network": dict(report.about),
        "data": str(report.data),
        "preprocessing": report.preprocessing.as_dict(),
        "workers": report.workers,
        "left_out": report.left_out,
        "classes": list(report.classes),
        "evaluations": [_counts(report, judged) for judged in report.judged],
    }


def _counts(report: Report, judged: Judged) -> dict[str, Any]:
    result, confusion, names = judged.result, judged.confusion, report.classes
    rows = zip(names, confusion.images, confusion.top1, confusion.top5, strict=True)
    return {
        "weights": judged.weights,
        "images": result.images,
        "top1": result.top1,
        "top5": result.top5,
        "loss": result.loss,
        "per_class": [
            {
                "class": name,
                "images": images,
                "top1_images": top1,
                "top5_images": top5,
                "top1": top1 / images if images else None,
                "top5": top5 / images if images else None,
            }
            for name, images, top1, top5 in rows
        ],
        "confusions": [
            {"class": names[label], "taken_for": names[other], "images": count}
            for label, other, count in confusion.pairs()
        ],
    }


def _cut(name: str) -> str:
    return name if len(name) <= NAME - 1 else f"{name[: NAME - 2]}…"


def prediction(found: Prediction, classes: tuple[str, ...]) -> str:
    """The picture's path, and a line for each class."""
    lines = [f"{100 * probability:8.2f} %  {classes[label]}" for label, probability in found.best]
    return "\n".join([shown(found.image), *lines])


def prediction_record(found: Prediction, classes: tuple[str, ...]) -> dict[str, Any]:
    if found.fault:
        return {"image": shown(found.image), "fault": found.fault}
    best = [{"class": classes[label], "index": label, "probability": share} for label, share in found.best]
    return {"image": shown(found.image), "classes": best}


def shown(path: str) -> str:
    """A path that any terminal takes."""
    return os.fsencode(path).decode(errors="backslashreplace")
