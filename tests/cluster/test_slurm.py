"""Runs as jobs of a real Slurm of four nodes."""

import json
import random
import subprocess
from pathlib import Path

import pytest

from hvdtrain.config.machines import JobConfig
from hvdtrain.config.schema import Config, RunConfig
from hvdtrain.slurm.script import script

from ..multiproc.conftest import HVDTRAIN
from .private_slurm import Slurm

pytestmark = pytest.mark.multiproc

LAUNCHERS = {"mpirun": [], "srun": ["--job.launcher=srun"]}
LONG = ["--epochs=500"]


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_run_on_two_nodes_is_followed_to_its_end(slurm: Slurm, launcher: str) -> None:
    run = slurm.submit("--job.nodes=2", *LAUNCHERS[launcher], name=f"whole-{launcher}")
    number = slurm.job_id(run)
    followed = subprocess.Popen(
        [HVDTRAIN, "logs", run, "-f"],
        env=slurm.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    status = slurm.hvdtrain("status", number, "--runs", slurm.runs, "-f", seconds=120)
    logs, _ = followed.communicate(timeout=60)

    assert status.returncode == 0, status.stderr + slurm.output(run)
    assert "RUNNING on n[1-2]" in status.stdout
    assert f"job         {number}  COMPLETED on n[1-2]  finished" in status.stdout
    assert f"job {number} on n[1-2], start 1, run {run}" in logs
    assert "2 workers on cpu" in logs
    assert "the run is over: finished" in logs
    assert logs == slurm.output(run)
    assert slurm.hvdtrain("wait", run).returncode == 0
    workers = json.loads((run / "environment.json").read_text())["workers"]
    assert len(workers) == 2
    listed = json.loads(slurm.hvdtrain("jobs", "--runs", slurm.runs, "--json").stdout)
    assert {"id": number, "state": "COMPLETED", "restarts": 0, "nodes": 2}.items() <= next(
        job for job in listed if job["run"] == str(run)
    ).items()

    again = slurm.hvdtrain("submit", "--config=demo", f"--run.dir={slurm.runs}", f"--run.name={run.name}")
    assert again.returncode == 2
    assert "holds a finished run" in again.stderr


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_two_workers_on_each_of_two_nodes_are_cancelled_and_do_not_come_back(slurm: Slurm, launcher: str) -> None:
    two = ["--job.nodes=2", "--job.workers_per_node=2"]
    run = slurm.submit(*two, *LONG, *LAUNCHERS[launcher], name=f"cancelled-{launcher}")
    slurm.until("training", lambda: slurm.steps(run) >= 2, run=run)
    assert slurm.job(run)["state"] == "RUNNING"
    assert json.loads((run / "events.jsonl").read_text().splitlines()[0])["world_size"] == 4
    second = slurm.hvdtrain("submit", "--config=demo", f"--run.dir={slurm.runs}", f"--run.name={run.name}")
    assert second.returncode == 2
    assert "is RUNNING" in second.stderr

    ended = slurm.hvdtrain("cancel", run, seconds=120)
    assert ended.returncode == 0, ended.stderr
    assert "CANCELLED" in ended.stdout
    assert slurm.state(run) == "CANCELLED"
    assert slurm.hvdtrain("cancel", run).returncode == 0
    assert slurm.hvdtrain("wait", run).returncode == 130
    assert "requeued\n" not in slurm.output(run)
    slurm.until("the end of all jobs", lambda: not slurm.ask("squeue", "-h", "-o", "%i").split())


def test_scancel_ends_a_job_for_good(slurm: Slurm) -> None:
    run = slurm.submit("--job.nodes=2", *LONG, name="scancelled")
    slurm.until("training", lambda: slurm.steps(run) >= 1, run=run)
    slurm.ask("scancel", slurm.job_id(run))
    slurm.until("the end", lambda: slurm.state(run) == "CANCELLED", run=run)
    slurm.until("the end of all jobs", lambda: not slurm.ask("squeue", "-h", "-o", "%i").split())
    assert slurm.job(run)["live"] is False
    assert slurm.state(run) == "CANCELLED"
    assert "requeued\n" not in slurm.output(run)


def test_a_job_that_waits_has_a_status_and_is_cancelled(slurm: Slurm) -> None:
    run = slurm.submit("--job.nodes=1", "--job.sbatch", "hold=", name="waits")
    status = slurm.hvdtrain("status", run)
    assert status.returncode == 0
    assert status.stdout.startswith(f"job         {slurm.job_id(run)}  PENDING  JobHeldUser")
    told = json.loads(slurm.hvdtrain("status", run, "--json").stdout)
    assert told["run"] == "waits"
    assert told["job"]["state"] == "PENDING"
    assert "printed nothing" in slurm.hvdtrain("logs", run).stderr
    assert slurm.hvdtrain("cancel", slurm.job_id(run), "--runs", slurm.runs).returncode == 0
    assert slurm.hvdtrain("wait", run).returncode == 130


def test_an_array_is_so_many_runs_with_seeds_of_their_own(slurm: Slurm) -> None:
    slurm.submit("--job.sbatch", "array=0-1", "--seed=5", "--max_steps=3", name="many")
    runs = [slurm.runs / "many-0", slurm.runs / "many-1"]
    for task, run in enumerate(runs):
        assert slurm.hvdtrain("wait", run, seconds=120).returncode == 0, slurm.output(run)
        assert f"seed: {5 + task}\n" in (run / "config.yaml").read_text()
        assert slurm.job_id(run).endswith(f"_{task}")


def test_a_scaling_job_compares_runs_on_more_and_more_nodes(slurm: Slurm) -> None:
    run = slurm.submit("--scaling=1,2", "--max_steps=60", "--run.report_every=4", name="scaling")
    assert slurm.hvdtrain("wait", run, seconds=170).returncode == 0, slurm.output(run)
    printed = slurm.output(run)
    assert "1 nodes of 1 workers" in printed
    assert "2 nodes of 1 workers" in printed
    assert (run / "proof.html").stat().st_size > 10_000
    ratios = [
        record["efficiency"]["ratio"]
        for line in (slurm.runs / "scaling-2" / "events.jsonl").read_text().splitlines()
        if (record := json.loads(line))["event"] == "report" and record["efficiency"]
    ]
    assert ratios, printed  # of the speed on one node, which the run before has left


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--job.partition=nope"], "invalid partition specified: nope"),
        (["--job.time_limit=banana"], "Invalid --time specification"),
        (["--job.gpus_per_node=1"], "Invalid generic resource (gres) specification"),
        (["--job.sbatch", "nodelist=n9"], "Invalid node name specified"),
        (["--job.sbatch", "constraint=fast"], "Invalid feature specification"),
    ],
)
def test_what_sbatch_refuses_is_one_line(slurm: Slurm, options: list[str], said: str) -> None:
    ran = slurm.hvdtrain("submit", "--config=demo", f"--run.dir={slurm.runs}", "--run.name=refused", *options)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.count("\n") == 1
    assert said in ran.stderr


def test_more_nodes_than_there_are_is_said_at_once(slurm: Slurm) -> None:
    ran = slurm.hvdtrain("submit", "--config=demo", f"--run.dir={slurm.runs}", "--run.name=large", "--job.nodes=99")
    assert ran.returncode == 0
    assert "Requested node configuration is not available" in ran.stderr


def test_sbatch_understands_200_of_the_nastiest_names(slurm: Slurm, tmp_path: Path) -> None:
    draw = random.Random(7)
    alphabet = "ab1 -'\"\\\n\t$()`{};|&<>*?~!#%jü☃\r\x1b="
    for _ in range(200):
        run, value = ("".join(draw.choices(alphabet, k=draw.randint(1, 12))) for _ in range(2))
        free = {"wckey": value} if value.isprintable() else {}
        config = Config(run=RunConfig(dir=slurm.runs, name=run), job=JobConfig(nodes=2, sbatch=free))
        (tmp_path / "job.sbatch").write_text(script(config, run_dir=config.run_dir, path=Path("/opt/bin")))
        ran = slurm.run("sbatch", "--test-only", tmp_path / "job.sbatch")
        assert ran.returncode == 0, f"{run!r}, {value!r}: {ran.stderr}"
        assert "using 2 processors on nodes n[1-2]" in ran.stderr, ran.stderr
