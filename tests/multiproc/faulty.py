"""`hvdtrain`, with something wrong on one rank, or on `all`.

    python -m tests.multiproc.faulty PART RANK MILLISECONDS WHEN hvdtrain's arguments …

PART is `input`, a loader that takes so much longer for each batch, or `compute`, a forward pass that does. WHEN is
`always`, as with a broken disk or a throttled processor, or `alternately`: in every second window of WINDOW steps, so
that a window is compared with its neighbours and not with another time of day. Or it is a file: as long as that is
there.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hvdtrain.cli import main
from hvdtrain.data.loader import Batch
from hvdtrain.train.data import Data
from hvdtrain.train.record import Record
from hvdtrain.train.step import Arithmetic

WINDOW = 8  # steps


class Fault:
    def __init__(self, seconds: float, when: str) -> None:
        self.seconds, self.when, self.steps = seconds, when, 0

    def is_on(self) -> bool:
        if self.when == "alternately":
            return self.steps // WINDOW % 2 == 1
        return self.when == "always" or Path(self.when).exists()

    def sleep(self) -> None:
        if self.is_on():
            time.sleep(self.seconds)

    def into_the_loader(self) -> None:
        training = Data.training

        def slow(data: Data, images_seen: int) -> Iterator[Batch]:
            for batch in training(data, images_seen):
                self.sleep()
                yield batch

        Data.training = slow  # type: ignore[method-assign]

    def into_the_forward_pass(self) -> None:
        forward = Arithmetic.forward

        def slow(arithmetic: Arithmetic, model: Any, images: Any) -> Any:
            if model.training:
                self.sleep()
            return forward(arithmetic, model, images)

        Arithmetic.forward = slow  # type: ignore[method-assign]

    def count_steps(self) -> None:
        step = Record.step

        def counted(record: Record, *args: Any, **more: Any) -> None:
            step(record, *args, **more)
            self.steps += 1

        Record.step = counted  # type: ignore[method-assign]


if __name__ == "__main__":
    import os

    part, rank, milliseconds, when, *arguments = sys.argv[1:]
    if rank in ("all", os.environ.get("OMPI_COMM_WORLD_RANK"), os.environ.get("HOROVOD_RANK")):
        fault = Fault(int(milliseconds) / 1000, when)
        fault.count_steps()
        fault.into_the_loader() if part == "input" else fault.into_the_forward_pass()
    sys.exit(main(arguments))
