"""A configuration -> the batch script. Pure: the same configuration and paths make the same text.

The script is lines for sbatch, lines that name values, and a body that is the same for all (body.sh). No character of a
configuration is code in it: for sbatch and for bash alike every value is quoted.
"""

import shlex
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from hvdtrain.config.checks import shown
from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError
from hvdtrain.slurm import launcher, options

MOST_NAME = 60  # characters of a job's name
ARRAY = "array"  # the option that makes many runs of one


def script(config: Config, *, run_dir: Path, path: Path, local: bool = False) -> str:
    """The batch script of a run.

    Args:
        run_dir: absolute; submitted.yaml is there. Of an array's tasks it is this with their ids behind.
        path: folder of the `hvdtrain` that the workers are.
        local: for this machine, without Slurm.

    Raises:
        ConfigError: settings of the job that are none of sbatch's, or no text for it.
    """
    job, mounts = config.job, folders(config)
    start = launcher.on_this_machine(job, mounts=mounts) if local else launcher.in_job(job, mounts=mounts)
    train = ["hvdtrain", "train", "--config", str(run_dir / "submitted.yaml"), "--resume", "auto"]
    values = first_values(config, run_dir=run_dir, path=path, local=local) | {
        "most_requeues": str(job.max_requeues),
        "launcher": start,
        "worker": train,
        "name": run_dir.name,
        "seed": str(config.seed),
    }
    return whole(header(config, run_dir=run_dir), values, body("warned.sh"), body("begin.sh"), body("body.sh"))


def folders(config: Config) -> tuple[Path, ...]:
    """Those that workers read and write, as a container has to be told."""
    data = (config.data.dir,) if config.data.source == "images" else ()
    return (config.run.dir, *data)


def first_values(config: Config, *, run_dir: Path, path: Path, local: bool = False) -> dict[str, str | Sequence[str]]:
    """What begin.sh uses."""
    return {
        "run": str(run_dir),
        "bin": str(path),
        "modules": config.job.modules,
        "sources": [str(file) for file in config.job.source],
        "own_log": "" if local or _writable(run_dir) else "yes",
    }


def whole(lines: Sequence[str], values: Mapping[str, str | Sequence[str]], *bodies: str) -> str:
    """#SBATCH lines, assignments, and what uses them."""
    assignments = [f"{name}={_bash(value)}" for name, value in values.items()]
    return "\n".join(["#!/bin/bash", *lines, "", *assignments, "", *bodies])


def body(name: str) -> str:
    """Of a script of this package, without its first lines, which are for shellcheck."""
    text = (resources.files("hvdtrain.slurm") / name).read_text(encoding="utf-8")
    return text.partition("\n\n")[2]


def header(config: Config, *, run_dir: Path, requeue: bool = True) -> list[str]:
    """The #SBATCH lines.

    Raises:
        ConfigError: a setting that sbatch would not understand.
    """
    job = config.job
    options.check(job.sbatch)
    for key in ("time_limit", "partition", "account"):
        if not (value := getattr(job, key)).isprintable():
            raise ConfigError(f"job.{key} = {shown(value)}: expected printable characters on one line")
    given = {
        "job-name": job_name(config.run_name),
        "nodes": str(job.nodes),
        "ntasks-per-node": str(launcher.workers_per_node(job)),
        "gpus-per-node": str(job.gpus_per_node or ""),
        "cpus-per-task": str(job.cores_per_worker or ""),
        "time": job.time_limit,
        "partition": job.partition,
        "account": job.account,
        "signal": f"B:USR2@{job.warn_seconds}" if job.warn_seconds else "",
    }
    lines = [_sbatch(name, value) for name, value in given.items() if value]
    lines.append(_sbatch("requeue" if requeue and job.max_requeues else "no-requeue", ""))
    lines += [_sbatch("open-mode", "append"), _sbatch("output", output(run_dir, array=ARRAY in job.sbatch))]
    lines.append(_sbatch("comment", "hvdtrain"))
    return [*lines, *(_sbatch(name, job.sbatch[name]) for name in sorted(job.sbatch))]


def job_name(name: str) -> str:
    """What squeue shows of a run's name: letters, digits and a few signs that mean nothing to sbatch or a shell.

    >>> job_name("r50 lr=0.1"), job_name("$(id)%j")
    ('r50_lr=0.1', '__id__j')
    """
    plain = "".join(c if c.isascii() and (c.isalnum() or c in "._=+@:,-") else "_" for c in name[:MOST_NAME])
    return plain.lstrip("-") or "_"


def output(run_dir: Path, *, array: bool) -> str:
    """The pattern of --output. It knows no way to write a backslash, and no line of a script has a line break: there
    the body itself opens the file.

    >>> output(Path("/runs/100%"), array=False), output(Path("/runs/r50"), array=True)
    ('/runs/100%%/slurm-%j.out', '/runs/r50-%a/slurm-%A_%a.out')
    """
    if not _writable(run_dir):
        return "/dev/null"
    escaped = str(run_dir).replace("%", "%%")
    return f"{escaped}-%a/slurm-%A_%a.out" if array else f"{escaped}/slurm-%j.out"


def _writable(folder: Path) -> bool:
    """In a pattern of sbatch's."""
    return "\\" not in str(folder) and str(folder).isprintable()


def _sbatch(name: str, value: str) -> str:
    """sbatch takes quotes as a shell does, but also minds a backslash between single ones."""
    quoted = shlex.quote(value).replace("\\", "\\\\")
    return f"#SBATCH --{name}={quoted}" if value else f"#SBATCH --{name}"


def _bash(value: str | Sequence[str]) -> str:
    if isinstance(value, str):
        return shlex.quote(value)
    return f"({' '.join(map(shlex.quote, value))})"
