"""What lives on when workers come and go: the last commit, in the memory of every worker.

A commit is a checkpoint that is not written down, of the same step on all workers. When their set changes, whoever has
the latest one hands it to all. A worker that was lost in between costs the images since then, which are done again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch

from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Checkpoint, Manifest
from hvdtrain.checkpoint.host_copy import HostCopy
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.elastic import Hosts, WorkersChange
from hvdtrain.errors import PeerLost, Preempted
from hvdtrain.metrics.efficiency import Baseline
from hvdtrain.train import checkpoints
from hvdtrain.train.build import Parts
from hvdtrain.train.evaluate import share_statistics
from hvdtrain.train.lock import Owner
from hvdtrain.train.meters import Totals


@dataclass
class Past:
    """What all workers of a set know of those before."""

    resets: int = 0
    """How often the set of workers has changed."""
    workers: int = 0
    """Of the set before."""
    images_seen: int = 0
    """When it ended; those after the commit are lost."""
    minibatches: list[tuple[float, int]] = field(default_factory=list)
    """(epoch from which on, kn) of each."""
    baselines: dict[tuple[int, int], Baseline] = field(default_factory=dict)
    """By micro-batches of a step and pixels of a side."""
    totals: Totals = field(default_factory=Totals)
    owner: Owner | None = None
    """Who had the run directory."""


class Leaves(Preempted):
    """This worker does, for its host is about to go: no end of the run, which the others go on with."""

    everyones = False


class Kept:
    """One worker's, for as long as its process lives."""

    def __init__(self, *, every_steps: int) -> None:
        """
        Args:
            every_steps: between two commits.
        """
        self.past = Past()
        self._every_steps = every_steps
        self._copy = HostCopy()
        self._commit: tuple[Manifest, dict[str, Any]] | None = None
        self._lived = False
        self.rank = 0
        """In this set of workers, or the last."""
        self.among_workers = False
        """Whether there is a set of workers that all have the last commit."""

    @contextmanager
    def entering(self, rank: int) -> Iterator[None]:
        """Within, there may be a set of workers; from when it trains, what ends the run does so to all of them."""
        self.rank = rank
        try:
            yield
        except (PeerLost, WorkersChange):
            self.among_workers = False
            raise

    def meet(self, comm: Comm) -> Checkpoint | None:
        """The last commit of all that anybody here has; None where there is none yet. Collective.

        Afterwards `past` is the same on all workers.
        """
        step = self._commit[0].step if self._commit else -1
        told = comm.gather((self._lived, step, self.past.resets), "commits")
        latest = max(range(comm.size), key=lambda rank: (told[rank][1], -rank))
        mine = (self.past, self._checkpoint()) if comm.rank == latest else None
        found = comm.gather(mine, "commit")[latest]
        assert found is not None
        self.past, checkpoint = found
        if any(lived for lived, *_ in told):
            self.past.resets = max(resets for *_, resets in told) + 1
        self._lived = True
        return checkpoint

    def begin(self, comm: Comm, parts: Parts, belongs: Manifest, hosts: Hosts) -> "Committing":
        """In this set of workers, with these parts; the state as it is now is committed first. Collective."""
        self.past.workers = comm.size
        committing = Committing(self, comm, parts, belongs, hosts)
        committing.commit()
        self.among_workers = True
        return committing

    def keep(self, parts: Parts, belongs: Manifest) -> None:
        copied = self._copy.of(parts.state.tensors())
        self._commit = checkpoints.manifest(belongs, parts.state), copied

    def save(self, folder: Path) -> int | None:
        """Write the commit down as a checkpoint, unless there is one as new. The step that it is of; None without one.

        Raises:
            CheckpointError: it cannot be written.
        """
        if self._commit is None:
            return None
        manifest, tensors = self._commit
        store.save(folder, tensors, manifest)
        return manifest.step

    def due(self, step: int) -> bool:
        return step % self._every_steps == 0

    def _checkpoint(self) -> Checkpoint | None:
        if self._commit is None:
            return None
        manifest, tensors = self._commit
        file = BytesIO()
        torch.save(tensors, file)
        return Checkpoint(Path("the last commit"), manifest, file.getvalue())


class Committing:
    """Within one set of workers."""

    def __init__(self, kept: Kept, comm: Comm, parts: Parts, belongs: Manifest, hosts: Hosts) -> None:
        self._kept, self._comm, self._parts, self._belongs, self._hosts = kept, comm, parts, belongs, hosts

    def step_done(self, *, now: bool) -> None:
        """Commit where it is due, or `now`, and look whether hosts have come or gone. Collective at the same steps.

        Raises:
            WorkersChange: they have.
        """
        state = self._parts.state
        self._kept.past.images_seen = state.images_seen
        if now or self._kept.due(state.step):
            self.commit()
            self._hosts.check()

    def look_out_at_the_end(self) -> None:
        """After the last step: those who are on their way must find somebody.

        Raises:
            WorkersChange: there are some.
        """
        if self._parts.over:
            self.commit()
            self._hosts.check_at_the_end()

    def commit(self) -> None:
        """Every worker keeps rank 0's statistics of batch norm, which are the run's: rank 0 may be the next to go."""
        state = self._parts.state
        share_statistics(state.model, self._comm)
        if state.average:
            share_statistics(state.average, self._comm)
        self._kept.keep(self._parts, self._belongs)
        self._kept.past.images_seen = state.images_seen
