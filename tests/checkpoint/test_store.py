"""Checkpoints: what goes in comes out, or an error does; nothing torn or foreign is taken for whole."""

import hashlib
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from hvdtrain.checkpoint import store
from hvdtrain.errors import CheckpointError
from hvdtrain.files import folder_whole

CPU = torch.device("cpu")


def save(folder: Path, images_seen: int = 640, **tensors: Any) -> Path:
    content = tensors or {"model": {"w": torch.arange(6.0)}}
    return store.save(folder, content, images_seen=images_seen, step=20, config_digest="0123abcd", data_digest="89ef")


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
    manifest, data = store.read(path)
    assert (manifest.images_seen, manifest.step, manifest.config_digest) == (640, 20, "0123abcd")
    assert manifest.tensors_sha256 == hashlib.sha256(data).hexdigest()
    tensors = store.tensors(data, CPU)
    assert torch.equal(tensors["tensor"], torch.arange(3))
    assert tensors["nested"] == {"a": [1, 2.5, "x"]}


def test_a_model_and_its_momentum_come_back_bit_for_bit_in_their_memory_order(tmp_path: Path) -> None:
    model, optimizer = trained()
    path = save(tmp_path, model=model.state_dict(), optimizer=optimizer.state_dict())
    found = store.tensors(store.read(path)[1], CPU)
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
    found = store.tensors(store.read(path)[1], CPU)
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


def test_a_checkpoint_is_two_files_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = save(tmp_path / "checkpoints")
    assert sorted(file.name for file in path.iterdir()) == ["manifest.json", "tensors.pt"]
    assert list(path.parent.iterdir()) == [path]
    assert json.loads((path / "manifest.json").read_text())["schema"] == store.SCHEMA


def test_saving_the_same_images_again_leaves_the_first(tmp_path: Path) -> None:
    first = save(tmp_path)
    before = (first / "tensors.pt").read_bytes()
    assert save(tmp_path, model={"w": torch.zeros(9)}) == first
    assert (first / "tensors.pt").read_bytes() == before


def test_the_newest_has_the_most_images(tmp_path: Path) -> None:
    for images_seen in (1000, 99, 20000, 500):
        save(tmp_path, images_seen)
    assert store.newest(tmp_path) == tmp_path / "images-000000020000"


def test_without_checkpoints_there_is_no_newest(tmp_path: Path) -> None:
    assert store.newest(tmp_path / "none") is None
    assert store.newest(tmp_path) is None


def test_what_a_killed_process_left_half_is_not_the_newest(tmp_path: Path) -> None:
    whole = save(tmp_path, 10)
    (tmp_path / ".images-000000000020.77.tmp").mkdir()
    (tmp_path / ".images-000000000020.77.tmp" / "manifest.json").write_text("{}")
    (tmp_path / "images-000000000030").mkdir()
    assert store.newest(tmp_path) == whole


@pytest.mark.parametrize("when", ["begin", "tensors", "manifest"])
def test_a_save_that_fails_midway_leaves_no_checkpoint(when: str, tmp_path: Path) -> None:
    """As `save` does it, ended after none, one or both of the files."""
    path = tmp_path / "images-000000000001"
    with pytest.raises(KeyboardInterrupt), folder_whole(path) as temporary:
        for name in {"begin": [], "tensors": ["tensors.pt"], "manifest": ["tensors.pt", "manifest.json"]}[when]:
            (temporary / name).write_bytes(b"{}")
        assert not path.exists()
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []
    assert store.newest(tmp_path) is None


def test_tensors_that_cannot_be_written_leave_nothing(tmp_path: Path) -> None:
    with pytest.raises(Exception, match="pickle"):
        save(tmp_path, model=lambda: None)
    assert list(tmp_path.iterdir()) == []


def test_every_length_but_the_whole_is_torn(tmp_path: Path) -> None:
    path = save(tmp_path)
    file = path / "tensors.pt"
    whole = file.read_bytes()
    for length in range(0, len(whole), 7):
        file.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=r"tensors\.pt is torn"):
            store.read(path)
    file.write_bytes(whole + b"\0")
    with pytest.raises(CheckpointError, match="torn"):
        store.read(path)


def test_every_flipped_byte_is_seen(tmp_path: Path) -> None:
    path = save(tmp_path)
    file = path / "tensors.pt"
    whole = file.read_bytes()
    for place in range(0, len(whole), 5):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(CheckpointError, match="torn"):
            store.read(path)


def test_every_shortened_manifest_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    file = path / "manifest.json"
    whole = file.read_text()
    for length in range(len(whole.rstrip())):
        file.write_text(whole[:length])
        with pytest.raises(CheckpointError, match=f"{path} is no checkpoint"):
            store.read(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, "has schema 1: expected 2"),
        ({"schema": None}, "has schema None: expected 2"),
        ({"unknown": 1}, "unknown"),
        ({"tensors_sha256": "0" * 64}, "torn"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    path = save(tmp_path)
    file = path / "manifest.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(CheckpointError, match=message):
        store.read(path)


def test_a_manifest_without_one_of_its_fields_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path)
    file = path / "manifest.json"
    whole = json.loads(file.read_text())
    for name in whole:
        file.write_text(json.dumps({key: value for key, value in whole.items() if key != name}))
        with pytest.raises(CheckpointError):
            store.read(path)


@pytest.mark.parametrize("text", ["[]", "3", '"x"', "null"])
def test_a_manifest_that_is_no_mapping_is_refused(text: str, tmp_path: Path) -> None:
    path = save(tmp_path)
    (path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError):
        store.read(path)


def test_a_folder_that_is_no_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"{tmp_path}/none is no checkpoint"):
        store.read(tmp_path / "none")
    (save(tmp_path) / "tensors.pt").unlink()
    with pytest.raises(CheckpointError, match="is no checkpoint"):
        store.read(tmp_path / "images-000000000640")


class Payload:
    """Unpickling it makes a file: what a stranger's checkpoint must not do."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[Path]]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["pickle", "torch"])
def test_code_in_a_checkpoint_does_not_run(kind: str, tmp_path: Path) -> None:
    trap = tmp_path / "ran"
    path = save(tmp_path)
    file = path / "tensors.pt"
    if kind == "pickle":
        file.write_bytes(pickle.dumps({"model": Payload(trap)}, protocol=2))
    else:
        torch.save({"model": Payload(trap)}, file)
    manifest = json.loads((path / "manifest.json").read_text())
    manifest["tensors_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (path / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(CheckpointError, match=r"GLOBAL .* was not an allowed global") as refused:
        store.tensors(store.read(path)[1], CPU)
    assert "weights_only" not in str(refused.value)  # torch's advice, to load it all the same
    assert not trap.exists()
    torch.load(file, weights_only=False) if kind == "torch" else pickle.loads(file.read_bytes())
    assert trap.exists()  # the trap works


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
        store.tensors(data, CPU)


def test_a_real_checkpoint_can_be_told_from_its_tensors(tmp_path: Path) -> None:
    tensors = store.tensors(store.read(save(tmp_path))[1], CPU)
    assert list(tensors) == ["model"]
