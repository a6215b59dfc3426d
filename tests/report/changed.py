"""Elastic runs as they write themselves: one launch, whose workers change."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from tests.report.made import BEGAN, Made, environment, records, touch

ELASTIC = Config.model_validate({"elastic": {"enabled": True}, "train": {"global_batch_size": 64}})
BETWEEN_SECONDS = 12.4


@dataclass(frozen=True)
class Set:
    """Of workers, between two changes."""

    workers: int
    windows: int
    baseline: bool = True
    lost_steps: int = 0
    """That the next set does again."""
    unreported_steps: int = 0
    """That it did after its last report."""
    resets: int = 1
    """With the one that it began with: some sets have ended before they could tell of themselves."""


def write(folder: Path, sets: Sequence[Set], *, ends: bool = True, jitter: float = 0.002) -> Path:
    """The run of `sets`, each of which begins BETWEEN_SECONDS after the last step of the one before."""
    (folder / "logs").mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(ELASTIC))
    made = [made_of(each, jitter) for each in sets]
    (folder / "environment.json").write_text(json.dumps(environment(made[-1])))
    told = _records(sets, made, ends=ends)
    (folder / "events.jsonl").write_text("".join(json.dumps(each) + "\n" for each in told))
    if not ends:
        touch(folder, told[-1]["time"])
    return folder


def made_of(each: Set, jitter: float) -> Made:
    baseline = "measured" if each.baseline else None
    return Made(each.workers, each.windows, 10, jitter=jitter, baseline=baseline, ends=False, epochs=1, config=ELASTIC)


def _records(sets: Sequence[Set], made: Sequence[Made], *, ends: bool) -> list[dict[str, Any]]:
    told: list[dict[str, Any]] = []
    clock, step, images, resets, lost_images = BEGAN, 0, 0, 0, 0
    total = sum(10 * one.windows * one.kn for one in made)
    first: dict[str, Any] = {}
    for each, one in zip(sets, made, strict=True):
        kinds = ("start", "baseline", "report")
        of_set = [event for event in records(replace(one, began=clock)) if event["event"] in kinds]
        if told:
            resets += each.resets
            of_set[0] |= {"event": "resume", "resets": resets, "lost_images": lost_images}
            of_set = _known(of_set, first)
        first = next((event for event in of_set if event["event"] == "baseline"), first)
        for event in of_set:
            event["step"] += step
            event["images_seen"] += images
            event |= {"epoch": event["images_seen"] / total} if event["event"] == "report" else {}
        of_set[0] |= {"images_per_epoch": total, "total_images": total}
        told += of_set
        last = of_set[-1]
        clock = last["time"] + each.unreported_steps * last.get("step_seconds", 0.0) + BETWEEN_SECONDS
        step = last["step"] + each.unreported_steps - each.lost_steps
        images = last["images_seen"] + (each.unreported_steps - each.lost_steps) * one.kn
        lost_images = each.lost_steps * one.kn
    if ends:
        end = {"time": told[-1]["time"], "event": "end", "seconds": 1e3, "images_per_second": 1.0}
        told.append(end | {"step": step, "images_seen": images})
    return told


def _known(events: list[dict[str, Any]], first: dict[str, Any]) -> list[dict[str, Any]]:
    """Instead of a baseline measured anew, the first one; it takes no time."""
    if events[1]["event"] != "baseline" or not first:
        return events
    came = events[1]["time"] - events[0]["time"]
    known = first | {key: events[0][key] for key in ("time", "step", "images_seen")}
    later = [event | {"time": event["time"] - came} for event in events[2:]]
    return [events[0], known, *later]
