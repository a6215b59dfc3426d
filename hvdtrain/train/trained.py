"""A checkpoint by what a person types: whose it is, what is known of it, and its weights as networks.

Nothing of the run is changed: it may be going on.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Broken, Checkpoint, Manifest
from hvdtrain.config.checks import expanded
from hvdtrain.config.load import from_file
from hvdtrain.config.schema import Config
from hvdtrain.data import scan
from hvdtrain.errors import CheckpointError, ConfigError, DataError
from hvdtrain.events import Record, Tail, records
from hvdtrain.log import logger
from hvdtrain.model.build import build as build_model
from hvdtrain.train.build import ARITHMETIC

SETTINGS = "config.yaml"  # of the run, in its directory
WEIGHTS, AVERAGE = "weights", "average"
OF_MODULE = "module."  # torch's AveragedModel puts it before each name


@dataclass(frozen=True)
class Trained:
    """A checkpoint that was read, its tensors still as bytes: one worker reads, and hands them to all."""

    checkpoint: Checkpoint
    classes: tuple[str, ...] | None
    """Names in the order of the network's outputs; None where nobody has kept them."""
    epoch: float | None
    """Of training, a fraction; None where the events do not say."""
    top1: Mapping[str, float]
    """As the run itself has found it, a fraction: of WEIGHTS, and of their AVERAGE."""

    @property
    def manifest(self) -> Manifest:
        return self.checkpoint.manifest

    def title(self, config: Config) -> str:
        """In a line."""
        epoch = f", epoch {self.epoch:.2f}" if self.epoch is not None else ""
        return f"{config.model.name}, {self.checkpoint.path}: step {self.manifest.step:,}{epoch}"


def settings(path: Path) -> tuple[Path, Config]:
    """The run directory of `path`, itself one or a checkpoint's folder in it, and its settings. `run.dir` and
    `run.name` are what they are now: a run may have been moved.

    Raises:
        CheckpointError: it is neither, or has no settings.
    """
    for folder in (path, path.absolute().parent.parent):
        if (folder / SETTINGS).is_file() and (folder == path or _is_checkpoint(path)):
            try:
                config = from_file(folder / SETTINGS)
            except ConfigError as error:
                wrong = " ".join(error.args[0].split())
                what = f"{folder / SETTINGS} is not of this version: {wrong}"
                raise CheckpointError(what, everyones=True) from None
            whole = folder.resolve()
            run = config.run.model_copy(update={"dir": whole.parent, "name": whole.name})
            return folder, config.model_copy(update={"run": run})
    if not path.exists():
        there = store.paths(path.parent)
        near = sorted(
            file.parent for file in path.parent.glob(f"*/{SETTINGS}") if file.parent.name.startswith(path.name)
        )
        remedy = f"perhaps {near[-1]}" if near else f"ls {path.parent}"
        remedy = f"the newest there is {there[0]}" if there else remedy
        raise CheckpointError(f"{path}: no such run directory or checkpoint", remedy=remedy, everyones=True)
    if _is_checkpoint(path):
        raise CheckpointError(
            f"{path} has no run's settings: expected {path.parent.parent / SETTINGS}",
            remedy="keep a checkpoint in RUN/checkpoints, beside RUN/config.yaml",
            everyones=True,
        )
    raise CheckpointError(
        f"{path}: expected a run directory with {SETTINGS}, or a folder of its checkpoints",
        remedy="hvdtrain train makes one, in --run.dir",
        everyones=True,
    )


def read(path: Path, run_dir: Path, config: Config, *, which: str) -> Trained:
    """
    Args:
        path: the run directory itself, or one of its checkpoints.
        which: of a run directory: `newest`, or `best` by top-1.

    Raises:
        CheckpointError: there is none, or it is broken.
    """
    folder = run_dir / "checkpoints"
    checkpoint = form.read(path) if _is_checkpoint(path) else _best(folder) if which == "best" else _newest(folder)
    told = _events(run_dir)
    epoch, top1 = _history(told, checkpoint.manifest, averaged=config.train.ema_decay > 0)
    return Trained(checkpoint, _class_names(run_dir, config), epoch, top1)


def networks(trained: Trained, config: Config, device: torch.device) -> dict[str, nn.Module]:
    """By WEIGHTS, and by AVERAGE where the run keeps a moving one: the run's network on `device`, ready to evaluate.

    Raises:
        CheckpointError: the tensors are none of such a network.
    """
    state = form.tensors(trained.checkpoint.data, torch.device("cpu"))
    path = trained.checkpoint.path
    try:
        saved = {WEIGHTS: state["model"]}
        if "average" in state:
            averaged = {n.removeprefix(OF_MODULE): t for n, t in state["average"].items() if n.startswith(OF_MODULE)}
            saved[AVERAGE] = averaged
        return {name: network(tensors, config, device) for name, tensors in saved.items()}
    except (AttributeError, KeyError, RuntimeError, StopIteration, TypeError, ValueError) as error:
        cause = f"no {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise CheckpointError(f"{path} does not fit {config.model.name}: {cause[:300]}") from None


def chosen(trained: Trained, config: Config, device: torch.device, *, average: bool) -> nn.Module:
    """The one network that is asked for.

    Raises:
        CheckpointError: as `networks`, or there is no average.
    """
    found = networks(trained, config, device)
    if average and AVERAGE not in found:
        raise CheckpointError(
            f"{trained.checkpoint.path} has no moving average of its weights: train.ema_decay was 0",
            remedy="leave --average out",
        )
    return found[AVERAGE if average else WEIGHTS]


def network(tensors: Mapping[str, torch.Tensor], config: Config, device: torch.device) -> nn.Module:
    """The run's network with these weights, in evaluation mode.

    Raises:
        RuntimeError, StopIteration: they are none of such a network.
    """
    kind, (dtype, _) = config.model, ARITHMETIC[config.precision]
    model = build_model(kind.name, classes=outputs(tensors), norm=kind.norm, zero_gamma=False, head_std=None)
    model.load_state_dict(tensors)
    model.to(device, dtype)
    if kind.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return model.eval()


def outputs(tensors: Mapping[str, torch.Tensor]) -> int:
    """How many classes a network tells apart: the rows of its last matrix, or else of its last convolution.

    Raises:
        StopIteration: there is neither.
    """
    weights = [tensor for tensor in tensors.values() if tensor.dim() >= 2]
    matrices = [tensor for tensor in weights if tensor.dim() == 2]
    return next(len(tensor) for tensor in reversed(matrices or weights))


def named(classes: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    """Names for `count` outputs: `classes` where they are as many, else numbers."""
    return classes if classes is not None and len(classes) == count else tuple(map(str, range(count)))


def _is_checkpoint(path: Path) -> bool:
    return (path / form.MANIFEST).exists() or (path / form.TENSORS).exists()


def _newest(folder: Path) -> Checkpoint:
    """As `store.latest`, which also puts broken ones aside: that is the run's own affair."""
    paths = store.paths(folder)
    for path in paths:
        try:
            return form.read(path)
        except Broken as error:
            logger.warning("taking an earlier checkpoint: %s", error)
    wrong = f"none of the {len(paths)} checkpoints in {folder} is whole" if paths else f"{folder} has no checkpoint"
    raise CheckpointError(wrong, remedy=f"hvdtrain status {folder.parent}")


def _best(folder: Path) -> Checkpoint:
    judged = []
    for path in store.paths(folder):
        with suppress(Broken):
            if (top1 := form.read_manifest(path).top1) is not None:
                judged.append((top1, path))
    if not judged:
        raise CheckpointError(f"no checkpoint in {folder} knows its accuracy", remedy="--which newest")
    return form.read(max(judged)[1])


def _events(run_dir: Path) -> list[Record]:
    try:
        lines = Tail(run_dir / "events.jsonl").lines()
    except OSError:
        return []
    return [record for record in records(lines, last_reports=0) if record is not None]


def _history(told: list[Record], manifest: Manifest, *, averaged: bool) -> tuple[float | None, dict[str, float]]:
    """Epoch and top-1 of this checkpoint. Who has changed the events gets what stands there, or nothing."""
    epoch, top1 = None, {}
    for record in told:
        images = record.get("images_per_epoch")
        if record["event"] in ("start", "resume") and isinstance(images, int) and images > 0:
            epoch = manifest.images_seen / images
        if record["event"] == "evaluate" and record.get("images_seen") == manifest.images_seen:
            found = {WEIGHTS: record.get("top1"), AVERAGE: record.get("average_top1")}
            top1 = {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
    if not top1 and manifest.top1 is not None and not averaged:  # else it is that of the better one
        top1 = {WEIGHTS: manifest.top1}
    return epoch, top1


def _class_names(run_dir: Path, config: Config) -> tuple[str, ...] | None:
    """As the run has kept them; for one of before it did, as its images have them where these still are."""
    with suppress(OSError, ValueError, RecursionError):
        environment: Any = json.loads((run_dir / "environment.json").read_text())
        classes = environment.get("classes") if isinstance(environment, dict) else None
        if isinstance(classes, list) and all(isinstance(name, str) for name in classes):
            return tuple(classes)
    if config.data.source == "images":
        with suppress(ConfigError, DataError):
            return scan.find(
                config.data.dir / "val", cache=expanded("data.cache_dir", config.data.cache_dir), workers=1
            ).classes
    return None
