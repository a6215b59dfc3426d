"""A worker that is watched and sums numbers for ever, until something goes wrong with it.

    python -m tests.multiproc.watched FOLDER WORKERS SILENCE_SECONDS WHAT RANK [STEPS]

WHAT goes wrong on RANK after three steps: `part`, it waits in a collective of its own; `hold`, it keeps the
interpreter's lock for ever, as a library may; `leave`, it ends without a word; `nothing`. After STEPS all are over.
"""

import ctypes
import os
import sys
import time
from pathlib import Path

from hvdtrain.distributed.activity import TRAINING, Activity
from hvdtrain.distributed.comm import HorovodComm
from hvdtrain.distributed.topology import from_environment
from hvdtrain.distributed.watchdog import Watchdog
from hvdtrain.errors import PeerLost

STEP_SECONDS = 0.05


def main() -> int:
    folder, _, silence, what, rank, *steps = sys.argv[1:]
    activity = Activity()
    comm = HorovodComm(from_environment(os.environ), activity=activity)
    try:
        with Watchdog(comm, activity, silence_seconds=float(silence), run_dir=Path(folder)):
            with activity.doing(TRAINING):
                for step in range(int(*steps) if steps else 1_000_000):
                    wrong = step == 3 and comm.rank == int(rank)
                    if wrong and what == "leave":
                        os._exit(0)
                    if wrong and what == "hold":
                        ctypes.PyDLL(None).sleep(3600)
                    comm.sum([1.0], "elsewhere" if wrong and what == "part" else "numbers")
                    activity.step = step + 1
                    activity.beat()
                    time.sleep(STEP_SECONDS)
            time.sleep(comm.rank)  # the first leaves first
    except PeerLost as error:
        print(f"hvdtrain: rank {comm.rank}: {error}", file=sys.stderr, flush=True)
        os._exit(PeerLost.exit_code)
    print("over", flush=True)
    comm.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
