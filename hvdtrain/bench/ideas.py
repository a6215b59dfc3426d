"""What was thought of to make a step of several workers shorter: what the program does, switched off, and what it does
not do for want of a gain, switched on. The bench alone can switch these.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hvdtrain.distributed import threads
from hvdtrain.distributed.allocator import VARIABLE

if TYPE_CHECKING:
    import torch
    from torch import nn

    from hvdtrain.distributed.buckets import GradientBuckets
    from hvdtrain.distributed.comm import Comm, HorovodComm
    from hvdtrain.train.build import Parts

FIRST_BYTES = 2**20  # as DistributedDataParallel's first bucket


def as_it_is(comm: "HorovodComm") -> None:
    """As a run treats Horovod's threads on a CPU."""
    threads.step_back(comm.threads)


def not_stepping_back(_: "HorovodComm") -> None: ...


def sleeping(comm: "HorovodComm") -> None:
    """A worker looks every 0.1 ms whether a sum is done, in place of asking for its core again and again."""
    as_it_is(comm)
    wait = comm.wait

    def look(handle: Any) -> None:
        while not comm.done(handle):
            time.sleep(0.0001)
        wait(handle)

    comm.wait = look  # type: ignore[method-assign]


@dataclass(frozen=True)
class Idea:
    what: str
    variables: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Of the configuration's section distributed."""
    reducer: "Callable[[Parts, Comm, int], GradientBuckets] | None" = None
    comm: "Callable[[HorovodComm], None]" = as_it_is


def added_to_zeros(parts: "Parts", comm: "Comm", bucket_bytes: int) -> "GradientBuckets":
    """Autograd adds each gradient to zeros in its bucket."""
    from hvdtrain.distributed.buckets import GradientBuckets

    class Adding(GradientBuckets):
        def start(self) -> None:
            super().start()
            for bucket in self._buckets:
                bucket.flat.zero_()
                for parameter, view in bucket.views:
                    parameter.grad = view

    return Adding(parts.state.model.parameters(), comm, bucket_bytes)


def autograd_order(parts: "Parts", comm: "Comm", bucket_bytes: int) -> "GradientBuckets":
    """Filled in the order in which a first backward makes the gradients."""
    from hvdtrain.distributed.buckets import GradientBuckets

    order: list[nn.Parameter] = []
    model = parts.state.model
    hooks = [each.register_post_accumulate_grad_hook(order.append) for each in model.parameters()]
    batch = next(parts.data.training(0))
    parts.arithmetic.forward(model, batch.images).sum().backward()
    for hook in hooks:
        hook.remove()
    model.zero_grad()
    return GradientBuckets(order[::-1], comm, bucket_bytes)


def small_first(parts: "Parts", comm: "Comm", bucket_bytes: int) -> "GradientBuckets":
    return _split(parts, comm, bucket_bytes, lambda each: each)


def small_last(parts: "Parts", comm: "Comm", bucket_bytes: int) -> "GradientBuckets":
    """What is exposed after backward's end is the last bucket at least."""
    return _split(parts, comm, bucket_bytes, lambda each: each[::-1])


def update_at_once(parts: "Parts", comm: "Comm", bucket_bytes: int) -> "GradientBuckets":
    """Each bucket's weights are updated while later buckets are still summed."""
    import torch

    from hvdtrain.distributed.buckets import GradientBuckets

    buckets = GradientBuckets(parts.state.model.parameters(), comm, bucket_bytes)
    group = parts.state.optimizer.param_groups[0]
    kind = {name: group[name] for name in ("lr", "momentum", "nesterov", "weight_decay")}
    own = [torch.optim.SGD([each for each, _ in bucket.views], **kind) for bucket in buckets._buckets]

    def wait() -> "torch.Tensor":
        for bucket in buckets._buckets:
            if not bucket.started:
                buckets._reduce(bucket)
        for bucket, optimizer in zip(buckets._buckets, own, strict=True):
            comm.wait(bucket.handle)
            optimizer.step()
        return buckets._skipped

    buckets.wait = wait  # type: ignore[method-assign]
    parts.state.update = lambda **_: None  # type: ignore[method-assign]
    return buckets


def _split(
    parts: "Parts", comm: "Comm", bucket_bytes: int, turned: "Callable[[list[nn.Parameter]], Sequence[nn.Parameter]]"
) -> "GradientBuckets":
    """Buckets of which one end is small: made by a plan of its own for the parameters there."""
    from hvdtrain.distributed import buckets

    def plan(parameters: "list[nn.Parameter]", bucket_bytes: int) -> "Iterator[list[nn.Parameter]]":
        ordered = list(turned(parameters))
        count, total = 1, ordered[0].nbytes
        while total + ordered[count].nbytes <= FIRST_BYTES:
            total += ordered[count].nbytes
            count += 1
        groups = [ordered[:count], *usual(ordered[count:], bucket_bytes)]
        yield from ([list(turned(group)) for group in turned(groups)])  # type: ignore[arg-type]

    usual = buckets.plan
    buckets.plan = plan
    try:
        return buckets.GradientBuckets(parts.state.model.parameters(), comm, bucket_bytes)
    finally:
        buckets.plan = usual


DONE = {
    "kept memory": Idea("malloc gives freed memory back to the kernel in each step", variables={VARIABLE: ""}),
    "stepping back": Idea("Horovod's thread competes with those that compute", comm=not_stepping_back),
    "copied gradients": Idea("autograd adds each gradient to zeros in its bucket", reducer=added_to_zeros),
    "a fast cycle": Idea("Horovod looks every 1 ms, not 0.1", settings={"cycle_milliseconds": 1.0}),
    "yielding": Idea("a waiting MPI thread keeps its core", settings={"yield_when_idle": False}),
    "large buckets": Idea("each gradient above 1 MiB travels alone", settings={"bucket_mib": 1.0}),
}
NOT_DONE = {
    "sleeping": Idea("a worker that waits for a sum sleeps for 0.1 ms and looks", comm=sleeping),
    "autograd order": Idea("buckets in the order of a first backward", reducer=autograd_order),
    "a small first bucket": Idea("of 1 MiB", reducer=small_first),
    "a small last bucket": Idea("of 1 MiB", reducer=small_last),
    "updates at once": Idea("each bucket's weights are updated as soon as it is summed", reducer=update_at_once),
    "half precision": Idea(
        "distributed.compression = fp16: gradients travel in half the bytes", settings={"compression": "fp16"}
    ),
    "a slow cycle": Idea("Horovod looks every 5 ms", settings={"cycle_milliseconds": 5.0}),
    "one bucket": Idea("of 128 MiB: nothing is summed before the end", settings={"bucket_mib": 128.0}),
}
IDEAS = {f"without {name}": idea for name, idea in DONE.items()} | {f"with {n}": idea for n, idea in NOT_DONE.items()}


def idea(contender: str) -> Idea:
    """
    >>> idea("ours-2 without yielding").settings, idea("ours-2").settings
    ({'yield_when_idle': False}, {})
    """
    return IDEAS.get(contender.partition(" ")[2], Idea("as it is"))
