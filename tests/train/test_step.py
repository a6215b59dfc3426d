"""One step, against the same step written out by hand."""

from copy import deepcopy

import pytest
import torch
from torch import nn
from torch.nn import functional

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.model.build import build
from hvdtrain.model.groups import decay_groups
from hvdtrain.optim.build import sgd
from hvdtrain.train.state import TrainState
from hvdtrain.train.step import Arithmetic, train_step

DOUBLE = Arithmetic(torch.float64, None, channels_last=True)
DECAY, MOMENTUM = 0.01, 0.9


def state(norm: str = "none", dtype: torch.dtype = torch.float64, *, channels_last: bool = True) -> TrainState:
    torch.manual_seed(0)
    model = build("resnet8", classes=5, norm=norm).to(dtype)
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return TrainState(model, sgd(decay_groups(model, DECAY), lr=9, momentum=MOMENTUM))


def batch(n: int = 8, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 16, 16, generator=generator).contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.randint(5, (n,), generator=generator), images_seen=n)


def half(of: Batch, which: int) -> Batch:
    n = len(of.labels) // 2
    part = slice(which * n, (which + 1) * n)
    return Batch(of.images[part], of.labels[part], of.images_seen)


def step(of: TrainState, on: Batch, comm: SoloComm | None = None, *, lr: float = 0.1, global_batch: int = 8) -> float:
    buckets = GradientBuckets(of.model.parameters(), comm, 10_000) if comm else None
    comm = comm or SoloComm()
    return float(train_step(of, on, lr=lr, global_batch=global_batch, arithmetic=DOUBLE, comm=comm, buckets=buckets))


def gradients(of: TrainState) -> list[torch.Tensor]:
    return [parameter.grad for parameter in of.model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("with_buckets", [True, False])
def test_steps_are_those_of_plain_pytorch(norm: str, with_buckets: bool) -> None:
    ours = state(norm)
    buckets = GradientBuckets(ours.model.parameters(), SoloComm(), 10_000) if with_buckets else None
    twin = state(norm).model
    norms = {id(p) for m in twin.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters()}
    velocity = {p: torch.zeros_like(p) for p in twin.parameters()}
    for number, lr in enumerate((0.1, 0.1, 0.02)):
        on = batch(seed=number)
        loss = train_step(ours, on, lr=lr, global_batch=8, arithmetic=DOUBLE, comm=SoloComm(), buckets=buckets)
        twin.zero_grad()
        wanted = functional.cross_entropy(twin(on.images.double()), on.labels)
        wanted.backward()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            for p in twin.parameters():
                assert p.grad is not None
                gradient = p.grad + (0 if id(p) in norms else DECAY) * p
                velocity[p] = MOMENTUM * velocity[p] + gradient
                p -= lr * (gradient + MOMENTUM * velocity[p])
        assert float(loss) == pytest.approx(8 * float(wanted.detach()), rel=1e-12)
    for a, b in zip(ours.model.state_dict().values(), twin.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-13)


def test_the_loss_is_the_sum_over_this_workers_images_and_holds_no_graph() -> None:
    on = batch()
    with torch.no_grad():
        logits = state().model(on.images.double())
        wanted = sum(float(functional.cross_entropy(logits[i : i + 1], on.labels[i : i + 1])) for i in range(8))
    ours = state()
    loss = train_step(ours, on, lr=0.1, global_batch=64, arithmetic=DOUBLE, comm=SoloComm(), buckets=None)
    assert not loss.requires_grad
    assert float(loss) == pytest.approx(wanted)


def test_the_gradients_of_two_half_batches_add_up_to_the_whole_ones() -> None:
    on, workers, whole = batch(), [state(), state()], state()
    for which, worker in enumerate(workers):
        step(worker, half(on, which), SoloComm(), lr=0)
    step(whole, on, SoloComm(), lr=0)
    for first, second, both in zip(*map(gradients, (*workers, whole)), strict=True):
        assert float(both.abs().max()) > 0
        torch.testing.assert_close(first + second, both, rtol=1e-10, atol=1e-14)


class Beside(SoloComm):
    """One of two workers; the other has already left its buckets here."""

    size = 2

    def __init__(self, others: dict[str, torch.Tensor]) -> None:
        self.others = others

    def start_sum(self, tensor: torch.Tensor, name: str) -> None:
        if name in self.others:
            tensor += self.others[name]
        else:
            self.others[name] = tensor.clone()


def test_two_workers_with_half_a_batch_step_as_one_with_the_whole() -> None:
    on, whole, left = batch(), state(), {}
    step(state(), half(on, 1), Beside(left))
    worker = state()
    step(worker, half(on, 0), Beside(left))
    step(whole, on, SoloComm())
    for ours, theirs in zip(worker.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-13)


def without(of: Batch, lost: set[int]) -> Batch:
    """The batch as it comes when some of its images cannot be decoded."""
    kept = [i for i in range(len(of.labels)) if i not in lost]
    return Batch(of.images[kept], of.labels[kept], of.images_seen, skipped=len(lost))


def assert_same_weights(ours: TrainState, theirs: TrainState) -> None:
    for a, b in zip(ours.model.parameters(), theirs.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("lost", [(set(), {1}), ({0, 1, 2}, {3}), ({0, 1, 2, 3}, set()), (set(), {0, 1, 2, 3})])
def test_the_gradient_is_the_mean_over_the_images_that_are_there(lost: tuple[set[int], set[int]]) -> None:
    """Whoever lacks them, and even where a worker has none left."""
    on = batch()
    left: dict[str, torch.Tensor] = {}
    step(state(), without(half(on, 1), lost[1]), Beside(left))
    worker, whole = state(), state()
    step(worker, without(half(on, 0), lost[0]), Beside(left))
    there = without(on, lost[0] | {4 + i for i in lost[1]})
    step(whole, Batch(there.images, there.labels, 8), SoloComm(), global_batch=len(there.labels))
    assert_same_weights(worker, whole)


@pytest.mark.parametrize("comm", [SoloComm(), None])
def test_one_worker_makes_up_for_lost_images_with_buckets_and_without(comm: SoloComm | None) -> None:
    there = without(batch(), {2, 5})
    worker, whole = state(), state()
    step(worker, there, comm)
    step(whole, Batch(there.images, there.labels, 8), comm, global_batch=6)
    assert_same_weights(worker, whole)


def test_a_step_without_any_image_moves_by_momentum_and_decay_alone() -> None:
    ours = state()
    loss = train_step(
        ours,
        without(batch(), set(range(8))),
        lr=0.1,
        global_batch=8,
        arithmetic=DOUBLE,
        comm=SoloComm(),
        buckets=GradientBuckets(ours.model.parameters(), SoloComm(), 10_000),
    )
    assert float(loss) == 0
    fresh = state()
    for a, b, grad in zip(ours.model.parameters(), fresh.model.parameters(), gradients(ours), strict=True):
        assert bool(a.isfinite().all())
        moved = float((a - b).detach().abs().max())
        assert moved <= 0.1 * DECAY * (1 + MOMENTUM) * float(b.detach().abs().max()) + 1e-15
        assert grad.shape == a.shape


def test_the_rate_is_the_one_that_is_given() -> None:
    ours = state()
    before = [p.detach().clone() for p in ours.model.parameters()]
    step(ours, batch(), lr=0)
    assert all(torch.equal(a, b) for a, b in zip(before, ours.model.parameters(), strict=True))
    step(ours, batch(), lr=0.1)
    assert not torch.equal(before[0], next(ours.model.parameters()))
    assert {group["lr"] for group in ours.optimizer.param_groups} == {0.1}


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("given", [torch.channels_last, torch.contiguous_format])
def test_images_reach_the_model_in_its_own_order_and_type(channels_last: bool, given: torch.memory_format) -> None:
    seen: list[torch.Tensor] = []
    model = nn.Sequential(nn.Flatten())
    model.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    images = torch.randn(2, 3, 4, 4).contiguous(memory_format=given)
    Arithmetic(torch.float64, None, channels_last).forward(model, images)
    assert seen[0].dtype == torch.float64
    order = torch.channels_last if channels_last else torch.contiguous_format
    assert seen[0].is_contiguous(memory_format=order)
    assert torch.equal(seen[0], images.double())


def test_bf16_computes_in_bf16_and_answers_in_float32() -> None:
    model, seen = nn.Sequential(nn.Flatten(), nn.Linear(48, 3)), []
    model[1].register_forward_hook(lambda *hooked: seen.append(hooked[2].dtype))
    logits = Arithmetic(torch.float32, torch.bfloat16, True).forward(model, torch.randn(2, 3, 4, 4))
    assert seen == [torch.bfloat16]
    assert logits.dtype == torch.float32
    assert model[1].weight.dtype == torch.float32


def test_a_state_goes_through_its_tensors_and_back() -> None:
    ours, other = state("batch"), state("batch")
    for seed in (1, 2):
        step(ours, batch(seed=seed))
    other.load(deepcopy(ours.tensors()), images_seen=16, step=2)  # as from a file
    assert (other.images_seen, other.step) == (16, 2)
    for worker in (ours, other):
        step(worker, batch(seed=3))
    for a, b in zip(ours.model.state_dict().values(), other.model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
