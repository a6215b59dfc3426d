"""Checkpoints of a run: a folder each, which appears whole under its final name.

    checkpoints/images-000000114640/
        manifest.json   schema version, images_seen, step, digests of configuration and images, SHA-256 of the tensors
        tensors.pt      model, optimizer; read with weights_only, so that a checkpoint cannot run code

The one with the most images is the latest; there is no pointer that could dangle.
"""

import hashlib
import io
import json
import os
import pickle
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from hvdtrain.errors import CheckpointError
from hvdtrain.files import folder_whole, write_whole

SCHEMA = 2


@dataclass(frozen=True)
class Manifest:
    images_seen: int
    step: int
    config_digest: str
    data_digest: str  # of the index of training images
    tensors_sha256: str
    schema: int = SCHEMA


def save(
    folder: Path, tensors: dict[str, Any], *, images_seen: int, step: int, config_digest: str, data_digest: str
) -> Path:
    """Write one checkpoint into `folder`; returns its path."""
    path = folder / f"images-{images_seen:012}"
    if path.exists():  # the same images in the same run: the same state
        return path
    data = io.BytesIO()
    torch.save(tensors, data)
    sha256 = hashlib.sha256(data.getbuffer()).hexdigest()
    manifest = Manifest(images_seen, step, config_digest, data_digest, sha256)
    with folder_whole(path) as temporary:
        with (temporary / "tensors.pt").open("wb") as file:
            file.write(data.getbuffer())
            file.flush()
            os.fsync(file.fileno())
        write_whole(temporary / "manifest.json", json.dumps(asdict(manifest), indent=2) + "\n")
    return path


def newest(folder: Path) -> Path | None:
    """The checkpoint with the most images, or None where there is none."""
    found = sorted(path.parent for path in folder.glob("images-*/manifest.json"))
    return found[-1] if found else None


def read(path: Path) -> tuple[Manifest, bytes]:
    """A checkpoint's manifest and tensors, the latter as bytes for `tensors`, so that one rank can read for all.

    Raises:
        CheckpointError: there is none at `path`, it is of another schema, or its bytes are not those it was saved with.
    """
    try:
        fields = json.loads((path / "manifest.json").read_text())
        data = (path / "tensors.pt").read_bytes()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} is no checkpoint: {error}") from None
    schema = fields.get("schema") if isinstance(fields, dict) else None
    if schema != SCHEMA:
        raise CheckpointError(f"{path} has schema {schema}: expected {SCHEMA}")
    try:
        manifest = Manifest(**fields)
    except TypeError as error:
        raise CheckpointError(f"{path}/manifest.json: {error}") from None
    digest = hashlib.sha256(data).hexdigest()
    if digest != manifest.tensors_sha256:
        raise CheckpointError(f"{path}/tensors.pt is torn: SHA-256 {digest}, expected {manifest.tensors_sha256}")
    return manifest, data


def tensors(data: bytes, device: torch.device) -> dict[str, Any]:
    """What was saved, with its tensors on `device`.

    Raises:
        CheckpointError: the bytes hold something else than tensors, numbers, texts and collections of them.
    """
    try:
        state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except (EOFError, LookupError, RuntimeError, ValueError, pickle.UnpicklingError) as error:
        # torch's message goes on to advise weights_only=False, which would run a stranger's code
        cause = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split()).split(". ")[0]
        raise CheckpointError(f"tensors.pt holds something else than tensors: {cause or 'it is cut off'}") from None
    return state
