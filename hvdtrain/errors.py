"""Every failure that hvdtrain foresees, with the exit code that a batch script reads.

    HvdtrainError            1
    ├── ConfigError          2   what was asked for is wrong; no worker has started work
    ├── EnvironmentFault     3   this machine or its installation cannot do it (`hvdtrain doctor` says why)
    ├── DataError            4   the images are not what the configuration says
    ├── CheckpointError      5   a checkpoint is missing, torn, or from another run; or none can be written
    ├── PeerLost             6   another worker has gone; that worker's own message has the cause
    ├── Stalled              7   a worker has fallen silent, or no step gets done; the watchdog has ended the run
    ├── NotFinite            8   a loss or a gradient is NaN or infinite, and train.not_finite says to stop
    └── Preempted           75   a signal asked the run to leave; all is saved, and --resume auto goes on from there

A message says what, where, got and wanted; `remedy` is the next thing to do.
"""

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
