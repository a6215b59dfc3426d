"""The loops that `hvdtrain bench step` compares, in processes of their own: see step.py."""

import json
import os
import sys
import warnings
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from hvdtrain.bench.ideas import Idea, idea
from hvdtrain.bench.processes import Looping, Run, serve
from hvdtrain.config.schema import Config
from hvdtrain.distributed.preempt import Agreement, StopRequest

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from hvdtrain.bench.step import Options
    from hvdtrain.distributed.comm import Comm
    from hvdtrain.train.build import Parts


def config(options: "Options", *, channels_last: bool = True, switched: Idea | None = None) -> Config:
    """The run whose steps are measured."""
    return Config.model_validate(
        {
            "precision": options.precision,
            "model": {"name": options.model, "channels_last": channels_last},
            "data": {"source": "synthetic", "batch_size": options.batch, "image_size": options.image},
            "distributed": dict(switched.settings) if switched else {},
        }
    )


def _contender(name: str, options: "Options", shared: "list[Parts]") -> Run:
    """
    Args:
        shared: what contenders of one process have in common, made by the first.
    """
    from hvdtrain.distributed.comm import SoloComm

    loop, _, _ = name.partition(" ")
    comm: Comm = SoloComm()
    if loop in ("ours-2", "horovod-2"):
        parts, comm = _with_horovod(options, idea(name), ours=loop == "ours-2")
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
        warnings.simplefilter("ignore", FutureWarning)  # torch 2.13 has another name for broadcast_buffers, 2.6 has not
        model = DistributedDataParallel(parts.state.model, broadcast_buffers=False, gradient_as_bucket_view=True)
        return _bare(parts, model, parts.state.optimizer)
    return _bare(parts, parts.state.model, parts.state.optimizer) if loop == "bare" else _ours(parts, comm, options)


def _with_horovod(options: "Options", idea: Idea, *, ours: bool) -> "tuple[Parts, Comm]":
    """
    Args:
        ours: with buckets; else with weights as DistributedOptimizer takes them, and nobody to sum the gradients yet.
    """
    from hvdtrain.distributed.activity import Activity
    from hvdtrain.distributed.comm import HorovodComm, SoloComm
    from hvdtrain.distributed.topology import from_environment
    from hvdtrain.distributed.tuning import tune

    setting = config(options, channels_last=ours, switched=idea)
    reducer = "buckets" if ours else "horovod"
    on_cpu = ours and options.device == "cpu"
    distributed = setting.distributed.model_copy(update={"reducer": reducer})
    tuning = tune(os.environ, distributed, on_cpus_of_one_node=on_cpu)
    os.environ.update(tuning.environment)
    comm = HorovodComm(from_environment(os.environ), activity=Activity())
    if on_cpu:
        idea.comm(comm)
    if ours and idea.reducer is None:
        return _parts(setting, options, comm, bucket_bytes=tuning.bucket_bytes), comm
    parts = _parts(setting, options, SoloComm())
    if idea.reducer:
        parts.reducer = idea.reducer(parts, comm, tuning.bucket_bytes)
    return parts, comm


def _parts(setting: Config, options: "Options", comm: "Comm", *, bucket_bytes: int = 0) -> "Parts":
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


def _ours(parts: "Parts", comm: "Comm", options: "Options") -> Run:
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
    meters, turns = Meters(parts.clock), Turns(comm)
    cadence = Cadence(
        report_steps=setting.run.report_every,
        evaluate_epochs=setting.epochs,
        evaluate_from=0,
        evaluate_at_end=False,
        save_epochs=setting.epochs,
    )
    doubt = Doubt(setting.train.not_finite, most_skipped=setting.train.most_skipped)

    class Loop(Looping):
        def __call__(self, repetitions: int) -> None:
            turns.left, turns.loop = repetitions, self
            train(parts, comm, meters, record, cadence, doubt=doubt, agreement=turns, saving=None)

    return Loop()


class Turns(Agreement):
    """Ends a turn of the loop at the end of a step, and stays there: what a run does once is no part of a step."""

    loop: Looping
    left = 0

    def __init__(self, comm: "Comm") -> None:
        super().__init__(comm, StopRequest())

    def reached(self) -> bool:
        leaving = super().reached()
        self.left -= 1
        if self.left == 0:
            self.left = self.loop.over()
        return leaving


def main(arguments: Sequence[str]) -> None:
    from hvdtrain.bench.step import Options

    options = Options(**json.loads(arguments[0]))
    shared: list[Parts] = []
    serve({name: partial(_contender, name, options, shared) for name in arguments[1:]})


if __name__ == "__main__":
    main(sys.argv[1:])
