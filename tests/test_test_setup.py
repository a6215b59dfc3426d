"""docker/test-setup.sh, where it has nothing to do and where it may do nothing."""

import os
import shutil
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[1] / "docker" / "test-setup.sh"


def test_it_is_silent_when_all_is_there() -> None:
    ran = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


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
