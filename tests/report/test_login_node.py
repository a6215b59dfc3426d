"""Status and report load nothing heavy, and nothing that draws where nothing is drawn."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.report.made import Made, write

HEAVY = ("torch", "horovod", "nvidia.dali", "torchvision", "mpi4py", "matplotlib", "PIL")


@pytest.mark.parametrize(
    "call",
    [
        "from hvdtrain.report.live import status; status(Path('r50'), follow=False, json=False)",
        "from hvdtrain.report.live import status; status(Path('r50'), follow=True, json=True)",
        "from hvdtrain.report.page import report; print(report([Path('r50')]))",
        "from hvdtrain.report.page import report; print(report([Path('r50')], as_json=True))",
    ],
)
def test_nothing_heavy_is_imported(call: str, tmp_path: Path) -> None:
    write(tmp_path / "r50", Made(workers=8, windows=5))
    program = f"""
import sys
from pathlib import Path
{call}
print("loaded", sorted(name for name in {HEAVY!r} if name in sys.modules))
"""
    ran = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines()[-1] == "loaded []"
    assert "r50" in ran.stdout
