"""`hvdtrain`, where rank 0's disk is slow.

    python -m tests.faults.slow_disk SECONDS SAVES hvdtrain's arguments …

Each fsync within a save takes SECONDS, and so does the writing of the tensors. The file SAVES gets a line of JSON for
each save: begin and end by the monotonic clock.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.cli import main


def slow_down(seconds: float, saves: Path) -> None:
    fsync, save, write = os.fsync, store.save, form.write
    saving = []

    def slow_fsync(descriptor: int) -> None:
        if saving:
            time.sleep(seconds)
        fsync(descriptor)

    def slow_write(*args: Any) -> None:
        time.sleep(seconds)
        write(*args)

    def told(*args: Any) -> Path:
        begin = time.monotonic()
        saving.append(begin)
        path = save(*args)
        saving.pop()
        with saves.open("a") as file:
            file.write(json.dumps([begin, time.monotonic()]) + "\n")
        return path

    os.fsync, store.save, form.write = slow_fsync, told, slow_write


if __name__ == "__main__":
    seconds, saves, *arguments = sys.argv[1:]
    if os.environ["OMPI_COMM_WORLD_RANK"] == "0":
        slow_down(float(seconds), Path(saves))
    sys.exit(main(arguments))
