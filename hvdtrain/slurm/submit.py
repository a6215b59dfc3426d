"""A configuration becomes a job: its run directory gets what the job needs, and Slurm or this machine the job."""

import os
import platform
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel

from hvdtrain.config.checks import expanded
from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.distributed import launch
from hvdtrain.errors import ConfigError
from hvdtrain.slurm import client, jobs, launcher, local, options, record
from hvdtrain.slurm.script import ARRAY, script
from hvdtrain.train.recipe import micro_batches

BY_VALUE = {"auto", "never", "none", ""}  # what is no path where a path may stand


def resolved(config: Config) -> Config:
    """The same with absolute paths: the job may begin in another folder.

    Raises:
        ConfigError: one of them names a home that is not known here.
    """
    data, metrics = ("quarantine", "stage_dir"), ("tls_certificate", "tls_key", "client_ca")
    text = {
        "run": {"name": config.run_name},
        "data": {key: _path(f"data.{key}", getattr(config.data, key)) for key in data},
        "metrics": {key: _path(f"metrics.{key}", getattr(config.metrics, key)) for key in metrics},
    }
    sections = {
        name: section.model_copy(update=_paths(name, section) | text.get(name, {}))
        for name in Config.model_fields
        if isinstance(section := getattr(config, name), BaseModel)
    }
    return config.model_copy(update=sections | {"resume": _path("resume", config.resume)})


def text(config: Config, *, on_this_machine: bool = False) -> str:
    """The batch script of a resolved configuration; touches nothing.

    Raises:
        ConfigError: as `script`, an array without Slurm, workers that come and go, and a number of workers that cannot
            share the minibatch evenly.
        EnvironmentFault: there is no hvdtrain that could be started.
    """
    if on_this_machine and ARRAY in config.job.sbatch:
        raise ConfigError("job.sbatch array: only Slurm has arrays", remedy="one hvdtrain submit --local for each run")
    if config.elastic.enabled:
        raise ConfigError(
            "elastic.enabled = True: expected false for a job, whose workers mpirun or srun starts again as one",
            remedy="without --elastic; docs/elastic.md has the other way",
        )
    micro_batches(config, config.job.nodes * launcher.workers_per_node(config.job))
    return script(config, run_dir=config.run_dir, path=program_folder(config), local=on_this_machine)


def program_folder(config: Config) -> Path:
    """Of the hvdtrain that a job starts.

    Raises:
        EnvironmentFault: there is none.
    """
    return Path(config.job.path or Path(launch.program("hvdtrain")).parent)


def submit(config: Config, *, command: Sequence[str], on_this_machine: bool = False, again: bool = False) -> list[Path]:
    """Make a job of a resolved configuration.

    Args:
        command: the words that were typed, for the record.
        again: go on with a run that is there.

    Returns:
        The run directories: one, or one for each task of an array.

    Raises:
        ConfigError: the run is going on, or finished; or Slurm refuses the job.
        EnvironmentFault: there is no Slurm, or the run directory cannot be written.
    """
    tasks = options.array_tasks(config.job.sbatch[ARRAY]) if ARRAY in config.job.sbatch else []
    folder = config.run_dir
    runs = [folder.with_name(f"{folder.name}-{task}") for task in tasks] or [folder]
    batch = text(config, on_this_machine=on_this_machine)
    for job in jobs.every(runs):
        jobs.must_be_over(job)
    for run_dir in runs:
        if not again and record.finished(run_dir):
            raise ConfigError(f"{run_dir} holds a finished run", remedy="another --run.name, or hvdtrain resume")
    with record.unless_refused(folder, config=to_yaml(config), script=batch):
        for run_dir in runs:
            record.clear(run_dir)
        if on_this_machine:
            _start(folder, command)
            return runs
        job_id = client.submit(folder / record.SCRIPT, folder=folder)
        for run_dir, name in zip(runs, [f"{job_id}_{task}" for task in tasks] or [job_id], strict=True):
            record.add(run_dir, record.submitted("slurm", name, command, output=f"slurm-{name}.out"))
    return runs


def _start(folder: Path, command: Sequence[str]) -> None:
    output = f"job-{len(record.submissions(folder)) + 1}.out"
    pid, born = local.start(folder / record.SCRIPT, output=folder / output)
    submission = record.submitted("local", f"local-{pid}", command, output=output, host=platform.node(), born=born)
    record.add(folder, submission)


def _paths(of: str, section: BaseModel) -> dict[str, object]:
    """Those of a section's fields that are paths, or several."""
    found: dict[str, object] = {}
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, Path):
            found[name] = _absolute(f"{of}.{name}", value)
        elif isinstance(value, tuple) and value and all(isinstance(each, Path) for each in value):
            found[name] = tuple(_absolute(f"{of}.{name}", each) for each in value)
    return found


def _absolute(key: str, path: Path) -> Path:
    return Path(os.path.abspath(expanded(key, path)))  # noqa: PTH100 - a link stays the name that it has on all nodes


def _path(key: str, value: str) -> str:
    return value if value in BY_VALUE else str(_absolute(key, Path(value)))
