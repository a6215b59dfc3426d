"""The training loop.

Its one law: every worker takes the same branch at the same step, or an allreduce waits for ever. So what happens when
is decided by counts of steps and images, never by a clock.
"""

import gc
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.activity import TRAINING
from hvdtrain.distributed.comm import Comm, on_rank_0
from hvdtrain.distributed.preempt import Agreement
from hvdtrain.distributed.reducer import Reducer
from hvdtrain.errors import Preempted
from hvdtrain.train import memory
from hvdtrain.train.build import Parts
from hvdtrain.train.checkpoints import Saving
from hvdtrain.train.doubt import Doubt
from hvdtrain.train.elastic import Committing
from hvdtrain.train.evaluate import Evaluation, evaluate
from hvdtrain.train.meters import Meters
from hvdtrain.train.micro_batches import MicroBatches
from hvdtrain.train.record import Record
from hvdtrain.train.state import TrainState
from hvdtrain.train.step import train_step

COLLECT_GARBAGE_EVERY = 500  # steps; a collection on one worker is a pause for all


@dataclass(frozen=True)
class Cadence:
    report_steps: int
    evaluate_epochs: float
    evaluate_from: float  # epoch
    evaluate_at_end: bool
    save_epochs: float


@contextmanager
def _garbage_in_step() -> Iterator[None]:
    """Within, garbage is collected when the loop says so, on all workers at once."""
    gc.collect()
    gc.freeze()  # what start-up left will not become garbage: no collection need look at it
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.enable()


@_garbage_in_step()
def train(
    parts: Parts,
    comm: Comm,
    meters: Meters,
    record: Record,
    cadence: Cadence,
    *,
    doubt: Doubt,
    agreement: Agreement,
    saving: Saving | None,
    committing: Committing | None = None,
) -> Evaluation | None:
    """Go from the state's position to the end. Returns the last evaluation, if there was one.

    Args:
        saving: None on the ranks that write no checkpoints.
        committing: where workers may come and go.

    Raises:
        WorkersChange: on all workers at the same step, which all have committed.
        Preempted: on all workers at the same step, the state of which is being saved.
        NotFinite: on all workers at the same step.
        CheckpointError: a save has failed: on rank 0, after the step; where workers may come and go, and the next
            rank 0 would fail alike, on all, with the next report or save.
    """
    state, result = parts.state, None
    batches = parts.data.training(state.images_seen)
    comm.meet("first step")
    if agreement.now():
        if committing and saving and state.step:  # the commit that this set began with may be nowhere else
            saving.save(state)
        raise Preempted(f"at step {state.step}" if committing and state.step else "before the first step")
    agreement.afresh()
    if _evaluation_is_missing(cadence, parts):
        result = evaluate_and_record(parts, comm, record, agreement)
        save(saving, state, comm)  # which knows its accuracy now
    parts.clock.restart()
    while not parts.over:
        epoch_before, lr = parts.epoch, parts.schedule(parts.epoch)
        with record.activity.doing(_phase(parts, meters)):
            step, loss = take_step(parts, comm, batches, parts.reducer, lr=lr)
        state.advance(step.images_seen)
        meters.add(loss, step)
        record.step(state, step, lr=lr)
        reporting = state.step % cadence.report_steps == 0 or parts.over
        if reporting:
            record.report(state, meters.report(comm), lr=lr)
            share_quarantine(parts, record)
        if state.step % COLLECT_GARBAGE_EVERY == 0:
            gc.collect()
        leaving = agreement.reached()
        if committing and not leaving:
            committing.look_out_at_the_end()
        evaluate_due = not leaving and _evaluation_due(cadence, epoch_before, parts)
        save_due = leaving or parts.over or crossed(epoch_before, parts.epoch, cadence.save_epochs)
        doubt.settle(state, comm, record, now=evaluate_due or save_due)
        if evaluate_due or save_due:
            with parts.clock.spent_on("pause"):
                if evaluate_due:
                    try:
                        result = evaluate_and_record(parts, comm, record, agreement)
                    except Preempted:
                        leaving = True
                with record.activity.doing("saving"):
                    save(saving, state, comm, due=save_due or leaving)
        if saving:
            record.saved(saving.news())
            if not committing:
                saving.check()
        if committing and reporting:
            on_rank_0(comm, partial(_check, saving), "saved")
        if leaving:
            raise Preempted(f"at step {state.step}")
        if committing and not parts.over:
            with parts.clock.spent_on("pause"):
                committing.step_done(now=evaluate_due or save_due)
    return result


def save(saving: Saving | None, state: TrainState, comm: Comm, *, due: bool = True) -> None:
    """Begin to save where it is due; what is there already stays. The end of a pause of all workers.

    Raises:
        CheckpointError: on all of them, rank 0 cannot.
    """

    def begin() -> None:
        if saving and due:
            saving.save(state)

    on_rank_0(comm, begin, "end of the pause")


def _check(saving: Saving | None) -> None:
    if saving:
        saving.check()


def _phase(parts: Parts, meters: Meters) -> str:
    """The first step with pictures of a size may have to be compiled, or to look for the fastest algorithms."""
    pixels = parts.data.pixels(parts.state.images_seen)
    return TRAINING if pixels == meters.pixels else f"first step at {pixels} pixels"


def _evaluation_is_missing(cadence: Cadence, parts: Parts) -> bool:
    """Whether a run that goes on was preempted before, or within, the evaluation of the step that it begins at."""
    state = parts.state
    if parts.over or not state.step or state.top1 is not None:
        return False
    last = state.last_step_images or parts.objective.global_batch
    before = (state.images_seen - last) / len(parts.data.train)
    return _evaluation_due(cadence, before, parts)


def _evaluation_due(cadence: Cadence, epoch_before: float, parts: Parts) -> bool:
    if parts.over:
        return cadence.evaluate_at_end
    return parts.epoch >= cadence.evaluate_from and crossed(epoch_before, parts.epoch, cadence.evaluate_epochs)


def take_step(
    parts: Parts, comm: Comm, batches: Iterator[Batch], reducer: Reducer, *, lr: float
) -> tuple[MicroBatches, torch.Tensor]:
    """The micro-batches that one optimiser step took, and their summed loss on the device."""
    step = MicroBatches(batches, parts.micro_batches, parts.clock)
    with naming_what_fits(parts, comm):
        loss = train_step(
            parts.state,
            step,
            lr=lr,
            objective=parts.objective,
            arithmetic=parts.arithmetic,
            reducer=reducer,
            clock=parts.clock,
        )
    return step, loss


@contextmanager
def naming_what_fits(parts: Parts, comm: Comm) -> Iterator[None]:
    """Within, a step that runs out of memory ends the run with the batch that would have fitted."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not memory.is_out_of_memory(error):
            raise
        model, device = parts.state.model, next(parts.state.model.parameters()).device
        no_momentum_yet = not parts.state.optimizer.state
        attempt = memory.probe(
            model,
            parts.arithmetic.forward,
            image_size=parts.data.largest_size,
            dtype=torch.float32,
            device=device,
            classes=len(parts.data.train.classes),
            reserve_bytes=sum(p.nbytes for p in model.parameters()) if no_momentum_yet else 0,
        )
        raise memory.out_of_memory(
            error,
            attempt,
            n=parts.objective.global_batch // (comm.size * parts.micro_batches),
            workers=comm.size,
            global_batch=parts.objective.global_batch,
            device=device,
            multiple_of=2 if parts.data.in_pairs else 1,
        ) from None


def evaluate_and_record(parts: Parts, comm: Comm, record: Record, agreement: Agreement) -> Evaluation:
    """The result of the weights themselves; that of their average is recorded beside it.

    Raises:
        Preempted: between two batches the workers agreed to leave; nothing is recorded.
    """
    began = time.perf_counter()
    agreement.afresh()
    with record.activity.doing("evaluation"):
        result, averaged = _evaluated(parts.state.model, parts, comm, agreement), None
        if parts.state.average:
            averaged = _evaluated(parts.state.average, parts, comm, agreement)
        parts.state.judged(max(result.top1, averaged.top1) if averaged else result.top1)
        record.evaluated(parts.state, result, averaged, time.perf_counter() - began)
        share_quarantine(parts, record)
    agreement.afresh()
    return result


def _evaluated(model: torch.nn.Module, parts: Parts, comm: Comm, agreement: Agreement) -> Evaluation:
    return evaluate(model, parts.data.validation(), parts.arithmetic, comm, leave=agreement.reached)


def share_quarantine(parts: Parts, record: Record) -> None:
    """Tell everyone, and the record, what could not be decoded since the last time. Collective."""
    for part, rows in parts.data.quarantine.share().items():
        for row, reason in rows.items():
            record.quarantined(parts.state, part, parts.data.sources[part].index.names[row], reason)


def crossed(before: float, after: float, every: float) -> bool:
    """Whether a multiple of `every` lies in (before, after].

    >>> crossed(0.9, 1.1, 1), crossed(1.0, 1.1, 1), crossed(0.4, 0.6, 0.5)
    (True, False, True)
    """
    return math.floor(after / every) > math.floor(before / every)
