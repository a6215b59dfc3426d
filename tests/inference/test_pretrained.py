"""torchvision's networks, to compare with: its preprocessing, and weights out of a file."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.nn import functional

from hvdtrain import torchvision
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import ConfigError
from hvdtrain.inference import pretrained
from hvdtrain.inference.pretrained import Pretrained

from ..trained import Digits, call, fails, random_network


@pytest.fixture(scope="module")
def few(trained_digits: Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three of each digit."""
    folder = tmp_path_factory.mktemp("few")
    for digit in sorted((trained_digits.data / "val").iterdir()):
        (folder / "val" / digit.name).mkdir(parents=True)
        for path in sorted(digit.iterdir())[:3]:
            shutil.copy(path, folder / "val" / digit.name)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path: Path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(random_network("resnet18", 10).state_dict(), path)
    return path


def by_hand(few: Path, weights: Path, *, resize: int, crop: int) -> tuple[int, float]:
    """Hits and mean loss with torchvision's own transforms."""
    tv = torchvision.load()
    model = tv.models.resnet18(num_classes=10)
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    preset = tv.transforms._presets.ImageClassification(resize_size=resize, crop_size=crop)
    paths = sorted((few / "val").rglob("*.JPEG"))
    pictures = torch.stack([preset(Image.open(path).convert("RGB")) for path in paths])
    labels = torch.tensor([int(path.parent.name) for path in paths])
    with torch.inference_mode():
        logits = model(pictures)
    return int((logits.argmax(1) == labels).sum()), float(functional.cross_entropy(logits, labels))


@pytest.mark.parametrize(
    ("options", "resize", "crop"),
    [(("--resize", "64", "--crop", "48"), 64, 48), ((), 256, 224)],
)
def test_a_state_dict_has_the_accuracy_that_torchvision_gives_it(
    options: tuple[str, ...], resize: int, crop: int, few: Path, weights: Path, tmp_path: Path
) -> None:
    code, out, err = call(
        "eval", "torchvision:resnet18", "--weights", weights, "--data", few, "--json", tmp_path / "j", *options
    )
    assert code == 0, err
    assert f"resize {resize}, crop {crop}, bilinear" in out
    record = json.loads((tmp_path / "j").read_text())
    hits, loss = by_hand(few, weights, resize=resize, crop=crop)
    assert record["network"]["model"] == "torchvision:resnet18"
    assert record["network"]["weights"] == str(weights)
    (found,) = record["evaluations"]
    assert found["images"] == 30
    assert abs(found["top1"] * 30 - hits) < 1.01  # pictures are alike to one grey level
    assert found["loss"] == pytest.approx(loss, rel=1e-2)


@pytest.mark.parametrize("inside", ["state_dict", "model"])
def test_a_training_scripts_checkpoint_is_taken_too(inside: str, few: Path, weights: Path, tmp_path: Path) -> None:
    state = torch.load(weights, weights_only=True)
    content: dict[str, Any] = {inside: {f"module.{name}": tensor for name, tensor in state.items()}, "epoch": 90}
    torch.save(content, tmp_path / "checkpoint.pth")
    told = [
        call("eval", "torchvision:resnet18", "--weights", file, "--data", few, "--resize", 48, "--crop", 48)
        for file in (weights, tmp_path / "checkpoint.pth")
    ]
    assert told[0][0] == 0
    assert told[0][1].splitlines()[1:] == told[1][1].splitlines()[1:]


def test_sizes_are_those_of_torchvisions_weights_unless_they_are_given() -> None:
    def sizes(asked: Pretrained) -> tuple[int, int]:
        data = pretrained.config(asked).data
        return round(data.image_size * data.eval_resize), data.image_size

    assert sizes(Pretrained("resnet50", "IMAGENET1K_V1")) == (256, 224)
    assert sizes(Pretrained("resnet50", "IMAGENET1K_V2")) == (232, 224)
    assert sizes(Pretrained("resnet50")) == (232, 224)
    assert sizes(Pretrained("resnet50", "here.pth")) == (256, 224)
    assert sizes(Pretrained("resnet50", "IMAGENET1K_V1", resize=320, crop=288)) == (320, 288)


def test_colours_are_those_of_torchvisions_weights() -> None:
    def colours(name: str, weights: str = "") -> tuple[tuple[float, ...], ...]:
        data = pretrained.config(Pretrained(name, weights)).data
        return data.mean, data.std

    half = (0.5, 0.5, 0.5)
    assert colours("efficientnet_v2_l") == (half, half)
    assert colours("efficientnet_v2_l", "here/efficientnet_v2_l-59c71312.pth") == (half, half)
    assert colours("efficientnet_v2_l", "mine.pth") == colours("resnet50") != (half, half)


def old_names(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """As in the files that torchvision offers of DenseNets."""
    return {
        re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", name): tensor
        for name, tensor in state.items()
        if not name.endswith("num_batches_tracked")
    }


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("googlenet", {"init_weights": False}),
        ("inception_v3", {"init_weights": False}),
        ("densenet121", {}),
        ("squeezenet1_1", {}),
        ("mnasnet0_5", {}),
    ],
)
def test_torchvisions_own_weights_make_its_own_network(
    name: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = torchvision.load().models
    torch.manual_seed(0)
    state = models.get_model(name, weights=None, num_classes=1000, **options).state_dict()
    entry = models.get_model_weights(name).DEFAULT
    file = tmp_path / entry.url.rpartition("/")[2]
    torch.save(old_names(state) if name.startswith("densenet") else state, file)
    monkeypatch.setattr(
        "torchvision.models._api.load_state_dict_from_url", lambda *_, **__: torch.load(file, weights_only=True)
    )
    theirs, pictures = models.get_model(name, weights=entry).eval(), torch.randn(2, 3, 96, 96)
    for weights in ("", str(file)):
        found = pretrained.subject(Pretrained(name, weights), SoloComm(), torch.device("cpu"))
        assert found.outputs == 1000
        (ours,) = found.networks.values()
        with torch.inference_mode():
            torch.testing.assert_close(ours(pictures), theirs(pictures), rtol=0, atol=0)


def test_pictures_are_not_scaled_for_weights_of_ones_own(tmp_path: Path) -> None:
    state = torchvision.load().models.googlenet(weights=None, num_classes=10, init_weights=False).state_dict()
    torch.save(state, tmp_path / "mine.pth")
    asked = Pretrained("googlenet", str(tmp_path / "mine.pth"))
    (network,) = pretrained.subject(asked, SoloComm(), torch.device("cpu")).networks.values()
    assert network.transform_input is False


def test_weights_without_a_classifier_are_not_offered() -> None:
    with pytest.raises(ConfigError, match=r"IMAGENET1K_FEATURES: expected a file, or one of IMAGENET1K_V1, DEFAULT"):
        pretrained.config(Pretrained("vgg16", "IMAGENET1K_FEATURES"))


def test_what_cannot_be_is_one_line(few: Path, weights: Path, tmp_path: Path, trained_digits: Digits) -> None:
    assert "the nearest is resnet50 → " in fails(2, "eval", "torchvision:resnet5O", "--data", few)
    assert "expected --data DIR, which has val/" in fails(2, "eval", "torchvision:resnet18")
    assert "--weights goes with torchvision:NAME alone" in fails(2, "eval", trained_digits.run, "--weights", weights)
    assert "--weights IMAGENET: expected a file, or one of IMAGENET1K_V1" in fails(
        2, "eval", "torchvision:resnet18", "--weights", "IMAGENET", "--data", few
    )
    assert "expected a crop of 32 to 1024 pixels" in fails(
        2, "eval", "torchvision:resnet18", "--weights", weights, "--data", few, "--crop", 300
    )
    cut = tmp_path / "cut.pth"
    cut.write_bytes(weights.read_bytes()[:100_000])
    for file, code, message in (
        (tmp_path / "none.pth", 5, "cannot be read: No such file or directory"),
        (cut, 5, "holds something else than tensors, or is cut off"),
        (few, 5, "cannot be read: Is a directory"),
    ):
        assert message in fails(code, "eval", "torchvision:resnet18", "--weights", file, "--data", few)
    assert "does not fit torchvision's resnet34: " in fails(
        5, "eval", "torchvision:resnet34", "--weights", weights, "--data", few
    )


def test_weights_that_cannot_be_downloaded_ask_for_a_file(few: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("no network")

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", refuse)
    line = fails(3, "eval", "torchvision:resnet18", "--data", few)
    assert "cannot be had: no network → --weights FILE.pth" in line
