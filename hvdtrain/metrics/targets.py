"""Where Prometheus finds the workers of a run: a file for its file_sd_configs, there while the run lives.

A run that is killed cannot remove its file, so a living one touches its own every 15 seconds (heartbeat.py). One that
was not touched for a minute is of a dead run, and ten minutes later others remove it: until then Prometheus sees that
its workers are down. Ages are told by the file system's clock alone, for hosts' clocks differ.
"""

import ipaddress
import json
import math
import os
import socket
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

STALE_SECONDS = 60.0
SWEPT_SECONDS = 660.0


def file(run_dir: Path) -> Path:
    """Of a run. The files of all runs lie in one folder: file_sd takes a `*` in the last part of a path only.

    >>> file(Path("/runs/r50"))
    PosixPath('/runs/.targets/r50.json')
    """
    whole = run_dir.absolute()
    return whole.parent / ".targets" / f"{whole.name}.json"


def advertised_host(address: str) -> str:
    """The name under which others reach a server bound to `address`: this host's for a wildcard, else the address.

    >>> advertised_host("127.0.0.1"), advertised_host("::1")
    ('127.0.0.1', '[::1]')
    """
    try:
        number = ipaddress.ip_address(address)
    except ValueError:
        return address
    if number.is_unspecified:
        return socket.getfqdn()
    return f"[{address}]" if number.version == 6 else address


def text(run: str, endpoints: Sequence[str], scheme: str = "http") -> str:
    """One target group per rank, `endpoints` being host:port in order of rank."""
    how = {} if scheme == "http" else {"__scheme__": scheme}
    groups = [
        {"targets": [endpoint], "labels": {"run": run, "rank": str(rank), **how}}
        for rank, endpoint in enumerate(endpoints)
    ]
    return json.dumps(groups, indent=2) + "\n"


def alive(*paths: Path) -> bool:
    """Whether a run lives that touches one of these files, the first of them its targets file. Where nothing can be
    written beside any, this host's clock has to tell the age."""
    return age(paths) <= STALE_SECONDS


def age(paths: Sequence[Path]) -> float:
    """Seconds since the youngest was touched, by the clock of their file system; infinite where there is none."""
    now = time.time()
    for path in paths:
        with suppress(OSError):
            now = _now(path.parent)
            break
    ages = [math.inf]
    for path in paths:
        with suppress(OSError):
            ages.append(now - _touched(path))
    return min(ages)


def sweep(folder: Path) -> list[Path]:
    """Remove the files of runs long dead, `folder`/*.json, and say which; what is in the way is left there."""
    try:
        now, files = _now(folder), list(folder.glob("*.json"))
    except OSError:
        return []
    swept = []
    for path in files:
        with suppress(OSError):  # gone meanwhile, or another user's
            if now - _touched(path) > SWEPT_SECONDS:
                path.unlink()  # a run that has gone on in it since the line above writes it again at its next beat
                swept.append(path)
    return swept


def _now(folder: Path) -> float:
    """The time by the clock of the file system that `folder` is on."""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b".")  # some give a new file the time of the client that asked for it
        file.flush()
        return os.fstat(file.fileno()).st_mtime


def _touched(path: Path) -> float:
    """When; over NFS a plain stat may be a minute old, while opening the file asks the server."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_mtime
