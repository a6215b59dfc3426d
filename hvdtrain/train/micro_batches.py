"""The micro-batches of one step, and what was met while they were taken."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from hvdtrain.data.loader import Batch, Plan
from hvdtrain.train.clock import StepClock


@dataclass
class MicroBatches:
    source: Iterator[Batch]
    count: int
    clock: StepClock
    images: int = 0  # this worker's, that could be decoded
    skipped: int = 0  # those that could not
    images_seen: int = 0  # by the whole run, when the step is done
    pixels: int = 0  # height of the pictures; 0 where none could be decoded
    plans: list[Plan] = field(default_factory=list)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.count):
            with self.clock.spent_on("input"):
                batch = next(self.source)
            self.images += len(batch.labels)
            self.skipped += batch.skipped
            self.images_seen = batch.images_seen
            if len(batch.labels):
                self.pixels = batch.images.shape[-2]
            if batch.plan is not None:
                self.plans.append(batch.plan)
            yield batch
