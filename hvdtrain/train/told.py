"""What a person is told of a run, before its first step and after its last."""

from pathlib import Path
from typing import Any

from hvdtrain.config.schema import Config
from hvdtrain.log import duration, logger
from hvdtrain.metrics import targets
from hvdtrain.train import recipe
from hvdtrain.train.build import Parts
from hvdtrain.train.elastic import Past
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.meters import Meters


def announce(
    config: Config, parts: Parts, *, world_size: int, place: str, environment: dict[str, Any], past: Past
) -> None:
    """What a person should know before the first step: above all the global minibatch and the rate it implies."""
    data, batch, kn = parts.data, config.data.batch_size, parts.objective.global_batch
    peak = recipe.schedule(config, kn).peak
    workers = f"{world_size} worker{'s' * (world_size > 1)}"
    micro = f" x {parts.micro_batches}" if parts.micro_batches > 1 else ""
    minibatch = f"minibatch kn = {world_size} x {batch}{micro} = {kn} images, peak rate {peak:g}"
    if past.resets:
        lost = max(past.images_seen - parts.state.images_seen, 0)
        again = f", {lost:,} images once more" if lost else ""
        logger.info("%s now, %d before: on from step %d%s", workers, past.workers, parts.state.step, again)
        logger.info("%s", minibatch)
        return
    logger.info("run %s", config.run_dir)
    algorithm = environment["allreduce_algorithm"]
    logger.info("%s, %s, %s on %s; allreduce: %s", config.model.name, config.precision, workers, place, algorithm)
    logger.info("%s", minibatch)
    for group in parts.state.optimizer.param_groups:
        numbers, decay = sum(p.numel() for p in group["params"]), group["weight_decay"]
        logger.info("%s: %d tensors, %d numbers, weight decay %g", group["name"], len(group["params"]), numbers, decay)
    logger.info(
        "%d training and %d validation images, %d classes", len(data.train), len(data.val), len(data.train.classes)
    )
    logger.info("Prometheus targets in %s", targets.file(config.run_dir))


def summary(
    result: Evaluation | None,
    meters: Meters,
    seconds: float,
    folder: Path,
    addresses: list[str],
    *,
    workers: int,
    resets: int,
) -> str:
    shown = ", ".join(addresses[:4])
    lines = [""]
    if result:
        lines.append(f"top-1       {100 * result.top1:.2f} % of {result.images} validation images")
    changed = f", changed {resets} time{'s' * (resets > 1)}" if resets else ""
    who = f"{workers} worker{'s' * (workers > 1)}{changed}"
    lines.append(f"throughput  {meters.images_per_second:,.1f} images/s on {who}")
    if efficiency := meters.efficiency:
        lines.append(f"efficiency  {efficiency}")
    lines += [
        f"took        {duration(seconds)}",
        f"run         {folder}; what cost how much: hvdtrain report {folder}",
        f"metrics     were at {shown}{' …' if len(addresses) > 4 else ''}",
    ]
    return "\n".join(lines)
