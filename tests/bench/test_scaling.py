"""Weak and strong scaling, and the workers that know nothing of each other, by real runs."""

import json
from pathlib import Path

import pytest

from hvdtrain.bench import scaling
from hvdtrain.bench.scaling import Options
from hvdtrain.bench.trials import Trial, only_steps, steps_per_second
from hvdtrain.cli import main
from hvdtrain.config.schema import Config
from hvdtrain.data import demo
from hvdtrain.errors import ConfigError
from hvdtrain.report.page import report


def test_strong_scaling_keeps_the_minibatch() -> None:
    found = scaling._contenders(Options(Config(), Path(), workers=(1, 2, 4)), [1, 2, 4], ("weak", "strong"))
    assert list(found) == [*("weak-1", "weak-2", "weak-4", "strong-1", "strong-2", "independent-2", "independent-4")]
    assert {trial.workers * trial.micro_batches for name, trial in found.items() if "strong" in name} == {4}


def test_a_launcher_of_ones_own_has_no_independent_runs() -> None:
    options = Options(Config(), Path(), launcher="mpirun --hostfile 'my hosts' -np {workers}", per_node=1)
    found = scaling._contenders(options, [1, 2], ("weak",))
    assert list(found) == ["weak-1", "weak-2"]
    assert found["weak-2"].command(["train"]) == ["mpirun", "--hostfile", "my hosts", "-np", "2", "hvdtrain", "train"]


def test_numbers_of_workers_that_share_no_minibatch_are_refused() -> None:
    with pytest.raises(ConfigError, match="expected divisors of 4, got 3"):
        scaling.measure(Options(Config(), Path(), workers=(1, 3, 4)), 1)
    with pytest.raises(ConfigError, match="--workers 0,1: expected numbers of workers"):
        scaling.measure(Options(Config(), Path(), workers=(0, 1)), 1)


def test_the_steps_of_a_trial_are_of_one_minibatch(tmp_path: Path) -> None:
    settings = only_steps(Config(), tmp_path / "run", threads=3, steps=30, global_batch_size=128)
    assert settings["train"]["global_batch_size"] == 128
    assert settings["max_steps"] == 80
    Config.model_validate(settings)


def test_runs_that_never_met_count_with_all_they_did() -> None:
    one = [{"time": 1.0, "steps": 10, "step_seconds": 0.1}]
    other = [{"time": 5.0, "steps": 10, "step_seconds": 0.2}]
    assert steps_per_second([one, other]) == pytest.approx(15)


def test_independent_runs_are_started_as_one_worker_each() -> None:
    assert Trial(4, independent=True).command(["train"])[1:] == ["train"]


@pytest.mark.multiproc
def test_both_kinds_and_the_machine_beside_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digits, file = tmp_path / "digits", tmp_path / "scaling.json"
    demo.write(digits)
    given = ["bench", "scaling", "--config=demo", f"--data.dir={digits}", "--data.image_size=16", "--steps=20"]
    assert main([*given, "--rounds=1", f"--dir={tmp_path / 'runs'}", f"--json={file}"]) == 0
    table = capsys.readouterr().out
    for ratio in ("weak-2 / weak-1", "strong-2 / strong-1", "weak-2 / independent-2"):
        assert ratio in table
    assert "weak-k / weak-1 is E_w(k|1), weak scaling, n = 16 of each worker constant" in table
    found = json.loads(file.read_text())
    assert found["kind"] == "weak"
    assert [point["workers"] for point in found["points"]] == [1, 2]
    assert [point["workers"] for point in found["strong"]] == [1, 2]
    assert [point["workers"] for point in found["independent"]] == [2]
    assert found["strong"][1]["rounds"] == found["points"][1]["rounds"]
    assert found["points"][1]["rounds"] == [2 * each for each in found["rounds"]["weak-2"]]
    assert [path for path in (tmp_path / "runs").iterdir() if path.is_dir() and path.name[0] != "."] == []
    assert "E(k|1)" in report([], scaling=file)
