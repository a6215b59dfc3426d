"""Where a run goes on, and what it leaves so that it can."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Checkpoint, Manifest
from hvdtrain.checkpoint.writer import Saved, Writer
from hvdtrain.config.load import from_file
from hvdtrain.config.schema import Config
from hvdtrain.distributed.comm import Comm, of_rank_0
from hvdtrain.errors import CheckpointError, ConfigError
from hvdtrain.log import logger
from hvdtrain.train.build import Parts
from hvdtrain.train.state import TrainState

MOST_NAMED = 4  # changes in a message
OF_A_START = ("resume", "job.")  # settings that are no property of the run


def folder(config: Config) -> Path:
    return config.run_dir / "checkpoints"


def find(config: Config, comm: Comm) -> Checkpoint | None:
    """The checkpoint that `config.resume` means; None for a fresh start. Collective.

    Rank 0 reads and hands the bytes round: one reader, no doubt about what was read, and no file that one node sees
    already and another not yet.

    Raises:
        CheckpointError: there is none where one was named, none is whole where there are some, or it belongs to
            another configuration.
    """
    return None if config.resume == "never" else of_rank_0(comm, partial(_meant, config), "checkpoint")


def changed(config: Config) -> dict[str, list[Any]]:
    """Settings that are others than when the run was last started: [before, now] of each, by its dotted name."""
    try:
        before = from_file(config.run_dir / "config.yaml")
    except ConfigError:  # there is none, or of another version
        return {}
    was, now = before.settings(), config.settings()
    names = [name for name in {**was, **now} if not name.startswith(OF_A_START)]
    return {name: [was.get(name), now.get(name)] for name in names if was.get(name) != now.get(name)}


def latest(config: Config) -> Checkpoint | None:
    """The run's newest whole checkpoint; those that are later and broken are put aside, and named."""
    found = store.latest(folder(config))
    for broken in found.broken:
        logger.warning("going on from an earlier checkpoint, and putting the broken one aside: %s", broken)
    return found.checkpoint


def load(parts: Parts, checkpoint: Checkpoint) -> None:
    """
    Raises:
        CheckpointError: it was made with other images, or does not fit this network.
    """
    made_with, data = checkpoint.manifest.data_digest, parts.data.train.digest
    if made_with != data:  # another order: images would be seen twice, and others not at all
        raise CheckpointError(
            f"the checkpoint was made with the training images {made_with}, these are {data}",
            remedy="hvdtrain data verify, or begin a new run",
        )
    device = next(parts.state.model.parameters()).device
    state = form.tensors(checkpoint.data, device)
    try:
        parts.state.load(state)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        cause = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise CheckpointError(f"{checkpoint.path} does not fit this run: {cause}") from None
    parts.state.last_step_images = parts.state.last_step_images or checkpoint.manifest.global_batch


def belongs(config: Config, parts: Parts, *, workers: int) -> Manifest:
    """What all checkpoints of this set of workers have in common."""
    return Manifest(
        images_seen=0,
        step=0,
        config_digest=config.digest(),
        data_digest=parts.data.train.digest,
        workers=workers,
        global_batch=parts.objective.global_batch,
    )


def manifest(belongs: Manifest, state: TrainState) -> Manifest:
    """Of the state as it is now."""
    return replace(
        belongs,
        images_seen=state.images_seen,
        step=state.step,
        top1=state.top1,
        spent_seconds=state.spent_seconds,
    )


class Saving:
    """Rank 0's side of it, within a `with` block of the writer's."""

    def __init__(self, writer: Writer, belongs: Manifest) -> None:
        """
        Args:
            belongs: what all checkpoints of this process belong to; the rest is filled in.
        """
        self._writer, self._belongs = writer, belongs

    def save(self, state: TrainState) -> None:
        """Begin to save; see `Writer.save`."""
        self._writer.save(state.tensors(), manifest(self._belongs, state))

    def news(self) -> Iterator[Saved]:
        """What has become durable since the last call."""
        return self._writer.take_saved()

    def check(self) -> None:
        """
        Raises:
            CheckpointError: a save has failed since the last call.
        """
        self._writer.check()

    def finish(self) -> Iterator[Saved]:
        """As `news`, once nothing is being saved any more.

        Raises:
            CheckpointError: a save has failed.
        """
        self._writer.finish()
        return self._writer.take_saved()


def _meant(config: Config) -> Checkpoint | None:
    found = latest(config) if config.resume == "auto" else _named(Path(config.resume), config)
    if found:
        _refuse_another_runs(found, config)
        told, by = found.manifest, found.manifest.versions
        logger.info(
            "resuming from %s: step %d, %d images seen; saved by %s",
            *(found.path, told.step, told.images_seen),
            ", ".join(f"{name} {version}" for name, version in by.items()),
        )
    return found


def _named(path: Path, config: Config) -> Checkpoint:
    try:
        return form.read(path)
    except CheckpointError as error:
        there = store.paths(path.parent) or store.paths(folder(config))
        remedy = f"--resume {there[0]}" if there else "--resume auto goes on where there is something to go on from"
        raise CheckpointError(str(error), remedy=remedy) from None


def _refuse_another_runs(checkpoint: Checkpoint, config: Config) -> None:
    digest = checkpoint.manifest.config_digest
    if digest == config.digest() or config.resume_changed == "accept":
        return
    changes = [f"{key} was {old}, is {new}" for key, (old, new) in changed(config).items()]
    raise CheckpointError(
        f"{checkpoint.path} belongs to configuration {digest}, this one is {config.digest()}"
        + "".join(f"; {change}" for change in changes[:MOST_NAMED]),
        remedy=f"compare with {config.run_dir}/config.yaml; --resume_changed accept goes on nevertheless",
    )
