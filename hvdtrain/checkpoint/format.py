"""What a checkpoint is: a folder of two files that says itself whether it is whole.

    images-000000114640/
        manifest.json   what it belongs to, size and SHA-256 of the tensors, and a SHA-256 of all this
        tensors.pt      the state; read with weights_only and nothing else, so that a checkpoint cannot run code

Every byte of meaning is under a digest: what is read is what was written, or an error.
"""

import hashlib
import io
import json
import os
import pickle
import struct
import time
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import torch

from hvdtrain import __version__
from hvdtrain.errors import CheckpointError
from hvdtrain.files import pretty_json, write_whole

SCHEMA = 4
OLDER = {1: "before it kept digests", 2: "before its manifest had a digest"}
MANIFEST, TENSORS = "manifest.json", "tensors.pt"
MOST_BYTES = 2**20  # of a manifest; a real one has some hundred
ZIP = b"PK\x03\x04"  # torch's format since 1.6; its older ones had loaders of their own, which ran code


# What torch's loader raises over an archive that holds anything else than it should: 100,000 forged ones were tried.
REFUSALS = (
    *(AssertionError, AttributeError, EOFError, LookupError, RuntimeError, TypeError, ValueError),
    *(pickle.UnpicklingError, struct.error),
)
KIND = {
    "images_seen": int,
    "step": int,
    "config_digest": str,
    "data_digest": str,
    "spent_seconds": float,
    "saved_at": float,
    "versions": dict,
    "tensors_bytes": int,
    "tensors_sha256": str,
}
SINCE_4 = {"workers": int, "global_batch": int}
KINDS = {
    schema: [{**KIND, **more, "top1": top1} for top1 in (float, type(None))]
    for schema, more in ((3, {}), (SCHEMA, SINCE_4))
}  # of a manifest's fields, by the schemas that can be read


class Broken(CheckpointError):
    """A checkpoint that is there, but not whole."""


@dataclass(frozen=True)
class Manifest:
    """What tensors belong to."""

    images_seen: int
    step: int
    config_digest: str
    data_digest: str  # of the index of training images
    workers: int = 0  # that it was made on; 0 where schema 3 does not say
    global_batch: int = 0  # kn, images; likewise
    top1: float | None = None  # fraction; of these very weights, or of their average if that is better
    spent_seconds: float = 0.0  # wall-clock time of the run up to here, but for what was lost
    saved_at: float = 0.0  # seconds since 1970
    versions: Mapping[str, str] = field(default_factory=dict)  # of what wrote it
    tensors_bytes: int = 0
    tensors_sha256: str = ""


@dataclass(frozen=True)
class Checkpoint:
    """One that was read, its tensors still as bytes: one rank reads, and hands them to all."""

    path: Path
    manifest: Manifest
    data: bytes


def write(folder: Path, tensors: dict[str, Any], manifest: Manifest) -> None:
    """Both files into `folder`, durably.

    Args:
        manifest: what is known beforehand; time, versions, size and digest are filled in.

    Raises:
        OSError: it cannot be written.
    """
    with (folder / TENSORS).open("wb") as raw:
        file = _Digesting(raw)
        torch.save(tensors, cast("IO[bytes]", file))
        raw.flush()
        os.fsync(raw.fileno())
    told = (
        {"schema": SCHEMA}
        | asdict(manifest)
        | {
            "saved_at": time.time(),
            "versions": {"hvdtrain": __version__, "torch": str(torch.__version__)},
            "tensors_bytes": file.size,
            "tensors_sha256": file.sha256.hexdigest(),
        }
    )
    write_whole(folder / MANIFEST, pretty_json({**told, "digest": _digest(told)}))


def read(path: Path) -> Checkpoint:
    """
    Raises:
        Broken: it is not whole.
        CheckpointError: there is none, it may not be read, or its schema is another.
    """
    manifest = read_manifest(path)
    file = path / TENSORS
    try:
        size = file.stat().st_size
        data = file.read_bytes() if size == manifest.tensors_bytes else b""
    except OSError as error:
        raise _unreadable(file, error) from None
    if size != manifest.tensors_bytes:
        raise Broken(f"{file} is torn: {size:,} bytes, expected {manifest.tensors_bytes:,}")
    sha256 = hashlib.sha256(data).hexdigest()
    if sha256 != manifest.tensors_sha256:
        raise Broken(f"{file} is torn: SHA-256 {sha256}, expected {manifest.tensors_sha256}")
    return Checkpoint(path, manifest, data)


def read_manifest(path: Path) -> Manifest:
    """
    Raises:
        As `read`, but the tensors are not looked at.
    """
    file = path / MANIFEST
    if not path.is_dir():
        raise CheckpointError(f"{path} is no checkpoint: there is no such folder")
    try:
        with file.open("rb") as opened:
            text = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise _unreadable(file, error) from None
    try:
        told = json.loads(text) if len(text) <= MOST_BYTES else None
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise Broken(f"{file} is torn: it is no JSON object")
    digest, schema = told.pop("digest", None), told.get("schema")
    if digest is None and schema in OLDER:
        raise CheckpointError(
            f"{path} has schema {schema}, of hvdtrain {OLDER[schema]}: expected {SCHEMA}",
            remedy="go on with the version that wrote it",
        )
    if digest != _digest(told):
        raise Broken(f"{file} is torn: its digest is {digest}, expected {_digest(told)}")
    if not isinstance(schema, int) or schema not in KINDS:
        readable = " and ".join(map(str, KINDS))
        raise CheckpointError(f"{path} has schema {schema}, this hvdtrain {__version__} reads {readable}")
    del told["schema"]
    if {name: type(value) for name, value in told.items()} not in KINDS[schema]:
        raise CheckpointError(f"{file} is no manifest of schema {schema}, though its digest is right")
    return Manifest(**told)


def tensors(data: bytes, device: torch.device) -> dict[str, Any]:
    """What was saved, with its tensors on `device`.

    Raises:
        CheckpointError: the bytes hold something else than tensors, numbers, texts and collections of them.
    """
    if not data.startswith(ZIP):
        raise CheckpointError(f"{TENSORS} holds something else than tensors: it is no archive of torch's")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's doubts about a forged archive: it is loaded, or refused below
            state: dict[str, Any] = torch.load(io.BytesIO(data), map_location=device, weights_only=True)
    except REFUSALS as error:
        # torch's message goes on to advise weights_only=False, which would run a stranger's code
        cause = " ".join(str(error).rpartition("WeightsUnpickler error:")[2].split()).split(". ")[0]
        raise CheckpointError(f"{TENSORS} holds something else than tensors: {cause or 'it is cut off'}") from None
    return state


class _Digesting:
    """A file to write once from begin to end, whose digest is known when it is written."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.sha256 = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)

    def flush(self) -> None:
        self._file.flush()


def _digest(told: dict[str, Any]) -> str:
    """Of what a manifest says, not of how it is laid out."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _unreadable(file: Path, error: OSError) -> CheckpointError:
    """Somebody forbids it, or it is not there: only in the second case is the checkpoint to blame."""
    kind = CheckpointError if isinstance(error, PermissionError) else Broken
    return kind(f"{file} cannot be read: {error.strerror}")
