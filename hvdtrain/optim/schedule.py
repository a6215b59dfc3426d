"""The learning rate as a pure function of the epoch, which is images seen / images per epoch, a fraction.

It knows the minibatch kn and nothing of how many workers share it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

Rate = Callable[[float], float]  # epoch -> learning rate


def scaled_rate(base_lr: float, *, global_batch: int, reference_batch: int, rule: str = "linear") -> float:
    """The rate of a minibatch of kn images when `base_lr` is that of `reference_batch`.

        linear   base_lr · kn / reference_batch         (Goyal et al. 2017, section 2.1)
        sqrt     base_lr · sqrt(kn / reference_batch)   (the rule that their table 2a compares with)
        none     base_lr

    >>> [scaled_rate(0.1, global_batch=kn, reference_batch=256) for kn in (64, 256, 1024, 8192)]
    [0.025, 0.1, 0.4, 3.2]
    >>> [round(scaled_rate(0.1, global_batch=8192, reference_batch=256, rule=r), 4) for r in ("linear", "sqrt", "none")]
    [3.2, 0.5657, 0.1]
    """
    # the ratio first: 0.1 · 96 / 96 is above 0.1 by a bit, and would be a peak to warm up to
    ratio = global_batch / reference_batch
    return base_lr * {"linear": ratio, "sqrt": math.sqrt(ratio), "none": 1.0}[rule]


@dataclass(frozen=True)
class Schedule:
    """A warm-up to the peak rate, and a decay from it.

        gradual    lr(e) = base_lr + (peak - base_lr) · e / warmup_epochs   for e < warmup_epochs   (section 2.2)
        constant   lr(e) = base_lr                                          for e < warmup_epochs
        none       no warm-up
                   lr(e) = decay(e)                                         from there on

    A minibatch whose peak is no larger than `base_lr` has nothing to warm up to, and no warm-up.

    >>> def table(warmup):
    ...     lr = Schedule(0.1, 3.2, warmup, 5, StepDecay(3.2, epochs=(30, 60, 80), factor=0.1))
    ...     return [round(lr(e), 6) for e in (0, 2.5, 4.99, 5, 29.99, 30, 60, 80)]
    >>> table("gradual")
    [0.1, 1.65, 3.1938, 3.2, 3.2, 0.32, 0.032, 0.0032]
    >>> table("constant")
    [0.1, 0.1, 0.1, 3.2, 3.2, 0.32, 0.032, 0.0032]
    >>> table("none")
    [3.2, 3.2, 3.2, 3.2, 3.2, 0.32, 0.032, 0.0032]
    """

    base_lr: float
    peak: float
    warmup: str
    warmup_epochs: float
    decay: Rate

    def __call__(self, epoch: float) -> float:
        if epoch >= self.warmup_epochs or self.warmup == "none" or self.peak <= self.base_lr:
            return self.decay(epoch)
        risen = {"gradual": epoch / self.warmup_epochs, "constant": 0.0}[self.warmup]
        return self.base_lr + (self.peak - self.base_lr) * risen


@dataclass(frozen=True)
class Ramp:
    """From one rate to another, for a minibatch that changes at the epoch `begin`: down at once, up in `epochs`.

    A rate that rises at once with its minibatch is what the gradual warm-up is there to avoid (Goyal et al. 2017,
    section 2.2); one that falls with it keeps lr / kn, and so the noise of the steps. A run that goes back to before
    `begin` goes on with the minibatch of after it: at the smaller of both rates, which is too large for neither.

    >>> up = Ramp(lambda e: 0.1, lambda e: 0.2, begin=2, epochs=0.5)
    >>> [round(up(e), 3) for e in (2, 2.25, 2.5, 3)]
    [0.1, 0.15, 0.2, 0.2]
    >>> Ramp(lambda e: 0.2, lambda e: 0.1, begin=2, epochs=0.5)(2)
    0.1
    """

    before: Rate
    after: Rate
    begin: float
    epochs: float

    def __call__(self, epoch: float) -> float:
        old, new = self.before(epoch), self.after(epoch)
        if epoch < self.begin:
            return min(old, new)
        if new <= old or epoch >= self.begin + self.epochs:
            return new
        return old + (new - old) * (epoch - self.begin) / self.epochs


@dataclass(frozen=True)
class StepDecay:
    """lr(e) = peak · factor^(number of `epochs` <= e)   (Goyal et al. 2017, section 5.1)

    >>> lr = StepDecay(0.1, epochs=(30, 60, 80), factor=0.1)
    >>> [round(lr(e), 6) for e in (0, 29.99, 30, 59.99, 60, 80, 90)]
    [0.1, 0.1, 0.01, 0.01, 0.001, 0.0001, 0.0001]
    """

    peak: float
    epochs: tuple[float, ...]
    factor: float

    def __call__(self, epoch: float) -> float:
        return self.peak * self.factor ** sum(border <= epoch for border in self.epochs)


@dataclass(frozen=True)
class CosineDecay:
    """lr(e) = end_lr + (peak - end_lr) · (1 + cos(π · p)) / 2,   p = (e - begin) / (end - begin), within 0 … 1

    Loshchilov and Hutter 2017, "SGDR", equation 5, without restarts.

    >>> lr = CosineDecay(2.048, begin=8, end=90, end_lr=0)
    >>> [round(lr(e), 6) for e in (8, 28.5, 49, 69.5, 90, 91)]
    [2.048, 1.748077, 1.024, 0.299923, 0.0, 0.0]
    """

    peak: float
    begin: float
    end: float
    end_lr: float

    def __call__(self, epoch: float) -> float:
        return self.end_lr + (self.peak - self.end_lr) * (1 + math.cos(math.pi * _progress(self, epoch))) / 2


@dataclass(frozen=True)
class PolynomialDecay:
    """lr(e) = end_lr + (peak - end_lr) · (1 - p)^power,   p = (e - begin) / (end - begin), within 0 … 1

    You et al. 2017, "Large Batch Training of Convolutional Networks", section 5; MLPerf's ResNet-50 ends at 1e-4.

    >>> lr = PolynomialDecay(27.5, begin=16, end=60, power=2, end_lr=0.0001)
    >>> [round(lr(e), 6) for e in (16, 27, 38, 49, 60, 61)]
    [27.5, 15.468794, 6.875075, 1.718844, 0.0001, 0.0001]
    """

    peak: float
    begin: float
    end: float
    power: float
    end_lr: float

    def __call__(self, epoch: float) -> float:
        return self.end_lr + (self.peak - self.end_lr) * math.pow(1 - _progress(self, epoch), self.power)


def _progress(decay: CosineDecay | PolynomialDecay, epoch: float) -> float:
    return min(max((epoch - decay.begin) / (decay.end - decay.begin), 0.0), 1.0)
