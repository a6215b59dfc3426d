"""What code runs on what machine: facts to write beside a figure, so that others can judge it."""

import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

from hvdtrain import __version__


def hardware() -> dict[str, Any]:
    return {
        "cores": len(os.sched_getaffinity(0)),
        "cpu": processor(),
        "machine": platform.machine(),
        "system": platform.platform(),
    }


def processor() -> str:
    """The CPU's name as its maker puts it."""
    info = Path("/proc/cpuinfo")
    model = re.search(r"^model name\s*: (.*)$", info.read_text(), re.MULTILINE) if info.exists() else None
    return model[1] if model else platform.processor()


def revision() -> str:
    """The commit of the checkout that holds this package, with -dirty where files differ from it; else the version."""
    root = Path(__file__).parents[1]
    git = ["git", "--no-optional-locks", "-C", str(root)]
    try:
        top = subprocess.run([*git, "rev-parse", "--show-toplevel"], capture_output=True, text=True, check=True).stdout
        if Path(top.strip()) == root.resolve():
            describe = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
            return subprocess.run(describe, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        pass
    return __version__
