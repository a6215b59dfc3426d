"""Golden records fail when they differ and when they are missing, and are written only when asked for."""

from collections.abc import Callable
from pathlib import Path

import pytest

Golden = Callable[[Path, str], None]


@pytest.fixture
def asked(pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda update: monkeypatch.setattr(pytestconfig.option, "update_golden", update)


def test_a_missing_record_fails(golden: Golden, asked: Callable[[bool], None], tmp_path: Path) -> None:
    asked(False)
    with pytest.raises(AssertionError, match="--update-golden writes it"):
        golden(tmp_path / "record", "text")
    assert list(tmp_path.iterdir()) == []


def test_a_record_is_compared_whole(golden: Golden, asked: Callable[[bool], None], tmp_path: Path) -> None:
    asked(True)
    golden(tmp_path / "record", "text\n")
    asked(False)
    golden(tmp_path / "record", "text\n")
    with pytest.raises(AssertionError, match="differs"):
        golden(tmp_path / "record", "text")
