"""m micro-batches of n images on k workers are n images each on k·m workers."""

import json
from pathlib import Path

import pytest

from .conftest import Job, Launch
from .test_agreement import STEPS, TOLERANCE, distance

pytestmark = pytest.mark.multiproc

GLOBAL_BATCH = 32
WAYS = ((4, 8), (1, 32), (2, 8))  # workers k and batch per worker n; m = 32 / (k·n)
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@pytest.fixture(scope="module")
def runs(launch: Launch) -> dict[tuple[str, int, int], Job]:
    """The same 200 steps in float64, with and without batch normalisation."""
    return {
        (norm, workers, n): launch(
            "mpirun",
            workers,
            f"--train.global_batch_size={GLOBAL_BATCH}",
            f"--data.batch_size={n}",
            f"--model.norm={norm}",
            "--precision=float64",
            "--epochs=9",
            f"--max_steps={STEPS}",
            "--evaluation.first_epoch=9",
            name=f"accumulate-{norm}-{workers}-{n}",
        ).finish()
        for norm in ("none", "batch")
        for workers, n in WAYS
    }


def losses(job: Job) -> list[float]:
    return [report["loss"] for report in job.events("report")]


@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize(("workers", "n"), WAYS)
def test_every_way_takes_the_same_steps(runs: dict[tuple[str, int, int], Job], norm: str, workers: int, n: int) -> None:
    job = runs[norm, workers, n]
    (start,) = job.events("start")
    assert (start["world_size"], start["global_batch_size"]) == (workers, GLOBAL_BATCH)
    assert [report["images_seen"] for report in job.events("report")] == [GLOBAL_BATCH * (i + 1) for i in range(STEPS)]
    assert sum(losses(job)[-20:]) < 0.9 * sum(losses(job)[:20]), "nothing was learnt, so agreement says little"


@pytest.mark.parametrize(("workers", "n"), WAYS[1:])
def test_without_batch_norm_all_ways_give_the_same_weights(
    runs: dict[tuple[str, int, int], Job], workers: int, n: int
) -> None:
    four, other = runs["none", 4, 8], runs["none", workers, n]
    assert max(abs(a - b) for a, b in zip(losses(four), losses(other), strict=True)) <= TOLERANCE
    assert distance(four.weights(), other.weights()) <= TOLERANCE


def test_with_batch_norm_what_counts_is_n(runs: dict[tuple[str, int, int], Job]) -> None:
    """Its running statistics, which evaluation uses, are the same too."""
    four, accumulated, one = (runs["batch", workers, n].weights() for workers, n in ((4, 8), (2, 8), (1, 32)))
    assert any(name.endswith(STATISTICS) for name in four)
    assert distance(four, accumulated) <= TOLERANCE
    assert distance(four, one) > 1e-3
    assert abs(losses(runs["batch", 4, 8])[0] - losses(runs["batch", 1, 32])[0]) > 1e-3


BEYOND_THE_PAPER = (
    *("--optim.name=lars", "--optim.base_lr=2", "--optim.decay=cosine", "--data.mixup=0.4", "--data.cutmix=1"),
    *(
        "--train.label_smoothing=0.1",
        "--train.clip_norm=1",
        "--train.ema_decay=0.9",
        "--data.train_sizes=[[0,16],[1,20]]",
    ),
)


def test_with_all_that_is_beyond_the_paper_it_is_so_too(launch: Launch) -> None:
    jobs = [
        launch(
            *("mpirun", workers, "--train.global_batch_size=32", "--data.batch_size=16", "--model.norm=none"),
            *("--precision=float64", "--max_steps=80", *BEYOND_THE_PAPER),
            name=f"beyond-{workers}",
        ).finish()
        for workers in (1, 2)
    ]
    one, two = (losses(job) for job in jobs)
    assert max(abs(a - b) for a, b in zip(one, two, strict=True)) <= TOLERANCE
    assert distance(jobs[0].weights(), jobs[1].weights()) <= TOLERANCE
    assert distance(jobs[0].weights("average"), jobs[1].weights("average")) <= TOLERANCE
    (first, second) = (evaluated["average_loss"] for evaluated in jobs[0].events("evaluate"))
    assert first > second, "nothing was learnt, so agreement says little"


def test_what_does_not_divide_ends_before_the_start_and_says_what_would(launch: Launch) -> None:
    job = launch("mpirun", 3, "--train.global_batch_size=32", "--data.batch_size=8", name="indivisible")
    code, output = job.wait()
    assert code == 2
    assert output.count("train.global_batch_size = 32: expected a multiple of 24, for 3 workers") == 1
    assert "2 or 4 workers, or --train.global_batch_size 24 or 48" in output
    assert not job.folder.exists()


def test_the_demos_first_losses_are_the_recorded_ones(launch: Launch) -> None:
    """A change of this record is a change of what the demo computes, and says so.

    Made with the instructions that every x86-64 has: with others a convolution rounds otherwise, and after twenty steps
    the losses of two processors are 0.02 apart.
    """
    options = ("--data.image_size=32", "--epochs=12", "--optim.decay_epochs=[8,11]", "--max_steps=20")
    everywhere = {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_CBWR": "COMPATIBLE"}
    job = launch("mpirun", 2, *options, name="golden", **everywhere).finish()
    recorded = json.loads((Path(__file__).parents[1] / "golden" / "demo_losses.json").read_text())
    assert losses(job) == pytest.approx(recorded, abs=1e-4)
