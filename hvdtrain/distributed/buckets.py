"""Gradients that lie in flat buckets, each ring-allreduced while backward still runs.

Every parameter's `.grad` is a view into one of a few one-dimensional tensors, in the parameter's own memory format.
Autograd makes a step's first gradient of a weight wherever it likes, which costs less than to add it to zeros; it is
copied into its view while the caches still hold it, later micro-batches are added there, and nothing is unpacked.

Buckets are filled in reverse order of registration, which is about the order in which backward makes gradients; what a
bucket holds depends on the model and the bucket size alone. With Horovod's own fusion off (see tuning.py) the order of
every floating-point sum is thereby fixed, and equal runs are equal to the last bit.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from hvdtrain.distributed.comm import Comm

ALIGNMENT_BYTES = 64  # of every gradient within its bucket: a cache line, and what vector code wants


@dataclass
class Bucket:
    name: str
    flat: torch.Tensor  # (elements,)
    views: list[tuple[nn.Parameter, torch.Tensor]]
    wire: torch.Tensor  # what travels: `flat` itself, or a copy of less precision
    missing: int = 0  # gradients that have still to be added before it can travel
    handle: Any = None
    started: bool = False


class GradientBuckets:
    """A Reducer (reducer.py)."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        comm: Comm,
        bucket_bytes: int,
        *,
        micro_batches: int = 1,
        wire: torch.dtype | None = None,
    ) -> None:
        """
        Args:
            parameters: dense in memory (contiguous or channels-last), in order of registration.
            bucket_bytes: a bucket is closed when the next gradient would take it above this; a larger gradient has one
                of its own.
            micro_batches: backwards in a step; the last one starts the sums.
            wire: what gradients travel as, where it is not their own type. They come back inf where that cannot hold
                them or their sum.
        """
        self._comm, self._micro_batches, self._listening = comm, micro_batches, True
        self._buckets = [
            _bucket(f"gradients.{i}", group, wire) for i, group in enumerate(plan(list(parameters)[::-1], bucket_bytes))
        ]
        self.sizes = [bucket.wire.nbytes for bucket in self._buckets]
        self._skipped = self._buckets[0].flat[-1] if self._buckets else torch.zeros(())
        for bucket in self._buckets:
            for parameter, view in bucket.views:
                parameter.register_post_accumulate_grad_hook(self._hook(bucket, view))

    def start(self) -> None:
        self._skipped.zero_()
        for bucket in self._buckets:
            bucket.missing = len(bucket.views) * self._micro_batches
            bucket.started = False
            for parameter, _ in bucket.views:
                parameter.grad = None

    def skip(self, images: int) -> None:
        """The number travels in the first bucket's last element; it is 0 but for rare steps, and small in those."""
        if images:
            self._skipped += images

    def doubt(self, loss: torch.Tensor) -> None:
        """It travels in the same place: NaN if the loss is not finite, else nothing."""
        self._skipped += loss * 0

    def wait(self) -> torch.Tensor:
        """A bucket whose gradients did not all come, be it for want of pictures, is summed as it is."""
        for bucket in self._buckets:
            if not bucket.started:
                self._fill(bucket)
                self._reduce(bucket)
        for bucket in self._buckets:
            self._comm.wait(bucket.handle)
            if bucket.wire is not bucket.flat:
                bucket.flat.copy_(bucket.wire)
        return self._skipped

    def finite(self, *, gradients: bool) -> torch.Tensor:
        if not gradients:
            return self._skipped.isfinite()
        return torch.stack([torch.linalg.vector_norm(bucket.flat) for bucket in self._buckets]).sum().isfinite()

    def scale(self, factor: torch.Tensor) -> None:
        for bucket in self._buckets:
            bucket.flat.mul_(factor)

    @contextmanager
    def silent(self) -> Iterator[None]:
        self._listening = False
        try:
            yield
        finally:
            self._listening = True

    def _hook(self, bucket: Bucket, view: torch.Tensor) -> Any:
        def ready(parameter: nn.Parameter) -> None:
            if self._listening:
                if (born := parameter.grad) is not view and born is not None:
                    parameter.grad = view.copy_(born)
                bucket.missing -= 1
                if bucket.missing == 0:
                    self._reduce(bucket)

        return ready

    @staticmethod
    def _fill(bucket: Bucket) -> None:
        """With zeros, where no gradient came."""
        for parameter, view in bucket.views:
            if parameter.grad is None:
                parameter.grad = view.zero_()

    def _reduce(self, bucket: Bucket) -> None:
        if bucket.wire is not bucket.flat:
            bucket.wire.copy_(bucket.flat)
        bucket.handle = self._comm.start_sum(bucket.wire, bucket.name)
        bucket.started = True


def plan(parameters: list[nn.Parameter], bucket_bytes: int) -> Iterator[list[nn.Parameter]]:
    """Split `parameters`, in their order, into groups of at most `bucket_bytes` and one dtype and device each."""
    group: list[nn.Parameter] = []
    size = 0
    for parameter in parameters:
        alike = not group or (parameter.dtype, parameter.device) == (group[0].dtype, group[0].device)
        if group and (size + parameter.nbytes > bucket_bytes or not alike):
            yield group
            group, size = [], 0
        group.append(parameter)
        size += parameter.nbytes
    if group:
        yield group


def _bucket(name: str, parameters: list[nn.Parameter], wire: torch.dtype | None) -> Bucket:
    first = parameters[0]
    step = ALIGNMENT_BYTES // first.element_size()
    offsets, end = [], 0
    for parameter in parameters:
        offsets.append(end)
        end += -(-parameter.numel() // step) * step
    end += step  # room for GradientBuckets.skip's number
    flat = torch.zeros(end, dtype=first.dtype, device=first.device)
    views = [
        (parameter, flat.as_strided(parameter.size(), parameter.stride(), offset))
        for parameter, offset in zip(parameters, offsets, strict=True)
    ]
    return Bucket(name, flat, views, flat if wire in (None, flat.dtype) else torch.empty_like(flat, dtype=wire))
