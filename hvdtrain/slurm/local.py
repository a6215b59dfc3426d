"""A job of this machine: the batch script in the background, without Slurm."""

import os
import signal
import subprocess
import time
from contextlib import suppress
from pathlib import Path

import psutil

from hvdtrain.errors import EnvironmentFault
from hvdtrain.process import born

LEAVE_SECONDS = 30.0  # that a run has to save and leave before it is killed
KILL_SECONDS = 10.0


def start(script: Path, *, output: Path) -> tuple[int, float]:
    """Start the script in a session of its own: it outlives this process, the terminal and the login.

    Returns:
        Its process id, and when it began: a process id alone may be another process's tomorrow.

    Raises:
        EnvironmentFault: `output` cannot be written, or bash cannot be started.
    """
    # Of a job of Slurm's that this may be called from, nothing: the script would take it for its own.
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "PMIX_", "PMI_"))
    }
    try:
        with output.open("ab") as file:
            process = subprocess.Popen(
                ["bash", str(script)],
                cwd=script.parent,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
    except OSError as error:
        raise EnvironmentFault(f"{error.filename}: {error.strerror}", remedy=f"ls -ld {output.parent}") from None
    process.returncode = 0  # it is not waited for: whoever comes later asks by its id
    return process.pid, born(process.pid)


def find(pid: int, began: float) -> psutil.Process | None:
    """The script, if it still runs."""
    with suppress(psutil.Error):
        if began and born(pid) == began:
            return psutil.Process(pid)
    return None


def end(pid: int, began: float) -> bool:
    """Tell the run to save and leave, and kill it if it does not; whether it has ended.

    What the script has started is known by its session.
    """
    if script := find(pid, began):
        with suppress(psutil.Error):
            script.send_signal(signal.SIGTERM)
    deadline = time.monotonic() + LEAVE_SECONDS
    while find(pid, began) and time.monotonic() < deadline:
        time.sleep(0.1)
    if not (script := find(pid, began)):
        return True
    left = [script, *script.children(recursive=True)]
    for process in left:
        with suppress(psutil.Error):
            process.kill()
    _, alive = psutil.wait_procs(left, timeout=KILL_SECONDS)
    return not any(process.status() != psutil.STATUS_ZOMBIE for process in alive if process.is_running())
