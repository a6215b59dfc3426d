"""No cut, loss or garbling of events.jsonl makes a report or a status screen fail: they say less."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hvdtrain.errors import ConfigError
from hvdtrain.report import page, screen, text
from hvdtrain.report.read import read
from hvdtrain.report.snapshot import snapshot, to_json
from hvdtrain.report.study import study
from tests.report.made import BEGAN, Made, records, write

WHOLE = "".join(
    json.dumps(event) + "\n"
    for part in (Made(windows=4, ends=False), Made(windows=3, workers=3, began=BEGAN + 900, quarantined=1))
    for event in records(part)
).encode()
LINES = WHOLE.splitlines(keepends=True)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("runs") / "torn", Made(windows=1))


def tell(folder: Path, events: bytes, *, columns: float = text.COLUMNS) -> None:
    """Print all that can be of such a run; without a start there is one message."""
    (folder / "events.jsonl").write_bytes(events)
    try:
        found = study(folder)
    except ConfigError as error:
        assert "expected a start" in str(error)
        return
    assert max(map(len, text.render([found]).splitlines())) <= columns
    json.loads(page.to_json([found]), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    now = snapshot(read(folder), now=BEGAN + 1000)
    assert len(screen.plain(now).splitlines()) < 30
    assert "\n" not in screen.line(now)
    json.loads(to_json(now))


@settings(max_examples=60)
@given(end=st.integers(0, len(WHOLE)))
def test_cut_anywhere(folder: Path, end: int) -> None:
    tell(folder, WHOLE[:end])


@settings(max_examples=60)
@given(begin=st.integers(0, len(WHOLE)), length=st.integers(1, 3000))
def test_a_hole_anywhere(folder: Path, begin: int, length: int) -> None:
    tell(folder, WHOLE[:begin] + WHOLE[begin + length :])


@settings(max_examples=60)
@given(kept=st.lists(st.sampled_from(range(len(LINES))), max_size=len(LINES)))
def test_any_lines_in_any_order(folder: Path, kept: list[int]) -> None:
    tell(folder, b"".join(LINES[0:1] + [LINES[i] for i in kept]))


@settings(max_examples=100)
@given(line=st.integers(1, len(LINES) - 1), value=JSON, data=st.data())
def test_any_value_in_any_field(folder: Path, line: int, value: Any, data: st.DataObject) -> None:
    record = json.loads(LINES[line])
    record[data.draw(st.sampled_from(sorted(record)))] = value
    tell(folder, b"".join([*LINES[:line], json.dumps(record).encode() + b"\n", *LINES[line + 1 :]]), columns=math.inf)


@settings(max_examples=60)
@given(line=st.integers(0, len(LINES) - 1), noise=st.binary(max_size=40))
def test_noise_between_lines(folder: Path, line: int, noise: bytes) -> None:
    tell(folder, b"".join([*LINES[: line + 1], noise, b"\n", *LINES[line + 1 :]]))
