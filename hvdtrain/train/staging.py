"""Before the first step: one worker of each node brings the node's images near, while all of them watch."""

import math
import os
import shutil
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from hvdtrain.config.schema import Config
from hvdtrain.data import stage as staging
from hvdtrain.data.index import Index
from hvdtrain.data.loader import READ_AHEAD
from hvdtrain.data.progress import progress
from hvdtrain.distributed import node
from hvdtrain.distributed.comm import Comm
from hvdtrain.errors import EnvironmentFault, HvdtrainError
from hvdtrain.log import logger
from hvdtrain.train import recipe

WATCH_SECONDS = 0.5  # between two looks; by looking together nobody waits so long that Horovod calls it a stall
UNIT = 1_000_000  # bytes


class Copying(threading.Thread):
    """One node's copying, in the background."""

    def __init__(self, jobs: list[tuple[dict[str, int], Path, Path]]) -> None:
        super().__init__(name="staging", daemon=True)
        self.jobs = jobs  # files with their bytes, from where, to where
        self.bytes = 0
        self.failure: HvdtrainError | None = None
        self._lock = threading.Lock()

    def run(self) -> None:
        try:
            for wanted, source, target in self.jobs:
                staging.copy(wanted, source, target, self._advance)
        except HvdtrainError as error:
            self.failure = error

    def _advance(self, size: int) -> None:
        with self._lock:
            self.bytes += size


@dataclass(frozen=True)
class Staged:
    """A node's own images."""

    folder: Path
    roots: dict[str, Path]  # of train and val
    removes: bool  # whether it is this worker that removes them

    def remove(self) -> None:
        if self.removes:
            shutil.rmtree(self.folder, ignore_errors=True)


def stage(config: Config, comm: Comm, launcher: str, train: Index, val: Index, *, images_seen: int) -> Staged:
    """Copy what this node will read. Collective.

    Raises:
        DataError: a file cannot be copied.
        EnvironmentFault: there is no room for this node's images.
    """
    began = time.perf_counter()
    ranks = node.members(comm, launcher)
    near = staging.folder(config.data.stage_dir, os.environ) / f"hvdtrain-{config.run_name}"
    targets = {"train": near / f"train-{train.digest}", "val": near / f"val-{val.digest}"}
    copying: Copying | None = None
    failure: HvdtrainError | None = None
    if comm.rank == ranks[0]:
        rows = {
            "train": staging.training_rows(
                seed=config.seed,
                images=len(train),
                images_seen=images_seen,
                total_images=end_of_reading(config, comm.size, images=len(train), images_seen=images_seen),
                ranks=ranks,
                size=comm.size,
                batch_size=config.data.batch_size,
            ),
            "val": staging.evaluation_rows(
                images=len(val), ranks=ranks, size=comm.size, batch_size=config.evaluation.batch_size
            ),
        }
        indices = {"train": train, "val": val}
        jobs = []
        try:
            for part, target in targets.items():
                root = config.data.dir / part
                wanted = staging.files(indices[part], rows[part], root)
                jobs.append((staging.missing(wanted, target), root, target))
                target.mkdir(parents=True, exist_ok=True)
            staging.check_space(sum(sum(wanted.values()) for wanted, _, _ in jobs), near)
            copying = Copying(jobs)
            copying.start()
        except HvdtrainError as error:
            failure = error
        except OSError as error:
            failure = EnvironmentFault(f"cannot stage images in {near}: {error}", remedy="set data.stage_dir")
    _watch(comm, copying, failure)
    if comm.rank == 0:
        logger.info("images staged in %s on every node, in %.0f s", near, time.perf_counter() - began)
    return Staged(near, targets, comm.rank == ranks[0])


def end_of_reading(config: Config, workers: int, *, images: int, images_seen: int) -> int:
    """The place of the stream before which all training images lie that a run may read: one that is not staged would
    count as broken.

    Args:
        images: of an epoch.
        images_seen: from where the run goes on.
    """
    global_batch, end = recipe.global_batch(config, workers), math.ceil(config.epochs * images)
    if images_seen >= end:
        return images_seen
    end += global_batch  # the last step begins before the end
    if config.metrics.baseline == "measured":
        measured = recipe.untimed_steps(config) + config.metrics.baseline_steps
        end = max(end, images_seen + measured * global_batch)
    ahead = config.data.prefetch + READ_AHEAD + 1  # micro-batches: in the decoder, before it, and behind it
    return end + ahead * workers * config.data.batch_size


def _watch(comm: Comm, copying: Copying | None, failure: HvdtrainError | None) -> None:
    """Return when every node has its images; end everywhere when one of them failed."""
    total = sum(sum(wanted.values()) for wanted, _, _ in copying.jobs) if copying else 0
    (all_bytes,) = comm.sum([float(total)], "bytes to stage")
    with progress("staging, MB", int(all_bytes) // UNIT) as advance:
        shown = 0
        while True:
            busy = copying is not None and copying.is_alive()
            if copying and not busy:
                failure = copying.failure
            done, working, failed = comm.sum(
                [float(copying.bytes if copying else 0), float(busy), float(failure is not None)], "staging"
            )
            if comm.rank == 0:
                advance(int(done) // UNIT - shown)
                shown = int(done) // UNIT
            if failed:
                raise _first(comm.gather(failure, "failures to stage"))
            if not working:
                return
            time.sleep(WATCH_SECONDS)


def _first(failures: list[HvdtrainError | None]) -> HvdtrainError:
    """For all to end with; rank 0 tells whose it is."""
    rank, failure = next((rank, failure) for rank, failure in enumerate(failures) if failure)
    whose = f"rank {rank}: " if len(failures) > 1 else ""
    return type(failure)(f"{whose}{failure.args[0]}", remedy=failure.remedy, everyones=True)
