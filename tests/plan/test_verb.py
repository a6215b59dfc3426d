"""`hvdtrain plan`, as it is typed."""

import json
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from hvdtrain.cli import main
from hvdtrain.plan.ask import Ask

from ..pages import parsers

PAPER = ["plan", "--model", "resnet50", "--gpus", "256", "--gpu", "p100", "--link", "50gbit"]
PNG = b"\x89PNG\r\n\x1a\n"


def test_the_papers_hour(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PAPER, "--price", "1.5"]) == 0
    said = capsys.readouterr().out
    for word in (
        "images/s",
        "E_w = ",
        "80 % interval",
        "communication, exposed",
        "stragglers",
        "input",
        "costs",
    ):
        assert word in said
    for how in ("tabulated", "assumed", "asked"):
        assert f" {how} " in said
    assert max(map(len, said.splitlines())) <= 100


def test_the_record_has_all_that_the_words_have(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*PAPER, "--sweep", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["kind"] == "plan"
    assert said["asked"]["gpus_per_node"] == 8
    assert {each["how"] for each in said["inputs"]} == {"tabulated", "assumed", "asked"}
    assert [each["workers"] for each in said["predictions"]] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    for each in said["predictions"]:
        assert each["step_seconds"] == pytest.approx(sum(each["parts_seconds"].values()))
        assert each["efficiency_low"] <= each["efficiency_weak"] <= each["efficiency_high"]
        assert each["limit"] in ("computing", "communication", "negotiation", "stragglers", "input")


def test_a_deadline(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--gpu", "p100", "--link", "50gbit", "--deadline", "2h"]) == 0
    assert "are the fewest" in capsys.readouterr().out
    assert main(["plan", "--gpu", "k80", "--link", "1gbit", "--deadline", "10min", "--batch", "64", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["deadline"]
    assert said["meets"] is None
    assert said["why"]


def test_the_command_lines_defaults_are_the_asks() -> None:
    given = parsers()["hvdtrain plan"]
    assert {f.name: given.get_default(f.name) for f in fields(Ask)} == {f.name: f.default for f in fields(Ask)}


def test_figures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    curve, proof = tmp_path / "curve.png", tmp_path / "validation.png"
    assert main([*PAPER, "--sweep", "--figure", str(curve)]) == 0
    assert main(["plan", "--validate", "--figure", str(proof), "--json"]) == 0
    assert curve.read_bytes().startswith(PNG)
    assert proof.read_bytes().startswith(PNG)


def test_a_fit_is_printed_and_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [
        {"workers": k, "bytes": size, "seconds": [2 * (k - 1) * (size / k / 1e9 + 3e-5)] * 3}
        for k in (2, 4)
        for size in (1024, 2**24)
    ]
    bench = tmp_path / "allreduce.json"
    bench.write_text(json.dumps({"kind": "allreduce", "workers": 4, "rows": rows, "hardware": "x", "date": "y"}))
    assert main(["plan", "--fit", str(bench)]) == 0
    assert "30 ± " in capsys.readouterr().out
    assert main(["plan", "--fit", str(bench), "--json"]) == 0
    fitted = tmp_path / "fit.json"
    fitted.write_text(capsys.readouterr().out)
    assert main([*PAPER, "--fit", str(fitted), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert "measured" in {each["how"] for each in said["inputs"]}
    assert said["fit"]["bytes_per_second"] == pytest.approx(1e9)


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--gpus", "8", "--gpu", "p200"], "wanted one of p100, v100"),
        ([], "say --gpus K"),
        (["--gpus", "8", "--figure", "x.png"], "add one of them"),
        (["--deadline", "soon"], "--deadline soon"),
        (["--gpus", "0"], "--gpus 0: wanted a number of workers, of 1 to 1,000,000"),
        (["--gpus", f"1{'0' * 19}"], "wanted a number of workers"),
        (["--gpus", "8", "--sweep", "--figure", "/no/such/folder/x.png"], "a file that can be written"),
    ],
)
def test_what_is_wrong_is_said(more: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    try:
        code: int | str | None = main(["plan", *more])
    except SystemExit as end:
        code = end.code
    assert code == 2
    assert says in capsys.readouterr().err


def test_it_answers_at_once_and_without_torch() -> None:
    program = f"""
import sys
from hvdtrain.cli import main
assert main({PAPER!r}) == 0
heavy = ("torch", "horovod", "nvidia.dali", "torchvision", "mpi4py", "matplotlib")
print([name for name in heavy if name in sys.modules])
"""
    begun = time.monotonic()
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "[]"
    assert time.monotonic() - begun < 10  # on a machine that others use as well
