"""The connections that Horovod has opened, and leaves open when it is shut down."""

import os
import socket
from collections.abc import Set
from contextlib import suppress
from pathlib import Path

FDS = Path("/proc/self/fd")


def mine() -> frozenset[str]:
    """This process's sockets, by the kernel's names for them; none where the system has no /proc."""
    return frozenset(name for _, name in _sockets())


def hang_up(names: Set[str]) -> None:
    """Whoever is at the other end of these finds out at once. They stay open here, for whose they are to close."""
    for number, name in _sockets():
        if name in names:
            with suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                connection.shutdown(socket.SHUT_RDWR)


def _sockets() -> list[tuple[int, str]]:
    found = []
    for entry in FDS.iterdir() if FDS.exists() else ():
        with suppress(OSError):  # that of this listing has gone
            name = str(entry.readlink())
            if name.startswith("socket:"):
                found.append((int(entry.name), name))
    return found
