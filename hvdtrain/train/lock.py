"""One job at a time in a run directory: a file that says whose it is, and is kept young while its owner lives.

It is made by a hard link, which only one of two can make, over NFS too, where flock need not work. A crash leaves it
behind; the next one takes it over when the owner is known to be gone, or nothing was seen of it for a while. Whether it
lives is told by what changes, not by how old it is: clocks of hosts differ.
"""

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from hvdtrain.errors import EnvironmentFault
from hvdtrain.log import duration, logger
from hvdtrain.process import born

NAME = ".owner.json"
BEAT_SECONDS = 4.0
WATCH_SECONDS = 14.0  # three beats may be late
LOOK_SECONDS = 0.5


@dataclass(frozen=True)
class Owner:
    host: str
    pid: int
    born: float
    """When the process began, see hvdtrain.process."""
    job: str
    """Of Slurm; empty without it."""
    restarts: str
    """How often Slurm had requeued that job."""
    token: str

    @classmethod
    def me(cls) -> "Owner":
        job, restarts = (os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT"))
        return cls(platform.node(), os.getpid(), born(os.getpid()), job, restarts, secrets.token_hex(8))

    def is_gone(self, me: "Owner") -> bool:
        """Known to be; else it may live."""
        if self.host == me.host:
            return born(self.pid) != self.born
        return bool(self.job) and self.job == me.job and self.restarts != me.restarts  # what it was before has ended

    def __str__(self) -> str:
        job = f"job {self.job}, " if self.job else ""
        return f"{job}process {self.pid} on {self.host}"


@contextmanager
def held(run_dir: Path, *, heir_of: Owner | None = None) -> Iterator[Owner]:
    """Within, the run directory is this process's.

    Args:
        heir_of: an owner that nobody has to look for: if it lives, it finds that it has lost the directory.

    Raises:
        EnvironmentFault: another one has it, and lives.
        OSError: the file cannot be written.
    """
    path, me = run_dir / NAME, Owner.me()
    _acquire(path, me, heir_of)
    over = threading.Event()
    thread = threading.Thread(target=_beat, args=(path, me, over), name="owner", daemon=True)
    thread.start()
    try:
        yield me
    finally:
        over.set()
        thread.join()
        with suppress(OSError):  # on a disk that lets nobody write any more it stays behind
            if _read(path) == me:
                path.unlink()


def owner(run_dir: Path) -> Owner | None:
    """Whose it is, or was when that ended without giving it back."""
    return _read(run_dir / NAME)


def _acquire(path: Path, me: Owner, heir_of: Owner | None) -> None:
    while True:
        temporary = path.with_name(f"{path.name}.{me.token}.tmp")
        temporary.write_text(json.dumps(asdict(me)))
        try:
            os.link(temporary, path)
        except FileExistsError:
            other = _read(path)
        else:
            return
        finally:
            temporary.unlink()
        if other and other != heir_of and not other.is_gone(me) and _lives(path, other, me):
            raise EnvironmentFault(
                f"{path.parent} is in use by {other}", remedy=f"hvdtrain status {path.parent}, or another --run.name"
            )
        logger.info("%s was left behind by %s", path.parent, other or "an unknown owner")
        _break(path, other)


def _lives(path: Path, owner: Owner, me: Owner) -> bool:
    """Whether the file is touched, or changes hands, while one looks; no, once its owner is known to be gone."""
    logger.info("%s belongs to %s: looking for %s whether it lives", path.parent, owner, duration(WATCH_SECONDS))
    first, deadline = _touched(path), time.monotonic() + WATCH_SECONDS
    while time.monotonic() < deadline:
        time.sleep(LOOK_SECONDS)
        if (now := _touched(path)) != first:
            return now is not None  # it has given the directory back
        if owner.is_gone(me):
            break
    return False


def _break(path: Path, owner: Owner | None) -> None:
    """Take the file away, unless another one has just done so, and has it."""
    aside = path.with_name(f"{path.name}.{secrets.token_hex(8)}.tmp")
    with suppress(FileNotFoundError):
        path.rename(aside)
        if (taken := _read(aside)) != owner and taken:
            with suppress(FileExistsError):
                os.link(aside, path)
        aside.unlink()


def _read(path: Path) -> Owner | None:
    """None where there is none, or something else."""
    try:
        return Owner(**json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _touched(path: Path) -> int | None:
    """When, in ns; over NFS a plain stat may be old, while opening the file asks the server."""
    try:
        with path.open("rb") as file:
            return os.fstat(file.fileno()).st_mtime_ns
    except OSError:
        return None


def _beat(path: Path, me: Owner, over: threading.Event) -> None:
    """Slurm may take a node for lost, and start its job elsewhere, while the workers there go on: who finds that the
    directory is another's leaves at once, and without a word in it."""
    while not over.wait(BEAT_SECONDS):
        owner = _read(path)
        if owner is not None and owner.token != me.token:
            os.write(2, f"hvdtrain: {path.parent} was taken over by {owner}; leaving it\n".encode())
            os._exit(EnvironmentFault.exit_code)
        with suppress(OSError):
            os.utime(path)
