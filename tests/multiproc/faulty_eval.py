"""`hvdtrain eval`, of which one rank goes no further after BATCHES batches.

    python -m tests.multiproc.faulty_eval WHAT RANK hvdtrain's arguments …

WHAT it does then: `sleep`, for ever, as in a file system that does not answer; `leave`, it ends without a word.
"""

import os
import sys
import time
from typing import Any

from hvdtrain.cli import main
from hvdtrain.train.evaluate import Counts

BATCHES = 50


def go_no_further(what: str) -> None:
    add = Counts.add

    def faulty(counts: Counts, *given: Any) -> Any:
        if counts.images >= BATCHES:
            os._exit(0) if what == "leave" else time.sleep(3600)
        return add(counts, *given)

    Counts.add = faulty  # type: ignore[method-assign]


if __name__ == "__main__":
    fault, rank, *arguments = sys.argv[1:]
    if rank in (os.environ.get("OMPI_COMM_WORLD_RANK"), os.environ.get("HOROVOD_RANK")):
        go_no_further(fault)
    sys.exit(main(arguments))
