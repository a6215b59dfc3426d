"""What a training step costs in each loop, of the same model, input, precision, memory format, threads and yielding.

    bare            one process, the loop that PyTorch's documentation shows
    ours-1          one process, hvdtrain's loop
    independent     two processes of ours-1 side by side that know nothing of each other: what this machine can give
    ours-2          two Horovod workers, hvdtrain's buckets
    horovod-2       two Horovod workers, DistributedOptimizer
    ddp-2           two workers, torch DistributedDataParallel over gloo

and ours-2 with or without one of IDEAS, which shows what that is worth. The two that need one
process share one, model and memory included: two processes of the same loop differ by some percent through the luck of
their memory pages. Horovod's DistributedOptimizer takes contiguous gradients only, so its weights are contiguous, while
its pictures, and with them its activations, are channels-last as everybody's.
"""

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from hvdtrain.bench.ideas import IDEAS, Idea
from hvdtrain.bench.processes import Group, Listening, Over, Run, listening, serve
from hvdtrain.bench.result import Result
from hvdtrain.bench.rounds import Goal, take_turns
from hvdtrain.config.schema import Config
from hvdtrain.distributed.preempt import Agreement, StopRequest

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from hvdtrain.distributed.comm import Comm
    from hvdtrain.train.build import Parts

How = Literal["mpirun", "torch", "alone"]
STANDARD: dict[str, tuple[int, How]] = {  # workers, and how they find each other
    "bare": (1, "alone"),
    "ours-1": (1, "alone"),
    "independent": (2, "alone"),
    "ours-2": (2, "mpirun"),
    "horovod-2": (2, "mpirun"),
    "ddp-2": (2, "torch"),
}
TOGETHER = ("bare", "ours-1")  # in one process
CONTENDERS = (*STANDARD, *(f"ours-2 {name}" for name in IDEAS))
GOALS = (
    Goal("ours-1", "bare", 0.99),
    Goal("ours-2", "independent", 0.97),
    Goal("ours-2", "horovod-2", 1.0),
    Goal("ours-2", "ddp-2", 1.0),
    Goal("horovod-2", "independent"),
    Goal("ddp-2", "independent"),
    *(Goal("ours-2", f"ours-2 {name}") for name in IDEAS),
)


@dataclass(frozen=True)
class Options:
    model: str = "resnet50"
    batch: int = 16
    """Images of each worker in a step."""
    image: int = 224
    """Pixels of a side."""
    precision: Literal["bf16", "fp16", "float32"] = "bf16"
    device: Literal["cpu", "cuda"] = "cpu"
    """cuda: one process, for NCCL takes one per GPU."""
    threads: int = 1
    """Of each worker."""
    steps: int = 4
    """Of each contender in a round."""
    contenders: tuple[str, ...] = ()
    """Of CONTENDERS; empty: those of STANDARD."""

    @property
    def chosen(self) -> tuple[str, ...]:
        if self.device == "cuda":
            return TOGETHER
        return self.contenders or tuple(STANDARD)


def measure(options: Options, rounds: int) -> Result:
    """
    Raises:
        HvdtrainError: a process of a contender ended.
    """
    figures = {}
    with listening() as listener, _groups(options, listener) as groups:
        figures = take_turns({name: _turn(group, name, options) for name, group in groups.items()}, rounds)
    model = f"{options.model}, {options.batch} images of {options.image} pixels, {options.precision}"
    return Result(
        kind="step",
        title=f"a training step: {model}, {options.device}, {options.threads} threads per worker",
        unit="images/s",
        figures={name: figures[name] for name in CONTENDERS if name in figures},
        goals=GOALS,
        limit="independent" if "independent" in figures else None,
        notes=[f"{name}: {idea.what}" for name, idea in IDEAS.items() if f"ours-2 {name}" in figures],
        details={"conditions": asdict(options)},
    )


def _turn(group: Group, name: str, options: Options) -> Callable[[], float]:
    def images_per_second() -> float:
        return options.steps * options.batch * workers / group.seconds(name, options.steps)

    workers, _ = _workers(name)
    return images_per_second


def _workers(name: str) -> tuple[int, How]:
    return STANDARD[name.split(" ")[0]]


@contextmanager
def _groups(options: Options, listener: Listening) -> Iterator[dict[str, Group]]:
    """By contender."""
    together = tuple(name for name in options.chosen if name in TOGETHER)
    places = [together] if together else []
    places += [(name,) for name in options.chosen if name not in TOGETHER]
    groups: dict[str, Group] = {}
    try:
        for names in places:
            workers, how = _workers(names[0])
            arguments = [json.dumps(asdict(options)), *names]
            group = Group(
                names,
                "hvdtrain.bench.step",
                arguments,
                listener,
                workers=workers,
                how=how,
                threads=options.threads,
                variables=_idea(names[0]).variables,
            )
            groups |= dict.fromkeys(names, group)
        yield groups
    finally:
        for group in set(groups.values()):
            group.end()


def _idea(name: str) -> Idea:
    return IDEAS.get(name.partition(" ")[2], Idea("as it is"))


def config(options: Options, *, channels_last: bool = True, idea: Idea | None = None) -> Config:
    """The run whose steps are measured."""
    return Config.model_validate(
        {
            "precision": options.precision,
            "model": {"name": options.model, "channels_last": channels_last},
            "data": {"source": "synthetic", "batch_size": options.batch, "image_size": options.image},
            "distributed": dict(idea.settings) if idea else {},
        }
    )


def _contender(name: str, options: Options, shared: "list[Parts]", over: Over) -> Run:
    """
    Args:
        shared: what contenders of one process have in common, made by the first.
    """
    from hvdtrain.distributed.comm import SoloComm

    loop, _, _ = name.partition(" ")
    comm: Comm = SoloComm()
    if loop in ("ours-2", "horovod-2"):
        parts, comm = _with_horovod(options, _idea(name), ours=loop == "ours-2")
    else:
        if not shared:
            shared.append(_parts(config(options), options, comm))
        parts = shared[0]
    if loop == "horovod-2":
        import horovod.torch as hvd

        reducing = hvd.DistributedOptimizer(
            parts.state.optimizer, named_parameters=parts.state.model.named_parameters()
        )
        return _bare(parts, parts.state.model, reducing)
    if loop == "ddp-2":
        import torch.distributed
        from torch.nn.parallel import DistributedDataParallel

        torch.distributed.init_process_group("gloo")
        model = DistributedDataParallel(parts.state.model, broadcast_buffers=False, gradient_as_bucket_view=True)
        return _bare(parts, model, parts.state.optimizer)
    return (
        _bare(parts, parts.state.model, parts.state.optimizer) if loop == "bare" else _ours(parts, comm, options, over)
    )


def _with_horovod(options: Options, idea: Idea, *, ours: bool) -> "tuple[Parts, Comm]":
    """
    Args:
        ours: with buckets; else with weights as DistributedOptimizer takes them, and nobody to sum the gradients yet.
    """
    from hvdtrain.distributed.activity import Activity
    from hvdtrain.distributed.comm import HorovodComm, SoloComm
    from hvdtrain.distributed.topology import from_environment
    from hvdtrain.distributed.tuning import tune

    setting = config(options, channels_last=ours, idea=idea)
    reducer = "buckets" if ours else "horovod"
    tuning = tune(os.environ, setting.distributed.model_copy(update={"reducer": reducer}))
    os.environ.update(tuning.environment)
    comm = HorovodComm(from_environment(os.environ), activity=Activity())
    if ours and idea.reducer is None:
        return _parts(setting, options, comm, bucket_bytes=tuning.bucket_bytes), comm
    parts = _parts(setting, options, SoloComm())
    if idea.reducer:
        parts.reducer = idea.reducer(parts, comm, tuning.bucket_bytes)
    return parts, comm


def _parts(setting: Config, options: Options, comm: "Comm", *, bucket_bytes: int = 0) -> "Parts":
    import torch

    from hvdtrain.train.build import build
    from hvdtrain.train.data import Machine

    torch.set_num_threads(options.threads)
    return build(setting, comm, Machine(torch.device(options.device), threads=1), bucket_bytes=bucket_bytes)


def _bare(parts: "Parts", model: "nn.Module", optimizer: "Optimizer") -> Run:
    """forward, loss, backward, step, as in PyTorch's tutorials."""
    import torch
    from torch.nn import functional

    batch = next(parts.data.training(0))
    images, labels = batch.images.contiguous(memory_format=torch.channels_last), batch.labels
    autocast = parts.arithmetic.autocast

    def run(steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            with torch.autocast(images.device.type, autocast, enabled=autocast is not None):
                loss = functional.cross_entropy(model(images), labels)
            loss.backward()
            optimizer.step()
        loss.item()

    return run


def _ours(parts: "Parts", comm: "Comm", options: Options, over: Over) -> Run:
    """hvdtrain's own loop, with its metrics and reports."""
    from hvdtrain.distributed.activity import Activity
    from hvdtrain.metrics.registry import Metrics
    from hvdtrain.train.doubt import Doubt
    from hvdtrain.train.environment import run_info
    from hvdtrain.train.loop import Cadence, train
    from hvdtrain.train.meters import Meters
    from hvdtrain.train.record import Record, Traffic

    setting = config(options)
    metrics = Metrics(
        rank=comm.rank,
        run_info=run_info(setting, world_size=comm.size, global_batch=options.batch * comm.size, commit=""),
        worker_info={"host": "", "device": options.device, "device_name": ""},
    )
    traffic = Traffic.of(parts.reducer.sizes, comm.size)
    record = Record(metrics, Activity(), comm.rank, images_per_epoch=len(parts.data.train), traffic=traffic)
    meters, turns = Meters(parts.clock), Turns(comm, over)
    cadence = Cadence(
        report_steps=setting.run.report_every,
        evaluate_epochs=setting.epochs,
        evaluate_from=0,
        evaluate_at_end=False,
        save_epochs=setting.epochs,
    )
    doubt = Doubt(setting.train.not_finite, most_skipped=setting.train.most_skipped)

    def run(steps: int) -> None:
        turns.left = steps
        train(parts, comm, meters, record, cadence, doubt=doubt, agreement=turns, saving=None)

    return run


class Turns(Agreement):
    """Ends a turn of the loop at the end of a step, and stays there: what a run does once is no part of a step."""

    def __init__(self, comm: "Comm", over: Over) -> None:
        super().__init__(comm, StopRequest())
        self.left, self._over = 0, over

    def reached(self) -> bool:
        leaving = super().reached()
        self.left -= 1
        if self.left == 0:
            self.left = self._over()
        return leaving


def main(arguments: Sequence[str]) -> None:
    options = Options(**json.loads(arguments[0]))
    shared: list[Parts] = []
    serve({name: partial(_contender, name, options, shared) for name in arguments[1:]})


if __name__ == "__main__":
    main(sys.argv[1:])
