"""Who sums gradients: all have one face, and alone all do as plain autograd. With others: multiproc/test_reducer."""

import inspect
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.reducer import HorovodReducer, LocalReducer, Reducer
from hvdtrain.train.step import Objective

from ..multiproc.sums import LARGE, MICRO_BATCHES, STEPS, minibatch
from ..train.workers import Worker, assert_close, batch, cut, joined, state, without

ROOT = Path(__file__).parents[2]
Found = dict[tuple[str, str], dict[str, Any]]  # by reducer and compression


def test_all_reducers_have_the_same_face() -> None:
    face = {name for name, _ in inspect.getmembers(Reducer, inspect.isfunction) if not name.startswith("_")}
    assert face == {"start", "skip", "doubt", "wait", "finite", "scale", "silent"}
    for reducer in (GradientBuckets, HorovodReducer, LocalReducer):
        for name in face:
            ours, theirs = (list(inspect.signature(getattr(cls, name)).parameters) for cls in (reducer, Reducer))
            assert ours == theirs


@pytest.mark.parametrize("lost", [[], [3, 5], range(4), range(4, 8), range(8)])
def test_one_worker_needs_no_buckets_to_take_the_same_steps(lost: list[int]) -> None:
    ours = state("batch")
    local, bucketed = Worker(ours, reducer=LocalReducer(ours.model)), Worker(state("batch"), micro_batches=2)
    for step in range(3):
        micro_batches = cut(batch(seed=step), 2)
        if step == 1:
            micro_batches = [
                without(each, {i - 4 * n for i in lost} & set(range(4))) for n, each in enumerate(micro_batches)
            ]
        assert local.step(*micro_batches) == bucketed.step(*micro_batches)
    assert_close(local.weights, bucketed.weights)


def test_one_workers_gradients_are_those_of_plain_autograd_over_micro_batches() -> None:
    model, twin = (nn.Linear(3, 2, dtype=torch.float64) for _ in range(2))
    twin.load_state_dict(model.state_dict())
    reducer = LocalReducer(model)
    assert reducer.sizes == []
    for step in range(2):
        reducer.start()
        assert all(parameter.grad is None for parameter in model.parameters())  # nothing to add the first ones to
        twin.zero_grad()
        for lost, x in ((step, 1.0), (0, 2.0), (3, -5.0)):
            reducer.skip(lost)
            for of in (model, twin):
                of(torch.full((1, 3), x, dtype=torch.float64)).square().sum().backward()
        skipped = reducer.wait()
        assert float(skipped) == step + 3
        for factor in (1.0, 8 / (8 - skipped)):
            reducer.scale(torch.as_tensor(factor))
            for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
                assert torch.equal(ours.grad, float(factor) * theirs.grad)  # type: ignore[arg-type, operator]


def test_a_weight_of_one_worker_that_got_no_gradient_has_zeros() -> None:
    used, unused = nn.Linear(2, 1), nn.Linear(2, 1)
    reducer = LocalReducer(nn.ModuleList([used, unused]))
    reducer.start()
    used(torch.ones(1, 2)).sum().backward()
    reducer.wait()
    assert used.weight.grad.tolist() == [[1, 1]]  # type: ignore[union-attr]
    assert unused.weight.grad.tolist() == [[0, 0]]  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Found:
    """What one worker with real Horovod writes down, in a process of its own: Horovod starts but once in each."""
    folder = tmp_path_factory.mktemp("alone")
    command = [sys.executable, "-m", "tests.multiproc.sums", str(folder), "1"]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert ran.returncode == 0, ran.stderr
    found: Found = torch.load(folder / "rank-0.pt")
    return found


def test_alone_horovods_optimizer_steps_as_one_worker_without_it(alone: Found) -> None:
    """Over micro-batches and gaps in them."""
    reference = Worker(state())
    for step in range(STEPS):
        there = joined(minibatch(step, workers=1))
        reference.objective = Objective(len(there.labels))
        reference.step(there)
        assert_close(alone["horovod", "none"]["weights"][step], reference.weights)


def test_alone_the_buckets_round_as_they_do_among_others_and_horovod_does_not(
    alone: Found,
) -> None:
    first = {case: found["gradients"][0] for case, found in alone.items()}
    assert torch.equal(first["buckets", "fp16"], first["horovod", "fp16"].half().float())
    assert torch.equal(first["buckets", "none"], first["horovod", "none"])


@pytest.mark.parametrize("compression", ["none", "fp16"])
@pytest.mark.parametrize("reducer", ["buckets", "horovod"])
def test_lost_images_are_counted_over_micro_batches(alone: Found, reducer: str, compression: str) -> None:
    skipped = alone[reducer, compression]["skipped"]
    assert skipped.shape == ()
    assert float(skipped) == MICRO_BATCHES
    assert float(alone[reducer, compression]["large"].max()) == MICRO_BATCHES * LARGE
