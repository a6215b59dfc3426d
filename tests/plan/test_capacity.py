"""Hours, cost, deadlines, limits."""

from dataclasses import replace
from typing import Any

import pytest

from hvdtrain.errors import ConfigError
from hvdtrain.plan import capacity, hardware, text
from hvdtrain.plan.fit import Fit
from hvdtrain.plan.setting import Ask, setting

PAPER = Ask(gpu="p100", link="50gbit", price=2.0)


def of(workers: int, **asked: Any) -> capacity.Prediction:
    return capacity.predict(setting(replace(PAPER, **asked)), workers)


def test_hours_and_cost_follow_from_throughput() -> None:
    found = of(256)
    assert found.images_per_second == pytest.approx(256 * 32 / found.step.seconds)
    assert found.hours == pytest.approx(90 * 1_281_167 / found.images_per_second / 3600)
    assert found.cost == pytest.approx(found.hours * 256 * 2.0)
    assert 0.6 < found.hours < 1.2  # the paper's hour


def test_one_worker_is_its_own_measure() -> None:
    found = of(1)
    assert (found.weak, found.low, found.high, found.limit) == (1.0, 1.0, 1.0, "computing")
    assert found.step.seconds == found.step.compute == 32 / 195


@pytest.mark.parametrize("workers", [2, 8, 16, 256, 1024])
def test_intervals_hold_the_point(workers: int) -> None:
    found = of(workers)
    assert 0 <= found.low < found.efficiency <= found.high <= 1


def test_a_faster_link_never_makes_a_plan_worse() -> None:
    links = ["1gbit", "10gbit", "40gbit", "100gbit", "8x200gbit"]
    found = [of(64, link=link, transport="rdma").weak for link in links]
    assert found == sorted(found)
    assert found[0] < 0.3
    assert of(64, link="1gbit").limit == "communication"


def test_late_input_is_what_limits() -> None:
    found = of(64, input_rate=800.0)
    assert found.limit == "input"
    assert found.images_per_second == pytest.approx(8 * 800)


@pytest.mark.parametrize("price", [None, 0.0])
def test_the_fewest_workers_are_found(price: float | None) -> None:
    asked = setting(replace(PAPER, price=price))
    found = capacity.meet(asked, 2.0).meets
    assert found
    assert found.hours <= 2
    fewer = [k for k in (*range(1, 9), *range(16, 4097, 8)) if k < found.workers]
    assert all(capacity.predict(asked, k).hours > 2 for k in fewer)


def test_where_no_number_is_enough_it_says_why() -> None:
    found = capacity.meet(setting(PAPER), 0.01, most=512)
    assert found.meets is None
    assert found.fastest.workers == 512
    assert "--most-workers" in found.why
    strong = capacity.meet(setting(replace(PAPER, global_batch=256)), 0.1)
    assert strong.meets is None
    assert "larger --global-batch" in strong.why


def test_strong_scaling_keeps_the_minibatch() -> None:
    found = [of(k, global_batch=2048) for k in (1, 8, 64, 256)]
    assert [each.minibatch for each in found] == [2048] * 4
    assert [each.micro_batches for each in found] == [64, 8, 1, 1]
    assert found[-1].batch == 8
    strong = [each.strong for each in found]
    assert strong[0] == pytest.approx(1.0)
    assert strong == sorted(strong, reverse=True)  # type: ignore[type-var]
    with pytest.raises(ConfigError, match="cannot share it equally"):
        of(3, global_batch=2048)
    with pytest.raises(ConfigError, match="no multiple of --batch"):
        of(8, global_batch=8 * 48)


def test_a_smaller_share_than_was_measured_is_said_to_be_assumed() -> None:
    ask = replace(PAPER, global_batch=2048)
    assert "at n = 8 a worker is taken" in text.answer(ask, setting(ask), of(256, global_batch=2048))
    assert "a worker is taken" not in text.answer(ask, setting(ask), of(64, global_batch=2048))


def test_the_sweep_doubles() -> None:
    assert [each.workers for each in capacity.sweep(setting(PAPER), 24)] == [1, 2, 4, 8, 16, 24]


def test_every_input_says_where_it_is_from() -> None:
    tabulated = {each.name: each for each in setting(PAPER).inputs}
    assert tabulated["computing"].how == "tabulated"
    assert "TensorFlow benchmarks" in tabulated["computing"].source
    assert tabulated["input"].how == "assumed"
    measured = {each.name: each for each in setting(replace(PAPER, compute_seconds=0.2, input_rate=9e3)).inputs}
    assert measured["computing"].how == measured["input"].how == "measured"
    assert all(each.source for each in (*tabulated.values(), *measured.values()))


def test_a_fit_takes_the_place_of_tables() -> None:
    fit = Fit(4, 30e-6, 1e8, 1e-6, 1e6, 0.1, 0.02, 40, "four hosts", "2026-11-26")
    found = setting(replace(PAPER, fit=fit))
    assert (found.fabric.within, found.fabric.hop_seconds) == (1e8, 30e-6)
    assert next(each for each in found.inputs if each.name == "sums").how == "measured"
    assert capacity.predict(found, 4).limit == "communication"


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"gpu": "p200"}, "--gpu p200: not known; wanted one of p100, v100"),
        ({"model": "resnet"}, "--model resnet: .*resnet50"),
        ({"link": "fast"}, "--link fast: not a speed"),
        ({"within": "nvlink9"}, "--within nvlink9: .*nvlink4"),
        ({"precision": "fp8"}, "--precision fp8: no published speed.*--images-per-second-per-gpu"),
        ({"batch": 0}, "--batch 0: wanted a number above 0"),
        ({"epochs": float("nan")}, "--epochs nan"),
        ({"price": -1.0}, "--price"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        setting(replace(PAPER, **asked))


def test_speeds_come_from_the_nearest_row() -> None:
    assert hardware.speed("p100", "resnet50", "float32", 32).how == "tabulated"
    between = hardware.speed("p100", "resnet50", "float32", 48)
    assert between.how == "assumed"
    assert 195 < between.images_per_second < 219
    assert hardware.speed("a100-80", "resnet50", "bf16", 256).how == "assumed"
    deeper = hardware.speed("h100", "resnet101", "fp16", 400)
    assert deeper.how == "assumed"
    assert "multiply-adds from resnet50" in deeper.source


def test_every_figure_of_the_table_has_a_source() -> None:
    assert all(row["source"] and row["how"] in ("tabulated", "assumed") for row in hardware.rows())


@pytest.mark.parametrize("text", ["", "soon", "0h", "-1h", "1:75"])
def test_a_deadline_is_a_time(text: str) -> None:
    with pytest.raises(ConfigError, match="--deadline"):
        capacity.hours_of(text)
