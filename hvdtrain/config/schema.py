"""Every setting of a run, its unit and its only default.

A field's docstring is its line in `hvdtrain train --help`.
"""

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le, Lt
from pydantic import model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hvdtrain.config import checks
from hvdtrain.config.machines import DistributedConfig, ElasticConfig, JobConfig
from hvdtrain.config.recipe import DataConfig, ModelConfig, OptimConfig, TrainConfig
from hvdtrain.config.section import Count, NonNegative, Positive, Section

Precision = Literal["bf16", "fp16", "float32", "float64"]


class RunConfig(Section):
    dir: Path = Path("runs")
    """Folder that holds the run directories."""
    name: str = ""
    """Name of the run directory. Empty: the model's name and a digest of the configuration, so that the same command
    means the same run."""
    report_every: Count = 20
    """Steps between two reports of loss and throughput, and of images left out; each costs two small collectives."""
    trace_images: bool = False
    """Write every image that a step used, with its crop and flip, to images/rank-*.csv."""
    tensorboard: bool = False
    """Write reports and evaluations for TensorBoard, too, to tensorboard/. Needs the package, as in
    hvdtrain[tensorboard]."""
    console_seconds: NonNegative = 5.0
    """Seconds between two progress lines where stderr is no terminal."""


class MetricsConfig(Section):
    address: str = "127.0.0.1"
    """Address that the Prometheus exporters bind to; 0.0.0.0 lets other hosts scrape."""
    port: Annotated[int, Ge(1024), Le(65000)] = 9470
    """First port tried; each worker takes port + its local rank, or the next free one."""
    tls_certificate: str = ""
    """PEM file: the exporters speak HTTPS with this certificate. Empty: HTTP."""
    tls_key: str = ""
    """PEM file with the key of tls_certificate, without a password. Empty: it is in tls_certificate too."""
    client_ca: str = ""
    """PEM file: only clients with a certificate of this authority may scrape. Empty: everyone."""
    stuck_seconds: Positive = 600.0
    """/healthz answers 503 once no step was done, and nothing evaluated or saved, for so long."""
    baseline: Literal["measured", "stored", "none"] = "measured"
    """What scaling efficiency is measured against. measured: one worker alone, before the first step of a run of
    several. stored: what an earlier run or bench left in baselines_dir. none: no efficiency."""
    baseline_steps: Annotated[int, Ge(2)] = 10
    """Timed steps of each worker for a measured baseline; a node's workers take turns, up to eight of them. It costs
    about so many steps, data.prefetch and one more, for each turn and once for all together."""
    baseline_workers: Count = 1
    """How many workers a stored baseline had: 1, or 8 as in the paper."""
    baselines_dir: Path = Path("~/.cache/hvdtrain/baselines")
    """Where finished runs leave their speed for later ones to compare with."""


class CheckpointConfig(Section):
    every_epochs: Positive = 1.0
    """Epochs between two checkpoints; the last step always makes one."""
    keep: Count = 3
    """So many of the last checkpoints stay, and the one with the best accuracy."""


class EvalConfig(Section):
    every_epochs: Positive = 1.0
    """Epochs between two evaluations."""
    first_epoch: NonNegative = 0.0
    """No evaluation before this epoch."""
    at_end: bool = True
    """Whether the last step is followed by an evaluation, whenever the one before it was."""
    batch_size: Count = 64
    """Validation images per worker and forward pass."""


class Config(BaseSettings):
    """A whole run."""

    # Only what load.py hands over counts: a stray SEED or EPOCHS in the environment is no setting.
    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        cli_avoid_json=True,
        cli_parse_none_str="null",
    )

    epochs: Positive = 90.0
    """Passes over the training images; may be a fraction."""
    max_steps: Count | None = None
    """Stop after this many optimiser steps if the epochs are not over before."""
    seed: Annotated[int, Ge(0), Lt(2**63)] = 0
    """Seed of the initial weights, the order of images, and every crop, flip and mixing."""
    precision: Precision = "float32"
    """Arithmetic of the step: bf16 and fp16 are autocast over float32 weights, fp16 with loss scaling; float64 is for
    tests of equality."""
    resume: str = "never"
    """never: a fresh run directory. auto: go on from its newest checkpoint, or start afresh without one. Or a path."""
    resume_changed: Literal["refuse", "accept"] = "refuse"
    """Whether a run may go on under settings that decide its numbers and were others before; the events then tell what
    has changed."""
    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    distributed: DistributedConfig = DistributedConfig()
    elastic: ElasticConfig = ElasticConfig()
    evaluation: EvalConfig = EvalConfig()
    metrics: MetricsConfig = MetricsConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    job: JobConfig = JobConfig()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    @model_validator(mode="after")
    def _possible(self) -> "Config":
        checks.schedule(self.optim, self.epochs)
        checks.pictures(self.data, self.model.name)
        checks.watching(self.metrics)
        checks.together(self)
        return self

    def digest(self) -> str:
        """Eight hex digits over all that decides the numbers of a run; not over how fast, where kept, how watched, or
        what comes of a fault.

        Which images it reads is the index's digest to say, wherever they lie.
        """
        free: dict[str, Any] = {
            **dict.fromkeys(("run", "metrics", "checkpoint", "resume", "resume_changed", "elastic", "job"), True),
            "data": {"dir", "stage", "stage_dir", "cache_dir", "max_bad_ratio", "threads", "prefetch"},
            "train": {"not_finite", "most_skipped"},
            "distributed": {
                *("watchdog_seconds", "preflight", "fabric", "interfaces", "cycle_milliseconds", "cache_capacity"),
                *("threads", "bind"),
            },
        }
        text = self.model_dump_json(exclude=free)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    def settings(self) -> dict[str, Any]:
        """Every setting by its dotted name, as JSON has it."""
        return dict(_flat(self.model_dump(mode="json")))

    @property
    def run_name(self) -> str:
        return self.run.name or f"{self.model.name}-{self.digest()}"

    @property
    def run_dir(self) -> Path:
        return self.run.dir / self.run_name


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value
