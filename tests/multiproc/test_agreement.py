"""Any number of workers, any launcher: the same run."""

from collections.abc import Callable
from functools import cache

import pytest
import torch

from .conftest import Job, Launch

pytestmark = pytest.mark.multiproc

GLOBAL_BATCH = 12
STEPS = 200
TOLERANCE = 1e-10
CASES = [
    ("none", 1),
    *(("mpirun", ranks) for ranks in (1, 2, 3, 4)),
    *(("horovodrun --gloo", ranks) for ranks in (2, 3)),
    *(pytest.param("horovodrun --gloo", ranks, marks=pytest.mark.soak) for ranks in (1, 4)),
]


def start(launch: Launch, launcher: str, ranks: int, precision: str, *options: str) -> Job:
    return launch(
        launcher,
        ranks,
        f"--data.batch_size={GLOBAL_BATCH // ranks}",
        f"--precision={precision}",
        "--model.norm=none",
        f"--max_steps={STEPS}",
        *options,
        name="-".join(["agree", launcher.split()[0], str(ranks), precision, *(o.split("=")[1] for o in options)]),
    )


Runs = Callable[[str, int], Job]


@pytest.fixture(scope="module")
def runs(launch: Launch) -> Runs:
    """The same steps in float64, by this launcher on so many ranks."""
    return cache(lambda launcher, ranks: start(launch, launcher, ranks, "float64").finish())


@pytest.mark.parametrize(("launcher", "ranks"), CASES)
def test_float64_agrees_with_one_worker(runs: Runs, launcher: str, ranks: int) -> None:
    alone, job = runs("none", 1), runs(launcher, ranks)
    assert job.environment()["world_size"] == ranks
    mine, reference = job.events("report"), alone.events("report")
    assert [report["step"] for report in mine] == list(range(1, STEPS + 1))
    for a, b in zip(mine, reference, strict=True):
        assert abs(a["loss"] - b["loss"]) <= TOLERANCE, f"step {a['step']}"
    losses = [report["loss"] for report in reference]
    assert sum(losses[-20:]) < 0.9 * sum(losses[:20]), "nothing was learnt, so agreement says little"
    assert distance(job.weights(), alone.weights()) <= TOLERANCE


@pytest.mark.parametrize(("launcher", "ranks"), CASES)
def test_evaluation_counts_each_image_once(runs: Runs, launcher: str, ranks: int) -> None:
    alone, job = runs("none", 1), runs(launcher, ranks)
    assert [e["images"] for e in job.events("evaluate")] == [364, 364]
    for mine, reference in zip(job.events("evaluate"), alone.events("evaluate"), strict=True):
        assert (mine["top1"], mine["top5"]) == (reference["top1"], reference["top5"])
        assert abs(mine["loss"] - reference["loss"]) <= TOLERANCE


def test_horovods_own_optimizer_agrees(launch: Launch, runs: Runs) -> None:
    options = ("--distributed.reducer=horovod", "--model.channels_last=false")
    job = start(launch, "mpirun", 2, "float64", *options).finish()
    assert job.environment()["bucket_bytes"] == []
    assert distance(job.weights(), runs("none", 1).weights()) <= TOLERANCE


def test_bf16_learns_on_two_workers(launch: Launch) -> None:
    """Autocast over float32 weights: coarse, so only that the loss falls can be asked."""
    job = launch("mpirun", 2, "--data.batch_size=6", "--precision=bf16", f"--max_steps={STEPS}", name="bf16").finish()
    losses = [report["loss"] for report in job.events("report")]
    assert sum(losses[-20:]) < 0.5 * sum(losses[:20])
    assert all(weight.dtype != torch.bfloat16 for weight in job.weights().values())


def test_float32_distance_is_reported(
    launch: Launch, record_property: Callable[[str, object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """No bound is asked of float32: the sum over workers rounds elsewhere. What it comes to is worth knowing."""
    alone = start(launch, "none", 1, "float32").finish()
    four = start(launch, "mpirun", 4, "float32").finish()
    far = distance(alone.weights(), four.weights())
    record_property("float32_weight_distance", far)
    with capsys.disabled():
        print(f"\nfloat32, 1 against 4 workers after {STEPS} steps: weights differ by {far:.1e} at most")
    assert all(torch.isfinite(w).all() for w in four.weights().values())


def distance(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> float:
    """Largest absolute difference of any two weights."""
    assert a.keys() == b.keys()
    return max(float((a[name].double() - b[name].double()).abs().max()) for name in a)
