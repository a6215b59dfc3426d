"""Hours, cost, deadlines, limits."""

from dataclasses import replace
from typing import Any

import pytest

from hvdtrain.errors import ConfigError
from hvdtrain.log import duration
from hvdtrain.plan import capacity, hardware, text
from hvdtrain.plan.ask import Ask
from hvdtrain.plan.fit import Fit
from hvdtrain.plan.setting import setting

PAPER = Ask(gpu="p100", link="50gbit", price=2.0)


def of(workers: int, **asked: Any) -> capacity.Prediction:
    return capacity.predict(setting(replace(PAPER, **asked)), workers)


def test_hours_and_cost_follow_from_throughput() -> None:
    found = of(256)
    assert found.images_per_second == pytest.approx(256 * 32 / found.step.seconds)
    assert found.hours == pytest.approx(90 * 1_281_167 / found.images_per_second / 3600)
    assert found.cost(found.hours) == pytest.approx(found.hours * 256 * 2.0)
    assert 0.6 < found.hours < 1.2  # the paper's hour


def test_what_a_device_may_be_slower_or_faster_is_in_images_hours_and_cost() -> None:
    """Efficiency hardly knows of it."""
    sure, far = of(256), of(256, batch=31)  # beside the table's 32
    assert (far.low, far.high) == pytest.approx((sure.low, sure.high), abs=0.02)
    assert far.fast / far.slow > 1.05 * sure.fast / sure.slow
    assert sure.slow < sure.images_per_second < sure.fast
    fewest, most = far.hours_between
    assert fewest * far.fast == pytest.approx(most * far.slow) == pytest.approx(far.hours * far.images_per_second)
    alone = of(1, batch=31)
    assert (alone.slow, alone.fast) == pytest.approx((195 / 1.15, 195 * 1.15), rel=0.01)
    assert of(1, compute_seconds=0.2).slow == of(1, compute_seconds=0.2).fast
    ask = replace(PAPER, batch=31)
    said = text.answer(ask, setting(ask), far)
    assert f"({far.slow:,.0f} to {far.fast:,.0f}: 80 % intervals" in said
    assert f"({duration(3600 * fewest)} to {duration(3600 * most)}) of training" in " ".join(said.split())


def test_a_deadline_says_whether_it_is_met_at_the_slow_end() -> None:
    ask = replace(PAPER, compute_seconds=0.16)
    hours = of(64, compute_seconds=0.16).hours_between[1]
    surely = capacity.meet(setting(ask), 1.3 * hours)
    assert surely.meets
    just = capacity.meet(setting(ask), 1.0001 * surely.meets.hours)
    assert just.meets == surely.meets
    assert not just.surely
    assert "too long" in text.deadline(ask, setting(ask), just)
    late = capacity.meet(setting(ask), 0.001, most=8)
    assert not late.surely


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


def test_agreeing_is_a_part_of_its_own_that_no_link_hides() -> None:
    asked: dict[str, Any] = {"gpu": "h100", "precision": "fp16", "batch": 400}
    found = of(8, **asked)
    assert found.limit == "negotiation"
    assert found.step.communication < 0.02 * found.step.seconds < found.step.negotiation
    links = of(8, **asked, within="nvlink4"), of(8, **asked, bucket_mib=50.0), of(8, **asked, wire="fp16")
    assert all(each.step.negotiation == pytest.approx(found.step.negotiation, rel=0.05) for each in links)
    larger = of(8, **{**asked, "batch": 800})  # what is said to help
    assert larger.step.negotiation / larger.step.seconds < 0.6 * found.step.negotiation / found.step.seconds
    ask = replace(PAPER, **asked)
    assert "--link" not in text.answer(ask, setting(ask), found).split("rests on")[0]


@pytest.mark.parametrize("workers", [16, 256])
def test_what_agreeing_may_take_is_in_the_interval(workers: int) -> None:
    found = of(workers, link="100gbit")
    ends = setting(replace(PAPER, link="100gbit")).ranges["negotiation_seconds"]
    slow, fast = sorted(capacity.predict(end, workers).efficiency for end in ends)
    assert found.low < slow < found.efficiency < fast < found.high


@pytest.mark.parametrize("workers", [8, 64, 512])
@pytest.mark.parametrize("model", ["resnet50", "vgg16"])
def test_half_the_bytes_on_the_wire_make_no_plan_slower(workers: int, model: str) -> None:
    full, half = (of(workers, model=model, wire=wire) for wire in (None, "fp16"))
    assert half.step.seconds <= full.step.seconds
    assert half.step.busy < full.step.busy


def test_late_input_is_what_limits() -> None:
    found = of(64, input_rate=800.0)
    assert found.limit == "input"
    assert found.images_per_second == pytest.approx(8 * 800)


@pytest.mark.parametrize("global_batch", [None, 64])
def test_one_worker_is_its_own_measure_when_images_are_late_too(global_batch: int | None) -> None:
    found = of(1, input_rate=50.0, global_batch=global_batch)
    assert (found.efficiency, found.low, found.high, found.limit) == (1.0, 1.0, 1.0, "input")
    assert found.images_per_second == pytest.approx(50)
    assert of(16, input_rate=50.0, gpus_per_node=1).weak > 0.9
    ask = replace(PAPER, input_rate=50.0)
    assert "50 images/s, a step" in text.answer(ask, setting(ask), of(1, input_rate=50.0))  # sure, to the digit


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
    stopped = capacity.meet(setting(replace(PAPER, global_batch=8192)), 0.01, most=16)
    assert "of 16 workers, the most that were tried (--most-workers)" in stopped.why


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


def test_only_what_differs_is_said_of_efficiency() -> None:
    """Weak and strong scaling are one, until a worker's images are so few that it is slower, or may be."""
    ask = replace(PAPER, batch=64, global_batch=2048)
    said, curve = text.answer(ask, setting(ask), of(16, batch=64, global_batch=2048)), text.curve
    assert ("E_s" in said, "E_w" in said) == (True, False)
    fewer = of(64, batch=64, global_batch=2048)  # 32 images each, of which a P100 computes 195 a second, not 219
    assert fewer.strong == pytest.approx(fewer.weak * 195 / 219)
    assert "E_w" in text.answer(ask, setting(ask), fewer)
    assert "a larger --global-batch" in text.answer(ask, setting(ask), fewer)
    assert "E_s     E_w" in curve(setting(ask), capacity.sweep(setting(ask), 64)).splitlines()[0]
    assert "E_w" not in curve(setting(ask), capacity.sweep(setting(ask), 32)).splitlines()[0]
    assert "E_s" not in text.answer(PAPER, setting(PAPER), of(64))
    assert "E_s" not in curve(setting(PAPER), capacity.sweep(setting(PAPER), 64)).splitlines()[0]


def test_strong_scaling_is_less_sure_where_images_are_fewer_than_in_any_table() -> None:
    found = setting(replace(PAPER, global_batch=2048, link="8x200gbit"))
    known = replace(found, alone=lambda batch: replace(found.alone(batch), spread=0.0))
    few, sure = (capacity.predict(each, 256) for each in (found, known))
    assert (few.batch, found.alone(8).spread) == (8, pytest.approx(0.3, abs=0.01))
    assert few.high / few.low > 1.05 * sure.high / sure.low


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


FIT = Fit(4, 4e-4, None, 1e8, 1e-6, 0.0, 1e6, 0.1, 0.02, 40, "four processes", "2026-11-26")


def test_what_was_measured_within_a_node_holds_there_and_the_network_is_as_without_it() -> None:
    found, without = (setting(replace(PAPER, fit=fit)).fabric for fit in (FIT, None))
    assert (found.within, found.across, found.hop_seconds) == (1e8, without.across, without.hop_seconds)
    assert {each.name: each.how for each in setting(replace(PAPER, fit=FIT)).inputs}["within a node"] == "measured"
    assert of(4, fit=FIT).limit == "communication"
    fast = replace(FIT, bytes_per_second=1e11)
    slow_link, fast_link = (of(64, fit=fast, link=link).weak for link in ("1gbit", "8x200gbit"))
    assert slow_link < 0.3 < fast_link
    assert of(8, fit=fast, link="1gbit").step == of(8, fit=fast, link="100gbit").step
    assert of(64, fit=FIT, link="8x200gbit").step == of(64, fit=FIT, link="16x200gbit").step  # no faster than within
    assert of(64, fit=fast, algorithm="hierarchical").step != of(64, fit=fast).step


def test_what_was_measured_between_nodes_is_the_network() -> None:
    found, without = (setting(replace(PAPER, fit=fit)).fabric for fit in (replace(FIT, between="nodes"), None))
    assert (found.within, found.across) == (without.within, 1e8)


def test_a_sum_takes_what_was_measured_and_agreeing_upon_it_is_not_added_again() -> None:
    found = setting(replace(PAPER, fit=FIT))
    fixed = found.overheads.wait(4, found.fusion.cycle_seconds)
    assert fixed + found.fabric.seconds(1e6, 4) == pytest.approx(4e-4 + 2 * 3 / 4 * 1e6 / 1e8)
    beyond = found.overheads.wait(16, found.fusion.cycle_seconds)
    assert beyond == pytest.approx(fixed + 2 * found.overheads.negotiation_seconds)
    hops = setting(replace(PAPER, fit=replace(FIT, hop_seconds=30e-6)))
    assert hops.fabric.hop_seconds == 30e-6
    assert hops.overheads.wait(4, 0.001) == 4e-4


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
        ({"link": "0x100gbit"}, "--link 0x100gbit: .*above 0"),
        ({"link": "100GB/s"}, "--link 100GB/s: .*bits, not bytes"),
        ({"images_per_second_per_gpu": 1e-320}, "--images-per-second-per-gpu 1e-320: wanted"),
        ({"most_workers": 0}, "--most-workers 0: wanted a number of workers"),
    ],
)
def test_what_cannot_be_is_refused(asked: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        setting(replace(PAPER, **asked))


def test_speeds_of_a_link_as_people_write_them() -> None:
    assert [hardware.gbit(each) for each in ("100gbps", "100Gb/s", "100 Gbit/s", "100GbE", "EDR")] == [100.0] * 5


def test_columns_do_not_touch() -> None:
    ask = Ask(gpu="a100-80", precision="tf32", batch=255)
    said = text.answer(ask, setting(ask), capacity.predict(setting(ask), 1))
    assert "of one a100-80  assumed  " in said
    assert max(map(len, said.splitlines())) <= 100


def test_every_figure_of_the_table_has_a_source() -> None:
    assert all(row["source"] and row["how"] in ("tabulated", "assumed") for row in hardware.rows())


@pytest.mark.parametrize("text", ["", "soon", "0h", "-1h", "1:75", "0:00", "1h30", f"{'9' * 400}:00"])
def test_a_deadline_is_a_time(text: str) -> None:
    with pytest.raises(ConfigError, match="--deadline"):
        capacity.hours_of(text)
