"""`hvdtrain`, where one rank may have no more memory than it has, from some moment on.

    python -m tests.faults.short_of_memory RANK WHEN SPARE hvdtrain's arguments …

WHEN is `start-up`, `step`, `evaluation` or `saving`, the first one of the run; `import` is before torch is there. SPARE
is how many MiB it may still take, in pieces of any size; what its libraries have in store is taken away from them.
"""

import os
import resource
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hvdtrain.cli import main

SMALLEST = 2**15  # bytes; smaller pieces are always there, as in a process of any age


def limit(spare: int) -> None:
    """Of the address space, of which a process that is not given any more gets none."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + (spare << 20)
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))


def drain(spare: int) -> None:
    """Take what is in store, and then give `spare` MiB back in one piece."""
    import torch

    kept = [torch.empty(spare << 20, dtype=torch.uint8)]
    limit(0)
    size = 2**26
    while size >= SMALLEST:
        try:
            taken.append(torch.empty(size, dtype=torch.uint8))
        except RuntimeError:
            size //= 2
    kept.clear()


def first(owner: Any, name: str, spare: int) -> None:
    """Run short when `name` is called for the first time."""
    original: Callable[..., Any] = getattr(owner, name)

    def short(*args: Any, **more: Any) -> Any:
        if not taken:
            drain(spare)
        return original(*args, **more)

    setattr(owner, name, short)


taken: list[Any] = []


def run_short(when: str, spare: int) -> None:
    if when == "import":
        limit(spare)
        return
    from hvdtrain.checkpoint.writer import Writer
    from hvdtrain.train import begin, loop

    owners = {"start-up": (begin, "build"), "step": (loop, "train_step"), "evaluation": (loop, "evaluate")}
    first(*(owners | {"saving": (Writer, "save")})[when], spare)


if __name__ == "__main__":
    rank, when, spare, *arguments = sys.argv[1:]
    if os.environ["OMPI_COMM_WORLD_RANK"] == rank:
        run_short(when, int(spare))
    sys.exit(main(arguments))
