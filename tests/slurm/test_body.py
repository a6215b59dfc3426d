"""What a batch script does at its run's end and when it is warned: the real script, over workers that do as they are
told and a Slurm of two commands."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hvdtrain.config.machines import JobConfig
from hvdtrain.config.recipe import DataConfig
from hvdtrain.config.schema import Config, RunConfig
from hvdtrain.slurm.auxiliary import for_preparing, prepare
from hvdtrain.slurm.script import script
from tests.slurm.fakes import calls, command

REQUEUED = 'kill -TERM "$PPID"'  # as Slurm does to the script when a job is requeued
ENOUGH_SECONDS = 30


class Job:
    """The script of a run called r in `folder`."""

    def __init__(self, folder: Path, **job: object) -> None:
        self.folder, self.bin, self.run = folder, folder / "bin", folder / "r"
        self.run.mkdir()
        self.slurm(state="RUNNING None")
        config = Config(run=RunConfig(dir=folder, name="r"), job=JobConfig(**job))  # type: ignore[arg-type]
        (folder / "job.sbatch").write_text(script(config, run_dir=self.run, path=self.bin))
        self.process: subprocess.Popen[str] | None = None

    def slurm(self, *, state: str, scontrol: str = REQUEUED) -> None:
        command(self.bin, "squeue", f"echo '{state}'")
        command(self.bin, "scontrol", scontrol)

    def workers(self, text: str) -> None:
        command(self.bin, "hvdtrain", f"run='{self.run}'\n{text}")

    def start(self, **variables: str) -> "subprocess.Popen[str]":
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM")}
        self.process = subprocess.Popen(
            ["bash", str(self.folder / "job.sbatch")],
            env={**environment, **variables},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        return self.process

    def ends(self, **variables: str) -> tuple[int, str]:
        process = self.process or self.start(**variables)
        output, _ = process.communicate(timeout=ENOUGH_SECONDS)
        return process.returncode, output

    def until(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + ENOUGH_SECONDS
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.01)


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    made = Job(tmp_path)
    yield made
    if made.process and made.process.poll() is None:
        os.killpg(made.process.pid, signal.SIGKILL)
        made.process.communicate()


IN_SLURM = {"SLURM_JOB_ID": "7"}


def test_a_finished_run_is_the_end_of_the_job(job: Job) -> None:
    job.workers('echo "0 finished" >"$run/outcome"')
    code, output = job.ends(**IN_SLURM)
    assert code == 0
    assert "the run is over: finished" in output
    assert calls(job.bin, "scontrol") == []


def test_the_workers_begin_as_the_configuration_says(job: Job) -> None:
    job.workers('echo "0 finished" >"$run/outcome"')
    job.ends(**IN_SLURM)
    (called,) = calls(job.bin, "hvdtrain")
    mpirun = "launch mpirun --bind-to none -np 1 --map-by ppr:1:node hvdtrain train"
    assert called == f"{mpirun} --config {job.run}/submitted.yaml --resume auto"


@pytest.mark.parametrize("code", [2, 3, 4, 5, 8, 1, 130])
def test_a_failure_that_would_come_again_fails_the_job(job: Job, code: int) -> None:
    job.workers(f'echo "{code} the reason" >"$run/outcome"; exit 1')
    ended, output = job.ends(**IN_SLURM)
    assert ended == code
    assert f"the run has failed: the reason (exit code {code})" in output
    assert calls(job.bin, "scontrol") == []


@pytest.mark.parametrize(("code", "said"), [(2, 2), (8, 8), (127, 3)])
def test_workers_that_refuse_to_start_fail_the_job(job: Job, code: int, said: int) -> None:
    job.workers(f"exit {code}")
    ended, _ = job.ends(**IN_SLURM)
    assert ended == said
    assert calls(job.bin, "scontrol") == []


@pytest.mark.parametrize(
    ("told", "code"),
    [
        *(("75 stopped at step 120", 75), ("75 stopped at step 120", 0), ("6 a worker has gone", 6), ("7 stalled", 7)),
        *(("", 0), ("", 143)),
    ],
)
def test_what_is_to_go_on_is_requeued_and_never_counts_as_completed(job: Job, told: str, code: int) -> None:
    job.workers(f"[[ -z '{told}' ]] || echo '{told}' >\"$run/outcome\"; exit {code}")
    ended, output = job.ends(**IN_SLURM)
    assert ended == 75
    assert calls(job.bin, "scontrol") == ["requeue 7"]
    assert "hvdtrain: requeued" in output


def test_a_task_of_an_array_is_a_run_of_its_own(job: Job) -> None:
    job.workers('mkdir -p "$run-3"; exit 75')
    ended, _ = job.ends(SLURM_JOB_ID="9", SLURM_ARRAY_JOB_ID="7", SLURM_ARRAY_TASK_ID="3")
    assert ended == 75
    assert calls(job.bin, "scontrol") == ["requeue 7_3"]
    assert calls(job.bin, "hvdtrain")[0].endswith("--run.name=r-3 --seed=3")
    assert job.run.with_name("r-3").is_dir()


def test_an_outcome_that_a_shared_file_system_shows_late_is_seen(job: Job) -> None:
    job.workers('( sleep 1.5; echo "4 no images" >"$run/outcome" ) & exit 1')
    assert job.ends(**IN_SLURM)[0] == 4


def test_the_outcome_of_the_start_before_is_forgotten(job: Job) -> None:
    (job.run / "outcome").write_text("0 finished\n")
    job.workers("exit 137")
    assert job.ends(**IN_SLURM)[0] == 75


@pytest.mark.parametrize("torn", ["seven", "999 what"])
def test_a_torn_outcome_is_none(job: Job, torn: str) -> None:
    job.workers(f"echo '{torn}' >\"$run/outcome\"; exit 137")
    assert job.ends(**IN_SLURM)[0] == 75


@pytest.mark.parametrize("warning", [signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM])
def test_a_warning_reaches_the_workers_as_sigusr2_and_their_end_is_waited_for(
    job: Job, warning: signal.Signals
) -> None:
    job.workers(
        'trap \'echo got USR2; sleep 1; echo "75 stopped" >"$run/outcome"; exit 75\' USR2\n'
        'touch "$run/up"; while :; do sleep 0.05; done'
    )
    process = job.start(**IN_SLURM)
    job.until((job.run / "up").exists)
    process.send_signal(warning)
    code, output = job.ends()
    assert code == 75
    assert output.count("got USR2") == 1
    assert f"warned by {warning.name}" in output
    assert "the run is to go on: stopped (exit code 75)" in output


def test_a_storm_of_warnings_changes_nothing(job: Job) -> None:
    job.workers(
        "trap 'told=yes' USR2; touch \"$run/up\"; until [[ $told ]]; do sleep 0.05; done\n"
        'trap \'\' USR2; sleep 0.5; echo "75 stopped" >"$run/outcome"; exit 75'
    )
    process = job.start(**IN_SLURM)
    job.until((job.run / "up").exists)
    for i in range(60):
        process.send_signal((signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM)[i % 3])
        time.sleep(0.01)
    assert job.ends()[0] == 75
    assert calls(job.bin, "scontrol") == ["requeue 7"]


def test_a_warning_before_the_workers_begin_is_not_forgotten(tmp_path: Path) -> None:
    site = tmp_path / "site.sh"
    site.write_text('kill -USR2 "$$"\n')
    made = Job(tmp_path, source=(site,))
    made.workers("sleep 20")
    code, output = made.ends(**IN_SLURM)
    assert code == 75
    assert "the run is to go on: warned before the workers had begun" in output
    assert calls(made.bin, "hvdtrain") == []


def test_a_warning_while_the_workers_begin_is_not_lost(job: Job) -> None:
    text = (job.folder / "job.sbatch").read_text()
    (job.folder / "job.sbatch").write_text(text.replace("launched=$! ", 'kill -USR2 "$$"; launched=$! '))
    job.workers("exec sleep 20")
    began = time.monotonic()
    assert job.ends(**IN_SLURM)[0] == 75
    assert time.monotonic() - began < 18
    assert calls(job.bin, "scontrol") == ["requeue 7"]


@pytest.mark.parametrize("state", ["COMPLETING None", "CANCELLED None", "PENDING BeginTime"])
def test_what_slurm_is_ending_already_is_not_requeued(job: Job, state: str) -> None:
    job.slurm(state=state)
    job.workers("exit 143")
    code, output = job.ends(**IN_SLURM)
    assert code == 1
    assert "Slurm is ending the job" in output
    assert calls(job.bin, "scontrol") == []


def test_at_the_time_limit_it_is_requeued_before_the_workers_end(job: Job) -> None:
    job.slurm(state="COMPLETING TimeLimit", scontrol="exit 0")
    job.workers('touch "$run/up"; trap "" USR2 TERM; while :; do sleep 0.1; done')
    process = job.start(**IN_SLURM)
    job.until((job.run / "up").exists)
    process.send_signal(signal.SIGTERM)
    job.until(lambda: calls(job.bin, "scontrol") == ["requeue 7"])
    assert process.poll() is None


@pytest.mark.parametrize("state", ["COMPLETING TimeLimit", ""])
def test_at_the_time_limit_and_where_slurm_does_not_answer_it_is_requeued(job: Job, state: str) -> None:
    job.slurm(state=state)
    job.workers("exit 143")
    assert job.ends(**IN_SLURM)[0] == 75
    assert calls(job.bin, "scontrol") == ["requeue 7"]


def test_a_cancelled_job_does_not_come_back(job: Job) -> None:
    job.workers('touch "$run/cancelled"; echo "75 stopped" >"$run/outcome"; exit 75')
    assert job.ends(**IN_SLURM)[0] == 75
    assert calls(job.bin, "scontrol") == []


def test_it_is_requeued_so_often_and_no_more(job: Job) -> None:
    job.workers('echo "75 stopped" >"$run/outcome"; exit 75')
    code, output = job.ends(**IN_SLURM, SLURM_RESTART_COUNT="20")
    assert code == 75
    assert "not requeued: it was 20 times, job.max_requeues" in output
    assert calls(job.bin, "scontrol") == []


def test_what_never_begins_is_started_three_times(job: Job) -> None:
    """Whatever ends it without a word: an mpirun that finds no slots, a node without the environment."""
    job.workers("exit 1")
    for start in range(3):
        job.process = None
        code, output = job.ends(**IN_SLURM, SLURM_RESTART_COUNT=str(start))
        assert code != 0
    assert "not requeued: it ended three times before it had begun" in output
    assert len(calls(job.bin, "scontrol")) == 2


def test_what_has_begun_is_no_such_start(job: Job) -> None:
    job.workers('echo "{}" >>"$run/events.jsonl"; exit 1')
    for start in range(4):
        job.process = None
        job.ends(**IN_SLURM, SLURM_RESTART_COUNT=str(start))
    assert len(calls(job.bin, "scontrol")) == 4


@pytest.mark.parametrize(("told", "code"), [("0 finished", 0), ("4 no images", 4)])
def test_a_run_that_ended_while_slurm_was_asked_for_another_start_is_not_begun_again(
    job: Job, told: str, code: int
) -> None:
    (job.run / "outcome").write_text(f"{told}\n")
    ended, output = job.ends(**IN_SLURM, SLURM_RESTART_COUNT="1")
    assert ended == code
    assert "the run has ended already" in output
    assert calls(job.bin, "hvdtrain") == []
    assert (job.run / "outcome").read_text() == f"{told}\n"


def test_a_requeue_that_slurm_refuses_is_asked_for_again(job: Job) -> None:
    job.slurm(
        state="RUNNING None",
        scontrol=f"if [[ -e {job.bin}/again ]]; then {REQUEUED}; else touch {job.bin}/again; exit 1; fi",
    )
    job.workers("exit 75")
    assert job.ends(**IN_SLURM)[0] == 75
    assert calls(job.bin, "scontrol") == ["requeue 7", "requeue 7"]


@pytest.mark.parametrize(("told", "code"), [("75 stopped", 75), ("6 a worker has gone", 6), ("", 1), ("0 finished", 0)])
def test_without_slurm_it_ends_with_the_runs_own_code(job: Job, told: str, code: int) -> None:
    job.workers(f"[[ -z '{told}' ]] || echo '{told}' >\"$run/outcome\"; exit 75")
    assert job.ends()[0] == code
    assert calls(job.bin, "scontrol") == []


def test_modules_are_loaded_and_scripts_sourced_in_order(tmp_path: Path) -> None:
    site = tmp_path / "a.sh"
    site.write_text('echo "sourced; modules $loaded"\n')
    made = Job(tmp_path, modules=("mpi/4 x", "cuda"), source=(site,))
    script = made.folder / "job.sbatch"
    script.write_text('module() { loaded="$loaded$2;"; [[ $2 != cuda || -z $broken ]]; }\n' + script.read_text())
    made.workers('echo "0 finished" >"$run/outcome"')
    code, output = made.ends()
    assert code == 0
    assert "sourced; modules mpi/4 x;cuda;" in output
    made.process = None
    code, output = made.ends(broken="yes")
    assert code == 3
    assert "module load cuda: failed" in output


@pytest.mark.parametrize(("prepared", "verified", "code"), [(0, 0, 0), (0, 1, 0), (4, 0, 4)])
def test_data_are_prepared_and_verified(tmp_path: Path, prepared: int, verified: int, code: int) -> None:
    made = Job(tmp_path)
    config = for_preparing(Config(run=RunConfig(dir=tmp_path, name="r"), data=DataConfig(dir=tmp_path / "images")))
    (tmp_path / "job.sbatch").write_text(prepare(config, tmp_path / "archives", path=made.bin))
    made.workers(f"[[ $2 == verify ]] && exit {verified}; exit {prepared}")
    assert made.ends(**IN_SLURM)[0] == code
    assert calls(made.bin, "hvdtrain")[0].startswith(
        f"data prepare {tmp_path}/images --train {tmp_path}/archives/ILSVRC"
    )
    assert (made.run / "outcome").read_text().startswith(f"{code} ")
