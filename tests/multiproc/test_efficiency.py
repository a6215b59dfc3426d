"""Scaling efficiency of real runs: measured without leaving a trace, told with its baseline, and summing to one."""

import statistics

import pytest
import torch

from hvdtrain.train.meters import LIVE_WINDOWS, WARM_UP

from .conftest import MEASURED, Job, Launch

pytestmark = pytest.mark.multiproc

STEPS = ("--data.image_size=32", "--epochs=9", "--max_steps=200", "--run.report_every=20")
UNBROKEN = ("--evaluation.every_epochs=50", "--checkpoint.every_epochs=50")
CAUSES = {"input", "contention", "straggler", "communication", "rest"}


@pytest.fixture(scope="module")
def measured(launch: Launch) -> Job:
    return launch("mpirun", 2, *STEPS, *UNBROKEN, MEASURED, name="measured").finish()


@pytest.mark.parametrize("more", [(), ("--precision=fp16", "--train.ema_decay=0.9", "--distributed.reducer=horovod")])
def test_measuring_a_baseline_changes_no_bit_of_the_run(launch: Launch, more: tuple[str, ...]) -> None:
    short = ("--data.batch_size=4", "--max_steps=30", "--model.channels_last=false", *more)
    name = f"baseline-{len(more)}"
    with_it, without = (
        launch("mpirun", 2, *short, f"--metrics.baseline={kind}", name=f"{name}-{kind}").finish()
        for kind in ("measured", "none")
    )
    assert len(with_it.events("baseline")) == 1
    assert not without.events("baseline")
    assert [e["loss"] for e in with_it.events("report")] == [e["loss"] for e in without.events("report")]
    for part in ("model", "average") if "--train.ema_decay=0.9" in more else ("model",):
        mine, theirs = with_it.weights(part), without.weights(part)
        assert [key for key in mine if not torch.equal(mine[key], theirs[key])] == []


def test_a_run_of_two_has_an_efficiency_against_one_alone(measured: Job) -> None:
    (baseline,) = measured.events("baseline")
    assert (baseline["source"], baseline["workers"]) == ("measured", 1)
    assert len(baseline["ranks"]) == 2
    assert baseline["communication"] > 0
    reports = measured.events("report")
    assert [report["efficiency"] for report in reports[:WARM_UP]] == [None] * WARM_UP
    for report in reports[WARM_UP:]:
        efficiency = report["efficiency"]
        assert set(efficiency["losses"]) == CAUSES
        assert efficiency["ratio"] + sum(efficiency["losses"].values()) == pytest.approx(1)
        assert sum(report["parts"].values()) == pytest.approx(report["step_seconds"])
    last = measured.events("report")[-1]["efficiency"]
    assert last["low"] < last["ratio"] < last["high"]


def test_where_nothing_is_wrong_the_rest_is_under_three_percent(measured: Job) -> None:
    shares = [report["parts"]["rest"] / report["step_seconds"] for report in measured.events("report")]
    assert statistics.median(shares) < 0.03


def test_one_worker_has_no_efficiency_and_is_a_baseline_for_others(launch: Launch) -> None:
    threads = "--data.threads=1"
    one = launch("none", 1, *STEPS, *UNBROKEN, threads, name="one", OMP_NUM_THREADS="1").finish()
    assert not one.events("baseline")
    assert {report["efficiency"] for report in one.events("report")} == {None}
    stored = ("--metrics.baseline=stored", threads)
    two = launch("mpirun", 2, *STEPS, *UNBROKEN, *stored, name="two", OMP_NUM_THREADS="1").finish()
    (baseline,) = two.events("baseline")
    assert baseline["source"] == "stored"
    assert baseline["origin"] == "the end of run one"
    efficiency = two.events("report")[-1]["efficiency"]
    assert efficiency["baseline"] == "stored"
    compared = two.events("report")[WARM_UP:][-LIVE_WINDOWS:]
    steps = statistics.mean(report["step_seconds"] for report in compared)
    assert efficiency["ratio"] == pytest.approx(baseline["step_seconds"] / steps)


def test_without_a_stored_baseline_there_is_no_efficiency_and_it_is_said_why(launch: Launch) -> None:
    job = launch(
        "mpirun", 2, "--max_steps=4", "--metrics.baseline=stored", "--seed=5", "--data.batch_size=3", name="none"
    )
    code, output = job.wait()
    assert code == 0, output
    assert "no scaling efficiency: " in output
    assert "has no speed of 1 worker under these settings" in output
    assert {report["efficiency"] for report in job.events("report")} == {None}
