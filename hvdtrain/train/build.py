"""Configuration -> the parts of a run. Below this, everything takes plain values."""

import math
from dataclasses import dataclass

import torch
from torch import nn

from hvdtrain.config.schema import Config
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import Comm
from hvdtrain.model.build import build as build_model
from hvdtrain.model.groups import decay_groups
from hvdtrain.optim.build import sgd
from hvdtrain.optim.schedule import Schedule, StepSchedule
from hvdtrain.train.data import Data, Machine
from hvdtrain.train.state import TrainState
from hvdtrain.train.step import Arithmetic

ARITHMETIC = {
    "bf16": (torch.float32, torch.bfloat16),
    "float32": (torch.float32, None),
    "float64": (torch.float64, None),
}


@dataclass
class Parts:
    state: TrainState
    buckets: GradientBuckets | None
    arithmetic: Arithmetic
    schedule: Schedule
    data: Data
    global_batch: int  # kn, images
    images_of_all_epochs: int
    max_steps: int | None

    @property
    def epoch(self) -> float:
        return self.state.images_seen / len(self.data.train)

    @property
    def over(self) -> bool:
        return self.state.images_seen >= self.images_of_all_epochs or self.state.step >= (self.max_steps or math.inf)

    @property
    def total_images(self) -> int:
        """How many will have been seen when training is over."""
        if self.max_steps is None:
            return self.images_of_all_epochs
        left = (self.max_steps - self.state.step) * self.global_batch
        return min(self.images_of_all_epochs, self.state.images_seen + left)


def build(config: Config, comm: Comm, machine: Machine, *, bucket_bytes: int, images_seen: int = 0) -> Parts:
    data = Data(config, comm, machine, images_seen)
    dtype, autocast = ARITHMETIC[config.precision]
    model = initial_model(config, comm, machine.device, classes=len(data.train.classes))
    global_batch = config.data.batch_size * comm.size
    optim = config.optim
    schedule = StepSchedule(
        base_lr=optim.base_lr,
        reference_batch=optim.reference_batch,
        global_batch=global_batch,
        warmup_epochs=optim.warmup_epochs,
        decay_epochs=optim.decay_epochs,
        decay_factor=optim.decay_factor,
    )
    optimizer: torch.optim.Optimizer = sgd(
        decay_groups(model, optim.weight_decay), lr=schedule(0), momentum=optim.momentum
    )
    buckets = None
    if comm.size > 1 and config.distributed.reducer == "buckets":
        buckets = GradientBuckets(model.parameters(), comm, bucket_bytes)
    elif comm.size > 1:
        import horovod.torch as hvd

        optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters(), op=hvd.Sum)
    return Parts(
        state=TrainState(model, optimizer),
        buckets=buckets,
        arithmetic=Arithmetic(dtype, autocast, config.model.channels_last),
        schedule=schedule,
        data=data,
        global_batch=global_batch,
        images_of_all_epochs=math.ceil(config.epochs * len(data.train)),
        max_steps=config.max_steps,
    )


def initial_model(config: Config, comm: Comm, device: torch.device, *, classes: int) -> nn.Module:
    """The network with rank 0's initial weights on every worker."""
    torch.manual_seed(config.seed)
    model = build_model(config.model.name, classes=classes, norm=config.model.norm)
    dtype, _ = ARITHMETIC[config.precision]
    order = torch.channels_last if config.model.channels_last else torch.contiguous_format
    model.to(device, dtype)
    model.to(memory_format=order)  # type: ignore[call-overload]
    for name, tensor in model.state_dict().items():
        comm.broadcast_(tensor, f"initial {name}")
    return model
