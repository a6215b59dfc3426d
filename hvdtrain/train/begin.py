"""Where a run begins, or goes on: from nothing, a checkpoint on disk, or a commit in the workers' memory."""

from hvdtrain.checkpoint.format import Checkpoint
from hvdtrain.config.schema import Config
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.tuning import Tuning
from hvdtrain.log import logger
from hvdtrain.optim.schedule import Rate
from hvdtrain.train import checkpoints, recipe
from hvdtrain.train.build import Parts, build
from hvdtrain.train.data import Machine
from hvdtrain.train.elastic import Past
from hvdtrain.train.trace import forget_after


def begin(config: Config, comm: Comm, machine: Machine, tuning: Tuning, commit: Checkpoint | None, past: Past) -> Parts:
    """Those of the run, as it begins, or as a commit or a checkpoint has left them. Collective."""
    checkpoint = commit or checkpoints.find(config, comm)
    images_seen = checkpoint.manifest.images_seen if checkpoint else 0
    if comm.rank == 0:
        forget_after(config.run_dir / "images", images_seen)
    if checkpoint:
        before = checkpoint.manifest
        config = recipe.going_on(config, workers=comm.size, global_batch=before.global_batch)
        if comm.rank == 0 and not commit and before.workers not in (0, comm.size):
            logger.info("workers: %d, before: %d; the minibatch stays what it was", comm.size, before.workers)
    parts = build(config, comm, machine, bucket_bytes=tuning.bucket_bytes, images_seen=images_seen)
    if checkpoint:
        checkpoints.load(parts, checkpoint)
        parts.state.earlier_seconds = checkpoint.manifest.spent_seconds
    if config.elastic.enabled:
        parts.schedule = _ramped(config, parts, past, before=checkpoint.manifest.global_batch if checkpoint else 0)
    return parts


def _ramped(config: Config, parts: Parts, past: Past, *, before: int) -> Rate:
    """The rate where the minibatch may have changed.

    Args:
        before: the minibatch of the checkpoint that the run goes on from; 0 where there is none.
    """
    if not past.minibatches and before:
        past.minibatches.append((0.0, before))
    now = parts.objective.global_batch
    if not past.minibatches or past.minibatches[-1][1] != now:
        past.minibatches.append((parts.epoch, now))
    return recipe.ramped(config, past.minibatches)
