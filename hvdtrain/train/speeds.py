"""Speeds that runs are compared with: what a run finds when it begins, and what it leaves for later ones."""

import time
from dataclasses import replace
from typing import Any

from hvdtrain.config.checks import expanded
from hvdtrain.config.schema import Config
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import Comm
from hvdtrain.log import logger
from hvdtrain.metrics import baselines
from hvdtrain.metrics.efficiency import Baseline, speed
from hvdtrain.train import baseline, recipe
from hvdtrain.train.build import Parts
from hvdtrain.train.meters import Meters

DIR = "metrics.baselines_dir"
FEWEST_WINDOWS = 5  # of reports, for a speed that others are compared with


def find(
    config: Config,
    comm: Comm,
    parts: Parts,
    activity: Activity,
    setting: dict[str, Any],
    *,
    before: dict[tuple[int, int], Baseline],
) -> Baseline | None:
    """What efficiency is measured against; None where there is nothing, and then there is no efficiency. Collective.

    Args:
        before: what earlier sets of this run's workers have found, by micro-batches of a step and pixels of a side;
            what is found is added.
    """
    kind = parts.micro_batches, parts.data.pixels(parts.state.images_seen)
    found = before.get(kind) or _find(config, comm, parts, activity, setting)
    if found:
        before[kind] = found
    return found


def _find(config: Config, comm: Comm, parts: Parts, activity: Activity, setting: dict[str, Any]) -> Baseline | None:
    chosen = config.metrics
    if chosen.baseline == "measured" and comm.size > 1 and not parts.over:
        untimed = recipe.untimed_steps(config)
        return baseline.measure(parts, comm, activity, steps=chosen.baseline_steps, untimed=untimed)
    found = None
    if chosen.baseline == "stored" and comm.rank == 0:
        folder = expanded(DIR, chosen.baselines_dir)
        pixels = parts.data.pixels(parts.state.images_seen)
        found = baselines.load(folder, setting, workers=chosen.baseline_workers, pixels=pixels)
        if found is None:
            wanted = f"{chosen.baseline_workers} worker{'s' * (chosen.baseline_workers > 1)} under these settings"
            logger.warning("no scaling efficiency: %s has no speed of %s; a finished run leaves one", folder, wanted)
    return comm.broadcast_object(found, "baseline")


def keep(config: Config, meters: Meters, setting: dict[str, Any], *, workers: int) -> None:
    """For later runs to compare theirs with: how fast this one was at its end, and what it was itself compared with."""
    speeds = []
    if len(meters.windows) >= FEWEST_WINDOWS:
        end = f"the end of run {config.run_name}"
        now = time.time()
        speeds.append(speed(meters.windows, workers=workers, pixels=meters.pixels, measured_at=now, origin=end))
    if meters.baseline and meters.baseline.source == "measured":
        speeds.append(replace(meters.baseline, origin=f"one worker alone, before the first step of {config.run_name}"))
    folder = expanded(DIR, config.metrics.baselines_dir)
    try:
        for kept in speeds:
            baselines.save(folder, setting, kept)
    except OSError as error:  # no reason to fail a run that is done
        logger.warning("this run's speed is not kept in %s: %s", folder, error.strerror)
