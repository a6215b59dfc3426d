"""Every failure that hvdtrain foresees, with the exit code that a batch script reads.

    HvdtrainError            1
    ├── ConfigError          2   what was asked for is wrong; no worker has started work
    ├── EnvironmentFault     3   this machine or its installation cannot do it (`hvdtrain doctor` says why)
    ├── DataError            4   the images are not what the configuration says
    ├── CheckpointError      5   a checkpoint is missing, torn, or from another run; or none can be written
    ├── PeerLost             6   another worker has gone; that worker's own message has the cause
    ├── Stalled              7   a worker has fallen silent, or no step gets done; the watchdog has ended the run
    ├── NotFinite            8   a loss or a gradient is NaN or infinite, and train.not_finite says to stop
    ├── Preempted           75   a signal asked the run to leave; all is saved, and --resume auto goes on from there
    └── Stopped            143   a signal asked what has nothing to save to leave: 128 + SIGTERM, or whichever it was

A message says what, where, got and wanted; `remedy` is the next thing to do.
"""

import errno
import os
import signal

INTERRUPTED = 130  # as shells say it: 128 + SIGINT


class HvdtrainError(Exception):
    """`str(error)` is one readable line; `remedy` the next command, or empty."""

    exit_code = 1
    everyones = False
    """Whether all workers fail of it alike, so that rank 0 alone tells of it."""

    def __init__(self, message: str, *, remedy: str = "", everyones: bool | None = None) -> None:
        super().__init__(message)
        self.remedy = remedy
        if everyones is not None:
            self.everyones = everyones

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message} → {self.remedy}" if self.remedy else message


class ConfigError(HvdtrainError):
    exit_code = 2
    everyones = True


class EnvironmentFault(HvdtrainError):
    exit_code = 3


def of_system(error: OSError) -> EnvironmentFault | None:
    """What the system refuses about a file, or for want of room, in a line; None of what else it may refuse, which is
    no affair of the disk's."""
    if not error.filename and error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
        return None
    if not error.filename:
        return EnvironmentFault(f"{error.strerror}", remedy="df -h; df -i")
    path = os.path.abspath(os.fsdecode(error.filename))  # noqa: PTH100 - a name, or bytes
    return EnvironmentFault(f"{path}: {error.strerror}", remedy=f"ls -ld {os.path.dirname(path)}")  # noqa: PTH120


class DataError(HvdtrainError):
    exit_code = 4


class CheckpointError(HvdtrainError):
    exit_code = 5


class PeerLost(HvdtrainError):
    exit_code = 6


class Stalled(HvdtrainError):
    exit_code = 7


class NotFinite(HvdtrainError):
    exit_code = 8
    everyones = True


class Preempted(HvdtrainError):
    everyones = True
    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again later


class Stopped(HvdtrainError):
    everyones = True
    exit_code = 128 + signal.SIGTERM

    def __init__(self, message: str, *, by: signal.Signals = signal.SIGTERM, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.exit_code = 128 + by  # as shells say it, and as if it had been killed by the signal
