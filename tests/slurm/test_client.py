"""What is asked of Slurm, what its answers mean, and what its refusals become."""

from pathlib import Path

import pytest

from hvdtrain.errors import ConfigError, EnvironmentFault
from hvdtrain.slurm import client
from hvdtrain.slurm.client import Away, Standing
from tests.slurm.conftest import Answer, row
from tests.slurm.fakes import calls


def test_a_job_is_submitted_in_its_folder(answers: Answer, bin_folder: Path, tmp_path: Path) -> None:
    answers("sbatch", 'echo "$PWD" >"${0%/*}/folder"; echo 4711')
    assert client.submit(Path("/runs/r/job.sbatch"), folder=tmp_path) == "4711"
    assert calls(bin_folder, "sbatch") == ["--parsable /runs/r/job.sbatch"]
    assert (bin_folder / "folder").read_text() == f"{tmp_path}\n"


def test_a_cluster_behind_the_number_is_left_out(answers: Answer, tmp_path: Path) -> None:
    answers("sbatch", "echo '4711;alps'")
    assert client.submit(Path("job"), folder=tmp_path) == "4711"


def test_what_a_job_knows_of_itself_is_not_passed_to_the_next(
    answers: Answer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_NTASKS", "PMIX_RANK", "SLURM_CONF", "KEPT"):
        monkeypatch.setenv(name, "1")
    answers("sbatch", f"env >'{tmp_path}/seen'; echo 1")
    client.submit(Path("job"), folder=tmp_path)
    seen = {line.partition("=")[0] for line in (tmp_path / "seen").read_text().splitlines()}
    assert {"SLURM_CONF", "KEPT"} <= seen
    assert not seen & {"SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_NTASKS", "PMIX_RANK"}


# What sbatch of Slurm 22.05 prints, and the words that are passed on.
REFUSALS = [
    (
        "sbatch: error: invalid partition specified: nope\n"
        "sbatch: error: Batch job submission failed: Invalid partition name specified",
        "invalid partition specified: nope",
    ),
    (
        "sbatch: error: Batch job submission failed: Requested node configuration is not available",
        "Batch job submission failed: Requested node configuration is not available",
    ),
    (
        "Invalid time specification (pos=0): zz\nsbatch: error: Invalid --begin specification",
        "Invalid --begin specification",
    ),
    (
        "sbatch: unrecognized option '--bogus=1'\nTry \"sbatch --help\" for more information",
        "unrecognized option '--bogus=1'",
    ),
    (
        "sbatch: error: QOSMaxSubmitJobPerUserLimit\n"
        "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy (job submit limit)",
        "QOSMaxSubmitJobPerUserLimit",
    ),
]


@pytest.mark.parametrize(("said", "told"), REFUSALS)
def test_a_refusal_is_a_wrong_request_on_one_line(answers: Answer, tmp_path: Path, said: str, told: str) -> None:
    (tmp_path / "said").write_text(said + "\n")
    answers("sbatch", f'while IFS= read -r line; do echo "$line" >&2; done <"{tmp_path}/said"; exit 1')
    with pytest.raises(ConfigError) as refused:
        client.submit(Path("job"), folder=tmp_path)
    assert str(refused.value).startswith("sbatch: ")
    assert told in str(refused.value)
    assert str(refused.value).count("→ sinfo") == 1
    assert "\n" not in str(refused.value)


def test_a_slurm_that_is_away_is_a_fault_of_the_environment(answers: Answer, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"sbatch: No such file or directory on PATH → --local"):
        client.submit(Path("job"), folder=tmp_path)
    answers("sbatch", "echo 'sbatch: error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    with pytest.raises(EnvironmentFault, match="Unable to contact slurm controller"):
        client.submit(Path("job"), folder=tmp_path)
    answers("sbatch", "echo garbage")
    with pytest.raises(EnvironmentFault, match="expected the number of a job, got garbage"):
        client.submit(Path("job"), folder=tmp_path)


def test_how_jobs_stand(answers: Answer, bin_folder: Path) -> None:
    running = row("7", "RUNNING", restarts=2, nodes="n[1-2]", reason="n[1-2]")
    answers("squeue", f"{running}; {row('8_1', 'PENDING', reason='(Resources)')}; {row('9', 'BRAND_NEW')}; echo torn")
    found = client.look(["7", "8_1", "9", "10"])
    assert found == {
        "7": Standing("RUNNING", 2, 2, "n[1-2]", "", "UNLIMITED"),
        "8_1": Standing("PENDING", 0, 2, "", "Resources", "UNLIMITED"),
        "9": Standing("BRAND_NEW", 0, 2, "", "", "UNLIMITED"),
    }
    assert not found["9"].over
    assert "--jobs=7,8_1,9,10" in calls(bin_folder, "squeue")[0]


def test_a_job_that_squeue_has_forgotten_is_in_the_accounts(answers: Answer) -> None:
    answers("squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    answers("sacct", "echo '7|CANCELLED by 1000|2|n[1-2]|None'")
    assert client.look(["7"]) == {"7": Standing("CANCELLED", None, 2, "n[1-2]")}
    answers("sacct", "echo 'Slurm accounting storage is disabled' >&2; exit 1")
    assert client.look(["7"]) == {}


def test_that_slurm_does_not_answer_is_an_answer(answers: Answer, monkeypatch: pytest.MonkeyPatch) -> None:
    assert client.look(["7"]) == Away("squeue: No such file or directory on PATH")
    assert client.cancel(["7"]) == Away("scancel: No such file or directory on PATH")
    assert client.look([]) == {}
    answers("squeue", "echo 'squeue: error: Unable to contact slurm controller (connect failure)' >&2; exit 1")
    assert client.look(["7"]) == Away("squeue: Unable to contact slurm controller (connect failure)")
    monkeypatch.setattr(client, "ANSWER_SECONDS", 0.2)
    answers("squeue", "exec sleep 20")
    assert client.look(["7"]) == Away("squeue: no answer within 0.2 s")


def test_cancelling_what_has_ended_is_no_complaint(answers: Answer) -> None:
    answers("scancel", "echo 'scancel: error: Kill job error on job id 7: Invalid job id specified' >&2; exit 1")
    assert client.cancel(["7"]) is None
    answers("scancel", "echo 'scancel: error: Kill job error on job id 7: Access/permission denied' >&2; exit 1")
    assert client.cancel(["7"]) == Away("scancel: Kill job error on job id 7: Access/permission denied")
