"""Which process it is: an id alone may be another process's tomorrow."""

import os
from pathlib import Path


def born(pid: int) -> float:
    """When a process began, seconds since this machine did: no clock that is set changes it. 0: there is none."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0
