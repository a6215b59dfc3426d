"""The scripts in slurm/ are what the commands in their README print."""

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from hvdtrain.cli import main

FOLDER = Path(__file__).parents[2] / "slurm"
README = (FOLDER / "README.md").read_text()
EXAMPLES = dict(
    re.findall(r"^\[(\w+\.sbatch)\].*?```console\n\$ (hvdtrain submit .*?)```", README, re.DOTALL | re.MULTILINE)
)


@pytest.mark.parametrize("name", ["train.sbatch", "scaling.sbatch", "bench.sbatch", "prepare.sbatch"])
def test_an_example_is_what_its_command_prints(
    name: str, golden: object, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(shlex.split(EXAMPLES[name].replace("\\\n", " "))[1:]) == 0
    golden(FOLDER / name, capsys.readouterr().out)  # type: ignore[operator]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("script", sorted(FOLDER.glob("*.sbatch")), ids=lambda path: path.name)
def test_an_example_is_bash_that_shellcheck_likes(script: Path) -> None:
    assert (
        subprocess.run(["shellcheck", "--shell=bash", "--exclude=SC1090,SC2034,SC2329", script], check=False).returncode
        == 0
    )


def test_every_setting_that_the_readme_names_exists() -> None:
    from hvdtrain.config.schema import Config

    for section, field in re.findall(r"--([a-z]+)\.([a-z_]+)", README):
        assert field in type(getattr(Config(), section)).model_fields, f"{section}.{field}"
