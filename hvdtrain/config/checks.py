"""Settings that exclude each other, refused with what would be possible."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hvdtrain.config.schema import DataConfig, MetricsConfig, OptimConfig


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


def refuse(key: str, value: Any, wanted: str) -> None:
    raise ValueError(f"{key} = {value}: expected {wanted}")
