"""Checkpoints: what goes in comes out, or an error does; nothing torn or foreign is taken for whole."""

import hashlib
import json
import pickle
import shutil
import tarfile
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hvdtrain import __version__
from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Broken, Checkpoint, Manifest
from hvdtrain.errors import CheckpointError

from .saving import save

CPU = torch.device("cpu")
GOLDEN = Path(__file__).parents[1] / "golden"
SCHEMAS = {3: (0, 0), 4: (8, 256)}  # workers and minibatch of each record


def trained() -> tuple[nn.Module, torch.optim.SGD]:
    """A small channels-last network after two steps with momentum."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(2, 3, 8, 8)).square().mean().backward()
        optimizer.step()
    return model, optimizer


def test_what_was_saved_is_read_with_its_manifest(tmp_path: Path) -> None:
    path = save(tmp_path, tensor=torch.arange(3, dtype=torch.int64), nested={"a": [1, 2.5, "x"]})
    assert path == tmp_path / "images-000000000640"
    found = form.read(path)
    manifest = found.manifest
    assert (manifest.images_seen, manifest.step, manifest.config_digest) == (640, 20, "0123abcd")
    assert (manifest.tensors_sha256, manifest.tensors_bytes) == (
        hashlib.sha256(found.data).hexdigest(),
        len(found.data),
    )
    assert manifest.versions == {"hvdtrain": __version__, "torch": str(torch.__version__)}
    tensors = form.tensors(found.data, CPU)
    assert torch.equal(tensors["tensor"], torch.arange(3))
    assert tensors["nested"] == {"a": [1, 2.5, "x"]}


def test_a_model_and_its_momentum_come_back_bit_for_bit_in_their_memory_order(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = save(tmp_path, model=model.state_dict(), optimizer=optimizer.state_dict())
    found = form.tensors(form.read(path).data, CPU)
    assert found["model"].keys() == model.state_dict().keys()
    for name, tensor in model.state_dict().items():
        assert torch.equal(found["model"][name], tensor)
        assert found["model"][name].stride() == tensor.stride()
    momentum = {i: state["momentum_buffer"] for i, state in optimizer.state_dict()["state"].items()}
    assert momentum[0].stride() == next(model.parameters()).stride() != (27, 9, 3, 1)
    for i, tensor in momentum.items():
        assert torch.equal(found["optimizer"]["state"][i]["momentum_buffer"], tensor)
        assert found["optimizer"]["state"][i]["momentum_buffer"].stride() == tensor.stride()
    assert found["optimizer"]["param_groups"] == optimizer.state_dict()["param_groups"]


def test_a_loaded_optimiser_goes_on_as_the_saved_one(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = save(tmp_path, model=model.state_dict(), optimizer=optimizer.state_dict())
    found = form.tensors(form.read(path).data, CPU)
    again = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 3))
    again.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer_again = torch.optim.SGD(again.parameters(), lr=9, momentum=0.1, nesterov=True)
    again.load_state_dict(found["model"])
    optimizer_again.load_state_dict(found["optimizer"])
    images = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(5))
    for network, sgd in ((model, optimizer), (again, optimizer_again)):
        sgd.zero_grad()
        network(images).square().mean().backward()
        sgd.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"no checkpoint",
            pickle.dumps([1], protocol=2),
            pickle.dumps([1], protocol=2)[:-1],
            b"PK\3\4" + b"0" * 50,
        ),
        *(b"\x80\x02}q\x01h\x07", b"\x80\x02K"),
    ],
)
def test_bytes_that_are_no_tensors_are_refused(data: bytes) -> None:
    with pytest.raises(CheckpointError, match=r"tensors\.pt holds something else than tensors: ."):
        form.tensors(data, CPU)


def test_a_real_checkpoint_can_be_told_from_its_tensors(tmp_path: Path) -> None:
    tensors = form.tensors(form.read(save(tmp_path)).data, CPU)
    assert list(tensors) == ["model"]


def told(path: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((path / "manifest.json").read_text())
    return manifest


def tell(path: Path, manifest: dict[str, Any], *, digest: bool = True) -> None:
    """Write a manifest, with the digest that it should have."""
    manifest = {key: value for key, value in manifest.items() if key != "digest"}
    if digest:
        manifest["digest"] = hashlib.sha256(json.dumps(manifest, sort_keys=True).encode()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))


def exact_or_refused(path: Path, whole: Checkpoint) -> bool:
    """Whether the checkpoint was refused; an AssertionError if it was read, but not as what it was."""
    try:
        found = form.read(path)
    except CheckpointError:
        return True
    assert (found.manifest, found.data) == (whole.manifest, whole.data)
    return False


def test_every_length_but_the_whole_is_torn(tmp_path: Path) -> None:
    path = save(tmp_path)
    for name in ("manifest.json", "tensors.pt"):
        file = path / name
        whole = file.read_bytes()
        for length in range(0, len(whole.rstrip()), 1 if name == "manifest.json" else 7):
            file.write_bytes(whole[:length])
            with pytest.raises(Broken, match=f"{name} is torn"):
                form.read(path)
        file.write_bytes(whole)
    (path / "tensors.pt").write_bytes((path / "tensors.pt").read_bytes() + b"\0")
    with pytest.raises(Broken, match="torn"):
        form.read(path)


def test_every_flipped_byte_of_the_tensors_is_seen(tmp_path: Path) -> None:
    path = save(tmp_path)
    file = path / "tensors.pt"
    whole = file.read_bytes()
    for place in range(0, len(whole), 5):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(Broken, match="torn"):
            form.read(path)


def test_every_flipped_byte_of_the_manifest_is_seen_or_means_nothing(tmp_path: Path) -> None:
    """Blanks may change; 640 images may not become 641."""
    path = save(tmp_path)
    whole, file = form.read(path), path / "manifest.json"
    text = file.read_bytes()
    refused = 0
    for place in range(len(text)):
        file.write_bytes(text[:place] + bytes([text[place] ^ 1]) + text[place + 1 :])
        refused += exact_or_refused(path, whole)
    assert refused > 0.7 * len(text)


def test_a_changed_number_with_all_else_as_it_was_is_seen(tmp_path: Path) -> None:
    path = save(tmp_path)
    (path / "manifest.json").write_text((path / "manifest.json").read_text().replace("640", "641"))
    with pytest.raises(Broken, match="its digest is"):
        form.read(path)


@pytest.mark.parametrize("schema", [1, 2])
def test_an_older_schema_is_refused_by_its_number(schema: int, tmp_path: Path) -> None:
    path = save(tmp_path)
    older = {"images_seen": 640, "step": 20, "config_digest": "c", "data_digest": "d", "tensors_sha256": "0" * 64}
    tell(path, {**older, "schema": schema}, digest=False)
    with pytest.raises(
        CheckpointError, match=rf"has schema {schema}, .*: expected 4 → go on with the version"
    ) as raised:
        form.read(path)
    assert not isinstance(raised.value, Broken)  # nothing to fall back from


def test_a_newer_schema_is_refused_by_its_number_and_is_not_broken(tmp_path: Path) -> None:
    path = save(tmp_path)
    tell(path, {**told(path), "schema": 5, "more": 1})
    with pytest.raises(CheckpointError, match=f"has schema 5, this hvdtrain {__version__} reads 3 and 4") as raised:
        form.read(path)
    assert not isinstance(raised.value, Broken)


@pytest.mark.parametrize(
    "change",
    [
        *({"unknown": 1}, {"images_seen": "640"}, {"step": 2.5}, {"top1": 1}, {"versions": []}, {"images_seen": None}),
        {"tensors_bytes": True},
    ],
)
def test_a_forged_manifest_of_another_form_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    path = save(tmp_path)
    tell(path, {**told(path), **change})
    with pytest.raises(CheckpointError, match="is no manifest of schema 4"):
        form.read(path)


def test_a_forged_manifest_without_one_of_its_fields_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    whole = told(path)
    for name in whole.keys() - {"digest"}:
        tell(path, {key: value for key, value in whole.items() if key != name})
        with pytest.raises(CheckpointError, match=r"no manifest of schema 4|has schema None"):
            form.read(path)


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null", "[" * 100_000, " " * 2**21, "NaN", ""])
def test_a_manifest_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = save(tmp_path)
    (path / "manifest.json").write_text(text)
    with pytest.raises(Broken, match="is torn: it is no JSON object"):
        form.read(path)


def test_a_folder_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{tmp_path}/none is no checkpoint: there is no such folder"):
        form.read(tmp_path / "none")
    path = save(tmp_path)
    for name in ("tensors.pt", "manifest.json"):
        (path / name).unlink()
        with pytest.raises(Broken, match=rf"{path}/{name} cannot be read: No such file"):
            form.read(path)


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_checkpoint_of_these_schemas_will_be_read_for_ever(
    schema: int, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """Or be refused by name, once the schema is another: then these records get a neighbour."""
    record = GOLDEN / f"checkpoint-schema-{schema}"
    if pytestconfig.getoption("--update-golden") and schema == form.SCHEMA:
        shutil.rmtree(record, ignore_errors=True)
        about = Manifest(640, step=20, config_digest="0123abcd", data_digest="89ef", workers=8, global_batch=256)
        store.save(tmp_path, {"model": {"w": torch.arange(6.0)}, "progress": {"top1": 0.5}}, about).rename(record)
    found = form.read(record)
    assert (found.manifest.images_seen, found.manifest.step, found.manifest.top1) == (640, 20, None)
    assert (found.manifest.workers, found.manifest.global_batch) == SCHEMAS[schema]
    assert torch.equal(form.tensors(found.data, CPU)["model"]["w"], torch.arange(6.0))


def test_equal_states_have_equal_digests(tmp_path: Path) -> None:
    """So that runs can be compared by their manifests."""
    first, second = (form.read(save(tmp_path / name)).manifest for name in ("a", "b"))
    assert first.tensors_sha256 == second.tensors_sha256


class Payload:
    """Unpickling it makes a file: what a stranger's checkpoint must not do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


def forge(path: Path) -> None:
    """Give the tensors' place to what is there now, digests included: as a stranger can."""
    data = (path / "tensors.pt").read_bytes()
    tell(path, {**told(path), "tensors_bytes": len(data), "tensors_sha256": hashlib.sha256(data).hexdigest()})


@pytest.mark.parametrize("kind", ["torch", "pickle", "old torch", "tar"])
def test_code_in_a_checkpoint_does_not_run_and_is_refused_by_name(kind: str, tmp_path: Path) -> None:
    """Also not from torch's older formats, whose loaders have run code even where only weights were allowed."""
    trap = tmp_path / "ran"
    path = save(tmp_path)
    file = path / "tensors.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps({"model": Payload(trap)}, protocol=2))
    elif kind == "tar":
        (tmp_path / "pickle").write_bytes(pickle.dumps(Payload(trap), protocol=2))
        with tarfile.open(file, "w") as tar:
            for name in ("sys_info", "pickle", "storages", "tensors"):
                tar.add(tmp_path / "pickle", name)
    else:
        torch.save({"model": Payload(trap)}, file, _use_new_zipfile_serialization=kind == "torch")
    forge(path)
    with pytest.raises(CheckpointError, match=r"tensors\.pt holds something else than tensors: ") as refused:
        form.tensors(form.read(path).data, CPU)
    if kind == "torch":
        assert "was not an allowed global" in str(refused.value)
    assert "weights_only" not in str(refused.value)  # torch's advice, to load it all the same
    assert not trap.exists()
    if kind in ("torch", "old torch"):
        torch.load(file, weights_only=False)
    else:
        pickle.loads((tmp_path / "pickle" if kind == "tar" else file).read_bytes())
    assert trap.exists()  # the trap works
