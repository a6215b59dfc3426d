"""All that a run reads is staged. Every worker ends with the failure of the node that could not stage its images."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from hvdtrain.config.schema import Config
from hvdtrain.data.loader import Plan
from hvdtrain.distributed.comm import Comm, SoloComm
from hvdtrain.errors import DataError, EnvironmentFault, HvdtrainError
from hvdtrain.train import data as run_data
from hvdtrain.train.data import Data, Machine
from hvdtrain.train.staging import _watch, end_of_reading

from .workers import at_once, beside


def ended(comm: Comm, failure: HvdtrainError | None) -> HvdtrainError:
    with pytest.raises(HvdtrainError) as raised:
        _watch(comm, None, failure)
    return raised.value


def test_a_node_that_cannot_stage_ends_all_with_its_own_failure() -> None:
    failures = [None, EnvironmentFault("no room", remedy="more room"), DataError("no such file")]
    found = at_once(
        *(lambda c=comm, f=failure: ended(c, f) for comm, failure in zip(beside(3), failures, strict=True))  # type: ignore[misc]
    )
    assert [(type(each), str(each), each.everyones) for each in found] == [
        (EnvironmentFault, "rank 1: no room → more room", True)
    ] * 3


def test_a_worker_alone_needs_no_number() -> None:
    assert str(ended(SoloComm(), EnvironmentFault("no room"))) == "no room"


def config(folder: Path, decoder: str = "auto", *, n: int = 16, m: int = 4, k: int = 2, **data: Any) -> Config:
    return Config(
        run={"dir": folder / "runs"},
        model={"name": "resnet8"},
        data={"dir": folder, "image_size": 32, "batch_size": n, "decoder": decoder, **data},
        train={"global_batch_size": k * n * m},
        metrics={"baseline": "none"},
        optim={"warmup_epochs": 0, "decay_epochs": [0.5]},
        epochs=1,
    )


@pytest.mark.parametrize("decoder", ["dali", "pillow"])
@pytest.mark.parametrize("prefetch", [1, 3])
def test_all_that_is_read_to_the_end_of_the_last_step_and_ahead_is_staged(
    digits: Path, decoder: str, prefetch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A step has sixteen micro-batches, and the decoder takes more while the last one is computed."""
    taken, real = [0], run_data.training_plans

    def plans(*args: Any, **keywords: Any) -> Any:
        for plan in real(*args, **keywords):
            taken.append(plan.images_seen)
            yield plan

    monkeypatch.setattr(run_data, "training_plans", plans)
    given = config(digits, decoder, k=1, m=16, prefetch=prefetch)
    found = Data(given, SoloComm(), Machine(torch.device("cpu"), threads=1))
    steps = -(-len(found.train) // 256)
    *_, last = islice(found.training(0), 16 * steps)
    assert last.images_seen == 256 * steps
    assert isinstance(last.plan, Plan)
    assert taken[-1] <= end_of_reading(given, 1, images=len(found.train), images_seen=0)


def test_the_last_step_and_a_baseline_end_beyond_the_epochs(tmp_path: Path) -> None:
    given = config(tmp_path)
    assert end_of_reading(given, 2, images=900, images_seen=0) >= 900 - 900 % 128 + 128 + 3 * 32
    assert end_of_reading(given, 2, images=900, images_seen=1024) == 1024, "it is over"
    measured = given.model_copy(update={"metrics": Config().metrics.model_copy(update={"baseline": "measured"})})
    steps = measured.metrics.baseline_steps + given.data.prefetch + 1
    assert end_of_reading(measured, 2, images=900, images_seen=768) >= 768 + 128 * steps + 3 * 32
