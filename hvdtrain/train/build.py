"""Configuration -> the parts of a run. Below this, everything takes plain values."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn

from hvdtrain.config.schema import Config
from hvdtrain.data import index as data_index
from hvdtrain.data.dali import Colours, Decoder
from hvdtrain.data.index import Index
from hvdtrain.data.loader import Augmentation, Batch, batches, evaluation_plans, training_plans
from hvdtrain.distributed.buckets import GradientBuckets
from hvdtrain.distributed.comm import Comm
from hvdtrain.errors import ConfigError, DataError
from hvdtrain.model.build import build as build_model
from hvdtrain.model.groups import decay_groups
from hvdtrain.optim.build import sgd
from hvdtrain.optim.schedule import Schedule, StepSchedule
from hvdtrain.train.state import TrainState
from hvdtrain.train.step import Arithmetic

ARITHMETIC = {
    "bf16": (torch.float32, torch.bfloat16),
    "float32": (torch.float32, None),
    "float64": (torch.float64, None),
}


@dataclass(frozen=True)
class Machine:
    """What of the machine is this worker's."""

    device: torch.device
    threads: int  # CPU threads that decode images
    bucket_bytes: int


@dataclass
class Parts:
    state: TrainState
    buckets: GradientBuckets | None
    arithmetic: Arithmetic
    schedule: Schedule
    data: "Data"
    global_batch: int  # kn, images
    images_of_all_epochs: int
    max_steps: int | None

    @property
    def epoch(self) -> float:
        return self.state.images_seen / len(self.data.train)

    @property
    def over(self) -> bool:
        return self.state.images_seen >= self.images_of_all_epochs or self.state.step == self.max_steps

    @property
    def total_images(self) -> int:
        """How many will have been seen when training is over."""
        if self.max_steps is None:
            return self.images_of_all_epochs
        left = (self.max_steps - self.state.step) * self.global_batch
        return min(self.images_of_all_epochs, self.state.images_seen + left)


def build(config: Config, comm: Comm, machine: Machine) -> Parts:
    data = Data(config, comm, machine)
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
        buckets = GradientBuckets(model.parameters(), comm, machine.bucket_bytes)
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


class Data:
    """The images of a run and the pipelines that read them."""

    def __init__(self, config: Config, comm: Comm, machine: Machine) -> None:
        self.train, self.val = _indices(config, comm, machine.threads)
        self.classes = self.train.classes
        self._config, self._comm = config, comm
        data = config.data
        decode_on_gpu = data.device == "gpu" or (data.device == "auto" and machine.device.type == "cuda")
        if decode_on_gpu and machine.device.type != "cuda":
            raise ConfigError("data.device = gpu: expected cpu or auto, this worker has no GPU")

        def decoder(batch_size: int) -> Decoder:
            return Decoder(
                batch_size=batch_size,
                image_size=data.image_size,
                colours=Colours(data.mean, data.std),
                decode_on_gpu=decode_on_gpu,
                device=machine.device,
                threads=data.threads or machine.threads,
                prefetch=data.prefetch,
            )

        self._train_decoder = decoder(data.batch_size)
        self._val_decoder = decoder(config.evaluation.batch_size)

    def training(self, images_seen: int) -> Iterator[Batch]:
        """This worker's training batches, without end, from `images_seen` on."""
        data = self._config.data
        plans = training_plans(
            self.train,
            Augmentation(data.crop_area, data.crop_aspect, data.flip),
            seed=self._config.seed,
            images_seen=images_seen,
            rank=self._comm.rank,
            size=self._comm.size,
            batch_size=data.batch_size,
        )
        return batches(plans, self.train, self._train_decoder)

    def validation(self) -> Iterator[Batch]:
        """This worker's share of the validation images, once."""
        plans = evaluation_plans(
            self.val,
            resize=self._config.data.eval_resize,
            rank=self._comm.rank,
            size=self._comm.size,
            batch_size=self._config.evaluation.batch_size,
        )
        return batches(plans, self.val, self._val_decoder)


def _indices(config: Config, comm: Comm, threads: int) -> tuple[Index, Index]:
    """Rank 0 walks the folders, for a million files are too many for each of a thousand workers to ask after."""
    found: tuple[Index, Index] | None = None
    if comm.rank == 0:
        train, val = (data_index.build(config.data.dir / part, threads=threads) for part in ("train", "val"))
        if train.classes != val.classes:
            odd = sorted(set(train.classes) ^ set(val.classes))
            raise DataError(f"{config.data.dir}: train and val have different classes: {', '.join(odd[:5])}")
        found = (train, val)
    received = comm.broadcast_object(found, "index")
    if received is None:
        raise AssertionError("rank 0 sent no index")
    return received
