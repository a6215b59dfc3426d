"""How fast one device computes."""

import json
import statistics
from pathlib import Path

import pytest

from hvdtrain.plan import capacity, speeds
from hvdtrain.plan.ask import Ask
from hvdtrain.plan.constants import constants
from hvdtrain.plan.setting import setting
from hvdtrain.plan.speeds import Speed, measured


def speed(gpu: str, model: str, precision: str, batch: int) -> Speed:
    return speeds.speed(gpu, model, precision, batch, constants())


def test_speeds_come_from_the_nearest_row() -> None:
    assert speed("p100", "resnet50", "float32", 32).how == "tabulated"
    between = speed("p100", "resnet50", "float32", 48)
    assert between.how == "assumed"
    assert 195 < between.images_per_second < 219
    assert speed("a100-80", "resnet50", "bf16", 256).how == "assumed"
    deeper = speed("h100", "resnet101", "fp16", 400)
    assert deeper.how == "assumed"
    assert "multiply-adds from resnet50" in deeper.source


@pytest.mark.parametrize("precision", ["tf32", "fp16"])
@pytest.mark.parametrize("batch", [32, 128, 256])
def test_two_kinds_of_a_device_are_alike(precision: str, batch: int) -> None:
    """Of one there is an EfficientNet in the table, whose multiply-adds say nothing of a ResNet."""
    one, other = (speed(gpu, "resnet101", precision, batch) for gpu in ("a100-40", "a100-80"))
    assert one.images_per_second == pytest.approx(other.images_per_second, rel=0.1)
    assert "from resnet50" in other.source


def test_a_family_is_scaled_from_itself_and_else_is_far_less_sure() -> None:
    own, other = (speed(gpu, "efficientnet_b0", "tf32", 80) for gpu in ("a100-80", "a100-40"))
    assert "from efficientnet_b4" in own.source
    assert other.images_per_second / (1 + other.spread) < own.images_per_second < other.images_per_second
    assert other.spread > 5 * own.spread


@pytest.mark.parametrize(("batch", "spread"), [(256, 0.03), (384, 0.153), (128, 0.153), (64, 0.301), (8, 0.751)])
def test_far_from_the_batch_of_the_table_a_speed_is_less_sure(batch: int, spread: float) -> None:
    assert speed("a100-80", "resnet50", "tf32", batch).spread == pytest.approx(spread, abs=5e-4)


def test_what_was_measured_is_sure_at_its_batch_alone() -> None:
    assert (measured(362, "x", 32, 32).how, measured(362, "x", 32, 32).spread) == ("measured", 0.0)
    assert (measured(362, "x", 32, 8).how, measured(362, "x", 32, 8).spread) == ("assumed", 0.3)


def test_a_precision_of_the_same_width_is_no_surer_than_it() -> None:
    fp16, bf16 = (speed("a100-80", "vgg16", precision, 256) for precision in ("fp16", "bf16"))
    assert bf16.spread > fp16.spread


def test_the_row_of_our_own_is_as_it_was_measured() -> None:
    file = Path(__file__).parents[2] / "benchmarks" / "results" / "step-cpu.json"
    measured = statistics.median(json.loads(file.read_text())["rounds"]["ours-1"])
    assert speed("cpu", "resnet50", "bf16", 16).images_per_second == pytest.approx(measured, abs=0.005)


@pytest.mark.parametrize(
    ("gpu", "batch", "workers", "together"), [("h100", 400, 8, 56074.7), ("a100-pcie", 408, 4, 12954.7)]
)
def test_what_several_did_together_is_what_a_plan_of_as_many_says(
    gpu: str, batch: int, workers: int, together: float
) -> None:
    ask = Ask(gpu=gpu, precision="fp16", batch=batch)
    assert capacity.predict(setting(ask), workers).images_per_second == pytest.approx(together, rel=1e-4)
    alone = speed(gpu, "resnet50", "fp16", batch)
    assert alone.images_per_second > together / workers
    assert alone.how == "assumed"
    assert speed(gpu, "resnet101", "fp16", batch).spread > alone.spread
