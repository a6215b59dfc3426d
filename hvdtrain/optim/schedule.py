"""The learning rate as a pure function of the epoch, which is images seen / images per epoch, a fraction."""

from collections.abc import Callable
from dataclasses import dataclass

Schedule = Callable[[float], float]


@dataclass(frozen=True)
class StepSchedule:
    """Linear scaling, gradual warm-up and step decay (Goyal et al. 2017, sections 2.1, 2.2 and 5.1).

        peak  = base_lr · kn / reference_batch
        lr(e) = base_lr + (peak - base_lr) · e / warmup_epochs   for e < warmup_epochs, if kn > reference_batch
                peak · decay_factor^(number of decay_epochs <= e)   otherwise

    >>> lr = StepSchedule(0.1, 256, 8192, warmup_epochs=5, decay_epochs=(30, 60, 80), decay_factor=0.1)
    >>> [round(lr(e), 6) for e in (0, 2.5, 5, 29.99, 30, 60, 80)]
    [0.1, 1.65, 3.2, 3.2, 0.32, 0.032, 0.0032]
    """

    base_lr: float
    reference_batch: int
    global_batch: int
    warmup_epochs: float
    decay_epochs: tuple[float, ...]
    decay_factor: float

    @property
    def peak(self) -> float:
        return self.base_lr * self.global_batch / self.reference_batch

    def __call__(self, epoch: float) -> float:
        if epoch < self.warmup_epochs and self.peak > self.base_lr:
            return self.base_lr + (self.peak - self.base_lr) * epoch / self.warmup_epochs
        return self.peak * self.decay_factor ** sum(border <= epoch for border in self.decay_epochs)
