"""Horovod's timeline. timeline.json is a piece of what Horovod 0.28.1 wrote of two ranks, its response cache off."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hvdtrain.errors import ConfigError
from hvdtrain.report import timeline
from hvdtrain.report.timeline import BucketTime, read

REAL = Path(__file__).with_name("timeline.json")
TEXT = REAL.read_text()


def trace(*events: tuple[str, str, int], name: str = "allreduce.gradients.0") -> str:
    """Of one tensor: kind, name and microseconds of each event."""
    first = {"name": "process_name", "ph": "M", "pid": 7, "args": {"name": name}}
    rest = [{"ph": kind, "name": what, "ts": at, "pid": 7} for kind, what, at in events]
    return json.dumps([first, *rest])


def one(tmp_path: Path, text: str) -> timeline.Timeline:
    file = tmp_path / "trace.json"
    file.write_text(text)
    return read(file)


def test_a_real_one() -> None:
    found = read(REAL)
    assert [bucket.name for bucket in found.buckets] == [f"gradients.{i}" for i in range(4)]
    assert {bucket.sums for bucket in found.buckets} == {4}
    assert (found.last, found.told, found.sums, found.whole) == ({0: 8, 1: 8}, 16, 16, True)
    first = found.buckets[0]
    assert first.negotiation == pytest.approx(0.004787)
    assert first.queue == pytest.approx(0.00307025)
    assert first.ring == pytest.approx(0.00435375)
    assert first.longest_ring == pytest.approx(0.011998)


def test_what_each_time_is(tmp_path: Path) -> None:
    found = one(
        tmp_path,
        trace(
            ("B", "NEGOTIATE_ALLREDUCE", 1000),
            ("X", "1", 1000),
            ("X", "0", 1030),
            ("E", "", 1032),
            ("B", "ALLREDUCE", 1042),
            ("B", "MPI_ALLREDUCE", 1043),
            ("E", "", 1140),
            ("E", "", 1142),
        ),
    )
    (bucket,) = found.buckets
    assert bucket == BucketTime(
        "gradients.0",
        1,
        pytest.approx(32e-6),  # type: ignore[arg-type]
        pytest.approx(10e-6),  # type: ignore[arg-type]
        pytest.approx(100e-6),  # type: ignore[arg-type]
        pytest.approx(100e-6),  # type: ignore[arg-type]
    )
    assert found.last == {0: 1}


def test_where_the_cache_hides_the_ranks_nobody_is_blamed(tmp_path: Path) -> None:
    cached = [("B", "NEGOTIATE_ALLREDUCE", 0), ("E", "", 5), ("B", "ALLREDUCE", 6), ("E", "", 9)]
    found = one(tmp_path, trace(*cached, *[(kind, name, at + 100) for kind, name, at in cached]))
    assert (found.last, found.told, found.sums) == ({}, 0, 2)


def test_without_our_buckets_whatever_is_summed_is_shown(tmp_path: Path) -> None:
    found = one(tmp_path, trace(("B", "ALLREDUCE", 6), ("E", "", 9), name="allreduce.conv1.weight"))
    assert [bucket.name for bucket in found.buckets] == ["conv1.weight"]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.integers(1, 400))
def test_in_pieces_of_any_size_it_reads_the_same(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = read(REAL)
    with monkeypatch.context() as context:
        context.setattr(timeline, "CHUNK", size if size > 300 else 300 + size)  # an event has 200 characters at most
        assert read(REAL) == whole


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(end=st.integers(0, len(TEXT) - 3))
def test_of_one_that_breaks_off_the_whole_sums_count(end: int, tmp_path: Path) -> None:
    try:
        found = one(tmp_path, TEXT[:end])
    except ConfigError as error:
        assert "no allreduce" in str(error)
        assert TEXT[:end].count("MPI_ALLREDUCE") <= 1
        return
    assert not found.whole
    assert 0 < found.sums <= 16


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(noise=st.text(max_size=200), where=st.integers(0, len(TEXT)))
def test_noise_is_no_crash(noise: str, where: int, tmp_path: Path) -> None:
    try:
        one(tmp_path, TEXT[:where] + noise + TEXT[where:])
    except ConfigError as error:
        assert "expected a timeline" in str(error)


def test_a_file_that_is_none_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeline, "CHUNK", 1000)
    with pytest.raises(ConfigError, match="expected a timeline of Horovod, found no allreduce in it"):
        one(tmp_path, "{" + 100_000 * "x")
    with pytest.raises(ConfigError, match="No such file"):
        read(tmp_path / "none.json")
