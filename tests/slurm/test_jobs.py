"""What has become of a run's job: Slurm's word and the run directory's together."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest

from hvdtrain.errors import ConfigError, EnvironmentFault
from hvdtrain.slurm import jobs, local, record, text
from tests.slurm.conftest import Answer, row
from tests.slurm.fakes import calls

GONE = "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1"


@pytest.fixture
def run(tmp_path: Path, answers: Answer) -> Path:
    folder = tmp_path / "runs" / "r50"
    folder.mkdir(parents=True)
    record.add(folder, record.submitted("slurm", "7", ["hvdtrain", "submit"], output="slurm-7.out"))
    answers("squeue", GONE)
    return folder


def job(run: Path) -> jobs.Job:
    found = jobs.of(run)
    assert found
    return found


def test_slurms_word_comes_first(run: Path, answers: Answer) -> None:
    answers("squeue", row("7", "PENDING", restarts=1, reason="BeginTime"))
    (run / "outcome").write_text("75 stopped by SIGUSR2 at step 120\n")
    found = job(run)
    assert (found.state, found.live, found.exit_code) == ("PENDING", True, 75)
    assert text.line(found) == "job         7  PENDING  restarted 1 time  stopped by SIGUSR2 at step 120"


@pytest.mark.parametrize(
    ("outcome", "state", "code", "live"),
    [
        ("0 finished", "COMPLETED", 0, False),
        ("4 no images", "FAILED", 4, False),
        ("75 stopped", "UNKNOWN", 75, True),
        ("", "UNKNOWN", 1, True),
        ("torn", "UNKNOWN", 1, True),
    ],
)
def test_what_slurm_has_forgotten_the_run_directory_knows(
    run: Path, outcome: str, state: str, code: int, live: bool
) -> None:
    if outcome:
        (run / "outcome").write_text(outcome + "\n")
    found = job(run)
    assert (found.state, found.exit_code, found.live) == (state, code, live)
    (run / "cancelled").touch()
    assert job(run).state == "CANCELLED"


def test_without_slurm_the_run_directory_is_asked_and_it_is_said(run: Path, bin_folder: Path) -> None:
    (bin_folder / "squeue").unlink()
    found = job(run)
    assert found.state == "UNKNOWN"
    assert text.reason(found) == "squeue: No such file or directory on PATH"
    assert jobs.to_json(found)["away"] == "squeue: No such file or directory on PATH"


@pytest.mark.parametrize("torn", ["", "{", "[]", '{"submissions": 3}', '{"submissions": [{"kind": "slurm"}, 7]}'])
def test_a_torn_job_json_is_none(run: Path, torn: str) -> None:
    (run / "job.json").write_text(torn)
    assert jobs.of(run) is None


def test_an_output_outside_of_the_run_directory_is_none_of_ours(run: Path) -> None:
    told = {"kind": "slurm", "id": "7", "output": "../../etc/passwd"}
    (run / "job.json").write_text(json.dumps({"submissions": [told]}))
    assert record.submissions(run) == []


def test_a_command_is_kept_without_secrets(run: Path) -> None:
    record.add(run, record.submitted("slurm", "8", ["submit", "--x.token=abc"], output="slurm-8.out"))
    assert "abc" not in (run / "job.json").read_text()
    assert [each.id for each in record.submissions(run)] == ["7", "8"]


def test_a_run_is_found_by_its_path_its_name_and_its_jobs(run: Path, answers: Answer, tmp_path: Path) -> None:
    runs = run.parent
    record.add(run, record.submitted("slurm", "8", [], output="slurm-8.out"))
    for name in (str(run), "r50", "7", "8"):
        assert jobs.find(name, runs=runs) == run
    with pytest.raises(ConfigError, match=r"9 is not a run directory, a run in .*/runs, or a job id → ls .*/runs"):
        jobs.find("9", runs=runs)
    record.add(runs / "demo-20261126", record.submitted("slurm", "10", [], output="slurm-10.out"))
    with pytest.raises(ConfigError, match=r"demo is not a run directory.* → perhaps demo-20261126"):
        jobs.find("demo", runs=runs)
    with pytest.raises(ConfigError, match=r"r5O is not a run directory.* → perhaps r50"):
        jobs.find("r5O", runs=runs)
    answers("squeue", f"echo '{tmp_path}'")
    assert jobs.find("9", runs=runs) == tmp_path


def test_cancel_asks_until_it_has_ended_also_one_that_comes_back(run: Path, answers: Answer, bin_folder: Path) -> None:
    states = "(RUNNING COMPLETING PENDING COMPLETING CANCELLED)"
    look = f"states={states}; n=0; [[ ! -e {run}/n ]] || read -r n <{run}/n; echo $((n + 1)) >{run}/n"
    answers("squeue", f'{look}; echo "7|${{states[n]}}|0|1|n1|None|5|"')
    answers("scancel", "")
    ended = jobs.cancel(run)
    assert ended
    assert (ended.state, ended.exit_code) == ("CANCELLED", 130)
    assert calls(bin_folder, "scancel") == ["7", "7"]
    assert (run / "cancelled").exists()


def test_cancelling_what_has_ended_asks_for_nothing(run: Path, answers: Answer, bin_folder: Path) -> None:
    answers("squeue", row("7", "COMPLETED"))
    ended = jobs.cancel(run)
    assert ended
    assert ended.state == "COMPLETED"
    assert calls(bin_folder, "scancel") == []
    assert not (run / "cancelled").exists()


def test_a_reused_process_id_is_not_taken_for_the_job(tmp_path: Path) -> None:
    process = subprocess.Popen(["/bin/sleep", "30"])
    try:
        began = local.born(process.pid)
        assert began > 0
        assert local.find(process.pid, began)
        assert local.find(process.pid, began + 1) is None
        assert local.find(-1, 0.0) is None
    finally:
        process.kill()
    deadline = time.monotonic() + 10
    while local.find(process.pid, began) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert local.find(process.pid, began) is None  # not even before it was waited for
    process.wait()


def test_a_local_job_of_another_host_is_not_judged_by_this_ones_processes(run: Path) -> None:
    there = record.submitted("local", f"local-{os.getpid()}", [], output="job-1.out", host="elsewhere", born=1.0)
    record.add(run, there)
    found = job(run)
    assert (found.state, found.standing.reason) == ("UNKNOWN", "it is a job of elsewhere")


def test_a_local_job_of_another_host_is_not_cancelled_from_here(run: Path) -> None:
    record.add(run, record.submitted("local", "local-4711", [], output="job-1.out", host="elsewhere", born=1.0))
    with pytest.raises(EnvironmentFault, match="is one of elsewhere → there: hvdtrain cancel"):
        jobs.cancel(run)
    assert not (run / "cancelled").exists()


def test_a_completed_job_has_finished_though_its_outcome_cannot_be_seen_yet(run: Path, answers: Answer) -> None:
    answers("squeue", row("7", "COMPLETED"))
    assert job(run).exit_code == 0


def test_a_local_job_that_was_killed_has_failed(run: Path) -> None:
    import platform

    record.add(run, record.submitted("local", "local-1", [], output="job-1.out", host=platform.node(), born=-1.0))
    assert (job(run).state, job(run).exit_code) == ("FAILED", 1)


def test_the_table_of_jobs(run: Path, answers: Answer) -> None:
    answers("squeue", row("7", "RUNNING", restarts=2, nodes="n[1-2]", reason="n[1-2]"))
    assert text.table(jobs.every([run])).splitlines() == [
        f"RUN{' ' * (len(str(run)) - 3)}  JOB  STATE    RESTARTS  NODES   WHY",
        f"{run}  7    RUNNING  2         n[1-2]",
    ]
