"""Exports are the checkpoint's network to 1e-5, in plain torchvision and in ONNX Runtime, or there is no file."""

import json
import sys
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from hvdtrain import __version__, torchvision
from hvdtrain.export import onnx as onnx_format
from hvdtrain.export import safetensors as safetensors_format
from hvdtrain.provenance import revision

from ..trained import Digits, call, fails, random_network, random_run

NAMED = ["resnet18", "resnet50"]
FORMATS = ["safetensors", "onnx"]


def noise(count: int, side: int) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(7))


@torch.inference_mode()
def assert_alike(found: torch.Tensor, model: nn.Module, images: torch.Tensor) -> None:
    wanted = model(images)
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max()) <= 1e-5 * float(wanted.abs().max())


def exported(run: Path, form: str, out: Path, *options: str) -> str:
    """What is printed."""
    code, told, err = call("export", run, "--format", form, "--out", out, *options)
    assert code == 0, err
    assert sorted(out.parent.glob(f".{out.name}*")) == []
    return told


def properties(form: str, out: Path) -> dict[str, str]:
    if form == "onnx":
        return {entry.key: entry.value for entry in onnx.load(out).metadata_props}
    with safe_open(out, "pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("name", NAMED)
def test_plain_torchvision_loads_it_strictly_and_gives_the_same_logits(name: str, tmp_path: Path) -> None:
    run, model = random_run(tmp_path / "run", name, classes=37)
    out = tmp_path / "r.safetensors"
    told = exported(run, "safetensors", out)
    assert "compared    5 pictures: logits differ by " in told
    assert f"written     {out}: safetensors, {out.stat().st_size:,} bytes" in told
    plain = getattr(torchvision.load().models, name)(num_classes=37)
    plain.load_state_dict(load_file(out), strict=True)
    plain.eval()
    for count in (1, 3):
        with torch.inference_mode():
            assert_alike(plain(noise(count, 64)), model, noise(count, 64))


@pytest.mark.parametrize("name", [*NAMED, "resnet8"])
def test_onnx_runtime_gives_the_same_logits_for_any_number_of_images(name: str, tmp_path: Path) -> None:
    run, model = random_run(tmp_path / "run", name, classes=11)
    out = tmp_path / "r.onnx"
    assert f"written     {out}: onnx, opset 17, " in exported(run, "onnx", out)
    session = onnxruntime.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    (images,), (logits,) = session.get_inputs(), session.get_outputs()
    side = 32 if name == "resnet8" else 64
    assert (images.name, images.shape, images.type) == ("images", ["batch", 3, side, side], "tensor(float)")
    assert (logits.name, logits.shape) == ("logits", ["batch", 11])
    for count in (1, 6):
        (found,) = session.run(None, {"images": noise(count, side).numpy()})
        assert_alike(torch.from_numpy(found), model, noise(count, side))


@pytest.mark.parametrize("opset", [13, 20])
def test_the_opset_is_the_one_asked_for(opset: int, tmp_path: Path) -> None:
    run, _ = random_run(tmp_path / "run", "resnet8")
    out = tmp_path / "r.onnx"
    assert f"onnx, opset {opset}, " in exported(run, "onnx", out, "--opset", str(opset))
    model = onnx.load(out)
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", opset)]


@pytest.mark.parametrize("precision", ["float64", "bf16"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_run_of_another_precision_is_exported_in_float32(precision: str, form: str, tmp_path: Path) -> None:
    run, _ = random_run(tmp_path / "run", "resnet8", precision=precision)
    exported(run, form, tmp_path / "out")
    if form == "safetensors":
        assert {t.dtype for t in load_file(tmp_path / "out").values()} == {torch.float32, torch.int64}


@pytest.mark.parametrize("form", FORMATS)
def test_it_says_what_it_is(form: str, trained_digits: Digits, tmp_path: Path) -> None:
    exported(trained_digits.run, form, tmp_path / "out", "--average")
    found = properties(form, tmp_path / "out")
    told = [json.loads(line) for line in (trained_digits.run / "events.jsonl").read_text().splitlines()]
    last = [record for record in told if record["event"] == "evaluate"][-1]
    assert found["model"] == "resnet8"
    assert found["weights"] == "average"
    assert json.loads(found["classes"]) == [str(digit) for digit in range(10)]
    assert json.loads(found["preprocessing"]) == {
        "resize": 32,
        "crop": 32,
        "mean": [0.5] * 3,
        "std": [0.5] * 3,
        "interpolation": "bilinear",
        "antialias": True,
    }
    assert float(found["top1"]) == last["average_top1"]
    assert (found["step"], found["images_seen"]) == (str(last["step"]), str(last["images_seen"]))
    assert float(found["epoch"]) == pytest.approx(last["epoch"], abs=1e-4)
    assert len(found["config_digest"]) == 8
    assert (found["hvdtrain"], found["commit"]) == (__version__, revision())


def test_the_trained_digits_are_recognised_by_onnx_runtime(trained_digits: Digits, tmp_path: Path) -> None:
    """By whoever follows the metadata alone."""
    exported(trained_digits.run, "onnx", tmp_path / "digits.onnx", "--average")
    session = onnxruntime.InferenceSession(str(tmp_path / "digits.onnx"), providers=["CPUExecutionProvider"])
    told = session.get_modelmeta().custom_metadata_map
    made, names = json.loads(told["preprocessing"]), json.loads(told["classes"])
    transforms = torchvision.load().transforms
    picture = transforms.Compose(
        [
            transforms.Resize(made["resize"]),
            transforms.CenterCrop(made["crop"]),
            transforms.ToTensor(),
            transforms.Normalize(made["mean"], made["std"]),
        ]
    )
    from PIL import Image

    paths = sorted((trained_digits.data / "val").rglob("*.JPEG"))
    images = torch.stack([picture(Image.open(path).convert("RGB")) for path in paths])
    (logits,) = session.run(["logits"], {"images": images.numpy()})
    hits = sum(names[label] == path.parent.name for label, path in zip(logits.argmax(1), paths, strict=True))
    assert hits == round(float(told["top1"]) * 364)


def perturbed(content: Callable[..., bytes]) -> Callable[..., bytes]:
    """An exporter that gets one weight a little wrong."""

    def wrong(source: nn.Module, *more: Any, **options: Any) -> bytes:
        other = deepcopy(source)
        *_, head = (module for module in other.modules() if isinstance(module, nn.Linear))
        with torch.no_grad():
            head.weight[3, 5] += 0.01
        return content(other, *more, **options)

    return wrong


@pytest.mark.parametrize("before", [None, b"what was there"])
@pytest.mark.parametrize("form", FORMATS)
def test_one_wrong_weight_leaves_no_file(
    form: str, before: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = random_run(tmp_path / "run", "resnet18")
    module = {"onnx": onnx_format, "safetensors": safetensors_format}[form]
    monkeypatch.setattr(module, "content", perturbed(module.content))
    (tmp_path / "out").mkdir()
    out = tmp_path / "out" / "file"
    if before is not None:
        out.write_bytes(before)
    line = fails(3, "export", run, "--format", form, "--out", out)
    assert f"{out} is not written: the exported network differs from the checkpoint: a logit off by" in line
    assert "expected at most 1e-05 → try other versions: pip install -U" in line
    assert [path.read_bytes() for path in (tmp_path / "out").iterdir()] == ([] if before is None else [before])


def test_weights_that_are_not_finite_are_not_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, classes: int, seed: int = 0) -> nn.Module:
        model = random_network(name, classes)
        nn.init.constant_(next(model.parameters()), torch.nan)
        return model

    monkeypatch.setattr("tests.trained.random_network", broken)
    run, _ = random_run(tmp_path / "run", "resnet8")
    line = fails(5, "export", run, "--format", "safetensors", "--out", tmp_path / "out")
    assert "the checkpoint's own logits are not finite" in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_place_that_cannot_be_written_is_one_line(form: str, tmp_path: Path) -> None:
    run, _ = random_run(tmp_path / "run", "resnet8")
    missing = tmp_path / "missing" / "file"
    assert f"{missing}: no folder {missing.parent}" in fails(2, "export", run, "--format", form, "--out", missing)
    assert "/proc/file cannot be written: " in fails(3, "export", run, "--format", form, "--out", "/proc/file")
    assert f"{tmp_path}: expected a file to write" in fails(2, "export", run, "--format", form, "--out", tmp_path)


@pytest.mark.parametrize(
    ("form", "package"), [("safetensors", "safetensors"), ("onnx", "onnx"), ("onnx", "onnxruntime")]
)
def test_a_missing_package_comes_with_the_command_that_brings_it(
    form: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, _ = random_run(tmp_path / "run", "resnet8")
    monkeypatch.setitem(sys.modules, package, None)
    line = fails(3, "export", run, "--format", form, "--out", tmp_path / "out")
    assert f"--format {form} needs the package {package}: " in line
    assert " → pip install " in line
    assert package in line.rpartition("pip install")[2]


def test_what_cannot_be_is_one_line(tmp_path: Path) -> None:
    run, _ = random_run(tmp_path / "run", "resnet8")
    out = tmp_path / "out"
    assert "no such run directory or checkpoint" in fails(
        5, "export", tmp_path / "none", "--format", "onnx", "--out", out
    )
    assert "has no moving average" in fails(5, "export", run, "--format", "onnx", "--out", out, "--average")
    assert "--opset 12: expected 13 to 20" in fails(2, "export", run, "--format", "onnx", "--out", out, "--opset", 12)
    assert "invalid choice: 'tf'" in fails(2, "export", run, "--format", "tf", "--out", out)
    settings = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(settings.replace("name: resnet8", "name: resnet20"))
    assert "does not fit resnet20: " in fails(5, "export", run, "--format", "onnx", "--out", out)
    assert not out.exists()
