"""Two workers' gradients summed by the buckets and by Horovod's own optimiser: the same numbers."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hvdtrain.train.step import Objective

from ..train.workers import Worker, assert_close, assert_equal, joined, state
from .conftest import TIMEOUT_SECONDS, command, root_variables
from .sums import LARGE, MICRO_BATCHES, STEPS, minibatch

pytestmark = pytest.mark.multiproc

ROOT = Path(__file__).parents[2]
WORKERS = 2
LAUNCHERS = ("mpirun", "horovodrun --gloo")
REDUCERS = ("buckets", "horovod")
Found = list[dict[tuple[str, str], dict[str, Any]]]  # by rank, reducer and compression


@pytest.fixture(scope="module", params=LAUNCHERS)
def everyone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Found:
    folder = tmp_path_factory.mktemp("sums")
    ran = subprocess.run(
        [*command(request.param, WORKERS), sys.executable, "-m", "tests.multiproc.sums", str(folder), str(WORKERS)],
        cwd=ROOT,
        env={**os.environ, **root_variables(), "OMPI_MCA_mpi_yield_when_idle": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout
    return [torch.load(folder / f"rank-{rank}.pt") for rank in range(WORKERS)]


def reference(dtype: torch.dtype) -> Iterator[Worker]:
    """One worker with all images that are there, after each step."""
    worker = Worker(state(dtype=dtype))
    for step in range(STEPS):
        there = joined(minibatch(step, WORKERS))
        worker.objective = Objective(max(1, len(there.labels)))
        worker.step(there)
        yield worker


@pytest.mark.parametrize("reducer", REDUCERS)
def test_two_workers_of_two_micro_batches_step_as_one_with_the_whole_minibatch(everyone: Found, reducer: str) -> None:
    for step, worker in enumerate(reference(torch.float64)):
        for found in everyone:
            assert_close(found[reducer, "none"]["weights"][step], worker.weights)


def test_both_round_alike_on_the_way(everyone: Found) -> None:
    """Each worker's micro-batches are added up and rounded, their sum is rounded: by both the same to the last bit."""
    for found in everyone:
        for step in range(STEPS):
            assert_equal(found["buckets", "fp16"]["weights"][step], found["horovod", "fp16"]["weights"][step])
            assert_equal(found["buckets", "fp16"]["weights"][step], everyone[0]["buckets", "fp16"]["weights"][step])


@pytest.mark.parametrize("reducer", REDUCERS)
def test_half_precision_on_the_way_is_the_sum_to_its_precision(everyone: Found, reducer: str) -> None:
    """In the first step: later ones have other weights."""
    exact = next(reference(torch.float32)).gradient
    for found in everyone:
        gradients = found[reducer, "fp16"]["gradients"]
        assert 0 < (gradients[0] - exact).norm() <= 2**-10 * exact.norm()
        assert [bool(gradient.any()) for gradient in gradients] == [True, True, False, True]


@pytest.mark.parametrize("reducer", REDUCERS)
def test_a_sum_that_half_precision_cannot_hold_comes_back_infinite_on_all(everyone: Found, reducer: str) -> None:
    """Whatever sums it, MPI or Gloo."""
    for found in everyone:
        assert set(found[reducer, "none"]["large"].tolist()) == {float(WORKERS * MICRO_BATCHES * LARGE)}
        assert set(found[reducer, "fp16"]["large"].tolist()) == {torch.inf}


@pytest.mark.parametrize("compression", ["none", "fp16"])
@pytest.mark.parametrize("reducer", REDUCERS)
def test_lost_images_are_counted_over_workers_and_micro_batches(
    everyone: Found, reducer: str, compression: str
) -> None:
    for found in everyone:
        assert float(found[reducer, compression]["skipped"]) == MICRO_BATCHES * (1 + 2)


@pytest.mark.parametrize("compression", ["none", "fp16"])
@pytest.mark.parametrize("reducer", REDUCERS)
def test_in_silence_everyone_steps_alone(everyone: Found, reducer: str, compression: str) -> None:
    """And the steps after it, in the tests above, are summed as if it had never been."""
    for rank, found in enumerate(everyone):
        silent = found[reducer, compression]
        assert set(silent["silent"].tolist()) == {float(MICRO_BATCHES * (rank + 1))}
        assert float(silent["skipped silently"]) == MICRO_BATCHES * (rank + 1)
