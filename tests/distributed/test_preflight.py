"""What all workers must have alike, who differs, and a sum that comes out right."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from hvdtrain.distributed import preflight
from hvdtrain.distributed.comm import SoloComm
from hvdtrain.errors import ConfigError, EnvironmentFault, HvdtrainError

HOSTS = ["h1", "h1", "h1", "h2", "h2", "h2"]


class Meeting(SoloComm):
    """One of several workers, each a thread."""

    def __init__(self, rank: int, size: int, barrier: threading.Barrier, board: dict[int, Any]) -> None:
        self.rank, self.size = rank, size
        self._barrier, self._board = barrier, board

    def gather(self, value: Any, name: str) -> list[Any]:
        self._board[self.rank] = value
        self._barrier.wait()
        everyone = [self._board[rank] for rank in range(self.size)]
        self._barrier.wait()
        return everyone

    def table(self, row: NDArray[np.float64], name: str) -> NDArray[np.float64]:
        return np.stack(self.gather(row, name))

    def meet(self, name: str) -> None:
        self._barrier.wait()

    def start_sum(self, tensor: torch.Tensor, name: str) -> None:
        total = torch.stack(self.gather(tensor.clone(), name)).sum(0)
        tensor.copy_(self.received(total))

    def received(self, total: torch.Tensor) -> torch.Tensor:
        return total


def together(
    size: int, act: Callable[[Meeting], Any], kind: Callable[..., Meeting] = Meeting
) -> list[HvdtrainError | Any]:
    """What comes of it on each rank: a value, or the error it raised."""
    barrier, board, found = threading.Barrier(size, timeout=20), {}, {}

    def one(rank: int) -> None:
        try:
            found[rank] = act(kind(rank, size, barrier, board))
        except HvdtrainError as error:
            found[rank] = error

    workers = [threading.Thread(target=one, args=(rank,)) for rank in range(size)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return [found[rank] for rank in range(size)]


def test_the_few_are_named_with_their_hosts_and_the_others_are_the_others() -> None:
    facts = [{"torch": "2.13", "hvdtrain": "1"} for _ in HOSTS]
    facts[3]["torch"] = facts[5]["torch"] = "2.12"
    assert preflight.differences(facts, HOSTS, ["hvdtrain", "torch"]) == [
        "torch is 2.12 on ranks 3, 5 (h2), 2.13 on the others"
    ]


def test_each_other_value_is_named_and_of_many_the_first() -> None:
    facts = [{"seed": str(rank)} for rank in range(6)]
    (told,) = preflight.differences(facts, HOSTS, ["seed"])
    assert told == (
        "seed is 1 on rank 1 (h1), 2 on rank 2 (h1), 3 on rank 3 (h2), 4 on rank 4 (h2), 1 other values elsewhere, "
        "0 on the others"
    )


def test_what_a_worker_does_not_have_is_missing_there() -> None:
    assert preflight.differences([{"a": ""}, {}], HOSTS, ["a"]) == ["a is missing on rank 1 (h1), empty on the others"]


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.text(max_size=200)), min_size=1, max_size=6))
def test_differences_are_told_where_there_are_any_and_shortly(facts: list[dict[str, str]]) -> None:
    told = preflight.differences(facts, HOSTS, ["a", "b", "c"])
    assert len(told) == sum(len({each.get(name, "missing") for each in facts}) > 1 for name in "abc")
    assert all(len(line) < 500 and "\n" not in line for line in told)


def agreed(size: int, **odd: dict[int, dict[str, str]]) -> list[Any]:
    """`odd`: for settings, software or place, what a rank has otherwise."""

    def act(comm: Meeting) -> list[str]:
        facts = {
            "settings": {"seed": "0", "epochs": "90"},
            "software": {"hvdtrain": "1", "torch": "2.13", "Horovod": "0.28.1"},
            "place": {"device": "H100", "Python": "3.11"},
        }
        for kind, ranks in odd.items():
            facts[kind] |= ranks.get(comm.rank, {})
        return preflight.agree(comm, HOSTS[comm.rank], **facts)

    return together(size, act)


def test_workers_that_are_alike_are_not_worth_a_word() -> None:
    assert agreed(3) == [[]] * 3


def test_other_settings_are_one_error_on_all_ranks_that_names_them() -> None:
    errors = agreed(3, settings={1: {"seed": "7"}, 2: {"extra": "x" * 5000}})
    assert {type(error) for error in errors} == {ConfigError}
    (message,) = {str(error) for error in errors}
    assert "extra is xxx" in message
    assert "seed is 7 on rank 1 (h1), 0 on the others" in message
    assert "epochs" not in message
    assert len(message) < 500


def test_other_software_is_one_error_that_rank_0_tells() -> None:
    errors = agreed(4, software={3: {"torch": "2.12"}})
    assert {type(error) for error in errors} == {EnvironmentFault}
    (message,) = {str(error) for error in errors}
    assert "different software: torch is 2.12 on rank 3 (h2), 2.13 on the others" in message
    assert all(error.everyones for error in errors)


def test_other_devices_are_a_warning() -> None:
    assert agreed(4, place={3: {"device": "A100"}}) == [["device is A100 on rank 3 (h2), H100 on the others"]] * 4


def test_other_images_are_an_error() -> None:
    def act(comm: Meeting) -> None:
        preflight.same_images(comm, HOSTS[comm.rank], {"train": "aa" if comm.rank else "bb", "val": "cc"})

    errors = together(3, act)
    (message,) = {str(error) for error in errors}
    assert "different images: train is bb on rank 0 (h1), aa on the others" in message


def test_clocks_that_are_apart_by_more_than_two_seconds_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert preflight.clock_warnings([0.0, 1.9, -1.9], HOSTS) == []
    (told,) = preflight.clock_warnings([0.0, 0.0, 0.0, 0.0, 70.0, 70.0], HOSTS)
    assert told.startswith("the clock of ranks 4, 5 (h2) is 70.0 s ahead of the others")


def test_a_worker_held_up_in_one_round_does_not_look_as_if_its_clock_were_wrong() -> None:
    def act(late: Sequence[int]) -> Callable[[Meeting], list[float]]:
        class Held(Meeting):
            looks = 0

            def table(self, row: NDArray[np.float64], name: str) -> NDArray[np.float64]:
                held = 30.0 if self.rank == 1 and self.looks in late else 0.0
                self.looks += 1
                return super().table(row + held, name)

        return lambda comm: preflight.clock_offsets(Held(comm.rank, comm.size, comm._barrier, comm._board))

    for offsets in together(3, act([1])):
        assert max(map(abs, offsets)) < preflight.CLOCK_SECONDS
    for offsets in together(3, act([0, 1, 2])):
        assert offsets[1] == pytest.approx(30, abs=2)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_a_sum_is_checked_and_timed(size: int) -> None:
    sums = together(size, lambda comm: preflight.sum_of_known(comm, torch.device("cpu"), elements=8000))
    assert len(set(sums)) == 1
    assert sums[0].bytes == 32_000
    assert sums[0].seconds > 0
    share = 2 * (size - 1) / size
    assert sums[0].bus_gigabytes_per_second == pytest.approx(share * 32_000 / sums[0].seconds / 1e9)


def test_where_a_sum_takes_long_one_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    counts = [0, 0]

    class Counted(Meeting):
        def received(self, total: torch.Tensor) -> torch.Tensor:
            counts[self.rank] += 1
            return total

    def act(comm: Meeting) -> preflight.Sum:
        return preflight.sum_of_known(comm, torch.device("cpu"), elements=800)

    together(2, act, Counted)
    assert counts == [1 + preflight.ROUNDS] * 2
    monkeypatch.setattr(preflight, "SLOW_SECONDS", 0.0)
    assert together(2, act, Counted)[0].seconds > 0
    assert counts == [2 + preflight.ROUNDS] * 2


@pytest.mark.parametrize("wrong", [1e-3, float("nan"), -1.0])
def test_a_sum_that_is_wrong_on_one_worker_is_an_error_on_all(wrong: float) -> None:
    class Faulty(Meeting):
        def received(self, total: torch.Tensor) -> torch.Tensor:
            if self.rank == 1:
                total = total.clone()
                total[-1, -1] += wrong
            return total

    errors = together(3, lambda comm: preflight.sum_of_known(comm, torch.device("cpu"), elements=800), Faulty)
    (message,) = {str(error) for error in errors}
    assert "the sum of 800 known numbers over 3 workers is wrong on rank 1: up to 1 of them" in message


def test_the_known_numbers_stay_exact_for_as_many_workers_as_is_said() -> None:
    assert sum(rank % 64 + 1 for rank in range(32_000)) * 8 < 2**24
