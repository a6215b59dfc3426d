"""`hvdtrain`, where the wall clock of some ranks jumps.

    python -m tests.faults.clock RANKS JUMPS hvdtrain's arguments …

RANKS is such as 0 or 0,1; JUMPS such as {"12": -3600}: after step 12 it is an hour earlier. The other clocks go on.
"""

import json
import os
import sys
import time
from typing import Any

from hvdtrain.cli import main
from hvdtrain.train.record import Record


def jump(jumps: dict[str, float]) -> None:
    now, step, offsets = time.time, Record.step, [0.0]

    def jumping(record: Record, state: Any, *args: Any, **more: Any) -> None:
        step(record, state, *args, **more)
        offsets.append(offsets[-1] + jumps.get(str(state.step), 0.0))

    time.time = lambda: now() + offsets[-1]
    Record.step = jumping  # type: ignore[method-assign]


if __name__ == "__main__":
    ranks, jumps, *arguments = sys.argv[1:]
    if os.environ["OMPI_COMM_WORLD_RANK"] in ranks.split(","):
        jump(json.loads(jumps))
    sys.exit(main(arguments))
