"""Where a step's time goes, by class of kernel, against what the device can do: `python benchmarks/roofline.py --help`.

One worker trains on made-up pictures under torch.profiler. Each kernel, on a CPU each operator, belongs to one class:

    convolution, matmul, batch norm, pooling, elementwise, optimiser, memcpy, nccl, other

The step is held against the roofline: its FLOPs, counted by torch.utils.flop_counter (a multiply-add is two), over the
device's peak; and the bytes that the operators read and write at least, each tensor once, over its memory bandwidth.
The peak is what the device's maker says, where PEAKS has it; else --peak-tflops and --peak-gbs, or that of a large
product and a large copy, measured here. Which one, stands in the output. nccl is there where workers sum on GPUs.
"""

import argparse
import json
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from hvdtrain.model.build import build
from hvdtrain.model.groups import parameter_groups
from hvdtrain.optim.build import optimizer
from hvdtrain.provenance import hardware, processor, revision

TYPES = {"float32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
CLASSES = (  # the first whose expression is found in a kernel's or an operator's name, in lower case
    ("nccl", r"nccl"),
    ("memcpy", r"memcpy|memset|nchwtonhwc|nhwctonchw|aten::(copy_|_to_copy|clone|fill_|zero_)|direct_copy_kernel"),
    ("optimiser", r"multi_tensor|foreach|fused_sgd|optimizer"),
    ("batch norm", r"batch_?norm|bn_(fw|bw)|cudnn.*bn"),
    ("pooling", r"pool"),
    ("convolution", r"conv|fprop|dgrad|wgrad|implicit"),
    ("matmul", r"gemm|gemv|cutlass|cublas|aten::(addmm|mm|bmm|matmul|linear)\b"),
    (
        "elementwise",
        r"elementwise|vectorized|reduce|softmax|nll_loss|triton|aten::(add|mul|relu|threshold|sum|div|mean)",
    ),
)


@dataclass(frozen=True)
class Peak:
    tflops: float
    """Dense, of the precision; 10^12 floating-point operations a second."""
    gbs: float
    """Memory bandwidth, 10^9 bytes a second."""
    source: str


def _dense(half: float, single: float, gbs: float, source: str) -> dict[str, Peak]:
    return {"bf16": Peak(half, gbs, source), "fp16": Peak(half, gbs, source), "float32": Peak(single, gbs, source)}


PEAKS = {  # in the order in which names are looked at; float32 without TF32
    r"H200": _dense(989.4, 66.9, 4800, "NVIDIA H200 datasheet, SXM, without sparsity"),
    r"H100.*(PCIe|NVL)": _dense(756, 51, 2000, "NVIDIA H100 datasheet, PCIe, without sparsity"),
    r"H100": _dense(989.4, 66.9, 3350, "NVIDIA H100 datasheet, SXM, without sparsity"),
    r"A100.*80GB": _dense(312, 19.5, 2039, "NVIDIA A100 80GB datasheet, SXM, without sparsity"),
    r"A100": _dense(312, 19.5, 1555, "NVIDIA A100 datasheet, SXM 40GB, without sparsity"),
    r"V100": {
        "fp16": Peak(125, 900, "NVIDIA V100 datasheet, SXM2"),
        "float32": Peak(15.7, 900, "NVIDIA V100 datasheet, SXM2"),
    },
}


def main() -> None:
    options = arguments()
    device = torch.device(options.device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor()
    step = steps_of(options, device)
    for _ in range(3):
        step()
    seconds = timed(step, options.steps, device)
    flops, moved = counted(step)
    by_class = profiled(step, options.steps, device)
    peak = peak_of(name, options.precision) or measured_peak(options.precision, device)
    if options.peak_tflops and options.peak_gbs:
        peak = Peak(options.peak_tflops, options.peak_gbs, "given")
    roof = max(flops / peak.tflops / 1e12, moved / peak.gbs / 1e9)
    print(f"{options.model}, batch {options.batch}, {options.image} pixels, {options.precision}, {name}")
    print(f"peak: {peak.tflops:,.4g} TFLOP/s, {peak.gbs:,.4g} GB/s ({peak.source})\n")
    print(table(by_class, seconds))
    print(f"\nstep         {1e3 * seconds:10.2f} ms, {options.batch / seconds:,.1f} images/s")
    print(f"arithmetic   {1e3 * flops / peak.tflops / 1e12:10.2f} ms at the peak, {flops / 1e9:,.1f} GFLOP")
    print(f"memory       {1e3 * moved / peak.gbs / 1e9:10.2f} ms at the peak, {moved / 1e9:,.2f} GB at least")
    print(f"of the roofline {100 * roof / seconds:5.1f} %")
    if options.json:
        given = {key: str(value) for key, value in vars(options).items() if key != "json"}
        facts = {"device": name, "peak": asdict(peak), "hardware": hardware(), "code": revision(), "options": given}
        found = {"seconds": seconds, "flops": flops, "bytes": moved, "classes": by_class, "of_roofline": roof / seconds}
        options.json.write_text(json.dumps({"kind": "roofline", **facts, **found}, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Time of a step by class of kernel against the roofline.")
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--image", type=int, default=224, help="pixels")
    parser.add_argument("--precision", default="bf16", choices=tuple(TYPES))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--steps", type=int, default=5, help="timed, and then profiled")
    parser.add_argument("--peak-tflops", type=float, help="with --peak-gbs: of a device that the table has not")
    parser.add_argument("--peak-gbs", type=float)
    parser.add_argument("--json", type=Path, help="write the figures there")
    return parser.parse_args()


def steps_of(options: argparse.Namespace, device: torch.device) -> Callable[[], None]:
    """Forward, loss, backward, update, channels-last under autocast."""
    torch.manual_seed(0)
    model = build(options.model, classes=1000, norm="batch", zero_gamma=True, head_std=0.01)
    model.to(device).to(memory_format=torch.channels_last)
    groups = parameter_groups(model, weight_decay=1e-4, decay_biases=True)
    update = optimizer("sgd", groups, lr=0.01, momentum=0.9, nesterov=True, trust_coefficient=0)
    pictures = torch.randn(options.batch, 3, options.image, options.image, device=device)
    pictures = pictures.to(memory_format=torch.channels_last)
    labels = torch.randint(0, 1000, (options.batch,), device=device)
    half = TYPES[options.precision]

    def step() -> None:
        update.zero_grad()
        with torch.autocast(device.type, half, enabled=half is not torch.float32):
            loss = functional.cross_entropy(model(pictures), labels)
        loss.backward()
        with torch.profiler.record_function("optimizer"):
            update.step()

    return step


def timed(step: Callable[[], None], steps: int, device: torch.device) -> float:
    """Seconds of a step."""
    wait(device)
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    wait(device)
    return (time.perf_counter() - begin) / steps


class Bytes(TorchDispatchMode):
    """Counts what operators read and write at least: each tensor that goes in or comes out, once for each operator."""

    total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
            self.total += sum({id(tensor): tensor.nbytes for tensor in tensors}.values())
        return result


def counted(step: Callable[[], None]) -> tuple[int, int]:
    """FLOPs and bytes of a step."""
    with FlopCounterMode(display=False) as flops:
        step()
    with Bytes() as moved:
        step()
    return flops.get_total_flops(), moved.total


def profiled(step: Callable[[], None], steps: int, device: torch.device) -> dict[str, float]:
    """Seconds of a step by class; of a GPU its kernels, of a CPU the operators without those within them."""
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as found:
        for _ in range(steps):
            step()
        wait(device)
    if on_gpu:
        kernels = [event for event in found.events() if event.device_type == torch.autograd.DeviceType.CUDA]
        # an annotation of a range, as the optimizer's, is there as a whole beside its kernels
        times = [(event.name, event.device_time_total) for event in kernels if not event.is_user_annotation]
    else:
        times = [(owner(event), event.self_cpu_time_total) for event in found.events()]
    return by_class(((name, microseconds / 1e6 / steps) for name, microseconds in times))


def owner(event: Any) -> str:
    """An operator of the optimiser's is the optimiser's, whatever it is; a copy within a convolution is a copy."""
    above = event
    while above is not None:
        if above.name == "optimizer":
            return "optimizer"
        above = above.cpu_parent
    return str(event.name)


def by_class(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    """(name, seconds) -> seconds of each class that there is, the largest first. Pure."""
    sums: dict[str, float] = {}
    for name, seconds in times:
        kind = class_of(name)
        sums[kind] = sums.get(kind, 0.0) + seconds
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def class_of(name: str) -> str:
    lower = name.lower()
    return next((kind for kind, expression in CLASSES if re.search(expression, lower)), "other")


def peak_of(name: str, precision: str) -> Peak | None:
    """None of a device, or a precision of its, that the table has not."""
    for expression, peaks in PEAKS.items():
        if re.search(expression, name):
            return peaks.get(precision)
    return None


def measured_peak(precision: str, device: torch.device) -> Peak:
    """The best of a few large products and copies here."""
    size, count = (8192, 1 << 28) if device.type == "cuda" else (1024, 1 << 24)
    a = torch.randn(size, size, device=device).to(TYPES[precision])
    source = torch.ones(count, device=device)
    target = torch.empty_like(source)
    product = min(timed(lambda: torch.mm(a, a), 1, device) for _ in range(6))
    copied = min(timed(lambda: target.copy_(source), 1, device) for _ in range(6))
    return Peak(2 * size**3 / product / 1e12, 2 * source.nbytes / copied / 1e9, "measured here: a product and a copy")


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def table(times: Mapping[str, float], step_seconds: float) -> str:
    """Milliseconds of a step by class, and their share of a step that was not profiled."""
    lines = [f"{'':14}{'ms a step':>10}{'of a step':>11}"]
    lines += [
        f"{kind:14}{1e3 * seconds:>10.3f}{100 * seconds / step_seconds:>10.1f}%" for kind, seconds in times.items()
    ]
    lines.append(f"{'together':14}{1e3 * sum(times.values()):>10.3f}{100 * sum(times.values()) / step_seconds:>10.1f}%")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
