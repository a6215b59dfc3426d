"""Where Prometheus finds the workers of a run: a file for its file_sd_configs."""

import ipaddress
import json
import socket
from pathlib import Path

from hvdtrain.files import write_whole


def advertised_host(address: str) -> str:
    """The name under which others reach a server bound to `address`: this host's for a wildcard, else the address."""
    try:
        wildcard = ipaddress.ip_address(address).is_unspecified
    except ValueError:
        return address
    return socket.getfqdn() if wildcard else address


def write(path: Path, run: str, endpoints: list[str]) -> None:
    """One target group per rank, `endpoints` being host:port in order of rank."""
    groups = [
        {"targets": [endpoint], "labels": {"run": run, "rank": str(rank)}} for rank, endpoint in enumerate(endpoints)
    ]
    write_whole(path, json.dumps(groups, indent=2) + "\n")
