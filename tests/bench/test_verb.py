"""`hvdtrain bench`: what it refuses, in one line."""

from dataclasses import asdict

import pytest

from hvdtrain.bench import allreduce, input
from hvdtrain.cli import _parser, main


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "the following arguments are required: BENCH"),
        (("nothing",), "unknown bench nothing; expected one of input, "),
        (("all",), "required: --dir"),
        (("allreduce", "--workers=1"), "--workers 1: expected 2 at least"),
        (("allreduce", "--rounds=0"), "--rounds 0: expected 1 at least"),
        (("allreduce", "--contenders", "x"), "--contenders x: expected some of ours"),
        (("scaling", "--workers=1,x"), "--workers 1,x: expected numbers of workers such as 1,2,4"),
        (("scaling", "--workers=2,3"), "expected divisors of 3, got 2"),
        (("scaling", "--steps=0"), "--steps 0: expected 1 at least"),
        (("scaling", "--modle.name=x"), "unknown option --modle.name"),
        (("input", "--data=/nowhere"), "--data /nowhere: expected folders train/<class> and val/<class>"),
        (("input", "--contenders", "x"), "--contenders x: expected some of ours"),
        (("allreduce", "--json=/nowhere/a.json"), "/nowhere/a.json: no folder /nowhere"),
        (("step", "--batch=0"), "--batch 0: expected 1 at least"),
    ],
)
def test_a_mistake_is_one_line(arguments: tuple[str, ...], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    lines = [line for line in err.splitlines() if line.startswith("hvdtrain: ")]
    assert len(lines) == 1


@pytest.mark.parametrize(("bench", "options"), [("allreduce", allreduce.Options()), ("input", input.Options())])
def test_the_verbs_defaults_are_the_standard_conditions(bench: str, options: allreduce.Options | input.Options) -> None:
    given = vars(_parser().parse_args(["bench", bench]))
    standard = asdict(options) | ({"threads": 0} if bench == "input" else {})  # 0: as many as cores
    assert {name: given[name] for name in standard if name in given} == {
        name: value for name, value in standard.items() if name in given
    }


@pytest.mark.parametrize(("kind", "device"), [("step", "cuda"), ("allreduce", "cuda"), ("input", "gpu")])
def test_without_a_gpu_one_line_says_so(
    kind: str, device: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert main(["bench", kind, "--device", device]) == 3
    (line,) = capsys.readouterr().err.splitlines()
    assert "--device asks for a GPU, and torch sees none here" in line
