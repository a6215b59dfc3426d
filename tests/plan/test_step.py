"""A step, taken apart."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hvdtrain.plan.allreduce import ALGORITHMS, Fabric
from hvdtrain.plan.models import network
from hvdtrain.plan.step import MIB, Fusion, Overheads, Step, step

NONE = Overheads(jitter=0.0, negotiation_seconds=0.0, shared=0.0)
SOME = Overheads(jitter=0.02, negotiation_seconds=1e-3, shared=0.05)
FABRIC = Fabric(8, 5e10, 5e9, 5e-6)
FUSION = Fusion("buckets", 25 * MIB, 0.0)


def of(
    workers: int, fabric: Fabric = FABRIC, overheads: Overheads = SOME, compute: float = 0.2, **more: object
) -> Step:
    return step(compute, network("resnet50"), workers, fabric, FUSION, overheads, **more)  # type: ignore[arg-type]


def test_one_worker_waits_for_nobody() -> None:
    assert of(1) == Step(0.2, 0.0, 0.0, 0.0)


@given(
    st.integers(2, 2048),
    st.floats(1e7, 1e12),
    st.floats(1e7, 1e12),
    st.floats(1e-3, 3.0),
    st.sampled_from(ALGORITHMS),
    st.sampled_from(["buckets", "timed", "tensor"]),
)
def test_nothing_is_faster_than_computing(
    workers: int, within: float, across: float, compute: float, algorithm: str, kind: str
) -> None:
    fabric = Fabric(8, within, across, 5e-6, algorithm)  # type: ignore[arg-type]
    fusion = Fusion(kind, 25 * MIB, 0.001)  # type: ignore[arg-type]
    taken = step(compute, network("resnet18"), workers, fabric, fusion, SOME)
    assert taken.seconds >= compute
    assert min(taken.communication, taken.negotiation, taken.straggler, taken.busy) >= 0
    if kind == "timed":
        return  # a faster link leaves less time for gradients to gather, so that there may be more sums
    faster = replace(fabric, within=2 * within, across=2 * across)
    fast, slow = (step(compute, network("resnet18"), workers, each, fusion, NONE).seconds for each in (faster, fabric))
    assert fast <= slow + 1e-12


def test_what_backward_hides_does_not_count() -> None:
    assert of(16, replace(FABRIC, within=1e13, across=1e13, hop_seconds=0.0), NONE).communication == pytest.approx(
        0, abs=1e-4
    )
    slow = of(16, replace(FABRIC, across=1e8), NONE)
    assert slow.communication == pytest.approx(slow.busy - 0.2 * 2 / 3, rel=0.05)


def test_without_overlap_all_sums_come_after_backward() -> None:
    taken = of(16, overheads=NONE, overlap=False)
    assert taken.communication == pytest.approx(taken.busy)
    assert taken.communication > of(16, overheads=NONE).communication


def test_half_the_bytes_take_half_the_time() -> None:
    fabric = replace(FABRIC, hop_seconds=0.0)
    assert of(16, fabric, wire_bytes=2).busy == pytest.approx(of(16, fabric).busy / 2, rel=0.01)


def test_agreeing_adds_its_own_part() -> None:
    at_once = of(16, overheads=replace(SOME, negotiation_seconds=0.0))
    taken = of(16)
    assert (at_once.negotiation, at_once.communication) == (0.0, taken.communication)
    assert taken.negotiation == pytest.approx(4 * SOME.negotiation_seconds, rel=0.1)
    assert taken.seconds == pytest.approx(at_once.seconds + taken.negotiation)


def test_more_workers_wait_longer_for_the_slowest() -> None:
    waits = [of(k).straggler for k in (1, 2, 8, 64, 512)]
    assert waits == sorted(waits)
    assert waits[-1] < 4 * 0.02 * 0.2


def test_micro_batches_are_summed_once() -> None:
    once, thrice = of(16), of(16, micro_batches=3)
    assert thrice.compute == pytest.approx(3 * once.compute)
    assert thrice.communication == pytest.approx(once.communication)


def test_horovods_own_fusion_takes_what_is_there() -> None:
    sums = []

    class Counting(Fabric):
        def seconds(self, size: float, workers: int) -> float:
            sums.append(size)
            return super().seconds(size, workers)

    fabric = Counting(8, 5e10, 1e8, 5e-6)
    step(0.2, network("resnet50"), 16, fabric, Fusion("timed", 64 * MIB, 0.005), SOME)
    assert sum(sums) == 2 * 4 * network("resnet50").parameters  # once as it is, once as if all agreed at once
    assert max(sums) <= 64 * MIB
    assert len(sums) < 20  # the first sums take so long that the others gather
