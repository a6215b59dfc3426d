"""Training to its end, and what comes between: a loss that is not finite, a signal, hosts that are about to go."""

from functools import partial
from pathlib import Path
from typing import NoReturn

from hvdtrain import outcome
from hvdtrain.checkpoint.format import Checkpoint
from hvdtrain.config.schema import Config
from hvdtrain.distributed.activity import TRAINING
from hvdtrain.distributed.comm import Comm, of_rank_0, on_rank_0
from hvdtrain.distributed.elastic import WorkersChange
from hvdtrain.distributed.preempt import Agreement
from hvdtrain.distributed.verdict import ranks_in_words
from hvdtrain.errors import NotFinite, Preempted
from hvdtrain.log import logger
from hvdtrain.train import checkpoints
from hvdtrain.train.build import Parts
from hvdtrain.train.checkpoints import Saving
from hvdtrain.train.doubt import Doubt, GoBack
from hvdtrain.train.elastic import Committing, Leaves
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.loop import Cadence, train
from hvdtrain.train.meters import Meters
from hvdtrain.train.record import Record


def to_the_end(
    config: Config,
    parts: Parts,
    comm: Comm,
    meters: Meters,
    record: Record,
    *,
    agreement: Agreement,
    saving: Saving | None,
    committing: Committing | None,
) -> Evaluation | None:
    """To the end, and as often as need be from the last checkpoint again."""
    doubt = Doubt(config.train.not_finite, most_skipped=config.train.most_skipped)
    while True:
        try:
            with record.activity.doing(TRAINING):
                return train(
                    parts,
                    comm,
                    meters,
                    record,
                    _cadence(config),
                    doubt=doubt,
                    agreement=agreement,
                    saving=saving,
                    committing=committing,
                )
        except GoBack as error:
            with record.activity.doing("going back"):
                _go_back(error, config, parts, comm, meters, record, saving)
                if committing:
                    committing.commit()


def _go_back(
    reason: GoBack, config: Config, parts: Parts, comm: Comm, meters: Meters, record: Record, saving: Saving | None
) -> None:

    def last() -> Checkpoint | None:
        _finish(saving, record)
        return checkpoints.latest(config)

    checkpoint = of_rank_0(comm, last, "last checkpoint")
    if checkpoint is None:
        raise NotFinite(f"{reason}, and there is no checkpoint yet to go back to") from None
    checkpoints.load(parts, checkpoint)
    meters.forget()
    if record.trace:
        record.trace.forget_after(parts.state.images_seen)
    if saving:
        logger.warning("%s: going back to step %d", reason, parts.state.step)


def _cadence(config: Config) -> Cadence:
    return Cadence(
        report_steps=config.run.report_every,
        evaluate_epochs=config.evaluation.every_epochs,
        evaluate_from=config.evaluation.first_epoch,
        evaluate_at_end=config.evaluation.at_end,
        save_epochs=config.checkpoint.every_epochs,
    )


def preempted(
    error: Preempted,
    run_dir: Path,
    agreement: Agreement,
    parts: Parts,
    comm: Comm,
    record: Record,
    saving: Saving | None,
) -> Preempted:
    """What to leave with, once all is saved. Collective: launchers end everyone as soon as one has left."""
    record.activity.phase = "leaving"
    finish(saving, record, comm)
    message = f"stopped {error.args[0]} by {' and '.join(agreement.signals)}"
    record.preempted(parts.state, message)
    left = Preempted(message, remedy="--resume auto goes on from there")
    if saving:
        outcome.tell(run_dir, left.exit_code, str(left))
    comm.meet("all is saved")
    parts.data.close()
    return left


def let_go(
    error: Preempted,
    agreement: Agreement,
    comm: Comm,
    record: Record,
    saving: Saving | None,
    committing: Committing,
) -> NoReturn:
    """Workers on hosts that are about to go leave; the others go on without them, and nothing is lost. Collective."""
    record.activity.phase = "leaving"
    committing.commit()
    finish(saving, record, comm)
    if saving:
        leaving = [rank for rank, name in enumerate(agreement.by_rank) if name]
        logger.warning("%s %s: SIGTERM, its host is going", ranks_in_words(leaving), error.args[0])
    comm.meet("all is saved")
    if agreement.by_rank[comm.rank]:
        raise Leaves(f"left {error.args[0]} by {agreement.by_rank[comm.rank]}; the others go on")
    raise WorkersChange


def finish(saving: Saving | None, record: Record, comm: Comm) -> None:
    """Return when all that is being saved is durable, and told of. Collective.

    Raises:
        CheckpointError: on all ranks, rank 0 could not save.
    """
    on_rank_0(comm, partial(_finish, saving, record), "saved")


def _finish(saving: Saving | None, record: Record) -> None:
    if saving:
        record.saved(saving.finish())
