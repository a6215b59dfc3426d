"""Workers in one process for the tests of a step: small networks, pictures of noise, and sums that are really made."""

import pickle
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any, TypeVar

import torch

from hvdtrain.data.loader import Batch
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import Comm, SoloComm
from hvdtrain.distributed.reducer import Reducer
from hvdtrain.model.build import build
from hvdtrain.model.groups import parameter_groups
from hvdtrain.optim.build import optimizer
from hvdtrain.train.clock import HostTime, StepClock
from hvdtrain.train.state import TrainState
from hvdtrain.train.step import Arithmetic, Objective, train_step

T = TypeVar("T")

CLASSES = 5
DECAY, MOMENTUM = 0.01, 0.9
BUCKET_BYTES = 10_000  # a hundred thousand weights make some ten buckets


def state(
    norm: str = "none",
    dtype: torch.dtype = torch.float64,
    *,
    seed: int = 0,
    order: torch.memory_format = torch.channels_last,
    **parts: Any,
) -> TrainState:
    torch.manual_seed(seed)
    model = build("resnet8", classes=CLASSES, norm=norm, zero_gamma=False, head_std=None).to(dtype)
    model.to(memory_format=order)  # type: ignore[call-overload]
    groups = parameter_groups(model, weight_decay=DECAY, decay_biases=True)
    sgd = optimizer("sgd", groups, lr=9, momentum=MOMENTUM, nesterov=True, trust_coefficient=0)
    return TrainState(model, sgd, **parts)


def batch(n: int = 8, seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(n, 3, 16, 16, generator=generator).contiguous(memory_format=torch.channels_last)
    return Batch(images, torch.randint(CLASSES, (n,), generator=generator), images_seen=n)


def cut(whole: Batch, count: int) -> list[Batch]:
    """The batch in `count` equal ones, in order."""
    n = len(whole.labels) // count
    parts = [slice(i * n, (i + 1) * n) for i in range(count)]
    return [Batch(whole.images[part], whole.labels[part], whole.images_seen) for part in parts]


def without(whole: Batch, lost: Iterable[int]) -> Batch:
    """The batch as it comes when some of its images cannot be decoded."""
    kept = sorted(set(range(len(whole.labels))) - set(lost))
    return Batch(whole.images[kept], whole.labels[kept], whole.images_seen, skipped=len(whole.labels) - len(kept))


def joined(parts: Iterable[Batch]) -> Batch:
    """All images that are there, as if none had ever been lost."""
    parts = list(parts)
    images, labels = torch.cat([part.images for part in parts]), torch.cat([part.labels for part in parts])
    return Batch(images.contiguous(memory_format=torch.channels_last), labels, images_seen=len(labels))


class Worker:
    """One that steps as hvdtrain's do, with gradients in buckets if no other reducer is given."""

    def __init__(
        self,
        state: TrainState,
        comm: Comm | None = None,
        *,
        kn: int = 8,
        micro_batches: int = 1,
        wire: torch.dtype | None = None,
        label_smoothing: float = 0.0,
        clip_norm: float | None = None,
        reducer: Reducer | None = None,
    ) -> None:
        self.state = state
        self.objective = Objective(kn, label_smoothing, clip_norm)
        weight = state.model.get_parameter("stem.0.weight")
        channels_last = weight.is_contiguous(memory_format=torch.channels_last)
        self.arithmetic = Arithmetic(weight.dtype, None, channels_last)
        self.clock = StepClock(HostTime())
        self.reducer = reducer or GradientBuckets(
            state.model.parameters(), comm or SoloComm(), BUCKET_BYTES, micro_batches=micro_batches, wire=wire
        )

    def step(self, *micro_batches: Batch, lr: float = 0.1) -> float:
        loss = train_step(
            self.state,
            micro_batches,
            lr=lr,
            objective=self.objective,
            arithmetic=self.arithmetic,
            reducer=self.reducer,
            clock=self.clock,
        )
        return float(loss)

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.clone() for name, tensor in self.state.model.state_dict().items()}

    @property
    def gradient(self) -> torch.Tensor:
        """Of all parameters, as one vector; 0 where there is none."""
        parameters = self.state.model.parameters()
        return torch.cat([(torch.zeros_like(p) if p.grad is None else p.grad).flatten() for p in parameters])


class Beside(SoloComm):
    """One of several workers, each a thread of this process. The sums are made, in order of rank, when all wait."""

    def __init__(self, rank: int, left: list[dict[str, Any]], meeting: Barrier) -> None:
        self.rank, self.size = rank, len(left)
        self.left, self.meeting = left, meeting

    def start_sum(self, tensor: torch.Tensor, name: str) -> tuple[torch.Tensor, str]:  # type: ignore[override]
        self.left[self.rank][name] = tensor.clone()
        return tensor, name

    def wait(self, handle: tuple[torch.Tensor, str]) -> None:  # type: ignore[override]
        tensor, name = handle
        self.meeting.wait()
        total = self.left[0][name].clone()
        for other in self.left[1:]:
            total += other[name]
        tensor.copy_(total)
        self.meeting.wait()

    def gather(self, value: T, name: str) -> list[T]:
        self.left[self.rank][name] = value
        self.meeting.wait()
        values = [each[name] for each in self.left]
        self.meeting.wait()
        return values

    def sum(self, values: list[float], name: str) -> list[float]:
        return [sum(column) for column in zip(*self.gather(values, name), strict=True)]

    def broadcast_object(self, value: T, name: str) -> T:
        sent: T = pickle.loads(pickle.dumps(self.gather(value, name)[0]))
        return value if self.rank == 0 else sent

    def broadcast_(self, tensor: torch.Tensor, name: str) -> None:
        tensor.copy_(self.gather(tensor.clone(), name)[0])


def beside(count: int) -> list[Beside]:
    left: list[dict[str, Any]] = [{} for _ in range(count)]
    meeting = Barrier(count, timeout=60)
    return [Beside(rank, left, meeting) for rank in range(count)]


def at_once(*steps: Callable[[], Any]) -> list[Any]:
    """What each returns, all having run side by side."""
    with ThreadPoolExecutor(len(steps)) as threads:
        return [future.result() for future in [threads.submit(step) for step in steps]]


def step_together(workers: list[Worker], micro_batches: list[list[Batch]]) -> list[float]:
    """One step of all workers; `micro_batches` by worker. Returns their losses."""
    return at_once(
        *(lambda w=w, own=own: w.step(*own, lr=0.1) for w, own in zip(workers, micro_batches, strict=True))  # type: ignore[misc]
    )


def assert_close(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """Equal but for the order of sums in float64."""
    assert ours.keys() == theirs.keys()
    for name, tensor in ours.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-12, atol=1e-14, msg=f"{name}: {{}}".format)


def assert_equal(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    """To the last bit."""
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
