"""Real workers sum the gradients of a small model in every way there is."""

import json
from pathlib import Path

import pytest

from hvdtrain.bench import allreduce, sums
from hvdtrain.bench.allreduce import Options, variables
from hvdtrain.cli import main
from hvdtrain.errors import ConfigError


def test_only_fusion_cycle_and_ring_set_the_contenders_apart() -> None:
    ours = variables("ours", {}, 25, on_cpu=True)
    fused = variables("horovod-fused", {}, 25, on_cpu=True)
    assert {"HOROVOD_FUSION_THRESHOLD", "HOROVOD_CYCLE_TIME"}.isdisjoint(fused)
    assert ours.items() - fused.items() == {("HOROVOD_FUSION_THRESHOLD", "0"), ("HOROVOD_CYCLE_TIME", "0.1")}
    assert variables("ours", {}, 25, on_cpu=False).items() - fused.items() == {("HOROVOD_FUSION_THRESHOLD", "0")}
    assert variables("mpi4py", {}, 25, on_cpu=True)["OMPI_MCA_coll_tuned_allreduce_algorithm"] == "4"
    assert not any("coll" in name for name in variables("mpi4py-default", {}, 25, on_cpu=True))


def test_on_a_gpu_it_is_nccl_that_is_compared_with() -> None:
    assert "nccl" not in Options().chosen
    assert Options(device="cuda").chosen == ("ours", "horovod-fused", "nccl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (Options(workers=1), "--workers 1: expected 2 at least"),
        (Options(contenders=("smoke",)), "--contenders smoke: expected some of ours, "),
    ],
)
def test_what_cannot_be_measured(options: Options, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        allreduce.measure(options, 1)


def test_the_limit_copies_the_share_of_a_ring() -> None:
    import torch

    buckets = [torch.arange(8.0)]
    sums._copy(buckets, 2 * 3 / 4)(1)
    assert buckets[0].tolist() == list(range(8))


@pytest.mark.multiproc
def test_two_workers_sum_in_several_ways_and_leave_rows_for_the_plan(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "allreduce.json"
    small = ["--model=resnet8", "--mib=0.1", "--rounds=1", "--repetitions=2"]
    some = ("ours", "mpi4py", "gloo", "copy")  # of six: each takes seconds to start
    assert main(["bench", "allreduce", *small, f"--json={file}", "--contenders", *some]) == 0
    table = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert (found["kind"], found["workers"], found["limit"]) == ("allreduce", 2, "copy")
    assert set(found["rounds"]) == set(some)
    assert all(len(figures) == 1 and min(figures) > 0 for figures in found["rounds"].values())
    assert found["bytes"] == sum(found["buckets"])
    assert len(found["buckets"]) > 1
    assert [row["bytes"] for row in found["rows"]] == list(sums.SIZES)
    for row in found["rows"]:
        assert row["workers"] == 2
        assert len(row["seconds"]) >= 3
        assert min(row["seconds"]) > 0
    assert "ours / mpi4py" in table
    assert "ours / copy" in table
