"""Configuration -> the parts of a run. Below this, everything takes plain values."""

import math
from dataclasses import dataclass

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hvdtrain.config.schema import Config
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.reducer import HorovodReducer, LocalReducer, Reducer
from hvdtrain.model.build import build as build_model
from hvdtrain.model.groups import parameter_groups
from hvdtrain.model.stages import compile_stages
from hvdtrain.optim.build import optimizer as build_optimizer
from hvdtrain.optim.schedule import Rate
from hvdtrain.train import clock, generators, recipe
from hvdtrain.train.clock import StepClock
from hvdtrain.train.data import Data, Machine
from hvdtrain.train.finite import Finite
from hvdtrain.train.state import TrainState
from hvdtrain.train.step import Arithmetic, Objective

ARITHMETIC = {
    "bf16": (torch.float32, torch.bfloat16),
    "fp16": (torch.float32, torch.float16),
    "float32": (torch.float32, None),
    "float64": (torch.float64, None),
}


@dataclass
class Parts:
    state: TrainState
    reducer: Reducer
    arithmetic: Arithmetic
    objective: Objective
    schedule: Rate
    data: Data
    clock: StepClock
    micro_batches: int  # of each worker in a step
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
        left = (self.max_steps - self.state.step) * self.objective.global_batch
        return min(self.images_of_all_epochs, self.state.images_seen + left)


def build(config: Config, comm: Comm, machine: Machine, *, bucket_bytes: int, images_seen: int = 0) -> Parts:
    micro_batches = recipe.micro_batches(config, comm.size)
    global_batch = recipe.global_batch(config, comm.size)
    data = Data(config, comm, machine, images_seen)
    dtype, autocast = ARITHMETIC[config.precision]
    schedule = recipe.schedule(config, global_batch)
    model = initial_model(config, comm, machine.device, classes=len(data.train.classes))
    state = _state(config, model, machine.device, lr=schedule(0))
    if config.model.compile:  # the average, a copy by now, is seldom evaluated and stays as it is
        compile_stages(model)
    return Parts(
        state=state,
        reducer=_reducer(config, model, comm, micro_batches=micro_batches, bucket_bytes=bucket_bytes),
        arithmetic=Arithmetic(dtype, autocast, config.model.channels_last),
        objective=Objective(global_batch, config.train.label_smoothing, config.train.clip_norm),
        schedule=schedule,
        data=data,
        clock=StepClock(clock.of(machine.device)),
        micro_batches=micro_batches,
        images_of_all_epochs=math.ceil(config.epochs * len(data.train)),
        max_steps=config.max_steps,
    )


def initial_model(config: Config, comm: Comm, device: torch.device, *, classes: int) -> nn.Module:
    """The network with rank 0's initial weights on every worker."""
    generators.seed(config.seed)
    kind = config.model
    model = build_model(kind.name, classes=classes, norm=kind.norm, zero_gamma=kind.zero_gamma, head_std=kind.head_std)
    dtype, _ = ARITHMETIC[config.precision]
    order = torch.channels_last if kind.channels_last else torch.contiguous_format
    model.to(device, dtype)
    model.to(memory_format=order)  # type: ignore[call-overload]
    for name, tensor in model.state_dict().items():
        comm.broadcast_(tensor, f"initial {name}")
    return model


def _state(config: Config, model: nn.Module, device: torch.device, *, lr: float) -> TrainState:
    optim, half = config.optim, "fp16" in (config.precision, config.distributed.compression)
    groups = parameter_groups(model, weight_decay=optim.weight_decay, decay_biases=optim.decay_biases)
    return TrainState(
        model,
        build_optimizer(
            optim.name,
            groups,
            lr=lr,
            momentum=optim.momentum,
            nesterov=optim.nesterov,
            trust_coefficient=optim.trust_coefficient,
        ),
        scaler=_scaler(device) if half else None,
        average=_average(model, config.train.ema_decay) if config.train.ema_decay else None,
        finite=Finite(certain=config.train.not_finite == "skip"),
    )


def _scaler(device: torch.device) -> torch.amp.GradScaler:
    scaler = torch.amp.GradScaler(device.type)
    scaler.scale(torch.zeros((), device=device))  # it begins with the first loss; a worker's first one may be missing
    return scaler


def _average(model: nn.Module, decay: float) -> AveragedModel:
    """Of the weights and of batch norm's statistics, which would not fit averaged weights otherwise."""
    return AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)


def _reducer(config: Config, model: nn.Module, comm: Comm, *, micro_batches: int, bucket_bytes: int) -> Reducer:
    compression = config.distributed.compression
    if comm.size == 1:
        return LocalReducer(model)
    if config.distributed.reducer == "horovod":
        return HorovodReducer(model, comm, micro_batches=micro_batches, compression=compression)
    wire = torch.float16 if compression == "fp16" else None
    return GradientBuckets(model.parameters(), comm, bucket_bytes, micro_batches=micro_batches, wire=wire)
