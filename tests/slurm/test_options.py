"""Which options of sbatch may be passed through."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from hvdtrain.errors import ConfigError
from hvdtrain.slurm.options import KNOWN, OURS, VALID, array_tasks, check


def test_options_of_sbatch_pass() -> None:
    check({"qos": "high", "exclusive": "", "mem": "0", "constraint": "a100&nvlink", "dependency": "afterok:1"})


def test_an_unknown_name_is_told_with_the_nearest_and_all_valid_ones() -> None:
    with pytest.raises(
        ConfigError, match=r"job.sbatch reservatoin: no option of sbatch; the nearest is reservation"
    ) as told:
        check({"reservatoin": "x"})
    assert ", ".join(sorted(VALID)) in str(told.value)


@pytest.mark.parametrize(
    ("name", "instead"), [("nodes", "job.nodes"), ("output", "run.dir"), ("signal", "job.warn_seconds")]
)
def test_what_hvdtrain_sets_itself_names_the_setting(name: str, instead: str) -> None:
    with pytest.raises(ConfigError, match=f"job.sbatch {name}: hvdtrain sets it itself → use {instead}"):
        check({name: "1"})


@pytest.mark.parametrize("value", ["a\nb", "a\0b", "a\rb", "\x1b[2J", "a\u2028b"])
def test_a_value_is_on_one_line(value: str) -> None:
    with pytest.raises(ConfigError, match="expected printable characters on one line"):
        check({"qos": value})


def test_what_hvdtrain_sets_are_options_and_name_settings_that_exist() -> None:
    from hvdtrain.config.machines import JobConfig

    assert OURS.keys() <= KNOWN
    named = {name for text in OURS.values() for name in re.findall(r"job\.(\w+)", text)}
    assert named <= set(JobConfig.model_fields)


def test_the_table_has_every_option_of_the_sbatch_that_is_here(tmp_path: Path) -> None:
    assert shutil.which("sbatch"), "docker/test-setup.sh brings it"
    (tmp_path / "slurm.conf").write_text("ClusterName=x\nSlurmctldHost=localhost\n")
    helped = subprocess.run(
        ["sbatch", "--help"], capture_output=True, text=True, check=True, env={"SLURM_CONF": f"{tmp_path}/slurm.conf"}
    )
    listed = set(re.findall(r"^ {1,6}(?:-\w, )? *--([a-z-]+)", helped.stdout, re.MULTILINE))
    assert len(listed) > 80
    assert listed - KNOWN == {"help", "usage", "version"}


@pytest.mark.parametrize("spec", ["", "x", "3-1", "-1", "1-", "0-99999999", "1,,2", "0-5:0", "9" * 100, "%4"])
def test_a_list_of_tasks_that_is_none_is_refused(spec: str) -> None:
    with pytest.raises(ConfigError, match="expected ids such as"):
        array_tasks(spec)
