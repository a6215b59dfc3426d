"""How to start workers of hvdtrain from another process."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from hvdtrain.errors import EnvironmentFault


def command(workers: int, arguments: Sequence[str]) -> list[str]:
    """`hvdtrain` with `arguments`, under mpirun where there are several workers.

    Raises:
        EnvironmentFault: there is no hvdtrain or no mpirun.
    """
    hvdtrain = [program("hvdtrain"), *arguments]
    if workers == 1:
        return hvdtrain
    return [program("mpirun"), "--oversubscribe", "--bind-to", "none", "-np", str(workers), *hvdtrain]


def variables(threads: int) -> dict[str, str]:
    """The environment of those workers, each of which computes with `threads` CPU threads."""
    ours = {"OMP_NUM_THREADS": str(threads)}
    if os.geteuid() == 0:  # Open MPI refuses root unless told twice
        ours |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return {**os.environ, **ours}


def program(name: str) -> str:
    """The path of `name`: beside this Python, or on PATH.

    Raises:
        EnvironmentFault: neither has it.
    """
    beside = Path(sys.executable).parent
    path = shutil.which(name, path=f"{beside}{os.pathsep}{os.environ.get('PATH', os.defpath)}")
    if path is None:
        raise EnvironmentFault(f"no {name} beside {sys.executable} or on PATH", remedy="hvdtrain doctor")
    return path
