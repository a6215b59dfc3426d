"""Ends a launcher that outlives its workers.

When a host is lost, the workers end themselves (watchdog.py), but Open MPI's mpirun waits for that host's daemon for
ever, and SIGTERM need not end it. So the launcher's workers on this host are watched: once there were some and none is
left, the launcher has a time of grace, and is ended after that.

Workers are the launcher's descendants that have a rank in their environment. Where none shows up, as on a login node
under salloc, with srun, whose workers descend from slurmstepd, or when they end within half a second, nothing but the
launcher's own end is waited for. If this process is killed with SIGKILL, the kernel sends SIGTERM to the launcher; one
that is deaf to it lives on.
"""

import os
import platform
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

import psutil

from hvdtrain.distributed import job, topology
from hvdtrain.errors import PeerLost

LOOK_SECONDS = 0.5
LOOK_SHARE = 0.02  # of a core that looking may take; where processes are many, looks are rare


def supervise(command: Sequence[str], *, grace_seconds: float) -> int:
    """Run `command`, a launcher and its arguments, to its end; the exit code.

    It has this process's standard input, output and error; signals are handed on to it. See `job.started` for what this
    asks of the process that calls.

    Args:
        grace_seconds: how long the launcher may go on without any of its workers.

    Returns:
        The launcher's own, or 128 + the signal that killed it; PeerLost's if it outlived its workers.

    Raises:
        EnvironmentFault: there is no such command, or it cannot be started.
    """
    with job.started(command) as launcher:
        workers = Workers(launcher.pid)
        last_alive, pause = time.monotonic(), 0.0
        while True:
            stood_still = launcher.wait(pause)
            code = launcher.exit_code
            if code is not None:
                return code
            began = time.monotonic()
            if workers.any_alive() or not workers.seen or stood_still:
                last_alive = began
            elif began - last_alive >= grace_seconds:
                _say(
                    f"{command[0]} (process {launcher.pid}) is still there {grace_seconds:g} s after the last of its"
                    f" workers on {platform.node()} has gone; ending it → what the workers said has the cause"
                )
                if left := launcher.end():
                    _say(f"processes {', '.join(map(str, left))} are killed but stay: a file system may not answer")
                return PeerLost.exit_code
            pause = max(LOOK_SECONDS, (time.monotonic() - began) / LOOK_SHARE)


class Workers:
    """A launcher's workers on this host."""

    def __init__(self, launcher: int) -> None:
        self.seen = False
        self._launcher = psutil.Process(launcher)
        self._known: list[psutil.Process] = []

    def any_alive(self) -> bool:
        """While one of those known is, no other process is looked at."""
        self._known = [worker for worker in self._known if job.alive(worker)] or self._find()
        self.seen = self.seen or bool(self._known)
        return bool(self._known)

    def _find(self) -> list[psutil.Process]:
        with suppress(psutil.Error):  # the launcher has ended
            return [process for process in self._launcher.children(recursive=True) if _has_rank(process)]
        return []


def _has_rank(process: psutil.Process) -> bool:
    try:
        return topology.has_rank(process.environ(), outside=os.environ) and job.alive(process)
    except psutil.Error:  # it has ended, or is another user's
        return False


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads any more
        print(f"hvdtrain: {line}", file=sys.stderr, flush=True)
