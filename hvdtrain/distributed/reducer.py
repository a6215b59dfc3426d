"""Who adds up the gradients of all workers: our buckets (buckets.py), Horovod's own optimiser, or nobody."""

import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Protocol

import torch

from hvdtrain.distributed.comm import Comm


class Reducer(Protocol):
    """Use: `start()`; for each micro-batch `skip`, forward, `doubt` and backward; `wait()`. Then every `.grad` is the
    sum."""

    sizes: list[int]
    """Bytes of each bucket, in the order of backward; nothing where Horovod makes them anew in each step."""

    def start(self) -> None:
        """Make every gradient zero, before the first backward of a step."""

    def skip(self, images: int) -> None:
        """Count images that this worker's next micro-batch lacks. Before its backward."""

    def doubt(self, loss: torch.Tensor) -> None:
        """Let all workers know unless the loss, a scalar, is finite. Before its backward."""

    def wait(self) -> torch.Tensor:
        """Return when every gradient is summed over the workers.

        Returns:
            the images that all workers' micro-batches lack: a scalar on the gradients' device, or on the CPU where
            nothing had to be waited for. NaN if a loss was not finite among several workers.
        """

    def finite(self, *, gradients: bool) -> torch.Tensor:
        """Whether all losses of all workers are finite, a boolean scalar on any device.

        Args:
            gradients: and the norm of the summed gradients too.
        """

    def scale(self, factor: torch.Tensor) -> None:
        """Multiply every gradient by a scalar from where `wait`'s was."""

    def silent(self) -> AbstractContextManager[None]:
        """Within, gradients may be made that it takes no notice of: a LocalReducer's, of a worker that steps alone."""


class LocalReducer:
    """One worker: its gradients are the sum. Backward makes them anew, which costs less than adding them to zeros."""

    def __init__(self, model: torch.nn.Module) -> None:
        self.sizes: list[int] = []
        self._parameters = list(model.parameters())
        self._skipped, self._doubt = 0, torch.zeros(())

    def start(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None
        self._skipped, self._doubt = 0, torch.zeros(())

    def skip(self, images: int) -> None:
        self._skipped += images

    def doubt(self, loss: torch.Tensor) -> None:
        self._doubt = self._doubt + loss * 0

    def wait(self) -> torch.Tensor:
        for parameter in self._parameters:
            if parameter.grad is None:  # no image was there: the update goes on by momentum and decay, as among others
                parameter.grad = torch.zeros_like(parameter)
        return torch.tensor(self._skipped, dtype=torch.float64)

    def finite(self, *, gradients: bool) -> torch.Tensor:
        return (self._doubt + _norm(_gradients(self._parameters)) if gradients else self._doubt).isfinite()

    def scale(self, factor: torch.Tensor) -> None:
        torch._foreach_mul_(_gradients(self._parameters), float(factor))

    def silent(self) -> AbstractContextManager[None]:
        return nullcontext()


class HorovodReducer:
    """Horovod's DistributedOptimizer, of which only the hooks on the gradients are used; the update is not its own."""

    def __init__(self, model: torch.nn.Module, comm: Comm, *, micro_batches: int, compression: str) -> None:
        import horovod.torch as hvd

        self.sizes: list[int] = []
        self._comm, self._parameters = comm, list(model.parameters())
        self._skipped, self._doubt, self._micro_batches = 0, torch.zeros(()), micro_batches
        self._reducing: Any = hvd.DistributedOptimizer(
            torch.optim.SGD(self._parameters, lr=0.0),  # never takes a step
            named_parameters=model.named_parameters(),
            compression=getattr(hvd.Compression, compression),
            backward_passes_per_step=micro_batches,
            op=hvd.Sum,
        )

    def start(self) -> None:
        self._reducing.zero_grad()
        self._skipped, self._doubt = 0, torch.zeros(())

    def skip(self, images: int) -> None:
        self._skipped += images

    def doubt(self, loss: torch.Tensor) -> None:
        self._doubt = self._doubt + loss * 0

    def wait(self) -> torch.Tensor:
        with self._comm.waiting_in("gradients"):
            self._reducing.synchronize()
        (skipped,) = self._comm.sum([self._skipped + float(self._doubt)], "skipped")
        first = self._parameters[0]
        self._doubt = torch.tensor(skipped, dtype=first.dtype, device=first.device)
        return self._doubt

    def finite(self, *, gradients: bool) -> torch.Tensor:
        return (self._doubt + _norm(_gradients(self._parameters)) if gradients else self._doubt).isfinite()

    def scale(self, factor: torch.Tensor) -> None:
        torch._foreach_mul_(_gradients(self._parameters), factor)

    @contextmanager
    def silent(self) -> Iterator[None]:
        self._reducing.set_backward_passes_per_step(sys.maxsize)  # its hooks count down to the last, which never comes
        try:
            yield
        finally:
            self._reducing.set_backward_passes_per_step(self._micro_batches)
            self._reducing.load_state_dict(self._reducing.state_dict())  # makes it forget the gradients it has seen


def _norm(gradients: list[torch.Tensor]) -> torch.Tensor:
    return torch.stack(torch._foreach_norm(gradients)).sum()  # of norms: as finite as their root of squares


def _gradients(parameters: list[torch.nn.Parameter]) -> list[torch.Tensor]:
    return [p.grad for p in parameters if p.grad is not None]
