"""What the presets come to on 256 workers, of which this process is the first and the others are imagined."""

import math
from typing import TypeVar

import pytest
import torch

from hvdtrain.config.schema import Config
from hvdtrain.config.yaml_file import read_yaml
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import ConfigError
from hvdtrain.train.build import Parts, build
from hvdtrain.train.data import Machine

T = TypeVar("T")

IMAGENET = 1_281_167
WORKERS = 256


class Imaginary(SoloComm):
    """Rank 0 of `size` workers; the others have what it has."""

    def __init__(self, size: int) -> None:
        self.size = size

    def sum(self, values: list[float], name: str) -> list[float]:
        return [self.size * value for value in values]

    def gather(self, value: T, name: str) -> list[T]:
        return [value] * self.size


def parts(preset: str, workers: int, **data: int) -> Parts:
    values = read_yaml(preset)
    values["data"] = {**values["data"], "source": "synthetic", **data}
    return build(Config(**values), Imaginary(workers), Machine(torch.device("cpu"), threads=1), bucket_bytes=2**24)


@pytest.mark.parametrize(
    ("preset", "images", "kn", "micro_batches", "peak", "steps"),
    [  # steps: 90 epochs of 1,281,167 images, 60 of LARS, 12 and 180 of the small ones, in minibatches of kn
        ("goyal_r50_8k", {}, 8192, 1, 3.2, 14_076),
        ("goyal_r101_8k", {}, 8192, 1, 3.2, 14_076),
        ("lars_r50_32k", {}, 32768, 2, 27.5, 2_346),
        ("demo", {}, 4096, 1, 12.8, 3_754),
        # Their minibatches are smaller than 256 of their batches. With fewer images each they are the same step, though
        # for batch normalisation another one.
        ("goyal_r50_256", {"batch_size": 1}, 256, 1, 0.1, 450_411),
        ("nvidia_r50_90ep", {"batch_size": 8}, 2048, 1, 2.048, 56_302),
    ],
)
def test_presets_on_256_workers(
    preset: str, images: dict[str, int], kn: int, micro_batches: int, peak: float, steps: int
) -> None:
    built = parts(preset, WORKERS, **images)
    assert built.objective.global_batch == kn
    assert built.micro_batches == micro_batches
    assert math.ceil(built.images_of_all_epochs / kn) == steps
    rates = [built.schedule(epoch) for epoch in range(round(built.images_of_all_epochs / IMAGENET))]
    assert max(rates) == pytest.approx(peak, rel=1e-12)
    assert built.state.optimizer.param_groups[0]["lr"] == rates[0]


@pytest.mark.parametrize(
    ("preset", "workers", "micro_batches"),
    [("goyal_r50_256", 8, 1), ("goyal_r50_256", 2, 4), ("nvidia_r50_90ep", 8, 1), ("lars_r50_32k", 512, 1)],
)
def test_presets_on_the_workers_of_their_page(preset: str, workers: int, micro_batches: int) -> None:
    assert parts(preset, workers).micro_batches == micro_batches


def test_a_minibatch_of_fewer_images_than_workers_is_refused() -> None:
    with pytest.raises(ConfigError, match="expected a multiple of 256"):
        parts("goyal_mini", WORKERS, batch_size=1)


def test_a_minibatch_that_is_too_small_for_256_workers_is_refused_with_what_would_fit() -> None:
    with pytest.raises(ConfigError) as refused:
        parts("goyal_r50_256", WORKERS)
    assert "8 workers, or --train.global_batch_size 8192, or --data.batch_size 1" in str(refused.value)


def test_the_papers_network_begins_and_decays_as_the_paper_says() -> None:
    built = parts("goyal_r50_8k", WORKERS)
    counts = {
        group["name"]: (len(group["params"]), group["weight_decay"]) for group in built.state.optimizer.param_groups
    }
    assert counts == {"weights": (54, 1e-4), "biases": (1, 1e-4), "norms": (106, 0.0)}
    assert built.state.scaler is None
    assert built.state.average is None
    zeros = [name for name, p in built.state.model.named_parameters() if name.endswith("bn3.weight") and not p.any()]
    assert len(zeros) == 16
