"""The numbers of the recipe: how many micro-batches, and which rates, a configuration means on k workers."""

import re
import subprocess
import sys
from math import prod
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hvdtrain.config.load import Parser, add_options, from_options
from hvdtrain.config.schema import Config
from hvdtrain.errors import ConfigError
from hvdtrain.optim.schedule import Schedule
from hvdtrain.train import recipe


def config(n: int, kn: int | None, *, mixup: float = 0, **optim: Any) -> Config:
    return Config(data={"batch_size": n, "mixup": mixup}, train={"global_batch_size": kn}, optim=optim)


def refused(k: int, n: int, kn: int) -> str:
    with pytest.raises(ConfigError) as error:
        recipe.micro_batches(config(n, kn), k)
    return str(error.value)


@pytest.mark.parametrize(
    ("k", "n", "kn", "m"),
    [
        *((8, 32, 256, 1), (4, 32, 256, 2), (1, 32, 256, 8), (1, 32, 32, 1), (256, 32, 8192, 1), (8, 32, 8192, 32)),
        *((256, 32, 65536, 8), (3, 32, 96, 1), (3, 32, 384, 4), (2, 1, 6, 3)),
    ],
)
def test_as_many_micro_batches_as_the_minibatch_needs(k: int, n: int, kn: int, m: int) -> None:
    assert recipe.micro_batches(config(n, kn), k) == m


def elastic(n: int, kn: int, **optim: Any) -> Config:
    given = config(n, kn, **optim)
    return given.model_copy(update={"elastic": given.elastic.model_copy(update={"enabled": True})})


@pytest.mark.parametrize(
    ("k", "n", "kn", "wanted"),
    [(2, 16, 32, 32), (1, 16, 32, 32), (3, 16, 32, 48), (5, 32, 256, 320), (6, 32, 256, 192), (7, 32, 8192, 8288)],
)
def test_where_workers_come_and_go_the_minibatch_stays_as_near_as_it_can(k: int, n: int, kn: int, wanted: int) -> None:
    assert recipe.global_batch(elastic(n, kn), k) == wanted


@given(k=st.integers(1, 512), n=st.integers(1, 64), kn=st.integers(1, 2**15))
def test_no_other_minibatch_would_be_nearer(k: int, n: int, kn: int) -> None:
    found = recipe.global_batch(elastic(n, kn), k)
    assert found % (k * n) == 0
    assert all(abs(found - kn) <= abs(m * k * n - kn) for m in range(1, kn // (k * n) + 3))


def test_the_rate_follows_the_minibatch_down_at_once_and_up_by_a_ramp() -> None:
    given = elastic(32, 256, warmup="none", decay_epochs=(30,))
    changes = [(0, 256), (2, 320), (4, 256), (29.9, 512)]

    def rate(epoch: float) -> float:
        return round(recipe.ramped(given, [change for change in changes if change[0] <= epoch])(epoch), 6)

    assert [rate(epoch) for epoch in (0, 1.99, 2, 2.125, 2.25, 3.99, 4, 29.9, 29.999, 30, 30.025, 30.15, 31)] == [
        *(0.1, 0.1),  # of 256
        *(0.1, 0.1125, 0.125, 0.125),  # of 320, in a quarter of an epoch
        0.1,  # of 256 again
        *(0.1, 0.1396, 0.014, 0.015, 0.02, 0.02),  # of 512, over a decay
    ]


@pytest.mark.parametrize(("before", "now"), [(512, 256), (256, 512)])
def test_a_run_that_goes_back_to_before_a_change_has_a_rate_too_large_for_neither_minibatch(
    before: int, now: int
) -> None:
    given = elastic(32, 256, warmup="none", decay_epochs=(30,))
    again = recipe.ramped(given, [(0, before), (2, now)])
    assert [again(epoch) for epoch in (1.5, 1.99)] == [0.1, 0.1]
    grown = recipe.ramped(given, [(0, before), (2, now), (1.6, 512)])  # the workers change once more
    assert grown(1.6) == 0.1
    assert grown(2.3) == 0.2


def test_a_ramp_of_no_epochs_is_a_step() -> None:
    given = elastic(32, 256, warmup="none")
    given = given.model_copy(update={"elastic": given.elastic.model_copy(update={"ramp_epochs": 0})})
    rate = recipe.ramped(given, [(0, 256), (2, 512)])
    assert [rate(epoch) for epoch in (1.999, 2)] == [0.1, 0.2]


@given(k=st.integers(1, 512), n=st.integers(1, 64))
def test_without_a_minibatch_in_the_configuration_each_worker_takes_one(k: int, n: int) -> None:
    assert recipe.micro_batches(config(n, None), k) == 1


@given(k=st.integers(1, 512), n=st.integers(1, 64), m=st.integers(1, 32))
def test_micro_batches_make_up_the_minibatch(k: int, n: int, m: int) -> None:
    assert recipe.micro_batches(config(n, k * n * m), k) == m


@pytest.mark.parametrize(
    ("k", "n", "kn", "wanted", "remedy"),
    [
        (
            *(6, 32, 256, "expected a multiple of 192, for 6 workers of data.batch_size = 32"),
            "4 or 8 workers, or --train.global_batch_size 192 or 384",
        ),
        (
            *(1, 32, 48, "expected a multiple of 32, for 1 worker of data.batch_size = 32"),
            "--train.global_batch_size 32 or 64, or --data.batch_size 24 or 48",
        ),
        # kn smaller than k·n: none of the multiples is below it
        (
            *(256, 32, 256, "expected a multiple of 8192, for 256 workers of data.batch_size = 32"),
            "8 workers, or --train.global_batch_size 8192, or --data.batch_size 1",
        ),
        (
            *(2, 32, 32, "expected a multiple of 64, for 2 workers of data.batch_size = 32"),
            "1 worker, or --train.global_batch_size 64, or --data.batch_size 16",
        ),
        (
            *(8, 64, 7, "expected a multiple of 512, for 8 workers of data.batch_size = 64"),
            "--train.global_batch_size 512",
        ),
    ],
)
def test_a_minibatch_that_does_not_fit_is_refused_with_what_would(
    k: int, n: int, kn: int, wanted: str, remedy: str
) -> None:
    assert refused(k, n, kn) == f"train.global_batch_size = {kn}: {wanted} → {remedy}"


def proposals(remedy: str) -> dict[str, list[int]]:
    """'4 or 8 workers, or --data.batch_size 16' -> {"worker": [4, 8], "--data.batch_size": [16]}"""
    read: dict[str, list[int]] = {}
    for proposal in remedy.split(", or "):
        match = re.fullmatch(r"(?:(--\S+) )?(\d+(?: or \d+)?)(?: (worker)s?)?", proposal)
        assert match, proposal
        read[match[1] or match[3]] = [int(number) for number in match[2].split(" or ")]
    return read


@given(k=st.integers(1, 40), n=st.integers(1, 40), kn=st.integers(1, 2000), paired=st.booleans())
def test_whatever_is_proposed_fits_and_nothing_nearer_does(k: int, n: int, kn: int, paired: bool) -> None:
    mixup = 0.2 if paired else 0.0
    n = 2 * n if paired else n
    assume(kn % (k * n))
    with pytest.raises(ConfigError) as error:
        recipe.micro_batches(config(n, kn, mixup=mixup), k)
    asked = {"worker": k, "--data.batch_size": n, "--train.global_batch_size": kn}
    possible = {
        "worker": [other for other in range(1, kn + 1) if kn % (other * n) == 0],
        "--data.batch_size": [b for b in range(1, kn + 1) if kn % (k * b) == 0 and not (paired and b % 2)],
        "--train.global_batch_size": list(range(k * n, kn + k * n + 1, k * n)),
    }
    nearest = {
        what: [v for v in values if v < asked[what]][-1:] + [v for v in values if v > asked[what]][:1]
        for what, values in possible.items()
    }
    proposed = proposals(error.value.remedy)
    assert proposed == {what: values for what, values in nearest.items() if values}
    for what, values in proposed.items():
        for number in values:
            workers, batch, minibatch = {**asked, what: number}.values()
            assert workers * batch * recipe.micro_batches(config(batch, minibatch, mixup=mixup), workers) == minibatch


def test_the_options_that_are_proposed_are_options() -> None:
    parser = Parser(prog="hvdtrain train")
    source = add_options(parser)
    begun = ["--train.global_batch_size", "48", "--data.batch_size", "32"]
    for option, numbers in proposals(refused(1, 32, 48).split(" → ")[1]).items():
        for number in numbers:
            typed = from_options(source, parser.parse_args([*begun, option, str(number)]))
            assert recipe.micro_batches(typed, 1) >= 1


@st.composite
def shares(draw: st.DrawFn, factors: list[int]) -> tuple[int, int, int]:
    """k, n and m of one minibatch: each of its factors is given to one of the three."""
    parts = [1, 1, 1]
    for factor in factors:
        parts[draw(st.integers(0, 2))] *= factor
    return parts[0], parts[1], parts[2]


@given(data=st.data(), factors=st.lists(st.sampled_from((2, 3, 5)), max_size=8), epoch=st.floats(0, 100))
def test_the_rate_depends_on_the_minibatch_and_not_on_who_shares_it(
    data: st.DataObject, factors: list[int], epoch: float
) -> None:
    kn, decay, seen = prod(factors), data.draw(st.sampled_from(("step", "cosine", "polynomial"))), set()
    for _ in range(3):
        k, n, m = data.draw(shares(factors))
        shared = config(n, kn, decay=decay)
        assert recipe.micro_batches(shared, k) == m
        seen.add(recipe.schedule(shared, k * n * m)(epoch))
    assert len(seen) == 1


def rates(kn: int, epochs: tuple[float, ...], **optim: Any) -> list[float]:
    schedule = recipe.schedule(config(32, None, **optim), kn)
    return [schedule(epoch) for epoch in epochs]


@pytest.mark.parametrize(
    ("kn", "optim", "wanted"),
    [  # at epochs 0, 2.5, 5, 47.5 and 90
        (8192, {}, (0.1, 1.65, 3.2, 0.32, 0.0032)),
        (8192, {"warmup": "constant"}, (0.1, 0.1, 3.2, 0.32, 0.0032)),
        (8192, {"warmup": "none"}, (3.2, 3.2, 3.2, 0.32, 0.0032)),
        (8192, {"scaling": "none"}, (0.1, 0.1, 0.1, 0.01, 0.0001)),
        (8192, {"scaling": "sqrt"}, (0.1, 0.332843, 0.565685, 0.0565685, 0.000565685)),
        (8192, {"decay_epochs": (40.0,), "decay_factor": 0.5}, (0.1, 1.65, 3.2, 1.6, 1.6)),
        (8192, {"decay": "cosine"}, (0.1, 1.65, 3.2, 1.6, 0.0)),
        (8192, {"decay": "cosine", "end_lr": 0.2}, (0.1, 1.65, 3.2, 1.7, 0.2)),
        (8192, {"decay": "polynomial"}, (0.1, 1.65, 3.2, 0.8, 0.0)),
        (8192, {"decay": "polynomial", "power": 3, "end_lr": 0.1}, (0.1, 1.65, 3.2, 0.4875, 0.1)),
        (2048, {"base_lr": 0.5, "reference_batch": 1024}, (0.5, 0.75, 1.0, 0.1, 0.001)),
    ],
)
def test_the_schedule_is_the_configurations(kn: int, optim: dict[str, Any], wanted: tuple[float, ...]) -> None:
    assert rates(kn, (0, 2.5, 5, 47.5, 90), **optim) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("decay", ["cosine", "polynomial"])
@pytest.mark.parametrize(
    ("kn", "optim"),
    [
        *((256, {}), (64, {"warmup": "constant"}), (8192, {"warmup": "none"}), (8192, {"scaling": "none"})),
        (96, {"reference_batch": 96}),  # 0.1 · 96 / 96 is more than 0.1
    ],
)
def test_without_a_warm_up_the_rate_falls_from_the_first_step_on(kn: int, optim: dict[str, Any], decay: str) -> None:
    first, *later = rates(kn, (0, 0.5, 5, 45, 90), decay=decay, **optim)
    assert first == recipe.schedule(config(32, None, **optim), kn).peak
    assert [first, *later] == sorted({first, *later}, reverse=True)
    assert later[2] == pytest.approx(first * {"cosine": 0.5, "polynomial": 0.25}[decay])


@given(
    kn=st.integers(1, 100_000),
    warmup=st.sampled_from(("gradual", "constant", "none")),
    scaling=st.sampled_from(("linear", "sqrt", "none")),
    decay=st.sampled_from(("step", "cosine", "polynomial")),
    epoch=st.floats(0, 89),
)
def test_every_schedule_goes_from_its_base_rate_to_its_peak_and_down(
    kn: int, warmup: str, scaling: str, decay: str, epoch: float
) -> None:
    schedule = recipe.schedule(config(32, None, warmup=warmup, scaling=scaling, decay=decay), kn)
    assert isinstance(schedule, Schedule)
    warm = 5 if warmup != "none" and schedule.peak > 0.1 else 0
    assert schedule(0) == (0.1 if warm else schedule.peak)
    assert schedule(warm) == pytest.approx(schedule.peak, rel=1e-15)
    assert 0 < schedule(epoch) <= max(0.1, schedule.peak) * (1 + 1e-12)
    assert schedule(max(epoch, warm) + 1) <= schedule(max(epoch, warm)) * (1 + 1e-12)


def test_it_needs_no_torch() -> None:
    """What cannot be is refused before anything heavy is loaded."""
    program = "import sys, hvdtrain.train.recipe; print(sorted({'torch', 'horovod', 'numpy'} & sys.modules.keys()))"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\n"


@pytest.mark.parametrize(("k", "m"), [(8, 1), (4, 2), (2, 4), (1, 8)])
def test_a_run_that_goes_on_keeps_its_minibatch_on_any_number_of_workers_that_can(k: int, m: int) -> None:
    going_on = recipe.going_on(config(32, None), workers=k, global_batch=256)
    assert recipe.micro_batches(going_on, k) == m
    assert recipe.global_batch(going_on, k) == 256


@pytest.mark.parametrize(
    ("n", "k", "remedy"),
    [
        (32, 3, "resume it on 1, 2, 4 or 8 workers"),
        (32, 16, "resume it on 1, 2, 4 or 8 workers"),
        (256, 2, "resume it on 1 workers"),
        (24, 1, "a data.batch_size that divides 256"),
    ],
)
def test_workers_that_cannot_share_the_minibatch_of_a_run_are_told_who_can(n: int, k: int, remedy: str) -> None:
    with pytest.raises(ConfigError) as refusal:
        recipe.going_on(config(n, None), workers=k, global_batch=256)
    assert "the run's minibatch of 256 images" in str(refusal.value)
    assert str(refusal.value).endswith(f"→ {remedy}")


def test_a_minibatch_that_was_set_or_is_not_known_is_left_to_the_configuration() -> None:
    for kn, before in ((512, 256), (None, 0)):
        given = config(32, kn)
        assert recipe.going_on(given, workers=8, global_batch=before) is given
