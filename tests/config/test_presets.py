"""The presets: pages that can be read alone, with the numbers of their sources."""

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from itertools import takewhile
from typing import Any

import pytest

from hvdtrain.config.load import Parser, add_options, from_options
from hvdtrain.config.schema import Config
from hvdtrain.config.yaml_file import presets, read_yaml
from hvdtrain.optim.schedule import scaled_rate

GOYAL_DECAY = ("step", (30, 60, 80), 0.1)
ESSENTIALS = {"model.name", "data.batch_size", "train.global_batch_size", "epochs"} | {
    f"optim.{key}"
    for key in ("base_lr", "reference_batch", "warmup", "warmup_epochs", "decay", "momentum", "weight_decay")
}
DECAYS = {"step": ("decay_epochs", "decay_factor"), "cosine": ("end_lr",), "polynomial": ("power", "end_lr")}


@dataclass(frozen=True)
class Recipe:
    """What the source of a preset says, in numbers that were read there."""

    model: str
    workers: int  # k of the header's command
    batch: int  # n
    minibatch: int  # kn
    peak: float  # the rate after warm-up
    warmup: float  # epochs
    decay: tuple[Any, ...]
    momentum: float
    weight_decay: float
    epochs: float
    top1: str = ""
    took: str = ""
    also: Mapping[str, Any] = field(default_factory=dict)


PUBLISHED = {
    # arXiv 1706.02677: sections 1, 5.1, 5.3, tables 1 and 2c
    "goyal_r50_256": Recipe(
        *("resnet50", 8, 32, 256, 0.1, 5, GOYAL_DECAY, 0.9, 0.0001, 90),
        top1=f"{100 - 23.60:.2f} ± 0.12 %",
        took="29 h",
    ),
    "goyal_r50_8k": Recipe(
        *("resnet50", 256, 32, 8192, 3.2, 5, GOYAL_DECAY, 0.9, 0.0001, 90),
        top1=f"{100 - 23.74:.2f} ± 0.09 %",
        took="1 h",
    ),
    "goyal_r101_8k": Recipe(
        *("resnet101", 256, 32, 8192, 3.2, 5, GOYAL_DECAY, 0.9, 0.0001, 90),
        top1=f"{100 - 22.36:.2f} ± 0.09 %",
        took="92.5 min",
    ),
    # NVIDIA/DeepLearningExamples, PyTorch/Classification/ConvNets: configs.yml, resnet50v1.5/README.md; nesterov,
    # last_bn_0_init: off unless asked for, in main.py and models/resnet.py; the last layer is torch's
    "nvidia_r50_90ep": Recipe(
        *("resnet50", 8, 256, 2048, 2.048, 8, ("cosine", 0), 0.875, 3.0517578125e-05, 90),
        top1="77.12 ± 0.11 %",
        took="3 h",
        also={
            "precision": "fp16",
            "train.label_smoothing": 0.1,
            "optim.nesterov": False,
            "model.zero_gamma": False,
            "model.head_std": None,
        },
    ),
    # mlcommons/training_results_v2.0, Google: result_*.txt (batch norm spans 64 images), run_resnet_v4-8192.sh,
    # lars_util.py (no decay of biases), imagenet_input.py; mlcommons/training, mlperf_lars_optimizer.py (no Nesterov)
    "lars_r50_32k": Recipe(
        *("resnet50", 256, 64, 32768, 27.5, 16, ("polynomial", 2, 0.0001), 0.9321, 0.0001, 60),
        top1="76.00 ± 0.16 %",
        took="11.4 s",
        also={
            "precision": "bf16",
            "train.label_smoothing": 0.1,
            "optim.name": "lars",
            "optim.nesterov": False,
            "optim.decay_biases": False,
            "data.crop_area": (0.1, 1),
            "data.crop_aspect": (0.75, 1.33),
            "evaluation.every_epochs": 4,
        },
    ),
}
# Set-ups of our own on the embedded digits. The miniature has the paper's epochs, each twice.
OURS = {
    "demo": Recipe("resnet8", 2, 16, 32, 0.1, 1, ("step", (8, 11), 0.1), 0.9, 0.0001, 12),
    "goyal_mini": Recipe("resnet8", 1, 16, 32, 0.1, 2 * 5, ("step", (60, 120, 160), 0.1), 0.9, 0.0001, 2 * 90),
}
RECIPES = PUBLISHED | OURS


def load(*options: str) -> Config:
    parser = Parser(prog="hvdtrain train")
    source = add_options(parser)
    return from_options(source, parser.parse_args(options))


def settings(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optim": {"power": 2}} -> {"optim.power": 2}, lists as tuples."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        inner = settings(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
        flat |= {name: tuple(value) if isinstance(value, list) else value for name, value in inner.items()}
    return flat


def header(preset: str) -> dict[str, str]:
    """The labelled entries of the comment that a preset begins with; lines further in continue an entry."""
    text = (resources.files("hvdtrain.config") / "presets" / f"{preset}.yaml").read_text(encoding="utf-8")
    entries: dict[str, str] = {}
    label = ""
    for line in takewhile(lambda line: line.startswith("#"), text.splitlines()):
        if labelled := re.fullmatch(r"# ([a-z]+) {2,}(\S.*)", line):
            label, entries[labelled[1]] = labelled[1], labelled[2]
        elif label and line.startswith("#   "):
            entries[label] += " " + line[1:].strip()
        else:
            label = ""
    return entries


def command(preset: str) -> tuple[int, list[str]]:
    """Workers and options of the header's `mpirun -np … hvdtrain train …`."""
    words = shlex.split(header(preset)["command"].replace("\\ ", ""))
    begin = words.index("hvdtrain")
    assert words[begin + 1] == "train"
    return int(words[words.index("-np") + 1]), words[begin + 2 :]


def test_every_preset_has_its_numbers_here() -> None:
    assert set(presets()) == set(RECIPES)


@pytest.mark.parametrize("preset", RECIPES)
def test_a_preset_means_the_numbers_of_its_source(preset: str) -> None:
    config, recipe = load("--config", preset), RECIPES[preset]
    optim = config.optim
    minibatch = config.train.global_batch_size or recipe.workers * config.data.batch_size
    peak = scaled_rate(optim.base_lr, global_batch=minibatch, reference_batch=optim.reference_batch, rule=optim.scaling)
    assert (config.model.name, config.data.batch_size, minibatch) == (recipe.model, recipe.batch, recipe.minibatch)
    assert peak == pytest.approx(recipe.peak, rel=1e-12)
    assert (optim.warmup, optim.warmup_epochs, config.epochs) == ("gradual", recipe.warmup, recipe.epochs)
    assert (optim.decay, *(getattr(optim, key) for key in DECAYS[optim.decay])) == recipe.decay
    assert (optim.momentum, optim.weight_decay) == (recipe.momentum, recipe.weight_decay)


@pytest.mark.parametrize("preset", PUBLISHED)
def test_a_published_recipe_is_written_out_and_nothing_is_said_twice(preset: str) -> None:
    """So the page can be read alone; and what it says beyond the essential numbers is the source's and no default."""
    written, defaults = settings(read_yaml(preset)), settings(Config().model_dump())
    essentials = ESSENTIALS | {f"optim.{key}" for key in DECAYS[written["optim.decay"]]}
    assert essentials <= written.keys()
    assert {key: value for key, value in written.items() if key not in essentials} == PUBLISHED[preset].also
    assert [key for key, value in PUBLISHED[preset].also.items() if value == defaults[key]] == []


@pytest.mark.parametrize("preset", RECIPES)
def test_a_preset_begins_with_its_page(preset: str) -> None:
    page = header(preset)
    assert {"hardware", "command", "expected"} <= page.keys()
    assert page.keys() & {"source", "paper", "data"}


@pytest.mark.parametrize("preset", PUBLISHED)
def test_the_page_of_a_published_recipe_says_what_it_reached_and_what_is_different_here(preset: str) -> None:
    page = header(preset)
    assert {"source", "took", "workers", "differs", "silent"} <= page.keys()
    assert f"top-1 of {PUBLISHED[preset].top1}" in page["expected"]
    assert re.search(rf"(^|\s){re.escape(PUBLISHED[preset].took)}\b", page["took"])


@pytest.mark.parametrize("preset", [preset for preset in RECIPES if "hvdtrain train" in header(preset)["command"]])
def test_the_command_of_the_page_runs_the_preset_on_workers_that_fill_its_minibatch(preset: str) -> None:
    workers, options = command(preset)
    config, recipe = load(*options), RECIPES[preset]
    assert config.digest() == load("--config", preset).digest()
    assert "--data.dir" in options
    assert workers == recipe.workers
    assert recipe.minibatch % (workers * config.data.batch_size) == 0


def test_every_published_recipe_has_a_command_that_trains() -> None:
    assert [
        preset for preset in PUBLISHED if f"hvdtrain train --config {preset} " not in header(preset)["command"]
    ] == []


def test_the_papers_recipes_differ_in_minibatch_and_network_alone() -> None:
    """Section 2.1: all other hyper-parameters are kept unchanged."""
    base, large, deep = (
        settings(load("--config", f"goyal_{name}").model_dump()) for name in ("r50_256", "r50_8k", "r101_8k")
    )
    assert {key for key in base if base[key] != large[key]} == {"train.global_batch_size"}
    assert {key for key in large if large[key] != deep[key]} == {"model.name"}
