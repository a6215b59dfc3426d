"""How glibc's allocator serves a worker that computes on a CPU: it keeps what is freed, in huge pages.

By itself malloc gives large tensors back to the kernel as soon as they are freed, and every step faults them in again,
page by page of 4 KiB: 50,000 faults in a step of ResNet-50. Open MPI's buffers fare alike in every allreduce. The C
library reads these settings once, as a process begins, so the process begins again.
"""

import os
import platform
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from hvdtrain.distributed import preempt

VARIABLE = "GLIBC_TUNABLES"
# The first release that takes huge pages; an older one would take the rest, and was not tried.
NEEDS = (2, 35)
TUNABLES = {
    "glibc.malloc.hugetlb": "1",  # madvise: where the system gives huge pages to those who ask
    "glibc.malloc.mmap_threshold": str(2**30),
    "glibc.malloc.trim_threshold": str(2**31 - 1),
}
_OTHERS = ("MALLOC_", "LD_PRELOAD")  # somebody has chosen another allocator, or how this one behaves


def wanted(environment: Mapping[str, str]) -> dict[str, str]:
    """Pure: what to set before a worker begins; nothing where the user has set anything of the kind.

    >>> wanted({"PATH": "/bin"})["GLIBC_TUNABLES"].split(":")[0]
    'glibc.malloc.hugetlb=1'
    >>> wanted({"GLIBC_TUNABLES": ""}), wanted({"LD_PRELOAD": "libtcmalloc.so"})
    ({}, {})
    """
    if VARIABLE in environment or any(name.startswith(_OTHERS) for name in environment):
        return {}
    return {VARIABLE: ":".join(f"{name}={value}" for name, value in TUNABLES.items())}


def begin_again() -> None:
    """Start this program afresh, in the same process, with what is wanted; returns where nothing is.

    To be called before anything that would not survive it: files, threads, MPI. A signal that asks a run to leave is
    kept back until the program listens.
    """
    more = wanted(os.environ)
    if more and not _has_gpu() and _glibc() >= NEEDS:
        signal.pthread_sigmask(signal.SIG_BLOCK, preempt.SIGNALS)
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **more})


def _glibc() -> tuple[int, ...]:
    name, release = platform.libc_ver()
    numbers = release.split(".")[:2]
    return tuple(map(int, numbers)) if name == "glibc" and all(map(str.isdecimal, numbers)) else (0,)


def _has_gpu() -> bool:
    """Where the tensors of a step are the GPU's, and none of malloc's."""
    return Path("/proc/driver/nvidia").exists() or Path("/dev/kfd").exists()
