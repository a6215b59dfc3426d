"""The images of a run: its indices, and the pipelines that read them."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from hvdtrain.config.schema import Config
from hvdtrain.data import index as data_index
from hvdtrain.data.dali import Colours, Decoder
from hvdtrain.data.index import Index
from hvdtrain.data.loader import Augmentation, Batch, batches, evaluation_plans, training_plans
from hvdtrain.distributed.comm import Comm
from hvdtrain.errors import ConfigError, DataError


@dataclass(frozen=True)
class Machine:
    """What of the machine is this worker's."""

    device: torch.device
    threads: int  # CPU threads that decode images


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
