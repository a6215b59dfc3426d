"""Settings that decide the numbers of a run: its images, network and arithmetic.

The defaults are the recipe of Goyal et al. 2017, "Accurate, Large Minibatch SGD" (arXiv 1706.02677), for ResNet-50.
"""

from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le, Lt

from hvdtrain.config.section import Count, Fraction, NonNegative, Positive, Section

Size = Annotated[int, Ge(16), Le(1024)]  # pixels
Colour = tuple[float, float, float]


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
