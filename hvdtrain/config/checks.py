"""Settings that exclude each other, refused with what would be possible."""

import reprlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hvdtrain.errors import ConfigError

if TYPE_CHECKING:
    from hvdtrain.config.recipe import DataConfig, OptimConfig
    from hvdtrain.config.schema import Config, MetricsConfig


def schedule(optim: "OptimConfig", epochs: float) -> None:
    warmup = 0.0 if optim.warmup == "none" else optim.warmup_epochs
    if warmup >= epochs and warmup > 0:
        refuse("optim.warmup_epochs", optim.warmup_epochs, f"less than epochs = {epochs:g}")
    if list(optim.decay_epochs) != sorted(set(optim.decay_epochs)):
        refuse("optim.decay_epochs", optim.decay_epochs, "rising epochs")
    if optim.decay == "step" and optim.decay_epochs and optim.decay_epochs[0] < warmup:
        refuse("optim.decay_epochs", optim.decay_epochs, f"none before the warm-up's end at epoch {warmup:g}")


def pictures(data: "DataConfig", model: str) -> None:
    for key, (low, high) in {"data.crop_area": data.crop_area, "data.crop_aspect": data.crop_aspect}.items():
        if low > high:
            refuse(key, (low, high), "smallest first")
    begins = [begin for begin, _ in data.train_sizes]
    if begins and (begins != sorted(set(begins)) or begins[0] > 0):
        refuse("data.train_sizes", data.train_sizes, "rising epochs, the first of them 0")
    for key, size in [("data.image_size", data.image_size), *(("data.train_sizes", s) for _, s in data.train_sizes)]:
        small = model in ("resnet8", "resnet20")
        if small and size > 64:
            refuse(key, size, f"at most 64 with model.name = {model}")
        if not small and size < 32:
            refuse(key, size, f"at least 32 with model.name = {model}")
    if (data.mixup or data.cutmix) and data.batch_size % 2:
        refuse("data.batch_size", data.batch_size, "an even number with data.mixup or data.cutmix, which pair images")


def watching(metrics: "MetricsConfig") -> None:
    for key in ("tls_key", "client_ca"):
        if getattr(metrics, key) and not metrics.tls_certificate:
            refuse(f"metrics.{key}", getattr(metrics, key), "a metrics.tls_certificate with it")


def together(config: "Config") -> None:
    if config.distributed.reducer == "horovod" and config.model.channels_last:
        refuse("model.channels_last", True, "false with distributed.reducer = horovod, which takes contiguous tensors")
    if config.distributed.compression == "fp16" and config.precision == "float64":
        refuse("distributed.compression", "fp16", "none with precision = float64")
    if config.data.train_sizes and config.data.train_sizes[-1][0] >= config.epochs:
        refuse("data.train_sizes", config.data.train_sizes, f"no size from epoch {config.epochs:g}, the end, on")
    if config.elastic.enabled:
        _elastic(config)
    if "/" in config.run.name or config.run.name in (".", ".."):
        refuse("run.name", config.run.name, "the name of one folder")


def _elastic(config: "Config") -> None:
    if config.train.global_batch_size is None:
        refuse("elastic.enabled", True, "a train.global_batch_size with it, kept while workers come and go")
    if config.data.stage != "none":
        refuse("data.stage", config.data.stage, "none with elastic.enabled: a host that comes would be waited for")
    if config.distributed.reducer != "buckets":
        refuse("distributed.reducer", config.distributed.reducer, "buckets with elastic.enabled")


def at_home(config: "Config") -> "Config":
    """The same, if this host knows the homes that it names: what was resolved elsewhere may name others.

    Raises:
        ConfigError: it does not.
    """
    expanded("data.cache_dir", config.data.cache_dir)
    expanded("metrics.baselines_dir", config.metrics.baselines_dir)
    return config


def expanded(key: str, path: Path) -> Path:
    """With somebody's home in the place of `~`.

    Raises:
        ConfigError: this host knows of none.
    """
    try:
        return path.expanduser()
    except RuntimeError:
        raise ConfigError(
            f"{key} = {path}: expected a folder, got a home that is not known here", remedy=f"--{key} DIR, or HOME=DIR"
        ) from None


def refuse(key: str, value: Any, wanted: str) -> None:
    raise ValueError(f"{key} = {shown(value)}: expected {wanted}")


def shown(value: Any, most: int = 120) -> str:
    """A value in a message: on one line, and cut, for what is wrong with it may be its length.

    >>> shown("resnet50"), shown((30.0, 60.0)), shown("a" * 1000, most=12), shown("a\\nb")
    ('resnet50', '(30.0, 60.0)', 'aaaaaaaaaaa…', "'a\\\\nb'")
    """
    if isinstance(value, str):
        text = value[:most] if value[:most].isprintable() else repr(value[:most])
        cut = len(value) > most or len(text) > most
    else:
        text = _SHORT.repr(value)
        cut = len(text) > most
    return text[: most - 1] + "…" if cut else text


class _Short(reprlib.Repr):
    def repr_int(self, value: int, level: int) -> str:
        """Of a long one only its length: its digits would take a time that grows with their square."""
        bits = value.bit_length()
        return repr(value) if bits <= 128 else f"a number of about {int(bits * 0.30103) + 1} digits"


_SHORT = _Short()
_SHORT.maxlevel, _SHORT.maxtuple, _SHORT.maxlist, _SHORT.maxdict, _SHORT.maxstring, _SHORT.maxother = 3, 8, 8, 4, 40, 60
