"""A cluster's own sums."""

import json
from pathlib import Path
from typing import Any

import pytest

from hvdtrain.errors import ConfigError
from hvdtrain.plan import fit
from hvdtrain.plan.allreduce import ring


def bench(*, alpha: float = 20e-6, bandwidth: float = 1.1e9, outlier: float = 1.0) -> dict[str, Any]:
    rows = []
    for k in (1, 2, 4):
        for i, size in enumerate((4096, 2**20, 2**24, 100 * 2**20)):
            seconds = ring(size, k, bandwidth, alpha) or 1e-6
            slow = outlier if i == 2 else 1.0
            rows.append(
                {"workers": k, "bytes": size, "seconds": [seconds * f * slow for f in (0.98, 1.0, 1.0, 1.02, 3.0)]}
            )
    return {"kind": "allreduce", "workers": 4, "rows": rows, "hardware": "four hosts", "date": "2026-11-26"}


def written(folder: Path, content: Any) -> Path:
    file = folder / "allreduce.json"
    file.write_text(json.dumps(content))
    return file


def test_hop_and_byte_come_back(tmp_path: Path) -> None:
    found = fit.read(written(tmp_path, bench()))
    assert found.alpha_seconds == pytest.approx(20e-6, rel=0.01)
    assert found.bytes_per_second == pytest.approx(1.1e9, rel=0.01)
    assert (found.workers, found.sums, found.hardware) == (4, 40, "four hosts")
    assert 0.5 < found.jitter < 1.0  # one sum of five takes three times as long


def test_a_size_that_is_off_pulls_little(tmp_path: Path) -> None:
    found = fit.read(written(tmp_path, bench(outlier=1.5)))
    assert found.bytes_per_second == pytest.approx(1.1e9, rel=0.1)


def test_what_was_fitted_can_be_read_again(tmp_path: Path) -> None:
    found = fit.read(written(tmp_path, bench()))
    assert fit.read(written(tmp_path, found.as_dict())) == found
    assert fit.read(written(tmp_path, {"kind": "plan", "fit": found.as_dict()})) == found


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"kind": "scaling"}, "'scaling', wanted a file of kind 'allreduce'"),
        ([], "'list'"),
        ({"kind": "allreduce", "workers": 2, "rows": []}, "two sizes"),
        ({"kind": "allreduce", "workers": 2, "rows": [{"bytes": 8}]}, "seconds"),
    ],
)
def test_another_file_is_refused(tmp_path: Path, content: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        fit.read(written(tmp_path, content))


def test_a_missing_or_torn_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"No such file.*hvdtrain bench allreduce"):
        fit.read(tmp_path / "none.json")
    torn = tmp_path / "torn.json"
    torn.write_text('{"kind": ')
    with pytest.raises(ConfigError, match="not JSON"):
        fit.read(torn)
