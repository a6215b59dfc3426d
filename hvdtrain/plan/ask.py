"""What the command line asks, with its defaults. Imports nothing that takes time, for every verb's parser needs it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hvdtrain.errors import ConfigError
from hvdtrain.plan.allreduce import Algorithm

if TYPE_CHECKING:
    from hvdtrain.plan.fit import Fit

SMALLEST, LARGEST = 1e-9, 1e15  # between them lies all that has a meaning, and nothing that overflows
LARGEST_CLUSTER = 1_000_000  # workers


@dataclass(frozen=True)
class Ask:
    """The command line."""

    model: str = "resnet50"
    gpu: str = "p100"
    link: str = "50gbit"
    gpus_per_node: int = 8
    batch: int = 32
    precision: str = "float32"
    epochs: float = 90
    images: int = 1_281_167
    price: float | None = None  # of a GPU's hour
    algorithm: Algorithm = "ring"
    bucket_mib: float = 25.0
    wire: str | None = None  # fp16
    transport: str | None = None  # rdma, tcp
    within: str | None = None
    input_rate: float | None = None  # images/s of a node
    global_batch: int | None = None
    compute_seconds: float | None = None
    images_per_second_per_gpu: float | None = None
    most_workers: int = 4096  # that a deadline tries
    fit: "Fit | None" = None

    def check(self) -> None:
        """
        Raises:
            ConfigError: a number that cannot be.
        """
        numbers = {
            "--gpus-per-node": self.gpus_per_node,
            "--batch": self.batch,
            "--epochs": self.epochs,
            "--images": self.images,
            "--bucket-mib": self.bucket_mib,
            "--input-rate": self.input_rate,
            "--global-batch": self.global_batch,
            "--compute-seconds": self.compute_seconds,
            "--images-per-second-per-gpu": self.images_per_second_per_gpu,
        }
        for option, value in numbers.items():
            if value is not None and not SMALLEST <= value <= LARGEST:
                raise ConfigError(f"{option} {value}: wanted a number above 0, of {SMALLEST:g} to {LARGEST:g}")
        if self.price is not None and not 0 <= self.price < 1e9:
            raise ConfigError(f"--price {self.price}: wanted the price of a GPU's hour, 0 or more")
        check_workers("--most-workers", self.most_workers)


def check_workers(option: str, workers: int) -> None:
    """
    Raises:
        ConfigError: there are none, or more than anybody has.
    """
    if not 1 <= workers <= LARGEST_CLUSTER:
        raise ConfigError(f"{option} {workers}: wanted a number of workers, of 1 to {LARGEST_CLUSTER:,}")
