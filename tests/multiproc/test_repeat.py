"""Equal runs are equal to the last bit, and a killed run goes on as if nothing had been."""

import os
import signal

import pytest
import torch

from .conftest import Job, Launch

pytestmark = pytest.mark.multiproc

RUN = ("--data.batch_size=4", "--max_steps=200", "--evaluation.every_epochs=2", "--checkpoint.every_epochs=0.5")
STEPS_AFTER_CHECKPOINT = 5


@pytest.fixture(scope="module", params=[2, 3])
def undisturbed(launch: Launch, request: pytest.FixtureRequest) -> tuple[int, Job]:
    ranks: int = request.param
    return ranks, launch("mpirun", ranks, *RUN, name=f"undisturbed-{ranks}").finish()


def test_three_runs_on_three_ranks_are_bit_identical(launch: Launch) -> None:
    first, *others = (launch("mpirun", 3, *RUN, name=f"repeat-{i}").finish() for i in range(3))
    assert first.environment()["allreduce_algorithm"] == "ring"
    for other in others:
        assert_identical(first, other)
        assert [e["loss"] for e in first.events("report")] == [e["loss"] for e in other.events("report")]


def test_killed_run_resumes_to_the_same_bits(launch: Launch, undisturbed: tuple[int, Job]) -> None:
    ranks, reference = undisturbed
    name = f"killed-{ranks}"
    victim = launch("mpirun", ranks, *RUN, name=name)

    def well_after_a_checkpoint() -> bool:
        saved, reports = victim.events("checkpoint"), victim.events("report")
        return bool(saved) and reports[-1]["step"] >= saved[-1]["step"] + STEPS_AFTER_CHECKPOINT

    victim.until("a checkpoint and some steps", well_after_a_checkpoint)
    os.kill(victim.environment()["workers"][ranks - 1]["pid"], signal.SIGKILL)
    code, output = victim.wait()
    assert code != 0, output
    saved, last = victim.events("checkpoint")[-1]["step"], victim.events("report")[-1]["step"]
    assert saved < last < 200, "the kill must come after a checkpoint, with steps lost, before the end"

    resumed = launch("mpirun", ranks, *RUN, "--resume=auto", name=name).finish()
    assert resumed.events("resume")[-1]["step"] == saved
    assert resumed.events("report")[-1]["step"] == 200
    assert_identical(resumed, reference)
    assert resumed.events("evaluate")[-1]["top1"] == reference.events("evaluate")[-1]["top1"]


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun --gloo"])
def test_ring_is_really_chosen(launch: Launch, launcher: str) -> None:
    job = launch(launcher, 3, "--max_steps=1", name=f"ring-{launcher.split()[0]}").finish()
    assert job.environment()["allreduce_algorithm"] == "ring"


def test_another_algorithm_is_not_called_ring(launch: Launch) -> None:
    recursive_doubling = {"OMPI_MCA_coll_tuned_allreduce_algorithm": "3"}
    job = launch("mpirun", 3, "--max_steps=1", name="not-a-ring", **recursive_doubling).finish()
    environment = job.environment()
    assert environment["allreduce_algorithm"] == "not a ring"
    assert environment["set_by_user"] == recursive_doubling


def assert_identical(a: Job, b: Job) -> None:
    mine, reference = a.weights(), b.weights()
    assert mine.keys() == reference.keys()
    different = [name for name in mine if not torch.equal(mine[name], reference[name])]
    assert not different, f"{len(different)} of {len(mine)} tensors differ: {different[:5]}"
