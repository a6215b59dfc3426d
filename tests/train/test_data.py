"""How the images of a run are put together from its configuration."""

from pathlib import Path

import pytest
import torch

from hvdtrain.config.schema import Config
from hvdtrain.data import demo, diagnose
from hvdtrain.data.dali import DaliDecoder
from hvdtrain.data.reference import ReferenceDecoder
from hvdtrain.data.synthetic import NoiseDecoder
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import ConfigError, DataError, EnvironmentFault
from hvdtrain.train.data import Data, Machine

MACHINE = Machine(torch.device("cpu"), threads=1)


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("digits")
    demo.write(folder)
    return folder


def data(folder: Path, **settings: object) -> Data:
    given = {"dir": folder, "image_size": 32, "batch_size": 4, **settings}
    return Data(Config(run={"dir": folder / "runs"}, data=given), SoloComm(), MACHINE)


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, DaliDecoder),
        ({"decoder": "dali"}, DaliDecoder),
        ({"decoder": "pillow"}, ReferenceDecoder),
        ({"source": "synthetic"}, NoiseDecoder),
    ],
)
def test_the_decoder_is_the_one_that_is_asked_for(digits: Path, settings: dict[str, str], wanted: type) -> None:
    found = data(digits, **settings)
    assert {type(source.decoder) for source in found.sources.values()} == {wanted}
    batch = next(found.training(0))
    assert batch.images.shape == (4, 3, 32, 32)
    assert batch.images.dtype == torch.float32


def test_without_dali_pillow_decodes_unless_dali_is_asked_for(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnose, "find_spec", lambda name: None)
    assert type(data(digits).sources["train"].decoder) is ReferenceDecoder
    with pytest.raises(EnvironmentFault, match="DALI is not installed"):
        data(digits, decoder="dali")


def test_both_decoders_give_the_same_batches_to_one_grey_level(digits: Path) -> None:
    settings = {"mean": (0, 0, 0), "std": (1 / 255, 1 / 255, 1 / 255)}
    ours, theirs = (data(digits, decoder=name, **settings) for name in ("dali", "pillow"))
    for batch, other, _ in zip(ours.training(0), theirs.training(0), range(20), strict=False):
        assert torch.equal(batch.labels, other.labels)
        assert float((batch.images - other.images).abs().max()) <= 1.001


@pytest.mark.parametrize("decoder", ["auto", "pillow"])
def test_a_gpu_that_is_not_there_cannot_decode(digits: Path, decoder: str) -> None:
    with pytest.raises(ConfigError, match=r"data\.device = gpu: expected cpu or auto"):
        data(digits, device="gpu", decoder=decoder)


def test_parts_of_different_classes_are_refused(digits: Path, tmp_path: Path) -> None:
    (tmp_path / "train").symlink_to(digits / "train")
    (tmp_path / "val").mkdir()
    for name in ("0", "1", "11"):
        (tmp_path / "val" / name).symlink_to(digits / "val" / "1")
    with pytest.raises(DataError, match="train and val have different classes: 11, 2, 3"):
        data(tmp_path)
