"""A step that runs out of memory names the batch that would have fitted: with real limits, in a process of its own."""

import gc
import json
import math
import os
import re
import subprocess
import sys
import weakref
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hvdtrain.config.recipe import DataConfig, TrainConfig
from hvdtrain.config.schema import Config
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import EnvironmentFault
from hvdtrain.train import recipe
from hvdtrain.train.memory import explain, is_out_of_memory, largest_batch, out_of_memory, probe
from hvdtrain.train.step import Arithmetic

from .workers import CLASSES, batch, state

CPU = torch.device("cpu")
NO_MEMORY = "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to"


@pytest.mark.parametrize(
    ("error", "of_memory"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"), True),
        (MemoryError(), True),
        (RuntimeError(f"{NO_MEMORY} allocate 9 bytes"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: an illegal memory access was encountered"), False),
        (ValueError("DefaultCPUAllocator: can't allocate memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_errors_of_memory_are_told_from_others(error: BaseException, of_memory: bool) -> None:
    assert is_out_of_memory(error) == of_memory


def test_what_this_torch_raises_is_known() -> None:
    with pytest.raises(RuntimeError) as raised:
        torch.empty(2**50)
    assert is_out_of_memory(raised.value)


@given(failed=st.integers(1, 100_000), share=st.floats(0, 1))
def test_the_largest_batch_is_found_in_few_tries(failed: int, share: float) -> None:
    fits, tried = int(share * (failed - 1)), []

    def step(n: int) -> None:
        tried.append(n)
        if n > fits:
            raise RuntimeError(NO_MEMORY)

    assert largest_batch(step, failed) == fits
    assert len(tried) <= math.ceil(math.log2(failed))
    assert all(1 <= n < failed for n in tried)
    assert len(set(tried)) == len(tried)


@pytest.mark.parametrize("other", [RuntimeError("sizes do not match"), ValueError("no"), KeyboardInterrupt()])
def test_another_error_is_not_taken_for_want_of_memory(other: BaseException) -> None:
    def step(n: int) -> None:
        raise other

    with pytest.raises(type(other)) as raised:
        largest_batch(step, 8)
    assert raised.value is other


def proposals(fault: EnvironmentFault) -> list[tuple[int, int]]:
    """Batch per worker and minibatch of each command line in the remedy."""
    found = re.findall(r"--data.batch_size (\d+) --train.global_batch_size (\d+)", fault.remedy)
    return [(int(n), int(kn)) for n, kn in found]


@given(
    workers=st.integers(1, 64),
    half=st.integers(1, 300),
    micro_batches=st.integers(1, 5),
    share=st.floats(0, 1),
    multiple_of=st.sampled_from([1, 2]),
)
def test_what_is_proposed_fits_and_can_be_run(
    workers: int, half: int, micro_batches: int, share: float, multiple_of: int
) -> None:
    n, kn = 2 * half, workers * 2 * half * micro_batches
    fits = int(share * (n - 1))
    fault = explain(n=n, fits=fits, workers=workers, global_batch=kn, place="the CPU", multiple_of=multiple_of)
    proposed = proposals(fault)
    assert f"data.batch_size = {n} on the CPU" in str(fault)
    if fits < multiple_of:
        assert proposed == []
        assert f"{multiple_of} would not fit" in str(fault)
        return
    assert f": {fits} would fit" in str(fault)
    for b, minibatch in proposed:
        assert b <= fits
        assert b % multiple_of == 0
        recipe.micro_batches(
            Config(data=DataConfig(batch_size=b), train=TrainConfig(global_batch_size=minibatch)), workers
        )
    keeping = [b for b in range(multiple_of, fits + 1, multiple_of) if kn % (workers * b) == 0]
    largest = fits - fits % multiple_of
    assert proposed[0] == (max(keeping), kn)
    assert max(b for b, _ in proposed) == largest  # none of the memory is left unused without being asked
    assert proposed[1:] == ([] if largest == max(keeping) else [(largest, workers * largest * micro_batches)])


@pytest.mark.parametrize(
    ("arithmetic", "pictures"),
    [
        (Arithmetic(torch.float32, None, channels_last=True), torch.float32),
        (Arithmetic(torch.float32, torch.bfloat16, channels_last=True), torch.float16),
        (Arithmetic(torch.float64, None, channels_last=False), torch.float32),
    ],
)
def test_a_probe_changes_nothing(arithmetic: Arithmetic, pictures: torch.dtype) -> None:
    """No statistics, no gradient, no random number, and above all no allreduce that nobody joins."""
    started: list[str] = []

    class Listening(SoloComm):
        def start_sum(self, tensor: torch.Tensor, name: str) -> None:
            started.append(name)

    model = state("batch", arithmetic.dtype).model
    buckets = GradientBuckets(model.parameters(), Listening(), 1)
    buckets.start()
    for parameter in list(model.parameters())[::2]:  # the step ran out of memory before it had made the others
        parameter.grad = torch.zeros_like(parameter)
    gradients = [parameter.grad for parameter in model.parameters()]
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random = torch.get_rng_state()
    seen: list[torch.Tensor] = []
    model.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    step = probe(model, arithmetic.forward, image_size=16, dtype=pictures, device=CPU, classes=CLASSES)
    step(3)
    step(7)
    assert [tuple(images.shape) for images in seen] == [(3, 3, 16, 16), (7, 3, 16, 16)]
    assert seen[0].dtype == (pictures if arithmetic.autocast else arithmetic.dtype)
    assert started == []
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    for parameter, gradient in zip(model.parameters(), gradients, strict=True):
        assert parameter.grad is gradient
        assert gradient is None or not gradient.any()
    assert torch.equal(torch.get_rng_state(), random)
    assert all(module.training for module in model.modules())
    arithmetic.forward(model, batch().images).sum().backward()  # the hooks are there all the same
    assert len(started) == len(buckets.sizes)


def test_the_tensors_of_the_failed_step_are_freed_before_anything_is_tried() -> None:
    alive: list[weakref.ref[torch.Tensor]] = []

    def inner(activations: torch.Tensor) -> None:
        more = activations + 1
        alive.append(weakref.ref(more))
        raise RuntimeError(NO_MEMORY)

    def failing() -> None:
        activations = torch.zeros(10)
        alive.append(weakref.ref(activations))
        try:
            inner(activations)
        except RuntimeError as error:  # as libraries wrap it
            raise MemoryError from error

    counts: list[int] = []

    def step(n: int) -> None:
        counts.append(sum(tensor() is not None for tensor in alive))

    try:
        failing()
    except MemoryError as error:
        assert all(tensor() is not None for tensor in alive)
        fault = out_of_memory(error, step, n=4, workers=2, global_batch=8, device=CPU)
    assert proposals(fault) == [(2, 8), (3, 6)]
    assert counts == [0, 0]


def test_errors_that_go_round_in_a_circle_are_followed_once() -> None:
    error, cause = RuntimeError(NO_MEMORY), MemoryError()
    error.__cause__, cause.__context__ = cause, error
    fault = out_of_memory(error, lambda n: None, n=3, workers=1, global_batch=3, device=CPU)
    assert proposals(fault)[-1] == (2, 2)


class Kept(torch.autograd.Function):
    """Its backward is of no account: it keeps a tensor for it."""

    kept: weakref.ref[torch.Tensor]

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.keeps = torch.zeros(10)
        Kept.kept = weakref.ref(ctx.keeps)
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        return gradient


class Failing(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        raise RuntimeError(NO_MEMORY)


def test_a_try_begins_when_what_others_left_behind_is_freed() -> None:
    """A backward that fails leaves the rest of its graph in autograd's hands; and the loop collects no garbage."""
    arithmetic, model = Arithmetic(torch.float64, None, channels_last=True), state().model
    kept: list[bool] = []
    alive: list[bool] = []

    def forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
        kept.append(len(kept) > 0 and Kept.kept() is not None)
        alive.append(left() is not None)
        logits = arithmetic.forward(model, images)
        return Kept.apply(logits) + Failing.apply(logits)  # type: ignore[no-untyped-call, no-any-return]

    step = probe(model, forward, image_size=16, dtype=torch.float32, device=CPU, classes=CLASSES)
    gc.disable()
    try:
        ring: list[object] = [torch.zeros(10)]
        left = weakref.ref(ring[0])
        ring.append(ring)
        del ring
        for _ in range(2):
            with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
                step(2)
        assert Kept.kept() is not None
    finally:
        gc.enable()
    assert kept == alive == [False, False]


LIMITED = """
import gc, json, resource
import torch
from hvdtrain.train.memory import is_out_of_memory, largest_batch, out_of_memory, probe
from tests.train.workers import CLASSES, Worker, batch, state

MIB = 2**20
torch.backends.mkldnn.set_flags(False)  # it does not always survive, and keeps some MiB for each size of batch
worker = Worker(state("batch", torch.float32))
model = worker.state.model
momentum = sum(parameter.nbytes for parameter in model.parameters())


def make(reserve_bytes):
    return probe(
        model, worker.arithmetic.forward, image_size=16, dtype=torch.float32, device=torch.device("cpu"),
        classes=CLASSES, reserve_bytes=reserve_bytes,
    )


def fits(step, n):
    make(0)(1)  # frees what a failed try has left behind
    try:
        step(n)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        return False
    return True


step = make(momentum + 2 * MIB)  # some slack for Python's own objects, which come and go
step(512)  # what is allocated only once, by libraries too
gc.collect()
with open("/proc/self/statm") as statm:
    taken = int(statm.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + 48 * MIB,) * 2)

alone = largest_batch(step, 512)
try:
    worker.step(batch(512))
except (RuntimeError, MemoryError) as error:
    assert is_out_of_memory(error), error
    fault = out_of_memory(error, step, n=512, workers=3, global_batch=1536, device=torch.device("cpu"))
print(json.dumps({
    "alone": alone,
    "fault": str(fault),
    "probes": [fits(make(momentum), n) for n in (alone, 2 * alone, alone)],
    "with less": largest_batch(make(momentum + 26 * MIB), 512),
    "steps": [fits(lambda n: worker.step(batch(n)), n) for n in (alone, alone, 2 * alone, alone)],
    "update": bool(worker.state.optimizer.state),
}))
"""


def test_under_a_real_limit_what_is_named_fits_and_twice_that_does_not() -> None:
    """Steps of training itself are held to what the probe has found."""
    steady = {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "65536"}
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED],
        cwd=Path(__file__).parents[2],
        env={**os.environ, **steady},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    alone = found["alone"]
    assert 20 < alone < 400, "the limit is of no use for this test"
    assert found["probes"] == [True, False, True]
    assert found["steps"] == [True, True, False, True]
    assert found["update"]
    named = int(re.findall(r": (\d+) would fit", found["fault"])[0])
    assert abs(named - alone) < 0.05 * alone  # nothing of the failed step is left
    assert 0.3 * alone < found["with less"] < 0.7 * alone


@pytest.mark.gpu
def test_on_a_gpu_what_is_named_fits_and_twice_that_does_not() -> None:
    gpu = torch.device("cuda", torch.cuda.current_device())
    model = state("batch", torch.float32).model.to(gpu)
    step = probe(
        model,
        Arithmetic(torch.float32, None, channels_last=True).forward,
        image_size=64,
        dtype=torch.float32,
        device=gpu,
        classes=CLASSES,
        reserve_bytes=sum(parameter.nbytes for parameter in model.parameters()),
    )
    step(1)
    gc.collect()
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(gpu).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved(gpu) + 512 * 2**20) / total, gpu)
    try:
        with pytest.raises(torch.OutOfMemoryError) as raised:
            step(4096)
        fault = out_of_memory(raised.value, step, n=4096, workers=1, global_batch=4096, device=gpu)
        named = int(re.findall(r": (\d+) would fit", str(fault))[0])
        assert torch.cuda.get_device_name(gpu) in str(fault)
        assert named > 16
        step(named)
        with pytest.raises(torch.OutOfMemoryError):
            step(2 * named)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, gpu)
        torch.cuda.empty_cache()
