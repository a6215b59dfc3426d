"""What a job of a real Slurm is ended by, and what comes of it: it comes back by itself, to the undisturbed weights."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from hvdtrain import outcome
from hvdtrain.checkpoint import format as form
from hvdtrain.checkpoint import store
from hvdtrain.outcome import Outcome

from .private_slurm import Slurm

pytestmark = pytest.mark.multiproc

EPOCHS = 24  # long enough to be in its midst when Slurm has decided
LIMIT_SECONDS = 60  # the least that Slurm knows
# By the seconds of warning; without one at the latest: Slurm looks every half minute who is over it, and waits five.
ENDED_SECONDS = {15: LIMIT_SECONDS - 15, 0: 95}
RUN = (
    "--job.nodes=2",
    "--data.image_size=32",
    f"--epochs={EPOCHS}",
    "--evaluation.every_epochs=4",
    "--checkpoint.keep=2",
)
LAUNCHERS = {"mpirun": (), "srun": ("--job.launcher=srun",)}


@pytest.fixture(scope="module")
def undisturbed_run(slurm_of_session: Slurm) -> Path:
    slurm = slurm_of_session
    run = slurm.submit(*RUN, name="undisturbed")
    assert slurm.hvdtrain("wait", run, seconds=300).returncode == 0, slurm.output(run)
    return run


@pytest.fixture(scope="module")
def undisturbed(undisturbed_run: Path) -> dict[str, Any]:
    return final(undisturbed_run)


def final(run: Path) -> dict[str, Any]:
    """SHA-256 of the last state, and every evaluation."""
    found = store.latest(run / "checkpoints").checkpoint
    assert found
    form.read(found.path)
    tensors = found.manifest.tensors_sha256
    evaluations = {event["step"]: (event["top1"], event["loss"]) for event in events(run, "evaluate")}
    return {"step": found.manifest.step, "tensors": tensors, "evaluations": evaluations}


def events(run: Path, name: str) -> list[dict[str, Any]]:
    file = run / "events.jsonl"
    lines = file.read_text().splitlines() if file.exists() else []
    return [event for line in lines if (event := json.loads(line))["event"] == name]


def saved(run: Path) -> bool:
    return bool(store.paths(run / "checkpoints"))


def comes_back(slurm: Slurm, run: Path, undisturbed: dict[str, Any], *, starts: int = 2) -> None:
    ended = slurm.hvdtrain("wait", run, seconds=300)
    assert ended.returncode == 0, ended.stdout + ended.stderr + slurm.output(run)
    assert slurm.state(run) == "COMPLETED"
    assert slurm.job(run)["restarts"] == starts - 1
    assert outcome.read(run) == Outcome(0, "finished")
    assert len([*events(run, "start"), *events(run, "resume")]) == starts
    assert final(run) == undisturbed, slurm.output(run)


def in_service(slurm: Slurm) -> bool:
    """Also by itself, as soon as its daemon is heard of."""
    return "down" not in slurm.ask("sinfo", "-h", "-n", "n1", "-o", "%t")


@pytest.mark.parametrize(
    ("launcher", "warns"),
    [
        ("mpirun", True),
        pytest.param("mpirun", False, marks=pytest.mark.soak),
        pytest.param("srun", True, marks=pytest.mark.soak),
        ("srun", False),
    ],
)
def test_preempted_it_comes_back(slurm: Slurm, undisturbed: dict[str, Any], launcher: str, warns: bool) -> None:
    """With preempt_send_user_signal the script is warned, and all is saved; without, the workers die of SIGTERM, and
    what came after the last checkpoint is done again."""
    slurm.warns_of_preemption(warns)
    run = slurm.submit(*RUN, *LAUNCHERS[launcher], name=f"preempted-{launcher}-{warns}")
    slurm.until("a checkpoint", lambda: saved(run), run=run)
    urgent = slurm.preempt()
    slurm.until("the preemption", lambda: slurm.state(run) == "PENDING", run=run)
    if warns:
        (event,) = events(run, "preempted")
        assert event["message"].endswith("by SIGUSR2")
        assert events(run, "checkpoint")[-1]["step"] == event["step"]
    slurm.until("the urgent job's end", lambda: urgent not in slurm.ask("squeue", "-h", "-o", "%i").split())
    comes_back(slurm, run, undisturbed)


@pytest.mark.parametrize("warning", [15, pytest.param(0, marks=pytest.mark.soak)])
def test_at_its_time_limit_it_comes_back(slurm: Slurm, undisturbed_run: Path, warning: int) -> None:
    """Warned before, or killed by SIGTERM and SIGKILL five seconds later; as often as it takes. The run is too long for
    the limit on this machine, as fast as it was a moment ago."""
    started, *_, ended = (event["time"] for name in ("start", "evaluate") for event in events(undisturbed_run, name))
    options = (*RUN, f"--epochs={math.ceil(EPOCHS * 1.1 * ENDED_SECONDS[warning] / (ended - started))}")
    alone = slurm.submit(*options, name=f"undisturbed-{warning}")
    assert slurm.hvdtrain("wait", alone, seconds=400).returncode == 0, slurm.output(alone)

    limit = (f"--job.warn_seconds={warning}", f"--job.time_limit={LIMIT_SECONDS // 60}")
    run = slurm.submit(*options, *limit, name=f"limit-{warning}")
    waited = slurm.hvdtrain("wait", run, seconds=600)
    assert waited.returncode == 0, waited.stdout + waited.stderr + slurm.output(run)
    # It may do its last steps in the seconds between SIGTERM and SIGKILL; to Slurm it has then reached its limit.
    assert slurm.state(run) in ("COMPLETED", "TIMEOUT")
    assert slurm.job(run)["restarts"] == len(events(run, "resume")) > 0
    assert final(run) == final(alone), slurm.output(run)


def test_scontrol_requeue_and_a_lost_node_bring_it_back(slurm: Slurm, undisturbed: dict[str, Any]) -> None:
    run = slurm.submit(*RUN, name="requeued")
    slurm.until("a checkpoint", lambda: saved(run), run=run)
    slurm.ask("scontrol", "requeue", slurm.job_id(run))
    slurm.until("its next start", lambda: len(events(run, "resume")) == 1, run=run)
    slurm.until("some steps", lambda: len(events(run, "report")) > events(run, "resume")[0]["step"], run=run)
    slurm.ask("scontrol", "update", "nodename=n1", "state=down", "reason=test")
    slurm.until("its end on that node", lambda: slurm.state(run) != "RUNNING", run=run)
    back = ("scontrol", "update", "nodename=n1", "state=resume")
    slurm.until("the node's return", lambda: slurm.run(*back).returncode == 0 or in_service(slurm), run=run)
    comes_back(slurm, run, undisturbed, starts=3)


def test_a_job_is_requeued_so_often_and_no_more(slurm: Slurm) -> None:
    run = slurm.submit(*RUN, "--epochs=500", "--job.max_requeues=1", name="limited")
    for start in range(2):
        slurm.until(
            "training", lambda start=start: len([*events(run, "start"), *events(run, "resume")]) > start, run=run
        )  # type: ignore[misc]
        slurm.ask("scancel", "--batch", "--signal=USR2", slurm.job_id(run))
        slurm.until("its end", lambda: slurm.state(run) != "RUNNING", run=run)
    assert slurm.hvdtrain("wait", run, seconds=120).returncode == 75
    assert slurm.state(run) == "FAILED"
    assert "not requeued: it was 1 times, job.max_requeues" in slurm.output(run)
