"""The command lines by which workers start within a job. Pure."""

from collections.abc import Sequence
from pathlib import Path

from hvdtrain.config.machines import JobConfig
from hvdtrain.errors import ConfigError


def workers_per_node(job: JobConfig) -> int:
    return job.workers_per_node or job.gpus_per_node or 1


def in_job(job: JobConfig, *, mounts: Sequence[Path]) -> list[str]:
    """Of a job of Slurm's, before the words of the worker itself: Slurm tells mpirun and srun the hosts.

    Args:
        mounts: folders that a container needs.

    Raises:
        ConfigError: pyxis is srun's, and mpirun knows nothing of it.
    """
    each = workers_per_node(job)
    where = ["-np", str(job.nodes * each), "--map-by", f"ppr:{each}:node"] if job.launcher == "mpirun" else []
    return [*program(job, mounts=mounts), *where, *container(job, mounts=mounts)]


def program(job: JobConfig, *, mounts: Sequence[Path]) -> list[str]:
    """mpirun runs under `hvdtrain launch`, for it would wait for ever for a lost host; srun does not, and its workers
    are no descendants of anything that could be watched."""
    pyxis = bool(job.container) and job.container_runtime == "pyxis"
    if job.launcher == "srun":
        srun = ["srun", f"--mpi={job.mpi}", "--kill-on-bad-exit=1"]
        pairs = ",".join(f"{folder}:{folder}" for folder in mounts)
        return [*srun, f"--container-image={job.container}", f"--container-mounts={pairs}"] if pyxis else srun
    if pyxis:
        raise ConfigError(
            "job.container_runtime = pyxis: expected job.launcher = srun, of which pyxis is a plug-in",
            remedy="--job.launcher srun, or --job.container_runtime apptainer",
        )
    return ["hvdtrain", "launch", "mpirun", "--bind-to", "none"]


def on_this_machine(job: JobConfig, *, mounts: Sequence[Path]) -> list[str]:
    """As many workers as the job would have, whatever cores there are."""
    count = str(job.nodes * workers_per_node(job))
    mpirun = ["hvdtrain", "launch", "mpirun", "--oversubscribe", "--bind-to", "none", "-np", count]
    return [*mpirun, *container(job, mounts=mounts)]


def container(job: JobConfig, *, mounts: Sequence[Path]) -> list[str]:
    """Empty where there is no container, or another runtime's."""
    if not job.container or job.container_runtime != "apptainer":
        return []
    binds = [word for folder in mounts for word in ("--mount", f'type=bind,"source={folder}","destination={folder}"')]
    return ["apptainer", "exec", *(["--nv"] if job.gpus_per_node else []), *binds, job.container]
