"""What is asked for, with everything that it rests on: measured, tabulated or assumed."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from hvdtrain.plan import hardware, speeds
from hvdtrain.plan.allreduce import Fabric
from hvdtrain.plan.ask import Ask
from hvdtrain.plan.constants import Constants, constants
from hvdtrain.plan.fit import Fit
from hvdtrain.plan.hardware import How, Input
from hvdtrain.plan.models import Network, network
from hvdtrain.plan.speeds import Speed
from hvdtrain.plan.step import MIB, Fusion, Overheads

ELEMENT_BYTES = 4  # of a gradient in its bucket, whatever it travels as: distributed/buckets.py
WIRE = {"fp16": 2, "bf16": 2}
CALIBRATED = "fitted to published series (hvdtrain plan --validate)"
GUESSED = {
    "nvlink": (0.6, 0.95),
    "pcie": (0.4, 0.9),
    "hop_seconds": (2e-6, 20e-6),
    "negotiation_seconds": (0.5e-3, 5e-3),
}
"""What no series tells, or none apart from all else that takes as long whatever the bytes; between what it may lie."""


@dataclass(frozen=True)
class Setting:
    """What a prediction is computed from. Pure values."""

    network: Network
    batch: int  # of a worker, at most
    alone: Callable[[int], Speed]  # of one worker, by its batch
    fabric: Fabric
    fusion: Fusion
    overheads: Overheads
    wire_bytes: int
    input_rate: float | None  # images/s of a node
    global_batch: int | None
    images: int
    epochs: float
    price: float | None
    slower: float = 1.0  # by which factor computing takes longer than that
    smaller_slower: float = 1.0  # by which further factor it does with fewer images than `batch`
    inputs: tuple[Input, ...] = ()
    ranges: Mapping[str, tuple["Setting", "Setting"]] = field(default_factory=dict)
    """By what was assumed: the setting at either end of what it may be. Computing is not among it: see `ends`."""

    def compute(self, batch: int) -> float:
        """Seconds of one worker's step of so many images."""
        smaller = self.smaller_slower if batch < self.batch else 1.0
        return self.slower * smaller * self.alone(batch).seconds(batch)

    def ends(self, batch: int) -> list[tuple["Setting", "Setting"]]:
        """Of everything that was assumed the setting at either end of what it may be, for workers of `batch` images."""
        known = self.alone(self.batch).spread
        both = [*self.ranges.values()]
        if known:
            both.append((replace(self, slower=1 + known), replace(self, slower=1 / (1 + known))))
        beyond = math.sqrt(max(0.0, self.alone(batch).spread ** 2 - known**2))
        if beyond:
            both.append((replace(self, smaller_slower=1 + beyond), replace(self, smaller_slower=1 / (1 + beyond))))
        return both


def setting(ask: Ask, shared: Constants | None = None) -> Setting:
    """
    Args:
        shared: instead of those fitted to all published series.

    Raises:
        ConfigError: a name that is not known, or a number that cannot be.
    """
    ask.check()
    shared = shared or constants()
    alone = _alone(ask, shared)
    found = alone(ask.batch)
    value = f"{1000 * found.seconds(ask.batch):,.1f} ms, {found.images_per_second:,.0f} images/s of one {ask.gpu}"
    inputs = [Input("computing", value, found.how, found.source)]
    fabric, overheads = _fabric(ask, shared, inputs), _overheads(ask, shared)
    negotiation = f"{1000 * shared.negotiation_seconds:.2g} ms for each doubling"
    beyond = f", beyond {ask.fit.workers} workers, of which it is in what is fixed" if ask.fit else ""
    inputs += [
        Input("jitter", f"{100 * shared.jitter:.1f} % of a step (1 sd)", "assumed", CALIBRATED),
        Input("negotiation", negotiation, "assumed", f"{CALIBRATED}; between 0.5 and 5{beyond}"),
        Input("beside a sum", f"computing is {100 * shared.shared:.0f} % slower", "assumed", CALIBRATED),
    ]
    if ask.input_rate:
        inputs.append(Input("input", f"{ask.input_rate:,.0f} images/s of a node", "measured", "--input-rate"))
    else:
        measure = "hvdtrain bench input measures it; then say --input-rate"
        inputs.append(Input("input", "never late", "assumed", measure))
    wire_bytes = WIRE[ask.wire] if ask.wire else ELEMENT_BYTES
    planned = Setting(
        network=network(ask.model),
        batch=ask.batch,
        alone=alone,
        fabric=fabric,
        fusion=Fusion("buckets", ask.bucket_mib * MIB * wire_bytes / ELEMENT_BYTES),
        overheads=overheads,
        wire_bytes=wire_bytes,
        input_rate=ask.input_rate,
        global_batch=ask.global_batch,
        images=ask.images,
        epochs=ask.epochs,
        price=ask.price,
        inputs=tuple(inputs),
    )
    return replace(planned, ranges=_ranges(ask, shared, planned))


def _alone(ask: Ask, shared: Constants) -> Callable[[int], Speed]:
    if ask.compute_seconds:
        return partial(speeds.measured, ask.batch / ask.compute_seconds, "--compute-seconds", ask.batch)
    if ask.images_per_second_per_gpu:
        return partial(speeds.measured, ask.images_per_second_per_gpu, "--images-per-second-per-gpu", ask.batch)
    return partial(speeds.speed, ask.gpu, ask.model, ask.precision, shared=shared)


def _fabric(ask: Ask, shared: Constants, inputs: list[Input]) -> Fabric:
    within = _measured(ask.fit, inputs) if ask.fit and ask.fit.between != "nodes" else _within(ask, shared, inputs)
    across = _measured(ask.fit, inputs) if ask.fit and ask.fit.between == "nodes" else _across(ask, shared, inputs)
    if ask.fit:
        fixed = f"{1000 * ask.fit.fixed_seconds:.2g} ms of a sum of {ask.fit.workers} workers"
        inputs.append(Input("fixed", fixed, "measured", "--fit"))
    if ask.fit and ask.fit.hop_seconds is not None:
        inputs.append(Input("hop", f"{1e6 * ask.fit.hop_seconds:.3g} µs", "measured", "--fit"))
    else:
        inputs.append(Input("hop", f"{1e6 * shared.hop_seconds:.0f} µs", "assumed", "between 2 and 20"))
    return Fabric(ask.gpus_per_node, within, across, _hop(ask, shared), ask.algorithm)


def _hop(ask: Ask, shared: Constants) -> float:
    measured = ask.fit.hop_seconds if ask.fit else None
    return shared.hop_seconds if measured is None else measured


def _overheads(ask: Ask, shared: Constants) -> Overheads:
    found = shared.overheads()
    if not ask.fit:
        return found
    fixed = ask.fit.fixed_besides(_hop(ask, shared))
    return replace(found, fixed_seconds=fixed, fixed_workers=ask.fit.workers)


def _measured(fit: Fit, inputs: list[Input]) -> float:
    """Bytes/s of a worker, or of a node."""
    name = "network" if fit.between == "nodes" else "within a node"
    about = ", ".join(filter(None, [f"{fit.sums} sums of up to {fit.workers} workers", fit.hardware, fit.date]))
    inputs.append(Input(name, f"{fit.bytes_per_second / 1e9:.3g} GB/s", "measured", f"--fit: {about}"))
    return fit.bytes_per_second


def _within(ask: Ask, shared: Constants, inputs: list[Input]) -> float:
    """Bytes/s of a worker within its node."""
    link = ask.within or hardware.host_link(ask.gpu)
    nominal = hardware.within(link)
    inside = shared.within(nominal, link)
    how, source = hardware.source("within", link)
    share = "pcie" if not link.startswith("nv") else "nvlink"
    inputs.append(Input("within a node", f"{link}, {nominal / 1e9:.4g} GB/s", how, source))
    inputs.append(Input("  of it used", f"{100 * inside / nominal:.0f} %", "assumed", f"for {share}"))
    return inside


def _across(ask: Ask, shared: Constants, inputs: list[Input]) -> float:
    """Bytes/s of a node towards the network."""
    gbit = hardware.gbit(ask.link)
    transport = ask.transport or ("rdma" if gbit >= hardware.RDMA_FROM else "tcp")
    across = shared.across(gbit / 8 * 1e9, transport)
    inputs.append(
        Input("network", f"{gbit:g} Gbit/s of a node of {ask.gpus_per_node}", "asked", "--link, --gpus-per-node")
    )
    said: How = "asked" if ask.transport else "assumed"
    inputs.append(Input("  by", transport, said, "--transport" if ask.transport else "the network's speed"))
    inputs.append(Input("  of it used", f"{100 * across / (gbit / 8 * 1e9):.0f} %", "assumed", CALIBRATED))
    return across


def _ranges(ask: Ask, shared: Constants, planned: Setting) -> dict[str, tuple[Setting, Setting]]:
    def end(ask: Ask, shared: Constants) -> Setting:
        alone, fabric, overheads = _alone(ask, shared), _fabric(ask, shared, []), _overheads(ask, shared)
        return replace(planned, alone=alone, fabric=fabric, overheads=overheads)

    both = {
        name: (end(ask, replace(shared, **{name: low})), end(ask, replace(shared, **{name: high})))
        for name, (low, high) in GUESSED.items()
    }
    if ask.fit:
        slow, fast = (end(replace(ask, fit=_off(ask.fit, errors)), shared) for errors in (2, -2))
        both["sums"] = slow, fast
    return both


def _off(fit: Fit, errors: float) -> Fit:
    """Slower by so many standard errors."""
    speed = max(fit.bytes_per_second - errors * fit.bytes_per_second_error, fit.bytes_per_second / 2)
    hop = None if fit.hop_seconds is None else max(0.0, fit.hop_seconds + errors * fit.hop_error)
    fixed = max(0.0, fit.fixed_seconds + errors * fit.fixed_error)
    return replace(fit, bytes_per_second=speed, hop_seconds=hop, fixed_seconds=fixed)
