"""A bench's result as a table, as JSON and as a picture."""

import json
from pathlib import Path

import pytest

from hvdtrain.bench.result import Result
from hvdtrain.bench.rounds import Goal
from hvdtrain.errors import EnvironmentFault

RESULT = Result(
    kind="allreduce",
    title="sums of nothing",
    unit="GB/s",
    figures={"ours": [4.0, 4.2, 3.8], "gloo": [1.0, 1.4, 1.2], "copy": [8.0, 8.0, 8.0]},
    goals=(Goal("ours", "gloo", 1.0), Goal("gloo", "ours", 0.5), Goal("ours", "copy"), Goal("ours", "nccl", 1.0)),
    limit="copy",
    notes=("a word at the end",),
    details={"workers": 2, "rows": [{"workers": 2, "bytes": 4096, "seconds": [0.001]}]},
)


def test_the_table_has_figures_ratios_and_verdicts() -> None:
    lines = RESULT.text().splitlines()
    assert lines[0] == "sums of nothing"
    assert max(map(len, lines)) <= 100
    (ours,) = (line for line in lines if line.startswith("ours ") and "/" not in line)
    assert ours.split() == ["ours", "4", "3.8", "4.2", "0.500"]
    (held,) = (line for line in lines if line.startswith("ours / gloo"))
    assert held.split()[-2:] == ["1.00", "holds"]
    (missed,) = (line for line in lines if line.startswith("gloo / ours"))
    assert missed.split()[-2:] == ["0.50", "missed"]
    assert not any("nccl" in line for line in lines), "took no part"
    assert lines[-1] == "a word at the end"


def test_the_json_says_where_it_comes_from_and_keeps_every_round(tmp_path: Path) -> None:
    RESULT.save(tmp_path / "r.json", tmp_path / "r.png")
    found = json.loads((tmp_path / "r.json").read_text())
    assert {"kind", "command", "date", "code", "hardware", "versions", "unit"} <= found.keys()
    assert found["rounds"] == RESULT.figures
    assert found["rows"] == RESULT.details["rows"]
    verdicts = {each["name"]: (each["goal"], each["verdict"]) for each in found["ratios"]}
    assert verdicts == {"ours / gloo": (1.0, "holds"), "gloo / ours": (0.5, "missed"), "ours / copy": (None, "")}
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match=r"gone/.*No such file"):
        RESULT.save(tmp_path / "gone" / "r.json")
