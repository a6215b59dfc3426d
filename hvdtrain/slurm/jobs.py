"""What has become of the job of a run: Slurm's word, or the machine's, and what the run directory says."""

import difflib
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hvdtrain import outcome
from hvdtrain.errors import ConfigError, EnvironmentFault
from hvdtrain.outcome import Outcome
from hvdtrain.slurm import client, local, record
from hvdtrain.slurm.client import Away, Standing
from hvdtrain.slurm.record import Submission

CANCELLED_CODE = 130
NO_WORD_CODE = 1
LATE_SECONDS = 10.0
OFTEN_SECONDS = 2.0  # between two questions about a job that is waited for


@dataclass(frozen=True)
class Job:
    """The newest job of a run."""

    run_dir: Path
    submission: Submission
    standing: Standing
    """UNKNOWN where Slurm does not answer, or has forgotten a job whose run does not say how it ended."""
    outcome: Outcome | None
    """How the run's last start ended."""
    starts: int = 1
    """How often the run was submitted."""
    away: str = field(default="", compare=False)
    """Why Slurm could not be asked; empty where it could, or need not."""

    @property
    def id(self) -> str:
        return self.submission.id

    @property
    def state(self) -> str:
        return self.standing.state

    @property
    def live(self) -> bool:
        """Whether more can come of it; also where nobody knows."""
        return not self.standing.over

    @property
    def exit_code(self) -> int:
        """Of `hvdtrain wait`: 0 finished; the run's own where it said one; 130 cancelled; 1 ended without a word."""
        if (self.outcome and self.outcome.code == 0) or self.state == "COMPLETED":
            return 0  # its script ends so only where the run is over, be the outcome not to be seen yet
        if self.state == "CANCELLED":
            return CANCELLED_CODE
        return self.outcome.code if self.outcome else NO_WORD_CODE


def must_be_over(job: Job) -> None:
    """
    Raises:
        ConfigError: it is going on.
        EnvironmentFault: nobody knows.
    """
    if job.away:
        raise EnvironmentFault(f"{job.run_dir}: whether job {job.id} is over cannot be known: {job.away}")
    if job.live and job.state != "UNKNOWN":
        raise ConfigError(f"{job.run_dir}: job {job.id} is {job.state}", remedy=f"hvdtrain status {job.run_dir}")


def of(run_dir: Path) -> Job | None:
    """The newest job of a run; None where it was never submitted."""
    found = every([run_dir])
    return found[0] if found else None


def every(run_dirs: Sequence[Path]) -> list[Job]:
    """The newest job of each run that has one; Slurm is asked once for all."""
    listed = {run_dir: known for run_dir in run_dirs if (known := record.submissions(run_dir))}
    asked = client.look([known[-1].id for known in listed.values() if known[-1].kind == "slurm"])
    return [_job(run_dir, known, asked) for run_dir, known in listed.items()]


def _job(run_dir: Path, known: Sequence[Submission], asked: dict[str, Standing] | Away) -> Job:
    newest, told = known[-1], outcome.read(run_dir)
    if newest.kind == "local":
        return Job(run_dir, newest, _local(run_dir, newest, told), told, len(known))
    if isinstance(asked, Away):
        return Job(run_dir, newest, _remembered(run_dir, told), told, len(known), away=asked.why)
    return Job(run_dir, newest, asked.get(newest.id) or _remembered(run_dir, told), told, len(known))


def _local(run_dir: Path, submission: Submission, told: Outcome | None) -> Standing:
    if submission.host != platform.node():
        return _remembered(run_dir, told, reason=f"it is a job of {submission.host}")
    if local.find(pid(submission), submission.born):
        return Standing("RUNNING", node_list=submission.host, nodes=1)
    ended = _remembered(run_dir, told)
    return Standing("FAILED", reason="it ended without reporting an outcome") if ended.state == "UNKNOWN" else ended


def _remembered(run_dir: Path, told: Outcome | None, *, reason: str = "") -> Standing:
    """From the run directory alone, in Slurm's words."""
    if record.cancelled(run_dir):
        return Standing("CANCELLED")
    if told and told.code == 0:
        return Standing("COMPLETED")
    # What a run says to be gone on with may be in the queue again, which only Slurm knows.
    goes_on = told is not None and told.code in (75, 6, 7)
    return Standing("FAILED") if told and not goes_on else Standing("UNKNOWN", reason=reason)


def pid(submission: Submission) -> int:
    number = submission.id.removeprefix("local-")
    return int(number) if number.isdecimal() and len(number) < 10 else -1


def running(run_dir: Path) -> Callable[[], bool]:
    """Whether the run's job runs; asked no more often than Slurm likes."""
    next_look, answer = 0.0, True

    def ask() -> bool:
        nonlocal next_look, answer
        if answer and time.monotonic() >= next_look:
            job = of(run_dir)
            answer = job is not None and (job.state == "RUNNING" or bool(job.away))
            next_look = time.monotonic() + OFTEN_SECONDS
        return answer

    return ask


def find(run: str, *, runs: Path) -> Path:
    """The run directory that is meant by its own path, its name in `runs`, or the id of one of its jobs.

    Raises:
        ConfigError: none is.
    """
    if Path(run).is_dir():
        return Path(run)
    if (runs / run).is_dir():
        return runs / run
    for run_dir in directories(runs):
        if any(run == submission.id for submission in record.submissions(run_dir)):
            return run_dir
    if (folder := client.folder_of(run)) and folder.is_dir():
        return folder
    there = [file.parent.name for name in ("events.jsonl", record.JOBS) for file in runs.glob(f"*/{name}")]
    near = difflib.get_close_matches(run, there, n=1) or sorted(name for name in there if name.startswith(run))[-1:]
    remedy = f"perhaps {near[0]}" if near else f"ls {runs}" if there else "--runs DIR, that of your runs"
    raise ConfigError(f"{run} is not a run directory, a run in {runs}, or a job id", remedy=remedy)


def directories(runs: Path) -> list[Path]:
    """Those in `runs` that have had a job, by name; or `runs` itself if it is one."""
    if (runs / record.JOBS).is_file():
        return [runs]
    return sorted(file.parent for file in runs.glob(f"*/{record.JOBS}"))


def wait(run_dir: Path) -> Job | None:
    """Until nothing more comes of the run's job; None where there was none."""
    while (job := of(run_dir)) and job.live:
        if job.state == "UNKNOWN" and not job.away:
            return job
        time.sleep(OFTEN_SECONDS if job.submission.kind == "slurm" else 0.2)
    deadline = time.monotonic() + LATE_SECONDS
    while job and job.state not in ("COMPLETED", "CANCELLED") and not job.outcome and time.monotonic() < deadline:
        time.sleep(1)  # a shared file system may show the outcome late
        job = of(run_dir)
    return job


def cancel(run_dir: Path, *, patience_seconds: float = 120.0) -> Job | None:
    """End the run's job and wait until it has ended; one that has ended stays as it is.

    A job that was just requeueing itself comes back once: it is ended again.
    """
    deadline = time.monotonic() + patience_seconds
    while (job := of(run_dir)) and job.live:
        if job.submission.kind == "local" and job.submission.host != platform.node():
            raise EnvironmentFault(
                f"{run_dir}: job {job.id} is one of {job.submission.host}", remedy=f"there: hvdtrain cancel {run_dir}"
            )
        (run_dir / record.CANCELLED).touch()
        if job.submission.kind == "local":
            if not local.end(pid(job.submission), job.submission.born):
                return job
            continue
        if job.away or job.state == "UNKNOWN" or time.monotonic() > deadline:
            return job
        if job.state != "COMPLETING" and isinstance(refused := client.cancel([job.id]), Away):
            return Job(run_dir, job.submission, job.standing, job.outcome, job.starts, away=refused.why)
        time.sleep(0.5)
    return job


def to_json(job: Job) -> dict[str, Any]:
    """What `--json` prints of it; null for what is not known."""
    standing, told = job.standing, job.outcome
    return {
        "run": str(job.run_dir),
        "id": job.id,
        "kind": job.submission.kind,
        "state": job.state,
        "live": job.live,
        "submitted_at": job.submission.submitted_at,
        "submissions": job.starts,
        "restarts": standing.restarts,
        "nodes": standing.nodes,
        "node_list": standing.node_list,
        "reason": standing.reason,
        "time_left": standing.left,
        "outcome": {"code": told.code, "message": told.message} if told else None,
        "away": job.away or None,
    }
