"""Cores, memory, limits and Slurm."""

import os
import resource
import shutil
from pathlib import Path

from hvdtrain.doctor.finding import GIB, MIB, Finding
from hvdtrain.doctor.text import output


def cores() -> Finding:
    mine, all_cores = len(os.sched_getaffinity(0)), os.cpu_count() or 1
    value = f"{mine}" if mine == all_cores else f"{mine} of {all_cores}"
    quota = _read(Path("/sys/fs/cgroup/cpu.max")).split()
    if len(quota) == 2 and quota[0] != "max":
        value += f", of which a cgroup grants {int(quota[0]) / int(quota[1]):.3g}"
    return Finding("cores", value)


def memory(needed_bytes: int = GIB, *, cgroup: Path = Path("/sys/fs/cgroup")) -> Finding:
    """What is free here, or left of the cgroup's limit. DALI and torch take half a GiB a worker before any image.

    What a cgroup uses has the pages of files that were read in it: those that nobody looked at again, inactive_file,
    give way before anything fails for want of memory.

    Args:
        cgroup: folder with its memory.max, memory.current and memory.stat, of version 2.
    """
    kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in _read(Path("/proc/meminfo")).splitlines()}
    free, total = kilobytes["MemAvailable"] * 1024, kilobytes["MemTotal"] * 1024
    limit, used, told = (_read(cgroup / f"memory.{name}") for name in ("max", "current", "stat"))
    if limit.isdigit() and used.isdigit():
        giving_way = [int(line.split()[1]) for line in told.splitlines() if line.startswith("inactive_file ")]
        left = int(limit) - max(int(used) - sum(giving_way), 0)
        free, total = min(free, left), min(total, int(limit))
    value = f"{free / GIB:.1f} GiB free of {total / GIB:.1f}"
    enough = free >= needed_bytes
    remedy = "a worker takes 1 GiB and more: sbatch --mem, or end something"
    return Finding("memory", value, enough, "" if enough else remedy)


def open_files(needed: int = 1024) -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    unlimited = resource.RLIM_INFINITY
    enough = soft == unlimited or soft >= needed
    value = "no limit" if soft == unlimited else f"up to {soft}"
    raise_it = f"ulimit -n {needed}" if hard == unlimited or hard >= needed else f"ask for a nofile limit of {needed}"
    return Finding("open files", value, enough, "" if enough else raise_it)


def shared_memory(folder: Path, *, gpus: int) -> Finding:
    """MPI, NCCL and DALI pass data between the workers of a host here; containers start with 64 MiB."""
    needed = 256 * MIB * gpus or 16 * MIB
    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return Finding("shared memory", f"{folder}: {error.strerror}", False, "mount a tmpfs there")
    enough = free >= needed
    remedy = "" if enough else f"docker run --shm-size={max(needed, GIB) // MIB}m, or --ipc=host"
    return Finding("shared memory", f"{free / MIB:.0f} MiB free in {folder}", enough, remedy)


def slurm() -> Finding:
    version = output("sinfo", "--version")
    if version is None:
        return Finding("Slurm", "not here", None)
    return Finding("Slurm", version.split()[-1])


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
