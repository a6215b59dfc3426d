"""What stands in a run directory, as values. A number that was not recorded is NaN, a thing None or empty."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from hvdtrain.config.schema import Config
from hvdtrain.metrics.efficiency import Baseline, Efficiency


@dataclass(frozen=True)
class Start:
    """A process began the run, or went on with it; or, while it went on, its workers changed."""

    time: float
    step: int
    images_seen: int
    world_size: int
    global_batch: int
    images_per_epoch: int
    total_images: int
    resets: int = 0
    """How often its workers had changed since it was launched."""
    lost_images: int = 0
    """That the workers before had done since their last commit."""


@dataclass(frozen=True)
class Window:
    """One report: the steps since the one before."""

    time: float
    step: int
    images_seen: int
    start: int
    """Which of the run's starts it belongs to."""
    epoch: float
    lr: float
    loss: float
    images_per_second: float
    """Of all workers, over these steps."""
    steps: int
    step_seconds: float
    """Mean of these steps."""
    parts: Mapping[str, float] | None
    """Of the run, seconds per step, by metrics.breakdown.PARTS."""
    ranks: Mapping[str, tuple[float, ...]] | None
    """lag, input and compute of each rank, seconds per step."""
    slowest_rank: int | None
    efficiency: Efficiency | None
    """Over the last windows, not this one alone."""


@dataclass(frozen=True)
class Evaluation:
    time: float
    """Of its end, seconds since 1970, as all times here."""
    step: int
    epoch: float
    top1: float
    """A fraction, as the others."""
    top5: float
    loss: float
    """Mean per image, nats."""
    average_top1: float
    """Of the moving average of the weights, NaN without one."""
    images: int
    seconds: float


@dataclass(frozen=True)
class Checkpoint:
    time: float
    step: int
    path: str
    stalled_seconds: float
    """That training stood still for it, at its begin."""
    seconds: float
    """Until it was durable, at `time`."""


@dataclass(frozen=True)
class Quarantined:
    time: float
    part: str
    image: str
    reason: str


@dataclass(frozen=True)
class End:
    time: float
    step: int
    seconds: float
    """Since the process began, start-up included."""
    images_per_second: float


@dataclass(frozen=True)
class Worker:
    rank: int
    host: str
    device: str
    """cpu or cuda:N."""
    device_name: str
    threads: int | None


@dataclass(frozen=True)
class Environment:
    """Of the last start."""

    workers: tuple[Worker, ...] = ()
    bucket_bytes: tuple[int, ...] = ()
    variables: Mapping[str, str] = field(default_factory=dict)
    algorithm: str = ""
    command: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    """hvdtrain, commit, python, torch and cuda, where known."""
    bus_bytes_per_second: float | None = None
    """Of a large sum before the run's first step."""

    def host(self, rank: int) -> str:
        """Of a rank, or empty."""
        return self.workers[rank].host if 0 <= rank < len(self.workers) else ""

    @property
    def hosts(self) -> tuple[str, ...]:
        """Each once, in order of rank."""
        return tuple(dict.fromkeys(worker.host for worker in self.workers))

    @property
    def on_gpus(self) -> bool:
        return any(worker.device.startswith("cuda") for worker in self.workers)

    @property
    def device_names(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(worker.device_name for worker in self.workers))


class State(Enum):
    RUNNING = "running"
    CHANGING = "changing"
    """Its workers have ended, and others are expected: it is elastic."""
    FINISHED = "finished"
    PREEMPTED = "preempted"
    KILLED = "killed"


@dataclass(frozen=True)
class Run:
    folder: Path
    state: State
    heard: float
    """When the run last showed that it lives."""
    config: Config | None
    environment: Environment
    starts: tuple[Start, ...]
    baselines: Mapping[int, tuple[float, Baseline]]
    """By start: when it was told, and the baseline itself."""
    windows: tuple[Window, ...]
    evaluations: tuple[Evaluation, ...]
    checkpoints: tuple[Checkpoint, ...]
    quarantined: tuple[Quarantined, ...]
    end: End | None
    unreadable: int
    """Lines of events.jsonl that are no records: torn ones."""

    @property
    def name(self) -> str:
        return self.folder.resolve().name

    @property
    def start(self) -> Start:
        """The last one."""
        return self.starts[-1]

    def changed(self, start: int) -> int:
        """How often its workers changed between a start and the one before; 0 where it was launched anew."""
        before = self.starts[start - 1].resets if start else 0
        return max(self.starts[start].resets - before, 0)

    @property
    def changes(self) -> int:
        """How often its workers changed while it went on."""
        return sum(map(self.changed, range(len(self.starts))))

    @property
    def launches(self) -> int:
        return 1 + sum(not self.changed(start) for start in range(1, len(self.starts)))

    @property
    def baseline(self) -> Baseline | None:
        """Of the last start."""
        told = self.baselines.get(len(self.starts) - 1)
        return told[1] if told else None

    def start_of(self, baseline: Baseline) -> Start:
        """The last one that it held for."""
        return self.starts[max(start for start, (_, told) in self.baselines.items() if told == baseline)]

    @property
    def reached(self) -> Window | Start:
        """Where the run is, as far as is told: a start takes back what was lost before it."""
        last = self.windows[-1] if self.windows else None
        return last if last and last.start == len(self.starts) - 1 else self.start

    @property
    def images_seen(self) -> int:
        return self.reached.images_seen

    @property
    def step(self) -> int:
        return self.reached.step

    @property
    def epoch(self) -> float:
        return self.images_seen / self.start.images_per_epoch if self.start.images_per_epoch else math.nan

    @property
    def epochs(self) -> float:
        """How many it takes in all."""
        return self.start.total_images / self.start.images_per_epoch if self.start.images_per_epoch else math.nan

    @property
    def batch_size(self) -> int | None:
        """Images of a worker and forward pass: the paper's n."""
        return self.config.data.batch_size if self.config else None
