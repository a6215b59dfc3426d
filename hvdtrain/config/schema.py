"""Every setting of a run, its unit and its only default.

The defaults are the recipe of Goyal et al. 2017, "Accurate, Large Minibatch SGD" (arXiv 1706.02677), for ResNet-50.
A field's docstring is its line in `hvdtrain train --help`.
"""

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from hvdtrain.config import checks

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Gt(0), Le(1)]
Count = Annotated[int, Ge(1)]
Size = Annotated[int, Ge(16), Le(1024)]  # pixels
Colour = tuple[float, float, float]

Precision = Literal["bf16", "fp16", "float32", "float64"]


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)


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
    console_seconds: NonNegative = 5.0
    """Seconds between two progress lines where stderr is no terminal."""


class DataConfig(Section):
    source: Literal["images", "synthetic"] = "images"
    """images: those in dir. synthetic: noise of ImageNet's number of images and classes, which costs nothing, to
    measure everything else."""
    dir: Path = Path("data")
    """Folder with train/ and val/, each of <class>/* folders, labels counting the classes in sorted order, or of tar
    shards (hvdtrain data pack)."""
    stage: Literal["none", "copy"] = "none"
    """copy: before the first step one worker per node copies the images that its node will read to stage_dir."""
    stage_dir: str = ""
    """Fast folder of a node's own; empty: $SLURM_TMPDIR if there is one, else /dev/shm."""
    cache_dir: Path = Path("~/.cache/hvdtrain")
    """Where indices of images are kept if data.dir cannot be written."""
    quarantine: str = "auto"
    """List of images to leave out. auto: the one that hvdtrain data verify left beside the data. none, or a path."""
    max_bad_ratio: Annotated[float, Ge(0), Lt(1)] = 0.01
    """Share of training or validation images that may be left out because they cannot be decoded; more ends the run."""
    batch_size: Count = 32
    """Images per worker and forward pass: the paper's n, over which batch normalisation takes its statistics."""
    image_size: Size = 224
    """Height and width of the pictures that the model sees, pixels."""
    eval_resize: Annotated[float, Ge(1), Le(4)] = 256 / 224
    """Shorter side of a validation image before its centre crop, as a multiple of image_size."""
    crop_area: tuple[Fraction, Fraction] = (0.08, 1.0)
    """Smallest and largest area of a training crop, as a fraction of the image."""
    crop_aspect: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    """Smallest and largest width / height of a training crop."""
    flip: Annotated[float, Ge(0), Le(1)] = 0.5
    """Probability of a horizontal flip in training."""
    mixup: NonNegative = 0.0
    """Alpha of mixup: pairs of images are blended by a weight drawn from Beta(alpha, alpha). 0: none."""
    cutmix: NonNegative = 0.0
    """Alpha of CutMix: a box of one image of a pair is pasted into the other. With mixup, a coin decides for each pair.
    0: none."""
    train_sizes: tuple[tuple[NonNegative, Size], ...] = ()
    """Progressive resizing: [[0,128],[10,176]] trains at 128 pixels, from epoch 10 on at 176; evaluation stays at
    image_size. Empty: image_size throughout."""
    mean: Colour = (0.485, 0.456, 0.406)
    """Mean of red, green and blue, subtracted; pixels run from 0 to 1."""
    std: tuple[Positive, Positive, Positive] = (0.229, 0.224, 0.225)
    """Standard deviation of red, green and blue, divided by."""
    decoder: Literal["auto", "dali", "pillow"] = "auto"
    """Who decodes; auto: DALI, or Pillow where DALI is not installed."""
    device: Literal["auto", "cpu", "gpu"] = "auto"
    """Where images are decoded and resized; auto: on the GPU where there is one."""
    threads: Annotated[int, Ge(0)] = 0
    """CPU threads per worker that decode; 0: this worker's share of the cores."""
    prefetch: Count = 2
    """Batches that are prepared ahead of the step."""


class ModelConfig(Section):
    name: Literal["resnet18", "resnet34", "resnet50", "resnet101", "resnet8", "resnet20"] = "resnet50"
    """torchvision's ResNet-18/34/50/101 for ImageNet, or ResNet-8/20 of He et al. 2015 for 16-64 pixels."""
    norm: Literal["batch", "none"] = "batch"
    """Batch normalisation with statistics per worker, or none."""
    zero_gamma: bool = True
    """Begin with each residual block as the identity: the scale of its last batch normalisation is 0."""
    head_std: Positive | None = 0.01
    """Standard deviation of the last layer's initial weights, normal around 0. null: torch's own uniform ones."""
    compile: bool = False
    """torch.compile each residual stage. Minutes at the start; stage by stage, so that gradients still leave while
    backward goes on."""
    channels_last: bool = True
    """Keep images and weights in NHWC memory order."""


class TrainConfig(Section):
    global_batch_size: Annotated[int, Ge(1), Le(2**20)] | None = None
    """Images per optimiser step over all workers: the paper's kn. A worker takes as many micro-batches of
    data.batch_size as this needs. null: one each."""
    label_smoothing: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Share of each label that is spread evenly over all classes."""
    clip_norm: Positive | None = None
    """Scale the gradient of the whole minibatch down to this L2 norm where it is longer. null: never."""
    ema_decay: Annotated[float, Ge(0), Lt(1)] = 0.0
    """Keep a moving average of the weights, w' = decay · w' + (1 - decay) · w after each step but the first, which it
    begins with, and evaluate it beside them. 0: none."""
    not_finite: Literal["stop", "skip", "rewind"] = "stop"
    """What to do when a loss or a gradient is NaN or infinite, which all workers see at the same step. stop: end the
    run. skip: leave the step out. rewind: go back to the last checkpoint, once for each step."""
    most_skipped: Count = 10
    """Steps that skip leaves out one after the other before the run ends."""


class OptimConfig(Section):
    name: Literal["sgd", "lars"] = "sgd"
    """sgd: with momentum. lars: likewise, each layer's rate scaled by the norms of its weights and gradients."""
    base_lr: Positive = 0.1
    """Learning rate for a minibatch of reference_batch images."""
    reference_batch: Count = 256
    """Global minibatch that base_lr belongs to, images."""
    scaling: Literal["linear", "sqrt", "none"] = "linear"
    """The peak rate for kn images: base_lr times kn / reference_batch, times its square root, or base_lr itself."""
    warmup: Literal["gradual", "constant", "none"] = "gradual"
    """Before the peak, where it is above base_lr: a rise from base_lr at every step, base_lr itself, or nothing."""
    warmup_epochs: NonNegative = 5.0
    """Epochs that the warm-up takes."""
    decay: Literal["step", "cosine", "polynomial"] = "step"
    """How the rate falls: at decay_epochs by decay_factor, or from the warm-up's end steadily to end_lr at the end."""
    decay_epochs: tuple[Positive, ...] = (30.0, 60.0, 80.0)
    """Epochs at which the rate is multiplied by decay_factor."""
    decay_factor: Fraction = 0.1
    """What the rate is multiplied by at each of decay_epochs."""
    power: Positive = 2.0
    """Exponent of the polynomial decay."""
    end_lr: NonNegative = 0.0
    """Rate at the end of a cosine or polynomial decay."""
    momentum: Annotated[float, Ge(0), Le(1)] = 0.9
    """Share of the velocity that each step keeps."""
    nesterov: bool = True
    """Nesterov's momentum instead of the plain one."""
    weight_decay: NonNegative = 1e-4
    """L2 penalty on weights; normalisation scales and shifts have none."""
    decay_biases: bool = True
    """Whether the biases of convolutions and linear layers have the L2 penalty too."""
    trust_coefficient: Positive = 0.001
    """LARS's eta: a layer moves by this share of its weights' norm where the rate is 1."""


class DistributedConfig(Section):
    reducer: Literal["buckets", "horovod"] = "buckets"
    """Who fuses gradients: buckets of fixed contents, which repeat bit for bit, or Horovod's DistributedOptimizer."""
    compression: Literal["none", "fp16"] = "none"
    """fp16: gradients travel as half precision; a step in which one overflows is left out."""
    bucket_mib: Positive = 25.0
    """Size of a gradient bucket, MiB. HOROVOD_FUSION_THRESHOLD (bytes) in the environment wins."""
    ring: bool = True
    """Ask Open MPI and NCCL for the ring algorithm. Its settings in the environment win."""
    yield_when_idle: bool = True
    """Let a waiting MPI thread give its core away; spinning starves workers that own few cores."""
    watchdog_seconds: NonNegative = 300.0
    """A worker that was silent for so long, or a step that takes so long, ends the run, with the stacks of all workers
    in its logs. 0: wait for ever."""


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
    run: RunConfig = RunConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    optim: OptimConfig = OptimConfig()
    distributed: DistributedConfig = DistributedConfig()
    evaluation: EvalConfig = EvalConfig()
    metrics: MetricsConfig = MetricsConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()

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
            **dict.fromkeys(("run", "metrics", "checkpoint", "resume"), True),
            "data": {"dir", "stage", "stage_dir", "cache_dir", "max_bad_ratio", "threads", "prefetch"},
            "train": {"not_finite", "most_skipped"},
            "distributed": {"watchdog_seconds"},
        }
        text = self.model_dump_json(exclude=free)
        return hashlib.sha256(text.encode()).hexdigest()[:8]

    @property
    def run_name(self) -> str:
        return self.run.name or f"{self.model.name}-{self.digest()}"

    @property
    def run_dir(self) -> Path:
        return self.run.dir / self.run_name
