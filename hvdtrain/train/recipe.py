"""Configuration and number of workers -> the numbers of the recipe, before any worker starts work. Needs no torch."""

import math
from collections.abc import Sequence

from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError
from hvdtrain.optim.schedule import CosineDecay, PolynomialDecay, Ramp, Rate, Schedule, StepDecay, scaled_rate


def micro_batches(config: Config, workers: int) -> int:
    """m: how many batches of n images each of k workers takes for one step of k·n·m images.

    m micro-batches on k workers give what k·m workers give: the loss is divided by the whole minibatch, batch
    normalisation sees n images either way, and the gradients are summed once.

    Where workers come and go, `train.global_batch_size` is what k·n·m comes as near to as it can.

    Raises:
        ConfigError: `train.global_batch_size` is no multiple of k·n.
    """
    n, kn = config.data.batch_size, config.train.global_batch_size
    if kn is None:
        return 1
    if kn % (workers * n) == 0:
        return kn // (workers * n)
    if config.elastic.enabled:
        return nearest(kn / (workers * n))
    who = f"{workers} worker{'s' * (workers > 1)}"
    raise ConfigError(
        f"train.global_batch_size = {kn}: expected a multiple of {workers * n}, for {who} of data.batch_size = {n}",
        remedy=_what_would_fit(kn, workers, n, in_pairs=bool(config.data.mixup or config.data.cutmix)),
    )


def nearest(micro_batches: float) -> int:
    """The whole number next to it, the smaller of two: of two minibatches as far off, the one with the smaller rate.

    >>> [nearest(m) for m in (0.2, 1.5, 1.51, 2.67)]
    [1, 1, 2, 3]
    """
    return max(math.ceil(micro_batches - 0.5), 1)


def global_batch(config: Config, workers: int) -> int:
    """kn of the whole step, images: k·n·m."""
    return workers * config.data.batch_size * micro_batches(config, workers)


def untimed_steps(config: Config) -> int:
    """Of a baseline, before those that are timed: until the decoder is at its pace."""
    return config.data.prefetch + 1


def going_on(config: Config, *, workers: int, global_batch: int) -> Config:
    """For a run that goes on: kn stays what it was and n stays, whatever the number of workers now, so m changes.

    Args:
        global_batch: kn of the run so far, images; 0 where that is not known.

    Raises:
        ConfigError: kn is no multiple of k·n.
    """
    n = config.data.batch_size
    if config.train.global_batch_size is not None or not global_batch:  # micro_batches checks it
        return config
    if global_batch % (workers * n):
        fit = [str(k) for k in range(1, global_batch // n + 1) if global_batch % (k * n) == 0]
        some = f"resume it on {', '.join(fit[:-1])}{' or ' * (len(fit) > 1)}{fit[-1]} workers" if fit else ""
        raise ConfigError(
            f"{workers} workers of data.batch_size = {n}: expected a number that shares the run's minibatch of"
            f" {global_batch} images evenly",
            remedy=some or f"a data.batch_size that divides {global_batch}",
        )
    return config.model_copy(update={"train": config.train.model_copy(update={"global_batch_size": global_batch})})


def _what_would_fit(kn: int, workers: int, n: int, *, in_pairs: bool = False) -> str:
    """The nearest number of workers, minibatch, and batch per worker that go together with the other two.

    >>> _what_would_fit(256, workers=6, n=32)
    '4 or 8 workers, or --train.global_batch_size 192 or 384'
    >>> _what_would_fit(256, workers=256, n=32)
    '8 workers, or --train.global_batch_size 8192, or --data.batch_size 1'
    """
    step = 2 if in_pairs else 1  # mixup and CutMix need an even n
    some = _nearest(workers, [k for k in range(1, kn // n + 1) if kn % (k * n) == 0])
    below = kn // (workers * n) * workers * n
    fit = {
        f"{{}} worker{'s' * (some != [1])}": some,
        "--train.global_batch_size {}": _nearest(kn, [below, below + workers * n]),
        "--data.batch_size {}": _nearest(n, [b for b in range(step, kn + 1, step) if kn % (workers * b) == 0]),
    }
    return ", or ".join(what.format(" or ".join(map(str, values))) for what, values in fit.items() if values)


def _nearest(wanted: int, possible: list[int]) -> list[int]:
    """The largest below and the smallest above, of those that are more than 0."""
    below = [value for value in possible if 0 < value < wanted]
    above = [value for value in possible if value > wanted]
    return [*below[-1:], *above[:1]]


def schedule(config: Config, global_batch: int) -> Schedule:
    """The learning rate of a run with minibatches of `global_batch` images.

    Raises:
        ConfigError: it would end above its peak.
    """
    optim = config.optim
    peak = scaled_rate(
        optim.base_lr, global_batch=global_batch, reference_batch=optim.reference_batch, rule=optim.scaling
    )
    if optim.decay != "step" and optim.end_lr > peak:
        raise ConfigError(f"optim.end_lr = {optim.end_lr:g}: expected at most the peak rate {peak:g}")
    begin = optim.warmup_epochs if optim.warmup != "none" and peak > optim.base_lr else 0.0
    decay: Rate
    if optim.decay == "cosine":
        decay = CosineDecay(peak, begin=begin, end=config.epochs, end_lr=optim.end_lr)
    elif optim.decay == "polynomial":
        decay = PolynomialDecay(peak, begin=begin, end=config.epochs, power=optim.power, end_lr=optim.end_lr)
    else:
        decay = StepDecay(peak, epochs=optim.decay_epochs, factor=optim.decay_factor)
    return Schedule(optim.base_lr, peak, optim.warmup, optim.warmup_epochs, decay)


def ramped(config: Config, minibatches: Sequence[tuple[float, int]]) -> Rate:
    """The learning rate of a run whose minibatch has changed on the way.

    Args:
        minibatches: each with the epoch from which on it was taken, in order.
    """
    rates = [schedule(config, global_batch) for _, global_batch in minibatches]
    rate: Rate = rates[0]
    for (begin, _), after in zip(minibatches[1:], rates[1:], strict=True):
        rate = Ramp(rate, after, begin, config.elastic.ramp_epochs)
    return rate
