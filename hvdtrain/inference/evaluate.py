"""An exact evaluation on any number of workers: each validation image once, counted by class."""

import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hvdtrain.config.schema import Config
from hvdtrain.data import scan
from hvdtrain.distributed.activity import EVALUATING
from hvdtrain.distributed.comm import Comm
from hvdtrain.distributed.preempt import SIGNALS, Agreement, StopRequest
from hvdtrain.distributed.topology import Topology
from hvdtrain.errors import DataError, Preempted, Stopped
from hvdtrain.inference import pretrained, subject
from hvdtrain.inference.confusion import Confusion
from hvdtrain.inference.pretrained import Pretrained
from hvdtrain.inference.subject import Subject
from hvdtrain.inference.workers import Place, workers
from hvdtrain.train import evaluate as evaluation
from hvdtrain.train import trained
from hvdtrain.train.build import ARITHMETIC
from hvdtrain.train.evaluate import Evaluation
from hvdtrain.train.preprocessing import Preprocessing
from hvdtrain.train.step import Arithmetic
from hvdtrain.train.validation import Validation

AGREE_SECONDS = 0.25  # oftener than in training: mpirun that is interrupted kills its workers within a second


@dataclass(frozen=True)
class Judged:
    """One network."""

    weights: str  # those of the training, or their average
    result: Evaluation
    confusion: Confusion


@dataclass(frozen=True)
class Report:
    title: str
    about: Mapping[str, Any]
    data: Path
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    images: int
    """In the folder."""
    workers: int
    judged: tuple[Judged, ...]

    @property
    def left_out(self) -> int:
        """Images that cannot be decoded."""
        return self.images - self.judged[0].result.images


def of_checkpoint(path: Path, topology: Topology, *, data: Path | None, which: str) -> Report | None:
    """Evaluate a run's checkpoint as the run itself does. Every worker calls this; rank 0 has the report.

    Args:
        data: other images than the run's, in a folder with val/.
        which: of a run directory: `newest` or `best`.

    Raises:
        CheckpointError: there is none, or it is broken.
        DataError: there are no images, or they have other classes.
    """
    run_dir, config = trained.settings(path)
    if data is not None:
        config = _of_other_images(config, data)
    return _evaluate(
        config,
        topology,
        lambda comm, device: subject.of_checkpoint(path, run_dir, config, comm, device, which=which),
    )


def of_torchvision(asked: Pretrained, topology: Topology, *, data: Path) -> Report | None:
    """Likewise, a network of torchvision's.

    Raises:
        ConfigError: torchvision does not have it.
        CheckpointError, EnvironmentFault: its weights cannot be had.
        DataError: there are no images, or they have other classes.
    """
    config = _of_other_images(pretrained.config(asked), data)
    return _evaluate(config, topology, lambda comm, device: pretrained.subject(asked, comm, device))


def _of_other_images(config: Config, data: Path) -> Config:
    """What the run has left out is among its own images; of these, what stands beside them is."""
    nobodys = config.run.model_copy(update={"dir": data / scan.BESIDE, "name": "none"})
    theirs = {
        "dir": data,
        "source": "images",
        "quarantine": "auto",
    }  # the run may have had noise, and a list of its own
    return config.model_copy(update={"run": nobodys, "data": config.data.model_copy(update=theirs)})


def _evaluate(config: Config, topology: Topology, subject_of: Callable[[Comm, torch.device], Subject]) -> Report | None:
    if config.data.source == "images" and not config.data.dir.is_dir():
        absent = f"no folder {config.data.dir.absolute()} of images"
        raise DataError(absent, remedy="--data DIR, which has val/", everyones=True)
    with workers(config, topology) as place:
        comm = place.comm
        found = subject_of(comm, place.machine.device)
        images = Validation(config, comm, place.machine)
        _same_classes(found, images, config.data.dir)
        dtype, autocast = ARITHMETIC[config.precision]
        judged = _judged(found, images, Arithmetic(dtype, autocast, config.model.channels_last), place)
        if comm.rank != 0:
            return None
        return Report(
            title=found.title,
            about=found.about,
            data=config.data.dir,
            classes=images.index.classes,
            preprocessing=Preprocessing.of(config),
            images=len(images.index),
            workers=comm.size,
            judged=judged,
        )


def _judged(found: Subject, images: Validation, arithmetic: Arithmetic, place: Place) -> tuple[Judged, ...]:
    """Each network over all images. Collective.

    Raises:
        Stopped: a signal to one of the workers asked for it, after which all of them leave at the same batch.
    """
    comm, activity = place.comm, place.activity
    numbers = SIGNALS if comm.size == 1 else (*SIGNALS, signal.SIGINT)  # alone, an interrupt need not wait for a batch
    judged = []
    with StopRequest().heard(*numbers, for_good=comm.rank == 0) as request, activity.doing(EVALUATING):
        agreement = Agreement(comm, request, every_seconds=AGREE_SECONDS)

        def leave() -> bool:
            activity.step += 1
            activity.beat()
            return agreement.reached()

        for name, network in found.networks.items():
            confusion = Confusion.of(found.outputs)
            agreement.afresh()
            try:
                result = evaluation.evaluate(
                    network, images.batches(), arithmetic, comm, leave=leave, each=confusion.add
                )
            except Preempted:
                raise Stopped(
                    f"stopped by {' and '.join(agreement.signals)} before all images were counted",
                    by=signal.Signals[agreement.signals[0]],
                    remedy="the same command begins anew; there was nothing to save",
                ) from None
            confusion.add_up(comm)
            judged.append(Judged(name, result, confusion))
    return tuple(judged)


def _same_classes(found: Subject, images: Validation, data: Path) -> None:
    classes = images.index.classes
    if len(classes) != found.outputs:
        raise DataError(
            f"{data}/val has {len(classes)} classes, the network tells {found.outputs} apart: expected as many",
            remedy="--data DIR, which has the classes that it was trained on",
            everyones=True,
        )
    odd = sorted(set(classes) ^ set(found.classes or classes))
    if odd:
        raise DataError(
            f"{data}/val has other classes than the network was trained on: {', '.join(odd[:5])}",
            remedy="--data DIR, which has the same",
            everyones=True,
        )
