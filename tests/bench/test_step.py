"""Loops take turns in real processes; each idea changes the buckets in the way that it says, and loses no gradient."""

import os
from collections.abc import Callable

import pytest
import torch

from hvdtrain.bench import ideas, loops, step
from hvdtrain.bench.step import Options
from hvdtrain.cli import main
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.train.build import Parts

SMALL = Options(model="resnet18", image=32, batch=2, precision="float32", steps=1)


@pytest.fixture(scope="module")
def parts() -> Parts:
    return loops._parts(loops.config(SMALL), SMALL, SoloComm())


@pytest.mark.parametrize("idea", [ideas.autograd_order, ideas.small_first, ideas.small_last])
def test_an_ideas_buckets_hold_every_gradient_once(
    parts: Parts, idea: Callable[[Parts, SoloComm, int], GradientBuckets]
) -> None:
    usual = GradientBuckets(parts.state.model.parameters(), SoloComm(), 2**22)
    buckets = idea(parts, SoloComm(), 2**22)
    held = [parameter for bucket in buckets._buckets for parameter, _ in bucket.views]
    assert len(held) == len(set(held)) == len(list(parts.state.model.parameters()))
    small = {ideas.small_first: 0, ideas.small_last: -1}
    if idea in small:
        assert buckets.sizes[small[idea]] < ideas.FIRST_BYTES + 2**16
        assert usual.sizes[small[idea]] > ideas.FIRST_BYTES + 2**16


def test_every_idea_is_a_contender_and_has_a_ratio() -> None:
    for name in ideas.IDEAS:
        assert f"ours-2 {name}" in step.CONTENDERS
        assert any(goal.bottom == f"ours-2 {name}" for goal in step.GOALS)


def test_an_unknown_contender_is_refused_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "step", "--contenders", "nobody"]) == 2
    assert capsys.readouterr().err.startswith("hvdtrain: --contenders nobody: expected some of bare, ours-1")


@pytest.mark.multiproc
def test_loops_of_one_process_and_of_two_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:
        for name in ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"):
            monkeypatch.setenv(name, "1")
    some = ("bare", "ours-1", "ours-2", "ours-2 with updates at once", "ours-2 without kept memory")
    threads = torch.get_num_threads()
    result = step.measure(Options(**{**vars(SMALL), "contenders": some}), rounds=2)
    assert torch.get_num_threads() == threads
    assert {name: len(values) for name, values in result.figures.items()} == dict.fromkeys(some, 2)
    assert all(value > 0 for values in result.figures.values() for value in values)
    assert "without kept memory: " in result.text()
