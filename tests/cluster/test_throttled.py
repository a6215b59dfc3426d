"""A slow link between two hosts is named for what it is, and with its size."""

import json
import statistics

import pytest

from hvdtrain.cli import main

from ..multiproc.conftest import MEASURED
from .conftest import Network

pytestmark = pytest.mark.multiproc

WINDOW = 10  # steps
QUIET = (
    MEASURED,
    *("--data.image_size=32", "--epochs=50", f"--run.report_every={WINDOW}", "--evaluation.at_end=false"),
    *("--evaluation.every_epochs=50", "--checkpoint.every_epochs=50"),
)
MEGABITS = 12
WINDOWS = 20
OTHERS = ("input", "compute", "straggler", "rest")


def test_a_throttled_link_is_exposed_communication_and_nothing_else(network: Network) -> None:
    """Every second pair of windows is throttled: what the steps then take longer has to be communication."""
    job = network.launch(f"--max_steps={WINDOWS * WINDOW}", *QUIET, name="throttled")
    for pair in range(1, WINDOWS // 2):
        job.until(f"pair {pair}", lambda pair=pair: len(job.events("report")) >= 2 * pair)  # type: ignore[misc]
        network.throttle(MEGABITS if pair % 2 else None)
    job.finish()
    free, slow = job.events("report")[5::4], job.events("report")[3::4]  # the first of each pair has something of both

    def grown(part: str) -> float:
        middle = [statistics.median(report["parts"][part] for report in reports) for reports in (slow, free)]
        return middle[0] - middle[1]

    durations = [statistics.median(report["step_seconds"] for report in reports) for reports in (slow, free)]
    fault = durations[0] - durations[1]
    payload = sum(job.environment()["bucket_bytes"])  # of two workers each sends all of it
    assert fault > 0.9 * payload * 8 / (MEGABITS * 1e6)  # as the link's rate has it, and what else travels
    assert grown("communication") == pytest.approx(fault, rel=0.15)
    assert {part: grown(part) for part in OTHERS if abs(grown(part)) > 0.15 * fault} == {}


def test_the_report_names_the_link_first_with_its_size(network: Network, capsys: pytest.CaptureFixture[str]) -> None:
    """Throttled from the start, beside a run on the same hosts that is not."""
    steps = (f"--max_steps={6 * WINDOW}", *QUIET)
    sound = network.launch(*steps, name="sound").finish()
    network.throttle(MEGABITS)
    slow = network.launch(*steps, name="slow").finish()
    of_step = [statistics.mean(report["step_seconds"] for report in job.events("report")) for job in (sound, slow)]
    assert main(["report", "--json", str(slow.folder)]) == 0
    first, *_ = json.loads(capsys.readouterr().out)["runs"][0]["losses"]
    assert first["cause"] == "communication"
    assert first["step_seconds"] == pytest.approx(of_step[1] - of_step[0], rel=0.15)
