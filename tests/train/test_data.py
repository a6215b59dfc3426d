"""How the images of a run are put together from its configuration."""

import shutil
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

import pytest
import torch

from hvdtrain.config.schema import Config
from hvdtrain.data import diagnose
from hvdtrain.data.dali import DaliDecoder
from hvdtrain.data.loader import Batch
from hvdtrain.data.reference import ReferenceDecoder
from hvdtrain.data.synthetic import NoiseDecoder
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import ConfigError, DataError, EnvironmentFault
from hvdtrain.train.data import Data, Machine

MACHINE = Machine(torch.device("cpu"), threads=1)


def data(folder: Path, *, kn: int | None = None, **settings: object) -> Data:
    given = {"dir": folder, "image_size": 32, "batch_size": 4, **settings}
    train = {"global_batch_size": kn}
    config = Config(run={"dir": folder / "runs"}, model={"name": "resnet8"}, data=given, train=train)
    return Data(config, SoloComm(), MACHINE)


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


GROWING = ((0, 16), (16 / 1433, 24), (0.02, 20))  # epochs: from the fifth batch of four on, and from the ninth
SIDES = [16] * 4 + [24] * 4 + [20] * 4


def sides(batches: Iterable[Batch]) -> list[int]:
    return [batch.images.shape[-1] for batch in batches]


@pytest.mark.parametrize("decoder", ["dali", "pillow"])
def test_pictures_grow_when_their_epoch_comes_and_are_the_same_otherwise(digits: Path, decoder: str) -> None:
    growing, small = data(digits, train_sizes=GROWING, decoder=decoder), data(digits, image_size=16, decoder=decoder)
    found, wanted = (list(islice(of.training(0), 12)) for of in (growing, small))
    assert sides(found) == SIDES
    for ours, theirs in zip(found, wanted, strict=True):
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.plan is not None
        assert theirs.plan is not None
        assert (ours.plan.samples == theirs.plan.samples).all()
        assert (ours.plan.windows == theirs.plan.windows).all()
    assert all(torch.equal(ours.images, theirs.images) for ours, theirs in zip(found[:4], wanted[:4], strict=True))
    assert sides(islice(growing.validation(), 1)) == [32]


def test_a_run_that_goes_on_has_the_size_of_where_it_is(digits: Path) -> None:
    assert sides(islice(data(digits, train_sizes=GROWING).training(12), 9)) == SIDES[3:]
    assert sides(islice(data(digits, train_sizes=GROWING).training(1433 * 5), 2)) == [20, 20]


def test_all_micro_batches_of_a_step_have_one_size(digits: Path) -> None:
    growing = data(digits, kn=12, train_sizes=GROWING)
    assert sides(islice(growing.training(0), 12)) == [16] * 6 + [24] * 3 + [20] * 3
    assert sides(islice(growing.training(4), 6)) == [16] * 3 + [24] * 3


def test_what_breaks_where_pictures_grow_costs_no_other_image(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "digits")
    of = data(tmp_path / "digits", train_sizes=GROWING, max_bad_ratio=0.5)
    plans = [batch.plan for batch in islice(data(digits).training(0), 12)]
    samples = [row for plan in plans if plan is not None for row in plan.samples.tolist()]
    broken = {samples[i] for i in (13, 15, 16, 31, 33)}  # about the borders
    for row in broken:
        path = tmp_path / "digits" / "train" / of.train.names[row]
        path.write_bytes(bytes(path.stat().st_size))
    found = list(islice(of.training(0), 12))
    assert [row for batch in found if batch.plan is not None for row in batch.plan.samples.tolist()] == [
        row for row in samples if row not in broken
    ]
    assert [batch.images_seen for batch in found] == [4 * (i + 1) for i in range(12)]
    assert sides(found) == SIDES
    assert [batch.skipped for batch in found] == [0, 0, 0, 2, 1, 0, 0, 1, 1, 0, 0, 0]
