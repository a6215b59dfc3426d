"""The launcher, the library, and whether two workers meet."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from hvdtrain.doctor.finding import SET_UP, SET_UP_ANEW, Facts, Finding
from hvdtrain.doctor.text import error_line, first_line, output

SECONDS = 120.0


@dataclass(frozen=True)
class Launcher:
    path: str
    name: str  # "Open MPI", or whatever its first word is
    version: str

    @staticmethod
    def find() -> "Launcher | None":
        path = shutil.which("mpirun")
        if path is None:
            return None
        text = output(path, "--version") or ""
        version = re.search(r"\d+\.\d[\w.]*", text)
        return Launcher(path, "Open MPI" if "Open MPI" in text else first_line(text), version[0] if version else "")


def mpirun(launcher: Launcher | None, horovod: Facts) -> Finding:
    """It must come from the MPI that Horovod links: else every worker believes it is alone, or none starts."""
    if launcher is None:
        ours = Path(sys.executable).parent
        remedy = f"export PATH={ours}:$PATH" if (ours / "mpirun").exists() else f"{SET_UP}, or put an mpirun on PATH"
        return Finding("mpirun", "not on PATH", False, remedy)
    value = f"{launcher.name} {launcher.version} at {launcher.path}"
    linked = horovod.get("library_version", "")
    if linked and launcher.version and launcher.version not in re.findall(r"\d[\w.]*", linked):
        remedy = f"put the mpirun of {linked.split(',')[0]} first on PATH, or {SET_UP} for this one"
        return Finding("mpirun", f"{value}; Horovod links {linked.split(',')[0]}", False, remedy)
    return Finding("mpirun", value)


def mpi_library(horovod: Facts, mpi4py: Facts) -> Finding:
    """Two different MPIs in one process end in a crash in whichever comes second."""
    if "error" in mpi4py:
        remedy = f"{SET_UP_ANEW}; is libmpi.so on LD_LIBRARY_PATH?"
        return Finding("MPI library", f"mpi4py: {mpi4py['error']}", False, remedy)
    value = f"{mpi4py['library_version'].split(',')[0]} at {mpi4py['library']}"
    linked = horovod.get("library", "")
    if linked and linked != mpi4py["library"]:
        value = f"mpi4py {mpi4py['version']} uses {mpi4py['library']}, Horovod {linked}"
        return Finding("MPI library", value, False, f"leave one MPI on LD_LIBRARY_PATH and PATH, then {SET_UP}")
    return Finding("MPI library", f"{value}, for Horovod and mpi4py {mpi4py['version']}")


_TWO_WORKERS = """
import horovod.torch as hvd, torch
hvd.init()
total = hvd.allreduce(torch.tensor([1.0 + hvd.rank()]), op=hvd.Sum, name="doctor").item()
print(f"sum {total:g} of {hvd.size()}", flush=True)
"""


def workers(launcher: Launcher | None, *, ready: bool) -> Finding:
    """Two workers on this host add 1 and 2 by Horovod."""
    under = next((name for name in ("OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK") if name in os.environ), None)
    if launcher is None or not ready:
        return Finding("two workers", "not tried", None)
    if under:
        return Finding("two workers", f"not tried: already under a launcher ({under})", None)
    command = [launcher.path, "-np", "2"]
    if launcher.name == "Open MPI":
        command += ["--bind-to", "none", "--oversubscribe"]
    environment = dict(os.environ)
    if os.geteuid() == 0:
        environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    try:
        run = subprocess.run(
            [*command, sys.executable, "-c", _TWO_WORKERS],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        return Finding("two workers", f"no allreduce in {SECONDS:.0f} s", False, " ".join(command) + " hostname")
    if run.returncode == 0 and run.stdout.count("sum 3 of 2") == 2:
        return Finding("two workers", "allreduce of 1 and 2 is 3")
    said = error_line(run.stderr) or first_line(run.stdout) or f"exit code {run.returncode}"
    if "plm_rsh_agent" in run.stderr:
        return Finding("two workers", "mpirun misses ssh", False, "install ssh, or export OMPI_MCA_plm_rsh_agent=false")
    return Finding("two workers", said, False, f"see what {' '.join(command)} hostname says")
