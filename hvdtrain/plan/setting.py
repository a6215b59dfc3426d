"""What is asked for, with everything that it rests on: measured, tabulated or assumed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from hvdtrain.errors import ConfigError
from hvdtrain.plan import hardware
from hvdtrain.plan.allreduce import Algorithm, Fabric
from hvdtrain.plan.constants import Constants, constants
from hvdtrain.plan.fit import Fit
from hvdtrain.plan.hardware import How, Input
from hvdtrain.plan.models import Network, network
from hvdtrain.plan.step import MIB, Fusion, Overheads

WIRE = {"fp16": 2, "bf16": 2}
CALIBRATED = "fitted to published series (hvdtrain plan --validate)"
GUESSED = {"nvlink": (0.6, 0.95), "pcie": (0.4, 0.9), "hop_seconds": (2e-6, 20e-6)}
"""What no series tells, and between what it may lie."""


@dataclass(frozen=True)
class Ask:
    """The command line."""

    model: str = "resnet50"
    gpu: str = "p100"
    link: str = "50gbit"
    gpus_per_node: int = 8
    batch: int = 32
    precision: str = "float32"
    epochs: float = 90
    images: int = 1_281_167
    price: float | None = None  # of a GPU's hour
    algorithm: Algorithm = "ring"
    bucket_mib: float = 25.0
    wire: str | None = None  # fp16
    transport: str | None = None  # rdma, tcp
    within: str | None = None
    input_rate: float | None = None  # images/s of a node
    global_batch: int | None = None
    compute_seconds: float | None = None
    images_per_second_per_gpu: float | None = None
    fit: Fit | None = None


@dataclass(frozen=True)
class Setting:
    """What a prediction is computed from. Pure values."""

    network: Network
    batch: int
    compute: float  # seconds of one worker's step of `batch` images
    fabric: Fabric
    fusion: Fusion
    overheads: Overheads
    wire_bytes: int
    input_rate: float | None  # images/s of a node
    global_batch: int | None
    images: int
    epochs: float
    price: float | None
    inputs: tuple[Input, ...] = ()
    ranges: Mapping[str, tuple["Setting", "Setting"]] = field(default_factory=dict)
    """By what was assumed: the setting at either end of what it may be."""


def setting(ask: Ask, shared: Constants | None = None) -> Setting:
    """
    Args:
        shared: instead of those fitted to all published series.

    Raises:
        ConfigError: a name that is not known, or a number that cannot be.
    """
    _check(ask)
    shared = shared or constants()
    inputs: list[Input] = []
    compute, spread = _compute(ask, inputs)
    fabric = _fabric(ask, shared, inputs)
    inputs += [
        Input("jitter", f"{100 * shared.jitter:.1f} % of a step (1 sd)", "assumed", CALIBRATED),
        Input("negotiation", f"{1000 * shared.negotiation_seconds:.2g} ms for each doubling", "assumed", CALIBRATED),
        Input("beside a sum", f"computing is {100 * shared.shared:.0f} % slower", "assumed", CALIBRATED),
    ]
    if ask.input_rate:
        inputs.append(Input("input", f"{ask.input_rate:,.0f} images/s of a node", "measured", "--input-rate"))
    else:
        inputs.append(Input("input", "never late", "assumed", "benchmarks/input.py measures it; then say --input-rate"))
    found = Setting(
        network=network(ask.model),
        batch=ask.batch,
        compute=compute,
        fabric=fabric,
        fusion=Fusion("buckets", ask.bucket_mib * MIB, 0.001),
        overheads=Overheads(shared.jitter, shared.negotiation_seconds, shared.shared),
        wire_bytes=WIRE[ask.wire] if ask.wire else 4,
        input_rate=ask.input_rate,
        global_batch=ask.global_batch,
        images=ask.images,
        epochs=ask.epochs,
        price=ask.price,
        inputs=tuple(inputs),
    )
    return replace(found, ranges=_ranges(ask, shared, found, spread))


def _check(ask: Ask) -> None:
    numbers = {
        "--gpus-per-node": ask.gpus_per_node,
        "--batch": ask.batch,
        "--epochs": ask.epochs,
        "--images": ask.images,
        "--bucket-mib": ask.bucket_mib,
        "--input-rate": ask.input_rate,
        "--global-batch": ask.global_batch,
        "--compute-seconds": ask.compute_seconds,
        "--images-per-second-per-gpu": ask.images_per_second_per_gpu,
    }
    for option, value in numbers.items():
        if value is not None and not 0 < value < 1e15:
            raise ConfigError(f"{option} {value}: wanted a number above 0")
    if ask.price is not None and not 0 <= ask.price < 1e9:
        raise ConfigError(f"--price {ask.price}: wanted the price of a GPU's hour, 0 or more")


def _compute(ask: Ask, inputs: list[Input]) -> tuple[float, float]:
    """Seconds of one worker's step, and by which share they may be wrong."""
    if ask.compute_seconds:
        inputs.append(_step(ask.compute_seconds, ask, "measured", "--compute-seconds"))
        return ask.compute_seconds, 0.0
    if ask.images_per_second_per_gpu:
        seconds = ask.batch / ask.images_per_second_per_gpu
        inputs.append(_step(seconds, ask, "measured", "--images-per-second-per-gpu"))
        return seconds, 0.0
    found = hardware.speed(ask.gpu, ask.model, ask.precision, ask.batch)
    inputs.append(_step(ask.batch / found.images_per_second, ask, found.how, found.source))
    return ask.batch / found.images_per_second, found.spread


def _step(seconds: float, ask: Ask, how: How, source: str) -> Input:
    alone = f"{1000 * seconds:,.1f} ms, {ask.batch / seconds:,.0f} images/s of one {ask.gpu}"
    return Input("computing", alone, how, source)


def _fabric(ask: Ask, shared: Constants, inputs: list[Input]) -> Fabric:
    if ask.fit:
        measured = f"{ask.fit.bytes_per_second / 1e9:.3g} GB/s, {1e6 * ask.fit.alpha_seconds:.3g} µs a hop"
        inputs.append(Input("sums", measured, "measured", _whence(ask.fit)))
        speed = ask.fit.bytes_per_second
        return Fabric(ask.gpus_per_node, speed, speed, ask.fit.alpha_seconds, "ring")
    link = ask.within or hardware.host_link(ask.gpu)
    nominal = hardware.within(link)
    inside = shared.within(nominal, link)
    how, source = hardware.source("within", link)
    share = "pcie" if not link.startswith("nv") else "nvlink"
    inputs.append(Input("within a node", f"{link}, {nominal / 1e9:.4g} GB/s", how, source))
    inputs.append(Input("  of it used", f"{100 * inside / nominal:.0f} %", "assumed", f"for {share}"))
    gbit = hardware.gbit(ask.link)
    transport = ask.transport or ("rdma" if gbit >= hardware.RDMA_FROM else "tcp")
    across = shared.across(gbit / 8 * 1e9, transport)
    inputs.append(
        Input("network", f"{gbit:g} Gbit/s of a node of {ask.gpus_per_node}", "asked", "--link, --gpus-per-node")
    )
    said: How = "asked" if ask.transport else "assumed"
    inputs.append(Input("  by", transport, said, "--transport" if ask.transport else "the network's speed"))
    inputs.append(Input("  of it used", f"{100 * across / (gbit / 8 * 1e9):.0f} %", "assumed", CALIBRATED))
    inputs.append(Input("hop", f"{1e6 * shared.hop_seconds:.0f} µs", "assumed", "between 2 and 20"))
    return Fabric(ask.gpus_per_node, inside, across, shared.hop_seconds, ask.algorithm)


def _whence(fit: Fit) -> str:
    about = ", ".join(filter(None, [f"{fit.sums} sums of up to {fit.workers} workers", fit.hardware, fit.date]))
    return f"--fit: {about}"


def _ranges(ask: Ask, shared: Constants, found: Setting, spread: float) -> dict[str, tuple[Setting, Setting]]:
    both = {}
    if spread:
        slow, fast = (replace(found, compute=found.compute * factor) for factor in (1 + spread, 1 / (1 + spread)))
        both["computing"] = slow, fast
    if ask.fit:
        fabric, fit = found.fabric, ask.fit
        ends = []
        for sign in (2, -2):
            hop = max(fit.alpha_seconds + sign * fit.alpha_error, 0.0)
            speed = max(fit.bytes_per_second - sign * fit.bytes_per_second_error, fit.bytes_per_second / 2)
            ends.append(replace(found, fabric=replace(fabric, within=speed, across=speed, hop_seconds=hop)))
        both["sums"] = ends[0], ends[1]
        return both
    for name, (low, high) in GUESSED.items():
        ends = [replace(found, fabric=_fabric(ask, replace(shared, **{name: value}), [])) for value in (low, high)]
        both[name] = ends[0], ends[1]
    return both
