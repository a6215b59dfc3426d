"""Gradients born in buckets: the same numbers as without, each bucket summed once a step, in the order of backward."""

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.nn import functional

from hvdtrain.distributed.buckets import ALIGNMENT_BYTES, GradientBuckets, plan
from hvdtrain.distributed.comm import SoloComm

KIB = 1024


class Doubling(SoloComm):
    """Two workers with equal gradients; remembers what was summed, and what was already waited for."""

    size = 2

    def __init__(self) -> None:
        self.started: list[str] = []
        self.travelled: list[torch.Tensor] = []
        self.waited: list[object] = []

    def start_sum(self, tensor: torch.Tensor, name: str) -> str:  # type: ignore[override]
        assert tensor.is_contiguous()
        self.started.append(name)
        self.travelled.append(tensor)
        tensor.mul_(2)
        return name

    def wait(self, handle: object) -> None:
        self.waited.append(handle)


def network(order: torch.memory_format = torch.contiguous_format, dtype: torch.dtype = torch.float32) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, bias=False),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1),
        nn.Flatten(),
        nn.Linear(16 * 36, 5),
    )
    return model.to(dtype).to(memory_format=order)  # type: ignore[call-overload, no-any-return]


def backward(model: nn.Module, seed: int = 1) -> None:
    generator = torch.Generator().manual_seed(seed)
    dtype = next(model.parameters()).dtype
    images = torch.randn(4, 3, 8, 8, generator=generator).to(dtype)
    if next(model.parameters()).is_contiguous(memory_format=torch.channels_last):
        images = images.contiguous(memory_format=torch.channels_last)
    functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 3])).backward()


def plain_gradients(make: Callable[[], nn.Module]) -> list[torch.Tensor]:
    model = make()
    backward(model, seed=1)
    return [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bucket_bytes", [1, KIB, 8 * KIB, 10**9])
def test_gradients_are_those_of_plain_autograd_to_the_last_bit(order: torch.memory_format, bucket_bytes: int) -> None:
    wanted = plain_gradients(lambda: network(order))
    model = network(order)
    buckets = GradientBuckets(model.parameters(), SoloComm(), bucket_bytes)
    for _ in range(2):  # a second step starts from empty buckets again
        buckets.start()
        backward(model)
        buckets.wait()
        for parameter, gradient in zip(model.parameters(), wanted, strict=True):
            assert torch.equal(parameter.grad, gradient)  # type: ignore[arg-type]
            assert parameter.grad.stride() == parameter.stride()  # type: ignore[union-attr]


@pytest.mark.parametrize("micro_batches", [1, 2])
def test_nothing_of_the_step_before_is_left_where_no_gradient_came(micro_batches: int) -> None:
    model = network()
    buckets = GradientBuckets(model.parameters(), Doubling(), 4 * KIB, micro_batches=micro_batches)
    buckets.start()
    for _ in range(micro_batches):
        backward(model)
    buckets.wait()
    assert all(parameter.grad.any() for parameter in model.parameters())  # type: ignore[union-attr]
    buckets.start()
    assert buckets.wait() == 0
    assert not any(parameter.grad.any() for parameter in model.parameters())  # type: ignore[union-attr]
    assert not any(bucket.flat.any() for bucket in buckets._buckets)


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_after_backward_every_gradient_still_lies_in_its_bucket_aligned_and_apart(order: torch.memory_format) -> None:
    model = network(order)
    buckets = GradientBuckets(model.parameters(), SoloComm(), 4 * KIB)
    buckets.start()
    backward(model)
    buckets.wait()
    storages = {bucket.flat.untyped_storage().data_ptr() for bucket in buckets._buckets}
    taken: dict[int, list[tuple[int, int]]] = {}
    for parameter in model.parameters():
        gradient = parameter.grad
        assert gradient is not None
        assert gradient.untyped_storage().data_ptr() in storages
        begin = gradient.storage_offset() * gradient.element_size()
        assert begin % ALIGNMENT_BYTES == 0
        taken.setdefault(gradient.untyped_storage().data_ptr(), []).append((begin, begin + gradient.nbytes))
    for places in taken.values():
        places.sort()
        assert all(end <= begin for (_, end), (begin, _) in pairwise(places))


def test_the_sum_over_workers_is_in_every_gradient() -> None:
    wanted = plain_gradients(network)
    model, comm = network(), Doubling()
    buckets = GradientBuckets(model.parameters(), comm, 4 * KIB)
    buckets.start()
    backward(model)
    buckets.wait()
    for parameter, gradient in zip(model.parameters(), wanted, strict=True):
        assert torch.equal(parameter.grad, 2 * gradient)  # type: ignore[arg-type]


def test_buckets_start_during_backward_in_its_order_each_once_and_are_all_waited_for() -> None:
    model, comm = network(), Doubling()
    buckets = GradientBuckets(model.parameters(), comm, 1)
    names = [f"gradients.{i}" for i in range(len(list(model.parameters())))]
    assert len(buckets.sizes) == len(names)
    for step in (1, 2):
        buckets.start()
        backward(model)
        assert sorted(comm.started) == sorted(names * step)  # all before wait
        buckets.wait()
        assert comm.waited == names * step
    assert comm.started[0] in names[:2]  # the last layer's weight and bias come first
    assert set(comm.started[:2]) == set(names[:2])
    assert comm.started[len(names) - 1] in names[-2:]


@pytest.mark.parametrize("bucket_bytes", [1, 4 * KIB, 10**9])
def test_gradients_of_all_micro_batches_add_up_and_travel_once(bucket_bytes: int) -> None:
    plain, model, comm = network(), network(), Doubling()
    buckets = GradientBuckets(model.parameters(), comm, bucket_bytes, micro_batches=3)
    for step in (1, 2):
        plain.zero_grad()
        buckets.start()
        for seed in range(3):
            assert len(comm.started) == (step - 1) * len(buckets.sizes)
            backward(plain, seed)
            backward(model, seed)
        assert len(set(comm.started)) == len(buckets.sizes)
        assert len(comm.started) == step * len(buckets.sizes)  # before wait
        buckets.wait()
        for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
            assert torch.equal(ours.grad, 2 * theirs.grad)  # type: ignore[arg-type, operator]


def test_what_some_micro_batches_did_not_give_travels_at_the_end() -> None:
    """The first of three has no picture left; and a weight of the second was not used."""
    first, second = (nn.Parameter(torch.ones(4)) for _ in range(2))
    comm = Doubling()
    buckets = GradientBuckets([first, second], comm, 1, micro_batches=3)
    for step in (1, 2):
        buckets.start()
        (first.sum() + 10 * second.sum()).backward()
        (100 * second).sum().backward()
        assert len(comm.started) == 2 * (step - 1)
        buckets.wait()
        assert sorted(comm.started) == sorted(["gradients.0", "gradients.1"] * step)
        assert first.grad.tolist() == [2] * 4  # type: ignore[union-attr]
        assert second.grad.tolist() == [220] * 4  # type: ignore[union-attr]


@pytest.mark.parametrize("wire", [None, torch.float16])
@pytest.mark.parametrize("bucket_bytes", [1, 4 * KIB, 10**9])
def test_lost_images_are_counted_over_micro_batches_and_workers_and_touch_no_gradient(
    wire: torch.dtype | None, bucket_bytes: int
) -> None:
    model, twin = network(), network()
    buckets = GradientBuckets(model.parameters(), Doubling(), bucket_bytes, micro_batches=2, wire=wire)
    without = GradientBuckets(twin.parameters(), Doubling(), bucket_bytes, micro_batches=2, wire=wire)
    for lost in ((3, 0), (0, 30), (1, 1023), (0, 0)):
        buckets.start()
        without.start()
        for images in lost:
            buckets.skip(images)
            backward(model)
            backward(twin)
        found = buckets.wait()
        assert found.shape == ()
        assert float(found) == 2 * sum(lost)
        assert float(without.wait()) == 0
        for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(ours.grad, theirs.grad)  # type: ignore[arg-type]


def test_scaling_reaches_every_gradient() -> None:
    model = network()
    buckets = GradientBuckets(model.parameters(), SoloComm(), 4 * KIB)
    buckets.start()
    backward(model)
    buckets.wait()
    buckets.scale(torch.tensor(4.0))
    for parameter, gradient in zip(model.parameters(), plain_gradients(network), strict=True):
        assert torch.equal(parameter.grad, 4 * gradient)  # type: ignore[arg-type]


@pytest.mark.parametrize("order", [torch.contiguous_format, torch.channels_last])
def test_half_precision_on_the_way_rounds_the_sum_and_nothing_else(order: torch.memory_format) -> None:
    wanted = plain_gradients(lambda: network(order))
    model, comm = network(order), Doubling()
    buckets = GradientBuckets(model.parameters(), comm, 4 * KIB, wire=torch.float16)
    for _ in range(2):
        buckets.start()
        backward(model)
        assert {tensor.dtype for tensor in comm.travelled} == {torch.float16}
        buckets.wait()
        for parameter, gradient in zip(model.parameters(), wanted, strict=True):
            assert parameter.grad is not None
            assert parameter.grad.dtype == torch.float32
            assert torch.equal(parameter.grad, (2 * gradient.half()).float())
            torch.testing.assert_close(parameter.grad, 2 * gradient, rtol=2**-11, atol=2**-24)


def test_sizes_are_the_bytes_that_travel() -> None:
    sizes = {}
    for wire in (None, torch.float16, torch.float32):
        model, comm = network(), Doubling()
        buckets = GradientBuckets(model.parameters(), comm, 4 * KIB, wire=wire)
        buckets.start()
        backward(model)
        buckets.wait()
        sizes[wire] = buckets.sizes
        by_name = dict(zip(comm.started, (tensor.nbytes for tensor in comm.travelled), strict=True))
        assert [by_name[f"gradients.{i}"] for i in range(len(by_name))] == buckets.sizes
    assert sizes[torch.float32] == sizes[None]
    assert [2 * size for size in sizes[torch.float16]] == sizes[None]


def test_micro_batches_are_added_before_they_are_rounded() -> None:
    """In half precision 2048 + 1 + 1 would be 2048."""
    weight = nn.Parameter(torch.ones(4))
    buckets = GradientBuckets([weight], SoloComm(), KIB, micro_batches=3, wire=torch.float16)
    buckets.start()
    for gradient in (2048, 1, 1):
        (gradient * weight).sum().backward()
    buckets.wait()
    assert weight.grad.tolist() == [2050] * 4  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("gradient", "doubled"),
    [(30000, 60000), (40000, torch.inf), (-40000, -torch.inf), (70000, torch.inf), (torch.nan, torch.nan)],
)
def test_what_half_precision_cannot_hold_comes_back_as_no_number(gradient: float, doubled: float) -> None:
    """Be it a worker's own gradient or only the sum."""
    weight = nn.Parameter(torch.ones(4))
    buckets = GradientBuckets([weight], Doubling(), KIB, wire=torch.float16)
    buckets.start()
    (gradient * weight).sum().backward()
    buckets.wait()
    torch.testing.assert_close(weight.grad, torch.full((4,), float(doubled)), rtol=2**-11, atol=0, equal_nan=True)


def test_a_bucket_starts_with_its_last_gradient_and_not_before() -> None:
    first, second = (nn.Parameter(torch.ones(4)) for _ in range(2))
    comm = Doubling()
    buckets = GradientBuckets([first, second], comm, KIB)
    buckets.start()
    second.sum().backward()
    assert comm.started == []
    first.sum().backward()
    assert comm.started == ["gradients.0"]
    buckets.wait()
    assert comm.started == ["gradients.0"]
    assert first.grad.tolist() == second.grad.tolist() == [2] * 4  # type: ignore[union-attr]


def test_a_parameter_that_the_forward_did_not_use_gets_the_others_sum_all_the_same() -> None:
    used, unused = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
    comm = Doubling()
    buckets = GradientBuckets([used, unused], comm, 1)
    for step in (1, 2):
        buckets.start()
        (3 * used).sum().backward()
        buckets.wait()
        assert sorted(comm.started) == sorted(["gradients.0", "gradients.1"] * step)
        assert unused.grad.tolist() == [0] * 4  # type: ignore[union-attr]
        assert used.grad.tolist() == [6] * 4  # type: ignore[union-attr]


@pytest.mark.parametrize("set_to_none", [True, False])
def test_an_optimiser_that_clears_gradients_does_no_harm(set_to_none: bool) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    buckets = GradientBuckets(model.parameters(), SoloComm(), 4 * KIB)
    twin = network()
    twins = torch.optim.SGD(twin.parameters(), lr=0.1)
    for step in range(3):
        buckets.start()
        backward(model, step)
        buckets.wait()
        optimizer.step()
        optimizer.zero_grad(set_to_none=set_to_none)
        twins.zero_grad()
        backward(twin, step)
        twins.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_what_a_bucket_holds_is_fixed_by_model_and_size() -> None:
    sizes = [GradientBuckets(network().parameters(), SoloComm(), 4 * KIB).sizes for _ in range(2)]
    assert sizes[0] == sizes[1]
    assert len(sizes[0]) > 2
    assert all(size % ALIGNMENT_BYTES == 0 for size in sizes[0])


def parameters(*sizes: int, dtype: torch.dtype = torch.float32) -> list[nn.Parameter]:
    return [nn.Parameter(torch.zeros(size, dtype=dtype)) for size in sizes]


def elements(groups: list[list[nn.Parameter]]) -> list[list[int]]:
    return [[parameter.numel() for parameter in group] for group in groups]


@pytest.mark.parametrize(
    ("bucket_bytes", "groups"),
    [
        (1000, [[10, 20, 30, 40]]),
        (400, [[10, 20, 30, 40]]),
        (399, [[10, 20, 30], [40]]),
        (120, [[10, 20], [30], [40]]),
        (1, [[10], [20], [30], [40]]),
    ],
)
def test_the_plan_closes_a_bucket_when_the_next_would_not_fit(bucket_bytes: int, groups: list[list[int]]) -> None:
    assert elements(list(plan(parameters(10, 20, 30, 40), bucket_bytes))) == groups


def test_the_plan_gives_a_large_gradient_a_bucket_of_its_own() -> None:
    assert elements(list(plan(parameters(1, 1000, 2, 3), 100))) == [[1], [1000], [2, 3]]


def test_the_plan_keeps_kinds_of_numbers_apart() -> None:
    mixed = [*parameters(1, 2), *parameters(3, dtype=torch.float64), *parameters(4, 5)]
    assert elements(list(plan(mixed, 10**6))) == [[1, 2], [3], [4, 5]]


def test_no_parameters_need_no_bucket() -> None:
    assert list(plan([], 100)) == []
    buckets = GradientBuckets([], SoloComm(), 100)
    buckets.start()
    buckets.wait()


def test_models_in_float64_have_their_buckets_too() -> None:
    model = network(dtype=torch.float64)
    buckets = GradientBuckets(model.parameters(), SoloComm(), 4 * KIB)
    buckets.start()
    backward(model)
    buckets.wait()
    wanted = plain_gradients(lambda: network(dtype=torch.float64))
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), wanted, strict=True))  # type: ignore[arg-type]
