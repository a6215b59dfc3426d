"""What measuring a baseline leaves behind: a number, and nothing else."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hvdtrain.config.schema import Config
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.train import baseline
from hvdtrain.train.build import Parts, build
from hvdtrain.train.data import Machine
from hvdtrain.train.loop import take_step

CPU = torch.device("cpu")
STEPS, UNTIMED = 4, 2
ACTIVITY = Activity()


def built(digits: Path, **settings: Any) -> Parts:
    data = {"dir": digits, "image_size": 16, "batch_size": 4, "decoder": "pillow"}
    config = Config(data=data, model={"name": "resnet8"}, **settings)
    parts = build(config, SoloComm(), Machine(CPU, threads=1), bucket_bytes=10_000)
    batches = parts.data.training(0)
    for _ in range(2):  # a state in the middle of a run: momentum, statistics, a scale that has been used
        step, _loss = take_step(parts, SoloComm(), batches, parts.reducer, lr=0.1)
        parts.state.images_seen, parts.state.step = step.images_seen, parts.state.step + 1
    parts.clock.take()
    return parts


def everything(parts: Parts) -> dict[str, Any]:
    """All numbers of a state by their path, and where every generator stands."""
    state = parts.state
    found = dict(leaves(state.tensors()))
    found |= {"images seen": state.images_seen, "step": state.step, "overflown": state.overflown}
    found |= {"torch": torch.get_rng_state().tolist(), "numpy": str(np.random.get_state()), "python": random.getstate()}
    return found


def leaves(tree: Any, at: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, dict | list):
        for key, branch in tree.items() if isinstance(tree, dict) else enumerate(tree):
            yield from leaves(branch, f"{at}/{key}")
    else:
        yield at, tree.tolist() if isinstance(tree, torch.Tensor) else tree


SETTINGS: list[dict[str, Any]] = [
    {},
    {"precision": "fp16", "train": {"ema_decay": 0.9}},
    {"optim": {"name": "lars"}, "train": {"global_batch_size": 8}},
]


@pytest.mark.parametrize("settings", SETTINGS)
def test_it_changes_nothing_to_the_last_bit(digits: Path, settings: dict[str, Any]) -> None:
    parts = built(digits, **settings)
    before = everything(parts)
    baseline.measure(parts, SoloComm(), ACTIVITY, steps=STEPS, untimed=UNTIMED)
    after = everything(parts)
    assert {name: value for name, value in before.items() if after[name] != value} == {}
    assert after.keys() == before.keys()
    assert len([name for name in before if name.startswith("/optimizer/state")]) > 20  # there was something to change


def test_the_steps_after_it_are_those_without_it(digits: Path) -> None:
    """Momentum, statistics and the images' order included."""

    def losses(measured: bool) -> list[float]:
        parts = built(digits)
        if measured:
            baseline.measure(parts, SoloComm(), ACTIVITY, steps=STEPS, untimed=UNTIMED)
        batches = parts.data.training(parts.state.images_seen)
        return [float(take_step(parts, SoloComm(), batches, parts.reducer, lr=0.1)[1]) for _ in range(3)]

    assert losses(measured=True) == losses(measured=False)


def test_before_the_first_step_of_all_the_optimizer_has_no_state_again(digits: Path) -> None:
    data = {"dir": digits, "image_size": 16, "batch_size": 4, "decoder": "pillow"}
    parts = build(
        Config(data=data, model={"name": "resnet8"}), SoloComm(), Machine(CPU, threads=1), bucket_bytes=10_000
    )
    before = everything(parts)
    baseline.measure(parts, SoloComm(), ACTIVITY, steps=STEPS, untimed=UNTIMED)
    assert everything(parts) == before
    assert parts.state.optimizer.state_dict()["state"] == {}


def test_it_is_the_mean_of_the_timed_steps_and_says_of_what(digits: Path) -> None:
    found = baseline.measure(built(digits), SoloComm(), ACTIVITY, steps=STEPS, untimed=UNTIMED)
    assert (found.source, found.workers, found.samples) == ("measured", 1, STEPS)
    assert found.step_seconds == pytest.approx(sum(found.parts.values()))
    assert found.ranks == pytest.approx([found.step_seconds])
    assert found.parts["compute"] > 0
    assert found.parts["straggler"] == 0
    assert found.standard_error > 0
    assert found.together is not None
    assert found.communication is not None


def test_where_it_takes_long_the_log_says_how_to_do_without(
    digits: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit, said in ((60.0, False), (0.0, True)):
        monkeypatch.setattr(baseline, "LONG_SECONDS", limit)
        caplog.clear()
        with caplog.at_level("INFO", "hvdtrain"):
            baseline.measure(built(digits), SoloComm(), ACTIVITY, steps=2, untimed=1)
        (line,) = (line for line in caplog.messages if line.startswith("measuring one worker alone, 1 on a node"))
        assert line.endswith(" s; --metrics.baseline none leaves it out") == said


def test_no_time_of_it_is_left_for_the_run(digits: Path) -> None:
    parts = built(digits)
    baseline.measure(parts, SoloComm(), ACTIVITY, steps=STEPS, untimed=UNTIMED)
    assert len(parts.clock.take()) == 0
