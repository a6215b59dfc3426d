"""How fast images become batches: the program's own input against others, on the same files in the page cache.

                   decodes          filter of the resize     memory   works in
    ours           window           triangle, antialiased    NHWC     threads
    torchvision    whole (Pillow)   triangle, antialiased    NCHW     processes
    dali-plain     window           triangle, antialiased    NHWC     threads
    decode-only    window           none                              threads

`decode-only` is the limit: whoever decodes these windows with DALI cannot be faster. Each runs alone, and in company of
a ResNet-18 that trains on as many threads as there are cores, as `ours, company`. At each turn the batches that were
ready before it are thrown away. benchmarks/input.py has more peers, which need more packages, and a limit in C.
"""

import json
import os
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from hvdtrain.bench import photos, pipelines
from hvdtrain.bench.pipelines import CONTENDERS, Setting
from hvdtrain.bench.processes import Group, Listening, listening
from hvdtrain.bench.result import Result
from hvdtrain.bench.rounds import Goal, known, take_turns, want_gpu
from hvdtrain.errors import ConfigError
from hvdtrain.log import logger

COMPANY = ", company"
GOALS = (
    Goal("ours", "torchvision", 1.6),
    Goal(f"ours{COMPANY}", f"torchvision{COMPANY}", 2.5),
    Goal("ours", "dali-plain", 1.0),
    Goal(f"ours{COMPANY}", f"dali-plain{COMPANY}", 1.0),
    Goal("ours", "decode-only"),
)


@dataclass(frozen=True)
class Options:
    data: Path | None = None
    """Folder with train/<class>/* and val/<class>/*; None: photographs made for the time being."""
    photographs: int = 640
    """How many of them."""
    image: int = 224
    """Pixels."""
    batch: int = 64
    batches: int = 16
    """Timed ones in a turn; a multiple of the threads, for a worker of a DataLoader makes whole batches."""
    threads: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))
    """Or worker processes."""
    device: Literal["cpu", "gpu"] = "cpu"
    """Where DALI decodes."""
    contenders: tuple[str, ...] = ()
    """Empty: all."""


def measure(options: Options, rounds: int) -> Result:
    """
    Raises:
        ConfigError: no images there, or an unknown contender.
        EnvironmentFault: nothing to make photographs of.
        HvdtrainError: the process of a contender ends.
    """
    known(options.contenders, CONTENDERS)
    if options.device == "gpu":
        want_gpu()
    with tempfile.TemporaryDirectory(prefix="hvdtrain-input-") as scratch, listening() as listener, ExitStack() as ends:
        data = _there(options.data) if options.data else _photographs(Path(scratch), options)
        setting = Setting(str(data.resolve()), options.batch, options.image, options.threads, options.device)
        names = [name for name in CONTENDERS if not options.contenders or name in options.contenders]
        groups = {name: ends.enter_context(_group(name, setting, listener)) for name in names}
        training = ends.enter_context(_group(pipelines.TRAINING, setting, listener))
        discard = 2 * options.threads + 2  # two batches ahead per worker of a DataLoader, and some

        def alone(name: str) -> float:
            """Images per second."""
            groups[name].seconds(name, discard)
            return options.batches * options.batch / groups[name].seconds(name, options.batches)

        def accompanied(name: str) -> float:
            training.go_on()
            try:
                return alone(name)
            finally:
                training.stop()

        turns = {name: partial(alone, name) for name in names}
        turns |= {name + COMPANY: partial(accompanied, name) for name in names if name != "decode-only"}
        figures = take_turns(turns, rounds)
    return Result(
        kind="input",
        title=(
            f"images to batches of {options.batch}, {options.image} pixels, {options.threads} threads or processes, "
            f"decoded on the {options.device.upper()}"
        ),
        unit="images/s",
        figures=figures,
        goals=GOALS,
        limit="decode-only" if "decode-only" in figures else None,
        details={
            "images": str(options.data or f"{options.photographs} photographs of hvdtrain.bench.photos"),
            "setting": {key: value for key, value in asdict(setting).items() if key != "data"},
            "batches": options.batches,
        },
    )


def _there(data: Path) -> Path:
    for part in ("train", "val"):
        if not (data / part).is_dir():
            raise ConfigError(
                f"--data {data}: expected folders train/<class> and val/<class>, found no {part}",
                remedy="hvdtrain data prepare",
            )
    return data


def _photographs(scratch: Path, options: Options) -> Path:
    logger.info("makes %d photographs", options.photographs)
    photos.write(scratch / "photos", images=options.photographs)
    photos.write(scratch / "photos", images=10, part="val")
    return scratch / "photos"


def _group(name: str, setting: Setting, listener: Listening) -> Group:
    logger.info("%s starts", name)
    values = json.dumps(asdict(setting))
    return Group(pipelines.__name__, [name, values], listener, workers=1, how="alone", threads=setting.cores)
