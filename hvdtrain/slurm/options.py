"""The options of sbatch: which there are, which of them hvdtrain sets itself, and what may be passed through."""

import difflib
from collections.abc import Mapping

from hvdtrain.config.checks import shown
from hvdtrain.errors import ConfigError

# `sbatch --help` and sbatch(1) of Slurm 22.05, and what later ones have added up to 24.11; by their long names.
_NAMES = """
    account acctg-freq array batch bb bbf begin chdir cluster-constraint clusters comment constraint container
    container-id contiguous core-spec cores-per-socket cpu-freq cpus-per-gpu cpus-per-task deadline delay-boot
    dependency distribution error exclude exclusive export export-file external extra extra-node-info get-user-env gid
    gpu-bind gpu-freq gpus gpus-per-node gpus-per-socket gpus-per-task gres gres-flags hint hold ignore-pbs input
    job-name kill-on-invalid-dep licenses mail-type mail-user mcs-label mem mem-bind mem-per-cpu mem-per-gpu mincpus
    network nice no-kill no-requeue nodefile nodelist nodes ntasks ntasks-per-core ntasks-per-gpu ntasks-per-node
    ntasks-per-socket oom-kill-step open-mode output overcommit oversubscribe parsable partition power prefer priority
    profile propagate qos quiet reboot requeue reservation resv-ports segment signal sockets-per-node spread-job
    stepmgr switches test-only thread-spec threads-per-core time time-min tmp tres-bind tres-per-job tres-per-node
    tres-per-socket tres-per-task uid use-min-nodes verbose wait wait-all-nodes wckey wrap
"""
KNOWN = frozenset(_NAMES.split())

# What hvdtrain sets itself, and the setting that decides it.
OURS = {
    "account": "job.account",
    "cpus-per-task": "job.cores_per_worker",
    "gpus-per-node": "job.gpus_per_node",
    "job-name": "run.name",
    "nodes": "job.nodes",
    "ntasks-per-node": "job.workers_per_node",
    "partition": "job.partition",
    "requeue": "job.max_requeues",
    "no-requeue": "job.max_requeues=0",
    "signal": "job.warn_seconds",
    "time": "job.time_limit",
    "container": "job.container",
    "ntasks": "job.nodes and job.workers_per_node",
    "gpus": "job.nodes and job.gpus_per_node",
    "output": "run.dir",
    "error": "run.dir",
    "wait": "hvdtrain wait",
    "test-only": "hvdtrain submit --dry-run",
    "parsable": "hvdtrain submit",
    "quiet": "hvdtrain submit",
    "verbose": "hvdtrain submit",
    "wrap": "hvdtrain submit",
    "chdir": "absolute paths",
    "comment": "nothing: hvdtrain knows its jobs by it",
    "open-mode": "nothing: a requeued job has to append",
    "clusters": "the variable SLURM_CLUSTERS",
}
VALID = KNOWN - OURS.keys()


def check(options: Mapping[str, str]) -> None:
    """`job.sbatch`: every name is one of sbatch's that hvdtrain leaves free, and every value fits on a line.

    Raises:
        ConfigError: what is wrong, and what would be right.
    """
    for name, value in options.items():
        if name in OURS:
            raise ConfigError(f"job.sbatch {name}: hvdtrain sets it itself", remedy=f"use {OURS[name]}")
        if name not in VALID:
            near = difflib.get_close_matches(name.lower()[:40], VALID, n=1, cutoff=0.5)
            nearest = f"; the nearest is {near[0]}" if near else ""
            raise ConfigError(
                f"job.sbatch {shown(name)}: no option of sbatch{nearest}; valid are {', '.join(sorted(VALID))}"
            )
        if not value.isprintable():
            raise ConfigError(f"job.sbatch {name} = {shown(value)}: expected printable characters on one line")


def array_tasks(spec: str) -> list[int]:
    """The task ids of an option --array, rising.

    >>> array_tasks("0-3"), array_tasks("1,5-9:2%2")
    ([0, 1, 2, 3], [1, 5, 7, 9])

    Raises:
        ConfigError: it is no list of ids.
    """
    tasks: set[int] = set()
    try:
        for part in spec.partition("%")[0].split(","):
            span, _, step = part.partition(":")
            first, dash, last = span.partition("-")
            if (dash and not last) or len(first) > 8 or len(last) > 8:
                raise ValueError
            ids = range(int(first), int(last or first) + 1, int(step or 1))
            if not ids or ids[0] < 0 or len(ids) > MOST_TASKS:
                raise ValueError
            tasks.update(ids)
    except ValueError:
        raise ConfigError(f"job.sbatch array = {shown(spec)}: expected ids such as 0-3, 1,5,7 or 0-15%4") from None
    return sorted(tasks)


MOST_TASKS = 10_000  # of an array; Slurm's own default is 1,001
