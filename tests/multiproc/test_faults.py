"""Something is wrong on one of two workers: the breakdown shows it where it is, with its size, and nowhere else.

A slow link is in tests/cluster.
"""

import json
import statistics
import sys

import pytest

from hvdtrain.cli import main
from hvdtrain.metrics.breakdown import PARTS

from .conftest import MEASURED, Job, Launch
from .faulty import WINDOW

pytestmark = pytest.mark.multiproc

MILLISECONDS = 300  # a busy machine makes two workers differ by tens of them
WINDOWS = 12
RUN = (
    MEASURED,
    *("--data.image_size=32", "--epochs=50", f"--run.report_every={WINDOW}", "--evaluation.at_end=false"),
    *("--evaluation.every_epochs=50", "--checkpoint.every_epochs=50"),
)
FAULTS = [("input", "input"), ("compute", "straggler")]  # what is slow, and the part in which that shows


def faulty(launch: Launch, place: str, when: str, windows: int) -> Job:
    program = (sys.executable, "-m", "tests.multiproc.faulty", place, "1", str(MILLISECONDS), when)
    steps = f"--max_steps={windows * WINDOW}"
    return launch("mpirun", 2, *RUN, steps, name=f"{place}-{when}", program=program).finish()


@pytest.mark.parametrize(("place", "part"), FAULTS)
def test_a_fault_grows_its_own_part_by_its_size_and_no_other(launch: Launch, place: str, part: str) -> None:
    """Window by window with it and without, so that only the fault differs."""
    reports = faulty(launch, place, "alternately", WINDOWS).events("report")
    sound, slow = reports[2::2], reports[1::2]
    grown = {
        name: statistics.median(1000 * report["parts"][name] for report in slow)
        - statistics.median(1000 * report["parts"][name] for report in sound)
        for name in PARTS
    }
    assert grown[part] == pytest.approx(MILLISECONDS, rel=0.15)
    assert {name: ms for name, ms in grown.items() if name != part and abs(ms) > 0.15 * MILLISECONDS} == {}


@pytest.mark.parametrize(("place", "part"), FAULTS)
def test_the_report_names_it_first_with_its_size(
    launch: Launch, place: str, part: str, capsys: pytest.CaptureFixture[str]
) -> None:
    job = faulty(launch, place, "always", 6)
    assert main(["report", "--json", str(job.folder)]) == 0
    first, *_ = json.loads(capsys.readouterr().out)["runs"][0]["losses"]
    assert first["cause"] == part
    assert 1000 * first["step_seconds"] == pytest.approx(MILLISECONDS, rel=0.15)
    assert any("rank 1" in line for line in first["evidence"])
