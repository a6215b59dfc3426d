"""Where Prometheus finds the workers of a run: a file for its file_sd_configs."""

import ipaddress
import json
import socket
from pathlib import Path

from hvdtrain.files import write_whole


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


def write(path: Path, run: str, endpoints: list[str]) -> None:
    """One target group per rank, `endpoints` being host:port in order of rank."""
    groups = [
        {"targets": [endpoint], "labels": {"run": run, "rank": str(rank)}} for rank, endpoint in enumerate(endpoints)
    ]
    write_whole(path, json.dumps(groups, indent=2) + "\n")
