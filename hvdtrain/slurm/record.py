"""What a run directory knows of its jobs.

submitted.yaml   the configuration that was submitted, all paths absolute
job.sbatch       the batch script
job.json         {"submissions": [...]}, the newest last, each with
                 kind          slurm or local
                 id            Slurm's number, of an array's task NUMBER_TASK; local-PID
                 submitted_at  seconds since 1970
                 command       words of the command line, secrets masked
                 output        pattern of the files that the job prints to, beside this one
                 host, born    of a local job: whose process it is, and when that began, seconds since the machine did
outcome          "CODE MESSAGE": how the run's last start ended in an orderly way, written by the run
cancelled        there from `hvdtrain cancel` until the run is submitted again: it is not to be requeued
"""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from hvdtrain import outcome
from hvdtrain.errors import EnvironmentFault, HvdtrainError
from hvdtrain.events import Tail, records
from hvdtrain.files import pretty_json, write_whole
from hvdtrain.masking import masked_command

CONFIG, SCRIPT, JOBS, CANCELLED = "submitted.yaml", "job.sbatch", "job.json", "cancelled"
NOT_BEGUN = ".not-begun"  # as many bytes as starts ended without a word before their first event


@dataclass(frozen=True)
class Submission:
    """A job of the run, as job.json has it (above)."""

    kind: Literal["slurm", "local"]
    id: str
    submitted_at: float
    command: tuple[str, ...]
    output: str
    host: str = ""
    born: float = 0.0


def submissions(run_dir: Path) -> list[Submission]:
    """The oldest first; none where there is no job.json, or a torn or strange one."""
    try:
        value = json.loads((run_dir / JOBS).read_bytes())
    except (OSError, ValueError, RecursionError):
        return []
    listed = value.get("submissions") if isinstance(value, dict) else None
    return [found for each in listed if (found := _submission(each))] if isinstance(listed, list) else []


def _submission(value: Any) -> Submission | None:
    if not isinstance(value, Mapping) or value.get("kind") not in ("slurm", "local"):
        return None
    command = value.get("command")
    found = Submission(
        kind=value["kind"],
        id=str(value.get("id") or ""),
        submitted_at=number(value.get("submitted_at")),
        command=tuple(map(str, command)) if isinstance(command, list) else (),
        output=str(value.get("output") or ""),
        host=str(value.get("host") or ""),
        born=number(value.get("born")),
    )
    return found if found.id and "/" not in found.output else None


def number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e12 else 0.0


def submitted(
    kind: Literal["slurm", "local"], job: str, command: Sequence[str], *, output: str, host: str = "", born: float = 0.0
) -> Submission:
    return Submission(kind, job, time.time(), tuple(masked_command(command)), output, host, born)


def add(run_dir: Path, submission: Submission) -> None:
    """
    Raises:
        EnvironmentFault: job.json cannot be written.
    """
    listed = [asdict(each) for each in [*submissions(run_dir), submission]]
    write(run_dir / JOBS, pretty_json({"submissions": listed}))


def write(path: Path, text: str) -> None:
    """Replace a file of the run directory, which is made where it is missing.

    Raises:
        EnvironmentFault: it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    except OSError as error:
        folder = path.parent
        raise EnvironmentFault(
            f"{path} cannot be written: {error.strerror}", remedy=f"df -h {folder}; ls -ld {folder}"
        ) from None


@contextmanager
def unless_refused(run_dir: Path, *, config: str, script: str) -> Iterator[None]:
    """Both files are there within, for a job may begin at once; if it is refused they are what they were before.

    Raises:
        EnvironmentFault: one cannot be written.
    """
    files = (run_dir / CONFIG, run_dir / SCRIPT)
    before = [file.read_text() if file.is_file() else None for file in files]
    try:
        for file, text in zip(files, (config, script), strict=True):
            write(file, text)
        yield
    except HvdtrainError:
        for file, earlier in zip(files, before, strict=True):
            if earlier is not None:
                write(file, earlier)
        raise


def clear(run_dir: Path) -> None:
    """Forget how the last job ended: the next one is to begin. The folder has to be there before, for sbatch makes none
    for its output."""
    run_dir.mkdir(exist_ok=True)
    for stale in (CANCELLED, NOT_BEGUN):
        (run_dir / stale).unlink(missing_ok=True)
    outcome.forget(run_dir)


def cancelled(run_dir: Path) -> bool:
    return (run_dir / CANCELLED).exists()


def finished(run_dir: Path) -> bool:
    """As its outcome says, or, where a run was no job, its last event."""
    told = outcome.read(run_dir)
    if told:
        return told.code == 0
    try:
        lines = Tail(run_dir / "events.jsonl").lines()
    except OSError:
        return False
    last = [record for record in records(lines[-20:], last_reports=1) if record]
    return bool(last) and last[-1]["event"] == "end"
