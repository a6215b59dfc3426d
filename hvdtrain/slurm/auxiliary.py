"""Jobs beside a training run: short runs on more and more nodes, benches, and the preparation of data."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hvdtrain.config.checks import shown
from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError
from hvdtrain.slurm import client, jobs, launcher, record
from hvdtrain.slurm.script import ARRAY, body, first_values, folders, header, whole

BENCH_ROUNDS = 3
STEPS = 220  # of each run of a scaling job that does not say how many: eleven reports
ARCHIVES = {
    "--train": "ILSVRC2012_img_train.tar",
    "--val": "ILSVRC2012_img_val.tar",
    "--devkit": "ILSVRC2012_devkit_t12.tar.gz",
}


def for_scaling(config: Config, counts: str) -> tuple[Config, list[int]]:
    """The configuration of the runs of a scaling job, and their numbers of nodes: each is compared with the first.

    Scaling is weak: every worker takes one batch of n images for a step, however many workers there are.

    Raises:
        ConfigError: `counts` is no list of rising numbers.
    """
    nodes = _rising("--scaling", counts)
    job = config.job.model_copy(update={"nodes": nodes[-1], "warn_seconds": 0})
    workers = nodes[0] * launcher.workers_per_node(job)
    speeds = {
        "baseline": "stored",
        "baseline_workers": workers,
        "baselines_dir": config.run_dir / "baselines",
    }
    evaluation = config.evaluation.model_copy(update={"at_end": False, "first_epoch": config.epochs})
    changed = {
        "max_steps": config.max_steps or STEPS,
        "train": config.train.model_copy(update={"global_batch_size": None}),
        "metrics": config.metrics.model_copy(update=speeds),
        "evaluation": evaluation,
        "job": job,
    }
    return config.model_copy(update=changed), nodes


def scaling(config: Config, nodes: Sequence[int], *, path: Path) -> str:
    """The batch script of what `for_scaling` made of a resolved configuration.

    Raises:
        ConfigError: settings of the job that are none of sbatch's; an array.
    """
    job, run_dir, mounts = config.job, config.run_dir, folders(config)
    values = first_values(config, run_dir=run_dir, path=path) | {
        "nodes": [str(count) for count in nodes],
        "workers_per_node": str(launcher.workers_per_node(job)),
        "launcher": launcher.program(job, mounts=mounts),
        "container": launcher.container(job, mounts=mounts),
        "worker": ["hvdtrain", "train", "--config", str(run_dir / record.CONFIG), "--resume", "auto"],
        "name": run_dir.name,
        "runs": str(run_dir.parent),
    }
    return whole(_header(config, requeue=False), values, body("begin.sh"), body("scaling.sh"))


def for_benches(config: Config, counts: str) -> tuple[Config, list[int]]:
    """The configuration of a job of benches, and the numbers of nodes that training is measured on.

    Raises:
        ConfigError: `counts` is no list of rising numbers.
    """
    nodes = _rising("--bench", counts)
    job = config.job.model_copy(update={"nodes": nodes[-1], "warn_seconds": 0})
    return config.model_copy(update={"job": job}), nodes


def benches(config: Config, nodes: Sequence[int], *, path: Path) -> str:
    """The batch script of what `for_benches` made of a resolved configuration.

    The benches run in the batch script, on the first node; what starts the workers of a training run is told to them as
    words in which {workers} and {nodes} stand for numbers.

    Raises:
        ConfigError: settings of the job that are none of sbatch's; an array.
    """
    job, run_dir, mounts = config.job, config.run_dir, folders(config)
    each = launcher.workers_per_node(job)
    where = (
        ["--nodes={nodes}", "--ntasks={workers}", f"--ntasks-per-node={each}"]
        if job.launcher == "srun"
        else ["-np", "{workers}", "--map-by", f"ppr:{each}:node"]
    )
    container = launcher.container(job, mounts=mounts)
    start = [*launcher.program(job, mounts=mounts), *where, *container]
    device = "cuda" if job.gpus_per_node else "cpu"
    bench = ["hvdtrain", "bench"]
    # Where a node has one GPU, none of its sums leaves the worker.
    sums = [*container, *bench, "allreduce"] if job.gpus_per_node != 1 else []
    one_node = ["--workers", str(max(each, 2)), "--device", device, "--model", config.model.name]
    train = ["--config", str(run_dir / record.CONFIG), "--kind", "weak", "--per-node", str(each)]
    train += ["--rounds", str(BENCH_ROUNDS), "--launcher", shlex.join(start)]
    values = first_values(config, run_dir=run_dir, path=path) | {
        "workers": ",".join(str(count * each) for count in nodes),
        "workers_per_node": str(each),
        "launcher": launcher.program(job, mounts=mounts),
        "allreduce": [*sums, *one_node, "--json", str(run_dir / "allreduce.json")] if sums else [],
        "scaling": [*bench, "scaling", *train, "--json", str(run_dir / "scaling.json"), "--dir", str(run_dir)],
    }
    return whole(_header(config, requeue=False), values, body("begin.sh"), body("bench.sh"))


def for_preparing(config: Config) -> Config:
    """One task on one node; its folder of a job is that of a run called prepare, unless it has a name."""
    job = config.job.model_copy(update={"nodes": 1, "workers_per_node": 1, "gpus_per_node": 0, "warn_seconds": 0})
    return config.model_copy(update={"job": job})


def prepare(config: Config, archives: Path, *, path: Path) -> str:
    """The batch script that makes `data.dir` of the archives in a folder and verifies it.

    Raises:
        ConfigError: as `scaling`.
    """
    mounts, job = (*folders(config), archives), config.job
    pyxis = bool(job.container) and job.container_runtime == "pyxis"
    started = launcher.program(job, mounts=mounts) if pyxis else launcher.container(job, mounts=mounts)
    named = [word for option, name in ARCHIVES.items() for word in (option, str(archives / name))]
    values = first_values(config, run_dir=config.run_dir, path=path) | {
        "launcher": started,
        "prepare": ["hvdtrain", "data", "prepare", str(config.data.dir), *named],
        "verify": ["hvdtrain", "data", "verify", str(config.data.dir)],
    }
    return whole(_header(config, requeue=True), values, body("begin.sh"), body("prepare.sh"))


def submit(config: Config, batch: str, *, command: Sequence[str]) -> list[Path]:
    """Hand one of these scripts in; the folder of its job.

    Raises:
        ConfigError: its job is going on; or Slurm refuses it.
        EnvironmentFault: there is no Slurm, or the folder cannot be written.
    """
    folder = config.run_dir
    job = jobs.of(folder)
    if job:
        jobs.must_be_over(job)
    with record.unless_refused(folder, config=to_yaml(config), script=batch):
        record.clear(folder)
        number = client.submit(folder / record.SCRIPT, folder=folder)
    record.add(folder, record.submitted("slurm", number, command, output=f"slurm-{number}.out"))
    return [folder]


def _rising(option: str, counts: str) -> list[int]:
    words = counts.split(",")
    nodes = [int(word) for word in words if word.isdecimal() and len(word) < 6]
    if len(nodes) != len(words) or nodes != sorted(set(nodes)) or nodes[0] < 1:
        raise ConfigError(f"{option} {shown(counts)}: expected rising numbers of nodes such as 1,2,4")
    return nodes


def _header(config: Config, *, requeue: bool) -> list[str]:
    if ARRAY in config.job.sbatch:
        raise ConfigError("job.sbatch array: expected none but with a training run")
    return header(config, run_dir=config.run_dir, requeue=requeue)
