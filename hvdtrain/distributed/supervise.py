"""Ends a launcher that outlives its workers.

When a host is lost, the workers end themselves (watchdog.py), but Open MPI's mpirun waits for that host's daemon for
ever, and SIGTERM need not end it. So the launcher's workers on this host are watched: once there were some and none is
left, the launcher has a time of grace, and is ended after that.

Workers are the launcher's descendants that have a rank in their environment. Where none shows up, as on a login node
under salloc, with srun, whose workers descend from slurmstepd, or when they end within half a second, nothing but the
launcher's own end is waited for. If this process is killed with SIGKILL, the kernel sends SIGTERM to the launcher; one
that is deaf to it lives on.

An elastic horovodrun may go on with workers on other hosts alone, each of which it holds by an ssh, or without any
until hosts come back: its ssh are workers too, and the time of grace begins when its own waiting for hosts has to be
over. An ssh to a host that was lost ends when ssh finds out, for which it needs a ServerAliveInterval.
"""

import os
import platform
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress

import psutil

from hvdtrain.distributed import job, topology
from hvdtrain.errors import PeerLost

LOOK_SECONDS = 0.5
LOOK_SHARE = 0.02  # of a core that looking may take; where processes are many, looks are rare
ELASTIC = ("--host-discovery-script", "--min-np", "--min-num-proc")  # one of them makes a horovodrun elastic
ELASTIC_SECONDS = 600  # its ELASTIC_TIMEOUT_SECS


def supervise(command: Sequence[str], *, grace_seconds: float) -> int:
    """Run `command`, a launcher and its arguments, to its end; the exit code.

    It has this process's standard input, output and error; signals are handed on to it. See `job.started` for what this
    asks of the process that calls.

    Args:
        grace_seconds: how long the launcher may go on without any of its workers; an elastic horovodrun, after it has
            waited for hosts.

    Returns:
        The launcher's own, or 128 + the signal that killed it; PeerLost's if it outlived its workers.

    Raises:
        EnvironmentFault: there is no such command, or it cannot be started.
    """
    waits_for_hosts = waits_for_hosts_seconds(command, os.environ)
    patience_seconds = grace_seconds + (waits_for_hosts or 0)
    with job.started(command) as launcher:
        workers = Workers(launcher.pid, ssh_too=waits_for_hosts is not None)
        last_alive, pause = time.monotonic(), 0.0
        while True:
            stood_still = launcher.wait(pause)
            code = launcher.exit_code
            if code is not None:
                return code
            began = time.monotonic()
            if workers.any_alive() or not workers.seen or stood_still:
                last_alive = began
            elif began - last_alive >= patience_seconds:
                _say(
                    f"{command[0]} (process {launcher.pid}) is still there {patience_seconds:g} s after the last of its"
                    f" workers on {platform.node()} has gone; ending it → what the workers said has the cause"
                )
                if left := launcher.end():
                    _say(f"processes {', '.join(map(str, left))} are killed but stay: a file system may not answer")
                return PeerLost.exit_code
            pause = max(LOOK_SECONDS, (time.monotonic() - began) / LOOK_SHARE)


def waits_for_hosts_seconds(command: Sequence[str], environment: Mapping[str, str]) -> int | None:
    """How long a launcher waits for hosts to come back, when it has too few; None: it is no elastic horovodrun.

    >>> waits_for_hosts_seconds(["horovodrun", "-np", "2", "--min-np", "1", "--elastic-timeout=60", "hvdtrain"], {})
    60
    >>> waits_for_hosts_seconds(["horovodrun", "--host-discovery-script=hosts"], {"HOROVOD_ELASTIC_TIMEOUT": "90"})
    90
    >>> waits_for_hosts_seconds(["horovodrun", "-np", "2", "hvdtrain"], {}) is None
    True
    """
    options = [word.partition("=")[0] for word in command]
    if not set(ELASTIC) & set(options):
        return None
    given = ""
    for option, word, after in zip(options, command, [*command[1:], ""], strict=True):
        if option == "--elastic-timeout":
            given = word.partition("=")[2] if "=" in word else after
    for text in (given, environment.get("HOROVOD_ELASTIC_TIMEOUT", "")):
        if text.isdecimal() and int(text) > 0:
            return int(text)
    return ELASTIC_SECONDS


class Workers:
    """A launcher's workers on this host, and with `ssh_too` those on other hosts that it holds by an ssh."""

    def __init__(self, launcher: int, *, ssh_too: bool = False) -> None:
        self.seen = False
        self._ssh_too = ssh_too
        self._launcher = psutil.Process(launcher)
        self._known: list[psutil.Process] = []

    def any_alive(self) -> bool:
        """While one of those known is, no other process is looked at."""
        self._known = [worker for worker in self._known if job.alive(worker)] or self._find()
        self.seen = self.seen or bool(self._known)
        return bool(self._known)

    def _find(self) -> list[psutil.Process]:
        with suppress(psutil.Error):  # the launcher has ended
            return [process for process in self._launcher.children(recursive=True) if self._is_one(process)]
        return []

    def _is_one(self, process: psutil.Process) -> bool:
        return _has_rank(process) or (self._ssh_too and _is_ssh(process))


def _has_rank(process: psutil.Process) -> bool:
    try:
        return topology.has_rank(process.environ(), outside=os.environ) and job.alive(process)
    except psutil.Error:  # it has ended, or is another user's
        return False


def _is_ssh(process: psutil.Process) -> bool:
    try:
        return bool(process.name() == "ssh") and job.alive(process)
    except psutil.Error:
        return False


def _say(line: str) -> None:
    with suppress(OSError):  # nobody reads any more
        print(f"hvdtrain: {line}", file=sys.stderr, flush=True)
