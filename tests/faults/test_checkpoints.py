"""Checkpoint folders with anything wrong with them: the exact state, or a clear refusal, and never another state."""

import hashlib
import io
import json
import os
import random
import shutil
import signal
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Checkpoint, Manifest
from hvdtrain.errors import CheckpointError

from ..checkpoint.saving import about
from .tally import Times, Trials

CPU = torch.device("cpu")


def state(images_seen: int) -> dict[str, object]:
    """Small, and of every kind of thing that a real one has."""
    return {
        "model": {"w": torch.full((3,), float(images_seen)), "half": torch.ones(2, dtype=torch.float16)},
        "optimizer": {"state": {0: {"momentum_buffer": torch.arange(3.0)}}, "param_groups": [{"lr": 0.1, "name": "x"}]},
        "progress": {"step": images_seen, "top1": None, "overflown": False},
    }


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Checkpoint, Checkpoint]:
    """Their folder, the earlier one and the latest one."""
    earlier, latest = (form.read(store.save(tmp_path / "c", state(i), about(i))) for i in (100, 200))
    return tmp_path / "c", earlier, latest


def damages(whole: bytes, times: Times) -> Iterator[tuple[str, bytes]]:
    for place in range(0, len(whole), times(3, 1)):
        for bit in range(0, 8, times(8, 1)):
            yield f"bit {bit} of byte {place} flipped", _flipped(whole, place, 1 << bit)
    for length in range(0, len(whole), times(5, 1)):
        yield f"cut to {length} bytes", whole[:length]
        yield f"zeros from byte {length} on", whole[:length] + bytes(len(whole) - length)
    yield "a byte more", whole + b"\0"
    yield "twice", whole * 2


def _flipped(whole: bytes, place: int, mask: int) -> bytes:
    return whole[:place] + bytes([whole[place] ^ mask]) + whole[place + 1 :]


@pytest.mark.parametrize("name", ["manifest.json", "tensors.pt"])
def test_a_damaged_file(two: tuple[Path, Checkpoint, Checkpoint], name: str, trials: Trials, times: Times) -> None:
    """Of the latest checkpoint: it is still that, or the one before is gone on from."""
    folder, earlier, latest = two
    file = latest.path / name
    whole = file.read_bytes()
    fallen_back = 0
    with trials(f"checkpoint, {name} damaged") as tally:
        for which, damaged in damages(whole, times):
            with tally.one(which):
                file.write_bytes(damaged)
                found = store.latest(folder).checkpoint
                assert found in (earlier, latest)
                if found == earlier:
                    fallen_back += 1
                    (folder / f"broken-{latest.path.name}").rename(latest.path)
            file.write_bytes(whole)
    assert fallen_back > tally.tried / 2


def test_a_folder_with_something_missing_or_swapped(
    two: tuple[Path, Checkpoint, Checkpoint], tmp_path: Path, trials: Trials
) -> None:
    folder, earlier, latest = two
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    a, b = earlier.path.name, latest.path.name

    def swap(file: str) -> None:
        shutil.copy(kept / a / file, folder / b / file)

    def into_a_link(file: str) -> None:
        (folder / b / file).unlink()
        (folder / b / file).symlink_to(tmp_path / "nowhere")

    def into_a_folder(file: str) -> None:
        (folder / b / file).unlink()
        (folder / b / file).mkdir()

    changes = {
        f"{change.__name__} {file}": (change, file)
        for change in (swap, into_a_link, into_a_folder)
        for file in ("manifest.json", "tensors.pt")
    }
    changes["no manifest"] = (lambda file: (folder / b / file).unlink(), "manifest.json")
    changes["no tensors"] = (lambda file: (folder / b / file).unlink(), "tensors.pt")
    with trials("checkpoint, files missing or swapped") as tally:
        for which, (change, file) in changes.items():
            with tally.one(which):
                change(file)
                assert store.latest(folder).checkpoint == earlier
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)
        for which, (change, file) in changes.items():
            with tally.one(f"{which}, and there is no other"):
                shutil.rmtree(folder / a)
                change(file)
                with pytest.raises(CheckpointError, match="none of the 1 checkpoints"):
                    store.latest(folder)
            shutil.rmtree(folder)
            shutil.copytree(kept, folder)


def test_forged_tensors(tmp_path: Path, trials: Trials, times: Times) -> None:
    """A stranger can make every digest right. What comes of it is data or a refusal, never code or a crash.

    The pickle inside the archive is changed at random, its checksum being made right too.
    """
    path = store.save(tmp_path, state(100), about(100))
    with zipfile.ZipFile(path / "tensors.pt") as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    pickled = next(name for name in files if name.endswith("/data.pkl"))
    refused = 0
    with trials("checkpoint, forged") as tally:
        for seed in range(times(400, 20_000)):
            with tally.one(f"seed {seed}"):
                chance = random.Random(seed)
                changed = bytearray(files[pickled])
                for _ in range(chance.randint(1, 4)):
                    changed[chance.randrange(len(changed))] = chance.randrange(256)
                forged = io.BytesIO()
                with zipfile.ZipFile(forged, "w", zipfile.ZIP_STORED) as archive:
                    for name, content in {**files, pickled: bytes(changed)}.items():
                        archive.writestr(name, content)
                try:
                    form.tensors(forged.getvalue(), CPU)
                except CheckpointError as error:
                    assert "tensors.pt holds something else than tensors" in str(error)
                    refused += 1
    assert refused > tally.tried / 4


def test_killed_while_saving(tmp_path: Path, trials: Trials, times: Times) -> None:
    """kill -9 at any moment of a process that does nothing but save: what it had saved before is there, and whole."""
    chance = random.Random(0)
    with trials("kill -9 while saving") as tally:
        for number in range(times(40, 1000)):
            with tally.one(f"number {number}"):
                folder = tmp_path / str(number)
                saved = _killed_while_saving(folder, after_seconds=chance.uniform(0, 0.05))
                found = store.latest(folder).checkpoint
                assert (found is None) == (saved == 0 and not store.paths(folder))
                if found:
                    assert found.manifest.images_seen in (saved, saved + 1)
                    w = form.tensors(found.data, CPU)["model"]["w"]
                    assert float(w[0]) == found.manifest.images_seen
                    assert len(store.paths(folder)) <= 3  # the two that are kept, and one to be removed
                    store.sweep(folder)
                    assert all(entry.name.startswith("images-") for entry in folder.iterdir())
                shutil.rmtree(folder)


def _killed_while_saving(folder: Path, *, after_seconds: float) -> int:
    """The last checkpoint that the process knew to be durable."""
    folder.mkdir()
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            for images_seen in range(1, 10_000):
                store.save(folder, state(images_seen), about(images_seen))
                os.write(writing, images_seen.to_bytes(4, "big"))
                store.prune(folder, 2)
        finally:
            os._exit(1)
    os.close(writing)
    first = os.read(reading, 4) if after_seconds > 0.01 else b""  # most die in the middle, some at the very begin
    time.sleep(after_seconds)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    told = first
    while more := os.read(reading, 4096):
        told += more
    os.close(reading)
    return int.from_bytes(told[-4:], "big")


def test_a_changed_manifest_with_its_digest_made_right(
    two: tuple[Path, Checkpoint, Checkpoint], trials: Trials
) -> None:
    """Fields of other types, missing and unknown ones: refused, and never half believed."""
    _, _, latest = two
    file = latest.path / "manifest.json"
    whole = json.loads(file.read_text())
    values = (None, True, -1, 1.5, "x", [], {}, [[]], "1" * 10_000, 10**40)
    with trials("checkpoint, manifest forged") as tally:
        for name in (*Manifest.__dataclass_fields__, "schema"):
            for value in values:
                with tally.one(f"{name} = {value!r:.20}"):
                    told = {key: old for key, old in whole.items() if key != "digest"} | {name: value}
                    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
                    file.write_text(json.dumps({**told, "digest": digest}))
                    try:
                        found = form.read(latest.path)
                    except CheckpointError:
                        continue
                    assert type(getattr(found.manifest, name)) in (type(value), type(None))
                    assert found.data == latest.data
