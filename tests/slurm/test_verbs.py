"""submit, jobs, status, logs, cancel, resume and wait, over a Slurm that is a few scripts."""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from hvdtrain.cli import main
from hvdtrain.config.load import to_yaml
from hvdtrain.config.schema import Config
from hvdtrain.distributed import launch
from hvdtrain.slurm import output
from tests.slurm.conftest import Answer, row
from tests.slurm.fakes import calls

Output = pytest.CaptureFixture[str]


@pytest.fixture
def runs(tmp_path: Path, answers: Answer, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Slurm takes jobs, the first is 4711, and lets them wait."""
    next_number = 'n=4711; [[ ! -e ${0%/*}/n ]] || read -r n <"${0%/*}/n"; echo $((n + 1)) >"${0%/*}/n"; echo $n'
    answers("sbatch", f"[[ $1 == --test-only ]] || {{ {next_number}; }}")
    answers("squeue", row("4711", "PENDING", reason="(Resources)"))
    answers("scancel", "")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(launch, "program", lambda name: f"/opt/bin/{name}")
    return tmp_path / "runs"


def submit(*options: str) -> int:
    return main(["submit", "--config", "demo", "--run.name", "r50", *options])


def told(capsys: Output, *arguments: str, code: int = 0) -> str:
    """What a verb prints, both to people and about mistakes."""
    capsys.readouterr()
    assert main(arguments) == code
    out, err = capsys.readouterr()
    return out + err


def test_a_run_is_submitted(runs: Path, bin_folder: Path, capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["hvdtrain", "submit", "--x.token=abc"])
    assert submit("--data.dir", "images", "--job.nodes", "2") == 0
    run = runs / "r50"
    out = capsys.readouterr().out
    assert out.splitlines() == [
        f"job 4711: run {run}",
        f"  hvdtrain status {run} -f",
        f"  hvdtrain logs {run} -f",
        f"  hvdtrain cancel {run}",
    ]
    assert calls(bin_folder, "sbatch")[0] == f"--parsable {run}/job.sbatch"
    submitted = yaml.safe_load((run / "submitted.yaml").read_text())
    assert submitted["data"]["dir"] == str(runs.parent / "images")
    assert submitted["run"] == {**submitted["run"], "dir": str(runs), "name": "r50"}
    (listed,) = json.loads((run / "job.json").read_text())["submissions"]
    assert {"kind": "slurm", "id": "4711", "output": "slurm-4711.out"}.items() <= listed.items()
    assert listed["command"][-1] == "--x.token=***"


def test_a_dry_run_prints_just_that_script_and_touches_nothing(runs: Path, capsys: Output) -> None:
    printed = told(capsys, "submit", "--config", "demo", "--run.name", "r50", "--dry-run")
    assert not runs.exists()
    submit()
    assert (runs / "r50" / "job.sbatch").read_text() == printed


def test_workers_that_cannot_share_the_minibatch_are_refused_before_a_job_is_made(
    runs: Path, bin_folder: Path, capsys: Output
) -> None:
    job = ("--config", "goyal_r50_256", "--run.name", "r50", "--job.gpus_per_node", "8")
    for place in ((), ("--dry-run",), ("--local",)):
        said = told(capsys, "submit", *job, "--job.nodes", "2", *place, code=2)
        assert said == (
            "hvdtrain: train.global_batch_size = 256: expected a multiple of 512,"
            " for 16 workers of data.batch_size = 32"
            " → 8 workers, or --train.global_batch_size 512, or --data.batch_size 16\n"
        )
    assert not runs.exists()
    told(capsys, "submit", *job, "--job.nodes", "1")
    (runs / "r50" / "outcome").write_text("0 finished\n")
    assert "for 16 workers" in told(capsys, "resume", "r50", "--job.nodes", "2", code=2)
    assert len(calls(bin_folder, "sbatch")) == 2  # that job, and whether it can ever start


def test_a_live_job_and_a_finished_run_are_not_submitted_over(runs: Path, answers: Answer, capsys: Output) -> None:
    submit()
    run = runs / "r50"
    again = ["submit", "--config", "demo", "--run.name", "r50"]
    assert told(capsys, *again, code=2) == f"hvdtrain: {run}: job 4711 is PENDING → hvdtrain status {run}\n"
    answers("squeue", row("4711", "COMPLETED"))
    (run / "outcome").write_text("0 finished\n")
    assert "holds a finished run → another --run.name, or hvdtrain resume" in told(capsys, *again, code=2)
    (run / "outcome").write_text("75 stopped\n")
    told(capsys, *again)
    assert not (run / "outcome").exists()
    assert [each["id"] for each in json.loads((run / "job.json").read_text())["submissions"]] == ["4711", "4712"]


def test_a_refusal_leaves_no_job_behind(runs: Path, answers: Answer, capsys: Output) -> None:
    answers("sbatch", "echo 'sbatch: error: invalid partition specified: nope' >&2; exit 1")
    said = told(capsys, "submit", "--config", "demo", "--run.name", "r50", code=2)
    assert said.startswith("hvdtrain: sbatch: invalid partition specified: nope → sinfo")
    assert not (runs / "r50" / "job.json").exists()
    assert told(capsys, "jobs") == "no job of a run in runs\n"


@pytest.mark.parametrize("command", ["squeue", "sbatch"])
def test_where_nobody_knows_or_slurm_refuses_the_run_directory_stays_as_it_was(
    command: str, runs: Path, answers: Answer, capsys: Output
) -> None:
    submit()
    run = runs / "r50"
    answers("squeue", row("4711", "CANCELLED"))
    (run / "outcome").write_text("75 stopped\n")
    before = {name: (run / name).read_bytes() for name in ("submitted.yaml", "job.sbatch", "job.json")}
    answers(command, "echo 'error: Unable to contact slurm controller' >&2; exit 1")
    capsys.readouterr()
    said = told(capsys, "submit", "--config", "demo", "--run.name", "r50", "--seed", "9", code=3)
    assert "Unable to contact slurm controller" in said
    assert {name: (run / name).read_bytes() for name in before} == before


def test_a_job_that_may_never_start_is_told(runs: Path, answers: Answer, capsys: Output) -> None:
    answers(
        "sbatch", "[[ $1 != --test-only ]] || { echo 'allocation failure: not so many nodes' >&2; exit 1; }; echo 1"
    )
    submit()
    assert capsys.readouterr().err == "hvdtrain: it may never start: not so many nodes → sinfo\n"


def test_a_job_that_waits_is_listed_and_has_a_status(runs: Path, capsys: Output) -> None:
    submit()
    assert told(capsys, "jobs").splitlines()[1].split() == ["runs/r50", "4711", "PENDING", "0", "2", "Resources"]
    listed: Any = json.loads(told(capsys, "jobs", "--json"))
    assert (listed[0]["state"], listed[0]["reason"]) == ("PENDING", "Resources")
    for run in ("runs/r50", "r50", "4711"):
        assert told(capsys, "status", run) == "job         4711  PENDING  Resources\n"
    now = json.loads(told(capsys, "status", "r50", "--json"))
    assert (now["run"], now["job"]["id"], now["job"]["live"]) == ("r50", "4711", True)


def test_logs_are_those_of_all_submissions(runs: Path, answers: Answer, capfdbinary: Any) -> None:
    submit()
    assert main(["logs", "r50"]) == 2
    assert b"is PENDING (Resources) and has printed nothing" in capfdbinary.readouterr().err
    answers("squeue", row("4711", "FAILED"))
    submit()
    (runs / "r50" / "slurm-4711.out").write_bytes(b"first\n\xff\n")
    (runs / "r50" / "slurm-4712.out").write_bytes(b"second\n")
    capfdbinary.readouterr()
    assert main(["logs", "r50"]) == 0
    assert capfdbinary.readouterr().out == b"first\n\xff\nsecond\n"


def test_logs_are_followed_over_a_new_submission_to_the_end(tmp_path: Path) -> None:
    files = [tmp_path / "a"]
    files[0].write_text("1")
    looks = iter([False, False, False, True, True, True])

    def over() -> bool:
        answer = next(looks)
        if not answer and len(files) == 1:
            files[0].write_text("12")
            (tmp_path / "b").write_text("3")
            files.append(tmp_path / "b")
        elif answer:
            (tmp_path / "b").write_text("34")
        return answer

    assert b"".join(output.written(lambda: files, over=over)) == b"1234"


def test_a_run_is_resumed_as_it_was_with_another_job(runs: Path, answers: Answer, capsys: Output) -> None:
    submit("--seed", "5")
    answers("squeue", row("4711", "TIMEOUT"))
    told(capsys, "resume", "r50", "--job.time_limit", "60", "--job.nodes", "3")
    submitted = yaml.safe_load((runs / "r50" / "submitted.yaml").read_text())
    assert (submitted["seed"], submitted["resume"]) == (5, "auto")
    assert (submitted["job"]["time_limit"], submitted["job"]["nodes"]) == ("60", 3)
    assert "#SBATCH --time=60" in (runs / "r50" / "job.sbatch").read_text()
    assert "expected --job.* alone" in told(capsys, "resume", "r50", "--epochs", "3", code=2)
    assert "--seed" in told(capsys, "resume", "r50", "--seed", "3", code=2)


def test_workers_of_a_job_do_not_come_and_go(runs: Path, answers: Answer, capsys: Output) -> None:
    elastic = ("--elastic", "--train.global_batch_size", "32")
    said = told(capsys, "submit", "--config", "demo", "--run.name", "r50", *elastic, code=2)
    assert "elastic.enabled = True: expected false for a job" in said
    (runs / "r50").mkdir(parents=True)
    config = Config(elastic={"enabled": True}, train={"global_batch_size": 256})
    (runs / "r50" / "config.yaml").write_text(to_yaml(config))
    told(capsys, "resume", "r50")
    submitted = yaml.safe_load((runs / "r50" / "submitted.yaml").read_text())
    assert (submitted["elastic"]["enabled"], submitted["train"]["global_batch_size"]) == (False, 256)


def test_an_array_is_a_run_directory_for_each_task(runs: Path, answers: Answer, capsys: Output) -> None:
    submit("--job.sbatch", "array=0-2", "--seed", "7")
    assert capsys.readouterr().out.count("job 4711_") == 3
    answers("squeue", "; ".join(row(f"4711_{task}", "RUNNING") for task in range(3)))
    assert [line.split()[:2] for line in told(capsys, "jobs").splitlines()[1:]] == [
        [f"runs/r50-{task}", f"4711_{task}"] for task in range(3)
    ]
    assert "--output=" + f"{runs}/r50-%a/slurm-%A_%a.out" in (runs / "r50" / "job.sbatch").read_text()
    assert "only Slurm has arrays" in told(
        capsys, "submit", "--config", "demo", "--local", "--job.sbatch", "array=0-2", code=2
    )


@pytest.mark.parametrize(
    ("state", "outcome", "code"),
    [
        ("COMPLETED", "0 finished", 0),
        ("FAILED", "4 no images", 4),
        ("FAILED", "75 stopped", 75),
        ("NODE_FAIL", "", 1),
        ("CANCELLED", "75 stopped", 130),
    ],
)
def test_wait_has_the_runs_exit_code(
    runs: Path, answers: Answer, capsys: Output, state: str, outcome: str, code: int
) -> None:
    submit()
    answers("squeue", row("4711", state))
    if outcome:
        (runs / "r50" / "outcome").write_text(outcome + "\n")
    assert told(capsys, "wait", "r50", code=code).startswith(f"job         4711  {state}")


def test_what_was_never_submitted_is_told(runs: Path, capsys: Output) -> None:
    (runs / "plain").mkdir(parents=True)
    for verb in ("logs", "cancel", "wait"):
        assert "was never submitted" in told(capsys, verb, "runs/plain", code=2)
    assert "nothing is not a run directory, a run in runs, or a job id" in told(capsys, "wait", "nothing", code=2)
    assert "no such folder" in told(capsys, "jobs", "--runs", "nowhere", code=2)


def test_without_slurm_submit_says_what_else_there_is(runs: Path, bin_folder: Path, capsys: Output) -> None:
    (bin_folder / "sbatch").unlink()
    said = told(capsys, "submit", "--config", "demo", code=3)
    assert said.startswith("hvdtrain: sbatch: No such file or directory on PATH → --local to run on this machine")


def test_benches_are_told_how_to_start_workers_on_several_nodes(runs: Path, capsys: Output) -> None:
    given = ("--data.source", "synthetic", "--job.workers_per_node", "4", "--run.name", "b")
    assert told(capsys, "submit", "--bench", "1,2", *given).startswith("job 4711")
    script = (runs / "b" / "job.sbatch").read_text()
    assert "#SBATCH --nodes=2\n" in script
    assert "\nworkers=4,8\n" in script
    assert "'hvdtrain launch mpirun --bind-to none -np '\"'\"'{workers}'\"'\"' --map-by ppr:4:node'" in script
    assert "(hvdtrain bench allreduce --workers 4 --device cpu --model resnet50 " in script
    one_gpu = ("--job.gpus_per_node=1", "--data.source=synthetic", "--run.name=g")
    told(capsys, "submit", "--bench", "1,2", *one_gpu)
    assert "\nallreduce=()\n" in (runs / "g" / "job.sbatch").read_text()
    for wrong in ("x", "2,1", "0,1"):
        assert "--bench" in told(capsys, "submit", f"--bench={wrong}", "--data.source", "synthetic", code=2)


def test_scaling_trains_on_more_and_more_nodes(runs: Path, capsys: Output) -> None:
    assert told(
        capsys, "submit", "--scaling", "1,2,4", "--config", "goyal_r50_256", "--data.source", "synthetic"
    ).startswith("job 4711")
    submitted = yaml.safe_load((runs / "scaling" / "submitted.yaml").read_text())
    assert (submitted["job"]["nodes"], submitted["max_steps"], submitted["metrics"]["baseline"]) == (4, 220, "stored")
    assert submitted["train"]["global_batch_size"] is None
    script = (runs / "scaling" / "job.sbatch").read_text()
    assert "\nnodes=(1 2 4)\n" in script
    assert "#SBATCH --no-requeue" in script
    for wrong in ("", "x", "2,1", "0,1", "1,1"):
        assert told(capsys, "submit", f"--scaling={wrong}", "--data.source", "synthetic", code=2 if wrong else 0)
