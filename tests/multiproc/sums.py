"""A worker that steps with gradients summed by Horovod in both ways, and writes down what came of it.

python -m tests.multiproc.sums FOLDER WORKERS
"""

import os
import sys
from itertools import product
from pathlib import Path
from typing import Any

import torch

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import Comm, HorovodComm
from hvdtrain.distributed.reducer import HorovodReducer, LocalReducer, Reducer
from hvdtrain.distributed.topology import from_environment

from ..train.workers import BUCKET_BYTES, Worker, batch, cut, state, without

MICRO_BATCHES, N = 2, 4
STEPS = 4
LARGE = 20_000  # so much from each of two micro-batches: two workers' sum is more than half precision holds


def minibatch(step: int, workers: int) -> list[Batch]:
    """The micro-batches of all workers, in the stream's order: complete, with gaps, empty, and complete again.

    The one where there is only one keeps its images: Horovod alone leaves it without any gradient.
    """
    parts = cut(batch(N * MICRO_BATCHES * workers, seed=step), MICRO_BATCHES * workers)
    if step == 1:
        parts[0], parts[-1] = without(parts[0], {1}), without(parts[-1], range(N))
    return [without(part, range(N)) for part in parts] if step == 2 and workers > 1 else parts


def written(worker: Worker, rank: int, workers: int) -> dict[str, Any]:
    """Gradients where nothing was summed; gradients and weights after each step; then the sum of large gradients, and
    of images counted as lost."""
    gradients, weights = [], []
    with worker.reducer.silent():
        for _ in range(2):  # the second step forgets the first one's
            own, skipped_here = _of_equal_numbers(worker, LocalReducer(worker.state.model), rank + 1.0, skip=rank + 1)
    for step in range(STEPS):
        worker.step(*minibatch(step, workers)[rank::workers])
        gradients.append(worker.gradient.clone())
        weights.append(worker.weights)
    large, skipped = _of_equal_numbers(worker, worker.reducer, LARGE, skip=rank + 1)
    return {
        "silent": own,
        "skipped silently": skipped_here,
        "gradients": gradients,
        "weights": weights,
        "large": large,
        "skipped": skipped,
    }


def _of_equal_numbers(
    worker: Worker, reducer: Reducer, number: float, *, skip: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """The gradient of a step in which every micro-batch gives every weight the same one, and what was skipped."""
    parameters = list(worker.state.model.parameters())
    reducer.start()
    for _ in range(MICRO_BATCHES):
        reducer.skip(skip)
        torch.stack([number * parameter.sum() for parameter in parameters]).sum().backward()
    skipped = reducer.wait()
    return worker.gradient.clone(), skipped.clone()


def worker(name: str, comm: Comm, compression: str) -> Worker:
    """In float64 where nothing is rounded on the way."""
    half = compression == "fp16"
    of = state(dtype=torch.float32 if half else torch.float64, order=torch.contiguous_format)
    reducer: Reducer
    if name == "horovod":
        reducer = HorovodReducer(of.model, comm, micro_batches=MICRO_BATCHES, compression=compression)
    else:
        reducer = GradientBuckets(
            of.model.parameters(),
            comm,
            BUCKET_BYTES,
            micro_batches=MICRO_BATCHES,
            wire=torch.float16 if half else None,
        )
    return Worker(of, kn=N * MICRO_BATCHES * comm.size, reducer=reducer)


def main() -> None:
    folder, _ = sys.argv[1:]
    torch.set_num_threads(1)
    comm = HorovodComm(from_environment(os.environ), activity=Activity())
    found = {
        (name, compression): written(worker(name, comm, compression), comm.rank, comm.size)
        for name, compression in product(("buckets", "horovod"), ("none", "fp16"))
    }
    torch.save(found, Path(folder) / f"rank-{comm.rank}.pt")
    comm.close()


if __name__ == "__main__":
    main()
