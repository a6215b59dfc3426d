"""`hvdtrain`, imported once and forked for each run, so that a run begins at once.

    python -m tests.faults.ready

reads a run a line, {"arguments": […], "output": "file", "full": null or ["name", free, "disk"]}, and answers with its
exit code when it has ended. With "full", the disk is full but for `free` bytes from the moment on when a file whose
path has `name` in it is opened to be written.
"""

import importlib
import json
import os
import signal
import sys
from pathlib import Path

from hvdtrain import torchvision
from hvdtrain.cli import main

from .space import Space

SECONDS = 60  # within which a run has to end


def fill_when_opened(name: str, free: int, disk: str) -> None:
    done = []

    def hear(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and not done and name in str(arguments[0]) and int(str(arguments[2])) & os.O_ACCMODE:
            done.append(name)
            Space(Path(disk)).leave(free)

    sys.addaudithook(hear)


def run(arguments: list[str], output: str, full: tuple[str, int, str] | None) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    signal.alarm(SECONDS)  # what hangs is killed
    if full:
        fill_when_opened(*full)
    try:
        code = main(arguments)
    except SystemExit as end:
        code = int(str(end.code))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    for module in ("hvdtrain.train.run", "nvidia.dali.plugin.pytorch"):
        importlib.import_module(module)
    torchvision.load()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            run(**json.loads(line))
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
