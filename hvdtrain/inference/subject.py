"""What is evaluated: networks, and what is known of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hvdtrain.config.schema import Config
from hvdtrain.distributed.comm import Comm, of_rank_0
from hvdtrain.train import trained


@dataclass(frozen=True)
class Subject:
    title: str
    """In a line."""
    about: Mapping[str, Any]
    """The same for JSON."""
    networks: Mapping[str, nn.Module]
    """By what their weights are: those of the training, and their average."""
    outputs: int
    """Classes that they tell apart."""
    classes: tuple[str, ...] | None = None
    """Names of these, where they are known."""


def of_checkpoint(
    path: Path, run_dir: Path, config: Config, comm: Comm, device: torch.device, *, which: str
) -> Subject:
    """Collective: rank 0 reads, and hands the bytes round.

    Raises:
        CheckpointError: as `trained.read` and `trained.networks`.
    """
    found = of_rank_0(comm, partial(trained.read, path, run_dir, config, which=which), "checkpoint")
    networks = trained.networks(found, config, device)
    outputs = trained.outputs(networks[trained.WEIGHTS].state_dict())
    manifest = found.manifest
    about = {
        "model": config.model.name,
        "checkpoint": str(found.checkpoint.path),
        "step": manifest.step,
        "images_seen": manifest.images_seen,
        "epoch": found.epoch,
        "config_digest": manifest.config_digest,
        "precision": config.precision,
    }
    return Subject(found.title(config), about, networks, outputs, found.classes)
