"""docker/test-setup.sh, where it has nothing to do and where it may do nothing."""

import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docker" / "test-setup.sh"


def test_it_is_silent_when_all_is_there() -> None:
    ran = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_it_knows_slurm_and_munge_by_their_commands(tmp_path: Path) -> None:
    for name in ("bash", "wc", "id", "promtool", "prometheus", "ssh", "sshd", "ssh-keygen", "ip", "tc", "sbatch"):
        (tmp_path / name).symlink_to("/bin/true" if name not in ("bash", "wc", "id") else str(shutil.which(name)))
    script = SCRIPT.read_text().replace("PATH=$PATH:/usr/sbin:/sbin", ":")
    environment = {"PATH": str(tmp_path), "HVDTRAIN_WHEELHOUSE": str(tmp_path)}
    ran = subprocess.run(["bash"], input=script, capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 1
    assert "the tests need slurm-wlm munge;" in ran.stderr


def test_it_says_what_is_missing_where_it_must_not_install(tmp_path: Path) -> None:
    for name in ("bash", "wc", "id", "promtool", "ssh", "ssh-keygen"):
        found = shutil.which(name)
        assert found
        (tmp_path / name).symlink_to(found)
    environment = {**os.environ, "PATH": str(tmp_path), "HVDTRAIN_WHEELHOUSE": str(tmp_path)}
    ran = subprocess.run([SCRIPT], capture_output=True, text=True, check=False, env=environment)
    assert ran.returncode == 1
    assert ran.stderr.startswith("test-setup: error: the tests need prometheus")
    assert "apt-get install prometheus" in ran.stderr
