"""Steps whose numbers are not finite: all workers see them at the same step, and do what the configuration says."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.activity import Activity
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import NotFinite
from hvdtrain.events import EventLog
from hvdtrain.metrics.registry import Metrics
from hvdtrain.train.doubt import Doubt, GoBack, Policy
from hvdtrain.train.finite import Finite
from hvdtrain.train.record import Record
from hvdtrain.train.state import TrainState

from .workers import Worker, assert_equal, batch, beside, cut, state, step_together

CPU = torch.device("cpu")


def blind(whole: Batch) -> Batch:
    """With pictures that make every number NaN."""
    return Batch(whole.images * math.nan, whole.labels, whole.images_seen)


def all_tensors(of: TrainState) -> dict[str, torch.Tensor]:
    momenta = of.optimizer.state_dict()["state"]
    found = {f"momentum.{number}": values["momentum_buffer"] for number, values in momenta.items()}
    return {name: tensor.clone() for name, tensor in {**found, **of.model.state_dict()}.items()}


@pytest.mark.parametrize("victim", [0, 1])
@pytest.mark.parametrize("norm", ["none", "batch"])
def test_a_loss_of_one_worker_is_known_to_both_at_once_and_leaves_no_trace(victim: int, norm: str) -> None:
    """Not in batch norm's statistics either, which forward has made NaN by then."""
    workers = [Worker(state(norm, torch.float32), comm) for comm in beside(2)]
    step_together(workers, [[half] for half in cut(batch(), 2)])
    before = [all_tensors(worker.state) for worker in workers]
    parts = cut(batch(seed=1), 2)
    parts[victim] = blind(parts[victim])
    for worker in workers:
        assert worker.state.finite.failed(now=True) is None
    step_together(workers, [[part] for part in parts])
    for rank, (worker, was) in enumerate(zip(workers, before, strict=True)):
        failed = worker.state.finite.failed(now=True)
        assert failed is not None
        assert math.isfinite(float(failed.loss)) == (rank != victim)
        assert_equal(all_tensors(worker.state), was)
        assert worker.state.finite.failed(now=True) is None  # told once

    step_together(workers, [[half] for half in cut(batch(seed=2), 2)])
    assert [worker.state.finite.failed(now=True) for worker in workers] == [None, None]
    left, right = (worker.weights for worker in workers)
    if norm == "none":
        assert_equal(left, right)
    assert all(bool(tensor.isfinite().all()) for tensor in left.values())


@pytest.mark.parametrize("value", [math.inf, math.nan, 1e30])
def test_a_gradient_counts_where_the_loss_is_finite(value: float) -> None:
    """1e30 is a number, but the square of none: such a norm is a divergence too."""
    workers = [Worker(state(dtype=torch.float32), comm) for comm in beside(2)]
    hook = workers[1].state.model.get_parameter("head.weight").register_hook(lambda gradient: gradient * 0 + value)
    losses = step_together(workers, [[half] for half in cut(batch(), 2)])
    hook.remove()
    assert all(map(math.isfinite, losses))
    failed = [worker.state.finite.failed(now=True) for worker in workers]
    assert all(each is not None and math.isfinite(float(each.loss)) for each in failed)
    assert_equal(workers[0].weights, workers[1].weights)


def test_a_worker_alone_sees_its_own() -> None:
    from hvdtrain.distributed.reducer import LocalReducer

    of = state(dtype=torch.float32)
    worker = Worker(of, reducer=LocalReducer(of.model))
    worker.step(batch())
    assert of.finite.failed(now=True) is None
    before = worker.weights
    worker.step(blind(batch()))
    assert of.finite.failed(now=True) is not None
    assert_equal(worker.weights, before)


class OnGpu:
    """The answer of a GPU: True or False to whoever waits for it."""

    is_cuda = True

    def __init__(self, finite: bool) -> None:
        self.finite, self.asked = finite, 0

    def __bool__(self) -> bool:
        self.asked += 1
        return self.finite


def test_on_a_gpu_an_answer_is_read_a_step_later_unless_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hvdtrain.train.finite.answer_of", lambda answer: answer.__bool__)
    finite, loss = Finite(certain=False), torch.zeros(())
    answers = [OnGpu(True), OnGpu(False), OnGpu(True)]
    assert finite.allows(1, answers[0], loss)  # type: ignore[arg-type]
    assert finite.failed(now=False) is None
    assert finite.allows(2, answers[1], loss)  # type: ignore[arg-type]
    assert finite.failed(now=False) is None
    assert [answer.asked for answer in answers] == [1, 0, 0]
    assert finite.allows(3, answers[2], loss)  # type: ignore[arg-type]
    failed = finite.failed(now=False)
    assert failed is not None
    assert failed.step == 2
    assert finite.failed(now=True) is None
    assert answers[2].asked == 1

    certain = Finite(certain=True)
    assert not certain.allows(1, OnGpu(False), loss)  # type: ignore[arg-type]
    assert certain.failed(now=False) is not None


@pytest.fixture
def told(tmp_path: Path) -> Iterator[tuple[Record, Callable[[], list[dict[str, Any]]]]]:
    metrics = Metrics(rank=0, run_info={"run": "r"}, worker_info={"host": "h"})
    file = tmp_path / "events.jsonl"
    record = Record(metrics, Activity(), 0, images_per_epoch=100, events=EventLog(file))
    yield record, lambda: [json.loads(line) for line in file.read_text().splitlines()]
    assert record.events is not None
    record.events.close()


def settle(doubt: Doubt, of: TrainState, record: Record, step: int, *, loss: float = math.nan) -> None:
    of.finite.allows(step, torch.tensor(False), torch.tensor(loss))
    doubt.settle(of, SoloComm(), record, now=True)


def made(policy: Policy, most_skipped: int = 2) -> Doubt:
    return Doubt(policy, most_skipped=most_skipped)


def test_stop_ends_the_run_with_whose_loss_it_was(told: Any) -> None:
    record, events = told
    with pytest.raises(NotFinite, match=r"^step 7: the loss of rank 0 is not finite → .*optim\.base_lr"):
        settle(made("stop"), state(), record, 7)
    (event,) = events()
    assert (event["event"], event["step"], event["what"], event["ranks"]) == ("not_finite", 7, "loss", [0])
    assert event["action"] == "stop"
    sample = record.metrics.registry.get_sample_value
    assert sample("hvdtrain_steps_not_finite_total", {"action": "stop"}) == 1


def test_a_gradient_is_told_from_a_loss(told: Any) -> None:
    record, events = told
    with pytest.raises(NotFinite, match="step 7: the norm of the gradient is not finite"):
        settle(made("stop"), state(), record, 7, loss=1.5)
    assert (events()[0]["what"], events()[0]["ranks"]) == ("gradient", [])


def test_skip_goes_on_but_not_for_ever(told: Any) -> None:
    record, events = told
    doubt, of = made("skip", most_skipped=2), state()
    for step in (3, 4, 6, 7):  # two in a row, and two again
        settle(doubt, of, record, step)
    with pytest.raises(NotFinite, match=r"step 8: .*, number 3 in a row: expected .* train\.most_skipped = 2"):
        settle(doubt, of, record, 8)
    assert [event["action"] for event in events()] == ["skip"] * 4 + ["stop"]


def test_rewind_goes_back_once_for_each_step(told: Any) -> None:
    record, events = told
    doubt, of = made("rewind"), state()
    for step in (5, 9):
        with pytest.raises(GoBack, match=f"step {step}"):
            settle(doubt, of, record, step)
    with pytest.raises(NotFinite, match=r"step 5: .* again after going back") as raised:
        settle(doubt, of, record, 5)
    assert not isinstance(raised.value, GoBack)
    assert [event["action"] for event in events()] == ["rewind", "rewind", "stop"]


def test_a_state_that_is_loaded_has_forgotten_its_doubts() -> None:
    of = state()
    of.finite.allows(3, torch.tensor(False), torch.zeros(()))
    of.load(of.tensors())
    assert of.finite.failed(now=True) is None
