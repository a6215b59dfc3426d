"""What is asked of Slurm: a job, how jobs stand, and their end.

Slurm's commands are called with an argument list and a time limit, and answer in columns that are named to them: tables
for people change from version to version. That Slurm is away is an answer as well.
"""

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvdtrain.config.checks import shown
from hvdtrain.errors import ConfigError, EnvironmentFault

ANSWER_SECONDS = 30.0
# Of the job that somebody submits from; a launcher or a job of ours would take them for its own.
NOT_INHERITED = (
    *("SLURM_JOB", "SLURM_STEP", "SLURM_ARRAY", "SLURM_RESTART", "SLURM_N", "SLURM_TASK", "SLURM_CPUS", "SLURM_PROCID"),
    *("SLURM_LOCALID", "SLURM_GPUS", "SLURM_MEM", "PMIX_", "PMI_", "OMPI_COMM_WORLD"),
)
COLUMNS = ("JobArrayID", "State", "RestartCnt", "NumNodes", "NodeList", "ReasonList", "TimeLeft")
WIDTHS = (40, 40, 12, 12, 400, 200, 20)
ENDED = frozenset(
    {
        *("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL"),
        *("OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT"),
    }
)
"""States that a job does not leave by itself; any other, one that we have never heard of too, is that of a live job."""
# What sbatch says of a request that no repetition makes possible; all else is Slurm's state of the moment.
WRONG_REQUESTS = (
    "invalid",
    "not available",
    "unrecognized option",
    "batch job submission failed: requested",
    "violates",
)


@dataclass(frozen=True)
class Standing:
    """How Slurm says that a job stands. What it does not say is empty or None."""

    state: str
    """Slurm's own word: PENDING, RUNNING, COMPLETING, COMPLETED, … or one that is new."""
    restarts: int | None = None
    nodes: int | None = None
    node_list: str = ""
    reason: str = ""
    """Why it waits, or why it ended."""
    left: str = ""
    """Until its time limit, as Slurm writes it."""

    @property
    def over(self) -> bool:
        return self.state in ENDED


@dataclass(frozen=True)
class Away:
    """Slurm does not answer, or is not here."""

    why: str


def submit(script: Path, *, folder: Path) -> str:
    """Hand a batch script to sbatch; the job's id.

    Args:
        folder: the job's working directory.

    Raises:
        ConfigError: Slurm refuses the job.
        EnvironmentFault: there is no Slurm, or it does not answer.
    """
    environment = {name: value for name, value in os.environ.items() if not name.startswith(NOT_INHERITED)}
    ran = _ask(["sbatch", "--parsable", str(script)], folder=folder, environment=environment)
    if isinstance(ran, Away):
        raise EnvironmentFault(ran.why, remedy="--local to run on this machine; sinfo shows what there is of Slurm")
    if ran.returncode:
        why = _complaint(ran)
        if any(words in why.lower() for words in WRONG_REQUESTS):
            raise ConfigError(f"sbatch: {why}", remedy="sinfo shows partitions and nodes; --dry-run what was asked for")
        raise EnvironmentFault(f"sbatch: {why}", remedy="sinfo")
    job = ran.stdout.strip().partition(";")[0]  # behind it the cluster's name, where there are several
    if not job.isdigit():
        raise EnvironmentFault(f"sbatch: expected the number of a job, got {shown(ran.stdout.strip())}")
    return job


def look(jobs: Sequence[str]) -> dict[str, Standing] | Away:
    """How jobs stand, by id; those that Slurm has forgotten are missing.

    squeue knows jobs for some minutes after their end (MinJobAge), sacct for long, where a site keeps accounts.
    """
    if not jobs:
        return {}
    columns = ",".join(f"{name}:{width}|" for name, width in zip(COLUMNS, WIDTHS, strict=True))
    ran = _ask(["squeue", "--noheader", "--array", "--states=all", f"--jobs={','.join(jobs)}", f"--Format={columns}"])
    if isinstance(ran, Away):
        return ran
    if ran.returncode and "invalid job id" not in ran.stderr.lower():
        return Away(f"squeue: {_complaint(ran)}")
    found = dict(standing for line in ran.stdout.splitlines() if (standing := _squeue(line)))
    if missing := [job for job in jobs if job not in found]:
        found |= _accounts(missing)
    return {job: found[job] for job in jobs if job in found}


def possible(script: Path, *, folder: Path) -> str:
    """Why a job may never start, as Slurm sees its nodes now; empty where it may, or where Slurm does not say."""
    ran = _ask(["sbatch", "--test-only", str(script)], folder=folder)
    return _complaint(ran) if not isinstance(ran, Away) and ran.returncode else ""


def folder_of(job: str) -> Path | None:
    """A job's working directory, which is its run's; None where Slurm does not know it."""
    if not job.replace("_", "").isdecimal():
        return None
    ran = _ask(["squeue", "--noheader", "--states=all", f"--jobs={job}", "--Format=WorkDir:4000"])
    known = not isinstance(ran, Away) and not ran.returncode and ran.stdout.strip()
    return Path(known.splitlines()[0].rstrip()) if known else None


def cancel(jobs: Sequence[str]) -> Away | None:
    """Ask for the end of jobs; one that has ended, or that Slurm has forgotten, is none to complain about."""
    ran = _ask(["scancel", *jobs])
    if isinstance(ran, Away):
        return ran
    why = _complaint(ran)
    if ran.returncode and not any(words in why.lower() for words in ("invalid job id", "already compl")):
        return Away(f"scancel: {why}")
    return None


def _squeue(line: str) -> tuple[str, Standing] | None:
    fields = [field.strip() for field in line.split("|")]
    if len(fields) < len(COLUMNS):
        return None
    job, state, restarts, nodes, node_list, reason, left = fields[: len(COLUMNS)]
    reason = "" if reason in ("None", node_list) else reason.strip("()")
    return job, Standing(state, _number(restarts), _number(nodes), node_list, reason, left)


def _accounts(jobs: Sequence[str]) -> dict[str, Standing]:
    """As sacct has it; nothing where no accounts are kept."""
    fields = "JobID,State,NNodes,NodeList,Reason"
    ran = _ask(["sacct", "-n", "-P", "-X", "-D", f"--jobs={','.join(jobs)}", f"--format={fields}"])
    if isinstance(ran, Away) or ran.returncode:
        return {}
    found = {}
    for line in ran.stdout.splitlines():
        if len(values := line.split("|")) == len(fields.split(",")):
            job, state, nodes, node_list, reason = values
            words = state.split()  # "CANCELLED by 1000"
            why = "" if reason in ("None", "") else reason
            found[job] = Standing(words[0] if words else "UNKNOWN", None, _number(nodes), node_list, why)
    return found


def _ask(
    command: Sequence[str], *, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> "subprocess.CompletedProcess[str] | Away":
    try:
        return subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=ANSWER_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Away(f"{command[0]}: no answer within {ANSWER_SECONDS:g} s")
    except OSError as error:
        where = " on PATH" if isinstance(error, FileNotFoundError) else ""
        return Away(f"{command[0]}: {error.strerror}{where}")


def _complaint(ran: "subprocess.CompletedProcess[str]") -> str:
    """What a command complained of, on one line. Its last line sums up what those before say with the names."""
    told = []
    for line in ran.stderr.splitlines():
        for prefix in (f"{ran.args[0]}: ", "error: ", "fatal: ", "allocation failure: "):
            line = line.removeprefix(prefix)
        if line.strip() and not line.startswith("Try "):
            told.append(line.strip())
    return shown("; ".join(dict.fromkeys(told[-3:])) or f"exit code {ran.returncode}", 300)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() and len(text) < 12 else None
