"""Python, torch, Horovod, DALI and torchvision."""

import os
import platform
import re
import shutil
import sys
from pathlib import Path

from hvdtrain.doctor.finding import GIB, SET_UP, SET_UP_ANEW, Facts, Finding
from hvdtrain.doctor.text import output


def python() -> Finding:
    in_range = (3, 10) <= sys.version_info < (3, 15)
    value = f"{platform.python_version()} at {sys.prefix}"
    return Finding("Python", value, in_range, "" if in_range else "PYTHON=/path/to/python3.11 make setup")


def torch_build(facts: Facts) -> Finding:
    if "error" in facts:
        return Finding("torch", facts["error"], False, SET_UP_ANEW)
    return Finding("torch", f"{facts['version']}, " + (f"for CUDA {facts['cuda']}" if facts["cuda"] else "CPU build"))


def gpu(torch: Facts) -> Finding:
    """The driver's view beside torch's: a GPU that only one of them sees is a fault."""
    listed = output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader")
    drivers = [line for line in (listed or "").splitlines() if re.fullmatch(r"[\d.]+", line)]
    devices = torch.get("devices", [])
    if devices:
        names = ", ".join(f"{device['name']} {device['bytes'] / GIB:.0f} GiB" for device in devices)
        return Finding("GPU", f"{len(devices)}: {names}" + (f"; driver {drivers[0]}" if drivers else ""))
    if not drivers or "error" in torch:
        return Finding("GPU", "none seen", None)
    if torch["cuda"] is None:
        remedy = "install a CUDA build of torch and run make setup, or train on CPUs as it is"
        return Finding("GPU", f"{len(drivers)}, driver {drivers[0]}, but torch is a CPU build", None, remedy)
    remedy = f"a driver for CUDA {torch['cuda']}, or a torch for an older CUDA; see nvidia-smi"
    return Finding("GPU", f"{len(drivers)}, driver {drivers[0]}, but torch cannot use them", False, remedy)


def toolkit(torch: Facts) -> Finding:
    """Only building Horovod needs the toolkit, so its absence is no fault of a run."""
    homes = [os.environ.get("CUDA_HOME"), "/usr/local/cuda"]
    places = [*(shutil.which("nvcc", path=f"{home}/bin") for home in homes if home), shutil.which("nvcc")]
    nvcc = next((place for place in places if place), None)
    if nvcc is None:
        return Finding("CUDA toolkit", "not here", None)
    release = re.search(r"release ([\d.]+)", output(nvcc, "--version") or "")
    value = f"{release[1] if release else 'of unknown version'} at {Path(os.path.realpath(nvcc)).parent.parent}"
    wanted = torch.get("cuda")
    if release and wanted and release[1].split(".")[0] != wanted.split(".")[0]:
        return Finding("CUDA toolkit", value, None, f"CUDA_HOME of CUDA {wanted}, before Horovod is built again")
    return Finding("CUDA toolkit", value, True if wanted else None)


def horovod(facts: Facts, torch: Facts) -> Finding:
    if "error" in facts:
        return Finding("Horovod", facts["error"], False, SET_UP_ANEW)
    controllers = [name for name, built in (("MPI", facts["mpi"]), ("Gloo", facts["gloo"])) if built]
    value = f"{facts['version']}, controllers {' and '.join(controllers) or 'none'}"
    value += ", NCCL operations" if facts["nccl"] else ", CPU operations"
    if not facts["mpi"]:
        return Finding("Horovod", value, False, f"put mpirun and mpicxx on PATH, then {SET_UP}")
    if torch.get("devices") and not facts["nccl"]:
        return Finding("Horovod", value, False, f"it was built without the GPU: HVDTRAIN_GPU=1 {SET_UP}")
    return Finding("Horovod", value)


def dali(facts: Facts) -> Finding:
    if "error" in facts:
        return Finding("DALI", facts["error"], False, SET_UP_ANEW)
    return Finding("DALI", f"{facts['version']}, a CPU pipeline runs")


def torchvision(facts: Facts) -> Finding:
    if "error" in facts:
        return Finding("torchvision", facts["error"], False, SET_UP_ANEW)
    return Finding("torchvision", str(facts["version"]))
