"""What the tests of trained networks share: a short real run of the digits, checkpoints of random weights, and verbs
called in this process."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from hvdtrain import log
from hvdtrain.checkpoint import store
from hvdtrain.checkpoint.format import Manifest
from hvdtrain.cli import main
from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.data import demo
from hvdtrain.model.build import build
from hvdtrain.train.state import TrainState

LAUNCHERS = ("OMPI_", "PMIX_", "PMI_", "HOROVOD_", "SLURM_")
PROGRAM = "import sys; from hvdtrain.cli import main; sys.exit(main())"
# Pillow, as in `predict`; a moving average, to have both.
OPTIONS = (
    "--config demo --epochs 3 --data.decoder pillow --train.ema_decay 0.9 --run.name digits --metrics.baseline none"
)


@dataclass(frozen=True)
class Digits:
    data: Path
    run: Path

    @property
    def checkpoint(self) -> Path:
        return store.paths(self.run / "checkpoints")[0]


def train_digits(folder: Path) -> Digits:
    """Three epochs, by the command line: about ten seconds."""
    demo.write(folder / "data")
    place = ["--data.dir", str(folder / "data"), "--run.dir", str(folder / "runs")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(LAUNCHERS)}
    environment["OMP_NUM_THREADS"] = "1"  # a busy machine takes ten times longer with two
    subprocess.run(
        [sys.executable, "-c", PROGRAM, "train", *OPTIONS.split(), *place],
        env=environment,
        capture_output=True,
        check=True,
    )
    return Digits(folder / "data", folder / "runs" / "digits")


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a verb, called in this process, which is left as it was."""
    environment, threads = dict(os.environ), torch.get_num_threads()
    for name in [name for name in environment if name.startswith(LAUNCHERS)]:
        del os.environ[name]
    try:
        with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
            code = main([str(argument) for argument in arguments])
    finally:
        for handler in log.logger.handlers[:]:
            log.logger.removeHandler(handler)
            handler.close()
        os.environ.clear()
        os.environ.update(environment)
        torch.set_num_threads(threads)
    return code, out.getvalue(), err.getvalue()


def fails(code: int, *arguments: object) -> str:
    """The one line that a verb ends with."""
    found, out, err = call(*arguments)
    assert (found, out) == (code, ""), err
    *told, line = err.splitlines()
    assert line.startswith("hvdtrain: ")
    assert not any(each.startswith("hvdtrain: ") for each in told)  # such as that images are indexed
    return line


def random_network(name: str, classes: int) -> nn.Module:
    """With statistics of batch norm that are not those it begins with."""
    torch.manual_seed(0)
    model = build(name, classes=classes, norm="batch", zero_gamma=False, head_std=None)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    return model


def random_run(folder: Path, name: str, classes: int = 10, **settings: Any) -> tuple[Path, nn.Module]:
    """A run directory with one checkpoint of a network that was never trained, and that network."""
    small = name in ("resnet8", "resnet20")
    data = {"image_size": 32 if small else 64, "dir": folder / "nowhere"}
    config = Config(model={"name": name}, data=data, **settings)
    model = random_network(name, classes)
    state = TrainState(model, torch.optim.SGD(model.parameters(), lr=0.1), images_seen=640, step=20)
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "config.yaml").write_text(to_yaml(config))
    belongs = Manifest(images_seen=640, step=20, config_digest=config.digest(), data_digest="89ef", top1=0.25)
    store.save(folder / "checkpoints", state.tensors(), belongs)
    return folder, model.eval()
