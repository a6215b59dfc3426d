"""Which process it is: an id alone may be another process's tomorrow."""

import os
from pathlib import Path


def born(pid: int) -> float:
    """When a process began, seconds since this machine did: no clock that is set changes it.

    0: there is none, or it has ended and nobody has asked after it yet, as in containers nobody may ever.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return 0.0 if fields[0] in "ZX" else int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0
