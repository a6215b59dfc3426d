"""Who has its turn when, and what a few rounds can tell."""

import random
import statistics

import pytest

from hvdtrain.bench.rounds import Goal, Ratio, Spread, ratios, take_turns


def test_every_other_round_goes_backwards(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "hvdtrain")
    turns: list[str] = []

    def contender(name: str, figure: float) -> float:
        turns.append(name)
        return figure

    figures = take_turns({"a": lambda: contender("a", 1.0), "b": lambda: contender("b", 2.0)}, 3)
    assert turns == ["a", "b", "b", "a", "a", "b"]
    assert figures == {"a": [1.0] * 3, "b": [2.0] * 3}
    assert caplog.messages[:2] == ["3 rounds of a, b", "round 1 of 3: a 1, b 2; 0 s left"]
    assert caplog.messages[-1] == "round 3 of 3: a 1, b 2"


def test_the_interval_holds_the_true_median_as_often_as_it_says() -> None:
    draws = random.Random(3)
    for count in (6, 9, 12, 20):
        spreads = [Spread.of([draws.lognormvariate(0, 0.5) for _ in range(count)]) for _ in range(2000)]
        held = statistics.fmean(spread.low <= 1 <= spread.high for spread in spreads)
        assert held > 0.94, count


def test_an_interval_is_no_wider_than_the_values_and_holds_their_median() -> None:
    for count in range(1, 30):
        values = [float(number) for number in range(count)]
        spread = Spread.of(values)
        assert values[0] <= spread.low <= spread.median <= spread.high <= values[-1]


def test_a_ratio_is_taken_round_by_round() -> None:
    """The mood of a round, here a factor of ten, is none of the ratio's."""
    (found,) = ratios({"a": [9.0, 90.0, 0.9], "b": [10.0, 100.0, 1.0]}, [Goal("a", "b", 0.9), Goal("a", "gone", 2.0)])
    assert found.rounds == pytest.approx((0.9, 0.9, 0.9))
    assert found.goal.name == "a / b"


@pytest.mark.parametrize(("least", "verdict"), [(0.9, "holds"), (0.95, "holds"), (0.96, "missed"), (None, "")])
def test_the_median_decides(least: float | None, verdict: str) -> None:
    assert Ratio(Goal("a", "b", least), (0.1, 0.95, 1.2)).verdict == verdict
