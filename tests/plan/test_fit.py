"""A cluster's own sums."""

import json
from pathlib import Path
from typing import Any

import pytest

from hvdtrain.errors import ConfigError
from hvdtrain.plan import fit
from hvdtrain.plan.allreduce import ring

BANDWIDTH = 1.1e9


def bench(
    *, alpha: float = 20e-6, fixed: float = 0.0, outlier: float = 1.0, workers: tuple[int, ...] = (1, 2, 4)
) -> dict[str, Any]:
    rows = []
    for k in workers:
        for i, size in enumerate((4096, 2**20, 2**24, 100 * 2**20)):
            seconds = fixed + ring(size, k, BANDWIDTH, alpha) or 1e-6
            slow = outlier if i == 2 else 1.0
            rows.append(
                {"workers": k, "bytes": size, "seconds": [seconds * f * slow for f in (0.98, 1.0, 1.0, 1.02, 3.0)]}
            )
    return {"kind": "allreduce", "workers": 4, "rows": rows, "hardware": "four hosts", "date": "2026-11-26"}


FITTED = fit.Fit(2, 4e-4, None, 1e9, 0.0, 0.0, 0.0, 0.1, 0.1, 9, "x", "y").as_dict()


def written(folder: Path, content: Any) -> Path:
    file = folder / "allreduce.json"
    file.write_text(json.dumps(content))
    return file


def test_hop_and_byte_come_back(tmp_path: Path) -> None:
    found = fit.read(written(tmp_path, bench()))
    assert found.hop_seconds == pytest.approx(20e-6, rel=0.01)
    assert found.fixed_seconds == pytest.approx(0, abs=1e-7)
    assert found.bytes_per_second == pytest.approx(1.1e9, rel=0.01)
    assert (found.workers, found.sums, found.hardware) == (4, 40, "four hosts")
    assert 0.5 < found.jitter < 1.0  # one sum of five takes three times as long


def test_several_numbers_of_workers_tell_a_hop_from_what_is_fixed(tmp_path: Path) -> None:
    found = fit.read(written(tmp_path, bench(fixed=4e-4)))
    assert found.fixed_seconds == pytest.approx(4e-4, rel=0.01)
    assert found.hop_seconds == pytest.approx(20e-6, rel=0.01)
    assert found.bytes_per_second == pytest.approx(BANDWIDTH, rel=0.01)


@pytest.mark.parametrize("workers", [2, 8])
def test_one_number_of_workers_does_not(tmp_path: Path, workers: int) -> None:
    found = fit.read(written(tmp_path, bench(fixed=4e-4, alpha=5e-6, workers=(workers,))))
    assert found.hop_seconds is None
    assert found.fixed_seconds == pytest.approx(4e-4 + 2 * (workers - 1) * 5e-6, rel=0.01)
    assert found.fixed_besides(5e-6) == pytest.approx(4e-4, rel=0.01)
    assert found.fixed_besides(1.0) == 0


def test_where_it_was_measured_is_within_a_node_unless_it_says_otherwise(tmp_path: Path) -> None:
    assert fit.read(written(tmp_path, bench())).between == "within a node"
    assert fit.read(written(tmp_path, {**bench(), "between": "nodes"})).between == "nodes"


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
        ({"kind": "allreduce", "rows": [1]}, r"rows\.0: wanted an object, got 1"),
        ({"kind": "allreduce", "rows": [{"bytes": "8", "seconds": [1.0]}]}, r"rows\.0\.bytes: .*number, got '8'"),
        ({"kind": "allreduce", "rows": [{"bytes": 8, "seconds": ["1"]}]}, r"rows\.0\.seconds\.0: .*number, got '1'"),
        ({"kind": "allreduce", "workers": 2, "rows": [{"bytes": b, "seconds": [1]} for b in (8, 9)]}, "no longer"),
        ({"fit": [1]}, r": fit: wanted an object, got \[1\]"),
        ({"fit": FITTED | {"bytes_per_second": 0}}, r"bytes_per_second: .*greater than 0, got 0"),
        (FITTED | {"kind": "allreduce-fit", "fixed_seconds": "1"}, r"fixed_seconds: .*number, got '1'"),
        (FITTED | {"kind": "allreduce-fit", "between": "racks"}, r"between: .*'nodes', got 'racks'"),
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
