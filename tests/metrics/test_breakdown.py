"""Where a step's time went, and whose fault that was."""

from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from hvdtrain.metrics.breakdown import PARTS, Breakdown, Seconds, breakdown, lower_median


def table(
    workers: int = 4,
    steps: int = 3,
    *,
    waited: float = 0.01,
    computed: float = 0.1,
    rest: float = 0.002,
    communication: float = 0.02,
) -> Seconds:
    """Of workers that are all alike."""
    row = [waited, computed, waited + computed + rest, waited + computed + rest + communication]
    return np.tile(np.array(row), (workers, steps, 1))


def delayed(base: Seconds, rank: int, column: int, seconds: float) -> Seconds:
    """`rank` spends more on a column, and everybody waits for it."""
    later = base.copy()
    later[rank, :, column] += seconds
    later[rank, :, 2] += seconds
    later[:, :, 3] += seconds
    return later


def grown(base: Seconds, later: Seconds) -> dict[str, float]:
    before, after = breakdown(base).parts, breakdown(later).parts
    return {part: after[part] - before[part] for part in PARTS}


def test_alike_workers_have_the_runs_parts_and_no_lag() -> None:
    found = breakdown(table())
    assert found.steps == 3
    expected = {"input": 0.01, "compute": 0.1, "straggler": 0, "communication": 0.02, "rest": 0.002}
    assert found.parts == pytest.approx(expected)
    assert {part: list(seconds) for part, seconds in found.workers.items()} == {
        part: pytest.approx([seconds] * 4) for part, seconds in expected.items()
    }
    assert list(found.lag) == [0] * 4


@pytest.mark.parametrize("workers", [2, 3, 8])
@pytest.mark.parametrize(
    ("column", "part"),
    [(0, "input"), (1, "straggler")],
)
def test_one_slow_worker_is_blamed_for_all_it_costs_and_for_nothing_else(workers: int, column: int, part: str) -> None:
    base = table(workers)
    assert grown(base, delayed(base, workers - 1, column, 0.05)) == pytest.approx(
        {name: 0.05 if name == part else 0 for name in PARTS}, abs=1e-12
    )


def test_its_peers_wait_and_it_does_not() -> None:
    found = breakdown(delayed(table(3), 1, 0, 0.05))
    assert found.workers["straggler"] == pytest.approx([0.05, 0, 0.05])
    assert found.workers["input"] == pytest.approx([0.01, 0.06, 0.01])
    assert found.workers["communication"] == pytest.approx([0.02] * 3)
    assert found.lag == pytest.approx([0, 0.05, 0])
    assert found.slowest == 1


def test_a_slower_sum_is_communication_on_all() -> None:
    base, later = table(), table(communication=0.07)
    assert grown(base, later) == pytest.approx({part: 0.05 if part == "communication" else 0 for part in PARTS})
    assert breakdown(later).workers["straggler"] == pytest.approx([0] * 4)


def test_where_all_compute_longer_it_is_compute_and_not_a_straggler() -> None:
    assert grown(table(), table(computed=0.15)) == pytest.approx({p: 0.05 if p == "compute" else 0 for p in PARTS})


def test_workers_that_are_slow_in_turn_are_each_blamed_for_their_step() -> None:
    base = table(3, 3)
    later = base.copy()
    for rank in range(3):
        later[rank, rank, 1:3] += 0.06
        later[:, rank, 3] += 0.06
    assert grown(base, later)["straggler"] == pytest.approx(0.06)
    assert breakdown(later).lag == pytest.approx([0.02] * 3)  # nobody more than another


def tables() -> st.SearchStrategy[Seconds]:
    """Of any workers whose sums are there at one moment after the last one is ready."""

    def build(parts: Seconds) -> Seconds:
        waited, computed, rest, communication = np.moveaxis(parts, -1, 0)
        ready = waited + computed + rest
        total = np.broadcast_to(ready.max(0) + communication[0], ready.shape)
        return np.stack([waited, computed, ready, total], axis=-1)

    shapes = st.tuples(st.integers(1, 6), st.integers(1, 5), st.just(4))
    return shapes.flatmap(lambda shape: arrays(np.float64, shape, elements=st.floats(0, 10))).map(build)


@given(tables())
def test_parts_sum_to_the_step_on_the_run_and_on_each_worker(times: Seconds) -> None:
    found = breakdown(times)
    total = times[0, :, 3]
    assert found.step_seconds == pytest.approx(total)
    assert sum(found.parts.values()) == pytest.approx(total.mean())
    assert sum(found.workers.values()) == pytest.approx(np.full(len(times), total.mean()))


@given(tables())
def test_waiting_is_never_negative(times: Seconds) -> None:
    found: Breakdown = breakdown(times)
    for part in ("straggler", "communication"):
        assert (found.workers[part] >= -1e-9).all()
    assert (found.run["communication"] >= -1e-9).all()


@given(tables(), st.randoms())
def test_the_run_has_no_ranks(times: Seconds, random: Random) -> None:
    shuffled = list(range(len(times)))
    random.shuffle(shuffled)
    ready = np.sort(times[..., 2], axis=0)
    if len(times) > 1 and (np.diff(ready, axis=0)[-1] < 1e-9).any():
        return  # two were last together: either may be taken
    assert breakdown(times[shuffled]).parts == pytest.approx(breakdown(times).parts)


def test_of_an_even_number_the_lower_middle_is_typical() -> None:
    assert lower_median(np.array([4.0, 1.0, 3.0, 2.0])) == 2
