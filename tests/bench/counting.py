"""A contender for test_processes.py: counts as long as it may run, or ends at once."""

import os
import sys
import threading
import time

from hvdtrain.bench.processes import serve

counted = 0


def count() -> None:
    global counted
    while True:
        counted += 1
        time.sleep(0.001)


def main() -> None:
    if sys.argv[1] == "early":
        sys.exit(3)
    threading.Thread(target=count, daemon=True).start()
    serve({"counted": lambda: lambda repetitions: (os.environ.get("RANK"), counted), "dies": lambda: dies})


def dies(repetitions: int) -> None:
    if repetitions == 99:  # not in its warm-up
        os._exit(3)


if __name__ == "__main__":
    main()
