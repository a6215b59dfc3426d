"""The batch script as text: its lines for sbatch, and that no configuration is code in it."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from hvdtrain.config.machines import JobConfig
from hvdtrain.config.recipe import DataConfig
from hvdtrain.config.schema import Config, RunConfig
from hvdtrain.errors import ConfigError
from hvdtrain.slurm.script import job_name, script

BIN = Path("/opt/hvdtrain/bin")
NASTY = "ab -'\"\\\n\t$(id)`id`{};|&<>*?~!#%%j=ü☃\r\x1b"


def made(run: str = "r50", *, folder: str = "/runs", data: str = "/data", **job: Any) -> str:
    config = Config(run=RunConfig(dir=Path(folder), name=run), data=DataConfig(dir=Path(data)), job=JobConfig(**job))
    return script(config, run_dir=config.run_dir, path=BIN)


def lines(text: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in text.splitlines() if line.startswith("#SBATCH")]


def values(text: str, *names: str) -> dict[str, list[str]]:
    """What bash itself makes of the lines that name values."""
    start, end = text.index("\nrun=") + 1, text.rindex("\n\n# Whoever warns")
    show = "".join(f"printf '%s\\0' \"${{{name}[@]}}\"; printf 'END\\0'\n" for name in names)
    ran = subprocess.run(
        ["bash", "--norc"], input=f"{text[start:end]}\n{show}".encode(), capture_output=True, check=True
    )
    assert ran.stderr == b""
    parts = ran.stdout.decode("utf-8", "surrogateescape").split("\0END\0")
    return {name: part.split("\0") for name, part in zip(names, parts, strict=False)}


def test_what_sbatch_is_told() -> None:
    job = {"nodes": 2, "gpus_per_node": 8, "cores_per_worker": 6, "time_limit": "1-00:00:00", "partition": "gpu"}
    text = made(account="mine", sbatch={"qos": "high", "exclusive": "", "constraint": "a&b"}, **job)
    assert lines(text) == [
        "--job-name=r50",
        "--nodes=2",
        "--ntasks-per-node=8",
        "--gpus-per-node=8",
        "--cpus-per-task=6",
        "--time=1-00:00:00",
        "--partition=gpu",
        "--account=mine",
        "--signal=B:USR2@120",
        "--requeue",
        "--open-mode=append",
        "--output=/runs/r50/slurm-%j.out",
        "--comment=hvdtrain",
        "--constraint='a&b'",
        "--exclusive",
        "--qos=high",
    ]


def test_what_is_not_wanted_is_not_asked_for() -> None:
    told = lines(made(warn_seconds=0, max_requeues=0))
    assert "--no-requeue" in told
    assert not [line for line in told if line.startswith(("--signal", "--gpus", "--cpus", "--time", "--requeue"))]


def test_the_workers_of_mpirun_and_srun() -> None:
    train = "hvdtrain train --config /runs/r50/submitted.yaml --resume auto"
    found = values(made(nodes=3, workers_per_node=2), "launcher", "worker")
    assert " ".join(found["launcher"]) == "hvdtrain launch mpirun --bind-to none -np 6 --map-by ppr:2:node"
    assert " ".join(found["worker"]) == train
    found = values(made(nodes=3, launcher="srun", mpi="pmix_v4"), "launcher")
    assert " ".join(found["launcher"]) == "srun --mpi=pmix_v4 --kill-on-bad-exit=1"


def test_containers() -> None:
    found = values(made(container="a b.sif", gpus_per_node=1), "launcher")["launcher"]
    assert found[-8:] == [
        *("apptainer", "exec", "--nv"),
        *("--mount", 'type=bind,"source=/runs","destination=/runs"'),
        *("--mount", 'type=bind,"source=/data","destination=/data"', "a b.sif"),
    ]
    pyxis = {"container": "hub/x:1", "container_runtime": "pyxis"}
    found = values(made(launcher="srun", **pyxis), "launcher")["launcher"]
    assert found[-2:] == ["--container-image=hub/x:1", "--container-mounts=/runs:/runs,/data:/data"]
    with pytest.raises(ConfigError, match=r"expected job.launcher = srun"):
        made(**pyxis)


@pytest.mark.parametrize("key", ["time_limit", "partition", "account"])
def test_a_setting_of_several_lines_is_refused(key: str) -> None:
    with pytest.raises(ConfigError, match=f"job.{key} = .*expected printable characters on one line"):
        made(**{key: "a\n#SBATCH --wrap=id"})


def test_where_sbatch_cannot_name_the_output_the_script_opens_it() -> None:
    for folder in ("/a\\b", "/a\nb"):
        text = made(folder=folder)
        assert "--output=/dev/null" in lines(text)
        assert values(text, "own_log")["own_log"] == ["yes"]


names = st.text(alphabet=st.sampled_from(NASTY), min_size=1, max_size=12) | st.text(
    alphabet=st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=12
)


@settings(max_examples=200)
@given(run=names, folder=names, option=names, module=names)
@example(run="$(touch x)", folder="`id`", option="a\\b", module="-rf")
@example(run="'", folder='"', option="%j", module="\n")
def test_whatever_things_are_called_bash_reads_them_back_and_runs_nothing(
    run: str, folder: str, option: str, module: str
) -> None:
    if run in (".", ".."):
        return
    sbatch = {"qos": option} if option.isprintable() else {}
    text = made(run, folder=f"/runs/{folder}", modules=(module,), container=option, sbatch=sbatch)
    assert subprocess.run(["bash", "-n"], input=text.encode(), check=False).returncode == 0
    found = values(text, "run", "modules", "launcher", "worker", "name")
    where = f"{Path('/runs') / folder / run}"
    assert found["run"] == [where]
    assert found["modules"] == [module]
    assert found["launcher"][-1] == option
    assert found["worker"][3] == f"{where}/submitted.yaml"
    assert found["name"] == [run]
    for line in text[: text.index("\nrun=")].splitlines():
        assert not line or line.startswith("#"), line


@given(names)
def test_a_jobs_name_is_plain(name: str) -> None:
    told = job_name(name)
    assert told
    assert told.isascii()
    assert told.isprintable()
    assert not set(told) & set(" '\"\\#%$`")
    assert not told.startswith("-")
