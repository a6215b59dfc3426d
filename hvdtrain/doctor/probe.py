"""What the big libraries say of themselves, asked in a process of its own."""

import ctypes
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hvdtrain.doctor.finding import Facts
from hvdtrain.doctor.text import error_line, first_line

SECONDS = 120.0  # a first import from a cold network file system takes most of a minute


def ask(names: Sequence[str]) -> dict[str, Facts]:
    """The facts of each probe of `names`. They share a process; after one that fails the rest get a new one."""
    facts: dict[str, Facts] = {}
    rest = list(names)
    while rest:
        output, end = _run(rest)
        for line in output.splitlines():
            if line.startswith('{"probe": '):
                answer = json.loads(line)
                facts[answer.pop("probe")] = answer
        rest = [name for name in rest if name not in facts]
        if rest:
            facts[rest.pop(0)] = {"error": end}
    return facts


def _run(names: Sequence[str]) -> tuple[str, str]:
    """What a process with these probes printed, and how it ended."""
    command = [sys.executable, "-c", f"from hvdtrain.doctor import probe; probe.answer({list(names)!r})"]
    try:
        child = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(), f"no answer in {SECONDS:.0f} s"
    if child.returncode < 0:
        return child.stdout, f"importing it was killed by signal {-child.returncode}"
    return child.stdout, error_line(child.stderr) or f"importing it ended with exit code {child.returncode}"


def answer(names: Sequence[str]) -> None:
    """Print one line of JSON for each probe, as soon as it is known. Runs in the process that `ask` starts."""
    probes: dict[str, Callable[[], Facts]] = {
        "torch": _probe_torch,
        "horovod": _probe_horovod,
        "torchvision": _probe_torchvision,
        "mpi4py": _probe_mpi4py,
        "dali": _probe_dali,
    }
    for name in names:
        print(json.dumps({"probe": name, **probes[name]()}), flush=True)


def _probe_torch() -> Facts:
    import torch

    found: dict[str, Any] = {"version": torch.__version__, "cuda": torch.version.cuda, "devices": []}
    if torch.version.cuda is not None and torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            properties = torch.cuda.get_device_properties(index)
            found["devices"].append({"name": properties.name, "bytes": properties.total_memory})
    return found


def _probe_horovod() -> Facts:
    import horovod
    import horovod.torch as hvd

    library = _loaded("libmpi.so", "libmpi.")
    return {
        "version": horovod.__version__,
        "mpi": bool(hvd.mpi_built()),
        "gloo": bool(hvd.gloo_built()),
        "nccl": bool(hvd.nccl_built()),
        "cuda": bool(hvd.cuda_built()),
        "library": library,
        "library_version": _mpi_version(library) if library else "",
    }


def _probe_torchvision() -> Facts:
    from hvdtrain import torchvision

    return {"version": torchvision.load().__version__}


def _probe_mpi4py() -> Facts:
    import mpi4py

    mpi4py.rc.initialize = False  # the version and the library are known without
    from mpi4py import MPI

    return {
        "version": mpi4py.__version__,
        "library": _loaded("libmpi.so", "libmpi."),
        "library_version": first_line(MPI.Get_library_version()),
    }


def _probe_dali() -> Facts:
    import numpy as np
    from nvidia import dali

    @dali.pipeline_def(batch_size=2, num_threads=1, device_id=None)
    def flip() -> Any:
        image = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
        return dali.fn.flip(dali.fn.external_source(source=lambda: [image, image], layout="HWC"), horizontal=1)

    pipeline = flip()
    pipeline.build()
    (images,) = pipeline.run()
    got = np.asarray(images.at(0)).ravel().tolist()
    if got != [3, 4, 5, 0, 1, 2]:
        raise RuntimeError(f"a flipped picture of two pixels came out as {got}, wanted [3, 4, 5, 0, 1, 2]")
    return {"version": dali.__version__}


def _loaded(*stems: str) -> str:
    """The real path of the shared library in this process whose file name starts with one of `stems`."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if path.startswith("/") and Path(path).name.startswith(stems):
            return os.path.realpath(path)
    return ""


def _mpi_version(library: str) -> str:
    text, length = ctypes.create_string_buffer(8192), ctypes.c_int()
    ctypes.CDLL(library).MPI_Get_library_version(text, ctypes.byref(length))  # allowed before MPI_Init
    return first_line(text.value.decode(errors="replace"))
