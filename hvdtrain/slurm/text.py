"""Jobs in words."""

from collections.abc import Sequence
from pathlib import Path

from hvdtrain.slurm.jobs import Job

COLUMNS = ("RUN", "JOB", "STATE", "RESTARTS", "NODES", "WHY")


def line(job: Job) -> str:
    """
    For example `job         4711  RUNNING on n[1-2]  restarted 2 times  11:58:20 left`.
    """
    standing = job.standing
    words = [f"{job.id}  {job.state}{f' on {standing.node_list}' if standing.node_list else ''}"]
    if standing.restarts:
        words.append(f"restarted {standing.restarts} time{'s' * (standing.restarts > 1)}")
    if job.starts > 1:
        words.append(f"submitted {job.starts} times")
    if job.live and standing.left not in ("", "UNLIMITED", "INVALID", "NOT_SET") and standing.node_list:
        words.append(f"{standing.left} left")
    if why := reason(job):
        words.append(why)
    return f"{'job':<12}{'  '.join(words)}"


def reason(job: Job) -> str:
    """Why it waits or how it ended; of a job that runs, nothing."""
    if job.away:
        return job.away
    if job.outcome and (not job.live or job.state in ("PENDING", "UNKNOWN")):
        return job.outcome.message
    return job.standing.reason


def table(jobs: Sequence[Job]) -> str:
    """A line for each under a line of names; columns as wide as they have to be."""
    rows = [COLUMNS, *(_row(job) for job in jobs)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _row(job: Job) -> tuple[str, ...]:
    standing = job.standing
    restarts = "" if standing.restarts is None else str(standing.restarts)
    nodes = standing.node_list or ("" if standing.nodes is None else str(standing.nodes))
    return _shown(job.run_dir), job.id, job.state, restarts, nodes, reason(job)


def _shown(path: Path) -> str:
    """On one line, whatever it is called."""
    return str(path) if str(path).isprintable() else repr(str(path))
