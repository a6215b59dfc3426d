"""`hvdtrain`, where one rank's loss is NaN at one step.

    python -m tests.multiproc.not_finite RANK STEP WHEN hvdtrain's arguments …

WHEN is `once`, as from a passing fault of a machine, or `always` that this step is done, as from a run that diverges.
"""

import os
import sys
from typing import Any

import torch

from hvdtrain.cli import main
from hvdtrain.train import loop


def spoil(step: int, *, once: bool) -> None:
    train_step, done = loop.train_step, []

    def spoilt(state: Any, micro_batches: Any, **more: Any) -> torch.Tensor:
        if state.step + 1 == step and not (once and done):
            done.append(step)
            for batch in (batches := list(micro_batches)):
                batch.images.mul_(torch.nan)
            micro_batches = batches
        return train_step(state, micro_batches, **more)

    loop.train_step = spoilt


if __name__ == "__main__":
    rank, step, when, *arguments = sys.argv[1:]
    if os.environ["OMPI_COMM_WORLD_RANK"] == rank:
        spoil(int(step), once=when == "once")
    sys.exit(main(arguments))
